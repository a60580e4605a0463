//! The listener of a filter with `SCMP_ACT_NOTIFY` goes to the agent at `linux.seccomp.listenerPath`: over its unix socket, with
//! the "container process state" (runtime-spec, config-linux.md, "The Container Process State") as data.

use crate::console::with_short_path;
use crate::error::{Error, Result, Tried};
use crate::hooks::OciState;
use nix::sys::socket::{
    AddressFamily, ControlMessage, MsgFlags, SockFlag, SockType, UnixAddr, connect, send, sendmsg,
    socket,
};
use oci_spec::runtime::LinuxSeccomp;
use serde_json::json;
use std::io::IoSlice;
use std::os::fd::{AsRawFd, BorrowedFd};

/// Refuses an agent that nobody can reach.
pub(crate) fn check(profile: &LinuxSeccomp) -> Result<()> {
    match profile.listener_path() {
        Some(path) if path.is_absolute() && path.exists() => Ok(()),
        path => {
            let path = path.as_ref().map(|path| path.display().to_string()).unwrap_or_default();
            let reason = "it is the absolute path of the socket of an agent that runs";
            Err(Error::invalid("linux.seccomp.listenerPath", path, reason))
        }
    }
}

/// Sends `listener`, of the process `pid` of the container in `state`, to the profile's agent.
pub(crate) fn hand_over(
    profile: &LinuxSeccomp,
    state: &OciState,
    pid: i32,
    listener: BorrowedFd<'_>,
) -> Result<()> {
    let Some(path) = profile.listener_path() else { return Ok(()) };
    let words = json!({
        "ociVersion": state.oci_version,
        "fds": ["seccompFd"],
        "pid": pid,
        "metadata": profile.listener_metadata().clone().unwrap_or_default(),
        "state": state,
    });
    let words = words.to_string();
    let stream = socket(AddressFamily::Unix, SockType::Stream, SockFlag::SOCK_CLOEXEC, None)
        .tried("make", "socket")?;
    with_short_path(path, |short| connect(stream.as_raw_fd(), &UnixAddr::new(short)?))
        .tried_hint("connect to seccomp agent", path, "is it running?")?;
    let fds = [listener.as_raw_fd()];
    let rights = [ControlMessage::ScmRights(&fds)];
    let data = [IoSlice::new(words.as_bytes())];
    let sent = sendmsg::<()>(stream.as_raw_fd(), &data, &rights, MsgFlags::MSG_NOSIGNAL, None);
    let sent = sent.tried("send seccomp listener to", path)?;
    // A stream may take part of it; the descriptor goes with the first byte. An agent that has all of it may have gone already.
    let mut rest = &words.as_bytes()[sent..];
    while !rest.is_empty() {
        let sent =
            send(stream.as_raw_fd(), rest, MsgFlags::MSG_NOSIGNAL).tried("write to", path)?;
        rest = &rest[sent..];
    }
    Ok(())
}
