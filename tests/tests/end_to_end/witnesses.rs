//! What bpftrace, mountsnoop and oomkill see of a container is what terrarium tells of it, event for event.

use serde_json::Value;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use terrarium_tests::container::Running;
use terrarium_tests::witness::Witness;
use terrarium_tests::{Observatory, TestBed, events, eventually, kernel_state, require};

const ADMIN: [&str; 2] = ["--cap-add", "SYS_ADMIN"];

/// Prints a line for each event in the cgroup with the id `$1`; it begins with the time.
const SCRIPT: &str = r#"
tracepoint:sched:sched_process_fork /cgroup == $1/ { printf("%lld clone %d %d\n", nsecs, pid, args->child_pid); }
tracepoint:sched:sched_process_exec /cgroup == $1/ { printf("%lld exec %d %s\n", nsecs, pid, comm); }
tracepoint:sched:sched_process_exit /cgroup == $1 && pid == tid/ { printf("%lld exit %d\n", nsecs, pid); }
tracepoint:syscalls:sys_enter_unshare /cgroup == $1/ { @flags[tid] = args->unshare_flags; }
tracepoint:syscalls:sys_exit_unshare /cgroup == $1/
{ printf("%lld unshare %d %d %d\n", nsecs, pid, @flags[tid], args->ret); delete(@flags[tid]); }
tracepoint:syscalls:sys_enter_setns /cgroup == $1/ { @type[tid] = args->flags; }
tracepoint:syscalls:sys_exit_setns /cgroup == $1/
{ printf("%lld setns %d %d %d\n", nsecs, pid, @type[tid], args->ret); delete(@type[tid]); }
tracepoint:syscalls:sys_enter_mount /cgroup == $1/
{ @source[tid] = args->dev_name; @target[tid] = args->dir_name; @kind[tid] = args->type; @mount[tid] = args->flags; }
tracepoint:syscalls:sys_exit_mount /cgroup == $1/
{
  printf("%lld mount %d %s %s %s %d %d\n", nsecs, pid, str(@source[tid]), str(@target[tid]), str(@kind[tid]), @mount[tid], args->ret);
  delete(@source[tid]); delete(@target[tid]); delete(@kind[tid]); delete(@mount[tid]);
}
tracepoint:syscalls:sys_enter_umount /cgroup == $1/ { @name[tid] = args->name; @umount[tid] = args->flags; }
tracepoint:syscalls:sys_exit_umount /cgroup == $1/
{
  printf("%lld umount %d %s %d %d\n", nsecs, pid, str(@name[tid]), @umount[tid], args->ret);
  delete(@name[tid]); delete(@umount[tid]);
}
"#;

/// The result of a call as the kernel gives it, of the errors that the workload brings about.
fn result(event: &Value) -> i32 {
    match event["result"]["errno"].as_str() {
        None => 0,
        Some("EPERM") => -1,
        Some(other) => panic!("{other}: {event}"),
    }
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

/// An event as [`SCRIPT`] prints it, with its time; `None` for what the script does not see.
fn line(event: &Value) -> Option<(u64, String)> {
    let (process, result) = (&event["process"], result(event));
    let pid = &process["pid"];
    let line = match text(&event["type"]) {
        "process.clone" => format!("clone {} {pid}", process["caller"]["pid"]),
        "process.exec" => format!("exec {pid} {}", text(&process["comm"])),
        "process.exit" => format!("exit {pid}"),
        "namespace.create" => format!("unshare {pid} {} {result}", event["namespace"]["flags"]),
        "namespace.enter" => format!("setns {pid} {} {result}", event["namespace"]["flags"]),
        "mount.umount" => {
            let mount = &event["mount"];
            format!("umount {pid} {} {} {result}", text(&mount["target"]), mount["flags"])
        }
        "mount.mount" => {
            let mount = &event["mount"];
            let [source, target, fstype] =
                ["source", "target", "fstype"].map(|field| text(&mount[field]));
            format!("mount {pid} {source} {target} {fstype} {} {result}", mount["flags"])
        }
        _ => return None,
    };
    Some((event["mono_ns"].as_u64()?, line))
}

/// Lines in the order of their times, those of each kind for themselves: of two hooks that one step passes each observer may
/// stamp the second first.
fn in_order(mut lines: Vec<(u64, String)>) -> Vec<String> {
    let kind = |line: &str| line.split(' ').next().unwrap_or_default().to_owned();
    lines.sort_by_key(|(time, line)| (kind(line), *time));
    lines.into_iter().map(|(_, line)| line).collect()
}

/// The folder of a container's cgroup in the unified hierarchy.
fn unified(container: &Running<'_>) -> PathBuf {
    container.cgroup("unified").expect("it has one in the unified hierarchy")
}

/// An observatory that watches a container alone: it keeps so many events, and other tests make many.
fn watching(bed: &TestBed, container: &mut Running<'_>) -> Observatory {
    let mounts = kernel_state::cgroup_mounts();
    let mount = mounts.iter().find(|mount| mount.version == 2).expect("a container has one in it");
    let folder = unified(container);
    let path = folder.strip_prefix(&mount.path).expect("it lies there").display().to_string();
    let observatory = Observatory::start(bed, &["--watch", &format!("/{path}")]);
    container.call("fork 1");
    observatory.wait_for(container.name());
    observatory
}

/// Asserts that the witness has said the same, and else shows where it begins to differ.
#[track_caller]
fn same(ours: &[String], theirs: &[String]) {
    let differs = (0..ours.len().max(theirs.len())).find(|&n| ours.get(n) != theirs.get(n));
    if let Some(n) = differs {
        let part = |lines: &[String]| lines.iter().skip(n).take(5).cloned().collect::<Vec<_>>();
        let (ours_from, theirs_from) = (part(ours), part(theirs));
        panic!(
            "line {n} of {} and {}: terrarium {ours_from:#?}, the witness {theirs_from:#?}",
            ours.len(),
            theirs.len()
        );
    }
}

/// The events of the container called `name` that came after the first `known` of the stream.
fn since(observatory: &Observatory, name: &str, known: u64) -> Vec<Value> {
    let mut all = observatory.events();
    all.retain(|event| event["container"]["name"] == name && event["seq"].as_u64() > Some(known));
    all
}

fn last(observatory: &Observatory) -> u64 {
    observatory.events().last().and_then(|event| event["seq"].as_u64()).unwrap_or_default()
}

#[test]
fn bpftrace_sees_the_same_events_in_the_same_order() {
    require!(Root, CgroupV2, Btf, Program("busybox"), Program("bpftrace"));
    let bed = TestBed::new();
    let mut container = bed.container("seen").with(ADMIN).follow();
    let name = container.name().to_owned();
    let observatory = watching(&bed, &mut container);
    // The inode of a cgroup's folder is the kernel's id of it.
    let cgroup = fs::metadata(unified(&container)).expect("it is there").ino().to_string();
    let witness = Witness::start("bpftrace", &["-e", SCRIPT, &cgroup]);
    let known = last(&observatory);
    for instruction in ["fork 20", "exec 10", "unshare uts 15", "unshare ipc 5", "setns uts 8"] {
        container.call(instruction);
    }
    assert_eq!(container.call("mount 12")["succeeded"], 12);
    container.call("cap-sys-admin off");
    assert_eq!(container.call("mount 4")["failed"]["EPERM"], 4);
    container.call("fork 1");
    let said = witness.end();
    let lines = said.lines().filter_map(|line| {
        let (time, line) = line.split_once(' ')?;
        Some((time.parse().ok()?, line.to_owned()))
    });
    let theirs = in_order(lines.collect());
    let ours = || {
        let all = since(&observatory, &name, known);
        in_order(all.iter().filter_map(line).collect())
    };
    eventually("as much is told", || match ours().len() {
        enough if enough >= theirs.len() => Ok(()),
        found => Err(format!("{found} of {}", theirs.len())),
    });
    // 20 + 10 + 15 + 5 + 1 forks, and whatever setns starts.
    assert!(theirs.iter().filter(|line| line.starts_with("exit")).count() >= 51, "{theirs:#?}");
    same(&ours(), &theirs);
}

#[test]
fn mountsnoop_sees_the_same_mounts() {
    require!(Root, CgroupV2, Btf, Program("busybox"), Program("mountsnoop"));
    let bed = TestBed::new();
    let mut container = bed.container("seen").with(ADMIN).follow();
    let name = container.name().to_owned();
    let observatory = watching(&bed, &mut container);
    // Its buffer holds 29 events of a processor; more at once it loses.
    let pid = container.state()["pid"].to_string();
    let witness = Witness::start("mountsnoop", &["-p", &pid]);
    let known = last(&observatory);
    assert_eq!(container.call("mount 10")["succeeded"], 10);
    container.call("cap-sys-admin off");
    assert_eq!(container.call("mount 5")["failed"]["EPERM"], 5);

    let told = || -> Vec<String> {
        since(&observatory, &name, known)
            .iter()
            .filter_map(|event| {
                let (mount, pid) = (&event["mount"], &event["process"]["pid"]);
                let target = text(&mount["target"]);
                let call = match text(&event["type"]) {
                    "mount.mount" => {
                        let [source, fstype] =
                            ["source", "fstype"].map(|field| text(&mount[field]));
                        format!("mount(\"{source}\", \"{target}\", \"{fstype}\", 0x0, \"\")")
                    }
                    "mount.umount" => format!("umount(\"{target}\", 0x0)"),
                    _ => return None,
                };
                let result = if result(event) == 0 { "0" } else { "-EPERM" };
                Some(format!("{pid} {call} = {result}"))
            })
            .collect()
    };
    eventually("each is told", || match told().len() {
        25 => Ok(()),
        found => Err(format!("found {found}")),
    });
    let said = witness.end();
    let theirs: Vec<String> = said
        .lines()
        .skip(1)
        .filter_map(|line| {
            // COMM PID TID MNT_NS CALL
            let words: Vec<_> = line.split_whitespace().collect();
            Some(format!("{} {}", words.get(1)?, words.get(4..)?.join(" ")))
        })
        .collect();
    same(&told(), &theirs);
}

#[test]
fn oomkill_names_the_same_victims() {
    require!(
        Root,
        CgroupV2,
        MemoryController,
        Btf,
        Kprobes,
        Program("busybox"),
        Program("oomkill")
    );
    let bed = TestBed::new();
    let mut container = bed.container("full").with(["--memory", "32M"]).follow();
    let name = container.name().to_owned();
    let observatory = watching(&bed, &mut container);
    let witness = Witness::start("oomkill", &[]);
    let holder = container.call("hold 20000000")["pid"].clone();
    container.call("touch-in-child 20000000");
    assert_eq!(container.call(&format!("wake {holder}"))["code"], 137);

    let told = || {
        let all = observatory.events();
        let pid = |value: &Value| value.as_u64().expect("a process id is a number");
        events::of(&all, &name, "memory.oom")
            .iter()
            .map(|event| (pid(&event["memory"]["trigger_pid"]), pid(&event["process"]["pid"])))
            .collect::<Vec<_>>()
    };
    eventually("it is told", || if told().is_empty() { Err(String::new()) } else { Ok(()) });
    let said = witness.end();
    for (trigger, victim) in told() {
        let (by, of) =
            (format!("Triggered by PID {trigger} ("), format!("OOM kill of PID {victim} ("));
        let lines = said.lines().filter(|line| line.contains(&by) && line.contains(&of)).count();
        assert_eq!(lines, 1, "{by}{of}: {said}");
    }
}
