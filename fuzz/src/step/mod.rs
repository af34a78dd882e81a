//! One more node of a function.

mod control;
mod products;

use crate::generate::Sizes;
use crate::rng::Rng;
use graphc::{DType, FunctionBuilder, Literal, Shape, Tensor, TensorType};
use graphc_ir::ops::*;
use graphc_ir::{CmpKind, Op, Scalar, Window};
use products::work;

/// A function under construction.
pub(crate) struct Step<'r, 'f> {
    f: &'f FunctionBuilder,
    pub(crate) rng: &'r mut Rng,
    /// Values so far, the newest last.
    pub(crate) pool: Vec<Tensor<'f>>,
    /// Inputs so far.
    pub(crate) inputs: Vec<Tensor<'f>>,
    /// Levels of regions that may still be opened.
    depth: usize,
    /// Of new values.
    sizes: Sizes,
    /// Whether this is a region, which has no inputs of its own.
    region: bool,
}

/// More multiplications take the interpreter too long: such a contraction is not declared.
const MAX_WORK: usize = 300_000;

impl<'r, 'f> Step<'r, 'f> {
    /// No values yet.
    pub(crate) fn new(f: &'f FunctionBuilder, rng: &'r mut Rng, sizes: Sizes, depth: usize) -> Self {
        Self { f, rng, pool: Vec::new(), inputs: Vec::new(), depth, sizes, region: false }
    }

    /// A value that exists.
    pub(crate) fn add(&mut self, t: Tensor<'f>) {
        self.pool.push(t);
    }

    /// Declares this many nodes, and what they need.
    pub(crate) fn grow(&mut self, nodes: usize) {
        if self.pool.is_empty() {
            let dtype = self.dtype();
            let dims = self.sizes.dims(self.rng, 4);
            let x = self.fresh(dtype, &dims);
            self.add(x);
        }
        let mut declared = 0;
        for _ in 0..nodes * 40 {
            if declared == nodes {
                break;
            }
            let name = self.rng.of(Op::NAMES);
            if let Some(results) = self.node(name) {
                self.pool.extend(results);
                declared += 1;
            }
        }
    }

    fn dtype(&mut self) -> DType {
        use DType::*;
        self.rng.of(&[F32, F32, F32, F32, F64, F64, I32, I32, I64, Bool, U8, BF16, F16])
    }

    /// A value that depends on nothing before it.
    fn fresh(&mut self, dtype: DType, dims: &[usize]) -> Tensor<'f> {
        let constants = [0.0, -0.0, 1.0, -1.0, 2.0, 0.5, 3.0, f64::NAN, f64::INFINITY];
        let constant = self.rng.of(&constants);
        match self.rng.below(6) {
            0 => self.f.full(dtype, dims, constant),
            1 => {
                let bits = self.rng.next();
                self.f.constant(Literal::from_fn(dtype, dims, |i| {
                    Scalar::F64(((bits >> (i % 48)) & 7) as f64 - 3.0)
                }))
            }
            _ if self.region => self.f.full(dtype, dims, constant),
            _ => {
                let x = self.f.input(&format!("x{}", self.inputs.len()), dtype, dims);
                self.inputs.push(x);
                x
            }
        }
    }

    /// Ones, where possible so many that what becomes of them is not computed by the compiler.
    fn ones(&mut self, dtype: DType, dims: &[usize]) -> Tensor<'f> {
        const MANY: usize = 17_000;
        match dims.iter().rposition(|&d| d > 1) {
            Some(at) if self.sizes.max_elements > MANY => {
                let rest: usize = dims.iter().product::<usize>() / dims[at];
                let mut dims = dims.to_vec();
                dims[at] = MANY / rest.max(1);
                self.f.full(dtype, dims.as_slice(), 1.0)
            }
            _ => self.f.full(dtype, dims, 1.0),
        }
    }

    /// A value of this type: mostly one that exists, if one does.
    fn value(&mut self, ty: &TensorType) -> Tensor<'f> {
        let fitting: Vec<Tensor<'f>> = self.pool.iter().copied().filter(|t| t.ty() == *ty).collect();
        if !fitting.is_empty() && !self.rng.one_in(4) {
            return self.rng.of(&fitting);
        }
        let dims = ty.shape.as_static().expect("all extents are numbers");
        // Now and then a value that is repeated along an axis.
        if !dims.is_empty() && self.rng.one_in(4) {
            let axis = self.rng.below(dims.len());
            let mut narrow = dims.clone();
            narrow.remove(axis);
            let axes: Vec<usize> = (0..dims.len()).filter(|&a| a != axis).collect();
            return self.fresh(ty.dtype, &narrow).broadcast(dims.as_slice(), &axes);
        }
        self.fresh(ty.dtype, &dims)
    }

    /// An index for positions below `bound`, of this shape.
    fn index(&mut self, dims: &[usize], bound: usize) -> Tensor<'f> {
        let dtype = self.rng.of(&[DType::I32, DType::I64]);
        let raw = self.value(&TensorType::new(dtype, dims));
        // Rarely as it is, so that checks fail now and then.
        if self.rng.one_in(12) {
            return raw;
        }
        raw.clamp(0.0, bound.max(1) as f64 - 1.0)
    }

    fn push(&mut self, op: impl Into<Op>, operands: &[Tensor<'f>]) -> Option<Vec<Tensor<'f>>> {
        let op = op.into();
        let types: Vec<TensorType> = operands.iter().map(|t| t.ty()).collect();
        let results = op.results(&types).ok()?;
        let small = results.iter().all(|ty| self.is_small(ty));
        (small && work(&op, &types) <= MAX_WORK).then(|| self.f.push_all(op, operands))
    }

    /// Whether a value of this type may be declared: shapes that follow from others may be far larger.
    fn is_small(&self, ty: &TensorType) -> bool {
        ty.shape.num_elements().is_some_and(|n| n <= 4 * self.sizes.max_elements)
    }

    fn axis(&mut self, rank: usize) -> usize {
        self.rng.below(rank.max(1))
    }

    /// Some axes, in order.
    fn axes(&mut self, rank: usize) -> Vec<usize> {
        (0..rank).filter(|_| self.rng.one_in(2)).collect()
    }

    fn permutation(&mut self, rank: usize) -> Vec<usize> {
        let mut axes: Vec<usize> = (0..rank).collect();
        for i in (1..rank).rev() {
            axes.swap(i, self.rng.below(i + 1));
        }
        axes
    }

    fn window(&mut self, rank: usize) -> Window {
        let mut list =
            |n: usize, least: usize| -> Vec<usize> { (0..rank).map(|_| least + self.rng.below(n)).collect() };
        let (size, strides, dilation) = (list(3, 1), list(2, 1), list(2, 1));
        let padding = list(9, 0).into_iter().map(|p| (p as i64 / 3 - 1, p as i64 % 3 - 1)).collect();
        Window { size, strides, padding, dilation }
    }

    /// A node of operation `name`, if one can be declared around the value that is drawn.
    fn node(&mut self, name: &str) -> Option<Vec<Tensor<'f>>> {
        let n = self.pool.len();
        let recent = if self.rng.one_in(2) { n.min(3) } else { n };
        let mut x = self.pool[n - 1 - self.rng.below(recent)];
        // What has rules or schedules of its own is drawn more often.
        match name {
            "broadcast" | "transpose" if self.rng.one_in(12) => x = self.node("iota")?[0],
            "cumsum" | "cumprod" | "cummax" | "cummin" if self.rng.one_in(6) => x = self.node("gather")?[0],
            _ => {}
        }
        let (ty, rank) = (x.ty(), x.rank());
        let dims_of = |t: &Tensor<'f>| t.shape().as_static().expect("all extents are numbers");
        let d = dims_of(&x);
        macro_rules! same {
            ($op:expr, $n:expr) => {{
                let op = $op;
                let at = self.rng.below($n);
                let operands: Vec<Tensor<'f>> =
                    (0..$n).map(|i| if i == at { x } else { self.value(&ty) }).collect();
                self.push(op, &operands)
            }};
        }
        let flags = (self.rng.one_in(2), self.rng.one_in(2));
        match name {
            // Two values among zeros, next to each other.
            "add" if rank > 0 && ty.dtype != DType::Bool && self.rng.one_in(8) => {
                let (axis, y) = (self.axis(rank), self.value(&ty));
                let zero = self.f.scalar(ty.dtype, 0.0);
                let around = |low: usize, high: usize| {
                    let along = |n: usize| (0..rank).map(|a| if a == axis { n as i64 } else { 0 }).collect();
                    Pad { low: along(low), high: along(high), interior: vec![0; rank] }
                };
                let before = self.push(around(0, d[axis]), &[x, zero])?;
                let after = self.push(around(d[axis], 0), &[y, zero])?;
                self.push(Add {}, &[before[0], after[0]])
            }
            "add" => same!(Add {}, 2),
            "sub" => same!(Sub {}, 2),
            "mul" => same!(Mul {}, 2),
            "div" if self.rng.one_in(6) => {
                let ones = self.ones(ty.dtype, &d);
                self.push(Div {}, &[x, ones])
            }
            "div" => same!(Div {}, 2),
            "rem" => same!(Rem {}, 2),
            "min" | "max" if self.rng.one_in(6) => {
                let limit = self.rng.of(&[0.0, 0.0, -0.0, 1.0]);
                let limit = self.f.full(ty.dtype, d.as_slice(), limit);
                let operands = if flags.0 { [x, limit] } else { [limit, x] };
                if name == "min" { self.push(Min {}, &operands) } else { self.push(Max {}, &operands) }
            }
            "min" => same!(Min {}, 2),
            "max" => same!(Max {}, 2),
            "pow" => same!(Pow {}, 2),
            "and" => same!(And {}, 2),
            "or" => same!(Or {}, 2),
            "xor" => same!(Xor {}, 2),
            "clamp" => same!(Clamp {}, 3),
            "compare" => {
                let kind = self.rng.of(&CmpKind::ALL);
                same!(Compare { kind }, 2)
            }
            "neg" if self.rng.one_in(4) => {
                let (negative, y) = (same!(Neg {}, 1)?[0], self.value(&ty));
                self.push(Sub {}, &[y, negative])
            }
            "neg" => same!(Neg {}, 1),
            "tanh" => same!(Tanh {}, 1),
            "abs" => same!(Abs {}, 1),
            "sign" => same!(Sign {}, 1),
            "square" => same!(Square {}, 1),
            "sqrt" => same!(Sqrt {}, 1),
            "rsqrt" => same!(Rsqrt {}, 1),
            "recip" => same!(Recip {}, 1),
            "floor" => same!(Floor {}, 1),
            "ceil" => same!(Ceil {}, 1),
            "round" => same!(Round {}, 1),
            // Several runs through a row.
            "exp" if rank > 0 && matches!(ty.dtype, DType::F32 | DType::F64) && self.rng.one_in(3) => {
                let (axis, y) = (self.axis(rank), self.value(&ty));
                let shifted = x - x.reduce_max(&[axis]).unsqueeze(axis).broadcast_to(d.as_slice());
                let sum = (shifted.exp() * y).reduce_sum(&[axis]).unsqueeze(axis).broadcast_to(d.as_slice());
                Some(vec![if flags.0 { shifted.exp() / sum } else { x * sum }, shifted])
            }
            "exp" => same!(Exp {}, 1),
            "exp2" => same!(Exp2 {}, 1),
            "expm1" => same!(Expm1 {}, 1),
            "log" => same!(Log {}, 1),
            "log1p" => same!(Log1p {}, 1),
            "sin" => same!(Sin {}, 1),
            "cos" => same!(Cos {}, 1),
            "tan" => same!(Tan {}, 1),
            "atan" => same!(Atan {}, 1),
            "sigmoid" => same!(Sigmoid {}, 1),
            "erf" => same!(Erf {}, 1),
            "not" => same!(Not {}, 1),
            "is_nan" => same!(IsNan {}, 1),
            "stop_gradient" => same!(StopGradient {}, 1),
            "check_index" => same!(CheckIndex { bound: 40.into() }, 1),
            "cast" => same!(Cast { dtype: self.dtype() }, 1),
            // The bits of a NaN are no part of a result.
            "bitcast" if ty.dtype.is_float() => {
                let zeros = self.f.full(ty.dtype, d.as_slice(), 0.0);
                let number = x.is_nan().select(zeros, x);
                let dtype = self.dtype();
                self.push(Bitcast { dtype }, &[number])
            }
            "bitcast" => same!(Bitcast { dtype: self.dtype() }, 1),
            "select" => {
                let at = self.rng.below(if ty.dtype == DType::Bool { 3 } else { 2 });
                let branch = if at == 2 { ty.with_dtype(self.dtype()) } else { ty.clone() };
                let [a, b] = [self.value(&branch), self.value(&branch)];
                let mask = self.value(&ty.with_dtype(DType::Bool));
                let operands = [[mask, x, b], [mask, a, x], [x, a, b]][at];
                self.push(Select {}, &operands)
            }
            "constant" | "input" => {
                let (dtype, d) = (self.dtype(), self.sizes.dims(self.rng, 4));
                Some(vec![self.fresh(dtype, &d)])
            }
            "iota" => {
                let (dtype, d) = (self.dtype(), self.sizes.dims(self.rng, 4));
                let axis = self.axis(d.len());
                self.push(Iota { shape: d.as_slice().into(), dtype, axis }, &[])
            }
            "extent" => {
                let (dtype, d) = (self.dtype(), self.sizes.dims(self.rng, 3));
                self.push(Extent { dims: d.as_slice().into(), dtype }, &[])
            }
            "rng_bits" => {
                let scalar = TensorType::scalar(DType::I64);
                let x = if ty == scalar { x } else { self.value(&scalar) };
                let operands = if flags.0 { [x, self.value(&scalar)] } else { [self.value(&scalar), x] };
                let shape: Shape = self.sizes.dims(self.rng, 3).as_slice().into();
                let stream = self.rng.below(3) as u32;
                self.push(RngBits { stream, shape }, &operands)
            }
            "reverse" if rank > 0 && self.rng.one_in(6) => {
                let twice = [self.axes(rank), self.axes(rank)];
                let once = self.push(Reverse { axes: twice[0].clone() }, &[x])?;
                self.push(Reverse { axes: twice[1].clone() }, &once)
            }
            "reverse" => same!(Reverse { axes: self.axes(rank) }, 1),
            // Something between two values that move alike.
            "transpose" if ty.dtype != DType::Bool && self.rng.one_in(3) => {
                let (permutation, y) = (self.permutation(rank), self.value(&ty));
                let moved = [x, y].map(|t| self.push(Transpose { permutation: permutation.clone() }, &[t]));
                let [Some(x), Some(y)] = moved else { return None };
                self.push(Mul {}, &[x[0], y[0]])
            }
            "transpose" => same!(Transpose { permutation: self.permutation(rank) }, 1),
            "reshape" => {
                let shape: Vec<usize> = match self.rng.below(4) {
                    0 => vec![d.iter().product()],
                    1 => d.iter().copied().filter(|&e| e != 1).collect(),
                    2 => {
                        let mut d = d.clone();
                        d.insert(self.rng.below(rank + 1), 1);
                        d
                    }
                    // Two neighbours become one, or one is divided.
                    _ => match d.iter().position(|&e| e > 2 && e % 2 == 0) {
                        Some(at) if flags.0 => [&d[..at], &[2, d[at] / 2], &d[at + 1..]].concat(),
                        _ if rank >= 2 => [&[d[0] * d[1]], &d[2..]].concat(),
                        _ => d.clone(),
                    },
                };
                self.push(Reshape { shape: shape.as_slice().into() }, &[x])
            }
            "broadcast" => {
                let mut shape = d.clone();
                let mut axes: Vec<usize> = (0..rank).collect();
                let at = self.rng.below(rank + 1);
                let extent = self.rng.of(&[0, 1, 2, 3, 7, 8, 16, 17]);
                match d.iter().position(|&e| e == 1) {
                    // An extent of 1 is repeated.
                    Some(one) if flags.0 => shape[one] = extent,
                    _ => {
                        shape.insert(at, extent);
                        axes.iter_mut().filter(|a| **a >= at).for_each(|a| *a += 1);
                    }
                }
                self.push(Broadcast { shape: shape.as_slice().into(), axes }, &[x])
            }
            "slice" => {
                let starts: Vec<usize> = d.iter().map(|&e| self.rng.below(e + 1)).collect();
                let limit = |(&e, &s): (&usize, &usize)| s + self.rng.below(e - s + 1);
                let limits: Vec<usize> = d.iter().zip(&starts).map(limit).collect();
                let strides = d.iter().map(|_| 1 + self.rng.below(3)).collect();
                let dim = |list: Vec<usize>| list.into_iter().map(Into::into).collect();
                self.push(Slice { starts: dim(starts), limits: dim(limits), strides }, &[x])
            }
            "pad" => {
                let mut list = || d.iter().map(|_| self.rng.below(4) as i64 - 1).collect::<Vec<i64>>();
                let (low, high) = (list(), list());
                let interior =
                    d.iter().map(|_| if self.rng.one_in(3) { self.rng.below(3) } else { 0 }).collect();
                let op = Pad { low, high, interior };
                if self.rng.one_in(3) {
                    let (ones, one) = (self.ones(ty.dtype, &d), self.f.scalar(ty.dtype, 1.0));
                    return self.push(op, &[ones, one]);
                }
                let value = self.value(&TensorType::scalar(ty.dtype));
                if rank == 0 && flags.0 {
                    // Padded with this value.
                    let other = self.sizes.dims(self.rng, 3);
                    let padded = self.fresh(ty.dtype, &other);
                    let one = vec![1; other.len()];
                    let op = Pad { low: one.clone(), high: one, interior: vec![0; other.len()] };
                    return self.push(op, &[padded, x]);
                }
                self.push(op, &[x, value])
            }
            "concatenate" => {
                if rank == 0 {
                    return None;
                }
                let axis = self.axis(rank);
                let mut other = d.clone();
                other[axis] = self.rng.below(5);
                if self.rng.one_in(6) {
                    let ones = [d, other].map(|d| self.ones(ty.dtype, &d));
                    return self.push(Concatenate { axis }, &ones);
                }
                let second =
                    if flags.0 { self.value(&ty) } else { self.value(&ty.with_shape(other.as_slice())) };
                let operands = if flags.1 { vec![second, x] } else { vec![x, second, x] };
                let joined = self.push(Concatenate { axis }, &operands)?;
                let extent = joined[0].dim(axis).as_const()?;
                if self.rng.one_in(3) {
                    let start = self.rng.below(extent + 1);
                    let limit = start + self.rng.below(extent - start + 1);
                    return Some(vec![joined[0].slice_axis(axis, start, limit)]);
                }
                Some(joined)
            }
            "reduce_sum" => same!(ReduceSum { axes: self.axes(rank) }, 1),
            "reduce_max" if self.rng.one_in(6) => {
                let shape = [&[1 + self.rng.below(3)], d.as_slice()].concat();
                let axes = (1..=rank).collect();
                let repeated = self.push(Broadcast { shape: shape.as_slice().into(), axes }, &[x])?;
                self.push(ReduceMax { axes: vec![0] }, &repeated)
            }
            "reduce_max" => same!(ReduceMax { axes: self.axes(rank) }, 1),
            "reduce_min" => same!(ReduceMin { axes: self.axes(rank) }, 1),
            "reduce_prod" => same!(ReduceProd { axes: self.axes(rank) }, 1),
            "argmax" => same!(ArgMax { axis: self.axis(rank) }, 1),
            "argmin" => same!(ArgMin { axis: self.axis(rank) }, 1),
            "argsort" => same!(ArgSort { axis: self.axis(rank), descending: flags.0 }, 1),
            "cumsum" => same!(CumSum { axis: self.axis(rank), reverse: flags.0, exclusive: flags.1 }, 1),
            "cumprod" => same!(CumProd { axis: self.axis(rank), reverse: flags.0, exclusive: flags.1 }, 1),
            "cummax" => same!(CumMax { axis: self.axis(rank), reverse: flags.0, exclusive: flags.1 }, 1),
            "cummin" => same!(CumMin { axis: self.axis(rank), reverse: flags.0, exclusive: flags.1 }, 1),
            "reduce_window_max" => same!(ReduceWindowMax::new(self.window(rank)), 1),
            "reduce_window_sum" => same!(ReduceWindowSum::new(self.window(rank)), 1),
            "select_and_gather" => same!(SelectAndGather::new(self.window(rank)), 2),
            "select_and_scatter" => {
                let w = self.window(rank);
                let out = ReduceWindowMax::new(w.clone()).infer(std::slice::from_ref(&ty)).ok()?;
                let updates = self.value(&out);
                self.push(SelectAndScatter::new(w), &[x, updates])
            }
            "gather" | "scatter" => self.indexed(name, x, flags),
            "dynamic_slice" | "dynamic_update_slice" => {
                let sizes: Vec<usize> = d.iter().map(|&e| self.rng.below(e + 1)).collect();
                let starts: Vec<Tensor<'f>> =
                    d.iter().zip(&sizes).map(|(&e, &s)| self.index(&[], e - s + 1)).collect();
                if name == "dynamic_slice" {
                    return self
                        .push(DynamicSlice { sizes: sizes.as_slice().into() }, &[&[x], &*starts].concat());
                }
                let part = self.value(&ty.with_shape(sizes.as_slice()));
                self.push(DynamicUpdateSlice {}, &[&[x, part], &*starts].concat())
            }
            "dot_general" => self.product(x, flags.0),
            "convolution" => self.convolution(x, flags.0),
            "scan" | "while" | "cond" | "call" if self.depth > 0 => self.control(name, x, flags),
            _ => None,
        }
    }
}
