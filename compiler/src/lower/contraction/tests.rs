//! Contractions of many shapes, for all widths of vectors, against the interpreter.

use super::shape::Tile;
use crate::assemble::{Limits, assemble};
use crate::codegen::Isa;
use crate::compile::state_layout;
use crate::fuse::{Fusion, fuse};
use crate::lower::Target;
use crate::operands::make_direct;
use crate::vector::interp::run_program;
use crate::{kernel, optimize, vector};
use graphc_ir::ops::ConvConfig;
use graphc_ir::{DType, Literal, Module, ModuleBuilder, Scalar, evaluate, gradients};
use rustc_hash::{FxHashMap, FxHashSet};

/// 128, 256 and 512 bits.
const TARGETS: [Target; 3] = [Target::V128, Target::of(Isa::Avx2, 2), Target::of(Isa::Avx512, 3)];

fn numbers(dtype: DType, dims: &[usize], seed: u64) -> Literal {
    let at = |i: usize| (i as u64 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15).wrapping_mul(2 * seed + 1) >> 48;
    Literal::from_fn(dtype, dims, |i| Scalar::from_f64(dtype, (at(i) as f64 / 16384.0 - 2.0) * 4.0))
}

/// Compares the schedules for all targets with the interpreter. Gives the kernels' names.
fn check(module: &Module, inputs: &[Literal]) -> Vec<String> {
    let f = module.function("f").unwrap();
    let expected = evaluate(f, inputs, |_| unreachable!("no state")).unwrap();
    let layout = state_layout(module).unwrap();
    let (optimized, _) = optimize(f, &crate::PassOptions::default()).unwrap();
    let mut names = Vec::new();
    for target in &TARGETS {
        let mut fused = fuse(&optimized, Fusion::Full);
        make_direct(&mut fused, &FxHashSet::default(), target);
        let limits = Limits { threads: 3, budget: None, guard: false, fence: None };
        let assembled = assemble(&optimized, fused, FxHashMap::default(), ("", 1), &layout, target, limits);
        let p = assembled.unwrap().program;
        p.kernels.iter().for_each(|k| assert_eq!(kernel::verify::verify(k, &p.buffers), Ok(())));
        for s in &p.scheduled {
            assert_eq!(vector::verify::verify(&s.function, &p.buffers), Ok(()));
        }
        let got = run_program(&p, inputs, &mut Vec::new(), 3).unwrap();
        for (e, g) in expected.outputs.iter().zip(&got) {
            let different = (0..e.len()).find(|&i| e.get(i) != g.get(i));
            assert_eq!(different.map(|i| (i, e.get(i), g.get(i))), None, "{target:?} {}", module.name);
        }
        names = p.kernels.iter().map(|k| k.name.clone()).collect();
    }
    names
}

fn product(dtype: DType, m: usize, k: usize, n: usize, transposed: [bool; 2]) -> Vec<String> {
    let b = ModuleBuilder::new(&format!("{dtype} {m} {k} {n} {transposed:?}"));
    let dims = |t: bool, a: usize, b: usize| if t { [b, a] } else { [a, b] };
    let (x_dims, y_dims) = (dims(transposed[0], m, k), dims(transposed[1], k, n));
    b.function("f", |f| {
        let (x, y) = (f.input("x", dtype, x_dims), f.input("y", dtype, y_dims));
        let x = if transposed[0] { x.transpose(&[1, 0]) } else { x };
        let y = if transposed[1] { y.transpose(&[1, 0]) } else { y };
        f.output("z", x.dot(y));
    });
    check(&b.build().unwrap(), &[numbers(dtype, &x_dims, 1), numbers(dtype, &y_dims, 2)])
}

#[test]
fn products_of_many_shapes() {
    for dtype in [DType::F32, DType::F64, DType::I32, DType::I64, DType::U8] {
        for (m, k, n) in [(1, 40, 70), (33, 17, 70), (61, 9, 1), (2, 1, 3), (7, 12, 31), (90, 64, 90)] {
            assert_eq!(product(dtype, m, k, n, [false; 2]).len(), 1);
        }
        for (m, k, n) in [(0, 3, 4), (3, 0, 40), (3, 4, 0)] {
            product(dtype, m, k, n, [false; 2]);
        }
    }
}

#[test]
fn a_long_sum_is_taken_in_blocks() {
    for (m, k, n) in [(17, 2051, 21), (1, 5000, 40), (3, 4096, 1)] {
        product(DType::F32, m, k, n, [false; 2]);
    }
}

#[test]
fn what_is_not_in_order_is_copied_first() {
    let names = product(DType::F32, 23, 34, 45, [true, true]);
    assert_eq!(names, ["k0_dot_general_rhs0", "k0_dot_general"]);
    // Rows that collide in the cache.
    let names = product(DType::F32, 32, 1024, 32, [false; 2]);
    assert_eq!(names, ["k0_dot_general_lhs0", "k0_dot_general"]);
    // Positions of k that do.
    let names = product(DType::F32, 1024, 32, 32, [true, false]);
    assert_eq!(names, ["k0_dot_general_lhs0", "k0_dot_general"]);
    // Rows of a large factor that is read too seldom.
    let b = ModuleBuilder::new("seldom");
    b.function("f", |f| {
        let (x, y) = (f.input("x", DType::F32, [1024, 1024]), f.input("y", DType::F32, [8, 32]));
        f.output("z", x.slice_axis(1, 8, 16).dot(y));
    });
    let inputs = [numbers(DType::F32, &[1024, 1024], 1), numbers(DType::F32, &[8, 32], 2)];
    assert_eq!(check(&b.build().unwrap(), &inputs), ["k0_dot_general"]);
}

#[test]
fn panels_of_far_rows_are_copied() {
    let cases = [
        (65, 110, 256, DType::F32),
        (66, 700, 70, DType::F32),
        (40, 1100, 132, DType::F32),
        (32, 4100, 64, DType::F32),
        (33, 32, 1024, DType::F32),
        (32, 260, 512, DType::F32),
        (64, 260, 65, DType::F64),
    ];
    for (m, k, n, dtype) in cases {
        assert_eq!(product(dtype, m, k, n, [false; 2]).len(), 1, "{m} {k} {n}");
    }
}

#[test]
fn few_rows_stream_the_right_factor() {
    for (m, k, n, dtype) in
        [(1, 515, 1024, DType::F32), (3, 70, 8192, DType::F32), (2, 140, 2048, DType::F64)]
    {
        assert_eq!(product(dtype, m, k, n, [false; 2]).len(), 1, "{m} {k} {n}");
    }
}

#[test]
fn epilogues_of_any_length() {
    for (m, n) in [(40, 35), (1, 100), (80, 80), (70, 600)] {
        let b = ModuleBuilder::new("epilogue");
        b.function("f", |f| {
            let (x, y) = (f.input("x", DType::F32, [m, 20]), f.input("y", DType::F32, [20, n]));
            let bias = f.input("b", DType::F32, [n]).broadcast([m, n], &[1]);
            let z = x.dot(y) + bias;
            f.output("z", z.max(0.0));
            f.output("t", (z * 0.125).tanh() + (z * z).sigmoid());
        });
        let of = |dims: &[usize], seed| numbers(DType::F32, dims, seed);
        check(&b.build().unwrap(), &[of(&[m, 20], 3), of(&[20, n], 4), of(&[n], 5)]);
    }
}

#[test]
fn convolutions_with_padding_and_their_gradients() {
    let cases = [
        ([2, 3, 11, 9], 4, 3, 1, 1),
        ([1, 5, 12, 13], 3, 5, 2, 3),
        ([2, 24, 40, 40], 2, 3, 1, 1),
        ([3, 2, 34, 34], 3, 3, 1, 1),
        // Whole boxes are outside.
        ([1, 2, 5, 40], 2, 3, 1, 40),
    ];
    for (x_dims, out, size, stride, padding) in cases {
        let w_dims = [out, x_dims[1], size, size];
        let b = ModuleBuilder::new(&format!("{x_dims:?} {out} {size} {stride} {padding}"));
        b.function("f", |f| {
            let (x, w) = (f.input("x", DType::F32, x_dims), f.input("w", DType::F32, w_dims));
            let y = x.conv2d(w, stride, padding);
            f.output("y", y.max(0.0));
            let loss = (y * y).reduce_sum(&[0, 1, 2, 3]);
            for (name, g) in ["dx", "dw"].into_iter().zip(gradients(loss, &[x, w])) {
                f.output(name, g);
            }
        });
        check(&b.build().unwrap(), &[numbers(DType::F32, &x_dims, 6), numbers(DType::F32, &w_dims, 7)]);
    }
}

#[test]
fn depthwise_convolutions_have_lanes_along_channels() {
    for (x_dims, size, stride, padding) in
        [([2, 9, 11, 8], 3, 1, 1), ([1, 40, 6, 7], 5, 2, 2), ([3, 16, 9, 9], 3, 1, 0)]
    {
        let channels = x_dims[1];
        let b = ModuleBuilder::new(&format!("depthwise {x_dims:?} {size} {stride} {padding}"));
        b.function("f", |f| {
            let (x, w) =
                (f.input("x", DType::F32, x_dims), f.input("w", DType::F32, [channels, 1, size, size]));
            // A buffer of its own, whose order may be chosen.
            let x = x.exp();
            let config = ConvConfig::new(2).strides(&[stride; 2]).padding(&[(padding, padding); 2]);
            let y = x.conv(w, &config.groups(channels));
            f.output("y", y.max(0.0));
            let loss = (y * y).reduce_sum(&[0, 1, 2, 3]);
            for (name, g) in ["dx", "dw"].into_iter().zip(gradients(loss, &[x, w])) {
                f.output(name, g);
            }
        });
        let w = numbers(DType::F32, &[channels, 1, size, size], 9);
        check(&b.build().unwrap(), &[numbers(DType::F32, &x_dims, 8), w]);
    }
}

#[test]
fn tiles_fill_the_registers() {
    let tile = |m: i64, n: i64, target: &Target| {
        let t = Tile::best(&[m], &[1], n, DType::F32, target, 1..=128);
        (t.rows, t.lanes)
    };
    assert_eq!(TARGETS.map(|t| tile(840, 1024, &t)), [(5, 8), (6, 16), (14, 32)]);
    assert_eq!(tile(112, 16, &TARGETS[2]), (28, 16));
    assert_eq!(TARGETS.map(|t| tile(1, 960, &t).0), [1, 1, 1]);
    let far = Tile::best(&[840], &[1040], 1024, DType::F32, &TARGETS[2], 1..=64);
    assert_eq!((far.rows, far.lanes), (6, 64));
}
