//! Images from a registry, by the OCI distribution protocol.
//!
//! Layers are downloaded into files of their own, checked, and then unpacked; an interrupted download goes on where it
//! stopped. <https://github.com/opencontainers/distribution-spec/blob/v1.1.0/spec.md>

use crate::credentials;
use crate::digest::{Digest, Hashed};
use crate::error::{Error, Result, Tried};
use crate::layer::DeviceNodes;
use crate::name::ImageName;
use crate::store::{ImageStore, LayerSource, NewImage};
use futures_util::{StreamExt, TryStreamExt, stream};
use oci_client::client::{BlobResponse, ClientConfig, ClientProtocol};
use oci_client::errors::OciDistributionError;
use oci_client::{Client, Reference};
use oci_spec::image::{Arch, ImageIndex, ImageManifest, Os};
use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

/// How many layers are downloaded at a time.
const AT_ONCE: usize = 3;
const MANIFESTS: [&str; 4] = [
    "application/vnd.oci.image.manifest.v1+json",
    "application/vnd.docker.distribution.manifest.v2+json",
    "application/vnd.oci.image.index.v1+json",
    "application/vnd.docker.distribution.manifest.list.v2+json",
];

/// What to pull, and how.
#[derive(Debug, Clone, Default)]
pub struct Pull {
    /// Name of the image.
    pub name: String,
    /// `USER:PASSWORD`
    pub credentials: Option<String>,
    /// HTTP without TLS. Registries on the loopback are reached so in any case, as docker does it.
    pub plain_http: bool,
    /// What becomes of device nodes.
    pub nodes: DeviceNodes,
}

/// How a pull or an import goes on.
pub trait Progress: Sync {
    /// The layers of an image have so many bytes in all, of which `have` are here from a pull that was interrupted.
    fn total(&self, layers: usize, bytes: u64, have: u64);
    /// So many more bytes came.
    fn received(&self, bytes: u64);
    /// One more layer is unpacked, or was here.
    fn unpacked(&self);
}

/// Pulls an image and gives its name in full.
pub fn pull(store: &ImageStore, what: &Pull, progress: &dyn Progress) -> Result<ImageName> {
    let name = ImageName::parse(&what.name)?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .tried("start a runtime for", "the network")?;
    // Fails where another part of the program has chosen already, which is as good.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let puller = Puller::new(store, what, &name)?;
    let (manifest, config, layers) = runtime.block_on(puller.fetch(progress))?;
    let mut source = Downloaded { paths: layers, progress };
    let new = NewImage { name: &name, manifest: &manifest, config: &config, nodes: what.nodes };
    store.add(&new, &mut source)?;
    Ok(name)
}

struct Puller<'a> {
    store: &'a ImageStore,
    name: &'a ImageName,
    client: Client,
    auth: oci_client::secrets::RegistryAuth,
}

impl<'a> Puller<'a> {
    fn new(store: &'a ImageStore, what: &Pull, name: &'a ImageName) -> Result<Self> {
        let registry = name.reference().resolve_registry();
        let plain = what.plain_http || is_loopback(registry);
        let config = ClientConfig {
            protocol: if plain { ClientProtocol::Http } else { ClientProtocol::Https },
            ..ClientConfig::default()
        };
        // Not `new`, which panics on a machine without certificate authorities. They are wanted for plain HTTP as well: the
        // library makes a client that verifies, whatever it is told.
        let client = Client::try_from(config).map_err(|error| Error::Registry {
            image: name.to_string(),
            reason: format!(
                "{error} (are the certificate authorities installed? Debian: ca-certificates)"
            ),
        })?;
        Ok(Self {
            store,
            name,
            client,
            auth: credentials::find(name.reference().registry(), what.credentials.as_deref())?,
        })
    }

    fn error(&self, error: &OciDistributionError) -> Error {
        let mut reason = error.to_string();
        let mut source = std::error::Error::source(error);
        while let Some(cause) = source {
            let cause_text = cause.to_string();
            if !reason.contains(&cause_text) {
                reason = format!("{reason}: {cause_text}");
            }
            source = cause.source();
        }
        let advice = match error {
            OciDistributionError::AuthenticationFailure(_)
            | OciDistributionError::UnauthorizedError { .. } => {
                " (log in with --creds USER:PASSWORD, or docker login)"
            }
            OciDistributionError::RequestError(error) if error.is_connect() => {
                " (is the registry's name right, and is there a network? plain HTTP takes --plain-http)"
            }
            _ => "",
        };
        Error::Registry { image: self.name.to_string(), reason: format!("{reason}{advice}") }
    }

    /// The manifest, the configuration, and the files of the layers (`None` where a layer is here already).
    async fn fetch(
        &self,
        progress: &dyn Progress,
    ) -> Result<(Vec<u8>, Vec<u8>, Vec<Option<PathBuf>>)> {
        let manifest = self.manifest().await?;
        let parsed: ImageManifest = serde_json::from_slice(&manifest)
            .map_err(|error| Error::malformed(format!("manifest of {}", self.name), error))?;
        let config = self.config(&parsed).await?;
        let configuration: oci_spec::image::ImageConfiguration = serde_json::from_slice(&config)
            .map_err(|error| Error::malformed(format!("configuration of {}", self.name), error))?;
        let mut wanted = Vec::new();
        for (index, layer) in parsed.layers().iter().enumerate() {
            let here = configuration
                .rootfs()
                .diff_ids()
                .get(index)
                .is_some_and(|id| Digest::parse(id).is_ok_and(|id| self.store.has_layer(&id)));
            wanted.push(if here {
                None
            } else {
                Some((Digest::parse(layer.digest().as_ref())?, layer.size()))
            });
        }
        let have =
            |digest: &Digest| fs::metadata(self.store.partial(digest)).map_or(0, |m| m.len());
        let missing = wanted.iter().flatten();
        progress.total(
            missing.clone().count(),
            missing.clone().map(|(_, size)| size).sum(),
            missing.map(|(digest, size)| have(digest).min(*size)).sum(),
        );
        let paths = stream::iter(wanted)
            .map(|layer| async move {
                match layer {
                    None => Ok(None),
                    Some((digest, size)) => self.layer(&digest, size, progress).await.map(Some),
                }
            })
            .buffered(AT_ONCE)
            .try_collect()
            .await?;
        Ok((manifest, config, paths))
    }

    /// The manifest for this machine, by way of an index where there is one.
    async fn manifest(&self) -> Result<Vec<u8>> {
        let reference = self.name.reference();
        let bytes = self.raw(reference).await?;
        if let Some(digest) = reference.digest() {
            Digest::parse(digest)?
                .check(|| format!("manifest of {}", self.name), &Digest::of(&bytes))?;
        }
        let Ok(index) = serde_json::from_slice::<ImageIndex>(&bytes) else { return Ok(bytes) };
        let here = index.manifests().iter().find(|entry| {
            entry.platform().as_ref().is_some_and(|platform| {
                *platform.os() == Os::Linux && *platform.architecture() == Arch::default()
            })
        });
        let Some(entry) = here else {
            return Err(Error::Registry {
                image: self.name.to_string(),
                reason: format!("it has no image for linux on {}", Arch::default()),
            });
        };
        let digest = entry.digest().to_string();
        let bytes = self.raw(&reference.clone_with_digest(digest.clone())).await?;
        Digest::parse(&digest)?
            .check(|| format!("manifest of {}", self.name), &Digest::of(&bytes))?;
        Ok(bytes)
    }

    async fn raw(&self, reference: &Reference) -> Result<Vec<u8>> {
        let answer = self.client.pull_manifest_raw(reference, &self.auth, &MANIFESTS).await;
        answer.map(|(bytes, _)| bytes.to_vec()).map_err(|error| self.error(&error))
    }

    async fn config(&self, manifest: &ImageManifest) -> Result<Vec<u8>> {
        let digest = Digest::parse(manifest.config().digest().as_ref())?;
        let mut bytes = Vec::new();
        let text = digest.to_string();
        self.client
            .pull_blob(self.name.reference(), text.as_str(), &mut bytes)
            .await
            .map_err(|error| self.error(&error))?;
        digest.check(|| format!("configuration of {}", self.name), &Digest::of(&bytes))?;
        Ok(bytes)
    }

    /// Downloads one layer, from where an earlier pull stopped, and checks it.
    async fn layer(&self, digest: &Digest, size: u64, progress: &dyn Progress) -> Result<PathBuf> {
        let path = self.store.partial(digest);
        let have = fs::metadata(&path).map_or(0, |metadata| metadata.len());
        if have < size {
            self.download(digest, &path, have, progress).await?;
        }
        let found = digest_of(&path)?;
        if let Err(error) = digest.check(|| format!("layer {digest} of {}", self.name), &found) {
            // Going on from wrong bytes would never come right.
            fs::remove_file(&path).tried("remove", &path)?;
            return Err(error);
        }
        Ok(path)
    }

    async fn download(
        &self,
        digest: &Digest,
        path: &Path,
        have: u64,
        progress: &dyn Progress,
    ) -> Result<()> {
        let text = digest.to_string();
        let reference = self.name.reference();
        let (append, mut stream) = if have == 0 {
            let stream = self.client.pull_blob_stream(reference, text.as_str()).await;
            (false, stream.map_err(|error| self.error(&error))?.stream)
        } else {
            let answer =
                self.client.pull_blob_stream_partial(reference, text.as_str(), have, None).await;
            match answer.map_err(|error| self.error(&error))? {
                BlobResponse::Partial(stream) => (true, stream.stream),
                // The registry knows no ranges.
                BlobResponse::Full(stream) => (false, stream.stream),
            }
        };
        let mut file = File::options()
            .create(true)
            .write(true)
            .append(append)
            .truncate(!append)
            .open(path)
            .tried("open", path)?;
        while let Some(chunk) = stream.next().await {
            let chunk = chunk.map_err(|error| Error::Registry {
                image: self.name.to_string(),
                reason: format!("{error} (what has come is kept: pull again to go on)"),
            })?;
            file.write_all(&chunk).tried("write", path)?;
            progress.received(chunk.len() as u64);
        }
        Ok(())
    }
}

fn digest_of(path: &Path) -> Result<Digest> {
    let mut file = Hashed::new(File::open(path).tried("open", path)?);
    io::copy(&mut file, &mut io::sink()).tried("read", path)?;
    Ok(file.digest())
}

/// Whether the registry is on this machine.
fn is_loopback(registry: &str) -> bool {
    let host = match registry.strip_prefix('[') {
        Some(rest) => rest.split(']').next().unwrap_or_default(),
        None => registry.split(':').next().unwrap_or_default(),
    };
    host == "localhost" || host.parse().is_ok_and(|ip: std::net::IpAddr| ip.is_loopback())
}

struct Downloaded<'a> {
    paths: Vec<Option<PathBuf>>,
    progress: &'a dyn Progress,
}

impl LayerSource for Downloaded<'_> {
    fn open(&mut self, index: usize) -> Result<Box<dyn Read + '_>> {
        let path = self.paths.get(index).and_then(Option::as_ref).ok_or_else(|| {
            Error::malformed("layer", "it was removed while the image was pulled (try again)")
        })?;
        Ok(Box::new(File::open(path).tried("open", path)?))
    }

    fn done(&mut self, index: usize) {
        if let Some(path) = self.paths.get(index).and_then(Option::as_ref) {
            // It stays until the next prune where this fails.
            let _ = fs::remove_file(path);
        }
        self.progress.unpacked();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn registries_on_this_machine_are_told_from_others() {
        for (registry, expected) in [
            ("localhost:5000", true),
            ("127.0.0.1:5000", true),
            ("[::1]:5000", true),
            ("localhost.example.com", false),
            ("docker.io", false),
            ("10.0.0.1:5000", false),
        ] {
            assert_eq!(is_loopback(registry), expected, "{registry}");
        }
    }
}
