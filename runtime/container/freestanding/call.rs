//! `terrarium-call NUMBER [WORD…] [, NUMBER [WORD…]]…`: makes these system calls one after the other, whatever becomes of them.
//!
//! A word that is a number is passed as one, `@` stands for the result of the call before, and any other word is passed as the
//! address of its text. The exit code is the error number of the last call, 0 where it had none. For the openings of
//! `terrarium lab` that no ordinary program makes.

#![no_std]
#![no_main]

mod start;

use start::{exit, syscall};

/// Where the kernel put argc, and behind it argv.
unsafe extern "C" fn main(stack: *const usize) -> ! {
    // SAFETY: the kernel wrote argc there, and argc words of argv behind it.
    let (argc, argv) = unsafe { (*stack, stack.add(1)) };
    let mut result = 0_isize;
    // The number, and its arguments.
    let mut words = [0_usize; 6];
    let mut count = 0;
    for at in 1..=argc {
        // SAFETY: it is one of argv, or the null at its end.
        let word = unsafe { *argv.add(at) } as *const u8;
        // SAFETY: strings of argv end with a zero byte.
        if at == argc || unsafe { *word } == b',' {
            let [number, arguments @ ..] = words;
            // SAFETY: whoever gave the words answers for what they do to this process, which has nothing to lose.
            result = unsafe { syscall(number, arguments) };
            (words, count) = ([0; 6], 0);
        } else if count < words.len() {
            // SAFETY: as above.
            words[count] = unsafe { value(word, result) };
            count += 1;
        } else {
            exit(125);
        }
    }
    exit(if result < 0 { result.unsigned_abs() } else { 0 })
}

/// What a word means.
///
/// # Safety
///
/// It must end with a zero byte.
unsafe fn value(word: *const u8, result: isize) -> usize {
    // SAFETY: the caller says that there is an end.
    let byte = |at: usize| unsafe { *word.add(at) };
    if byte(0) == b'@' && byte(1) == 0 {
        return result as usize;
    }
    let is_negative = byte(0) == b'-';
    let mut at = usize::from(is_negative);
    let mut number = 0_usize;
    if byte(at) == 0 {
        return word as usize;
    }
    while byte(at) != 0 {
        if !byte(at).is_ascii_digit() {
            return word as usize;
        }
        number = number.wrapping_mul(10).wrapping_add(usize::from(byte(at) - b'0'));
        at += 1;
    }
    if is_negative { number.wrapping_neg() } else { number }
}
