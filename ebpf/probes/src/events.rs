//! The ring buffer of records.

use crate::counters;
use crate::kernel::{Access, CgroupIds, Cgroups, Probed, Ptr, config};
use crate::watch;
use aya_ebpf::bindings::{BPF_RB_FORCE_WAKEUP, BPF_RB_NO_WAKEUP};
use aya_ebpf::helpers::generated::{
    bpf_get_smp_processor_id, bpf_ktime_get_boot_ns, bpf_ktime_get_ns,
};
use aya_ebpf::macros::map;
use aya_ebpf::maps::{Array, LruHashMap, RingBuf, ring_buf::RingBufEntry};
use terrarium_abi::{Header, Loss, Probe, RecordType};

/// The records. The loader sets the size.
#[map]
static EVENTS: RingBuf = RingBuf::with_byte_size(4 * 1024 * 1024, 0);

/// One `u32`: 1 while the reader sleeps and wants a wake-up.
///
/// Waking the reader costs 3 to 13 µs, more than all the rest, so it happens once a burst: the first record
/// after the reader armed this wakes it; then it reads at its own pace until nothing is left, and arms it again.
#[map]
static ARMED: Array<u32> = Array::with_max_entries(1, 0);

/// Nanoseconds of `CLOCK_MONOTONIC`.
#[inline(always)]
pub fn now() -> u64 {
    // SAFETY: the helper has no precondition.
    unsafe { bpf_ktime_get_ns() }
}

/// Nanoseconds of `CLOCK_BOOTTIME`, which start times of processes are in.
#[inline(always)]
pub fn now_boottime() -> u64 {
    // SAFETY: the helper has no precondition.
    unsafe { bpf_ktime_get_boot_ns() }
}

/// How many records a cgroup has written in a span of 2^30 nanoseconds.
#[derive(Clone, Copy)]
#[repr(C)]
struct Written {
    key: u64,
    span: u64,
    records: u64,
}

const WRITTEN_LEN: u32 = 4096;

/// What each cgroup has written, where there is a limit: at the place that its id says, for the first that writes in a span.
#[map]
static WRITTEN: Array<Written> = Array::with_max_entries(WRITTEN_LEN, 0);

/// What those have written that found another at their place. One that was pushed out starts anew.
#[map]
static WRITTEN_TOO: LruHashMap<u64, Written> = LruHashMap::with_max_entries(WRITTEN_LEN, 0);

/// Whether a probe writes records at all. A constant to the verifier.
#[inline(always)]
pub fn writes(probe: Probe) -> bool {
    config!(events) >> (probe as u32) & 1 == 1
}

/// Set in the keys of [`WRITTEN`] for stalls at a memory limit, which have a limit of their own: a container can stand at
/// its limit tens of thousands of times a second, and what else it does is to be told all the same. No cgroup's id has it.
const RECLAIM: u64 = 1 << 61;

/// That limit, as a part of the other.
const RECLAIM_SHARE: u32 = 10;

/// The cgroups' ids and the time, if a record is to be written; one that is not, because its cgroup has written too many, is counted
/// as lost.
#[inline(always)]
fn wanted(
    probe: Probe,
    record_type: RecordType,
    cgroups: impl Cgroups,
    when: impl FnOnce() -> u64,
) -> Option<(CgroupIds, u64)> {
    if !writes(probe) {
        return None;
    }
    let cgroups = cgroups.ids();
    if !cgroups.watched {
        return None;
    }
    counters::produced(probe);
    let at_ns = when();
    if config!(event_rate) == 0 {
        return Some((cgroups, at_ns));
    }
    let key = watch::key_of_ids(cgroups);
    let within = match record_type {
        // OOM kills and names of cgroups are few, and others rely on them.
        RecordType::Oom => true,
        _ if matches!(probe, Probe::Cgroup) => true,
        RecordType::Reclaim => {
            within_rate(key | RECLAIM, (config!(event_rate) / RECLAIM_SHARE).max(1), at_ns)
        }
        _ => within_rate(key, config!(event_rate), at_ns),
    };
    if !within {
        counters::lost(probe, Loss::RateLimited);
        return None;
    }
    Some((cgroups, at_ns))
}

#[inline(always)]
fn within_rate(key: u64, rate: u32, at_ns: u64) -> bool {
    let span = at_ns >> 30;
    // The bits at the top tell keys of one cgroup apart.
    let place = (key as u32).wrapping_add((key >> 61) as u32) & (WRITTEN_LEN - 1);
    let Some(written) = WRITTEN.get_ptr_mut(place) else { return true };
    // SAFETY: a live map value. CPUs race for it, so a limit may be passed by as many records as there are CPUs.
    let mut written = unsafe { &mut *written };
    if written.key != key && written.span == span {
        let Some(other) = WRITTEN_TOO.get_ptr_mut(key) else {
            let _ = WRITTEN_TOO.insert(key, Written { key, span, records: 1 }, 0);
            return true;
        };
        // SAFETY: as above.
        written = unsafe { &mut *other };
    }
    if written.key != key || written.span != span {
        *written = Written { key, span, records: 0 };
    }
    written.records += 1;
    written.records <= u64::from(rate)
}

/// Writes one record of `probe` about `task`, of the time that `when` tells: `fill` gets the header and gives the whole record.
/// Without room the loss is counted.
#[inline(always)]
pub fn emit<A: Access, T: 'static>(
    probe: Probe,
    record_type: RecordType,
    task: Ptr,
    cgroups: impl Cgroups,
    when: impl FnOnce() -> u64,
    fill: impl FnOnce(Header) -> T,
) {
    let Some((cgroups, at_ns)) = wanted(probe, record_type, cgroups, when) else { return };
    let Some(mut entry) = EVENTS.reserve::<T>(0) else {
        counters::lost(probe, Loss::RingFull);
        return;
    };
    let size = size_of::<T>() as u16;
    entry.write(fill(header::<A>(size, record_type, task, cgroups, at_ns)));
    submit(entry);
}

/// As [`emit`], for a record that is too big for the stack: `fill` gets it in place, zeroed but for the header.
#[inline(always)]
pub fn emit_in_place<A: Access, T: 'static>(
    probe: Probe,
    record_type: RecordType,
    task: Ptr,
    cgroups: impl Cgroups,
    when: impl FnOnce() -> u64,
    fill: impl FnOnce(&mut T),
) {
    let Some((cgroups, at_ns)) = wanted(probe, record_type, cgroups, when) else { return };
    let Some(mut entry) = EVENTS.reserve::<T>(0) else {
        counters::lost(probe, Loss::RingFull);
        return;
    };
    let room = entry.as_mut_ptr();
    zero(room);
    let header = header::<A>(size_of::<T>() as u16, record_type, task, cgroups, at_ns);
    // SAFETY: every record is repr(C) and begins with its header.
    unsafe { room.cast::<Header>().write(header) };
    // SAFETY: all bytes are set, and records are integers only, so any bytes are a valid `T`.
    fill(unsafe { &mut *room });
    submit(entry);
}

/// Zeroes a record by words. Volatile, so that the compiler calls no memset for it, whatever the linker is told: that is a loop
/// over bytes in a function of its own, each turn of which the verifier takes, on every way that leads there.
#[inline(always)]
fn zero<T>(room: *mut T) {
    const { assert!(size_of::<T>().is_multiple_of(8) && align_of::<T>() == 8) };
    for word in 0..size_of::<T>() / 8 {
        // SAFETY: the room is as big as a `T`, a whole number of aligned words.
        unsafe { room.cast::<u64>().add(word).write_volatile(0) };
    }
}

#[inline(always)]
fn submit<T>(entry: RingBufEntry<T>) {
    let wake = match ARMED.get_ptr_mut(0) {
        // SAFETY: a live map value; a race between CPUs costs at most a second wake-up.
        Some(armed) if unsafe { *armed } == 1 => {
            // SAFETY: as above.
            unsafe { *armed = 0 };
            true
        }
        _ => false,
    };
    entry.submit(u64::from(if wake { BPF_RB_FORCE_WAKEUP } else { BPF_RB_NO_WAKEUP }));
}

#[inline(always)]
fn header<A: Access>(
    size: u16,
    record_type: RecordType,
    task: Ptr,
    cgroups: CgroupIds,
    at_ns: u64,
) -> Header {
    let thread_pid = task.follow::<A>(config!(task_thread_pid));
    // Bounded, as the verifier wants it; the kernel allows 32 levels of pid namespaces.
    let level = thread_pid.field::<A, u32>(config!(pid_level)) & 31;
    let number = config!(pid_numbers).wrapping_add(level.wrapping_mul(config!(upid_size)));
    let leader = task.follow::<A>(config!(task_group_leader));
    let parent = task.follow::<A>(config!(task_real_parent));
    Header {
        size,
        record_type: record_type as u16,
        // SAFETY: the helper has no precondition.
        cpu: unsafe { bpf_get_smp_processor_id() },
        mono_ns: at_ns,
        cgroup_id: cgroups.unified,
        memory_cgroup_id: cgroups.memory,
        start_ns: leader.field::<A, u64>(config!(task_start)),
        pid: task.field::<A, u32>(config!(task_tgid)),
        tid: task.field::<A, u32>(config!(task_pid)),
        ppid: parent.field::<A, u32>(config!(task_tgid)),
        // Through the helper: the verifier allows no variable offset in a plain load.
        ns_pid: thread_pid.field::<Probed, u32>(number),
        uid: task.follow::<A>(config!(task_cred)).field::<A, u32>(config!(cred_uid)),
        flags: 0,
        comm: task.field::<Probed, [u8; 16]>(config!(task_comm)),
    }
}
