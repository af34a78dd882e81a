//! Functions that several tests compile.

use graphc_ir::composite::cross_entropy;
use graphc_ir::{
    Combine, DType, FunctionBuilder, Literal, Module, ModuleBuilder, Scalar, ScanOptions, Tensor, gradients,
};

/// Numbers that look random and are the same every time, between -2 and 2.
pub(crate) fn numbers(dtype: DType, dims: &[usize], seed: u64) -> Literal {
    Literal::from_fn(dtype, dims, |i| {
        let x = (i as u64 + 1)
            .wrapping_mul(0x9e37_79b9_7f4a_7c15)
            .wrapping_add(seed.wrapping_mul(0x5851_f42d_4c95_7f2d));
        let x = (x ^ (x >> 29)).wrapping_mul(0xbf58_476d_1ce4_e5b9) >> 40;
        Scalar::F64(x as f64 / f64::from(1 << 22) - 2.0)
    })
}

/// A function `f` with operands for it.
pub(crate) struct Case {
    /// What it computes.
    pub(crate) name: &'static str,
    /// The module that it is in.
    pub(crate) module: Module,
    /// Operands.
    pub(crate) inputs: Vec<Literal>,
}

/// `(x - mean(x)) / sqrt(variance(x) + eps) * scale + shift` along the last axis of a matrix.
fn layer_norm<'f>(x: Tensor<'f>, scale: Tensor<'f>, shift: Tensor<'f>) -> Tensor<'f> {
    let shape = x.shape();
    let centered = x - x.mean(&[1]).broadcast(&shape, &[0]);
    let variance = centered.square().mean(&[1]);
    let normal = centered * (variance + 1e-5).rsqrt().broadcast(&shape, &[0]);
    normal * scale.broadcast(&shape, &[1]) + shift.broadcast(&shape, &[1])
}

fn case(
    name: &'static str,
    inputs: Vec<Literal>,
    body: impl FnOnce(&FunctionBuilder, &[Tensor<'_>]),
) -> Case {
    let b = ModuleBuilder::new("m");
    b.function("f", |f| {
        let inputs = inputs.iter().enumerate();
        let x: Vec<Tensor<'_>> =
            inputs.map(|(i, l)| f.input(&format!("x{i}"), l.dtype(), l.ty().shape)).collect();
        body(f, &x);
    });
    Case { name, module: b.build().expect("the case is well-formed"), inputs }
}

/// Functions that run through each row of a matrix several times.
pub(crate) fn row_cases(rows: usize, columns: usize) -> Vec<Case> {
    let x = numbers(DType::F32, &[rows, columns], 21);
    let ct = numbers(DType::F32, &[rows, columns], 22);
    let scale = numbers(DType::F32, &[columns], 23);
    let shift = numbers(DType::F32, &[columns], 24);
    let labels = Literal::from_fn(DType::I32, &[rows], |i| Scalar::I32((i * 7 % columns.max(1)) as i32));
    let mut cases = vec![
        case("softmax", vec![x.clone()], |f, x| f.output("y", x[0].softmax(1))),
        case("softmax_f64", vec![numbers(DType::F64, &[rows, columns], 25)], |f, x| {
            f.output("y", x[0].softmax(1));
        }),
        case("softmax_of_columns", vec![x.clone()], |f, x| f.output("y", x[0].softmax(0))),
        case("softmax_of_transposed", vec![x.clone()], |f, x| {
            f.output("y", x[0].transpose(&[1, 0]).softmax(1));
        }),
        case("softmax_gradient", vec![x.clone(), ct.clone()], |f, x| {
            let loss = (x[0].softmax(1) * x[1]).reduce_sum(&[0, 1]);
            f.output("dx", gradients(loss, &x[..1])[0]);
        }),
        case("layer_norm", vec![x.clone(), scale.clone(), shift.clone()], |f, x| {
            f.output("y", layer_norm(x[0], x[1], x[2]));
        }),
        case("layer_norm_gradient", vec![x.clone(), scale.clone(), shift, ct], |f, x| {
            let y = layer_norm(x[0], x[1], x[2]);
            f.output("y", y);
            let loss = (y * x[3]).reduce_sum(&[0, 1]);
            for (name, g) in ["dx", "dscale", "dshift"].into_iter().zip(gradients(loss, &x[..3])) {
                f.output(name, g);
            }
        }),
        case("rms_norm", vec![x.clone(), scale], |f, x| {
            let r = (x[0].square().mean(&[1]) + 1e-5).rsqrt();
            let shape = x[0].shape();
            let y = x[0] * r.broadcast(&shape, &[0]) * x[1].broadcast(&shape, &[1]);
            f.output("y", y);
            f.output("r", r);
        }),
        case("normal_columns", vec![x.clone()], |f, x| {
            let variance = x[0].variance(&[0]);
            let centered = x[0] - x[0].mean(&[0]).broadcast(x[0].shape(), &[1]);
            f.output("y", centered * (variance + 1e-5).rsqrt().broadcast(x[0].shape(), &[1]));
            f.output("variance", variance);
        }),
        case("activation_kept_for_norm", vec![x.clone()], |f, x| {
            let h = x[0].gelu();
            let shape = h.shape();
            let centered = h - h.mean(&[1]).broadcast(&shape, &[0]);
            f.output("y", centered * (centered.square().mean(&[1]) + 1e-5).rsqrt().broadcast(&shape, &[0]));
        }),
    ];
    // Without a class there is no label.
    if columns > 0 {
        cases.push(case("cross_entropy_gradient", vec![x, labels], |f, x| {
            let loss = cross_entropy(x[0], x[1]);
            f.output("loss", loss);
            f.output("log_p", x[0].log_softmax(1));
            f.output("dx", gradients(loss, &x[..1])[0]);
        }));
    }
    cases
}

/// Long reductions to one point.
pub(crate) fn long_cases() -> Vec<Case> {
    let long = [numbers(DType::F32, &[32 << 10], 31), numbers(DType::F32, &[70_001], 32)];
    let mut cases: Vec<Case> = long
        .into_iter()
        .map(|x| {
            case("sums", vec![x], |f, x| {
                let sum = x[0].reduce_sum(&[0]);
                f.output("norm", (x[0].square().reduce_sum(&[0]) + sum).sqrt());
                f.output("greatest", x[0].reduce_max(&[0]));
                f.output("sum", sum);
            })
        })
        .collect();
    let (x, y) = (numbers(DType::F32, &[7, 100, 170], 33), numbers(DType::F32, &[7, 100, 170], 34));
    cases.push(case("mean_squared_error", vec![x.clone(), y], |f, x| {
        f.output("loss", (x[0] - x[1]).square().mean_all());
    }));
    cases.push(case("of_transposed", vec![x.clone()], |f, x| {
        f.output("sum", x[0].transpose(&[2, 0, 1]).reduce_sum(&[0, 1, 2]));
    }));
    cases.push(case("of_columns_too", vec![x], |f, x| {
        f.output("sum", (x[0].abs() - x[0].mean(&[0]).broadcast(x[0].shape(), &[1, 2])).mean_all());
    }));
    cases.push(case("of_integers", vec![numbers(DType::I64, &[1, 300_000], 35)], |f, x| {
        f.output("least", x[0].reduce_min(&[1]));
        f.output("sum", x[0].reduce_sum(&[0, 1]));
    }));
    cases
}

/// Reductions of long columns: wide strips of them, whole blocks of rows and part of one.
pub(crate) fn column_cases() -> Vec<Case> {
    let of = |rows: usize, columns: usize| {
        let x = numbers(DType::F32, &[rows, columns], 38);
        case("columns", vec![x, numbers(DType::F32, &[columns], 39)], |f, x| {
            let centered = x[0] - x[1].broadcast(x[0].shape(), &[1]);
            f.output("sum", centered.reduce_sum(&[0]).tanh() * x[1]);
            f.output("greatest", centered.reduce_max(&[0]));
        })
    };
    let batched = case("batched", vec![numbers(DType::F32, &[3, 1024, 35], 40)], |f, x| {
        f.output("sum", x[0].square().reduce_sum(&[1]));
    });
    vec![of(1030, 70), of(2050, 300), batched]
}

/// Extents around those of vectors and blocks.
pub(crate) const SHAPES: [(usize, usize); 13] = [
    (3, 0),
    (0, 3),
    (5, 1),
    (1, 3),
    (70, 3),
    (33, 10),
    (3, 16),
    (4, 17),
    (3, 1000),
    (2, 1024),
    (3, 1025),
    (2, 2500),
    (1025, 2),
];

/// Functions with loops, branches and calls, most with their gradients.
pub(crate) fn control_cases() -> Vec<Case> {
    let of = |dims: &[usize], seed| numbers(DType::F32, dims, seed);
    let recurrent_inputs =
        vec![of(&[6, 3, 5], 1), of(&[3, 7], 2), of(&[5, 7], 3), of(&[7, 7], 4), of(&[7], 5)];
    let recurrent = |name, options: ScanOptions| {
        case(name, recurrent_inputs.clone(), |f, x| {
            let s = f.scan_with(&options, &[x[1]], &[x[0]], |_, h, e| {
                let h = (e[0].dot(x[2]) + h[0].dot(x[3]) + x[4]).tanh();
                (vec![h], vec![h * h])
            });
            let loss = s.stacked[0].reduce_sum(&[0, 1, 2]) + s.carries[0].reduce_sum(&[0, 1]);
            f.output("loss", loss);
            for (i, g) in gradients(loss, x).into_iter().enumerate() {
                f.output(&format!("d{i}"), g);
            }
        })
    };
    let plain = ScanOptions::default;
    let scalar = |v: f64| Literal::scalar(Scalar::F32(v as f32));
    let branches = |name, s: f64| {
        case(name, vec![of(&[300], 6), scalar(s)], |f, x| {
            let y =
                f.cond(x[1].gt(0.0), |_| vec![(x[0] * x[1]).sin(), x[0]], |_| vec![x[0] * x[0], x[0] + 1.0]);
            let loss = (y[0] * y[1]).reduce_sum(&[0]);
            f.output("y", y[1]);
            f.output("loss", loss);
            gradients(loss, x).into_iter().enumerate().for_each(|(i, g)| f.output(&format!("d{i}"), g));
        })
    };
    let look_up = |name, bad: i64| {
        let at = Literal::new(&[4], vec![0i64, 2, bad, 1]).expect("four elements");
        case(name, vec![of(&[3, 20], 7), at], |f, x| {
            let zero = f.full(DType::F32, [20], 0.0);
            let s = f.scan(&[zero], &[x[1]], |_, sum, at| {
                let row = x[0].take(at[0].reshape([1]), 0).reshape([20]);
                (vec![sum[0] + row], vec![at[0] + 1.0])
            });
            f.output("sum", s.carries[0]);
            f.output("next", s.stacked[0]);
        })
    };
    // One carry is stacked before and after each step, one only after it, one only before.
    let stacked = |name, reverse| {
        case(name, vec![of(&[6, 9], 8), of(&[9], 9)], |f, x| {
            let options = ScanOptions { reverse, ..plain() };
            let s = f.scan_with(&options, &[x[1]; 3], &[x[0]], |_, c, e| {
                let next = [c[0] * e[0] + c[1], c[1] - e[0], c[2] * c[0]];
                (next.to_vec(), vec![next[0], c[0], c[2], next[1], next[0]])
            });
            s.carries.iter().enumerate().for_each(|(i, &c)| f.output(&format!("c{i}"), c));
            s.stacked.iter().enumerate().for_each(|(i, &y)| f.output(&format!("y{i}"), y));
        })
    };
    // The gradient joins the gates, slices of one product.
    let gates = vec![of(&[4, 6, 68], 1), of(&[6, 17], 2), of(&[6, 17], 3), of(&[17, 68], 4)];
    let gated = case("gates", gates, |f, x| {
        let s = f.scan(&x[1..3], &x[..1], |f, c, e| {
            let z = e[0] + c[0].dot(x[3]);
            let gate = |i: usize| z.slice(&[0..6, 17 * i..17 * (i + 1)], &[1, 1]);
            let cell = gate(0).sigmoid() * gate(1).tanh() + gate(2).sigmoid() * c[1];
            let h = gate(3).sigmoid() * cell.tanh();
            (vec![h, cell], vec![h, f.concatenate(&[h, z.slice(&[0..6, 3..20], &[1, 1]), -h], 0)])
        });
        let loss = s.stacked[0].square().reduce_sum(&[0, 1, 2]) + s.carries[1].reduce_sum(&[0, 1]);
        f.output("loss", loss);
        f.output("joined", s.stacked[1]);
        gradients(loss, x).into_iter().enumerate().for_each(|(i, g)| f.output(&format!("d{i}"), g));
    });
    vec![
        gated,
        recurrent("recurrent", plain()),
        stacked("carries_among_the_stacked", false),
        stacked("carries_among_the_stacked_reverse", true),
        recurrent("recurrent_reverse", ScanOptions { reverse: true, ..plain() }),
        recurrent("recurrent_recomputed", ScanOptions { save_every: 1, ..plain() }),
        recurrent("recurrent_in_blocks", ScanOptions { save_every: 3, ..plain() }),
        recurrent("recurrent_truncated", ScanOptions { truncate_every: 2, ..plain() }),
        branches("first_branch", 0.5),
        branches("second_branch", -0.5),
        look_up("look_up", 1),
        look_up("look_up_out_of_range", 3),
        case("no_steps", vec![of(&[0, 9], 8), of(&[9], 9)], |f, x| {
            let s = f.scan(&[x[1]], &[x[0]], |_, h, e| (vec![h[0] * e[0]], vec![h[0]]));
            f.output("h", s.carries[0]);
            f.output("all", s.stacked[0]);
        }),
        case("one_step", vec![of(&[1, 9], 8), of(&[9], 9)], |f, x| {
            let s = f.scan(&[x[1]], &[x[0]], |_, h, e| (vec![h[0] * e[0]], vec![h[0]]));
            f.output("h", s.carries[0]);
            f.output("all", s.stacked[0]);
        }),
        case("carries_change_places", vec![of(&[5], 8), of(&[5], 9)], |f, x| {
            let options = ScanOptions { length: Some(7.into()), ..plain() };
            let s = f.scan_with(&options, x, &[], |_, c, _| (vec![c[1], c[0]], vec![c[1], c[1]]));
            f.output("a", s.carries[0]);
            f.output("b", s.carries[1]);
            f.output("all", s.stacked[1]);
            f.output("again", s.stacked[1]);
        }),
        case("nested", vec![of(&[3, 4], 10), scalar(0.7)], |f, x| {
            let outer = f.scan(&[x[1]], &[x[0]], |b, c, row| {
                let k = c[0] * 0.5;
                let inner = b
                    .scan(&[k], &[row[0]], |_, s, e| (vec![s[0] * e[0].sin() + x[1] * k], vec![s[0] + c[0]]));
                (vec![inner.carries[0]], vec![inner.stacked[0].reduce_sum(&[0])])
            });
            let loss = outer.carries[0] + outer.stacked[0].reduce_sum(&[0]);
            f.output("loss", loss);
            gradients(loss, x).into_iter().enumerate().for_each(|(i, g)| f.output(&format!("d{i}"), g));
        }),
        case("while", vec![scalar(1.5), of(&[33], 11)], |f, x| {
            let y = f.while_loop(
                &[x[0], x[1]],
                |_, c| c[0].lt(100.0),
                |_, c| vec![c[0] * 2.0, (c[1] * c[0]).tanh()],
            );
            f.output("n", y[0]);
            f.output("y", y[1]);
        }),
        case("while_never", vec![scalar(500.0), of(&[33], 11)], |f, x| {
            let y = f.while_loop(x, |_, c| c[0].lt(100.0), |_, c| vec![c[0] * 2.0, c[1] + 1.0]);
            f.output("n", y[0]);
            f.output("y", y[1]);
        }),
        case("checkpoint", vec![of(&[40, 30], 12), of(&[30, 50], 13)], |f, x| {
            let h = f.checkpoint(|_| vec![x[0].dot(x[1]).tanh()])[0];
            let h = f.custom_gradient(&[h], |_, h| vec![h[0].round()], |_, _, _, ct| vec![ct[0] * 2.0])[0];
            let loss = (h * h).reduce_sum(&[0, 1]);
            f.output("loss", loss);
            gradients(loss, x).into_iter().enumerate().for_each(|(i, g)| f.output(&format!("d{i}"), g));
        }),
    ]
}

/// Indices below `bound`, with repetitions.
fn picks(dims: &[usize], bound: usize) -> Literal {
    Literal::from_fn(DType::I32, dims, |i| Scalar::I32((i * i % 1009 % bound) as i32))
}

/// Functions that read and write where indices say, large enough for several units of work.
pub(crate) fn indexing_cases() -> Vec<Case> {
    let x = |dims: &[usize]| numbers(DType::F32, dims, 61);
    let y = |dims: &[usize]| numbers(DType::F32, dims, 62);
    let start = |i: i64| Literal::scalar(Scalar::I64(i));
    let mut cases = vec![
        case("embedding", vec![x(&[50, 200]), picks(&[20, 15], 50), y(&[20, 15, 200])], |f, x| {
            let rows = x[0].take(x[1], 0);
            f.output("softmax", rows.softmax(2));
            f.output("sum", rows.reduce_sum(&[1]));
            f.output("gradient", gradients((rows * x[2]).reduce_sum(&[0, 1, 2]), &x[..1])[0]);
        }),
        case("moved", vec![x(&[10, 4]), picks(&[5], 10), start(3), start(0)], |f, x| {
            let part = x[0].dynamic_slice(&x[2..4], [6, 4]);
            f.output("part", part.pad_axis(0, 2, 1, 7.0));
            f.output("flat", part.reshape([24]).pad_axis(0, 3, 5, 7.0).reverse(&[0]));
            f.output("split", part.reshape([3, 8]).transpose(&[1, 0]).pad_axis(1, 1, 1, 7.0));
            f.output("rows", x[0].take(x[1], 0).pad_axis(0, -1, 2, 7.0));
            f.output("product", part.transpose(&[1, 0]).dot(part));
        }),
        case("cache", vec![x(&[8, 40, 160]), y(&[8, 2, 160]), start(0), start(38)], |f, x| {
            let starts = [x[2], x[3], x[2]];
            let new = x[0].dynamic_update_slice(x[1], &starts);
            f.output("new", new);
            let loss = new.square().reduce_sum(&[0, 1, 2]);
            for (i, g) in gradients(loss, &x[..2]).into_iter().enumerate() {
                f.output(&format!("g{i}"), g);
            }
        }),
        case("constants", vec![x(&[6, 5])], |f, x| {
            let zero = f.scalar(DType::I32, 0.0);
            let ones = f.constant(Literal::full(&[3], Scalar::I64(1)));
            let same = f.constant(Literal::full(&[4, 5], Scalar::F32(2.5)));
            f.output("first", x[0].take(zero, 1));
            f.output("rows", x[0].take(ones, 0));
            f.output("same", same.take(ones, 0));
            f.output("added", x[0].scatter_add(ones, f.full(DType::F32, [3, 5], 0.25), 0));
            f.output("into", same.put_along_axis(Combine::Max, f.full(DType::I32, [4, 5], 3.0), same, 0));
            f.output("update", same.dynamic_update_slice(x[0].slice_axis(0, 0, 4), &[zero, zero]));
        }),
        // Convolutions have channels innermost.
        case(
            "channels",
            vec![x(&[2, 3, 7, 6]), y(&[8, 3, 3, 3]), picks(&[5], 8), picks(&[2, 8, 4, 6], 7)],
            |f, x| {
                let image = x[0].conv2d(x[1], 1, 1).max(0.0);
                let channels = image.take(x[2], 1);
                f.output("channels", channels * 0.5);
                let added = image.scatter_add(x[2], channels * channels, 1);
                f.output("added", added.reduce_sum(&[2, 3]));
                let along = image.take_along_axis(x[3], 2);
                let put = image.put_along_axis(Combine::Max, x[3], along * 2.0, 2);
                f.output("put", put.max_pool2d(2, 2, 0));
                f.output("gradient", gradients(put.square().reduce_sum(&[0, 1, 2, 3]), &x[1..2])[0]);
            },
        ),
        case("second derivative of pooling", vec![x(&[2, 3, 9, 8]), y(&[3, 3, 3, 3])], |f, x| {
            let pooled = x[0].conv2d(x[1], 1, 1).max_pool2d(3, 2, 1);
            let first = gradients(pooled.square().mean_all(), &x[1..2])[0];
            f.output("second", gradients(first.square().mean_all(), &x[1..2])[0]);
        }),
        // There is no legal index.
        case("nothing to read", vec![x(&[0, 4]), picks(&[3], 9)], |f, x| f.output("y", x[0].take(x[1], 0))),
        case("nothing to write", vec![x(&[0, 4]), picks(&[3], 9), y(&[3, 4])], |f, x| {
            f.output("y", x[0].scatter_add(x[1], x[2], 0));
        }),
    ];
    for combine in Combine::ALL {
        let inputs = vec![x(&[300, 150]), picks(&[200, 130], 150), y(&[200, 130])];
        let along = |axis: usize| {
            move |f: &FunctionBuilder, x: &[Tensor<'_>]| {
                let put = x[0].put_along_axis(combine, x[1], x[2], axis);
                f.output("put", put);
                for (i, g) in gradients(put.square().mean_all(), &[x[0], x[2]]).into_iter().enumerate() {
                    f.output(&format!("g{i}"), g);
                }
            }
        };
        cases.push(case(combine.name(), inputs.clone(), along(0)));
        cases.push(case(combine.name(), inputs, along(1)));
    }
    cases
}
