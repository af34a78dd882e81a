//! Work of a function, counted.

use crate::module::Function;
use crate::ops::{Op, StaticType};
use crate::pattern::Pattern;
use std::collections::BTreeMap;

/// Floating-point operations of a function whose dimensions are numbers, as it is written: two for each multiply-add of a
/// product or convolution, one for each element that elementwise arithmetic makes or a reduction takes, whatever the function; none
/// for moving and choosing elements, for integers, nor for what no result needs. A loop counts each of its steps, of a `while` one; of branches the first
/// counts. 0 for what has open dimensions.
pub fn flops(function: &Function) -> u64 {
    flops_by_scope(function).values().sum()
}

/// [`flops`] of each scope; those outside of any have the scope `""`.
pub fn flops_by_scope(function: &Function) -> BTreeMap<String, u64> {
    let mut scopes = BTreeMap::new();
    add(function, 1, &mut scopes);
    scopes
}

fn add(function: &Function, times: u64, scopes: &mut BTreeMap<String, u64>) {
    let graph = &function.graph;
    let mut used = vec![false; graph.len()];
    let roots = function.outputs.iter().map(|o| o.node).chain(function.updates.iter().map(|u| u.value));
    roots.for_each(|id| used[id.index()] = true);
    // Users come after what they use.
    for id in graph.ids().rev() {
        if !used[id.index()] {
            continue;
        }
        graph.operands(id).iter().for_each(|x| used[x.index()] = true);
        let op = graph.op(id);
        let times = match op {
            Op::Scan(scan) => times * scan.length.as_const().unwrap_or(0) as u64,
            _ => times,
        };
        let regions = if matches!(op, Op::Cond(_)) { 1 } else { usize::MAX };
        op.regions().iter().take(regions).for_each(|r| add(r.function(), times, scopes));
        let operands: Option<Vec<StaticType>> =
            graph.operands(id).iter().map(|&x| StaticType::of(graph.ty(x))).collect();
        if let (Some(operands), Some(out)) = (operands, StaticType::of(graph.ty(id))) {
            let scope = graph.node(id).origin.scope.as_deref().unwrap_or("");
            *scopes.entry(scope.to_owned()).or_default() += times * of_node(op, &operands, &out);
        }
    }
}

fn of_node(op: &Op, operands: &[StaticType], out: &StaticType) -> u64 {
    let count = |extents: &[usize]| extents.iter().map(|&e| e as u64).product::<u64>();
    let n = count(&out.dims);
    if !out.dtype.is_float() {
        return 0;
    }
    match op.pattern(operands, out) {
        Pattern::Contraction(parts) => parts
            .iter()
            .map(|c| 2 * [&c.batch, &c.m, &c.n, &c.k].map(|e| count(e)).iter().product::<u64>())
            .sum(),
        Pattern::Reduce(reduce) => n * count(&reduce.extents),
        Pattern::Cumulative { .. } => n,
        Pattern::Elementwise(_) if !matches!(op, Op::Select(_) | Op::Cast(_) | Op::Bitcast(_)) => n,
        Pattern::Scatter { updates, .. } => count(&operands[updates].dims),
        Pattern::SelectAndScatter(_) => count(&operands[1].dims),
        _ => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{DType, ModuleBuilder, gradients};

    #[test]
    fn counts_by_hand() {
        let m = ModuleBuilder::new("m");
        m.function("f", |f| {
            let (x, w) = (f.input("x", DType::F32, [3, 4]), f.input("w", DType::F32, [4, 5]));
            let h = f.scope("product", || x.dot(w));
            let y = f.scope("rest", || h.tanh().reduce_sum(&[0, 1]));
            f.output("y", y);
            let zero = f.full(DType::F32, [5], 0.0);
            let scanned =
                f.scope("loop", || f.scan(&[zero], &[h], |_, c, x| (vec![c[0] + x[0] * 2.0], vec![])));
            f.output("c", scanned.carries[0]);
        });
        let module = m.build().unwrap();
        let scopes = flops_by_scope(&module.functions[0]);
        let of = |scope: &str| scopes[scope];
        assert_eq!((of("product"), of("rest"), of("loop")), (2 * 3 * 4 * 5, 15 + 15, 3 * 2 * 5));
        assert_eq!(flops(&module.functions[0]), 120 + 30 + 30);
    }

    #[test]
    fn gradients_count_in_the_scope_of_what_they_differentiate() {
        let m = ModuleBuilder::new("m");
        m.function("f", |f| {
            let (x, w) = (f.input("x", DType::F32, [1, 2, 8, 8]), f.input("w", DType::F32, [4, 2, 3, 3]));
            let y = f.scope("conv", || x.conv2d(w, 1, 1));
            let g = gradients(y.reduce_sum(&[0, 1, 2, 3]), &[w]);
            f.output("g", g[0]);
            f.output("y", y);
        });
        let scopes = flops_by_scope(&m.build().unwrap().functions[0]);
        let forward = 2 * 4 * 2 * 9 * 64;
        assert_eq!(scopes["conv"], 2 * forward);
    }
}
