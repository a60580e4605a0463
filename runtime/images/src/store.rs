//! Where images lie: names, blobs, unpacked layers, and the writable layers of containers.
//!
//! | below the folder of the images | what it is |
//! |---|---|
//! | `lock` | whoever adds or removes holds it alone; whoever starts a container, with others |
//! | `images.json` | names and the manifests that they mean |
//! | `blobs/sha256/HEX` | manifests and configurations |
//! | `layers/HEX/` | unpacked layers, by the digest of their uncompressed archives |
//! | `partial/` | downloads that were interrupted |
//! | `scratch/` | what is being made; nothing in it is ever used |
//! | `containers/NAME/` | what a container writes (made and removed by the runtime), and `owner.json` |
//!
//! A layer's folder appears by a rename when it is whole and checked; a name is written last.

use crate::digest::Digest;
use crate::error::{Error, Result, Tried};
use crate::layer::{self, DeviceNodes};
use crate::name::ImageName;
use nix::fcntl::{Flock, FlockArg};
use oci_spec::image::{Config, ImageConfiguration, ImageManifest};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io::{ErrorKind, Read, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};

/// The images of this machine.
#[derive(Debug)]
pub struct ImageStore {
    root: PathBuf,
    scratch: PathBuf,
}

/// `images.json`.
#[derive(Debug, Default, Serialize, Deserialize)]
struct Names {
    version: u32,
    images: BTreeMap<String, Named>,
}

/// What a name means.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Named {
    manifest: String,
    /// Seconds since 1970.
    added: u64,
}

/// `owner.json` of a container's writable layer.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Owner {
    /// The container's folder below the state root.
    state: PathBuf,
    /// Its image.
    manifest: String,
}

/// An image that a container can be made of.
#[derive(Debug, Clone)]
pub struct Image {
    /// Its name, in full.
    pub name: String,
    /// Digest of its manifest.
    pub digest: String,
    /// Its layers' folders, the topmost first.
    pub layers: Vec<PathBuf>,
    configuration: ImageConfiguration,
}

impl Image {
    /// What the image says of the program to run; `None` where it says nothing.
    pub fn config(&self) -> Option<&Config> {
        self.configuration.config().as_ref()
    }
}

/// Keeps images from being removed while it lives: a container is being made.
#[derive(Debug)]
pub struct Use {
    _lock: Flock<File>,
}

/// One line of `terrarium image list`.
#[derive(Debug, Clone, Serialize)]
pub struct Listed {
    /// Name, in full.
    pub name: String,
    /// Digest of the manifest.
    pub digest: String,
    /// How many layers it has.
    pub layers: usize,
    /// Bytes of its unpacked layers; layers that images share count for each.
    pub size_bytes: u64,
    /// When it was added, in seconds since 1970.
    pub added: u64,
    /// Folders of the containers that use it.
    pub containers: Vec<PathBuf>,
}

/// What `terrarium image prune` removed.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Pruned {
    /// Names.
    pub images: Vec<String>,
    /// Folders and files.
    pub files: usize,
    /// Bytes that they took.
    pub bytes: u64,
}

/// An image to be added.
pub(crate) struct NewImage<'a> {
    pub name: &'a ImageName,
    pub manifest: &'a [u8],
    pub config: &'a [u8],
    pub nodes: DeviceNodes,
}

/// Where layers come from.
pub(crate) trait LayerSource {
    /// Opens the archive of the layer at `index`, the lowest being 0.
    fn open(&mut self, index: usize) -> Result<Box<dyn Read + '_>>;
    /// The layer is unpacked, or was here already.
    fn done(&mut self, _index: usize) {}
}

impl ImageStore {
    /// The store in `root`; folders that are missing are made.
    pub fn open(root: &Path) -> Result<Self> {
        let root = std::path::absolute(root).tried("find", root)?;
        let mut private = fs::DirBuilder::new();
        private.recursive(true).mode(0o711);
        let scratch = root.join("scratch");
        // Containers with users of their own reach their files through these.
        for folder in [&root, &root.join("layers"), &root.join("containers")] {
            private.create(folder).tried("create image folder", folder)?;
        }
        for folder in [&root.join("blobs/sha256"), &root.join("partial"), &scratch] {
            private.mode(0o700).create(folder).tried("create image folder", folder)?;
        }
        Ok(Self { root, scratch })
    }

    /// A folder for what is being made.
    pub(crate) fn scratch(&self) -> &Path {
        &self.scratch
    }

    /// The file that takes the interrupted download of `digest`.
    pub(crate) fn partial(&self, digest: &Digest) -> PathBuf {
        self.root.join("partial").join(digest.hex())
    }

    /// Where containers' writable layers lie.
    pub fn containers(&self) -> PathBuf {
        self.root.join("containers")
    }

    fn lock(&self, how: FlockArg) -> Result<Flock<File>> {
        let path = self.root.join("lock");
        let file = File::options()
            .create(true)
            .truncate(false)
            .read(true)
            .write(true)
            .open(&path)
            .tried("open", &path)?;
        Flock::lock(file, how).map_err(|(_, errno)| errno).tried("lock", path)
    }

    /// Keeps images from being removed.
    pub fn hold(&self) -> Result<Use> {
        Ok(Use { _lock: self.lock(FlockArg::LockShared)? })
    }

    fn names(&self) -> Result<Names> {
        let path = self.root.join("images.json");
        match fs::read(&path) {
            Ok(bytes) => serde_json::from_slice(&bytes)
                .map_err(|error| Error::malformed(path.display().to_string(), error)),
            Err(error) if error.kind() == ErrorKind::NotFound => {
                Ok(Names { version: 1, ..Names::default() })
            }
            Err(error) => Err(error).tried("read", path),
        }
    }

    fn write_names(&self, names: &Names) -> Result<()> {
        let bytes = serde_json::to_vec_pretty(names).expect("names are plain data");
        // What the names mean is on the disk before they are.
        let folder = File::open(&self.root).tried("open", &self.root)?;
        rustix::fs::syncfs(&folder).tried("sync", &self.root)?;
        self.write(&self.root.join("images.json"), &bytes)
    }

    /// Writes a file as a whole.
    fn write(&self, path: &Path, bytes: &[u8]) -> Result<()> {
        let mut file =
            tempfile::NamedTempFile::new_in(&self.scratch).tried("create in", &self.scratch)?;
        file.write_all(bytes).tried("write", path)?;
        file.as_file().sync_all().tried("sync", path)?;
        file.persist(path).map_err(|error| error.error).tried("write", path)?;
        Ok(())
    }

    /// Adds an image, unpacking the layers that are not here yet.
    pub(crate) fn add(&self, new: &NewImage<'_>, source: &mut dyn LayerSource) -> Result<()> {
        let configuration = configuration(new.config)?;
        let diff_ids = diff_ids(&configuration)?;
        let manifest: ImageManifest = parse(new.manifest, "manifest")?;
        if manifest.layers().len() != diff_ids.len() {
            return Err(Error::malformed(
                format!("manifest of {}", new.name),
                format!(
                    "it has {} layers and its configuration {}",
                    manifest.layers().len(),
                    diff_ids.len()
                ),
            ));
        }
        for (index, diff_id) in diff_ids.iter().enumerate() {
            if !self.has_layer(diff_id) {
                self.unpack(diff_id, source.open(index)?, new.nodes)?;
            }
            source.done(index);
        }
        let _lock = self.lock(FlockArg::LockExclusive)?;
        // Somebody may have pruned what no name meant yet.
        if let Some(gone) = diff_ids.iter().find(|diff_id| !self.has_layer(diff_id)) {
            return Err(Error::malformed(
                format!("layer {gone}"),
                "it was removed while the image was being added (try again)",
            ));
        }
        let digest = Digest::of(new.manifest);
        self.write(&self.blob(&digest), new.manifest)?;
        self.write(&self.blob(&Digest::of(new.config)), new.config)?;
        let mut names = self.names()?;
        let added = std::time::SystemTime::now()
            .duration_since(std::time::UNIX_EPOCH)
            .map_or(0, |time| time.as_secs());
        names.images.insert(new.name.to_string(), Named { manifest: digest.to_string(), added });
        self.write_names(&names)
    }

    pub(crate) fn has_layer(&self, diff_id: &Digest) -> bool {
        self.layer(diff_id).is_dir()
    }

    fn layer(&self, diff_id: &Digest) -> PathBuf {
        self.root.join("layers").join(diff_id.hex())
    }

    fn blob(&self, digest: &Digest) -> PathBuf {
        self.root.join("blobs/sha256").join(digest.hex())
    }

    fn unpack(&self, diff_id: &Digest, archive: impl Read, nodes: DeviceNodes) -> Result<()> {
        let scratch = tempfile::Builder::new()
            .prefix("layer-")
            .tempdir_in(&self.scratch)
            .tried("create in", &self.scratch)?;
        let folder = scratch.path().join("layer");
        layer::new_folder(&folder)?;
        let found = layer::unpack(archive, &diff_id.to_string(), &folder, nodes)?;
        diff_id.check(|| format!("layer {diff_id}"), &found)?;
        let place = self.layer(diff_id);
        match fs::rename(&folder, &place) {
            // Two pulls of one layer: the other's is as good.
            Err(_) if place.is_dir() => Ok(()),
            result => result.tried("rename to", place),
        }
    }

    /// The image that `text` names.
    pub fn image(&self, text: &str) -> Result<Image> {
        let names = self.names()?;
        let candidates = ImageName::candidates(text)?;
        let found = candidates
            .iter()
            .find_map(|name| names.images.get_key_value(&name.to_string()))
            .ok_or_else(|| Error::NotFound {
                name: candidates.last().map_or_else(|| text.to_owned(), ToString::to_string),
            })?;
        self.load(found.0, found.1)
    }

    fn load(&self, name: &str, named: &Named) -> Result<Image> {
        let manifest: ImageManifest = parse(&self.read(&named.manifest)?, "manifest")?;
        let configuration = configuration(&self.read(manifest.config().digest().as_ref())?)?;
        let layers = diff_ids(&configuration)?.iter().rev().map(|id| self.layer(id)).collect();
        Ok(Image { name: name.to_owned(), digest: named.manifest.clone(), layers, configuration })
    }

    fn read(&self, digest: &str) -> Result<Vec<u8>> {
        let path = self.blob(&Digest::parse(digest)?);
        fs::read(&path).tried("read", path)
    }

    /// What `terrarium image inspect` shows: name, manifest and configuration.
    pub fn inspect(&self, text: &str) -> Result<serde_json::Value> {
        let image = self.image(text)?;
        let manifest: serde_json::Value = parse(&self.read(&image.digest)?, "manifest")?;
        let config: serde_json::Value = parse(
            &self.read(manifest["config"]["digest"].as_str().unwrap_or_default())?,
            "configuration",
        )?;
        Ok(serde_json::json!({
            "name": image.name,
            "digest": image.digest,
            "layers": image.layers,
            "manifest": manifest,
            "config": config,
        }))
    }

    /// All images, by name.
    pub fn list(&self) -> Result<Vec<Listed>> {
        let owners = self.owners()?;
        let mut sizes = BTreeMap::new();
        self.names()?
            .images
            .iter()
            .map(|(name, named)| {
                let image = self.load(name, named)?;
                let mut size_bytes = 0;
                for layer in &image.layers {
                    size_bytes +=
                        *sizes.entry(layer.clone()).or_insert_with(|| size_of_tree(layer));
                }
                Ok(Listed {
                    name: name.clone(),
                    digest: image.digest.clone(),
                    layers: image.layers.len(),
                    size_bytes,
                    added: named.added,
                    containers: owners
                        .iter()
                        .filter(|owner| owner.manifest == image.digest)
                        .map(|owner| owner.state.clone())
                        .collect(),
                })
            })
            .collect()
    }

    /// What a container's `owner.json` must say for its image to be kept.
    pub fn owner_note(&self, image: &Image, state: &Path) -> Vec<u8> {
        let owner = Owner { state: state.to_owned(), manifest: image.digest.clone() };
        serde_json::to_vec(&owner).expect("plain data")
    }

    fn owners(&self) -> Result<Vec<Owner>> {
        Ok(entries(&self.containers())?
            .iter()
            .filter_map(|folder| {
                serde_json::from_slice(&fs::read(folder.join("owner.json")).ok()?).ok()
            })
            // After a reboot the state is gone, and what it wrote is to be pruned.
            .filter(|owner: &Owner| owner.state.is_dir())
            .collect())
    }

    /// Takes the name away, and what nothing else needs with it.
    pub fn remove(&self, text: &str, force: bool) -> Result<Pruned> {
        let _lock = self.lock(FlockArg::LockExclusive)?;
        let image = self.image(text)?;
        let mut names = self.names()?;
        let last =
            names.images.values().filter(|named| named.manifest == image.digest).count() == 1;
        if last
            && !force
            && let Some(owner) = self.owners()?.iter().find(|owner| owner.manifest == image.digest)
        {
            return Err(Error::InUse {
                name: image.name,
                container: owner
                    .state
                    .file_name()
                    .map_or_else(String::new, |name| name.to_string_lossy().into_owned()),
            });
        }
        names.images.remove(&image.name);
        self.write_names(&names)?;
        let mut pruned = self.sweep(&names)?;
        pruned.images.push(image.name);
        Ok(pruned)
    }

    /// Removes what no image and no container needs; with `all`, first the images that no container uses.
    pub fn prune(&self, all: bool) -> Result<Pruned> {
        let _lock = self.lock(FlockArg::LockExclusive)?;
        let mut names = self.names()?;
        let mut removed = Vec::new();
        if all {
            let owners = self.owners()?;
            names.images.retain(|name, named| {
                let used = owners.iter().any(|owner| owner.manifest == named.manifest);
                if !used {
                    removed.push(name.clone());
                }
                used
            });
            self.write_names(&names)?;
        }
        let mut pruned = self.sweep(&names)?;
        pruned.images = removed;
        Ok(pruned)
    }

    /// Removes blobs, layers, downloads and writable layers that nothing needs. The lock is held.
    fn sweep(&self, names: &Names) -> Result<Pruned> {
        let mut needed = BTreeSet::new();
        let owners = self.owners()?;
        let manifests = names.images.values().map(|named| &named.manifest);
        for digest in manifests.chain(owners.iter().map(|owner| &owner.manifest)) {
            // An image that was removed by force is not here any more.
            let Ok(bytes) = self.read(digest) else { continue };
            let manifest: ImageManifest = parse(&bytes, "manifest")?;
            let config = manifest.config().digest().to_string();
            needed.insert(self.blob(&Digest::parse(digest)?));
            needed.insert(self.blob(&Digest::parse(&config)?));
            for diff_id in diff_ids(&configuration(&self.read(&config)?)?)? {
                needed.insert(self.layer(&diff_id));
            }
        }
        let mut pruned = Pruned::default();
        for folder in ["blobs/sha256", "layers", "partial", "scratch", "containers"] {
            for path in entries(&self.root.join(folder))? {
                let keep = match folder {
                    "containers" => is_owned(&path),
                    // Another process may be at work there; what is old was left by one that died.
                    "scratch" | "partial" => is_young(&path),
                    _ => needed.contains(&path),
                };
                if !keep {
                    pruned.bytes += size_of_tree(&path);
                    remove_tree(&path)?;
                    pruned.files += 1;
                }
            }
        }
        Ok(pruned)
    }
}

fn entries(folder: &Path) -> Result<Vec<PathBuf>> {
    Ok(fs::read_dir(folder).tried("list", folder)?.flatten().map(|entry| entry.path()).collect())
}

/// Whether the container of a writable layer is still there; also while it is being made.
fn is_owned(folder: &Path) -> bool {
    match fs::read(folder.join("owner.json")) {
        Ok(bytes) => {
            serde_json::from_slice::<Owner>(&bytes).is_ok_and(|owner| owner.state.is_dir())
        }
        Err(_) => is_young(folder),
    }
}

/// Whether it was made or changed in the last ten minutes.
fn is_young(path: &Path) -> bool {
    fs::symlink_metadata(path)
        .and_then(|metadata| metadata.modified())
        .is_ok_and(|time| time.elapsed().is_ok_and(|age| age.as_secs() < 600))
}

fn remove_tree(path: &Path) -> Result<()> {
    let removed = if path.is_dir() { fs::remove_dir_all(path) } else { fs::remove_file(path) };
    match removed {
        Err(error) if error.kind() != ErrorKind::NotFound => Err(error).tried("remove", path),
        _ => Ok(()),
    }
}

/// Bytes on the disk; a file with many names counts once a name.
fn size_of_tree(path: &Path) -> u64 {
    let Ok(metadata) = fs::symlink_metadata(path) else { return 0 };
    if !metadata.is_dir() {
        return metadata.blocks() * 512;
    }
    fs::read_dir(path)
        .map_or(0, |entries| entries.flatten().map(|entry| size_of_tree(&entry.path())).sum())
}

fn parse<'b, T: Deserialize<'b>>(bytes: &'b [u8], what: &str) -> Result<T> {
    serde_json::from_slice(bytes).map_err(|error| Error::malformed(what, error))
}

fn configuration(bytes: &[u8]) -> Result<ImageConfiguration> {
    parse(bytes, "configuration of the image")
}

fn diff_ids(configuration: &ImageConfiguration) -> Result<Vec<Digest>> {
    configuration.rootfs().diff_ids().iter().map(|id| Digest::parse(id)).collect()
}
