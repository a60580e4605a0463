//! Running an observatory: load, attach, serve, and take everything back at the end.

use crate::allocator;
use crate::attribution::registry::NewCgroups;
use crate::attribution::state_file;
use crate::attribution::{Attribution, Registry};
use crate::ebpf_log::EbpfLog;
use crate::event::decode::text;
use crate::event::history::Bounds;
use crate::event::json::Context;
use crate::event::notice::{News, Notice, What};
use crate::event::store::{self, Keep, Store};
use crate::event::{Event, History};
use crate::export::{Collector, EventsFile, Export, Sink};
use crate::http;
use crate::http::web_config::{WebConfig, WebConfigError};
use crate::kernel::cgroup_mounts::{Hierarchy, Mode};
use crate::kernel::cgroup_namespace;
use crate::leaks::{self, Places, Wanted, residue};
use crate::metrics::{self, Metrics, MetricsError, Shown};
use crate::notify;
use crate::privileges;
use crate::probe::{HookReport, LoadError, Probes, Settings};
use crate::pump::{CgroupNotes, Pump};
use crate::shared::Shared;
use std::io;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};
use terrarium_abi::CgroupKey;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;

/// What an observatory is to do.
#[derive(Debug, Clone)]
pub struct Options {
    /// Where to listen.
    pub listen: SocketAddr,
    /// Where the state files of containers are.
    pub root: PathBuf,
    /// What to load, and how.
    pub settings: Settings,
    /// How long the series of a removed container stay.
    pub grace: Duration,
    /// What `/metrics` shows.
    pub shown: Shown,
    /// Where events are kept on disk, if they are.
    pub history: Option<(PathBuf, Keep)>,
    /// File to write events to, `-` for stdout, and how large it may become, bytes.
    pub events_file: Option<(PathBuf, u64)>,
    /// An `OpenTelemetry` collector to send events to.
    pub collector: Option<String>,
    /// Who may ask, and whether by TLS.
    pub web_config: Option<PathBuf>,
    /// Whether rights that are not needed any more are given up; not where others share the process.
    pub drop_capabilities: bool,
}

/// Why an observatory does not run.
#[derive(Debug, thiserror::Error)]
pub enum ObserveError {
    /// The probes cannot be loaded.
    #[error(transparent)]
    Load(#[from] LoadError),
    /// Not one hook could be attached.
    #[error(
        "attach the probes: the kernel refused all of them, first {hook}: {reason} (see `terrarium doctor`)"
    )]
    NothingAttached {
        /// The first hook.
        hook: &'static str,
        /// What the kernel said.
        reason: String,
    },
    /// The address cannot be listened on.
    #[error("listen on {address}: {error} (choose another address with --listen)")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// What the kernel said.
        error: io::Error,
    },
    /// The web configuration cannot be used.
    #[error(transparent)]
    Web(#[from] WebConfigError),
    /// The metrics do not fit together.
    #[error(transparent)]
    Metrics(#[from] MetricsError),
    /// The folder of the history cannot be used.
    #[error(
        "keep the history in {}: {error} (choose another folder with --history, or --no-history)",
        folder.display()
    )]
    History {
        /// The folder.
        folder: PathBuf,
        /// What the kernel said.
        error: io::Error,
    },
    /// The file that events go to cannot be used.
    #[error("open --events-file {}: {error} (choose another file, or - for standard output)", path.display())]
    EventsFile {
        /// The file.
        path: PathBuf,
        /// What the kernel said.
        error: io::Error,
    },
    /// Something else that the operating system refused.
    #[error("{what}: {error}")]
    System {
        /// What was tried.
        what: &'static str,
        /// What the kernel said.
        error: io::Error,
    },
}

fn system(what: &'static str) -> impl FnOnce(io::Error) -> ObserveError {
    move |error| ObserveError::System { what, error }
}

fn unusable_history(folder: &Path) -> impl FnOnce(io::Error) -> ObserveError {
    move |error| ObserveError::History { folder: folder.to_owned(), error }
}

/// Runs an observatory until SIGINT or SIGTERM. `ready` is called once with the URL that it listens on, when the
/// probes are attached and the first scrape would be answered.
pub fn run(options: &Options, ready: impl FnOnce(&str, &[HookReport])) -> Result<(), ObserveError> {
    allocator::share_one_arena();
    if let Err(error) = cgroup_namespace::enter_hosts(&options.settings.proc) {
        tracing::warn!(
            %error,
            "stays in a cgroup namespace of its own, where cgroups of processes are told relative to its root \
             (start the container with --cgroupns host --pid host)"
        );
    }
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .max_blocking_threads(4)
        .build()
        .map_err(system("start the runtime"))?;
    runtime.block_on(serve(options, ready))
}

async fn serve(
    options: &Options,
    ready: impl FnOnce(&str, &[HookReport]),
) -> Result<(), ObserveError> {
    // First what is cheap and fails most often.
    let listener = TcpListener::bind(options.listen)
        .await
        .map_err(|error| ObserveError::Listen { address: options.listen, error })?;
    let address = listener.local_addr().map_err(system("ask for the address listened on"))?;
    let web = options.web_config.as_deref().map(WebConfig::read).transpose()?.map(Arc::new);
    let sinks = sinks(options)?;
    let scheme = if web.as_ref().is_some_and(|web| web.has_tls()) { "https" } else { "http" };
    // Before anything is attached, so that a signal during start-up ends it cleanly.
    let mut interrupt = signal(SignalKind::interrupt()).map_err(system("catch SIGINT"))?;
    let mut terminate = signal(SignalKind::terminate()).map_err(system("catch SIGTERM"))?;

    let mut running = Running::start(options)?;
    let exports = running.export(sinks)?;
    let keeper =
        options.history.as_ref().map(|(folder, keep)| running.keep(folder, *keep)).transpose()?;
    let metrics = Arc::new(Metrics::new(Arc::clone(&running.shared), options.shown.clone())?);
    let (stop, stopping) = watch::channel(false);
    let server =
        tokio::spawn(http::serve(listener, Arc::clone(&running.shared), metrics, web, stopping));
    ready(&format!("{scheme}://{address}"), &running.shared.reports);
    if let Err(error) = notify::ready(&format!("listening on {address}")) {
        tracing::warn!(%error, "cannot tell systemd that the observatory is ready");
    }

    let mut check = tokio::time::interval(Duration::from_secs(1));
    let ended = loop {
        tokio::select! {
            _ = interrupt.recv() => break Ok(()),
            _ = terminate.recv() => break Ok(()),
            _ = check.tick() => {
                if running.pump.as_ref().is_some_and(JoinHandle::is_finished) {
                    break Err(());
                }
            }
        }
    };
    stop.send_replace(true);
    if let Err(error) = server.await {
        tracing::error!(%error, "the HTTP side ended badly");
    }
    let pumped = running.stop();
    drop(exports);
    if let Some((keeper, end)) = keeper {
        drop(end);
        // The last events come with the end of the pump.
        if keeper.join().is_err() {
            tracing::error!("the writer of the history panicked");
        }
    }
    match (ended, pumped) {
        (Ok(()), Ok(())) => Ok(()),
        (_, Err(error)) => Err(ObserveError::System { what: "read events", error }),
        (Err(()), Ok(())) => Err(ObserveError::System {
            what: "read events",
            error: io::Error::other("the reader ended by itself"),
        }),
    }
}

/// Where events are handed on to, each with its name.
type Sinks = Vec<(&'static str, Box<dyn Sink>)>;

fn sinks(options: &Options) -> Result<Sinks, ObserveError> {
    let mut sinks = Sinks::new();
    if let Some((path, max_bytes)) = &options.events_file {
        let file = EventsFile::open(path, *max_bytes)
            .map_err(|error| ObserveError::EventsFile { path: path.clone(), error })?;
        sinks.push(("events file", Box::new(file)));
    }
    if let Some(url) = &options.collector {
        let collector = Collector::new(url).map_err(io::Error::other);
        sinks.push(("collector", Box::new(collector.map_err(system("read --otlp"))?)));
    }
    Ok(sinks)
}

/// Attached probes and the thread that reads them.
struct Running {
    shared: Arc<Shared>,
    probes: Probes,
    pump: Option<JoinHandle<io::Result<()>>>,
    /// Closing it ends the thread.
    stop: Option<OwnedFd>,
    /// Its end ends the thread that looks for leaks.
    _looks: Sender<()>,
}

/// Between two looks for leaks, at least.
const LEAK_PACE: Duration = Duration::from_secs(10);

/// How soon it is looked when something was seen of which it is not known whose it is.
const LEAK_HASTE: Duration = Duration::from_millis(500);

/// Looks take no more than one part in so many of a processor's time: with many containers they come less often
/// (docs/PERFORMANCE.md has what one takes).
const LEAK_SHARE: u32 = 10;

/// How much a look for leaks gives way to whatever else is to be done, answers to scrapes among it (nice(2)).
const LEAK_NICE: i32 = 10;

/// Looks for leaks in the state of all containers until the sender is gone.
fn look_for_leaks(shared: &Shared, places: &Places, stop: &Receiver<()>) {
    // Of this thread alone, on Linux (setpriority(2), "Bugs"). Nothing is lost where it is refused.
    // SAFETY: the call takes numbers.
    unsafe { libc::setpriority(libc::PRIO_PROCESS, 0, LEAK_NICE) };
    let mut last = None;
    let (mut pace, mut haste) = (LEAK_PACE, LEAK_HASTE);
    loop {
        let due = last.is_none_or(|last: Instant| last.elapsed() >= pace);
        if due || shared.leaks().has_nameless() {
            let began = Instant::now();
            match leaks::judge(places, &Wanted::All, |_| true) {
                Ok(report) => {
                    let news = shared.leaks().looked(report);
                    tell(shared, news);
                }
                Err(error) => tracing::warn!(%error, "cannot look for leaks"),
            }
            if due {
                match residue::that_stays(places) {
                    Ok(findings) => {
                        let news = shared.leaks().looked_for_residue(findings);
                        tell(shared, news);
                    }
                    Err(error) => tracing::warn!(%error, "cannot look for what containers left"),
                }
                last = Some(Instant::now());
            }
            let took = began.elapsed();
            if due {
                pace = LEAK_PACE.max(took * LEAK_SHARE);
            }
            haste = LEAK_HASTE.max(took * 2);
            allocator::give_back();
        }
        match stop.recv_timeout(haste) {
            Err(RecvTimeoutError::Timeout) => {}
            Ok(()) | Err(RecvTimeoutError::Disconnected) => return,
        }
    }
}

/// Takes in what an earlier observatory has kept that explains the state of containers: their mounts.
fn recall(shared: &Shared, folder: &Path) {
    // The history of the first start is not there yet.
    if !folder.is_dir() {
        return;
    }
    // Of this boot: the history may be large, and reach back to others.
    let key = format!("\"key\":\"{}-", shared.context.boot);
    let explains = |line: &str| {
        let kinds = ["\"type\":\"mount.", "\"type\":\"cgroup.remove\""];
        kinds.iter().any(|kind| line.contains(kind)) && line.contains(&key)
    };
    match store::lines(folder, explains) {
        Ok(lines) => {
            let mut leaks = shared.leaks();
            lines.for_each(|line| leaks.recall(&line, &shared.context.boot));
        }
        Err(error) => tracing::warn!(%error, "cannot read what an earlier observatory has kept"),
    }
    allocator::give_back();
}

/// Tells in the stream what was found.
fn tell(shared: &Shared, news: Vec<News>) {
    if news.is_empty() {
        return;
    }
    let registry = shared.registry();
    let known = registry.by_id();
    let events = news.into_iter().map(|news| {
        let name = &news.finding().container;
        let about = known.get(name.id.as_str()).cloned();
        let about = about.unwrap_or_else(|| Attribution::of(name));
        Event::notice(Notice::now(What::Finding(news)), about)
    });
    let batch = events.collect();
    drop(registry);
    shared.history.add(batch);
}

impl Running {
    fn start(options: &Options) -> Result<Self, ObserveError> {
        let mut probes = Probes::load(&options.settings)?;
        if let Some(first) = probes.reports().first()
            && probes.has_types()
            && probes.reports().iter().all(|report| report.mechanism.is_none())
        {
            let attempt = first.attempts.last();
            return Err(ObserveError::NothingAttached {
                hook: first.hook.name,
                reason: attempt.map_or("no way to attach is allowed", |a| &a.reason).to_owned(),
            });
        }
        let counters = probes.take_counters()?;
        let (ring, armed) = probes.take_ring()?;
        let notes: CgroupNotes = Arc::new(Mutex::new(probes.take_cgroups()?));
        let mounts = probes.mounts().clone();
        if mounts.mode() == Mode::None {
            tracing::warn!(
                "no cgroup hierarchy is mounted here: names, limits and usage of containers are missing \
                 (a container needs the host's /sys/fs/cgroup at its place)"
            );
        }
        let memory_hierarchy = mounts.memory_hierarchy;
        let look_up: NewCgroups = {
            let notes = Arc::clone(&notes);
            Box::new(move |hierarchy, id| {
                let hierarchy = match hierarchy {
                    Hierarchy::Unified => 0,
                    Hierarchy::Memory => memory_hierarchy,
                };
                let notes = notes.lock().unwrap_or_else(PoisonError::into_inner);
                let info = notes.get(&CgroupKey { id, hierarchy, pad: 0 }, 0).ok()?;
                Some(text(&info.path).into_owned())
            })
        };
        let log = options
            .settings
            .log
            .then(|| EbpfLog::new(probes.ebpf_mut()))
            .transpose()
            .map_err(system("read the programs' log"))?;
        let context = Context::read(probes.initial_namespaces());
        let roots = state_file::roots(&options.root, Path::new("/run"));
        // The walk comes after attaching: a cgroup made meanwhile is either found by it or told by the probe.
        let registry = Registry::new(mounts, roots.clone(), options.grace, look_up);
        let history = Arc::new(History::new(Bounds::default()));
        let times = metrics::time_histograms().map_err(MetricsError::from)?;
        let shared =
            Arc::new(Shared::new(registry, counters, history, &mut probes, times, context));
        let (stopped, stop) = nix::unistd::pipe2(nix::fcntl::OFlag::O_CLOEXEC)
            .map_err(|e| system("make a pipe")(e.into()))?;
        // The folders above it may be closed to who has none of the capabilities.
        if let Some((folder, _)) = &options.history {
            store::make_folder(folder).map_err(unusable_history(folder))?;
        }
        // The last moment at which this is the only thread: what it has the others inherit.
        if options.drop_capabilities {
            privileges::drop_others()
                .map_err(|error| system("drop capabilities")(io::Error::other(error)))?;
        }
        let pump = Pump {
            ring,
            armed,
            notes,
            log,
            shared: Arc::clone(&shared),
            stop: stopped,
            roots,
            watched: probes.take_watched(),
            walks: !probes.has_types(),
        };
        let pump = std::thread::Builder::new()
            .name("events".to_owned())
            .spawn(move || pump.run())
            .map_err(system("start a thread"))?;
        // What is told of it came before the attaching, and so before anything that the thread notes.
        if let Some((folder, _)) = &options.history {
            recall(&shared, folder);
        }
        let (looks, looking) = mpsc::channel();
        let looker = (Arc::clone(&shared), Places::live(&options.root));
        std::thread::Builder::new()
            .name("leaks".to_owned())
            .spawn(move || look_for_leaks(&looker.0, &looker.1, &looking))
            .map_err(system("start a thread"))?;
        Ok(Self { shared, probes, pump: Some(pump), stop: Some(stop), _looks: looks })
    }

    /// Starts the threads that hand events on. They end, after a last attempt, when they are dropped.
    fn export(&self, sinks: Sinks) -> Result<Vec<Export>, ObserveError> {
        let shared = &self.shared;
        sinks
            .into_iter()
            .map(|(name, sink)| {
                Export::start(name, sink, &shared.history, shared.context.clone())
                    .map_err(system("start a thread"))
            })
            .collect()
    }

    /// Starts the thread that keeps events on disk. It ends, after a last write, when the sender goes.
    fn keep(
        &self,
        folder: &Path,
        keep: Keep,
    ) -> Result<(JoinHandle<()>, Sender<()>), ObserveError> {
        let (history, context) = (&self.shared.history, self.shared.context.clone());
        let mut store =
            Store::open(folder, keep, history, context).map_err(unusable_history(folder))?;
        let (end, ended) = mpsc::channel();
        let write = move || {
            let mut last = None;
            loop {
                let going =
                    ended.recv_timeout(Duration::from_secs(1)) == Err(RecvTimeoutError::Timeout);
                let result = store.write().and_then(|()| {
                    if last.is_none_or(|at: Instant| at.elapsed() > Duration::from_mins(1)) {
                        last = Some(Instant::now());
                        store.expire()?;
                    }
                    Ok(())
                });
                if let Err(error) = result {
                    tracing::error!(%error, "cannot keep events on disk");
                }
                if !going {
                    return;
                }
            }
        };
        let thread = std::thread::Builder::new().name("history".to_owned()).spawn(write);
        Ok((thread.map_err(system("start a thread"))?, end))
    }

    /// Ends the thread and detaches everything.
    fn stop(&mut self) -> io::Result<()> {
        drop(self.stop.take());
        let result = match self.pump.take().map(JoinHandle::join) {
            Some(Ok(result)) => result,
            Some(Err(_)) => Err(io::Error::other("the reader of events panicked")),
            None => Ok(()),
        };
        tracing::debug!(hooks = self.probes.reports().len(), "detaching");
        result
    }
}
