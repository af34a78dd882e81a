//! Padding of images and sequences.

use super::Layer;
use graphc_ir::{Dim, Tensor};

/// What is put outside of a tensor.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Padding {
    /// This number everywhere.
    Constant(f64),
    /// The elements in reverse order, the one at the end not repeated. Less is added than there is.
    Reflect,
    /// The element at the end, again and again.
    Replicate,
}

/// Pads the last `N` axes, `(before, after)` each: `[.., s1, .., sN]` to `[.., before + s + after, ..]`.
///
/// ```
/// # use graphc_ir::{DType, ModuleBuilder, shape};
/// # use graphc_train::nn::{Layer, Pad, Padding};
/// let m = ModuleBuilder::new("m");
/// m.function("f", |f| {
///     let x = f.input("x", DType::F32, shape!["B", 3, 5, 5]);
///     let y = Pad::new(Padding::Reflect, [(1, 2), (0, 1)]).apply(x);
///     assert_eq!(y.shape(), shape!["B", 3, 8, 6]);
///     f.output("y", y);
/// });
/// # m.build().unwrap();
/// ```
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Pad<const N: usize> {
    padding: Padding,
    amounts: [(usize, usize); N],
}

impl<const N: usize> Pad<N> {
    /// So much before and after each of the last axes.
    pub const fn new(padding: Padding, amounts: [(usize, usize); N]) -> Self {
        Self { padding, amounts }
    }

    /// Zeros.
    pub const fn zeros(amounts: [(usize, usize); N]) -> Self {
        Self::new(Padding::Constant(0.0), amounts)
    }
}

impl<const N: usize> Layer for Pad<N> {
    #[track_caller]
    fn apply<'f>(&self, x: Tensor<'f>) -> Tensor<'f> {
        if x.is_poison() {
            return x;
        }
        if x.rank() < N {
            x.builder().misuse(format!("pad: {} has fewer than {N} axes", x.ty()));
            return x.builder().poison();
        }
        let first = x.rank() - N;
        let axes = self.amounts.iter().enumerate().map(|(i, &amount)| (first + i, amount));
        axes.fold(x, |x, (axis, amount)| self.pad_axis(x, axis, amount))
    }
}

impl<const N: usize> Pad<N> {
    #[track_caller]
    fn pad_axis<'f>(&self, x: Tensor<'f>, axis: usize, (before, after): (usize, usize)) -> Tensor<'f> {
        let f = x.builder();
        if x.is_poison() {
            return x;
        }
        if let Padding::Constant(value) = self.padding {
            let amount = |n: usize| i64::try_from(n).unwrap_or(i64::MAX);
            return x.pad_axis(axis, amount(before), amount(after), value);
        }
        let needed = match self.padding {
            Padding::Reflect => before.max(after) + 1,
            _ => 1,
        };
        let Some(extent) = x.dim(axis).as_const().filter(|&extent| extent >= needed) else {
            f.misuse(format!(
                "pad: axis {axis} of {} must be a number of at least {needed} for {before} and {after} more",
                x.ty()
            ));
            return f.poison();
        };
        let (low, high) = match self.padding {
            Padding::Reflect => (
                x.slice_axis(axis, 1, 1 + before).reverse(&[axis]),
                x.slice_axis(axis, extent - 1 - after, extent - 1).reverse(&[axis]),
            ),
            _ => {
                let repeated = |at: usize, n: usize| {
                    let mut shape: Vec<Dim> = x.shape().iter().cloned().collect();
                    shape[axis] = n.into();
                    x.slice_axis(axis, at, at + 1).broadcast_to(shape)
                };
                (repeated(0, before), repeated(extent - 1, after))
            }
        };
        f.concatenate(&[low, x, high], axis)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use graphc_ir::{DType, Literal, ModuleBuilder, evaluate};

    #[test]
    fn values_outside() {
        let check = |padding, expected: &[f32]| {
            let m = ModuleBuilder::new("m");
            m.function("f", |f| {
                let x = f.input("x", DType::F32, [1, 3]);
                f.output("y", Pad::new(padding, [(2, 1)]).apply(x));
            });
            let x = Literal::new(&[1, 3], vec![1.0f32, 2.0, 3.0]).unwrap();
            let y = evaluate(&m.build().unwrap().functions[0], &[x], |_| unreachable!("no state")).unwrap();
            assert_eq!(y.outputs[0].as_slice::<f32>().unwrap(), expected);
        };
        check(Padding::Constant(9.0), &[9.0, 9.0, 1.0, 2.0, 3.0, 9.0]);
        check(Padding::Reflect, &[3.0, 2.0, 1.0, 2.0, 3.0, 2.0]);
        check(Padding::Replicate, &[1.0, 1.0, 1.0, 2.0, 3.0, 3.0]);
    }

    #[test]
    fn too_much_reflection_is_a_mistake() {
        let m = ModuleBuilder::new("m");
        m.function("f", |f| {
            f.output("y", Pad::new(Padding::Reflect, [(3, 0)]).apply(f.input("x", DType::F32, [1, 3])));
        });
        let error = m.build().unwrap_err().to_string();
        assert!(error.contains("must be a number of at least 4"), "{error}");
    }
}
