//! How `terrarium-runtime` finds the whole program and becomes it.

use crate::exit;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

/// The whole program's name.
const NAME: &str = "terrarium";

/// Executes the whole program with the arguments of this one; returns only if that fails.
pub fn execute() -> ExitCode {
    let error = match find() {
        Some(program) => {
            let error = Command::new(&program).args(std::env::args_os().skip(1)).exec();
            anyhow::Error::new(error).context(format!("execute {}", program.display()))
        }
        None => anyhow::anyhow!(
            "find the program {NAME}, which knows this command line: it is neither beside terrarium-runtime nor in PATH (install both into one folder)"
        ),
    };
    exit::report(&error)
}

/// The whole program: beside this one, else in `PATH`.
fn find() -> Option<PathBuf> {
    let beside = |own: &Path| own.parent().map(|folder| folder.join(NAME)).filter(|p| p.is_file());
    // Executed from a mount of its own, this program has no path but that by which it was called.
    let own = std::env::current_exe().ok();
    own.and_then(|own| beside(&own)).or_else(|| beside(&called()?)).or_else(|| in_path(NAME))
}

/// The path by which this program was called.
fn called() -> Option<PathBuf> {
    let name = PathBuf::from(std::env::args_os().next()?);
    let path = if name.components().count() > 1 { name } else { in_path(name.to_str()?)? };
    path.canonicalize().ok()
}

fn in_path(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path).map(|folder| folder.join(name)).find(|path| path.is_file())
}
