//! `reduce_window_max`: maximum over sliding windows.

use super::window::{with_batch_axis, eval_windows, infer_windows, window_pattern};
use super::{BatchCx, Batched, Jvp, OpDef, StaticType, Vjp, VjpCx};
use crate::builder::Tensor;
use crate::error::{EvalError, TypeError};
use crate::literal::Literal;
use crate::pattern::{Pattern, ReduceKind, Window};
use crate::types::TensorType;

op! {
    /// Maximum over the windows of [`Window`], one entry per axis of `x`; positions outside `x`
    /// are skipped (a window of
    /// nothing else gives -infinity, or the least integer); NaN if there is one. Any number. Extent of each axis of the result:
    /// `floor((d + padding.0 + padding.1 - (size - 1) * dilation - 1) / stride) + 1`, which must not
    /// be negative. A named dimension takes windows of 1 without padding only.
    /// Gradient: each window's cotangent goes to its first NaN, else its first maximum, in row-major
    /// order (`select_and_scatter`).
    pub struct ReduceWindowMax {
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

impl ReduceWindowMax {
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

impl OpDef for ReduceWindowMax {
    const NAME: &'static str = "reduce_window_max";

    fn infer(&self, x: &[TensorType]) -> Result<TensorType, TypeError> {
        super::rules::operands::<1>(Self::NAME, x)?;
        infer_windows(Self::NAME, x, &self.window())
    }

    fn vjp<'f>(&self, cx: &VjpCx<'_, 'f>, ct: Tensor<'f>) -> Vjp<'f> {
        Ok(vec![Some(cx.operands[0].select_and_scatter(ct, self.window()))])
    }

    fn jvp<'f>(&self, cx: &VjpCx<'_, 'f>, t: &[Option<Tensor<'f>>]) -> Jvp<'f> {
        Ok(t[0].map(|t| cx.operands[0].select_and_gather(t, self.window())))
    }

    fn batch<'f>(&self, cx: &BatchCx<'_, 'f>) -> Batched<'f> {
        Ok(cx.push(Self::new(with_batch_axis(self.window()))))
    }

    fn eval(&self, x: &[&Literal], out: &StaticType) -> Result<Literal, EvalError> {
        Ok(eval_windows(ReduceKind::Max, x[0], &self.window(), out))
    }

    fn pattern(&self, x: &[StaticType], out: &StaticType) -> Pattern {
        window_pattern(ReduceKind::Max, &x[0].dims, &self.window(), out)
    }

    #[cfg(any(test, feature = "testing"))]
    fn samples() -> super::Samples {
        use crate::testing::{Sample, distinct, number, special, tied};
        use proptest::prelude::*;
        let case = (number(), super::window::windows(), 0usize..3);
        let sample = case.prop_flat_map(|(dtype, (dims, w, _, covered), kind)| {
            let smooth = kind == 0 && covered;
            let x = match kind {
                0 => distinct(dtype, dims),
                1 => tied(dtype, dims),
                _ => special(dtype, dims),
            };
            let op = Self::new(w);
            x.prop_map(move |x| Sample { op: op.clone().into(), operands: vec![x], smooth })
        });
        Some(sample.boxed())
    }
}

impl<'f> Tensor<'f> {
    /// Maximum over sliding windows, one entry per axis.
    #[track_caller]
    pub fn reduce_window_max(self, window: Window) -> Self {
        self.builder().push(ReduceWindowMax::new(window), &[self])
    }
}
