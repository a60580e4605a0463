//! Keys of the per-cgroup counters, and the probes' own counters.

use crate::{GuardEvent, MountOp, NsKind, NsTarget, Via};
use core::mem::{offset_of, size_of};

/// Key of one counter in `COUNTS`, or of one [`Timed`] in `TIMES`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(C)]
pub struct CounterKey {
    /// Kernel id of the cgroup in the unified hierarchy.
    pub cgroup_id: u64,
    /// Kernel id of the cgroup in the v1 memory hierarchy; 0 where memory is in the unified one. It names the
    /// container when that has no cgroup of its own in the unified hierarchy.
    pub memory_cgroup_id: u64,
    /// What is counted.
    pub kind: Kind,
    /// Zero.
    pub pad: u32,
}

const _: () = assert!(size_of::<CounterKey>() == 24 && offset_of!(CounterKey, kind) == 16);

/// What `TIMES` holds for operations of one kind whose durations are in one bucket: one cell, found once an operation, for what
/// would be three counters.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Timed {
    /// How many there were.
    pub count: u64,
    /// How long they took together, nanoseconds.
    pub ns: u64,
}

const _: () = assert!(size_of::<Timed>() == 16 && offset_of!(Timed, ns) == 8);

impl Timed {
    /// Under which kinds the cell of `kind` is told, and what is added to each: for a mount operation its count, its bucket and
    /// the sum of times, for reclaim the bucket and the sum, for any other what it counts.
    pub fn told(self, kind: Kind) -> impl Iterator<Item = (Kind, u64)> {
        let (family, [a, bucket, b]) = kind.parts();
        let told = match family {
            family::MOUNT => [
                Some((Kind::new(family::MOUNT, [a, 0, b]), self.count)),
                Some((Kind::new(family::MOUNT_TIME, [bucket, 0, 0]), self.count)),
                Some((Kind::new(family::MOUNT_TIME_SUM, [0, 0, 0]), self.ns)),
            ],
            family::MEMORY_STALL => [
                Some((Kind::new(family::MEMORY_STALL, [bucket, 0, 0]), self.count)),
                Some((Kind::new(family::MEMORY_STALL_SUM, [0, 0, 0]), self.ns)),
                None,
            ],
            _ => [Some((kind, self.count)), None, None],
        };
        told.into_iter().flatten()
    }
}

crate::pod!(CounterKey);

/// A cell of `FRONT`, one line of the processor's cache: what one CPU has counted of one kind for one cgroup, found without a hash
/// table and without reading more of the kernel's cgroup than its serial number. The cells of a CPU are its own: no other writes
/// them, but for user space, which takes back those of removed cgroups. What finds its cell taken is counted in `COUNTS` or
/// `TIMES`; a counter is the sum of both.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct FrontCell {
    /// `serial_nr` of the cgroup in the unified hierarchy, which the kernel gives to no other until it is booted anew; the root has 0.
    pub serial: u64,
    /// The same of the cgroup in the v1 memory hierarchy, 0 where memory is in the unified one.
    pub memory_serial: u64,
    /// What is counted; label 1 is the bucket where durations are told. 0 while nothing is counted here; written last.
    pub kind: Kind,
    /// Zero.
    pub pad: u32,
    /// Not 0: taken, or about to be.
    pub claims: u64,
    /// As [`Timed::count`].
    pub count: u64,
    /// As [`Timed::ns`].
    pub ns: u64,
    /// As [`CounterKey::cgroup_id`].
    pub cgroup_id: u64,
    /// As [`CounterKey::memory_cgroup_id`].
    pub memory_cgroup_id: u64,
}

const _: () = assert!(size_of::<FrontCell>() == 64 && offset_of!(FrontCell, claims) == 24);

/// What a counter counts: one byte for the family and three for its labels, highest byte first.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(transparent)]
pub struct Kind(pub u32);

const _: () = assert!(size_of::<Kind>() == 4);

/// The families of [`Kind`].
pub mod family {
    /// Successful clones; label 0: thread.
    pub const CLONE: u8 = 1;
    /// Failed clones; label 0: errno.
    pub const CLONE_FAILED: u8 = 2;
    /// Program executions.
    pub const EXEC: u8 = 3;
    /// Processes that ended; label 0: [`crate::ExitCause`].
    pub const EXIT: u8 = 4;
    /// Namespaces asked for; labels: [`crate::NsKind`], [`crate::Via`], failed.
    pub const NS_CREATE: u8 = 5;
    /// Namespaces entered; labels: [`crate::NsKind`], [`crate::NsTarget`], failed.
    pub const NS_ENTER: u8 = 6;
    /// Mount operations; labels: [`crate::MountOp`], unused, failed.
    pub const MOUNT: u8 = 7;
    /// Duration of mount operations; label 0: the bucket, see [`crate::counter::bucket`].
    pub const MOUNT_TIME: u8 = 8;
    /// Sum of the durations of mount operations, nanoseconds.
    pub const MOUNT_TIME_SUM: u8 = 9;
    /// Entries into reclaim at a limit; label 0: how many levels above the task's cgroup the limit stands.
    pub const MEMORY_LIMIT: u8 = 10;
    /// Duration of that reclaim; label 0: the bucket.
    pub const MEMORY_STALL: u8 = 11;
    /// Sum of the durations of reclaim, nanoseconds.
    pub const MEMORY_STALL_SUM: u8 = 12;
    /// Pages reclaimed.
    pub const RECLAIMED_PAGES: u8 = 13;
    /// Tasks killed for lack of memory; label 0: how many levels above the victim's cgroup the limit stands,
    /// [`crate::memory::LEVEL_GLOBAL`] when the whole machine was out of memory.
    pub const OOM_KILL: u8 = 14;
    /// Tasks moved into a cgroup.
    pub const CGROUP_ATTACH: u8 = 15;
    /// Guarded calls; labels: [`crate::GuardEvent`], unused, failed.
    pub const GUARD: u8 = 16;
}

impl Kind {
    /// A kind of `family` with three labels.
    #[inline]
    pub const fn new(family: u8, labels: [u8; 3]) -> Self {
        Self(u32::from_be_bytes([family, labels[0], labels[1], labels[2]]))
    }

    /// The same with the bucket of a duration as label 1, as keys of `TIMES` have it.
    #[inline]
    #[must_use]
    pub const fn lasting(self, ns: u64) -> Self {
        Self(self.0 | (bucket(ns) as u32) << 8)
    }

    /// The family and the labels.
    pub const fn parts(self) -> (u8, [u8; 3]) {
        let [family, a, b, c] = self.0.to_be_bytes();
        (family, [a, b, c])
    }

    /// A namespace that was asked for.
    #[inline]
    pub const fn ns_create(ns: NsKind, via: Via, failed: bool) -> Self {
        Self::new(family::NS_CREATE, [ns as u8, via as u8, failed as u8])
    }

    /// A namespace that was entered.
    #[inline]
    pub const fn ns_enter(ns: NsKind, target: NsTarget, failed: bool) -> Self {
        Self::new(family::NS_ENTER, [ns as u8, target as u8, failed as u8])
    }

    /// A mount operation.
    #[inline]
    pub const fn mount(op: MountOp, failed: bool) -> Self {
        Self::new(family::MOUNT, [op as u8, 0, failed as u8])
    }

    /// A guarded call.
    #[inline]
    pub const fn guard(event: GuardEvent, failed: bool) -> Self {
        Self::new(family::GUARD, [event as u8, 0, failed as u8])
    }
}

impl core::fmt::Debug for Kind {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        let (family, labels) = self.parts();
        write!(f, "Kind({family}, {labels:?})")
    }
}

/// Upper bounds of histograms of durations, as powers of two of nanoseconds: 16 µs to 17 s.
pub const BOUNDS: [u8; 11] = [14, 16, 18, 20, 22, 24, 26, 28, 30, 32, 34];

/// The histogram bucket of a duration below 2^63 nanoseconds, some 292 years: the one of [`BOUNDS`] that it is below and the one
/// before is not, two more beyond the last.
///
/// Each bound that is reached adds its two by the sign of a difference, all of them at once: eBPF has no instruction that counts
/// leading zeros, and a search with branches would double for each what the verifier follows to the end of the program. If the
/// compiler knew that no difference overflows, it would make branches of it.
#[inline]
#[expect(clippy::cast_possible_truncation, reason = "it is 36 at most")]
pub const fn bucket(ns: u64) -> u8 {
    let mut reached = 0;
    let mut n = 0;
    while n < BOUNDS.len() {
        let last_below = (1_u64 << BOUNDS[n]) - 1;
        reached += last_below.wrapping_sub(ns) >> 63;
        n += 1;
    }
    BOUNDS[0] + 2 * reached as u8
}

/// A group of programs that is chosen, reported and counted together.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u32)]
pub enum Probe {
    /// `clone`, `exec`, `exit`
    Task = 0,
    /// `unshare`, `setns`
    Namespace = 1,
    /// `mount` and its relatives
    Mount = 2,
    /// reclaim at a limit, OOM kills
    Memory = 3,
    /// cgroups made, removed, entered
    Cgroup = 4,
    /// what escapes are made of: `ptrace`, `bpf`, module loads, writes to kernel tunables and others
    Guard = 5,
}

impl Probe {
    /// All of them, in the order of their numbers.
    pub const ALL: [Self; 6] =
        [Self::Task, Self::Namespace, Self::Mount, Self::Memory, Self::Cgroup, Self::Guard];
}

/// Why a record did not reach the ring buffer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u32)]
pub enum Loss {
    /// The ring buffer had no room.
    RingFull = 0,
    /// A map that joins the entry and the exit of a call had no room.
    MapFull = 1,
    /// The cgroup wrote more records in this second than it may.
    RateLimited = 2,
}

/// Index of a cell in `STATS`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stat {
    /// Records that a probe wanted to write.
    Produced(Probe),
    /// Records that were lost.
    Lost(Probe, Loss),
    /// Counts that found no room in `COUNTS`.
    CountsLost,
    /// Records that were lost by any probe for any reason, in one cell that is cheap to watch.
    LostByAny,
}

impl Stat {
    /// Number of cells.
    pub const CELLS: u32 = 64;

    /// The cell's index.
    #[inline]
    pub const fn index(self) -> u32 {
        match self {
            Self::CountsLost => 0,
            Self::LostByAny => 63,
            Self::Produced(probe) => 1 + probe as u32,
            Self::Lost(probe, loss) => 9 + 4 * (probe as u32) + loss as u32,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_duration_is_in_the_bucket_of_the_first_bound_above_it() {
        for ns in
            [0, 1, 16_383, 16_384, 65_535, 65_536, 1 << 33, (1 << 34) - 1, 1 << 34, u64::MAX / 2]
        {
            let bound = BOUNDS.into_iter().find(|bound| ns < 1 << bound);
            assert_eq!(bucket(ns), bound.unwrap_or(36), "{ns}");
        }
    }

    #[test]
    fn kind_keeps_family_and_labels_apart() {
        let kind = Kind::ns_create(NsKind::User, Via::Unshare, true);
        assert_eq!(kind.parts(), (family::NS_CREATE, [NsKind::User as u8, Via::Unshare as u8, 1]));
    }

    #[test]
    fn a_timed_cell_is_told_as_the_counters_it_stands_for() {
        let timed = Timed { count: 3, ns: 700 };
        let kind = Kind::mount(MountOp::Umount, true);
        let told: [_; 3] = [
            (kind, 3),
            (Kind::new(family::MOUNT_TIME, [18, 0, 0]), 3),
            (Kind::new(family::MOUNT_TIME_SUM, [0, 0, 0]), 700),
        ];
        assert!(timed.told(kind.lasting(100_000)).eq(told));
        let stall = Kind::new(family::MEMORY_STALL, [0, 0, 0]).lasting(1 << 40);
        let told = [
            (Kind::new(family::MEMORY_STALL, [36, 0, 0]), 3),
            (Kind::new(family::MEMORY_STALL_SUM, [0, 0, 0]), 700),
        ];
        assert!(timed.told(stall).eq(told));
    }

    #[test]
    fn every_stat_has_a_cell_of_its_own() {
        let mut seen = [false; Stat::CELLS as usize];
        for stat in all_stats() {
            let cell = &mut seen[stat.index() as usize];
            assert!(!*cell, "{stat:?}");
            *cell = true;
        }
    }

    fn all_stats() -> impl Iterator<Item = Stat> {
        let of_probe = |probe| {
            [
                Stat::Produced(probe),
                Stat::Lost(probe, Loss::RingFull),
                Stat::Lost(probe, Loss::MapFull),
                Stat::Lost(probe, Loss::RateLimited),
            ]
        };
        [Stat::CountsLost, Stat::LostByAny]
            .into_iter()
            .chain(Probe::ALL.into_iter().flat_map(of_probe))
    }
}
