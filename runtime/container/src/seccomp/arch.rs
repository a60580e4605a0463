//! The architectures that a filter can tell apart, and their system call numbers.

use oci_spec::runtime::Arch;
use std::str::FromStr;

/// x32 calls carry this bit in their number (`__X32_SYSCALL_BIT`, arch/x86/include/uapi/asm/unistd.h).
pub(super) const X32_BIT: u32 = 0x4000_0000;

/// x32's own numbers for calls whose arguments are laid out differently there
/// (`arch/x86/entry/syscalls/syscall_64.tbl`, the part from 512 on).
const X32_OWN: &[(&str, u32)] = &[
    ("rt_sigaction", 512),
    ("rt_sigreturn", 513),
    ("ioctl", 514),
    ("readv", 515),
    ("writev", 516),
    ("recvfrom", 517),
    ("sendmsg", 518),
    ("recvmsg", 519),
    ("execve", 520),
    ("ptrace", 521),
    ("rt_sigpending", 522),
    ("rt_sigtimedwait", 523),
    ("rt_sigqueueinfo", 524),
    ("sigaltstack", 525),
    ("timer_create", 526),
    ("mq_notify", 527),
    ("kexec_load", 528),
    ("waitid", 529),
    ("set_robust_list", 530),
    ("get_robust_list", 531),
    ("vmsplice", 532),
    ("move_pages", 533),
    ("preadv", 534),
    ("pwritev", 535),
    ("rt_tgsigqueueinfo", 536),
    ("recvmmsg", 537),
    ("sendmmsg", 538),
    ("process_vm_readv", 539),
    ("process_vm_writev", 540),
    ("setsockopt", 541),
    ("getsockopt", 542),
    ("io_setup", 543),
    ("io_submit", 544),
    ("execveat", 545),
    ("preadv2", 546),
    ("pwritev2", 547),
];

/// An architecture as `seccomp_data.arch` names it; x32 shares its value with x86-64 and differs by [`X32_BIT`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum SyscallArch {
    X86_64,
    X86,
    X32,
    Aarch64,
    Arm,
    Riscv64,
    S390x,
    Ppc64le,
    Loongarch64,
}

#[cfg(target_arch = "x86_64")]
pub(super) const NATIVE: SyscallArch = SyscallArch::X86_64;
#[cfg(target_arch = "aarch64")]
pub(super) const NATIVE: SyscallArch = SyscallArch::Aarch64;
#[cfg(target_arch = "riscv64")]
pub(super) const NATIVE: SyscallArch = SyscallArch::Riscv64;

impl SyscallArch {
    /// The architecture that `arch` of a profile means; `None` for one that this build has no numbers for and that
    /// no process of this host could use, such as MIPS on x86-64.
    pub(super) fn from_oci(arch: Arch) -> Option<Self> {
        Some(match arch {
            Arch::ScmpArchNative => NATIVE,
            Arch::ScmpArchX86_64 => Self::X86_64,
            Arch::ScmpArchX86 => Self::X86,
            Arch::ScmpArchX32 => Self::X32,
            Arch::ScmpArchAarch64 => Self::Aarch64,
            Arch::ScmpArchArm => Self::Arm,
            Arch::ScmpArchRiscv64 => Self::Riscv64,
            Arch::ScmpArchS390x => Self::S390x,
            Arch::ScmpArchPpc64le => Self::Ppc64le,
            Arch::ScmpArchLoongarch64 => Self::Loongarch64,
            // A process of any other architecture cannot run here, or is killed as not listed.
            _ => return None,
        })
    }

    /// `AUDIT_ARCH_*` of include/uapi/linux/audit.h.
    pub(super) fn audit(self) -> u32 {
        match self {
            Self::X86_64 | Self::X32 => 0xc000_003e,
            Self::X86 => 0x4000_0003,
            Self::Aarch64 => 0xc000_00b7,
            Self::Arm => 0x4000_0028,
            Self::Riscv64 => 0xc000_00f3,
            Self::S390x => 0x8000_0016,
            Self::Ppc64le => 0xc000_0015,
            Self::Loongarch64 => 0xc000_0102,
        }
    }

    /// The number of the call `name`, without [`X32_BIT`]; `None` where the architecture has no such call.
    pub(super) fn number(self, name: &str) -> Option<u32> {
        /// The number that one of the tables has for `name`.
        macro_rules! table {
            ($arch:ident) => {
                syscalls::$arch::Sysno::from_str(name).ok().map(|number| number as u32)
            };
        }
        match self {
            Self::X86_64 => table!(x86_64),
            Self::X32 => X32_OWN
                .iter()
                .find(|(own, _)| *own == name)
                .map(|(_, number)| *number)
                .or_else(|| table!(x86_64)),
            Self::X86 => table!(x86),
            Self::Aarch64 => table!(aarch64),
            Self::Arm => table!(arm),
            Self::Riscv64 => table!(riscv64),
            Self::S390x => table!(s390x),
            Self::Ppc64le => table!(powerpc64),
            Self::Loongarch64 => table!(loongarch64),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_follow_the_architecture() {
        let check = |arch: SyscallArch, name: &str, expected: Option<u32>| {
            assert_eq!(arch.number(name), expected, "{name} on {arch:?}");
        };
        check(SyscallArch::X86_64, "read", Some(0));
        check(SyscallArch::X86_64, "clone3", Some(435));
        check(SyscallArch::X86, "read", Some(3));
        check(SyscallArch::X32, "read", Some(0));
        check(SyscallArch::X32, "execve", Some(520));
        check(SyscallArch::Aarch64, "open", None);
        check(SyscallArch::X86_64, "no_such_call", None);
    }
}
