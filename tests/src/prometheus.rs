//! Debian's Prometheus on loopback.

use crate::binaries::repository;
use crate::deadline::eventually;
use crate::http;
use crate::process::{Process, Sink};
use crate::requirement::program;
use serde_json::Value;
use std::collections::BTreeMap;
use std::fs;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// Where the repository's scrape configuration expects the observatory.
const DOCUMENTED_ADDRESS: &str = "127.0.0.1:9750";

/// The scrape configuration that the repository hands out.
pub fn configuration() -> PathBuf {
    repository().join("dashboards/prometheus/prometheus.yml")
}

/// One series of an answer: its labels and its value now.
#[derive(Debug, Clone, PartialEq)]
pub struct Series {
    /// Its labels.
    pub labels: BTreeMap<String, String>,
    /// Its value.
    pub value: f64,
}

/// A running Prometheus.
#[derive(Debug)]
pub struct Prometheus {
    _process: Process,
    address: String,
}

impl Prometheus {
    /// Starts one with the repository's configuration, aimed at `target` and scraping every second; it keeps its data below `folder`.
    pub fn start(folder: &Path, target: &str) -> Self {
        let path = configuration();
        let text = fs::read_to_string(&path)
            .unwrap_or_else(|error| panic!("read {}: {error}", path.display()));
        let file = folder.join("prometheus.yml");
        fs::write(&file, aimed(&text, target)).expect("the test's folder is writable");
        // Prometheus cannot tell which port it was given for 0. One that was free a moment ago is very likely still.
        let address = TcpListener::bind("127.0.0.1:0")
            .and_then(|listener| listener.local_addr())
            .expect("loopback has a free port")
            .to_string();
        let output = Sink::new();
        let process = Process::spawn(
            Command::new(program("prometheus").expect("the test requires prometheus"))
                .arg(format!("--config.file={}", file.display()))
                .arg(format!("--storage.tsdb.path={}", folder.join("tsdb").display()))
                .arg(format!("--web.listen-address={address}"))
                .current_dir(folder)
                .stdin(Stdio::null())
                .stdout(output.stdio())
                .stderr(output.stdio()),
        );
        let prometheus = Self { _process: process, address };
        eventually("prometheus is ready", || {
            let response = http::get(&format!("http://{}/-/ready", prometheus.address))?;
            if response.status == 200 { Ok(()) } else { Err(response.body) }
        });
        prometheus
    }

    /// What `expression` gives now: labels and value of each series.
    pub fn query(&self, expression: &str) -> Result<Vec<Series>, String> {
        let answer = self.ask(&format!("/api/v1/query?query={}", http::encode(expression)))?;
        answer["data"]["result"]
            .as_array()
            .ok_or_else(|| format!("no result in {answer}"))?
            .iter()
            .map(|series| {
                let labels = series["metric"].as_object().into_iter().flatten();
                let labels = labels
                    .map(|(name, value)| {
                        (name.clone(), value.as_str().unwrap_or_default().to_owned())
                    })
                    .collect();
                let value = series["value"][1]
                    .as_str()
                    .and_then(|text| text.parse().ok())
                    .ok_or_else(|| format!("no value in {series}"))?;
                Ok(Series { labels, value })
            })
            .collect()
    }

    /// The answer of an endpoint of its API.
    pub fn ask(&self, path: &str) -> Result<Value, String> {
        let response = http::get(&format!("http://{}{path}", self.address))?;
        let answer: Value = serde_json::from_str(&response.body)
            .map_err(|error| format!("{path}: {error}: {}", response.body))?;
        if answer["status"] == "success" { Ok(answer) } else { Err(format!("{path}: {answer}")) }
    }
}

/// The configuration `text` with another target and an interval of one second.
fn aimed(text: &str, target: &str) -> String {
    assert!(
        text.contains(DOCUMENTED_ADDRESS),
        "the configuration does not name {DOCUMENTED_ADDRESS}"
    );
    text.replace(DOCUMENTED_ADDRESS, target)
        .lines()
        .map(|line| match line.split_once("scrape_interval:") {
            Some((indent, _)) => format!("{indent}scrape_interval: 1s\n"),
            None => match line.split_once("scrape_timeout:") {
                Some((indent, _)) => format!("{indent}scrape_timeout: 1s\n"),
                None => format!("{line}\n"),
            },
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::aimed;

    #[test]
    fn only_target_and_interval_are_changed() {
        let text = "global:\n  scrape_interval: 15s # often\nx:\n  - targets: ['127.0.0.1:9750']\n";
        assert_eq!(
            aimed(text, "127.0.0.1:1"),
            "global:\n  scrape_interval: 1s\nx:\n  - targets: ['127.0.0.1:1']\n"
        );
    }
}
