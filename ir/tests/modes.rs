//! Forward mode, derivatives of higher order and batching, as a user meets them.

mod common;

use common::{noise, run, values};
use graphc_ir::composite::cross_entropy;
use graphc_ir::{
    Bindings, DType, FunctionBuilder, Literal, ModuleBuilder, Tensor, evaluate, gradients, hessian, hvp,
    jacobian, jvp, shape, vjp, vmap,
};

fn literal(seed: usize, dims: &[usize]) -> Literal {
    Literal::from_fn(DType::F64, dims, |i| graphc_ir::Scalar::F64(noise(seed, i)))
}

fn vector(values: &[f64]) -> Literal {
    Literal::new(&[values.len()], values.to_vec()).unwrap()
}

/// The mistakes of a function.
fn mistakes(body: impl FnOnce(&FunctionBuilder)) -> String {
    let m = ModuleBuilder::new("m");
    m.function("f", body);
    m.build().unwrap_err().to_string()
}

#[test]
fn tangents_of_a_value_and_of_what_derives_from_it_add_up() {
    let out = run(&[vector(&[3.0])], |f, x| {
        let y = x[0] * 2.0;
        let (one, ten) = (f.full(DType::F64, [1], 1.0), f.full(DType::F64, [1], 10.0));
        let unrelated = f.iota(DType::F64, [2], 0);
        let index = f.iota(DType::I32, [2], 0);
        let mut out = jvp(&[y.square(), unrelated, index], &[(x[0], one), (y, ten)]);
        // The same input twice: its tangents add up.
        out.extend(jvp(&[y], &[(x[0], one), (x[0], ten)]));
        out
    });
    // dy = 2 * 1 + 10, and d(y^2) = 2 * 6 * 12.
    assert_eq!(out[0], vector(&[144.0]));
    assert_eq!(out[1], vector(&[0.0, 0.0]));
    assert_eq!(out[2], Literal::new(&[2], vec![0i32, 0]).unwrap());
    assert_eq!(out[3], vector(&[22.0]));
}

#[test]
fn mistakes_name_what_is_wrong_and_where() {
    let message = mistakes(|f| {
        let (x, t) = (f.input("x", DType::F64, [2]), f.input("t", DType::F64, [3]));
        jvp(&[x.sin()], &[(x, t)]);
    });
    assert!(message.contains("jvp: the input is f64[2], its tangent f64[3]"), "{message}");
    assert!(message.contains("tests/modes.rs"), "{message}");

    let message = mistakes(|f| {
        let x = f.input("x", DType::F64, [2]);
        vmap(&[(x, 1)], <[Tensor<'_>]>::to_vec);
    });
    assert!(message.contains("vmap: axis 1 of an input of type f64[2]"), "{message}");
    assert!(message.contains("tests/modes.rs"), "{message}");

    let message = mistakes(|f| {
        let (x, y) = (f.input("x", DType::F64, [2, 4]), f.input("y", DType::F64, [3, 4]));
        vmap(&[(x, 0), (y, 0)], |e| vec![e[0] + e[1]]);
    });
    assert!(
        message.contains("vmap: a batch of 2 examples f64[4] is f64[3, 4], must be f64[2, 4]"),
        "{message}"
    );

    let message = mistakes(|f| {
        let seeds = f.input("seeds", DType::I64, [2]);
        vmap(&[(seeds, 0)], |seed| vec![seed[0].rng_bits(f.scalar(DType::I64, 0.0), 1, [4])]);
    });
    assert!(message.contains("rng_bits: no batching rule"), "{message}");
    assert!(message.contains("declared at ir/tests/modes.rs"), "{message}");

    let message = mistakes(|f| {
        let x = f.input("x", DType::F64, shape!["N"]);
        jacobian(x.sin(), &[x]);
    });
    assert!(message.contains("jacobian: the output is f64[N]"), "{message}");
}

/// Cross entropy of a small classifier with an embedding, of one example.
fn loss<'f>(table: Tensor<'f>, w: Tensor<'f>, words: Tensor<'f>, label: Tensor<'f>) -> Tensor<'f> {
    let features = table.take(words, 0).mean(&[0]).tanh();
    cross_entropy(features.dot(w).reshape([1, 3]), label.reshape([1]))
}

#[test]
fn gradients_of_each_example() {
    let ints = |dims: &[usize], v: &[i32]| Literal::new(dims, v.to_vec()).unwrap();
    let (table, w) = (literal(1, &[5, 4]), literal(2, &[4, 3]));
    let (words, labels) = (ints(&[2, 3], &[0, 4, 4, 2, 1, 0]), ints(&[2], &[2, 0]));
    let inputs = [table.clone(), w.clone(), words, labels];
    let together = run(&inputs, |_, x| {
        vmap(&[(x[2], 0), (x[3], 0)], |example| {
            let loss = loss(x[0], x[1], example[0], example[1]);
            [&[loss], gradients(loss, &x[..2]).as_slice()].concat()
        })
    });
    assert_eq!(together[1].dims(), [2, 5, 4]);
    for (b, (words, label)) in [([0, 4, 4], 2), ([2, 1, 0], 0)].into_iter().enumerate() {
        let inputs = [table.clone(), w.clone(), ints(&[3], &words), ints(&[], &[label])];
        let alone = run(&inputs, |_, x| {
            let loss = loss(x[0], x[1], x[2], x[3]);
            [&[loss], gradients(loss, &x[..2]).as_slice()].concat()
        });
        for (alone, together) in alone.iter().zip(&together) {
            let own = values(together).skip(b * alone.len()).take(alone.len());
            assert!(values(alone).eq(own), "example {b}");
        }
    }
}

#[test]
fn the_batch_may_have_a_name() {
    let m = ModuleBuilder::new("m");
    m.function("f", |f| {
        let (w, xs) = (f.input("w", DType::F64, [3, 2]), f.input("xs", DType::F64, shape![3, "B"]));
        let g = vmap(&[(xs, 1)], |x| gradients(x[0].dot(w).softmax(0).square().reduce_sum(&[0]), &[w]));
        f.output("g", g[0]);
    });
    let module = m.build().unwrap();
    let f = &module.functions[0];
    assert_eq!(f.graph.ty(f.outputs[0].node).to_string(), "f64[B, 3, 2]");
    let inputs = [literal(1, &[3, 2]), literal(2, &[3, 4])];
    let bound = f.bind(&Bindings::new().with("B", 4)).unwrap();
    let out = evaluate(&bound, &inputs, |_| unreachable!("no state")).unwrap().outputs;
    assert_eq!(out[0].dims(), [4, 3, 2]);
    assert!(values(&out[0]).all(|v| v != 0.0));
}

#[test]
fn an_index_of_one_example_reads_no_other() {
    let m = ModuleBuilder::new("m");
    m.function("f", |f| {
        let (x, i) = (f.input("x", DType::F64, [2, 3]), f.input("i", DType::I32, [2]));
        f.output("y", vmap(&[(x, 0), (i, 0)], |e| vec![e[0].take(e[1], 0)])[0]);
    });
    let module = m.build().unwrap();
    let run = |i: Vec<i32>| {
        let inputs = [literal(1, &[2, 3]), Literal::new(&[2], i).unwrap()];
        evaluate(&module.functions[0], &inputs, |_| unreachable!("no state"))
    };
    assert!(run(vec![2, 0]).is_ok());
    let message = run(vec![3, 0]).unwrap_err().to_string();
    assert!(message.contains("index 3 at position 0 is out of range 0..3"), "{message}");
}

#[test]
fn maps_nest_and_may_be_empty() {
    let (a, b) = (literal(1, &[4, 3]), literal(2, &[5, 3]));
    let out = run(&[a.clone(), b.clone(), literal(3, &[0, 3])], |_, x| {
        let all =
            vmap(&[(x[0], 0)], |p| vmap(&[(x[1], 0)], |q| vec![(p[0] - q[0]).square().reduce_sum(&[0])]))[0];
        let none = vmap(&[(x[2], 0)], |e| vec![e[0].reduce_sum(&[0]), x[0]]);
        vec![all, none[0], none[1]]
    });
    assert_eq!(out[0].dims(), [4, 5]);
    for i in 0..4 {
        for j in 0..5 {
            let difference =
                |k: usize| values(&a).nth(3 * i + k).unwrap() - values(&b).nth(3 * j + k).unwrap();
            let expected: f64 = (0..3).map(|k| difference(k) * difference(k)).sum();
            assert!((values(&out[0]).nth(5 * i + j).unwrap() - expected).abs() < 1e-15);
        }
    }
    assert_eq!((out[1].dims(), out[2].dims()), (&[0][..], &[0, 4, 3][..]));
}

/// A function of two inputs whose results depend on all their elements.
fn mixed<'f>(x: Tensor<'f>, y: Tensor<'f>) -> Tensor<'f> {
    (x.dot(y).tanh() + y.square().reduce_prod(&[0])).exp()
}

#[test]
fn jacobians_agree_with_forward_and_reverse_mode() {
    let (x, y) = (literal(1, &[2, 3]), literal(2, &[3, 2]));
    let (v, u) = (literal(3, &[2, 3]), literal(4, &[2, 2]));
    let out = run(&[x, y, v.clone(), u.clone()], |_, x| {
        let z = mixed(x[0], x[1]);
        let j = jacobian(z, &x[..2]);
        vec![j[0], j[1], jvp(&[z], &[(x[0], x[2])])[0], vjp(&[(z, x[3])], &x[..1])[0]]
    });
    assert_eq!((out[0].dims(), out[1].dims()), (&[2, 2, 2, 3][..], &[2, 2, 3, 2][..]));
    let at = |l: &Literal, i: usize| l.get(i).to_f64();
    for row in 0..4 {
        let expected: f64 = (0..6).map(|c| at(&out[0], 6 * row + c) * at(&v, c)).sum();
        assert!((at(&out[2], row) - expected).abs() < 1e-13, "row {row}");
    }
    for column in 0..6 {
        let expected: f64 = (0..4).map(|r| at(&out[0], 6 * r + column) * at(&u, r)).sum();
        assert!((at(&out[3], column) - expected).abs() < 1e-13, "column {column}");
    }
}

#[test]
fn hessians_are_symmetric_and_their_products_are_known() {
    let (x, y) = (literal(1, &[2, 3]), literal(2, &[3, 2]));
    let (v, w) = (literal(3, &[2, 3]), literal(4, &[3, 2]));
    let out = run(&[x, y, v.clone(), w.clone()], |_, x| {
        let loss = mixed(x[0], x[1]).mean_all();
        let h = hessian(loss, &x[..2]);
        let products = hvp(loss, &[(x[0], x[2]), (x[1], x[3])]);
        vec![h[0][0], h[0][1], h[1][0], h[1][1], products[0], products[1]]
    });
    assert_eq!(out[1].dims(), [2, 3, 3, 2]);
    let at = |l: &Literal, i: usize| l.get(i).to_f64();
    for i in 0..6 {
        for j in 0..6 {
            let (a, b) = (at(&out[1], 6 * i + j), at(&out[2], 6 * j + i));
            assert!((a - b).abs() < 1e-13, "mixed derivatives {i}, {j}: {a} and {b}");
        }
        for k in 0..2 {
            let row =
                |block: &Literal, v: &Literal| (0..6).map(|j| at(block, 6 * i + j) * at(v, j)).sum::<f64>();
            let expected = row(&out[2 * k], &v) + row(&out[2 * k + 1], &w);
            assert!((at(&out[4 + k], i) - expected).abs() < 1e-13, "row {i} of input {k}");
        }
    }
}

/// What the documentation of `select` says of derivatives that are infinite in the branch not taken.
#[test]
fn a_select_inside_keeps_infinite_derivatives_out() {
    let out = run(&[vector(&[0.0, 4.0])], |f, x| {
        let (x, positive) = (x[0], x[0].gt(0.0));
        let one = f.full(DType::F64, [2], 1.0);
        let outside = positive.select(x.sqrt(), 0.0);
        let inside = positive.select(positive.select(x, 1.0).sqrt(), 0.0);
        let [outside, inside] = [outside, inside].map(|y| (y, gradients(y.reduce_sum(&[0]), &[x])[0]));
        vec![outside.1, inside.1, jvp(&[inside.0], &[(x, one)])[0]]
    });
    assert!(out[0].get(0).to_f64().is_nan(), "zero times infinity");
    assert_eq!(out[1], vector(&[0.0, 0.25]));
    assert_eq!(out[2], vector(&[0.0, 0.25]));
}
