//! Ordinary work under the default settings is no finding: of medium and above there is none.

use serde_json::Value;
use std::process::Command;
use terrarium_tests::requirement::made;
use terrarium_tests::{Observatory, TestBed, eventually, require};

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
        assert_quiet_work(&bed, &observatory, &id);
    }
}

/// Waits until it has done its work, and holds it against every check; then deletes it.
fn assert_quiet_work(bed: &TestBed, observatory: &Observatory, id: &str) {
    eventually(&format!("{id} has done its work"), || {
        let log = bed.run(["logs", id]).stdout;
        if log.contains("done") { Ok(()) } else { Err(log) }
    });
    let findings = observatory.leaks(bed, id).unwrap_or_else(|error| panic!("{id}: {error}"));
    assert!(!findings.is_empty(), "{id}: that there are no limits is told at least");
    assert_eq!(worse_than_low(&findings), Vec::<&Value>::new(), "{id}");
    bed.run(["delete", "--force", id]).success();
}

/// Work that people do in containers, with the programs that they do it with.
const REAL_WORK: [(&str, &str); 2] = [
    (
        "c-build",
        r#"for n in 1 2 3 4 5 6; do echo "int f$n(int x) { int s = 0; for (int i = 0; i < x; i++) s += i * $n; return s; }" > f$n.c; done
        echo '#include <stdio.h>' > main.c
        echo 'int f1(int), f6(int); int main(void) { printf("%d
", f1(10) + f6(10)); return 0; }' >> main.c
        printf 'OBJECTS = f1.o f2.o f3.o f4.o f5.o f6.o main.o
prog: $(OBJECTS)
	$(CC) -o $@ $(OBJECTS)
' > Makefile
        make -j4 CFLAGS=-O2 && ./prog > said && grep -qx 315 said && make -n prog"#,
    ),
    (
        "sqlite",
        r#"sqlite3 db 'PRAGMA journal_mode=WAL; CREATE TABLE t (k INTEGER PRIMARY KEY, v TEXT);'
        for writer in 1 2 3; do
            (for n in $(seq 60); do sqlite3 -cmd '.timeout 30000' db "INSERT INTO t (v) VALUES (hex(randomblob(200)));"; done) &
        done
        for n in $(seq 20); do sqlite3 -cmd '.timeout 30000' db 'SELECT count(*), max(v) FROM t;'; done
        wait; test "$(sqlite3 db 'SELECT count(*) FROM t;')" = 180 && sqlite3 db 'PRAGMA integrity_check; VACUUM;'"#,
    ),
];

#[test]
fn a_build_a_database_and_an_installation_are_no_finding() {
    require!(
        Root,
        CgroupV2,
        Btf,
        Made("TERRARIUM_DIST_WORKSHOP"),
        Made("TERRARIUM_DIST_DEBIAN"),
        Made("TERRARIUM_DIST_DEB")
    );
    let bed = TestBed::new();
    let workshop = made("TERRARIUM_DIST_WORKSHOP").display().to_string();
    let observatory = Observatory::start(&bed, &["--watch", "terrarium"]);
    let run = |id: &str, options: &[&str], rootfs: &str, script: &str| {
        // What fails is not done, and its log says why.
        let script = format!("set -e; {script}; echo done; sleep 600");
        let words = ["run", "-d", "--name", id].into_iter().chain(options.iter().copied());
        bed.run(words.chain([rootfs, "--", "/bin/sh", "-c", &script])).success();
    };
    for (name, script) in REAL_WORK {
        let id = bed.unique(name);
        let options = ["--read-only", "--tmpfs", "/tmp", "--tmpfs", "/work:exec,size=200m"];
        let script = format!("cd /work\n{script}");
        run(&id, &options, &workshop, &script);
        assert_quiet_work(&bed, &observatory, &id);
    }
    // A package, into an image's own layer.
    let image = bed.unique("debian");
    let archive = bed.folder().join("debian.tar");
    let mut tar = Command::new("tar");
    tar.args(["--create", "--exclude=./var/cache", "--exclude=./var/lib/apt", "--file"]);
    tar.arg(&archive).arg("--directory").arg(made("TERRARIUM_DIST_DEBIAN")).arg(".");
    bed.finish(&mut tar).success();
    bed.run(["image", "import", &archive.display().to_string(), &image]).success();
    let deb = made("TERRARIUM_DIST_DEB");
    let folder = deb.parent().expect("it is an absolute path").display();
    let volume = format!("{folder}:/dist:ro");
    let name = deb.file_name().unwrap_or_default().to_string_lossy();
    let script = format!("dpkg -i /dist/{name}; terrarium --version; dpkg -P terrarium");
    let id = bed.unique("dpkg");
    run(&id, &["--volume", &volume], &image, &script);
    assert_quiet_work(&bed, &observatory, &id);
}
