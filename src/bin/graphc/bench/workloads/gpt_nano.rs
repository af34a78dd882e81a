//! nanoGPT's configuration for CPUs: 4 layers, 4 heads, width 128, 12 windows of 64 characters out of 65, no biases.

use super::{Values, Workload, generator};
use graphc::nn::{
    AttentionOptions, Dense, Embedding, Layer, LayerNorm, LearnedPositions, MultiHeadAttention,
};
use graphc::optim::{Adam, Clip, Clipped, Groups, train_step};
use graphc::runtime::Elements;
use graphc::{DType, Initializer, ModuleBuilder, Tensor, cross_entropy};

pub(super) const WORKLOAD: Workload = Workload {
    name: "gpt_nano",
    flops: 3_964_207_104,
    compile_ms: 100.0,
    data: &[Values::Classes(65), Values::Classes(65)],
    losses: [
        (0, 4.345977297, 1e-5),
        (1, 4.105744840, 1e-5),
        (10, 2.573973200, 1e-5),
        (50, 0.025999798, 1e-5),
    ],
    declare: |m| Size::NANO.declare(m),
};

/// How large a model of this kind is, and its batches.
#[derive(Clone, Copy)]
pub(in super::super) struct Size {
    pub(in super::super) layers: usize,
    /// A multiple of the 32 of a head.
    pub(in super::super) width: usize,
    /// Characters of a window.
    pub(in super::super) length: usize,
    /// Windows.
    pub(in super::super) batch: usize,
}

impl Size {
    pub(in super::super) const NANO: Self = Self { layers: 4, width: 128, length: 64, batch: 12 };

    /// Declares the training step.
    pub(in super::super) fn declare(self, m: &ModuleBuilder) {
        let Size { layers, width, length, batch } = self;
        let init = Initializer::torch_default(width);
        let tokens = Embedding::with_init(m, "wte", 65, width, init);
        let positions = LearnedPositions::with_init(m, "wpe", length, width, init);
        let blocks: Vec<Block> = (0..layers).map(|i| Block::new(m, &format!("h{i}"), width)).collect();
        let norm = LayerNorm::without_bias(m, "ln_f", width);
        let adam = Adam::with_decoupled_decay(1e-3, 0.1).betas(0.9, 0.99);
        // Gains do not decay.
        let groups = Groups::new(adam).with("*ln*", Adam::new(1e-3).betas(0.9, 0.99));
        train_step(m, "train_step", &Clipped::new(groups, Clip::GlobalNorm(1.0)), |f| {
            let x = positions.apply(tokens.apply(f.input("ids", DType::I32, [batch, length])));
            let x = blocks.iter().fold(x, |x, block| block.apply(x));
            cross_entropy(tokens.logits(norm.apply(x)), f.input("targets", DType::I32, [batch, length]))
        });
    }

    /// What fills its inputs.
    pub(in super::super) fn inputs(self) -> Vec<Elements> {
        let n = self.batch * self.length;
        WORKLOAD.data.iter().enumerate().map(|(j, &values)| generator::input(j, n, values)).collect()
    }
}

/// Width of a head.
const HEAD: usize = 32;

struct Block {
    ln1: LayerNorm,
    attention: MultiHeadAttention,
    ln2: LayerNorm,
    fc1: Dense,
    fc2: Dense,
}

impl Block {
    fn new(m: &ModuleBuilder, name: &str, width: usize) -> Self {
        let part = |part: &str| format!("{name}/{part}");
        let dense = |part: String, n_in: usize, n_out: usize| {
            Dense::with_init(m, &part, n_in, n_out, Initializer::torch_default(n_in), None)
        };
        let options = AttentionOptions { causal: true, bias: false, dropout: 0.0 };
        let init = Initializer::torch_default(width);
        Self {
            ln1: LayerNorm::without_bias(m, &part("ln1"), width),
            attention: MultiHeadAttention::with_init(
                m,
                &part("attention"),
                width,
                width / HEAD,
                options,
                init,
                init,
            ),
            ln2: LayerNorm::without_bias(m, &part("ln2"), width),
            fc1: dense(part("fc1"), width, 4 * width),
            fc2: dense(part("fc2"), 4 * width, width),
        }
    }

    fn apply<'f>(&self, x: Tensor<'f>) -> Tensor<'f> {
        let h = x + self.attention.apply(self.ln1.apply(x));
        h + self.fc2.apply(self.fc1.apply(self.ln2.apply(h)).gelu_tanh())
    }
}
