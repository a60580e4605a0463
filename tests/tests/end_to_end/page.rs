//! The page at `/`, in a real browser.

use serde_json::{Value, json};
use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use terrarium_tests::{Browser, Observatory, TestBed, eventually, http, process, require};

/// What a container may call itself, or one of its programs.
const HOSTILE: [&str; 4] = [
    "<img src=x onerror=window.pwned=1>",
    "\"><script>window.pwned=1</script>",
    "${window.pwned=1}{{constructor}}",
    "javascript:window.pwned=1//</title><svg onload=window.pwned=1>",
];

#[test]
fn live_containers_and_their_life_are_shown_and_nothing_comes_from_elsewhere() {
    require!(
        Root,
        CgroupV2,
        Btf,
        MemoryController,
        Program("busybox"),
        Program("chromium"),
        Program("chromedriver")
    );
    let bed = TestBed::new();
    let observatory = Observatory::start(&bed, &[]);
    let mut worker = bed.container("worker").with(["--memory", "32m"]).follow();
    let quiet = bed.container("quiet").follow();
    observatory.wait_for(worker.name());
    observatory.wait_for(quiet.name());
    worker.call("fork 30");
    worker.call("touch-in-child 64000000");
    worker.call("run /bin/sh -c cp${IFS}/bin/busybox${IFS}'/tmp/<b>x</b>';'/tmp/<b>x</b>'");

    let browser = Browser::start(1280, 900, false);
    browser.open(&observatory.url("/"));
    let (worker_name, quiet_name) = (worker.name(), quiet.name());
    browser.wait(
        "both containers are listed",
        &format!("{} && {}", listed(worker_name), listed(quiet_name)),
    );
    assert_eq!(browser.value("document.title"), "Containers – terrarium");
    browser.wait("clones and kills are counted", &format!(
        "(() => {{ const row = {}; return Number(row.children[6].firstChild.textContent) >= 30 && Number(row.children[11].textContent) >= 1; }})()",
        row(worker_name)
    ));

    browser.run(&format!("{}.querySelector('a').click()", row(worker_name)));
    browser.wait("its life is shown", "document.querySelectorAll('.lane').length >= 4 && document.querySelector('.phase-list li')");
    browser.wait("a kill is marked", "document.querySelector('.chart .kill') !== null");
    browser.wait(
        "its namespaces are told",
        "document.querySelector('.walls').innerText.includes('mnt: own')",
    );
    browser.wait("its events are listed", "document.querySelectorAll('.events .row').length > 10");

    browser.run("location.hash = '#/namespaces'");
    browser.wait("the map has both", &format!("{} && {}", listed(worker_name), listed(quiet_name)));
    let walls = browser.value(&format!("{}.innerText", row(quiet_name)));
    assert!(walls.as_str().is_some_and(|text| text.contains("own")), "{walls}");

    browser.run("location.hash = '#/findings'");
    browser.wait(
        "findings or none are told",
        "document.querySelector('h1').textContent === 'Findings'",
    );

    assert_eq!(
        browser.value("document.querySelectorAll('b').length"),
        0,
        "a program's name became markup"
    );
    clean(&browser, &observatory.url("/"));
    worker.finish();
    quiet.finish();
}

#[test]
fn the_filters_of_events_are_those_of_the_command_line() {
    require!(Root, CgroupV2, Btf, Program("busybox"), Program("chromium"), Program("chromedriver"));
    let bed = TestBed::new();
    let observatory = Observatory::start(&bed, &[]);
    let mut container = bed.container("filtered").follow();
    observatory.wait_for(container.name());
    container.call("fork 5");
    container.call("mount 1");
    let browser = Browser::start(1280, 900, true);
    browser
        .open(&observatory.url(&format!("/#/events?container={}&type=process", container.name())));
    browser.wait(
        "events of one container and type",
        "document.querySelectorAll('.events .rows-body .row').length >= 5",
    );
    let told = browser.value("document.querySelector('.command code').textContent");
    let words: Vec<&str> = told
        .as_str()
        .expect("a command")
        .split(' ')
        .skip(1)
        .filter(|word| *word != "--follow")
        .collect();
    let url = observatory.url("");
    let printed = process::run(bed.terrarium().args(words).args(["--url", &url])).success();
    let types = browser.value("[...new Set([...document.querySelectorAll('.events .rows-body .type')].map((n) => n.textContent))]");
    for kind in types.as_array().expect("a list") {
        let kind = kind.as_str().unwrap_or_default();
        assert!(kind.starts_with("process."), "{kind}");
        assert!(printed.contains(kind), "{printed}");
    }
    assert!(!printed.contains("mount.") && !printed.contains("namespace."), "{printed}");

    // A filter that is wrong is told as the server tells it.
    browser.run("const f = document.querySelector('form'); f.elements.since.value = 'soon'; f.requestSubmit()");
    browser.wait("what is wrong", "document.querySelector('p.trouble').innerText.includes('soon')");
    browser.run("[...document.querySelectorAll('form button')].at(-1).click()");
    browser.wait("all events again", "document.querySelector('p.trouble').hidden && document.querySelectorAll('.events .row').length > 5");

    // Everything about one event, by the keyboard.
    browser.run("document.querySelector('.events .rows-body button').focus()");
    browser.press("\u{E007}");
    browser.wait(
        "the event in full",
        "document.querySelector('dialog[open] pre').textContent.includes('terrarium.event/v1')",
    );
    browser.press("\u{E00C}");
    browser.wait("closed again", "document.querySelector('dialog') === null");
    browser.console();
    container.finish();
}

#[test]
fn a_thousand_containers_with_hostile_names_are_rows_of_text() {
    require!(Root, CgroupV2, Btf, Program("busybox"), Program("chromium"), Program("chromedriver"));
    let bed = TestBed::new();
    let observatory = Observatory::start(&bed, &[]);
    let recorded = Recorded::serve(observatory.address().to_owned());
    let browser = Browser::start(1280, 900, false);
    browser.open(&recorded.url);
    browser.wait(
        "all are known",
        "document.querySelector('.bar [role=status]').textContent === '1000 of 1000'",
    );
    // They are drawn in the frame after that.
    browser.wait(
        "only what is in sight exists",
        "((rows) => rows >= 10 && rows < 80)(document.querySelectorAll('.containers .rows-body .row').length)",
    );
    assert_eq!(
        browser.value("document.querySelector('.containers').getAttribute('aria-rowcount')"),
        "1001"
    );

    // Sorted by what the head of the column says.
    browser.run("[...document.querySelectorAll('.containers .head button')].find((b) => b.textContent === 'Clones').click()");
    browser.wait("the most clones first", "document.querySelector('.containers .row[aria-rowindex=\"2\"] .name a').textContent === 'c0999'");
    browser.run("document.querySelector('.containers').scrollTop = 1e9");
    browser.wait(
        "the last row",
        "document.querySelector('.containers .row[aria-rowindex=\"1001\"]') !== null",
    );

    for (n, name) in HOSTILE.iter().enumerate() {
        browser.run(&format!("const s = document.querySelector('#search'); s.value = 'hostile-{n}'; s.dispatchEvent(new Event('input'))"));
        let expression = format!(
            "document.querySelector('.containers .rows-body .name a')?.textContent === {}",
            json!(name)
        );
        browser.wait("its name is text", &expression);
        browser.run("document.querySelector('.containers .rows-body .name a').click()");
        browser.wait(
            "so is its heading",
            &format!("document.querySelector('h1').textContent === {}", json!(name)),
        );
        browser.wait("its finding is text", "document.querySelector('.finding') !== null");
        browser.run("location.hash = '#/containers'");
        browser.wait("back", "document.querySelector('#search') !== null");
    }
    browser.run("location.hash = '#/findings'");
    browser.wait("findings of all", "document.querySelectorAll('.finding').length === 4");
    browser.run("location.hash = '#/namespaces'");
    browser.wait("the map", "document.querySelector('.namespaces .ns-shared') !== null");

    // As many events as come: a bounded list, and rows for those in sight.
    browser.run("location.hash = '#/events'");
    browser.wait("they come", "/^([2-9]|[1-9][0-9]+)[0-9.]*k events/.test(document.querySelector('.bar .note').textContent)");
    browser.wait(
        "rows for those in sight",
        "((rows) => rows >= 10 && rows < 100)(document.querySelectorAll('.events .rows-body .row').length)",
    );
    let kept =
        browser.value("Number(document.querySelector('.events').getAttribute('aria-rowcount'))");
    assert!(kept.as_u64().is_some_and(|kept| kept <= 12_001), "{kept}");

    assert_eq!(browser.value("window.pwned === undefined"), true);
    let markup = "document.querySelectorAll('main img, main script, svg[onload]').length";
    assert_eq!(browser.value(markup), 0);
    clean(&browser, &recorded.url);
}

#[test]
fn the_page_is_served_with_a_policy_that_runs_nothing_but_its_own_files() {
    require!(Root, CgroupV2, Btf);
    let bed = TestBed::new();
    let observatory = Observatory::start(&bed, &[]);
    for (path, kind) in
        [("/", "text/html"), ("/app.js", "text/javascript"), ("/app.css", "text/css")]
    {
        let response = http::get(&observatory.url(path)).expect("it serves");
        assert_eq!(response.status, 200, "{path}");
        assert!(response.content_type.starts_with(kind), "{path}: {}", response.content_type);
        let policy =
            response.headers.get("content-security-policy").map(String::as_str).unwrap_or_default();
        assert!(
            policy.contains("default-src 'none'") && !policy.contains("unsafe"),
            "{path}: {policy}"
        );
        assert_eq!(
            response.headers.get("x-content-type-options").map(String::as_str),
            Some("nosniff"),
            "{path}"
        );
    }
    let index = http::get(&observatory.url("/")).expect("it serves").body;
    assert!(
        !index.contains("<style") && !index.contains(" style=") && !index.contains("onclick"),
        "{index}"
    );
}

/// An expression: the row of the container called `name`.
fn row(name: &str) -> String {
    format!(
        "[...document.querySelectorAll('.rows-body .row')].find((r) => r.querySelector('a')?.textContent === {})",
        json!(name)
    )
}

fn listed(name: &str) -> String {
    format!("{} !== undefined", row(name))
}

/// Nothing was said on the console, nothing was refused by the policy, and nothing was asked of anybody else.
fn clean(browser: &Browser, own: &str) {
    let complaints = browser.console();
    assert!(complaints.is_empty(), "{complaints:#?}");
    let elsewhere: Vec<_> =
        browser.requests().into_iter().filter(|url| !url.starts_with(own)).collect();
    assert!(elsewhere.is_empty(), "{elsewhere:#?}");
}

/// Serves the page of a live observatory with an API of its own: a thousand containers, and events without end.
struct Recorded {
    url: String,
}

impl Recorded {
    fn serve(page: String) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("loopback has a free port");
        let url = format!("http://{}/", listener.local_addr().expect("it is bound"));
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let page = page.clone();
                // A browser that goes away ends its connection, which is no failure.
                std::thread::spawn(move || answer(stream, &page));
            }
        });
        Self { url }
    }
}

fn answer(mut stream: TcpStream, page: &str) -> std::io::Result<()> {
    let mut head = BufReader::new(stream.try_clone()?);
    let mut request = String::new();
    head.read_line(&mut request)?;
    let mut line = String::new();
    while head.read_line(&mut line)? > 2 {
        line.clear();
    }
    let path = request.split(' ').nth(1).unwrap_or("/");
    let json = |value: Value| {
        format!(
            "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nConnection: close\r\n\r\n{value}"
        )
    };
    match path.split('?').next().unwrap_or(path) {
        "/api/v1/containers" => stream.write_all(json(containers()).as_bytes()),
        "/api/v1/namespaces" => stream.write_all(json(namespaces()).as_bytes()),
        "/api/v1/leaks" => stream.write_all(json(findings()).as_bytes()),
        "/api/v1/events" => events(&mut stream),
        path => {
            let mut real = TcpStream::connect(page)?;
            write!(real, "GET {path} HTTP/1.0\r\n\r\n")?;
            std::io::copy(&mut real, &mut stream).map(|_| ())
        }
    }
}

fn name(n: usize) -> String {
    HOSTILE.get(n).map_or_else(|| format!("c{n:04}"), |name| (*name).to_owned())
}

fn id(n: usize) -> String {
    if n < HOSTILE.len() { format!("hostile-{n}") } else { format!("id{n}") }
}

fn containers() -> Value {
    (0..1000)
        .map(|n| {
            json!({"id": id(n), "name": name(n), "image": name(n), "runtime": "terrarium", "state": "running",
                   "kind": "container", "cgroup": format!("/terrarium/{}", id(n)), "generation": 1, "labels": {},
                   "limits": {"memory_bytes": 64 << 20}, "cpu": {"usage_ns": n * 1_000_000},
                   "memory": {"usage_bytes": n << 10}, "tasks": {"processes": 1, "threads": 2}, "network": [],
                   "counters": {"processes": n, "execs": 1, "oom_kills": 0}})
        })
        .collect()
}

fn namespaces() -> Value {
    let all: Vec<Value> = (0..1000)
        .map(|n| {
            json!({"id": id(n), "name": name(n), "cgroup": format!("/terrarium/{}", id(n)), "pid": n,
                   "namespaces": {"mnt": n + 1000, "net": n / 2 + 5000, "uts": 1}})
        })
        .collect();
    json!({"host": {"uts": 1}, "containers": all})
}

fn findings() -> Value {
    (0..HOSTILE.len())
        .map(|n| {
            json!({"check": HOSTILE[n], "severity": "high", "source": "state",
                   "container": {"id": id(n), "name": name(n)}, "declared": HOSTILE[n], "observed": HOSTILE[n],
                   "evidence": [{"kind": "proc", "path": HOSTILE[n], "value": HOSTILE[n]}], "remedy": HOSTILE[n],
                   "first_seen": "2026-11-24T00:00:00Z", "last_seen": "2026-11-24T00:00:00Z", "count": 1})
        })
        .collect()
}

/// A thousand a second, in ten pieces, after those that are kept.
fn events(stream: &mut TcpStream) -> std::io::Result<()> {
    stream.write_all(
        b"HTTP/1.1 200 OK\r\nContent-Type: application/x-ndjson\r\nConnection: close\r\n\r\n",
    )?;
    let mut seq = 0_usize;
    loop {
        let many = if seq == 0 { 16_000 } else { 100 };
        let mut text = String::new();
        for _ in 0..many {
            seq += 1;
            let who = seq % 1000;
            let event = json!({"schema": "terrarium.event/v1", "seq": seq, "time": "2026-11-24T02:20:02.478028599Z",
                "mono_ns": seq, "type": "process.exec", "severity": "info",
                "container": {"id": id(who), "name": name(who)},
                "process": {"pid": seq, "comm": HOSTILE[seq % 4], "exe": HOSTILE[seq % 4]},
                "result": {"ok": true, "errno": null}, "lost_before": 0});
            text.push_str(&event.to_string());
            text.push('\n');
        }
        stream.write_all(text.as_bytes())?;
        std::thread::sleep(std::time::Duration::from_millis(100));
    }
}

#[test]
fn a_container_that_has_gone_is_told_so() {
    require!(Root, CgroupV2, Btf, Program("busybox"), Program("chromium"), Program("chromedriver"));
    let bed = TestBed::new();
    let mut observatory = Observatory::start(&bed, &["--grace", "1s"]);
    let container = bed.container("brief").follow();
    let name = container.name().to_owned();
    observatory.wait_for(&name);
    let browser = Browser::start(900, 700, false);
    browser.open(&observatory.url(&format!("/#/container/{name}")));
    browser.wait(
        "it is shown",
        &format!("document.querySelector('h1').textContent === {}", json!(name)),
    );
    container.finish();
    browser.wait("it has gone", "document.querySelector('.view > .empty').hidden === false");
    observatory.process().signal(nix::sys::signal::Signal::SIGTERM);
    eventually("the observatory ends", || {
        observatory.process().ended().map(|_| ()).ok_or_else(|| "it runs".to_owned())
    });
    browser.wait(
        "that nobody answers is told",
        "document.querySelector('#status').textContent.startsWith('No answer')",
    );
}
