//! Device access on cgroup v2: the rules of `linux.resources.devices` become a program of type `BPF_PROG_TYPE_CGROUP_DEVICE`.
//!
//! cgroup v2 has no devices controller; the kernel asks the programs attached to a cgroup and to its ancestors
//! whether a device may be opened or made, and all must agree (Documentation/admin-guide/cgroup-v2.rst, "Device
//! controller"). The rules keep the meaning that the v1 controller gives them (`security/device_cgroup.c`): a default,
//! changed by a rule for all devices, and exceptions from it that add up and cancel.

use nix::sys::resource::{RLIM_INFINITY, Resource, getrlimit, setrlimit};
use oci_spec::runtime::{LinuxDeviceCgroup, LinuxDeviceType};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

/// `BPF_DEVCG_ACC_*` of include/uapi/linux/bpf.h.
const ACCESS_MKNOD: u8 = 1;
const ACCESS_READ: u8 = 2;
const ACCESS_WRITE: u8 = 4;
/// `BPF_DEVCG_DEV_*`.
const DEVICE_BLOCK: u8 = 1;
const DEVICE_CHAR: u8 = 2;

/// What can go wrong with device rules.
#[derive(Debug, thiserror::Error)]
pub enum DeviceFilterError {
    /// A letter in `access` other than r, w and m.
    #[error("device rule access {access:?}: only the letters r, w and m are known")]
    Access {
        /// The text of the rule.
        access: String,
    },
    /// A device number that no device has.
    #[error("device rule: {number} is no device number (0 to 4294967295, or absent for all)")]
    Number {
        /// The number of the rule.
        number: i64,
    },
    /// A rule for something that has no device number.
    #[error("device rule: type {typ:?} cannot be limited (use a, b or c)")]
    Type {
        /// The type of the rule.
        typ: LinuxDeviceType,
    },
    /// The kernel refused one of the bpf(2) calls.
    #[error("{tried} for the device rules of the container: {source} ({hint})")]
    Bpf {
        /// What was tried.
        tried: &'static str,
        /// What the kernel said.
        source: io::Error,
        /// What to do about it.
        hint: &'static str,
    },
}

/// An exception from the default: devices and the access that they are given or refused.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Exception {
    kind: u8,
    /// `None`: every number.
    major: Option<u32>,
    minor: Option<u32>,
    access: u8,
}

/// Device rules, put together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeviceFilter {
    allow_by_default: bool,
    exceptions: Vec<Exception>,
}

impl DeviceFilter {
    /// Puts `rules` together in their order.
    ///
    /// A cgroup starts with everything allowed. A rule without a type, or of type `a`, sets the default and drops all
    /// exceptions, whatever else it says, as writing `a` to `devices.allow` or `devices.deny` does.
    ///
    /// # Errors
    /// An unknown access letter, a number out of range, or a type that is no device.
    pub fn new(rules: &[LinuxDeviceCgroup]) -> Result<Self, DeviceFilterError> {
        let mut filter = Self { allow_by_default: true, exceptions: Vec::new() };
        for rule in rules {
            let kinds: &[u8] = match rule.typ().unwrap_or_default() {
                LinuxDeviceType::A => {
                    filter.allow_by_default = rule.allow();
                    filter.exceptions.clear();
                    continue;
                }
                LinuxDeviceType::B => &[DEVICE_BLOCK],
                LinuxDeviceType::C | LinuxDeviceType::U => &[DEVICE_CHAR],
                typ @ LinuxDeviceType::P => return Err(DeviceFilterError::Type { typ }),
            };
            for kind in kinds {
                let exception = Exception {
                    kind: *kind,
                    major: number(rule.major())?,
                    minor: number(rule.minor())?,
                    access: access(rule.access().as_deref())?,
                };
                if rule.allow() == filter.allow_by_default {
                    filter.cancel(&exception);
                } else {
                    filter.add(exception);
                }
            }
        }
        Ok(filter)
    }

    /// Whether nothing is refused, so that no program is needed.
    pub fn allows_everything(&self) -> bool {
        self.allow_by_default && self.exceptions.is_empty()
    }

    fn add(&mut self, new: Exception) {
        match self.exceptions.iter_mut().find(|known| known.same_devices(&new)) {
            Some(known) => known.access |= new.access,
            None => self.exceptions.push(new),
        }
    }

    fn cancel(&mut self, gone: &Exception) {
        for known in self.exceptions.iter_mut().filter(|known| known.same_devices(gone)) {
            known.access &= !gone.access;
        }
        self.exceptions.retain(|known| known.access != 0);
    }

    /// The program: `bpf_cgroup_dev_ctx` in, 1 for allowed or 0 for refused out.
    fn program(&self) -> Vec<Instruction> {
        let mut program = vec![
            Instruction::load(ACCESS, CONTEXT, 0),
            Instruction::copy(KIND, ACCESS),
            Instruction::and(KIND, 0xffff),
            Instruction::shift_right(ACCESS, 16),
            Instruction::load(MAJOR, CONTEXT, 4),
            Instruction::load(MINOR, CONTEXT, 8),
        ];
        for exception in &self.exceptions {
            let mut body = vec![Instruction::copy(RESULT, ACCESS)];
            if self.allow_by_default {
                // Refused if any of the access is what is refused.
                body.push(Instruction::and(RESULT, i32::from(exception.access)));
                body.push(Instruction::jump_if(EQUAL, RESULT, 0));
            } else {
                // Allowed if all of the access is what is allowed.
                let rest = !exception.access & (ACCESS_MKNOD | ACCESS_READ | ACCESS_WRITE);
                body.push(Instruction::and(RESULT, i32::from(rest)));
                body.push(Instruction::jump_if(NOT_EQUAL, RESULT, 0));
            }
            body.push(Instruction::jump_if(NOT_EQUAL, KIND, exception.kind.into()));
            for (register, number) in [(MAJOR, exception.major), (MINOR, exception.minor)] {
                if let Some(number) = number {
                    body.push(Instruction::jump_if(NOT_EQUAL, register, number.cast_signed()));
                }
            }
            body.push(Instruction::set(RESULT, i32::from(!self.allow_by_default)));
            body.push(Instruction::exit());
            // Every jump leaves the body: it goes to the instruction after its last one.
            let length = body.len();
            for (n, instruction) in body.iter_mut().enumerate() {
                if instruction.is_jump() {
                    let skip = length - n - 1;
                    instruction.offset =
                        i16::try_from(skip).expect("a body has at most eight instructions");
                }
            }
            program.extend(body);
        }
        program.push(Instruction::set(RESULT, i32::from(self.allow_by_default)));
        program.push(Instruction::exit());
        program
    }

    /// Makes these rules the ones of `cgroup`, a directory of cgroup v2, in place of those that are there.
    ///
    /// # Errors
    /// The kernel's refusal: EPERM without `CAP_BPF` and `CAP_NET_ADMIN` (or `CAP_SYS_ADMIN`), EINVAL without `CONFIG_CGROUP_BPF`.
    pub fn attach(&self, cgroup: BorrowedFd<'_>) -> Result<(), DeviceFilterError> {
        let before = attached(cgroup)?;
        if !self.allows_everything() {
            let program = load(&self.program())?;
            attach(cgroup, program.as_fd())?;
        }
        // The old rules go only when the new ones hold: in between both hold.
        for id in before {
            detach(cgroup, id)?;
        }
        Ok(())
    }
}

impl Exception {
    fn same_devices(&self, other: &Self) -> bool {
        (self.kind, self.major, self.minor) == (other.kind, other.major, other.minor)
    }
}

/// A device number; absent or -1 means all (config-linux.md, "Allowed Device list").
fn number(number: Option<i64>) -> Result<Option<u32>, DeviceFilterError> {
    match number {
        None | Some(-1) => Ok(None),
        Some(number) => {
            u32::try_from(number).map(Some).map_err(|_| DeviceFilterError::Number { number })
        }
    }
}

/// The letters of `access`; absent or empty means all.
fn access(letters: Option<&str>) -> Result<u8, DeviceFilterError> {
    let letters = letters.filter(|letters| !letters.is_empty()).unwrap_or("rwm");
    letters.chars().try_fold(0, |all, letter| match letter {
        'r' => Ok(all | ACCESS_READ),
        'w' => Ok(all | ACCESS_WRITE),
        'm' => Ok(all | ACCESS_MKNOD),
        _ => Err(DeviceFilterError::Access { access: letters.to_owned() }),
    })
}

// Registers: the result, the context, and what is read from it.
const RESULT: u8 = 0;
const CONTEXT: u8 = 1;
const ACCESS: u8 = 2;
const KIND: u8 = 3;
const MAJOR: u8 = 4;
const MINOR: u8 = 5;

// Opcodes of include/uapi/linux/bpf.h and bpf_common.h; the arithmetic and the jumps are those on 32 bits.
const LOAD_WORD: u8 = 0x61;
const COPY: u8 = 0xbc;
const SET: u8 = 0xb4;
const AND: u8 = 0x54;
const SHIFT_RIGHT: u8 = 0x74;
const EXIT: u8 = 0x95;
const EQUAL: u8 = 0x16;
const NOT_EQUAL: u8 = 0x56;

/// `struct bpf_insn`.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
struct Instruction {
    code: u8,
    /// Destination in the low half, source in the high one (on little-endian machines).
    registers: u8,
    offset: i16,
    immediate: i32,
}

impl Instruction {
    fn new(code: u8, destination: u8, source: u8, immediate: i32) -> Self {
        let registers = if cfg!(target_endian = "little") {
            destination | source << 4
        } else {
            source | destination << 4
        };
        Self { code, registers, offset: 0, immediate }
    }

    fn load(destination: u8, base: u8, offset: i16) -> Self {
        Self { offset, ..Self::new(LOAD_WORD, destination, base, 0) }
    }

    fn copy(destination: u8, source: u8) -> Self {
        Self::new(COPY, destination, source, 0)
    }

    fn set(destination: u8, value: i32) -> Self {
        Self::new(SET, destination, 0, value)
    }

    fn and(destination: u8, mask: i32) -> Self {
        Self::new(AND, destination, 0, mask)
    }

    fn shift_right(destination: u8, bits: i32) -> Self {
        Self::new(SHIFT_RIGHT, destination, 0, bits)
    }

    fn jump_if(compare: u8, register: u8, value: i32) -> Self {
        Self::new(compare, register, 0, value)
    }

    fn exit() -> Self {
        Self::new(EXIT, 0, 0, 0)
    }

    fn is_jump(self) -> bool {
        matches!(self.code, EQUAL | NOT_EQUAL)
    }
}

// bpf(2) commands and constants of include/uapi/linux/bpf.h.
const BPF_PROG_LOAD: libc::c_int = 5;
const BPF_PROG_ATTACH: libc::c_int = 8;
const BPF_PROG_DETACH: libc::c_int = 9;
const BPF_PROG_GET_FD_BY_ID: libc::c_int = 13;
const BPF_PROG_QUERY: libc::c_int = 16;
const BPF_PROG_TYPE_CGROUP_DEVICE: u32 = 15;
const BPF_CGROUP_DEVICE: u32 = 6;
const BPF_F_ALLOW_MULTI: u32 = 2;
/// As many programs as are looked for on one cgroup; the kernel's own bound is `BPF_CGROUP_MAX_PROGS`, 64.
const MAX_PROGRAMS: usize = 64;

/// The part of `union bpf_attr` that `BPF_PROG_LOAD` needs.
#[repr(C)]
#[derive(Default)]
struct LoadAttr {
    prog_type: u32,
    insn_cnt: u32,
    insns: u64,
    license: u64,
    log_level: u32,
    log_size: u32,
    log_buf: u64,
    kern_version: u32,
    prog_flags: u32,
    prog_name: [u8; 16],
}

/// The part that `BPF_PROG_ATTACH` and `BPF_PROG_DETACH` need.
#[repr(C)]
#[derive(Default)]
struct AttachAttr {
    target_fd: u32,
    attach_bpf_fd: u32,
    attach_type: u32,
    attach_flags: u32,
}

/// The part that `BPF_PROG_QUERY` needs.
#[repr(C)]
#[derive(Default)]
struct QueryAttr {
    target_fd: u32,
    attach_type: u32,
    query_flags: u32,
    attach_flags: u32,
    prog_ids: u64,
    prog_cnt: u32,
    _padding: u32,
}

/// The part that `BPF_PROG_GET_FD_BY_ID` needs.
#[repr(C)]
#[derive(Default)]
struct IdAttr {
    prog_id: u32,
    next_id: u32,
    open_flags: u32,
}

/// bpf(2) with `attr`, whose type must be the one that `command` reads.
fn bpf<T>(
    command: libc::c_int,
    attr: &mut T,
    tried: &'static str,
) -> Result<libc::c_long, DeviceFilterError> {
    // SAFETY: `attr` is a zero-padded prefix of `union bpf_attr` of the size given; the kernel takes what lies beyond
    // as zero, and the pointers in it are to memory that its builder keeps alive over this call.
    let result =
        unsafe { libc::syscall(libc::SYS_bpf, command, std::ptr::from_mut(attr), size_of::<T>()) };
    if result >= 0 {
        return Ok(result);
    }
    let source = io::Error::last_os_error();
    let hint = match source.raw_os_error() {
        Some(libc::EPERM) => "CAP_SYS_ADMIN, or CAP_BPF with CAP_NET_ADMIN, is needed",
        Some(libc::EINVAL | libc::ENOSYS) => {
            "the kernel needs CONFIG_CGROUP_BPF, Linux 4.15 or later"
        }
        _ => "see bpf(2)",
    };
    Err(DeviceFilterError::Bpf { tried, source, hint })
}

/// The address of `value` as bpf(2) wants pointers.
fn address<T>(value: *const T) -> u64 {
    value.addr() as u64
}

fn descriptor(fd: BorrowedFd<'_>) -> u32 {
    fd.as_raw_fd().cast_unsigned()
}

fn load(program: &[Instruction]) -> Result<OwnedFd, DeviceFilterError> {
    let mut prog_name = [0; 16];
    prog_name[..15].copy_from_slice(b"terrarium_devcg");
    let mut attr = LoadAttr {
        prog_type: BPF_PROG_TYPE_CGROUP_DEVICE,
        insn_cnt: u32::try_from(program.len()).expect("a few instructions per rule"),
        insns: address(program.as_ptr()),
        license: address(c"Apache-2.0".as_ptr()),
        prog_name,
        ..LoadAttr::default()
    };
    let mut load = || bpf(BPF_PROG_LOAD, &mut attr, "load an eBPF program");
    let fd = load().or_else(|refusal| match MemlockRaised::to_infinity() {
        Ok(_raised) => load(),
        Err(_) => Err(refusal),
    })?;
    Ok(owned(fd))
}

/// No limit to locked memory, until it is dropped.
///
/// Before Linux 5.11 programs and maps of eBPF count as memory locked by the user who loads them, over all processes: the
/// programs of an observatory alone fill the usual 64 KiB of root (`RLIMIT_MEMLOCK` in getrlimit(2)). The limit comes back
/// because the container would inherit it.
struct MemlockRaised {
    before: (u64, u64),
}

impl MemlockRaised {
    fn to_infinity() -> nix::Result<Self> {
        let before = getrlimit(Resource::RLIMIT_MEMLOCK)?;
        setrlimit(Resource::RLIMIT_MEMLOCK, RLIM_INFINITY, RLIM_INFINITY)?;
        Ok(Self { before })
    }
}

impl Drop for MemlockRaised {
    fn drop(&mut self) {
        let (soft, hard) = self.before;
        // To lower a limit is always allowed.
        let _ = setrlimit(Resource::RLIMIT_MEMLOCK, soft, hard);
    }
}

fn owned(fd: libc::c_long) -> OwnedFd {
    let fd = i32::try_from(fd).expect("a descriptor fits in an int");
    // SAFETY: both callers got it from a bpf(2) command that makes a new descriptor, and it is nobody else's.
    unsafe { OwnedFd::from_raw_fd(fd) }
}

fn attach(cgroup: BorrowedFd<'_>, program: BorrowedFd<'_>) -> Result<(), DeviceFilterError> {
    let mut attr = AttachAttr {
        target_fd: descriptor(cgroup),
        attach_bpf_fd: descriptor(program),
        attach_type: BPF_CGROUP_DEVICE,
        attach_flags: BPF_F_ALLOW_MULTI,
    };
    bpf(BPF_PROG_ATTACH, &mut attr, "attach an eBPF program to the cgroup").map(drop)
}

/// The ids of the device programs of `cgroup` itself.
fn attached(cgroup: BorrowedFd<'_>) -> Result<Vec<u32>, DeviceFilterError> {
    let mut ids = vec![0_u32; MAX_PROGRAMS];
    let mut attr = QueryAttr {
        target_fd: descriptor(cgroup),
        attach_type: BPF_CGROUP_DEVICE,
        prog_ids: ids.as_mut_ptr().expose_provenance() as u64,
        prog_cnt: u32::try_from(MAX_PROGRAMS).expect("a small constant"),
        ..QueryAttr::default()
    };
    bpf(BPF_PROG_QUERY, &mut attr, "ask for the eBPF programs of the cgroup")?;
    ids.truncate(attr.prog_cnt as usize);
    Ok(ids)
}

fn detach(cgroup: BorrowedFd<'_>, id: u32) -> Result<(), DeviceFilterError> {
    let mut by_id = IdAttr { prog_id: id, ..IdAttr::default() };
    let program = owned(bpf(BPF_PROG_GET_FD_BY_ID, &mut by_id, "open the old eBPF program")?);
    let mut attr = AttachAttr {
        target_fd: descriptor(cgroup),
        attach_bpf_fd: descriptor(program.as_fd()),
        attach_type: BPF_CGROUP_DEVICE,
        attach_flags: 0,
    };
    bpf(BPF_PROG_DETACH, &mut attr, "detach the old eBPF program").map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;
    use oci_spec::runtime::LinuxDeviceCgroupBuilder;

    fn rule(
        allow: bool,
        typ: LinuxDeviceType,
        numbers: (Option<i64>, Option<i64>),
        access: &str,
    ) -> LinuxDeviceCgroup {
        let mut rule = LinuxDeviceCgroupBuilder::default()
            .allow(allow)
            .typ(typ)
            .access(access)
            .build()
            .unwrap();
        rule.set_major(numbers.0).set_minor(numbers.1);
        rule
    }

    /// Runs `program` for one access: the oracle of the tests.
    fn run(program: &[Instruction], kind: u8, major: u32, minor: u32, access: u8) -> bool {
        let context = [u32::from(access) << 16 | u32::from(kind), major, minor];
        let mut registers = [0_u32; 11];
        let mut pc = 0;
        loop {
            let instruction = program[pc];
            pc += 1;
            let destination = usize::from(instruction.registers & 0xf);
            let source = usize::from(instruction.registers >> 4);
            let immediate = instruction.immediate.cast_unsigned();
            match instruction.code {
                LOAD_WORD => {
                    registers[destination] =
                        context[usize::try_from(instruction.offset).unwrap() / 4];
                }
                COPY => registers[destination] = registers[source],
                SET => registers[destination] = immediate,
                AND => registers[destination] &= immediate,
                SHIFT_RIGHT => registers[destination] >>= immediate,
                EQUAL | NOT_EQUAL => {
                    if (registers[destination] == immediate) == (instruction.code == EQUAL) {
                        pc += usize::try_from(instruction.offset).unwrap();
                    }
                }
                EXIT => return registers[0] == 1,
                other => panic!("opcode {other:#x}"),
            }
        }
    }

    #[test]
    fn rules_mean_what_they_mean_on_v1() {
        use LinuxDeviceType::{A, B, C};
        let all = (None, None);
        let null = (Some(1), Some(3));
        let docker =
            [rule(false, A, all, "rwm"), rule(true, C, all, "m"), rule(true, C, null, "rwm")];
        let split =
            [rule(false, A, all, "rwm"), rule(true, C, null, "r"), rule(true, C, null, "w")];
        let cancelled = [docker[0].clone(), docker[2].clone(), rule(false, C, null, "w")];
        let denied = [rule(false, B, (Some(8), None), "w")];
        let reset = [docker[0].clone(), rule(true, A, all, "rwm")];
        let check = |rules: &[LinuxDeviceCgroup], kind, major, minor, access, expected: bool| {
            let program = DeviceFilter::new(rules).unwrap().program();
            assert_eq!(
                run(&program, kind, major, minor, access),
                expected,
                "{rules:?} {major}:{minor}"
            );
        };
        check(&[], DEVICE_BLOCK, 8, 0, 7, true);
        check(&docker, DEVICE_CHAR, 1, 3, ACCESS_READ | ACCESS_WRITE, true);
        check(&docker, DEVICE_CHAR, 1, 5, ACCESS_READ, false);
        check(&docker, DEVICE_CHAR, 10, 229, ACCESS_MKNOD, true);
        check(&docker, DEVICE_BLOCK, 1, 3, ACCESS_READ, false);
        check(&split, DEVICE_CHAR, 1, 3, ACCESS_READ | ACCESS_WRITE, true);
        check(&split, DEVICE_CHAR, 1, 3, ACCESS_MKNOD, false);
        check(&cancelled, DEVICE_CHAR, 1, 3, ACCESS_READ, true);
        check(&cancelled, DEVICE_CHAR, 1, 3, ACCESS_READ | ACCESS_WRITE, false);
        check(&denied, DEVICE_BLOCK, 8, 1, ACCESS_READ, true);
        check(&denied, DEVICE_BLOCK, 8, 1, ACCESS_READ | ACCESS_WRITE, false);
        check(&reset, DEVICE_BLOCK, 8, 1, ACCESS_READ, true);
    }

    #[test]
    fn bad_rules_are_refused() {
        let check = |rule: LinuxDeviceCgroup, expected: &str| {
            let error = DeviceFilter::new(&[rule]).unwrap_err().to_string();
            assert!(error.contains(expected), "{error}");
        };
        check(rule(true, LinuxDeviceType::C, (None, None), "rx"), "r, w and m");
        check(rule(true, LinuxDeviceType::C, (Some(-2), None), "r"), "-2 is no device number");
        check(rule(true, LinuxDeviceType::P, (None, None), "r"), "cannot be limited");
    }

    #[test]
    fn the_kernel_takes_the_program() {
        let rules = [
            rule(false, LinuxDeviceType::A, (None, None), "rwm"),
            rule(true, LinuxDeviceType::C, (Some(1), None), "r"),
        ];
        let filter = DeviceFilter::new(&rules).unwrap();
        match load(&filter.program()) {
            Ok(_program) => {}
            Err(DeviceFilterError::Bpf { source, .. })
                if source.raw_os_error() == Some(libc::EPERM) =>
            {
                println!("skipped: not privileged to load eBPF programs");
            }
            Err(error) => panic!("{error}"),
        }
    }
}
