//! TLS and basic authentication, by a file of the form that Prometheus' exporters share (`web-configuration.md` of
//! prometheus/exporter-toolkit), so that one file serves them all.
//!
//! The files are looked at when a connection comes: a certificate that was renewed is used from the next one on. What cannot
//! be read then is told, and what was there before goes on.

use rustls::RootCertStore;
use rustls::ServerConfig;
use rustls::crypto::ring;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use serde::Deserialize;
use sha2::{Digest, Sha256};
use std::collections::{BTreeMap, HashSet};
use std::fmt::Display;
use std::fs;
use std::path::{Path, PathBuf};
use std::str::FromStr as _;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::SystemTime;
use tokio_rustls::TlsAcceptor;

/// The file.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct File {
    tls_server_config: Option<Tls>,
    /// Hashes of passwords (bcrypt), by the names of users.
    basic_auth_users: BTreeMap<String, String>,
}

/// Its part about TLS; paths are relative to the file's folder.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Tls {
    cert_file: PathBuf,
    key_file: PathBuf,
    /// Certificates of those who may ask; without it anybody may.
    client_ca_file: Option<PathBuf>,
    client_auth_type: Option<ClientAuth>,
}

/// Which certificates clients need.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
enum ClientAuth {
    NoClientCert,
    VerifyClientCertIfGiven,
    RequireAndVerifyClientCert,
}

/// Why there is no configuration.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{what} {}: {reason}", path.display())]
pub struct WebConfigError {
    what: &'static str,
    path: PathBuf,
    reason: String,
}

pub(super) fn failed<E: Display>(
    what: &'static str,
    path: &Path,
) -> impl FnOnce(E) -> WebConfigError {
    move |error| {
        // The rest shows the place in the file.
        let reason = error.to_string().lines().next().unwrap_or_default().to_owned();
        WebConfigError { what, path: path.to_owned(), reason }
    }
}

/// What was read.
struct Loaded {
    /// The files, and when each was changed.
    files: Vec<(PathBuf, Option<SystemTime>)>,
    tls: Option<TlsAcceptor>,
    users: BTreeMap<String, String>,
}

/// No more headers that were let in are remembered.
const MOST_ACCEPTED: usize = 128;

/// A hash of no user's password, of the usual cost: to check takes as long for a name that does not exist.
const NOBODY: &str = "$2b$10$terrariumterrariumteruterrariumterrariumterrariumtere";

/// Who may ask, and how.
pub struct WebConfig {
    path: PathBuf,
    loaded: Mutex<Arc<Loaded>>,
    /// SHA-256 of the headers that were let in and the hash that they were held against: bcrypt is slow on purpose.
    accepted: Mutex<HashSet<[u8; 32]>>,
    /// One password is checked at a time, whoever asks.
    checking: tokio::sync::Mutex<()>,
}

impl WebConfig {
    /// Reads the file and those that it names.
    ///
    /// # Errors
    /// Which file could not be read or understood, and why.
    pub fn read(path: &Path) -> Result<Self, WebConfigError> {
        Ok(Self {
            path: path.to_owned(),
            loaded: Mutex::new(Arc::new(Loaded::read(path)?)),
            accepted: Mutex::default(),
            checking: tokio::sync::Mutex::new(()),
        })
    }

    /// Whether connections are by TLS.
    pub fn has_tls(&self) -> bool {
        self.current().tls.is_some()
    }

    /// What takes connections in, where they are by TLS.
    pub fn tls(&self) -> Option<TlsAcceptor> {
        self.current().tls.clone()
    }

    fn current(&self) -> Arc<Loaded> {
        let mut loaded = self.loaded.lock().unwrap_or_else(PoisonError::into_inner);
        if loaded.files.iter().any(|(path, changed)| changed_at(path) != *changed) {
            match Loaded::read(&self.path) {
                Ok(new) => *loaded = Arc::new(new),
                Err(error) => {
                    tracing::warn!(%error, "the web configuration stays as it was");
                    // Until it changes again.
                    let files = loaded.files.iter();
                    let files = files.map(|(path, _)| (path.clone(), changed_at(path))).collect();
                    *loaded = Arc::new(Loaded {
                        files,
                        tls: loaded.tls.clone(),
                        users: loaded.users.clone(),
                    });
                }
            }
        }
        Arc::clone(&loaded)
    }

    /// Whether a request with this `Authorization` header may be answered.
    pub async fn lets_in(&self, header: Option<&str>) -> bool {
        let loaded = self.current();
        if loaded.users.is_empty() {
            return true;
        }
        let Some((user, password)) = header.and_then(credentials) else { return false };
        let known = loaded.users.get(&user);
        let hash = known.map_or(NOBODY, String::as_str).to_owned();
        let key: [u8; 32] = Sha256::digest(format!("{user}\0{password}\0{hash}")).into();
        let accepted = || self.accepted.lock().unwrap_or_else(PoisonError::into_inner);
        if known.is_some() && accepted().contains(&key) {
            return true;
        }
        let checked = {
            let _one_at_a_time = self.checking.lock().await;
            tokio::task::spawn_blocking(move || bcrypt::verify(password, &hash)).await
        };
        let right = known.is_some() && matches!(checked, Ok(Ok(true)));
        if right {
            let mut accepted = accepted();
            if accepted.len() >= MOST_ACCEPTED {
                accepted.clear();
            }
            accepted.insert(key);
        }
        right
    }
}

/// Name and password of a header `Basic …` (RFC 7617).
fn credentials(header: &str) -> Option<(String, String)> {
    use base64::Engine as _;
    let (scheme, text) = header.split_once(' ')?;
    if !scheme.eq_ignore_ascii_case("basic") {
        return None;
    }
    let bytes = base64::engine::general_purpose::STANDARD.decode(text.trim()).ok()?;
    let text = String::from_utf8(bytes).ok()?;
    let (user, password) = text.split_once(':')?;
    Some((user.to_owned(), password.to_owned()))
}

fn changed_at(path: &Path) -> Option<SystemTime> {
    fs::metadata(path).and_then(|metadata| metadata.modified()).ok()
}

impl Loaded {
    fn read(path: &Path) -> Result<Self, WebConfigError> {
        let mut files = vec![(path.to_owned(), changed_at(path))];
        let text = fs::read_to_string(path).map_err(failed("read", path))?;
        let file: File = if text.trim().is_empty() {
            File::default()
        } else {
            serde_saphyr::from_str(&text).map_err(failed("understand", path))?
        };
        for (user, hash) in &file.basic_auth_users {
            if let Err(error) = bcrypt::HashParts::from_str(hash) {
                let reason = format!("the hash of user {user:?} is none of bcrypt's: {error}");
                return Err(failed::<String>("understand", path)(reason));
            }
        }
        let folder = path.parent().unwrap_or(Path::new("."));
        let tls = file.tls_server_config.map(|tls| tls.acceptor(folder, &mut files)).transpose()?;
        Ok(Self { files, tls, users: file.basic_auth_users })
    }
}

impl Tls {
    fn acceptor(
        &self,
        folder: &Path,
        files: &mut Vec<(PathBuf, Option<SystemTime>)>,
    ) -> Result<TlsAcceptor, WebConfigError> {
        let mut named = |file: &Path| {
            let path = folder.join(file);
            files.push((path.clone(), changed_at(&path)));
            path
        };
        let (certificate, key) = (named(&self.cert_file), named(&self.key_file));
        let authority = self.client_ca_file.as_deref().map(named);
        let chain = certificates(&certificate)?;
        let private =
            PrivateKeyDer::from_pem_file(&key).map_err(failed("read the private key", &key))?;
        let provider = Arc::new(ring::default_provider());
        let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
            .with_safe_default_protocol_versions()
            .map_err(failed("set up TLS for", &certificate))?;
        let usual = if authority.is_some() {
            ClientAuth::RequireAndVerifyClientCert
        } else {
            ClientAuth::NoClientCert
        };
        let wanted = self.client_auth_type.unwrap_or(usual);
        let builder = match (wanted, &authority) {
            (ClientAuth::NoClientCert, _) => builder.with_no_client_auth(),
            (_, None) => {
                let reason = "client_auth_type needs client_ca_file".to_owned();
                return Err(failed::<String>("set up TLS for", &certificate)(reason));
            }
            (wanted, Some(authority)) => {
                let mut roots = RootCertStore::empty();
                for certificate in certificates(authority)? {
                    roots.add(certificate).map_err(failed("take certificates of", authority))?;
                }
                let verifier = WebPkiClientVerifier::builder_with_provider(roots.into(), provider);
                let verifier = if wanted == ClientAuth::VerifyClientCertIfGiven {
                    verifier.allow_unauthenticated()
                } else {
                    verifier
                };
                let verifier = verifier.build();
                builder.with_client_cert_verifier(
                    verifier.map_err(failed("verify clients by", authority))?,
                )
            }
        };
        let mut config = builder
            .with_single_cert(chain, private)
            .map_err(failed("use the certificate of", &certificate))?;
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(TlsAcceptor::from(Arc::new(config)))
    }
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, WebConfigError> {
    let what = "read the certificates of";
    let all = CertificateDer::pem_file_iter(path).map_err(failed(what, path))?;
    let all: Vec<_> = all.collect::<Result<_, _>>().map_err(failed(what, path))?;
    if all.is_empty() {
        return Err(failed::<&str>(what, path)("there is none"));
    }
    Ok(all)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn credentials_are_read_and_nonsense_is_none() {
        assert_eq!(credentials("Basic YTpiOmM="), Some(("a".to_owned(), "b:c".to_owned())));
        assert_eq!(credentials("basic YTo="), Some(("a".to_owned(), String::new())));
        for nonsense in ["", "Basic", "Bearer YTpi", "Basic !", "Basic YQ==", "Basic /w=="] {
            assert_eq!(credentials(nonsense), None, "{nonsense}");
        }
        assert!(bcrypt::HashParts::from_str(NOBODY).is_ok());
        // As htpasswd writes it.
        let hash = NOBODY.replace("$2b$", "$2y$");
        assert!(bcrypt::HashParts::from_str(&hash).is_ok());
    }

    #[test]
    fn what_is_wrong_with_a_file_is_told() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("web.yml");
        for (text, told) in [
            ("basic_auth_users:\n  a: secret\n", "the hash of user \"a\""),
            ("tls_config: {}\n", "tls_config"),
            ("tls_server_config: {cert_file: a, key_file: b}\n", "read the certificates of"),
            ("[", "understand"),
        ] {
            fs::write(&path, text).unwrap();
            let error = WebConfig::read(&path).err().expect("it is wrong").to_string();
            assert!(
                error.contains(told) && error.contains(folder.path().to_str().unwrap()),
                "{error}"
            );
        }
        fs::write(&path, "").unwrap();
        assert!(!WebConfig::read(&path).unwrap().has_tls());
        assert!(WebConfig::read(&folder.path().join("none")).is_err());
    }
}
