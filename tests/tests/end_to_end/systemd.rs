//! Where systemd makes the cgroups: a real one, which runs as the first process of a container of its own, and in there
//! terrarium, Podman and a user with a manager of his.

use nix::mount::{MntFlags, MsFlags, mount, umount2};
use serde_json::json;
use std::env;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use terrarium_tests::bundle::Bundle;
use terrarium_tests::container::Running;
use terrarium_tests::deadline::eventually;
use terrarium_tests::process::Outcome;
use terrarium_tests::{TestBed, binaries, kernel_state, require};

/// A Debian that a test may write to; what it wrote goes with it.
struct Debian {
    root: PathBuf,
}

impl Debian {
    fn new(bed: &TestBed) -> Self {
        let folder = |name: &str| {
            let path = bed.folder().join("debian").join(name);
            fs::create_dir_all(&path).expect("the test's folder is writable");
            path
        };
        let (upper, work, root) = (folder("upper"), folder("work"), folder("root"));
        let lower = env::var_os("TERRARIUM_DIST_BOOTED").expect("the test requires it");
        let options = format!(
            "lowerdir={},upperdir={},workdir={}",
            Path::new(&lower).display(),
            upper.display(),
            work.display()
        );
        mount(Some("overlay"), &root, Some("overlay"), MsFlags::empty(), Some(options.as_str()))
            .expect("root may mount");
        let debian = Self { root };
        let units = debian.root.join("etc/systemd/system");
        // What would be the host's to set.
        for unit in
            ["systemd-sysctl.service", "systemd-modules-load.service", "dev-hugepages.mount"]
        {
            symlink("/dev/null", units.join(unit)).expect("it is not there");
        }
        debian
    }

    /// Starts it by `script`, which sees to the cgroup mounts. The settings of the host's kernel are not its own.
    fn boot<'a>(&self, bed: &'a TestBed, script: &str) -> Booted<'a> {
        let programs = binaries::terrarium().parent().expect("it is an absolute path");
        let container = bed
            .container("debian")
            .with(["--cap-add", "ALL", "--security-opt", "seccomp=unconfined"])
            .with(["--security-opt", "systempaths=unconfined"])
            .with(["--security-opt", "no-new-privileges=false", "--cgroupns", "private"])
            .with(["--tmpfs", "/run", "--tmpfs", "/tmp", "--env", "container=terrarium"])
            .with(["--memory", "1g", "--pids", "2000", "--stop-signal", "SIGRTMIN+3"])
            .with(["--env", &format!("TAG={}", bed.unique("debian"))])
            .with(["--volume", &format!("{}:/t:ro", programs.display())])
            .with(["--volume", &format!("{}:/rootfs:ro", bed.rootfs().display())])
            // For bundles, which name their root filesystem where it is on the host.
            .with(["--volume", &format!("{0}:{0}", bed.folder().display())])
            .rootfs(&self.root);
        let running = container.start(["/bin/sh", "-c", script]);
        let booted = Booted { bed, running };
        eventually("systemd has started", || {
            let said = booted.root("systemctl is-system-running --wait");
            // A unit of Debian's that does not suit a container is no matter here.
            let is_up = ["running", "degraded"].contains(&said.stdout.trim());
            if is_up { Ok(()) } else { Err(format!("{said:?}")) }
        });
        booted
    }
}

impl Drop for Debian {
    fn drop(&mut self) {
        let _ = umount2(&self.root, MntFlags::MNT_DETACH);
    }
}

struct Booted<'a> {
    bed: &'a TestBed,
    running: Running<'a>,
}

impl Booted<'_> {
    /// Runs `script` in it as root, with terrarium in its `PATH`.
    fn root(&self, script: &str) -> Outcome {
        let mut command = self.bed.terrarium();
        command.args(["exec", "--env", "PATH=/t:/usr/sbin:/usr/bin:/sbin:/bin"]);
        command.args(["--env", "TERRARIUM_ROOT=/run/terrarium"]);
        command.args([self.running.name(), "/bin/sh", "-c", script]);
        self.bed.finish(&mut command)
    }

    /// Waits until systemd has noticed that units are empty.
    fn wait_for_end_of(&self, units: &str) {
        eventually("the units have ended", || {
            let left = self
                .root(&format!("systemctl list-units --all --plain --no-legend '{units}'"))
                .success();
            if left.is_empty() { Ok(()) } else { Err(left) }
        });
    }

    /// That no unit of a container is there, nor a cgroup or a state file.
    fn assert_clean(&self) {
        let mut left = String::new();
        for command in [
            "systemctl list-units --all --plain --no-legend 'terrarium*.scope' 'libpod-*.scope'",
            "find /sys/fs/cgroup -name '*terrarium*' -o -name 'libpod-*' ! -name 'libpod-conmon-*'",
            "terrarium ps --all --quiet",
        ] {
            left += &self.root(command).success();
        }
        assert_eq!(left, "");
    }

    fn end(self) {
        // Its shutdown would be its own to do, and takes seconds.
        let name = self.running.name().to_owned();
        self.bed.run(["delete", "--force", &name]).success();
        drop(self.running);
        kernel_state::remove_cgroups_with(&self.bed.unique("debian")).expect("nothing is in them");
    }
}

/// What this host has, v1's hierarchies included: in each of them the container gets a cgroup of its own first, for
/// systemd mounts them all, and would work in the host's.
const AS_IT_IS: &str = "
    for name in $(cut -d : -f 2 /proc/self/cgroup); do
        at=/run/cgroup
        mkdir -p $at
        case $name in name=*) options=none,$name ;; *) options=$name ;; esac
        [ -e /sys/fs/cgroup/${name#name=}/cgroup.procs ] && continue
        mount -t cgroup -o $options cgroup $at || exit
        mkdir $at/$TAG || exit
        for file in cpuset.cpus cpuset.mems; do
            [ ! -e $at/$file ] || cat $at/$file > $at/$TAG/$file
        done
        echo $$ > $at/$TAG/cgroup.procs && umount $at || exit
    done
    if [ -e /sys/fs/cgroup/cgroup.controllers ]; then
        mount -o remount,bind,rw /sys/fs/cgroup
    else
        mount -o remount,rw /sys/fs/cgroup
        for at in /sys/fs/cgroup/*; do mount -o remount,bind,rw $at; done
    fi
    exec unshare --cgroup /bin/sh -c 'mount -o bind,ro /proc/sys /proc/sys; exec /lib/systemd/systemd'
";

/// cgroup v2 alone. Its controllers are those that v1 has left over, on a hybrid host none.
const UNIFIED: &str = "
    umount -R /sys/fs/cgroup && mount -t cgroup2 cgroup2 /sys/fs/cgroup
    mount -o bind,ro /proc/sys /proc/sys
    exec /lib/systemd/systemd
";

#[test]
fn a_container_is_a_scope_with_its_limits() {
    require!(Root, CgroupV2, MemoryController, Made("TERRARIUM_DIST_BOOTED"));
    let bed = TestBed::new();
    let debian = Debian::new(&bed);
    let host = debian.boot(&bed, AS_IT_IS);
    host.root("terrarium --systemd-cgroup run --detach --name web --memory 64m --pids 20 --annotation org.systemd.property.TimeoutStopSec=1 /rootfs sleep 1000")
        .success();
    let unit = host.root("systemctl show terrarium-web.scope").success();
    let has = |line: &str| unit.lines().any(|other| other == line);
    for line in [
        "ActiveState=active",
        "Slice=system.slice",
        "Delegate=yes",
        "TasksMax=20",
        "DevicePolicy=strict",
        "ControlGroup=/system.slice/terrarium-web.scope",
    ] {
        assert!(has(line), "{line}\n{unit}");
    }
    assert!(has("MemoryLimit=67108864") || has("MemoryMax=67108864"), "{unit}");
    // The container's one process, where /proc says so; nobody else.
    let pid =
        host.root("terrarium state web | sed -n 's/.*\"pid\": *\\([0-9]*\\).*/\\1/p'").success();
    let cgroups = host.root(&format!("cat /proc/{}/cgroup", pid.trim())).success();
    assert!(cgroups.contains("0::/system.slice/terrarium-web.scope\n"), "{cgroups}");
    let inside =
        host.root("cat $(find /sys/fs/cgroup -path '*terrarium-web.scope/cgroup.procs')").success();
    assert!(inside.lines().all(|line| line == pid.trim()), "{inside}");

    let limits = r#"{"memory": {"limit": 50000000, "swap": 50000000}, "pids": {"limit": 30}}"#;
    host.root(&format!("echo '{limits}' | terrarium update --resources - web")).success();
    let unit = host.root("systemctl show terrarium-web.scope").success();
    assert!(unit.contains("=50000000\n") && unit.contains("TasksMax=30\n"), "{unit}");
    // What systemd thinks of it is what holds, after it has read everything anew as well.
    host.root("systemctl daemon-reload").success();
    let limit = "find /sys/fs/cgroup -path '*terrarium-web.scope/*' \\( -name memory.limit_in_bytes -o -name memory.max \\) -exec cat {} +";
    assert_eq!(host.root(limit).success().trim(), "49999872");
    host.root("terrarium exec web true").success();
    // Nobody else's devices, whatever systemd wrote.
    let refused = host.root("terrarium --systemd-cgroup run --rm --cap-add MKNOD /rootfs /bin/busybox sh -c 'mknod /dev/x b 7 0 && cat /dev/x'");
    assert!(refused.stderr.contains("not permitted"), "{refused:?}");

    // Stopped from outside, as by an administrator.
    host.root("systemctl stop terrarium-web.scope").success();
    eventually("its end was noted", || {
        let said = host.root("terrarium ps --all").success();
        if said.contains("stopped") { Ok(()) } else { Err(said) }
    });
    host.root("terrarium delete web").success();
    host.assert_clean();

    // A bundle says the scope itself; engines do so.
    let bundle = Bundle::new(&bed, "b", &["true"]);
    for (path, code, said) in [
        ("machine-a.slice:libpod:b", 0, ""),
        ("/a/b", 2, "slice:prefix:name"),
        ("a.slice:x:../b", 2, "made of letters"),
    ] {
        bundle.change(|spec| spec["linux"]["cgroupsPath"] = json!(path));
        let folder = bundle.folder().display();
        let outcome = host.root(&format!("terrarium --systemd-cgroup run --bundle {folder} b"));
        assert!(outcome.code == code && outcome.stderr.contains(said), "{path}: {outcome:?}");
    }
    let twice = host.root(
        "terrarium --systemd-cgroup run -d --name a /rootfs sleep 1000 && \
         TERRARIUM_ROOT=/run/other terrarium --systemd-cgroup run --name a /rootfs true",
    );
    assert!(twice.code == 125 && twice.stderr.contains("terrarium-a.scope"), "{twice:?}");
    host.root("terrarium delete --force a && rm -r /run/other").success();
    host.assert_clean();
    host.end();
}

#[test]
fn a_runtime_that_is_killed_leaves_no_scope() {
    require!(Root, CgroupV2, Made("TERRARIUM_DIST_BOOTED"));
    let bed = TestBed::new();
    let debian = Debian::new(&bed);
    let host = debian.boot(&bed, AS_IT_IS);
    // From before the first word to systemd until after the program was started, in steps.
    let script = "for ms in $(seq 2 2 60); do
            timeout -s KILL $(printf 0.%03d $ms) terrarium --systemd-cgroup run --name k$ms /rootfs sleep 1000
            terrarium gc >/dev/null || echo gc failed after $ms
        done 2>/dev/null";
    assert_eq!(host.root(script).stdout, "");
    host.wait_for_end_of("terrarium*.scope");
    host.assert_clean();
    host.end();
}

#[test]
fn on_cgroup_v2_alone_too() {
    require!(Root, CgroupV2, Made("TERRARIUM_DIST_BOOTED"));
    let bed = TestBed::new();
    let debian = Debian::new(&bed);
    let host = debian.boot(&bed, UNIFIED);
    let run = "terrarium --systemd-cgroup run --detach --name web --cgroup-parent machine-x.slice \
         --annotation org.systemd.property.TimeoutStopSec=7 /rootfs sleep 1000";
    host.root(run).success();
    let unit = host.root("systemctl show terrarium-web.scope").success();
    for line in [
        "ControlGroup=/machine.slice/machine-x.slice/terrarium-web.scope",
        "TimeoutStopUSec=7s",
        "DevicePolicy=strict",
    ] {
        assert!(unit.contains(line), "{line}\n{unit}");
    }
    host.root("terrarium pause web").success();
    host.root("terrarium resume web && terrarium exec web true").success();
    let refused = host.root("terrarium --systemd-cgroup run --cgroup-parent /x /rootfs true");
    assert!(refused.code == 2 && refused.stderr.contains("slice"), "{refused:?}");
    host.root("terrarium delete --force web").success();
    host.assert_clean();
    host.end();
}

#[test]
fn a_users_own_systemd_makes_scopes_for_him() {
    require!(Root, CgroupV2, Made("TERRARIUM_DIST_BOOTED"));
    let bed = TestBed::new();
    let debian = Debian::new(&bed);
    let host = debian.boot(&bed, AS_IT_IS);
    // With something mounted on it /proc could not be mounted by who is not root (`mount_too_revealing`).
    host.root(
        "umount --lazy /proc/sys && useradd --create-home u && systemctl start user@$(id -u u)",
    )
    .success();
    let user = |script: &str| {
        let quoted = script.replace('\'', "'\\''");
        host.root(&format!(
            "XDG_RUNTIME_DIR=/run/user/$(id -u u) HOME=/ setpriv --reuid u --regid u --init-groups \
             sh -c 'unset TERRARIUM_ROOT; {quoted}'"
        ))
    };
    // From outside of what is delegated to him, as in the session of a login.
    user("terrarium --systemd-cgroup run --detach --name mine /rootfs sleep 1000").success();
    let unit = user("systemctl --user show terrarium-mine.scope").success();
    assert!(unit.contains("/user.slice/terrarium-mine.scope\n"), "{unit}");
    assert!(unit.contains("ActiveState=active\n"), "{unit}");
    user("terrarium exec mine true").success();
    let limited = user("terrarium --systemd-cgroup run --memory 64m /rootfs true");
    // v1's controllers are root's alone.
    assert!(limited.code == 0 || limited.stderr.contains("not possible"), "{limited:?}");
    user("terrarium delete --force mine").success();
    eventually("the supervisor's scope goes with it", || {
        let units = "systemctl --user list-units --all --plain --no-legend 'terrarium*'";
        let left = user(units).success();
        if left.is_empty() { Ok(()) } else { Err(left) }
    });
    let nobody = host.root("setpriv --reuid 65534 --regid 65534 --clear-groups env -u XDG_RUNTIME_DIR terrarium --root /tmp/n --systemd-cgroup run /rootfs true");
    assert!(nobody.code == 125 && nobody.stderr.contains("does not run for you"), "{nobody:?}");
    host.assert_clean();
    host.end();
}

#[test]
fn podman_with_its_own_manager() {
    require!(Root, CgroupV2, MemoryController, Made("TERRARIUM_DIST_BOOTED"));
    let bed = TestBed::new();
    let debian = Debian::new(&bed);
    let host = debian.boot(&bed, AS_IT_IS);
    let podman = "podman --root /var/p --runroot /run/p --storage-driver vfs --cgroup-manager systemd --runtime /t/terrarium-runtime";
    let run = |words: &str| host.root(&format!("{podman} {words}"));
    host.root(&format!("tar -C /rootfs -c . | {podman} import - image")).success();
    let inside = run("run --rm --net none -m 64m image cat /proc/self/cgroup").success();
    assert!(inside.contains("0::/"), "{inside}");
    run("run --detach --net none --name pod -m 64m --pids-limit 30 image sleep 1000").success();
    let scope = "systemctl show $(systemctl list-units --plain --no-legend 'libpod-*.scope' | grep -v conmon | cut -d ' ' -f 1)";
    let unit = host.root(scope).success();
    for line in ["Slice=machine.slice\n", "TasksMax=30\n", "=67108864\n"] {
        assert!(unit.contains(line), "{line}\n{unit}");
    }
    run("exec pod true").success();
    run("pause pod").success();
    run("unpause pod").success();
    run("stop --time 0 pod").success();
    run("rm pod").success();
    host.wait_for_end_of("libpod*");
    host.assert_clean();
    host.end();
}

#[test]
fn without_systemd_the_reason_is_told() {
    require!(Root);
    if Path::new("/run/systemd/system").is_dir() {
        // Then the other tests have their say.
        return;
    }
    let bed = TestBed::new();
    let rootfs = bed.rootfs();
    let outcome = bed.finish(
        bed.terrarium().args(["--cgroup-manager", "systemd", "run"]).arg(rootfs).arg("true"),
    );
    assert!(outcome.code == 125 && outcome.stderr.contains("it does not run here"), "{outcome:?}");
}
