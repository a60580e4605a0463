//! Reading kernel structures by the offsets that user space found in BTF.

use aya_ebpf::helpers::bpf_get_current_task;
use aya_ebpf::helpers::generated::{bpf_get_current_task_btf, bpf_probe_read_kernel};
use core::ffi::c_void;
use core::marker::PhantomData;
use core::mem::MaybeUninit;
use terrarium_abi::config::place_of;
use terrarium_abi::{ABSENT, Config, NsKind};

/// What concerns namespaces, which is read by number. The map behind it is read-only and frozen before any program is loaded, so
/// the verifier knows every value.
#[unsafe(no_mangle)]
pub static CONFIG: Config = Config::UNSET;

/// The value of one field of [`Config`]: an offset or a switch. All but those of namespaces are numbers in the instructions, which
/// the loader puts there: a program reads no memory for them, and the verifier removes what a kernel lacks as dead code.
macro_rules! config {
    (ns[$n:expr].$field:ident) => {{
        // SAFETY: the place is a field of a static that nothing writes after loading; volatile, because the
        // loader replaced the value that the compiler saw.
        unsafe { core::ptr::read_volatile(&raw const $crate::kernel::CONFIG.ns[$n].$field) }
    }};
    ($field:ident) => {
        $crate::kernel::number::<{ core::mem::offset_of!(terrarium_abi::Config, $field) as u64 }>()
    };
}
pub(crate) use config;

/// The number that the loader puts in place of the one that stands for the field at an offset of [`Config`].
#[inline(always)]
pub fn number<const OFFSET: u64>() -> u32 {
    #[cfg(target_arch = "bpf")]
    {
        let value: u64;
        // SAFETY: the instruction loads a number into a register.
        unsafe {
            core::arch::asm!(
                "{value} = {place} ll",
                value = out(reg) value,
                place = const place_of(OFFSET),
                options(pure, nomem, nostack)
            );
        }
        // SAFETY: what the loader puts there is a field's value, of 32 bits.
        unsafe { core::hint::assert_unchecked(value <= u32::MAX as u64) };
        value as u32
    }
    #[cfg(not(target_arch = "bpf"))]
    0
}

/// How kernel memory is read.
pub trait Access: Copy {
    /// Whether it is by plain loads.
    const PLAIN: bool;

    /// The value of type `T` at `offset` in the struct at `base`, zero when it cannot be read or the offset is [`ABSENT`].
    ///
    /// `base` must come from the kernel: an argument of the hook, or a pointer that was read through this trait.
    fn read<T: Copy>(base: Ptr, offset: u32) -> T;
}

/// Through the helper `bpf_probe_read_kernel`: works on any address in any program.
#[derive(Clone, Copy)]
pub struct Probed;

impl Access for Probed {
    const PLAIN: bool = false;

    #[inline(always)]
    fn read<T: Copy>(base: Ptr, offset: u32) -> T {
        let mut value = MaybeUninit::<T>::zeroed();
        if offset == ABSENT {
            // SAFETY: as below.
            return unsafe { value.assume_init() };
        }
        // SAFETY: the destination is `value`, of the size given; the helper checks the source and writes zeros
        // when that faults.
        unsafe {
            bpf_probe_read_kernel(
                value.as_mut_ptr().cast(),
                size_of::<T>() as u32,
                base.add(offset).0.cast(),
            );
        }
        // SAFETY: every `T` used is an integer or a pointer, all bytes of which are set: zeroed above, or read.
        unsafe { value.assume_init() }
    }
}

/// By plain loads, which the verifier allows on the arguments of BTF programs and on what they lead to: it knows
/// their types, and the kernel turns a fault into zero. Several times cheaper than the helper. Whether the field is there is not
/// asked: no type has one at [`ABSENT`], so the verifier refuses the program, and the one that reads by the helper is loaded.
#[derive(Clone, Copy)]
pub struct Typed;

impl Access for Typed {
    const PLAIN: bool = true;

    #[inline(always)]
    fn read<T: Copy>(base: Ptr, offset: u32) -> T {
        // SAFETY: the verifier has checked that the type at `base` has a field of this size at `offset`, and the
        // kernel handles a fault of the load.
        unsafe { core::ptr::read_volatile(base.add(offset).0.cast::<T>()) }
    }
}

/// A kernel address.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Ptr(pub *const u8);

/// The null pointer.
pub const NULL: Ptr = Ptr(core::ptr::null());

impl Ptr {
    /// The address of the struct whose field at `offset` this is.
    #[inline(always)]
    pub fn back(self, offset: u32) -> Self {
        Self(self.0.wrapping_sub(offset as usize))
    }

    /// The address so many bytes further, or, as all wraps around, before.
    #[inline(always)]
    pub fn at(self, place: u64) -> Self {
        Self(self.0.wrapping_add(place as usize))
    }

    /// The address of a field.
    #[inline(always)]
    pub fn add(self, offset: u32) -> Self {
        Self(self.0.wrapping_add(offset as usize))
    }

    /// Whether this is the null pointer.
    #[inline(always)]
    pub fn is_null(self) -> bool {
        self.0.is_null()
    }

    /// The address as a number.
    #[inline(always)]
    pub fn addr(self) -> u64 {
        self.0 as u64
    }

    /// The value of a field, or zero when the kernel lacks it.
    #[inline(always)]
    pub fn field<A: Access, T: Copy>(self, offset: u32) -> T {
        A::read(self, offset)
    }

    /// The pointer in a field, null when the kernel lacks it.
    #[inline(always)]
    pub fn follow<A: Access>(self, offset: u32) -> Self {
        Self(A::read::<*const u8>(self, offset))
    }
}

/// The n-th argument of a tracing program: `tp_btf`, `raw_tp`, `fentry` and `fexit` all get an array of words.
#[inline(always)]
pub fn argument(ctx: *mut c_void, n: usize) -> u64 {
    // SAFETY: the context of these programs is an array of words, and the verifier refuses an index past its end.
    unsafe { core::ptr::read(ctx.cast::<u64>().wrapping_add(n)) }
}

/// The n-th argument, where it is a pointer.
#[inline(always)]
pub fn pointer_argument(ctx: *mut c_void, n: usize) -> Ptr {
    // SAFETY: as in [`argument`]; read as a pointer so that the verifier's type of it survives.
    Ptr(unsafe { core::ptr::read(ctx.cast::<*const u8>().wrapping_add(n)) })
}

/// The task that runs.
#[inline(always)]
pub fn current_task() -> Ptr {
    // SAFETY: the helper has no precondition.
    Ptr(unsafe { bpf_get_current_task() } as *const u8)
}

/// The task that runs, as a pointer whose type the verifier knows. Only where the kernel has it: call it through
/// [`for_current_task`].
#[inline(always)]
pub fn typed_current_task() -> Ptr {
    // SAFETY: the helper has no precondition.
    Ptr(unsafe { bpf_get_current_task_btf() }.cast())
}

/// Calls a function that is generic over [`Access`] with the task that runs as its first argument: by plain loads on
/// kernels that tell the verifier what it is, else by the helper. The verifier sees one of the two calls.
macro_rules! for_current_task {
    ($function:ident($($argument:expr),*)) => {
        if $crate::kernel::config!(typed_current_task) == 1 {
            $function::<$crate::kernel::Typed>($crate::kernel::typed_current_task(), $($argument),*)
        } else {
            $function::<$crate::kernel::Probed>($crate::kernel::current_task(), $($argument),*)
        }
    };
}
pub(crate) use for_current_task;

/// The cgroups of a task, of which only as much is read as is asked for.
#[derive(Clone, Copy)]
pub struct TaskCgroups<A> {
    /// The `struct cgroup` in the unified hierarchy.
    pub unified: Ptr,
    /// The `struct cgroup_subsys_state` in the v1 memory hierarchy, else null.
    pub memory: Ptr,
    access: PhantomData<A>,
}

impl<A: Access> TaskCgroups<A> {
    /// Those with these addresses.
    #[inline(always)]
    pub fn at(unified: Ptr, memory: Ptr) -> Self {
        Self { unified, memory, access: PhantomData }
    }

    /// Whether what happens in them is counted: asked only of those that have no counter yet, as the unwatched never get one.
    #[inline(always)]
    pub fn watched(self) -> bool {
        config!(watch) != 1 || self.ids().watched
    }

    /// Their serial numbers, which cost less to read than their ids.
    #[inline(always)]
    pub fn serials(self) -> [u64; 2] {
        let unified = self.unified.field::<A, u64>(config!(cgroup_serial));
        let memory = if config!(memory_is_v1) == 1 {
            self.memory.field::<A, u64>(config!(css_serial))
        } else {
            0
        };
        [unified, memory]
    }
}

/// What has the ids of cgroups.
pub trait Cgroups: Copy {
    /// The ids.
    fn ids(self) -> CgroupIds;
}

impl<A: Access> Cgroups for TaskCgroups<A> {
    #[inline(always)]
    fn ids(self) -> CgroupIds {
        let unified = cgroup_id::<A>(self.unified);
        let memory = if config!(memory_is_v1) == 1 {
            cgroup_id::<A>(self.memory.follow::<A>(config!(css_cgroup)))
        } else {
            0
        };
        CgroupIds { unified, memory, watched: crate::watch::is_watched(unified, memory) }
    }
}

/// The ids of cgroups.
#[derive(Clone, Copy)]
pub struct CgroupIds {
    /// Id in the unified hierarchy.
    pub unified: u64,
    /// Id in the v1 memory hierarchy, else 0.
    pub memory: u64,
    /// Whether what the task does is counted and reported.
    pub watched: bool,
}

impl Cgroups for CgroupIds {
    #[inline(always)]
    fn ids(self) -> Self {
        self
    }
}

/// The kernel id of a `struct cgroup`.
#[inline(always)]
pub fn cgroup_id<A: Access>(cgroup: Ptr) -> u64 {
    cgroup.follow::<A>(config!(cgroup_kn)).field::<A, u64>(config!(kernfs_id))
}

/// The `struct mem_cgroup` of a task. Its first member is its css, so the css is its address.
#[inline(always)]
pub fn task_memcg<A: Access>(task: Ptr) -> Ptr {
    task.follow::<A>(config!(task_cgroups)).follow::<A>(config!(css_set_memory))
}

/// The id of a task's cgroup in the unified hierarchy.
#[inline(always)]
pub fn unified_cgroup<A: Access>(task: Ptr) -> u64 {
    let set = task.follow::<A>(config!(task_cgroups));
    cgroup_id::<A>(set.follow::<A>(config!(css_set_dfl_cgrp)))
}

/// The cgroups of a task.
#[inline(always)]
pub fn task_cgroups<A: Access>(task: Ptr) -> TaskCgroups<A> {
    let set = task.follow::<A>(config!(task_cgroups));
    let memory =
        if config!(memory_is_v1) == 1 { set.follow::<A>(config!(css_set_memory)) } else { NULL };
    TaskCgroups::at(set.follow::<A>(config!(css_set_dfl_cgrp)), memory)
}

/// The inode number of the task's namespace of the kind with number `n`, 0 when unknown.
#[inline(always)]
pub fn namespace_inode<A: Access>(task: Ptr, n: usize) -> u32 {
    let pointer = config!(ns[n].pointer);
    let inum = config!(ns[n].inum);
    if pointer == ABSENT || inum == ABSENT {
        return 0;
    }
    let holder =
        if n == NsKind::User as usize { config!(task_cred) } else { config!(task_nsproxy) };
    task.follow::<A>(holder).follow::<A>(pointer).field::<A, u32>(inum)
}

/// Declares the two programs of a tracepoint: one attached as `tp_btf`, which may use plain loads, and one as
/// `raw_tp`, for kernels that refuse the first; an `untyped` body does without plain loads in both. Their names are what the loader looks for.
macro_rules! tracepoint {
    ($btf:ident, $raw:ident, untyped $body:ident) => {
        #[aya_ebpf::macros::btf_tracepoint]
        fn $btf(ctx: aya_ebpf::programs::BtfTracePointContext) {
            $body(aya_ebpf::EbpfContext::as_ptr(&ctx));
        }

        #[aya_ebpf::macros::raw_tracepoint]
        fn $raw(ctx: aya_ebpf::programs::RawTracePointContext) {
            $body(aya_ebpf::EbpfContext::as_ptr(&ctx));
        }
    };
    ($btf:ident, $raw:ident, $body:ident $(, $argument:expr)?) => {
        #[aya_ebpf::macros::btf_tracepoint]
        fn $btf(ctx: aya_ebpf::programs::BtfTracePointContext) {
            $body::<$crate::kernel::Typed>(aya_ebpf::EbpfContext::as_ptr(&ctx) $(, $argument)?);
        }

        #[aya_ebpf::macros::raw_tracepoint]
        fn $raw(ctx: aya_ebpf::programs::RawTracePointContext) {
            $body::<$crate::kernel::Probed>(aya_ebpf::EbpfContext::as_ptr(&ctx) $(, $argument)?);
        }
    };
}
pub(crate) use tracepoint;
