//! Where a static executable begins, before the C library: a command whose children execute what images bring is
//! executed again at once, from a read-only mount ([`terrarium_container::run_sealed`] says why).
//!
//! That is done a first time by `main`, too, but then the C library and Rust have started in vain: on a virtual machine
//! that costs 0.3 ms and more, for the C library asks the processor about its caches, and each `cpuid` leaves the
//! guest. Here it costs five system calls. Whatever fails here is left to `main`, which knows more ways and
//! what to say.
//!
//! Nothing of the C library may be used here, not even `memcpy`: its relocations have not been applied.

use core::ffi::{CStr, c_char};
use core::sync::atomic::{AtomicBool, Ordering};

// The stack holds argc, argv, envp (System V ABI, AMD64 supplement, "Initial Stack and Register State"); rdx belongs
// to the C library. At a function call the stack is aligned to 16 bytes.
core::arch::global_asm!(
    ".pushsection .text.terrarium_entry, \"ax\", @progbits",
    ".globl terrarium_entry",
    ".type terrarium_entry, @function",
    "terrarium_entry:",
    "mov rbx, rsp",
    "mov r12, rdx",
    "mov rdi, rsp",
    "and rsp, -16",
    "call {seal}",
    "mov rsp, rbx",
    "mov rdx, r12",
    "xor ebp, ebp",
    "jmp _start",
    ".size terrarium_entry, . - terrarium_entry",
    ".popsection",
    seal = sym seal,
);

/// Whether [`seal`] found this program on a read-only mount.
static SEALED: AtomicBool = AtomicBool::new(false);

/// Whether this program is known to lie on a read-only mount.
pub fn is_sealed() -> bool {
    SEALED.load(Ordering::Relaxed)
}

/// Commands that [`crate::commands::may_execute_images`] means.
const NAMES: [&CStr; 4] = [c"run", c"create", c"exec", c"restart"];

/// `struct mount_attr` (include/uapi/linux/mount.h).
#[repr(C)]
struct MountAttr {
    set: u64,
    clear: u64,
    propagation: u64,
    user_namespace: u64,
}

/// `ST_RDONLY` of `struct statfs`, and where its `f_flags` lie, counted in words: behind `f_frsize` (statfs(2); the libc
/// crate has no name for them).
const READ_ONLY: u64 = libc::ST_RDONLY;
const FLAGS: usize = core::mem::offset_of!(libc::statfs, f_frsize) / size_of::<u64>() + 1;
const STATFS_WORDS: usize = size_of::<libc::statfs>() / size_of::<u64>();

/// Executes this program again, from a read-only mount; returns where there is no need or no way.
unsafe extern "C" fn seal(stack: *const usize) {
    // SAFETY: the kernel has put argc there.
    let count = unsafe { stack.read() };
    // SAFETY: argv follows.
    let args = unsafe { stack.add(1) };
    // SAFETY: after the zero that ends argv comes envp.
    let env = unsafe { stack.add(count + 2) };
    // SAFETY: argv holds `count` strings.
    if !unsafe { names_one(args.cast(), count) } {
        return;
    }
    let own = open_own();
    if own < 0 || is_read_only(own) {
        SEALED.store(own >= 0, Ordering::Relaxed);
        close(own);
        return;
    }
    let mount = read_only_mount(own);
    if mount >= 0 {
        let empty = c"".as_ptr().addr();
        let words =
            [mount.cast_unsigned(), empty, args.addr(), env.addr(), libc::AT_EMPTY_PATH as usize];
        // SAFETY: execveat reads strings and two lists of them that end with zero, as the kernel has made them.
        unsafe { call(libc::SYS_execveat, words) };
        close(mount);
    }
    close(own);
}

/// Whether one of the `count` strings at `args` is one of [`NAMES`].
unsafe fn names_one(args: *const *const c_char, count: usize) -> bool {
    let mut n = 1;
    while n < count {
        // SAFETY: `n` is below the number of strings.
        let at = unsafe { args.add(n) };
        // SAFETY: the kernel has put a pointer there.
        let arg = unsafe { at.read() };
        for name in &NAMES {
            // SAFETY: both are strings that end with zero.
            if unsafe { are_equal(arg, name.as_ptr()) } {
                return true;
            }
        }
        n += 1;
    }
    false
}

unsafe fn are_equal(a: *const c_char, b: *const c_char) -> bool {
    let mut n = 0;
    loop {
        // SAFETY: `a` has not ended before `n`.
        let at_a = unsafe { a.add(n) };
        // SAFETY: nor has `b`, which was equal so far.
        let at_b = unsafe { b.add(n) };
        // SAFETY: it lies in the string, or is its end. Volatile: or the loop would become a call of strcmp.
        let of_a = unsafe { at_a.read_volatile() };
        // SAFETY: as above.
        let of_b = unsafe { at_b.read_volatile() };
        if of_a != of_b {
            return false;
        }
        if of_a == 0 {
            return true;
        }
        n += 1;
    }
}

fn open_own() -> isize {
    let path = c"/proc/self/exe".as_ptr().addr();
    let flags = (libc::O_PATH | libc::O_CLOEXEC) as usize;
    let here = (libc::AT_FDCWD as isize).cast_unsigned();
    // SAFETY: openat reads a string.
    unsafe { call(libc::SYS_openat, [here, path, flags, 0, 0]) }
}

fn close(fd: isize) {
    // SAFETY: the descriptor is this module's own, or negative, which is refused.
    unsafe { call(libc::SYS_close, [fd.cast_unsigned(), 0, 0, 0, 0]) };
}

/// Whether the file lies on a read-only mount.
fn is_read_only(file: isize) -> bool {
    let mut words = core::mem::MaybeUninit::<[u64; STATFS_WORDS]>::uninit();
    let at = words.as_mut_ptr();
    // SAFETY: fstatfs fills a struct statfs, and there is room for one.
    let result = unsafe { call(libc::SYS_fstatfs, [file.cast_unsigned(), at.addr(), 0, 0, 0]) };
    if result < 0 {
        return false;
    }
    // SAFETY: the word is one of the struct's.
    let flags = unsafe { at.cast::<u64>().add(FLAGS) };
    // SAFETY: the kernel has filled it.
    let flags = unsafe { flags.read_volatile() };
    flags & READ_ONLY != 0
}

/// A mount of the file alone that nobody can write by; negative where that cannot be made.
fn read_only_mount(file: isize) -> isize {
    let empty = c"".as_ptr().addr();
    let here = libc::AT_EMPTY_PATH as usize;
    let flags = (libc::OPEN_TREE_CLONE | libc::OPEN_TREE_CLOEXEC) as usize | here;
    // SAFETY: open_tree reads a string.
    let mount = unsafe { call(libc::SYS_open_tree, [file.cast_unsigned(), empty, flags, 0, 0]) };
    if mount < 0 {
        return mount;
    }
    let change =
        MountAttr { set: libc::MOUNT_ATTR_RDONLY, clear: 0, propagation: 0, user_namespace: 0 };
    let (at, size) = ((&raw const change).addr(), size_of::<MountAttr>());
    // SAFETY: mount_setattr reads a string and a struct mount_attr.
    let result =
        unsafe { call(libc::SYS_mount_setattr, [mount.cast_unsigned(), empty, here, at, size]) };
    if result < 0 {
        close(mount);
        return result;
    }
    mount
}

/// A system call of at most five arguments: its result, or an error number below zero.
unsafe fn call(number: libc::c_long, words: [usize; 5]) -> isize {
    let [a, b, c, d, e] = words;
    let mut result = number as isize;
    // SAFETY: the caller answers for the arguments; rcx and r11 are what the kernel overwrites.
    unsafe {
        core::arch::asm!(
            "syscall",
            inout("rax") result,
            in("rdi") a,
            in("rsi") b,
            in("rdx") c,
            in("r10") d,
            in("r8") e,
            lateout("rcx") _,
            lateout("r11") _,
            options(nostack),
        );
    }
    result
}
