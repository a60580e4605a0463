//! Who is measured, and what they all get: one bundle, one program.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};
use serde_json::{Value, json};

use crate::build::Programs;
use crate::shell;
use crate::workspace::Workspace;

/// One that is measured.
#[derive(Debug)]
pub struct Contender {
    /// As the table names it, and as `PATH` does.
    pub name: &'static str,
    /// Whether it takes the command line of an OCI runtime.
    pub is_runtime: bool,
    /// Whether it needs the unified hierarchy of a hybrid host out of sight: crun 1.8 refuses such a host otherwise.
    pub covers_unified: bool,
}

const fn runtime(name: &'static str) -> Contender {
    Contender { name, is_runtime: true, covers_unified: false }
}

/// The program that engines call.
pub const RUNTIME: Contender = runtime("terrarium-runtime");
/// The program that has everything.
pub const WHOLE: Contender = runtime("terrarium");

/// All of them, in the order of the table.
pub const ALL: [Contender; 6] = [
    RUNTIME,
    WHOLE,
    Contender { covers_unified: true, ..runtime("crun") },
    runtime("runc"),
    runtime("youki"),
    Contender { is_runtime: false, ..runtime("floor") },
];

/// Those that are here.
pub fn present() -> Vec<&'static Contender> {
    ALL.iter()
        .filter(|one| {
            matches!(one.name, "terrarium-runtime" | "terrarium" | "floor")
                || shell::program(one.name).is_some()
        })
        .collect()
}

/// Folders, programs and bundles of the benchmark; all in memory, and gone with it.
pub struct Place {
    folder: tempfile::TempDir,
    terrarium: Programs,
    /// Starts commands and says what they cost.
    pub measure: PathBuf,
}

/// Name of the bundle without a seccomp profile.
pub const PLAIN: &str = "plain";
/// Name of the bundle with the default one.
pub const SECCOMP: &str = "seccomp";

impl Place {
    /// Compiles the small programs and writes the bundles.
    pub fn make(workspace: &Workspace, terrarium: Programs) -> Result<Self> {
        // /run is in memory on most hosts, but not on all.
        let folder = tempfile::Builder::new()
            .prefix("terrarium-bench-")
            .tempdir_in("/dev/shm")
            .context("make a folder in /dev/shm")?;
        let sources = workspace.root.join("xtask/src/bench");
        for program in ["measure", "floor"] {
            compile(&sources.join(program).with_extension("c"), &folder.path().join(program))?;
        }
        let place = Self { measure: folder.path().join("measure"), folder, terrarium };
        let rootfs = place.rootfs();
        for name in ["bin", "proc", "sys", "dev"] {
            fs::create_dir_all(rootfs.join(name))?;
        }
        let source = place.folder.path().join("program.c");
        fs::write(&source, "int main(void) { return 0; }\n")?;
        compile(&source, &rootfs.join("bin/true"))?;
        fs::write(&source, "#include <unistd.h>\nint main(void) { for (;;) pause(); }\n")?;
        compile(&source, &rootfs.join("bin/pause"))?;
        for name in [PLAIN, SECCOMP] {
            place.write_bundle(name)?;
        }
        Ok(place)
    }

    /// Root filesystem of all.
    pub fn rootfs(&self) -> PathBuf {
        self.folder.path().join("rootfs")
    }

    /// A bundle by its name.
    pub fn bundle(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// The program of a contender.
    pub fn program(&self, contender: &Contender) -> PathBuf {
        match contender.name {
            "terrarium-runtime" => self.terrarium.runtime.clone(),
            "terrarium" => self.terrarium.whole.clone(),
            "floor" => self.folder.path().join("floor"),
            name => shell::program(name).unwrap_or_else(|| name.into()),
        }
    }

    /// Where a contender keeps its state.
    pub fn state(&self, contender: &Contender) -> PathBuf {
        self.folder.path().join("state").join(contender.name)
    }

    /// Starts a container that keeps the bridge up, while what it gives lives.
    pub fn keep_bridge(&self) -> Result<BridgeKeeper<'_>> {
        let name = "bench-keeper";
        let mut command = self.on_bridges("run");
        command.args(["--detach", "--rm", "--net", "bridge", "--name", name]);
        shell::output(command.arg(self.rootfs()).arg("/bin/pause"))?;
        Ok(BridgeKeeper { place: self, name })
    }

    /// terrarium's own command, with the state that [`super::scenario`] uses.
    fn on_bridges(&self, word: &str) -> Command {
        let mut command = Command::new(&self.terrarium.whole);
        command.arg("--root").arg(self.state(&WHOLE)).arg(word);
        command
    }

    fn write_bundle(&self, name: &str) -> Result<()> {
        let bundle = self.bundle(name);
        fs::create_dir_all(self.folder.path().join("state"))?;
        fs::create_dir_all(&bundle)?;
        let mut command = Command::new(&self.terrarium.whole);
        command.arg("spec").arg("--bundle").arg(&bundle);
        command.args((name == SECCOMP).then_some("--seccomp"));
        shell::output(&mut command)?;
        let path = bundle.join("config.json");
        let mut spec: Value = serde_json::from_slice(&fs::read(&path)?)?;
        spec["root"]["path"] = json!(self.rootfs());
        spec["process"]["terminal"] = json!(false);
        spec["process"]["args"] = json!(["/bin/true"]);
        spec["linux"]["resources"] = json!({
            "memory": { "limit": 64 << 20 },
            "pids": { "limit": 128 },
        });
        // The peers cannot mount it on a hybrid host, the floor does not.
        if let Some(mounts) = spec["mounts"].as_array_mut() {
            mounts.retain(|mount| mount["type"] != "cgroup");
        }
        fs::write(path, serde_json::to_vec(&spec)?)?;
        Ok(())
    }
}

/// A container that keeps the bridge up.
pub struct BridgeKeeper<'a> {
    place: &'a Place,
    name: &'static str,
}

impl Drop for BridgeKeeper<'_> {
    fn drop(&mut self) {
        // What is left of it goes with the folder and the network namespace, except its cgroup.
        if let Err(error) =
            shell::output(self.place.on_bridges("delete").args(["--force", self.name]))
        {
            shell::note(&format!("remove the container that kept the bridge up: {error:#}"));
        }
    }
}

/// The cgroup that holds terrarium's containers is there, as on a host with another container: the peers make theirs at
/// the top, and the floor does, so that each makes as many.
pub struct Parents(Vec<PathBuf>);

impl Parents {
    /// Makes one below it in each hierarchy that a container of the benchmark gets one in.
    pub fn make() -> Result<Self> {
        let top = Path::new("/sys/fs/cgroup");
        let hierarchies = if top.join("cgroup.controllers").exists() {
            vec![top.to_owned()]
        } else {
            ["unified", "memory", "pids"].map(|name| top.join(name)).to_vec()
        };
        let mut made = Self(Vec::new());
        for hierarchy in hierarchies {
            let keeper = hierarchy.join("terrarium/bench-beside");
            fs::create_dir_all(&keeper).with_context(|| format!("make {}", keeper.display()))?;
            made.0.push(keeper);
        }
        Ok(made)
    }
}

impl Drop for Parents {
    fn drop(&mut self) {
        for keeper in &self.0 {
            // The parent may be somebody else's as well.
            let _ = fs::remove_dir(keeper);
            let _ = keeper.parent().map(fs::remove_dir);
        }
    }
}

/// Compiles a C program.
pub fn compile(source: &Path, program: &Path) -> Result<()> {
    let mut gcc = Command::new("gcc");
    gcc.args(["-O2", "-static", "-o"]).arg(program).arg(source);
    shell::output(&mut gcc).map(|_| ())
}
