//! What containers use, under the names that cAdvisor gave these numbers: dashboards that were made for it work.
//!
//! To add a number: a line in [`USED`].

use super::family::{Family, counter, gauge};
use super::page::{Number, label};
use crate::attribution::State;
use crate::resources::{InterfaceCounters, Usage};
use crate::sample::Observed;
use Number::{Microseconds, Nanoseconds, Plain};

/// Takes the labels and the number of one series.
pub type Add<'a> = &'a mut dyn FnMut(&str, Number);

/// A family, and how its series are found: labels of their own, and the number.
pub struct Used {
    /// Its name, help and type.
    pub family: Family,
    /// Gives each series.
    pub series: fn(&Observed, Add<'_>),
}

macro_rules! used {
    ($kind:ident, $name:literal, $help:literal, |$usage:ident| $value:expr) => {
        Used {
            family: $kind($name, $help),
            series: |observed, add| {
                let $usage = &observed.usage;
                if let Some(value) = $value {
                    add("", value);
                }
            },
        }
    };
}

macro_rules! network {
    ($name:literal, $help:literal, $direction:ident, $n:literal) => {
        Used {
            family: counter($name, $help).with(&["interface"]),
            series: |observed, add| interfaces(&observed.usage, |i| i.$direction[$n], add),
        }
    };
}

macro_rules! io {
    ($name:literal, $help:literal, $field:ident) => {
        Used {
            family: counter($name, $help).with(&["device"]),
            series: |observed, add| {
                for io in &observed.usage.io {
                    add(&label("device", &io.device), Plain(io.$field));
                }
            },
        }
    };
}

macro_rules! pressure {
    ($name:literal, $help:literal, $n:literal, $field:ident) => {
        used!(counter, $name, $help, |u| u.pressure[$n].map(|p| Microseconds(p.$field)))
    };
}

/// All of them, in the order in which they are shown.
pub const USED: &[Used] = &[
    used!(counter, "container_cpu_usage_seconds_total", "CPU time.", |u| u.cpu_ns.map(Nanoseconds)),
    used!(counter, "container_cpu_user_seconds_total", "CPU time in user mode.", |u| u
        .cpu_user_ns
        .map(Nanoseconds)),
    used!(counter, "container_cpu_system_seconds_total", "CPU time in the kernel.", |u| u
        .cpu_system_ns
        .map(Nanoseconds)),
    used!(counter, "container_cpu_cfs_periods_total", "Periods of the CPU quota.", |u| u
        .cpu_periods
        .map(Plain)),
    used!(
        counter,
        "container_cpu_cfs_throttled_periods_total",
        "Periods in which the CPU quota was used up.",
        |u| u.cpu_throttled_periods.map(Plain)
    ),
    used!(
        counter,
        "container_cpu_cfs_throttled_seconds_total",
        "Time that tasks waited because the CPU quota was used up.",
        |u| u.cpu_throttled_ns.map(Nanoseconds)
    ),
    used!(gauge, "container_memory_usage_bytes", "Memory in use, page cache included.", |u| u
        .memory_bytes
        .map(Plain)),
    used!(
        gauge,
        "container_memory_working_set_bytes",
        "Memory in use without page cache that has not been used for long.",
        |u| u.working_set_bytes().map(Plain)
    ),
    used!(gauge, "container_memory_rss", "Anonymous memory, bytes.", |u| u
        .memory_stat
        .map(|m| Plain(m.anon))),
    used!(gauge, "container_memory_cache", "Page cache, bytes.", |u| u
        .memory_stat
        .map(|m| Plain(m.file))),
    used!(gauge, "container_memory_swap", "Memory swapped out, bytes.", |u| u
        .memory_stat
        .map(|m| Plain(m.swap))),
    used!(gauge, "container_memory_mapped_file", "Page cache that is mapped, bytes.", |u| u
        .memory_stat
        .map(|m| Plain(m.mapped_file))),
    used!(gauge, "container_memory_max_usage_bytes", "The most memory that was in use.", |u| u
        .memory_max_bytes
        .map(Plain)),
    Used {
        // A gauge by type: a counter's name would have to end in `_total`, and dashboards ask for this one.
        family: gauge("container_memory_failcnt", "How often the memory limit was met."),
        series: |observed, add| {
            let own = observed.usage.memory_failcnt;
            if let Some(count) =
                own.or(observed.usage.memory_bytes.map(|_| observed.memory_events.max))
            {
                add("", Plain(count));
            }
        },
    },
    Used {
        family: counter("container_memory_failures_total", "Page faults.")
            .with(&["failure_type", "scope"]),
        series: |observed, add| {
            if let Some(stat) = observed.usage.memory_stat {
                add(",failure_type=\"pgfault\",scope=\"hierarchy\"", Plain(stat.faults));
                add(",failure_type=\"pgmajfault\",scope=\"hierarchy\"", Plain(stat.major_faults));
            }
        },
    },
    used!(
        counter,
        "container_memory_refaults_total",
        "Faults on page cache that had been evicted not long before.",
        |u| u.memory_stat.and_then(|m| m.refaults).map(Plain)
    ),
    Used {
        family: counter("container_oom_events_total", "Tasks killed for lack of memory."),
        series: |observed, add| add("", Plain(observed.memory_events.oom_kill)),
    },
    network!("container_network_receive_bytes_total", "Bytes received.", receive, 0),
    network!("container_network_receive_packets_total", "Packets received.", receive, 1),
    network!("container_network_receive_errors_total", "Errors in receiving.", receive, 2),
    network!(
        "container_network_receive_packets_dropped_total",
        "Packets dropped in receiving.",
        receive,
        3
    ),
    network!("container_network_transmit_bytes_total", "Bytes sent.", transmit, 0),
    network!("container_network_transmit_packets_total", "Packets sent.", transmit, 1),
    network!("container_network_transmit_errors_total", "Errors in sending.", transmit, 2),
    network!(
        "container_network_transmit_packets_dropped_total",
        "Packets dropped in sending.",
        transmit,
        3
    ),
    io!("container_fs_reads_bytes_total", "Bytes read from devices.", read_bytes),
    io!("container_fs_writes_bytes_total", "Bytes written to devices.", written_bytes),
    io!("container_fs_reads_total", "Reads from devices.", reads),
    io!("container_fs_writes_total", "Writes to devices.", writes),
    used!(gauge, "container_processes", "Processes.", |u| u.processes.map(Plain)),
    used!(gauge, "container_threads", "Threads.", |u| u.threads.map(Plain)),
    used!(gauge, "container_threads_max", "Limit of threads; 0 is no limit.", |u| u
        .threads
        .map(|_| Plain(u.limits.pids.unwrap_or(0)))),
    pressure!(
        "container_pressure_cpu_waiting_seconds_total",
        "Time in which a task waited for a CPU.",
        0,
        some_us
    ),
    pressure!(
        "container_pressure_cpu_stalled_seconds_total",
        "Time in which all tasks waited for a CPU.",
        0,
        full_us
    ),
    pressure!(
        "container_pressure_memory_waiting_seconds_total",
        "Time in which a task waited for memory.",
        1,
        some_us
    ),
    pressure!(
        "container_pressure_memory_stalled_seconds_total",
        "Time in which all tasks waited for memory.",
        1,
        full_us
    ),
    pressure!(
        "container_pressure_io_waiting_seconds_total",
        "Time in which a task waited for a device.",
        2,
        some_us
    ),
    pressure!(
        "container_pressure_io_stalled_seconds_total",
        "Time in which all tasks waited for a device.",
        2,
        full_us
    ),
    used!(gauge, "container_spec_memory_limit_bytes", "Memory limit; 0 is no limit.", |u| u
        .memory_bytes
        .map(|_| Plain(u.limits.memory_bytes.unwrap_or(0)))),
    used!(gauge, "container_spec_cpu_quota", "CPU time a period, microseconds.", |u| u
        .limits
        .cpu_quota_us
        .map(Plain)),
    used!(gauge, "container_spec_cpu_period", "Period of the CPU quota, microseconds.", |u| u
        .limits
        .cpu_period_us
        .map(Plain)),
    used!(gauge, "container_spec_cpu_shares", "Share of the CPU; 1024 is one.", |u| u
        .limits
        .cpu_shares
        .map(Plain)),
    Used {
        family: gauge("container_start_time_seconds", "When it was made, since the epoch."),
        series: |observed, add| {
            let started = observed.snapshot.started.unix_timestamp();
            add("", Plain(u64::try_from(started).unwrap_or(0)));
        },
    },
    Used {
        family: gauge("container_last_seen", "When it was last there, since the epoch."),
        series: |observed, add| {
            if observed.snapshot.state() != State::Stopped {
                let now = time::OffsetDateTime::now_utc().unix_timestamp();
                add("", Plain(u64::try_from(now).unwrap_or(0)));
            }
        },
    },
];

fn interfaces(usage: &Usage, value: fn(&InterfaceCounters) -> u64, add: Add<'_>) {
    for interface in &usage.network {
        add(&label("interface", &interface.name), Plain(value(interface)));
    }
}
