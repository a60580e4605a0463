//! Which qemu boots the guests: the machine's, or one unpacked below cargo's target folder.
//!
//! Debian's qemu-system-x86 cannot be installed beside a qemu-utils that comes from backports. Set-up takes nothing away
//! from the machine; it then downloads the packages, of backports where there are any, and unpacks them for the guests alone.

use std::env;
use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

use crate::kernels::debian::KEYRING;
use crate::shell;
use crate::workspace::Workspace;

/// The emulator of the only architecture that the guests have so far.
pub const PROGRAM: &str = "qemu-system-x86_64";

/// A qemu that can be started.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Qemu {
    /// In `PATH`.
    Installed(PathBuf),
    /// The root of its unpacked packages.
    Unpacked(PathBuf),
}

/// The machine's qemu, else the unpacked one.
pub fn find() -> Option<Qemu> {
    if let Some(program) = shell::program(PROGRAM) {
        return Some(Qemu::Installed(program));
    }
    let root = folder(&Workspace::find().ok()?);
    let qemu = Qemu::Unpacked(root);
    qemu.program().is_file().then_some(qemu)
}

fn folder(workspace: &Workspace) -> PathBuf {
    workspace.target.join("xtask/qemu/root")
}

impl Qemu {
    /// Where the executable is.
    pub fn program(&self) -> PathBuf {
        match self {
            Self::Installed(program) => program.clone(),
            Self::Unpacked(root) => root.join("usr/bin").join(PROGRAM),
        }
    }

    /// A command that starts it, without arguments of the machine's yet.
    pub fn command(&self) -> Command {
        let mut command = Command::new(self.program());
        if let Self::Unpacked(root) = self {
            let libraries = libraries(root);
            let path = env::join_paths(libraries.iter()).unwrap_or_else(|_| OsString::new());
            command.env("LD_LIBRARY_PATH", path);
            for firmware in ["usr/share/qemu", "usr/share/seabios", "usr/lib/ipxe/qemu"] {
                command.arg("-L").arg(root.join(firmware));
            }
        }
        command
    }
}

/// The folders with shared libraries: `usr/lib/<architecture>` and `lib/<architecture>`.
fn libraries(root: &Path) -> Vec<PathBuf> {
    let triplet = format!("{}-linux-gnu", env::consts::ARCH);
    ["usr/lib", "lib"].map(|lib| root.join(lib).join(&triplet)).into()
}

/// Downloads `packages` and what they need beyond the machine's own packages, and unpacks all that for the guests.
pub fn unpack(packages: &[&str]) -> Result<()> {
    let root = folder(&Workspace::find()?);
    let folder = root.parent().context("the folder of qemu has one above it")?;
    let archives = folder.join("archives");
    fs::create_dir_all(archives.join("partial"))
        .with_context(|| format!("create {}", archives.display()))?;
    let mut apt = Command::new("apt-get");
    // With --download-only apt changes nothing, whatever it would have to remove.
    apt.args(["install", "--download-only", "--yes", "--no-install-recommends", "--quiet"]);
    apt.args(["-o", "Debug::NoLocking=1", "-o", "APT::Sandbox::User="]);
    apt.arg("-o").arg(format!("Dir::Cache::archives={}", archives.display())).args(packages);
    let newer = Backports::look(folder);
    if let Err(error) = &newer {
        shell::note(&format!("note: {error:#}"));
    }
    match newer.ok().flatten() {
        Some(backports) => shell::run(apt.args(backports.options()))?,
        None => shell::run(&mut apt)?,
    }
    // Into a name of its own first: an unpacking that was stopped half-way must not count.
    let staging = folder.join("unpacking");
    let _ = fs::remove_dir_all(&staging);
    for entry in fs::read_dir(&archives).context("list the downloaded packages")?.flatten() {
        let archive = entry.path();
        if archive.extension().is_some_and(|extension| extension == "deb") {
            let mut dpkg = Command::new("dpkg-deb");
            shell::output(dpkg.arg("--extract").arg(&archive).arg(&staging))?;
        }
    }
    let _ = fs::remove_dir_all(&root);
    fs::rename(&staging, &root).with_context(|| format!("rename to {}", root.display()))?;
    let _ = fs::remove_dir_all(folder.join("lists"));
    fs::remove_dir_all(&archives).with_context(|| format!("remove {}", archives.display()))
}

/// Debian's newer packages for this release, of which apt knows here alone.
struct Backports {
    suite: String,
    sources: PathBuf,
    lists: PathBuf,
}

impl Backports {
    /// Makes them known; `None` where this is not a release of Debian's.
    fn look(folder: &Path) -> Result<Option<Self>> {
        let release = fs::read_to_string("/etc/os-release").unwrap_or_default();
        let of = |name: &str| {
            let value = release.lines().find_map(|line| line.strip_prefix(name))?;
            Some(value.trim_matches('"').to_owned())
        };
        let (Some("debian"), Some(codename)) = (of("ID=").as_deref(), of("VERSION_CODENAME="))
        else {
            return Ok(None);
        };
        let (archive, _) = crate::kernels::debian::mirrors()?;
        let suite = format!("{codename}-backports");
        let (sources, lists) = (folder.join("sources.list"), folder.join("lists"));
        fs::create_dir_all(lists.join("partial"))
            .with_context(|| format!("create {}", lists.display()))?;
        let keyring = Path::new(KEYRING);
        let signed =
            if keyring.exists() { format!("[signed-by={KEYRING}] ") } else { String::new() };
        let text =
            format!("deb {signed}{archive} {codename} main\ndeb {signed}{archive} {suite} main\n");
        fs::write(&sources, text).with_context(|| format!("write {}", sources.display()))?;
        let backports = Self { suite, sources, lists };
        let mut apt = Command::new("apt-get");
        apt.args(["update", "--quiet", "-o", "Debug::NoLocking=1", "-o", "APT::Sandbox::User="]);
        shell::run(apt.args(backports.places()))?;
        Ok(Some(backports))
    }

    fn places(&self) -> Vec<OsString> {
        [
            format!("Dir::Etc::SourceList={}", self.sources.display()),
            "Dir::Etc::SourceParts=-".to_owned(),
            format!("Dir::State::Lists={}", self.lists.display()),
            "Dir::Cache::pkgcache=".to_owned(),
            "Dir::Cache::srcpkgcache=".to_owned(),
        ]
        .into_iter()
        .flat_map(|option| [OsString::from("-o"), option.into()])
        .collect()
    }

    /// Options that make apt take a package from there.
    fn options(&self) -> Vec<OsString> {
        let mut all = self.places();
        all.extend(["-t".into(), self.suite.clone().into()]);
        all
    }
}

/// What `--version` says: 10 and 0 of "QEMU emulator version 10.0.2 (…)".
fn version(said: &str) -> Option<(u32, u32)> {
    let mut numbers = said.split_once("version ")?.1.split(['.', ' ', '(']);
    Some((numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?))
}

/// How to emulate two processors.
///
/// Before 8.1 a processor reads code before it locks the page, so that it may translate what another one is just patching, and keep that
/// for good. The kernel patches itself, wherever a probe is attached among others, by a breakpoint that it takes away again: both
/// processors were seen to meet it for ever after (qemu 7.2, Linux 6.1). On one thread there is no such race.
pub fn emulation(qemu: Option<&Qemu>) -> &'static str {
    let said = qemu.and_then(|qemu| shell::output(qemu.command().arg("--version")).ok());
    match said.as_deref().and_then(version) {
        Some(version) if version >= (8, 1) => "tcg,thread=multi",
        _ => "tcg,thread=single",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_old_emulator_gets_one_thread() {
        let said = |text: &str| version(text);
        assert_eq!(
            said("QEMU emulator version 10.0.2 (Debian 1:10.0.2+ds-2)\nCopyright"),
            Some((10, 0))
        );
        assert_eq!(said("QEMU emulator version 7.2.22 (Debian 1:7.2)"), Some((7, 2)));
        assert_eq!(said("nothing"), None);
        assert_eq!(emulation(None), "tcg,thread=single");
    }

    #[test]
    fn an_unpacked_qemu_is_started_with_its_own_libraries_and_firmware() {
        let command = Qemu::Unpacked("/cache".into()).command();
        let line = shell::line(&command);
        assert!(line.contains("LD_LIBRARY_PATH=/cache/usr/lib/"), "{line}");
        assert!(
            line.contains("/cache/usr/bin/qemu-system-x86_64 -L /cache/usr/share/qemu"),
            "{line}"
        );
        let command = Qemu::Installed("/usr/bin/qemu-system-x86_64".into()).command();
        assert_eq!(shell::line(&command), "/usr/bin/qemu-system-x86_64");
    }
}
