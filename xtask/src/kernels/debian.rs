//! Debian's cloud kernels, as packages from the mirror that this machine already uses.
//!
//! They come into a folder below `target` through an apt state of their own: nothing is installed,
//! and the machine's package lists and sources stay as they are.

use std::fmt::Write;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::shell;

/// One row of the table of kernels.
pub struct Kernel {
    pub version: &'static str,
    /// The Debian release that has it.
    suite: &'static str,
}

/// To add a kernel, add its row.
const KERNELS: &[Kernel] = &[
    Kernel { version: "5.10", suite: "bullseye" },
    Kernel { version: "6.1", suite: "bookworm" },
    Kernel { version: "6.12", suite: "trixie" },
];
const DEFAULT: &str = "6.1";
/// Debian's name for the only architecture that the guests have so far.
const ARCHITECTURE: &str = "amd64";
pub const KEYRING: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";

/// A kernel package, unpacked.
pub struct Unpacked {
    /// As `uname -r` prints it.
    pub release: String,
    pub image: PathBuf,
    /// `lib/modules/<release>`.
    pub modules: PathBuf,
}

/// The kernel that `cargo xtask test` boots.
pub fn default() -> &'static Kernel {
    KERNELS.iter().find(|kernel| kernel.version == DEFAULT).expect("the default is in the table")
}

/// The kernels by their versions; all of them when none is named.
pub fn choose(versions: &[String]) -> Result<Vec<&'static Kernel>> {
    if versions.is_empty() {
        return Ok(KERNELS.iter().collect());
    }
    versions
        .iter()
        .map(|version| {
            KERNELS.iter().find(|kernel| kernel.version == version).with_context(|| {
                let known: Vec<&str> = KERNELS.iter().map(|kernel| kernel.version).collect();
                format!("no kernel {version} in the table (there are {})", known.join(", "))
            })
        })
        .collect()
}

impl Kernel {
    /// The unpacked package, from the cache or from the mirror. Delete the folder to get a newer one.
    pub fn fetch(&self, folder: &Path) -> Result<Unpacked> {
        let root = folder.join("package");
        if let Some(unpacked) = unpacked(&root) {
            return Ok(unpacked);
        }
        fs::create_dir_all(folder).with_context(|| format!("create {}", folder.display()))?;
        let apt = PrivateApt::new(folder, self.suite)?;
        let meta = format!("linux-image-cloud-{ARCHITECTURE}");
        let depends = shell::output(apt.command("apt-cache").args(["depends", &meta]))?;
        let package = depends
            .lines()
            .find_map(|line| line.trim().strip_prefix("Depends: "))
            .with_context(|| format!("{meta} of {} depends on no kernel", self.suite))?;
        shell::run(
            apt.command("apt-get").args(["download", "--quiet", package]).current_dir(folder),
        )?;
        let archive = fs::read_dir(folder)?
            .flatten()
            .map(|entry| entry.path())
            .find(|path| path.extension().is_some_and(|extension| extension == "deb"))
            .with_context(|| format!("apt-get left no package in {}", folder.display()))?;
        // Into a name of its own first: an unpacking that was stopped half-way must not count.
        let staging = folder.join("unpacking");
        let _ = fs::remove_dir_all(&staging);
        let mut dpkg = Command::new("dpkg-deb");
        shell::run(dpkg.arg("--extract").arg(&archive).arg(&staging))?;
        fs::rename(&staging, &root).with_context(|| format!("rename to {}", root.display()))?;
        fs::remove_file(&archive).with_context(|| format!("remove {}", archive.display()))?;
        unpacked(&root).with_context(|| format!("{package} holds no kernel"))
    }
}

fn unpacked(root: &Path) -> Option<Unpacked> {
    let image =
        fs::read_dir(root.join("boot")).ok()?.flatten().map(|entry| entry.path()).find(|path| {
            path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("vmlinuz-"))
        })?;
    let release = image.file_name()?.to_str()?.strip_prefix("vmlinuz-")?.to_owned();
    // From Debian 13 on, /lib is a link that the package does not hold.
    let modules = ["lib/modules", "usr/lib/modules"]
        .map(|folder| root.join(folder).join(&release))
        .into_iter()
        .find(|folder| folder.is_dir())?;
    Some(Unpacked { release, image, modules })
}

/// An apt that knows one suite of Debian and keeps everything in one folder.
struct PrivateApt {
    configuration: PathBuf,
}

impl PrivateApt {
    fn new(folder: &Path, suite: &str) -> Result<Self> {
        let apt = folder.join("apt");
        for name in ["state/lists/partial", "cache/archives/partial"] {
            fs::create_dir_all(apt.join(name))
                .with_context(|| format!("create {}", apt.join(name).display()))?;
        }
        let signed = if Path::new(KEYRING).exists() {
            format!(" signed-by={KEYRING}")
        } else {
            String::new()
        };
        let options = format!("[arch={ARCHITECTURE}{signed}]");
        let (archive, security) = mirrors()?;
        let mut sources = format!("deb {options} {archive} {suite} main\n");
        if let Some(security) = security {
            writeln!(sources, "deb {options} {security} {suite}-security main")
                .expect("writing to a string cannot fail");
        }
        let list = apt.join("sources.list");
        fs::write(&list, sources).with_context(|| format!("write {}", list.display()))?;
        let configuration = apt.join("apt.conf");
        let path = apt.display();
        let text = format!(
            "Dir::Etc::SourceList \"{path}/sources.list\";\nDir::Etc::SourceParts \"-\";\n\
             Dir::State \"{path}/state\";\nDir::State::Status \"/dev/null\";\n\
             Dir::Cache \"{path}/cache\";\nAcquire::Languages \"none\";\n\
             APT::Architecture \"{ARCHITECTURE}\";\nAPT::Architectures {{ \"{ARCHITECTURE}\"; }};\n\
             Acquire::IndexTargets::deb::DEP-11::DefaultEnabled \"false\";\n\
             APT::Sandbox::User \"\";\n"
        );
        fs::write(&configuration, text)
            .with_context(|| format!("write {}", configuration.display()))?;
        let apt = Self { configuration };
        // A suite without security updates of its own any more still has its kernel.
        if let Err(error) = shell::run(apt.command("apt-get").args(["update", "--quiet"])) {
            shell::note(&format!("note: {error:#}"));
        }
        Ok(apt)
    }

    fn command(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        command.env("APT_CONFIG", &self.configuration);
        command
    }
}

/// The addresses of Debian's archive and of its security updates, from this machine's own sources.
pub fn mirrors() -> Result<(String, Option<String>)> {
    let format = "$(ORIGIN)|$(LABEL)|$(REPO_URI)";
    let mut command = Command::new("apt-get");
    command.args(["indextargets", "--format", format, "Created-By: Packages"]);
    let text = shell::output(&mut command)?;
    match pick_mirrors(&text) {
        (Some(archive), security) => Ok((archive, security)),
        (None, _) => bail!(
            "this machine's package sources name no mirror of Debian, which has the kernels \
             (apt-get update first, or run this on Debian)"
        ),
    }
}

fn pick_mirrors(targets: &str) -> (Option<String>, Option<String>) {
    let labelled = |wanted: &str| {
        targets.lines().find_map(|line| {
            let mut parts = line.splitn(3, '|');
            let (origin, label, uri) = (parts.next()?, parts.next()?, parts.next()?);
            (origin == "Debian" && label == wanted).then(|| uri.to_owned())
        })
    };
    (labelled("Debian"), labelled("Debian-Security"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mirrors_are_told_by_origin_and_label() {
        let text = "Node|Node|https://node.example/\n\
                    Debian|Debian-Security|http://a.example/debian-security/\n\
                    Debian|Debian|http://a.example/debian/\n";
        let (archive, security) = pick_mirrors(text);
        assert_eq!(archive.as_deref(), Some("http://a.example/debian/"));
        assert_eq!(security.as_deref(), Some("http://a.example/debian-security/"));
        assert_eq!(pick_mirrors("Ubuntu|Ubuntu|http://b.example/ubuntu/"), (None, None));
    }

    #[test]
    fn an_unknown_kernel_is_refused_with_the_known_ones() {
        let error = choose(&["4.4".to_owned()]).err().expect("4.4 is not in the table");
        assert_eq!(error.to_string(), "no kernel 4.4 in the table (there are 5.10, 6.1, 6.12)");
    }
}
