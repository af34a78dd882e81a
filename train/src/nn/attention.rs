//! Multi-head attention.

use super::{Dense, Dropout, Layer, in_layer};
use graphc_ir::{DType, Initializer, ModuleBuilder, Param, Tensor, shape};
use std::ops::Range;

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
/// Causal attention of many queries, 512 and more if their number is known, is computed in blocks of queries, each with no more
/// keys than its last query attends to: up to seven sixteenths of all scores are not computed at all.
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

/// Queries of a block of causal attention, at least. With fewer, more kernels save little.
const BLOCK_QUERIES: usize = 128;
/// Blocks that causal attention is cut into, at most.
const MOST_BLOCKS: usize = 16;

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
        let heads = match self.blocks(q, k) {
            Some(blocks) => {
                let all = shape![q.dim(0), self.heads, q.dim(2), k.dim(2)];
                let mask = mask.map(|m| m.broadcast_to(all));
                let block = |(i, (queries, keys)): (usize, &(Range<usize>, usize))| {
                    let q = q.slice_axis(2, queries.start, queries.end);
                    let [k, v] = [k, v].map(|x| x.slice_axis(2, 0, *keys));
                    let mask =
                        mask.map(|m| m.slice_axis(2, queries.start, queries.end).slice_axis(3, 0, *keys));
                    self.one_block([q, k, v], mask, training.then(|| self.dropout.of_part(i)))
                };
                f.concatenate(&blocks.iter().enumerate().map(block).collect::<Vec<_>>(), 2)
            }
            None => self.one_block([q, k, v], mask, training.then(|| self.dropout.clone())),
        };
        let joined = heads.transpose(&[0, 2, 1, 3]);
        if joined.is_poison() {
            return joined;
        }
        joined.reshape(shape![joined.dim(0), joined.dim(1), self.width])
    }

    /// Blocks of queries, and how many keys the queries of each attend to at most. `None` if all queries are one block.
    fn blocks(&self, q: Tensor<'_>, k: Tensor<'_>) -> Option<Vec<(Range<usize>, usize)>> {
        if !self.causal || q.is_poison() || k.is_poison() {
            return None;
        }
        let (queries, keys) = (q.dim(2).as_const()?, k.dim(2).as_const()?);
        let behind = keys.checked_sub(queries)?;
        if queries < 2 * BLOCK_QUERIES {
            return None;
        }
        let rows = queries.div_ceil(MOST_BLOCKS).max(BLOCK_QUERIES);
        let block = |first: usize| (first..(first + rows).min(queries), (first + rows).min(queries) + behind);
        Some((0..queries).step_by(rows).map(block).collect())
    }

    /// Attention of queries `q: [B, heads, T, d]` to keys and values `[B, heads, S, d]`.
    #[track_caller]
    fn one_block<'f>(
        &self,
        [q, k, v]: [Tensor<'f>; 3],
        mask: Option<Tensor<'f>>,
        dropout: Option<Dropout>,
    ) -> Tensor<'f> {
        let f = q.builder();
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
        if let Some(dropout) = dropout {
            weights = dropout.train(weights);
        }
        weights.dot_general(v, (&[0, 1], &[0, 1]), (&[3], &[2]))
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

#[cfg(test)]
mod tests {
    use super::*;
    use graphc_ir::{FunctionBuilder, Literal, Module, Scalar, evaluate, gradients};

    const CAUSAL: AttentionOptions = AttentionOptions { causal: true, bias: true, dropout: 0.0 };
    const LONG: usize = 2 * BLOCK_QUERIES + 44;

    /// A number for each position, as if drawn.
    fn drawn(dims: &[usize], seed: usize) -> Literal {
        let mut i = seed;
        Literal::from_fn(DType::F32, dims, |_| {
            i += 1;
            Scalar::F32((i * i % 97) as f32 / 48.0 - 1.0)
        })
    }

    /// Self-attention of `[1, steps, 2]` by one head, and the gradients of the input and the weights before it.
    fn module(
        steps: usize,
        options: AttentionOptions,
        mask: impl for<'f> Fn(&'f FunctionBuilder) -> Option<Tensor<'f>>,
    ) -> Module {
        let m = ModuleBuilder::new("m");
        let attention = MultiHeadAttention::new(&m, "a", 2, 1, options);
        m.function("f", |f| {
            let x = f.input("x", DType::F32, [1, steps, 2]);
            let y = attention.attend(x, x, mask(f));
            let weighted = y * f.constant(drawn(&[1, steps, 2], 7));
            f.output("y", y);
            let of = [x, f.read(&attention.in_weight)];
            for (name, d) in ["dx", "dw"].iter().zip(gradients(weighted.reduce_sum(&[0, 1, 2]), &of)) {
                f.output(name, d);
            }
        });
        m.build().unwrap()
    }

    fn results(m: &Module) -> Vec<f32> {
        let state = |i: usize| drawn(&m.state[i].ty.shape.as_static().unwrap(), 11 * i);
        let done = evaluate(&m.functions[0], &[drawn(&[1, LONG, 2], 5)], |id| state(id.index())).unwrap();
        done.outputs.iter().flat_map(|o| o.as_slice::<f32>().unwrap().to_vec()).collect()
    }

    /// Elements.
    fn largest_product(m: &Module) -> usize {
        let graph = &m.functions[0].graph;
        let products = graph.ids().filter(|&id| graph.op(id).name() == "dot_general");
        products.map(|id| graph.ty(id).shape.num_elements().unwrap()).max().unwrap()
    }

    /// Whether a key is at most nine positions before a query.
    fn near(f: &FunctionBuilder) -> Tensor<'_> {
        f.iota(DType::I64, [LONG, LONG], 1).ge(f.iota(DType::I64, [LONG, LONG], 0) - 9.0)
    }

    #[test]
    fn long_causal_attention_does_not_compute_what_it_masks() {
        let short = 2 * BLOCK_QUERIES - 1;
        assert_eq!(largest_product(&module(short, CAUSAL, |_| None)), short * short);
        assert_eq!(largest_product(&module(LONG, CAUSAL, |_| None)), 2 * BLOCK_QUERIES * BLOCK_QUERIES);
        // Each block takes its part of a mask that is given.
        let blocks = module(LONG, CAUSAL, |f| Some(near(f)));
        let masked = module(LONG, AttentionOptions::default(), |f| Some(near(f) & f.causal_mask(LONG, LONG)));
        for (found, expected) in results(&blocks).into_iter().zip(results(&masked)) {
            assert!((found - expected).abs() < 1e-4 * expected.abs().max(1.0), "{found}, not {expected}");
        }
    }

    #[test]
    fn many_queries_are_cut_into_at_most_sixteen_blocks() {
        let m = ModuleBuilder::new("m");
        let attention = MultiHeadAttention::new(&m, "a", 4, 2, CAUSAL);
        m.function("f", |f| {
            let blocks = |queries: usize, keys: usize| {
                let input = |name: &str, steps: usize| f.input(name, DType::F32, [1, 2, steps, 2]);
                attention.blocks(input(&format!("q{queries}"), queries), input(&format!("k{keys}"), keys))
            };
            assert_eq!(blocks(256, 256).unwrap(), [(0..128, 128), (128..256, 256)]);
            assert_eq!(blocks(300, 400).unwrap(), [(0..128, 228), (128..256, 356), (256..300, 400)]);
            let (many, last) = (blocks(4001, 4001).unwrap(), (3765..4001, 4001));
            assert_eq!((many.len(), many.last()), (16, Some(&last)));
            assert_eq!(blocks(257, 255), None);
            assert_eq!(blocks(255, 1000), None);
        });
    }
}
