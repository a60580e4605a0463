//! An OCI bundle that a test writes.

use crate::process::Outcome;
use crate::testbed::TestBed;
use serde_json::{Value, json};
use std::fs;
use std::path::{Path, PathBuf};

/// A folder with a config.json, made by `terrarium spec` and changed by the test.
#[derive(Debug)]
pub struct Bundle<'a> {
    bed: &'a TestBed,
    folder: PathBuf,
    id: String,
}

impl<'a> Bundle<'a> {
    /// A bundle of the bed's root filesystem that runs `command`; its container will be `name` and the test's tag.
    pub fn new(bed: &'a TestBed, name: &str, command: &[&str]) -> Self {
        let id = bed.unique(name);
        let folder = bed.folder().join(format!("bundle-{name}"));
        fs::create_dir(&folder).expect("the test's folder is writable");
        let bundle = Self { bed, folder, id };
        bed.run(["spec".as_ref(), "--bundle".as_ref(), bundle.folder.as_os_str()]).success();
        bundle.change(|spec| {
            spec["root"] = json!({ "path": bed.rootfs() });
            spec["process"]["args"] = json!(command);
            spec["process"]["terminal"] = json!(false);
            spec["linux"]["cgroupsPath"] = json!(format!("/terrarium/{}", bundle.id));
        });
        bundle
    }

    /// The id of its container.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// Its folder.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Changes config.json.
    pub fn change(&self, change: impl FnOnce(&mut Value)) -> &Self {
        let path = self.folder.join("config.json");
        let text = fs::read_to_string(&path).expect("config.json was written");
        let mut spec = serde_json::from_str(&text).expect("config.json is JSON");
        change(&mut spec);
        fs::write(&path, spec.to_string()).expect("the bundle is writable");
        self
    }

    /// `terrarium-runtime run --bundle`, to its end.
    pub fn run(&self) -> Outcome {
        self.bed
            .finish(self.bed.runtime().args(["run", "--bundle"]).arg(&self.folder).arg(&self.id))
    }

    /// `terrarium-runtime create`, with more options.
    pub fn create(&self, options: &[&str]) -> Outcome {
        let mut command = self.bed.runtime();
        command.args(["create", "--bundle"]).arg(&self.folder).args(options).arg(&self.id);
        self.bed.finish(&mut command)
    }

    /// `terrarium-runtime COMMAND ID …`
    pub fn call(&self, command: &str, more: &[&str]) -> Outcome {
        let words = [command, &self.id].into_iter().chain(more.iter().copied());
        self.bed.finish(self.bed.runtime().args(words))
    }

    /// A file of the running container, as the host reaches it; `path` is relative to the container's root.
    pub fn inside(&self, path: &str) -> PathBuf {
        let pid = self.state()["pid"].to_string();
        Path::new("/proc").join(pid).join("root").join(path)
    }

    /// What `terrarium state` says.
    pub fn state(&self) -> Value {
        serde_json::from_str(&self.call("state", &[]).success()).expect("state is JSON")
    }
}

impl Drop for Bundle<'_> {
    fn drop(&mut self) {
        // One that the test has removed is no error.
        self.bed.run(["delete", "--force", &self.id]);
    }
}
