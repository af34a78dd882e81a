//! Pieces that the rules of many operations share.

use super::{Op, StaticType};
use crate::builder::Tensor;
use crate::error::TypeError;
use crate::index::{Access, Guard, IndexCx, IndexExpr};
use crate::literal::{Literal, indices, linear_index};
use crate::pattern::{Pattern, Reduce, ReduceKind};
use crate::region::Region;
use crate::scalar::{CmpKind, Scalar, ScalarFn, ScalarId, ScalarOp};
use crate::types::{DType, Dim, MAX_RANK, Shape, TensorType, checked_product};

/// Refuses all but `N` operands.
pub(super) fn operands<'a, const N: usize>(
    op: &'static str,
    operands: &'a [TensorType],
) -> Result<&'a [TensorType; N], TypeError> {
    operands
        .try_into()
        .map_err(|_| TypeError::new(op, operands, format!("takes {N} operands, not {}", operands.len())))
}

/// Refuses an element type that `accepts` does not.
pub(super) fn accept(
    op: &'static str,
    operands: &[TensorType],
    index: usize,
    what: &str,
    accepts: fn(DType) -> bool,
) -> Result<(), TypeError> {
    let dtype = operands[index].dtype;
    if accepts(dtype) {
        return Ok(());
    }
    let hint = if dtype.is_half() { ": `cast` it to f32" } else { "" };
    Err(TypeError::new(op, operands, format!("operand {index} is {dtype}, must be {what}{hint}")))
}

/// Refuses operands of different types; gives the common one.
pub(super) fn same_types(op: &'static str, operands: &[TensorType]) -> Result<TensorType, TypeError> {
    let first = operands.first().ok_or_else(|| TypeError::new(op, operands, "takes at least one operand"))?;
    for (i, other) in operands.iter().enumerate() {
        if other.dtype != first.dtype {
            let message = format!(
                "operand {i} is {}, operand 0 is {}: convert one with `cast`",
                other.dtype, first.dtype
            );
            return Err(TypeError::new(op, operands, message));
        }
        if other.shape != first.shape {
            let message =
                format!("operand {i} has shape {}, operand 0 has shape {}", other.shape, first.shape);
            return Err(TypeError::new(op, operands, message));
        }
    }
    Ok(first.clone())
}

/// The type of the first of several results.
pub(super) fn first_result(op: &impl super::OpDef, x: &[TensorType]) -> Result<TensorType, TypeError> {
    op.results(x).map(|mut types| types.swap_remove(0))
}

/// Says why `region`, the attribute `name`, is none.
pub(super) fn region_is_legal(name: &str, region: &Region) -> Result<(), String> {
    region.problem().map_or(Ok(()), |why| Err(format!("`{name}` can not be a region: {why}")))
}

/// Refuses a region, the attribute `name`, whose inputs are not of the types `x`.
pub(super) fn region_takes(name: &str, region: &Region, x: &[TensorType]) -> Result<(), String> {
    region_is_legal(name, region)?;
    let inputs = region.inputs();
    if inputs.len() != x.len() {
        return Err(format!("`{name}` has {} inputs, it is given {}", inputs.len(), x.len()));
    }
    match inputs.zip(x).enumerate().find(|(_, (input, x))| input != x) {
        Some((i, (input, x))) => Err(format!("input {i} of `{name}` is {input}, it is given {x}")),
        None => Ok(()),
    }
}

/// Types that number positions.
pub(super) fn is_index(dtype: DType) -> bool {
    matches!(dtype, DType::I32 | DType::I64)
}

/// Any type with arithmetic.
pub(super) fn is_number(dtype: DType) -> bool {
    dtype != DType::Bool && !dtype.is_half()
}

/// A set of element types that an operation takes.
pub(super) struct Class {
    /// For error messages: "must be ...".
    pub(super) what: &'static str,
    /// Its members.
    pub(super) dtypes: &'static [DType],
}

/// Types with fractions.
pub(super) const FLOAT: Class = Class { what: "a float", dtypes: &[DType::F32, DType::F64] };
/// Types with arithmetic.
pub(super) const NUMBER: Class =
    Class { what: "a number", dtypes: &[DType::F32, DType::F64, DType::I32, DType::I64, DType::U8] };
/// Types with bitwise or logical operations.
pub(super) const BITS: Class =
    Class { what: "an integer or bool", dtypes: &[DType::I32, DType::I64, DType::Bool, DType::U8] };
/// Shape rule of an elementwise operation on `N` operands of one type in `class`.
pub(super) fn infer_elementwise<const N: usize>(
    op: &'static str,
    x: &[TensorType],
    class: &Class,
) -> Result<TensorType, TypeError> {
    operands::<N>(op, x)?;
    let dtype = x[0].dtype;
    if !class.dtypes.contains(&dtype) {
        let hint = if dtype.is_half() { ": `cast` it to f32" } else { "" };
        return Err(TypeError::new(op, x, format!("operand 0 is {dtype}, must be {}{hint}", class.what)));
    }
    same_types(op, x)
}

/// Declares an elementwise operation without attributes on `N` operands of one type, which is also
/// the result's: its struct and all of [`super::OpDef`].
///
/// - `pub struct Name: N of CLASS as "mnemonic";` with the operation's documentation;
/// - `vjp: |cx, ct| [..];` the cotangent of each operand, see [`super::OpDef::vjp`];
/// - `jvp: |cx, t| ..;` the tangent of the result, see [`super::OpDef::jvp`];
/// - `eval: |x| ..;` reference semantics of one element on [`Scalar`]s;
/// - `body: |b, x| ..;` the same as lane-wise code;
/// - `samples: [(lo, hi), ..]` the smooth domain of each operand, and optionally
///   `, adjusted by |x| ..` which moves the values of one element away from kinks.
macro_rules! elementwise_op {
    (
        $(#[$meta:meta])*
        pub struct $name:ident: $arity:literal of $class:ident as $mnemonic:literal;
        vjp: $vjp:expr;
        jvp: $jvp:expr;
        eval: $eval:expr;
        body: $body:expr;
        samples: $ranges:expr $(, adjusted by $adjust:expr)?;
    ) => {
        op! {
            $(#[$meta])*
            pub struct $name {}
        }

        impl $crate::ops::OpDef for $name {
            const NAME: &'static str = $mnemonic;

            fn infer(
                &self,
                x: &[$crate::types::TensorType],
            ) -> Result<$crate::types::TensorType, $crate::error::TypeError> {
                super::rules::infer_elementwise::<$arity>($mnemonic, x, &super::rules::$class)
            }

            fn vjp<'f>(
                &self,
                cx: &$crate::ops::VjpCx<'_, 'f>,
                ct: $crate::builder::Tensor<'f>,
            ) -> $crate::ops::Vjp<'f> {
                type Cotangents<'f> = [Option<$crate::builder::Tensor<'f>>; $arity];
                let vjp: for<'a, 'g> fn(
                    &$crate::ops::VjpCx<'a, 'g>,
                    $crate::builder::Tensor<'g>,
                ) -> Cotangents<'g> = $vjp;
                Ok(vjp(cx, ct).into())
            }

            fn jvp<'f>(
                &self,
                cx: &$crate::ops::VjpCx<'_, 'f>,
                tangents: &[Option<$crate::builder::Tensor<'f>>],
            ) -> $crate::ops::Jvp<'f> {
                let jvp: for<'a, 'g> fn(
                    &$crate::ops::VjpCx<'a, 'g>,
                    &[Option<$crate::builder::Tensor<'g>>],
                ) -> Option<$crate::builder::Tensor<'g>> = $jvp;
                Ok(jvp(cx, tangents))
            }

            fn batch<'f>(&self, cx: &$crate::ops::BatchCx<'_, 'f>) -> $crate::ops::Batched<'f> {
                Ok(cx.push(self.clone()))
            }

            fn eval(
                &self,
                x: &[&$crate::literal::Literal],
                out: &$crate::ops::StaticType,
            ) -> Result<$crate::literal::Literal, $crate::error::EvalError> {
                let eval: fn(&[$crate::scalar::Scalar]) -> $crate::scalar::Scalar = $eval;
                Ok(super::rules::map_elements(x, out, eval))
            }

            fn pattern(
                &self,
                x: &[$crate::ops::StaticType],
                _: &$crate::ops::StaticType,
            ) -> $crate::pattern::Pattern {
                let body: fn(
                    &mut $crate::scalar::ScalarFn,
                    &[$crate::scalar::ScalarId],
                ) -> $crate::scalar::ScalarId = $body;
                super::rules::elementwise(x, body)
            }

            #[cfg(any(test, feature = "testing"))]
            fn samples() -> $crate::ops::Samples {
                #[allow(unused_imports, reason = "not every operation has kinks")]
                use $crate::testing::away_from_integers;
                #[allow(unused_mut, unused_assignments, reason = "the default is replaced")]
                let mut adjust: fn(&mut [f64]) = |_| ();
                $(adjust = $adjust;)?
                super::rules::adjusted_samples($name {}.into(), super::rules::$class.dtypes, &$ranges, adjust)
            }
        }
    };
}

/// The sum of tangents, of which `None` is an exact zero.
pub(super) fn sum_tangents<'f>(terms: impl IntoIterator<Item = Option<Tensor<'f>>>) -> Option<Tensor<'f>> {
    terms.into_iter().flatten().reduce(|a, b| a + b)
}

/// A tangent as a tensor: zeros of the type of `primal` for `None`.
pub(super) fn tangent<'f>(t: Option<Tensor<'f>>, primal: Tensor<'f>) -> Tensor<'f> {
    t.unwrap_or_else(|| primal.full_like(0.0))
}

/// Tangent of an extremum over `axes`, which `reduce` computes and `arg` finds along one axis: the
/// tangent at the first NaN, else at the first extremum. `None` for an extremum of nothing.
pub(super) fn tangent_of_extremum<'f>(
    x: Tensor<'f>,
    t: Tensor<'f>,
    axes: &[usize],
    reduce: fn(Tensor<'f>, &[usize]) -> Tensor<'f>,
    arg: fn(Tensor<'f>, usize) -> Tensor<'f>,
) -> Option<Tensor<'f>> {
    let f = x.builder();
    // One axis after the other, the innermost first: among rows that tie, the first one wins.
    let picked = axes.iter().rev().try_fold((x, t), |(x, t), &axis| {
        let shape = x.shape();
        if shape[axis] == Dim::Const(0) {
            return None;
        }
        let kept: Vec<usize> = (0..shape.rank()).filter(|&a| a != axis).collect();
        let here = f.iota(DType::I32, &shape, axis).eq(arg(x, axis).broadcast(&shape, &kept));
        Some((reduce(x, &[axis]), here.select(t, 0.0).reduce_sum(&[axis])))
    });
    picked.map(|(_, t)| t)
}

/// Whether a value is a constant, or one that is repeated.
pub(super) fn is_constant(x: Tensor<'_>) -> bool {
    let Some(id) = x.id() else { return false };
    x.builder().with_graph(|g| match g.op(id) {
        Op::Constant(_) => true,
        Op::Broadcast(_) => matches!(g.op(g.operands(id)[0]), Op::Constant(_)),
        _ => false,
    })
}

/// Axes behind a batch axis.
pub(super) fn behind_batch(axes: &[usize]) -> Vec<usize> {
    axes.iter().map(|a| a + 1).collect()
}

/// The entries of an attribute per axis, and `first` for the batch in front of them.
pub(super) fn with_batch<T: Clone>(first: T, per_axis: &[T]) -> Vec<T> {
    std::iter::once(first).chain(per_axis.iter().cloned()).collect()
}

/// `x` with axis `from` moved to the front.
pub(super) fn to_front(x: Tensor<'_>, from: usize) -> Tensor<'_> {
    let order: Vec<usize> = std::iter::once(from).chain((0..x.rank()).filter(|&a| a != from)).collect();
    x.transpose(&order)
}

/// Applies the function of the operand's type to a float.
pub(super) fn on_floats(x: Scalar, f32: fn(f32) -> f32, f64: fn(f64) -> f64) -> Scalar {
    match x {
        Scalar::F32(a) => Scalar::F32(f32(a)),
        Scalar::F64(a) => Scalar::F64(f64(a)),
        other => unreachable!("{other} is not a float"),
    }
}

/// Applies `f` to the elements of equally shaped literals.
pub(super) fn map_elements(
    operands: &[&Literal],
    out: &StaticType,
    f: impl Fn(&[Scalar]) -> Scalar,
) -> Literal {
    let mut args = vec![Scalar::Bool(false); operands.len()];
    Literal::from_fn(out.dtype, &out.dims, |i| {
        for (arg, operand) in args.iter_mut().zip(operands) {
            *arg = operand.get(i);
        }
        f(&args)
    })
}

/// The pattern of an elementwise operation with this body.
pub(super) fn elementwise(
    operands: &[StaticType],
    body: impl FnOnce(&mut ScalarFn, &[ScalarId]) -> ScalarId,
) -> Pattern {
    let types: Vec<DType> = operands.iter().map(|t| t.dtype).collect();
    Pattern::Elementwise(ScalarFn::record(&types, body))
}

/// One variable per dimension.
pub(super) fn index_vars(dims: &[usize]) -> (IndexCx, Vec<IndexExpr>) {
    let mut cx = IndexCx::default();
    let vars = dims.iter().map(|&d| cx.var(d)).collect();
    (cx, vars)
}

/// Refuses a declared type that no tensor can have: a rank or a number of elements over the limit.
pub(super) fn storable(op: &'static str, ty: &TensorType) -> Result<TensorType, TypeError> {
    if ty.rank() > MAX_RANK {
        return Err(TypeError::new(
            op,
            &[],
            format!("{ty} has rank {}, at most {MAX_RANK} is possible", ty.rank()),
        ));
    }
    if ty.shape.as_static().is_some_and(|dims| checked_product(&dims).is_none()) {
        return Err(TypeError::new(op, &[], format!("{ty} has more than 2^40 elements")));
    }
    Ok(ty.clone())
}

/// Largest magnitude of a stride, a dilation or an amount of padding: positions computed from them
/// and from extents stay far from overflow.
pub(super) const MAX_STEP: i64 = 1 << 44;

/// Refuses a step (a stride or a dilation) that is zero or beyond [`MAX_STEP`].
pub(super) fn check_step(
    op: &'static str,
    x: &[TensorType],
    what: &str,
    step: usize,
) -> Result<(), TypeError> {
    match step {
        0 => Err(TypeError::new(op, x, format!("{what} is 0, must be at least 1"))),
        s if s > MAX_STEP as usize => {
            Err(TypeError::new(op, x, format!("{what} is {s}, at most 2^44 is possible")))
        }
        _ => Ok(()),
    }
}

/// Refuses an amount of padding beyond [`MAX_STEP`].
pub(super) fn check_padding(
    op: &'static str,
    x: &[TensorType],
    what: &str,
    padding: i64,
) -> Result<(), TypeError> {
    if padding.unsigned_abs() > MAX_STEP as u64 {
        return Err(TypeError::new(op, x, format!("{what} is {padding}, beyond the limit of 2^44")));
    }
    Ok(())
}

/// `(extent - 1) * step + 1`, or 0 for an extent of 0: how far `extent` positions reach that are
/// `step` apart.
pub(super) fn reach(extent: usize, step: usize) -> i128 {
    if extent == 0 { 0 } else { (extent as i128 - 1) * step as i128 + 1 }
}

/// The guard `0 <= expr < bound`, unless it always holds.
pub(super) fn in_bounds(cx: &IndexCx, expr: &IndexExpr, bound: usize) -> Option<Guard> {
    let guard = Guard { expr: expr.clone(), lo: 0, hi: bound as i64 };
    (!guard.always(cx)).then_some(guard)
}

/// The element types of two operands that must agree.
pub(super) fn same_dtype(op: &'static str, x: &[TensorType], a: usize, b: usize) -> Result<(), TypeError> {
    if x[a].dtype == x[b].dtype {
        return Ok(());
    }
    let (da, db) = (x[a].dtype, x[b].dtype);
    Err(TypeError::new(op, x, format!("operand {a} is {da}, operand {b} is {db}: convert one with `cast`")))
}

/// Samples of an elementwise operation on equal types: smooth ones from `lo..hi` per operand, and
/// special values of every type in `dtypes`.
#[cfg(any(test, feature = "testing"))]
pub(super) fn elementwise_samples(
    op: impl Into<super::Op>,
    dtypes: &'static [DType],
    ranges: &'static [(f64, f64)],
) -> super::Samples {
    adjusted_samples(op.into(), dtypes, ranges, |_| ())
}

/// Like [`elementwise_samples`]; `adjust` moves the smooth values of one element, one per operand,
/// away from kinks.
#[cfg(any(test, feature = "testing"))]
pub(super) fn adjusted_samples(
    op: super::Op,
    dtypes: &'static [DType],
    ranges: &'static [(f64, f64)],
    adjust: fn(&mut [f64]),
) -> super::Samples {
    use crate::testing::{Sample, dims, special};
    use proptest::prelude::*;
    let any = (proptest::sample::select(dtypes), dims(6), any::<bool>());
    let samples = any.prop_flat_map(move |(dtype, dims, wanted)| {
        let smooth = wanted && dtype.is_float();
        let values: BoxedStrategy<Vec<Literal>> = if smooth {
            let n = dims.iter().product::<usize>();
            let element = ranges.iter().map(|&(lo, hi)| lo..hi).collect::<Vec<_>>();
            let values = proptest::collection::vec(element, n);
            let split = move |mut v: Vec<Vec<f64>>| {
                v.iter_mut().for_each(|element| adjust(element));
                let operand = |k: usize| Literal::from_fn(dtype, &dims, |i| Scalar::F64(v[i][k]));
                (0..ranges.len()).map(operand).collect()
            };
            values.prop_map(split).boxed()
        } else {
            ranges.iter().map(|_| special(dtype, dims.clone())).collect::<Vec<_>>().boxed()
        };
        let op = op.clone();
        values.prop_map(move |operands| Sample { op: op.clone(), operands, smooth })
    });
    Some(samples.boxed())
}

/// Shape rule of reductions.
pub(super) fn infer_reduce(
    op: &'static str,
    x: &[TensorType],
    axes: &[usize],
) -> Result<TensorType, TypeError> {
    let [x0] = operands::<1>(op, x)?;
    if axes.windows(2).any(|w| w[0] >= w[1]) || axes.iter().any(|&a| a >= x0.rank()) {
        let message = format!("axes {axes:?} must be increasing and below the rank {}", x0.rank());
        return Err(TypeError::new(op, x, message));
    }
    let kept = (0..x0.rank()).filter(|a| !axes.contains(a)).map(|a| x0.shape[a].clone());
    Ok(x0.with_shape(kept.collect::<Shape>()))
}

/// Reduces a sequence in the order of [`Reduce`]; `None` is a skipped element.
pub(super) fn reduce_sequence(
    kind: ReduceKind,
    dtype: DType,
    mut elements: impl Iterator<Item = Option<Scalar>>,
) -> Scalar {
    let mut blocks = Vec::new();
    loop {
        let mut lanes = [kind.identity(dtype); Reduce::LANES];
        let mut n = 0;
        for x in elements.by_ref().take(Reduce::BLOCK) {
            if let Some(x) = x {
                let lane = &mut lanes[n % Reduce::LANES];
                *lane = kind.op().eval(&[*lane, x]);
            }
            n += 1;
        }
        if n == 0 && !blocks.is_empty() {
            break;
        }
        let mut half = Reduce::LANES / 2;
        while half > 0 {
            for j in 0..half {
                lanes[j] = kind.op().eval(&[lanes[j], lanes[j + half]]);
            }
            half /= 2;
        }
        blocks.push(lanes[0]);
        if n < Reduce::BLOCK {
            break;
        }
    }
    let mut step = 1;
    while step < blocks.len() {
        for i in (0..blocks.len() - step).step_by(2 * step) {
            blocks[i] = kind.op().eval(&[blocks[i], blocks[i + step]]);
        }
        step *= 2;
    }
    blocks[0]
}

/// Reference semantics of a reduction over whole axes.
pub(super) fn eval_reduce(kind: ReduceKind, x: &Literal, axes: &[usize], out: &StaticType) -> Literal {
    let reduced: Vec<usize> = axes.iter().map(|&a| x.dims()[a]).collect();
    let kept: Vec<usize> = (0..x.dims().len()).filter(|a| !axes.contains(a)).collect();
    let mut at = indices(&out.dims);
    Literal::from_fn(out.dtype, &out.dims, |_| {
        let outer = at.next().expect("one index per element");
        let mut index = vec![0; x.dims().len()];
        for (&axis, &i) in kept.iter().zip(&outer) {
            index[axis] = i;
        }
        let elements = indices(&reduced).map(|r| {
            for (&axis, &i) in axes.iter().zip(&r) {
                index[axis] = i;
            }
            Some(x.get(linear_index(&index, x.dims())))
        });
        reduce_sequence(kind, out.dtype, elements)
    })
}

/// The pattern of a reduction over whole axes.
pub(super) fn reduce_pattern(kind: ReduceKind, dims: &[usize], axes: &[usize], out: &StaticType) -> Pattern {
    let extents: Vec<usize> = axes.iter().map(|&a| dims[a]).collect();
    let mut index = vec![IndexExpr::default(); dims.len()];
    let kept = (0..dims.len()).filter(|a| !axes.contains(a));
    for (v, axis) in kept.chain(axes.iter().copied()).enumerate() {
        index[axis] = IndexExpr::var(v as u32);
    }
    debug_assert_eq!(out.dims.len() + axes.len(), dims.len());
    Pattern::Reduce(Reduce { kind, extents, access: Access { operand: 0, index, guards: Vec::new() } })
}

/// Samples of a reduction over whole axes.
#[cfg(any(test, feature = "testing"))]
pub(super) fn reduce_samples(op: fn(Vec<usize>) -> super::Op, smooth: bool) -> super::Samples {
    use crate::testing::{Sample, dims, number, special, uniform};
    use proptest::prelude::*;
    let case = (number(), dims(6), any::<bool>()).prop_flat_map(|(dtype, dims, wild)| {
        let rank = dims.len();
        let axes = proptest::sample::subsequence((0..rank).collect::<Vec<_>>(), 0..=rank);
        let x = if wild { special(dtype, dims) } else { uniform(dtype, dims, -3.0, 3.0) };
        (x, axes, Just(!wild))
    });
    let sample = move |(x, axes, tame)| Sample { op: op(axes), operands: vec![x], smooth: smooth && tame };
    Some(case.prop_map(sample).boxed())
}

/// Samples of a maximum or minimum over whole axes.
#[cfg(any(test, feature = "testing"))]
pub(super) fn extremum_samples(op: fn(Vec<usize>) -> super::Op) -> super::Samples {
    use crate::testing::{Sample, dims, distinct, number, special, tied};
    use proptest::prelude::*;
    let case = (number(), dims(6), 0usize..3).prop_flat_map(|(dtype, dims, kind)| {
        let rank = dims.len();
        let axes = proptest::sample::subsequence((0..rank).collect::<Vec<_>>(), 0..=rank);
        // The extremum of nothing is infinite.
        let smooth = kind == 0 && !dims.contains(&0);
        let x = match kind {
            0 => distinct(dtype, dims),
            1 => tied(dtype, dims),
            _ => special(dtype, dims),
        };
        (x, axes, Just(smooth))
    });
    let sample = move |(x, axes, smooth)| Sample { op: op(axes), operands: vec![x], smooth };
    Some(case.prop_map(sample).boxed())
}

/// Shape rule of [`Pattern::ArgReduce`].
pub(super) fn infer_arg_reduce(
    op: &'static str,
    x: &[TensorType],
    axis: usize,
) -> Result<TensorType, TypeError> {
    accept(op, operands::<1>(op, x)?, 0, "a number", is_number)?;
    let ty = infer_reduce(op, x, &[axis])?.with_dtype(DType::I32);
    match x[0].shape[axis] {
        Dim::Const(n) if n == 0 || n >= 1 << 31 => {
            Err(TypeError::new(op, x, format!("axis {axis} has extent {n}, must be in 1..2^31")))
        }
        _ => Ok(ty),
    }
}

/// Reference semantics of [`Pattern::ArgReduce`].
pub(super) fn eval_arg_reduce(x: &Literal, axis: usize, largest: bool, out: &StaticType) -> Literal {
    let mut at = indices(&out.dims);
    Literal::from_fn(out.dtype, &out.dims, |_| {
        let mut index = at.next().expect("one index per element");
        index.insert(axis, 0);
        let mut best = (0, x.get(linear_index(&index, x.dims())));
        for i in 1..x.dims()[axis] {
            index[axis] = i;
            let value = x.get(linear_index(&index, x.dims()));
            if precedes(value, best.1, largest) {
                best = (i, value);
            }
        }
        Scalar::I64(best.0 as i64)
    })
}

/// True if the extremum moves on from `b` to a later `a`: `b` is no NaN, and `a` is NaN or strictly
/// greater (less).
pub(super) fn precedes(a: Scalar, b: Scalar, largest: bool) -> bool {
    let is = |kind, a, b| ScalarOp::Cmp(kind).eval(&[a, b]) == Scalar::Bool(true);
    if is(CmpKind::Ne, b, b) {
        return false;
    }
    is(CmpKind::Ne, a, a) || is(if largest { CmpKind::Gt } else { CmpKind::Lt }, a, b)
}

/// Samples of [`Pattern::ArgReduce`].
#[cfg(any(test, feature = "testing"))]
pub(super) fn arg_samples(op: fn(usize) -> super::Op) -> super::Samples {
    use crate::testing::{Sample, dims, extent, number, special, tied};
    use proptest::prelude::*;
    let case = (number(), dims(5), extent(), any::<prop::sample::Index>(), any::<bool>());
    let sample = case.prop_flat_map(move |(dtype, mut dims, extent, at, ties)| {
        let axis = at.index(dims.len() + 1);
        dims.insert(axis, extent.max(1));
        let x = if ties { tied(dtype, dims) } else { special(dtype, dims) };
        x.prop_map(move |x| Sample { op: op(axis), operands: vec![x], smooth: false })
    });
    Some(sample.boxed())
}

/// Shape rule of [`Pattern::Cumulative`].
pub(super) fn infer_cumulative(
    op: &'static str,
    x: &[TensorType],
    axis: usize,
) -> Result<TensorType, TypeError> {
    let [x0] = operands::<1>(op, x)?;
    accept(op, x, 0, "a number", is_number)?;
    if axis >= x0.rank() {
        return Err(TypeError::new(op, x, format!("axis {axis} is not below the rank {}", x0.rank())));
    }
    Ok(x0.clone())
}

/// Reference semantics of [`Pattern::Cumulative`].
pub(super) fn eval_cumulative(
    kind: ReduceKind,
    x: &Literal,
    axis: usize,
    reverse: bool,
    exclusive: bool,
) -> Literal {
    let extent = x.dims()[axis];
    let mut result: Vec<Scalar> = (0..x.len()).map(|i| x.get(i)).collect();
    for index in indices(x.dims()).filter(|index| index[axis] == 0) {
        let mut so_far = kind.identity(x.dtype());
        for step in 0..extent {
            let mut at = index.clone();
            at[axis] = if reverse { extent - 1 - step } else { step };
            let place = linear_index(&at, x.dims());
            let next = kind.op().eval(&[so_far, x.get(place)]);
            result[place] = if exclusive { so_far } else { next };
            so_far = next;
        }
    }
    Literal::from_fn(x.dtype(), x.dims(), |i| result[i])
}

/// Samples of [`Pattern::Cumulative`].
/// Along `axis`, where the extremum of the elements so far was met first, `i32`, and whether there was any.
/// `beyond` says which elements are greater (less) than those before them, whose extremum is `before`.
pub(super) fn position_of_extremum<'f>(
    x: Tensor<'f>,
    beyond: Tensor<'f>,
    before: Tensor<'f>,
    axis: usize,
    reverse: bool,
    exclusive: bool,
) -> (Tensor<'f>, Tensor<'f>) {
    let (f, shape) = (x.builder(), x.shape());
    let at = f.iota(DType::I32, &shape, axis);
    let extent = f.extent(DType::I32, shape[axis..=axis].to_vec());
    // Steps since the beginning, whichever end that is at.
    let step = if reverse { extent - 1.0 - at } else { at };
    let new = beyond | (is_nan(x) & !is_nan(before));
    let found = new.select(step, step.full_like(0.0));
    let found = f.push(super::CumMax { axis, reverse, exclusive }, &[found]).max(0.0);
    let exists = if exclusive { step.gt(0.0) } else { step.ge(0.0) };
    (if reverse { extent - 1.0 - found } else { found }, exists)
}

/// Which elements are NaN; none of a type without it.
fn is_nan(x: Tensor<'_>) -> Tensor<'_> {
    if x.dtype().is_float() { x.is_nan() } else { x.ne(x) }
}

/// Samples of a cumulative operation; `smooth_values` generates those at which it is differentiable.
#[cfg(any(test, feature = "testing"))]
pub(super) fn cumulative_samples(
    kind: ReduceKind,
    op: fn(usize, bool, bool) -> super::Op,
    smooth_values: fn(DType, Vec<usize>) -> proptest::prelude::BoxedStrategy<Literal>,
) -> super::Samples {
    use crate::testing::{Sample, dims, extent, number, special};
    use proptest::prelude::*;
    let case = (number(), dims(4), extent(), any::<prop::sample::Index>(), any::<[bool; 3]>());
    let sample = case.prop_flat_map(move |(dtype, mut dims, extent, at, [reverse, exclusive, smooth])| {
        let axis = at.index(dims.len() + 1);
        // The infinity that an exclusive extremum begins with leaves no differences to take.
        let finite = !exclusive || matches!(kind, ReduceKind::Sum | ReduceKind::Prod);
        let smooth = smooth && finite;
        // Products of many elements grow beyond what differences can resolve.
        dims.insert(axis, extent.min(9));
        let x = if smooth { smooth_values(dtype, dims) } else { special(dtype, dims) };
        x.prop_map(move |x| Sample { op: op(axis, reverse, exclusive), operands: vec![x], smooth })
    });
    Some(sample.boxed())
}

/// One step of a contraction: fused on floats, wrapping on integers.
pub(super) fn multiply_add(a: Scalar, b: Scalar, acc: Scalar) -> Scalar {
    if a.dtype().is_float() {
        return ScalarOp::Fma.eval(&[a, b, acc]);
    }
    ScalarOp::Add.eval(&[ScalarOp::Mul.eval(&[a, b]), acc])
}
