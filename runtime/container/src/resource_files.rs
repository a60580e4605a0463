//! Limits that are one line in one file each: block I/O, huge pages, RDMA, network classes, what a CPU does beyond shares and
//! quota, kernel memory, and `unified`. First worked out, as a list; then written, all of them or none.

use crate::error::{Error, Result, Tried};
use oci_spec::runtime::{
    LinuxBlockIo, LinuxCpu, LinuxHugepageLimit, LinuxMemory, LinuxNetwork, LinuxRdma,
    LinuxResources, LinuxThrottleDevice,
};
use std::collections::HashMap;
use std::fmt::Display;
use std::fs;
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};

/// One line for one file of a cgroup.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Line {
    /// Its name, or its names on different kernels, the preferred one first.
    files: Vec<String>,
    /// What is written into each of them.
    values: Vec<String>,
    /// What is written to take the line back, where the file's old content is not it.
    undo: Option<String>,
    /// Whether the container does without where no such file exists.
    optional: bool,
}

impl Line {
    fn new(file: impl Into<String>, value: impl Display) -> Self {
        Self {
            files: vec![file.into()],
            values: vec![value.to_string()],
            undo: None,
            optional: false,
        }
    }

    /// The same under another name, with another form of the value.
    fn or(mut self, file: impl Into<String>, value: impl Display) -> Self {
        self.files.push(file.into());
        self.values.push(value.to_string());
        self
    }

    fn undo(mut self, line: impl Into<String>) -> Self {
        self.undo = Some(line.into());
        self
    }

    fn optional(mut self) -> Self {
        self.optional = true;
        self
    }
}

/// The lines of `resources` for the controllers that `has` knows, in cgroup v2 or v1.
pub(crate) fn lines(resources: &LinuxResources, v2: bool, has: impl Fn(&str) -> bool) -> Vec<Line> {
    let mut lines = Vec::new();
    if let Some(io) = resources.block_io().as_ref().filter(|_| has(if v2 { "io" } else { "blkio" }))
    {
        lines.extend(if v2 { io_v2(io) } else { blkio_v1(io) });
    }
    if has("hugetlb") {
        lines.extend(resources.hugepage_limits().iter().flatten().flat_map(|one| huge(one, v2)));
    }
    if let Some(rdma) = resources.rdma().as_ref().filter(|_| has("rdma")) {
        lines.extend(rdma_max(rdma));
    }
    if let Some(network) = resources.network().as_ref().filter(|_| !v2) {
        lines.extend(net(network, &has));
    }
    if let Some(cpu) = resources.cpu().as_ref().filter(|_| has("cpu")) {
        lines.extend(more_cpu(cpu, v2));
    }
    if let Some(memory) = resources.memory().as_ref().filter(|_| has("memory") && !v2) {
        lines.extend(kernel_memory(memory));
    }
    if v2 {
        let mut unified: Vec<_> = resources.unified().iter().flatten().collect();
        unified.sort();
        for (file, value) in unified {
            // Files with a line for each device take one line at a time.
            lines.extend(value.lines().map(|line| Line::new(file, line)));
        }
    }
    lines
}

/// The controller that a file of `unified` belongs to; none for the files that every cgroup has.
pub(crate) fn controller_of(file: &str) -> Result<Option<&str>> {
    let is_name = file.bytes().all(|b| b.is_ascii_alphanumeric() || b".-_".contains(&b));
    match file.split_once('.') {
        Some((controller, rest)) if is_name && !controller.is_empty() && !rest.is_empty() => {
            Ok(Some(controller).filter(|name| *name != "cgroup"))
        }
        _ => {
            let reason = "the name of a file in a cgroup is wanted, such as memory.high";
            Err(Error::invalid("linux.resources.unified", file, reason))
        }
    }
}

/// Refuses what no kernel of this version of cgroups, or not this kernel, can do.
pub(crate) fn check(resources: &LinuxResources) -> Result<()> {
    for limit in resources.hugepage_limits().iter().flatten() {
        let size = limit.page_size();
        let known = kilobytes(size).is_some_and(|size| {
            Path::new(&format!("/sys/kernel/mm/hugepages/hugepages-{size}kB")).is_dir()
        });
        if !known {
            let reason = "this kernel has no huge pages of that size (/sys/kernel/mm/hugepages lists them; the form is 2MB)";
            return Err(Error::invalid("hugepageLimits.pageSize", size, reason));
        }
    }
    for weight in resources.block_io().iter().flat_map(weights) {
        if weight != 0 && !(10..=1000).contains(&weight) {
            let reason = "a weight is a number from 10 to 1000";
            return Err(Error::invalid("blockIO.weight", weight.to_string(), reason));
        }
    }
    if let Some(idle) = resources.cpu().as_ref().and_then(LinuxCpu::idle)
        && !(0..=1).contains(&idle)
    {
        return Err(Error::invalid("cpu.idle", idle.to_string(), "it is 0 or 1"));
    }
    for (file, value) in resources.unified().iter().flatten() {
        controller_of(file)?;
        if value.trim().is_empty() {
            return Err(Error::invalid("linux.resources.unified", file, "its value is empty"));
        }
    }
    for device in resources.rdma().iter().flatten().map(|(device, _)| device) {
        if device.is_empty() || device.contains(char::is_whitespace) {
            let reason = "it is the name of a device";
            return Err(Error::invalid("linux.resources.rdma", device, reason));
        }
    }
    Ok(())
}

fn weights(io: &LinuxBlockIo) -> Vec<u16> {
    let mut weights: Vec<_> = io.weight().into_iter().chain(io.leaf_weight()).collect();
    for device in io.weight_device().iter().flatten() {
        weights.extend(device.weight().into_iter().chain(device.leaf_weight()));
    }
    weights
}

/// `64KB`, `2MB`, `1GB` as numbers of 1024 bytes.
fn kilobytes(size: &str) -> Option<u64> {
    let digits = size.trim_end_matches(|c: char| !c.is_ascii_digit());
    let factor = match &size[digits.len()..] {
        "KB" => 1,
        "MB" => 1 << 10,
        "GB" => 1 << 20,
        _ => return None,
    };
    digits.parse::<u64>().ok()?.checked_mul(factor)
}

type Throttle<'a> = (&'a Option<Vec<LinuxThrottleDevice>>, &'static str, &'static str);

/// Each kind of throttle, with its name in v1 and in v2.
fn throttles(io: &LinuxBlockIo) -> [Throttle<'_>; 4] {
    [
        (io.throttle_read_bps_device(), "read_bps", "rbps"),
        (io.throttle_write_bps_device(), "write_bps", "wbps"),
        (io.throttle_read_iops_device(), "read_iops", "riops"),
        (io.throttle_write_iops_device(), "write_iops", "wiops"),
    ]
}

/// Documentation/admin-guide/cgroup-v1/blkio-controller.rst. The weights are the BFQ scheduler's since Linux 5.0.
fn blkio_v1(io: &LinuxBlockIo) -> Vec<Line> {
    let mut lines = Vec::new();
    if let Some(weight) = io.weight().filter(|&weight| weight > 0) {
        lines.push(Line::new("blkio.weight", weight).or("blkio.bfq.weight", weight));
    }
    if let Some(weight) = io.leaf_weight().filter(|&weight| weight > 0) {
        lines.push(Line::new("blkio.leaf_weight", weight));
    }
    for device in io.weight_device().iter().flatten() {
        let at = format!("{}:{}", device.major(), device.minor());
        if let Some(weight) = device.weight() {
            let line = format!("{at} {weight}");
            let line = Line::new("blkio.weight_device", &line).or("blkio.bfq.weight_device", &line);
            lines.push(line.undo(format!("{at} 0")));
        }
        if let Some(weight) = device.leaf_weight() {
            let line = Line::new("blkio.leaf_weight_device", format!("{at} {weight}"));
            lines.push(line.undo(format!("{at} 0")));
        }
    }
    for (devices, name, _) in throttles(io) {
        lines.extend(devices.iter().flatten().map(|device| {
            let at = format!("{}:{}", device.major(), device.minor());
            let line = format!("{at} {}", device.rate());
            Line::new(format!("blkio.throttle.{name}_device"), line).undo(format!("{at} 0"))
        }));
    }
    lines
}

/// Documentation/admin-guide/cgroup-v2.rst, "IO".
fn io_v2(io: &LinuxBlockIo) -> Vec<Line> {
    let mut lines = Vec::new();
    if let Some(weight) = io.weight().filter(|&weight| weight > 0) {
        lines.push(Line::new("io.bfq.weight", weight).or("io.weight", io_weight(weight)));
    }
    for device in io.weight_device().iter().flatten() {
        if let Some(weight) = device.weight() {
            let at = format!("{}:{}", device.major(), device.minor());
            let line = Line::new("io.bfq.weight", format!("{at} {weight}"))
                .or("io.weight", format!("{at} {}", io_weight(weight)));
            lines.push(line.undo(format!("{at} default")));
        }
    }
    for (devices, _, name) in throttles(io) {
        lines.extend(devices.iter().flatten().map(|device| {
            let at = format!("{}:{}", device.major(), device.minor());
            let rate =
                if device.rate() == 0 { "max".to_owned() } else { device.rate().to_string() };
            Line::new("io.max", format!("{at} {name}={rate}")).undo(format!("{at} {name}=max"))
        }));
    }
    lines
}

/// 10…1000 of v1 to 1…10000 of v2, as runc and crun convert.
fn io_weight(weight: u16) -> u64 {
    1 + (u64::from(weight.clamp(10, 1000)) - 10) * 9_999 / 990
}

fn huge(limit: &LinuxHugepageLimit, v2: bool) -> Vec<Line> {
    let size = limit.page_size();
    let (file, reserved) =
        if v2 { ("max", "rsvd.max") } else { ("limit_in_bytes", "rsvd.limit_in_bytes") };
    let value = if v2 && limit.limit() < 0 { "max".into() } else { limit.limit().to_string() };
    vec![
        Line::new(format!("hugetlb.{size}.{file}"), &value),
        // Since Linux 5.7; without it a program that reserves more is killed when it touches them.
        Line::new(format!("hugetlb.{size}.{reserved}"), &value).optional(),
    ]
}

fn rdma_max(rdma: &HashMap<String, LinuxRdma>) -> Vec<Line> {
    let mut devices: Vec<_> = rdma.iter().collect();
    devices.sort_by_key(|(device, _)| *device);
    let max = |value: Option<u32>| value.map_or("max".to_owned(), |value| value.to_string());
    devices
        .into_iter()
        .map(|(device, limits)| {
            let (handles, objects) = (max(limits.hca_handles()), max(limits.hca_objects()));
            Line::new("rdma.max", format!("{device} hca_handle={handles} hca_object={objects}"))
                .undo(format!("{device} hca_handle=max hca_object=max"))
        })
        .collect()
}

fn net(network: &LinuxNetwork, has: impl Fn(&str) -> bool) -> Vec<Line> {
    let mut lines = Vec::new();
    if let Some(class) = network.class_id().filter(|_| has("net_cls")) {
        lines.push(Line::new("net_cls.classid", class));
    }
    if has("net_prio") {
        lines.extend(network.priorities().iter().flatten().map(|one| {
            let line = format!("{} {}", one.name(), one.priority());
            Line::new("net_prio.ifpriomap", line).undo(format!("{} 0", one.name()))
        }));
    }
    lines
}

fn more_cpu(cpu: &LinuxCpu, v2: bool) -> Vec<Line> {
    let mut lines = Vec::new();
    // The period first: the kernel checks the runtime against it.
    if let Some(period) = cpu.realtime_period() {
        lines.push(Line::new("cpu.rt_period_us", period));
    }
    if let Some(runtime) = cpu.realtime_runtime() {
        lines.push(Line::new("cpu.rt_runtime_us", runtime));
    }
    if let Some(burst) = cpu.burst() {
        lines.push(Line::new(if v2 { "cpu.max.burst" } else { "cpu.cfs_burst_us" }, burst));
    }
    if let Some(idle) = cpu.idle() {
        lines.push(Line::new("cpu.idle", idle));
    }
    lines
}

fn kernel_memory(memory: &LinuxMemory) -> Vec<Line> {
    let mut lines = Vec::new();
    if let Some(limit) = memory.kernel() {
        lines.push(Line::new("memory.kmem.limit_in_bytes", limit));
    }
    if let Some(limit) = memory.kernel_tcp() {
        lines.push(Line::new("memory.kmem.tcp.limit_in_bytes", limit));
    }
    if let Some(whole) = memory.use_hierarchy() {
        lines.push(Line::new("memory.use_hierarchy", u8::from(whole)));
    }
    lines
}

/// Writes `lines` of each folder; where one cannot be written, those before it are taken back.
pub(crate) fn write(all: &[(PathBuf, Vec<Line>)]) -> Result<()> {
    let mut undo: Vec<(PathBuf, String)> = Vec::new();
    for (folder, lines) in all {
        for line in lines {
            if let Err(error) = write_line(folder, line, &mut undo) {
                for (path, old) in undo.iter().rev() {
                    // The first error is what the user needs.
                    let _ = fs::write(path, old);
                }
                return Err(error);
            }
        }
    }
    Ok(())
}

fn write_line(folder: &Path, line: &Line, undo: &mut Vec<(PathBuf, String)>) -> Result<()> {
    let found = line.files.iter().zip(&line.values).find(|(file, _)| folder.join(file).exists());
    let Some((file, value)) = found else {
        if line.optional {
            return Ok(());
        }
        let path = folder.join(line.files.last().map_or("", String::as_str));
        return Err(io::Error::from(ErrorKind::NotFound)).tried_hint(
            "set limit",
            &path,
            "this kernel, or its I/O scheduler, lacks the file",
        );
    };
    let path = folder.join(file);
    let old = line.undo.clone().or_else(|| fs::read_to_string(&path).ok());
    let result = fs::write(&path, value);
    let hint = match result.as_ref().map_err(io::Error::raw_os_error) {
        Err(Some(libc::EINVAL)) => "the kernel refuses this value",
        Err(Some(libc::ENODEV | libc::ENXIO)) => "there is no such device",
        Err(Some(libc::EOPNOTSUPP)) => "this kernel does not have this limit any more",
        Err(Some(libc::EBUSY)) => "the container uses more than that already",
        _ => "",
    };
    result.tried_hint(format!("set limit {value}"), &path, hint)?;
    undo.extend(old.map(|old| (path, old)));
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn all(resources: serde_json::Value, v2: bool) -> Vec<String> {
        let resources: LinuxResources = serde_json::from_value(resources).unwrap();
        check(&resources).unwrap();
        lines(&resources, v2, |_| true)
            .iter()
            .map(|line| {
                let last = line.files.len() - 1;
                format!("{} {}", line.files[last], line.values[last])
            })
            .collect()
    }

    #[test]
    fn block_io_is_told_to_both_versions_in_their_words() {
        let io = json!({ "blockIO": {
            "weight": 500,
            "weightDevice": [{ "major": 8, "minor": 0, "weight": 10, "leafWeight": 20 }],
            "throttleReadBpsDevice": [{ "major": 8, "minor": 0, "rate": 1024 }],
            "throttleWriteIOPSDevice": [{ "major": 8, "minor": 16, "rate": 0 }]
        } });
        let v1 = [
            "blkio.bfq.weight 500",
            "blkio.bfq.weight_device 8:0 10",
            "blkio.leaf_weight_device 8:0 20",
            "blkio.throttle.read_bps_device 8:0 1024",
            "blkio.throttle.write_iops_device 8:16 0",
        ];
        assert_eq!(all(io.clone(), false), v1);
        let v2 =
            ["io.weight 4950", "io.weight 8:0 1", "io.max 8:0 rbps=1024", "io.max 8:16 wiops=max"];
        assert_eq!(all(io, true), v2);
    }

    #[test]
    fn the_others_are_told_as_well() {
        let rest = json!({
            "rdma": { "mlx5_1": { "hcaHandles": 3 } },
            "cpu": { "idle": 1, "burst": 5, "realtimePeriod": 7, "realtimeRuntime": 6 },
            "memory": { "kernel": 8, "kernelTCP": 9 },
            "network": { "classID": 1_048_577, "priorities": [{ "name": "lo", "priority": 2 }] }
        });
        let v1 = [
            "rdma.max mlx5_1 hca_handle=3 hca_object=max",
            "net_cls.classid 1048577",
            "net_prio.ifpriomap lo 2",
            "cpu.rt_period_us 7",
            "cpu.rt_runtime_us 6",
            "cpu.cfs_burst_us 5",
            "cpu.idle 1",
            "memory.kmem.limit_in_bytes 8",
            "memory.kmem.tcp.limit_in_bytes 9",
        ];
        assert_eq!(all(rest, false), v1);
        let unified =
            json!({ "unified": { "io.max": "8:0 rbps=1\n8:16 rbps=2", "cpu.idle": "1" } });
        assert_eq!(all(unified, true), ["cpu.idle 1", "io.max 8:0 rbps=1", "io.max 8:16 rbps=2"]);
        assert_eq!(
            (kilobytes("2MB"), kilobytes("1GB"), kilobytes("2M")),
            (Some(2048), Some(1 << 20), None)
        );
    }

    #[test]
    fn wrong_ones_are_refused() {
        for resources in [
            json!({ "blockIO": { "weight": 5 } }),
            json!({ "hugepageLimits": [{ "pageSize": "3MB", "limit": 0 }] }),
            json!({ "unified": { "../x.y": "1" } }),
            json!({ "unified": { "memory": "1" } }),
            json!({ "unified": { "memory.high": "" } }),
            json!({ "rdma": { "a b": {} } }),
            json!({ "cpu": { "idle": 2 } }),
        ] {
            let resources: LinuxResources = serde_json::from_value(resources).unwrap();
            assert!(check(&resources).is_err(), "{resources:?}");
        }
    }

    #[test]
    fn all_lines_are_written_or_none() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("a.x"), "old").unwrap();
        let lines = vec![Line::new("a.x", 1), Line::new("b.x", 2).optional(), Line::new("c.x", 3)];
        let error = write(&[(folder.path().to_owned(), lines)]).unwrap_err().to_string();
        assert!(error.contains("c.x"), "{error}");
        assert_eq!(fs::read_to_string(folder.path().join("a.x")).unwrap(), "old");
    }
}
