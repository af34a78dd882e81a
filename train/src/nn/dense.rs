//! Fully connected layer.

use super::{Layer, in_layer};
use graphc_ir::{DType, Initializer, ModuleBuilder, Param, Tensor};

/// `y = x W^T + b`: `f32[.., n_in]` to `f32[.., n_out]`. Parameters `<name>/weight`
/// `f32[n_out, n_in]` and `<name>/bias` `f32[n_out]`.
#[derive(Clone, Debug)]
pub struct Dense {
    weight: Param,
    bias: Option<Param>,
}

impl Dense {
    /// With PyTorch's default initializer, uniform in `+-1 / sqrt(n_in)`, for weight and bias.
    #[track_caller]
    pub fn new(m: &ModuleBuilder, name: &str, n_in: usize, n_out: usize) -> Self {
        let init = Initializer::torch_default(n_in);
        Self::with_init(m, name, n_in, n_out, init, Some(init))
    }

    /// With these initializers; no bias if that of the bias is `None`.
    #[track_caller]
    pub fn with_init(
        m: &ModuleBuilder,
        name: &str,
        n_in: usize,
        n_out: usize,
        weight: Initializer,
        bias: Option<Initializer>,
    ) -> Self {
        let weight = m.param(&format!("{name}/weight"), DType::F32, [n_out, n_in], weight);
        let bias = bias.map(|init| m.param(&format!("{name}/bias"), DType::F32, [n_out], init));
        Self { weight, bias }
    }

    /// See [`Layer::apply`].
    #[track_caller]
    pub fn apply<'f>(&self, x: Tensor<'f>) -> Tensor<'f> {
        let f = x.builder();
        in_layer(x, &self.weight, || {
            // A scalar has no last axis; `dot_general` says so for axis 0.
            let last = x.rank().saturating_sub(1);
            let y = x.dot_general(f.read(&self.weight), (&[], &[]), (&[last], &[1]));
            match &self.bias {
                Some(bias) => y + f.read(bias),
                None => y,
            }
        })
    }

    /// The weight, `f32[n_out, n_in]`.
    pub fn weight(&self) -> &Param {
        &self.weight
    }

    /// The bias, `f32[n_out]`.
    pub fn bias(&self) -> Option<&Param> {
        self.bias.as_ref()
    }
}

impl Layer for Dense {
    #[track_caller]
    fn apply<'f>(&self, x: Tensor<'f>) -> Tensor<'f> {
        Self::apply(self, x)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use graphc_ir::{Literal, evaluate, shape};

    #[test]
    fn computes_x_w_transposed_plus_b() {
        let m = ModuleBuilder::new("m");
        let dense = Dense::new(&m, "d", 2, 3);
        m.function("f", |f| f.output("y", dense.apply(f.input("x", DType::F32, [1, 2]))));
        let module = m.build().unwrap();
        let names: Vec<_> = module.state.iter().map(|s| (&*s.name, s.ty.to_string(), s.trainable)).collect();
        assert_eq!(names, [("d/weight", "f32[3, 2]".into(), true), ("d/bias", "f32[3]".into(), true)]);
        let state = [
            Literal::new(&[3, 2], vec![1.0f32, 2.0, 3.0, 4.0, 5.0, 6.0]).unwrap(),
            Literal::new(&[3], vec![0.5f32, 0.0, -1.0]).unwrap(),
        ];
        let x = Literal::new(&[1, 2], vec![10.0f32, 1.0]).unwrap();
        let y = evaluate(&module.functions[0], &[x], |id| state[id.index()].clone()).unwrap();
        assert_eq!(y.outputs[0].as_slice::<f32>().unwrap(), [12.5, 34.0, 55.0]);
    }

    #[test]
    fn leading_axes_are_kept_and_mistakes_are_placed() {
        let m = ModuleBuilder::new("m");
        let dense = Dense::with_init(&m, "d", 4, 3, Initializer::kaiming_uniform(4, 1.0), None);
        assert!(dense.bias().is_none());
        m.function("f", |f| {
            let x = f.input("x", DType::F32, shape!["B", "T", 4]);
            assert_eq!(dense.apply(x).shape(), shape!["B", "T", 3]);
            dense.apply(f.input("wrong", DType::F32, shape!["B", 5]));
            dense.apply(f.input("scalar", DType::F32, shape![]));
        });
        let error = m.build().unwrap_err().to_string();
        assert_eq!(error.lines().count(), 2, "{error}");
        assert!(error.contains("lhs axis 1 is 5 but rhs axis 1 is 4"), "{error}");
        assert!(error.lines().all(|l| l.contains("nn/dense.rs:")), "{error}");
    }
}
