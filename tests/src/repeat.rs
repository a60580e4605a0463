//! How often a test does again what must go right every time.

/// The number that `variable` of the environment holds, for a long run by hand; else `usual`, which takes seconds.
pub fn repeats(variable: &str, usual: usize) -> usize {
    std::env::var(variable).ok().and_then(|text| text.parse().ok()).unwrap_or(usual)
}
