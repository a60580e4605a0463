//! Descriptors that are passed over a unix socket (unix(7)).

use nix::sys::socket::{ControlMessage, MsgFlags, sendmsg};
use std::fs::File;
use std::io::IoSlice;
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixListener;
use std::thread::JoinHandle;

/// Gives each of these files, and a message without one after each, to who connects to the socket.
pub fn give(listener: UnixListener, files: Vec<File>) -> JoinHandle<()> {
    std::thread::spawn(move || {
        let (stream, _) = listener.accept().expect("somebody connects");
        for file in files {
            let text = [IoSlice::new(b"x")];
            for rights in [&[file.as_raw_fd()][..], &[]] {
                let parts = [ControlMessage::ScmRights(rights)];
                let parts = if rights.is_empty() { &[][..] } else { &parts };
                sendmsg::<()>(stream.as_raw_fd(), &text, parts, MsgFlags::empty(), None)
                    .expect("it takes the message");
            }
        }
    })
}
