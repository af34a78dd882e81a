//! The loop structure of an operation, as data. The compiler lowers patterns, not operations: a
//! new elementwise, reducing or data-moving operation changes nothing there.
//!
//! Index expressions of a pattern are over variables numbered as each variant says.

use crate::index::{Access, IndexCx, IndexExpr};
use crate::scalar::{Scalar, ScalarFn, ScalarOp};
use crate::types::DType;

/// How the elements of the result derive from the operands.
#[derive(Clone, Debug)]
pub enum Pattern {
    /// Given from outside or stored: inputs, state, constants, further results of an operation.
    Leaf,
    /// Runs regions.
    Region,
    /// `out[i] = body(operand0[i], operand1[i], ...)`; all shapes are equal.
    Elementwise(ScalarFn),
    /// `out[i] = body(index(i) as i64, operand0, operand1, ...)`; operands are scalars.
    Generate {
        /// Over variables `0..rank(out)`.
        index: IndexExpr,
        /// Its first argument is an `I64`.
        body: ScalarFn,
    },
    /// Data movement: each result element is the first access whose guards hold; the last access
    /// has none. Over variables `0..rank(out)`.
    Injective(Vec<Access>),
    /// Each result element is the element of operand 0 at its place; over variables `0..rank(out)`.
    /// The indices are checked, also where the result is empty.
    Gather(Indexing),
    /// Operand 0, changed at the place of each element of operand `updates`, one after the other in
    /// row-major order, to `combine` of what is there and the element. Over one variable per
    /// dimension of the updates. The indices are checked, also where there are no updates.
    Scatter {
        /// The place of each update.
        places: Indexing,
        /// Which operand the updates are.
        updates: usize,
        /// How an update changes an element.
        combine: Combine,
    },
    /// Fails with an index error unless `0 <= operand0[i] < bound`; else the identity.
    CheckIndex {
        /// Exclusive upper bound.
        bound: usize,
    },
    /// A reduction, in the order that [`Reduce`] states.
    Reduce(Reduce),
    /// Position of the first NaN, else of the first greatest (least) element, along one axis.
    ArgReduce {
        /// The axis; removed from the result.
        axis: usize,
        /// Greatest or least.
        largest: bool,
    },
    /// Positions along an axis in the order of their elements, equal ones as they are; NaN is greatest.
    ArgSort {
        /// The axis.
        axis: usize,
        /// Greatest first.
        descending: bool,
    },
    /// Along an axis, `out[i] = op(op(identity, x[0]), .., x[i])`, one chain in order.
    Cumulative {
        /// What is combined.
        kind: ReduceKind,
        /// The axis.
        axis: usize,
        /// From the last element to the first.
        reverse: bool,
        /// Without the element itself.
        exclusive: bool,
    },
    /// Sums of products. Several parts write disjoint parts of the result, together all of it:
    /// none if the result is empty.
    Contraction(Vec<Contraction>),
    /// For each window of operand 0 (see [`Window`]), in row-major order, adds the element of
    /// operand 1 at the window's place to the result at the window's first maximum (the first NaN
    /// if it has one); the result starts as zeros. A window of padding alone adds nothing.
    SelectAndScatter(Window),
    /// For each window of operand 0 (see [`Window`]) the element of operand 1 at the window's first
    /// maximum (the first NaN if it has one); 0 for a window of padding alone.
    SelectAndGather(Window),
}

/// Places in operand 0 that depend on values of integer operands: on each axis the position is
/// `window[axis]` plus the elements `at` of the operands that index the axis.
#[derive(Clone, Debug)]
pub struct Indexing {
    /// The index operands, all of one shape.
    pub starts: Vec<Start>,
    /// Which element of each index operand.
    pub at: Vec<IndexExpr>,
    /// What is added to it, per axis of operand 0.
    pub window: Vec<IndexExpr>,
}

/// An operand whose elements are positions on an axis of operand 0.
#[derive(Clone, Debug)]
pub struct Start {
    /// Which operand.
    pub operand: usize,
    /// The axis that it indexes; each is indexed once at most.
    pub axis: usize,
    /// Exclusive upper bound of its elements. Positions are in range wherever they are below it.
    pub bound: usize,
}

/// How an update changes an element.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Combine {
    /// The update takes its place.
    Assign,
    /// Sum.
    Add,
    /// Product.
    Mul,
    /// NaN-propagating maximum.
    Max,
    /// NaN-propagating minimum.
    Min,
}

impl Combine {
    /// All of them.
    pub const ALL: [Self; 5] = [Self::Assign, Self::Add, Self::Mul, Self::Max, Self::Min];

    /// Name in the text form.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Assign => "assign",
            Self::Add => "add",
            Self::Mul => "mul",
            Self::Max => "max",
            Self::Min => "min",
        }
    }

    /// The instruction that combines the old value and the update, in this order; none for `Assign`.
    pub const fn op(self) -> Option<ScalarOp> {
        match self {
            Self::Assign => None,
            Self::Add => Some(ScalarOp::Add),
            Self::Mul => Some(ScalarOp::Mul),
            Self::Max => Some(ScalarOp::Max),
            Self::Min => Some(ScalarOp::Min),
        }
    }
}

/// What a reduction computes, and its identity: 0, 1, -infinity or MIN, +infinity or MAX.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum ReduceKind {
    /// Sum.
    Sum,
    /// Product.
    Prod,
    /// NaN-propagating maximum.
    Max,
    /// NaN-propagating minimum.
    Min,
}

impl ReduceKind {
    /// What a reduction of nothing gives; it saturates to the ends of integer types.
    pub fn identity(self, dtype: DType) -> Scalar {
        let value = match self {
            Self::Sum => 0.0,
            Self::Prod => 1.0,
            Self::Max => f64::NEG_INFINITY,
            Self::Min => f64::INFINITY,
        };
        Scalar::from_f64(dtype, value)
    }

    /// The instruction that combines two values.
    pub const fn op(self) -> ScalarOp {
        match self {
            Self::Sum => ScalarOp::Add,
            Self::Prod => ScalarOp::Mul,
            Self::Max => ScalarOp::Max,
            Self::Min => ScalarOp::Min,
        }
    }
}

/// A reduction over an index space of `extents`, taken as one sequence `r` in row-major order.
///
/// The order is fixed: blocks of [`Reduce::BLOCK`] consecutive elements; within a block 16 lanes,
/// lane `j` combining elements `j, j+16, ...` from the identity on as `acc = op(acc, x)`; lanes
/// folded `l[j] = op(l[j], l[j+h])` for `h` = 8, 4, 2, 1; blocks combined pairwise, neighbours
/// first: `b[i] = op(b[i], b[i+s])` for `s` = 1, 2, 4, ... and `i` a multiple of `2s`. An element
/// whose guards fail is skipped. An empty space gives the identity.
#[derive(Clone, Debug)]
pub struct Reduce {
    /// What is computed.
    pub kind: ReduceKind,
    /// Extents of the reduced index space.
    pub extents: Vec<usize>,
    /// Which element of operand 0, over variables `0..rank(out)` for the result index, then one per
    /// reduced dimension.
    pub access: Access,
}

impl Reduce {
    /// Elements per block.
    pub const BLOCK: usize = 1024;
    /// Virtual lanes.
    pub const LANES: usize = 16;
}

/// `out[b, m, n] = sum over k of lhs[b, m, k] * rhs[b, n, k]`, each result element by one chain of
/// fused multiply-adds from +0 over all `k` in row-major order.
///
/// Every index space may have any number of dimensions. Variables are numbered `batch`, `m`, `n`,
/// `k`, each dimension in order. An element whose guards fail counts as zero (it is multiplied).
#[derive(Clone, Debug)]
pub struct Contraction {
    /// Extents of the batch dimensions.
    pub batch: Vec<usize>,
    /// Extents of the dimensions of the left operand alone.
    pub m: Vec<usize>,
    /// Extents of the dimensions of the right operand alone.
    pub n: Vec<usize>,
    /// Extents of the summed dimensions.
    pub k: Vec<usize>,
    /// Element of operand 0.
    pub lhs: Access,
    /// Element of operand 1.
    pub rhs: Access,
    /// Element of the result, over `batch`, `m` and `n`.
    pub out: Vec<IndexExpr>,
}

impl Contraction {
    /// Ranges of its variables.
    pub fn index_cx(&self) -> IndexCx {
        let extents = [&self.batch, &self.m, &self.n, &self.k].into_iter().flatten().map(|&d| d as i64);
        IndexCx { extents: extents.collect(), dynamic: Vec::new() }
    }
}

/// Sliding windows over a tensor, one entry per axis of it. Window `o` covers positions
/// `o * stride + w * dilation - padding.0` for `w` in `0..size`; those outside the tensor are
/// skipped.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Window {
    /// Extent of the window.
    pub size: Vec<usize>,
    /// Step between windows.
    pub strides: Vec<usize>,
    /// Positions added before and after each axis.
    pub padding: Vec<(i64, i64)>,
    /// Step within a window.
    pub dilation: Vec<usize>,
}
