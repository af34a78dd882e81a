//! From images to rows of features, and back.

use super::Layer;
use graphc_ir::{Dim, Tensor, checked_product};

/// `[N, d1, .., dn]` to `[N, d1 * .. * dn]`; `N` may be named, the other extents are numbers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Flatten;

impl Layer for Flatten {
    #[track_caller]
    fn apply<'f>(&self, x: Tensor<'f>) -> Tensor<'f> {
        if x.is_poison() {
            return x;
        }
        let shape = x.shape();
        let inner: Option<Vec<usize>> = shape.iter().skip(1).map(Dim::as_const).collect();
        let (Some(batch), Some(n)) = (shape.first(), inner.and_then(|inner| checked_product(&inner))) else {
            let f = x.builder();
            f.misuse(format!(
                "flatten: {} must have a batch axis, and then extents that are numbers",
                x.ty()
            ));
            return f.poison();
        };
        x.reshape([batch.clone(), Dim::Const(n)].into_iter().collect::<graphc_ir::Shape>())
    }
}

/// `[N, d1 * .. * dn]` to `[N, d1, .., dn]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unflatten(Vec<usize>);

impl Unflatten {
    /// To rows of the extents `dims`.
    pub fn new(dims: &[usize]) -> Self {
        Self(dims.to_vec())
    }
}

impl Layer for Unflatten {
    #[track_caller]
    fn apply<'f>(&self, x: Tensor<'f>) -> Tensor<'f> {
        if x.is_poison() {
            return x;
        }
        if x.rank() != 2 {
            x.builder().misuse(format!("unflatten: {} must have rank 2", x.ty()));
            return x.builder().poison();
        }
        x.reshape(
            [x.dim(0)].into_iter().chain(self.0.iter().map(|&d| d.into())).collect::<graphc_ir::Shape>(),
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use graphc_ir::{DType, ModuleBuilder, shape};

    #[test]
    fn flattens_all_but_the_batch() {
        let m = ModuleBuilder::new("m");
        m.function("f", |f| {
            let check = |name, from, to| {
                assert_eq!(Flatten.apply(f.input(name, DType::F32, from)).shape(), to);
            };
            check("images", shape!["B", 3, 4, 5], shape!["B", 60]);
            check("labels", shape!["B"], shape!["B", 1]);
            Flatten.apply(f.input("open", DType::F32, shape![4, "T"]));
        });
        let error = m.build().unwrap_err().to_string();
        assert!(error.starts_with("flatten: f32[4, T] must have a batch axis"), "{error}");
        assert!(!error.contains('\n'), "{error}");
    }
}
