//! Events beyond the observatory's own HTTP side.

use serde_json::Value;
use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpListener;
use std::sync::mpsc;
use terrarium_tests::{Observatory, TestBed, deadline, events, eventually, require};

#[test]
fn events_are_written_to_a_file_line_by_line() {
    require!(Root, CgroupV2, Btf, Program("busybox"));
    let bed = TestBed::new();
    let file = bed.folder().join("events.jsonl");
    let path = file.to_str().expect("paths of tests are UTF-8");
    let observatory = Observatory::start(&bed, &["--events-file", path]);
    let mut container = bed.container("filed").follow();
    container.call("fork 20");
    let name = container.name().to_owned();
    eventually("the forks are in the file", || {
        let text = fs::read_to_string(&file).map_err(|error| error.to_string())?;
        let whole = &text[..text.rfind('\n').map_or(0, |at| at + 1)];
        let all = events::parse(whole)?;
        assert_eq!(all.iter().find_map(events::fault), None);
        let clones = events::of(&all, &name, "process.clone").len();
        if clones >= 20 { Ok(()) } else { Err(format!("{clones} clones")) }
    });
    drop(observatory);
}

#[test]
fn a_collector_gets_each_event_also_after_it_was_away() {
    require!(Root, CgroupV2, Btf, Program("busybox"));
    let bed = TestBed::new();
    let listener = TcpListener::bind("127.0.0.1:0").expect("bind");
    let url = format!("http://{}", listener.local_addr().expect("an address"));
    let observatory = Observatory::start(&bed, &["--otlp", &url]);
    let (sender, bodies) = mpsc::channel();
    std::thread::spawn(move || {
        for (number, stream) in listener.incoming().map_while(Result::ok).enumerate() {
            let mut reader = BufReader::new(&stream);
            let mut length = 0;
            let mut first = String::new();
            reader.read_line(&mut first).expect("a request");
            assert_eq!(first, "POST /v1/logs HTTP/1.1\r\n");
            loop {
                let mut line = String::new();
                reader.read_line(&mut line).expect("a head");
                if line == "\r\n" {
                    break;
                }
                if let Some(value) = line.to_ascii_lowercase().strip_prefix("content-length:") {
                    length = value.trim().parse().expect("a number");
                }
            }
            let mut body = vec![0; length];
            reader.read_exact(&mut body).expect("a body");
            // The first is asked to come again.
            let status = if number == 0 { "503 Service Unavailable" } else { "200 OK" };
            let answer = format!("HTTP/1.1 {status}\r\nContent-Length: 2\r\n\r\n{{}}");
            (&stream).write_all(answer.as_bytes()).expect("answer");
            let body: Value = serde_json::from_slice(&body).expect("JSON");
            if number > 0 && sender.send(body).is_err() {
                break;
            }
        }
    });
    let mut container = bed.container("sent").follow();
    container.call("fork 7");
    let mut clones = 0;
    let mut last = 0;
    while clones < 7 {
        let body = bodies.recv_timeout(deadline::PATIENCE).expect("events come");
        let records = body["resourceLogs"][0]["scopeLogs"][0]["logRecords"].as_array().cloned();
        for record in records.expect("a list") {
            let line = record["body"]["stringValue"].as_str().expect("a line");
            let event: Value = serde_json::from_str(line).expect("JSON");
            let seq = event["seq"].as_u64().expect("a number");
            assert_eq!(seq, last + 1, "none is lost, none comes twice");
            last = seq;
            let ours = event["container"]["name"] == *container.name();
            clones += u32::from(ours && record["eventName"] == "process.clone");
        }
    }
    container.finish();
    drop(observatory);
}
