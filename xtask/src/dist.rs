//! `cargo xtask dist`: what people install. Static programs with completions, man pages, dashboards and a systemd unit, as a
//! tarball and as a Debian package, and an OCI image of the programs alone.
//!
//! Everything is made from one staged tree, with the time of the last commit in every archive, so that the same commit
//! gives the same bytes.

use std::env;
use std::fs::{self, File};
use std::io::{self, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};
use flate2::Compression;
use flate2::write::GzEncoder;
use serde_json::json;
use sha2::{Digest, Sha256};

use crate::build::{self, Programs};
use crate::setup::{self, Needs};
use crate::shell;
use crate::workspace::Workspace;

/// The version of cargo-deb that is installed below the target folder.
const CARGO_DEB: &str = "3.8.0";

/// Make the tarball, the Debian package and the OCI image.
#[derive(clap::Args)]
pub struct Args {
    /// Leave the Debian package out.
    #[arg(long)]
    no_deb: bool,
    /// Install missing tools without asking.
    #[arg(long, short)]
    yes: bool,
}

/// What was made.
pub struct Dist {
    pub tarball: PathBuf,
    pub image: PathBuf,
    pub deb: Option<PathBuf>,
}

/// Makes everything and says where it is.
pub fn run(args: &Args) -> Result<()> {
    setup::ensure(&[Needs::Build], args.yes)?;
    let dist = make(&Workspace::find()?, !args.no_deb)?;
    for path in [Some(&dist.tarball), dist.deb.as_ref(), Some(&dist.image)].into_iter().flatten() {
        println!("{}", path.display());
    }
    Ok(())
}

/// Makes the products.
pub fn make(workspace: &Workspace, deb: bool) -> Result<Dist> {
    let programs = build::static_programs(workspace, true)?;
    let folder = workspace.cache("dist")?;
    let stage = folder.join("stage");
    clear(&stage)?;
    stage_tree(workspace, &programs, &stage)?;
    let time = commit_time(workspace);
    let name = format!("terrarium-{}-{}-linux", env!("CARGO_PKG_VERSION"), env::consts::ARCH);
    let tarball = folder.join(format!("{name}.tar.gz"));
    write_tarball(&stage, &name, &tarball, time)?;
    let image = folder.join(format!("{name}.oci.tar"));
    write_image(&programs, &image, time)?;
    let deb = if deb { Some(debian_package(workspace, &folder)?) } else { None };
    Ok(Dist { tarball, image, deb })
}

/// Debian with nothing but what every Debian has, for the packages to be installed in: a folder, or why there is none.
pub fn clean_debian(workspace: &Workspace) -> Result<PathBuf> {
    debian(workspace, "debian", &[])
}

/// Debian in which people build programs and keep data: for tests that watch them do so.
pub fn workshop(workspace: &Workspace) -> Result<PathBuf> {
    debian(workspace, "workshop", &["gcc", "libc6-dev", "make", "sqlite3"])
}

/// Debian that systemd runs, with Podman: for tests of who makes the cgroups.
pub fn booted(workspace: &Workspace) -> Result<PathBuf> {
    let packages = [
        "systemd", "systemd-sysv", "dbus", "dbus-user-session", "libpam-systemd", "uidmap",
        "podman",
    ];
    debian(workspace, "booted", &packages)
}

/// The same as a file system for a virtual machine.
pub fn booted_disk(workspace: &Workspace) -> Result<PathBuf> {
    let root = booted(workspace)?;
    let disk = root.with_extension("ext4");
    if disk.is_file() {
        return Ok(disk);
    }
    let staging = root.with_extension("ext4.new");
    let _ = fs::remove_file(&staging);
    // Nothing is written to it: no journal, and none of what asks for further modules.
    let mut command = Command::new(shell::program("mke2fs").context("mke2fs is not installed")?);
    command.args(["-q", "-t", "ext4", "-O", "^has_journal,^metadata_csum,^64bit", "-d"]);
    shell::run(command.arg(&root).arg(&staging).arg("900M"))?;
    fs::rename(&staging, &disk).with_context(|| format!("rename to {}", disk.display()))?;
    Ok(disk)
}

fn debian(workspace: &Workspace, name: &str, packages: &[&str]) -> Result<PathBuf> {
    let root = workspace.cache("dist")?.join(name);
    if root.join("etc/debian_version").is_file() {
        return Ok(root);
    }
    let Some(mmdebstrap) = shell::program("mmdebstrap") else {
        bail!("mmdebstrap is not installed (cargo xtask setup installs it)");
    };
    let staging = root.with_extension("new");
    clear(&staging)?;
    let suite = os_release("VERSION_CODENAME").unwrap_or_else(|| "bookworm".to_owned());
    let mut command = Command::new(mmdebstrap);
    command.args(["--quiet", "--variant=essential", "--mode=root", "--format=directory"]);
    if !packages.is_empty() {
        command.arg(format!("--include={}", packages.join(",")));
    }
    command.arg(suite).arg(&staging);
    shell::run(&mut command)?;
    clear(&root)?;
    fs::rename(&staging, &root).with_context(|| format!("rename to {}", root.display()))?;
    Ok(root)
}

fn os_release(key: &str) -> Option<String> {
    let text = fs::read_to_string("/etc/os-release").ok()?;
    let value = text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix('='))?;
    Some(value.trim_matches('"').to_owned())
}

fn clear(folder: &Path) -> Result<()> {
    match fs::remove_dir_all(folder) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("remove {}", folder.display()))
        }
        _ => Ok(()),
    }
}

/// Lays everything out as it lies below `/usr`.
fn stage_tree(workspace: &Workspace, programs: &Programs, stage: &Path) -> Result<()> {
    let copy = |from: &Path, to: &str, mode: u32| put(from, &stage.join(to), mode);
    let binary = &programs.whole;
    copy(binary, "bin/terrarium", 0o755)?;
    copy(&programs.runtime, "bin/terrarium-runtime", 0o755)?;
    for (shell_name, place) in [
        ("bash", "share/bash-completion/completions/terrarium"),
        ("zsh", "share/zsh/vendor-completions/_terrarium"),
        ("fish", "share/fish/vendor_completions.d/terrarium.fish"),
    ] {
        let script = shell::output(Command::new(binary).args(["completions", shell_name]))?;
        write(&stage.join(place), script.as_bytes())?;
    }
    let man = stage.join("share/man/man1");
    shell::output(Command::new(binary).arg("man").arg(&man))?;
    for page in fs::read_dir(&man).context("list the man pages")?.flatten() {
        // Debian's policy: man pages are compressed.
        let path = page.path();
        let bytes = fs::read(&path).with_context(|| format!("read {}", path.display()))?;
        let mut packed = GzEncoder::new(Vec::new(), Compression::best());
        packed.write_all(&bytes)?;
        write(&man.join(format!("{}.gz", page.file_name().to_string_lossy())), &packed.finish()?)?;
        fs::remove_file(&path).with_context(|| format!("remove {}", path.display()))?;
    }
    copy(
        &workspace.root.join("xtask/dist/terrarium-observe.service"),
        "lib/systemd/system/terrarium-observe.service",
        0o644,
    )?;
    for file in ["README.md", "CHANGELOG.md", "LICENSE-APACHE", "LICENSE-MIT"] {
        copy(&workspace.root.join(file), &format!("share/doc/terrarium/{file}"), 0o644)?;
    }
    for folder in ["dashboards", "docs"] {
        let place = if folder == "docs" {
            "share/doc/terrarium/docs"
        } else {
            "share/terrarium/dashboards"
        };
        copy_tree(&workspace.root.join(folder), &stage.join(place))?;
    }
    Ok(())
}

fn copy_tree(from: &Path, to: &Path) -> Result<()> {
    for entry in fs::read_dir(from).with_context(|| format!("list {}", from.display()))?.flatten() {
        let (path, place) = (entry.path(), to.join(entry.file_name()));
        if path.is_dir() {
            copy_tree(&path, &place)?;
        } else {
            put(&path, &place, 0o644)?;
        }
    }
    Ok(())
}

fn put(from: &Path, to: &Path, mode: u32) -> Result<()> {
    write(to, &fs::read(from).with_context(|| format!("read {}", from.display()))?)?;
    fs::set_permissions(to, fs::Permissions::from_mode(mode))
        .with_context(|| format!("set mode of {}", to.display()))
}

fn write(path: &Path, bytes: &[u8]) -> Result<()> {
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder).with_context(|| format!("create {}", folder.display()))?;
    }
    fs::write(path, bytes).with_context(|| format!("write {}", path.display()))
}

/// Seconds since 1970 of the last commit; 0 outside a repository.
fn commit_time(workspace: &Workspace) -> u64 {
    let mut git = Command::new("git");
    git.current_dir(&workspace.root);
    git.args(["-c", "safe.directory=*", "log", "-1", "--format=%ct"]);
    shell::output(&mut git).ok().and_then(|text| text.trim().parse().ok()).unwrap_or(0)
}

/// Adds the files below `folder` as `name/…`, in the order of their names, owned by root.
fn append_tree<W: Write>(
    archive: &mut tar::Builder<W>,
    folder: &Path,
    name: &str,
    time: u64,
) -> Result<()> {
    append(archive, &format!("{name}/"), 0o755, time, tar::EntryType::Directory, &[])?;
    let mut entries: Vec<PathBuf> = fs::read_dir(folder)
        .with_context(|| format!("list {}", folder.display()))?
        .flatten()
        .map(|entry| entry.path())
        .collect();
    entries.sort();
    for path in entries {
        let last = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let inner = format!("{name}/{last}");
        if path.is_dir() {
            append_tree(archive, &path, &inner, time)?;
        } else {
            let bytes = fs::read(&path).with_context(|| format!("read {}", path.display()))?;
            let mode = fs::metadata(&path)?.permissions().mode() & 0o755;
            append(archive, &inner, mode, time, tar::EntryType::Regular, &bytes)?;
        }
    }
    Ok(())
}

fn append<W: Write>(
    archive: &mut tar::Builder<W>,
    name: &str,
    mode: u32,
    time: u64,
    kind: tar::EntryType,
    bytes: &[u8],
) -> Result<()> {
    let mut header = tar::Header::new_gnu();
    header.set_entry_type(kind);
    header.set_mode(mode);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(time);
    header.set_size(bytes.len() as u64);
    archive.append_data(&mut header, name, bytes).with_context(|| format!("add {name}"))
}

fn write_tarball(stage: &Path, name: &str, to: &Path, time: u64) -> Result<()> {
    let file = File::create(to).with_context(|| format!("create {}", to.display()))?;
    let mut archive = tar::Builder::new(GzEncoder::new(file, Compression::best()));
    append_tree(&mut archive, stage, name, time)?;
    archive.into_inner()?.finish().with_context(|| format!("write {}", to.display()))?;
    Ok(())
}

/// An image of the programs alone, as an OCI layout in a tar archive: no engine is needed to make it.
/// <https://github.com/opencontainers/image-spec/blob/v1.1.0/image-layout.md>
fn write_image(programs: &Programs, to: &Path, time: u64) -> Result<()> {
    let mut layer = tar::Builder::new(Vec::new());
    for folder in ["bin/", "etc/", "run/", "tmp/", "var/", "var/lib/"] {
        let mode = if folder == "tmp/" { 0o1777 } else { 0o755 };
        append(&mut layer, folder, mode, time, tar::EntryType::Directory, &[])?;
    }
    for (name, binary) in
        [("bin/terrarium", &programs.whole), ("bin/terrarium-runtime", &programs.runtime)]
    {
        let bytes = fs::read(binary).with_context(|| format!("read {}", binary.display()))?;
        append(&mut layer, name, 0o755, time, tar::EntryType::Regular, &bytes)?;
    }
    append(&mut layer, "etc/passwd", 0o644, time, tar::EntryType::Regular, b"root:x:0:0::/:\n")?;
    let layer = layer.into_inner()?;
    let mut packed = GzEncoder::new(Vec::new(), Compression::best());
    packed.write_all(&layer)?;
    let packed = packed.finish()?;
    let architecture = match env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    };
    let config = json!({
        "architecture": architecture,
        "os": "linux",
        "config": {
            "Entrypoint": ["/bin/terrarium"],
            "Cmd": ["observe", "--listen", "0.0.0.0:9750"],
            "Env": ["PATH=/bin"],
            "ExposedPorts": {"9750/tcp": {}},
            "Labels": {
                "org.opencontainers.image.title": "terrarium",
                "org.opencontainers.image.version": env!("CARGO_PKG_VERSION"),
                "org.opencontainers.image.licenses": "Apache-2.0 OR MIT",
            },
        },
        "rootfs": {"type": "layers", "diff_ids": [digest(&layer)]},
    })
    .to_string();
    let described = |kind: &str, bytes: &[u8]| {
        let media = format!("application/vnd.oci.image.{kind}");
        json!({"mediaType": media, "digest": digest(bytes), "size": bytes.len()})
    };
    let manifest = json!({
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": described("config.v1+json", config.as_bytes()),
        "layers": [described("layer.v1.tar+gzip", &packed)],
    })
    .to_string();
    let mut entry = described("manifest.v1+json", manifest.as_bytes());
    entry["annotations"] = json!({
        "org.opencontainers.image.ref.name":
            format!("localhost/terrarium:{}", env!("CARGO_PKG_VERSION")),
    });
    let index = json!({"schemaVersion": 2, "manifests": [entry]}).to_string();

    let file = File::create(to).with_context(|| format!("create {}", to.display()))?;
    let mut archive = tar::Builder::new(file);
    let regular = tar::EntryType::Regular;
    append(&mut archive, "oci-layout", 0o644, time, regular, br#"{"imageLayoutVersion":"1.0.0"}"#)?;
    append(&mut archive, "index.json", 0o644, time, regular, index.as_bytes())?;
    for blob in [manifest.as_bytes(), config.as_bytes(), &packed] {
        let name = format!("blobs/{}", digest(blob).replace(':', "/"));
        append(&mut archive, &name, 0o644, time, regular, blob)?;
    }
    archive.finish().with_context(|| format!("write {}", to.display()))
}

fn digest(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    Sha256::digest(bytes).iter().fold("sha256:".to_owned(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

/// By cargo-deb, from the staged tree; what goes where is in the manifest of the command line's crate.
fn debian_package(workspace: &Workspace, folder: &Path) -> Result<PathBuf> {
    let tools = workspace.cache("tools")?;
    let program = tools.join("bin/cargo-deb");
    if !program.is_file() {
        let mut install = workspace.cargo();
        install.args(["install", "cargo-deb", "--version", CARGO_DEB, "--locked", "--quiet"]);
        install.arg("--root").arg(&tools);
        // Not a file of the workspace's target folder that the next build would throw away.
        install.arg("--target-dir").arg(tools.join("target"));
        shell::run(&mut install)?;
        clear(&tools.join("target"))?;
    }
    let deb = folder.join(format!("terrarium_{}.deb", env!("CARGO_PKG_VERSION")));
    let mut command = Command::new(program);
    command.current_dir(&workspace.root);
    command.args(["deb", "--quiet", "--no-build", "--no-strip", "--package", "terrarium"]);
    command.arg("--output").arg(&deb);
    shell::run(&mut command)?;
    Ok(deb)
}
