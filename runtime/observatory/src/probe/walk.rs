//! Walks of the kernel's cgroups, each of which tells what all cgroups of a hierarchy use.

use crate::probe::mapped;
use aya::maps::{Map, MapError};
use memmap2::MmapRaw;
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read};
use std::mem::offset_of;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use terrarium_abi::usage::told;
use terrarium_abi::{CgroupUsage, names};

const BPF_LINK_CREATE: libc::c_int = 28;
const BPF_ITER_CREATE: libc::c_int = 33;
const BPF_TRACE_ITER: u32 = 28;
const BPF_CGROUP_ITER_DESCENDANTS_PRE: u32 = 2;

/// The part of `union bpf_iter_link_info` that concerns cgroups (linux/bpf.h).
#[repr(C)]
struct CgroupIterator {
    order: u32,
    cgroup_fd: u32,
    cgroup_id: u64,
}

const CGROUP_ITERATOR_BYTES: u32 = 16;

const _: () = assert!(size_of::<CgroupIterator>() == CGROUP_ITERATOR_BYTES as usize);

/// The part of `union bpf_attr` that concerns links of iterators.
#[repr(C)]
struct LinkAttributes {
    prog_fd: u32,
    target_fd: u32,
    attach_type: u32,
    flags: u32,
    iter_info: u64,
    iter_info_len: u32,
    pad: u32,
}

/// The part of `union bpf_attr` that concerns iterators.
#[repr(C)]
struct IteratorAttributes {
    link_fd: u32,
    flags: u32,
}

/// The walks of this host's hierarchies.
pub struct Walks {
    /// The cells that a walk writes.
    memory: MmapRaw,
    cells: usize,
    links: Vec<Link>,
}

/// What has the program called for all cgroups of a hierarchy.
struct Link {
    /// Its controllers, or `unified`.
    names: Vec<String>,
    mount: PathBuf,
    fd: OwnedFd,
}

impl Link {
    /// What is told by it: bits of [`told`]. `lists_v1` says whether processes are asked for in v1 hierarchies.
    fn wanted(&self, lists_v1: bool) -> u64 {
        let of = |name: &String| match name.as_str() {
            "memory" => told::MEMORY,
            "pids" if lists_v1 => told::PIDS | told::PROCESSES,
            "pids" => told::PIDS,
            "cpu" => told::CPU,
            "cpuacct" => told::CPU_TIME,
            "blkio" => told::NO_IO,
            _ => told::ALL,
        };
        self.names.iter().map(of).fold(0, |all, wanted| all | wanted)
    }
}

/// What all cgroups of the hierarchies use.
#[derive(Debug, Default)]
pub struct Walked {
    /// By hierarchy.
    hierarchies: BTreeMap<String, Arc<InHierarchy>>,
}

/// What the cgroups of one hierarchy use.
#[derive(Debug)]
struct InHierarchy {
    /// Their ids, in order, with their places among `usages`.
    places: Vec<(u64, usize)>,
    usages: Vec<CgroupUsage>,
}

impl Walked {
    /// Whether nothing was walked.
    pub fn is_empty(&self) -> bool {
        self.hierarchies.is_empty()
    }

    /// What a cgroup uses, by its hierarchy and its id there.
    pub fn of(&self, hierarchy: &str, cgroup_id: u64) -> Option<&CgroupUsage> {
        let InHierarchy { places, usages } = &**self.hierarchies.get(hierarchy)?;
        let at = places.binary_search_by_key(&cgroup_id, |(id, _)| *id).ok()?;
        usages.get(places[at].1)
    }
}

impl Walks {
    /// Those of `hierarchies`, by the program that tells of one cgroup, into the map `USAGE`. One that cannot be walked is left out.
    ///
    /// # Errors
    ///
    /// When none can be walked.
    pub fn new<'a>(
        program: BorrowedFd<'_>,
        map: &Map,
        hierarchies: impl Iterator<Item = (&'a str, &'a Path)>,
    ) -> Result<Self, MapError> {
        let (memory, cells) = mapped::array::<CgroupUsage>(map, names::USAGE)?;
        let mut links: Vec<Link> = Vec::new();
        let mut refused = io::Error::other("no cgroup hierarchy is mounted");
        for (name, mount) in hierarchies {
            // Controllers share a hierarchy where they are mounted together.
            if let Some(link) = links.iter_mut().find(|link| same_mount(&link.mount, mount)) {
                link.names.push(name.to_owned());
                continue;
            }
            match link(program, mount) {
                Ok(fd) => {
                    links.push(Link { names: vec![name.to_owned()], mount: mount.to_owned(), fd });
                }
                Err(error) => refused = error,
            }
        }
        if links.is_empty() {
            Err(MapError::IoError(refused))
        } else {
            Ok(Self { memory, cells, links })
        }
    }

    /// Walks all hierarchies, for lists of processes also those of v1 if `lists_v1`. One that cannot be walked is left out, and so are
    /// cgroups for which there is no room.
    pub fn all(&mut self, lists_v1: bool) -> Walked {
        let mut walked = Walked::default();
        for link in &self.links {
            match self.one(link, lists_v1) {
                Ok(usages) => {
                    let usages = Arc::new(usages);
                    let names = link.names.iter().map(|name| (name.clone(), Arc::clone(&usages)));
                    walked.hierarchies.extend(names);
                }
                Err(error) => tracing::debug!(%error, ?link.names, "cannot walk the cgroups"),
            }
        }
        walked
    }

    fn one(&self, link: &Link, lists_v1: bool) -> io::Result<InHierarchy> {
        self.filled().store(0, Ordering::Relaxed);
        self.wanted().store(link.wanted(lists_v1), Ordering::Relaxed);
        walk(link.fd.as_fd())?;
        let filled = usize::try_from(self.filled().load(Ordering::Acquire)).unwrap_or(0);
        let filled = filled.min(self.cells.saturating_sub(1));
        let first = self.first().wrapping_add(1);
        // SAFETY: so many cells of the mapped memory follow the one before. They are made of integers, and only a walk writes them.
        let usages = unsafe { std::slice::from_raw_parts(first, filled) }.to_vec();
        let mut places: Vec<(u64, usize)> =
            usages.iter().enumerate().map(|(n, usage)| (usage.cgroup_id, n)).collect();
        places.sort_unstable();
        Ok(InHierarchy { places, usages })
    }

    fn first(&self) -> *mut CgroupUsage {
        self.memory.as_mut_ptr().cast()
    }

    /// How many cells after the first the last walk has filled.
    fn filled(&self) -> &AtomicU64 {
        self.word(offset_of!(CgroupUsage, cgroup_id))
    }

    /// What the next walk is to tell.
    fn wanted(&self) -> &AtomicU64 {
        self.word(offset_of!(CgroupUsage, told))
    }

    /// The word at an offset in the first cell.
    fn word(&self, offset: usize) -> &AtomicU64 {
        let word = self.first().wrapping_byte_add(offset);
        // SAFETY: the mapped memory begins with a cell, which has an aligned word there, and lives as long as `self`.
        unsafe { AtomicU64::from_ptr(word.cast()) }
    }
}

/// Whether two mount points show the same hierarchy.
fn same_mount(one: &Path, other: &Path) -> bool {
    let device = |point: &Path| std::fs::metadata(point).ok().map(|found| found.dev());
    one == other || device(one).zip(device(other)).is_some_and(|(one, other)| one == other)
}

/// Has the program called for the cgroup that is mounted at `mount` and all below it, whenever the link is walked.
fn link(program: BorrowedFd<'_>, mount: &Path) -> io::Result<OwnedFd> {
    let cgroup = File::open(mount)?;
    let number = |fd: libc::c_int| u32::try_from(fd).map_err(io::Error::other);
    let iterator = CgroupIterator {
        order: BPF_CGROUP_ITER_DESCENDANTS_PRE,
        cgroup_fd: number(cgroup.as_raw_fd())?,
        cgroup_id: 0,
    };
    let attributes = LinkAttributes {
        prog_fd: number(program.as_raw_fd())?,
        target_fd: 0,
        attach_type: BPF_TRACE_ITER,
        flags: 0,
        iter_info: (&raw const iterator).addr() as u64,
        iter_info_len: CGROUP_ITERATOR_BYTES,
        pad: 0,
    };
    descriptor(BPF_LINK_CREATE, &attributes)
}

/// Calls the program of a link for each of its cgroups.
fn walk(link: BorrowedFd<'_>) -> io::Result<()> {
    let link_fd = u32::try_from(link.as_raw_fd()).map_err(io::Error::other)?;
    let iterator = descriptor(BPF_ITER_CREATE, &IteratorAttributes { link_fd, flags: 0 })?;
    let mut iterator = File::from(iterator);
    // The program writes no text: the end is all that there is to read.
    let mut none = [0; 64];
    while iterator.read(&mut none)? > 0 {}
    Ok(())
}

/// Calls bpf(2) for a command that gives a descriptor.
fn descriptor<T>(command: libc::c_int, attributes: &T) -> io::Result<OwnedFd> {
    // SAFETY: the attributes are a live struct of the size given, and what they point to lives as long as the caller's.
    let result = unsafe {
        libc::syscall(libc::SYS_bpf, command, std::ptr::from_ref(attributes), size_of::<T>())
    };
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    let fd = libc::c_int::try_from(result).map_err(io::Error::other)?;
    // SAFETY: the kernel has just opened it, for nobody else.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}
