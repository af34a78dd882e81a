//! Transformer block.

use super::{Activation, AttentionOptions, Dense, Dropout, Layer, LayerNorm, MultiHeadAttention};
use graphc_ir::{Initializer, ModuleBuilder, Tensor};

/// A transformer block that normalizes before each part (Vaswani et al. 2017; Xiong et al. 2020), `f32[B, T, width]` to
/// the same shape:
///
/// ```text
/// h = x + attention(norm1(x))
/// y = h + fc2(activation(fc1(norm2(h))))
/// ```
///
/// Parameters of `<name>/norm1`, `<name>/attention`, `<name>/norm2`, `<name>/fc1`, `<name>/fc2`.
///
/// ```
/// use graphc_ir::{DType, ModuleBuilder, shape};
/// use graphc_train::nn::{Layer, TransformerBlock, TransformerOptions};
///
/// let m = ModuleBuilder::new("m");
/// let options = TransformerOptions { causal: true, ..TransformerOptions::default() };
/// let block = TransformerBlock::new(&m, "block", 32, 4, options);
/// m.function("f", |f| f.output("y", block.apply(f.input("x", DType::F32, shape!["B", 16, 32]))));
/// # m.build().unwrap();
/// ```
#[derive(Clone, Debug)]
pub struct TransformerBlock {
    norm1: LayerNorm,
    attention: MultiHeadAttention,
    norm2: LayerNorm,
    fc1: Dense,
    fc2: Dense,
    activation: Activation,
    dropout: [Dropout; 2],
}

/// How a [`TransformerBlock`] is built.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct TransformerOptions {
    /// Whether a position attends to no later one: false.
    pub causal: bool,
    /// Whether layers and norms have biases: true.
    pub bias: bool,
    /// While training, rate of dropout on the weights of attention and on what each part adds: 0.
    pub dropout: f64,
    /// Width between `fc1` and `fc2`, in units of the width: 4.
    pub expansion: usize,
    /// The activation: GELU by its approximation with tanh.
    pub activation: Activation,
    /// Initializer of all weights; PyTorch's defaults if `None`. With one, biases start at 0.
    pub init: Option<Initializer>,
}

impl Default for TransformerOptions {
    fn default() -> Self {
        Self {
            causal: false,
            bias: true,
            dropout: 0.0,
            expansion: 4,
            activation: Activation::GeluTanh,
            init: None,
        }
    }
}

impl TransformerBlock {
    /// `heads` divides `width`.
    #[track_caller]
    pub fn new(
        m: &ModuleBuilder,
        name: &str,
        width: usize,
        heads: usize,
        options: TransformerOptions,
    ) -> Self {
        let TransformerOptions { causal, bias, dropout, expansion, activation, init } = options;
        let inner = width.saturating_mul(expansion);
        let norm = |part: &str| {
            let name = format!("{name}/{part}");
            if bias { LayerNorm::new(m, &name, width) } else { LayerNorm::without_bias(m, &name, width) }
        };
        let dense = |part: &str, n_in: usize, n_out: usize| {
            let weight = init.unwrap_or(Initializer::torch_default(n_in));
            let of_bias = if init.is_some() { Initializer::ZEROS } else { weight };
            Dense::with_init(m, &format!("{name}/{part}"), n_in, n_out, weight, bias.then_some(of_bias))
        };
        let attention = AttentionOptions { causal, bias, dropout };
        Self {
            norm1: norm("norm1"),
            attention: match init {
                Some(init) => MultiHeadAttention::with_init(
                    m,
                    &format!("{name}/attention"),
                    width,
                    heads,
                    attention,
                    init,
                    init,
                ),
                None => MultiHeadAttention::new(m, &format!("{name}/attention"), width, heads, attention),
            },
            norm2: norm("norm2"),
            fc1: dense("fc1", width, inner),
            fc2: dense("fc2", inner, width),
            activation,
            dropout: ["dropout1", "dropout2"].map(|part| Dropout::new(&format!("{name}/{part}"), dropout)),
        }
    }
}

impl Layer for TransformerBlock {
    #[track_caller]
    fn apply<'f>(&self, x: Tensor<'f>) -> Tensor<'f> {
        let h = x + self.attention.apply(self.norm1.apply(x));
        h + self.fc2.apply(self.activation.apply(self.fc1.apply(self.norm2.apply(h))))
    }

    #[track_caller]
    fn train<'f>(&self, x: Tensor<'f>) -> Tensor<'f> {
        let h = x + self.dropout[0].train(self.attention.train(self.norm1.train(x)));
        let inner = self.fc2.train(self.activation.train(self.fc1.train(self.norm2.train(h))));
        h + self.dropout[1].train(inner)
    }
}
