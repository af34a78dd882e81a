//! Initial values of a module's state: a pure function of the seed and, per variable, of its name,
//! type and initializer; the variable [`RANDOM_SEED`] starts as the seed itself. Adding, removing or reordering variables leaves the others unchanged.
//!
//! The values are defined as graph nodes by [`graphc_ir::composite::initialize`], and computed here
//! by the reference interpreter; orthogonal matrices are made of normal ones here.

use crate::nn::RANDOM_SEED;
use graphc_ir::composite;
use graphc_ir::{
    BuildErrors, DType, Initializer, Literal, Module, ModuleBuilder, Scalar, StateVar, TensorType, evaluate,
};
use std::sync::Arc;

/// The initial value of every state variable of `module`, by name, in order of declaration.
///
/// # Errors
/// Every initializer that does not fit its variable, such as random integers.
pub fn initialize(module: &Module, seed: u64) -> Result<Vec<(Arc<str>, Literal)>, BuildErrors> {
    // The seed is an i64 in the graph; only its bits count.
    let seed = Literal::scalar(Scalar::I64(seed as i64));
    let mut errors = Vec::new();
    let mut values = Vec::with_capacity(module.state.len());
    for variable in &module.state {
        match initial(variable, &seed) {
            Ok(value) => values.push((variable.name.clone(), value)),
            Err(BuildErrors(mut e)) => errors.append(&mut e),
        }
    }
    if errors.is_empty() { Ok(values) } else { Err(BuildErrors(errors)) }
}

/// The initial value of one variable. A function for each keeps few intermediate values alive.
fn initial(variable: &StateVar, seed: &Literal) -> Result<Literal, BuildErrors> {
    if &*variable.name == RANDOM_SEED {
        return Ok(seed.clone());
    }
    let Initializer::Orthogonal { gain } = variable.init else { return drawn(variable, seed) };
    let dims = variable.ty.shape.as_static().filter(|dims| dims.len() >= 2);
    let Some(dims) = dims.filter(|_| variable.ty.dtype.is_float()) else { return drawn(variable, seed) };
    // The factor Q of a normal matrix, with positive diagonal of R, is uniform over all (Mezzadri 2007).
    let normal = StateVar {
        ty: TensorType::new(DType::F64, dims.as_slice()),
        init: Initializer::Normal { mean: 0.0, std: 1.0 },
        ..variable.clone()
    };
    let values = drawn(&normal, seed)?;
    let values = values.as_slice::<f64>().expect("drawn as f64");
    let (rows, columns) = (dims[0], dims[1..].iter().product::<usize>());
    let wide = rows <= columns;
    // As vectors to be made orthonormal: rows, or columns if they are fewer.
    let (count, length) = if wide { (rows, columns) } else { (columns, rows) };
    let at = |vector: usize, i: usize| if wide { vector * columns + i } else { i * columns + vector };
    let mut vectors: Vec<Vec<f64>> =
        (0..count).map(|v| (0..length).map(|i| values[at(v, i)]).collect()).collect();
    orthonormalize(&mut vectors);
    let mut result = vec![0.0; rows * columns];
    for (v, vector) in vectors.iter().enumerate() {
        vector.iter().enumerate().for_each(|(i, x)| result[at(v, i)] = gain * x);
    }
    let dtype = variable.ty.dtype;
    Ok(Literal::from_fn(dtype, &dims, |i| Scalar::from_f64(dtype, result[i])))
}

/// Gram and Schmidt's method, modified and done twice, which loses no orthogonality (Giraud et al. 2005).
fn orthonormalize(vectors: &mut [Vec<f64>]) {
    let dot = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f64>();
    for i in 0..vectors.len() {
        let (done, rest) = vectors.split_at_mut(i);
        let v = &mut rest[0];
        for _ in 0..2 {
            for u in done.iter() {
                let along = dot(u, v);
                v.iter_mut().zip(u).for_each(|(v, u)| *v -= along * u);
            }
        }
        let length = dot(v, v).sqrt();
        v.iter_mut().for_each(|v| *v /= length);
    }
}

/// A value that a graph computes.
fn drawn(variable: &StateVar, seed: &Literal) -> Result<Literal, BuildErrors> {
    let m = ModuleBuilder::new("initialize");
    m.function("initialize", |f| {
        let seed = f.input("seed", DType::I64, []);
        f.output("value", composite::initialize(f, variable, seed));
    });
    let module = m.build()?;
    let value = evaluate(&module.functions[0], std::slice::from_ref(seed), |_| {
        unreachable!("initializers read no state")
    });
    let mut outputs = value.expect("initializers have no index that could be out of range").outputs;
    Ok(outputs.remove(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn value(dtype: DType, dims: &[usize], init: Initializer) -> Result<Literal, BuildErrors> {
        let variable = StateVar { name: "w".into(), ty: TensorType::new(dtype, dims), init, trainable: true };
        initial(&variable, &Literal::scalar(Scalar::I64(5)))
    }

    fn moments(dtype: DType, init: Initializer) -> (f64, f64, f64, f64) {
        let n = 100_001;
        let values = value(dtype, &[n], init).unwrap();
        let values: Vec<f64> = (0..n).map(|i| values.get(i).to_f64()).collect();
        let mean = values.iter().sum::<f64>() / n as f64;
        let variance = values.iter().map(|v| (v - mean).powi(2)).sum::<f64>() / n as f64;
        let fold = |f: fn(f64, f64) -> f64| values.iter().copied().reduce(f).unwrap();
        (mean, variance.sqrt(), fold(f64::min), fold(f64::max))
    }

    #[test]
    fn uniform_has_its_moments() {
        for dtype in [DType::F32, DType::F64] {
            let (mean, std, min, max) = moments(dtype, Initializer::Uniform { lo: -1.0, hi: 3.0 });
            assert!((mean - 1.0).abs() < 0.02 && (std - 4.0 / 12f64.sqrt()).abs() < 0.01, "{mean} {std}");
            assert!((-1.0..-0.999).contains(&min) && (2.999..3.0).contains(&max), "{min} {max}");
        }
    }

    #[test]
    fn normal_has_its_moments() {
        for dtype in [DType::F32, DType::F64] {
            let (mean, std, min, max) = moments(dtype, Initializer::Normal { mean: 2.0, std: 0.5 });
            assert!((mean - 2.0).abs() < 0.01 && (std - 0.5).abs() < 0.005, "{mean} {std}");
            assert!(min < 0.2 && max > 3.8 && min > -1.0 && max < 5.0, "{min} {max}");
        }
    }

    #[test]
    fn truncated_normal_has_its_moments() {
        for dtype in [DType::F32, DType::F64] {
            let init = Initializer::TruncatedNormal { mean: 1.0, std: 0.5, lo: 0.0, hi: 1.5 };
            let (mean, std, min, max) = moments(dtype, init);
            // scipy.stats.truncnorm(-2, 1, 1.0, 0.5): mean and standard deviation.
            assert!((mean - 0.885_181).abs() < 0.005 && (std - 0.360_473).abs() < 0.003, "{mean} {std}");
            assert!((0.0..0.01).contains(&min) && (1.49..=1.5).contains(&max), "{min} {max}");
        }
        let wide = Initializer::TruncatedNormal { mean: 0.0, std: 1.0, lo: -1e9, hi: 1e9 };
        let (mean, std, min, max) = moments(DType::F32, wide);
        assert!(
            mean.abs() < 0.01 && (std - 1.0).abs() < 0.01 && min > -6.0 && max < 6.0,
            "{mean} {std} {min} {max}"
        );
    }

    #[test]
    fn orthogonal_matrices() {
        for dims in [&[4usize, 4][..], &[3, 8], &[8, 3], &[2, 3, 2]] {
            let w = value(DType::F64, dims, Initializer::Orthogonal { gain: 2.0 }).unwrap();
            let (rows, columns) = (dims[0], dims[1..].iter().product::<usize>());
            let w = w.as_slice::<f64>().unwrap();
            let (count, length) = (rows.min(columns), rows.max(columns));
            let at = |v: usize, i: usize| w[if rows <= columns { v * columns + i } else { i * columns + v }];
            for a in 0..count {
                for b in 0..count {
                    let dot: f64 = (0..length).map(|i| at(a, i) * at(b, i)).sum();
                    let expected = if a == b { 4.0 } else { 0.0 };
                    assert!((dot - expected).abs() < 1e-13, "{dims:?}: {dot}");
                }
            }
        }
        let error = value(DType::F32, &[4], Initializer::Orthogonal { gain: 1.0 }).unwrap_err().to_string();
        assert!(error.contains("`w` f32[4]: orthogonal(1.0) is of floats with rank 2 or more"), "{error}");
    }

    #[test]
    fn initializers_that_do_not_fit_are_all_named() {
        let m = ModuleBuilder::new("m");
        m.state("a", DType::I64, [], Initializer::Uniform { lo: 0.0, hi: 1.0 });
        m.param("b", DType::F32, [2], Initializer::Uniform { lo: 1.0, hi: 0.0 });
        m.param("c", DType::F32, [2], Initializer::ONES);
        assert_eq!(initialize(&m.build().unwrap(), 1).unwrap_err().0.len(), 2);
    }

    #[test]
    fn depends_on_name_and_seed_only() {
        let module = |names: &[&str]| {
            let m = graphc_ir::ModuleBuilder::new("m");
            for name in names {
                m.param(name, DType::F32, [3, 5], Initializer::torch_default(7));
            }
            m.build().unwrap()
        };
        let of = |values: &[(Arc<str>, Literal)], name: &str| {
            values.iter().find(|(n, _)| &**n == name).unwrap().1.clone()
        };
        let a = initialize(&module(&["x", "y"]), 1).unwrap();
        let b = initialize(&module(&["new", "y", "x"]), 1).unwrap();
        assert_eq!(of(&a, "x"), of(&b, "x"));
        assert_eq!(of(&a, "y"), of(&b, "y"));
        assert_ne!(of(&a, "x"), of(&a, "y"));
        assert_ne!(of(&a, "x"), of(&initialize(&module(&["x"]), 2).unwrap(), "x"));
    }

    #[test]
    fn constants_are_converted() {
        let check = |dtype, number, expected: Scalar| {
            let l = value(dtype, &[2], Initializer::Constant(number)).unwrap();
            assert_eq!((l.dims(), l.splat_value()), (&[2][..], Some(expected)));
        };
        check(DType::F32, 0.1, Scalar::F32(0.1));
        check(DType::I64, 3.0, Scalar::I64(3));
        check(DType::Bool, 1.0, Scalar::Bool(true));
    }
}
