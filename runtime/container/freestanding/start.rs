//! How a program without any library begins, ends and calls the kernel.

use core::arch::{asm, global_asm};

// The kernel leaves argc, argv and envp on the stack (`execve(2)`); the stack must be aligned to 16 bytes at a call.
#[cfg(target_arch = "x86_64")]
global_asm!(".globl _start", "_start:", "xor ebp, ebp", "mov rdi, rsp", "and rsp, -16", "call {main}", main = sym crate::main);
#[cfg(target_arch = "aarch64")]
global_asm!(".globl _start", "_start:", "mov x29, #0", "mov x0, sp", "bl {main}", main = sym crate::main);

#[cfg(target_arch = "x86_64")]
const EXIT_GROUP: usize = 231;
#[cfg(target_arch = "aarch64")]
const EXIT_GROUP: usize = 94;

/// Makes the system call `n`.
///
/// # Safety
///
/// What the kernel does with the arguments must be sound: pointers among them must be valid for it.
#[cfg(target_arch = "x86_64")]
pub unsafe fn syscall(n: usize, args: [usize; 5]) -> isize {
    let result;
    // SAFETY: the registers are those of the kernel's calling convention (`syscall(2)`), and the caller answers for the rest.
    unsafe {
        asm!(
            "syscall", inlateout("rax") n as isize => result, in("rdi") args[0], in("rsi") args[1], in("rdx") args[2],
            in("r10") args[3], in("r8") args[4], lateout("rcx") _, lateout("r11") _, options(nostack)
        );
    }
    result
}

/// Makes the system call `n`.
///
/// # Safety
///
/// What the kernel does with the arguments must be sound: pointers among them must be valid for it.
#[cfg(target_arch = "aarch64")]
pub unsafe fn syscall(n: usize, args: [usize; 5]) -> isize {
    let result;
    // SAFETY: the registers are those of the kernel's calling convention (`syscall(2)`), and the caller answers for the rest.
    unsafe {
        asm!(
            "svc 0", in("x8") n, inlateout("x0") args[0] as isize => result, in("x1") args[1], in("x2") args[2],
            in("x3") args[3], in("x4") args[4], options(nostack)
        );
    }
    result
}

/// A system call none of whose arguments the kernel takes for a pointer.
pub fn plain(n: usize, a: usize, b: usize) -> isize {
    // SAFETY: whatever the kernel does with numbers is sound for the memory of this process.
    unsafe { syscall(n, [a, b, 0, 0, 0]) }
}

pub fn exit(code: usize) -> ! {
    loop {
        plain(EXIT_GROUP, code, 0);
    }
}

#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    exit(125)
}
