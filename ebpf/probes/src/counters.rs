//! The counters: exact, per CPU, and independent of the ring buffer.

use crate::kernel::{Access, CgroupIds, Cgroups, Probed, Ptr, TaskCgroups, config};
use aya_ebpf::bindings::{BPF_F_MMAPABLE, BPF_NOEXIST};
use aya_ebpf::helpers::generated::bpf_get_smp_processor_id;
use aya_ebpf::macros::map;
use aya_ebpf::maps::{Array, PerCpuArray, PerCpuHashMap};
use core::mem::offset_of;
use terrarium_abi::{CounterKey, FrontCell, Kind, Loss, Probe, Stat, Timed};

/// A cell per cgroup and kind. Never LRU: eviction would forget in silence; user space deletes the cells of
/// removed cgroups. Preallocated, because counting happens where memory is short. The loader sets the size.
#[map]
static COUNTS: PerCpuHashMap<CounterKey, u64> = PerCpuHashMap::with_max_entries(65_536, 0);

/// The same for operations whose durations are told: a cell per cgroup, kind and bucket.
#[map]
static TIMES: PerCpuHashMap<CounterKey, Timed> = PerCpuHashMap::with_max_entries(65_536, 0);

/// The probes' own counters, see [`Stat`].
#[map]
static STATS: PerCpuArray<u64> = PerCpuArray::with_max_entries(Stat::CELLS, 0);

/// The counters that are used first, see [`FrontCell`]. The loader sets the size.
#[map]
static FRONT: Array<FrontCell> = Array::with_max_entries(1, BPF_F_MMAPABLE);

/// Adds `n` to the counter of `kind` for a task's cgroups.
#[inline(always)]
pub fn add<A: Access>(cgroups: TaskCgroups<A>, kind: Kind, n: u64) {
    let serials = cgroups.serials();
    let cell = Front::of(serials, kind);
    match cell {
        Some(cell) if cell.is_of(serials, kind) => cell.add(n),
        _ if !cgroups.watched() => {}
        _ => add_elsewhere(cgroups.unified, cgroups.memory, kind, n, Front::address(cell)),
    }
}

/// Counts an operation of `kind` that took `ns` nanoseconds, and how long it took.
#[inline(always)]
pub fn time<A: Access>(cgroups: TaskCgroups<A>, kind: Kind, ns: u64) {
    let kind = kind.lasting(ns);
    let serials = cgroups.serials();
    let cell = Front::of(serials, kind);
    match cell {
        Some(cell) if cell.is_of(serials, kind) => cell.time(ns),
        _ if !cgroups.watched() => {}
        _ => time_elsewhere(cgroups.unified, cgroups.memory, kind, ns, Front::address(cell)),
    }
}

/// Adds to a counter of watched cgroups that is not in `cell`, its place in [`FRONT`] (null: it has none): there if that is free, else
/// in the map. A function of its own, and out of the way of what runs often.
#[cold]
#[inline(never)]
fn add_elsewhere(unified: Ptr, memory: Ptr, kind: Kind, n: u64, cell: *mut FrontCell) {
    let cgroups = TaskCgroups::<Probed>::at(unified, memory);
    let ids = cgroups.ids();
    match Front::taken(cell, cgroups.serials(), kind, ids) {
        Some(cell) => cell.add(n),
        None => add_in_map(ids, kind, n),
    }
}

/// The same for an operation and how long it took.
#[cold]
#[inline(never)]
fn time_elsewhere(unified: Ptr, memory: Ptr, kind: Kind, ns: u64, cell: *mut FrontCell) {
    let cgroups = TaskCgroups::<Probed>::at(unified, memory);
    let ids = cgroups.ids();
    match Front::taken(cell, cgroups.serials(), kind, ids) {
        Some(cell) => cell.time(ns),
        None => add_to(&TIMES, key(ids, kind), Timed { count: 1, ns }, |cell| {
            let field = |offset| cell.cast::<u8>().wrapping_add(offset).cast();
            bump(field(offset_of!(Timed, count)), 1);
            bump(field(offset_of!(Timed, ns)), ns);
        }),
    }
}

/// Counts one for cgroups of which no more than the ids is known.
#[inline(always)]
pub fn count_ids(ids: CgroupIds, kind: Kind) {
    if ids.watched {
        add_in_map(ids, kind, 1);
    }
}

#[inline(always)]
fn add_in_map(ids: CgroupIds, kind: Kind, n: u64) {
    add_to(&COUNTS, key(ids, kind), n, |cell| bump(cell, n));
}

/// A cell of [`FRONT`] that belongs to the CPU that runs.
#[derive(Clone, Copy)]
struct Front(*mut FrontCell);

impl Front {
    /// The cell where this CPU counts `kind` for the cgroups, unless it counts something else there.
    #[inline(always)]
    fn of(serials: [u64; 2], kind: Kind) -> Option<Self> {
        /// 2 to the power of 64, divided by the golden ratio: multiplied by it, numbers that differ anywhere differ at the top.
        const SPREAD: u64 = 0x9e37_79b9_7f4a_7c15;
        let cells = config!(front_cells);
        if cells == 0 {
            return None;
        }
        let [serial, memory_serial] = serials;
        let number = serial ^ memory_serial << 20 ^ u64::from(kind.0) << 32;
        let place = (number.wrapping_mul(SPREAD) >> 32) * u64::from(cells) >> 32;
        // SAFETY: the helper has no precondition.
        let cpu = unsafe { bpf_get_smp_processor_id() };
        FRONT.get_ptr_mut(cpu.wrapping_mul(cells).wrapping_add(place as u32)).map(Self)
    }

    /// The address of a field.
    #[inline(always)]
    fn field<T>(self, offset: usize) -> *mut T {
        self.0.cast::<u8>().wrapping_add(offset).cast()
    }

    /// The value of a field.
    #[inline(always)]
    fn get<T: Copy>(self, offset: usize) -> T {
        // SAFETY: a live map value. Nothing else writes it on this CPU meanwhile, but for a program that interrupts this one.
        unsafe { self.field::<T>(offset).read_volatile() }
    }

    #[inline(always)]
    fn set<T>(self, offset: usize, value: T) {
        // SAFETY: as above; this program has taken the cell.
        unsafe { self.field::<T>(offset).write_volatile(value) }
    }

    /// Whether this is counted here.
    #[inline(always)]
    fn is_of(self, serials: [u64; 2], kind: Kind) -> bool {
        self.get::<u32>(offset_of!(FrontCell, kind)) == kind.0
            && self.get::<u64>(offset_of!(FrontCell, serial)) == serials[0]
            && self.get::<u64>(offset_of!(FrontCell, memory_serial)) == serials[1]
    }

    /// The cell's address, null for none.
    #[inline(always)]
    fn address(cell: Option<Self>) -> *mut FrontCell {
        cell.map_or(core::ptr::null_mut(), |cell| cell.0)
    }

    #[inline(always)]
    fn add(self, n: u64) {
        bump(self.field(offset_of!(FrontCell, count)), n);
    }

    #[inline(always)]
    fn time(self, ns: u64) {
        self.add(1);
        bump(self.field(offset_of!(FrontCell, ns)), ns);
    }

    /// Takes the cell at an address if there is one and it is free. A program that interrupts this one and wants it, too, finds it
    /// claimed; if two claim it at once, neither has it until user space takes it back.
    #[inline(always)]
    fn taken(cell: *mut FrontCell, serials: [u64; 2], kind: Kind, ids: CgroupIds) -> Option<Self> {
        if cell.is_null() {
            return None;
        }
        let cell = Self(cell);
        let claims = offset_of!(FrontCell, claims);
        if cell.get::<u64>(claims) != 0 {
            return None;
        }
        bump(cell.field(claims), 1);
        if cell.get::<u64>(claims) != 1 {
            return None;
        }
        cell.set(offset_of!(FrontCell, serial), serials[0]);
        cell.set(offset_of!(FrontCell, memory_serial), serials[1]);
        cell.set(offset_of!(FrontCell, count), 0_u64);
        cell.set(offset_of!(FrontCell, ns), 0_u64);
        cell.set(offset_of!(FrontCell, cgroup_id), ids.unified);
        cell.set(offset_of!(FrontCell, memory_cgroup_id), ids.memory);
        cell.set(offset_of!(FrontCell, kind), kind.0);
        Some(cell)
    }
}

/// Adds to the cell by `bump`, or makes it with what it holds `first`.
#[inline(always)]
fn add_to<V>(map: &PerCpuHashMap<CounterKey, V>, key: CounterKey, first: V, bump: impl Fn(*mut V)) {
    if let Some(cell) = map.get_ptr_mut(key) {
        return bump(cell);
    }
    if map.insert(key, first, u64::from(BPF_NOEXIST)).is_ok() {
        return;
    }
    // Another CPU made the cell between the two calls, or the map is full.
    match map.get_ptr_mut(key) {
        Some(cell) => bump(cell),
        None => stat(Stat::CountsLost),
    }
}

#[inline(always)]
fn key(cgroups: CgroupIds, kind: Kind) -> CounterKey {
    CounterKey { cgroup_id: cgroups.unified, memory_cgroup_id: cgroups.memory, kind, pad: 0 }
}

/// Counts one for the cgroup.
#[inline(always)]
pub fn count<A: Access>(cgroups: TaskCgroups<A>, kind: Kind) {
    add(cgroups, kind, 1);
}

/// Counts a record that a probe is about to write.
#[inline(always)]
pub fn produced(probe: Probe) {
    stat(Stat::Produced(probe));
}

/// Counts a record that could not be written.
#[inline(always)]
pub fn lost(probe: Probe, loss: Loss) {
    stat(Stat::Lost(probe, loss));
    stat(Stat::LostByAny);
}

/// Counts a count that could not be made.
#[inline(always)]
pub fn count_lost() {
    stat(Stat::CountsLost);
}

#[inline(always)]
fn stat(stat: Stat) {
    if let Some(cell) = STATS.get_ptr_mut(stat.index()) {
        bump(cell, 1);
    }
}

/// Adds to a cell. Atomic although a counter's cell is this CPU's own: programs attached by fentry can be preempted, and another
/// program on this CPU may then add to the same cell. The instruction that gives no old value back is the one
/// that kernels before 5.12 know as well; `AtomicU64::fetch_add` does not exist for this target.
#[inline(always)]
pub fn bump(cell: *mut u64, n: u64) {
    #[cfg(target_arch = "bpf")]
    // SAFETY: the verifier has checked that the pointer is to a live, aligned map value of eight bytes.
    unsafe {
        core::arch::asm!("lock *(u64 *)({cell} + 0) += {n}", cell = in(reg) cell, n = in(reg) n);
    }
    #[cfg(not(target_arch = "bpf"))]
    let _ = (cell, n);
}
