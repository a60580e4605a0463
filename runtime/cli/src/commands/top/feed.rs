//! What the observatory sends, from two threads by one channel.

use super::super::ask::{Endpoint, percent};
use serde_json::Value;
use std::io::{BufRead, Read};
use std::net::{Shutdown, TcpStream};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread;
use std::time::Duration;

/// Something new.
pub enum News {
    /// The containers, or why there are none.
    Containers(Result<Vec<Value>, String>),
    /// The findings; `None`: the observatory does not look for them.
    Findings(Option<Vec<Value>>),
    /// An event of the stream with this number.
    Event(u64, Box<Value>),
}

/// The two threads.
pub struct Feed {
    observatory: Endpoint,
    sender: Sender<News>,
    receiver: Receiver<News>,
    /// The stream that is followed, and its number.
    stream: Option<TcpStream>,
    number: u64,
}

impl Feed {
    /// Asks once, so that an error comes before anything is drawn, then every `interval`.
    pub fn start(observatory: Endpoint, interval: Duration) -> anyhow::Result<Self> {
        let first = list(&observatory, "/api/v1/containers", "containers")?;
        let (sender, receiver) = channel();
        let own = sender.clone();
        let asked = observatory.clone();
        // It ends with the program, or when nobody listens any more.
        thread::spawn(move || {
            let mut containers = Ok(first);
            loop {
                let findings = list(&asked, "/api/v1/leaks", "findings").ok();
                let told = own.send(News::Containers(containers)).is_ok()
                    && own.send(News::Findings(findings)).is_ok();
                if !told {
                    return;
                }
                thread::sleep(interval);
                containers = list(&asked, "/api/v1/containers", "containers")
                    .map_err(|error| format!("{error:#}"));
            }
        });
        let mut feed = Self { observatory, sender, receiver, stream: None, number: 0 };
        feed.follow(None);
        Ok(feed)
    }

    /// The next piece of news, if there is one.
    pub fn next(&self) -> Option<News> {
        // An older stream may have sent some more before it ended.
        self.receiver
            .try_iter()
            .find(|news| !matches!(news, News::Event(number, _) if *number != self.number))
    }

    /// Follows the events of one container, or of all, from the oldest that is kept.
    pub fn follow(&mut self, container: Option<&str>) {
        if let Some(old) = self.stream.take() {
            // Its thread ends with it.
            let _ = old.shutdown(Shutdown::Both);
        }
        self.number += 1;
        let number = self.number;
        let mut path = "/api/v1/events?follow=true".to_owned();
        if let Some(container) = container {
            path.push_str("&container=");
            path.push_str(&percent(container));
        }
        // That it cannot be asked is told by the list of containers.
        let Ok(mut lines) = self.observatory.request(&path, "events") else {
            return;
        };
        self.stream = lines.get_ref().tcp().try_clone().ok();
        let sender = self.sender.clone();
        thread::spawn(move || {
            let mut line = String::new();
            while lines.read_line(&mut line).is_ok_and(|read| read > 0) {
                if let Ok(event) = serde_json::from_str(&line)
                    && sender.send(News::Event(number, Box::new(event))).is_err()
                {
                    return;
                }
                line.clear();
            }
        });
    }
}

/// A list that the observatory tells: an array, or an object a line.
fn list(observatory: &Endpoint, path: &str, what: &str) -> anyhow::Result<Vec<Value>> {
    let mut text = String::new();
    observatory.request(path, what)?.read_to_string(&mut text)?;
    if text.trim_start().starts_with('[') {
        return Ok(serde_json::from_str(&text)?);
    }
    Ok(text.lines().map(serde_json::from_str).collect::<Result<_, _>>()?)
}
