//! `select_and_gather`: values at the maxima of sliding windows.

use super::rules::{operands, precedes, same_types};
use super::window::{infer_windows, position, with_batch_axis, zero};
use super::{BatchCx, Batched, Jvp, OpDef, StaticType, Vjp, VjpCx};
use crate::builder::Tensor;
use crate::error::{EvalError, TypeError};
use crate::literal::{Literal, indices, linear_index};
use crate::pattern::{Pattern, Window};
use crate::types::TensorType;

op! {
    /// Operands `x` and `values`, of one type, any number: for each window of `x` (see [`Window`]; the
    /// shape rule is that of `reduce_window_max`) the element of `values` at the window's first NaN,
    /// else its first maximum; 0 for a window that covers nothing but padding. It is the adjoint of
    /// `select_and_scatter`, and the tangent of `reduce_window_max`.
    /// Gradient: zero to `x`; to `values`, each window's cotangent at the place read, added up.
    pub struct SelectAndGather {
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

impl SelectAndGather {
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

impl OpDef for SelectAndGather {
    const NAME: &'static str = "select_and_gather";

    fn infer(&self, x: &[TensorType]) -> Result<TensorType, TypeError> {
        operands::<2>(Self::NAME, x)?;
        same_types(Self::NAME, x)?;
        infer_windows(Self::NAME, x, &self.window())
    }

    fn vjp<'f>(&self, cx: &VjpCx<'_, 'f>, ct: Tensor<'f>) -> Vjp<'f> {
        Ok(vec![None, Some(cx.operands[0].select_and_scatter(ct, self.window()))])
    }

    fn jvp<'f>(&self, cx: &VjpCx<'_, 'f>, tangents: &[Option<Tensor<'f>>]) -> Jvp<'f> {
        Ok(tangents[1].map(|t| cx.operands[0].select_and_gather(t, self.window())))
    }

    fn batch<'f>(&self, cx: &BatchCx<'_, 'f>) -> Batched<'f> {
        Ok(cx.push(Self::new(with_batch_axis(self.window()))))
    }

    fn eval(&self, x: &[&Literal], out: &StaticType) -> Result<Literal, EvalError> {
        let (x, values) = (x[0], x[1]);
        let w = self.window();
        let mut windows = indices(&out.dims);
        Ok(Literal::from_fn(out.dtype, &out.dims, |_| {
            let window = windows.next().expect("one window per element");
            let mut chosen = None;
            for at in indices(&w.size) {
                let Some(place) = position(&w, x.dims(), &window, &at) else { continue };
                let place = linear_index(&place, x.dims());
                if chosen.is_none_or(|c| precedes(x.get(place), x.get(c), true)) {
                    chosen = Some(place);
                }
            }
            chosen.map_or(zero(out.dtype), |c| values.get(c))
        }))
    }

    fn pattern(&self, _: &[StaticType], _: &StaticType) -> Pattern {
        Pattern::SelectAndGather(self.window())
    }

    #[cfg(any(test, feature = "testing"))]
    fn samples() -> super::Samples {
        use crate::testing::{Sample, distinct, number, special, tied, uniform};
        use proptest::prelude::*;
        let case = (number(), super::window::windows(), 0usize..3);
        let sample = case.prop_flat_map(|(dtype, (dims, w, ..), kind)| {
            let x = match kind {
                0 => distinct(dtype, dims.clone()),
                1 => tied(dtype, dims.clone()),
                _ => special(dtype, dims.clone()),
            };
            let op = Self::new(w);
            (x, uniform(dtype, dims, -3.0, 3.0)).prop_map(move |(x, values)| Sample {
                op: op.clone().into(),
                operands: vec![x, values],
                smooth: kind == 0,
            })
        });
        Some(sample.boxed())
    }
}

impl<'f> Tensor<'f> {
    /// For each window of `self` the element of `values`, of the type of `self`, at the window's first
    /// NaN, else its first maximum. See [`SelectAndGather`].
    #[track_caller]
    pub fn select_and_gather(self, values: Self, window: Window) -> Self {
        self.builder().push(SelectAndGather::new(window), &[self, values])
    }
}
