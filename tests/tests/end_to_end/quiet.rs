//! Ordinary work under the default settings is no finding: of medium and above there is none.

use serde_json::Value;
use terrarium_tests::{Observatory, TestBed, eventually, process, require};

/// A name, options of `run`, and a script that says when it has done its work.
const WORKLOADS: [(&str, &[&str], &str); 9] = [
    ("shell", &[], "cd /tmp; mkdir a; echo x > a/b; chmod 600 a/b; ln -s a/b c; cat c; rm -r a"),
    (
        "httpd",
        &["--net", "bridge"],
        "mkdir /tmp/www; echo hi > /tmp/www/index.html; httpd -p 127.0.0.1:8080 -h /tmp/www; \
         for i in 1 2 3 4 5; do wget -q -O - http://127.0.0.1:8080/; done",
    ),
    (
        "tar",
        &[],
        "cd /tmp; mkdir t; cp /bin/busybox t/; tar cf t.tar t; rm -r t; tar xf t.tar; cmp t/busybox /bin/busybox",
    ),
    (
        "forks",
        &["--pids", "40"],
        "sh -c 'i=0; while [ $i -lt 200 ]; do sleep 0.1 & i=$((i+1)); done' || true",
    ),
    ("memory", &["--memory", "24m"], "tail /dev/zero || true"),
    ("cron", &[], "for i in 1 2 3 4 5 6 7 8; do sh -c 'date; id; ps' > /tmp/log; sleep 0.05; done"),
    (
        "database",
        &["--tmpfs", "/data"],
        "cd /data; for i in $(seq 200); do echo $i $i >> table; done; sort -rn table > index; \
         sync; grep -c . index; mv index table; dd if=table of=copy bs=512 2>/dev/null",
    ),
    (
        "build",
        &[],
        "cd /tmp; for f in a b c d; do echo $f > $f.c; (md5sum $f.c > $f.o) & done; wait; cat *.o > all; ls -l",
    ),
    (
        "user",
        &["--user", "1000:1000"],
        "id; touch /tmp/mine; kill -0 $$; umask 077; touch /tmp/other",
    ),
];

fn worse_than_low(findings: &[Value]) -> Vec<&Value> {
    let is_bad = |finding: &&Value| {
        ["medium", "high", "critical"].iter().any(|severity| finding["severity"] == *severity)
    };
    findings.iter().filter(is_bad).collect()
}

#[test]
fn ordinary_work_is_no_finding() {
    require!(Root, CgroupV2, Btf, Program("busybox"), Program("nft"), MemoryController);
    let bed = TestBed::new();
    let observatory = Observatory::start(&bed, &["--watch", "terrarium"]);
    let rootfs = bed.rootfs().display().to_string();
    for (name, options, script) in WORKLOADS {
        let id = bed.unique(name);
        let script = format!("({script}) >/dev/null 2>&1; echo done; sleep 600");
        let words = ["run", "-d", "--name", &id].into_iter().chain(options.iter().copied());
        bed.run(words.chain([&*rootfs, "--", "sh", "-c", &script])).success();
        eventually(&format!("{name} has done its work"), || {
            let log = bed.run(["logs", &id]).stdout;
            if log.contains("done") { Ok(()) } else { Err(log) }
        });
        // From the machine's own network namespace, where the observatory listens.
        let mut leaks = bed.terrarium();
        leaks.args(["leaks", &id, "--format", "json", "--observatory", &observatory.url("")]);
        let outcome = process::run(&mut leaks);
        let parse =
            |line| serde_json::from_str(line).unwrap_or_else(|e| panic!("{e}: {outcome:?}"));
        let findings: Vec<Value> = outcome.stdout.lines().map(parse).collect();
        assert!(!findings.is_empty(), "{name}: that there are no limits is told at least");
        assert_eq!(worse_than_low(&findings), Vec::<&Value>::new(), "{name}");
        bed.run(["delete", "--force", &id]).success();
    }
}
