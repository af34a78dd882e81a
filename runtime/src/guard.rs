//! Watching for values that are not finite: after each step the floats that it stored are looked at, by the
//! threads of the pool together, each most likely at what it wrote itself. The run ends with the first step
//! that stored a NaN or an infinity.

use crate::abi::Context;
use crate::pool::ThreadPool;
use graphc_ir::DType;
use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};

/// Bytes that one thread looks at without asking others for help.
const ALONE: usize = 32 << 10;
/// Bytes that a thread looks at between checks whether others have found something.
const BLOCK: usize = 16 << 10;

/// Where memory begins that an address is relative to.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum MemoryBase {
    /// [`Context::arena`], at this byte.
    Arena(usize),
    /// [`Context::state`], at this byte.
    State(usize),
    /// [`Context::constants`], at this byte.
    Constants(usize),
    /// The input of this number.
    Input(usize),
    /// The output of this number.
    Output(usize),
}

/// A piece of memory, with its length in bytes.
pub type MemoryRange = (MemoryBase, usize);

/// What the guard needs to know of a step.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct GuardedStep {
    /// The floats that it stores, dense.
    pub results: Vec<(MemoryRange, DType)>,
    /// The memory that explains what happened: what is still there of what the step read, and what it wrote.
    pub memory: Vec<MemoryRange>,
}

/// Explains, from the contents of [`GuardedStep::memory`], what a step did.
pub type Explain = Box<dyn Fn(usize, &[Vec<u8>]) -> NonFinite + Send + Sync>;

/// The guard of a function.
pub struct Guard {
    /// By number of the step; `None` for what stores no floats.
    pub steps: Vec<Option<GuardedStep>>,
    /// Explains a step that stored a value which is not finite.
    pub explain: Explain,
}

impl fmt::Debug for Guard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Guard").field("steps", &self.steps).finish_non_exhaustive()
    }
}

/// Where a value came from that is not finite.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct NonFinite {
    /// The kernel that stored it.
    pub kernel: String,
    /// What is known of where it came from, in words.
    pub message: String,
    /// The first node that made one, where it could be found: name, operation, type, scope and where it was
    /// declared.
    pub node: Option<String>,
    /// True if an operand held such a value before: an input, or state.
    pub from_outside: bool,
}

impl fmt::Display for NonFinite {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "kernel {}: {}", self.kernel, self.message)
    }
}

/// Whether a step has stored a value that is not finite.
///
/// # Safety
/// `cx` is the context of the function that the step belongs to, whose pieces are done; the results lie in what
/// they are relative to, and nobody writes to them during the call.
pub(crate) unsafe fn found(cx: *const Context, step: &GuardedStep, pool: &ThreadPool) -> bool {
    step.results.iter().any(|&(range, dtype)| {
        // SAFETY: by the contract of this function.
        let bytes = unsafe { memory(cx, range) };
        let (any, blocks) = (AtomicBool::new(false), bytes.len().div_ceil(BLOCK));
        let look = |from: u64, to: u64, _worker: usize| {
            for block in bytes.chunks(BLOCK).take(to as usize).skip(from as usize) {
                if any.load(Ordering::Relaxed) || !all_finite(block, dtype) {
                    return any.store(true, Ordering::Relaxed);
                }
            }
        };
        if bytes.len() <= ALONE {
            look(0, blocks as u64, 0)
        } else {
            pool.run(blocks as u64, look)
        }
        any.into_inner()
    })
}

/// Whether all elements of `bytes` are finite: the magnitude of each, as an integer, is then below that of
/// infinity. With signed integers that is the sign of a difference, which every machine has on vectors.
fn all_finite(bytes: &[u8], dtype: DType) -> bool {
    /// As compiled for wider vectors.
    #[cfg(target_arch = "x86_64")]
    #[target_feature(enable = "avx2")]
    fn wide(bytes: &[u8], dtype: DType) -> bool {
        look_through(bytes, dtype)
    }
    #[cfg(target_arch = "x86_64")]
    if is_x86_feature_detected!("avx2") {
        // SAFETY: the CPU has the instructions, as was just checked.
        return unsafe { wide(bytes, dtype) };
    }
    look_through(bytes, dtype)
}

#[inline(always)]
fn look_through(bytes: &[u8], dtype: DType) -> bool {
    macro_rules! below {
        ($bits:ty, $infinity:expr) => {{
            const SIZE: usize = size_of::<$bits>();
            const LARGEST: $bits = $infinity - 1;
            let room = |e: &[u8; SIZE]| LARGEST - (<$bits>::from_ne_bytes(*e) & <$bits>::MAX);
            bytes.as_chunks::<SIZE>().0.iter().map(room).fold(0, |all, room| all | room) >= 0
        }};
    }
    match dtype {
        DType::F32 => below!(i32, f32::INFINITY.to_bits() as i32),
        DType::F64 => below!(i64, f64::INFINITY.to_bits() as i64),
        DType::F16 => below!(i16, 0x7c00),
        DType::BF16 => below!(i16, 0x7f80),
        DType::I32 | DType::I64 | DType::Bool | DType::U8 => true,
    }
}

/// The bytes of a range.
///
/// # Safety
/// `cx` is a context in which the range lies; nobody writes to it while the slice is used.
unsafe fn memory<'a>(cx: *const Context, (base, len): MemoryRange) -> &'a [u8] {
    // SAFETY: by the contract of this function; memory that functions work on is initialized, arenas as zeros.
    unsafe {
        let cx = &*cx;
        let from: *const u8 = match base {
            MemoryBase::Arena(at) => cx.arena.add(at),
            MemoryBase::State(at) => cx.state.add(at),
            MemoryBase::Constants(at) => cx.constants.add(at),
            MemoryBase::Input(i) => *cx.inputs.add(i),
            MemoryBase::Output(i) => *cx.outputs.add(i),
        };
        std::slice::from_raw_parts(from, len)
    }
}

/// The contents of a step's memory.
///
/// # Safety
/// As [`found`], of [`GuardedStep::memory`].
pub(crate) unsafe fn contents(cx: *const Context, step: &GuardedStep) -> Vec<Vec<u8>> {
    // SAFETY: by the contract of this function.
    step.memory.iter().map(|&range| unsafe { memory(cx, range) }.to_vec()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finite_values_are_told_from_others() {
        fn check<const N: usize>(dtype: DType, finite: &[[u8; N]], others: &[[u8; N]]) {
            let mut all = finite.repeat(50);
            assert!(all_finite(all.as_flattened(), dtype), "{dtype}");
            for other in others {
                all[77] = *other;
                assert!(!all_finite(all.as_flattened(), dtype), "{dtype} {other:?}");
            }
        }
        let f32s = |v: &[f32]| v.iter().map(|v| v.to_ne_bytes()).collect::<Vec<_>>();
        let others = f32s(&[f32::NAN, -f32::NAN, f32::INFINITY, f32::NEG_INFINITY]);
        check(DType::F32, &f32s(&[0.0, -0.0, f32::MAX, f32::MIN, f32::from_bits(1)]), &others);
        let f64s = |v: &[f64]| v.iter().map(|v| v.to_ne_bytes()).collect::<Vec<_>>();
        check(DType::F64, &f64s(&[0.0, f64::MAX, f64::MIN]), &f64s(&[f64::NAN, f64::NEG_INFINITY]));
        let bits = |v: &[u16]| v.iter().map(|v| v.to_ne_bytes()).collect::<Vec<_>>();
        check(DType::F16, &bits(&[0, 0x8000, 0x7bff, 0xfbff]), &bits(&[0x7c00, 0xfc00, 0x7e00, 0xffff]));
        check(DType::BF16, &bits(&[0, 0x7f7f, 0xff7f]), &bits(&[0x7f80, 0xff80, 0x7fc0]));
    }
}
