//! Loading the object and attaching what the kernel grants.

use crate::kernel::btf::{Argument, BtfError, KernelTypes, VMLINUX};
use crate::kernel::cgroup_mounts::CgroupMounts;
use crate::kernel::config::{MissingField, config};
use crate::kernel::permission;
use crate::probe::attach::{Attacher, HookReport, refusal};
use crate::probe::counts::Counters;
use crate::probe::plan::{Choice, HOOKS, Mechanism};
use crate::probe::run_stats::Programs;
use crate::probe::walk::Walks;
use crate::probe::watch::{Watch, Watched};
use aya::maps::{Array, HashMap, Map, MapData, MapError, PerCpuArray, RingBuf};
use aya::programs::Iter;
use aya::sys::{Stats, enable_stats};
use aya::{Btf, Ebpf, EbpfError, EbpfLoader};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use terrarium_abi::config::offset_in;
use terrarium_abi::namespace::NS_KINDS;
use terrarium_abi::{ABSENT, CgroupInfo, CgroupKey, Config, Probe, names};

/// The programs, built by the build script.
static OBJECT: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/terrarium-probes"));

/// Why no program could be loaded at all.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// The kernel's types are out of reach; without them no field of the kernel can be found.
    #[error(transparent)]
    Types(#[from] BtfError),
    /// A file of /proc cannot be read.
    #[error("read {path}: {error}")]
    Proc {
        /// The file.
        path: PathBuf,
        /// What the kernel said.
        error: io::Error,
    },
    /// This process may not.
    #[error("load the eBPF programs: this process lacks {} (run as root; see `terrarium doctor`)", missing.join(", "))]
    Capabilities {
        /// The capabilities that it lacks.
        missing: Vec<&'static str>,
    },
    /// The kernel refused the maps or the object.
    #[error("load the eBPF object: {reason}")]
    Object {
        /// In one line.
        reason: String,
    },
    /// A cgroup that is to be watched is not there.
    #[error(
        "watch the cgroup {path}: it is in no hierarchy that names containers (see /proc/PID/cgroup)"
    )]
    Unwatchable {
        /// Its path.
        path: String,
    },
    /// The object lacks a map.
    #[error("the eBPF object has no usable map {name}: {reason}")]
    Map {
        /// Its name.
        name: &'static str,
        /// Why.
        reason: String,
    },
}

/// What to load.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The probes, or hooks of them, wanted.
    pub probes: Vec<Choice>,
    /// The ways to attach that are allowed; empty allows all.
    pub mechanisms: Vec<Mechanism>,
    /// The probes whose records are written; the others only count.
    pub events: Vec<Probe>,
    /// How many records a cgroup may write in a second; 0 sets no limit.
    pub event_rate: u32,
    /// Whether records of exec carry the arguments, which can hold secrets.
    pub argv: bool,
    /// Whether the kernel counts how often the programs run and how long, which makes each run a little slower.
    pub run_stats: bool,
    /// Which cgroups are counted and reported.
    pub watch: Watch,
    /// Whether the programs' own log is on.
    pub log: bool,
    /// Size of the ring buffer, bytes: a power of two, at least a page.
    pub ring_bytes: u32,
    /// How many counters fit, and as many of those with durations; fewer on hosts with more than 64 processors.
    pub counters: u32,
    /// Whether to go on, with nothing attached, on a kernel that does not tell its types.
    pub bare: bool,
    /// `/proc`, but for tests.
    pub proc: PathBuf,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            probes: Probe::ALL.map(|probe| Choice { probe, hook: None }).to_vec(),
            mechanisms: Vec::new(),
            events: Probe::ALL.to_vec(),
            event_rate: 0,
            argv: false,
            run_stats: false,
            watch: Watch::All,
            log: false,
            ring_bytes: 4 << 20,
            counters: 65_536,
            bare: false,
            proc: PathBuf::from("/proc"),
        }
    }
}

impl Settings {
    /// Whether the tracepoint at which OOM victims are chosen tells the task, as it does since Linux 6.8, and a program is at it.
    fn sees_victims(&self, types: Option<&KernelTypes>) -> bool {
        let wanted = HOOKS
            .iter()
            .any(|hook| hook.name == "mark_victim" && Choice::chosen(&self.probes, hook));
        let told = types
            .and_then(|types| types.tracepoint_arguments("mark_victim"))
            .is_some_and(|arguments| matches!(arguments[..], [Argument::Pointer, ..]));
        wanted && told && self.mechanisms.is_empty()
    }
}

/// The loaded and attached programs. Dropping it detaches all of them.
pub struct Probes {
    /// Closing these detaches the programs at system call tracepoints.
    _perf_events: Vec<OwnedFd>,
    /// Taken out by whoever follows new containers.
    watched: Option<Watched>,
    /// Taken out by whoever tells what containers use; else why there are none.
    walks: Result<Option<Walks>, String>,
    ebpf: Ebpf,
    /// Taken out by whoever tells what they cost.
    programs: Option<Programs>,
    reports: Vec<HookReport>,
    missing_fields: Vec<MissingField>,
    has_types: bool,
    mounts: CgroupMounts,
    initial_namespaces: [u32; NS_KINDS],
}

impl Probes {
    /// Loads the object and attaches the hooks of the wanted probes. A hook that cannot be attached is reported
    /// and stops no other.
    pub fn load(settings: &Settings) -> Result<Self, LoadError> {
        let mounts = CgroupMounts::read(&settings.proc).map_err(|error| LoadError::Proc {
            path: settings.proc.join("self/mountinfo"),
            error,
        })?;
        settings.watch.check(&mounts)?;
        let types = match KernelTypes::read(Path::new(VMLINUX)) {
            Err(error) if settings.bare && error.is_missing() => None,
            types => Some(types?),
        };
        let (mut config, missing_fields) = config(types.as_ref(), &mounts, &settings.proc);
        config.events = settings.events.iter().fold(0, |bits, probe| bits | 1 << *probe as u32);
        // A span of the programs is 2^30 nanoseconds.
        let per_span = (u64::from(settings.event_rate) << 30) / 1_000_000_000;
        let least = u32::from(settings.event_rate != 0);
        config.event_rate = u32::try_from(per_span).unwrap_or(u32::MAX).max(least);
        config.argv = u32::from(settings.argv);
        (config.watch, config.watch_terrarium) = settings.watch.switches();
        let memory = settings.probes.iter().any(|choice| choice.probe == Probe::Memory);
        config.memory_probe = u32::from(memory);
        config.victims_seen = u32::from(!memory || settings.sees_victims(types.as_ref()));
        let cpus = u32::try_from(aya::util::nr_cpus().unwrap_or(1)).unwrap_or(u32::MAX);
        let cells = settings.counters.min(most_cells(cpus));
        let serials = [config.cgroup_serial, config.css_serial];
        config.front_cells = if serials.contains(&ABSENT) { 0 } else { front_cells(cpus) };
        let log_level = if settings.log { u8::MAX } else { 0 };
        let mut ebpf = EbpfLoader::new()
            // It would find fields by the kernel's types; no program here asks it to, and they are 13 MiB of memory.
            .btf(None)
            .override_global(names::CONFIG, &config, true)
            .override_global(aya_log::LEVEL, &log_level, false)
            .map_max_entries(names::EVENTS, settings.ring_bytes)
            .map_max_entries(names::COUNTS, cells)
            .map_max_entries(names::TIMES, cells)
            .map_max_entries(names::FRONT, (config.front_cells * cpus).max(1))
            .map_max_entries(names::USAGE, USAGE_CELLS)
            .load(&placed(OBJECT, &config))
            .map_err(|error| {
                let lacking = permission::missing_capabilities(&settings.proc);
                if lacking.is_empty() {
                    LoadError::Object { reason: one_line(&error) }
                } else {
                    LoadError::Capabilities {
                        missing: lacking.into_iter().map(|(name, _)| name).collect(),
                    }
                }
            })?;

        let btf = Btf::from_sys_fs().ok();
        let mut attacher =
            Attacher::new(&mut ebpf, btf.as_ref(), types.as_ref(), &settings.mechanisms);
        // As in the programs: counting needs the flags alone, which are still in the registers at the exit.
        if config.task_registers == 1 && !settings.events.contains(&Probe::Namespace) {
            attacher.exit_tells = &["unshare"];
        }
        let reports = HOOKS
            .iter()
            .filter(|hook| Choice::chosen(&settings.probes, hook))
            .map(|hook| match types {
                Some(_) => attacher.attach(*hook),
                None => HookReport::without_types(*hook),
            })
            .collect();
        let perf_events = attacher.perf_events;
        let counting = settings.run_stats.then(|| enable_stats(Stats::RunTime)).transpose();
        let counting = counting.unwrap_or_else(|error| {
            tracing::warn!(%error, "the kernel does not count what the programs cost");
            None
        });
        let programs = Programs::new(attacher.programs, counting);
        // After attaching: what is made below a watched cgroup from now on is watched from its first task.
        let watched = Watched::new(&mut ebpf, &settings.watch, &mounts)?;
        let walks = walks(&mut ebpf, btf.as_ref(), &mounts).map(Some);
        Ok(Self {
            _perf_events: perf_events,
            watched: Some(watched),
            walks,
            has_types: types.is_some(),
            ebpf,
            programs: Some(programs),
            reports,
            missing_fields,
            mounts,
            initial_namespaces: config.ns.map(|ns| ns.initial),
        })
    }

    /// How each hook is attached, or why not.
    pub fn reports(&self) -> &[HookReport] {
        &self.reports
    }

    /// Whether the kernel tells its types; else nothing is attached.
    pub fn has_types(&self) -> bool {
        self.has_types
    }

    /// What this kernel lacks.
    pub fn missing_fields(&self) -> &[MissingField] {
        &self.missing_fields
    }

    /// Inodes of the initial namespaces, by kind; 0 when unknown.
    pub fn initial_namespaces(&self) -> [u32; NS_KINDS] {
        self.initial_namespaces
    }

    /// The cgroup hierarchies.
    pub fn mounts(&self) -> &CgroupMounts {
        &self.mounts
    }

    /// Takes the counters out.
    pub fn take_counters(&mut self) -> Result<Counters, LoadError> {
        let front = self.take_map(names::FRONT)?;
        let counts = self.take_map(names::COUNTS)?;
        let times = self.take_map(names::TIMES)?;
        let stats: PerCpuArray<_, _> = self.take(names::STATS)?;
        Counters::new(&front, counts, times, stats)
            .map_err(|error| LoadError::Map { name: names::COUNTS, reason: error.to_string() })
    }

    /// Takes the ring buffer and its arming cell out.
    pub fn take_ring(&mut self) -> Result<(RingBuf<MapData>, Array<MapData, u32>), LoadError> {
        Ok((self.take(names::EVENTS)?, self.take(names::ARMED)?))
    }

    /// Takes the map of new cgroups out.
    pub fn take_cgroups(&mut self) -> Result<HashMap<MapData, CgroupKey, CgroupInfo>, LoadError> {
        self.take(names::CGROUPS)
    }

    /// Takes the programs' counters out.
    pub fn take_programs(&mut self) -> Programs {
        self.programs.take().unwrap_or_default()
    }

    /// Takes the walks of cgroups out.
    pub fn take_walks(&mut self) -> Option<Walks> {
        self.walks.as_mut().ok().and_then(Option::take)
    }

    /// Why the kernel's cgroups cannot be walked, where they cannot.
    pub fn no_walks(&self) -> Option<&str> {
        self.walks.as_ref().err().map(String::as_str)
    }

    /// Takes the watched cgroups out.
    pub fn take_watched(&mut self) -> Option<Watched> {
        self.watched.take()
    }

    /// The object, for aya-log.
    pub fn ebpf_mut(&mut self) -> &mut Ebpf {
        &mut self.ebpf
    }

    fn take<T>(&mut self, name: &'static str) -> Result<T, LoadError>
    where
        T: TryFrom<Map, Error = MapError>,
    {
        T::try_from(self.take_map(name)?)
            .map_err(|error| LoadError::Map { name, reason: error.to_string() })
    }

    fn take_map(&mut self, name: &'static str) -> Result<Map, LoadError> {
        self.ebpf
            .take_map(name)
            .ok_or_else(|| LoadError::Map { name, reason: "it is not there".to_owned() })
    }
}

/// So many cgroups of a hierarchy are told of by a walk; files tell of others.
const USAGE_CELLS: u32 = 8192;

/// The walks of the hierarchies in which containers use something that a walk tells of.
fn walks(ebpf: &mut Ebpf, btf: Option<&Btf>, mounts: &CgroupMounts) -> Result<Walks, String> {
    let btf = btf.ok_or("the kernel shows no BTF")?;
    let program = ebpf.program_mut("iter_cgroup").ok_or("this build has no program for it")?;
    let program: &mut Iter = program.try_into().map_err(|error| refusal(&error).1)?;
    program.load("cgroup", btf).map_err(|error| refusal(&error).1)?;
    let program = program.fd().and_then(|fd| Ok(fd.as_fd().try_clone_to_owned()?));
    let program = program.map_err(|error| error.to_string())?;
    let map = ebpf.take_map(names::USAGE).ok_or("the eBPF object has no map for it")?;
    let v1 = ["cpu", "cpuacct", "memory", "pids", "blkio"]
        .into_iter()
        .filter_map(|name| mounts.v1.get(name).map(|mount| (name, mount.as_path())));
    let unified = mounts.unified.as_deref().map(|mount| ("unified", mount));
    Walks::new(program.as_fd(), &map, v1.chain(unified)).map_err(|error| error.to_string())
}

/// The object with the values of settings in the instructions that load them.
fn placed(object: &[u8], config: &Config) -> Vec<u8> {
    /// `BPF_LD | BPF_IMM | BPF_DW` of `linux/bpf.h`: an instruction of twice eight bytes, each of which ends with half of the number.
    const LOAD_NUMBER: u8 = 0x18;
    let values = config.words();
    let mut object = object.to_vec();
    let (quarters, _) = object.as_chunks_mut::<4>();
    for n in (0..quarters.len().saturating_sub(3)).step_by(2) {
        let [[LOAD_NUMBER, ..], low, _, high] = &mut quarters[n..n + 4] else { continue };
        let halves = [*low, *high].map(u32::from_le_bytes).map(u64::from);
        let index = offset_in(halves[0] | halves[1] << 32)
            .and_then(|offset| usize::try_from(offset / 4).ok());
        if let Some(value) = index.and_then(|index| values.get(index)) {
            (*low, *high) = (value.to_le_bytes(), [0; 4]);
        }
    }
    object
}

/// How many cells the maps of counters may each have with so many processors: each processor has room for all of them, 24 bytes for
/// a counter and one with durations, and all together are to take no more than 96 MiB.
fn most_cells(cpus: u32) -> u32 {
    const CELLS: u32 = 1 << 22;
    CELLS / cpus.max(1)
}

/// How many cells of `FRONT` each of so many processors has: enough for some hundred containers that do what containers do, and all
/// together no more than 8 MiB.
fn front_cells(cpus: u32) -> u32 {
    const CELLS: u32 = 1 << 17;
    (CELLS / cpus.max(1)).min(4096)
}

/// An error and its causes on one line, without a verifier log.
fn one_line(error: &EbpfError) -> String {
    let mut text = error.to_string();
    let mut source = std::error::Error::source(error);
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        if !text.contains(&cause_text) {
            text = format!("{text}: {cause_text}");
        }
        source = cause.source();
    }
    text.lines().next().unwrap_or_default().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use terrarium_abi::config::place_of;

    #[test]
    fn hosts_with_many_processors_have_fewer_cells_for_each() {
        assert_eq!([1, 64, 128, 8192].map(most_cells), [1 << 22, 65_536, 32_768, 512]);
        assert_eq!([1, 32, 128, 8192].map(front_cells), [4096, 4096, 1024, 16]);
    }

    #[test]
    fn settings_stand_in_the_instructions_that_load_them() {
        let mut config = Config::UNSET;
        config.task_tgid = 0x1234_5678;
        let number = place_of(std::mem::offset_of!(Config, task_tgid) as u64).to_le_bytes();
        // r3 = number ll
        let load = |number: [u8; 8]| {
            let (low, high) = number.split_at(4);
            [&[0x18, 3, 0, 0], low, &[0; 4], high].concat()
        };
        let (other, end) = (load([1, 2, 3, 4, 5, 6, 7, 8]), vec![0x95; 8]);
        let object = [&end[..], &load(number), &other, &end].concat();
        let value = load([0x78, 0x56, 0x34, 0x12, 0, 0, 0, 0]);
        let expected = [&end[..], &value, &other, &end].concat();
        assert_eq!(placed(&object, &config), expected);
    }
}
