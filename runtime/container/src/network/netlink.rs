//! Route netlink through rtnetlink: a connection to the host's namespace or to a container's, and errors with
//! what was tried.

use crate::error::{Error, Result, Tried};
use futures_util::TryStreamExt;
use rtnetlink::Handle;
use rtnetlink::sys::TokioSocket;
use std::future::Future;
use std::io;
use std::os::fd::{FromRawFd, IntoRawFd, OwnedFd};

/// Runs `work` with an event loop of its own on this thread.
pub(crate) fn run<T>(work: impl Future<Output = Result<T>>) -> Result<T> {
    tokio::runtime::Builder::new_current_thread()
        .enable_io()
        .build()
        .tried("start", "event loop for netlink")?
        .block_on(work)
}

/// A connection to this process's network namespace. Inside [`run`] only.
pub(crate) fn host() -> Result<Handle> {
    let (connection, handle, _) = rtnetlink::new_connection().tried("open", "netlink socket")?;
    tokio::spawn(connection);
    Ok(handle)
}

/// A connection to the namespace in which `socket` was made. Inside [`run`] only.
pub(crate) fn through(socket: OwnedFd) -> Handle {
    // SAFETY: into_raw_fd gives up the only ownership of an open netlink socket, which TokioSocket takes.
    let socket = unsafe { TokioSocket::from_raw_fd(socket.into_raw_fd()) };
    let (connection, handle, _) = rtnetlink::from_socket(socket);
    tokio::spawn(connection);
    handle
}

/// The index of the interface `name` in the namespace of `handle`.
pub(crate) async fn find(handle: &Handle, name: &str) -> Result<u32> {
    let found = handle.link().get().match_name(name.to_owned()).execute().try_next().await;
    found.asked("find", name, "")?.map(|link| link.header.index).ok_or_else(|| Error::System {
        tried: "find".into(),
        on: name.to_owned(),
        why: io::Error::from_raw_os_error(libc::ENODEV),
        hint: "".into(),
    })
}

/// The kernel's answer in an error of rtnetlink.
pub(crate) fn answer(error: &rtnetlink::Error) -> io::Error {
    match error {
        rtnetlink::Error::NetlinkError(message) => match message.code {
            // The kernel gives the negative errno.
            Some(code) => io::Error::from_raw_os_error(-code.get()),
            None => io::Error::other("no error code"),
        },
        other => io::Error::other(other.to_string()),
    }
}

/// Adds what was tried to an error of rtnetlink.
pub(crate) trait Asked<T> {
    /// `tried: on: why (hint)`.
    fn asked(self, tried: &'static str, on: &str, hint: &'static str) -> Result<T>;
}

impl<T> Asked<T> for std::result::Result<T, rtnetlink::Error> {
    fn asked(self, tried: &'static str, on: &str, hint: &'static str) -> Result<T> {
        self.map_err(|error| {
            let source = answer(&error);
            let hint = match source.raw_os_error() {
                Some(libc::EPERM) => "networks need root; use --net none",
                Some(libc::EOPNOTSUPP) => "the kernel lacks this kind of interface",
                _ => hint,
            };
            Error::System { tried: tried.into(), on: on.to_owned(), why: source, hint: hint.into() }
        })
    }
}
