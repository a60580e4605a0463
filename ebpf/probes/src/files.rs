//! Open files of a task.

use crate::kernel::{NULL, Probed, Ptr, config};
use aya_ebpf::helpers::generated::bpf_probe_read_kernel_str;
use terrarium_abi::ABSENT;

/// The `struct file` behind a descriptor of the task.
#[inline(always)]
pub fn file_of(task: Ptr, fd: u32) -> Option<Ptr> {
    let table = task.follow::<Probed>(config!(task_files)).follow::<Probed>(config!(files_fdt));
    if fd >= table.field::<Probed, u32>(config!(fdtable_max_fds)) {
        return None;
    }
    let file = table.follow::<Probed>(config!(fdtable_fd)).follow::<Probed>(fd.wrapping_mul(8));
    (!file.is_null()).then_some(file)
}

/// The magic number of the file system of an inode.
#[inline(always)]
pub fn magic_of(inode: Ptr) -> u64 {
    inode.follow::<Probed>(config!(inode_sb)).field::<Probed, u64>(config!(sb_magic))
}

/// The address of a file's name, without its folder; null when it is not known.
#[inline(always)]
pub fn name_of(file: Ptr) -> Ptr {
    file.follow::<Probed>(config!(file_dentry)).follow::<Probed>(config!(dentry_name))
}

/// The mount namespace that a file is mounted in; null for one of a filesystem that no namespace has, such as a pipe, or where the kernel
/// does not tell.
#[inline(always)]
pub fn mount_namespace_of(file: Ptr) -> Ptr {
    let offset = config!(mount_mnt);
    if offset == ABSENT || config!(file_mnt) == ABSENT || config!(mount_mnt_ns) == ABSENT {
        return NULL;
    }
    // `struct vfsmount` is a part of `struct mount`.
    let inner = file.follow::<Probed>(config!(file_mnt));
    let mount = inner.back(offset);
    let namespace = mount.follow::<Probed>(config!(mount_mnt_ns));
    // `MNT_NS_INTERNAL` is an error as a pointer (fs/mount.h).
    let is_error = namespace.0.addr() as i64 >= -4095 && (namespace.0.addr() as i64) < 0;
    if is_error { NULL } else { namespace }
}

/// The longest name that [`short_name`] tells.
const SHORT: usize = 24;

/// A short name, NUL-padded, as words that compare in three instructions; longer names are cut and equal none.
pub type ShortName = [u64; SHORT / 8];

/// Whether two short names are the same, without a call of `memcmp`.
#[inline(always)]
pub fn same(a: &ShortName, b: &ShortName) -> bool {
    (a[0] ^ b[0]) | (a[1] ^ b[1]) | (a[2] ^ b[2]) == 0
}

/// A name known in advance.
pub const fn short(name: &[u8]) -> ShortName {
    let mut bytes = [0; SHORT];
    let mut n = 0;
    while n < name.len() {
        bytes[n] = name[n];
        n += 1;
    }
    as_words(bytes)
}

const fn as_words(bytes: [u8; SHORT]) -> ShortName {
    let mut words = [0; SHORT / 8];
    let mut n = 0;
    while n < SHORT {
        words[n / 8] |= (bytes[n] as u64) << (8 * (n % 8));
        n += 1;
    }
    words
}

/// The name of a file.
#[inline(always)]
pub fn short_name(file: Ptr) -> ShortName {
    if config!(file_dentry) == ABSENT || config!(dentry_name) == ABSENT {
        return [0; SHORT / 8];
    }
    short_text(name_of(file))
}

/// A string of the kernel.
#[inline(always)]
pub fn short_text(address: Ptr) -> ShortName {
    let mut words = [0; SHORT / 8];
    // SAFETY: the destination is `words`, of the size given; the helper checks the source.
    unsafe {
        bpf_probe_read_kernel_str(words.as_mut_ptr().cast(), SHORT as u32, address.0.cast());
    }
    words
}
