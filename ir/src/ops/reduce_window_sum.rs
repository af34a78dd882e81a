//! `reduce_window_sum`: sum over sliding windows.

use super::window::{with_batch_axis, eval_windows, infer_windows, window_pattern};
use super::{BatchCx, Batched, Jvp, OpDef, StaticType, Vjp, VjpCx};
use crate::builder::Tensor;
use crate::error::{EvalError, TypeError};
use crate::literal::Literal;
use crate::pattern::{Pattern, ReduceKind, Window};
use crate::types::{Dim, TensorType};

op! {
    /// Sum over the windows of [`Window`], one entry per axis of `x`; positions outside `x`
    /// are skipped;
    /// integers wrap. Any number. Extent of each axis of the result:
    /// `floor((d + padding.0 + padding.1 - (size - 1) * dilation - 1) / stride) + 1`, which must not
    /// be negative. A named dimension takes windows of 1 without padding only.
    /// Gradient: the cotangent, spread by `stride` and summed over the mirrored windows.
    pub struct ReduceWindowSum {
        /// Extent of the window, per axis.
        pub size: Vec<usize>,
        /// Step between windows, per axis.
        pub strides: Vec<usize>,
        /// Positions added before and after, per axis; negative removes.
        pub padding: Vec<(i64, i64)>,
        /// Step within a window, per axis.
        pub dilation: Vec<usize>,
    }
}

impl ReduceWindowSum {
    /// The window.
    pub fn window(&self) -> Window {
        Window {
            size: self.size.clone(),
            strides: self.strides.clone(),
            padding: self.padding.clone(),
            dilation: self.dilation.clone(),
        }
    }

    /// Slides `window`.
    pub fn new(window: Window) -> Self {
        let Window { size, strides, padding, dilation } = window;
        Self { size, strides, padding, dilation }
    }
}

impl OpDef for ReduceWindowSum {
    const NAME: &'static str = "reduce_window_sum";

    fn infer(&self, x: &[TensorType]) -> Result<TensorType, TypeError> {
        super::rules::operands::<1>(Self::NAME, x)?;
        infer_windows(Self::NAME, x, &self.window())
    }

    fn vjp<'f>(&self, cx: &VjpCx<'_, 'f>, ct: Tensor<'f>) -> Vjp<'f> {
        let (from, to) = (cx.operands[0].shape(), ct.shape());
        let rank = from.rank();
        let (mut padding, mut interior) = (vec![(0, 0); rank], vec![0; rank]);
        let (mut size, mut ct) = (self.size.clone(), ct);
        for axis in 0..rank {
            let (Some(extent), Some(windows)) = (from[axis].as_const(), to[axis].as_const()) else {
                let reach = ((size[axis] - 1) * self.dilation[axis]) as i64;
                match from[axis].distance(&to[axis]) {
                    // A step of 1.
                    Some(shrunk) => {
                        let before = reach - self.padding[axis].0;
                        padding[axis] = (before, shrunk + reach - before);
                    }
                    // Windows side by side: each element gets its window's cotangent.
                    None => {
                        let mut dims = ct.shape().dims().to_vec();
                        dims.insert(axis + 1, Dim::Const(size[axis]));
                        let kept: Vec<usize> = (0..=rank).filter(|&a| a != axis + 1).collect();
                        let repeated = ct.broadcast(dims, &kept);
                        let mut joined = ct.shape().dims().to_vec();
                        joined[axis] = from[axis].clone();
                        ct = repeated.reshape(joined);
                        size[axis] = 1;
                    }
                }
                continue;
            };
            if extent == 0 || windows == 0 {
                return Ok(vec![None]);
            }
            // Element i gets window o through place w where o * stride = i + w' * dilation - before,
            // with w' = size - 1 - w counted from the other end.
            let reach = ((self.size[axis] - 1) * self.dilation[axis]) as i64;
            let before = reach - self.padding[axis].0;
            let step = if windows == 1 { 1 } else { self.strides[axis] };
            let spread = ((windows - 1) * step) as i64 + 1;
            padding[axis] = (before, extent as i64 + reach - before - spread);
            interior[axis] = step - 1;
        }
        let zero = ct.builder().scalar(ct.dtype(), 0.0);
        let spread = ct.pad(zero, &vec![0; rank], &vec![0; rank], &interior);
        let dilation = self.dilation.clone();
        Ok(vec![Some(spread.reduce_window_sum(Window { size, strides: vec![1; rank], padding, dilation }))])
    }

    fn jvp<'f>(&self, _: &VjpCx<'_, 'f>, t: &[Option<Tensor<'f>>]) -> Jvp<'f> {
        Ok(t[0].map(|t| t.reduce_window_sum(self.window())))
    }

    fn batch<'f>(&self, cx: &BatchCx<'_, 'f>) -> Batched<'f> {
        Ok(cx.push(Self::new(with_batch_axis(self.window()))))
    }

    fn eval(&self, x: &[&Literal], out: &StaticType) -> Result<Literal, EvalError> {
        Ok(eval_windows(ReduceKind::Sum, x[0], &self.window(), out))
    }

    fn pattern(&self, x: &[StaticType], out: &StaticType) -> Pattern {
        window_pattern(ReduceKind::Sum, &x[0].dims, &self.window(), out)
    }

    #[cfg(any(test, feature = "testing"))]
    fn samples() -> super::Samples {
        use crate::testing::{Sample, number, special, uniform};
        use proptest::prelude::*;
        let case = (number(), super::window::windows(), any::<bool>());
        let sample = case.prop_flat_map(|(dtype, (dims, w, _, _), smooth)| {
            let x = if smooth { uniform(dtype, dims, -3.0, 3.0) } else { special(dtype, dims) };
            let op = Self::new(w);
            x.prop_map(move |x| Sample { op: op.clone().into(), operands: vec![x], smooth })
        });
        Some(sample.boxed())
    }
}

impl<'f> Tensor<'f> {
    /// Sum over sliding windows, one entry per axis.
    #[track_caller]
    pub fn reduce_window_sum(self, window: Window) -> Self {
        self.builder().push(ReduceWindowSum::new(window), &[self])
    }
}
