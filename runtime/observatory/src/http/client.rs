//! How a guarded observatory is asked: the other half of [`super::web_config`], by a file of the form in which Prometheus is told
//! of the targets that it scrapes (`basic_auth` and `tls_config` of its configuration).

use super::web_config::{WebConfigError, failed};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use rustls::crypto::ring;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};
use serde::Deserialize;
use std::fs;
use std::io::{self, ErrorKind, Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// The file; paths are relative to its folder.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct File {
    basic_auth: Option<BasicAuth>,
    tls_config: Tls,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct BasicAuth {
    username: String,
    password: Option<String>,
    password_file: Option<PathBuf>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Tls {
    /// Whose certificates are trusted; without it those that the system trusts.
    ca_file: Option<PathBuf>,
    /// The own certificate, where the observatory wants one.
    cert_file: Option<PathBuf>,
    key_file: Option<PathBuf>,
    /// The name in the observatory's certificate, where it is not that of the address.
    server_name: Option<String>,
}

/// How to ask.
#[derive(Clone)]
pub struct HttpConfig {
    authorization: Option<String>,
    tls: Option<Arc<ClientConfig>>,
    server_name: Option<String>,
}

impl HttpConfig {
    /// Reads the file, and those that it names; without one nothing is said of who asks. TLS is prepared where it is `wanted`.
    ///
    /// # Errors
    /// Which file could not be read or understood, and why.
    pub fn read(path: Option<&Path>, wants_tls: bool) -> Result<Self, WebConfigError> {
        let file: File = match path {
            None => File::default(),
            Some(path) => {
                let text = fs::read_to_string(path).map_err(failed("read", path))?;
                serde_saphyr::from_str(&text).map_err(failed("read", path))?
            }
        };
        let path = path.unwrap_or(Path::new(""));
        let folder = path.parent().unwrap_or(Path::new(""));
        let authorization = file.basic_auth.map(|auth| auth.header(path, folder)).transpose()?;
        let tls = wants_tls.then(|| file.tls_config.prepare(path, folder)).transpose()?;
        Ok(Self { authorization, tls, server_name: file.tls_config.server_name })
    }

    /// The value of the header `Authorization`.
    pub fn authorization(&self) -> Option<&str> {
        self.authorization.as_deref()
    }

    /// Goes on with `stream`, which leads to `host`: by TLS, where that was prepared.
    ///
    /// # Errors
    /// Where `host` is no name that a certificate could have. That the other side is not who it should be is told by the
    /// first read or write.
    pub fn connect(&self, host: &str, stream: TcpStream) -> io::Result<Connection> {
        let Some(config) = &self.tls else { return Ok(Connection::Plain(stream)) };
        let name = self.server_name.as_deref().unwrap_or(host).to_owned();
        let name = ServerName::try_from(name).map_err(io::Error::other)?;
        let client = ClientConnection::new(Arc::clone(config), name).map_err(io::Error::other)?;
        Ok(Connection::Tls(Box::new(StreamOwned::new(client, stream))))
    }
}

impl BasicAuth {
    fn header(self, path: &Path, folder: &Path) -> Result<String, WebConfigError> {
        let password = match (self.password, self.password_file) {
            (Some(password), None) => password,
            (None, Some(file)) => {
                let file = folder.join(file);
                let text = fs::read_to_string(&file).map_err(failed("read", &file))?;
                text.trim_end_matches(['\r', '\n']).to_owned()
            }
            _ => {
                let reason = "basic_auth takes either a password or a password_file";
                return Err(failed("read", path)(reason));
            }
        };
        let encoded = STANDARD.encode(format!("{}:{password}", self.username));
        Ok(format!("Basic {encoded}"))
    }
}

impl Tls {
    fn prepare(&self, path: &Path, folder: &Path) -> Result<Arc<ClientConfig>, WebConfigError> {
        let mut roots = RootCertStore::empty();
        match &self.ca_file {
            None => {
                roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
            }
            Some(file) => {
                for certificate in certificates(&folder.join(file))? {
                    roots.add(certificate).map_err(failed("use", &folder.join(file)))?;
                }
            }
        }
        let config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .map_err(failed("use", path))?
            .with_root_certificates(roots);
        let config = match (&self.cert_file, &self.key_file) {
            (None, None) => config.with_no_client_auth(),
            (Some(certificate), Some(key)) => {
                let (certificate, key) = (folder.join(certificate), folder.join(key));
                let private = PrivateKeyDer::from_pem_file(&key).map_err(failed("read", &key))?;
                config
                    .with_client_auth_cert(certificates(&certificate)?, private)
                    .map_err(failed("use", &certificate))?
            }
            _ => return Err(failed("read", path)("cert_file and key_file belong together")),
        };
        Ok(Arc::new(config))
    }
}

fn certificates(file: &Path) -> Result<Vec<CertificateDer<'static>>, WebConfigError> {
    let all = CertificateDer::pem_file_iter(file).map_err(failed("read", file))?;
    let all: Vec<_> = all.collect::<Result<_, _>>().map_err(failed("read", file))?;
    if all.is_empty() {
        return Err(failed("read", file)("it has no certificate (PEM)"));
    }
    Ok(all)
}

/// A connection to an observatory.
pub enum Connection {
    /// As it is.
    Plain(TcpStream),
    /// By TLS.
    Tls(Box<StreamOwned<ClientConnection, TcpStream>>),
}

impl Connection {
    /// What it runs over.
    pub fn tcp(&self) -> &TcpStream {
        match self {
            Self::Plain(stream) => stream,
            Self::Tls(stream) => &stream.sock,
        }
    }
}

impl Read for Connection {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Plain(stream) => stream.read(bytes),
            // The answer's own end tells where it ends; HTTP/1.0 has none but this.
            Self::Tls(stream) => match stream.read(bytes) {
                Err(error) if error.kind() == ErrorKind::UnexpectedEof => Ok(0),
                read => read,
            },
        }
    }
}

impl Write for Connection {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::Plain(stream) => stream.write(bytes),
            Self::Tls(stream) => stream.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match self {
            Self::Plain(stream) => stream.flush(),
            Self::Tls(stream) => stream.flush(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_of_prometheus_form_are_read_and_others_refused() {
        let folder = tempfile::tempdir().expect("temporary folder");
        let path = folder.path().join("http.yml");
        let read = |text: &str| {
            fs::write(&path, text).expect("it is writable");
            HttpConfig::read(Some(&path), false).map(|config| config.authorization)
        };
        let basic = "basic_auth:\n  username: me\n";
        fs::write(folder.path().join("word"), "a:b\n").expect("it is writable");
        // printf me:a:b | base64
        let expected = Some("Basic bWU6YTpi".to_owned());
        assert_eq!(read(&format!("{basic}  password: 'a:b'")), Ok(expected.clone()));
        assert_eq!(read(&format!("{basic}  password_file: word")), Ok(expected));
        assert_eq!(read("tls_config: { server_name: x }"), Ok(None));
        for (wrong, why) in [
            (format!("{basic}  password: a\n  password_file: word"), "either a password"),
            (basic.to_owned(), "either a password"),
            (format!("{basic}  password_file: none"), "none: No such file"),
            ("tls_config: { insecure_skip_verify: true }".to_owned(), "insecure_skip_verify"),
        ] {
            let error = read(&wrong).expect_err(&wrong).to_string();
            assert!(error.contains(why), "{error}");
        }
        fs::write(&path, "tls_config: { ca_file: word }").expect("it is writable");
        let error = HttpConfig::read(Some(&path), true).map(drop).expect_err("it is no PEM");
        assert!(error.to_string().contains("word"), "{error}");
        assert!(HttpConfig::read(None, true).is_ok(), "the system's certificates do");
    }
}
