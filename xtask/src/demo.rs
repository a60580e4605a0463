//! `cargo xtask demo`: the main job from end to end, on this machine, with nothing left behind.
//!
//! A root filesystem of busybox, an observatory on a free port of loopback, one container that does
//! a known number of everything the probes watch and then runs into its memory limit, and what the
//! kernel counted meanwhile.

mod script;
mod table;

use std::fs;
use std::io::{BufRead, BufReader, IsTerminal, Read, Write};
use std::net::{Ipv4Addr, TcpStream};
use std::os::unix::fs::symlink;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use nix::sys::signal::{SaFlags, SigAction, SigHandler, SigSet, Signal, kill, sigaction};
use nix::unistd::{Pid, Uid};
use tempfile::TempDir;

use crate::build;
use crate::setup::{self, Needs, static_busybox};
use crate::shell;
use crate::workspace::Workspace;

const NAME: &str = "demo";
const BRIDGE: &str = "terrademo0";
const MEMORY: &str = "32m";
const PIDS: &str = "64";
/// How wide what other commands print may be.
const WIDTH: usize = 120;
/// How long a program may take to start or to stop.
const PATIENCE: Duration = Duration::from_secs(20);

/// Build a container, watch it from the kernel, and show what was seen.
#[derive(clap::Args)]
pub struct Args {
    /// Install missing tools without asking.
    #[arg(long, short)]
    yes: bool,
    /// Leave the observatory running.
    #[arg(long)]
    keep: bool,
}

/// Set by the first Ctrl-C; every wait looks at it.
static INTERRUPTED: AtomicBool = AtomicBool::new(false);

extern "C" fn interrupt(_: nix::libc::c_int) {
    INTERRUPTED.store(true, Ordering::Relaxed);
}

/// The demo.
pub fn run(args: &Args) -> Result<()> {
    setup::ensure(&[Needs::Build, Needs::Run], args.yes)?;
    if !Uid::effective().is_root() {
        bail!("containers and probes need root: sudo -E cargo xtask demo");
    }
    let workspace = Workspace::find()?;
    let terrarium = build::binary(&workspace, false)?;
    catch_signals()?;

    let mut stage = Stage::set(terrarium)?;
    stage.explain();
    let address = stage.observe()?;
    heading("The container");
    stage.contain()?;
    heading("Its events, the last of each type");
    stage.show_events(&address)?;
    heading("Where its isolation leaks");
    stage.show_findings(&address)?;
    stage.end_container()?;
    heading("What the probes counted");
    let metrics = get(&address, "/metrics")?;
    table::print(&metrics, NAME);
    heading("The same in /metrics");
    for line in table::lines(&metrics, NAME) {
        for piece in table::folded(line, 76) {
            println!("  {piece}");
        }
    }
    heading("Where to look next");
    stage.point_further(&address, args.keep);
    if args.keep { stage.keep() } else { stage.clear() }
}

/// Without this a Ctrl-C would end xtask before it could clear up.
fn catch_signals() -> Result<()> {
    let action =
        SigAction::new(SigHandler::Handler(interrupt), SaFlags::SA_RESTART, SigSet::empty());
    for signal in [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP] {
        // SAFETY: the handler only stores into an atomic, which is async-signal-safe.
        unsafe { sigaction(signal, &action) }.with_context(|| format!("catch {signal}"))?;
    }
    Ok(())
}

fn heading(text: &str) {
    if std::io::stdout().is_terminal() {
        println!(
            "\n\x1b[1;32m── {text} {}\x1b[0m",
            "─".repeat(74_usize.saturating_sub(text.len()))
        );
    } else {
        println!("\n── {text} {}", "─".repeat(74_usize.saturating_sub(text.len())));
    }
}

/// Everything that the demo makes. Whatever ends it, dropping this takes all of it away.
struct Stage {
    terrarium: PathBuf,
    folder: Option<TempDir>,
    path: PathBuf,
    observatory: Option<Child>,
    container: Option<Child>,
    subnet: String,
    user_namespace: bool,
}

impl Stage {
    fn set(terrarium: PathBuf) -> Result<Self> {
        let folder = tempfile::Builder::new()
            .prefix("terrarium-demo-")
            .tempdir()
            .context("create a temporary folder")?;
        let path = folder.path().to_path_buf();
        make_rootfs(&path.join("rootfs"))?;
        let routes = fs::read_to_string("/proc/net/route").unwrap_or_default();
        let mut stage = Self {
            terrarium,
            folder: Some(folder),
            path,
            observatory: None,
            container: None,
            subnet: free_subnet(&routes),
            user_namespace: true,
        };
        // Whether this kernel grants a user namespace together with all the others.
        let mut trial = stage.container_command();
        trial.args(["--userns"]).arg(stage.rootfs()).args(["--", "true"]);
        stage.user_namespace = shell::output(&mut trial).is_ok();
        Ok(stage)
    }

    fn rootfs(&self) -> PathBuf {
        self.path.join("rootfs")
    }

    fn terrarium(&self) -> Command {
        let mut command = Command::new(&self.terrarium);
        command.arg("--root").arg(self.path.join("state"));
        // Out of the terminal's process group: a Ctrl-C is for xtask, which then ends its children in order.
        command.process_group(0).stdin(Stdio::null());
        command
    }

    fn container_command(&self) -> Command {
        let mut command = self.terrarium();
        command.args(["run", "--rm", "--name", NAME, "--memory", MEMORY, "--pids", PIDS]);
        command.arg("--net").arg(format!("bridge:{BRIDGE}")).args(["--subnet", &self.subnet]);
        // The container mounts, unshares and enters namespaces on purpose.
        command.args(["--cap-add", "SYS_ADMIN"]);
        command
    }

    fn explain(&self) {
        heading("terrarium");
        let namespaces = if self.user_namespace {
            "mnt net user pid ipc uts cgroup, all private"
        } else {
            "mnt net pid ipc uts cgroup private; user the host's (refused here)"
        };
        for (what, value) in [
            ("root filesystem", "a static busybox, nothing else".to_owned()),
            ("namespaces", namespaces.to_owned()),
            ("limits", format!("memory {MEMORY}, pids {PIDS}")),
            ("network", format!("bridge {BRIDGE}, {}", self.subnet)),
        ] {
            println!("  {what:<16} {value}");
        }
    }

    /// Starts the observatory and gives `HOST:PORT`.
    fn observe(&mut self) -> Result<String> {
        let log = fs::File::create(self.path.join("observe.log")).context("create observe.log")?;
        let mut command = self.terrarium();
        command.args(["observe", "--listen", "127.0.0.1:0"]);
        command.stdout(Stdio::piped()).stderr(log);
        let mut child = command.spawn().context("start the observatory")?;
        let lines = lines_of(child.stdout.take().context("stdout is piped")?);
        self.observatory = Some(child);
        let deadline = Instant::now() + PATIENCE;
        while let Some(line) = next(&lines, deadline)? {
            if let Some(address) = line.strip_prefix("listening on http://") {
                println!("  {:<16} http://{address}", "observatory");
                return Ok(address.to_owned());
            }
        }
        let log = fs::read_to_string(self.path.join("observe.log")).unwrap_or_default();
        bail!("the observatory does not answer: {}", log.trim())
    }

    /// Runs the container until it has done everything, and shows what it prints.
    fn contain(&mut self) -> Result<()> {
        let mut command = self.container_command();
        command.args(self.user_namespace.then_some("--userns"));
        command.arg(self.rootfs()).args(["--", "sh", script::PATH]);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().context("start the container")?;
        let lines = lines_of(child.stdout.take().context("stdout is piped")?);
        let errors = lines_of(child.stderr.take().context("stderr is piped")?);
        self.container = Some(child);
        let deadline = Instant::now() + 3 * PATIENCE;
        while let Some(line) = next(&lines, deadline)? {
            if line == script::DONE {
                return Ok(());
            }
            println!("  {line}");
        }
        let errors: Vec<String> = errors.iter().collect();
        bail!("the container ended before its time: {}", errors.join("; "))
    }

    /// Lets the container go, and waits until it has gone.
    fn end_container(&mut self) -> Result<()> {
        let Some(mut child) = self.container.take() else { return Ok(()) };
        // `wait` closes the standard input, for whose end the script waits.
        let status = child.wait().context("wait for the container")?;
        if !status.success() {
            bail!("the container ended with {status}");
        }
        Ok(())
    }

    /// What the observatory has of its events: of each type the last.
    fn show_events(&self, address: &str) -> Result<()> {
        let mut command = self.terrarium();
        command
            .args(["events", "--container", NAME, "--observatory"])
            .arg(format!("http://{address}"));
        let printed = shell::output(&mut command)?;
        let mut lines = printed.lines();
        let head = lines.next();
        let mut last: Vec<(&str, &str)> = Vec::new();
        for line in lines {
            let Some(kind) = line.split_whitespace().nth(1) else { continue };
            last.retain(|(known, _)| *known != kind);
            last.push((kind, line));
        }
        // What is told of a container comes a little later than what it is about; the time comes first in a line.
        last.sort_by_key(|(_, line)| *line);
        for line in head.into_iter().chain(last.into_iter().map(|(_, line)| line)) {
            println!("  {}", table::cut(line, WIDTH));
        }
        Ok(())
    }

    /// What `leaks` says of it.
    fn show_findings(&self, address: &str) -> Result<()> {
        let mut command = self.terrarium();
        command.args(["leaks", NAME, "--observatory"]).arg(format!("http://{address}"));
        let output = command.output().context("look for leaks")?;
        // 3: something was found.
        if !matches!(output.status.code(), Some(0 | 3)) {
            bail!("leaks: {}", String::from_utf8_lossy(&output.stderr).trim());
        }
        for line in String::from_utf8_lossy(&output.stdout).lines() {
            println!("  {}", table::cut(line, WIDTH));
        }
        Ok(())
    }

    fn point_further(&self, address: &str, keep: bool) {
        // As short as it can be typed from here.
        let here = std::env::current_dir().unwrap_or_default();
        let terrarium = self.terrarium.strip_prefix(here).unwrap_or(&self.terrarium).display();
        if keep {
            println!("  curl http://{address}/metrics");
            println!("  curl -N http://{address}/api/v1/events");
        } else {
            println!("  cargo xtask demo --keep      the same, and the observatory stays");
        }
        println!("  {terrarium} observe       then http://127.0.0.1:9750/ in a browser");
        println!("  {terrarium} leaks --all --suggest");
        println!("  {terrarium} run --help");
        println!("  dashboards/README.md, docs/ARCHITECTURE.md");
    }

    fn keep(mut self) -> Result<()> {
        let pid = self.observatory.as_ref().map(Child::id).context("no observatory runs")?;
        self.observatory = None;
        if let Some(folder) = self.folder.take() {
            let path = folder.keep();
            println!("\nThe observatory stays. To end it: kill {pid}; rm -r {}", path.display());
        }
        Ok(())
    }

    /// Takes everything away and says what that was.
    fn clear(mut self) -> Result<()> {
        self.end();
        let left = left_behind(&self.path);
        if !left.is_empty() {
            bail!("left behind: {}", left.join(", "));
        }
        println!("\nNothing is left: no process, cgroup, network link, rule, mount or file.");
        Ok(())
    }

    fn end(&mut self) {
        if let Some(mut child) = self.container.take() {
            let mut delete = self.terrarium();
            // It may be gone already; what remains is looked for afterwards.
            let _ = shell::output(delete.args(["delete", "--force", NAME]));
            stop(&mut child);
        }
        if let Some(mut child) = self.observatory.take() {
            stop(&mut child);
        }
        self.folder = None;
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        self.end();
    }
}

/// Asks a program to end, then insists.
fn stop(child: &mut Child) {
    let Ok(pid) = i32::try_from(child.id()).map(Pid::from_raw) else { return };
    let deadline = Instant::now() + PATIENCE;
    // It may have ended by itself.
    let _ = kill(pid, Signal::SIGTERM);
    while Instant::now() < deadline {
        if !matches!(child.try_wait(), Ok(None)) {
            return;
        }
        thread::sleep(Duration::from_millis(20));
    }
    let _ = child.kill();
    let _ = child.wait();
}

/// What of the demo can still be seen, once the kernel had a moment to let go of it.
fn left_behind(folder: &Path) -> Vec<String> {
    let deadline = Instant::now() + Duration::from_secs(3);
    loop {
        let mut left = Vec::new();
        if folder.exists() {
            left.push(folder.display().to_string());
        }
        if Path::new("/sys/class/net").join(BRIDGE).exists() {
            left.push(format!("network link {BRIDGE}"));
        }
        if fs::read_to_string("/proc/self/mountinfo")
            .is_ok_and(|mounts| mounts.contains(&*folder.to_string_lossy()))
        {
            left.push(format!("a mount below {}", folder.display()));
        }
        if left.is_empty() || Instant::now() > deadline {
            return left;
        }
        thread::sleep(Duration::from_millis(50));
    }
}

fn make_rootfs(root: &Path) -> Result<()> {
    for folder in ["bin", "dev", "etc", "proc", "root", "sys", "tmp"] {
        let folder = root.join(folder);
        fs::create_dir_all(&folder).with_context(|| format!("create {}", folder.display()))?;
    }
    let busybox = static_busybox().context("no static busybox (cargo xtask setup installs it)")?;
    fs::copy(&busybox, root.join("bin/busybox"))
        .with_context(|| format!("copy {} into the root filesystem", busybox.display()))?;
    for applet in script::APPLETS {
        symlink("busybox", root.join("bin").join(applet))
            .with_context(|| format!("link bin/{applet} in the root filesystem"))?;
    }
    fs::write(root.join("etc/passwd"), "root:x:0:0:root:/root:/bin/sh\n")
        .context("write passwd")?;
    fs::write(root.join(&script::PATH[1..]), script::TEXT)
        .context("write the container's script")?;
    Ok(())
}

/// A /24 of 10.64.0.0/10 to which this machine has no route yet, from `/proc/net/route`.
fn free_subnet(routes: &str) -> String {
    let taken = |candidate: Ipv4Addr| {
        routes.lines().skip(1).any(|line| {
            let number = |field| {
                let text = line.split_whitespace().nth(field)?;
                // The kernel prints the address as the machine holds it in memory.
                u32::from_str_radix(text, 16).ok().map(u32::to_be)
            };
            match (number(1), number(7)) {
                (Some(network), Some(mask)) => mask != 0 && u32::from(candidate) & mask == network,
                _ => false,
            }
        })
    };
    (78..=127)
        .map(|second| Ipv4Addr::new(10, second, 0, 0))
        .find(|candidate| !taken(*candidate))
        .map_or_else(|| "10.127.0.0/24".to_owned(), |network| format!("{network}/24"))
}

/// The lines of a stream, read in a thread of their own so that waiting for one can be interrupted.
fn lines_of(stream: impl Read + Send + 'static) -> Receiver<String> {
    let (sender, lines) = channel();
    thread::spawn(move || {
        for line in BufReader::new(stream).lines().map_while(std::result::Result::ok) {
            if sender.send(line).is_err() {
                break;
            }
        }
    });
    lines
}

/// The next line; `None` at the end of the stream.
fn next(lines: &Receiver<String>, deadline: Instant) -> Result<Option<String>> {
    loop {
        if INTERRUPTED.load(Ordering::Relaxed) {
            bail!("interrupted; everything has been taken away");
        }
        match lines.recv_timeout(Duration::from_millis(50)) {
            Ok(line) => return Ok(Some(line)),
            Err(RecvTimeoutError::Disconnected) => return Ok(None),
            Err(RecvTimeoutError::Timeout) if Instant::now() > deadline => {
                bail!("no answer in time; to see why: cargo xtask demo --keep")
            }
            Err(RecvTimeoutError::Timeout) => {}
        }
    }
}

/// A page of the observatory. One request needs no HTTP library.
fn get(address: &str, path: &str) -> Result<String> {
    let what = || format!("get http://{address}{path}");
    let mut stream = TcpStream::connect(address).with_context(what)?;
    stream.set_read_timeout(Some(PATIENCE)).with_context(what)?;
    write!(stream, "GET {path} HTTP/1.0\r\nHost: {address}\r\nConnection: close\r\n\r\n")
        .with_context(what)?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).with_context(what)?;
    let answer = String::from_utf8_lossy(&answer);
    let (head, body) = answer.split_once("\r\n\r\n").with_context(what)?;
    if !head.lines().next().is_some_and(|status| status.contains(" 200 ")) {
        bail!("{}: {}", what(), head.lines().next().unwrap_or("no answer"));
    }
    Ok(body.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_subnet_that_is_routed_already_is_passed_over() {
        let head = "Iface Destination Gateway Flags RefCnt Use Metric Mask MTU Window IRTT\n";
        assert_eq!(free_subnet(head), "10.78.0.0/24");
        let route = format!("{head}br0 00004E0A 00000000 0001 0 0 0 0000FFFF 0 0 0\n");
        assert_eq!(free_subnet(&route), "10.79.0.0/24");
        let default = format!("{head}eth0 00000000 0100A8C0 0003 0 0 0 00000000 0 0 0\n");
        assert_eq!(free_subnet(&default), "10.78.0.0/24");
    }
}
