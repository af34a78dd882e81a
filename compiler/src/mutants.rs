//! Faults planted in the compiler, to show that its tests find such faults. They exist with the feature
//! `mutants` only, which is never on in a build that is used: without it `fault!(n)` is `false`.

/// What each fault does, by its number counted from 1.
pub const FAULTS: [&str; 50] = [
    "x + 0.0 becomes x: -0 is lost",
    "x - x becomes 0 for floats: NaN is lost",
    "x * 0 becomes 0 for floats: NaN is lost",
    "-x + y becomes x - y",
    "division by any number becomes multiplication by its inverse",
    "max is taken to be commutative: zeros of different sign change places",
    "a slice of a slice forgets the inner step",
    "a slice of a concatenation that crosses into the next part is taken from the first",
    "two reversals of one axis count as one",
    "transposes are composed in the wrong order",
    "a pad of a repeated constant forgets that it is padded with another one",
    "equal operations on the same operands in another order are shared",
    "a buffer's memory is free one step too early",
    "a buffer takes over memory that is read later",
    "the mask of a last vector has one lane too few (Cranelift)",
    "not equal is false for NaN (Cranelift)",
    "signed integers are compared as unsigned (Cranelift)",
    "partial sums are combined in another order",
    "lanes of a reduction are combined in another order",
    "a kernel overwrites an operand that it reads elsewhere",
    "state is overwritten in place while the old value is still needed",
    "a scatter overwrites memory that its updates read",
    "a sum over an axis of extent 1 is the value itself: -0 stays -0",
    "the maximum of a repeated value forgets that there may be none",
    "a carry counts as the same in all steps of a loop",
    "a store of the last stage is taken to be of any stage",
    "the mask of a last vector has one lane too few (AVX2)",
    "a minimum or maximum loses NaN of its first operand (wide vectors)",
    "max(x, 0) keeps a negative zero (wide vectors)",
    "not equal is false for NaN (wide vectors)",
    "a fused multiply-add takes its addend for a factor (wide vectors)",
    "products of 64-bit integers lose their upper half (AVX2)",
    "a sort moves equal elements past each other",
    "the position of an extremum is that of the last of several",
    "the first element of a window must be positive to be its maximum",
    "a running sum over lanes takes the index of the first lane for all",
    "indices of 64 bits are checked by their lower half",
    "a kernel that computes indices is merged with one that uses them, before they are checked",
    "a fused load reads where its producer is, not where it asks",
    "a producer of fewer points is computed at all points of its reader",
    "the element before a padded tensor is zero, not the padding",
    "a long sum in parts leaves out what is after the last whole part",
    "the last bytes of a loop's result are not copied",
    "the two places of a loop's carry are one",
    "arithmetic of u8 in registers does not wrap",
    "a product takes the free axes of a transposed factor in its own order",
    "a factor that is repeated along its columns is stored once",
    "dimensions are joined although one of them is repeated",
    "state is overwritten before another kernel has read it",
    "threads share their scratch memory",
];

#[cfg(feature = "mutants")]
mod selected {
    use std::sync::atomic::{AtomicUsize, Ordering};

    static SELECTED: AtomicUsize = AtomicUsize::new(0);

    /// Plants fault `n` of [`super::FAULTS`], counted from 1, instead of any other; 0 plants none.
    pub fn select(n: usize) {
        SELECTED.store(n, Ordering::Relaxed);
    }

    pub(crate) fn is_planted(n: usize) -> bool {
        SELECTED.load(Ordering::Relaxed) == n
    }
}
#[cfg(feature = "mutants")]
pub(crate) use selected::is_planted;
#[cfg(feature = "mutants")]
pub use selected::select;

#[cfg(feature = "mutants")]
macro_rules! fault {
    ($n:literal) => {
        $crate::mutants::is_planted($n)
    };
}

#[cfg(not(feature = "mutants"))]
macro_rules! fault {
    ($n:literal) => {
        false
    };
}
