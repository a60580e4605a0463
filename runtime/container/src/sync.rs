//! The talk between the runtime and the container's first process, over one `SOCK_SEQPACKET` pair.
//!
//! ```text
//! first process                            runtime
//!   joins its v1 cgroups
//!                       <- IdsMapped       wrote uid_map and gid_map (with a user namespace only; one that is
//!                                          joined has them);
//!                                          carries the idmapped root filesystem where there is one
//!   Joined              ->                 all namespaces and cgroups are final; carries a netlink
//!                                          socket of the network namespace where a bridge is asked for
//!   mounts                                 makes the veth pair, writes the state
//!   Mounted             ->                 runs its hooks, if there are any
//!                       <- Resume
//!   Terminal            ->                 takes the master of the terminal, if there is one
//!   pivots, drops rights
//!   Listener            ->                 hands the seccomp listener to its agent, if there is one; with
//!                                          noNewPrivileges it comes behind Start
//!   Ready               ->
//!                       <- Start
//!   execve              -> (end of file)
//! ```
//!
//! Where a user namespace is joined, a process in between enters it, clones the first one and says `Cloned`.
//!
//! At any point `Failed` may come instead, and end of file instead of `Start` means that the runtime is gone:
//! the first process then exits. `run` sends `Start` ahead, so that nobody waits for an answer.
//!
//! After `create` nobody is there any more: the first process listens on the socket `start.sock` in the container's
//! folder, and goes on with whoever connects: `start`.

use crate::explain::Step;
use nix::cmsg_space;
use nix::errno::Errno;
use nix::sys::socket::{
    AddressFamily, ControlMessage, ControlMessageOwned, MsgFlags, SockFlag, SockType, recv,
    recvmsg, sendmsg, socketpair,
};
use serde::{Deserialize, Serialize};
use std::io::{self, IoSlice, IoSliceMut};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};

/// Longest message; a failure's text is cut to fit.
const MAX: usize = 4096;

/// One message.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Message {
    /// The first process is there, in a user namespace that was joined; carries a descriptor for it.
    Cloned,
    /// The id maps are written.
    IdsMapped,
    /// Namespaces and cgroups are final.
    Joined,
    /// The root filesystem is mounted: the runtime's hooks may run.
    Mounted,
    /// They have run.
    Resume,
    /// Carries the master of the container's terminal.
    Terminal,
    /// Carries the listener of the seccomp filter.
    Listener,
    /// What the first process did (`--explain`).
    Step(Step),
    /// Everything is set up.
    Ready,
    /// Execute the program.
    Start,
    /// Set-up or execution failed.
    Failed(Report),
}

/// A failure, as it crosses the socket.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Report {
    /// What kind of failure.
    pub kind: FailureKind,
    /// What was tried.
    pub step: String,
    /// On what.
    pub on: String,
    /// The kernel's answer.
    pub errno: i32,
    /// What to do.
    pub hint: String,
}

/// What kind of failure it was; decides the exit code.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum FailureKind {
    /// The container could not be set up.
    SetUp,
    /// There is no such program.
    NotFound,
    /// The program cannot be executed.
    NotExecutable,
}

/// One end of the pair.
#[derive(Debug)]
pub(crate) struct Socket(OwnedFd);

/// Makes the pair, close-on-exec.
pub(crate) fn pair() -> io::Result<(Socket, Socket)> {
    let (a, b) =
        socketpair(AddressFamily::Unix, SockType::SeqPacket, None, SockFlag::SOCK_CLOEXEC)?;
    Ok((Socket(a), Socket(b)))
}

impl Socket {
    /// Sends `message`, with a descriptor if there is one.
    pub(crate) fn send(&self, message: &Message, fd: Option<RawFd>) -> io::Result<()> {
        let mut bytes = serde_json::to_vec(message)?;
        if bytes.len() > MAX
            && let Message::Failed(report) = message
        {
            let mut report = report.clone();
            report.on.truncate(report.on.floor_char_boundary(512));
            report.hint.clear();
            bytes = serde_json::to_vec(&Message::Failed(report))?;
        }
        let fds: Vec<RawFd> = fd.into_iter().collect();
        let rights = [ControlMessage::ScmRights(&fds)];
        let control = if fds.is_empty() { &rights[..0] } else { &rights[..] };
        let slices = [IoSlice::new(&bytes)];
        // MSG_NOSIGNAL: a peer that is gone is an error, not a signal.
        sendmsg::<()>(self.0.as_raw_fd(), &slices, control, MsgFlags::MSG_NOSIGNAL, None)?;
        Ok(())
    }

    /// Waits for a message; none at end of file.
    pub(crate) fn receive(&self) -> io::Result<Option<(Message, Option<OwnedFd>)>> {
        let length = self.pending()?;
        if length == 0 {
            return Ok(None);
        }
        // Most are of a few bytes: a buffer for the longest would touch pages that are the other process's as well, and so be
        // copied.
        let mut bytes = vec![0_u8; length];
        let mut control = cmsg_space!(RawFd);
        let fd = loop {
            let mut slices = [IoSliceMut::new(&mut bytes)];
            let flags = MsgFlags::MSG_CMSG_CLOEXEC;
            match recvmsg::<()>(self.0.as_raw_fd(), &mut slices, Some(&mut control), flags) {
                Err(error) if is_passing(error) => {}
                Err(error) => return Err(error.into()),
                Ok(received) => {
                    let mut fd = None;
                    for message in received.cmsgs()? {
                        if let ControlMessageOwned::ScmRights(fds) = message {
                            for raw in fds {
                                // SAFETY: the kernel just installed this descriptor for us; nobody else
                                // knows its number.
                                fd = Some(unsafe { OwnedFd::from_raw_fd(raw) });
                            }
                        }
                    }
                    break fd;
                }
            }
        };
        let message = serde_json::from_slice(&bytes)?;
        Ok(Some((message, fd)))
    }

    /// Waits for a message: how long it is, 0 at end of file.
    fn pending(&self) -> io::Result<usize> {
        loop {
            // With MSG_TRUNC the answer is the length of the whole, see recv(2).
            let flags = MsgFlags::MSG_PEEK | MsgFlags::MSG_TRUNC;
            match recv(self.0.as_raw_fd(), &mut [], flags) {
                Err(error) if is_passing(error) => {}
                result => return Ok(result?),
            }
        }
    }
}

/// Whether to ask again. ECONNRESET comes once, ahead of what the peer has sent, where it went with messages unread
/// (`unix_release_sock` in `net/unix/af_unix.c`): its failure stands behind, and then end of file.
fn is_passing(error: Errno) -> bool {
    matches!(error, Errno::EINTR | Errno::ECONNRESET)
}

impl From<OwnedFd> for Socket {
    fn from(fd: OwnedFd) -> Self {
        Self(fd)
    }
}

impl AsRawFd for Socket {
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_raw_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_and_descriptors_arrive_in_order_and_the_end_is_seen() {
        let (a, b) = pair().unwrap();
        let file = std::fs::File::open("/dev/null").unwrap();
        a.send(&Message::Joined, Some(file.as_raw_fd())).unwrap();
        let report = Report {
            kind: FailureKind::NotFound,
            step: "execute".into(),
            on: "é".repeat(5000),
            errno: libc::ENOENT,
            hint: "none".into(),
        };
        a.send(&Message::Failed(report), None).unwrap();
        drop(a);
        let (message, fd) = b.receive().unwrap().unwrap();
        assert_eq!(message, Message::Joined);
        assert!(fd.is_some());
        let (message, fd) = b.receive().unwrap().unwrap();
        assert!(fd.is_none());
        let Message::Failed(report) = message else { panic!("{message:?}") };
        assert_eq!((report.errno, report.on.chars().count()), (libc::ENOENT, 256));
        assert!(b.receive().unwrap().is_none());
        assert!(b.send(&Message::Start, None).is_err(), "no SIGPIPE");
    }

    #[test]
    fn what_the_peer_said_is_read_though_it_went_with_messages_unread() {
        let (a, b) = pair().unwrap();
        b.send(&Message::Start, None).unwrap();
        a.send(&Message::Ready, None).unwrap();
        drop(a);
        assert!(matches!(b.receive().unwrap(), Some((Message::Ready, None))));
        assert!(b.receive().unwrap().is_none());
    }
}
