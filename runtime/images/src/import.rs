//! Images from files: an OCI layout, a docker-archive, or the tar archive of a root filesystem.

use crate::archive::Parts;
use crate::digest::Digest;
use crate::error::{Error, Result};
use crate::layer::DeviceNodes;
use crate::name::ImageName;
use crate::pull::Progress;
use crate::store::{ImageStore, LayerSource, NewImage};
use oci_spec::image::{Arch, Descriptor, ImageIndex, ImageManifest, MediaType, Os};
use serde::Deserialize;
use serde_json::json;
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

/// What to import.
#[derive(Debug, Clone)]
pub struct Import {
    /// A folder with an OCI layout, a file, or `-` for standard input.
    pub path: PathBuf,
    /// Name for the image, instead of those that the file gives.
    pub name: Option<String>,
    /// What becomes of device nodes.
    pub nodes: DeviceNodes,
}

/// Imports every image of the file, and gives their names. What is read of layers is told as received; `bytes` of a total is 0 where the
/// file does not say.
pub fn import(
    store: &ImageStore,
    what: &Import,
    progress: &dyn Progress,
) -> Result<Vec<ImageName>> {
    let name = what.name.as_deref().map(ImageName::parse_local).transpose()?;
    let parts = Parts::open(&what.path, store.scratch())?;
    let importer =
        Importer { store, parts: &parts, nodes: what.nodes, shown: &what.path, progress };
    if parts.has("oci-layout") || parts.has("index.json") {
        importer.layout(name.as_ref())
    } else if parts.has("manifest.json") {
        importer.docker_archive(name.as_ref())
    } else if let Some(archive) = parts.whole() {
        let Some(name) = name else {
            return Err(importer.malformed(
                "a root filesystem has no name in it (give one: terrarium image import FILE NAME)",
            ));
        };
        importer.root_filesystem(archive, name)
    } else {
        Err(importer.malformed(
            "a folder is imported if it is an OCI layout (a root filesystem needs no import: terrarium run FOLDER)",
        ))
    }
}

/// One image of a docker-archive's `manifest.json`.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct DockerImage {
    config: String,
    #[serde(default)]
    repo_tags: Option<Vec<String>>,
    layers: Vec<String>,
}

struct Importer<'a> {
    store: &'a ImageStore,
    parts: &'a Parts,
    nodes: DeviceNodes,
    shown: &'a Path,
    progress: &'a dyn Progress,
}

impl Importer<'_> {
    fn malformed(&self, reason: impl std::fmt::Display) -> Error {
        Error::malformed(self.shown.display().to_string(), reason)
    }

    /// <https://github.com/opencontainers/image-spec/blob/v1.1.0/image-layout.md>
    fn layout(&self, name: Option<&ImageName>) -> Result<Vec<ImageName>> {
        let index = self.parts.bytes("index.json")?;
        let index: ImageIndex = serde_json::from_slice(&index)
            .map_err(|error| self.malformed(format!("index.json: {error}")))?;
        let entries: Vec<&Descriptor> =
            index.manifests().iter().filter(|entry| runs_here(entry)).collect();
        if entries.is_empty() {
            return Err(self.malformed(format!(
                "no image for linux on {} is in its index.json",
                Arch::default()
            )));
        }
        if name.is_some() && entries.len() > 1 {
            return Err(self.malformed(format!(
                "it holds {} images, and one name is not enough (leave the name out)",
                entries.len()
            )));
        }
        let mut names = Vec::new();
        for entry in entries {
            let own = entry
                .annotations()
                .iter()
                .flatten()
                .find(|(key, _)| *key == "org.opencontainers.image.ref.name")
                .map(|(_, value)| value.as_str());
            let name = match (name, own) {
                (Some(name), _) => name.clone(),
                // Many tools write the tag alone.
                (None, Some(own)) if own.contains(['/', ':']) => ImageName::parse_local(own)?,
                (None, _) => {
                    return Err(self.malformed(
                        "its index.json gives no full name (give one: terrarium image import FILE NAME)",
                    ));
                }
            };
            let manifest = self.manifest(entry, 0)?;
            self.add(&manifest, &name)?;
            names.push(name);
        }
        Ok(names)
    }

    /// The manifest's bytes that `entry` leads to, by way of an index where there is one.
    fn manifest(&self, entry: &Descriptor, depth: usize) -> Result<Vec<u8>> {
        let bytes = self.blob(entry)?;
        if !matches!(entry.media_type(), MediaType::ImageIndex) || depth > 4 {
            return Ok(bytes);
        }
        let index: ImageIndex = serde_json::from_slice(&bytes)
            .map_err(|error| self.malformed(format!("index {}: {error}", entry.digest())))?;
        let inner = index.manifests().iter().find(|entry| runs_here(entry)).ok_or_else(|| {
            self.malformed(format!("no image for linux on {} is in it", Arch::default()))
        })?;
        self.manifest(inner, depth + 1)
    }

    fn blob(&self, entry: &Descriptor) -> Result<Vec<u8>> {
        let digest = Digest::parse(entry.digest().as_ref())?;
        let bytes = self.parts.bytes(&blob_path(&digest))?;
        digest.check(|| blob_path(&digest), &Digest::of(&bytes))?;
        Ok(bytes)
    }

    fn add(&self, manifest: &[u8], name: &ImageName) -> Result<()> {
        let parsed: ImageManifest = serde_json::from_slice(manifest)
            .map_err(|error| self.malformed(format!("manifest of {name}: {error}")))?;
        let config = self.blob(parsed.config())?;
        let paths = parsed
            .layers()
            .iter()
            .map(|layer| Ok(blob_path(&Digest::parse(layer.digest().as_ref())?)))
            .collect::<Result<Vec<_>>>()?;
        let bytes = parsed.layers().iter().map(Descriptor::size).sum();
        self.progress.total(paths.len(), bytes, 0);
        let mut source = FromParts { parts: self.parts, paths: &paths, progress: self.progress };
        self.store
            .add(&NewImage { name, manifest, config: &config, nodes: self.nodes }, &mut source)
    }

    /// What `docker save` and `podman save` write.
    fn docker_archive(&self, name: Option<&ImageName>) -> Result<Vec<ImageName>> {
        let list = self.parts.bytes("manifest.json")?;
        let images: Vec<DockerImage> = serde_json::from_slice(&list)
            .map_err(|error| self.malformed(format!("manifest.json: {error}")))?;
        if name.is_some() && images.len() != 1 {
            return Err(self.malformed(format!(
                "it holds {} images, and one name is not enough (leave the name out)",
                images.len()
            )));
        }
        let mut names = Vec::new();
        for image in &images {
            let tags = match name {
                Some(name) => vec![name.clone()],
                None => image
                    .repo_tags
                    .iter()
                    .flatten()
                    .map(|tag| ImageName::parse_local(tag))
                    .collect::<Result<_>>()?,
            };
            if tags.is_empty() {
                return Err(self.malformed(
                    "an image in it has no name (give one: terrarium image import FILE NAME)",
                ));
            }
            let config = self.parts.bytes(&image.config)?;
            let layers: Vec<_> = image.layers.iter().map(|path| (path.as_str(), 0)).collect();
            let manifest = own_manifest(&config, &layers);
            for tag in tags {
                self.progress.total(image.layers.len(), 0, 0);
                let mut source =
                    FromParts { parts: self.parts, paths: &image.layers, progress: self.progress };
                let new = NewImage {
                    name: &tag,
                    manifest: &manifest,
                    config: &config,
                    nodes: self.nodes,
                };
                self.store.add(&new, &mut source)?;
                names.push(tag);
            }
        }
        Ok(names)
    }

    fn root_filesystem(&self, archive: &Path, name: ImageName) -> Result<Vec<ImageName>> {
        let open = || {
            File::open(archive).map_err(|source| Error::File {
                what: "open",
                path: archive.to_owned(),
                source,
            })
        };
        let digest = {
            let mut hashed = crate::digest::Hashed::new(open()?);
            std::io::copy(&mut hashed, &mut std::io::sink())
                .map_err(|error| self.malformed(error))?;
            hashed.digest()
        };
        let config = json!({
            "architecture": Arch::default().to_string(),
            "os": "linux",
            "config": {"Cmd": ["/bin/sh"], "Env": ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"]},
            "rootfs": {"type": "layers", "diff_ids": [digest.to_string()]},
        })
        .to_string();
        let manifest = own_manifest(config.as_bytes(), &[(&digest.to_string(), 0)]);
        self.progress.total(1, archive.metadata().map_or(0, |info| info.len()), 0);
        let mut source = FromFile { path: archive, progress: self.progress };
        let new = NewImage {
            name: &name,
            manifest: &manifest,
            config: config.as_bytes(),
            nodes: self.nodes,
        };
        self.store.add(&new, &mut source)?;
        Ok(vec![name])
    }
}

/// A manifest for an image that comes without one; its layers are known by the configuration's `diff_ids`.
fn own_manifest(config: &[u8], layers: &[(&str, u64)]) -> Vec<u8> {
    json!({
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": {
            "mediaType": "application/vnd.oci.image.config.v1+json",
            "digest": Digest::of(config).to_string(),
            "size": config.len(),
        },
        "layers": layers.iter().map(|(name, size)| json!({
            "mediaType": "application/vnd.oci.image.layer.v1.tar",
            "digest": Digest::of(name.as_bytes()).to_string(),
            "size": size,
        })).collect::<Vec<_>>(),
    })
    .to_string()
    .into_bytes()
}

fn blob_path(digest: &Digest) -> String {
    format!("blobs/sha256/{}", digest.hex())
}

/// Whether an index's entry is for this machine; one that does not say is taken to be.
fn runs_here(entry: &Descriptor) -> bool {
    entry.platform().as_ref().is_none_or(|platform| {
        *platform.os() == Os::Linux && *platform.architecture() == Arch::default()
    })
}

/// Tells how much was read.
struct Told<'a, R> {
    inner: R,
    progress: &'a dyn Progress,
}

impl<R: Read> Read for Told<'_, R> {
    fn read(&mut self, into: &mut [u8]) -> std::io::Result<usize> {
        let read = self.inner.read(into)?;
        self.progress.received(read as u64);
        Ok(read)
    }
}

struct FromParts<'a> {
    parts: &'a Parts,
    paths: &'a [String],
    progress: &'a dyn Progress,
}

impl LayerSource for FromParts<'_> {
    fn open(&mut self, index: usize) -> Result<Box<dyn Read + '_>> {
        let path = self
            .paths
            .get(index)
            .ok_or_else(|| Error::malformed("image", "it has fewer layers than it says"))?;
        Ok(Box::new(Told { inner: self.parts.read(path)?, progress: self.progress }))
    }

    fn done(&mut self, _index: usize) {
        self.progress.unpacked();
    }
}

struct FromFile<'a> {
    path: &'a Path,
    progress: &'a dyn Progress,
}

impl LayerSource for FromFile<'_> {
    fn open(&mut self, _index: usize) -> Result<Box<dyn Read + '_>> {
        let file = File::open(self.path).map_err(|source| Error::File {
            what: "open",
            path: self.path.to_owned(),
            source,
        })?;
        Ok(Box::new(Told { inner: file, progress: self.progress }))
    }

    fn done(&mut self, _index: usize) {
        self.progress.unpacked();
    }
}
