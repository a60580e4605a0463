//! Diagnostics on stderr, as `TERRARIUM_LOG` asks for (`warn` unless set).

use std::io::IsTerminal;
use tracing_subscriber::EnvFilter;

/// Starts logging; a second call does nothing.
pub fn start() {
    let filter =
        EnvFilter::try_from_env("TERRARIUM_LOG").unwrap_or_else(|_| EnvFilter::new("warn"));
    // It fails only when logging was started before.
    let _ = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal())
        .try_init();
}
