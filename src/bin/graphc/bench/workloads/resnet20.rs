//! ResNet-20 for CIFAR (He et al. 2016): batch norm in training mode, 1x1 projection shortcuts, 32 images
//! of 32 x 32.

use super::{Linear, Values, Workload};
use graphc::nn::{BatchNorm, Conv2d, ConvOptions, Layer};
use graphc::optim::{Sgd, train_step};
use graphc::{DType, ModuleBuilder, Tensor, cross_entropy};

pub(super) const WORKLOAD: Workload = Workload {
    name: "resnet20",
    flops: 7_807_819_776,
    compile_ms: 150.0,
    data: &[Values::Uniform(-1.0, 1.0), Values::Classes(10)],
    losses: [
        (0, 2.513442347, 1e-5),
        (1, 2.369291889, 1e-5),
        (10, 0.982713060, 0.004),
        (50, 0.004929749, 0.05),
    ],
    declare,
};

fn declare(m: &ModuleBuilder) {
    let stem = ConvNorm::new(m, ["stem", "stem_bn"], [16, 3, 3, 3], 1);
    let stages = [(16, 16, 1), (16, 32, 2), (32, 64, 2)];
    let shapes = stages
        .into_iter()
        .flat_map(|(c_in, c_out, stride)| [(c_in, c_out, stride), (c_out, c_out, 1), (c_out, c_out, 1)]);
    let blocks: Vec<Block> = shapes.enumerate().map(|(i, shape)| Block::new(m, i, shape)).collect();
    let fc = Linear::new(m, "fc", 64, 10);
    train_step(m, "train_step", &Sgd::new(0.01).momentum(0.9).weight_decay(1e-4), |f| {
        let x = stem.apply(f.input("x", DType::F32, [32, 3, 32, 32])).relu();
        let features = blocks.iter().fold(x, |x, block| block.apply(x)).global_avg_pool();
        cross_entropy(fc.apply(features), f.input("y", DType::I32, [32]))
    });
}

/// A convolution without bias and the batch norm after it.
struct ConvNorm {
    conv: Conv2d,
    norm: BatchNorm,
}

impl ConvNorm {
    /// Of a kernel `[c_out, c_in, height, width]`; padded so that a stride of 1 keeps the extents.
    fn new(m: &ModuleBuilder, names: [&str; 2], kernel: [usize; 4], stride: usize) -> Self {
        let [c_out, c_in, height, width] = kernel;
        let padding = [height / 2; 2];
        let options = ConvOptions { stride: [stride; 2], padding, bias: false, ..ConvOptions::default() };
        let conv = Conv2d::with(m, names[0], c_in, c_out, [height, width], options);
        Self { conv, norm: BatchNorm::new(m, names[1], c_out) }
    }

    fn apply<'f>(&self, x: Tensor<'f>) -> Tensor<'f> {
        self.norm.train(self.conv.apply(x))
    }
}

/// Two convolutions and the shortcut around them.
struct Block {
    first: ConvNorm,
    second: ConvNorm,
    /// Where the shape changes.
    projection: Option<ConvNorm>,
}

impl Block {
    fn new(m: &ModuleBuilder, index: usize, (c_in, c_out, stride): (usize, usize, usize)) -> Self {
        let part = |conv: &str, norm: &str, kernel, stride| {
            let names = [conv, norm].map(|name| format!("b{index}/{name}"));
            ConvNorm::new(m, [&names[0], &names[1]], kernel, stride)
        };
        Self {
            first: part("conv1", "bn1", [c_out, c_in, 3, 3], stride),
            second: part("conv2", "bn2", [c_out, c_out, 3, 3], 1),
            projection: (stride != 1).then(|| part("down", "down_bn", [c_out, c_in, 1, 1], stride)),
        }
    }

    fn apply<'f>(&self, x: Tensor<'f>) -> Tensor<'f> {
        let y = self.second.apply(self.first.apply(x).relu());
        let shortcut = self.projection.as_ref().map_or(x, |p| p.apply(x));
        (y + shortcut).relu()
    }
}
