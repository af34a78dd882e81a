//! Control flow and calls as users declare them: closures that become regions. A closure may use
//! values, parameters and scopes of the function around it; they become operands.

use crate::builder::{FunctionBuilder, Tensor};
use crate::ops::{Call, Cond, Op, ResultOf, Scan, While};
use crate::region::Region;
use crate::types::{Dim, Shape, TensorType};

/// How a [`FunctionBuilder::scan_with`] runs.
#[derive(Clone, Debug, Default)]
pub struct ScanOptions {
    /// Number of steps; need not be given if there are sequences.
    pub length: Option<Dim>,
    /// Runs the steps from last to first.
    pub reverse: bool,
    /// 0: the gradient saves what it needs of every step. n: it saves the carries before every n-th step
    /// and computes the steps between again, which takes less memory and more time; the number of steps
    /// must be a multiple of n.
    pub save_every: usize,
    /// 0: the gradient goes back through all steps. n: it does not cross the boundaries between blocks
    /// of n steps (truncated back-propagation through time); the number of steps must be a multiple
    /// of n.
    pub truncate_every: usize,
}

/// What a step of a scan does: from the carries and the elements to the next carries and the values to
/// stack. Boxed, as a scan in blocks nests closures.
type Step<'a, 'f> = Box<
    dyn FnOnce(&'f FunctionBuilder, &[Tensor<'f>], &[Tensor<'f>]) -> (Vec<Tensor<'f>>, Vec<Tensor<'f>>) + 'a,
>;

/// The results of a scan.
#[derive(Clone, Debug)]
pub struct Scanned<'f> {
    /// The carries after the last step.
    pub carries: Vec<Tensor<'f>>,
    /// The stacked values, with the steps as first axis.
    pub stacked: Vec<Tensor<'f>>,
}

impl FunctionBuilder {
    /// Runs a loop over the first axis of `sequences`: `body` gets a builder, the carries (at first
    /// `init`) and the elements of the step, and returns the next carries and values to stack.
    /// See [`Scan`].
    ///
    /// ```
    /// # use graphc_ir::{DType, ModuleBuilder};
    /// let m = ModuleBuilder::new("m");
    /// m.function("running_sum", |f| {
    ///     let x = f.input("x", DType::F32, [10, 3]);
    ///     let zero = f.full(DType::F32, [3], 0.0);
    ///     let sums = f.scan(&[zero], &[x], |_, carry, x| {
    ///         let sum = carry[0] + x[0];
    ///         (vec![sum], vec![sum])
    ///     });
    ///     f.output("last", sums.carries[0]); // f32[3]
    ///     f.output("all", sums.stacked[0]); // f32[10, 3]
    /// });
    /// # m.build().unwrap();
    /// ```
    #[track_caller]
    pub fn scan<'f>(
        &'f self,
        init: &[Tensor<'f>],
        sequences: &[Tensor<'f>],
        body: impl FnOnce(&'f Self, &[Tensor<'f>], &[Tensor<'f>]) -> (Vec<Tensor<'f>>, Vec<Tensor<'f>>),
    ) -> Scanned<'f> {
        self.scan_with(&ScanOptions::default(), init, sequences, body)
    }

    /// [`Self::scan`] with options.
    #[track_caller]
    pub fn scan_with<'f>(
        &'f self,
        options: &ScanOptions,
        init: &[Tensor<'f>],
        sequences: &[Tensor<'f>],
        body: impl FnOnce(&'f Self, &[Tensor<'f>], &[Tensor<'f>]) -> (Vec<Tensor<'f>>, Vec<Tensor<'f>>),
    ) -> Scanned<'f> {
        self.scan_steps(options, init, sequences, Box::new(body))
    }

    /// [`Self::scan_with`] over a batch of sequences of different lengths, `lengths: i32[B]` or `i64[B]`:
    /// carries and elements have the batch as first axis. Past the end of its sequence a row keeps its
    /// carries, and what it stacks is zero. With `reverse` a row starts at its own end, so its carries are
    /// `init` until then. A length beyond the number of steps counts as that number.
    #[track_caller]
    pub fn scan_lengths<'f>(
        &'f self,
        options: &ScanOptions,
        lengths: Tensor<'f>,
        init: &[Tensor<'f>],
        sequences: &[Tensor<'f>],
        body: impl FnOnce(&'f Self, &[Tensor<'f>], &[Tensor<'f>]) -> (Vec<Tensor<'f>>, Vec<Tensor<'f>>),
    ) -> Scanned<'f> {
        if lengths.is_poison() {
            return self.scan_with(options, init, sequences, body);
        }
        let Some(steps) = self.scan_length(options, sequences) else {
            return Scanned { carries: vec![self.poison(); init.len()], stacked: Vec::new() };
        };
        let positions = self.iota(lengths.dtype(), vec![steps], 0);
        let sequences = [sequences, &[positions]].concat();
        self.scan_with(options, init, &sequences, |f, carries, elements| {
            let (&position, elements) = elements.split_last().expect("the positions are the last sequence");
            let running = lengths.gt(position.broadcast(lengths.shape(), &[]));
            let rows = |x: Tensor<'f>| {
                if x.is_poison() { x } else { running.broadcast(x.shape(), &[0]) }
            };
            let (next, stacked) = body(f, carries, elements);
            if next.len() != carries.len() {
                return (next, stacked);
            }
            let kept = |(&new, &old): (&Tensor<'f>, &Tensor<'f>)| rows(new).select(new, old);
            let next = next.iter().zip(carries).map(kept).collect();
            let stacked = stacked.iter().map(|&y| rows(y).select(y, y.full_like(0.0))).collect();
            (next, stacked)
        })
    }

    #[track_caller]
    fn scan_steps<'f>(
        &'f self,
        options: &ScanOptions,
        init: &[Tensor<'f>],
        sequences: &[Tensor<'f>],
        body: Step<'_, 'f>,
    ) -> Scanned<'f> {
        let this = self.innermost();
        if !std::ptr::eq(self, this) {
            return this.scan_steps(options, init, sequences, body);
        }
        let length = self.scan_length(options, sequences);
        if let Some(length) = length.as_ref().filter(|_| options.truncate_every > 0 || options.save_every > 1)
        {
            return self.scan_in_blocks(options, length, init, sequences, body);
        }
        let b = self.closure("scan");
        let argument = |name, t: &Tensor<'f>, ty: fn(&TensorType) -> TensorType| {
            if t.is_poison() { b.poison() } else { b.argument(name, ty(&t.ty())) }
        };
        let carries: Vec<Tensor<'f>> = init.iter().map(|t| argument("carry", t, Clone::clone)).collect();
        let elements: Vec<Tensor<'f>> = sequences.iter().map(|t| argument("x", t, element_type)).collect();
        let (next, stacked) = self.inside(b, || body(b, &carries, &elements));
        let failed =
            Scanned { carries: vec![self.poison(); init.len()], stacked: vec![self.poison(); stacked.len()] };
        if next.len() != init.len() {
            self.misuse(format!("scan: {} carries, but the body gives {} next ones", init.len(), next.len()));
            return failed;
        }
        let (Some(length), Some(body)) = (length, b.finish(&[next, stacked].concat())) else { return failed };
        let operands = [init.to_vec(), sequences.to_vec(), self.captures(b)].concat();
        let scan = Scan {
            body,
            length,
            carries: init.len(),
            sequences: sequences.len(),
            reverse: options.reverse,
            recompute: options.save_every == 1,
        };
        let mut carries = self.push_all(scan, &operands);
        if carries.is_empty() {
            return failed;
        }
        let stacked = carries.split_off(init.len());
        Scanned { carries, stacked }
    }

    #[track_caller]
    fn scan_length(&self, options: &ScanOptions, sequences: &[Tensor<'_>]) -> Option<Dim> {
        if let Some(t) = sequences.iter().find(|t| !t.is_poison() && t.rank() == 0) {
            self.misuse(format!("scan: a sequence is {}, it needs an axis for the steps", t.ty()));
            return None;
        }
        if sequences.iter().any(|t| t.is_poison()) {
            return None;
        }
        let length = options.length.clone().or_else(|| sequences.first().map(|t| t.shape()[0].clone()));
        if length.is_none() {
            self.misuse("scan: without sequences the length must be given".to_owned());
        }
        length
    }

    /// A scan over blocks of steps, each a scan of its own: between them no gradient flows, or only the
    /// carries are saved.
    #[track_caller]
    fn scan_in_blocks<'f>(
        &'f self,
        options: &ScanOptions,
        length: &Dim,
        init: &[Tensor<'f>],
        sequences: &[Tensor<'f>],
        body: Step<'_, 'f>,
    ) -> Scanned<'f> {
        let truncate = options.truncate_every > 0;
        let (option, n) = if truncate {
            ("truncate_every", options.truncate_every)
        } else {
            ("save_every", options.save_every)
        };
        let Some(steps) = length.as_const().filter(|l| l % n == 0) else {
            self.misuse(format!("scan: {length} steps are not known to be a multiple of `{option}`, {n}"));
            // In one block, so that what the body does is checked, and gives as many results.
            let plain = ScanOptions { save_every: 0, truncate_every: 0, ..options.clone() };
            return self.scan_steps(&plain, init, sequences, body);
        };
        let block = |t: &Tensor<'f>| {
            let dims = t.shape();
            let rest = dims.iter().skip(1).cloned();
            t.reshape([Dim::from(steps / n), Dim::from(n)].into_iter().chain(rest).collect::<Shape>())
        };
        let blocks: Vec<Tensor<'f>> = sequences.iter().map(block).collect();
        let within = ScanOptions {
            length: Some(n.into()),
            reverse: options.reverse,
            save_every: if truncate { options.save_every } else { 0 },
            truncate_every: 0,
        };
        let across = ScanOptions {
            length: Some((steps / n).into()),
            reverse: options.reverse,
            save_every: usize::from(!truncate),
            truncate_every: 0,
        };
        let block: Step<'_, 'f> = Box::new(move |b, carries, block| {
            let carries: Vec<Tensor<'f>> =
                carries.iter().map(|c| if truncate { c.stop_gradient() } else { *c }).collect();
            let inner = b.scan_steps(&within, &carries, block, body);
            (inner.carries, inner.stacked)
        });
        let scanned = self.scan_steps(&across, init, &blocks, block);
        let flat = |t: &Tensor<'f>| {
            let dims = t.shape();
            let rest = dims.iter().skip(2).cloned();
            t.reshape(std::iter::once(length.clone()).chain(rest).collect::<Shape>())
        };
        let stacked = scanned.stacked.iter().map(flat).collect();
        Scanned { carries: scanned.carries, stacked }
    }

    /// Runs `body` on the carries (at first `init`) as long as `condition` gives true, a bool scalar.
    /// See [`While`]; it has no gradient in reverse mode.
    #[track_caller]
    pub fn while_loop<'f>(
        &'f self,
        init: &[Tensor<'f>],
        condition: impl FnOnce(&'f Self, &[Tensor<'f>]) -> Tensor<'f>,
        body: impl FnOnce(&'f Self, &[Tensor<'f>]) -> Vec<Tensor<'f>>,
    ) -> Vec<Tensor<'f>> {
        let this = self.innermost();
        if !std::ptr::eq(self, this) {
            return this.while_loop(init, condition, body);
        }
        let failed = vec![self.poison(); init.len()];
        if init.iter().any(|t| t.is_poison()) {
            return failed;
        }
        let closures = [self.closure("while"), self.closure("do")];
        let arguments =
            closures.map(|b| init.iter().map(|t| b.argument("carry", t.ty())).collect::<Vec<Tensor<'f>>>());
        let holds = vec![self.inside(closures[0], || condition(closures[0], &arguments[0]))];
        let next = self.inside(closures[1], || body(closures[1], &arguments[1]));
        let Some(([condition, body], captured)) = self.finish_both(closures, init.len(), [holds, next])
        else {
            return failed;
        };
        let operands = [init.to_vec(), captured].concat();
        let results = self.push_all(While { condition, body, carries: init.len() }, &operands);
        if results.is_empty() { failed } else { results }
    }

    /// The values of `then` if `predicate`, a bool scalar, is true, else those of `otherwise`; only one
    /// of both runs. See [`Cond`].
    #[track_caller]
    pub fn cond<'f>(
        &'f self,
        predicate: Tensor<'f>,
        then: impl FnOnce(&'f Self) -> Vec<Tensor<'f>>,
        otherwise: impl FnOnce(&'f Self) -> Vec<Tensor<'f>>,
    ) -> Vec<Tensor<'f>> {
        let this = self.innermost();
        if !std::ptr::eq(self, this) {
            return this.cond(predicate, then, otherwise);
        }
        let closures = [self.closure("then"), self.closure("otherwise")];
        let first = self.inside(closures[0], || then(closures[0]));
        let outputs = [first, self.inside(closures[1], || otherwise(closures[1]))];
        let failed = vec![self.poison(); outputs[0].len()];
        let Some(([then, otherwise], captured)) = self.finish_both(closures, 0, outputs) else {
            return failed;
        };
        let operands = [vec![predicate], captured].concat();
        let results = self.push_all(Cond { then, otherwise }, &operands);
        if results.is_empty() { failed } else { results }
    }

    /// The outputs of `function` for `operands`, as part of this function. See [`Call`].
    #[track_caller]
    pub fn call<'f>(&'f self, function: &Region, operands: &[Tensor<'f>]) -> Vec<Tensor<'f>> {
        let outputs = function.outputs().len();
        let results =
            self.push_all(Call { function: function.clone(), inline: true, gradient: None }, operands);
        if results.is_empty() { vec![self.poison(); outputs] } else { results }
    }

    /// What `body` returns, computed again for the backward pass instead of kept: a checkpoint.
    #[track_caller]
    pub fn checkpoint<'f>(&'f self, body: impl FnOnce(&'f Self) -> Vec<Tensor<'f>>) -> Vec<Tensor<'f>> {
        let this = self.innermost();
        if !std::ptr::eq(self, this) {
            return this.checkpoint(body);
        }
        let b = self.closure("checkpoint");
        let outputs = self.inside(b, || body(b));
        let failed = vec![self.poison(); outputs.len()];
        let Some(function) = b.finish(&outputs) else { return failed };
        let operands = self.captures(b);
        let results = self.push_all(Call { function, inline: false, gradient: None }, &operands);
        if results.is_empty() { failed } else { results }
    }

    /// What `function` returns for `operands`, with a gradient of the user's own: `gradient` gets the
    /// operands, the results and a cotangent for each float result, and returns a cotangent for each float
    /// operand. Both may use only what they are given, and constants.
    ///
    /// ```
    /// # use graphc_ir::{DType, FunctionBuilder, ModuleBuilder, Tensor, gradients};
    /// // The straight-through estimator: rounds, but lets the gradient pass.
    /// fn round<'f>(x: Tensor<'f>) -> Tensor<'f> {
    ///     x.builder().custom_gradient(&[x], |_, x| vec![x[0].round()], |_, _, _, ct| vec![ct[0]])[0]
    /// }
    /// # let m = ModuleBuilder::new("m");
    /// # m.function("f", |f| {
    /// #     let x = f.input("x", DType::F32, [3]);
    /// #     f.output("g", gradients(round(x).reduce_sum(&[0]), &[x])[0]);
    /// # });
    /// # m.build().unwrap();
    /// ```
    #[track_caller]
    pub fn custom_gradient<'f>(
        &'f self,
        operands: &[Tensor<'f>],
        function: impl FnOnce(&'f Self, &[Tensor<'f>]) -> Vec<Tensor<'f>>,
        gradient: impl FnOnce(&'f Self, &[Tensor<'f>], &[Tensor<'f>], &[Tensor<'f>]) -> Vec<Tensor<'f>>,
    ) -> Vec<Tensor<'f>> {
        let this = self.innermost();
        if !std::ptr::eq(self, this) {
            return this.custom_gradient(operands, function, gradient);
        }
        let b = self.closure("custom");
        let x: Vec<Tensor<'f>> = operands.iter().map(|t| b.argument("x", t.ty())).collect();
        let y = self.inside(b, || function(b, &x));
        let failed = vec![self.poison(); y.len()];
        if y.iter().chain(operands).any(|t| t.is_poison()) {
            return failed;
        }
        let rule = self.closure("gradient");
        let types = |values: &[Tensor<'f>]| values.iter().map(|t| t.ty()).collect::<Vec<TensorType>>();
        let arguments = |name, types: Vec<TensorType>| -> Vec<Tensor<'f>> {
            types.into_iter().map(|ty| rule.argument(name, ty)).collect()
        };
        let (rx, ry) = (arguments("x", types(operands)), arguments("y", types(&y)));
        let floats = types(&y).into_iter().filter(|ty| ty.dtype.is_float()).collect();
        let cotangents = arguments("ct", floats);
        let gradients = self.inside(rule, || gradient(rule, &rx, &ry, &cotangents));
        let regions = (b.finish(&y), rule.finish(&gradients));
        let (Some(function), Some(rule_region)) = regions else { return failed };
        if !self.captures(b).is_empty() || !self.captures(rule).is_empty() {
            self.misuse(
                "custom_gradient: the function or its gradient uses a value that is not among its operands"
                    .to_owned(),
            );
            return failed;
        }
        let call = Call { function, inline: true, gradient: Some(rule_region) };
        let results = self.push_all(call, operands);
        if results.is_empty() { failed } else { results }
    }

    /// Ends two closures that get the same operands: those they declare first, of which there are
    /// `own`, then what either captures.
    #[track_caller]
    fn finish_both<'f>(
        &'f self,
        closures: [&'f Self; 2],
        own: usize,
        outputs: [Vec<Tensor<'f>>; 2],
    ) -> Option<([Region; 2], Vec<Tensor<'f>>)> {
        let [a, b] = closures;
        let [first, second] = outputs;
        if first.iter().chain(&second).any(|t| t.is_poison()) {
            return None;
        }
        // Results that are values around a closure become captures here, before inputs are counted.
        let first: Vec<Tensor<'f>> = first.into_iter().map(|t| a.adopt(t)).collect::<Option<_>>()?;
        let second: Vec<Tensor<'f>> = second.into_iter().map(|t| b.adopt(t)).collect::<Option<_>>()?;
        b.share_captures(a);
        a.share_captures(b);
        a.order_captures(b, own);
        let captured = self.captures(b);
        Some(([a.finish(&first)?, b.finish(&second)?], captured))
    }

    /// Appends an operation and gives all of its results; none after a mistake.
    #[track_caller]
    pub fn push_all<'f>(&'f self, op: impl Into<Op>, operands: &[Tensor<'f>]) -> Vec<Tensor<'f>> {
        let op = op.into();
        let types: Vec<TensorType> = operands.iter().map(|t| t.ty()).collect();
        let first = self.push(op.clone(), operands);
        if first.is_poison() {
            return Vec::new();
        }
        let results = op.results(&types).unwrap_or_default();
        let further = results.into_iter().enumerate().skip(1);
        let further = further.map(|(index, ty)| self.push(ResultOf { index, ty }, &[first]));
        std::iter::once(first).chain(further).collect()
    }
}

impl<'f> Tensor<'f> {
    /// The value itself; its gradient is multiplied by `factor`.
    #[track_caller]
    pub fn scale_gradient(self, factor: f64) -> Self {
        let f = self.builder();
        f.custom_gradient(&[self], |_, x| vec![x[0]], |_, _, _, ct| vec![ct[0] * factor])[0]
    }

    /// The value itself; the elements of its gradient are limited to `-limit..=limit`.
    #[track_caller]
    pub fn clip_gradient(self, limit: f64) -> Self {
        let f = self.builder();
        let clip = |ct: Tensor<'f>| ct.clamp(ct.full_like(-limit), ct.full_like(limit));
        f.custom_gradient(&[self], |_, x| vec![x[0]], |_, _, _, ct| vec![clip(ct[0])])[0]
    }
}

/// The type of the elements of a sequence.
fn element_type(sequence: &TensorType) -> TensorType {
    TensorType::new(sequence.dtype, sequence.shape.iter().skip(1).cloned().collect::<Shape>())
}
