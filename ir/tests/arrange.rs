//! Composites that arrange, contract and ask: values as NumPy and PyTorch give them.

use graphc_ir::composite::{ConvTransposeConfig, RandomStream};
use graphc_ir::ops::ConvConfig;
use graphc_ir::{
    DType, FunctionBuilder, Literal, ModuleBuilder, Scalar, ScanOptions, Tensor, Window, evaluate, vjp,
};

/// `body` of tensors with these values.
fn value(
    operands: &[Literal],
    body: impl for<'f> Fn(&'f FunctionBuilder, &[Tensor<'f>]) -> Tensor<'f>,
) -> Literal {
    let m = ModuleBuilder::new("test");
    m.function("f", |f| {
        let input = |(i, l): (usize, &Literal)| f.input(&format!("x{i}"), l.dtype(), l.ty().shape);
        let x: Vec<_> = operands.iter().enumerate().map(input).collect();
        f.output("y", body(f, &x));
    });
    let module = m.build().unwrap_or_else(|e| panic!("{e}"));
    evaluate(&module.functions[0], operands, |_| unreachable!("no state")).unwrap().outputs.remove(0)
}

fn mistake(body: impl FnOnce(&FunctionBuilder)) -> String {
    let m = ModuleBuilder::new("m");
    m.function("f", body);
    m.build().unwrap_err().to_string()
}

/// 0, 1, 2, .. of these extents.
fn count(dims: &[usize]) -> Literal {
    Literal::from_fn(DType::F64, dims, |i| Scalar::F64(i as f64))
}

fn f64s(dims: &[usize], values: &[f64]) -> Literal {
    Literal::new(dims, values.to_vec()).unwrap()
}

#[test]
fn einsum_gives_what_the_sum_says() {
    let (a, b, c) = (count(&[2, 3]), count(&[3, 4]), count(&[2, 3, 3]));
    let sum = |spec: &str, operands: &[Literal]| value(operands, |f, x| f.einsum(spec, x));
    let at = |l: &Literal, index: &[usize]| l.get(graphc_ir::linear_index(index, l.dims())).to_f64();
    let ab: Vec<f64> =
        (0..8).map(|i| (0..3).map(|k| at(&a, &[i / 4, k]) * at(&b, &[k, i % 4])).sum()).collect();
    assert_eq!(sum("ij,jk->ik", &[a.clone(), b.clone()]), f64s(&[2, 4], &ab));
    assert_eq!(sum("ij,jk", &[a.clone(), b.clone()]), f64s(&[2, 4], &ab));
    assert_eq!(sum(" ij , jk -> ", &[a.clone(), b.clone()]), f64s(&[], &[ab.iter().sum()]));
    assert_eq!(sum("ji", std::slice::from_ref(&a)), f64s(&[3, 2], &[0.0, 3.0, 1.0, 4.0, 2.0, 5.0]));
    assert_eq!(sum("ij->", std::slice::from_ref(&a)), f64s(&[], &[15.0]));
    assert_eq!(sum("bii->bi", std::slice::from_ref(&c)), f64s(&[2, 3], &[0.0, 4.0, 8.0, 9.0, 13.0, 17.0]));
    assert_eq!(sum("bii", std::slice::from_ref(&c)), f64s(&[2], &[12.0, 39.0]));
    assert_eq!(
        sum("b...->...b", std::slice::from_ref(&c)),
        value(std::slice::from_ref(&c), |_, x| x[0].transpose(&[1, 2, 0]))
    );
    // NumPy: einsum("...ij,jk->...ik", c, b), its first and last elements.
    let batched = sum("...ij,jk->...ik", &[c.clone(), b.clone()]);
    assert_eq!(
        (batched.dims(), at(&batched, &[0, 0, 0]), at(&batched, &[1, 2, 3])),
        (&[2, 3, 4][..], 20.0, 344.0)
    );
    // Three operands, one outer product, one letter that only the first has.
    let outer = sum("ij,k,l->lk", &[a, f64s(&[2], &[1.0, 10.0]), f64s(&[2], &[1.0, 2.0])]);
    assert_eq!(outer, f64s(&[2, 2], &[15.0, 150.0, 30.0, 300.0]));
    assert_eq!(sum("bij,bjk,bk->bi", &[c.clone(), c.clone(), count(&[2, 3])]).dims(), [2, 3]);
}

#[test]
fn mistakes_in_einsum_name_the_letter_and_the_line() {
    let error = |spec: &'static str| {
        mistake(|f| {
            let (x, y) = (f.input("x", DType::F32, [2, 3]), f.input("y", DType::F32, [4, 5]));
            f.einsum(spec, &[x, y]);
        })
    };
    for (spec, expected) in [
        ("ij,jk->ik", "einsum \"ij,jk->ik\": `j` is 3 and, in operand 1, 4"),
        ("ij->i", "1 terms for 2 operands"),
        ("ijk,lm->i", "`ijk` names 3 axes, operand 0 is f32[2, 3]"),
        ("ij,kl->z", "`z` is in no operand"),
        ("ij,kl->ii", "`i` is twice in the result"),
        ("i2,kl->i", "`2` in `i2` is no letter"),
        ("ijk...,lm", "`ijk...` has 3 letters; operand 0 is f32[2, 3]"),
    ] {
        let e = error(spec);
        assert!(e.contains(expected) && e.contains("arrange.rs:"), "{spec}: {e}");
    }
}

#[test]
fn arranging() {
    let x = count(&[2, 3]);
    let of = |body: for<'f> fn(&'f FunctionBuilder, Tensor<'f>) -> Tensor<'f>| {
        value(std::slice::from_ref(&x), |f, x| body(f, x[0]))
    };
    let rows = |r: &[&[f64]]| f64s(&[r.len(), r[0].len()], &r.concat());
    assert_eq!(of(|_, x| x.tile(&[1, 2])), rows(&[&[0., 1., 2., 0., 1., 2.], &[3., 4., 5., 3., 4., 5.]]));
    assert_eq!(of(|_, x| x.repeat(2, 1)), rows(&[&[0., 0., 1., 1., 2., 2.], &[3., 3., 4., 4., 5., 5.]]));
    assert_eq!(of(|_, x| x.roll(1, 1)), rows(&[&[2., 0., 1.], &[5., 3., 4.]]));
    assert_eq!(of(|_, x| x.roll(-4, 1)), rows(&[&[1., 2., 0.], &[4., 5., 3.]]));
    assert_eq!(of(|_, x| x.tril(0)), rows(&[&[0., 0., 0.], &[3., 4., 0.]]));
    assert_eq!(of(|_, x| x.triu(1)), rows(&[&[0., 1., 2.], &[0., 0., 5.]]));
    assert_eq!(of(|f, x| f.stack(&[x, x + 10.0], 1)).dims(), [2, 2, 3]);
    assert_eq!(of(|f, x| f.stack(&[x, x + 10.0], 1)).element(1), rows(&[&[3., 4., 5.], &[13., 14., 15.]]));
    assert_eq!(of(|_, x| x.split(&[1, 2], 1)[1]), rows(&[&[1., 2.], &[4., 5.]]));
    assert_eq!(of(|_, x| x.chunk(3, 1)[2]), rows(&[&[2.], &[5.]]));
    assert_eq!(of(|_, x| x.unsqueeze(1).squeeze(1).swap_axes(0, 1)).dims(), [3, 2]);
    assert_eq!(of(|f, _| f.eye(DType::F64, 2)), rows(&[&[1., 0.], &[0., 1.]]));
    assert_eq!(of(|f, _| f.linspace(DType::F64, -1.0, 1.0, 5)), f64s(&[5], &[-1.0, -0.5, 0.0, 0.5, 1.0]));
    assert_eq!(of(|f, _| f.arange(DType::F64, 3.0, 2.0, 3)), f64s(&[3], &[3.0, 5.0, 7.0]));
    let mask = of(|f, _| f.causal_mask(2, 3).cast(DType::F64));
    assert_eq!(mask, rows(&[&[1., 1., 0.], &[1., 1., 1.]]));
    let e = mistake(|f| {
        f.input("x", DType::F32, [4, 2]).split(&[1, 2], 0);
    });
    assert!(e.contains("split: parts of [1, 2] along axis 0 of f32[4, 2]"), "{e}");
    let e = mistake(|f| {
        f.input("x", DType::F32, [4, 2]).squeeze(1);
    });
    assert!(e.contains("squeeze: axis 1 of f32[4, 2] is not 1"), "{e}");
}

#[test]
fn questions() {
    let x = f64s(&[2, 2], &[1.0, f64::NAN, f64::NEG_INFINITY, 0.0]);
    let of = |body: for<'f> fn(Tensor<'f>) -> Tensor<'f>| value(std::slice::from_ref(&x), |_, x| body(x[0]));
    let bools = |dims: &[usize], b: &[bool]| Literal::new(dims, b.to_vec()).unwrap();
    assert_eq!(of(|x| x.is_inf()), bools(&[2, 2], &[false, false, true, false]));
    assert_eq!(of(|x| x.is_finite()), bools(&[2, 2], &[true, false, false, true]));
    assert_eq!(of(|x| x.is_finite().any(&[1])), bools(&[2], &[true, true]));
    assert_eq!(of(|x| x.is_finite().all(&[0])), bools(&[2], &[false, false]));
    assert_eq!(of(|x| x.count_nonzero(&[0, 1])), Literal::scalar(Scalar::I64(3)));
    let nothing = value(&[count(&[0, 2])], |_, x| x[0].is_finite().all(&[0]));
    assert_eq!(nothing, bools(&[2], &[true, true]));
    let std = value(&[f64s(&[4], &[1.0, 2.0, 3.0, 6.0])], |_, x| x[0].std(&[0], 1.0));
    assert!((std.get(0).to_f64() - (14.0f64 / 3.0).sqrt()).abs() < 1e-12);
    assert_eq!(value(&[f64s(&[2], &[3.0, 4.0])], |_, x| x[0].norm(&[0])).get(0), Scalar::F64(5.0));
}

#[test]
fn sorting() {
    let x = f64s(&[2, 5], &[3.0, f64::NAN, -1.0, 3.0, 0.0, -0.0, 0.0, 7.0, -2.0, f64::INFINITY]);
    let positions = |values: &[i32]| Literal::new(&[2, 5], values.to_vec()).unwrap();
    let of = |body: for<'f> fn(Tensor<'f>) -> Tensor<'f>| value(std::slice::from_ref(&x), |_, x| body(x[0]));
    assert_eq!(of(|x| x.argsort(1, false)), positions(&[2, 4, 0, 3, 1, 3, 0, 1, 2, 4]));
    assert_eq!(of(|x| x.argsort(1, true)), positions(&[1, 0, 3, 4, 2, 4, 2, 0, 1, 3]));
    let sorted = of(|x| x.sort(1, false)).element(1);
    assert_eq!(sorted, f64s(&[5], &[-2.0, -0.0, 0.0, 7.0, f64::INFINITY]));
    assert_eq!(of(|x| x.top_k(2, 1, false).0), f64s(&[2, 2], &[-1.0, 0.0, -2.0, -0.0]));
    assert_eq!(of(|x| x.top_k(1, 1, true).1.cast(DType::F64)), f64s(&[2, 1], &[1.0, 4.0]));
    // The gradient of the two greatest of each row, weighted 1 and 10.
    let weights = f64s(&[2, 2], &[1.0, 10.0, 1.0, 10.0]);
    let slope =
        value(&[count(&[2, 3]), weights], |_, x| vjp(&[(x[0].top_k(2, 1, true).0, x[1])], &x[..1])[0]);
    assert_eq!(slope, f64s(&[2, 3], &[0.0, 10.0, 1.0, 0.0, 10.0, 1.0]));
}

#[test]
fn cumulative_sums_and_products() {
    let x = f64s(&[4], &[2.0, 0.0, 3.0, 4.0]);
    let of = |body: for<'f> fn(Tensor<'f>) -> Tensor<'f>| value(std::slice::from_ref(&x), |_, x| body(x[0]));
    assert_eq!(of(|x| x.cumsum(0)), f64s(&[4], &[2.0, 2.0, 5.0, 9.0]));
    assert_eq!(of(|x| x.cumprod(0)), f64s(&[4], &[2.0, 0.0, 0.0, 0.0]));
    let before =
        of(|x| x.builder().push(graphc_ir::ops::CumSum { axis: 0, reverse: true, exclusive: true }, &[x]));
    assert_eq!(before, f64s(&[4], &[7.0, 7.0, 4.0, 0.0]));
    // d/dx of the sum of products, exact at the zero: 1 + 0 + .., 2 + 2*3 + 2*3*4, 0, 0.
    let slope = of(|x| {
        let y = x.cumprod(0);
        vjp(&[(y, y.full_like(1.0))], &[x])[0]
    });
    assert_eq!(slope, f64s(&[4], &[1.0, 32.0, 0.0, 0.0]));
}

#[test]
fn permutations_have_each_number_once() {
    let draw = |step: f64| {
        let y = value(&[], |f, _| {
            let (seed, step) = (f.scalar(DType::I64, 7.0), f.scalar(DType::I64, step));
            RandomStream::new("order", seed, step).permutation(50)
        });
        (0..50).map(|i| y.get(i).to_f64() as usize).collect::<Vec<_>>()
    };
    let (a, b) = (draw(0.0), draw(1.0));
    let mut sorted = a.clone();
    sorted.sort_unstable();
    assert_eq!(sorted, (0..50).collect::<Vec<_>>());
    assert_ne!(a, b);
    assert_eq!(a, draw(0.0));
}

/// A transposed convolution is the gradient of the convolution with the same kernel.
#[test]
fn transposed_convolutions_are_adjoint() {
    for (stride, padding, output_padding, dilation, groups) in
        [(1, 0, 0, 1, 1), (2, 1, 1, 1, 1), (3, 2, 0, 2, 1), (2, 1, 1, 1, 2)]
    {
        let (x, w) = (count(&[2, 4, 5]), count(&[4, 3, 3]));
        let config = ConvTransposeConfig {
            strides: vec![stride],
            padding: vec![padding],
            output_padding: vec![output_padding],
            dilation: vec![dilation],
            groups,
        };
        let length = 4 * stride + dilation * 2 + output_padding + 1 - 2 * padding;
        let y = value(&[x.clone(), w.clone()], |_, x| x[0].conv_transpose(x[1], &config));
        assert_eq!(y.dims(), [2, 3 * groups, length]);
        let forward = ConvConfig::new(1)
            .strides(&[stride])
            .padding(&[(padding as i64, padding as i64)])
            .rhs_dilation(&[dilation])
            .groups(groups);
        let expected = value(&[count(&[2, 3 * groups, length]), w, x], |_, x| {
            let image = x[0].conv(x[1], &forward);
            vjp(&[(image, x[2])], &x[..1])[0]
        });
        assert_eq!(y, expected, "{config:?}");
    }
}

#[test]
fn dropout_keeps_the_mean() {
    let ones = Literal::full(&[4000], Scalar::F64(1.0));
    let y = value(&[ones], |f, x| {
        let (seed, step) = (f.scalar(DType::I64, 7.0), f.scalar(DType::I64, 3.0));
        x[0].dropout(RandomStream::new("dropout", seed, step), 0.25)
    });
    let kept = (0..4000).filter(|&i| y.get(i).to_f64() != 0.0).count();
    assert!((0..4000).all(|i| [0.0, 1.0 / 0.75].contains(&y.get(i).to_f64())));
    assert!((2900..3100).contains(&kept), "{kept}");
}

#[test]
fn running_extrema_give_ties_to_the_first() {
    let x = f64s(&[5], &[2.0, 3.0, 1.0, 3.0, 4.0]);
    let of = |body: for<'f> fn(Tensor<'f>) -> Tensor<'f>| value(std::slice::from_ref(&x), |_, x| body(x[0]));
    assert_eq!(of(|x| x.cummax(0)), f64s(&[5], &[2.0, 3.0, 3.0, 3.0, 4.0]));
    assert_eq!(of(|x| x.cummin(0)), f64s(&[5], &[2.0, 2.0, 1.0, 1.0, 1.0]));
    let slope = of(|x| {
        let y = x.cummax(0);
        vjp(&[(y, y.full_like(1.0))], &[x])[0]
    });
    assert_eq!(slope, f64s(&[5], &[1.0, 3.0, 0.0, 0.0, 1.0]));
    let from_the_end = of(|x| {
        let y = x.builder().push(graphc_ir::ops::CumMin { axis: 0, reverse: true, exclusive: true }, &[x]);
        vjp(&[(y, y.full_like(1.0))], &[x])[0]
    });
    assert_eq!(from_the_end, f64s(&[5], &[0.0, 0.0, 2.0, 1.0, 1.0]));
    // From the first NaN on, all are that NaN.
    let nan = f64s(&[5], &[1.0, f64::NAN, 2.0, f64::NAN, 3.0]);
    let slope = value(&[nan], |_, x| {
        let y = x[0].cummax(0);
        vjp(&[(y, y.full_like(1.0))], x)[0]
    });
    assert_eq!(slope, f64s(&[5], &[1.0, 4.0, 0.0, 0.0, 0.0]));
}

#[test]
fn windows_of_minima_and_products() {
    let x = f64s(&[2, 4], &[3.0, 1.0, 0.0, 5.0, 2.0, -1.0, 4.0, 2.0]);
    let window = || Window {
        size: vec![1, 2],
        strides: vec![1, 2],
        padding: vec![(0, 0), (1, 1)],
        dilation: vec![1, 1],
    };
    let of =
        |body: &dyn for<'f> Fn(Tensor<'f>) -> Tensor<'f>| value(std::slice::from_ref(&x), |_, x| body(x[0]));
    assert_eq!(of(&|x| x.reduce_window_min(window())), f64s(&[2, 3], &[3.0, 0.0, 5.0, 2.0, -1.0, 2.0]));
    assert_eq!(of(&|x| x.reduce_window_prod(window())), f64s(&[2, 3], &[3.0, 0.0, 5.0, 2.0, -4.0, 2.0]));
    let slope = of(&|x| {
        let y = x.reduce_window_prod(window());
        vjp(&[(y, y.full_like(1.0))], &[x])[0]
    });
    assert_eq!(slope, f64s(&[2, 4], &[1.0, 0.0, 1.0, 1.0, 1.0, 4.0, -1.0, 1.0]));
    let bytes = Literal::new(&[4], vec![7u8, 200, 0, 255]).unwrap();
    let least = value(&[bytes], |_, x| {
        x[0].reduce_window_min(Window {
            size: vec![2],
            strides: vec![2],
            padding: vec![(0, 0)],
            dilation: vec![1],
        })
    });
    assert_eq!(least.as_slice::<u8>().unwrap(), [7, 0]);
}

/// Expected values from PyTorch's `adaptive_avg_pool2d` and `adaptive_max_pool2d`.
#[test]
fn adaptive_pooling_divides_evenly_or_not() {
    let x = [1.0, 5.0, 2.0, 0.0, 3.0, 4.0, 4.0, -1.0, 7.0, 2.0, 0.0, -2.0, 6.0, 1.0, 1.0];
    let x = f64s(&[1, 1, 3, 5], &x);
    let of = |body: for<'f> fn(Tensor<'f>) -> Tensor<'f>| value(std::slice::from_ref(&x), |_, x| body(x[0]));
    let mean = of(|x| x.adaptive_avg_pool(&[2, 3]));
    let expected = [3.5, 17.0 / 6.0, 3.0, 1.5, 2.5, 2.75];
    let close = |(i, e): (usize, &f64)| (mean.get(i).to_f64() - e).abs() < 1e-12;
    assert!(expected.iter().enumerate().all(close), "{mean:?}");
    assert_eq!(of(|x| x.adaptive_max_pool(&[2, 3])), f64s(&[1, 1, 2, 3], &[5.0, 7.0, 7.0, 4.0, 7.0, 7.0]));
    assert_eq!(of(|x| x.adaptive_avg_pool(&[3, 1])), f64s(&[1, 1, 3, 1], &[2.2, 3.2, 1.2]));
    let error = mistake(|f| {
        f.output("y", f.input("x", DType::F32, [1, 1, 3, 5]).adaptive_max_pool(&[2]));
    });
    assert!(
        error.contains("adaptive_max_pool: f32[1, 1, 3, 5] must have") && error.contains("arrange.rs"),
        "{error}"
    );
}

#[test]
fn sequences_of_different_lengths() {
    let lengths = Literal::new(&[3], vec![2i32, 0, 3]).unwrap();
    let mask = value(std::slice::from_ref(&lengths), |_, x| x[0].sequence_mask(3));
    let t = true;
    assert_eq!(mask.as_slice::<bool>().unwrap(), [t, t, false, false, false, false, t, t, t]);
    // Rows: 0 + 3, nothing, 2 + 5 + 8.
    for (reverse, stacked) in [
        (false, [0.0, 0.0, 2.0, 3.0, 0.0, 7.0, 0.0, 0.0, 15.0]),
        (true, [3.0, 0.0, 15.0, 3.0, 0.0, 13.0, 0.0, 0.0, 8.0]),
    ] {
        let run = |which: usize| {
            value(&[lengths.clone(), count(&[3, 3])], |f, x| {
                let init = f.constant(f64s(&[3], &[0.0, 100.0, 0.0]));
                let options = ScanOptions { reverse, ..ScanOptions::default() };
                let scanned = f.scan_lengths(&options, x[0], &[init], &x[1..], |_, c, e| {
                    let next = c[0] + e[0];
                    (vec![next], vec![next])
                });
                if which == 0 { scanned.carries[0] } else { scanned.stacked[0] }
            })
        };
        assert_eq!(run(0), f64s(&[3], &[3.0, 100.0, 15.0]));
        assert_eq!(run(1), f64s(&[3, 3], &stacked));
    }
}
