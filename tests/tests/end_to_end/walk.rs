//! What a walk of the kernel's cgroups tells that containers use, against what the files of their cgroups say.

use serde_json::Value;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use terrarium_tests::binaries;
use terrarium_tests::process::Process;
use terrarium_tests::{Metrics, Observatory, Running, TestBed, Tree, eventually, require};

/// A number of a file of one value, or the one behind a word of a line that begins with another.
fn number(file: &Path, line: &str, word: &str) -> Option<f64> {
    let text = fs::read_to_string(file).ok()?;
    let line = text.lines().find(|told| told.starts_with(line))?;
    line.split([' ', '='])
        .skip_while(|told| *told != word && !word.is_empty())
        .find_map(|n| n.parse().ok())
}

/// Whether a walk of the kernel's cgroups tells what containers use, as it must where the kernel has iterators of them.
fn cgroups_are_walked(bed: &TestBed) -> bool {
    let doctor = bed.run(["doctor", "--format", "json"]).success();
    let doctor: Value = serde_json::from_str(&doctor).expect("JSON");
    let release = doctor["kernel"]["release"].as_str().expect("a release");
    let mut version = release.split(['.', '-']).map_while(|part| part.parse::<u32>().ok());
    let version = (version.next().unwrap_or(0), version.next().unwrap_or(0));
    let walked = doctor["cgroup"]["walked"] == true;
    assert_eq!(walked, version >= (6, 1), "{}", doctor["cgroup"]);
    walked
}

/// Where the files of a container are: in v1 hierarchies, or all in the unified one.
struct Files {
    unified: PathBuf,
    memory: Option<PathBuf>,
    cpu: Option<PathBuf>,
    cpuacct: Option<PathBuf>,
    pids: Option<PathBuf>,
}

impl Files {
    fn of(container: &Running) -> Self {
        let [memory, cpu, cpuacct, pids] =
            ["memory", "cpu", "cpuacct", "pids"].map(|name| container.cgroup(name));
        let unified = container.cgroup("unified").expect("a cgroup");
        Self { unified, memory, cpu, cpuacct, pids }
    }

    /// Those of a container that has a cgroup with this path in every hierarchy.
    fn at(tree: &Tree<'_>) -> Self {
        let of = |name: &str| {
            let mount = terrarium_tests::kernel_state::cgroup_mount_of(name)?;
            let found = tree.folders().find(|folder| folder.starts_with(&mount.path));
            found.filter(|_| mount.version == 1).map(Path::to_owned)
        };
        let unified = tree.folders().find(|folder| folder.join("cgroup.events").exists());
        let [memory, cpu, cpuacct, pids] = ["memory", "cpu", "cpuacct", "pids"].map(of);
        Self { unified: unified.expect("a cgroup").to_owned(), memory, cpu, cpuacct, pids }
    }

    /// A number in a file of v1, or else in one of v2: the names of both, and how their lines begin.
    fn either(
        &self,
        v1: Option<&PathBuf>,
        (name, line): (&str, &str),
        (v2_name, v2_line): (&str, &str),
    ) -> Option<f64> {
        match v1 {
            Some(folder) => number(&folder.join(name), line, ""),
            None => number(&self.unified.join(v2_name), v2_line, ""),
        }
    }

    /// Nanoseconds, ticks of a hundredth of a second, or microseconds, in seconds.
    fn time(&self) -> Option<f64> {
        let divisor = if self.cpuacct.is_some() { 1e9 } else { 1e6 };
        let all = ("cpuacct.usage", "");
        self.either(self.cpuacct.as_ref(), all, ("cpu.stat", "usage_usec ")).map(|n| n / divisor)
    }

    fn part_of_time(&self, name: &str) -> Option<f64> {
        let divisor = if self.cpuacct.is_some() { 1e2 } else { 1e6 };
        let (v1, v2) = (format!("{name} "), format!("{name}_usec "));
        let v1 = ("cpuacct.stat", v1.as_str());
        self.either(self.cpuacct.as_ref(), v1, ("cpu.stat", &v2)).map(|n| n / divisor)
    }

    /// v1 has three files for what v2 tells in two, of which that of the weight is rounded.
    fn quota(&self) -> [Option<f64>; 3] {
        if let Some(cpu) = &self.cpu {
            let files = ["cpu.cfs_quota_us", "cpu.cfs_period_us", "cpu.shares"];
            return files.map(|file| number(&cpu.join(file), "", ""));
        }
        let max = fs::read_to_string(self.unified.join("cpu.max")).unwrap_or_default();
        let mut words = max.split_whitespace().map(|word| word.parse().ok());
        let (quota, period) = (words.next().flatten(), words.next().flatten());
        let shares = |weight: f64| 2.0 + ((weight - 1.0) * 262_142.0 / 9999.0).floor();
        [quota, period, number(&self.unified.join("cpu.weight"), "", "").map(shares)]
    }

    fn processes(&self) -> Option<f64> {
        let list = fs::read_to_string(self.unified.join("cgroup.procs")).ok()?;
        u32::try_from(list.lines().count()).ok().map(f64::from)
    }

    /// Time lost, seconds.
    fn waits(&self, name: &str, line: &str) -> Option<f64> {
        let file = self.unified.join(format!("{name}.pressure"));
        number(&file, line, "total").map(|us| us / 1e6)
    }

    /// What each metric of the container must tell.
    fn numbers(&self) -> Vec<(&'static str, Option<f64>)> {
        let memory = |v1, v2| self.either(self.memory.as_ref(), v1, v2);
        let pids = |name| self.either(self.pids.as_ref(), (name, ""), (name, ""));
        let [quota, period, shares] = self.quota();
        let usage = memory(("memory.usage_in_bytes", ""), ("memory.current", ""));
        let peak = memory(("memory.max_usage_in_bytes", ""), ("memory.peak", ""));
        let limit = memory(("memory.limit_in_bytes", ""), ("memory.max", ""));
        let throttled = ("cpu.stat", "nr_throttled ");
        let throttled = self.either(self.cpu.as_ref(), throttled, throttled);
        // No limit is told as 0, where there is a controller for it.
        let limit = limit.filter(|bytes| *bytes < 1e18).or(usage.map(|_| 0.0));
        let most = pids("pids.max").or(pids("pids.current").map(|_| 0.0));
        vec![
            ("container_memory_usage_bytes", usage),
            ("container_memory_max_usage_bytes", peak),
            ("container_spec_memory_limit_bytes", limit),
            ("container_threads", pids("pids.current")),
            ("container_threads_max", most),
            ("container_processes", self.processes()),
            ("container_spec_cpu_quota", quota.filter(|us| *us > 0.0)),
            ("container_spec_cpu_period", period),
            ("container_spec_cpu_shares", shares),
            ("container_cpu_usage_seconds_total", self.time()),
            ("container_cpu_cfs_throttled_periods_total", throttled),
            ("container_pressure_cpu_waiting_seconds_total", self.waits("cpu", "some")),
            ("container_pressure_memory_waiting_seconds_total", self.waits("memory", "some")),
            ("container_pressure_memory_stalled_seconds_total", self.waits("memory", "full")),
            ("container_pressure_io_waiting_seconds_total", self.waits("io", "some")),
        ]
    }

    /// Whether an observatory has files open of what a walk tells: what is read is kept open, but for limits and for what an event of
    /// memory had read.
    fn are_read(&self, observatory: &mut Observatory) -> bool {
        let mut told =
            vec!["memory.usage_in_bytes", "memory.current", "pids.current", "cgroup.procs"];
        let cpus = fs::read_to_string("/sys/devices/system/cpu/possible").expect("processors");
        let last = cpus.trim().rsplit(['-', ',']).next().and_then(|last| last.parse::<u32>().ok());
        // Beyond 32 processors the time of v1 is read.
        if last < Some(32) {
            told.extend(["cpuacct.usage", "cpuacct.stat"]);
        }
        let is_own = |file: &Path| {
            file.parent().and_then(Path::file_name) == self.unified.file_name()
                && told.iter().any(|name| file.ends_with(name))
        };
        fs::read_dir(format!("/proc/{}/fd", observatory.process().pid()))
            .expect("its descriptors")
            .filter_map(|fd| fs::read_link(fd.ok()?.path()).ok())
            .any(|file| is_own(&file))
    }

    /// Whether the metrics of the container with this label tell all of it; else what differs.
    fn agree(&self, metrics: &Metrics, label: (&str, &str)) -> Result<(), String> {
        for (metric, there) in self.numbers() {
            let told = metrics.value(metric, &[label]);
            let same = told.zip(there).map(|(told, there)| (told - there).abs() < 1e-7);
            if same != Some(true) && (told, there) != (None, None) {
                return Err(format!("{metric}: {told:?}, but {there:?}"));
            }
        }
        for name in ["user", "system"] {
            // Files of v1 tell whole ticks, and what they told before is part of what they tell.
            let told = metrics.value(&format!("container_cpu_{name}_seconds_total"), &[label]);
            let there = self.part_of_time(name);
            if !told.zip(there).is_some_and(|(told, there)| (told - there).abs() < 0.02) {
                return Err(format!("{name}: {told:?}, but {there:?}"));
            }
        }
        Ok(())
    }
}

#[test]
fn what_a_walk_of_the_kernels_cgroups_tells_is_what_their_files_say() {
    require!(Root, CgroupV2, Btf, MemoryController, Program("busybox"));
    let bed = TestBed::new();
    let walked = cgroups_are_walked(&bed);
    let mut observatory = Observatory::start(&bed, &[]);
    let options = ["--memory", "16m", "--cpus", "0.1", "--pids-limit", "77", "--cpu-shares", "300"];
    let mut container = bed.container("walked").with(options).follow();
    observatory.wait_for(container.name());
    // It is throttled, something of it is killed at its limit, and it waits for a processor.
    container.call("fork 1000");
    container.call("touch-in-child 64000000");

    let files = Files::of(&container);
    let label = ("name", container.name());
    eventually("all numbers are the kernel's", || {
        let metrics = observatory.metrics();
        files.agree(&metrics, label)?;
        let memory = |v1, v2| files.either(files.memory.as_ref(), v1, v2);
        for (event, there) in [
            ("max", memory(("memory.failcnt", ""), ("memory.events", "max "))),
            (
                "oom_kill",
                memory(("memory.oom_control", "oom_kill "), ("memory.events", "oom_kill ")),
            ),
        ] {
            let told = metrics.value("terrarium_memory_events_total", &[label, ("event", event)]);
            if told != there || event == "oom_kill" && told == Some(0.0) {
                return Err(format!("{event}: {told:?}, but {there:?}"));
            }
        }
        let some = [
            "container_cpu_cfs_throttled_periods_total",
            "container_pressure_cpu_waiting_seconds_total",
        ];
        let none = some.into_iter().find(|metric| metrics.value(metric, &[label]) == Some(0.0));
        none.map_or(Ok(()), |none| Err(format!("{none} is 0")))
    });
    assert_eq!(!files.are_read(&mut observatory), walked, "files of what a walk tells are open");
    container.finish();
}

/// Six processes: three that sleep, one whose first thread has ended while two live on, one that has ended without being waited for, and
/// one that has used some time.
const SCRIPT: &str = "for n in 1 2 3; do sleep 600 & done; \"$0\" headless 2 & (:) & \
                      n=0; while [ $n -lt 300000 ]; do n=$((n+1)); done; exec sleep 600";

#[test]
fn time_and_processes_of_an_engines_container_are_what_its_files_say() {
    require!(Root, CgroupV2, Btf);
    let bed = TestBed::new();
    let path = format!("docker/{}", "face".repeat(16));
    let every = ["cpu", "cpuacct", "memory", "pids", "blkio"];
    let tree = Tree::with(&bed, &path, &every);
    let walked = cgroups_are_walked(&bed);
    let mut observatory = Observatory::start(&bed, &[]);
    let mut script = Command::new("sh");
    let script = script.args(["-ec", &(tree.enter() + SCRIPT)]).arg(binaries::workload());
    let processes = Process::spawn(script);
    let files = Files::at(&tree);
    let id = format!("/{}/{path}", bed.unique("tree"));
    eventually("it has used some time, and all numbers are the kernel's", || {
        if files.processes() != Some(5.0) || files.time() < Some(0.1) {
            return Err(format!("{:?} processes, {:?} s", files.processes(), files.time()));
        }
        files.agree(&observatory.metrics(), ("id", &id))
    });
    assert_eq!(!files.are_read(&mut observatory), walked, "files of what a walk tells are open");
    for pid in fs::read_to_string(files.unified.join("cgroup.procs")).expect("a list").lines() {
        let pid = nix::unistd::Pid::from_raw(pid.parse().expect("a pid"));
        let _ = nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGKILL);
    }
    drop(processes);
}
