//! Multi-head attention.

use super::{Dense, Dropout, Layer, in_layer};
use graphc_ir::{DType, Initializer, ModuleBuilder, Param, Tensor, shape};

/// Scaled dot-product attention of several heads (Vaswani et al. 2017), as `torch.nn.MultiheadAttention` with batches
/// first. Queries `q: f32[B, T, width]` attend to keys and values of `f32[B, S, width]`; the result is
/// `f32[B, T, width]`:
///
/// ```text
/// head_j = softmax(Q_j K_j^T / sqrt(width / heads)) V_j       softmax over the S keys
/// y = W_out concatenate(head_0, ..) + b_out
/// ```
///
/// with `Q = W_q q + b_q` and so on, cut into `heads` equal parts. Parameters `<name>/in_proj_weight`
/// `f32[3 width, width]` (`W_q`, `W_k`, `W_v`), `<name>/in_proj_bias` `f32[3 width]`, `<name>/out_proj/weight`
/// `f32[width, width]`, `<name>/out_proj/bias` `f32[width]`. Initially `in_proj_weight` is uniform in
/// `+-sqrt(6 / (4 width))` and biases are 0.
///
/// ```
/// use graphc_ir::{DType, ModuleBuilder, shape};
/// use graphc_train::nn::{AttentionOptions, Layer, MultiHeadAttention};
///
/// let m = ModuleBuilder::new("m");
/// let options = AttentionOptions { causal: true, ..AttentionOptions::default() };
/// let attention = MultiHeadAttention::new(&m, "attention", 32, 4, options);
/// m.function("f", |f| {
///     let y = attention.apply(f.input("x", DType::F32, shape!["B", 16, 32]));
///     assert_eq!(y.shape(), shape!["B", 16, 32]);
///     f.output("y", y);
/// });
/// # m.build().unwrap();
/// ```
#[derive(Clone, Debug)]
pub struct MultiHeadAttention {
    in_weight: Param,
    in_bias: Option<Param>,
    out: Dense,
    width: usize,
    heads: usize,
    causal: bool,
    dropout: Dropout,
}

/// How a [`MultiHeadAttention`] is built.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct AttentionOptions {
    /// Whether a query attends to no key after its own position: false.
    pub causal: bool,
    /// Whether projections have biases: true.
    pub bias: bool,
    /// While training, rate of dropout on the weights of the keys: 0.
    pub dropout: f64,
}

impl Default for AttentionOptions {
    fn default() -> Self {
        Self { causal: false, bias: true, dropout: 0.0 }
    }
}

impl MultiHeadAttention {
    /// `heads` divides `width`.
    #[track_caller]
    pub fn new(m: &ModuleBuilder, name: &str, width: usize, heads: usize, options: AttentionOptions) -> Self {
        let input = Initializer::xavier_uniform(width, width.saturating_mul(3));
        Self::with_init(m, name, width, heads, options, input, Initializer::torch_default(width))
    }

    /// With these initializers of the weights before and after attention.
    #[track_caller]
    pub fn with_init(
        m: &ModuleBuilder,
        name: &str,
        width: usize,
        heads: usize,
        options: AttentionOptions,
        input: Initializer,
        output: Initializer,
    ) -> Self {
        let AttentionOptions { causal, bias, dropout } = options;
        let rows = width.saturating_mul(3);
        let zeros = bias.then_some(Initializer::ZEROS);
        Self {
            in_weight: m.param(&format!("{name}/in_proj_weight"), DType::F32, [rows, width], input),
            in_bias: zeros.map(|init| m.param(&format!("{name}/in_proj_bias"), DType::F32, [rows], init)),
            out: Dense::with_init(m, &format!("{name}/out_proj"), width, width, output, zeros),
            width,
            heads,
            causal,
            dropout: Dropout::new(&format!("{name}/dropout"), dropout),
        }
    }

    /// Attention of `queries: f32[B, T, width]` to `context: f32[B, S, width]`. Where `mask`, a bool tensor that
    /// broadcasts to `[B, heads, T, S]`, is false, a query does not attend to a key; each attends to at least one.
    #[track_caller]
    pub fn attend<'f>(
        &self,
        queries: Tensor<'f>,
        context: Tensor<'f>,
        mask: Option<Tensor<'f>>,
    ) -> Tensor<'f> {
        self.run(queries, context, mask, false)
    }

    /// [`Self::attend`], while training.
    #[track_caller]
    pub fn attend_training<'f>(
        &self,
        queries: Tensor<'f>,
        context: Tensor<'f>,
        mask: Option<Tensor<'f>>,
    ) -> Tensor<'f> {
        self.run(queries, context, mask, true)
    }

    #[track_caller]
    fn run<'f>(
        &self,
        queries: Tensor<'f>,
        context: Tensor<'f>,
        mask: Option<Tensor<'f>>,
        training: bool,
    ) -> Tensor<'f> {
        let joined = in_layer(queries, &self.in_weight, || self.heads(queries, context, mask, training));
        self.out.apply(joined)
    }

    /// The heads side by side, `f32[B, T, width]`.
    #[track_caller]
    fn heads<'f>(
        &self,
        queries: Tensor<'f>,
        context: Tensor<'f>,
        mask: Option<Tensor<'f>>,
        training: bool,
    ) -> Tensor<'f> {
        let f = queries.builder();
        if queries.is_poison() || context.is_poison() {
            return f.poison();
        }
        if queries.rank() != 3
            || context.rank() != 3
            || self.heads == 0
            || !self.width.is_multiple_of(self.heads)
        {
            f.misuse(format!(
                "attention: {} and {} must have axes of batch, steps and features, {} in {} equal heads",
                queries.ty(),
                context.ty(),
                self.width,
                self.heads
            ));
            return f.poison();
        }
        let (q, k, v) = if queries.id() == context.id() {
            let all = self.project(queries, 0, 3).chunk(3, 2);
            (all[0], all[1], all[2])
        } else {
            let context = self.project(context, 1, 3).chunk(2, 2);
            (self.project(queries, 0, 1), context[0], context[1])
        };
        let [q, k, v] = [q, k, v].map(|x| self.split(x));
        let scores = q.dot_general(k, (&[0, 1], &[0, 1]), (&[3], &[3]));
        let scores = scores * (1.0 / ((self.width / self.heads) as f64).sqrt());
        let causal =
            (self.causal && !scores.is_poison()).then(|| f.causal_mask(scores.dim(2), scores.dim(3)));
        let scores = [causal, mask].into_iter().flatten().fold(scores, |scores, mask| {
            if mask.is_poison() || scores.is_poison() {
                return f.poison();
            }
            mask.broadcast_to(scores.shape()).select(scores, scores.full_like(f64::NEG_INFINITY))
        });
        let mut weights = scores.softmax(3);
        if training {
            weights = self.dropout.train(weights);
        }
        let heads = weights.dot_general(v, (&[0, 1], &[0, 1]), (&[3], &[2]));
        let joined = heads.transpose(&[0, 2, 1, 3]);
        if joined.is_poison() {
            return joined;
        }
        joined.reshape(shape![joined.dim(0), joined.dim(1), self.width])
    }

    /// Parts `from..to` of the projection: queries, keys, values.
    #[track_caller]
    fn project<'f>(&self, x: Tensor<'f>, from: usize, to: usize) -> Tensor<'f> {
        let f = x.builder();
        let part = |p: Tensor<'f>| match (from, to) {
            (0, 3) => p,
            _ => p.slice_axis(0, from * self.width, to * self.width),
        };
        let y = x.dot_general(part(f.read(&self.in_weight)), (&[], &[]), (&[2], &[1]));
        self.in_bias.as_ref().map_or(y, |bias| y + part(f.read(bias)))
    }

    /// `[B, T, width]` to `[B, heads, T, width / heads]`.
    #[track_caller]
    fn split<'f>(&self, x: Tensor<'f>) -> Tensor<'f> {
        if x.is_poison() {
            return x;
        }
        let shape = shape![x.dim(0), x.dim(1), self.heads, self.width / self.heads];
        x.reshape(shape).transpose(&[0, 2, 1, 3])
    }
}

impl Layer for MultiHeadAttention {
    /// Self-attention.
    #[track_caller]
    fn apply<'f>(&self, x: Tensor<'f>) -> Tensor<'f> {
        self.attend(x, x, None)
    }

    #[track_caller]
    fn train<'f>(&self, x: Tensor<'f>) -> Tensor<'f> {
        self.attend_training(x, x, None)
    }
}
