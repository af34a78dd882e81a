//! nanoGPT's configuration for CPUs: 4 layers, 4 heads, width 128, 12 windows of 64 characters out of 65, no biases.

use super::{Values, Workload};
use graphc::nn::{
    AttentionOptions, Dense, Embedding, Layer, LayerNorm, LearnedPositions, MultiHeadAttention,
};
use graphc::optim::{Adam, Clip, Clipped, Groups, train_step};
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
    declare: |m| declare(m, 4),
};

const WIDTH: usize = 128;

/// The same of any depth.
pub(in super::super) fn declare(m: &ModuleBuilder, layers: usize) {
    let init = Initializer::torch_default(WIDTH);
    let tokens = Embedding::with_init(m, "wte", 65, WIDTH, init);
    let positions = LearnedPositions::with_init(m, "wpe", 64, WIDTH, init);
    let blocks: Vec<Block> = (0..layers).map(|i| Block::new(m, &format!("h{i}"))).collect();
    let norm = LayerNorm::without_bias(m, "ln_f", WIDTH);
    let adam = Adam::with_decoupled_decay(1e-3, 0.1).betas(0.9, 0.99);
    // Gains do not decay.
    let groups = Groups::new(adam).with("*ln*", Adam::new(1e-3).betas(0.9, 0.99));
    train_step(m, "train_step", &Clipped::new(groups, Clip::GlobalNorm(1.0)), |f| {
        let x = positions.apply(tokens.apply(f.input("ids", DType::I32, [12, 64])));
        let x = blocks.iter().fold(x, |x, block| block.apply(x));
        cross_entropy(tokens.logits(norm.apply(x)), f.input("targets", DType::I32, [12, 64]))
    });
}

struct Block {
    ln1: LayerNorm,
    attention: MultiHeadAttention,
    ln2: LayerNorm,
    fc1: Dense,
    fc2: Dense,
}

impl Block {
    fn new(m: &ModuleBuilder, name: &str) -> Self {
        let part = |part: &str| format!("{name}/{part}");
        let dense = |part: String, n_in: usize, n_out: usize| {
            Dense::with_init(m, &part, n_in, n_out, Initializer::torch_default(n_in), None)
        };
        let options = AttentionOptions { causal: true, bias: false, dropout: 0.0 };
        let init = Initializer::torch_default(WIDTH);
        Self {
            ln1: LayerNorm::without_bias(m, &part("ln1"), WIDTH),
            attention: MultiHeadAttention::with_init(m, &part("attention"), WIDTH, 4, options, init, init),
            ln2: LayerNorm::without_bias(m, &part("ln2"), WIDTH),
            fc1: dense(part("fc1"), WIDTH, 4 * WIDTH),
            fc2: dense(part("fc2"), 4 * WIDTH, WIDTH),
        }
    }

    fn apply<'f>(&self, x: Tensor<'f>) -> Tensor<'f> {
        let h = x + self.attention.apply(self.ln1.apply(x));
        h + self.fc2.apply(self.fc1.apply(self.ln2.apply(h)).gelu_tanh())
    }
}
