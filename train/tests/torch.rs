//! Layers, losses and optimizers against PyTorch: values, gradients and trajectories of the cases of `golden/torch.json`, which
//! `golden/generate.py` wrote and describes.

use graphc_ir::{DType, Initializer, Literal, ModuleBuilder, Scalar, Tensor, evaluate, gradients};
use graphc_train::loss::{self, CrossEntropy};
use graphc_train::nn::*;
use graphc_train::optim::*;
use serde_json::Value;
use std::sync::LazyLock;

static CASES: LazyLock<Value> =
    LazyLock::new(|| serde_json::from_str(include_str!("golden/torch.json")).unwrap());

fn numbers(value: &Value) -> Vec<f64> {
    value.as_array().unwrap().iter().map(|v| v.as_f64().unwrap()).collect()
}

fn wave(dtype: DType, dims: &[usize], a: f64, b: f64, scale: f64) -> Literal {
    Literal::from_fn(dtype, dims, |i| Scalar::F64((a * i as f64 + b).sin() * scale))
}

/// What a case computes from its inputs, once its parameters are declared.
type Body = Box<dyn for<'f> Fn(&[Tensor<'f>]) -> Tensor<'f>>;

fn body(f: impl for<'f> Fn(&[Tensor<'f>]) -> Tensor<'f> + 'static) -> Body {
    Box::new(f)
}

fn check(name: &str, dtype: DType, shapes: &[&[usize]], declare: impl FnOnce(&ModuleBuilder) -> Body) {
    let m = ModuleBuilder::new("m");
    let y = declare(&m);
    m.function("f", |f| {
        let x: Vec<_> =
            shapes.iter().enumerate().map(|(j, s)| f.input(&format!("x{j}"), dtype, *s)).collect();
        let y = y(&x);
        let n = y.shape().num_elements().unwrap();
        let flat = y.reshape([n]);
        let weights = f.constant(Literal::from_fn(dtype, &[n], |i| Scalar::F64((0.23 * i as f64).cos())));
        let params: Vec<_> = f.trainable().iter().map(|p| f.read(p)).collect();
        let wrt = [&x[..], &params].concat();
        let gradients = gradients((flat * weights).reduce_sum(&[0]), &wrt);
        f.output("y", flat);
        gradients.iter().enumerate().for_each(|(i, g)| f.output(&format!("g{i}"), *g));
    });
    let module = m.build().unwrap_or_else(|e| panic!("{name}: {e}"));
    let inputs: Vec<_> =
        shapes.iter().enumerate().map(|(j, s)| wave(dtype, s, 0.61, 0.9 * j as f64 + 0.2, 1.0)).collect();
    let mut k = 0;
    let state: Vec<Literal> = module
        .state
        .iter()
        .map(|s| {
            let dims = s.ty.shape.as_static().unwrap();
            k += usize::from(s.trainable);
            match s.init {
                Initializer::Constant(c) if !s.trainable => {
                    Literal::full(&dims, Scalar::from_f64(s.ty.dtype, c))
                }
                _ => wave(s.ty.dtype, &dims, 0.37, 1.3 * (k - 1) as f64, 0.5),
            }
        })
        .collect();
    let out = evaluate(&module.functions[0], &inputs, |id| state[id.index()].clone()).unwrap().outputs;
    let case = &CASES[name];
    let tolerance = if dtype == DType::F64 { 1e-12 } else { 2e-6 };
    let compare = |what: &str, got: &[f64], want: &[f64]| {
        assert_eq!(got.len(), want.len(), "{name}: {what}");
        let scale = want.iter().fold(1.0f64, |a, b| a.max(b.abs()));
        for (i, (a, b)) in got.iter().zip(want).enumerate() {
            assert!((a - b).abs() <= tolerance * scale, "{name}: {what}[{i}] is {a} instead of {b}");
        }
    };
    let values = |l: &Literal| (0..l.len()).map(|i| l.get(i).to_f64()).collect::<Vec<_>>();
    compare("y", &values(&out[0]), &numbers(&case["y"]));
    let dx = case["dx"].as_array().unwrap();
    assert_eq!(dx.len(), inputs.len());
    for (j, want) in dx.iter().enumerate() {
        compare(&format!("dx{j}"), &values(&out[1 + j]), &numbers(want));
    }
    let norms: Vec<f64> =
        out[1 + dx.len()..].iter().map(|g| values(g).iter().map(|v| v * v).sum::<f64>().sqrt()).collect();
    compare("dp", &norms, &numbers(&case["dp"]));
}

fn layer<L: Layer + 'static>(name: &str, shape: &[usize], declare: impl FnOnce(&ModuleBuilder) -> L) {
    check(name, DType::F32, &[shape], |m| {
        let layer = declare(m);
        body(move |x| layer.train(x[0]))
    });
}

#[test]
fn recurrent_layers() {
    let two = RecurrentOptions { layers: 2, bidirectional: true, ..RecurrentOptions::default() };
    let both = RecurrentOptions { bidirectional: true, ..RecurrentOptions::default() };
    let one = RecurrentOptions::default();
    let cases: [(&str, Cell, &RecurrentOptions, Option<[i32; 3]>); 8] = [
        ("rnn", Cell::Tanh, &one, None),
        ("rnn_relu", Cell::Relu, &one, None),
        ("lstm", Cell::Lstm, &one, None),
        ("gru", Cell::Gru, &one, None),
        ("gru_bidirectional", Cell::Gru, &both, None),
        ("lstm_stacked", Cell::Lstm, &two, None),
        ("lstm_lengths", Cell::Lstm, &two, Some([5, 2, 3])),
        ("gru_lengths", Cell::Gru, &both, Some([1, 5, 4])),
    ];
    for (name, cell, options, lengths) in cases {
        check(name, DType::F32, &[&[3, 5, 2]], |m| {
            let layer = Recurrent::with(m, "r", cell, 2, 3, options);
            body(move |x| {
                let f = x[0].builder();
                let lengths = lengths.map(|l| f.constant(Literal::new(&[3], l.to_vec()).unwrap()));
                let result = layer.run(x[0], &Run { lengths, ..Run::default() });
                let parts = [&[result.output][..], &result.state.hidden, &result.state.cell].concat();
                let flat: Vec<_> =
                    parts.iter().map(|p| p.reshape([p.shape().num_elements().unwrap()])).collect();
                f.concatenate(&flat, 0)
            })
        });
    }
}

#[test]
fn dense_and_convolution() {
    layer("dense", &[2, 5, 4], |m| Dense::new(m, "d", 4, 3));
    layer("conv1d", &[2, 4, 9], |m| {
        let options = ConvOptions { stride: [2], padding: [1], dilation: [2], groups: 2, bias: true };
        Conv1d::with(m, "c", 4, 6, [3], options)
    });
    layer("conv3d", &[1, 2, 3, 4, 3], |m| Conv3d::new(m, "c", 2, 3, 2, 1, 0));
    layer("conv_transpose2d", &[2, 3, 3, 4], |m| {
        let options = ConvTransposeOptions { stride: [2; 2], padding: [1; 2], output_padding: [1; 2] };
        ConvTranspose2d::new(m, "c", 3, 2, [3, 3], options)
    });
}

#[test]
fn pooling_and_padding() {
    layer("avg_pool", &[1, 2, 5, 6], |_| AvgPool::<2>::with_stride(3, 2, 1));
    layer("adaptive_avg_pool", &[1, 2, 5, 7], |_| AdaptiveAvgPool([2, 3]));
    layer("adaptive_max_pool", &[1, 2, 5, 7], |_| AdaptiveMaxPool([2, 3]));
    layer("reflect", &[1, 2, 3, 4], |_| Pad::new(Padding::Reflect, [(1, 0), (2, 1)]));
    layer("replicate", &[1, 2, 3, 4], |_| Pad::new(Padding::Replicate, [(1, 0), (2, 1)]));
}

#[test]
fn normalization() {
    layer("layer_norm", &[2, 3, 6], |m| LayerNorm::new(m, "n", 6));
    layer("rms_norm", &[2, 3, 6], |m| RmsNorm::new(m, "n", 6));
    layer("group_norm", &[2, 6, 3], |m| GroupNorm::new(m, "n", 2, 6));
    layer("batch_norm", &[2, 3, 2, 2], |m| BatchNorm::new(m, "n", 3));
}

#[test]
fn attention_and_transformer() {
    let causal = AttentionOptions { causal: true, ..AttentionOptions::default() };
    layer("attention", &[2, 4, 6], |m| MultiHeadAttention::new(m, "a", 6, 2, AttentionOptions::default()));
    layer("attention_causal", &[2, 4, 6], |m| MultiHeadAttention::new(m, "a", 6, 2, causal));
    check("attention_cross", DType::F32, &[&[2, 4, 6], &[2, 3, 6]], |m| {
        let layer = MultiHeadAttention::new(m, "a", 6, 2, AttentionOptions::default());
        body(move |x| layer.attend(x[0], x[1], None))
    });
    layer("transformer", &[2, 4, 6], |m| {
        let options = TransformerOptions { causal: true, ..TransformerOptions::default() };
        TransformerBlock::new(m, "b", 6, 2, options)
    });
}

#[test]
fn losses() {
    const S: &[usize] = &[4, 4];
    fn check_loss(
        name: &str,
        shapes: &[&[usize]],
        loss: impl for<'f> Fn(&[Tensor<'f>]) -> Tensor<'f> + 'static,
    ) {
        check(name, DType::F64, shapes, |_| {
            body(move |x| loss(&x.iter().map(|&x| x * 3.0).collect::<Vec<_>>()))
        });
    }
    fn ints<'f>(like: Tensor<'f>, values: [i32; 4]) -> Tensor<'f> {
        like.builder().constant(Literal::new(&[4], values.to_vec()).unwrap())
    }
    fn signs<'f>(like: Tensor<'f>) -> Tensor<'f> {
        ints(like, [1, -1, -1, 1]).cast(DType::F64)
    }
    const LABELS: [i32; 4] = [2, 0, 1, 3];
    const IGNORED: [i32; 4] = [2, -1, 1, -1];
    const WEIGHTS: [f64; 4] = [0.5, 2.0, 1.0, 0.25];
    check_loss("mse", &[S, S], |x| loss::mse(x[0], x[1]));
    check_loss("mae", &[S, S], |x| loss::mae(x[0], x[1]));
    check_loss("huber", &[S, S], |x| loss::huber(x[0], x[1], 0.7));
    check_loss("smooth_l1", &[S, S], |x| loss::smooth_l1(x[0], x[1], 0.7));
    check_loss("bce", &[S, S], |x| loss::bce_with_logits(x[0], x[1].sigmoid()));
    check_loss("cross_entropy", &[S], |x| loss::cross_entropy(x[0], ints(x[0], LABELS)));
    check_loss("cross_entropy", &[S], |x| CrossEntropy::new().apply(x[0], ints(x[0], LABELS)));
    check_loss("cross_entropy_ignore", &[S], |x| {
        CrossEntropy::new().ignore(-1).apply(x[0], ints(x[0], IGNORED))
    });
    check_loss("cross_entropy_smooth", &[S], |x| {
        CrossEntropy::new().smoothing(0.1).apply(x[0], ints(x[0], LABELS))
    });
    check_loss("cross_entropy_weights", &[S], |x| {
        CrossEntropy::new().weights(&WEIGHTS).apply(x[0], ints(x[0], LABELS))
    });
    check_loss("cross_entropy_all", &[S], |x| {
        CrossEntropy::new().weights(&WEIGHTS).smoothing(0.2).ignore(-1).apply(x[0], ints(x[0], IGNORED))
    });
    check_loss("soft_cross_entropy", &[S, S], |x| loss::soft_cross_entropy(x[0], x[1].softmax(1)));
    check_loss("nll", &[S], |x| loss::nll(x[0].log_softmax(1), ints(x[0], LABELS)));
    check_loss("kl_divergence", &[S, S], |x| loss::kl_divergence(x[0].log_softmax(1), x[1].softmax(1)));
    check_loss("gaussian_kl", &[S, S], |x| loss::gaussian_kl(x[0], x[1]));
    check_loss("hinge", &[&[4]], |x| loss::hinge(x[0], signs(x[0])));
    check_loss("cosine_embedding", &[S, S], |x| loss::cosine_embedding(x[0], x[1], signs(x[0]), 0.2));
    check_loss("triplet", &[S, S, S], |x| loss::triplet(x[0], x[1], x[2], 1.5));
}

/// Losses stay finite, or infinite where they truly are, and so do their gradients, far from the centre.
#[test]
fn losses_at_extremes() {
    let check = |name: &str, x: [f64; 4], loss: fn(Tensor<'_>) -> Tensor<'_>| {
        let m = ModuleBuilder::new("m");
        m.function("f", |f| {
            let x = f.input("x", DType::F32, [1, 4]);
            let y = loss(x);
            f.output("y", y);
            f.output("dx", gradients(y, &[x])[0]);
        });
        let module = m.build().unwrap();
        let x = Literal::from_fn(DType::F32, &[1, 4], |i| Scalar::F64(x[i]));
        let out = evaluate(&module.functions[0], &[x], |_| unreachable!("no state")).unwrap().outputs;
        let all = out.iter().flat_map(|l| l.as_slice::<f32>().unwrap()).all(|v| v.is_finite());
        assert!(all, "{name}: {out:?}");
    };
    let far = [1e4, -1e4, 88.0, 0.0];
    check("cross entropy", far, |x| {
        let label = x.builder().constant(Literal::new(&[1], vec![1i32]).unwrap());
        CrossEntropy::new().smoothing(0.1).apply(x, label)
    });
    check("soft", far, |x| loss::soft_cross_entropy(x, x.full_like(0.25)));
    check("bce", far, |x| loss::bce_with_logits(x, x.full_like(1.0)));
    check("kl", [0.0, 0.0, 1.0, 0.0], |x| loss::kl_divergence(x.full_like(-1.4), x));
    check("huber", [1e30, -1e30, 0.0, 1e-30], |x| loss::huber(x, x.full_like(0.0), 1.0));
    check("cosine of zeros", [0.0; 4], |x| {
        let one = x.builder().full(DType::F32, [1], 1.0);
        loss::cosine_embedding(x, x.full_like(1.0), one, 0.0)
    });
    check("triplet of equals", [1e-6; 4], |x| loss::triplet(x, x, x.full_like(1.0), 5.0));
}

#[test]
fn optimizers() {
    let optimizers: [(&str, Box<dyn Optimizer>); 10] = [
        ("sgd", Box::new(Sgd::new(0.01).nesterov(0.9).weight_decay(0.1))),
        ("adam", Box::new(Adam::new(0.01).weight_decay(0.1))),
        ("amsgrad", Box::new(Adam::new(0.01).betas(0.9, 0.5).amsgrad())),
        ("adamw", Box::new(Adam::with_decoupled_decay(0.01, 0.1))),
        ("adagrad", Box::new(Adagrad::new(0.05).lr_decay(0.1).weight_decay(0.1).initial(0.5))),
        ("adadelta", Box::new(Adadelta::new(1.0).weight_decay(0.1))),
        ("rmsprop", Box::new(RmsProp::new(0.01).alpha(0.9).momentum(0.5).weight_decay(0.1))),
        ("rmsprop_centered", Box::new(RmsProp::new(0.01).alpha(0.9).centered())),
        ("adamax", Box::new(Adamax::new(0.01).weight_decay(0.1))),
        ("nadam", Box::new(Nadam::new(0.01).weight_decay(0.1))),
    ];
    for (name, optimizer) in optimizers {
        let m = ModuleBuilder::new("m");
        let p = m.param("p", DType::F64, [5], Initializer::ZEROS);
        train_step(&m, "t", &optimizer, |f| (f.read(&p) * f.input("g", DType::F64, [5])).reduce_sum(&[0]));
        let module = m.build().unwrap();
        let mut state: Vec<Literal> = module
            .state
            .iter()
            .map(|s| match s.init {
                Initializer::Constant(c) => {
                    Literal::full(&s.ty.shape.as_static().unwrap(), Scalar::from_f64(s.ty.dtype, c))
                }
                _ => unreachable!("all start as constants"),
            })
            .collect();
        state[0] = Literal::from_fn(DType::F64, &[5], |i| Scalar::F64(0.5 - 0.25 * i as f64));
        let expected = numbers(&CASES[&format!("optim_{name}")]["y"]);
        for (t, expected) in (1..).zip(expected.chunks(5)) {
            let g = |i: usize| {
                if i == 4 { 0.0 } else { 4.0 * 10f64.powi(i as i32 - 2) * (0.7 * (5 * t + i) as f64).sin() }
            };
            let g = Literal::from_fn(DType::F64, &[5], |i| Scalar::F64(g(i)));
            let done = evaluate(&module.functions[0], &[g], |id| state[id.index()].clone()).unwrap();
            done.updates.into_iter().for_each(|(id, value)| state[id.index()] = value);
            for (a, b) in state[0].as_slice::<f64>().unwrap().iter().zip(expected) {
                // The learning rate is an f32.
                assert!((a - b).abs() <= 1e-7 * b.abs().max(1.0), "{name}, step {t}: {a} instead of {b}");
            }
        }
    }
}
