//! Findings of what containers do, seen by an observatory.

use serde_json::{Value, json};
use terrarium_tests::leak_case::{LeakCase, Runtime, assert_quiet};
use terrarium_tests::{Observatory, TestBed, eventually, http, process, require};

/// The findings of `terrarium leaks ID` that asks the observatory, from the machine's own network namespace.
fn leaks(bed: &TestBed, observatory: &Observatory, id: &str) -> Result<Vec<Value>, String> {
    let mut command = bed.terrarium();
    command.args(["leaks", id, "--format", "json", "--observatory", &observatory.url("")]);
    let outcome = process::run(&mut command);
    let lines = outcome.stdout.lines().map(serde_json::from_str);
    lines.collect::<Result<_, _>>().map_err(|error| format!("{error}: {outcome:?}"))
}

#[test]
fn what_a_container_does_is_told_and_what_its_runtime_does_is_not() {
    require!(Root, Btf, Program("busybox"));
    let bed = TestBed::new();
    let observatory = Observatory::start(&bed, &[]);
    let unshare = json!({
        "process": { "args": ["sh", "-c", "unshare -U true; sleep 600"] },
        "linux": { "seccomp-": ["unshare"] }
    });
    for runtime in Runtime::available() {
        let case = LeakCase::start(&bed, runtime, "unshare", &unshare);
        let quiet = LeakCase::start(&bed, runtime, "quiet", &json!({}));
        let findings = eventually("the user namespace is told", || {
            let findings = leaks(&bed, &observatory, &case.id)?;
            let told = findings.iter().any(|f| f["check"] == "user-namespace-created");
            if told { Ok(findings) } else { Err(format!("{findings:?}")) }
        });
        let of_check = findings.iter().filter(|f| f["check"] == "user-namespace-created");
        let [finding] = of_check.collect::<Vec<_>>()[..] else { panic!("{findings:#?}") };
        assert_eq!((&finding["source"], &finding["severity"]), (&json!("event"), &json!("medium")));
        assert_eq!(finding["container"]["id"], case.id);
        assert!(finding["observed"].as_str().is_some_and(|t| t.contains("unshare")), "{finding:#}");
        assert_quiet(&findings, &["user-namespace-created"]);
        let findings = leaks(&bed, &observatory, &quiet.id).expect("findings are JSON");
        assert_quiet(&findings, &[]);
    }
    // The same by the HTTP side.
    let answer = http::get(&observatory.url("/api/v1/leaks")).expect("it serves");
    let all: Vec<Value> = serde_json::from_str(&answer.body).expect("an array");
    assert!(all.iter().any(|finding| finding["source"] == "event"), "{all:#?}");
}

#[test]
fn mounts_of_a_container_are_told_by_what_they_open() {
    require!(Root, Btf, Program("busybox"));
    let bed = TestBed::new();
    let observatory = Observatory::start(&bed, &[]);
    let names = ["CAP_SYS_ADMIN"];
    let fragment = json!({
        "process": {
            "args": ["sh", "-c",
                "mount -t tmpfs tmpfs /tmp; mount -t cgroup -o memory cgroup /var; sleep 600"],
            "capabilities": { "bounding+": names, "effective+": names, "permitted+": names }
        },
        "linux": { "seccomp-": ["mount"] }
    });
    let case = LeakCase::start(&bed, Runtime::Terrarium, "mounts", &fragment);
    eventually("both mounts are told", || {
        let findings = leaks(&bed, &observatory, &case.id)?;
        let severity = |kind: &str| {
            let of = |f: &&Value| f["check"] == "mount-performed" && f.to_string().contains(kind);
            findings.iter().find(of).map(|finding| finding["severity"].clone())
        };
        let (plain, cgroup) = (severity("(tmpfs)"), severity("(cgroup)"));
        if plain == Some(json!("info")) && cgroup == Some(json!("critical")) {
            Ok(())
        } else {
            Err(format!("{findings:#?}"))
        }
    });
}
