//! Networks without privileges: a program of the caller's, pasta(1) or slirp4netns(1), has a tap device in the container's
//! namespace and makes of its packets the connections of an ordinary process. What it takes from PATH is the host's own.
//!
//! The program goes with the runtime that started it, however that ends: a process beside that watches it.

use super::Details;
use super::publish::Published;
use crate::beside::Beside;
use crate::console::with_short_path;
use crate::error::{Error, Result, Tried};
use crate::explain;
use crate::id_maps::in_path;
use crate::state::process_stat;
use crate::syscall::pidfd_send_signal;
use nix::sys::socket::{AddressFamily, SockFlag, SockType, UnixAddr, connect, socket};
use nix::sys::wait::{Id, WaitPidFlag, waitid};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::fs::{MemfdFlags, memfd_create};
use rustix::pipe::{PipeFlags, pipe_with};
use rustix::process::{Pid, PidfdFlags, pidfd_open};
use serde_json::{Value, json};
use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::net::{IpAddr, Ipv4Addr};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// The program that carries the packets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Carrier {
    /// pasta(1), of passt: the container has the addresses of the host.
    Pasta,
    /// slirp4netns(1): the container has 10.0.2.100.
    Slirp4netns,
}

/// What slirp4netns(1) gives the container, and the host's name servers by another address.
const SLIRP: [Ipv4Addr; 3] =
    [Ipv4Addr::new(10, 0, 2, 100), Ipv4Addr::new(10, 0, 2, 2), Ipv4Addr::new(10, 0, 2, 3)];

/// The socket on which slirp4netns is told of ports, in the container's folder.
const API_SOCKET: &str = "slirp4netns.sock";

/// The file with the pid of pasta, there too.
const PID_FILE: &str = "pasta.pid";

/// The program's pid and start time, there too: for whoever comes after somebody killed the watcher as well.
const CARRIER_FILE: &str = "carrier";

impl Carrier {
    /// By its name, the program's own.
    pub(crate) fn named(name: &str) -> Option<Self> {
        [Self::Pasta, Self::Slirp4netns].into_iter().find(|carrier| carrier.name() == name)
    }

    /// The name.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Pasta => "pasta",
            Self::Slirp4netns => "slirp4netns",
        }
    }

    /// Where the program is, if it can work for the caller.
    pub(crate) fn find(self) -> Result<PathBuf> {
        let asked = || format!("--net {}", self.name());
        let found = in_path(self.name()).ok_or_else(|| {
            let package = if self == Self::Pasta { "passt" } else { "slirp4netns" };
            let reason = "there is no program of that name in PATH (Debian's package";
            Error::unsupported(asked(), format!("{reason} {package})"))
        })?;
        if self == Self::Pasta && rustix::process::geteuid().is_root() {
            let reason = "it drops root's rights first, and reaches no container of root's then; use --net bridge";
            return Err(Error::unsupported(asked(), reason));
        }
        Ok(found)
    }

    /// The address that it gives, with the length of its prefix, and the gateway's; none where that is the host's to say.
    pub(crate) fn address(self) -> Option<(String, String)> {
        match self {
            Self::Pasta => None,
            Self::Slirp4netns => Some((format!("{}/24", SLIRP[0]), SLIRP[1].to_string())),
        }
    }

    /// What /etc/hosts is to say of the container itself, where it has no other address that is known.
    pub(crate) fn own_name_at(self) -> IpAddr {
        match self {
            // As Debian does for a host whose address may change.
            Self::Pasta => Ipv4Addr::new(127, 0, 1, 1).into(),
            Self::Slirp4netns => SLIRP[0].into(),
        }
    }

    /// The name server where none was asked for.
    pub(crate) fn name_server(self) -> Option<IpAddr> {
        (self == Self::Slirp4netns).then(|| SLIRP[2].into())
    }

    /// The command line for the namespaces of `pid`, in the container's folder.
    fn command(self, program: &Path, pid: i32, details: &Details) -> Command {
        let mut command = Command::new(program);
        match self {
            Self::Pasta => {
                // Neither the host's loopback by the gateway's address, nor what listens there by the same port.
                command.args(["--config-net", "--no-map-gw", "-T", "none", "-U", "none"]);
                for (option, protocol) in [("-t", "tcp"), ("-u", "udp")] {
                    let ports: Vec<_> = details
                        .publish
                        .iter()
                        .filter(|port| port.protocol.to_string() == protocol)
                        .map(for_pasta)
                        .collect();
                    if ports.is_empty() {
                        command.args([option, "none"]);
                    }
                    for port in ports {
                        command.args([option, &port]);
                    }
                }
                command.args(["-P", PID_FILE]).arg(pid.to_string());
            }
            Self::Slirp4netns => {
                command.args(["--configure", "--mtu=65520", "--disable-host-loopback"]);
                command.args(["--api-socket", API_SOCKET]).arg(pid.to_string()).arg("tap0");
            }
        }
        command
    }
}

/// A port as `pasta -t` and `-u` take it.
fn for_pasta(port: &Published) -> String {
    let address = port.one_address().map(|address| format!("{address}/")).unwrap_or_default();
    format!("{address}{}:{}", port.host, port.container)
}

/// A container's packets are carried as long as this lives.
#[derive(Debug)]
pub(crate) struct Carried {
    _watcher: Beside,
}

impl Carried {
    /// Starts the program for the namespaces of `pid`; returns when it carries. `folder` is the container's.
    ///
    /// The caller must have one thread only.
    pub(crate) fn start(
        carrier: Carrier,
        pid: i32,
        details: &Details,
        folder: &Path,
    ) -> Result<Self> {
        let timer = explain::timer();
        let program = carrier.find()?;
        let (said, say) = pipe_with(PipeFlags::CLOEXEC).tried("make", "pipe")?;
        let mut say = File::from(say);
        let watcher = Beside::start(carrier.name(), &[say.as_raw_fd()], |end| {
            let mut command = carrier.command(&program, pid, details);
            command.current_dir(folder);
            match Program::start(carrier, command, folder, &details.publish) {
                Ok(program) => {
                    program.note(folder);
                    // Whoever reads it may be gone; then so is the other end of the other pipe.
                    let _ = say.write_all(b"\n");
                    drop(say);
                    program.watch(end);
                    0
                }
                Err(why) => {
                    let _ = say.write_all(why.as_bytes());
                    1
                }
            }
        })?;
        let mut text = String::new();
        File::from(said).read_to_string(&mut text).tried("read from", carrier.name())?;
        let started = Self { _watcher: watcher };
        if text != "\n" {
            return Err(io::Error::other(text.trim().to_owned())).tried_hint(
                "connect the container by",
                carrier.name(),
                "its own manual page tells what it needs; --net none and --net host need nothing",
            );
        }
        timer.note("network", || {
            let command = carrier.command(Path::new(carrier.name()), pid, details);
            let words = command.get_args().map(|word| explain::word(&word.to_string_lossy()));
            std::iter::once(carrier.name().to_owned()).chain(words).collect::<Vec<_>>().join(" ")
        });
        Ok(started)
    }
}

/// The program, running.
struct Program {
    pid: i32,
    pidfd: OwnedFd,
}

impl Program {
    /// Starts it and waits until it carries; else what it said.
    fn start(
        carrier: Carrier,
        mut command: Command,
        folder: &Path,
        ports: &[Published],
    ) -> Result<Self, String> {
        let text = |error: io::Error| error.to_string();
        let said = memfd_create(c"said", MemfdFlags::CLOEXEC).map_err(|e| text(e.into()))?;
        let said = File::from(said);
        command.stdin(Stdio::null()).stdout(Stdio::null());
        command.stderr(said.try_clone().map_err(text)?);
        let why = |what: String| {
            let mut words = String::new();
            let mut said = &said;
            let _ = io::Seek::rewind(&mut said).and_then(|()| said.read_to_string(&mut words));
            let words: Vec<_> = words.lines().filter(|line| !line.contains("syslog")).collect();
            format!("{what}: {}", words.join("; "))
        };
        match carrier {
            Carrier::Pasta => {
                // It goes into the background when it is ready.
                let status = command.status().map_err(text)?;
                if !status.success() {
                    return Err(why(status.to_string()));
                }
                let path = folder.join(PID_FILE);
                let pid = fs::read_to_string(&path).map_err(text)?;
                let _ = fs::remove_file(&path);
                let pid = pid.trim().parse().ok().and_then(Pid::from_raw);
                let pid = pid.ok_or_else(|| why("it told no pid".to_owned()))?;
                let pidfd = pidfd_open(pid, PidfdFlags::empty()).map_err(|e| text(e.into()))?;
                Ok(Self { pid: pid.as_raw_nonzero().get(), pidfd })
            }
            Carrier::Slirp4netns => {
                // Inherited: it writes there when it is ready.
                let (ready, tell) = pipe_with(PipeFlags::empty()).map_err(|e| text(e.into()))?;
                command.arg(format!("--ready-fd={}", tell.as_raw_fd()));
                let child = command.spawn().map_err(text)?;
                drop(tell);
                let pid = Pid::from_child(&child);
                let pidfd = pidfd_open(pid, PidfdFlags::empty()).map_err(|e| text(e.into()))?;
                let program = Self { pid: pid.as_raw_nonzero().get(), pidfd };
                let mut byte = [0];
                if File::from(ready).read(&mut byte).map_err(text)? == 0 {
                    let _ = program.reap();
                    return Err(why("it ended".to_owned()));
                }
                for port in ports {
                    if let Err(error) = forward(&folder.join(API_SOCKET), port) {
                        program.kill();
                        return Err(format!("publish {port}: {error}"));
                    }
                }
                let _ = fs::remove_file(folder.join(API_SOCKET));
                Ok(program)
            }
        }
    }

    /// Waits until nobody holds the other end of `end`, or the program has ended, which it is made to.
    fn watch(&self, end: &OwnedFd) {
        loop {
            let mut fds =
                [PollFd::new(end, PollFlags::IN), PollFd::new(&self.pidfd, PollFlags::IN)];
            match poll(&mut fds, None) {
                Err(rustix::io::Errno::INTR) => {}
                _ => break,
            }
        }
        self.kill();
    }

    fn note(&self, folder: &Path) {
        if let Some(stat) = process_stat(self.pid) {
            // Without it, gc cannot end what the watcher ends all the same.
            let _ = fs::write(
                folder.join(CARRIER_FILE),
                format!("{} {}\n", self.pid, stat.start_ticks),
            );
        }
    }

    fn kill(&self) {
        // ESRCH: it went by itself.
        let _ = pidfd_send_signal(self.pidfd.as_fd(), libc::SIGKILL);
        let _ = self.reap();
    }

    fn reap(&self) -> nix::Result<()> {
        waitid(Id::PIDFd(self.pidfd.as_fd()), WaitPidFlag::WEXITED).map(|_| ())
    }
}

/// Ends the program that carries for the container of `folder`, if one still does: its watcher was killed.
pub(crate) fn end(folder: &Path) {
    let Ok(text) = fs::read_to_string(folder.join(CARRIER_FILE)) else { return };
    let Some((pid, ticks)) = text.trim().split_once(' ') else { return };
    let (Ok(pid), Ok(ticks)) = (pid.parse::<i32>(), ticks.parse::<u64>()) else { return };
    let Some(raw) = Pid::from_raw(pid) else { return };
    let Ok(pidfd) = pidfd_open(raw, PidfdFlags::empty()) else { return };
    // With the descriptor held the pid is not given to another.
    if process_stat(pid).is_some_and(|stat| stat.start_ticks == ticks) {
        let _ = pidfd_send_signal(pidfd.as_fd(), libc::SIGKILL);
    }
}

/// Asks slirp4netns for a port (slirp4netns(1), "API socket").
fn forward(path: &Path, port: &Published) -> io::Result<()> {
    let flags = SockFlag::SOCK_CLOEXEC;
    let request = json!({
        "execute": "add_hostfwd",
        "arguments": {
            "proto": port.protocol.to_string(),
            "host_addr": port.one_address().unwrap_or(Ipv4Addr::UNSPECIFIED.into()),
            "host_port": port.host,
            "guest_port": port.container,
        }
    });
    let socket = socket(AddressFamily::Unix, SockType::Stream, flags, None)?;
    with_short_path(path, |short| connect(socket.as_raw_fd(), &UnixAddr::new(short)?))?;
    let mut stream = std::os::unix::net::UnixStream::from(socket);
    stream.write_all(request.to_string().as_bytes())?;
    stream.shutdown(std::net::Shutdown::Write)?;
    let mut reply = String::new();
    stream.read_to_string(&mut reply)?;
    let reply: Value = serde_json::from_str(&reply)?;
    match reply["error"]["desc"].as_str() {
        None => Ok(()),
        Some(why) => Err(io::Error::other(why.to_owned())),
    }
}
