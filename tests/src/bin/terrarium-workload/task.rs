//! Processes and threads.

use crate::{Answer, argument};
use nix::errno::Errno;
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::{ForkResult, Pid, execv, pause};
use serde_json::{Value, json};
use std::ffi::CString;
use std::time::Duration;

/// One clone that makes a process which runs `child` and exits with the code that it gives.
///
/// Nothing of the parent's is dropped or flushed in the child.
pub(crate) fn fork_child(child: impl FnOnce() -> u8) -> Result<Pid, Errno> {
    // SAFETY: the program has no other thread at this moment (`threads` joins each before it starts the next),
    // so no lock, the allocator's included, can be held by a thread that the child lacks.
    match unsafe { nix::unistd::fork() }? {
        ForkResult::Parent { child } => Ok(child),
        ForkResult::Child => {
            let code = child();
            // SAFETY: `_exit` takes a plain integer, never returns and runs no code of this process.
            unsafe { libc::_exit(i32::from(code)) }
        }
    }
}

/// Waits for `child`: its exit code, or 128 + n after signal n.
pub(crate) fn code_of(child: Pid) -> Result<i32, Errno> {
    loop {
        match waitpid(child, None) {
            Ok(WaitStatus::Exited(_, code)) => return Ok(code),
            Ok(WaitStatus::Signaled(_, signal, _)) => return Ok(128 + signal as i32),
            Ok(_) | Err(Errno::EINTR) => {}
            Err(errno) => return Err(errno),
        }
    }
}

/// `fork N`: N processes, one after the other, each of which exits at once.
pub(crate) fn fork(arguments: &[&str]) -> Answer {
    let count: u64 = argument(arguments, 0, "number of forks")?;
    for done in 0..count {
        fork_child(|| 0)
            .and_then(code_of)
            .map_err(|errno| format!("fork {done} of {count}: {errno}"))?;
    }
    Ok(json!({"forks": count}))
}

/// `threads N`: N threads, one after the other.
pub(crate) fn threads(arguments: &[&str]) -> Answer {
    let count: u64 = argument(arguments, 0, "number of threads")?;
    for done in 0..count {
        std::thread::Builder::new()
            .spawn(|| {})
            .map_err(|error| format!("thread {done} of {count}: {error}"))?
            .join()
            .map_err(|_| format!("thread {done} of {count} panicked"))?;
    }
    Ok(json!({"threads": count}))
}

/// `headless N`: N threads that stay, while the one that was there first ends. It does not answer.
pub(crate) fn headless(arguments: &[&str]) -> Answer {
    let count: u64 = argument(arguments, 0, "number of threads")?;
    let wait = || {
        loop {
            pause();
        }
    };
    for done in 0..count {
        std::thread::Builder::new()
            .spawn(wait)
            .map_err(|error| format!("thread {done} of {count}: {error}"))?;
    }
    // SAFETY: exit(2), not that of the C library, ends this thread alone; nothing of what it has is used by the others.
    unsafe { libc::syscall(libc::SYS_exit, 0) };
    Err("the first thread has not ended".to_owned())
}

/// `exec N`: N forks, each of which executes this program again.
pub(crate) fn exec(arguments: &[&str]) -> Answer {
    let count: u64 = argument(arguments, 0, "number of execs")?;
    let words = [c"terrarium-workload".to_owned(), c"true".to_owned()];
    for done in 0..count {
        let code = fork_child(|| {
            let _ = execv(c"/proc/self/exe", &words);
            127
        })
        .and_then(code_of)
        .map_err(|errno| format!("exec {done} of {count}: {errno}"))?;
        if code != 0 {
            return Err(format!("exec {done} of {count}: the program ended with {code}"));
        }
    }
    Ok(json!({"execs": count, "forks": count}))
}

/// `exit CODE`.
pub(crate) fn exit(arguments: &[&str]) -> Answer {
    std::process::exit(argument(arguments, 0, "exit code")?)
}

/// `crash`: ends by SIGSEGV, which the kernel delivers to pid 1 of a namespace too because a fault raised it.
pub(crate) fn crash(_: &[&str]) -> Answer {
    // SAFETY: nothing: address 0 is unmapped (vm.mmap_min_addr), so the store faults, which is what is asked for.
    unsafe { std::ptr::without_provenance_mut::<u8>(1).write_volatile(1) };
    Err("the store to an unmapped address did not fault".to_owned())
}

/// `sleep SECONDS`.
pub(crate) fn sleep(arguments: &[&str]) -> Answer {
    std::thread::sleep(Duration::from_secs_f64(argument(arguments, 0, "seconds")?));
    Ok(json!({}))
}

/// `nap`: a process that stays until `wake PID`.
pub(crate) fn nap(_: &[&str]) -> Answer {
    let child = fork_child(|| {
        loop {
            pause();
        }
    })
    .map_err(|errno| format!("fork: {errno}"))?;
    Ok(json!({"pid": child.as_raw()}))
}

/// `wake PID`: ends a process of `nap`, `hold` or `serve` and reaps it.
pub(crate) fn wake(arguments: &[&str]) -> Answer {
    let child = Pid::from_raw(argument(arguments, 0, "pid")?);
    // A process that the kernel has killed before is still there to be reaped.
    kill(child, Signal::SIGKILL).map_err(|errno| format!("kill {child}: {errno}"))?;
    let code = code_of(child).map_err(|errno| format!("wait for {child}: {errno}"))?;
    Ok(json!({"code": code}))
}

/// `run PROGRAM ARGUMENTS…`: runs a program of the root filesystem and gives its output.
pub(crate) fn run(arguments: &[&str]) -> Answer {
    let [program, arguments @ ..] = arguments else {
        return Err("program is missing".to_owned());
    };
    // A name with a zero byte cannot come in: arguments and lines are split by it before.
    CString::new(*program).map_err(|error| format!("program {program}: {error}"))?;
    let output = std::process::Command::new(program)
        .args(arguments)
        .stdin(std::process::Stdio::null())
        .output()
        .map_err(|error| format!("run {program}: {error}"))?;
    Ok(json!({
        "code": output.status.code().map_or(Value::Null, |code| json!(code)),
        "stdout": String::from_utf8_lossy(&output.stdout),
        "stderr": String::from_utf8_lossy(&output.stderr),
    }))
}
