//! Who may ask the observatory, by TLS and by name and password.

use base64::Engine as _;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use terrarium_tests::{Observatory, TestBed, eventually, http, process, require};

/// The answer to a GET of `path`, over whatever `stream` is.
fn ask(
    mut stream: impl Read + Write,
    path: &str,
    credentials: Option<&str>,
) -> Result<String, String> {
    let authorization = credentials.map_or_else(String::new, |text| {
        let text = base64::engine::general_purpose::STANDARD.encode(text);
        format!("Authorization: Basic {text}\r\n")
    });
    let request = format!(
        "GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n{authorization}\r\n"
    );
    stream.write_all(request.as_bytes()).map_err(|error| error.to_string())?;
    let mut answer = String::new();
    // An end without close_notify is an error, after what was read.
    let read = stream.read_to_string(&mut answer);
    if answer.is_empty() { Err(format!("{read:?}")) } else { Ok(answer) }
}

fn connect(observatory: &Observatory) -> TcpStream {
    let stream = TcpStream::connect(observatory.address()).expect("it listens");
    stream.set_read_timeout(Some(Duration::from_secs(20))).expect("a time is set");
    stream
}

/// An authority, and how to write what it has signed.
struct Authority(CertifiedIssuer<'static, KeyPair>);

impl Authority {
    fn new() -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().expect("a key");
        Self(CertifiedIssuer::self_signed(params, key).expect("a certificate"))
    }

    /// Writes `NAME.crt` and `NAME.key`.
    fn sign(&self, folder: &Path, name: &str) {
        let params = CertificateParams::new(["localhost".to_owned()]).expect("a name");
        let key = KeyPair::generate().expect("a key");
        let certificate = params.signed_by(&key, &self.0).expect("a certificate");
        fs::write(folder.join(format!("{name}.crt")), certificate.pem()).expect("it is writable");
        fs::write(folder.join(format!("{name}.key")), key.serialize_pem()).expect("it is writable");
    }

    /// The answer over TLS to a client that trusts this authority, and shows the certificate `NAME` where one is given.
    fn ask(&self, observatory: &Observatory, own: Option<(&Path, &str)>) -> Result<String, String> {
        let mut roots = rustls::RootCertStore::empty();
        roots.add(self.0.der().clone()).expect("it is a certificate");
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = rustls::ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .expect("versions")
            .with_root_certificates(roots);
        let config = match own {
            None => config.with_no_client_auth(),
            Some((folder, name)) => {
                let certificate = CertificateDer::from_pem_file(folder.join(format!("{name}.crt")));
                let key = PrivateKeyDer::from_pem_file(folder.join(format!("{name}.key")));
                config
                    .with_client_auth_cert(vec![certificate.expect("PEM")], key.expect("PEM"))
                    .expect("they belong together")
            }
        };
        let name = ServerName::try_from("localhost").expect("a name");
        let client = rustls::ClientConnection::new(Arc::new(config), name).expect("a client");
        let stream = rustls::StreamOwned::new(client, connect(observatory));
        ask(stream, "/healthz", None)
    }
}

fn start(bed: &TestBed, text: &str) -> (Observatory, std::path::PathBuf) {
    let file = bed.folder().join("web.yml");
    fs::write(&file, text).expect("the test's folder is writable");
    let options = ["--probes", "cgroup", "--web-config", file.to_str().expect("UTF-8")];
    (Observatory::start(bed, &options), file)
}

#[test]
fn only_who_has_the_password_is_answered() {
    require!(Root, Btf);
    let bed = TestBed::new();
    let users = |password: &str| {
        let hash = bcrypt::hash(password, 4).expect("a hash");
        format!("basic_auth_users:\n  prometheus: {hash}\n")
    };
    let (observatory, file) = start(&bed, &users("first"));
    let status = |credentials: Option<&str>| {
        let answer = ask(connect(&observatory), "/metrics", credentials).expect("it answers");
        answer.split(' ').nth(1).map(str::to_owned)
    };
    let is = |code: &str| Some(code.to_owned());
    for wrong in
        [None, Some("prometheus:second"), Some("prometheus"), Some("nobody:first"), Some("")]
    {
        assert_eq!(status(wrong), is("401"), "{wrong:?}");
    }
    for _ in 0..2 {
        assert_eq!(status(Some("prometheus:first")), is("200"));
    }
    let refused = http::get(&observatory.url("/api/v1/events?follow=false")).expect("it answers");
    assert_eq!(refused.status, 401, "every path is guarded");
    // A new file counts from the next connection on; one that is wrong changes nothing.
    std::thread::sleep(Duration::from_millis(20));
    fs::write(&file, users("second")).expect("it is writable");
    assert_eq!(
        (status(Some("prometheus:first")), status(Some("prometheus:second"))),
        (is("401"), is("200"))
    );
    std::thread::sleep(Duration::from_millis(20));
    fs::write(&file, "basic_auth_users: [").expect("it is writable");
    assert_eq!((status(None), status(Some("prometheus:second"))), (is("401"), is("200")));
}

#[test]
fn it_answers_by_tls_with_a_certificate_that_may_be_renewed() {
    require!(Root, Btf);
    let bed = TestBed::new();
    let (ours, theirs) = (Authority::new(), Authority::new());
    ours.sign(bed.folder(), "server");
    let (mut observatory, _) =
        start(&bed, "tls_server_config:\n  cert_file: server.crt\n  key_file: server.key\n");
    assert!(observatory.output().contains("listening on https://"), "{}", observatory.output());
    let answer = ours.ask(&observatory, None).expect("it answers");
    assert!(answer.starts_with("HTTP/1.1 200") && answer.ends_with("ok\n"), "{answer}");
    assert!(
        theirs.ask(&observatory, None).is_err(),
        "who does not know the authority has no answer"
    );
    let plain = ask(connect(&observatory), "/healthz", None).unwrap_or_default();
    assert!(!plain.contains("HTTP/"), "nor who speaks no TLS: {plain}");
    std::thread::sleep(Duration::from_millis(20));
    theirs.sign(bed.folder(), "server");
    eventually("the new certificate is used", || theirs.ask(&observatory, None).map(drop));
    assert!(observatory.process().ended().is_none());
}

#[test]
fn clients_may_need_certificates() {
    require!(Root, Btf);
    let bed = TestBed::new();
    let (ours, theirs) = (Authority::new(), Authority::new());
    ours.sign(bed.folder(), "server");
    ours.sign(bed.folder(), "client");
    theirs.sign(bed.folder(), "stranger");
    fs::write(bed.folder().join("ca.crt"), ours.0.pem()).expect("the test's folder is writable");
    let (observatory, _) = start(
        &bed,
        "tls_server_config:\n  cert_file: server.crt\n  key_file: server.key\n  client_ca_file: ca.crt\n  client_auth_type: RequireAndVerifyClientCert\n",
    );
    let answer = ours.ask(&observatory, Some((bed.folder(), "client"))).expect("it answers");
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    assert!(ours.ask(&observatory, None).is_err());
    assert!(ours.ask(&observatory, Some((bed.folder(), "stranger"))).is_err());
}

#[test]
fn a_configuration_that_is_wrong_is_told_before_anything_is_attached() {
    require!(Root);
    let bed = TestBed::new();
    let file = bed.folder().join("web.yml").display().to_string();
    let observe = || bed.run(["observe", "--listen", "127.0.0.1:0", "--web-config", &file]);
    assert_eq!(observe().code, 1, "there is none");
    for (text, told) in [
        ("basic_auth_users:\n  a: secret\n", "none of bcrypt's"),
        ("tls_server_config:\n  cert_file: none.crt\n  key_file: none.key\n", "none.crt"),
        ("tls_server_config:\n  cipher: x\n", "cipher"),
    ] {
        fs::write(&file, text).expect("the test's folder is writable");
        let outcome = observe();
        assert_eq!((outcome.code, outcome.stderr.lines().count()), (1, 1), "{outcome:?}");
        assert!(outcome.stderr.contains(told), "{outcome:?}");
    }
}

#[test]
fn the_command_line_asks_a_guarded_observatory() {
    require!(Root, Btf, Program("busybox"));
    let bed = TestBed::new();
    let ours = Authority::new();
    ours.sign(bed.folder(), "server");
    ours.sign(bed.folder(), "client");
    fs::write(bed.folder().join("ca.crt"), ours.0.pem()).expect("it is writable");
    fs::write(bed.folder().join("word"), "secret\n").expect("it is writable");
    let hash = bcrypt::hash("secret", 4).expect("a hash");
    let (observatory, _) = start(
        &bed,
        &format!(
            "tls_server_config:\n  cert_file: server.crt\n  key_file: server.key\n  client_ca_file: ca.crt\n  \
             client_auth_type: RequireAndVerifyClientCert\nbasic_auth_users:\n  me: {hash}\n"
        ),
    );
    let url = format!("https://{}", observatory.address());
    let ask = |command: &[&str], config: Option<&str>| {
        let mut words = bed.terrarium();
        words.args(command);
        if let Some(text) = config {
            let file = bed.folder().join("http.yml");
            fs::write(&file, text).expect("it is writable");
            words.arg("--http-config").arg(file);
        }
        process::run(&mut words)
    };
    let tls = "tls_config: { ca_file: ca.crt, cert_file: client.crt, key_file: client.key, server_name: localhost }\n";
    let right = format!("basic_auth: {{ username: me, password_file: word }}\n{tls}");
    let events = ["events", "--format", "json", "--url", &url];
    let outcome = ask(&events, Some(&right));
    assert_eq!(outcome.code, 0, "{outcome:?}");
    let leaks = ["leaks", "--all", "--fail-on", "critical", "--observatory", &url];
    let outcome = ask(&leaks, Some(&right));
    assert!([0, 3].contains(&outcome.code) && outcome.stderr.is_empty(), "{outcome:?}");
    // A file that is wrong is told, also where nobody has to listen.
    let outcome = ask(&["leaks", "--all"], Some("basic_auth: []"));
    assert_eq!((outcome.code, outcome.stdout.as_str()), (1, ""), "{outcome:?}");
    // What a container did, asked from the machine's own network namespace.
    let file = bed.folder().join("http.yml").display().to_string();
    fs::write(&file, &right).expect("it is writable");
    let options = ["--audit", "--observatory", &url, "--http-config", &file];
    let outcome = process::run(&mut bed.container("audited").with(options).command(["true"]));
    assert_eq!(outcome.code, 0, "{outcome:?}");
    assert!(!outcome.stderr.contains("ask the observatory"), "{outcome:?}");
    // Before a container is made of it.
    fs::write(&file, "basic_auth: []").expect("it is writable");
    for options in [&["--http-config", &*file][..], &["--observatory", "ftp://x"]] {
        let explained = ["--explain"].iter().chain(options).copied();
        let outcome =
            process::run(&mut bed.container("explained").with(explained).command(["true"]));
        assert_eq!((outcome.code, outcome.stderr.lines().count()), (125, 1), "{outcome:?}");
    }
    let wrong_word = format!("basic_auth: {{ username: me, password: wrong }}\n{tls}");
    let other_name = right.replace("localhost", "other.example");
    let no_certificate = right.replace("cert_file: client.crt, key_file: client.key, ", "");
    for (config, why) in [
        (None, "ask the observatory"),
        (Some(tls), "it wants a password (see --http-config)"),
        (Some(&*wrong_word), "it wants a password (see --http-config)"),
        (Some(&*other_name), "certificate not valid for name"),
        (Some(&*no_certificate), "ask the observatory"),
        (Some("basic_auth: []"), "understand --http-config"),
    ] {
        let outcome = ask(&events, config);
        assert!(outcome.stderr.contains(why), "{config:?}: {outcome:?}");
        assert_eq!((outcome.code, outcome.stderr.lines().count()), (1, 1), "{outcome:?}");
    }
    let outcome = ask(&["events", "--url", "ftp://x"], None);
    assert_eq!(outcome.code, 1, "{outcome:?}");
}
