//! Exit codes: 0 success, 1 failure, 2 wrong usage; `run` and `exec` give the code of the program, 125 when
//! terrarium itself failed, 126 when the program cannot be executed, 127 when it was not found, and 128 + n
//! when signal n ended it.

use std::fmt;
use std::process::ExitCode;

/// An error with the exit code that goes with it.
#[derive(Debug)]
pub struct WithCode {
    code: u8,
    source: anyhow::Error,
}

impl WithCode {
    /// Binds `code` to `source`.
    pub fn error(code: u8, source: impl Into<anyhow::Error>) -> anyhow::Error {
        anyhow::Error::new(Self { code, source: source.into() })
    }
}

impl fmt::Display for WithCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // `{:#}` writes the whole chain on one line: what was tried: on what: why.
        write!(f, "{:#}", self.source)
    }
}

impl std::error::Error for WithCode {}

/// Tells `error` on stderr in one line and gives its exit code (1 unless [`WithCode`] says otherwise).
pub fn report(error: &anyhow::Error) -> ExitCode {
    eprintln!("terrarium: {error:#}");
    ExitCode::from(error.downcast_ref::<WithCode>().map_or(1, |with| with.code))
}

/// Prints help or the usage error that clap found: exit code 0 for help and version, 2 for an error.
pub fn usage(error: &clap::Error) -> ExitCode {
    // Only a closed stdout can fail here, and then nobody reads the text.
    let _ = error.print();
    ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(2))
}
