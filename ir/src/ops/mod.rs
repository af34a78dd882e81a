//! Operations: the trait [`OpDef`], the list of all of them, and one file for each.
//!
//! To add one: write its file and add one line to `ops!` below (see `docs/adding-an-op.md`).

use crate::attr::{AttrError, AttrMap, AttrValue, Attrs};
use crate::builder::Tensor;
use crate::error::{EvalError, NoBatch, NoGradient, TypeError};
use crate::literal::Literal;
use crate::module::Bindings;
use crate::pattern::Pattern;
use crate::region::Region;
use crate::types::{DType, Dim, Shape, TensorType};

#[macro_use]
mod rules;
mod places;
mod window;

/// Type with extents as numbers: what evaluation and code generation see.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct StaticType {
    /// Element type.
    pub dtype: DType,
    /// Extents.
    pub dims: Vec<usize>,
}

impl StaticType {
    /// The type with its extents as numbers, unless a dimension is still named.
    pub fn of(ty: &TensorType) -> Option<Self> {
        Some(Self { dtype: ty.dtype, dims: ty.shape.as_static()? })
    }

    /// Number of elements. In range for every verified type.
    pub fn len(&self) -> usize {
        self.dims.iter().product()
    }

    /// True if an extent is 0.
    pub fn is_empty(&self) -> bool {
        self.dims.contains(&0)
    }
}

/// What a rule of differentiation sees: the operands and the result of the node.
pub struct VjpCx<'a, 'f> {
    /// Operands in order.
    pub operands: &'a [Tensor<'f>],
    /// The node's own result.
    pub result: Tensor<'f>,
}

/// Cotangents of the operands in order; `None` is an exact zero (or an operand that is not a float).
pub type Vjp<'f> = Result<Vec<Option<Tensor<'f>>>, NoGradient>;

/// Tangent of the result; `None` is an exact zero.
pub type Jvp<'f> = Result<Option<Tensor<'f>>, NoGradient>;

/// What a batching rule sees: the operands, of which some have the batch as their axis 0.
pub struct BatchCx<'a, 'f> {
    /// Operands in order. A mapped one has the batch in front of its own axes.
    pub operands: &'a [Tensor<'f>],
    /// Which operands are mapped: at least one.
    pub mapped: &'a [bool],
    /// Extent of the batch.
    pub size: &'a Dim,
}

impl<'f> BatchCx<'_, 'f> {
    /// Operand `i` with the batch as its axis 0: repeated along it if it is not mapped.
    pub fn repeated(&self, i: usize) -> Tensor<'f> {
        let x = self.operands[i];
        if self.mapped[i] {
            return x;
        }
        let axes: Vec<usize> = (1..=x.rank()).collect();
        x.broadcast(self.with_batch(&x.shape()), &axes)
    }

    /// Shape of operand `i` without the batch.
    pub fn shape(&self, i: usize) -> Shape {
        let shape = self.operands[i].shape();
        shape.iter().skip(usize::from(self.mapped[i])).collect()
    }

    /// `shape` with the batch in front.
    pub fn with_batch(&self, shape: &Shape) -> Shape {
        std::iter::once(self.size).chain(shape.iter()).collect()
    }

    /// `op` on all operands, each with the batch as its axis 0.
    pub fn push(&self, op: impl Into<Op>) -> Tensor<'f> {
        let operands: Vec<Tensor<'f>> = (0..self.operands.len()).map(|i| self.repeated(i)).collect();
        self.operands[0].builder().push(op, &operands)
    }
}

/// Result of a batched node, with the batch as its axis 0.
pub type Batched<'f> = Result<Tensor<'f>, NoBatch>;

/// Generator of an operation's samples.
#[cfg(any(test, feature = "testing"))]
pub type Samples = Option<proptest::strategy::BoxedStrategy<crate::testing::Sample>>;

/// An operation: attributes (the struct's fields), shape rule, derivatives, meaning, loop structure.
pub trait OpDef: Attrs + Into<Op> + Sized {
    /// The mnemonic of the text form.
    const NAME: &'static str;

    /// Shape and dtype rule. Dimensions may be named: rules compare them by name and ask for
    /// numbers only where they need them.
    fn infer(&self, operands: &[TensorType]) -> Result<TensorType, TypeError>;

    /// Types of all results, for an operation that may have several; `infer` gives the first. The
    /// others are reached by `result` nodes.
    fn results(&self, operands: &[TensorType]) -> Result<Vec<TensorType>, TypeError> {
        self.infer(operands).map(|ty| vec![ty])
    }

    /// Gradient rule: from the cotangent of the result to those of the operands. Called only if
    /// the result is of float type.
    fn vjp<'f>(&self, cx: &VjpCx<'_, 'f>, ct: Tensor<'f>) -> Vjp<'f>;

    /// [`OpDef::vjp`] of an operation with several results: a cotangent for each, `None` where it is
    /// zero or the result not a float; not all are `None`.
    fn vjp_of_results<'f>(&self, cx: &VjpCx<'_, 'f>, cts: &[Option<Tensor<'f>>]) -> Vjp<'f> {
        self.vjp(cx, cts[0].expect("the only result has a cotangent"))
    }

    /// Forward rule: from the tangents of the operands, in order, to that of the result. `None` is
    /// an exact zero (or an operand that is not a float). Called only if the result is of float type
    /// and at least one tangent is given.
    fn jvp<'f>(&self, cx: &VjpCx<'_, 'f>, tangents: &[Option<Tensor<'f>>]) -> Jvp<'f>;

    /// Batching rule: the operation for each example of a batch. It gives every example the bits
    /// that it has alone. Called only if at least one operand is mapped.
    fn batch<'f>(&self, cx: &BatchCx<'_, 'f>) -> Batched<'f> {
        let _ = cx;
        Err(NoBatch { op: Self::NAME, why: "" })
    }

    /// [`OpDef::batch`] of an operation with several results, all of which are mapped.
    fn batch_of_results<'f>(&self, cx: &BatchCx<'_, 'f>) -> Result<Vec<Tensor<'f>>, NoBatch> {
        self.batch(cx).map(|t| vec![t])
    }

    /// [`OpDef::jvp`] of an operation with several results: the tangents of all of them.
    fn jvp_of_results<'f>(
        &self,
        cx: &VjpCx<'_, 'f>,
        tangents: &[Option<Tensor<'f>>],
    ) -> Result<Vec<Option<Tensor<'f>>>, NoGradient> {
        self.jvp(cx, tangents).map(|t| vec![t])
    }

    /// Reference semantics: obvious and slow. Operand types are those that `infer` accepted, `out`
    /// is the type that it gave.
    fn eval(&self, operands: &[&Literal], out: &StaticType) -> Result<Literal, EvalError>;

    /// [`OpDef::eval`] of an operation with several results; `out` is the type of the first.
    fn eval_results(&self, operands: &[&Literal], out: &StaticType) -> Result<Vec<Literal>, EvalError> {
        self.eval(operands, out).map(|value| vec![value])
    }

    /// Loop structure, from which the compiler makes kernels.
    fn pattern(&self, operands: &[StaticType], out: &StaticType) -> Pattern;

    /// Legal inputs, for property tests; `None` for inputs and state, which have none of their own.
    #[cfg(any(test, feature = "testing"))]
    fn samples() -> Samples;
}

/// Declares an operation's struct, and its attributes as text.
macro_rules! op {
    ($(#[$meta:meta])* pub struct $name:ident { $($(#[$fmeta:meta])* pub $field:ident : $ty:ty),* $(,)? }) => {
        $(#[$meta])*
        #[derive(Clone, PartialEq, Eq, Hash, Debug)]
        pub struct $name { $($(#[$fmeta])* pub $field: $ty),* }

        impl $crate::attr::Attrs for $name {
            fn attrs(&self) -> Vec<(&'static str, $crate::attr::AttrValue)> {
                vec![$((stringify!($field), $crate::attr::Attr::to_attr(&self.$field))),*]
            }
            fn from_attrs(attrs: &mut $crate::attr::AttrMap) -> Result<Self, $crate::attr::AttrError> {
                let _ = &attrs;
                Ok(Self { $($field: attrs.take(stringify!($field))?),* })
            }
            fn bind(&mut self, bindings: &$crate::module::Bindings) {
                let _ = bindings;
                $($crate::attr::Attr::bind(&mut self.$field, bindings);)*
            }
            fn visit_dims(&self, visit: &mut dyn FnMut(&$crate::types::Dim)) {
                let _ = &visit;
                $($crate::attr::Attr::visit_dims(&self.$field, visit);)*
            }
            fn regions(&self) -> Vec<&$crate::region::Region> {
                let regions: [Option<&$crate::region::Region>; _] =
                    [$($crate::attr::Attr::region(&self.$field)),*];
                regions.into_iter().flatten().collect()
            }
            fn regions_mut(&mut self) -> Vec<&mut $crate::region::Region> {
                let regions: [Option<&mut $crate::region::Region>; _] =
                    [$($crate::attr::Attr::region_mut(&mut self.$field)),*];
                regions.into_iter().flatten().collect()
            }
        }
    };
}

macro_rules! ops {
    ($($module:ident :: $name:ident),* $(,)?) => {
        $(mod $module;)*
        $(pub use $module::$name;)*

        /// Any operation.
        #[derive(Clone, PartialEq, Eq, Hash, Debug)]
        pub enum Op {
            $(#[doc = concat!("[`", stringify!($name), "`]")] $name($name)),*
        }

        $(impl From<$name> for Op {
            fn from(op: $name) -> Self { Self::$name(op) }
        })*

        impl Op {
            /// Mnemonics of all operations, in the order of the list.
            pub const NAMES: &'static [&'static str] = &[$(<$name as OpDef>::NAME),*];

            /// Its mnemonic.
            pub fn name(&self) -> &'static str {
                match self { $(Self::$name(_) => <$name as OpDef>::NAME),* }
            }

            /// See [`OpDef::infer`].
            pub fn infer(&self, operands: &[TensorType]) -> Result<TensorType, TypeError> {
                match self { $(Self::$name(op) => op.infer(operands)),* }
            }

            /// See [`OpDef::results`].
            pub fn results(&self, operands: &[TensorType]) -> Result<Vec<TensorType>, TypeError> {
                match self { $(Self::$name(op) => op.results(operands)),* }
            }

            /// The regions among its attributes, in the order of the struct.
            pub fn regions(&self) -> Vec<&Region> {
                match self { $(Self::$name(op) => op.regions()),* }
            }

            /// Like [`Self::regions`], for change.
            pub fn regions_mut(&mut self) -> Vec<&mut Region> {
                match self { $(Self::$name(op) => op.regions_mut()),* }
            }

            /// See [`OpDef::vjp_of_results`].
            pub fn vjp_of_results<'f>(&self, cx: &VjpCx<'_, 'f>, cts: &[Option<Tensor<'f>>]) -> Vjp<'f> {
                match self { $(Self::$name(op) => op.vjp_of_results(cx, cts)),* }
            }

            /// See [`OpDef::batch_of_results`].
            pub fn batch_of_results<'f>(&self, cx: &BatchCx<'_, 'f>) -> Result<Vec<Tensor<'f>>, NoBatch> {
                match self { $(Self::$name(op) => op.batch_of_results(cx)),* }
            }

            /// See [`OpDef::jvp_of_results`].
            pub fn jvp_of_results<'f>(
                &self,
                cx: &VjpCx<'_, 'f>,
                tangents: &[Option<Tensor<'f>>],
            ) -> Result<Vec<Option<Tensor<'f>>>, NoGradient> {
                match self { $(Self::$name(op) => op.jvp_of_results(cx, tangents)),* }
            }

            /// See [`OpDef::eval_results`].
            pub fn eval_results(
                &self,
                operands: &[&Literal],
                out: &StaticType,
            ) -> Result<Vec<Literal>, EvalError> {
                match self { $(Self::$name(op) => op.eval_results(operands, out)),* }
            }

            /// See [`OpDef::vjp`].
            pub fn vjp<'f>(&self, cx: &VjpCx<'_, 'f>, ct: Tensor<'f>) -> Vjp<'f> {
                match self { $(Self::$name(op) => op.vjp(cx, ct)),* }
            }

            /// See [`OpDef::jvp`].
            pub fn jvp<'f>(&self, cx: &VjpCx<'_, 'f>, tangents: &[Option<Tensor<'f>>]) -> Jvp<'f> {
                match self { $(Self::$name(op) => op.jvp(cx, tangents)),* }
            }

            /// See [`OpDef::batch`].
            pub fn batch<'f>(&self, cx: &BatchCx<'_, 'f>) -> Batched<'f> {
                match self { $(Self::$name(op) => op.batch(cx)),* }
            }

            /// See [`OpDef::eval`].
            pub fn eval(&self, operands: &[&Literal], out: &StaticType) -> Result<Literal, EvalError> {
                match self { $(Self::$name(op) => op.eval(operands, out)),* }
            }

            /// See [`OpDef::pattern`].
            pub fn pattern(&self, operands: &[StaticType], out: &StaticType) -> Pattern {
                match self { $(Self::$name(op) => op.pattern(operands, out)),* }
            }

            /// Attributes by name, in the order of the struct.
            pub fn attrs(&self) -> Vec<(&'static str, AttrValue)> {
                match self { $(Self::$name(op) => op.attrs()),* }
            }

            /// Calls `visit` with each dimension in the attributes.
            pub fn visit_dims(&self, visit: &mut dyn FnMut(&Dim)) {
                match self { $(Self::$name(op) => op.visit_dims(visit)),* }
            }

            /// Replaces bound dimension names in the attributes.
            pub fn bind(&mut self, bindings: &Bindings) {
                match self { $(Self::$name(op) => op.bind(bindings)),* }
            }

            /// The operation of mnemonic `name` with these attributes; `None` if there is no such
            /// mnemonic.
            pub fn parse(name: &str, attrs: &mut AttrMap) -> Option<Result<Self, AttrError>> {
                $(if name == <$name as OpDef>::NAME {
                    return Some($name::from_attrs(attrs).map(Self::$name));
                })*
                None
            }

            /// Samples of every operation, by mnemonic.
            #[cfg(any(test, feature = "testing"))]
            pub fn all_samples() -> Vec<(&'static str, Samples)> {
                vec![$((<$name as OpDef>::NAME, <$name as OpDef>::samples())),*]
            }
        }
    };
}

pub use convolution::ConvConfig;

ops! {
    input::Input, read_state::ReadState, constant::Constant,
    add::Add, sub::Sub, mul::Mul, div::Div, neg::Neg, tanh::Tanh,
    abs::Abs, sign::Sign, square::Square, sqrt::Sqrt, rsqrt::Rsqrt, recip::Recip,
    floor::Floor, ceil::Ceil, round::Round,
    exp::Exp, exp2::Exp2, expm1::Expm1, log::Log, log1p::Log1p,
    sin::Sin, cos::Cos, tan::Tan, atan::Atan, sigmoid::Sigmoid, erf::Erf,
    rem::Rem, min::Min, max::Max, pow::Pow, and::And, or::Or, xor::Xor, not::Not,
    compare::Compare, is_nan::IsNan, select::Select, clamp::Clamp, cast::Cast, bitcast::Bitcast,
    stop_gradient::StopGradient, check_index::CheckIndex, extent::Extent, rng_bits::RngBits,
    iota::Iota, slice::Slice, pad::Pad, concatenate::Concatenate, reverse::Reverse,
    gather::Gather, scatter::Scatter, dynamic_slice::DynamicSlice, dynamic_update_slice::DynamicUpdateSlice,
    broadcast::Broadcast, reshape::Reshape, transpose::Transpose,
    reduce_sum::ReduceSum, reduce_max::ReduceMax, reduce_min::ReduceMin, reduce_prod::ReduceProd,
    argmax::ArgMax, argmin::ArgMin, argsort::ArgSort, cumsum::CumSum, cumprod::CumProd,
    cummax::CumMax, cummin::CumMin,
    reduce_window_max::ReduceWindowMax, reduce_window_sum::ReduceWindowSum,
    select_and_scatter::SelectAndScatter, select_and_gather::SelectAndGather,
    dot_general::DotGeneral, convolution::Convolution,
    result::ResultOf, scan::Scan, while_loop::While, cond::Cond, call::Call,
}
