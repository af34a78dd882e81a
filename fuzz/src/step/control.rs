//! Nodes with regions.

use super::Step;
use graphc::{DType, Tensor, TensorType};
use graphc_ir::ScanOptions;

impl<'f> Step<'_, 'f> {
    /// Grows a region from `values`; gives all of its values.
    fn region(&mut self, values: &[Tensor<'f>], nodes: usize) -> Vec<Tensor<'f>> {
        // A value of the function around it, which the region captures.
        let around = self.rng.of(&self.pool);
        let mut inner = Step {
            f: self.f,
            rng: self.rng,
            pool: vec![around],
            inputs: Vec::new(),
            depth: self.depth - 1,
            sizes: self.sizes,
            region: true,
        };
        inner.pool.extend(values);
        inner.grow(nodes);
        inner.pool
    }

    pub(super) fn control(
        &mut self,
        name: &str,
        x: Tensor<'f>,
        flags: (bool, bool),
    ) -> Option<Vec<Tensor<'f>>> {
        let f = self.f;
        let nodes = 1 + self.rng.below(4);
        // The newest value of that type: there is one, the carry itself.
        let newest =
            |pool: &[Tensor<'f>], ty: &TensorType| pool.iter().rev().copied().find(|t| t.ty() == *ty);
        match name {
            "scan" => {
                let d = x.shape().as_static()?;
                let carry = self.value(&x.ty().with_shape(d.get(1..).unwrap_or(&[])));
                let carry = if flags.1 { carry } else { x };
                let (sequences, length) = match d.first() {
                    Some(&n) if n <= 9 => (vec![x], None),
                    _ => (Vec::new(), Some(self.rng.below(4).into())),
                };
                let options = ScanOptions { length, reverse: flags.0, ..ScanOptions::default() };
                let s = f.scan_with(&options, &[carry], &sequences, |_, c, e| {
                    let pool = self.region(&[c, e].concat(), nodes);
                    let next = newest(&pool[1..], &c[0].ty()).unwrap_or(c[0]);
                    (vec![next], vec![pool[pool.len() - 1]])
                });
                Some([s.carries, s.stacked].concat())
            }
            "while" => {
                let (limit, zero) = (self.rng.below(4) as f64, f.scalar(DType::I32, 0.0));
                let results = f.while_loop(
                    &[zero, x],
                    |_, c| c[0].lt(limit),
                    |_, c| {
                        let pool = self.region(&[c[1]], nodes);
                        vec![c[0] + 1.0, newest(&pool[1..], &c[1].ty()).unwrap_or(c[1])]
                    },
                );
                Some(results)
            }
            "cond" => {
                let predicate = if x.ty() == TensorType::scalar(DType::Bool) {
                    x
                } else {
                    self.value(&TensorType::scalar(DType::Bool))
                };
                let state = std::cell::RefCell::new(self);
                let branch = || {
                    let pool = state.borrow_mut().region(&[x], nodes);
                    vec![newest(&pool[1..], &x.ty()).unwrap_or(x)]
                };
                Some(f.cond(predicate, |_| branch(), |_| branch()))
            }
            _ => Some(f.checkpoint(|_| {
                let pool = self.region(&[x], nodes);
                vec![pool[pool.len() - 1]]
            })),
        }
    }
}
