//! The programs under test.

use nix::fcntl::{FcntlArg, SealFlag, fcntl};
use nix::sys::statvfs::FsFlags;
use nix::unistd::Pid;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

/// `terrarium`: `TERRARIUM_BIN`, else the one beside the test executable, which is built if it is missing.
///
/// An existing one is taken as it is: `cargo xtask test` builds it first.
pub fn terrarium() -> &'static Path {
    static PATH: OnceLock<PathBuf> = OnceLock::new();
    PATH.get_or_init(|| {
        given("TERRARIUM_BIN").unwrap_or_else(|| {
            let path = profile_folder().join("terrarium");
            if !path.exists() {
                cargo(Command::new(env!("CARGO")).args(["build", "-p", "terrarium"]));
            }
            path
        })
    })
}

/// `terrarium-runtime`, which lies beside `terrarium`.
pub fn runtime() -> &'static Path {
    static PATH: OnceLock<PathBuf> = OnceLock::new();
    PATH.get_or_init(|| {
        let path = terrarium().with_file_name("terrarium-runtime");
        assert!(path.is_file(), "{} is not a file", path.display());
        path
    })
}

/// `terrarium-workload`: `TERRARIUM_WORKLOAD`, else built with a static C library, so that it runs in any root filesystem.
pub fn workload() -> &'static Path {
    static PATH: OnceLock<PathBuf> = OnceLock::new();
    let target = format!("{}-unknown-linux-gnu", std::env::consts::ARCH);
    PATH.get_or_init(|| {
        given("TERRARIUM_WORKLOAD").unwrap_or_else(|| {
            // A folder of its own: other flags would make cargo rebuild the workspace each time they change.
            let folder = profile_folder().with_file_name("workload");
            // Cargo itself sees whether the sources are newer, and lets parallel tests wait for each other.
            cargo(
                Command::new(env!("CARGO"))
                    .args(["build", "-p", "terrarium-tests", "--bin", "terrarium-workload"])
                    .args(["--target", &target, "--target-dir"])
                    .arg(&folder)
                    .env("RUSTFLAGS", "-Ctarget-feature=+crt-static"),
            );
            folder.join(target).join("debug/terrarium-workload")
        })
    })
}

/// The folder of the repository.
pub fn repository() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .expect("the crate lies one folder below the repository")
}

fn given(variable: &str) -> Option<PathBuf> {
    let path = PathBuf::from(std::env::var_os(variable)?);
    assert!(path.is_file(), "{variable}={} is not a file", path.display());
    Some(path)
}

/// `target/debug`, from `target/debug/deps/test-0123456789abcdef`, or from a program in it.
fn profile_folder() -> PathBuf {
    let program = std::env::current_exe().expect("/proc/self/exe is readable");
    let folder = program.parent().expect("a program lies in a folder");
    let profile = if folder.ends_with("deps") { folder.parent() } else { Some(folder) };
    profile.expect("a test lies in target/PROFILE/deps").to_owned()
}

fn cargo(command: &mut Command) {
    // Flags of the coverage or sanitizer kind belong to the tests, not to the programs.
    command.env_remove("CARGO_ENCODED_RUSTFLAGS").arg("--quiet").current_dir(repository());
    let status = command.status().expect("cargo runs, since it runs this test");
    assert!(status.success(), "{command:?} failed with {status}");
}

/// The executable of process `pid` can never be written to: it lies on a read-only mount, or, before Linux 5.12, is a copy in
/// memory that is sealed.
pub fn assert_sealed(pid: Pid) {
    let own = format!("/proc/{pid}/exe");
    let mount = nix::sys::statvfs::statvfs(own.as_str()).expect("it runs");
    if mount.flags().contains(FsFlags::ST_RDONLY) {
        return;
    }
    let file = std::fs::File::open(&own).expect("it runs");
    let seals = fcntl(&file, FcntlArg::F_GET_SEALS).unwrap_or(0);
    assert!(SealFlag::from_bits_truncate(seals).contains(SealFlag::F_SEAL_WRITE), "{own}");
}
