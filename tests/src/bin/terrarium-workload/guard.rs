//! Calls that escapes from containers are made of.

use crate::task::{code_of, fork_child};
use crate::{Answer, Tally, argument};
use nix::errno::Errno;
use nix::sys::signal::{Signal, kill};
use nix::unistd::pause;
use serde_json::json;
use std::ffi::CString;

/// A system call with up to five arguments; integers and addresses alike are words.
fn call(number: libc::c_long, arguments: [usize; 5]) -> Result<i64, Errno> {
    let [first, second, third, fourth, fifth] = arguments;
    // SAFETY: the addresses among the arguments are 0 or of values that live in the caller, which names what the
    // call reads and writes.
    Errno::result(unsafe { libc::syscall(number, first, second, third, fourth, fifth) })
}

/// `guard CALL N [PATH|PID]`: N such calls, harmless ones; those on a process are on this one unless another is named.
pub(crate) fn guard(arguments: &[&str]) -> Answer {
    let name = *arguments.first().unwrap_or(&"");
    let count: u64 = argument(arguments, 1, "number of calls")?;
    let path =
        CString::new(*arguments.get(2).unwrap_or(&"/")).map_err(|error| error.to_string())?;
    let address = path.as_ptr().addr();
    let own = usize::try_from(std::process::id()).map_err(|error| error.to_string())?;
    let target = arguments.get(2).and_then(|text| text.parse().ok()).unwrap_or(own);
    let mut allow = libc::sock_filter { code: 6, jt: 0, jf: 0, k: libc::SECCOMP_RET_ALLOW };
    let program = libc::sock_fprog { len: 1, filter: &raw mut allow };
    let filter = (&raw const program).addr();
    let mut tally = Tally::default();
    for _ in 0..count {
        let result = match name {
            "ptrace" => seize_a_child(),
            // PTRACE_SEIZE
            "ptrace-of" => call(libc::SYS_ptrace, [0x4206, target, 0, 0, 0]),
            "chroot" => call(libc::SYS_chroot, [address, 0, 0, 0, 0]),
            "capset" => capset(),
            // KEYCTL_GET_KEYRING_ID of the session keyring, which is not made when there is none.
            "keyctl" => call(libc::SYS_keyctl, [0, usize::MAX - 2, 0, 0, 0]),
            "userfaultfd" => close(call(libc::SYS_userfaultfd, [1, 0, 0, 0, 0])),
            // BPF_PROG_LOAD of nothing, and BPF_MAP_LOOKUP_ELEM, which is no guarded call.
            "bpf" => call(libc::SYS_bpf, [5, 0, 0, 0, 0]),
            "bpf-read" => call(libc::SYS_bpf, [1, 0, 0, 0, 0]),
            "seccomp" => call(libc::SYS_seccomp, [1, 0, filter, 0, 0]),
            "prctl-seccomp" => call(libc::SYS_prctl, [22, 2, filter, 0, 0]),
            // AF_NETLINK, SOCK_RAW, NETLINK_ROUTE
            "route-socket" => close(call(libc::SYS_socket, [16, 3, 0, 0, 0])),
            "init-module" => call(libc::SYS_init_module, [0, 0, address, 0, 0]),
            "open-by-handle" => call(libc::SYS_open_by_handle_at, [usize::MAX, 0, 0, 0, 0]),
            "perf" => call(libc::SYS_perf_event_open, [0, 0, usize::MAX, usize::MAX, 0]),
            "process-vm-write" => call(libc::SYS_process_vm_writev, [target, 0, 0, 0, 0]),
            "pidfd-getfd" => pidfd_getfd(target),
            "mknod" => {
                let result = nix::sys::stat::mknod(
                    path.as_c_str(),
                    nix::sys::stat::SFlag::S_IFCHR,
                    nix::sys::stat::Mode::S_IRUSR,
                    libc::makedev(1, 3),
                );
                if result.is_ok() {
                    let _ = nix::unistd::unlink(path.as_c_str());
                }
                result.map(|()| 0)
            }
            "write-open" => close(call(
                libc::SYS_openat,
                [usize::MAX, address, libc::O_WRONLY.cast_unsigned() as usize, 0, 0],
            )),
            "read-open" => close(call(libc::SYS_openat, [usize::MAX, address, 0, 0, 0])),
            _ => return Err(format!("unknown guarded call {name}")),
        };
        tally.add(&result);
    }
    Ok(json!(tally.answer()))
}

fn close(opened: Result<i64, Errno>) -> Result<i64, Errno> {
    let fd = i32::try_from(opened?).map_err(|_| Errno::EOVERFLOW)?;
    nix::unistd::close(fd)?;
    Ok(0)
}

/// Seizes a child of its own by ptrace; the child ends with that.
fn seize_a_child() -> Result<i64, Errno> {
    let child = fork_child(|| {
        loop {
            pause();
        }
    })?;
    let target = usize::try_from(child.as_raw()).map_err(|_| Errno::EINVAL)?;
    let result = call(libc::SYS_ptrace, [0x4206, target, 0, 0, 0]);
    kill(child, Signal::SIGKILL)?;
    code_of(child)?;
    result
}

/// Sets the capabilities that it has.
fn capset() -> Result<i64, Errno> {
    const VERSION_3: u32 = 0x2008_0522;
    let mut header = [VERSION_3, 0];
    let mut data = [0_u32; 6];
    let arguments = [header.as_mut_ptr().addr(), data.as_mut_ptr().addr(), 0, 0, 0];
    call(libc::SYS_capget, arguments)?;
    call(libc::SYS_capset, arguments)
}

/// Takes a copy of a process's standard output.
fn pidfd_getfd(of: usize) -> Result<i64, Errno> {
    let pidfd = call(libc::SYS_pidfd_open, [of, 0, 0, 0, 0])?;
    let target = usize::try_from(pidfd).map_err(|_| Errno::EINVAL)?;
    let taken = close(call(libc::SYS_pidfd_getfd, [target, 1, 0, 0, 0]));
    close(Ok(pidfd))?;
    taken
}
