//! How the command line asks an observatory: over HTTP, or by TLS and with a password where it is guarded.

use super::terminal::harmless;
use anyhow::{Context, bail};
use std::fmt::Write as _;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpStream, ToSocketAddrs};
use std::path::PathBuf;
use std::time::Duration;
use terrarium_observatory::http::client::{Connection, HttpConfig};

/// Where an observatory listens unless it is told otherwise.
pub const URL: &str = "http://127.0.0.1:9750";

/// What a guarded observatory wants.
#[derive(Debug, Clone, Default, clap::Args)]
pub struct Guard {
    /// How to ask an observatory that is guarded: a file with name, password and certificates, in the form that Prometheus takes
    #[arg(long, value_name = "FILE")]
    http_config: Option<PathBuf>,
}

impl Guard {
    /// Whether somebody said what it wants.
    pub fn is_given(&self) -> bool {
        self.http_config.is_some()
    }
}

/// No observatory answers at this address.
#[derive(Debug, thiserror::Error)]
#[error(
    "ask the observatory at {address} for {what}: {error} (is `terrarium observe` running? see {option})"
)]
pub struct NobodyListens {
    address: String,
    what: String,
    option: String,
    error: std::io::Error,
}

/// An observatory that can be asked.
#[derive(Clone)]
pub struct Endpoint {
    /// Host and port.
    address: String,
    /// The option that named it.
    option: &'static str,
    config: HttpConfig,
}

impl Endpoint {
    /// The one at `url`, which `option` gave.
    pub fn new(option: &'static str, url: &str, guard: &Guard) -> anyhow::Result<Self> {
        let (by_tls, address) = address(option, url)?;
        let config = HttpConfig::read(guard.http_config.as_deref(), by_tls)
            .context("understand --http-config")?;
        Ok(Self { address, option, config })
    }

    /// Host and port.
    pub fn address(&self) -> &str {
        &self.address
    }

    /// Asks for `path`, which is `what`, and reads the head of the answer. HTTP/1.0, so that the body simply ends with the
    /// connection. An error says what was asked for, and which option says where.
    pub fn request(&self, path: &str, what: &str) -> anyhow::Result<BufReader<Connection>> {
        let Self { address, option, config } = self;
        let hint = || {
            format!(
                "ask the observatory at {address} for {what} (is `terrarium observe` running? see {option})"
            )
        };
        let resolved = address
            .to_socket_addrs()
            .with_context(hint)?
            .next()
            .with_context(|| format!("find the address of {address}"))?;
        let stream =
            TcpStream::connect_timeout(&resolved, Duration::from_secs(5)).map_err(|error| {
                NobodyListens {
                    address: address.clone(),
                    what: what.to_owned(),
                    option: (*option).to_owned(),
                    error,
                }
            })?;
        let host = address.rsplit_once(':').map_or(address.as_str(), |(host, _)| host);
        let host = host.trim_start_matches('[').trim_end_matches(']');
        let mut connection = config.connect(host, stream).with_context(hint)?;
        let mut head = format!("GET {path} HTTP/1.0\r\nHost: {address}\r\n");
        if let Some(authorization) = config.authorization() {
            // Writing to a string cannot fail.
            let _ = write!(head, "Authorization: {authorization}\r\n");
        }
        head.push_str("\r\n");
        connection.write_all(head.as_bytes()).with_context(hint)?;
        let mut answer = BufReader::new(connection);
        let mut status = String::new();
        answer.read_line(&mut status).with_context(hint)?;
        let mut line = String::new();
        // A head that never ends is not one of ours.
        for _ in 0..100 {
            line.clear();
            if answer.read_line(&mut line).with_context(hint)? == 0 || line == "\r\n" {
                break;
            }
        }
        let code = status.split(' ').nth(1).unwrap_or_default();
        if code == "401" {
            bail!(
                "ask the observatory at {address} for {what}: it wants a password (see --http-config)"
            );
        }
        if code != "200" {
            let mut reason = String::new();
            // What can be read of it is enough.
            let _ = answer.take(300).read_to_string(&mut reason);
            let reason = harmless(reason.trim());
            bail!("ask the observatory at {address} for {what}: it answered {code}: {reason}");
        }
        Ok(answer)
    }

    /// The lines of the answer; one that hangs is as good as none.
    pub fn lines(&self, path: &str, what: &str) -> anyhow::Result<BufReader<Connection>> {
        let answer = self.request(path, what)?;
        answer.get_ref().tcp().set_read_timeout(Some(Duration::from_secs(10)))?;
        Ok(answer)
    }
}

/// Whether a URL, the value of `option`, is of TLS, and its host and port.
fn address(option: &str, url: &str) -> anyhow::Result<(bool, String)> {
    let (by_tls, rest) = match (url.strip_prefix("http://"), url.strip_prefix("https://")) {
        (Some(rest), _) => (false, rest),
        (None, Some(rest)) => (true, rest),
        (None, None) => {
            bail!("{option} {url}: only http://HOST:PORT and https://HOST:PORT are understood")
        }
    };
    let host = rest.trim_end_matches('/');
    if host.is_empty() || host.contains(['/', '@']) {
        bail!("{option} {url}: only http://HOST:PORT and https://HOST:PORT are understood");
    }
    let has_port = host.rsplit_once(':').is_some_and(|(_, port)| port.parse::<u16>().is_ok());
    let port = if by_tls { 443 } else { 80 };
    Ok((by_tls, if has_port { host.to_owned() } else { format!("{host}:{port}") }))
}

/// Escapes all but letters, digits and a few marks.
pub fn percent(text: &str) -> String {
    text.bytes().fold(String::new(), |mut out, byte| {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => {
                out.push(char::from(byte));
            }
            _ => {
                let _ = write!(out, "%{byte:02X}");
            }
        }
        out
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls() {
        for (url, expected) in [
            ("http://127.0.0.1:9750", Some((false, "127.0.0.1:9750"))),
            ("http://[::1]:9750/", Some((false, "[::1]:9750"))),
            ("http://host", Some((false, "host:80"))),
            ("https://host", Some((true, "host:443"))),
            ("ftp://host", None),
            ("http://", None),
            ("http://me:word@host", None),
            ("http://host/path", None),
        ] {
            let found = address("--url", url).ok();
            let found = found.as_ref().map(|(by_tls, address)| (*by_tls, address.as_str()));
            assert_eq!(found, expected, "{url}");
        }
    }

    #[test]
    fn a_query_is_escaped() {
        assert_eq!(percent("web-1.a_b~"), "web-1.a_b~");
        assert_eq!(percent("a b&c=/ü"), "a%20b%26c%3D%2F%C3%BC");
    }
}
