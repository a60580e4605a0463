//! `run --explain`: the steps, the commands that do the same, what they cost, and the events seen for them.

use serde_json::Value;
use std::fs;
use std::process::Command;
use terrarium_tests::{Observatory, TestBed, binaries, require};

/// The steps that `run --explain=json` wrote to standard error.
fn steps(stderr: &str) -> Vec<Value> {
    let parse = |line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"));
    stderr.lines().map(parse).collect()
}

fn position(steps: &[Value], name: &str, part: &str) -> usize {
    let found = steps.iter().position(|step| {
        step["name"] == name && step["command"].as_str().is_some_and(|text| text.contains(part))
    });
    found.unwrap_or_else(|| panic!("no step {name} with {part} in {steps:#?}"))
}

#[test]
fn the_steps_of_a_container_on_a_bridge_are_told_in_order() {
    require!(Root, Program("busybox"), MemoryController);
    let bed = TestBed::new();
    let options = ["--explain=json", "--net", "bridge", "--memory", "32m"];
    let container = bed.container("shown").with(options);
    let outcome = container.run(["sh", "-c", "echo hello; exit 3"]);
    assert_eq!((outcome.code, outcome.stdout.as_str()), (3, "hello\n"), "{outcome:?}");
    let steps = steps(&outcome.stderr);
    let order = [
        ("bridge", "ip link add"),
        ("cgroup", "mkdir -p /sys/fs/cgroup"),
        ("limits", "echo 33554432 >"),
        ("clone3", "unshare --mount --uts --ipc --net --pid --fork"),
        ("unshare", "--cgroup"),
        ("link", "ip link set lo up"),
        ("mount", "mount --rbind"),
        ("mount", "mount -t proc"),
        ("mknod", "/dev/null c 1 3"),
        ("mask", "/proc/kcore"),
        ("read-only", "/proc/sys"),
        ("pivot_root", "pivot_root . ."),
        ("capset", "setpriv"),
        ("seccomp", "instructions"),
        ("execve", "exec sh -c 'echo hello; exit 3'"),
    ];
    let found: Vec<usize> = order.iter().map(|(name, part)| position(&steps, name, part)).collect();
    assert!(found.is_sorted(), "{found:?} in {steps:#?}");
    // The runtime connects the network while the first process mounts.
    for (name, part) in [
        ("veth", "type veth peer name eth0 netns"),
        ("link", "ip link set eth0 up"),
        ("address", "ip address add 10."),
        ("route", "ip route add default via 10."),
        ("nftables", "masquerade"),
    ] {
        position(&steps, name, part);
    }
    for (number, step) in steps.iter().enumerate() {
        assert_eq!(step["step"], number + 1);
        let cost = step["microseconds"].as_f64().unwrap();
        assert!(cost > 0.0 && step["event"].is_null(), "{step}");
    }
    let plain = bed.container("plain").with(["--explain"]).run(["true"]);
    assert!(plain.stderr.contains("  $ ") && !plain.stderr.contains('\u{1b}'), "{plain:?}");
    assert!(plain.stderr.contains(" steps, "), "{plain:?}");
    // A failure is told as ever, and nothing is left.
    assert_eq!(bed.container("no").with(["--explain"]).run(["no-such-program"]).code, 127);
}

#[test]
fn a_running_observatory_has_seen_the_steps() {
    require!(Root, CgroupV2, Btf, Program("busybox"));
    let bed = TestBed::new();
    let observatory = Observatory::start(&bed, &[]);
    let url = observatory.url("");
    let address = url.trim_end_matches('/');
    // The observatory listens on the machine's loopback.
    let mut command =
        bed.container("seen").with(["--explain=json", "--observatory", address]).command(["true"]);
    let output = command.output().expect("it starts");
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{stderr}");
    let steps = steps(&stderr);
    for (name, kind) in [
        ("clone3", "process.clone"),
        ("pivot_root", "mount.pivot_root"),
        ("execve", "process.exec"),
    ] {
        let step = steps.iter().find(|step| step["name"] == name).expect(name);
        assert_eq!(step["event"]["type"], kind, "{step}");
    }
    let mounts = steps.iter().filter(|step| step["name"] == "mount");
    let seen = mounts.filter(|step| !step["event"].is_null()).count();
    assert!(seen >= 4, "mounts that were seen: {seen} in {steps:#?}");
}

/// Those commands that `--explain` prints are not decoration: typed one after the other they make the same container.
#[test]
fn the_commands_that_it_prints_make_a_container_by_hand() {
    require!(Root, Program("busybox"), UtilLinux, Program("setpriv"), MemoryController);
    let bed = TestBed::new();
    let options = ["--explain=json", "--memory", "32m", "--hostname", "by-hand"];
    let outcome = bed.container("hand").with(options).run(["hostname"]);
    assert_eq!(outcome.stdout, "by-hand\n", "{outcome:?}");
    let steps = steps(&outcome.stderr);
    let command = |name: &str, part: &str| {
        steps[position(&steps, name, part)]["command"].as_str().unwrap().to_owned()
    };
    let all = |name: &str| -> Vec<String> {
        let chosen = steps.iter().filter(|step| step["name"] == name);
        chosen.filter_map(|step| step["command"].as_str()).map(str::to_owned).collect()
    };
    // The cgroups, their limits, and whoever types into them.
    let mut script = vec!["set -e".to_owned()];
    script.extend(all("cgroup"));
    script.extend(all("limits").iter().filter(|text| text.contains("memory")).cloned());
    let folders: Vec<String> = all("cgroup")
        .iter()
        .filter_map(|text| text.split(' ').next_back())
        .map(str::to_owned)
        .collect();
    let memory = folders.iter().find(|path| path.contains("memory")).or(folders.first()).unwrap();
    script.push(format!(
        "cat {memory}/memory.limit_in_bytes {memory}/memory.max 2>/dev/null || true"
    ));
    // Inside the namespaces.
    let mut inside =
        vec!["set -e".to_owned(), command("link", "lo up"), command("sethostname", "by-hand")];
    inside.push("mount --make-rslave /".to_owned());
    inside.push(command("mount", "--rbind"));
    for part in ["-t proc", "-t tmpfs", "-t devpts"] {
        inside.push(command("mount", part));
    }
    inside.push(command("mknod", "/dev/null"));
    inside.push(command("pivot_root", "pivot_root"));
    inside.push("/bin/hostname; /bin/ls /dev/null /proc/self/ns/uts; echo $$".to_owned());
    fs::write(bed.folder().join("inside"), inside.join("\n")).unwrap();
    script.push(format!("{} sh {}/inside", command("clone3", "unshare"), bed.folder().display()));
    for folder in folders.iter().rev() {
        script.push(format!("rmdir {folder}"));
    }
    let outcome = bed.finish(Command::new("sh").args(["-c", &script.join("\n")]));
    let expected = "by-hand\n/dev/null\n/proc/self/ns/uts\n1\n";
    assert!(
        outcome.stdout.starts_with("33554432\n") && outcome.stdout.ends_with(expected),
        "{outcome:?}\n{script:#?}"
    );
}

/// What differs from run to run, in the words of `docs/HOW_CONTAINERS_WORK.md`.
fn in_general(command: &str, bed: &TestBed, name: &str) -> String {
    let mut text = command
        .replace(&bed.rootfs().display().to_string(), "ROOTFS")
        .replace(&bed.root().display().to_string(), "STATE")
        .replace(name, "web");
    for (before, by) in [("/proc/", "PID"), ("-t ", "PID"), ("netns ", "PID"), ("add veth", "VETH")]
    {
        let Some(at) = text.find(before) else { continue };
        // The name of a veth is replaced whole.
        let start = if by == "VETH" { at + "add ".len() } else { at + before.len() };
        let end = text[start..].find([' ', '/']).map_or(text.len(), |length| start + length);
        if by == "VETH" || text[start..end].parse::<u32>().is_ok() {
            text.replace_range(start..end, by);
        }
    }
    text
}

#[test]
fn the_page_on_containers_shows_what_is_printed() {
    require!(Root, Sources, Program("busybox"), Program("nft"), MemoryController);
    let page = fs::read_to_string(binaries::repository().join("docs/HOW_CONTAINERS_WORK.md"));
    let page = page.expect("the page is there");
    let bed = TestBed::new();
    let name = bed.unique("web");
    let rootfs = bed.rootfs().display().to_string();
    let options =
        ["--memory", "64m", "--userns=100000:65536", "--net", "bridge", "--publish", "8080:80"];
    let words = ["run", "--rm", "--explain=json", "--name", &name].into_iter().chain(options);
    let outcome = bed.run(words.chain([&*rootfs, "--", "/bin/sh", "-c", "true"]));
    assert_eq!(outcome.code, 0, "{outcome:?}");
    let printed: Vec<String> = steps(&outcome.stderr)
        .iter()
        .filter_map(|step| step["command"].as_str())
        .map(|command| in_general(command, &bed, &name))
        .collect();
    // On other hosts other cgroup files are written.
    let has_v1 = std::path::Path::new("/sys/fs/cgroup/memory/tasks").exists();
    let mut shown = 0;
    for block in page.split("```explain\n").skip(1) {
        let block = block.split("```").next().unwrap_or_default();
        for command in block.lines().filter_map(|line| line.strip_prefix("$ ")) {
            shown += 1;
            if !has_v1 && command.contains("/sys/fs/cgroup") {
                continue;
            }
            assert!(printed.iter().any(|text| text == command), "{command} is not in {printed:#?}");
        }
    }
    assert!(shown > 15, "the page shows {shown} commands");
}
