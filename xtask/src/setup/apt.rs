//! Debian's packages: fresh lists, no recommended extras, and no daemon left behind.
//!
//! A package that brings a daemon starts it when it is configured. Debian's way to say no is
//! `/usr/sbin/policy-rc.d` (invoke-rc.d(8), deb-systemd-invoke(1p)): one is put there for the time
//! of the installation where there is none, and it only says no while this process lives, so that
//! not even a killed set-up leaves a machine that refuses to start its services. Services that
//! were not there before are then disabled, so that they do not start at the next boot either.

use std::ffi::OsString;
use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, SystemTime};

use anyhow::{Context, Result, bail};
use nix::unistd::Uid;

use crate::shell;

const POLICY: &str = "/usr/sbin/policy-rc.d";
const LISTS: &str = "/var/lib/apt/lists";
/// After this long a mirror has usually dropped packages that the old lists still name.
const LISTS_GO_STALE: Duration = Duration::from_hours(24);
/// Where packages put their services.
const SERVICES: [&str; 3] = ["/lib/systemd/system", "/usr/lib/systemd/system", "/etc/init.d"];

/// The machine's apt.
pub struct Apt {
    apt_get: PathBuf,
}

impl Apt {
    pub fn find() -> Option<Self> {
        Some(Self { apt_get: shell::program("apt-get")? })
    }

    /// Fetches the package lists when they are missing or old, or do not know one of the packages.
    pub fn refresh<'a>(&self, packages: impl Iterator<Item = &'a str>) -> Result<()> {
        let packages: Vec<&str> = packages.collect();
        if !lists_are_stale() && self.without_candidate(&packages)?.is_empty() {
            return Ok(());
        }
        shell::run(self.as_root()?.args(["update", "-q"]))
    }

    /// Those of the packages that no source of this machine offers.
    pub fn without_candidate<'a>(&self, packages: &[&'a str]) -> Result<Vec<&'a str>> {
        if packages.is_empty() {
            return Ok(Vec::new());
        }
        let apt_cache = self.apt_get.with_file_name("apt-cache");
        let mut command = Command::new(apt_cache);
        command.env("LC_ALL", "C").arg("policy").args(packages);
        let policy = shell::output(&mut command)?;
        Ok(packages.iter().copied().filter(|package| !has_candidate(&policy, package)).collect())
    }

    /// Installs the packages and nothing that they merely recommend. Removes nothing: where that
    /// would be needed, apt says so and the user decides.
    pub fn install(&self, packages: &[&str]) -> Result<()> {
        let before = services();
        let policy = Policy::put_in_place()?;
        let mut command = self.as_root()?;
        command.args(["install", "--yes", "--no-install-recommends", "--no-remove"]).args(packages);
        let installed = shell::run(&mut command);
        drop(policy);
        for service in services().into_iter().filter(|service| !before.contains(service)) {
            disable(&service);
        }
        installed
    }

    fn as_root(&self) -> Result<Command> {
        let environment = ["DEBIAN_FRONTEND=noninteractive", "NEEDRESTART_MODE=l"];
        let mut command = root_command("env")?;
        command.args(environment).arg(&self.apt_get);
        Ok(command)
    }
}

/// A command that runs as root: directly, or through sudo.
fn root_command(program: &str) -> Result<Command> {
    if Uid::effective().is_root() {
        return Ok(Command::new(program));
    }
    let Some(sudo) = shell::program("sudo") else {
        bail!("installing packages needs root, and there is no sudo: run this as root");
    };
    let mut command = Command::new(sudo);
    command.arg(program);
    Ok(command)
}

/// Whether `apt-cache policy` offers a version of the package.
fn has_candidate(policy: &str, package: &str) -> bool {
    let heading = format!("{package}:");
    policy
        .lines()
        .skip_while(|line| *line != heading)
        .find_map(|line| line.trim().strip_prefix("Candidate:"))
        .is_some_and(|candidate| candidate.trim() != "(none)")
}

/// Whether there are no lists, or they were fetched long ago. A list's own time is the mirror's;
/// the folders' are those of the last fetch.
fn lists_are_stale() -> bool {
    let lists = Path::new(LISTS);
    let any = fs::read_dir(lists).is_ok_and(|mut entries| {
        entries.any(|entry| {
            entry.is_ok_and(|entry| entry.file_name().to_string_lossy().contains("_Packages"))
        })
    });
    let fetched = [lists.to_path_buf(), lists.join("partial")]
        .iter()
        .filter_map(|folder| fs::metadata(folder).ok()?.modified().ok())
        .max();
    !any || fetched.is_none_or(|time| {
        SystemTime::now().duration_since(time).is_ok_and(|age| age > LISTS_GO_STALE)
    })
}

/// The services that packages have brought so far.
fn services() -> Vec<OsString> {
    let mut names: Vec<OsString> = SERVICES
        .iter()
        .filter_map(|folder| fs::read_dir(folder).ok())
        .flat_map(|entries| entries.flatten().map(|entry| entry.file_name()))
        .collect();
    names.sort();
    names.dedup();
    names
}

/// Takes a new unit out of the next boot: a systemd service, socket or timer that something wants, or a System V script.
fn disable(unit: &OsString) {
    let name = unit.to_string_lossy();
    let (program, arguments) = if Path::new("/etc/init.d").join(unit).is_file() {
        if name == "README" {
            return;
        }
        ("update-rc.d", [name.as_ref(), "disable"])
    } else if is_wanted(unit) && shell::program("systemctl").is_some() {
        // It works where systemd does not run, too.
        ("systemctl", ["disable", name.as_ref()])
    } else {
        return;
    };
    let Ok(mut command) = root_command(program) else { return };
    command.args(arguments);
    match shell::output(&mut command) {
        Ok(_) => println!("disabled  {name:<18} which the package would start at boot"),
        Err(error) => println!("note      {name:<18} may start at boot: {error:#}"),
    }
}

/// Whether systemd starts the unit at boot: one of its targets wants it.
fn is_wanted(unit: &OsString) -> bool {
    let targets = fs::read_dir("/etc/systemd/system").into_iter().flatten().flatten();
    targets
        .map(|entry| entry.path())
        .filter(|folder| folder.extension().is_some_and(|extension| extension == "wants"))
        .any(|folder| folder.join(unit).is_symlink())
}

/// Refuses service starts while it lives.
struct Policy {
    ours: bool,
}

impl Policy {
    fn put_in_place() -> Result<Self> {
        let path = Path::new(POLICY);
        match fs::read_to_string(path) {
            Ok(text) if !text.contains("cargo xtask setup") => return Ok(Self { ours: false }),
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error).with_context(|| format!("read {POLICY}")),
        }
        let script = format!(
            "#!/bin/sh\n# Put here by terrarium's `cargo xtask setup` while it installs packages: \
             no service starts.\n# Without that process it refuses nothing and can be deleted.\n\
             kill -0 {} 2>/dev/null && exit 101\nexit 0\n",
            std::process::id()
        );
        let staged = tempfile::NamedTempFile::new().context("create a temporary file")?;
        fs::write(&staged, script).context("write the temporary file")?;
        let mode = fs::Permissions::from_mode(0o755);
        fs::set_permissions(&staged, mode).context("make the temporary file executable")?;
        let mut copy = root_command("cp")?;
        copy.arg("--preserve=mode").arg(staged.path()).arg(path);
        shell::output(&mut copy)?;
        Ok(Self { ours: true })
    }
}

impl Drop for Policy {
    fn drop(&mut self) {
        if !self.ours {
            return;
        }
        // A remaining script is harmless (see above), and says itself that it can be deleted.
        if let Ok(mut remove) = root_command("rm") {
            let _ = shell::output(remove.args(["-f", POLICY]));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_package_without_candidate_is_told_from_one_that_has() {
        let policy = "runc:\n  Installed: (none)\n  Candidate: 1.1.5\n  Version table:\n\
                      gone:\n  Installed: (none)\n  Candidate: (none)\n  Version table:\n";
        for (package, expected) in [("runc", true), ("gone", false), ("unheard-of", false)] {
            assert_eq!(has_candidate(policy, package), expected, "{package}");
        }
    }
}
