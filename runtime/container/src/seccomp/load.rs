//! A compiled filter is put on the calling thread.

use super::{Filter, SeccompError};
use std::io;
use std::os::fd::{FromRawFd, OwnedFd};

impl Filter {
    /// Loads the filter for the calling thread and everything that it starts later (seccomp(2)).
    ///
    /// Gives the descriptor on which notifications arrive when the profile has `SCMP_ACT_NOTIFY`.
    /// Allocates nothing: it may be called between clone and exec.
    ///
    /// # Errors
    /// The kernel's refusal: EACCES without `no_new_privs` and without `CAP_SYS_ADMIN`, EINVAL for a flag that this kernel
    /// does not know, EBUSY where a listener is there already.
    pub fn load(&self) -> Result<Option<OwnedFd>, SeccompError> {
        let instructions = self.program.len();
        let program = libc::sock_fprog {
            len: u16::try_from(instructions).map_err(|_| SeccompError::TooLong { instructions })?,
            // The kernel only reads it; the field is not const because C's declaration is not.
            filter: self.program.as_ptr().cast_mut(),
        };
        // SAFETY: `program` and the instructions that it points to outlive the call, and `len` is their number.
        let result = unsafe {
            libc::syscall(
                libc::SYS_seccomp,
                libc::SECCOMP_SET_MODE_FILTER,
                self.flags,
                &raw const program,
            )
        };
        if result < 0 {
            let source = io::Error::last_os_error();
            let hint = match source.raw_os_error() {
                Some(libc::EACCES) => {
                    "set process.noNewPrivileges, or keep CAP_SYS_ADMIN until the filter is loaded"
                }
                Some(libc::EINVAL) => {
                    "this kernel does not know one of linux.seccomp.flags or has no CONFIG_SECCOMP_FILTER"
                }
                Some(libc::EBUSY) => "a seccomp listener exists for this process already",
                _ => "see seccomp(2)",
            };
            return Err(SeccompError::Load { instructions, source, hint });
        }
        if !self.notifies() {
            return Ok(None);
        }
        let fd = i32::try_from(result).expect("a descriptor fits in an int");
        // SAFETY: with SECCOMP_FILTER_FLAG_NEW_LISTENER a result that is not negative is a new descriptor, ours alone.
        Ok(Some(unsafe { OwnedFd::from_raw_fd(fd) }))
    }
}

#[cfg(test)]
mod tests {
    use crate::seccomp::{compile, default_profile};

    #[test]
    fn the_default_profile_denies_mount_and_lets_the_rest_work() {
        let filter = compile(&default_profile(&[])).unwrap();
        // A filter holds for the thread that loads it: the other tests' threads stay free.
        std::thread::spawn(move || {
            // SAFETY: prctl with these constants reads no memory of ours.
            assert_eq!(unsafe { libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) }, 0);
            assert!(filter.load().unwrap().is_none());
            // SAFETY: unshare(0) changes nothing where it is allowed.
            assert_eq!(unsafe { libc::unshare(0) }, -1);
            assert_eq!(std::io::Error::last_os_error().raw_os_error(), Some(libc::EPERM));
            assert!(std::fs::read_to_string("/proc/self/status").is_ok());
        })
        .join()
        .unwrap();
    }
}
