//! `cargo xtask lint`: formatting, clippy, documentation and the house rules that no tool knows.
//!
//! Every check runs to its end and reports all its findings before the command fails.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Result, bail};

use crate::setup::{self, Needs};
use crate::shell;
use crate::workspace::Workspace;

/// Check formatting, clippy, documentation and the house rules.
#[derive(clap::Args)]
pub struct Args {
    /// Install missing tools without asking.
    #[arg(long, short)]
    yes: bool,
}

/// Runs every check, then fails if one of them did.
pub fn run(args: &Args) -> Result<()> {
    setup::ensure(&[Needs::Build], args.yes)?;
    let workspace = Workspace::find()?;
    let mut failed = Vec::new();
    let mut check = |name: &str, outcome: Result<()>| {
        if let Err(error) = outcome {
            println!("lint: {name}: {error:#}");
            failed.push(name.to_owned());
        }
    };

    let mut fmt = workspace.cargo();
    check("formatting", shell::run(fmt.args(["fmt", "--all", "--check"])));

    // The probes are compiled for another target and checked by their own build.
    let all = ["--workspace", "--exclude", "terrarium-probes"];
    let mut clippy = workspace.cargo();
    clippy.arg("clippy").args(all).args(["--all-targets", "--keep-going", "--", "-D", "warnings"]);
    check("clippy", shell::run(&mut clippy));

    let mut doc = workspace.cargo();
    doc.env("RUSTDOCFLAGS", "-D warnings").arg("doc").args(all);
    check("documentation", shell::run(doc.args(["--no-deps", "--document-private-items"])));

    check("house rules", house_rules(&workspace.root));

    if failed.is_empty() {
        println!("lint: clean");
        return Ok(());
    }
    bail!("{} found something (listed above); to repeat it: cargo xtask lint", failed.join(", "))
}

/// Looks through every tracked text file.
fn house_rules(root: &Path) -> Result<()> {
    let mut git = Command::new("git");
    // A checkout that belongs to somebody else (a container, sudo) is still readable.
    git.current_dir(root).args(["-c", "safe.directory=*", "ls-files"]);
    let mut findings = 0;
    for name in shell::output(&mut git)?.lines() {
        let file = root.join(name);
        let Ok(text) = fs::read_to_string(&file) else { continue };
        for finding in findings_in(name, &text, |path| root.join(path).exists()) {
            println!("{finding}");
            findings += 1;
        }
    }
    if findings > 0 {
        bail!("{findings} findings");
    }
    Ok(())
}

/// `file:line: what is wrong (what to do)`, for one file.
fn findings_in(name: &str, text: &str, exists: impl Fn(&Path) -> bool) -> Vec<String> {
    let mut findings = Vec::new();
    let markdown = Path::new(name).extension().is_some_and(|extension| extension == "md");
    for (index, line) in text.lines().enumerate() {
        let mut find = |what: &str| findings.push(format!("{name}:{}: {what}", index + 1));
        if let Some(path) = machine_path(line) {
            find(&format!("{path}… is a path of one machine (use a relative or variable one)"));
        }
        if line.ends_with([' ', '\t']) && !markdown {
            find("white space at the end of the line (remove it)");
        }
        if markdown {
            for target in local_links(line) {
                let folder = Path::new(name).parent().unwrap_or(Path::new(""));
                if !exists(&normal(&folder.join(target))) {
                    find(&format!("the link to {target} leads nowhere (correct or remove it)"));
                }
            }
        }
    }
    findings
}

/// A folder in which only one person's machine keeps things.
fn machine_path(line: &str) -> Option<&'static str> {
    // Written in halves, or this file would find itself.
    [concat!("/ho", "me/"), concat!("/ro", "ot/"), concat!("/wo", "rk/"), concat!("/Use", "rs/")]
        .into_iter()
        .find(|path| {
            line.match_indices(path).any(|(at, _)| {
                // a folder of that name further down is somewhere else.
                !line[..at].ends_with(|c: char| c.is_alphanumeric() || "._-}".contains(c))
            })
        })
}

/// Targets of Markdown links that are files of the repository.
fn local_links(line: &str) -> impl Iterator<Item = &str> {
    line.split("](").skip(1).filter_map(|rest| {
        let target = rest.split([')', '#', ' ']).next()?;
        (!target.is_empty() && !target.contains("://") && !target.starts_with("mailto:"))
            .then_some(target)
    })
}

/// The path without `.` and `..`.
fn normal(path: &Path) -> PathBuf {
    let mut out = PathBuf::new();
    for part in path.components() {
        match part {
            std::path::Component::ParentDir => {
                out.pop();
            }
            std::path::Component::CurDir => {}
            other => out.push(other),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn findings_name_file_line_and_remedy() {
        let exists = |path: &Path| path == Path::new("docs/KERNELS.md");
        let home = concat!("/ho", "me/me/x");
        for (name, text, expected) in [
            ("a.rs", "let a = 1;\n", 0),
            ("a.rs", "let a = 1; \n", 1),
            ("a.rs", home, 1),
            ("a.rs", concat!("the folder {root}/wo", "rk/x"), 0),
            ("docs/A.md", "[k](KERNELS.md) and [k](../docs/KERNELS.md#six)", 0),
            ("docs/A.md", "see [gone](GONE.md)", 1),
            ("docs/A.md", "see [there](https://example.org/a.md) and [here](#here)", 0),
        ] {
            let found = findings_in(name, text, exists);
            assert_eq!(found.len(), expected, "{name}: {text}: {found:?}");
        }
    }
}
