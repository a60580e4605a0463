//! Images that a test makes: layers, OCI layouts, docker-archives, and a registry to pull from.

use crate::deadline::eventually;
use crate::http;
use crate::process::Process;
use crate::requirement::program;
use crate::testbed::TestBed;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use std::fmt::Write as _;
use std::fs;
use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};
use tar::{Builder, EntryType, Header};

/// `sha256:` and the digest of `bytes`.
pub fn digest(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().fold("sha256:".to_owned(), |mut text, byte| {
        write!(text, "{byte:02x}").expect("writing to a string cannot fail");
        text
    })
}

/// A layer: an archive that says whatever a test wants it to say, honest or not.
pub struct Layer(Builder<Vec<u8>>);

impl Default for Layer {
    fn default() -> Self {
        Self::new()
    }
}

impl Layer {
    /// An empty one.
    pub fn new() -> Self {
        Self(Builder::new(Vec::new()))
    }

    /// An entry of `kind`; names are written as they are, `..` included.
    #[must_use]
    pub fn entry(
        mut self,
        kind: EntryType,
        name: &str,
        link: &str,
        mode: u32,
        owner: u64,
        bytes: &[u8],
    ) -> Self {
        let mut header = Header::new_gnu();
        header.set_entry_type(kind);
        header.as_gnu_mut().expect("it is a GNU header").name[..name.len()]
            .copy_from_slice(name.as_bytes());
        header.as_gnu_mut().expect("it is a GNU header").linkname[..link.len()]
            .copy_from_slice(link.as_bytes());
        header.set_mode(mode);
        header.set_uid(owner);
        header.set_gid(owner);
        header.set_mtime(1_000_000_000);
        header.set_size(bytes.len() as u64);
        header.set_device_major(1).expect("it fits");
        header.set_device_minor(3).expect("it fits");
        header.set_cksum();
        self.0.append(&header, bytes).expect("writing to memory cannot fail");
        self
    }

    /// A file of root's.
    #[must_use]
    pub fn file(self, name: &str, mode: u32, bytes: &[u8]) -> Self {
        self.entry(EntryType::Regular, name, "", mode, 0, bytes)
    }

    /// A folder of root's.
    #[must_use]
    pub fn folder(self, name: &str) -> Self {
        self.entry(EntryType::Directory, name, "", 0o755, 0, b"")
    }

    /// A symlink.
    #[must_use]
    pub fn symlink(self, name: &str, target: &str) -> Self {
        self.entry(EntryType::Symlink, name, target, 0o777, 0, b"")
    }

    /// An extended attribute of the entry that follows.
    #[must_use]
    pub fn attribute(mut self, name: &str, value: &[u8]) -> Self {
        let key = format!("SCHILY.xattr.{name}");
        self.0
            .append_pax_extensions([(key.as_str(), value)])
            .expect("writing to memory cannot fail");
        self
    }

    /// The archive.
    pub fn bytes(self) -> Vec<u8> {
        self.0.into_inner().expect("writing to memory cannot fail")
    }
}

/// The lowest layer of most tests: busybox and a user.
pub fn base() -> Vec<u8> {
    let busybox = program("busybox").expect("the test requires busybox");
    let bytes = fs::read(busybox).expect("busybox is readable");
    let mut layer = Layer::new().folder("./").folder("bin/").folder("etc/").folder("tmp/");
    layer = layer.file("bin/busybox", 0o755, &bytes);
    for applet in ["sh", "cat", "echo", "id", "ls", "pwd", "sleep", "stat", "test", "touch"] {
        layer = layer.symlink(&format!("bin/{applet}"), "busybox");
    }
    layer
        .file("etc/passwd", 0o644, b"root:x:0:0:root:/root:/bin/sh\napp:x:7:8:app:/tmp:/bin/sh\n")
        .file("etc/group", 0o644, b"root:x:0:\napp:x:8:\n")
        .bytes()
}

/// An image: layers, the lowest first, and what its configuration says of the program.
pub struct Image {
    /// The configuration's bytes.
    pub config: Vec<u8>,
    /// The manifest's bytes.
    pub manifest: Vec<u8>,
    /// The layers' archives.
    pub layers: Vec<Vec<u8>>,
}

impl Image {
    /// Puts one together.
    pub fn new(layers: Vec<Vec<u8>>, config: &Value) -> Self {
        let ids: Vec<String> = layers.iter().map(|layer| digest(layer)).collect();
        let config = json!({
            "architecture": if cfg!(target_arch = "x86_64") { "amd64" } else { "arm64" },
            "os": "linux",
            "config": config,
            "rootfs": {"type": "layers", "diff_ids": ids},
        })
        .to_string()
        .into_bytes();
        let manifest = json!({
            "schemaVersion": 2,
            "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "config": {
                "mediaType": "application/vnd.oci.image.config.v1+json",
                "digest": digest(&config), "size": config.len(),
            },
            "layers": layers.iter().map(|layer| json!({
                "mediaType": "application/vnd.oci.image.layer.v1.tar",
                "digest": digest(layer), "size": layer.len(),
            })).collect::<Vec<_>>(),
        })
        .to_string()
        .into_bytes();
        Self { config, manifest, layers }
    }

    /// Writes an OCI layout into the folder `path`.
    pub fn write_layout(&self, path: &Path, name: &str) {
        let blobs = path.join("blobs/sha256");
        fs::create_dir_all(&blobs).expect("the test's folder is writable");
        let index = json!({
            "schemaVersion": 2,
            "manifests": [{
                "mediaType": "application/vnd.oci.image.manifest.v1+json",
                "digest": digest(&self.manifest), "size": self.manifest.len(),
                "annotations": {"org.opencontainers.image.ref.name": name},
            }],
        });
        let version = json!({"imageLayoutVersion": "1.0.0"});
        let write = |path: &Path, bytes: &[u8]| {
            fs::write(path, bytes).expect("the test's folder is writable");
        };
        write(&path.join("index.json"), index.to_string().as_bytes());
        write(&path.join("oci-layout"), version.to_string().as_bytes());
        for blob in self.layers.iter().chain([&self.config, &self.manifest]) {
            write(&blobs.join(digest(blob).trim_start_matches("sha256:")), blob);
        }
    }

    /// What `docker save` would write.
    pub fn docker_archive(&self, tag: &str) -> Vec<u8> {
        let names: Vec<String> =
            (0..self.layers.len()).map(|index| format!("l{index}/layer.tar")).collect();
        let list = json!([{"Config": "config.json", "RepoTags": [tag], "Layers": names}]);
        let mut archive = Layer::new()
            .file("manifest.json", 0o644, list.to_string().as_bytes())
            .file("config.json", 0o644, &self.config);
        for (name, layer) in names.iter().zip(&self.layers) {
            archive = archive.file(name, 0o644, layer);
        }
        archive.bytes()
    }
}

/// `bytes`, compressed by a program of the machine's.
pub fn compressed(program: &str, bytes: &[u8]) -> Vec<u8> {
    let mut child = Command::new(program)
        .arg("-c")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap_or_else(|error| panic!("start {program}: {error}"));
    let mut stdin = child.stdin.take().expect("stdin is piped");
    std::thread::scope(|scope| {
        scope.spawn(move || stdin.write_all(bytes).expect("it reads everything"));
        child.wait_with_output().expect("it was started").stdout
    })
}

/// Debian's docker-registry on the loopback of a test's network namespace.
pub struct Registry<'a> {
    bed: &'a TestBed,
    _process: Process,
}

impl<'a> Registry<'a> {
    /// Its address.
    pub const ADDRESS: &'static str = "127.0.0.1:5000";

    /// Starts one with nothing in it.
    pub fn start(bed: &'a TestBed) -> Self {
        let storage = bed.folder().join("registry");
        let file = bed.folder().join("registry.yml");
        let text = format!(
            "version: 0.1\nstorage:\n  filesystem:\n    rootdirectory: {}\nhttp:\n  addr: {}\n",
            storage.display(),
            Self::ADDRESS
        );
        fs::write(&file, text).expect("the test's folder is writable");
        let log = fs::File::create(bed.folder().join("registry.log"))
            .expect("the test's folder is writable");
        let process = bed.spawn(
            Command::new(program("docker-registry").expect("the test requires it"))
                .arg("serve")
                .arg(&file)
                .stdin(Stdio::null())
                .stdout(log.try_clone().expect("a file descriptor is free"))
                .stderr(log),
        );
        let registry = Self { bed, _process: process };
        eventually("the registry answers", || {
            let url = format!("http://{}/v2/", Self::ADDRESS);
            registry.bed.network().enter(|| http::get(&url)).map(drop)
        });
        registry
    }

    /// What it has logged.
    pub fn log(&self) -> String {
        fs::read_to_string(self.bed.folder().join("registry.log")).expect("it was made")
    }

    /// Puts `image` there, as `repository:tag`.
    pub fn push(&self, image: &Image, repository: &str, tag: &str) {
        let base = format!("http://{}/v2/{repository}", Self::ADDRESS);
        self.bed.network().enter(|| {
            for blob in image.layers.iter().chain([&image.config]) {
                let location = http::send("POST", &format!("{base}/blobs/uploads/"), "", b"")
                    .expect("the registry takes uploads");
                let mark = if location.contains('?') { '&' } else { '?' };
                let url = format!("{location}{mark}digest={}", http::encode(&digest(blob)));
                http::send("PUT", &url, "application/octet-stream", blob)
                    .expect("the registry takes blobs");
            }
            let url = format!("{base}/manifests/{tag}");
            let kind = "application/vnd.oci.image.manifest.v1+json";
            http::send("PUT", &url, kind, &image.manifest).expect("the registry takes manifests");
        });
    }
}
