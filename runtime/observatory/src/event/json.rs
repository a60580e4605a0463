//! Events as `terrarium.event/v1`: one flat JSON object a line, see docs/EVENTS.md.

use crate::attribution::{Attribution, Outcome};
use crate::event::decode::{Record, text};
use crate::event::history::Event;
use crate::event::{flag_names, guard};
use crate::leaks::events::{Actor, Role};
use serde_json::{Map, Value, json};
use terrarium_abi::header::flags;
use terrarium_abi::memory::{LEVEL_GLOBAL, LEVEL_UNKNOWN, LIMIT_HIGH};
use terrarium_abi::namespace::{CLONE_NEWTIME, CLONE_NS_FLAGS};
use terrarium_abi::{Exec, Exit, ExitCause, Header, NewTask, NsChange, NsKind, Via};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

/// The schema's name.
pub const SCHEMA: &str = "terrarium.event/v1";

/// What is the same for all events of a host.
#[derive(Debug, Clone)]
pub struct Context {
    /// The host's name.
    pub host: String,
    /// Begins the key of every process: a part of the boot's random id.
    pub boot: String,
    /// Bytes of a page.
    pub page_bytes: u64,
    /// Inodes of the initial namespaces, by kind; 0 when unknown.
    pub initial_namespaces: [u32; 8],
}

impl Context {
    /// Reads it from the kernel.
    pub fn read(initial_namespaces: [u32; 8]) -> Self {
        let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default().trim().to_owned();
        let boot = read("/proc/sys/kernel/random/boot_id");
        let page_bytes = nix::unistd::sysconf(nix::unistd::SysconfVar::PAGE_SIZE)
            .ok()
            .flatten()
            .and_then(|size| u64::try_from(size).ok())
            .unwrap_or(4096);
        Self {
            host: read("/proc/sys/kernel/hostname"),
            boot: boot.chars().take(8).collect(),
            page_bytes,
            initial_namespaces,
        }
    }
}

/// Nanoseconds between the epoch and the start of `CLOCK_MONOTONIC`, now: the wall clock can be set, so this is asked
/// for each time events are written.
pub fn wall_offset() -> i128 {
    use nix::time::{ClockId, clock_gettime};
    let ns = |clock| {
        clock_gettime(clock)
            .map_or(0, |t| i128::from(t.tv_sec()) * 1_000_000_000 + i128::from(t.tv_nsec()))
    };
    ns(ClockId::CLOCK_REALTIME) - ns(ClockId::CLOCK_MONOTONIC)
}

/// One event as a line, without the newline. `seq` is its number in the stream that it is written to, and `missed`
/// what the stream lost before it besides what the kernel side lost.
pub fn line(event: &Event, context: &Context, seq: u64, missed: u64, wall_offset: i128) -> String {
    let header = event.record.header();
    let mut object = Map::new();
    object.insert("schema".to_owned(), json!(SCHEMA));
    object.insert("seq".to_owned(), json!(seq));
    object.insert("time".to_owned(), json!(wall_time(header.mono_ns, wall_offset)));
    object.insert("mono_ns".to_owned(), json!(header.mono_ns));
    object.insert("type".to_owned(), json!(event_type(event)));
    object.insert("severity".to_owned(), json!(severity(&event.record)));
    object.insert("host".to_owned(), json!(context.host));
    object.insert("cgroup".to_owned(), cgroup(event));
    object.insert("container".to_owned(), container(&event.attribution));
    let foreign = matches!(
        &*event.record,
        Record::CgroupMkdir(record) | Record::CgroupRmdir(record)
            if ![header.cgroup_id, header.memory_cgroup_id].contains(&record.id)
    );
    let mut process = process(header, context, &event.actor, foreign);
    payload(event, context, &mut object, &mut process);
    if !matches!(&*event.record, Record::Notice(notice) if !notice.has_process()) {
        object.insert("process".to_owned(), Value::Object(process));
    }
    if header.flags & flags::TRUNCATED != 0 {
        object.insert("truncated".to_owned(), json!(true));
    }
    if header.flags & flags::UNREADABLE != 0 {
        object.insert("unreadable".to_owned(), json!(true));
    }
    object.insert("lost_before".to_owned(), json!(event.lost_before + missed));
    Value::Object(object).to_string()
}

fn wall_time(mono_ns: u64, wall_offset: i128) -> String {
    OffsetDateTime::from_unix_timestamp_nanos(i128::from(mono_ns) + wall_offset)
        .ok()
        .and_then(|time| time.format(&Rfc3339).ok())
        .unwrap_or_default()
}

/// The event's type: `domain.action`.
pub fn event_type(event: &Event) -> String {
    match &*event.record {
        Record::NewTask(_) if event.namespace.is_some() => "namespace.create".to_owned(),
        Record::NewTask(_) | Record::CloneFailed(_) => "process.clone".to_owned(),
        Record::Exec(_) => "process.exec".to_owned(),
        Record::Exit(_) => "process.exit".to_owned(),
        Record::NsChange(change) if change.via == Via::Unshare as u32 => {
            "namespace.create".to_owned()
        }
        Record::NsChange(_) => "namespace.enter".to_owned(),
        Record::Mount(mount) => format!("mount.{}", super::mount::op_name(mount.op)),
        Record::Reclaim(_) => "memory.limit".to_owned(),
        Record::Oom(_) => "memory.oom".to_owned(),
        Record::CgroupMkdir(_) => "cgroup.create".to_owned(),
        Record::CgroupRmdir(_) => "cgroup.remove".to_owned(),
        Record::CgroupAttach(_) => "cgroup.attach".to_owned(),
        Record::Guard(guard) => format!("guard.{}", guard::event_name(guard)),
        Record::Notice(notice) => notice.event_type(),
    }
}

fn severity(record: &Record) -> &'static str {
    match record {
        Record::Oom(_) => "warning",
        Record::Notice(notice) => notice.severity(),
        _ => "info",
    }
}

fn cgroup(event: &Event) -> Value {
    let (id, path) = match &*event.record {
        Record::CgroupMkdir(record) | Record::CgroupRmdir(record) => {
            (record.id, text(&record.path).into_owned())
        }
        _ => (event.attribution.cgroup_id, event.attribution.path.to_string()),
    };
    json!({"id": id, "path": path})
}

fn container(attribution: &Attribution) -> Value {
    match &attribution.container {
        Some(container) => json!({
            "id": container.id,
            "name": container.name,
            "image": container.image,
            "runtime": container.runtime,
            "generation": container.generation,
            "attribution": attribution.outcome.name(),
        }),
        None => json!({
            "id": "",
            "name": if attribution.outcome == Outcome::Unknown { "unknown" } else { "host" },
            "attribution": attribution.outcome.name(),
        }),
    }
}

/// `foreign` says that the task is not in the cgroup that the event is about.
fn process(header: &Header, context: &Context, actor: &Actor, foreign: bool) -> Map<String, Value> {
    let mut process = Map::new();
    let key = format!("{}-{}-{}", context.boot, header.start_ns, header.pid);
    process.insert("key".to_owned(), json!(key));
    process.insert("pid".to_owned(), json!(header.pid));
    process.insert("tid".to_owned(), json!(header.tid));
    process.insert("ns_pid".to_owned(), json!(header.ns_pid));
    process.insert("ppid".to_owned(), json!(header.ppid));
    process.insert("uid".to_owned(), json!(header.uid));
    process.insert("comm".to_owned(), json!(text(&header.comm)));
    let role = if foreign { Role::Foreign } else { actor.role };
    process.insert("role".to_owned(), json!(role.name()));
    if let Some(exe) = &actor.exe {
        process.insert("exe".to_owned(), json!(**exe));
    }
    process
}

/// Adds what only this kind of event has.
fn payload(
    event: &Event,
    context: &Context,
    object: &mut Map<String, Value>,
    process: &mut Map<String, Value>,
) {
    match &*event.record {
        Record::Notice(notice) => notice.payload(object),
        Record::NewTask(task) => new_task(task, event.namespace, object, process),
        Record::CloneFailed(failed) => {
            clone_flags(failed.flags, process);
            object.insert("result".to_owned(), result(failed.result));
        }
        Record::Exec(exec) => {
            process.insert("exe".to_owned(), json!(text(&exec.filename)));
            arguments(exec, process);
            object.insert("result".to_owned(), result(0));
        }
        Record::Exit(exit) => {
            self::exit(exit, process);
            object.insert("duration_ns".to_owned(), json!(exit.ran_ns));
        }
        Record::NsChange(change) => {
            object.insert("namespace".to_owned(), namespace(change, event.namespace, context));
            object.insert("result".to_owned(), result(change.result));
            object.insert("duration_ns".to_owned(), json!(change.duration_ns));
        }
        Record::Mount(mount) => {
            object.insert("mount".to_owned(), super::mount::payload(mount));
            object.insert("result".to_owned(), result(mount.result));
            object.insert("duration_ns".to_owned(), json!(mount.duration_ns));
        }
        Record::Reclaim(reclaim) => {
            object.insert(
                "memory".to_owned(),
                json!({
                    "reclaimed_bytes": reclaim.reclaimed_pages * context.page_bytes,
                    "scope": scope(reclaim.level),
                    "limit": if reclaim.limit == LIMIT_HIGH { "high" } else { "max" },
                    "limit_cgroup_id": id(reclaim.limit_cgroup_id),
                    "limit_bytes": pages(reclaim.limit_pages, context),
                    "usage_bytes": pages(reclaim.usage_pages, context),
                }),
            );
            object.insert("duration_ns".to_owned(), json!(reclaim.duration_ns));
        }
        Record::Oom(oom) => {
            object.insert(
                "memory".to_owned(),
                json!({
                    "scope": scope(oom.level),
                    "limit_cgroup_id": id(oom.limit_cgroup_id),
                    "limit_bytes": pages(oom.limit_pages, context),
                    "usage_bytes": pages(oom.usage_pages, context),
                    "trigger_pid": oom.trigger_pid,
                    "victim_rss_bytes": match oom.victim_pages {
                        0 => Value::Null,
                        pages => json!(pages * context.page_bytes),
                    },
                }),
            );
        }
        Record::CgroupMkdir(record) | Record::CgroupRmdir(record) => {
            if let Some(Value::Object(cgroup)) = object.get_mut("cgroup") {
                cgroup.insert("hierarchy".to_owned(), json!(hierarchy(record.hierarchy)));
            }
        }
        Record::CgroupAttach(record) => {
            object.insert(
                "target".to_owned(),
                json!({"cgroup": {"id": record.id, "path": text(&record.path),
                       "hierarchy": hierarchy(record.hierarchy)}}),
            );
            object.insert("mover".to_owned(), json!({"pid": record.mover_pid}));
        }
        Record::Guard(record) => {
            object.insert("guard".to_owned(), guard::payload(record));
            if let Some(mut target) = guard::target(record) {
                if let Some(theirs) = &event.target {
                    target["container"] = container(theirs);
                }
                object.insert("target".to_owned(), target);
            }
            object.insert("result".to_owned(), result(record.result));
            object.insert("duration_ns".to_owned(), json!(record.duration_ns));
        }
    }
}

fn new_task(
    task: &NewTask,
    namespace: Option<NsKind>,
    object: &mut Map<String, Value>,
    process: &mut Map<String, Value>,
) {
    if let Some(kind) = namespace {
        let (from, to) = (inode(task.from[kind as usize]), inode(task.to[kind as usize]));
        let made = json!({"kind": kind.name(), "via": "clone", "from": from, "to": to});
        object.insert("namespace".to_owned(), made);
    } else {
        clone_flags(task.flags, process);
        let thread = task.flags & 0x0001_0000 != 0;
        process.insert("kind".to_owned(), json!(if thread { "thread" } else { "process" }));
        process.insert(
            "caller".to_owned(),
            json!({"pid": task.caller_pid, "tid": task.caller_tid,
                   "cgroup_id": task.caller_cgroup_id}),
        );
    }
    object.insert("result".to_owned(), result(0));
}

/// The arguments, where the observatory was asked to tell them.
fn arguments(exec: &Exec, process: &mut Map<String, Value>) {
    let total = usize::try_from(exec.argv_total).unwrap_or(usize::MAX);
    if total == 0 {
        return;
    }
    let told = &exec.argv[..total.min(exec.argv.len())];
    let told = told.strip_suffix(&[0]).unwrap_or(told);
    let list: Vec<_> = told.split(|byte| *byte == 0).map(String::from_utf8_lossy).collect();
    process.insert("argv".to_owned(), json!(list));
    process.insert("argv_truncated".to_owned(), json!(total > exec.argv.len()));
}

fn exit(exit: &Exit, process: &mut Map<String, Value>) {
    let signal = exit.status & 0x7f;
    let by_signal = signal != 0;
    let cause = match exit.cause {
        cause if cause == ExitCause::Oom as u32 => "oom",
        cause if cause == ExitCause::Signal as u32 => "signal",
        _ => "exit",
    };
    process.insert("cause".to_owned(), json!(cause));
    let code = (!by_signal).then_some(exit.status >> 8 & 0xff);
    process.insert("exit_code".to_owned(), json!(code));
    process.insert("signal".to_owned(), json!(by_signal.then_some(signal)));
}

fn result(result: i32) -> Value {
    json!({"ok": result >= 0, "errno": flag_names::errno(result)})
}

fn inode(number: u32) -> Value {
    if number == 0 { Value::Null } else { json!(number) }
}

fn id(id: u64) -> Value {
    if id == 0 { Value::Null } else { json!(id) }
}

fn pages(pages: u64, context: &Context) -> Value {
    pages.checked_mul(context.page_bytes).map_or(Value::Null, |bytes| json!(bytes))
}

fn hierarchy(number: u32) -> &'static str {
    if number == 0 { "unified" } else { "memory" }
}

/// Whose limit it was, as seen from the task's own cgroup.
fn scope(level: u32) -> &'static str {
    match u8::try_from(level) {
        Ok(0) => "self",
        Ok(LEVEL_GLOBAL) => "global",
        Ok(LEVEL_UNKNOWN) | Err(_) => "unknown",
        Ok(_) => "ancestor",
    }
}

fn clone_flags(flags: u64, process: &mut Map<String, Value>) {
    process.insert("flags".to_owned(), json!(flags));
    process.insert("flag_names".to_owned(), json!(flag_names::names(flags, flag_names::CLONE)));
}

fn namespace(change: &NsChange, kind: Option<NsKind>, context: &Context) -> Value {
    let via = if change.via == Via::Unshare as u32 { "unshare" } else { "setns" };
    let mut names = flag_names::names(change.flags & CLONE_NS_FLAGS, flag_names::CLONE);
    if change.flags & CLONE_NEWTIME != 0 {
        names.push(flag_names::NEWTIME.1);
    }
    let mut namespace = Map::new();
    namespace.insert("kind".to_owned(), json!(kind.map_or("unknown", NsKind::name)));
    namespace.insert("via".to_owned(), json!(via));
    let (from, to) =
        kind.map_or((0, 0), |kind| (change.from[kind as usize], change.to[kind as usize]));
    namespace.insert("from".to_owned(), inode(from));
    namespace.insert("to".to_owned(), inode(to));
    if change.via == Via::Setns as u32 {
        let initial = kind.map_or(0, |kind| context.initial_namespaces[kind as usize]);
        let target = match to {
            0 => "unknown",
            to if to == from => "own",
            to if to == initial => "host",
            _ => "unknown",
        };
        namespace.insert("target".to_owned(), json!(target));
        namespace.insert("fd".to_owned(), json!(change.fd));
    }
    namespace.insert("flags".to_owned(), json!(change.flags));
    namespace.insert("flag_names".to_owned(), json!(names));
    Value::Object(namespace)
}
