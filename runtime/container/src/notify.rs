//! `NOTIFY_SOCKET` of whoever calls the runtime (`sd_notify(3)`): the container gets a socket of its own, and what its program
//! says there of itself is passed on. The host's socket is never shown inside: who can write there could name any process
//! as the service's.

use crate::beside::Beside;
use crate::console::with_short_path;
use crate::error::{Result, Tried};
use crate::mount::{Kind, Mount};
use crate::syscall::MountChange;
use nix::sys::socket::{AddressFamily, SockFlag, SockType, UnixAddr, bind, socket};
use oci_spec::runtime::Spec;
use rustix::event::{PollFd, PollFlags, poll};
use rustix::mount::MountAttrFlags;
use std::env;
use std::ffi::OsString;
use std::fs;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::path::{Path, PathBuf};

/// The folder of the socket in the container's own, and where that shows inside.
const FOLDER: &str = "notify";
const INSIDE: &str = "/run/notify";
const SOCKET: &str = "notify.sock";

/// What a program may say of itself. The rest is the caller's to say (`MAINPID=`) or would need descriptors (`FDSTORE=`).
const PASSED_ON: [&str; 7] =
    ["READY=", "STATUS=", "STOPPING=", "RELOADING=", "WATCHDOG=", "ERRNO=", "EXTEND_TIMEOUT_USEC="];

/// More than this in one message is no message (systemd's own bound, `NOTIFY_BUFFER_MAX`).
const LONGEST: usize = 4096;

/// The socket of the caller, if there is one.
fn asked() -> Option<OsString> {
    env::var_os("NOTIFY_SOCKET")
        .filter(|path| path.as_bytes().starts_with(b"/") || path.as_bytes().starts_with(b"@"))
}

/// Tells the program where its socket will be, if the caller has one.
pub(crate) fn announce(spec: &mut Spec) {
    if asked().is_none() {
        return;
    }
    let Some(process) = spec.process_mut().as_mut() else { return };
    let mut environment = process.env().clone().unwrap_or_default();
    environment.retain(|word| !word.starts_with("NOTIFY_SOCKET="));
    environment.push(format!("NOTIFY_SOCKET={INSIDE}/{SOCKET}"));
    process.set_env(Some(environment));
}

/// Whether the program of `spec` was told so.
fn is_announced(spec: &Spec) -> bool {
    let environment = spec.process().as_ref().and_then(|process| process.env().as_ref());
    let word = format!("NOTIFY_SOCKET={INSIDE}/{SOCKET}");
    environment.is_some_and(|words| words.contains(&word))
}

/// The bind of the socket's folder, for a spec that was announced to.
pub(crate) fn mount(spec: &Spec, folder: &Path) -> Option<Mount> {
    let attributes = MountAttrFlags::MOUNT_ATTR_RDONLY
        | MountAttrFlags::MOUNT_ATTR_NOSUID
        | MountAttrFlags::MOUNT_ATTR_NODEV
        | MountAttrFlags::MOUNT_ATTR_NOEXEC;
    is_announced(spec).then(|| Mount {
        destination: INSIDE.into(),
        kind: Kind::Bind { source: folder.join(FOLDER), recursive: false },
        change: MountChange { set: u64::from(attributes.bits()), ..MountChange::default() },
        tree_change: MountChange { recursive: true, ..MountChange::default() },
        optional: false,
        idmap: None,
    })
}

/// Makes the folder, for a spec that was announced to.
pub(crate) fn prepare(spec: &Spec, folder: &Path) -> Result<()> {
    let path = folder.join(FOLDER);
    if !is_announced(spec) || path.is_dir() {
        return Ok(());
    }
    fs::create_dir(&path).tried("create", &path)?;
    // Whoever the program is inside.
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).tried("change the mode of", &path)
}

/// The container's socket, and the caller's.
pub(crate) struct Notifications {
    own: UnixDatagram,
    caller: SocketAddr,
}

impl Notifications {
    /// Opens the socket of the container whose folder this is; none where nobody wants to know.
    pub(crate) fn open(folder: &Path) -> Result<Option<Self>> {
        let folder: PathBuf = folder.join(FOLDER);
        let Some(caller) = asked().filter(|_| folder.is_dir()) else { return Ok(None) };
        let address = match caller.as_bytes().strip_prefix(b"@") {
            Some(name) => SocketAddr::from_abstract_name(name),
            None => SocketAddr::from_pathname(&caller),
        };
        let caller = address.tried("read NOTIFY_SOCKET", caller.to_string_lossy().into_owned())?;
        let path = folder.join(SOCKET);
        let _ = fs::remove_file(&path);
        let flags = SockFlag::SOCK_CLOEXEC;
        let own = socket(AddressFamily::Unix, SockType::Datagram, flags, None);
        let own: OwnedFd = own.tried("make", "socket")?;
        with_short_path(&path, |short| bind(own.as_raw_fd(), &UnixAddr::new(short)?))
            .tried("bind", &path)?;
        fs::set_permissions(&path, fs::Permissions::from_mode(0o666))
            .tried("change the mode of", &path)?;
        Ok(Some(Self { own: own.into(), caller }))
    }

    /// Passes on what is said, in a process beside this one.
    pub(crate) fn follow(self) -> Result<Beside> {
        Beside::start("the process that passes on notifications", &[self.own.as_raw_fd()], |end| {
            loop {
                match self.wait(end) {
                    Ok(true) => {
                        // Nobody may listen any more.
                        let _ = self.pass_on("");
                    }
                    Ok(false) => return 0,
                    Err(_) => return 1,
                }
            }
        })
    }

    /// Waits until the program says that it is ready, and tells the caller so, with its `pid`; or until it has ended.
    pub(crate) fn wait_until_ready(&self, pid: i32, pidfd: &OwnedFd) -> io::Result<()> {
        let and = format!("MAINPID={pid}\n");
        while self.wait(pidfd)? {
            if self.pass_on(&and)? {
                return Ok(());
            }
        }
        Ok(())
    }

    /// Waits until something was said; false once `end` is readable and there is nothing.
    fn wait(&self, end: &OwnedFd) -> io::Result<bool> {
        loop {
            let mut fds = [PollFd::new(&self.own, PollFlags::IN), PollFd::new(end, PollFlags::IN)];
            match poll(&mut fds, None) {
                Err(rustix::io::Errno::INTR) => {}
                Err(error) => return Err(error.into()),
                Ok(_) => return Ok(!fds[0].revents().is_empty()),
            }
        }
    }

    /// Passes one message on, `and` with word that it is ready; whether it was that.
    fn pass_on(&self, and: &str) -> io::Result<bool> {
        let mut message = [0; LONGEST];
        let length = self.own.recv(&mut message)?;
        let Some(mut said) = allowed(&message[..length]) else { return Ok(false) };
        let is_ready = said.lines().any(|line| line == "READY=1");
        if is_ready {
            said += and;
        }
        UnixDatagram::unbound()?.send_to_addr(said.as_bytes(), &self.caller)?;
        Ok(is_ready)
    }
}

/// The lines of a message that are passed on; none where there is none.
fn allowed(message: &[u8]) -> Option<String> {
    let text = String::from_utf8_lossy(message);
    let mut lines = String::new();
    for line in text.lines().filter(|line| PASSED_ON.iter().any(|word| line.starts_with(word))) {
        lines.push_str(line);
        lines.push('\n');
    }
    (!lines.is_empty()).then_some(lines)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_speaks_of_itself_alone() {
        assert_eq!(
            allowed(b"READY=1\nMAINPID=1\nSTATUS=up and running").as_deref(),
            Some("READY=1\nSTATUS=up and running\n")
        );
        assert_eq!(allowed(b"MAINPID=1\nFDSTORE=1\nX_READY=1"), None);
        assert_eq!(allowed(b"\xff"), None);
    }
}
