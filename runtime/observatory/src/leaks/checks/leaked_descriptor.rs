//! `leaked-descriptor`: something of the host's is open inside.

use super::Check;
use crate::leaks::host::MountOwner;
use crate::leaks::process::{Kind, Open};
use crate::leaks::{Container, Evidence, Found, Host, Opening, Severity};
use std::collections::BTreeSet;
use std::path::Path;

pub const CHECK: Check = Check {
    id: "leaked-descriptor",
    severity: "high, critical for folders; info for a file that is a standard stream",
    seen: "an open descriptor, working folder or root that points outside the container's mount namespace; terminals, /dev/null, pipes, sockets and the log that terrarium keeps as standard streams excepted",
    why: "A descriptor of a folder of the host is a way out by `..`; one of a file is that file.",
    sources: &["CVE-2024-21626", "CVE-2016-9962", "proc_pid_fd(5)"],
    remedy: "close descriptors before the runtime is started (or open them with O_CLOEXEC), do not pass them on (--preserve-fds), and update the runtime",
    may_pass: true,
    judge,
};

/// How many descriptors of a process are looked at.
const DESCRIPTORS: usize = 4096;

fn judge(host: &Host, container: &Container, found: &mut Found<'_>) {
    if host.shares(container, Kind::Mnt) || !container.started {
        return;
    }
    // One in other namespaces is told of as such.
    let inside = |pid: &&i32| {
        let process = host.process(**pid);
        process.is_some_and(|p| p.namespace(Kind::Mnt) == container.namespace(Kind::Mnt))
    };
    let all: Vec<(i32, Vec<Open>)> = container
        .tasks
        .iter()
        .filter(inside)
        .map(|pid| (*pid, host.proc().descriptors(*pid, DESCRIPTORS)))
        .collect();
    // Shells keep copies of their standard streams at higher numbers, and children inherit them.
    let standard = |open: &&Open| matches!(open.name.as_str(), "fd/0" | "fd/1" | "fd/2");
    let streams: BTreeSet<(String, Option<u64>)> = all
        .iter()
        .flat_map(|(_, open)| open.iter().filter(standard))
        .map(|open| (open.target.clone(), open.mount))
        .collect();
    // Each thing is told of once, whoever has inherited it.
    let mut told = BTreeSet::new();
    let mut worst = None;
    let (mut texts, mut evidence) = (Vec::new(), Vec::new());
    for (pid, descriptors) in all {
        let links = ["cwd", "root"].iter().filter_map(|name| host.proc().open_link(pid, name));
        for open in descriptors.into_iter().chain(links) {
            let Some((place, whose)) = outside(host, container, &open) else { continue };
            // What execve would close was not passed on by it: a shell puts its stream aside so while it redirects.
            let aside = open.flags & libc::O_CLOEXEC.unsigned_abs() != 0;
            let stream = aside || streams.contains(&(open.target.clone(), open.mount));
            let folder = !open.name.starts_with("fd/") || is_folder(host, pid, &open);
            if stream && !folder && (is_passed_on(&open) || is_own_log(container, &open)) {
                continue;
            }
            if !told.insert((open.target.clone(), open.mount)) {
                continue;
            }
            let severity = match (folder, stream) {
                (true, _) => Severity::Critical,
                (false, true) => Severity::Info,
                (false, false) => Severity::High,
            };
            let name = host.process(pid).map_or("", |process| process.name.as_str());
            let text = format!("{} of process {pid} ({name}) is {} of {whose}", open.name, open.target);
            let proof = [
                Evidence::proc(format!("/proc/{pid}/{}", open.name), open.target.clone()),
                Evidence::proc(place, format!("mount {}", open.mount.unwrap_or_default())),
            ];
            // The worst first: it is what the finding is about.
            if Some(severity) > worst {
                worst = Some(severity);
                texts.insert(0, text);
                evidence.splice(0..0, proof);
            } else {
                texts.push(text);
                evidence.extend(proof);
            }
        }
    }
    let Some(severity) = worst else { return };
    found.add(
        severity,
        Opening {
            // What is only a stream may be joined by something worse at the next look.
            object: severity.name().to_owned(),
            declared: "nothing of the host open".to_owned(),
            observed: texts.join("; "),
            evidence,
            ..Opening::default()
        },
    );
}

/// Where the mount of `open` is, if it is the host's or another container's: where to look, and whose.
fn outside(host: &Host, container: &Container, open: &Open) -> Option<(String, String)> {
    let mount = open.mount?;
    // Pipes, sockets, memory: they lie on mounts of the kernel's own.
    if !open.target.starts_with('/') || open.target.starts_with("/memfd:") {
        return None;
    }
    if container.mounts.iter().any(|own| own.id == mount) {
        return None;
    }
    match host.owner_of_mount(mount)? {
        MountOwner::Host(_) => Some(("/proc/self/mountinfo".to_owned(), "the host".to_owned())),
        MountOwner::Container(at) => {
            let other = &host.containers[at];
            let same = other.namespace(Kind::Mnt) == container.namespace(Kind::Mnt);
            let place = format!("/proc/{}/mountinfo", other.init.pid);
            (!same).then(|| (place, other.name.name.clone()))
        }
    }
}

/// Whether a descriptor is a folder.
fn is_folder(host: &Host, pid: i32, open: &Open) -> bool {
    // Only what lies on a mount that can be read gets here: its filesystem answers.
    if host.proc().is_live() {
        return std::fs::metadata(host.proc().path(pid, &open.name)).is_ok_and(|info| info.is_dir());
    }
    // The bits of O_TMPFILE hold that of O_DIRECTORY.
    open.flags & libc::O_TMPFILE.unsigned_abs() == libc::O_DIRECTORY.unsigned_abs()
}

/// The file in which terrarium keeps what a detached container prints, in the container's own folder.
fn is_own_log(container: &Container, open: &Open) -> bool {
    let folder = open.target.strip_suffix("/container.log");
    container.name.runtime == "terrarium"
        && folder.is_some_and(|folder| Path::new(folder).ends_with(&container.name.id))
}

/// A terminal or /dev/null as a standard stream: whoever started the container gave it on purpose.
fn is_passed_on(open: &Open) -> bool {
    let target = open.target.as_str();
    ["/dev/null", "/dev/tty", "/dev/console"].contains(&target)
        || ["/dev/pts/", "/dev/tty"].iter().any(|prefix| target.starts_with(prefix))
        // A terminal of another instance of devpts.
        || target.strip_prefix('/').is_some_and(|rest| rest.bytes().all(|b| b.is_ascii_digit()))
}
