//! How memory is kept small: glibc gives each thread an arena of its own, and keeps in it what was freed there.
//!
//! With 1,000 containers that was a third of the observatory's memory. Its threads allocate seldom enough to share one.

/// Has all threads allocate from one arena (mallopt(3)). For the begin of a program, before there are threads.
pub fn share_one_arena() {
    #[cfg(target_env = "gnu")]
    // SAFETY: mallopt takes two numbers and locks what it changes.
    unsafe {
        libc::mallopt(libc::M_ARENA_MAX, 1);
    }
}

/// Gives back to the kernel what lies free after much was allocated at once (`malloc_trim(3)`).
pub fn give_back() {
    #[cfg(target_env = "gnu")]
    // SAFETY: malloc_trim takes a number and locks what it changes.
    unsafe {
        libc::malloc_trim(0);
    }
}
