//! Attaching one hook: the ways are tried in order, and what the kernel said to each is kept.

use crate::kernel::btf::{Argument, KernelTypes};
use crate::kernel::tracefs::Tracefs;
use crate::probe::plan::{Hook, Mechanism, Part, Place, Program};
use aya::programs::{
    BtfTracePoint, FEntry, FExit, KProbe, ProgramError, ProgramFd, RawTracePoint, TracePoint,
};
use aya::{Btf, Ebpf};
use serde::Serialize;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use terrarium_abi::Probe;

/// A way that was tried in vain.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Attempt {
    /// The way.
    pub mechanism: Mechanism,
    /// The kernel's error number, if it was the kernel that refused.
    pub errno: Option<i32>,
    /// Why, in words.
    pub reason: String,
}

/// How a hook is attached, or why not.
#[derive(Debug, Clone)]
pub struct HookReport {
    /// The hook.
    pub hook: Hook,
    /// The way that worked.
    pub mechanism: Option<Mechanism>,
    /// The ways that did not, in the order in which they were tried.
    pub attempts: Vec<Attempt>,
}

impl HookReport {
    /// The probe that the hook belongs to.
    pub fn probe(&self) -> Probe {
        self.hook.probe
    }

    /// That of a hook on a kernel that does not tell its types: no way is tried.
    pub(crate) fn without_types(hook: Hook) -> Self {
        let attempt = |&mechanism| Attempt { mechanism, errno: None, reason: NO_TYPES.to_owned() };
        Self { hook, mechanism: None, attempts: hook.mechanisms().iter().map(attempt).collect() }
    }
}

/// Why nothing is attached on a kernel without BTF.
pub const NO_TYPES: &str = "the kernel does not tell its types (it needs CONFIG_DEBUG_INFO_BTF)";

/// Attaches hooks of one loaded object.
pub struct Attacher<'a> {
    /// The object.
    pub ebpf: &'a mut Ebpf,
    /// The kernel's types as aya wants them.
    pub btf: Option<&'a Btf>,
    /// The kernel's types.
    pub types: Option<&'a KernelTypes>,
    /// The ways that the user allows; empty allows all.
    pub allowed: &'a [Mechanism],
    /// System calls whose exit tells all that is wanted: their entry is left alone.
    pub exit_tells: &'a [&'static str],
    /// Opened when the first system call tracepoint is attached.
    tracefs: Option<Tracefs>,
    /// The attached programs.
    pub programs: Vec<(Probe, OwnedFd)>,
    /// Perf events that hold tracepoint programs. They are closed to detach.
    pub perf_events: Vec<OwnedFd>,
}

impl<'a> Attacher<'a> {
    /// An attacher for `ebpf`.
    pub fn new(
        ebpf: &'a mut Ebpf,
        btf: Option<&'a Btf>,
        types: Option<&'a KernelTypes>,
        allowed: &'a [Mechanism],
    ) -> Self {
        Self {
            ebpf,
            btf,
            types,
            allowed,
            exit_tells: &[],
            tracefs: None,
            programs: Vec::new(),
            perf_events: Vec::new(),
        }
    }

    /// Tries the ways of `hook` until one works. When `--attach` names ways that do not exist for this kind of
    /// hook, all of its own are tried.
    pub fn attach(&mut self, hook: Hook) -> HookReport {
        let mut attempts = Vec::new();
        let forced = hook.mechanisms().iter().any(|mechanism| self.allowed.contains(mechanism));
        for &mechanism in hook.mechanisms() {
            if forced && !self.allowed.contains(&mechanism) {
                continue;
            }
            match self.try_mechanism(&hook, mechanism) {
                Ok(()) => return HookReport { hook, mechanism: Some(mechanism), attempts },
                Err((errno, reason)) => attempts.push(Attempt { mechanism, errno, reason }),
            }
        }
        HookReport { hook, mechanism: None, attempts }
    }

    fn try_mechanism(&mut self, hook: &Hook, mechanism: Mechanism) -> Result<(), Refusal> {
        self.worth_trying(hook, mechanism)?;
        let mut programs = hook.programs(mechanism);
        if self.exit_tells.contains(&hook.name) {
            programs.retain(|program| program.part == Part::Exit);
        }
        // All are loaded before the first is attached, so that a pair is attached whole or not at all.
        for program in &programs {
            self.load(hook, mechanism, program).inspect_err(|_| self.unload(&programs))?;
        }
        let events_before = self.perf_events.len();
        for program in &programs {
            let attached = match mechanism {
                Mechanism::Tracepoint => self.attach_system_call_tracepoints(hook, program),
                _ => self.attach_program(hook, mechanism, program),
            };
            attached.inspect_err(|_| {
                self.perf_events.truncate(events_before);
                self.unload(&programs);
            })?;
        }
        for program in &programs {
            // Without a descriptor of its own it is only missing from what the programs cost.
            if let Ok(fd) =
                self.program(&program.name).map(|loaded| loaded.fd().map(ProgramFd::as_fd))
                && let Ok(Ok(own)) = fd.map(|fd| fd.try_clone_to_owned())
            {
                self.programs.push((hook.probe, own));
            }
        }
        Ok(())
    }

    /// Says in plain words what the kernel would refuse with a number, or what would cost too much.
    fn worth_trying(&self, hook: &Hook, mechanism: Mechanism) -> Result<(), Refusal> {
        let Some(types) = self.types else { return Ok(()) };
        match mechanism {
            Mechanism::Fentry | Mechanism::Kprobe => {
                let function = hook.function();
                if !types.has_function(&function) {
                    return Err((None, format!("this kernel has no function {function}")));
                }
            }
            Mechanism::TpBtf | Mechanism::RawTp => {
                let Some(arguments) = types.tracepoint_arguments(hook.name) else {
                    return Err((None, format!("this kernel has no tracepoint {}", hook.name)));
                };
                let wants_pointer = matches!(hook.place, Place::TracepointOrFunction(_));
                if wants_pointer && arguments.first() != Some(&Argument::Pointer) {
                    return Err((
                        None,
                        format!(
                            "the tracepoint {} of this kernel does not tell the task",
                            hook.name
                        ),
                    ));
                }
            }
            Mechanism::Tracepoint => {
                let alone = matches!(hook.place, Place::Exit(_)) && self.perf_events.is_empty();
                if alone && !self.allowed.contains(&mechanism) {
                    let reason = "it alone is not worth slowing every system call of the host";
                    return Err((None, reason.to_owned()));
                }
            }
        }
        Ok(())
    }

    fn program(&mut self, name: &str) -> Result<&mut aya::programs::Program, Refusal> {
        let missing = || (None, format!("this build has no program {name}"));
        self.ebpf.program_mut(name).ok_or_else(missing)
    }

    fn load(
        &mut self,
        hook: &Hook,
        mechanism: Mechanism,
        program: &Program,
    ) -> Result<(), Refusal> {
        let no_btf = || (None, "the kernel shows no BTF".to_owned());
        let btf = self.btf;
        let function = hook.function();
        let loaded = self.program(&program.name)?;
        match (mechanism, program.part) {
            (Mechanism::TpBtf, _) => {
                typed::<BtfTracePoint>(loaded)?.load(hook.name, btf.ok_or_else(no_btf)?)
            }
            (Mechanism::RawTp, _) => typed::<RawTracePoint>(loaded)?.load(),
            (Mechanism::Fentry, Part::Entry) => {
                typed::<FEntry>(loaded)?.load(&function, btf.ok_or_else(no_btf)?)
            }
            (Mechanism::Fentry, Part::Exit) => {
                typed::<FExit>(loaded)?.load(&function, btf.ok_or_else(no_btf)?)
            }
            (Mechanism::Kprobe, _) => typed::<KProbe>(loaded)?.load(),
            (Mechanism::Tracepoint, _) => typed::<TracePoint>(loaded)?.load(),
        }
        .map_err(|error| refusal(&error))
    }

    fn attach_program(
        &mut self,
        hook: &Hook,
        mechanism: Mechanism,
        program: &Program,
    ) -> Result<(), Refusal> {
        let loaded = self.program(&program.name)?;
        match (mechanism, program.part) {
            (Mechanism::TpBtf, _) => typed::<BtfTracePoint>(loaded)?.attach().map(|_| ()),
            (Mechanism::RawTp, _) => typed::<RawTracePoint>(loaded)?.attach(hook.name).map(|_| ()),
            (Mechanism::Fentry, Part::Entry) => typed::<FEntry>(loaded)?.attach().map(|_| ()),
            (Mechanism::Fentry, Part::Exit) => typed::<FExit>(loaded)?.attach().map(|_| ()),
            (Mechanism::Kprobe | Mechanism::Tracepoint, _) => {
                typed::<KProbe>(loaded)?.attach(hook.function(), 0).map(|_| ())
            }
        }
        .map_err(|error| refusal(&error))
    }

    fn attach_system_call_tracepoints(
        &mut self,
        hook: &Hook,
        program: &Program,
    ) -> Result<(), Refusal> {
        let said = |what: &str, error: &io::Error| {
            (error.raw_os_error(), format!("{what}: {}", plain(error)))
        };
        let tracefs = match self.tracefs.take() {
            Some(tracefs) => tracefs,
            None => Tracefs::open().map_err(|e| said("open tracefs", &e))?,
        };
        let tracefs = self.tracefs.insert(tracefs);
        let direction = match program.part {
            Part::Entry => "enter",
            Part::Exit => "exit",
        };
        let mut ids = Vec::new();
        for call in hook.system_calls() {
            let event = format!("sys_{direction}_{call}");
            match tracefs.event_id("syscalls", &event) {
                Ok(id) => ids.push(id),
                // Architectures differ in which of several calls they have.
                Err(error)
                    if error.raw_os_error() == Some(libc::ENOENT)
                        && hook.system_calls().len() > 1 => {}
                Err(error) => {
                    return Err(said(&format!("find the tracepoint syscalls:{event}"), &error));
                }
            }
        }
        let loaded = typed::<TracePoint>(self.program(&program.name)?)?;
        let fd = loaded.fd().map_err(|error| refusal(&error))?.as_fd();
        let mut events = Vec::new();
        for id in ids {
            events.push(attach_perf(id, fd).map_err(|e| said("attach through perf", &e))?);
        }
        self.perf_events.extend(events);
        Ok(())
    }

    /// Takes back programs of a way that failed half way.
    fn unload(&mut self, programs: &[Program]) {
        use aya::programs::Program as Loaded;
        for program in programs {
            let result = match self.ebpf.program_mut(&program.name) {
                Some(Loaded::FEntry(program)) => program.unload(),
                Some(Loaded::FExit(program)) => program.unload(),
                Some(Loaded::KProbe(program)) => program.unload(),
                Some(Loaded::TracePoint(program)) => program.unload(),
                Some(Loaded::BtfTracePoint(program)) => program.unload(),
                Some(Loaded::RawTracePoint(program)) => program.unload(),
                _ => Ok(()),
            };
            match result {
                Ok(()) | Err(ProgramError::NotLoaded) => {}
                Err(error) => {
                    tracing::warn!(program = program.name, %error, "cannot unload a program");
                }
            }
        }
    }
}

/// The kernel's error number and the reason in words.
pub type Refusal = (Option<i32>, String);

fn typed<'p, T>(program: &'p mut aya::programs::Program) -> Result<&'p mut T, Refusal>
where
    &'p mut T: TryFrom<&'p mut aya::programs::Program, Error = ProgramError>,
{
    program.try_into().map_err(|error| refusal(&error))
}

/// The number of aya's error, where the kernel gave one, and the error in one line.
pub fn refusal(error: &ProgramError) -> Refusal {
    match error {
        ProgramError::LoadError { io_error, verifier_log } => {
            let log = verifier_log.to_string();
            // The last line but the statistics says what the verifier did not like.
            let statistics = ["processed ", "stack depth ", "verification time "];
            let last =
                log.lines().rev().map(str::trim).find(|line| {
                    !line.is_empty() && !statistics.iter().any(|s| line.starts_with(s))
                });
            tracing::debug!(%log, "the verifier refused a program");
            let reason = match last {
                Some(last) => format!("load the program: {}: {last}", plain(io_error)),
                None => format!("load the program: {}", plain(io_error)),
            };
            (io_error.raw_os_error(), reason)
        }
        ProgramError::SyscallError(error) => {
            let reason = format!("{}: {}", error.call, plain(&error.io_error));
            (error.io_error.raw_os_error(), reason)
        }
        ProgramError::KProbeError(error) => {
            let source = std::error::Error::source(error);
            match source.and_then(|source| source.downcast_ref::<io::Error>()) {
                Some(io_error) if io_error.raw_os_error() == Some(libc::ENOENT) => {
                    (Some(libc::ENOENT), "the kernel has no kprobes (CONFIG_KPROBES)".to_owned())
                }
                Some(io_error) => {
                    (io_error.raw_os_error(), format!("{error}: {}", plain(io_error)))
                }
                None => (None, error.to_string()),
            }
        }
        other => (None, other.to_string()),
    }
}

/// An error number in the kernel's words and ours.
fn plain(error: &io::Error) -> String {
    let Some(number) = error.raw_os_error() else { return error.to_string() };
    let errno = nix::errno::Errno::from_raw(number);
    let hint = match errno {
        nix::errno::Errno::EPERM | nix::errno::Errno::EACCES => {
            " (this kernel, its lockdown or a missing capability does not allow it)"
        }
        nix::errno::Errno::EINVAL | nix::errno::Errno::EOPNOTSUPP => {
            " (this kernel does not support it)"
        }
        _ => "",
    };
    format!("{errno:?}: {}{hint}", errno.desc())
}

/// Attaches a tracepoint program to the event with this number. Any program attached to a system call's
/// tracepoint runs on every CPU, whatever CPU the perf event is bound to.
fn attach_perf(id: u64, program: BorrowedFd<'_>) -> io::Result<OwnedFd> {
    const PERF_TYPE_TRACEPOINT: u32 = 2;
    const PERF_FLAG_FD_CLOEXEC: libc::c_ulong = 8;
    /// `struct perf_event_attr` as of its first version (`PERF_ATTR_SIZE_VER0`).
    #[repr(C)]
    struct Attributes {
        kind: u32,
        size: u32,
        config: u64,
        sample_period: u64,
        sample_type: u64,
        read_format: u64,
        flags: u64,
        wakeup_events: u32,
        bp_type: u32,
        config1: u64,
    }
    const _: () = assert!(size_of::<Attributes>() == 64);
    let attributes = Attributes {
        kind: PERF_TYPE_TRACEPOINT,
        size: 64,
        config: id,
        sample_period: 1,
        sample_type: 0,
        read_format: 0,
        flags: 0,
        wakeup_events: 1,
        bp_type: 0,
        config1: 0,
    };
    // SAFETY: the attributes are a live struct of the size that they state; any process, CPU 0, no group.
    let fd = unsafe {
        libc::syscall(
            libc::SYS_perf_event_open,
            &raw const attributes,
            -1,
            0,
            -1,
            PERF_FLAG_FD_CLOEXEC,
        )
    };
    let event = match i32::try_from(fd) {
        // SAFETY: the kernel has just made this descriptor for us, and nobody else knows it.
        Ok(fd) if fd >= 0 => unsafe { OwnedFd::from_raw_fd(fd) },
        _ => return Err(io::Error::last_os_error()),
    };
    // _IOW('$', 8, __u32) and _IO('$', 0) of linux/perf_event.h.
    nix::ioctl_write_int!(set_bpf, b'$', 8);
    nix::ioctl_none!(enable, b'$', 0);
    let program = program.as_raw_fd().try_into().map_err(io::Error::other)?;
    // SAFETY: both descriptors are open; the argument is passed by value.
    unsafe { set_bpf(event.as_raw_fd(), program) }?;
    // SAFETY: the descriptor is open.
    unsafe { enable(event.as_raw_fd()) }?;
    Ok(event)
}
