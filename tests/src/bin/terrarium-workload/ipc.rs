//! System V IPC objects, and descriptors that come over a socket.

use crate::{Answer, argument};
use nix::errno::Errno;
use nix::sys::socket::{ControlMessageOwned, MsgFlags, recvmsg};
use serde_json::{Value, json};
use std::io::IoSliceMut;
use std::os::fd::AsRawFd;
use std::os::unix::net::{UnixDatagram, UnixStream};

/// `ipc-create KEY`: a shared memory segment, a message queue and a semaphore set under that key.
pub(crate) fn create(arguments: &[&str]) -> Answer {
    let key: libc::key_t = argument(arguments, 0, "key")?;
    let flags = libc::IPC_CREAT | libc::IPC_EXCL | 0o600;
    // SAFETY: shmget takes integers only and makes a kernel object, no mapping.
    let shm = Errno::result(unsafe { libc::shmget(key, 4096, flags) });
    // SAFETY: msgget takes integers only.
    let msg = Errno::result(unsafe { libc::msgget(key, flags) });
    // SAFETY: semget takes integers only.
    let sem = Errno::result(unsafe { libc::semget(key, 1, flags) });
    for (what, made) in [("shmget", shm), ("msgget", msg), ("semget", sem)] {
        made.map_err(|errno| format!("{what} {key}: {errno}"))?;
    }
    Ok(json!({"key": key}))
}

/// `receive PATH N`: takes N messages from the unix socket at PATH, and closes what descriptors they bring.
pub(crate) fn receive(arguments: &[&str]) -> Answer {
    let path = *arguments.first().ok_or("a path is needed")?;
    let count: u64 = argument(arguments, 1, "number of messages")?;
    let stream = UnixStream::connect(path).map_err(|error| format!("connect {path}: {error}"))?;
    let mut descriptors = 0_u64;
    for _ in 0..count {
        descriptors += receive_once(&stream).map_err(|errno| format!("receive: {errno}"))?;
    }
    Ok(json!({ "descriptors": descriptors }))
}

/// Takes one message with room for descriptors, closes those that it brings, and says how many they were.
pub(crate) fn receive_once(stream: &UnixStream) -> nix::Result<u64> {
    let mut byte = [0_u8];
    let mut space = nix::cmsg_space!([i32; 8]);
    let mut slices = [IoSliceMut::new(&mut byte)];
    let message =
        recvmsg::<()>(stream.as_raw_fd(), &mut slices, Some(&mut space), MsgFlags::empty())?;
    let mut descriptors = 0;
    for part in message.cmsgs()? {
        if let ControlMessageOwned::ScmRights(fds) = part {
            for fd in fds {
                descriptors += 1;
                nix::unistd::close(fd)?;
            }
        }
    }
    Ok(descriptors)
}

/// `notify LINE…`: says each line in a message of its own to the socket that `NOTIFY_SOCKET` names.
pub(crate) fn notify(arguments: &[&str]) -> Answer {
    let path = std::env::var("NOTIFY_SOCKET").map_err(|error| format!("NOTIFY_SOCKET: {error}"))?;
    let socket = UnixDatagram::unbound().map_err(|error| format!("make a socket: {error}"))?;
    for line in arguments {
        socket
            .send_to(line.as_bytes(), &path)
            .map_err(|error| format!("send to {path}: {error}"))?;
    }
    Ok(json!({"socket": path}))
}

/// `ipc-list`: the keys of the objects that exist in this IPC namespace, by kind.
pub(crate) fn list(_: &[&str]) -> Answer {
    let mut answer = json!({});
    for kind in ["shm", "msg", "sem"] {
        let path = format!("/proc/sysvipc/{kind}");
        let table =
            std::fs::read_to_string(&path).map_err(|error| format!("read {path}: {error}"))?;
        answer[kind] = table
            .lines()
            .skip(1)
            .filter_map(|line| line.split_whitespace().next()?.parse::<i64>().ok())
            .map(Value::from)
            .collect();
    }
    Ok(answer)
}
