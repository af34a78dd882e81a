//! `convolution`: sums of products over sliding windows and channels.

use super::rules::{FLOAT, accept, check_step, in_bounds, multiply_add, operands, reach, same_dtype, storable, sum_tangents, to_front};
use super::window::WindowAxis;
use super::{BatchCx, Batched, Jvp, OpDef, StaticType, Vjp, VjpCx};
use crate::builder::Tensor;
use crate::error::{EvalError, NoBatch, NoGradient, TypeError};
use crate::index::{Access, IndexExpr};
use crate::literal::{Literal, indices, linear_index};
use crate::pattern::{Contraction, Pattern};
use crate::scalar::Scalar;
use crate::types::{Dim, Shape, TensorType};

op! {
    /// Operands `x: [N, C, s..]` and `w: [O, C / groups, k..]` of one float type, with 1 to 3
    /// spatial dimensions; result `[N / batch_groups, O, o..]`.
    ///
    /// Output channel `o` of group `g` (of `groups`, in order) reads input channels
    /// `g * C / groups + c`:
    /// `out[n, o, p] = sum over c, q of x[n, g * C / groups + c, i] * w[o, c, q]`, per spatial axis
    /// `i = (p * stride + q * rhs_dilation - padding.0) / lhs_dilation`. Where the division is not
    /// exact there is no term (a hole between the elements of `x`); where `i` is outside `x`, the
    /// term is zero times the weight. One chain of fused multiply-adds from +0, over the channels
    /// `c` and, innermost, the kernel positions `q` in row-major order: a weight gradient, whose
    /// channels are the batch, is summed image by image.
    ///
    /// Each `o` is `floor((e - (k - 1) * rhs_dilation - 1) / stride) + 1` with
    /// `e = (s - 1) * lhs_dilation + 1 + padding.0 + padding.1` (without the first two summands for
    /// `s = 0`), and must not be negative. Negative padding removes positions of the dilated `x`.
    ///
    /// `batch_groups` divides the batch instead of the channels: group `g` of the output channels
    /// reads batch entries `g * N / batch_groups + n`. It occurs in weight gradients of grouped
    /// convolutions. At most one of `groups` and `batch_groups` exceeds 1.
    ///
    /// `N` may be named unless `batch_groups > 1`; so may the channels of `x` if `groups` is 1, when
    /// those of `w` have the same name. All other extents are numbers.
    ///
    /// Gradients: to `x`, a convolution of the cotangent with the mirrored `w`, strides and
    /// `lhs_dilation` exchanged; to `w`, a convolution of `x` with the cotangent as kernel, summing
    /// over the batch, strides and `rhs_dilation` exchanged.
    pub struct Convolution {
        /// Step between windows, per spatial axis.
        pub strides: Vec<usize>,
        /// Positions added before and after, per spatial axis; negative removes.
        pub padding: Vec<(i64, i64)>,
        /// Step between elements of `x` (with holes between them), per spatial axis.
        pub lhs_dilation: Vec<usize>,
        /// Step within the window, per spatial axis.
        pub rhs_dilation: Vec<usize>,
        /// Groups of input channels.
        pub groups: usize,
        /// Groups of batch entries.
        pub batch_groups: usize,
    }
}

/// One spatial axis: every extent and attribute as a number.
#[derive(Clone, Copy)]
struct Axis {
    /// Extents of `x`, of the kernel, of the result.
    x: usize,
    k: usize,
    out: usize,
    stride: i64,
    /// Padding before.
    before: i64,
    lhs_dilation: i64,
    rhs_dilation: i64,
}

/// The outputs `phase, phase + step, ..` of one axis, whose windows all have their holes at the same
/// places.
struct Phase {
    phase: i64,
    step: i64,
    n_out: usize,
    /// Kernel positions that meet elements: `first_k, first_k + step_k, ..`
    first_k: i64,
    step_k: i64,
    n_k: usize,
    /// Position in `x` is `out * per_out + k * per_k + offset`.
    per_out: i64,
    per_k: i64,
    offset: i64,
}

fn gcd(a: i64, b: i64) -> i64 {
    if b == 0 { a } else { gcd(b, a % b) }
}

impl Axis {
    /// Position in `x` of kernel position `k` of output `out`, which may lie outside; `None` at a
    /// hole.
    fn position(self, out: i64, k: i64) -> Option<i64> {
        let dilated = out * self.stride + k * self.rhs_dilation - self.before;
        (dilated % self.lhs_dilation == 0).then(|| dilated / self.lhs_dilation)
    }

    /// The phases of a result that is not empty.
    fn phases(self) -> Vec<Phase> {
        let d = self.lhs_dilation;
        let (gs, gr) = (gcd(self.stride, d), gcd(self.rhs_dilation, d));
        let (step, step_k) = (d / gs, d / gr);
        let phase = |phase: i64| {
            let n_out = (self.out as i64 - phase + step - 1) / step;
            let base = Phase {
                phase,
                step,
                n_out: n_out as usize,
                first_k: 0,
                step_k,
                n_k: 0,
                per_out: self.stride / gs,
                per_k: self.rhs_dilation / gr,
                offset: 0,
            };
            // At most one kernel position below `step_k` meets an element.
            let first = (0..step_k.min(self.k as i64)).find_map(|k| Some((k, self.position(phase, k)?)));
            let Some((first_k, offset)) = first else { return base };
            let n_k = (self.k as i64 - first_k + step_k - 1) / step_k;
            Phase { first_k, offset, n_k: n_k as usize, ..base }
        };
        (0..step.min(self.out as i64)).map(phase).collect()
    }
}

impl Convolution {
    fn axes(&self, x: &[usize], w: &[usize], out: &[usize]) -> Vec<Axis> {
        (0..self.strides.len())
            .map(|a| Axis {
                x: x[a + 2],
                k: w[a + 2],
                out: out[a + 2],
                stride: self.strides[a] as i64,
                before: self.padding[a].0,
                lhs_dilation: self.lhs_dilation[a] as i64,
                rhs_dilation: self.rhs_dilation[a] as i64,
            })
            .collect()
    }

    /// The part that computes one combination of phases.
    fn part(&self, axes: &[Axis], phases: &[&Phase], x: &[usize], w: &[usize], out: &[usize]) -> Contraction {
        let n_groups = self.groups.max(self.batch_groups);
        let (per_group, channels) = (w[0] / n_groups, w[1]);
        let mut part = Contraction {
            batch: vec![n_groups],
            m: std::iter::once(out[0]).chain(phases.iter().map(|p| p.n_out)).collect(),
            n: vec![per_group],
            k: std::iter::once(channels).chain(phases.iter().map(|p| p.n_k)).collect(),
            lhs: Access { operand: 0, index: Vec::new(), guards: Vec::new() },
            rhs: Access { operand: 1, index: Vec::new(), guards: Vec::new() },
            out: Vec::new(),
        };
        let cx = part.index_cx();
        let var = |v: usize| IndexExpr::var(v as u32);
        let (group, n, m_at) = (var(0), var(1), 2);
        let o_at = m_at + phases.len();
        let (o, channel, k_at) = (var(o_at), var(o_at + 1), o_at + 2);
        // A group is a block of output channels, and of input channels or of the batch.
        let out_channel = group.scale(per_group as i64).add(&o);
        let (x_batch, x_channel) = if self.batch_groups > 1 {
            (group.scale(out[0] as i64).add(&n), channel.clone())
        } else {
            (n.clone(), group.scale(channels as i64).add(&channel))
        };
        part.lhs.index = vec![x_batch, x_channel];
        part.rhs.index = vec![out_channel.clone(), channel];
        part.out = vec![n, out_channel];
        debug_assert!(part.lhs.index.iter().zip(x).all(|(e, &d)| d == 0 || cx.range(e).1 < d as i64));
        for (a, (axis, p)) in axes.iter().zip(phases).enumerate() {
            let (at, k) = (var(m_at + a), var(k_at + a));
            let position = at.scale(p.per_out).add(&k.scale(p.per_k)).offset(p.offset);
            part.lhs.guards.extend(in_bounds(&cx, &position, axis.x));
            part.lhs.index.push(position);
            part.rhs.index.push(k.scale(p.step_k).offset(p.first_k));
            part.out.push(at.scale(p.step).offset(p.phase));
        }
        part
    }

    /// This convolution's attributes with others per spatial axis.
    fn adjoint(&self, axes: &[Axis], axis: impl Fn(&Axis) -> AdjointAxis) -> Self {
        let axes: Vec<AdjointAxis> = axes.iter().map(axis).collect();
        Self {
            strides: axes.iter().map(|a| a.stride as usize).collect(),
            padding: axes.iter().map(|a| a.padding).collect(),
            lhs_dilation: axes.iter().map(|a| a.lhs_dilation as usize).collect(),
            rhs_dilation: axes.iter().map(|a| a.rhs_dilation as usize).collect(),
            groups: 1,
            batch_groups: 1,
        }
    }

    /// The gradient to `x`.
    fn to_x<'f>(&self, x: Tensor<'f>, w: Tensor<'f>, ct: Tensor<'f>, axes: &[Axis]) -> Result<Tensor<'f>, NoGradient> {
        let spatial = self.strides.len();
        let mut op = self.adjoint(axes, |a| {
            let reach = (a.k as i64 - 1) * a.rhs_dilation;
            let before = reach - a.before;
            let base = (a.out as i64 - 1) * a.stride + 1;
            let after = (a.x as i64 - 1) * a.lhs_dilation + 1 + reach - base - before;
            AdjointAxis {
                stride: a.lhs_dilation,
                padding: (before, after),
                lhs_dilation: a.stride,
                rhs_dilation: a.rhs_dilation,
            }
        });
        let mirrored = w.reverse(&(2..2 + spatial).collect::<Vec<_>>());
        let groups = self.groups.max(self.batch_groups);
        op.groups = groups;
        let swap: Vec<usize> = [1, 0].into_iter().chain(2..2 + spatial).collect();
        if groups == 1 {
            return Ok(ct.builder().push(op, &[ct, mirrored.transpose(&swap)]));
        }
        // [g * O', C', k..] to [g * C', O', k..]: channels exchanged within each group.
        let shape = w.shape();
        let (Some(o), Some(c)) = (shape[0].as_const(), shape[1].as_const()) else {
            let why = "the channels of a convolution with batch groups have a named extent";
            return Err(NoGradient { op: Self::NAME, why });
        };
        let kernel = shape[2..].iter().cloned();
        let split: Shape = [groups, o / groups, c].into_iter().map(Dim::from).chain(kernel.clone()).collect();
        let exchange: Vec<usize> = [0, 2, 1].into_iter().chain(3..3 + spatial).collect();
        let joined: Shape = [groups * c, o / groups].into_iter().map(Dim::from).chain(kernel).collect();
        let exchanged = mirrored.reshape(split).transpose(&exchange).reshape(joined);
        let result = ct.builder().push(op, &[ct, exchanged]);
        if self.batch_groups == 1 {
            return Ok(result);
        }
        // [N', g * C, s..] to [g * N', C, s..].
        let from = result.shape();
        let tail = from[2..].iter().cloned();
        let split: Shape = [from[0].clone(), groups.into(), c.into()].into_iter().chain(tail).collect();
        let exchange: Vec<usize> = [1, 0].into_iter().chain(2..3 + spatial).collect();
        Ok(result.reshape(split).transpose(&exchange).reshape(x.shape()))
    }

    /// The gradient to `w`.
    fn to_w<'f>(&self, x: Tensor<'f>, ct: Tensor<'f>, axes: &[Axis]) -> Tensor<'f> {
        let mut op = self.adjoint(axes, |a| {
            let base = (a.x as i64 - 1) * a.lhs_dilation + 1;
            let reach = (a.out as i64 - 1) * a.stride + 1;
            let after = (a.k as i64 - 1) * a.rhs_dilation + reach - base - a.before;
            AdjointAxis {
                stride: a.rhs_dilation,
                padding: (a.before, after),
                lhs_dilation: a.lhs_dilation,
                rhs_dilation: a.stride,
            }
        });
        // The batch is summed over in place of the channels: groups of the one become groups of the
        // other.
        (op.groups, op.batch_groups) = (self.batch_groups, self.groups);
        let swap: Vec<usize> = [1, 0].into_iter().chain(2..2 + self.strides.len()).collect();
        ct.builder().push(op, &[x.transpose(&swap), ct.transpose(&swap)]).transpose(&swap)
    }
}

/// Axes `axis` and `axis + 1` as one. One of them may be named if the other has extent 1.
fn merge(x: Tensor<'_>, axis: usize) -> Result<Tensor<'_>, NoBatch> {
    let mut dims = x.shape().dims().to_vec();
    let inner = dims.remove(axis + 1);
    dims[axis] = match (&dims[axis], inner) {
        (Dim::Const(a), Dim::Const(b)) => Dim::Const(a.saturating_mul(b)),
        (Dim::Const(1), d) => d,
        (d, Dim::Const(1)) => d.clone(),
        _ => {
            let why = "the batch or the extent that it multiplies is named: both must be numbers";
            return Err(NoBatch { op: Convolution::NAME, why });
        }
    };
    Ok(x.reshape(dims))
}

/// Axis `axis` as two, the outer one of extent `outer`: the inverse of [`merge`].
fn split<'f>(x: Tensor<'f>, axis: usize, outer: &Dim) -> Result<Tensor<'f>, NoBatch> {
    let mut dims = x.shape().dims().to_vec();
    let inner = match (&dims[axis], outer) {
        (Dim::Const(n), Dim::Const(outer)) => Dim::Const(n.checked_div(*outer).unwrap_or(0)),
        (whole, Dim::Const(1)) => whole.clone(),
        (whole, outer) if whole == outer => Dim::Const(1),
        _ => {
            let why = "the batch or the extent that it multiplies is named: both must be numbers";
            return Err(NoBatch { op: Convolution::NAME, why });
        }
    };
    dims[axis] = outer.clone();
    dims.insert(axis + 1, inner);
    Ok(x.reshape(dims))
}

/// One spatial axis of a gradient.
struct AdjointAxis {
    stride: i64,
    padding: (i64, i64),
    lhs_dilation: i64,
    rhs_dilation: i64,
}

impl OpDef for Convolution {
    const NAME: &'static str = "convolution";

    fn infer(&self, types: &[TensorType]) -> Result<TensorType, TypeError> {
        let [x, w] = operands::<2>(Self::NAME, types)?;
        let fail = |message: String| Err(TypeError::new(Self::NAME, types, message));
        accept(Self::NAME, types, 0, FLOAT.what, |d| FLOAT.dtypes.contains(&d))?;
        same_dtype(Self::NAME, types, 0, 1)?;
        let spatial = self.strides.len();
        if !(1..=3).contains(&spatial) {
            return fail(format!("{spatial} spatial axes, must be 1 to 3"));
        }
        for (what, n) in [
            ("paddings", self.padding.len()),
            ("lhs dilations", self.lhs_dilation.len()),
            ("rhs dilations", self.rhs_dilation.len()),
        ] {
            if n != spatial {
                return fail(format!("{n} {what}, {spatial} strides"));
            }
        }
        for (side, ty) in [("x", x), ("w", w)] {
            if ty.rank() != spatial + 2 {
                return fail(format!("{side} has rank {}, {spatial} spatial axes need {}", ty.rank(), spatial + 2));
            }
        }
        let (groups, batch_groups) = (self.groups, self.batch_groups);
        if groups == 0 || batch_groups == 0 || (groups > 1 && batch_groups > 1) {
            return fail(format!(
                "groups {groups}, batch groups {batch_groups}: both at least 1, one of them exactly 1"
            ));
        }
        match (&x.shape[1], &w.shape[1]) {
            (Dim::Const(c), Dim::Const(per_group)) => {
                if per_group.checked_mul(groups) != Some(*c) {
                    return fail(format!(
                        "x axis 1 has {c} channels, w axis 1 takes {per_group} in each of {groups} groups"
                    ));
                }
            }
            (c, per_group) if groups == 1 && c == per_group => {}
            (c, per_group) => {
                return fail(format!("x axis 1 is {c}, w axis 1 is {per_group}, with {groups} groups"));
            }
        }
        let Some(out_channels) = w.shape[0].as_const() else {
            return fail(format!("w axis 0 has the named extent {}: it must be a number", w.shape[0]));
        };
        let n_groups = groups.max(batch_groups);
        if out_channels % n_groups != 0 {
            return fail(format!("w axis 0 is {out_channels}, not a multiple of {n_groups} groups"));
        }
        let batch = match &x.shape[0] {
            Dim::Const(n) if n % batch_groups == 0 => Dim::Const(n / batch_groups),
            named @ Dim::Named(_) if batch_groups == 1 => named.clone(),
            n => return fail(format!("x axis 0 is {n}, not a multiple of {batch_groups} batch groups")),
        };
        let mut dims = vec![batch, Dim::Const(out_channels)];
        for a in 0..spatial {
            let axis = a + 2;
            let (Some(extent), Some(size)) = (x.shape[axis].as_const(), w.shape[axis].as_const()) else {
                return fail(format!(
                    "axis {axis} is {} in x and {} in w: both must be numbers",
                    x.shape[axis], w.shape[axis]
                ));
            };
            if size == 0 {
                return fail(format!("w axis {axis} is 0: the kernel is empty"));
            }
            let label = format!("axis {axis}");
            check_step(Self::NAME, types, &format!("the lhs dilation of {label}"), self.lhs_dilation[a])?;
            let windows = WindowAxis {
                base: reach(extent, self.lhs_dilation[a]),
                size,
                stride: self.strides[a],
                padding: self.padding[a],
                dilation: self.rhs_dilation[a],
            };
            dims.push(Dim::Const(windows.count(Self::NAME, types, &label)?));
        }
        storable(Self::NAME, &x.with_shape(dims))
    }

    fn vjp<'f>(&self, cx: &VjpCx<'_, 'f>, ct: Tensor<'f>) -> Vjp<'f> {
        let (x, w) = (cx.operands[0], cx.operands[1]);
        let (x_shape, w_shape, out) = (x.shape(), w.shape(), ct.shape());
        // The shape rule has made sure that only batch and channels may be named.
        let known = |s: &Shape| s.iter().map(|d| d.as_const().unwrap_or(0)).collect::<Vec<_>>();
        let axes = self.axes(&known(&x_shape), &known(&w_shape), &known(&out));
        if axes.iter().any(|a| a.x == 0 || a.out == 0) {
            // No element of `x` meets a weight.
            return Ok(vec![None, None]);
        }
        Ok(vec![Some(self.to_x(x, w, ct, &axes)?), Some(self.to_w(x, ct, &axes))])
    }

    fn jvp<'f>(&self, cx: &VjpCx<'_, 'f>, t: &[Option<Tensor<'f>>]) -> Jvp<'f> {
        let f = cx.result.builder();
        let x = t[0].map(|t| f.push(self.clone(), &[t, cx.operands[1]]));
        let w = t[1].map(|t| f.push(self.clone(), &[cx.operands[0], t]));
        Ok(sum_tangents([x, w]))
    }

    fn batch<'f>(&self, cx: &BatchCx<'_, 'f>) -> Batched<'f> {
        let f = cx.operands[0].builder();
        let (x, w, n_groups) = (cx.operands[0], cx.operands[1], self.groups.max(self.batch_groups));
        let size = cx.size;
        Ok(match cx.mapped {
            // The examples become entries of the batch of one convolution, within each batch group.
            [true, false] => {
                let groups = Dim::Const(self.batch_groups);
                let x = to_front(split(x, 1, &groups)?, 1);
                let x = merge(merge(x, 1)?, 0)?;
                split(f.push(self.clone(), &[x, w]), 0, size)?
            }
            // They become output channels, within each group.
            [false, true] => {
                let groups = Dim::Const(n_groups);
                let w = to_front(split(w, 1, &groups)?, 1);
                let w = merge(merge(w, 1)?, 0)?;
                let out = split(split(f.push(self.clone(), &[x, w]), 1, &groups)?, 2, size)?;
                merge(to_front(out, 2), 2)?
            }
            // They become groups, of which each has filters of its own.
            _ => {
                let why = "both operands differ between examples, whose number is named: it must be a number";
                let n_examples = size.as_const().ok_or(NoBatch { op: Self::NAME, why })?;
                let mut op = self.clone();
                let x = if self.batch_groups == 1 {
                    op.groups = self.groups.saturating_mul(n_examples);
                    merge(to_front(x, 1), 1)?
                } else {
                    op.batch_groups = self.batch_groups.saturating_mul(n_examples);
                    merge(x, 0)?
                };
                to_front(split(f.push(op, &[x, merge(w, 0)?]), 1, size)?, 1)
            }
        })
    }

    fn eval(&self, operands: &[&Literal], out: &StaticType) -> Result<Literal, EvalError> {
        let (x, w) = (operands[0], operands[1]);
        let axes = self.axes(x.dims(), w.dims(), &out.dims);
        let channels = w.dims()[1];
        let per_group = w.dims()[0] / self.groups;
        let per_batch_group = w.dims()[0] / self.batch_groups;
        let mut at = indices(&out.dims);
        Ok(Literal::from_fn(out.dtype, &out.dims, |_| {
            let index = at.next().expect("one index per element");
            let (n, o) = (index[0], index[1]);
            let mut acc = Scalar::from_f64(out.dtype, 0.0);
            for (c, kernel) in (0..channels).flat_map(|c| indices(&w.dims()[2..]).map(move |q| (c, q))) {
                let position = |a: usize| axes[a].position(index[a + 2] as i64, kernel[a] as i64);
                let Some(place) = (0..axes.len()).map(position).collect::<Option<Vec<i64>>>() else {
                    continue;
                };
                let inside = place.iter().zip(&axes).all(|(&p, a)| 0 <= p && p < a.x as i64);
                let mut from = vec![o / per_batch_group * out.dims[0] + n, o / per_group * channels + c];
                from.extend(place.iter().map(|&p| p as usize));
                let value = if inside {
                    x.get(linear_index(&from, x.dims()))
                } else {
                    Scalar::from_f64(out.dtype, 0.0)
                };
                let of: Vec<usize> = [o, c].into_iter().chain(kernel.iter().copied()).collect();
                acc = multiply_add(value, w.get(linear_index(&of, w.dims())), acc);
            }
            acc
        }))
    }

    fn pattern(&self, types: &[StaticType], out: &StaticType) -> Pattern {
        if out.is_empty() {
            return Pattern::Contraction(Vec::new());
        }
        let (x, w) = (&types[0].dims, &types[1].dims);
        let axes = self.axes(x, w, &out.dims);
        let phases: Vec<Vec<Phase>> = axes.iter().map(|a| a.phases()).collect();
        let counts: Vec<usize> = phases.iter().map(Vec::len).collect();
        let part = |choice: Vec<usize>| {
            let chosen: Vec<&Phase> = choice.iter().zip(&phases).map(|(&i, p)| &p[i]).collect();
            self.part(&axes, &chosen, x, w, &out.dims)
        };
        Pattern::Contraction(indices(&counts).map(part).collect())
    }

    #[cfg(any(test, feature = "testing"))]
    fn samples() -> super::Samples {
        use crate::testing::{Sample, float, special, uniform};
        use proptest::prelude::*;
        // Extents of x and kernel, stride, padding, dilations.
        let axis = prop_oneof![
            2 => (1usize..5, 1usize..4).prop_map(|(x, k)| (x, k, 1usize, (0i64, 0i64), 1usize, 1usize)),
            5 => (0usize..6, 1usize..4, 1usize..4, (-2i64..4, -2i64..4), 1usize..4, 1usize..4),
        ];
        let axes = proptest::collection::vec(axis, 1..=3);
        let channels = (0usize..3, 1usize..4, any::<bool>(), 0usize..3, 0usize..3);
        let sample = (float(), axes, channels, any::<bool>()).prop_flat_map(|(dtype, axes, channels, tame)| {
            let (mut n, n_groups, by_batch, c, o) = channels;
            let mut op = Self {
                strides: vec![],
                padding: vec![],
                lhs_dilation: vec![],
                rhs_dilation: vec![],
                groups: if by_batch { 1 } else { n_groups },
                batch_groups: if by_batch { n_groups } else { 1 },
            };
            let n_axes = axes.len();
            if n_axes > 1 {
                n = n.min(1);
            }
            let mut x = vec![n * op.batch_groups, c * op.groups];
            let mut w = vec![o * n_groups, c];
            for (extent, size, stride, (lo, hi), lhs_dilation, rhs_dilation) in axes {
                let (extent, size) = if n_axes > 1 { (extent.min(4), size.min(2)) } else { (extent, size) };
                let base = reach(extent, lhs_dilation) as i64;
                let reach = reach(size, rhs_dilation) as i64;
                let hi = hi.max(-base - lo).max(reach - stride as i64 - base - lo);
                x.push(extent);
                w.push(size);
                op.strides.push(stride);
                op.padding.push((lo, hi));
                op.lhs_dilation.push(lhs_dilation);
                op.rhs_dilation.push(rhs_dilation);
            }
            let values =
                |dims| if tame { uniform(dtype, dims, -2.0, 2.0) } else { special(dtype, dims) };
            (values(x), values(w)).prop_map(move |(x, w)| Sample {
                op: op.clone().into(),
                operands: vec![x, w],
                smooth: tame,
            })
        });
        Some(sample.boxed())
    }
}

/// Attributes of a convolution under construction: `ConvConfig::new(2).strides(&[2, 2])`.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct ConvConfig {
    op: Convolution,
}

impl ConvConfig {
    /// `spatial` spatial axes; stride 1, no padding, no dilation, one group.
    pub fn new(spatial: usize) -> Self {
        let ones = vec![1; spatial];
        let op = Convolution {
            strides: ones.clone(),
            padding: vec![(0, 0); spatial],
            lhs_dilation: ones.clone(),
            rhs_dilation: ones,
            groups: 1,
            batch_groups: 1,
        };
        Self { op }
    }

    /// Step between windows, per spatial axis.
    pub fn strides(mut self, strides: &[usize]) -> Self {
        self.op.strides = strides.to_vec();
        self
    }

    /// Zeros before and after each spatial axis; negative removes.
    pub fn padding(mut self, padding: &[(i64, i64)]) -> Self {
        self.op.padding = padding.to_vec();
        self
    }

    /// Step between the elements of the input, per spatial axis: the stride of a transposed
    /// convolution.
    pub fn lhs_dilation(mut self, dilation: &[usize]) -> Self {
        self.op.lhs_dilation = dilation.to_vec();
        self
    }

    /// Step within the window, per spatial axis: a dilated convolution.
    pub fn rhs_dilation(mut self, dilation: &[usize]) -> Self {
        self.op.rhs_dilation = dilation.to_vec();
        self
    }

    /// Groups of channels.
    pub fn groups(mut self, groups: usize) -> Self {
        self.op.groups = groups;
        self
    }
}

impl From<ConvConfig> for Convolution {
    fn from(config: ConvConfig) -> Self {
        config.op
    }
}

impl<'f> Tensor<'f> {
    /// Convolution of `self: [N, C, s..]` with `w: [O, C / groups, k..]`, giving `[N, O, o..]`; see
    /// [`Convolution`].
    #[track_caller]
    pub fn conv(self, w: Self, config: &ConvConfig) -> Self {
        self.builder().push(config.op.clone(), &[self, w])
    }

    /// Convolution over two spatial axes, with one stride and one amount of padding for all sides:
    /// `[N, C, H, W]` with `[O, C, kh, kw]` gives `[N, O, oh, ow]`.
    #[track_caller]
    pub fn conv2d(self, w: Self, stride: usize, padding: usize) -> Self {
        let padding = i64::try_from(padding).unwrap_or(i64::MAX);
        self.conv(w, &ConvConfig::new(2).strides(&[stride; 2]).padding(&[(padding, padding); 2]))
    }
}
