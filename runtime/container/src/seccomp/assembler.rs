//! Classic BPF, assembled backwards.
//!
//! Every jump of classic BPF goes forward. Emitting the last instruction first means that the target of a jump is
//! always there already, and its distance known. A conditional jump reaches 255 instructions; where that is not
//! enough an unconditional one, which reaches everything, is put in between.

use libc::sock_filter;

/// Where an instruction stands, counted from the end of the program.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Address(usize);

/// How a conditional jump compares the accumulator with its constant.
#[derive(Clone, Copy, Debug)]
pub(super) enum Compare {
    Equal,
    Greater,
    GreaterOrEqual,
}

/// The furthest that a conditional jump goes.
const REACH: usize = u8::MAX as usize;

// Opcodes of include/uapi/linux/bpf_common.h, as used here: 32-bit absolute loads, constants as operands.
const LD_W_ABS: u16 = 0x20;
const ALU_AND_K: u16 = 0x54;
const JMP_JA: u16 = 0x05;
const JMP_JEQ_K: u16 = 0x15;
const JMP_JGT_K: u16 = 0x25;
const JMP_JGE_K: u16 = 0x35;
const RET_K: u16 = 0x06;

/// A program that grows from its end to its beginning.
#[derive(Debug, Default)]
pub(super) struct Assembler {
    /// Last instruction first.
    reversed: Vec<sock_filter>,
    /// The newest place of each `return`, to share it while it is near.
    returns: Vec<(u32, Address)>,
}

impl Assembler {
    fn push(&mut self, code: u16, jt: u8, jf: u8, k: u32) -> Address {
        self.reversed.push(sock_filter { code, jt, jf, k });
        Address(self.reversed.len() - 1)
    }

    /// How many instructions the next one would have to skip to reach `target`.
    fn distance(&self, target: Address) -> usize {
        self.reversed.len() - target.0 - 1
    }

    /// `return value`: a near one that is there already, else a new one.
    pub(super) fn ret(&mut self, value: u32) -> Address {
        // Half the reach: what is emitted between this call and the jump must not push it out of reach.
        let known = self.returns.iter().position(|(v, _)| *v == value);
        if let Some(index) = known
            && self.distance(self.returns[index].1) < REACH / 2
        {
            return self.returns[index].1;
        }
        let address = self.push(RET_K, 0, 0, value);
        match known {
            Some(index) => self.returns[index].1 = address,
            None => self.returns.push((value, address)),
        }
        address
    }

    /// Loads the 32-bit word at `offset` of `struct seccomp_data`, then goes on with the instruction emitted last.
    pub(super) fn load(&mut self, offset: u32) -> Address {
        self.push(LD_W_ABS, 0, 0, offset)
    }

    /// `accumulator &= mask`, then goes on with the instruction emitted last.
    pub(super) fn and(&mut self, mask: u32) -> Address {
        self.push(ALU_AND_K, 0, 0, mask)
    }

    /// Makes `target` the instruction that is run next, whatever stands there now.
    pub(super) fn goto(&mut self, target: Address) -> Address {
        if self.distance(target) == 0 {
            return target;
        }
        let skip =
            u32::try_from(self.distance(target)).expect("a program has at most 4096 instructions");
        self.push(JMP_JA, 0, 0, skip)
    }

    /// Compares the accumulator with `k` and goes to `yes` or to `no`.
    pub(super) fn branch(
        &mut self,
        compare: Compare,
        k: u32,
        yes: Address,
        no: Address,
    ) -> Address {
        let code = match compare {
            Compare::Equal => JMP_JEQ_K,
            Compare::Greater => JMP_JGT_K,
            Compare::GreaterOrEqual => JMP_JGE_K,
        };
        // Each trampoline moves the branch one further from the other target, hence the one in reserve.
        let yes = if self.distance(yes) >= REACH { self.trampoline(yes) } else { yes };
        let no = if self.distance(no) > REACH { self.trampoline(no) } else { no };
        let jt = u8::try_from(self.distance(yes)).expect("within reach, or behind a trampoline");
        let jf = u8::try_from(self.distance(no)).expect("within reach, or behind a trampoline");
        self.push(code, jt, jf, k)
    }

    fn trampoline(&mut self, target: Address) -> Address {
        let skip =
            u32::try_from(self.distance(target)).expect("a program has at most 4096 instructions");
        self.push(JMP_JA, 0, 0, skip)
    }

    /// The program, first instruction first.
    pub(super) fn finish(mut self) -> Vec<sock_filter> {
        self.reversed.reverse();
        self.reversed
    }
}

/// Runs `program` on `data`, a `struct seccomp_data` as 16 words, and gives what it returns: the oracle of the tests.
#[cfg(test)]
pub(super) fn interpret(program: &[sock_filter], data: &[u32; 16]) -> u32 {
    let mut accumulator = 0;
    let mut pc = 0;
    loop {
        let instruction = &program[pc];
        pc += 1;
        let mut jump = |condition: bool| {
            pc += usize::from(if condition { instruction.jt } else { instruction.jf });
        };
        match instruction.code {
            LD_W_ABS => accumulator = data[instruction.k as usize / 4],
            ALU_AND_K => accumulator &= instruction.k,
            JMP_JA => pc += instruction.k as usize,
            JMP_JEQ_K => jump(accumulator == instruction.k),
            JMP_JGT_K => jump(accumulator > instruction.k),
            JMP_JGE_K => jump(accumulator >= instruction.k),
            RET_K => return instruction.k,
            other => panic!("opcode {other:#x} is not one that the assembler emits"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn far_targets_are_reached_through_trampolines() {
        let mut assembler = Assembler::default();
        let far_yes = assembler.ret(1);
        let far_no = assembler.ret(2);
        for _ in 0..400 {
            assembler.and(u32::MAX);
        }
        let branch = assembler.branch(Compare::Equal, 7, far_yes, far_no);
        assembler.goto(branch);
        assembler.load(0);
        let program = assembler.finish();
        let mut data = [0; 16];
        data[0] = 7;
        assert_eq!(interpret(&program, &data), 1);
        data[0] = 8;
        assert_eq!(interpret(&program, &data), 2);
    }

    #[test]
    fn a_return_is_shared_while_it_is_near_and_repeated_when_it_is_far() {
        let mut assembler = Assembler::default();
        let first = assembler.ret(5);
        assert_eq!(assembler.ret(5), first);
        for _ in 0..REACH {
            assembler.and(1);
        }
        assert_ne!(assembler.ret(5), first);
    }
}
