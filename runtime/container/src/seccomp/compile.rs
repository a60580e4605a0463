//! A profile becomes a program.
//!
//! For each architecture: the rules are gathered per system call number, neighbouring numbers with one answer are
//! merged into segments, and a binary search over the segments' starts finds the answer or the argument checks.
//!
//! What a profile means, where the OCI specification leaves it open, is what runc and libseccomp make of it:
//! a rule without arguments beats those with arguments for the same call; of several with arguments the first that
//! matches wins; a rule whose action is the default's is dropped; a rule with two conditions on one argument means
//! either of them; calls newer than any that the profile names fail with ENOSYS rather than with the
//! default action, so that C libraries fall back to the older call; an architecture that is not listed is killed.

use super::SeccompError;
use super::arch::{NATIVE, SyscallArch, X32_BIT};
use super::assembler::{Address, Assembler, Compare};
use libc::sock_filter;
use oci_spec::runtime::{
    LinuxSeccomp, LinuxSeccompAction, LinuxSeccompArg, LinuxSeccompFilterFlag, LinuxSeccompOperator,
};
use std::collections::BTreeMap;

/// Offset of `nr` in `struct seccomp_data` (include/uapi/linux/seccomp.h).
const OFFSET_NR: u32 = 0;
/// Offset of `arch`.
const OFFSET_ARCH: u32 = 4;
/// Offset of `args[0]`; each argument has eight bytes.
const OFFSET_ARGS: u32 = 16;

/// `SECCOMP_RET_KILL_THREAD`, libseccomp's answer to an architecture that is not in the filter.
const BAD_ARCHITECTURE: u32 = 0;
/// `SECCOMP_RET_ERRNO` with ENOSYS.
const NO_SUCH_CALL: u32 = 0x0005_0000 | libc::ENOSYS as u32;
/// `BPF_MAXINSNS`.
const MAX_INSTRUCTIONS: usize = 4096;

/// A filter that is ready to load.
#[derive(Clone, Debug)]
pub struct Filter {
    pub(super) program: Vec<sock_filter>,
    /// `SECCOMP_FILTER_FLAG_*`.
    pub(super) flags: libc::c_ulong,
}

impl Filter {
    /// How many instructions the program has.
    pub fn instructions(&self) -> usize {
        self.program.len()
    }

    /// Whether loading gives a listener, because some call is answered by `SCMP_ACT_NOTIFY`.
    pub fn notifies(&self) -> bool {
        self.flags & libc::SECCOMP_FILTER_FLAG_NEW_LISTENER != 0
    }
}

/// Compiles `profile` (`linux.seccomp` of the OCI runtime specification, config-linux.md) into a filter.
///
/// System calls that no listed architecture has are skipped, as every runtime does: profiles name calls of many
/// kernels and machines.
///
/// # Errors
/// An argument index above 5, an `errnoRet` above 65535, a notification that would stop the runtime itself, or a program that is too long for the kernel.
pub fn compile(profile: &LinuxSeccomp) -> Result<Filter, SeccompError> {
    let rules = Rules::new(profile)?;
    let mut assembler = Assembler::default();

    // Backwards: what the program falls through to comes first.
    let mut next = assembler.ret(BAD_ARCHITECTURE);
    for group in architectures(profile).iter().rev() {
        let search = group.emit(&mut assembler, &rules, profile);
        assembler.goto(search);
        let search = assembler.load(OFFSET_NR);
        next = assembler.branch(Compare::Equal, group.audit, search, next);
    }
    assembler.goto(next);
    assembler.load(OFFSET_ARCH);

    let program = assembler.finish();
    if program.len() > MAX_INSTRUCTIONS {
        return Err(SeccompError::TooLong { instructions: program.len() });
    }
    Ok(Filter { program, flags: flags(profile, rules.notify) })
}

/// The architectures of one `AUDIT_ARCH_*` value: one, but for x86-64 with x32.
struct Group {
    audit: u32,
    archs: Vec<SyscallArch>,
}

/// The profile's architectures, the native one first because almost every call comes from it.
fn architectures(profile: &LinuxSeccomp) -> Vec<Group> {
    let mut archs = vec![NATIVE];
    for listed in profile.architectures().iter().flatten() {
        if let Some(arch) = SyscallArch::from_oci(*listed)
            && !archs.contains(&arch)
        {
            archs.push(arch);
        }
    }
    let mut groups: Vec<Group> = Vec::new();
    for arch in archs {
        match groups.iter_mut().find(|group| group.audit == arch.audit()) {
            Some(group) => group.archs.push(arch),
            None => groups.push(Group { audit: arch.audit(), archs: vec![arch] }),
        }
    }
    groups
}

/// The answers to one system call.
#[derive(Clone, Debug, Default, PartialEq)]
struct Answers {
    /// Argument conditions, all of which must hold, and the answer then.
    conditional: Vec<(Vec<LinuxSeccompArg>, u32)>,
    /// The answer when no condition held; the default action if there is none.
    unconditional: Option<u32>,
}

/// The profile's rules by the name of the system call.
struct Rules {
    default: u32,
    by_name: BTreeMap<String, Answers>,
    /// Every call that the profile names, also with the default action: what it knew of.
    named: Vec<String>,
    notify: bool,
}

impl Rules {
    fn new(profile: &LinuxSeccomp) -> Result<Self, SeccompError> {
        let default = action(profile.default_action(), profile.default_errno_ret())?;
        if profile.default_action() == LinuxSeccompAction::ScmpActNotify {
            return Err(SeccompError::Notify {
                reason: "cannot be the default action: the runtime's own calls would wait for the agent",
            });
        }
        let mut rules =
            Self { default, by_name: BTreeMap::new(), named: Vec::new(), notify: false };
        for rule in profile.syscalls().iter().flatten() {
            rules.named.extend(rule.names().iter().cloned());
            let answer = action(rule.action(), rule.errno_ret())?;
            if answer == default {
                continue;
            }
            if rule.action() == LinuxSeccompAction::ScmpActNotify {
                // The listener is sent over a socket by a process that has the filter already.
                if rule.names().iter().any(|name| name == "write" || name == "sendmsg") {
                    return Err(SeccompError::Notify {
                        reason: "cannot be used for write or sendmsg: sending the listener would wait for itself",
                    });
                }
                rules.notify = true;
            }
            let args = rule.args().as_deref().unwrap_or_default();
            for name in rule.names() {
                if let Some(arg) = args.iter().find(|arg| arg.index() > 5) {
                    return Err(SeccompError::ArgumentIndex {
                        syscall: name.clone(),
                        index: arg.index(),
                    });
                }
                let answers = rules.by_name.entry(name.clone()).or_default();
                if args.is_empty() {
                    answers.unconditional.get_or_insert(answer);
                } else if repeats_an_argument(args) {
                    answers.conditional.extend(args.iter().map(|arg| (vec![*arg], answer)));
                } else {
                    answers.conditional.push((args.to_vec(), answer));
                }
            }
        }
        for answers in rules.by_name.values_mut() {
            if answers.unconditional.is_some() {
                answers.conditional.clear();
            }
        }
        if rules.notify && profile.listener_path().is_none() {
            return Err(SeccompError::Notify {
                reason: "needs linux.seccomp.listenerPath, the socket of the agent",
            });
        }
        Ok(rules)
    }
}

fn repeats_an_argument(args: &[LinuxSeccompArg]) -> bool {
    args.iter().enumerate().any(|(n, arg)| args[..n].iter().any(|b| b.index() == arg.index()))
}

/// `SECCOMP_RET_*` with its data.
fn action(action: LinuxSeccompAction, errno: Option<u32>) -> Result<u32, SeccompError> {
    match errno {
        Some(value) if value > 0xffff => Err(SeccompError::ErrnoRet { value }),
        errno => Ok(action.as_u32(errno)),
    }
}

/// What is done with the numbers from a segment's start up to the next one's.
#[derive(Clone, Debug, PartialEq)]
enum Outcome {
    Return(u32),
    Check(Answers),
}

/// A run of system call numbers with one outcome.
#[derive(Clone, Debug)]
struct Segment {
    start: u32,
    outcome: Outcome,
}

impl Group {
    /// Emits the search over the numbers of this group.
    fn emit(&self, assembler: &mut Assembler, rules: &Rules, profile: &LinuxSeccomp) -> Address {
        let segments = self.segments(rules, profile);
        search(assembler, &segments, rules.default)
    }

    /// Every number from 0 to 2^32 - 1, in segments.
    fn segments(&self, rules: &Rules, profile: &LinuxSeccomp) -> Vec<Segment> {
        let mut segments = Vec::new();
        let plain = self.archs.iter().find(|arch| **arch != SyscallArch::X32);
        segments_of(&mut segments, 0, plain.copied(), rules, profile);
        if self.audit == SyscallArch::X32.audit() {
            let x32 = self.archs.contains(&SyscallArch::X32).then_some(SyscallArch::X32);
            segments_of(&mut segments, X32_BIT, x32, rules, profile);
            // -1 is no x32 call, but one that a tracer has cancelled.
            let cancelled = Outcome::Return(rules.default);
            push(&mut segments, Segment { start: u32::MAX, outcome: cancelled });
        }
        segments
    }
}

/// Appends the segments of `arch`, whose numbers begin at `base`; `None` is an architecture that is not allowed.
fn segments_of(
    segments: &mut Vec<Segment>,
    base: u32,
    arch: Option<SyscallArch>,
    rules: &Rules,
    profile: &LinuxSeccomp,
) {
    let Some(arch) = arch else {
        push(segments, Segment { start: base, outcome: Outcome::Return(BAD_ARCHITECTURE) });
        return;
    };
    let mut by_number: BTreeMap<u32, &Answers> = BTreeMap::new();
    for (name, answers) in &rules.by_name {
        if let Some(number) = arch.number(name) {
            by_number.insert(number, answers);
        }
    }
    let default = Outcome::Return(rules.default);
    push(segments, Segment { start: base, outcome: default.clone() });
    for (number, answers) in by_number {
        let outcome = match answers {
            Answers { conditional, unconditional } if conditional.is_empty() => {
                Outcome::Return(unconditional.unwrap_or(rules.default))
            }
            answers => Outcome::Check(answers.clone()),
        };
        push(segments, Segment { start: base + number, outcome });
        push(segments, Segment { start: base + number + 1, outcome: default.clone() });
    }
    let newest = rules.named.iter().filter_map(|name| arch.number(name)).max();
    if let Some(newest) = newest
        && !matches!(
            profile.default_action(),
            LinuxSeccompAction::ScmpActAllow | LinuxSeccompAction::ScmpActLog
        )
    {
        let outcome = Outcome::Return(NO_SUCH_CALL);
        push(segments, Segment { start: base + newest + 1, outcome });
    }
}

/// Appends `segment`, merging it with the one before where the outcome is the same.
fn push(segments: &mut Vec<Segment>, segment: Segment) {
    if segments.last().is_some_and(|last| last.start == segment.start) {
        segments.pop();
    }
    if segments.last().is_none_or(|last| last.outcome != segment.outcome) {
        segments.push(segment);
    }
}

/// Emits a binary search over `segments`, with the number in the accumulator.
fn search(assembler: &mut Assembler, segments: &[Segment], default: u32) -> Address {
    match segments {
        [] => assembler.ret(default),
        [segment] => match &segment.outcome {
            Outcome::Return(value) => assembler.ret(*value),
            Outcome::Check(answers) => checks(assembler, answers, default),
        },
        segments => {
            let (low, high) = segments.split_at(segments.len() / 2);
            let yes = search(assembler, high, default);
            let no = search(assembler, low, default);
            assembler.branch(Compare::GreaterOrEqual, high[0].start, yes, no)
        }
    }
}

/// Emits the conditions of one system call, in their order.
fn checks(assembler: &mut Assembler, answers: &Answers, default: u32) -> Address {
    let mut next = assembler.ret(answers.unconditional.unwrap_or(default));
    for (args, answer) in answers.conditional.iter().rev() {
        let mut yes = assembler.ret(*answer);
        for arg in args.iter().rev() {
            yes = condition(assembler, arg, yes, next);
        }
        next = yes;
    }
    next
}

/// Emits one 64-bit comparison by its two halves.
fn condition(
    assembler: &mut Assembler,
    arg: &LinuxSeccompArg,
    yes: Address,
    no: Address,
) -> Address {
    let index = u32::try_from(arg.index()).expect("checked to be at most 5");
    let (low_half, high_half) = if cfg!(target_endian = "little") { (0, 4) } else { (4, 0) };
    let low_offset = OFFSET_ARGS + 8 * index + low_half;
    let high_offset = OFFSET_ARGS + 8 * index + high_half;
    let (high, low) = halves(arg.value());
    let ordered = |assembler: &mut Assembler, compare, yes, no| {
        let last = assembler.branch(compare, low, yes, no);
        assembler.goto(last);
        let low_word = assembler.load(low_offset);
        let equal = assembler.branch(Compare::Equal, high, low_word, no);
        let first = assembler.branch(Compare::Greater, high, yes, equal);
        assembler.goto(first);
        assembler.load(high_offset)
    };
    let equal = |assembler: &mut Assembler, mask: Option<(u32, u32)>, yes, no| {
        let (high, low) = match mask {
            Some((high_mask, low_mask)) => {
                let (high, low) = halves(arg.value_two().unwrap_or(0));
                (high & high_mask, low & low_mask)
            }
            None => (high, low),
        };
        let last = assembler.branch(Compare::Equal, low, yes, no);
        assembler.goto(last);
        if let Some((_, low_mask)) = mask {
            assembler.and(low_mask);
        }
        let low_word = assembler.load(low_offset);
        let first = assembler.branch(Compare::Equal, high, low_word, no);
        assembler.goto(first);
        if let Some((high_mask, _)) = mask {
            assembler.and(high_mask);
        }
        assembler.load(high_offset)
    };
    match arg.op() {
        LinuxSeccompOperator::ScmpCmpEq => equal(assembler, None, yes, no),
        LinuxSeccompOperator::ScmpCmpNe => equal(assembler, None, no, yes),
        LinuxSeccompOperator::ScmpCmpMaskedEq => equal(assembler, Some((high, low)), yes, no),
        LinuxSeccompOperator::ScmpCmpGt => ordered(assembler, Compare::Greater, yes, no),
        LinuxSeccompOperator::ScmpCmpLe => ordered(assembler, Compare::Greater, no, yes),
        LinuxSeccompOperator::ScmpCmpGe => ordered(assembler, Compare::GreaterOrEqual, yes, no),
        LinuxSeccompOperator::ScmpCmpLt => ordered(assembler, Compare::GreaterOrEqual, no, yes),
    }
}

/// The high and the low 32 bits.
fn halves(value: u64) -> (u32, u32) {
    #[expect(clippy::cast_possible_truncation, reason = "the halves are what is asked for")]
    ((value >> 32) as u32, value as u32)
}

fn flags(profile: &LinuxSeccomp, notify: bool) -> libc::c_ulong {
    let listed = profile.flags().iter().flatten().map(|flag| match flag {
        LinuxSeccompFilterFlag::SeccompFilterFlagLog => libc::SECCOMP_FILTER_FLAG_LOG,
        LinuxSeccompFilterFlag::SeccompFilterFlagSpecAllow => libc::SECCOMP_FILTER_FLAG_SPEC_ALLOW,
        LinuxSeccompFilterFlag::SeccompFilterFlagWaitKillableRecv if notify => {
            libc::SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV
        }
        // The process that loads the filter has one thread, and TSYNC excludes a listener.
        LinuxSeccompFilterFlag::SeccompFilterFlagTsync
        | LinuxSeccompFilterFlag::SeccompFilterFlagWaitKillableRecv => 0,
    });
    let listener = if notify { libc::SECCOMP_FILTER_FLAG_NEW_LISTENER } else { 0 };
    listed.fold(listener, |all, flag| all | flag)
}

#[cfg(test)]
mod tests {
    use super::super::assembler::interpret;
    use super::*;
    use oci_spec::runtime::{
        Arch, LinuxSeccompArgBuilder, LinuxSeccompBuilder, LinuxSyscallBuilder,
    };

    const ALLOW: u32 = 0x7fff_0000;
    const EPERM: u32 = 0x0005_0001;

    fn data(arch: SyscallArch, number: u32, args: [u64; 6]) -> [u32; 16] {
        let mut words = [0; 16];
        words[0] = number;
        words[1] = arch.audit();
        for (n, arg) in args.iter().enumerate() {
            let (high, low) = halves(*arg);
            words[4 + 2 * n] = low;
            words[5 + 2 * n] = high;
        }
        words
    }

    fn arg(index: usize, op: LinuxSeccompOperator, value: u64, two: u64) -> LinuxSeccompArg {
        LinuxSeccompArgBuilder::default()
            .index(index)
            .op(op)
            .value(value)
            .value_two(two)
            .build()
            .unwrap()
    }

    fn rule(
        names: &[&str],
        action: LinuxSeccompAction,
        args: Vec<LinuxSeccompArg>,
    ) -> oci_spec::runtime::LinuxSyscall {
        LinuxSyscallBuilder::default()
            .names(names.iter().map(ToString::to_string).collect::<Vec<_>>())
            .action(action)
            .args(args)
            .build()
            .unwrap()
    }

    fn profile(
        default: LinuxSeccompAction,
        rules: Vec<oci_spec::runtime::LinuxSyscall>,
    ) -> LinuxSeccomp {
        LinuxSeccompBuilder::default()
            .default_action(default)
            .architectures(vec![Arch::ScmpArchX86_64, Arch::ScmpArchX86])
            .syscalls(rules)
            .build()
            .unwrap()
    }

    #[test]
    fn operators_compare_all_64_bits() {
        use LinuxSeccompOperator as Op;
        let big = 0x0000_0002_0000_0005_u64;
        let check = |op, value, two, actual, expected: bool| {
            let profile = profile(
                LinuxSeccompAction::ScmpActErrno,
                vec![rule(
                    &["ioctl"],
                    LinuxSeccompAction::ScmpActAllow,
                    vec![arg(1, op, value, two)],
                )],
            );
            let filter = compile(&profile).unwrap();
            let got =
                interpret(&filter.program, &data(SyscallArch::X86_64, 16, [0, actual, 0, 0, 0, 0]));
            assert_eq!(got == ALLOW, expected, "{actual:#x} {op:?} {value:#x}");
        };
        for actual in [0, 5, big - 1, big, big + 1, u64::from(u32::MAX), 1 << 33, u64::MAX] {
            check(Op::ScmpCmpEq, big, 0, actual, actual == big);
            check(Op::ScmpCmpNe, big, 0, actual, actual != big);
            check(Op::ScmpCmpLt, big, 0, actual, actual < big);
            check(Op::ScmpCmpLe, big, 0, actual, actual <= big);
            check(Op::ScmpCmpGt, big, 0, actual, actual > big);
            check(Op::ScmpCmpGe, big, 0, actual, actual >= big);
            check(
                Op::ScmpCmpMaskedEq,
                0x2_0000_0001,
                0x2_0000_0001,
                actual,
                actual & 0x2_0000_0001 == 0x2_0000_0001,
            );
        }
    }

    #[test]
    fn every_number_gets_the_answer_of_its_rule() {
        let profile = super::super::default_profile(&[]);
        let filter = compile(&profile).unwrap();
        let allowed: Vec<u32> = profile
            .syscalls()
            .iter()
            .flatten()
            .filter(|rule| rule.args().as_ref().is_none_or(Vec::is_empty))
            .filter(|rule| rule.action() == LinuxSeccompAction::ScmpActAllow)
            .flat_map(|rule| rule.names().iter().filter_map(|name| NATIVE.number(name)))
            .collect();
        let checked: Vec<u32> = profile
            .syscalls()
            .iter()
            .flatten()
            .flat_map(|rule| rule.names().iter().filter_map(|name| NATIVE.number(name)))
            .collect();
        let newest = *checked.iter().max().unwrap();
        for number in 0..1000 {
            let got = interpret(&filter.program, &data(NATIVE, number, [0; 6]));
            if allowed.contains(&number) {
                assert_eq!(got, ALLOW, "call {number}");
            } else if number > newest {
                assert_eq!(got, NO_SUCH_CALL, "call {number}");
            } else if !checked.contains(&number) {
                assert_eq!(got, EPERM, "call {number}");
            }
        }
    }

    #[cfg(target_arch = "x86_64")]
    #[test]
    fn other_architectures_are_told_apart() {
        let filter = compile(&profile(
            LinuxSeccompAction::ScmpActErrno,
            vec![rule(&["read"], LinuxSeccompAction::ScmpActAllow, vec![])],
        ))
        .unwrap();
        let check = |arch, number, expected| {
            let got = interpret(&filter.program, &data(arch, number, [0; 6]));
            assert_eq!(got, expected, "{arch:?} {number}");
        };
        check(SyscallArch::X86_64, 0, ALLOW);
        check(SyscallArch::X86, 3, ALLOW);
        check(SyscallArch::X86, 0, EPERM);
        check(SyscallArch::X32, X32_BIT, BAD_ARCHITECTURE);
        check(SyscallArch::X86_64, u32::MAX, EPERM);
        check(SyscallArch::Aarch64, 0, BAD_ARCHITECTURE);
    }

    #[test]
    fn rules_combine_as_runc_combines_them() {
        use LinuxSeccompAction as A;
        use LinuxSeccompOperator as Op;
        let check = |rules, args, expected| {
            let filter = compile(&profile(A::ScmpActErrno, rules)).unwrap();
            let got = interpret(&filter.program, &data(SyscallArch::X86_64, 0, args));
            assert_eq!(got, expected);
        };
        let one = |value| arg(0, Op::ScmpCmpEq, value, 0);
        // The first match wins.
        let ordered = vec![
            rule(&["read"], A::ScmpActTrap, vec![one(1)]),
            rule(&["read"], A::ScmpActAllow, vec![arg(0, Op::ScmpCmpLe, 5, 0)]),
        ];
        check(ordered.clone(), [1, 0, 0, 0, 0, 0], 0x0003_0000);
        check(ordered.clone(), [2, 0, 0, 0, 0, 0], ALLOW);
        check(ordered, [6, 0, 0, 0, 0, 0], EPERM);
        // A rule without conditions beats one with.
        let mixed = vec![
            rule(&["read"], A::ScmpActTrap, vec![one(1)]),
            rule(&["read"], A::ScmpActAllow, vec![]),
        ];
        check(mixed, [1, 0, 0, 0, 0, 0], ALLOW);
        // Two conditions on one argument are alternatives, on two arguments they add up.
        let either = vec![rule(&["read"], A::ScmpActAllow, vec![one(1), one(2)])];
        check(either.clone(), [2, 0, 0, 0, 0, 0], ALLOW);
        check(either, [3, 0, 0, 0, 0, 0], EPERM);
        let both =
            vec![rule(&["read"], A::ScmpActAllow, vec![one(1), arg(2, Op::ScmpCmpEq, 9, 0)])];
        check(both.clone(), [1, 0, 9, 0, 0, 0], ALLOW);
        check(both, [1, 0, 8, 0, 0, 0], EPERM);
    }

    #[test]
    fn what_cannot_work_is_refused() {
        use LinuxSeccompAction as A;
        let check = |profile: &LinuxSeccomp, expected: &str| {
            let error = compile(profile).unwrap_err().to_string();
            assert!(error.contains(expected), "{error}");
        };
        check(&profile(A::ScmpActNotify, vec![]), "default action");
        check(
            &profile(A::ScmpActErrno, vec![rule(&["sendmsg"], A::ScmpActNotify, vec![])]),
            "sendmsg",
        );
        check(
            &profile(A::ScmpActErrno, vec![rule(&["mkdir"], A::ScmpActNotify, vec![])]),
            "listenerPath",
        );
        let sixth = arg(6, LinuxSeccompOperator::ScmpCmpEq, 0, 0);
        check(
            &profile(A::ScmpActErrno, vec![rule(&["mkdir"], A::ScmpActAllow, vec![sixth])]),
            "argument index 6",
        );
    }
}
