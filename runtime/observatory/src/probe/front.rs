//! The counters that the programs use first: memory that they and this process share.

use crate::probe::mapped;
use aya::maps::{Map, MapError};
use foldhash::HashSet;
use memmap2::MmapRaw;
use std::mem::offset_of;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::{Duration, Instant};
use terrarium_abi::{CounterKey, FrontCell, Kind, Timed, names};

/// A [`FrontCell`] as this side sees it: the kernel's programs change it at any time.
#[repr(C)]
struct Cell {
    serial: AtomicU64,
    memory_serial: AtomicU64,
    kind: AtomicU32,
    pad: AtomicU32,
    claims: AtomicU64,
    count: AtomicU64,
    ns: AtomicU64,
    cgroup_id: AtomicU64,
    memory_cgroup_id: AtomicU64,
}

const _: () = assert!(
    size_of::<Cell>() == size_of::<FrontCell>()
        && offset_of!(Cell, kind) == offset_of!(FrontCell, kind)
        && offset_of!(Cell, claims) == offset_of!(FrontCell, claims)
        && offset_of!(Cell, memory_cgroup_id) == offset_of!(FrontCell, memory_cgroup_id)
);

/// For how long a cell whose cgroup is gone is given to nobody: a program that found it just before may still be about to add to
/// it. No program takes near as long.
const REST: Duration = Duration::from_secs(1);

/// The cells of all CPUs.
pub struct Front {
    memory: MmapRaw,
    cells: usize,
    /// Those that count nothing any more, and since when.
    resting: Vec<(usize, Instant)>,
}

impl Front {
    /// Maps `FRONT` into this process's memory.
    pub fn new(map: &Map) -> Result<Self, MapError> {
        let (memory, cells) = mapped::array::<Cell>(map, names::FRONT)?;
        Ok(Self { memory, cells, resting: Vec::new() })
    }

    /// How many cells there are.
    pub fn capacity(&self) -> usize {
        self.cells
    }

    fn all(&self) -> &[Cell] {
        // SAFETY: the memory is mapped as long as `self` lives, begins at a page and has so many cells; any bytes are a valid one,
        // and whatever writes them does it by aligned words.
        unsafe { std::slice::from_raw_parts(self.memory.as_ptr().cast(), self.cells) }
    }

    /// Calls `visit` with all that is counted here; a key comes once for each CPU. Returns how many cells are in use.
    pub fn read(&mut self, mut visit: impl FnMut(CounterKey, Timed)) -> usize {
        self.free_rested(Instant::now());
        let mut used = 0;
        for cell in self.all() {
            if cell.claims.load(Ordering::Relaxed) == 0 {
                continue;
            }
            used += 1;
            if let Some(key) = cell.key() {
                visit(key, cell.timed());
            }
        }
        used
    }

    /// Takes back the cells of cgroups that are no more, by their ids in both hierarchies.
    pub fn remove(&mut self, gone: &HashSet<(u64, u64)>) {
        let now = Instant::now();
        self.free_rested(now);
        let of_gone = |cell: &Cell| {
            cell.key().is_some_and(|key| gone.contains(&(key.cgroup_id, key.memory_cgroup_id)))
        };
        let ended: Vec<usize> = (0..self.cells).filter(|n| of_gone(&self.all()[*n])).collect();
        for n in ended {
            self.all()[n].kind.store(0, Ordering::Release);
            self.resting.push((n, now));
        }
    }

    /// Lets others have the cells that have counted nothing for long enough.
    fn free_rested(&mut self, now: Instant) {
        let rested = |(_, since): &(usize, Instant)| now.duration_since(*since) >= REST;
        let free: Vec<_> = self.resting.extract_if(.., |resting| rested(resting)).collect();
        for (n, _) in free {
            self.all()[n].claims.store(0, Ordering::Release);
        }
    }
}

impl Cell {
    /// What is counted here, if anything is.
    fn key(&self) -> Option<CounterKey> {
        // First, as it is written last by whoever takes the cell.
        let kind = self.kind.load(Ordering::Acquire);
        (kind != 0).then(|| CounterKey {
            cgroup_id: self.cgroup_id.load(Ordering::Relaxed),
            memory_cgroup_id: self.memory_cgroup_id.load(Ordering::Relaxed),
            kind: Kind(kind),
            pad: 0,
        })
    }

    fn timed(&self) -> Timed {
        Timed { count: self.count.load(Ordering::Relaxed), ns: self.ns.load(Ordering::Relaxed) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use memmap2::MmapMut;
    use terrarium_abi::counter::family;

    const CLONE: Kind = Kind::new(family::CLONE, [0; 3]);

    fn front(cells: usize) -> Front {
        let memory = MmapMut::map_anon(cells * size_of::<Cell>()).unwrap();
        Front { memory: memory.into(), cells, resting: Vec::new() }
    }

    /// As a program takes a cell and counts in it.
    fn count(cell: &Cell, cgroup_id: u64, count: u64) {
        cell.claims.fetch_add(1, Ordering::Relaxed);
        cell.cgroup_id.store(cgroup_id, Ordering::Relaxed);
        cell.count.store(count, Ordering::Relaxed);
        cell.kind.store(CLONE.0, Ordering::Release);
    }

    fn read(front: &mut Front) -> Vec<(u64, u64)> {
        let mut all = Vec::new();
        front.read(|key, timed| all.push((key.cgroup_id, timed.count)));
        all
    }

    #[test]
    fn what_is_counted_is_read_and_what_is_claimed_alone_is_not() {
        let mut front = front(4);
        count(&front.all()[1], 7, 3);
        front.all()[2].claims.store(1, Ordering::Relaxed);
        assert_eq!(read(&mut front), [(7, 3)]);
        assert_eq!(front.read(|_, _| ()), 2);
    }

    #[test]
    fn the_cells_of_a_removed_cgroup_rest_before_another_has_them() {
        let mut front = front(4);
        count(&front.all()[0], 7, 3);
        count(&front.all()[3], 8, 5);
        front.remove(&HashSet::from_iter([(7, 0)]));
        assert_eq!(read(&mut front), [(8, 5)]);
        let claims = |front: &Front| front.all()[0].claims.load(Ordering::Relaxed);
        assert_eq!(claims(&front), 1);
        front.free_rested(Instant::now() + REST);
        assert_eq!(claims(&front), 0);
        assert_eq!(front.read(|_, _| ()), 1);
    }
}
