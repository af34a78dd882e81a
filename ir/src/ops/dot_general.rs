//! `dot_general`: sums of products over chosen axes, with batch axes.

use super::rules::{accept, behind_batch, is_number, operands, sum_tangents, to_front};
use super::{BatchCx, Batched, Jvp, OpDef, StaticType, Vjp, VjpCx};
use crate::builder::Tensor;
use crate::error::{EvalError, TypeError};
use crate::index::{Access, IndexExpr};
use crate::literal::{Literal, indices, linear_index};
use crate::pattern::{Contraction, Pattern};
use crate::scalar::Scalar;
use crate::types::{Shape, TensorType};

op! {
    /// Sum of products of `lhs` and `rhs` over the contracted axes, which are paired in order, for
    /// each pair of batch axes. Result: batch axes, then the free axes of `lhs`, then those of
    /// `rhs`, each in order. One chain of fused multiply-adds from +0 in row-major order of the
    /// contracted axes as listed. Floats, and integers (which wrap).
    /// Gradients: contractions of the cotangent with the other operand, transposed.
    pub struct DotGeneral {
        /// Batch axes of `lhs`.
        pub lhs_batch: Vec<usize>,
        /// Batch axes of `rhs`.
        pub rhs_batch: Vec<usize>,
        /// Contracted axes of `lhs`.
        pub lhs_contract: Vec<usize>,
        /// Contracted axes of `rhs`.
        pub rhs_contract: Vec<usize>,
    }
}

/// Axes of a tensor of this rank that are neither batch nor contracted.
fn free(rank: usize, batch: &[usize], contract: &[usize]) -> Vec<usize> {
    (0..rank).filter(|a| !batch.contains(a) && !contract.contains(a)).collect()
}

impl DotGeneral {
    /// The gradient of one operand. `own` and `other` are (rank, batch, contract) of the operand
    /// and of the other one; in the cotangent, the other's free axes start at `other_at`.
    fn cotangent<'f>(
        ct: Tensor<'f>,
        other: Tensor<'f>,
        own: (usize, &[usize], &[usize]),
        other_axes: (&[usize], &[usize]),
        other_at: usize,
    ) -> Tensor<'f> {
        let (rank, batch, contract) = own;
        let (other_batch, other_contract) = other_axes;
        let n_batch = batch.len();
        let own_free = free(rank, batch, contract);
        let other_free = free(other.rank(), other_batch, other_contract);
        let op = Self {
            lhs_batch: (0..n_batch).collect(),
            rhs_batch: other_batch.to_vec(),
            lhs_contract: (other_at..other_at + other_free.len()).collect(),
            rhs_contract: other_free,
        };
        let product = ct.builder().push(op, &[ct, other]);
        // Axes of the product: batch, own free, then the other's contracted axes in its own order.
        let mut other_order: Vec<usize> = (0..contract.len()).collect();
        other_order.sort_by_key(|&i| other_contract[i]);
        let mut permutation = vec![0; rank];
        for (i, &axis) in batch.iter().chain(&own_free).enumerate() {
            permutation[axis] = i;
        }
        for (i, &pair) in other_order.iter().enumerate() {
            permutation[contract[pair]] = n_batch + own_free.len() + i;
        }
        product.transpose(&permutation)
    }
}

impl OpDef for DotGeneral {
    const NAME: &'static str = "dot_general";

    fn infer(&self, x: &[TensorType]) -> Result<TensorType, TypeError> {
        let [lhs, rhs] = operands::<2>(Self::NAME, x)?;
        let fail = |message: String| Err(TypeError::new(Self::NAME, x, message));
        accept(Self::NAME, x, 0, "a number", is_number)?;
        if lhs.dtype != rhs.dtype {
            return fail(format!("lhs is {}, rhs is {}: convert one with `cast`", lhs.dtype, rhs.dtype));
        }
        for (side, ty, batch, contract) in [
            ("lhs", lhs, &self.lhs_batch, &self.lhs_contract),
            ("rhs", rhs, &self.rhs_batch, &self.rhs_contract),
        ] {
            let mut axes: Vec<usize> = batch.iter().chain(contract).copied().collect();
            if let Some(a) = axes.iter().find(|&&a| a >= ty.rank()) {
                return fail(format!("{side} axis {a} is not below its rank {}", ty.rank()));
            }
            axes.sort_unstable();
            if axes.windows(2).any(|w| w[0] == w[1]) {
                return fail(format!("an axis of {side} is named twice in batch {batch:?}, contract {contract:?}"));
            }
        }
        for (what, l, r) in [
            ("batch", &self.lhs_batch, &self.rhs_batch),
            ("contracted", &self.lhs_contract, &self.rhs_contract),
        ] {
            if l.len() != r.len() {
                return fail(format!("{} {what} axes of lhs, {} of rhs", l.len(), r.len()));
            }
            for (&l, &r) in l.iter().zip(r) {
                if lhs.shape[l] != rhs.shape[r] {
                    let (dl, dr) = (&lhs.shape[l], &rhs.shape[r]);
                    return fail(format!("lhs axis {l} is {dl} but rhs axis {r} is {dr}"));
                }
            }
        }
        let batch = self.lhs_batch.iter().map(|&a| &lhs.shape[a]);
        let lhs_free = free(lhs.rank(), &self.lhs_batch, &self.lhs_contract);
        let rhs_free = free(rhs.rank(), &self.rhs_batch, &self.rhs_contract);
        let m = lhs_free.iter().map(|&a| &lhs.shape[a]);
        let n = rhs_free.iter().map(|&a| &rhs.shape[a]);
        super::rules::storable(Self::NAME, &lhs.with_shape(batch.chain(m).chain(n).collect::<Shape>()))
    }

    fn vjp<'f>(&self, cx: &VjpCx<'_, 'f>, ct: Tensor<'f>) -> Vjp<'f> {
        let (lhs, rhs) = (cx.operands[0], cx.operands[1]);
        let n_batch = self.lhs_batch.len();
        let m = lhs.rank() - n_batch - self.lhs_contract.len();
        let lhs_axes = (lhs.rank(), self.lhs_batch.as_slice(), self.lhs_contract.as_slice());
        let rhs_axes = (rhs.rank(), self.rhs_batch.as_slice(), self.rhs_contract.as_slice());
        Ok(vec![
            Some(Self::cotangent(ct, rhs, lhs_axes, (rhs_axes.1, rhs_axes.2), n_batch + m)),
            Some(Self::cotangent(ct, lhs, rhs_axes, (lhs_axes.1, lhs_axes.2), n_batch)),
        ])
    }

    fn jvp<'f>(&self, cx: &VjpCx<'_, 'f>, t: &[Option<Tensor<'f>>]) -> Jvp<'f> {
        let f = cx.result.builder();
        let lhs = t[0].map(|t| f.push(self.clone(), &[t, cx.operands[1]]));
        let rhs = t[1].map(|t| f.push(self.clone(), &[cx.operands[0], t]));
        Ok(sum_tangents([lhs, rhs]))
    }

    fn batch<'f>(&self, cx: &BatchCx<'_, 'f>) -> Batched<'f> {
        let behind = |i: usize, axes: &[usize]| if cx.mapped[i] { behind_batch(axes) } else { axes.to_vec() };
        let mut op = Self {
            lhs_batch: behind(0, &self.lhs_batch),
            rhs_batch: behind(1, &self.rhs_batch),
            lhs_contract: behind(0, &self.lhs_contract),
            rhs_contract: behind(1, &self.rhs_contract),
        };
        let n_batch = self.lhs_batch.len();
        let lhs_free = cx.shape(0).rank() - n_batch - self.lhs_contract.len();
        // Where the batch comes out: as one more batch axis, or as the first free axis of its operand.
        let at = match cx.mapped {
            [true, true] => {
                op.lhs_batch.insert(0, 0);
                op.rhs_batch.insert(0, 0);
                0
            }
            [true, false] => n_batch,
            _ => n_batch + lhs_free,
        };
        Ok(to_front(cx.operands[0].builder().push(op, cx.operands), at))
    }

    fn eval(&self, x: &[&Literal], out: &StaticType) -> Result<Literal, EvalError> {
        let (lhs, rhs) = (x[0], x[1]);
        let lhs_free = free(lhs.dims().len(), &self.lhs_batch, &self.lhs_contract);
        let rhs_free = free(rhs.dims().len(), &self.rhs_batch, &self.rhs_contract);
        let k: Vec<usize> = self.lhs_contract.iter().map(|&a| lhs.dims()[a]).collect();
        let mut at = indices(&out.dims);
        Ok(Literal::from_fn(out.dtype, &out.dims, |_| {
            let index = at.next().expect("one index per element");
            let (mut l, mut r) = (vec![0; lhs.dims().len()], vec![0; rhs.dims().len()]);
            for (i, (&a, &b)) in self.lhs_batch.iter().zip(&self.rhs_batch).enumerate() {
                (l[a], r[b]) = (index[i], index[i]);
            }
            let n_batch = self.lhs_batch.len();
            lhs_free.iter().zip(&index[n_batch..]).for_each(|(&a, &i)| l[a] = i);
            rhs_free.iter().zip(&index[n_batch + lhs_free.len()..]).for_each(|(&a, &i)| r[a] = i);
            let mut acc = Scalar::from_f64(out.dtype, 0.0);
            for k in indices(&k) {
                for (i, (&a, &b)) in self.lhs_contract.iter().zip(&self.rhs_contract).enumerate() {
                    (l[a], r[b]) = (k[i], k[i]);
                }
                let (a, b) = (lhs.get(linear_index(&l, lhs.dims())), rhs.get(linear_index(&r, rhs.dims())));
                acc = super::rules::multiply_add(a, b, acc);
            }
            acc
        }))
    }

    fn pattern(&self, x: &[StaticType], out: &StaticType) -> Pattern {
        let (lhs, rhs) = (&x[0].dims, &x[1].dims);
        let lhs_free = free(lhs.len(), &self.lhs_batch, &self.lhs_contract);
        let rhs_free = free(rhs.len(), &self.rhs_batch, &self.rhs_contract);
        let extents = |dims: &[usize], axes: &[usize]| axes.iter().map(|&a| dims[a]).collect::<Vec<_>>();
        let n_batch = self.lhs_batch.len();
        let n_at = n_batch + lhs_free.len();
        let k_at = n_at + rhs_free.len();
        let side = |operand, rank: usize, batch: &[usize], free: &[usize], free_at, contract: &[usize]| {
            let mut index = vec![IndexExpr::default(); rank];
            for (first, axes) in [(0, batch), (free_at, free), (k_at, contract)] {
                axes.iter().enumerate().for_each(|(i, &a)| index[a] = IndexExpr::var((first + i) as u32));
            }
            Access { operand, index, guards: Vec::new() }
        };
        Pattern::Contraction(vec![Contraction {
            batch: extents(lhs, &self.lhs_batch),
            m: extents(lhs, &lhs_free),
            n: extents(rhs, &rhs_free),
            k: extents(lhs, &self.lhs_contract),
            lhs: side(0, lhs.len(), &self.lhs_batch, &lhs_free, n_batch, &self.lhs_contract),
            rhs: side(1, rhs.len(), &self.rhs_batch, &rhs_free, n_at, &self.rhs_contract),
            out: (0..out.dims.len()).map(|v| IndexExpr::var(v as u32)).collect(),
        }])
    }

    #[cfg(any(test, feature = "testing"))]
    fn samples() -> super::Samples {
        use crate::testing::{Sample, extent, number, uniform};
        use proptest::prelude::*;
        let some = |n: usize| proptest::collection::vec(extent(), 0..=n);
        let case = (number(), some(1), some(2), some(2), some(2)).prop_map(|(dtype, mut b, mut m, mut n, mut k)| {
            // Few enough products for finite differences.
            for dims in [&mut b, &mut m, &mut n, &mut k] {
                while dims.iter().product::<usize>() > 40 {
                    dims.pop();
                }
            }
            (dtype, b, m, n, k)
        });
        let sample = case.prop_flat_map(|(dtype, b, m, n, k)| {
            let order = |len: usize| Just((0..len).collect::<Vec<usize>>()).prop_shuffle();
            let lhs = order(b.len() + m.len() + k.len());
            let rhs = order(b.len() + n.len() + k.len());
            (Just((dtype, b, m, n, k)), lhs, rhs)
        });
        let sample = sample.prop_flat_map(|((dtype, b, m, n, k), lhs, rhs)| {
            // `lhs[i]` is the axis at which extent `i` of (batch, free, contracted) lies.
            let place = |order: &[usize], free: &[usize]| {
                let mut dims = vec![0; order.len()];
                for (&axis, &d) in order.iter().zip(b.iter().chain(free).chain(&k)) {
                    dims[axis] = d;
                }
                dims
            };
            let op = Self {
                lhs_batch: lhs[..b.len()].to_vec(),
                rhs_batch: rhs[..b.len()].to_vec(),
                lhs_contract: lhs[b.len() + m.len()..].to_vec(),
                rhs_contract: rhs[b.len() + n.len()..].to_vec(),
            };
            (uniform(dtype, place(&lhs, &m), -2.0, 2.0), uniform(dtype, place(&rhs, &n), -2.0, 2.0))
                .prop_map(move |(l, r)| Sample { op: op.clone().into(), operands: vec![l, r], smooth: true })
        });
        Some(sample.boxed())
    }
}

impl<'f> Tensor<'f> {
    /// Matrix product of the last axis of `self` with the first axis of `rhs`.
    /// Shapes: `[.., k]` and `[k, ..]` give `[.., ..]`.
    #[track_caller]
    pub fn dot(self, rhs: Self) -> Self {
        self.dot_general(rhs, (&[], &[]), (&[self.rank().wrapping_sub(1)], &[0]))
    }

    /// Sum of products over the paired axes `contract` = (of `self`, of `rhs`), for each pair of
    /// axes in `batch`. Result: batch axes, free axes of `self`, free axes of `rhs`.
    #[track_caller]
    pub fn dot_general(self, rhs: Self, batch: (&[usize], &[usize]), contract: (&[usize], &[usize])) -> Self {
        let op = DotGeneral {
            lhs_batch: batch.0.to_vec(),
            rhs_batch: batch.1.to_vec(),
            lhs_contract: contract.0.to_vec(),
            rhs_contract: contract.1.to_vec(),
        };
        self.builder().push(op, &[self, rhs])
    }
}
