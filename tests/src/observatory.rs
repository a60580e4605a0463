//! A live observatory on a free port of loopback.

use crate::deadline::{PATIENCE, eventually};
use crate::metrics::Metrics;
use crate::process::{self, Process};
use crate::testbed::TestBed;
use crate::{events, http};
use serde_json::Value;
use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};
use std::sync::mpsc::channel;
use std::sync::{Arc, Mutex};

/// A running `terrarium observe`.
#[derive(Debug)]
pub struct Observatory {
    process: Process,
    address: String,
    output: Arc<Mutex<String>>,
}

impl Observatory {
    /// Starts one that reads the bed's state folder, and waits until it serves.
    pub fn start(bed: &TestBed, options: &[&str]) -> Self {
        Self::start_by(bed.terrarium(), options)
    }

    /// The same, by a command that executes terrarium.
    pub fn start_by(mut command: Command, options: &[&str]) -> Self {
        command.args(["observe", "--listen", "127.0.0.1:0"]).args(options);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        // In the machine's network namespace: the test asks it from there.
        let mut process = Process::spawn(&mut command);
        let output = Arc::new(Mutex::new(String::new()));
        let (sender, addresses) = channel();
        let stdout = process.child().stdout.take().expect("stdout is piped");
        let stderr = process.child().stderr.take().expect("stderr is piped");
        let streams: [Box<dyn BufRead + Send>; 2] =
            [Box::new(BufReader::new(stdout)), Box::new(BufReader::new(stderr))];
        for stream in streams {
            let (sender, output) = (sender.clone(), Arc::clone(&output));
            std::thread::spawn(move || {
                for line in stream.lines().map_while(Result::ok) {
                    // Before the address: who has that looks at the output next.
                    {
                        let mut output = output.lock().expect("no reader panics");
                        output.push_str(&line);
                        output.push('\n');
                    }
                    if let Some(address) = address_in(&line) {
                        // Only the first is waited for.
                        let _ = sender.send(address);
                    }
                }
            });
        }
        drop(sender);
        let Ok(address) = addresses.recv_timeout(PATIENCE) else {
            let output = output.lock().expect("no reader panics");
            panic!("terrarium observe told no address; it wrote:\n{output}");
        };
        let observatory = Self { process, address, output };
        // Not everybody is answered then; that it told its address is enough.
        if options.contains(&"--web-config") {
            return observatory;
        }
        eventually("the observatory serves /metrics", || {
            let response = http::get(&observatory.url("/metrics"))?;
            if response.status == 200 { Ok(()) } else { Err(format!("status {}", response.status)) }
        });
        observatory
    }

    /// The findings of `terrarium leaks ID` that asks it, from the machine's own network namespace, where it listens.
    pub fn leaks(&self, bed: &TestBed, id: &str) -> Result<Vec<Value>, String> {
        let mut command = bed.terrarium();
        command.args(["leaks", id, "--format", "json", "--observatory", &self.url("")]);
        let outcome = process::run(&mut command);
        let lines = outcome.stdout.lines().map(serde_json::from_str);
        lines.collect::<Result<_, _>>().map_err(|error| format!("{error}: {outcome:?}"))
    }

    /// `127.0.0.1:PORT`.
    pub fn address(&self) -> &str {
        &self.address
    }

    /// The URL of `path`.
    pub fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    /// What it wrote so far, stdout and stderr together.
    pub fn output(&self) -> String {
        self.output.lock().expect("no reader panics").clone()
    }

    /// Its process.
    pub fn process(&mut self) -> &mut Process {
        &mut self.process
    }

    /// What `/metrics` says now.
    pub fn metrics(&self) -> Metrics {
        let response = http::get(&self.url("/metrics"))
            .unwrap_or_else(|error| panic!("{error}; it wrote:\n{}", self.output()));
        assert_eq!(response.status, 200, "/metrics: {}", response.body);
        Metrics::parse(&response.body).unwrap_or_else(|error| panic!("/metrics: {error}"))
    }

    /// The events that it keeps.
    pub fn events(&self) -> Vec<Value> {
        let response = http::get(&self.url("/api/v1/events?follow=false"))
            .unwrap_or_else(|error| panic!("{error}; it wrote:\n{}", self.output()));
        assert_eq!(response.status, 200, "/api/v1/events: {}", response.body);
        events::parse(&response.body).unwrap_or_else(|error| panic!("/api/v1/events: {error}"))
    }

    /// Waits until the container called `name` has series, so that every count from then on is told as its.
    pub fn wait_for(&self, name: &str) {
        eventually("the container has series", || {
            let metrics = self.metrics();
            metrics
                .value("terrarium_clone_total", &[("name", name)])
                .map(|_| ())
                .ok_or_else(|| format!("no terrarium_clone_total of {name}"))
        });
    }
}

/// `127.0.0.1:43211` in a line such as `listening on http://127.0.0.1:43211`.
fn address_in(line: &str) -> Option<String> {
    let start = line.find("127.0.0.1:")?;
    let rest = &line[start..];
    let port: String =
        rest["127.0.0.1:".len()..].chars().take_while(char::is_ascii_digit).collect();
    // Port 0 is what was asked for, not what was given.
    (port.parse::<u16>().ok()? != 0).then(|| format!("127.0.0.1:{port}"))
}

#[cfg(test)]
mod tests {
    use super::address_in;

    #[test]
    fn the_address_is_found_in_a_line() {
        for (line, expected) in [
            ("listening on http://127.0.0.1:43211/metrics", Some("127.0.0.1:43211")),
            ("listen=127.0.0.1:0", None),
            ("127.0.0.1: no port", None),
            ("nothing", None),
        ] {
            assert_eq!(address_in(line).as_deref(), expected, "{line}");
        }
    }
}
