//! What anybody can throw at the HTTP side: it neither grows nor stops.

use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};
use terrarium_tests::{Observatory, TestBed, eventually, http, require};

/// The largest resident set so far, KiB.
fn peak(observatory: &mut Observatory) -> u64 {
    let status = fs::read_to_string(format!("/proc/{}/status", observatory.process().pid()))
        .expect("it runs");
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).expect("a peak");
    line.trim().trim_end_matches(" kB").parse().expect("a number")
}

fn serves(observatory: &Observatory) {
    eventually("it serves", || {
        let response = http::get(&observatory.url("/metrics"))?;
        if response.status == 200 { Ok(()) } else { Err(format!("status {}", response.status)) }
    });
}

/// What comes back for these bytes; empty when the connection is closed without a word.
///
/// `alone` says that no more will come, which a request that is not whole needs in order to end; a server need not answer
/// somebody who has hung up.
fn answer(observatory: &Observatory, request: &[u8], alone: bool) -> String {
    let mut stream = TcpStream::connect(observatory.address()).expect("it listens");
    stream.set_read_timeout(Some(Duration::from_secs(20))).expect("a timeout");
    // It may close before it has read all; then there is its answer, or none.
    let _ = stream.write_all(request);
    if alone {
        let _ = stream.shutdown(std::net::Shutdown::Write);
    }
    let mut text = Vec::new();
    let _ = stream.read_to_end(&mut text);
    String::from_utf8_lossy(&text).into_owned()
}

#[test]
fn ten_thousand_connections_do_not_grow_it_and_leave_it_alive() {
    require!(Root, Btf);
    let bed = TestBed::new();
    let mut observatory = Observatory::start(&bed, &[]);
    serves(&observatory);
    let before = peak(&mut observatory);
    for _ in 0..20 {
        let open: Vec<TcpStream> =
            (0..500).filter_map(|_| TcpStream::connect(observatory.address()).ok()).collect();
        assert!(!open.is_empty());
    }
    serves(&observatory);
    let grown = peak(&mut observatory).saturating_sub(before);
    assert!(grown < 16 << 10, "{grown} KiB more");
}

#[test]
fn clients_that_say_nothing_do_not_keep_the_others_out() {
    require!(Root, Btf);
    let bed = TestBed::new();
    let observatory = Observatory::start(&bed, &[]);
    let slow: Vec<TcpStream> = (0..100)
        .map(|_| {
            let mut stream = TcpStream::connect(observatory.address()).expect("it listens");
            stream.write_all(b"GET /met").expect("send");
            stream
        })
        .collect();
    serves(&observatory);
    // A head that does not come is not waited for.
    let start = Instant::now();
    for mut stream in slow {
        stream.set_read_timeout(Some(Duration::from_secs(40))).expect("a timeout");
        let mut rest = Vec::new();
        let _ = stream.read_to_end(&mut rest);
    }
    assert!(start.elapsed() < Duration::from_secs(40));
}

#[test]
fn requests_that_are_none_are_refused() {
    require!(Root, Btf);
    let bed = TestBed::new();
    let mut observatory = Observatory::start(&bed, &[]);
    serves(&observatory);
    let before = peak(&mut observatory);
    let huge = format!("GET /metrics HTTP/1.1\r\nA: {}\r\n\r\n", "x".repeat(8 << 20));
    let many = format!("GET / HTTP/1.1\r\n{}\r\n", "a: b\r\n".repeat(10_000));
    let long = format!("GET /{} HTTP/1.1\r\n\r\n", "a/".repeat(1 << 20));
    let line = "x".repeat(1 << 20);
    for request in [&huge, &many, &long, &line] {
        let told = answer(&observatory, request.as_bytes(), true);
        assert!(
            told.is_empty() || told.starts_with("HTTP/1.1 4"),
            "{}",
            &told[..told.len().min(200)]
        );
    }
    for (path, status) in [
        ("/../../etc/passwd", 404),
        ("/metrics/", 404),
        ("/%00", 404),
        ("/api/v1/events?follow=maybe", 400),
        ("/api/v1/events?since=%zz", 400),
    ] {
        let told = answer(&observatory, format!("GET {path} HTTP/1.0\r\n\r\n").as_bytes(), false);
        assert!(told.starts_with(&format!("HTTP/1.0 {status}")), "{path}: {told}");
    }
    for method in ["POST", "PUT", "DELETE", "PATCH"] {
        let told =
            answer(&observatory, format!("{method} /metrics HTTP/1.0\r\n\r\n").as_bytes(), false);
        assert!(told.starts_with("HTTP/1.0 405"), "{method}: {told}");
    }
    // Bytes from a small generator: the same in every run, so that what fails can be repeated.
    let mut state = 0x2545_f491_4f6c_dd1d_u64;
    let mut random = move || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()[3]
    };
    for _ in 0..500 {
        let mut request =
            b"GET /api/v1/events?follow=false HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"
                .to_vec();
        for _ in 0..8 {
            let at = usize::from(random()) % request.len();
            request[at] = random();
        }
        answer(&observatory, &request, true);
    }
    serves(&observatory);
    let grown = peak(&mut observatory).saturating_sub(before);
    assert!(grown < 24 << 10, "{grown} KiB more");
    assert!(!observatory.output().contains("panicked"), "{}", observatory.output());
}

#[test]
fn no_thread_keeps_a_right_that_is_not_needed_and_systemd_is_told() {
    require!(Root, Btf);
    let bed = TestBed::new();
    let socket = bed.folder().join("notify");
    let listener = std::os::unix::net::UnixDatagram::bind(&socket).expect("bind");
    listener.set_read_timeout(Some(terrarium_tests::deadline::PATIENCE)).expect("a timeout");
    let mut command = bed.terrarium();
    command.args(["observe", "--listen", "127.0.0.1:0"]).env("NOTIFY_SOCKET", &socket);
    command.stdout(std::process::Stdio::null()).stderr(std::process::Stdio::null());
    let mut process = terrarium_tests::process::Process::spawn(&mut command);
    let mut told = [0; 200];
    let length = listener.recv(&mut told).expect("it tells that it is ready");
    let told = String::from_utf8_lossy(&told[..length]);
    assert!(told.starts_with("READY=1\nSTATUS=listening on 127.0.0.1:"), "{told}");
    // CAP_DAC_READ_SEARCH, CAP_SYS_CHROOT, CAP_SYS_PTRACE, CAP_SYS_ADMIN, CAP_BPF.
    let allowed: u64 = 1 << 2 | 1 << 18 | 1 << 19 | 1 << 21 | 1 << 39;
    let tasks = format!("/proc/{}/task", process.pid());
    let mut threads = 0;
    for task in fs::read_dir(tasks).expect("it runs").flatten() {
        let status = fs::read_to_string(task.path().join("status")).expect("a thread");
        for field in ["CapEff:", "CapPrm:", "CapInh:", "CapAmb:"] {
            let line = status.lines().find_map(|line| line.strip_prefix(field)).expect("a set");
            let set = u64::from_str_radix(line.trim(), 16).expect("a number");
            assert_eq!(set & !allowed, 0, "{field} {set:x}");
        }
        threads += 1;
    }
    assert!(threads >= 2, "{threads} threads");
    process.signal(nix::sys::signal::Signal::SIGTERM);
    assert_eq!(process.wait(), 0);
}
