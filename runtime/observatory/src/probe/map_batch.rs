//! Reading a per-CPU hash in batches: an entry costs a fraction of what a lookup of its own does.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};
use terrarium_abi::CounterKey;

const BPF_MAP_LOOKUP_BATCH: libc::c_int = 24;

/// Entries a batch. A batch that does not hold one whole bucket of the hash fails with `ENOSPC`; buckets of a hash
/// that is at most full hold a few entries.
const BATCH: u32 = 512;

/// The part of `union bpf_attr` that concerns batches (linux/bpf.h).
#[repr(C)]
struct BatchAttributes {
    in_batch: u64,
    out_batch: u64,
    keys: u64,
    values: u64,
    count: u32,
    map_fd: u32,
    elem_flags: u64,
    flags: u64,
}

const _: () = assert!(size_of::<BatchAttributes>() == 56);

/// Calls `visit` with every key of a per-CPU hash whose values are so many `WORDS`, and the sum of each word over all CPUs. `cpus`
/// is the number of possible CPUs. A key may come twice when keys are removed meanwhile. `EINVAL` says that the kernel has
/// no batches for this kind of map (before 5.6).
pub fn read_sums<const WORDS: usize>(
    map: BorrowedFd<'_>,
    cpus: usize,
    visit: &mut impl FnMut(CounterKey, [u64; WORDS]),
) -> io::Result<()> {
    let empty =
        CounterKey { cgroup_id: 0, memory_cgroup_id: 0, kind: terrarium_abi::Kind(0), pad: 0 };
    let mut keys = vec![empty; BATCH as usize];
    let mut values = vec![[0_u64; WORDS]; BATCH as usize * cpus];
    // The position between batches: for hashes the kernel uses four bytes of it.
    let mut position = [0_u64; 2];
    let mut first = true;
    loop {
        let mut attributes = BatchAttributes {
            in_batch: if first { 0 } else { (&raw const position).addr() as u64 },
            out_batch: (&raw mut position).addr() as u64,
            keys: keys.as_mut_ptr().addr() as u64,
            values: values.as_mut_ptr().addr() as u64,
            count: BATCH,
            map_fd: u32::try_from(map.as_raw_fd()).map_err(io::Error::other)?,
            elem_flags: 0,
            flags: 0,
        };
        // SAFETY: keys and values have room for `count` entries of the map's sizes (checked when the map was
        // opened), position for the map's key, and the attributes are a live struct of the size given.
        let result = unsafe {
            libc::syscall(
                libc::SYS_bpf,
                BPF_MAP_LOOKUP_BATCH,
                &raw mut attributes,
                size_of::<BatchAttributes>(),
            )
        };
        let error = (result < 0).then(io::Error::last_os_error);
        let ended = match &error {
            None => false,
            // The last batch says so by ENOENT, and holds entries all the same.
            Some(e) if e.raw_os_error() == Some(libc::ENOENT) => true,
            Some(_) => return Err(error.unwrap_or_else(|| io::Error::other("no error"))),
        };
        let count = attributes.count as usize;
        for (key, values) in keys.iter().zip(values.chunks_exact(cpus)).take(count) {
            visit(*key, sum_words(values));
        }
        if ended {
            return Ok(());
        }
        first = false;
    }
}

/// The sum of each word over all CPUs.
pub fn sum_words<const WORDS: usize>(values: &[[u64; WORDS]]) -> [u64; WORDS] {
    let mut sums = [0; WORDS];
    for value in values {
        for (sum, word) in sums.iter_mut().zip(value) {
            *sum += word;
        }
    }
    sums
}
