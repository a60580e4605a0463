//! The program `terrarium-runtime`: see the library.

use std::process::ExitCode;

fn main() -> ExitCode {
    terrarium_cli::runtime()
}
