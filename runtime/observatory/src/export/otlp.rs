//! Events to an `OpenTelemetry` collector: OTLP over HTTP in its JSON form (`POST /v1/logs`).
//!
//! By hand, because it is one request with one body: the crates for it would bring a second HTTP client and a batching
//! runtime of their own. An agent on the same machine takes it without TLS and passes it on, to Loki as well.

use super::Sink;
use serde_json::{Value, json};
use std::io::{self, BufRead, BufReader, Write};
use std::net::{TcpStream, ToSocketAddrs};
use std::time::Duration;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

/// How long a collector may take for anything.
const PATIENCE: Duration = Duration::from_secs(5);

/// Where a collector listens.
pub struct Collector {
    host: String,
    path: String,
}

/// Why an address is none.
#[derive(Debug, thiserror::Error)]
#[error("{url}: only http://HOST[:PORT][/PATH] is understood")]
pub struct CollectorError {
    url: String,
}

impl Collector {
    /// The collector at `http://host[:4318][/v1/logs]`.
    pub fn new(url: &str) -> Result<Self, CollectorError> {
        let wrong = || CollectorError { url: url.to_owned() };
        let rest = url.strip_prefix("http://").ok_or_else(wrong)?;
        let (host, path) = rest.split_once('/').unwrap_or((rest, ""));
        if host.is_empty() || url.contains(char::is_whitespace) {
            return Err(wrong());
        }
        let has_port = host.rsplit_once(':').is_some_and(|(_, port)| port.parse::<u16>().is_ok());
        let host = if has_port { host.to_owned() } else { format!("{host}:4318") };
        let path = if path.is_empty() { "v1/logs" } else { path };
        Ok(Self { host, path: format!("/{path}") })
    }
}

impl Sink for Collector {
    fn take(&mut self, lines: &[String]) -> io::Result<()> {
        let body = request(lines).to_string();
        let address =
            self.host.to_socket_addrs()?.next().ok_or_else(|| io::Error::other("no address"))?;
        let mut stream = TcpStream::connect_timeout(&address, PATIENCE)?;
        stream.set_write_timeout(Some(PATIENCE))?;
        stream.set_read_timeout(Some(PATIENCE))?;
        write!(
            stream,
            "POST {} HTTP/1.1\r\nHost: {}\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\
             Connection: close\r\n\r\n{body}",
            self.path,
            self.host,
            body.len()
        )?;
        let mut status = String::new();
        BufReader::new(stream).read_line(&mut status)?;
        match status.split(' ').nth(1) {
            Some(code) if code.starts_with('2') => Ok(()),
            // Asked to come again.
            Some("429" | "502" | "503" | "504") | None => {
                Err(io::Error::other(format!("it answered {:?}", status.trim())))
            }
            // It will not take these the next time either.
            Some(_) => {
                tracing::error!(answer = status.trim(), "the collector refused events");
                Ok(())
            }
        }
    }
}

/// The body: `ExportLogsServiceRequest`.
fn request(lines: &[String]) -> Value {
    let events: Vec<Value> = lines.iter().filter_map(|l| serde_json::from_str(l).ok()).collect();
    let host = events.first().and_then(|event| event["host"].as_str()).unwrap_or_default();
    let records: Vec<Value> = events.iter().zip(lines).map(|(e, line)| record(e, line)).collect();
    json!({"resourceLogs": [{
        "resource": {"attributes": [
            attribute("service.name", &json!("terrarium")),
            attribute("host.name", &json!(host)),
        ]},
        "scopeLogs": [{
            "scope": {"name": "terrarium.event", "version": env!("CARGO_PKG_VERSION")},
            "logRecords": records,
        }],
    }]})
}

/// One record. Fields of the event are attributes of the same name: `container.id`, `process.pid`.
fn record(event: &Value, line: &str) -> Value {
    let (number, text) = match event["severity"].as_str() {
        Some("warning") => (13, "WARN"),
        Some("critical" | "error") => (17, "ERROR"),
        _ => (9, "INFO"),
    };
    let time = event["time"].as_str().and_then(|t| OffsetDateTime::parse(t, &Rfc3339).ok());
    let nanos = time.map_or(0, OffsetDateTime::unix_timestamp_nanos);
    let mut attributes = Vec::new();
    for (name, value) in event.as_object().into_iter().flatten() {
        if !["schema", "time", "host", "severity", "type"].contains(&name.as_str()) {
            flatten(name, value, &mut attributes);
        }
    }
    json!({
        // 64 bits are strings in this form.
        "timeUnixNano": nanos.to_string(),
        "severityNumber": number,
        "severityText": text,
        "eventName": event["type"],
        "body": {"stringValue": line},
        "attributes": attributes,
    })
}

fn flatten(name: &str, value: &Value, out: &mut Vec<Value>) {
    match value {
        Value::Null => {}
        Value::Object(fields) => {
            for (field, value) in fields {
                flatten(&format!("{name}.{field}"), value, out);
            }
        }
        value => out.push(attribute(name, value)),
    }
}

fn attribute(name: &str, value: &Value) -> Value {
    json!({"key": name, "value": any_value(value)})
}

fn any_value(value: &Value) -> Value {
    match value {
        Value::Bool(b) => json!({"boolValue": b}),
        Value::Number(n) if n.is_i64() || n.is_u64() => json!({"intValue": n.to_string()}),
        Value::Number(n) => json!({"doubleValue": n}),
        Value::String(s) => json!({"stringValue": s}),
        Value::Array(all) => {
            let values: Vec<Value> = all.iter().map(any_value).collect();
            json!({"arrayValue": {"values": values}})
        }
        other => json!({"stringValue": other.to_string()}),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses() {
        for (url, expected) in [
            ("http://a", Some(("a:4318", "/v1/logs"))),
            ("http://a:1/", Some(("a:1", "/v1/logs"))),
            ("http://[::1]:4318/otlp/v1/logs", Some(("[::1]:4318", "/otlp/v1/logs"))),
            ("https://a", None),
            ("http://", None),
            ("http://a b", None),
        ] {
            let found = Collector::new(url).ok();
            let found = found.as_ref().map(|c| (c.host.as_str(), c.path.as_str()));
            assert_eq!(found, expected, "{url}");
        }
    }

    #[test]
    fn an_event_becomes_a_record_with_its_fields_as_attributes() {
        let line = r#"{"time":"1970-01-01T00:00:01Z","type":"memory.oom","severity":"warning","host":"n1","container":{"id":"1"},"process":{"pid":7,"flag_names":["A"]},"result":null}"#;
        let body = request(&[line.to_owned()]);
        let resource = &body["resourceLogs"][0];
        assert_eq!(resource["resource"]["attributes"][1]["value"]["stringValue"], "n1");
        let record = &resource["scopeLogs"][0]["logRecords"][0];
        assert_eq!(record["timeUnixNano"], "1000000000");
        assert_eq!(
            (&record["severityNumber"], &record["eventName"]),
            (&13.into(), &"memory.oom".into())
        );
        let attributes = record["attributes"].as_array().expect("a list");
        let find =
            |key: &str| &attributes.iter().find(|a| a["key"] == key).expect("it is there")["value"];
        assert_eq!(find("container.id")["stringValue"], "1");
        assert_eq!(find("process.pid")["intValue"], "7");
        assert_eq!(find("process.flag_names")["arrayValue"]["values"][0]["stringValue"], "A");
        assert_eq!(attributes.len(), 3);
    }
}
