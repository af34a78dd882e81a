//! Single operations, each in a function of its own.

use super::generator::{Values, input};
use super::prepared::{Prepared, Setup};
use super::{Peak, round};
use crate::Failure;
use graphc::optim::{Adam, LEARNING_RATE, Optimizer};
use graphc::{DType, FunctionBuilder, Initializer, Module, ModuleBuilder, Tensor, vjp};
use serde_json::{Value, json};

/// Declares an operation on the inputs; gives what is to be computed.
type Declare = Box<dyn for<'f> Fn(&'f FunctionBuilder, &[Tensor<'f>]) -> Vec<Tensor<'f>>>;

/// What bounds an operation.
enum Work {
    /// Floating-point operations.
    Flops(usize),
    /// Bytes read and written at least.
    Bytes(usize),
}

/// A single operation.
pub(super) struct Operation {
    pub(super) name: String,
    work: Work,
    /// Shapes of the inputs, `f32`, uniform on [-1, 1).
    inputs: Vec<Vec<usize>>,
    declare: Declare,
}

/// Images, height, width and channels of the convolutions: images are channels-last outside of the
/// function too.
const CONV: [usize; 4] = [8, 56, 56, 64];
const KERNEL: [usize; 4] = [64, 64, 3, 3];
/// Rows and columns.
const SOFTMAX: [usize; 2] = [4096, 1024];
const NORM: [usize; 2] = [2048, 768];
/// Elements that fit in a cache, and elements that do not.
const SMALL: usize = 1 << 20;
const LARGE: usize = 10_000_000;

/// All operations.
pub(super) fn all() -> Vec<Operation> {
    [products(), convolutions(), rows(), elements()].into_iter().flatten().collect()
}

fn products() -> Vec<Operation> {
    let squares = [32, 64, 128, 256, 512, 1024, 2048].map(|n| (n, n, n));
    let shapes = squares.into_iter().chain([(32, 512, 512), (1, 1024, 1024), (128, 784, 512)]);
    let product = |(m, k, n)| {
        let work = Work::Flops(2 * m * k * n);
        Operation::new(&format!("gemm_{m}_{k}_{n}"), work, &[&[m, k], &[k, n]], |_, x| vec![x[0].dot(x[1])])
    };
    let inputs: [&[usize]; 3] = [&[128, 784], &[784, 512], &[512]];
    let fused = Operation::new("gemm_bias_relu", Work::Flops(2 * 128 * 784 * 512), &inputs, |_, x| {
        vec![(x[0].dot(x[1]) + x[2]).relu()]
    });
    shapes.map(product).chain([fused]).collect()
}

fn convolutions() -> Vec<Operation> {
    fn conv<'f>(x: Tensor<'f>, w: Tensor<'f>) -> Tensor<'f> {
        x.transpose(&[0, 3, 1, 2]).conv2d(w, 1, 1).transpose(&[0, 2, 3, 1])
    }
    let flops = 2 * CONV.iter().product::<usize>() * KERNEL[1..].iter().product::<usize>();
    let backward: [&[usize]; 3] = [&CONV, &KERNEL, &CONV];
    vec![
        Operation::new("conv3x3_fwd", Work::Flops(flops), &[&CONV, &KERNEL], |_, x| vec![conv(x[0], x[1])]),
        Operation::new("conv3x3_bias_relu", Work::Flops(flops), &[&CONV, &KERNEL, &[KERNEL[0]]], |_, x| {
            vec![(conv(x[0], x[1]) + x[2]).relu()]
        }),
        Operation::new("conv3x3_bwd_data", Work::Flops(flops), &backward, |_, x| {
            vjp(&[(conv(x[0], x[1]), x[2])], &x[..1])
        }),
        Operation::new("conv3x3_bwd_weights", Work::Flops(flops), &backward, |_, x| {
            vjp(&[(conv(x[0], x[1]), x[2])], &x[1..2])
        }),
        Operation::new("conv3x3_bwd", Work::Flops(2 * flops), &backward, |_, x| {
            vjp(&[(conv(x[0], x[1]), x[2])], &x[..2])
        }),
    ]
}

fn rows() -> Vec<Operation> {
    let norm: [&[usize]; 4] = [&NORM, &NORM[1..], &NORM[1..], &NORM];
    vec![
        Operation::new("softmax", Work::streams(2, &SOFTMAX), &[&SOFTMAX], |_, x| vec![x[0].softmax(1)]),
        Operation::new("layernorm_fwd", Work::streams(2, &NORM), &norm[..3], |_, x| {
            vec![layer_norm(x[0], x[1], x[2])]
        }),
        Operation::new("layernorm_fwdbwd", Work::streams(4, &NORM), &norm, |_, x| {
            let y = layer_norm(x[0], x[1], x[2]);
            [vec![y], vjp(&[(y, x[3])], &x[..3])].concat()
        }),
    ]
}

fn elements() -> Vec<Operation> {
    let gelu = |name, n| Operation::new(name, Work::streams(2, &[n]), &[&[n]], |_, x| vec![x[0].gelu_tanh()]);
    let gelu_erf = |name, n| Operation::new(name, Work::streams(2, &[n]), &[&[n]], |_, x| vec![x[0].gelu()]);
    let sum =
        |name, n| Operation::new(name, Work::streams(1, &[n]), &[&[n]], |_, x| vec![x[0].reduce_sum(&[0])]);
    vec![
        gelu("gelu", SMALL),
        gelu("gelu_10m", LARGE),
        gelu_erf("gelu_erf", SMALL),
        gelu_erf("gelu_erf_10m", LARGE),
        sum("sum_1m", SMALL),
        sum("sum", LARGE),
        Operation::new("adam", Work::streams(7, &[LARGE]), &[&[LARGE]], |f, x| {
            let p = f.state("p", DType::F32, [LARGE], Initializer::ZEROS);
            let lr = f.state(LEARNING_RATE, DType::F32, [], Initializer::Constant(1e-3));
            Adam::new(1e-3).apply(f.read(&lr), &[p], x);
            Vec::new()
        }),
    ]
}

fn layer_norm<'f>(x: Tensor<'f>, gain: Tensor<'f>, bias: Tensor<'f>) -> Tensor<'f> {
    let over_rows = |v: Tensor<'f>| v.broadcast(x.shape(), &[0]);
    let scale = (x.variance(&[1]) + 1e-5).rsqrt();
    (x - over_rows(x.mean(&[1]))) * over_rows(scale) * gain + bias
}

impl Work {
    /// Bytes of so many `f32` tensors of this shape.
    fn streams(count: usize, dims: &[usize]) -> Self {
        Self::Bytes(count * size_of::<f32>() * dims.iter().product::<usize>())
    }
}

impl Operation {
    fn new(
        name: &str,
        work: Work,
        inputs: &[&[usize]],
        declare: impl for<'f> Fn(&'f FunctionBuilder, &[Tensor<'f>]) -> Vec<Tensor<'f>> + 'static,
    ) -> Self {
        let inputs = inputs.iter().map(|&dims| dims.to_vec()).collect();
        Self { name: name.to_owned(), work, inputs, declare: Box::new(declare) }
    }

    /// Its module, of the function `run`.
    pub(super) fn module(&self) -> Result<Module, Failure> {
        let m = ModuleBuilder::new(&self.name);
        m.function("run", |f| {
            let declare = |(i, dims): (usize, &Vec<usize>)| f.input(&format!("x{i}"), DType::F32, &dims[..]);
            let inputs: Vec<Tensor<'_>> = self.inputs.iter().enumerate().map(declare).collect();
            for (i, y) in (self.declare)(f, &inputs).into_iter().enumerate() {
                f.output(&format!("y{i}"), y);
            }
        });
        m.build().map_err(Failure::other)
    }

    /// Times it and compares it with the peak.
    pub(super) fn measure(&self, setup: &Setup, peak: &Peak, seconds: f64) -> Result<Value, Failure> {
        let module = self.module()?;
        let fill =
            |(j, dims): (usize, &Vec<usize>)| input(j, dims.iter().product(), Values::Uniform(-1.0, 1.0));
        let inputs = self.inputs.iter().enumerate().map(fill).collect();
        let mut run = Prepared::new(&module, inputs, setup)?;
        // Calls of less than 50 us are timed several at a time, to be above the clock's resolution.
        let one = run.measure(0.02, 3, 1)?.min_us;
        let timing = run.measure(seconds, 5, (50.0 / one).max(1.0) as usize)?;
        let mut row = json!({
            "micro": self.name,
            "median_us": round(timing.median_us, 2),
            "min_us": round(timing.min_us, 2),
            "cpus": round(timing.cpus, 2),
            "other_cpus": round(timing.other_cpus, 2),
        });
        let (key, amount, peak) = match self.work {
            Work::Flops(n) => ("gflops", n, peak.gflops),
            Work::Bytes(n) => ("gb_s", n, peak.gb_s),
        };
        let rate = amount as f64 / timing.median_us / 1e3;
        row[key] = round(rate, 2).into();
        row["of_peak"] = round(rate / peak, 4).into();
        Ok(row)
    }
}
