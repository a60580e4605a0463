//! Reading strings into records.

use crate::kernel::Ptr;
use aya_ebpf::helpers::generated::{bpf_probe_read_kernel_str, bpf_probe_read_user_str};
use terrarium_abi::header::flags;

/// Reads a string of the kernel into a zeroed field. Gives its length without the NUL and bits for `Header::flags`.
#[inline(always)]
pub fn read_kernel_text<const N: usize>(out: &mut [u8; N], from: Ptr) -> (u32, u32) {
    // SAFETY: the destination is `out`, of the size given; the helper checks the source.
    let len =
        unsafe { bpf_probe_read_kernel_str(out.as_mut_ptr().cast(), N as u32, from.0.cast()) };
    outcome::<N>(len)
}

/// Reads a string of the task's memory into a zeroed field; no address is an empty string.
#[inline(always)]
pub fn read_user_text<const N: usize>(out: &mut [u8; N], from: u64) -> u32 {
    if from == 0 {
        return 0;
    }
    // SAFETY: the destination is `out`, of the size given; the helper checks the source.
    let len =
        unsafe { bpf_probe_read_user_str(out.as_mut_ptr().cast(), N as u32, from as *const _) };
    outcome::<N>(len).1
}

#[inline(always)]
fn outcome<const N: usize>(len: i64) -> (u32, u32) {
    if len <= 0 {
        return (0, flags::UNREADABLE);
    }
    let with_nul = len.unsigned_abs() as usize;
    // The helpers cut without a word: a string that fills the field exactly may be longer.
    (with_nul as u32 - 1, if with_nul == N { flags::TRUNCATED } else { 0 })
}
