//! A program followed from system call to system call, and killed at one of them (ptrace(2)).

use nix::sys::ptrace;
use nix::sys::signal::Signal;
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;
use std::os::unix::process::CommandExt;
use std::process::Command;

/// Runs `command` and kills it with SIGKILL when it stops for the `point`th time, on its way into or out of a system
/// call, counted from 1; its children are not followed. Gives the number of stops until its end.
pub fn run_until(command: &mut Command, point: usize) -> usize {
    // SAFETY: ptrace(2) may be called between fork and exec.
    unsafe { command.pre_exec(|| Ok(ptrace::traceme()?)) };
    let mut child = command.spawn().expect("the program can be started");
    let pid = Pid::from_raw(i32::try_from(child.id()).expect("a process id is positive"));
    // The stop after execve.
    waitpid(pid, None).expect("the child is ours");
    let options = ptrace::Options::PTRACE_O_TRACESYSGOOD | ptrace::Options::PTRACE_O_EXITKILL;
    ptrace::setoptions(pid, options).expect("a stopped child takes options");
    let (mut stops, mut signal) = (0, None);
    loop {
        if ptrace::syscall(pid, signal.take()).is_err() {
            break;
        }
        match waitpid(pid, Some(WaitPidFlag::__WALL)) {
            Ok(WaitStatus::PtraceSyscall(_)) => {
                stops += 1;
                if stops == point {
                    ptrace::kill(pid).expect("a stopped child can be killed");
                }
            }
            Ok(WaitStatus::Stopped(_, Signal::SIGTRAP)) => {}
            // Signals are its own affair.
            Ok(WaitStatus::Stopped(_, other)) => signal = Some(other),
            Ok(WaitStatus::Exited(..) | WaitStatus::Signaled(..)) | Err(_) => break,
            Ok(_) => {}
        }
    }
    // It was reaped above; this only takes note.
    let _ = child.wait();
    stops
}
