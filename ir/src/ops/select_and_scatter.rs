//! `select_and_scatter`: the gradient of a maximum over sliding windows.

use super::rules::{operands, precedes, same_dtype};
use super::window::{infer_windows, with_batch_axis, position, zero};
use super::{BatchCx, Batched, Jvp, OpDef, StaticType, Vjp, VjpCx};
use crate::builder::Tensor;
use crate::error::{EvalError, TypeError};
use crate::literal::{Literal, indices, linear_index};
use crate::pattern::{Pattern, Window};
use crate::scalar::ScalarOp;
use crate::types::{DType, Dim, TensorType};

op! {
    /// Operands `x` and `updates`, which has one element per window of `x` (see [`Window`]; the
    /// shape rule is that of `reduce_window_max`). Result, of the shape of `x`: zeros, to which each
    /// window in row-major order adds its update at its first NaN, else its first maximum. A window
    /// that covers nothing but padding adds nothing. Any number.
    /// Gradient: zero to `x`; to each update the cotangent where it was added (`select_and_gather`).
    pub struct SelectAndScatter {
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

impl SelectAndScatter {
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

impl OpDef for SelectAndScatter {
    const NAME: &'static str = "select_and_scatter";

    fn infer(&self, x: &[TensorType]) -> Result<TensorType, TypeError> {
        let [x0, updates] = operands::<2>(Self::NAME, x)?;
        same_dtype(Self::NAME, x, 0, 1)?;
        let windows = infer_windows(Self::NAME, x, &self.window())?;
        if updates.shape != windows.shape {
            let message = format!("the updates have shape {}, the windows {}", updates.shape, windows.shape);
            return Err(TypeError::new(Self::NAME, x, message));
        }
        Ok(x0.clone())
    }

    fn vjp<'f>(&self, cx: &VjpCx<'_, 'f>, ct: Tensor<'f>) -> Vjp<'f> {
        Ok(vec![None, Some(cx.operands[0].select_and_gather(ct, self.window()))])
    }

    fn jvp<'f>(&self, cx: &VjpCx<'_, 'f>, t: &[Option<Tensor<'f>>]) -> Jvp<'f> {
        Ok(t[1].map(|t| cx.operands[0].select_and_scatter(t, self.window())))
    }

    fn batch<'f>(&self, cx: &BatchCx<'_, 'f>) -> Batched<'f> {
        Ok(cx.push(Self::new(with_batch_axis(self.window()))))
    }

    fn eval(&self, x: &[&Literal], out: &StaticType) -> Result<Literal, EvalError> {
        let (x, updates) = (x[0], x[1]);
        let w = self.window();
        let mut result = vec![zero(out.dtype); x.len()];
        for (i, window) in indices(updates.dims()).enumerate() {
            let mut chosen = None;
            for at in indices(&w.size) {
                let Some(place) = position(&w, x.dims(), &window, &at) else { continue };
                let place = linear_index(&place, x.dims());
                if chosen.is_none_or(|c| precedes(x.get(place), x.get(c), true)) {
                    chosen = Some(place);
                }
            }
            if let Some(c) = chosen {
                result[c] = ScalarOp::Add.eval(&[result[c], updates.get(i)]);
            }
        }
        Ok(Literal::from_fn(out.dtype, &out.dims, |i| result[i]))
    }

    fn pattern(&self, _: &[StaticType], _: &StaticType) -> Pattern {
        Pattern::SelectAndScatter(self.window())
    }

    #[cfg(any(test, feature = "testing"))]
    fn samples() -> super::Samples {
        use crate::testing::{Sample, distinct, number, special, tied, uniform};
        use proptest::prelude::*;
        let case = (number(), super::window::windows(), 0usize..3);
        let sample = case.prop_flat_map(|(dtype, (dims, w, out, _), kind)| {
            let x = match kind {
                0 => distinct(dtype, dims),
                1 => tied(dtype, dims),
                _ => special(dtype, dims),
            };
            let op = Self::new(w);
            (x, uniform(dtype, out, -3.0, 3.0)).prop_map(move |(x, updates)| Sample {
                op: op.clone().into(),
                operands: vec![x, updates],
                smooth: kind == 0,
            })
        });
        Some(sample.boxed())
    }
}

/// Gradient of a maximum of `x` over whole axes: `ct` at the first of them, zero elsewhere.
pub(super) fn to_first_maximum<'f>(x: Tensor<'f>, ct: Tensor<'f>, axes: &[usize]) -> Option<Tensor<'f>> {
    let shape = x.shape();
    let rank = shape.rank();
    let mut windows = shape.dims().to_vec();
    let mut size = vec![1; rank];
    for &axis in axes {
        let Some(extent) = shape[axis].as_const() else { return Some(by_position(x, ct, axes)) };
        size[axis] = extent;
        windows[axis] = Dim::Const(1);
    }
    if size.contains(&0) {
        return None;
    }
    let window = Window { size, strides: vec![1; rank], padding: vec![(0, 0); rank], dilation: vec![1; rank] };
    Some(x.select_and_scatter(ct.reshape(windows), window))
}

/// The same where the extent of an axis is not known: one axis after the other, the innermost first, so
/// that among rows that tie the first one wins.
fn by_position<'f>(x: Tensor<'f>, ct: Tensor<'f>, axes: &[usize]) -> Tensor<'f> {
    let Some((&axis, rest)) = axes.split_last() else { return ct };
    let ct = by_position(x.reduce_max(&[axis]), ct, rest);
    let shape = x.shape();
    let kept: Vec<usize> = (0..shape.rank()).filter(|&a| a != axis).collect();
    let first = x.argmax(axis).broadcast(&shape, &kept);
    let here = x.builder().iota(DType::I32, &shape, axis).eq(first);
    here.select(ct.broadcast(&shape, &kept), 0.0)
}

impl<'f> Tensor<'f> {
    /// Zeros of the shape of `self`, to which each window of `self` adds its element of `updates` at
    /// its first NaN, else its first maximum.
    #[track_caller]
    pub fn select_and_scatter(self, updates: Self, window: Window) -> Self {
        self.builder().push(SelectAndScatter::new(window), &[self, updates])
    }
}
