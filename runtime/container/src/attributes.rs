//! Attributes of the program's process: execution domain, CPU scheduling, I/O priority.

use crate::error::{Error, Result};
use crate::init::{Failure, Step};
use crate::units::number_list;
use oci_spec::runtime::{
    IOPriorityClass, Linux, LinuxMemoryPolicy, LinuxPersonalityDomain, LinuxSchedulerFlag,
    LinuxSchedulerPolicy, MemoryPolicyFlagType, MemoryPolicyModeType, Process, Scheduler,
};
use std::io;

/// What is set, in numbers of the kernel.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Attributes {
    /// `personality(2)`
    personality: Option<libc::c_ulong>,
    /// `ioprio_set(2)`: class and level.
    io_priority: Option<libc::c_int>,
    /// `sched_setattr(2)`
    scheduler: Option<SchedAttr>,
    /// `set_mempolicy(2)`
    memory: Option<MemoryPolicy>,
}

/// Arguments of `set_mempolicy(2)`: the mode with its flags, and the nodes, a bit each.
#[derive(Debug, Clone, PartialEq, Eq)]
struct MemoryPolicy {
    mode: libc::c_int,
    nodes: [u64; 16],
}

/// `struct sched_attr` of linux/sched/types.h, in its first version (Linux 3.14).
#[repr(C)]
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct SchedAttr {
    size: u32,
    policy: u32,
    flags: u64,
    nice: i32,
    priority: u32,
    runtime: u64,
    deadline: u64,
    period: u64,
}

const _: () = assert!(size_of::<SchedAttr>() == 48);

impl Attributes {
    /// Reads the spec.
    pub(crate) fn from_spec(process: &Process, linux: &Linux) -> Result<Self> {
        let personality = linux.personality().as_ref().map(|personality| {
            if personality.flags().as_ref().is_some_and(|flags| !flags.is_empty()) {
                let reason = "the specification knows no flags; leave them out";
                return Err(Error::invalid("linux.personality.flags", "", reason));
            }
            // PER_LINUX, PER_LINUX32 of linux/personality.h
            Ok(match personality.domain() {
                LinuxPersonalityDomain::PerLinux => 0,
                LinuxPersonalityDomain::PerLinux32 => 8,
            })
        });
        let io_priority = process.io_priority().as_ref().map(|priority| {
            let class = match priority.class() {
                IOPriorityClass::IoprioClassRt => 1,
                IOPriorityClass::IoprioClassBe => 2,
                IOPriorityClass::IoprioClassIdle => 3,
            };
            match i32::try_from(priority.priority()) {
                Ok(level @ 0..=7) => Ok(class << 13 | level),
                _ => Err(Error::invalid(
                    "process.ioPriority.priority",
                    priority.priority().to_string(),
                    "it is a number from 0 to 7",
                )),
            }
        });
        Ok(Self {
            personality: personality.transpose()?,
            io_priority: io_priority.transpose()?,
            scheduler: process.scheduler().as_ref().map(scheduler),
            memory: linux.memory_policy().as_ref().map(memory_policy).transpose()?,
        })
    }

    /// Sets them, while the process may.
    pub(crate) fn apply(&self) -> Result<(), Failure> {
        if let Some(scheduler) = &self.scheduler {
            // SAFETY: the structure is alive and says its own size; 0 is this thread.
            let result = unsafe {
                libc::syscall(libc::SYS_sched_setattr, 0, std::ptr::from_ref(scheduler), 0)
            };
            done(result).step_hint(
                "set",
                "scheduler",
                "real-time policies need CAP_SYS_NICE, and on cgroup v1 a cpu.rt_runtime_us",
            )?;
        }
        if let Some(policy) = &self.memory {
            // SAFETY: the kernel reads at most the 1024 bits that are said to be there.
            let result = unsafe {
                libc::syscall(libc::SYS_set_mempolicy, policy.mode, policy.nodes.as_ptr(), 1025)
            };
            done(result).step_hint(
                "set",
                "memory policy",
                "the nodes must exist and be allowed by the cpuset",
            )?;
        }
        if let Some(priority) = self.io_priority {
            const IOPRIO_WHO_PROCESS: libc::c_int = 1;
            // SAFETY: three integers; 0 is this process.
            let result =
                unsafe { libc::syscall(libc::SYS_ioprio_set, IOPRIO_WHO_PROCESS, 0, priority) };
            done(result).step_hint(
                "set",
                "I/O priority",
                "the real-time class needs CAP_SYS_NICE",
            )?;
        }
        if let Some(personality) = self.personality {
            // SAFETY: an integer.
            let result = unsafe { libc::personality(personality) };
            done(result.into()).step("set", "personality")?;
        }
        Ok(())
    }
}

fn done(result: libc::c_long) -> io::Result<()> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Numbers of linux/sched.h.
fn scheduler(scheduler: &Scheduler) -> SchedAttr {
    let policy = match scheduler.policy() {
        LinuxSchedulerPolicy::SchedOther => 0,
        LinuxSchedulerPolicy::SchedFifo => 1,
        LinuxSchedulerPolicy::SchedRr => 2,
        LinuxSchedulerPolicy::SchedBatch => 3,
        LinuxSchedulerPolicy::SchedIso => 4,
        LinuxSchedulerPolicy::SchedIdle => 5,
        LinuxSchedulerPolicy::SchedDeadline => 6,
    };
    let flag = |flag: &LinuxSchedulerFlag| match flag {
        LinuxSchedulerFlag::SchedResetOnFork => 0x01,
        LinuxSchedulerFlag::SchedFlagReclaim => 0x02,
        LinuxSchedulerFlag::SchedFlagDLOverrun => 0x04,
        LinuxSchedulerFlag::SchedFlagKeepPolicy => 0x08,
        LinuxSchedulerFlag::SchedFlagKeepParams => 0x10,
        LinuxSchedulerFlag::SchedFlagUtilClampMin => 0x20,
        LinuxSchedulerFlag::SchedFlagUtilClampMax => 0x40,
    };
    SchedAttr {
        size: 48,
        policy,
        flags: scheduler.flags().iter().flatten().fold(0, |all, one| all | flag(one)),
        nice: scheduler.nice().unwrap_or(0),
        priority: scheduler.priority().and_then(|n| u32::try_from(n).ok()).unwrap_or(0),
        runtime: scheduler.runtime().unwrap_or(0),
        deadline: scheduler.deadline().unwrap_or(0),
        period: scheduler.period().unwrap_or(0),
    }
}

/// Numbers of linux/mempolicy.h.
fn memory_policy(policy: &LinuxMemoryPolicy) -> Result<MemoryPolicy> {
    use MemoryPolicyFlagType as Flag;
    use MemoryPolicyModeType as Mode;
    // SAFETY: with null pointers and no flags the kernel only says whether it has the call.
    let known = unsafe { libc::syscall(libc::SYS_get_mempolicy, 0, 0, 0, 0, 0) };
    if known < 0 && io::Error::last_os_error().raw_os_error() == Some(libc::ENOSYS) {
        let reason = "this kernel has no memory policies (CONFIG_NUMA); remove it";
        return Err(Error::unsupported("linux.memoryPolicy", reason));
    }
    let mode = match policy.mode() {
        Mode::MpolDefault => 0,
        Mode::MpolPreferred => 1,
        Mode::MpolBind => 2,
        Mode::MpolInterleave => 3,
        Mode::MpolLocal => 4,
        Mode::MpolPreferredMany => 5,
        Mode::MpolWeightedInterleave => 6,
    };
    let flags = policy.flags().iter().flatten().map(|flag| match flag {
        Flag::MpolFNumaBalancing => 1 << 13,
        Flag::MpolFRelativeNodes => 1 << 14,
        Flag::MpolFStaticNodes => 1 << 15,
    });
    let mode = flags.fold(mode, |all, flag| all | flag);
    let mut nodes = [0; 16];
    if let Some(list) = policy.nodes().as_deref().filter(|list| !list.is_empty()) {
        for node in number_list("linux.memoryPolicy.nodes", list)? {
            nodes[node / 64] |= 1 << (node % 64);
        }
    }
    Ok(MemoryPolicy { mode, nodes })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn read(process: &serde_json::Value, linux: serde_json::Value) -> Result<Attributes> {
        let mut all = json!({ "user": { "uid": 0, "gid": 0 }, "cwd": "/" });
        for (key, value) in process.as_object().unwrap() {
            all[key] = value.clone();
        }
        let process: Process = serde_json::from_value(all).unwrap();
        let linux: Linux = serde_json::from_value(linux).unwrap();
        Attributes::from_spec(&process, &linux)
    }

    #[test]
    fn names_become_the_kernels_numbers() {
        let process = json!({
            "ioPriority": { "class": "IOPRIO_CLASS_IDLE", "priority": 4 },
            "scheduler": { "policy": "SCHED_BATCH", "nice": 5 }
        });
        let found = read(&process, json!({ "personality": { "domain": "LINUX32" } })).unwrap();
        assert_eq!((found.personality, found.io_priority), (Some(8), Some(3 << 13 | 4)));
        let scheduler = found.scheduler.unwrap();
        assert_eq!((scheduler.policy, scheduler.nice, scheduler.size), (3, 5, 48));
        let bad = json!({ "ioPriority": { "class": "IOPRIO_CLASS_BE", "priority": 8 } });
        assert!(read(&bad, json!({})).is_err());
    }
}
