//! Bad input: one line that says what to do, the right exit code, and nothing left.

use std::os::unix::process::CommandExt;
use terrarium_tests::bundle::Bundle;
use terrarium_tests::{Outcome, TestBed, binaries, process, require};

/// Asserts that the program's last word is one line, that it contains each of `words`, and the exit code.
#[track_caller]
fn told(bed: &TestBed, outcome: &Outcome, code: i32, words: &[&str]) {
    let text = outcome.stderr.trim_end();
    assert_eq!(outcome.code, code, "{outcome:?}");
    assert!(!text.contains("panicked"), "{text}");
    assert!(!text.contains("RUST_BACKTRACE"), "{text}");
    assert_eq!(text.lines().count(), 1, "one line: {text}");
    assert!(text.starts_with("terrarium: "), "{text}");
    for word in words {
        assert!(text.contains(word), "{word:?} is not in: {text}");
    }
    assert_eq!(outcome.stdout, "");
    bed.assert_nothing_left();
}

#[test]
fn a_missing_root_filesystem_is_named() {
    require!(Root, Program("busybox"));
    let bed = TestBed::new();
    let outcome = bed.container("lost").rootfs("/no/such/folder").run(["true"]);
    told(&bed, &outcome, 125, &["/no/such/folder"]);
}

#[test]
fn a_root_filesystem_that_is_a_file_is_refused() {
    require!(Root, Program("busybox"));
    let bed = TestBed::new();
    let file = bed.rootfs().join("etc/passwd");
    let outcome = bed.container("file").rootfs(&file).run(["true"]);
    told(&bed, &outcome, 125, &["etc/passwd"]);
}

#[test]
fn an_unknown_program_is_named_and_gives_127() {
    require!(Root, Program("busybox"), Program("ip"), Program("nft"));
    let bed = TestBed::new();
    let outcome = bed.container("unknown").with(["--net", "bridge"]).run(["no-such-program"]);
    told(&bed, &outcome, 127, &["no-such-program"]);
}

#[test]
fn a_program_that_cannot_be_executed_is_named_and_gives_126() {
    require!(Root, Program("busybox"));
    let bed = TestBed::new();
    let outcome = bed.container("text").run(["/bin/not-executable"]);
    told(&bed, &outcome, 126, &["/bin/not-executable"]);
}

#[test]
fn bad_values_are_refused_before_anything_is_made() {
    require!(Root, Program("busybox"));
    let bed = TestBed::new();
    for (option, value) in [
        ("--memory", "much"),
        ("--memory", "-1"),
        ("--memory", "32q"),
        ("--memory", "99999999999999999999g"),
        ("--cpus", "none"),
        ("--cpus", "0"),
        ("--cpus", "-2"),
        ("--pids", "few"),
        ("--label", "=nothing"),
    ] {
        let outcome = bed.container("limit").with([format!("{option}={value}")]).run(["true"]);
        told(&bed, &outcome, 2, &[option, value]);
        bed.assert_nothing_left();
    }
}

#[test]
fn a_limit_too_small_to_run_in_gives_an_error_and_leaves_nothing() {
    require!(Root, MemoryController, Program("busybox"));
    let bed = TestBed::new();
    let outcome = bed.container("small").with(["--memory", "4k"]).run(["true"]);
    assert_ne!(outcome.code, 0, "{outcome:?}");
    assert!(!outcome.stderr.contains("panicked"), "{}", outcome.stderr);
    assert!(!outcome.stderr.is_empty());
    bed.assert_nothing_left();
}

#[test]
fn a_name_in_use_is_refused_and_its_owner_is_not_hurt() {
    require!(Root, Program("busybox"), Program("ip"), Program("nft"));
    let bed = TestBed::new();
    let mut owner = bed.container("taken").with(["--net", "bridge"]).follow();
    let before = bed.leftovers();
    let outcome = bed.container("taken").with(["--net", "bridge"]).run(["true"]);
    assert_eq!(outcome.code, 125, "{outcome:?}");
    assert_eq!(outcome.stderr.lines().count(), 1, "{}", outcome.stderr);
    assert!(outcome.stderr.contains(owner.name()), "{}", outcome.stderr);
    assert_eq!(bed.leftovers().lines().count(), before.lines().count());
    owner.call("fork 2");
    assert_eq!(owner.finish().code, 0);
}

#[test]
fn names_that_could_lead_out_of_the_state_folder_are_refused() {
    require!(Root, Program("busybox"));
    let bed = TestBed::new();
    let rootfs = bed.rootfs();
    let rootfs = rootfs.to_str().expect("the path is text");
    for name in ["../out", "a/b", "", ".", "..", "a b", "a\nb"] {
        let outcome = bed.run(["run", "--rm", "--name", name, rootfs, "--", "true"]);
        assert!(matches!(outcome.code, 2 | 125), "{name:?}: {outcome:?}");
        assert!(!outcome.stderr.contains("panicked"), "{}", outcome.stderr);
        bed.assert_nothing_left();
    }
}

#[test]
fn an_unknown_network_is_refused() {
    require!(Root, Program("busybox"));
    let bed = TestBed::new();
    let outcome = bed.container("net").with(["--net", "carrier-pigeon"]).run(["true"]);
    assert!(matches!(outcome.code, 2 | 125), "{outcome:?}");
    assert!(outcome.stderr.contains("carrier-pigeon"), "{}", outcome.stderr);
    assert!(outcome.stderr.contains("bridge"), "says what there is: {}", outcome.stderr);
    bed.assert_nothing_left();
}

#[test]
fn a_container_that_is_not_there_is_named() {
    require!(Root);
    let bed = TestBed::new();
    for command in ["kill", "delete"] {
        let outcome = bed.run([command, "nobody-home"]);
        told(&bed, &outcome, 1, &["nobody-home", "does not exist"]);
    }
}

#[test]
fn wrong_usage_gives_2() {
    let run = |arguments: &[&str]| {
        process::run(std::process::Command::new(binaries::terrarium()).args(arguments))
    };
    for arguments in [
        &["no-such-command"][..],
        &["run"],
        &["run", "--no-such-option", "/", "--", "true"],
        &["kill"],
        &["kill", "web", "NOSUCHSIGNAL"],
        &["checkpoint", "--help"],
        &["observe", "--listen", "nonsense"],
        &[],
    ] {
        let outcome = run(arguments);
        assert_eq!(outcome.code, 2, "{arguments:?}: {outcome:?}");
        assert!(!outcome.stderr.contains("panicked"), "{}", outcome.stderr);
        // Nothing at all asks for the help, which is long.
        let lines = outcome.stderr.lines().count();
        assert!(
            lines == 1 || arguments.is_empty() && lines > 1,
            "{arguments:?}: {}",
            outcome.stderr
        );
    }
    assert!(run(&["restore", "web"]).stderr.contains("CRIU"));
    assert_eq!(run(&["--help"]).code, 0);
    assert_eq!(run(&["--version"]).code, 0);
}

/// `docs/EXIT_CODES.md`: of a container that is not there, and of an option that does not exist.
#[test]
fn exit_codes_are_those_of_the_page() {
    require!(Root, Sources);
    let bed = TestBed::new();
    let page = std::fs::read_to_string(binaries::repository().join("docs/EXIT_CODES.md"));
    let page = page.expect("the page is there");
    let rows = page.lines().filter(|line| line.starts_with("| `"));
    let first_cells = rows.map(|row| row.split('|').nth(1).unwrap_or_default());
    let names: Vec<&str> = first_cells
        .flat_map(|cell| cell.split('`').skip(1).step_by(2))
        .filter(|name| !name.contains('-') && name.split(' ').count() == 1)
        .collect();
    let missing: &[(&str, &[&str])] = &[
        ("exec", &["nosuch", "true"]),
        ("leaks", &["nosuch"]),
        ("diff", &["nosuch", "nosuch"]),
        ("delete", &["nosuch"]),
        ("stop", &["nosuch"]),
        ("kill", &["nosuch"]),
        ("pause", &["nosuch"]),
        ("resume", &["nosuch"]),
        ("update", &["--memory", "64m", "nosuch"]),
        ("rename", &["nosuch", "other"]),
        ("wait", &["nosuch"]),
        ("cp", &["nosuch:/x", "."]),
        ("ps", &["nosuch"]),
        ("state", &["nosuch"]),
        ("inspect", &["nosuch"]),
        ("logs", &["nosuch"]),
        ("stats", &["nosuch"]),
        ("port", &["nosuch"]),
        ("image", &["inspect", "nosuch"]),
        ("network", &["inspect", "nosuch"]),
        ("create", &["--bundle", "/nosuch", "x"]),
        ("start", &["nosuch"]),
        ("restart", &["nosuch"]),
    ];
    for (name, arguments) in missing {
        assert!(names.contains(name), "{name} is not on the page: {names:?}");
        let outcome = bed.run([*name].iter().chain(*arguments));
        assert_eq!(outcome.code, 1, "{name}: {outcome:?}");
        assert!(outcome.stderr.starts_with("terrarium: "), "{name}: {outcome:?}");
        assert_eq!(outcome.stderr.lines().count(), 1, "{name}: {outcome:?}");
    }
    for name in names {
        let outcome = bed.run([name, "--no-such-option"]);
        assert_eq!(outcome.code, 2, "{name}: {outcome:?}");
    }
}

/// `terrarium-runtime` leaves what it does not know to the program beside it, and says so where there is none.
#[test]
fn the_program_for_engines_leaves_the_rest_to_the_whole_one() {
    let bed = TestBed::new();
    let whole = bed.run(["--version"]).success();
    assert_eq!(bed.finish(bed.runtime().arg("--version")).success(), whole);
    let outcome = bed.finish(bed.runtime().args(["state", "--no-such", "x"]));
    assert_eq!(outcome.code, 2, "{outcome:?}");
    // By a link, and found in PATH.
    let link = bed.folder().join("terrarium-runtime");
    std::os::unix::fs::symlink(binaries::runtime(), &link).expect("the test's folder is writable");
    let by_link = bed.finish(std::process::Command::new(&link).arg("--version"));
    assert_eq!(by_link.success(), whole);
    std::fs::remove_file(&link).expect("it is there");
    // A copy of its own, without the other one.
    std::fs::copy(binaries::runtime(), &link).expect("the test's folder is writable");
    let alone = |arguments: &[&str], path: &std::path::Path| {
        let mut command = std::process::Command::new("terrarium-runtime");
        let folders = std::env::join_paths([bed.folder(), path]).expect("no colons");
        bed.finish(command.args(arguments).env("PATH", folders))
    };
    let outcome = alone(&["ps"], std::path::Path::new("/no/such"));
    assert_eq!(outcome.code, 1, "{outcome:?}");
    assert!(outcome.stderr.contains("find the program terrarium"), "{outcome:?}");
    let folder = binaries::terrarium().parent().expect("it lies in a folder");
    assert_eq!(alone(&["--version"], folder).success(), whole);
    // Its own commands need no other.
    let root = bed.root().display().to_string();
    let outcome = alone(&["--root", &root, "state", "x"], std::path::Path::new("/no/such"));
    assert_eq!(outcome.code, 1, "{outcome:?}");
    assert!(!outcome.stderr.contains("find the program"), "{outcome:?}");
}

/// Whoever calls it without standard descriptors: none of its own files gets their numbers, nor of the container's program.
#[test]
fn standard_descriptors_that_are_closed_are_nobody_elses() {
    require!(Root, Program("busybox"));
    let bed = TestBed::new();
    let looks = "for n in 0 1 2; do test -c /proc/self/fd/$n || exit 3$n; done";
    let bundle = Bundle::new(&bed, "closed", &["sh", "-c", looks]);
    for program in [binaries::runtime(), binaries::terrarium()] {
        let mut command = std::process::Command::new("sh");
        command.args(["-c", "exec \"$0\" \"$@\" <&- >&- 2>&-"]).arg(program);
        command.arg("--root").arg(bed.root()).args(["run", "--bundle"]);
        let outcome = bed.finish(command.arg(bundle.folder()).arg(bundle.id()));
        assert_eq!(outcome.code, 0, "{}: {outcome:?}", program.display());
    }
    // A reader that has gone is not the end by a signal (141): nobody wants the rest.
    bundle.change(|spec| spec["process"]["args"] = serde_json::json!(["sleep", "1000"]));
    bundle.create(&[]).success();
    let mut command = std::process::Command::new("sh");
    let into_nothing = "exec 3>&1; { sleep 0.2; \"$0\" \"$@\"; echo $? >&3; } | true";
    command.args(["-c", into_nothing]).arg(binaries::runtime());
    let outcome = bed.finish(command.arg("--root").arg(bed.root()).args(["state", bundle.id()]));
    assert_eq!(outcome.stdout.trim(), "0", "{outcome:?}");
}

/// What an unprivileged user gets when they type `arguments`.
fn as_nobody(bed: &TestBed, arguments: &[&str]) -> Outcome {
    // A copy that nobody may execute wherever the repository lies, and a state folder that is theirs.
    let folder = bed.folder();
    let binary = folder.join("terrarium");
    std::fs::copy(binaries::terrarium(), &binary).expect("the test's folder is writable");
    let root = folder.join("nobody");
    std::fs::create_dir_all(&root).expect("the test's folder is writable");
    std::os::unix::fs::chown(&root, Some(NOBODY), Some(NOBODY)).expect("root may give away");
    let public = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    std::fs::set_permissions(folder, public).expect("the test's folder is ours");
    let mut command = std::process::Command::new(binary);
    command.arg("--root").arg(root).args(arguments).uid(NOBODY).gid(NOBODY).current_dir("/");
    bed.finish(&mut command)
}

/// The uid and gid of nobody on every Linux.
const NOBODY: u32 = 65534;

#[test]
fn without_the_rights_each_command_says_which_are_missing() {
    require!(Root, Program("busybox"));
    let bed = TestBed::new();
    let rootfs = bed.rootfs();
    let rootfs = rootfs.to_str().expect("the path is text");
    let outcome = as_nobody(&bed, &["run", "--rm", "--net", "bridge", rootfs, "--", "true"]);
    told(&bed, &outcome, 125, &["root"]);
    let outcome = as_nobody(&bed, &["observe", "--listen", "127.0.0.1:0"]);
    told(&bed, &outcome, 1, &["CAP_BPF", "run as root"]);
}

#[test]
fn a_port_in_use_is_named_and_the_observatory_ends() {
    require!(Root, Btf);
    let bed = TestBed::new();
    let taken = std::net::TcpListener::bind("127.0.0.1:0").expect("a port is free");
    let address = taken.local_addr().expect("it is bound").to_string();
    // Not in the bed's network namespace: its loopback is another.
    let outcome = process::run(bed.terrarium().args(["observe", "--listen", &address]));
    told(&bed, &outcome, 1, &[&address]);
}

#[test]
fn in_a_chroot_whose_root_is_no_mount_the_way_out_is_told() {
    require!(Root, Program("busybox"), UtilLinux);
    let bed = TestBed::new();
    let root = bed.folder().join("changed");
    std::fs::create_dir(&root).expect("the test's folder is writable");
    // What the program needs of this machine, in a folder that is not mounted itself, in a mount namespace of its own.
    let script = format!(
        "mount --make-rprivate /
         for d in bin lib lib64 usr proc sys dev {0}; do
           [ -e /$d ] || continue
           mkdir -p {1}/$d; mount --rbind /$d {1}/$d
         done
         exec chroot {1} \"$@\"",
        bed.folder().parent().expect("it lies in a folder").display(),
        root.display(),
    );
    let binary = bed.folder().join("terrarium");
    std::fs::copy(binaries::terrarium(), &binary).expect("the test's folder is writable");
    let mut command = std::process::Command::new("unshare");
    command.args(["--mount", "sh", "-ec", &script, "sh"]).arg(binary);
    command.arg("--root").arg(bed.root()).args(["run", "--rm", "--net", "none"]);
    let outcome = bed.finish(command.arg(bed.rootfs()).args(["--", "true"]));
    told(
        &bed,
        &outcome,
        125,
        &["/ is no mount, as in a chroot: mount --bind the folder onto itself"],
    );
}
