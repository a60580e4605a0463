//! Containers of a user without privileges.

use nix::unistd::{Gid, Uid};
use serde_json::Value;
use std::fs::{self, File, Permissions};
use std::io::Write;
use std::os::fd::AsRawFd;
use std::os::unix::fs::{PermissionsExt, chown};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use terrarium_tests::bundle::Bundle;
use terrarium_tests::process::Process;
use terrarium_tests::{
    NetworkNamespace, Observatory, Outcome, TestBed, binaries, eventually, kernel_state, process,
    require, requirement, turn,
};

/// The user `nobody`: newuidmap(1) wants one that has a name.
const USER: u32 = 65_534;

/// A test's things, as far as the user needs them.
struct Bed {
    bed: TestBed,
    /// Open, for the folders above the program may be root's alone.
    program: File,
}

impl Bed {
    fn new() -> Self {
        let bed = TestBed::new();
        fs::set_permissions(bed.folder(), Permissions::from_mode(0o755)).expect("it is root's");
        fs::create_dir(bed.root()).expect("the folder is new");
        chown(bed.root(), Some(USER), Some(USER)).expect("root may");
        let program = File::open(binaries::terrarium()).expect("terrarium is built");
        Self { bed, program }
    }

    /// `terrarium WORDS` as the user, in `cgroups`, which the test has made; `prepare` runs as root before.
    fn run(
        &self,
        words: &[&str],
        cgroups: &[PathBuf],
        prepare: impl Fn() -> std::io::Result<()> + Send + Sync + 'static,
    ) -> Outcome {
        let mut command = Command::new(format!("/proc/self/fd/{}", self.program.as_raw_fd()));
        command.arg("--root").arg(self.bed.root()).args(words).current_dir("/");
        let mut joins: Vec<File> = cgroups
            .iter()
            .map(|cgroup| {
                File::options().write(true).open(cgroup.join("cgroup.procs")).expect("root may")
            })
            .collect();
        // SAFETY: system calls alone, on what was opened before the fork.
        unsafe {
            command.pre_exec(move || {
                for join in &mut joins {
                    join.write_all(b"0")?;
                }
                prepare()?;
                nix::unistd::setgroups(&[])?;
                nix::unistd::setresgid(
                    Gid::from_raw(USER),
                    Gid::from_raw(USER),
                    Gid::from_raw(USER),
                )?;
                nix::unistd::setresuid(
                    Uid::from_raw(USER),
                    Uid::from_raw(USER),
                    Uid::from_raw(USER),
                )?;
                Ok(())
            });
        }
        self.bed.finish(&mut command)
    }

    fn run_container(&self, options: &[&str], script: &str, cgroups: &[PathBuf]) -> Outcome {
        let name = self.bed.unique("rootless");
        let rootfs = self.bed.rootfs();
        let mut words = vec!["run", "--rm", "--name", &name];
        words.extend(options);
        words.extend([
            rootfs.to_str().expect("a test's folder is UTF-8"),
            "--",
            "sh",
            "-c",
            script,
        ]);
        self.run(&words, cgroups, || Ok(()))
    }
}

#[test]
fn a_user_is_root_inside_and_himself_outside() {
    require!(Root, Program("busybox"));
    let bed = Bed::new();
    let script = "id -u; id -g; cat /proc/self/uid_map; echo $$; hostname inside; hostname; \
                  mount -t tmpfs none /tmp && touch /tmp/x && ls /tmp; exit 7";
    let outcome = bed.run_container(
        &["--cap-add", "SYS_ADMIN", "--security-opt", "seccomp=unconfined"],
        script,
        &[],
    );
    assert_eq!(outcome.code, 7, "{outcome:?}");
    let words: Vec<&str> = outcome.stdout.split_whitespace().collect();
    assert_eq!(words[..2], ["0", "0"], "{outcome:?}");
    assert_eq!(words[2..5], ["0", "65534", "1"], "{outcome:?}");
    assert_eq!(words[5..], ["1", "inside", "x"], "{outcome:?}");
    bed.bed.assert_nothing_left();
}

#[test]
fn the_hosts_network_can_be_shared_and_a_bridge_is_refused() {
    require!(Root, Program("busybox"));
    let bed = Bed::new();
    let outcome = bed.run_container(&["--net", "host"], "ls -d /sys/class/net/lo", &[]);
    assert_eq!((outcome.code, outcome.stdout.trim()), (0, "/sys/class/net/lo"), "{outcome:?}");
    let outcome = bed.run_container(&["--net", "bridge"], "true", &[]);
    assert_eq!(outcome.code, 125, "{outcome:?}");
    assert!(outcome.stderr.contains("else --net none or --net host"), "{outcome:?}");
    assert_eq!(fs::read_dir(bed.bed.root()).unwrap().count(), 0, "nothing was made");
}

#[test]
fn a_limit_without_a_delegated_cgroup_is_refused() {
    require!(Root, MemoryController, Program("busybox"));
    let bed = Bed::new();
    let outcome = bed.run_container(&["--memory", "32m"], "true", &[]);
    assert_eq!(outcome.code, 125, "{outcome:?}");
    assert!(outcome.stderr.contains("is delegated to you"), "{outcome:?}");
    assert_eq!(fs::read_dir(bed.bed.root()).unwrap().count(), 0, "nothing was made");
}

#[test]
fn a_limit_holds_in_a_delegated_cgroup() {
    require!(Root, MemoryController, Program("busybox"));
    let bed = Bed::new();
    let mount = kernel_state::cgroup_mount_of("memory").expect("the test requires the controller");
    let delegated = mount.path.join(bed.bed.unique("delegated"));
    fs::create_dir(&delegated).unwrap();
    let (session, file) = if mount.version == 2 {
        // As systemd does: the files by which a user moves processes and hands controllers down are his.
        fs::write(mount.path.join("cgroup.subtree_control"), "+memory").unwrap();
        for file in ["cgroup.procs", "cgroup.subtree_control", "cgroup.threads"] {
            chown(delegated.join(file), Some(USER), Some(USER)).unwrap();
        }
        let session = delegated.join("session");
        fs::create_dir(&session).unwrap();
        (session, "memory.max")
    } else {
        (delegated.clone(), "memory.limit_in_bytes")
    };
    chown(&delegated, Some(USER), Some(USER)).unwrap();
    // The kernel shows the limit of the container's own cgroup at the root of its cgroup namespace.
    let script = format!(
        "cat /sys/fs/cgroup/{file} /sys/fs/cgroup/memory/{file} 2>/dev/null; grep -h -e ^0: -e :memory: /proc/self/cgroup"
    );
    let outcome = bed.run_container(&["--memory", "32m"], &script, std::slice::from_ref(&session));
    assert_eq!(outcome.code, 0, "{outcome:?}");
    assert!(outcome.stdout.contains(&(32 << 20).to_string()), "{outcome:?}");
    let left: Vec<PathBuf> = folders_in(&delegated).filter(|folder| *folder != session).collect();
    let parent = delegated.join("terrarium");
    assert!(left.iter().all(|folder| *folder == parent), "{left:?}");
    // Whether it stays is up to what else is there; the test takes it away.
    let _ = fs::remove_dir(parent);
    if session != delegated {
        fs::remove_dir(session).unwrap();
    }
    fs::remove_dir(delegated).unwrap();
}

fn folders_in(folder: &Path) -> impl Iterator<Item = PathBuf> {
    fs::read_dir(folder)
        .expect("it is there")
        .flatten()
        .map(|entry| entry.path())
        .filter(|path| path.is_dir())
}

#[test]
fn the_ranges_of_subuid_are_mapped_where_newuidmap_is() {
    require!(Root, Program("busybox"), Program("newuidmap"), Program("newgidmap"));
    let bed = Bed::new();
    let ranges = bed.bed.folder().join("subordinate");
    fs::write(&ranges, "nobody:300000:1000\n").unwrap();
    for file in ["/etc/subuid", "/etc/subgid"] {
        assert!(Path::new(file).exists(), "the package of newuidmap makes {file}");
    }
    let name = bed.bed.unique("ranges");
    let rootfs = bed.bed.rootfs();
    let script = "cat /proc/self/uid_map /proc/self/gid_map";
    let words = [
        "run",
        "--rm",
        "--name",
        &name,
        "--user",
        "7:8",
        rootfs.to_str().unwrap(),
        "--",
        "sh",
        "-c",
        script,
    ];
    let outcome = bed.run(&words, &[], move || {
        // The machine's own files stay as they are: these are seen by this process and its children alone.
        use nix::mount::{MsFlags, mount};
        use nix::sched::{CloneFlags, unshare};
        let none: Option<&str> = None;
        unshare(CloneFlags::CLONE_NEWNS)?;
        mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none)?;
        for file in ["/etc/subuid", "/etc/subgid"] {
            mount(Some(&ranges), file, none, MsFlags::MS_BIND, none)?;
        }
        Ok(())
    });
    assert_eq!(outcome.code, 0, "{outcome:?}");
    let numbers: Vec<&str> = outcome.stdout.split_whitespace().collect();
    let map = ["0", "65534", "1", "1", "300000", "1000"];
    assert_eq!(numbers, [map, map].concat(), "{outcome:?}");
}

#[test]
fn what_a_user_does_in_his_container_is_no_finding() {
    require!(Root, Btf, Program("busybox"));
    // All map the same user.
    let _turn = turn::take();
    let bed = Bed::new();
    let observatory = Observatory::start(&bed.bed, &[]);
    let id = bed.bed.unique("mine");
    let rootfs = bed.bed.rootfs().display().to_string();
    let script = "cd /tmp; mkdir a; tar cf a.tar a; (sleep 0.1; id) & wait; chmod 600 a.tar; \
                  echo done; sleep 600";
    let words = ["run", "-d", "--name", &id, &rootfs, "--", "sh", "-c", script];
    bed.run(&words, &[], || Ok(())).success();
    eventually("it has done its work", || {
        let log = bed.bed.run(["logs", &id]).stdout;
        if log.contains("done") { Ok(()) } else { Err(log) }
    });
    let mut leaks = bed.bed.terrarium();
    leaks.args(["leaks", &id, "--format", "json", "--observatory", &observatory.url("")]);
    let outcome = process::run(&mut leaks);
    let parse = |line| serde_json::from_str(line).unwrap_or_else(|e| panic!("{e}: {outcome:?}"));
    let findings: Vec<Value> = outcome.stdout.lines().map(parse).collect();
    let bad: Vec<&Value> =
        findings.iter().filter(|f| f["severity"] != "low" && f["severity"] != "info").collect();
    assert!(bad.is_empty(), "{bad:#?}");
    assert!(outcome.stderr.is_empty(), "{outcome:?}");
    bed.run(&["delete", "--force", &id], &[], || Ok(())).success();
}

/// Carries the user's packets; each has its own word for what the container's address is.
const CARRIERS: [&str; 2] = ["pasta", "slirp4netns"];

/// Lets the user open `/dev/net/tun`, as on most hosts; on some it is root's alone.
fn open_tun() -> std::io::Result<()> {
    use nix::mount::{MsFlags, mount};
    use nix::sys::stat::{Mode, SFlag, makedev, mknod};
    nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNS)?;
    let none: Option<&str> = None;
    mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none)?;
    mount(Some("tmpfs"), "/dev/net", Some("tmpfs"), MsFlags::empty(), none)?;
    // Documentation/admin-guide/devices.txt
    mknod("/dev/net/tun", SFlag::S_IFCHR, Mode::empty(), makedev(10, 200))?;
    fs::set_permissions("/dev/net/tun", Permissions::from_mode(0o666))
}

/// A namespace beyond the one that plays the host's, at 192.0.2.9; the host's own address is 192.0.2.1.
fn beyond(host: &NetworkNamespace) -> NetworkNamespace {
    let beyond = NetworkNamespace::new();
    host.connect("up0", &beyond, "down0");
    host.ip(&["address", "add", "192.0.2.1/24", "dev", "up0"]);
    host.ip(&["route", "add", "default", "via", "192.0.2.9"]);
    beyond.ip(&["address", "add", "192.0.2.9/24", "dev", "down0"]);
    beyond
}

/// Processes of a carrier that works for the namespaces of process `pid`.
fn carriers_for(pid: &str) -> Vec<PathBuf> {
    let processes =
        fs::read_dir("/proc").expect("it is mounted").flatten().map(|entry| entry.path());
    processes
        .filter(|process| {
            let line = fs::read_to_string(process.join("cmdline")).unwrap_or_default();
            let mut words = line.split('\0');
            let program = words.next().unwrap_or_default();
            CARRIERS.iter().any(|carrier| program.ends_with(carrier))
                && words.any(|word| word == pid)
        })
        .collect()
}

/// The host pid of a container.
fn pid_of(bed: &TestBed, id: &str) -> String {
    let state: Value = serde_json::from_str(&bed.run(["state", id]).success()).expect("it is JSON");
    state["pid"].to_string()
}

#[test]
fn packets_are_carried_without_root() {
    require!(Root, Program("busybox"), Program("pasta"), Program("slirp4netns"));
    // All map the same user.
    let _turn = turn::take();
    for carrier in CARRIERS {
        let mut bed = Bed::new();
        let beyond = beyond(bed.bed.network());
        bed.bed.expect_links();
        let page = bed.bed.folder().join("index.html");
        fs::write(&page, "from beyond\n").unwrap();
        // As every distribution's root filesystem has them: a user cannot make them in one that is root's.
        for name in ["etc/hosts", "etc/resolv.conf"] {
            fs::write(bed.bed.rootfs().join(name), "").unwrap();
        }
        let folder = bed.bed.folder().display().to_string();
        let busybox = requirement::program("busybox").unwrap();
        let server = beyond.enter(|| {
            Process::spawn(
                Command::new(&busybox).args(["httpd", "-f", "-p", "192.0.2.9:8080", "-h", &folder]),
            )
        });
        let id = bed.bed.unique("carried");
        let rootfs = bed.bed.rootfs().display().to_string();
        let script = "mkdir /tmp/www; echo from inside > /tmp/www/index.html; \
                      for n in 1 2 3 4 5; do wget -q -O - http://192.0.2.9:8080/ && break; sleep 0.2; done; \
                      cat /etc/resolv.conf /etc/hosts; exec httpd -f -p 80 -h /tmp/www";
        let words = [
            "run", "--detach", "--name", &id, "--net", carrier, "--publish", "127.0.0.1:18080:80",
            "--dns", "192.0.2.53", "--add-host", "far:192.0.2.9", "--tmpfs", "/tmp", &rootfs, "--",
            "sh", "-c", script,
        ];
        bed.run(&words, &[], open_tun).success();
        let log = eventually("it came through", || {
            let log = bed.bed.run(["logs", &id]).stdout;
            if log.contains("far") { Ok(log) } else { Err(log) }
        });
        assert!(log.contains("from beyond"), "{carrier}: {log}");
        assert!(log.contains("nameserver 192.0.2.53"), "{carrier}: {log}");
        // In by the port that it publishes.
        let fetch = || {
            bed.bed.finish(
                Command::new(&busybox).args(["wget", "-q", "-O", "-", "http://127.0.0.1:18080/"]),
            )
        };
        eventually("the published port answers", || {
            let said = fetch();
            if said.stdout == "from inside\n" { Ok(()) } else { Err(format!("{said:?}")) }
        });
        let told = bed.run(&["ps"], &[], || Ok(())).success();
        assert!(told.contains("127.0.0.1:18080->80/tcp"), "{carrier}: {told}");
        let pid = pid_of(&bed.bed, &id);
        assert_eq!(carriers_for(&pid).len(), 1, "{carrier}");
        // The port is taken now; the other container goes, whole.
        let other = bed.bed.unique("other");
        let words =
            ["run", "--name", &other, "--net", carrier, "--publish", "18080:80", &rootfs, "true"];
        let refused = bed.run(&words, &[], open_tun);
        assert_eq!(refused.code, 125, "{carrier}: {refused:?}");
        assert!(refused.stderr.contains(carrier), "{carrier}: {refused:?}");

        bed.run(&["delete", "--force", &id], &[], || Ok(())).success();
        eventually("nothing carries any more", || {
            let left = carriers_for(&pid);
            if left.is_empty() { Ok(()) } else { Err(format!("{left:?}")) }
        });
        drop(server);
        bed.bed.assert_nothing_left();
    }
}

#[test]
fn what_carries_ends_with_a_runtime_that_is_killed() {
    require!(Root, Program("busybox"), Program("pasta"), Program("slirp4netns"));
    // All map the same user.
    let _turn = turn::take();
    for (carrier, with_watcher) in CARRIERS.iter().flat_map(|one| [(*one, false), (*one, true)]) {
        let mut bed = Bed::new();
        let _beyond = beyond(bed.bed.network());
        bed.bed.expect_links();
        let id = bed.bed.unique("killed");
        let rootfs = bed.bed.rootfs().display().to_string();
        let words =
            ["run", "--detach", "--name", &id, "--net", carrier, &rootfs, "--", "sleep", "1000"];
        bed.run(&words, &[], open_tun).success();
        let carrying = carriers_for(&pid_of(&bed.bed, &id));
        assert_eq!(carrying.len(), 1, "{carrier}");
        let state = fs::read_to_string(bed.bed.root().join(&id).join("state.json")).unwrap();
        let state: Value = serde_json::from_str(&state).unwrap();
        assert_eq!(state["network"]["mode"], carrier);
        let supervisor = i32::try_from(state["supervisor_pid"].as_i64().unwrap()).unwrap();
        let kill = |pid: i32| {
            let pid = nix::unistd::Pid::from_raw(pid);
            nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGKILL).unwrap();
        };
        let ended = || {
            eventually("what carried has ended", || {
                // One that has ended and that nobody has waited for has no command line.
                let lives = |process: &&PathBuf| {
                    fs::read(process.join("cmdline")).is_ok_and(|line| !line.is_empty())
                };
                let left: Vec<_> = carrying.iter().filter(lives).collect();
                if left.is_empty() { Ok(()) } else { Err(format!("{left:?}")) }
            });
        };
        if with_watcher {
            let stat = fs::read_to_string(carrying[0].join("stat")).unwrap();
            let parent = stat.rsplit(") ").next().unwrap().split(' ').nth(1).unwrap();
            kill(parent.parse().unwrap());
        }
        kill(supervisor);
        if !with_watcher {
            ended();
        }
        eventually("the runtime has ended", || {
            let stat = fs::read_to_string(format!("/proc/{supervisor}/stat")).unwrap_or_default();
            // A zombie, where the first process of the machine takes its time.
            if stat.is_empty() || stat.contains(") Z ") { Ok(()) } else { Err(stat) }
        });
        let removed = bed.run(&["gc"], &[], || Ok(())).success();
        assert!(removed.contains(&id), "{carrier}: {removed}");
        ended();
        bed.bed.assert_nothing_left();
    }
}

#[test]
fn a_network_whose_program_is_missing_is_refused() {
    require!(Root, Program("busybox"));
    let bed = TestBed::new();
    let name = bed.unique("missing");
    let mut command = bed.terrarium();
    command.args(["run", "--name", &name, "--net", "pasta"]).arg(bed.rootfs()).arg("true");
    let outcome = bed.finish(command.env("PATH", "/nowhere"));
    assert_eq!(outcome.code, 125, "{outcome:?}");
    assert!(outcome.stderr.contains("Debian's package passt"), "{outcome:?}");
    let mut command = bed.terrarium();
    command.args(["run", "--name", &name, "--net", "pasta"]).arg(bed.rootfs()).arg("true");
    if requirement::program("pasta").is_some() {
        let outcome = bed.finish(&mut command);
        assert!(outcome.code == 125 && outcome.stderr.contains("--net bridge"), "{outcome:?}");
    }
    // An engine brings its own.
    let bundle = Bundle::new(&bed, "engine", &["true"]);
    bundle.change(|spec| {
        spec["annotations"] = serde_json::json!({"io.terrarium.network": "slirp4netns"});
    });
    let outcome = bundle.create(&[]);
    assert!(outcome.code == 1 && outcome.stderr.contains("slirp4netns"), "{outcome:?}");
    assert!(fs::read_dir(bed.root()).map_or(0, Iterator::count) == 0, "nothing was made");
}
