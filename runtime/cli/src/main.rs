//! The program `terrarium`: see the library.

use std::process::ExitCode;

fn main() -> ExitCode {
    terrarium_cli::whole()
}
