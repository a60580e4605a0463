//! Published escapes from container runtimes: each is attempted, and must fail.

use serde_json::{Value, json};
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use terrarium_tests::bundle::Bundle;
use terrarium_tests::{Outcome, TestBed, binaries, eventually, require, turn};

/// `terrarium run` with descriptors of the host left open by whoever calls it: 3 is the host's root, 9 a file.
fn run_with_open_descriptors(bed: &TestBed, bundle: &Bundle<'_>) -> Outcome {
    let script = format!(
        "exec 3</ 9</etc/passwd; exec {} --root {} run -b {} {}",
        bed.runtime().get_program().display(),
        bed.root().display(),
        bundle.folder().display(),
        bundle.id()
    );
    bed.finish(Command::new("sh").args(["-c", &script]))
}

/// CVE-2024-21626: a descriptor of the host that leaks into the container, or that its working folder leads through.
#[test]
fn leaked_descriptors_lead_nowhere() {
    require!(Root, Program("busybox"));
    let bed = TestBed::new();
    let bundle = Bundle::new(&bed, "fds", &["sh", "-c", "ls /proc/self/fd"]);
    // ls has the folder that it reads open as 3.
    assert_eq!(run_with_open_descriptors(&bed, &bundle).success(), "0\n1\n2\n3\n");
    bundle.change(|spec| spec["process"]["args"] = json!(["sh", "-c", "ls; pwd"]));
    for fd in 3..12 {
        for path in [format!("/proc/self/fd/{fd}"), format!("/proc/self/fd/{fd}/../../etc")] {
            bundle.change(|spec| spec["process"]["cwd"] = json!(path));
            let outcome = run_with_open_descriptors(&bed, &bundle);
            assert_ne!(outcome.code, 0, "{path}: {outcome:?}");
            assert_eq!(outcome.stdout, "", "{path}");
        }
    }
    // The same by a link in the image.
    symlink("/proc/self/fd/3", bed.rootfs().join("way-out")).expect("the rootfs is writable");
    bundle.change(|spec| spec["process"]["cwd"] = json!("/way-out"));
    let outcome = run_with_open_descriptors(&bed, &bundle);
    assert_ne!(outcome.code, 0, "{outcome:?}");
}

/// CVE-2016-9962, CVE-2019-5736: a process of the container reaches into one that `exec` brings, while that still has the
/// host's rights, its descriptors and its executable.
#[test]
fn an_execd_process_cannot_be_reached_before_it_is_the_containers() {
    require!(Root, Program("busybox"));
    let bed = TestBed::new();
    // Whatever appears in the pid namespace and is not a program of the image is opened in every way.
    let spy = "while :; do for p in /proc/[0-9]*; do \
                 exe=$(readlink $p/exe 2>/dev/null); \
                 case \"$exe\" in ''|/bin/*) continue;; esac; \
                 echo seen $exe >> /dev/shm/seen; \
                 (exec 7>>$p/exe) 2>/dev/null && echo opened $p/exe >> /dev/shm/caught; \
                 ls $p/fd/ 2>/dev/null | grep -q . && echo listed $p/fd >> /dev/shm/caught; \
               done; done";
    let bundle = Bundle::new(&bed, "spy", &["sh", "-c", spy]);
    bundle.create(&[]).success();
    bundle.call("start", &[]).success();
    let programs = [binaries::terrarium(), binaries::runtime()];
    let read = || programs.map(|path| fs::read(path).expect("the binary is readable"));
    let before = read();
    for _ in 0..30 {
        bundle.call("exec", &["true"]).success();
    }
    let caught = fs::read_to_string(bundle.inside("dev/shm/caught")).unwrap_or_default();
    assert_eq!(caught, "");
    // An image can make the runtime itself the program: it is the container's process by then, whose
    // descriptors are no secret, and its executable is not writable.
    // (One that is linked dynamically does not even start, for want of its loader.)
    bundle.call("exec", &["/proc/self/exe", "--version"]);
    assert!(before == read(), "a binary of the runtime has changed");
    bundle.call("delete", &["--force"]).success();
}

/// CVE-2019-5736: whoever gets hold of the runtime's executable cannot write to it, not even the host's root.
#[test]
fn the_runtimes_executable_is_read_only() {
    require!(Root, Program("busybox"));
    let bed = TestBed::new();
    let mut container = bed.container("exe").follow();
    let own = format!("/proc/{}/exe", container.runtime().pid());
    // While it runs the kernel says "text file busy" to a writer; it is the mount that says no for ever.
    binaries::assert_sealed(container.runtime().pid());
    assert!(fs::OpenOptions::new().write(true).open(&own).is_err());
    let name = fs::read_to_string(format!("/proc/{}/comm", container.runtime().pid()));
    assert_eq!(name.expect("it runs"), "terrarium\n");
    container.finish();
}

/// CVE-2021-30465, CVE-2019-19921, CVE-2023-27561: mount points of the image are symlinks that lead out of it.
#[test]
fn mounts_do_not_follow_links_out_of_the_root() {
    require!(Root, Program("busybox"));
    let bed = TestBed::new();
    let outside = bed.folder().join("outside");
    fs::create_dir(&outside).expect("the test's folder is writable");
    let depth = "../".repeat(30);
    for (name, link) in [
        ("absolute", outside.display().to_string()),
        (
            "relative",
            format!("{depth}{}", outside.strip_prefix("/").expect("it is absolute").display()),
        ),
    ] {
        let target = bed.rootfs().join(name);
        symlink(&link, &target).expect("the rootfs is writable");
        let bundle =
            Bundle::new(&bed, name, &["sh", "-c", "echo hi > /data; touch /$0/made", name]);
        bundle.change(|spec| {
            spec["root"]["readonly"] = json!(false);
            let mounts = spec["mounts"].as_array_mut().expect("a list");
            mounts.push(json!({ "destination": format!("/{name}/sub"), "type": "tmpfs", "source": "tmpfs" }));
        });
        bundle.run();
        assert_eq!(fs::read_dir(&outside).expect("it is there").count(), 0, "{link}");
    }
    // /proc and /sys must be what they say they are.
    for name in ["proc", "sys"] {
        let real = bed.rootfs().join(name);
        fs::remove_dir(&real).expect("it is empty");
        symlink("/tmp", &real).expect("the rootfs is writable");
        let bundle = Bundle::new(&bed, &format!("link-{name}"), &["true"]);
        let outcome = bundle.run();
        assert!(outcome.code != 0 && outcome.stderr.contains(name), "{outcome:?}");
        fs::remove_file(&real).expect("it is a link");
        fs::create_dir(&real).expect("the rootfs is writable");
    }
}

/// CVE-2021-30465: a folder of a shared volume turns into a symlink, and back, while the runtime mounts.
#[test]
fn a_race_for_a_mount_point_does_not_lead_out() {
    require!(Root, Program("busybox"));
    let bed = TestBed::new();
    let (outside, volume) = (bed.folder().join("outside"), bed.folder().join("volume"));
    for folder in [&outside, &volume] {
        fs::create_dir(folder).expect("the test's folder is writable");
    }
    fs::create_dir(volume.join("real")).expect("the volume is writable");
    symlink("/", volume.join("link")).expect("the volume is writable");
    let bundle = Bundle::new(&bed, "race", &["true"]);
    bundle.change(|spec| {
        spec["root"]["readonly"] = json!(false);
        let mounts = spec["mounts"].as_array_mut().expect("a list");
        mounts.push(json!({ "destination": "/tmp", "type": "bind", "source": volume, "options": ["rbind"] }));
        let inside = format!("/tmp/real{}", outside.display());
        mounts.push(json!({ "destination": inside, "type": "tmpfs", "source": "tmpfs" }));
    });
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let (real, link) = (volume.join("real"), volume.join("link"));
            while !stop.load(Ordering::Relaxed) {
                let flags = nix::fcntl::RenameFlags::RENAME_EXCHANGE;
                // What the runtime made in it moves along.
                let _ = nix::fcntl::renameat2(
                    nix::fcntl::AT_FDCWD,
                    &real,
                    nix::fcntl::AT_FDCWD,
                    &link,
                    flags,
                );
            }
        });
        let own = fs::read_link("/proc/self/ns/mnt").expect("/proc is mounted");
        for _ in 0..40 {
            bundle.run();
            let mounts = fs::read_to_string("/proc/self/mounts").expect("/proc is mounted");
            let path = outside.display().to_string();
            assert!(!mounts.contains(&path), "a mount on the host's {path} ({})", own.display());
        }
        stop.store(true, Ordering::Relaxed);
    });
    assert_eq!(fs::read_dir(&outside).expect("it is there").count(), 0);
}

/// CVE-2025-31133, CVE-2025-52565: what the image has at /dev/null and /dev/console is neither bound over masked paths nor
/// taken for the terminal.
#[test]
fn devices_of_the_image_are_not_trusted() {
    require!(Root, Program("busybox"));
    let bed = TestBed::new();
    // Without a tmpfs of its own, /dev is the image's.
    let dev = bed.rootfs().join("dev");
    symlink("/proc/sys/kernel/core_pattern", dev.join("null")).expect("the rootfs is writable");
    let bundle = Bundle::new(&bed, "null", &["cat", "/proc/keys"]);
    let own_dev = |spec: &mut Value| {
        spec["root"]["readonly"] = json!(false);
        let mounts = spec["mounts"].as_array_mut().expect("a list");
        mounts.retain(|mount| {
            !mount["destination"].as_str().is_some_and(|at| at.starts_with("/dev"))
        });
    };
    bundle.change(own_dev);
    let outcome = bundle.run();
    assert!(!outcome.stdout.contains("core"), "{outcome:?}");
    assert!(outcome.code != 0 || outcome.stdout.is_empty(), "{outcome:?}");
    fs::remove_file(dev.join("null")).expect("it is the link");

    symlink("/proc/sys/kernel/core_pattern", dev.join("console")).expect("the rootfs is writable");
    let pattern = fs::read_to_string("/proc/sys/kernel/core_pattern").expect("/proc is mounted");
    let bundle = Bundle::new(&bed, "console", &["sh", "-c", "echo '|/owned' > /dev/console; tty"]);
    bundle.change(|spec| {
        own_dev(spec);
        spec["process"]["terminal"] = json!(true);
        let mounts = spec["mounts"].as_array_mut().expect("a list");
        mounts.push(json!({
            "destination": "/dev/pts", "type": "devpts", "source": "devpts",
            "options": ["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620"]
        }));
    });
    bundle.run();
    let now = fs::read_to_string("/proc/sys/kernel/core_pattern").expect("/proc is mounted");
    assert_eq!(now, pattern);
}

/// CVE-2025-52881: a kernel parameter is written to something that only looks like /proc.
#[test]
fn kernel_parameters_are_written_to_proc_only() {
    require!(Root, Program("busybox"));
    let bed = TestBed::new();
    let fake = bed.folder().join("fake");
    fs::create_dir_all(fake.join("net/ipv4")).expect("the test's folder is writable");
    fs::write(fake.join("net/ipv4/ping_group_range"), "untouched").expect("it is writable");
    let bundle = Bundle::new(&bed, "fake", &["true"]);
    bundle.change(|spec| {
        spec["linux"]["sysctl"] = json!({ "net.ipv4.ping_group_range": "0 1" });
        let mounts = spec["mounts"].as_array_mut().expect("a list");
        mounts.push(json!({ "destination": "/proc/sys", "type": "bind", "source": fake, "options": ["bind"] }));
    });
    let outcome = bundle.run();
    assert_ne!(outcome.code, 0, "{outcome:?}");
    let text = fs::read_to_string(fake.join("net/ipv4/ping_group_range")).expect("it is there");
    assert_eq!(text, "untouched");
}

/// CVE-2022-0492, CVE-2022-29162, CVE-2022-2989: `release_agent`, inheritable capabilities, and groups of the caller.
#[test]
fn the_default_rights_do_not_reach_the_host() {
    require!(Root, Program("busybox"));
    let bed = TestBed::new();
    let script = "mount -t cgroup -o memory cgroup /tmp 2>/dev/null && echo mounted; \
                  for f in /sys/fs/cgroup/*/release_agent /sys/fs/cgroup/*/cgroup.procs; do \
                  (echo /x >> $f) 2>/dev/null && echo wrote $f; done; \
                  grep -E '^(CapInh|CapAmb|Groups)' /proc/self/status; id -G";
    let mut command = bed.container("rights").command(["sh", "-c", script]);
    let outcome = bed.finish(&mut command).success();
    let lines: Vec<_> = outcome.lines().map(str::trim_end).collect();
    let none = "0000000000000000";
    let expected = [
        "Groups:".to_owned(),
        format!("CapInh:\t{none}"),
        format!("CapAmb:\t{none}"),
        "0".to_owned(),
    ];
    assert_eq!(lines, expected);
    // The same for a process that exec brings.
    let bundle = Bundle::new(&bed, "groups", &["sh", "-c", "echo up > /dev/shm/up; sleep 100"]);
    bundle.create(&[]).success();
    bundle.call("start", &[]).success();
    eventually("it is up", || {
        let outcome = bundle.call("exec", &["cat", "/dev/shm/up"]);
        if outcome.code == 0 { Ok(()) } else { Err(outcome.stderr) }
    });
    let script = "grep -E '^(CapInh|CapAmb)' /proc/self/status; id -G";
    let outcome = bundle.call("exec", &["sh", "-c", script]).success();
    let lines: Vec<_> = outcome.lines().collect();
    assert_eq!(lines, [format!("CapInh:\t{none}"), format!("CapAmb:\t{none}"), "0".to_owned()]);
    bundle.call("delete", &["--force"]).success();
}

/// What hides a file is the host's own `/dev/null`, and so are the devices of a container with a user namespace: root inside, who is
/// the host's root there, could take everybody's right to use them.
#[test]
fn modes_and_owners_of_the_hosts_devices_stay() {
    require!(Root, Program("busybox"));
    // It maps the host's ids, as no other container should beside those whose findings are counted.
    let _turn = turn::take();
    let bed = TestBed::new();
    let changes = ["busybox chmod 1666", "busybox chown 0:0", "busybox touch -c"];
    let script = |path: &str| {
        let tried = changes.map(|change| format!("{change} {path} 2>/dev/null && echo {change}; "));
        // They can be used as before.
        format!("{}echo x > {path} && echo y >> {path} && cat {path} && echo end", tried.concat())
    };
    // The sticky bit means nothing on a device; it is taken back should it ever get there.
    let null = || {
        let about = fs::metadata("/dev/null").expect("it is there");
        let mode = about.mode();
        if mode & 0o1000 != 0 {
            fs::set_permissions("/dev/null", fs::Permissions::from_mode(mode & !0o1000)).unwrap();
        }
        (mode, about.uid(), about.gid())
    };
    let before = null();
    assert_eq!(before.0 & 0o7777, 0o666);
    let masked = Bundle::new(&bed, "masked", &["sh", "-c", &script("/proc/timer_list")]);
    assert_eq!(masked.run().success(), "end\n");
    let mapped = Bundle::new(&bed, "mapped", &["sh", "-c", &script("/dev/null")]);
    mapped.change(|spec| {
        spec["linux"]["namespaces"].as_array_mut().expect("a list").push(json!({ "type": "user" }));
        for ids in ["uidMappings", "gidMappings"] {
            spec["linux"][ids] = json!([{ "containerID": 0, "hostID": 0, "size": 1000 }]);
        }
    });
    assert_eq!(mapped.run().success(), "end\n");
    assert_eq!(null(), before);
    // What a process has as its input, of a detached container and of exec.
    let waits = "busybox chmod 1666 /proc/self/fd/0 && echo up; exec sleep 1000";
    let id = bed.unique("detached");
    let mut command = bed.terrarium();
    command.args(["run", "--detach", "--name", &id]).arg(bed.rootfs()).args(["sh", "-c", waits]);
    bed.finish(&mut command).success();
    eventually("the program is up", || {
        let said = bed.finish(bed.terrarium().args(["logs", &id])).stdout;
        if said == "up\n" { Ok(()) } else { Err(said) }
    });
    let chmod = ["exec", &id, "busybox", "chmod", "1666", "/proc/self/fd/0"];
    bed.finish(bed.terrarium().args(chmod).stdin(Stdio::null())).success();
    assert_eq!(null(), before);
    bed.finish(bed.terrarium().args(["delete", "--force", &id])).success();
}

/// CVE-2022-0492: who may make user namespaces makes one, mounts cgroup v1 in it and has the kernel run a program.
#[test]
fn a_user_namespace_inside_mounts_no_cgroup() {
    require!(Root, Program("busybox"));
    let bed = TestBed::new();
    let script = "unshare -Urm sh -c 'echo in; mount -t cgroup -o memory cgroup /tmp && echo mounted; \
                  mount -t cgroup2 cgroup2 /tmp && echo mounted' 2>/dev/null; \
                  for f in /tmp/release_agent /tmp/cgroup.procs; do [ -e $f ] && echo $f; done; echo end";
    let outcome = bed.container("profile").run(["sh", "-c", script]).success();
    assert_eq!(outcome, "end\n", "the profile refuses the namespace itself");
    // Without a profile the namespace is to be had, where the host allows it; the hierarchy is not.
    let bare = bed.container("bare").with(["--security-opt", "seccomp=unconfined"]);
    let outcome = bare.run(["sh", "-c", script]).success();
    assert!(!outcome.contains("mounted") && outcome.ends_with("end\n"), "{outcome}");
}
