//! `terrarium-init PATH ARG0 [ARG…]`: pid 1 of a container that was run with `--init`.
//!
//! Executes PATH as its child, passes on to it every signal that it gets, reaps whatever becomes its child, and ends with the
//! child's exit code, 128 + n when signal n ended it. When pid 1 ends, the kernel kills what is left.
//!
//! No standard library, no C library: it must run in any root filesystem, and be small.

#![no_std]
#![no_main]

mod start;

use start::{exit, plain, syscall};

/// Numbers of system calls.
#[cfg(target_arch = "x86_64")]
mod number {
    pub const IOCTL: usize = 16;
    pub const GETPID: usize = 39;
    pub const CLONE: usize = 56;
    pub const EXECVE: usize = 59;
    pub const WAIT4: usize = 61;
    pub const KILL: usize = 62;
    pub const SETPGID: usize = 109;
    pub const RT_SIGPROCMASK: usize = 14;
    pub const RT_SIGTIMEDWAIT: usize = 128;
}
#[cfg(target_arch = "aarch64")]
mod number {
    pub const IOCTL: usize = 29;
    pub const GETPID: usize = 172;
    pub const CLONE: usize = 220;
    pub const EXECVE: usize = 221;
    pub const WAIT4: usize = 260;
    pub const KILL: usize = 129;
    pub const SETPGID: usize = 154;
    pub const RT_SIGPROCMASK: usize = 135;
    pub const RT_SIGTIMEDWAIT: usize = 137;
}

const SIGCHLD: usize = 17;
const SIG_BLOCK: usize = 0;
const SIG_UNBLOCK: usize = 1;
const WNOHANG: usize = 1;
const TIOCSPGRP: usize = 0x5410;
const EINTR: isize = -4;
const ECHILD: isize = -10;
const ENOENT: isize = -2;

/// Blocks or unblocks every signal.
fn mask(how: usize) {
    let all: u64 = !0;
    // SAFETY: the set is 8 bytes, as the last argument says.
    unsafe { syscall(number::RT_SIGPROCMASK, [how, &raw const all as usize, 0, 8, 0]) };
}

/// Where the kernel put argc, and behind it argv and envp.
unsafe extern "C" fn main(stack: *const usize) -> ! {
    // SAFETY: the kernel wrote argc there.
    let argc = unsafe { *stack };
    if argc < 3 {
        exit(125);
    }
    // SAFETY: argc words of argv and its null end follow, then envp.
    let (argv, envp) = unsafe { (stack.add(1), stack.add(argc + 2)) };
    mask(SIG_BLOCK);
    // SAFETY: like fork(2): no flags, no stack of its own, so the child gets a copy of this one.
    let child = unsafe { syscall(number::CLONE, [SIGCHLD, 0, 0, 0, 0]) };
    if child < 0 {
        exit(125);
    }
    if child == 0 {
        start(argv, envp);
    }
    let child = child as usize;
    // A signal of `kill` and one of a terminal then reach the program alike.
    plain(number::SETPGID, child, child);
    loop {
        let all: u64 = !0;
        // SAFETY: the set is 8 bytes, as the fourth argument says; nothing is written, and there is no deadline.
        let signal =
            unsafe { syscall(number::RT_SIGTIMEDWAIT, [&raw const all as usize, 0, 0, 8, 0]) };
        if signal == SIGCHLD as isize {
            reap(child);
        } else if signal > 0 {
            plain(number::KILL, child, signal as usize);
        } else if signal != EINTR {
            exit(125);
        }
    }
}

/// Reaps everybody who has ended; ends when `child` has.
fn reap(child: usize) {
    loop {
        let mut status: i32 = 0;
        // SAFETY: the status is where the second argument says; no usage is asked for.
        let pid = unsafe {
            syscall(number::WAIT4, [usize::MAX, &raw mut status as usize, WNOHANG, 0, 0])
        };
        if pid == child as isize {
            let signal = status & 0x7f;
            let code = if signal == 0 { status >> 8 & 0xff } else { 128 + signal };
            exit(code as usize);
        }
        match pid {
            EINTR => {}
            0 | ECHILD => return,
            pid if pid < 0 => return,
            _ => {}
        }
    }
}

/// In the child: becomes the program.
fn start(argv: *const usize, envp: *const usize) -> ! {
    plain(number::SETPGID, 0, 0);
    // The terminal, if standard input is one, now reads for the program's group. SIGTTOU is still blocked.
    let own = plain(number::GETPID, 0, 0) as i32;
    // SAFETY: the group is 4 bytes; on what is no terminal this fails, and nothing depends on it.
    unsafe { syscall(number::IOCTL, [0, TIOCSPGRP, &raw const own as usize, 0, 0]) };
    mask(SIG_UNBLOCK);
    // SAFETY: argv[1] is the path, and from argv[2] on are the program's arguments up to the null end; envp ends so, too.
    let error = unsafe {
        let path = *argv.add(1);
        syscall(number::EXECVE, [path, argv.add(2) as usize, envp as usize, 0, 0])
    };
    exit(if error == ENOENT { 127 } else { 126 })
}
