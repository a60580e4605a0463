//! How often the programs ran and how long that took, as the kernel counts it where it is asked to (`BPF_ENABLE_STATS`, or
//! the sysctl `kernel.bpf_stats_enabled`).

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use terrarium_abi::Probe;

const BPF_OBJ_GET_INFO_BY_FD: libc::c_int = 15;

/// The part of `union bpf_attr` that asks what a descriptor stands for (linux/bpf.h).
#[repr(C)]
struct InfoAttributes {
    fd: u32,
    length: u32,
    info: u64,
}

/// The part of `struct bpf_prog_info` up to the counters (linux/bpf.h); the kernel fills in as much as is asked for.
#[repr(C)]
struct ProgramInfo {
    before: [u64; 24],
    run_time_ns: u64,
    run_count: u64,
}

const _: () = assert!(core::mem::offset_of!(ProgramInfo, run_time_ns) == 192);

/// What programs have cost.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct RunStats {
    /// How often they ran.
    pub runs: u64,
    /// How long that took in all, nanoseconds.
    pub ns: u64,
}

/// The attached programs, for their counters.
#[derive(Debug, Default)]
pub struct Programs {
    programs: Vec<(Probe, OwnedFd)>,
    /// While it is open the kernel counts.
    _counting: Option<OwnedFd>,
}

impl Programs {
    /// Programs by the probe that they are of, and what has the kernel count, if it was asked to.
    pub fn new(programs: Vec<(Probe, OwnedFd)>, counting: Option<OwnedFd>) -> Self {
        Self { programs, _counting: counting }
    }

    /// What the programs of each probe have cost; none where the kernel does not count.
    pub fn run_stats(&self) -> Option<[RunStats; Probe::ALL.len()]> {
        let mut all = [RunStats::default(); Probe::ALL.len()];
        for (probe, fd) in &self.programs {
            let Ok(stats) = run_stats(fd) else { continue };
            let of_probe = &mut all[*probe as usize];
            of_probe.runs += stats.runs;
            of_probe.ns += stats.ns;
        }
        all.iter().any(|stats| stats.runs > 0).then_some(all)
    }
}

fn run_stats(program: &OwnedFd) -> io::Result<RunStats> {
    let mut info = ProgramInfo { before: [0; 24], run_time_ns: 0, run_count: 0 };
    let mut attributes = InfoAttributes {
        fd: u32::try_from(program.as_raw_fd()).map_err(io::Error::other)?,
        length: u32::try_from(size_of::<ProgramInfo>()).map_err(io::Error::other)?,
        info: (&raw mut info).addr() as u64,
    };
    // SAFETY: the attributes are a live struct of the size given, and what they point to has room for `length` bytes; zeros
    // in it ask for no array to be filled in.
    let result = unsafe {
        libc::syscall(
            libc::SYS_bpf,
            BPF_OBJ_GET_INFO_BY_FD,
            &raw mut attributes,
            size_of::<InfoAttributes>(),
        )
    };
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(RunStats { runs: info.run_count, ns: info.run_time_ns })
}
