//! System calls: where their arguments and results are, and how entry and exit find each other.
//!
//! Each system call has six programs, a pair for each way to attach: `fentry`/`fexit` and `kprobe`/`kretprobe` at the
//! kernel's wrapper `__<arch>_sys_<name>(const struct pt_regs *)`, and the pair of `syscalls:` tracepoints.
//! Everything that depends on the architecture is in this file.

use crate::counters;
use crate::counters::bump;
use crate::events::now;
use crate::kernel::{
    Access, Probed, Ptr, Typed, argument, config, for_current_task, typed_current_task,
};
use aya_ebpf::helpers::bpf_get_current_pid_tgid;
use aya_ebpf::helpers::generated::bpf_task_pt_regs;
use aya_ebpf::macros::map;
use aya_ebpf::maps::{Array, HashMap};
use aya_log_ebpf::warn;
use core::ffi::c_void;
use core::mem::offset_of;
use core::ops::Deref;
use terrarium_abi::namespace::NS_KINDS;
use terrarium_abi::{Loss, Probe};

/// Offset of the first argument's register in `struct pt_regs`.
const FIRST_ARGUMENT: u32 = if cfg!(bpf_target_arch = "aarch64") { 0 } else { 112 };

/// Arguments of a system call.
pub type Arguments = [u64; 6];

/// What the exit of a call needs to know of its entry.
#[derive(Clone, Copy)]
#[repr(C)]
pub struct Call {
    /// When it began, `CLOCK_MONOTONIC`, nanoseconds.
    pub start_ns: u64,
    /// Its arguments.
    pub arguments: Arguments,
    /// The namespaces concerned, as the flags of clone that make them.
    pub namespaces: u64,
    /// Inodes of the namespaces before.
    pub from: [u32; NS_KINDS],
    /// Inodes of the namespaces asked for, as far as the entry can tell.
    pub to: [u32; NS_KINDS],
}

/// Room for the call of one thread.
#[repr(C)]
struct Slot {
    /// How many threads hold it, or are about to find that another does.
    claims: u64,
    /// The thread that holds it, 0 when none does.
    thread: u64,
    /// How many threads that found it taken have their call in [`CALLS`]: mostly none, and then an exit whose entry was not
    /// remembered, as most openings of files, need not look there.
    elsewhere: u64,
    call: Call,
}

const SLOTS_LEN: u32 = 1024;

/// Calls in flight, each where the id of its thread says: the lookup of a place in an array costs next to nothing, where
/// putting an entry into a hash table, finding it and taking it out again are three calls of helpers.
#[map]
static SLOTS: Array<Slot> = Array::with_max_entries(SLOTS_LEN, 0);

/// Calls of threads whose slot another thread holds, by thread. System calls always return before their thread ends, so
/// none is left over, and a full map (that many threads inside such calls) is the only way to lose one.
#[map]
static CALLS: HashMap<u64, Call> = HashMap::with_max_entries(8192, 0);

/// The slot that `thread` may have.
#[inline(always)]
fn slot_of(thread: u64) -> Option<*mut Slot> {
    SLOTS.get_ptr_mut(thread as u32 & (SLOTS_LEN - 1))
}

/// The address of a field of a slot.
#[inline(always)]
fn field<T>(slot: *mut Slot, offset: usize) -> *mut T {
    slot.cast::<u8>().wrapping_add(offset).cast()
}

/// The thread that holds a slot.
#[inline(always)]
fn holder(slot: *mut Slot) -> u64 {
    // SAFETY: a live map value. Only a thread itself writes its own id there, so what it finds is not about to change.
    unsafe { field::<u64>(slot, offset_of!(Slot, thread)).read_volatile() }
}

/// Whether `thread` now holds its slot. Whoever adds the first claim holds it; that needs no more than an addition and the
/// order of what is done to one word, so that kernels before 5.12, which have no compare-and-exchange, do it too.
#[inline(always)]
fn claim(slot: *mut Slot, thread: u64) -> bool {
    // A call of this thread whose exit was never seen.
    if holder(slot) == thread {
        return true;
    }
    let claims = field(slot, offset_of!(Slot, claims));
    bump(claims, 1);
    // SAFETY: a live map value.
    if unsafe { claims.read_volatile() } == 1 {
        return true;
    }
    bump(claims, u64::MAX);
    false
}

/// A call that is remembered, its thread's own until it is forgotten.
struct Remembered {
    call: *const Call,
    slot: *mut Slot,
    /// Whether it lies in the slot.
    held: bool,
}

/// The call that a thread is in.
#[inline(always)]
fn remembered(thread: u64) -> Option<Remembered> {
    let slot = slot_of(thread)?;
    let held = holder(slot) == thread;
    if held {
        return Some(Remembered { call: field(slot, offset_of!(Slot, call)), slot, held });
    }
    // SAFETY: a live map value. The share of this thread in it is not about to change.
    if unsafe { field::<u64>(slot, offset_of!(Slot, elsewhere)).read_volatile() } == 0 {
        return None;
    }
    Some(Remembered { call: CALLS.get_ptr(thread)?, slot, held })
}

impl Remembered {
    #[inline(always)]
    fn forget(&self, thread: u64) {
        if self.held {
            // SAFETY: a live map value, which this thread holds until it takes its claim back.
            unsafe { field::<u64>(self.slot, offset_of!(Slot, thread)).write_volatile(0) };
            bump(field(self.slot, offset_of!(Slot, claims)), u64::MAX);
        } else {
            let _ = CALLS.remove(thread);
            bump(field(self.slot, offset_of!(Slot, elsewhere)), u64::MAX);
        }
    }
}

/// A call before anything is known of it. In the object's read-only data: a copy on the stack would be written at every entry.
static NO_CALL: Call =
    Call { start_ns: 0, arguments: [0; 6], namespaces: 0, from: [0; NS_KINDS], to: [0; NS_KINDS] };

impl Call {
    /// A call that begins now, to be remembered until [`Ended::now`]: whoever asks writes down what is wanted then. All else is what
    /// some call before has left.
    #[inline(always)]
    pub fn begins(probe: Probe) -> Option<&'static mut Self> {
        // SAFETY: a live map value, which this thread holds, made of integers.
        let call = unsafe { &mut *room(current_thread(), probe)? };
        call.start_ns = now();
        Some(call)
    }
}

/// A call that ends, forgotten when this is dropped.
pub struct Ended {
    call: &'static Call,
    remembered: Remembered,
    /// The thread in it.
    thread: u64,
    /// When it ended, `CLOCK_MONOTONIC`, nanoseconds.
    pub end_ns: u64,
}

impl Ended {
    /// The call that `thread`, which runs, is in, and which ends now. One that began before the programs were attached is not known.
    #[inline(always)]
    pub fn now(thread: u64) -> Option<Self> {
        let remembered = remembered(thread)?;
        // SAFETY: a live map value, which nothing else writes until it is forgotten.
        let call = unsafe { &*remembered.call };
        Some(Self { call, remembered, thread, end_ns: now() })
    }

    /// How long it took, nanoseconds.
    #[inline(always)]
    pub fn duration_ns(&self) -> u64 {
        self.end_ns.saturating_sub(self.start_ns)
    }
}

impl Deref for Ended {
    type Target = Call;

    #[inline(always)]
    fn deref(&self) -> &Call {
        self.call
    }
}

impl Drop for Ended {
    #[inline(always)]
    fn drop(&mut self) {
        self.remembered.forget(self.thread);
    }
}

/// The id of the thread that runs: by plain loads where the kernel allows them, which cost less than the helper.
#[inline(always)]
pub fn current_thread() -> u64 {
    for_current_task!(running_thread())
}

/// The same, where its `task` is known already.
#[inline(always)]
pub fn running_thread<A: Access>(task: Ptr) -> u64 {
    if A::PLAIN {
        u64::from(task.field::<A, u32>(config!(task_pid)))
    } else {
        bpf_get_current_pid_tgid() & 0xffff_ffff
    }
}

/// Room for the call of a thread.
#[inline(always)]
fn room(thread: u64, probe: Probe) -> Option<*mut Call> {
    let slot = slot_of(thread)?;
    if claim(slot, thread) {
        // SAFETY: a live map value, which this thread holds.
        unsafe { field::<u64>(slot, offset_of!(Slot, thread)).write(thread) };
        return Some(field(slot, offset_of!(Slot, call)));
    }
    if CALLS.insert(thread, &NO_CALL, 0).is_ok() {
        bump(field(slot, offset_of!(Slot, elsewhere)), 1);
        return CALLS.get_ptr_mut(thread);
    }
    counters::produced(probe);
    counters::lost(probe, Loss::MapFull);
    counters::count_lost();
    warn!(&(), "no room to remember a call of thread {}", thread);
    None
}

/// Whether a result says that the call will be made again (`ERESTART*` of linux/errno.h): it is not over yet.
#[inline(always)]
pub fn restarts(result: i64) -> bool {
    (-531..=-512).contains(&result)
}

/// The first argument of the system call that the running task is in, where the kernel tells its registers
/// (`config!(task_registers)`).
#[inline(always)]
pub fn first_argument() -> u64 {
    // SAFETY: the helper takes the task that runs, of the type that the verifier wants.
    let registers = unsafe { bpf_task_pt_regs(typed_current_task().0.cast_mut().cast()) };
    Ptr(registers as *const u8).field::<Typed, u64>(FIRST_ARGUMENT)
}

/// The arguments in the registers of a task that made a system call.
#[inline(always)]
pub fn arguments(registers: Ptr) -> Arguments {
    #[cfg(bpf_target_arch = "aarch64")]
    {
        // struct user_pt_regs: regs[0..6]
        registers.field::<Probed, Arguments>(0)
    }
    #[cfg(not(bpf_target_arch = "aarch64"))]
    {
        // struct pt_regs of x86_64: r10, r9, r8 at 56, and dx, si, di at 96
        let [r10, r9, r8] = registers.field::<Probed, [u64; 3]>(56);
        let [dx, si, di] = registers.field::<Probed, [u64; 3]>(96);
        [di, si, dx, r10, r8, r9]
    }
}

/// The result of a function with one argument at whose exit a fexit program sits: it stands after the arguments.
#[inline(always)]
pub fn wrapper_result(ctx: *mut c_void) -> i64 {
    argument(ctx, 1).cast_signed()
}

/// The first argument of a function at whose entry a kprobe sits.
#[inline(always)]
pub fn probe_argument(ctx: *mut c_void) -> Ptr {
    // SAFETY: the context of a kprobe is a struct pt_regs, in which this offset is the first argument's register.
    Ptr(unsafe { core::ptr::read(ctx.cast::<u8>().wrapping_add(FIRST_ARGUMENT as usize).cast()) })
}

/// The result of a function at whose exit a kretprobe sits.
#[inline(always)]
pub fn probe_result(ctx: *mut c_void) -> i64 {
    const OFFSET: usize = if cfg!(bpf_target_arch = "aarch64") { 0 } else { 80 };
    // SAFETY: as for [`probe_argument`]; this is the register of the result.
    unsafe { core::ptr::read(ctx.cast::<u8>().wrapping_add(OFFSET).cast()) }
}

/// The arguments in the record of a `syscalls:sys_enter_*` tracepoint: eight bytes common to all events, the
/// number of the call, then words.
#[inline(always)]
pub fn tracepoint_arguments<const COUNT: usize>(ctx: *mut c_void) -> Arguments {
    let mut arguments = [0; 6];
    let mut n = 0;
    // A record ends with the last argument of its call; the kernel refuses a program that reads past it.
    while n < COUNT {
        // SAFETY: the record of this call has that many arguments.
        arguments[n] = unsafe { core::ptr::read(ctx.cast::<u8>().wrapping_add(16 + 8 * n).cast()) };
        n += 1;
    }
    arguments
}

/// The result in the record of a `syscalls:sys_exit_*` tracepoint.
#[inline(always)]
pub fn tracepoint_result(ctx: *mut c_void) -> i64 {
    // SAFETY: after the common fields and the number of the call comes the result.
    unsafe { core::ptr::read(ctx.cast::<u8>().wrapping_add(16).cast()) }
}

/// Declares the six programs of a system call with `$count` arguments. Their names are what the loader looks for.
macro_rules! system_call {
    ($count:literal, $enter:expr, $exit:expr,
     $fentry:ident, $fexit:ident, $kprobe:ident, $kretprobe:ident, $at_enter:ident, $at_exit:ident) => {
        #[aya_ebpf::macros::fentry]
        fn $fentry(ctx: aya_ebpf::programs::FEntryContext) {
            let registers =
                $crate::kernel::pointer_argument(aya_ebpf::EbpfContext::as_ptr(&ctx), 0);
            ($enter)($crate::call::arguments(registers));
        }

        #[aya_ebpf::macros::fexit]
        fn $fexit(ctx: aya_ebpf::programs::FExitContext) {
            ($exit)($crate::call::wrapper_result(aya_ebpf::EbpfContext::as_ptr(&ctx)));
        }

        #[aya_ebpf::macros::kprobe]
        fn $kprobe(ctx: aya_ebpf::programs::ProbeContext) {
            let registers = $crate::call::probe_argument(aya_ebpf::EbpfContext::as_ptr(&ctx));
            ($enter)($crate::call::arguments(registers));
        }

        #[aya_ebpf::macros::kretprobe]
        fn $kretprobe(ctx: aya_ebpf::programs::RetProbeContext) {
            ($exit)($crate::call::probe_result(aya_ebpf::EbpfContext::as_ptr(&ctx)));
        }

        #[aya_ebpf::macros::tracepoint]
        fn $at_enter(ctx: aya_ebpf::programs::TracePointContext) {
            ($enter)($crate::call::tracepoint_arguments::<$count>(aya_ebpf::EbpfContext::as_ptr(
                &ctx,
            )));
        }

        #[aya_ebpf::macros::tracepoint]
        fn $at_exit(ctx: aya_ebpf::programs::TracePointContext) {
            ($exit)($crate::call::tracepoint_result(aya_ebpf::EbpfContext::as_ptr(&ctx)));
        }
    };
}
pub(crate) use system_call;
