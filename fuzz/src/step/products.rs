//! Nodes that combine operands by index: gathers, scatters, products and convolutions.

use super::Step;
use graphc::{DType, Tensor, TensorType};
use graphc_ir::ops::*;
use graphc_ir::{Combine, Op, StaticType};

impl<'f> Step<'_, 'f> {
    pub(super) fn indexed(
        &mut self,
        name: &str,
        x: Tensor<'f>,
        flags: (bool, bool),
    ) -> Option<Vec<Tensor<'f>>> {
        let d = x.shape().as_static()?;
        if d.is_empty() {
            return None;
        }
        let axis = self.axis(d.len());
        let places = self.sizes.dims(self.rng, 2);
        // An integer may be the index instead.
        let (of, index) = if x.dtype().is_int() && flags.0 {
            let dtype = self.dtype();
            let bound = 1 + self.rng.below(9);
            (self.value(&TensorType::new(dtype, [bound, 3])), x.clamp(0.0, bound as f64 - 1.0))
        } else {
            (x, self.index(&places, d[axis]))
        };
        let axes = vec![if of.id() == x.id() { axis } else { 0 }];
        if name == "gather" {
            return self.push(Gather { axes, batch: Vec::new() }, &[of, index]);
        }
        let part = Gather { axes: axes.clone(), batch: Vec::new() }.infer(&[of.ty(), index.ty()]).ok()?;
        if !self.is_small(&part) {
            return None;
        }
        let updates = self.value(&part);
        let combine = self.rng.of(&Combine::ALL);
        self.push(Scatter { axes, batch: Vec::new(), combine }, &[of, index, updates])
    }

    /// Products with something wider between them.
    fn attention(&mut self, dtype: DType) -> Vec<Tensor<'f>> {
        let dims =
            [self.rng.of(&[1, 2]), self.rng.of(&[1, 3]), self.rng.of(&[7, 8, 17]), self.rng.of(&[1, 2])];
        let [q, k, v] = [(); 3].map(|()| self.value(&TensorType::new(dtype, dims)));
        let scores = q.dot_general(k, (&[0, 1], &[0, 1]), (&[3], &[3]));
        let wide = if self.rng.one_in(2) { scores.softmax(3) } else { scores * scores.tanh() };
        let y = wide.dot_general(v, (&[0, 1], &[0, 1]), (&[3], &[2]));
        if self.rng.one_in(4) { vec![wide, y] } else { vec![y] }
    }

    pub(super) fn product(&mut self, x: Tensor<'f>, left: bool) -> Option<Vec<Tensor<'f>>> {
        if matches!(x.dtype(), DType::F32 | DType::F64) && self.rng.one_in(6) {
            return Some(self.attention(x.dtype()));
        }
        let x = if self.rng.one_in(4) {
            let permutation = self.permutation(x.rank());
            self.push(Transpose { permutation }, &[x])?[0]
        } else {
            x
        };
        let d = x.shape().as_static()?;
        let mut order = self.permutation(d.len());
        let mut batch = order.split_off(order.len() - self.rng.below(order.len().min(2) + 1));
        let mut contract = order.split_off(order.len() - self.rng.below(order.len().min(2) + 1));
        batch.sort_unstable();
        contract.sort_unstable();
        let free = self.rng.of(&[1, 2, 3, 7, 8, 9, 16, 17, 33]);
        let mut other: Vec<(usize, Option<usize>)> =
            batch.iter().chain(&contract).map(|&a| (d[a], Some(a))).collect();
        if !self.rng.one_in(4) {
            other.insert(self.rng.below(other.len() + 1), (free, None));
        }
        let extents: Vec<usize> = other.iter().map(|o| o.0).collect();
        let other_ty = x.ty().with_shape(extents.as_slice());
        if !self.is_small(&other_ty) {
            return None;
        }
        let y = self.value(&other_ty);
        let there = |axes: &[usize]| -> Vec<usize> {
            axes.iter().filter_map(|a| other.iter().position(|o| o.1 == Some(*a))).collect()
        };
        let (batch_there, contract_there) = (there(&batch), there(&contract));
        let op = |a: &[usize], b: &[usize], c: &[usize], d: &[usize]| DotGeneral {
            lhs_batch: a.to_vec(),
            rhs_batch: b.to_vec(),
            lhs_contract: c.to_vec(),
            rhs_contract: d.to_vec(),
        };
        if left {
            self.push(op(&batch, &batch_there, &contract, &contract_there), &[x, y])
        } else {
            self.push(op(&batch_there, &batch, &contract_there, &contract), &[y, x])
        }
    }

    pub(super) fn convolution(&mut self, x: Tensor<'f>, left: bool) -> Option<Vec<Tensor<'f>>> {
        let d = x.shape().as_static()?;
        let spatial = d.len().checked_sub(2)?;
        let w = self.window(spatial);
        let other: Vec<usize> = if left {
            [&[1 + self.rng.below(9), d[1]], &*w.size].concat()
        } else {
            let image: Vec<usize> = w.size.iter().map(|_| 1 + self.rng.below(8)).collect();
            [&[1 + self.rng.below(3), d[1]], &*image].concat()
        };
        let y = self.value(&x.ty().with_shape(other.as_slice()));
        let op = Convolution {
            strides: w.strides,
            padding: w.padding,
            lhs_dilation: (0..spatial).map(|_| if self.rng.one_in(4) { 2 } else { 1 }).collect(),
            rhs_dilation: w.dilation,
            groups: 1,
            batch_groups: 1,
        };
        self.push(op, &if left { [x, y] } else { [y, x] })
    }
}

/// Multiplications of a contraction, as the interpreter does them; 0 for others.
pub(super) fn work(op: &Op, types: &[TensorType]) -> usize {
    let volume = |ty: &TensorType| StaticType::of(ty).map_or(0, |t| t.len());
    match op {
        Op::DotGeneral(_) | Op::Convolution(_) => {
            let out = op.infer(types).map_or(0, |ty| volume(&ty));
            let (a, b) = (volume(&types[0]), volume(&types[1]));
            out.saturating_mul(a.min(b))
        }
        _ => 0,
    }
}
