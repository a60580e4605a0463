//! How far long work has come.

use std::sync::{Mutex, PoisonError};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use crate::shell;

/// The bar that is on the terminal.
static SHOWN: Mutex<Option<ProgressBar>> = Mutex::new(None);

/// Prints something while no bar is in the way.
pub fn aside(print: impl FnOnce()) {
    match &*SHOWN.lock().unwrap_or_else(PoisonError::into_inner) {
        Some(bar) => bar.suspend(print),
        None => print(),
    }
}

/// A bar on a terminal, with the time that is left; elsewhere a line for each tenth. One at a time.
#[derive(Debug)]
pub struct Progress(ProgressBar);

impl Progress {
    /// Of `total` steps, none done. `what` they are is shown in front.
    pub fn new(what: &'static str, total: u64) -> Self {
        // Nothing is drawn where stderr is no terminal.
        let bar = ProgressBar::with_draw_target(Some(total), ProgressDrawTarget::stderr());
        let style = ProgressStyle::with_template("{msg} [{bar:30}] {pos}/{len}, {eta} to go");
        if let Ok(style) = style {
            bar.set_style(style.progress_chars("=> "));
        }
        bar.set_message(what);
        *SHOWN.lock().unwrap_or_else(PoisonError::into_inner) = Some(bar.clone());
        Self(bar)
    }

    /// One more is done.
    pub fn step(&self) {
        let bar = &self.0;
        bar.inc(1);
        let (now, total) = (bar.position(), bar.length().unwrap_or(0));
        if bar.is_hidden() && tenth(now, total) > tenth(now - 1, total) {
            shell::note(&format!("{}: {now} of {total}", bar.message()));
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        *SHOWN.lock().unwrap_or_else(PoisonError::into_inner) = None;
        self.0.finish_and_clear();
    }
}

fn tenth(done: u64, total: u64) -> u64 {
    10 * done / total.max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_told_for_each_tenth() {
        let told =
            |total: u64| (1..=total).filter(|n| tenth(*n, total) > tenth(n - 1, total)).count();
        assert_eq!((told(61), told(1000), told(4), told(0)), (10, 10, 4, 0));
    }
}
