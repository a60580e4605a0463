//! Requests to a server on loopback.

use crate::deadline::PATIENCE;
use std::collections::BTreeMap;
use std::io::Read;
use std::time::Duration;

/// A response, whatever its status.
#[derive(Debug)]
pub struct Response {
    /// The status, such as 200.
    pub status: u16,
    /// The value of `Content-Type`, or empty.
    pub content_type: String,
    /// All headers, by their names in small letters.
    pub headers: BTreeMap<String, String>,
    /// The body.
    pub body: String,
}

/// `GET url`; `Err` when there is no answer.
pub fn get(url: &str) -> Result<Response, String> {
    get_as(url, "*/*")
}

/// `GET url` with this header `Accept`.
pub fn get_as(url: &str, accept: &str) -> Result<Response, String> {
    let mut response =
        request(url, accept, Some(PATIENCE)).map_err(|error| format!("GET {url}: {error}"))?;
    Ok(Response {
        status: response.status().as_u16(),
        content_type: header(&response, "content-type"),
        headers: response
            .headers()
            .iter()
            .map(|(name, value)| {
                (name.to_string(), String::from_utf8_lossy(value.as_bytes()).into())
            })
            .collect(),
        body: response
            .body_mut()
            .with_config()
            .limit(64 << 20)
            .read_to_string()
            .map_err(|error| format!("GET {url}: {error}"))?,
    })
}

/// `GET url`, whose body is read as it comes. A read that waits for longer than `patience` fails.
pub fn stream(url: &str, patience: Duration) -> Result<impl Read + use<>, String> {
    let response =
        request(url, "*/*", Some(patience)).map_err(|error| format!("GET {url}: {error}"))?;
    Ok(response.into_body().into_reader())
}

fn request(
    url: &str,
    accept: &str,
    limit: Option<Duration>,
) -> Result<ureq::http::Response<ureq::Body>, ureq::Error> {
    let config = ureq::Agent::config_builder()
        .http_status_as_error(false)
        .timeout_global(limit)
        // A proxy of the environment has no business on loopback.
        .proxy(None)
        .build();
    ureq::Agent::new_with_config(config).get(url).header("Accept", accept).call()
}

fn header(response: &ureq::http::Response<ureq::Body>, name: &str) -> String {
    response
        .headers()
        .get(name)
        .and_then(|value| value.to_str().ok())
        .unwrap_or_default()
        .to_owned()
}

/// `text` as a value in a query string.
pub fn encode(text: &str) -> String {
    text.bytes()
        .map(|byte| match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' => {
                char::from(byte).to_string()
            }
            _ => format!("%{byte:02X}"),
        })
        .collect()
}

/// Sends `body` by `method` and gives the `Location` of the answer; `Err` unless the status is one of success.
pub fn send(method: &str, url: &str, content_type: &str, body: &[u8]) -> Result<String, String> {
    let request = ureq::http::Request::builder()
        .method(method)
        .uri(url)
        .header("content-type", content_type)
        .body(body)
        .map_err(|error| format!("{method} {url}: {error}"))?;
    let config = ureq::Agent::config_builder().timeout_global(Some(PATIENCE)).proxy(None).build();
    let response = ureq::Agent::new_with_config(config)
        .run(request)
        .map_err(|error| format!("{method} {url}: {error}"))?;
    Ok(header(&response, "location"))
}
