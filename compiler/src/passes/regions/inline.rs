//! Replaces calls by what they compute.

use crate::error::CompileError;
use crate::pass::{Pass, PassCx, Rebuilder};
use graphc_ir::{Function, NodeId, Op, Origin};
use rustc_hash::FxHashMap;

/// Copies the nodes of a region in place of each `call` of it that says so, also of calls inside.
pub struct Inline;

impl Pass for Inline {
    fn name(&self) -> &'static str {
        "inline"
    }

    fn run(&self, function: &Function, _: &PassCx) -> Result<Function, CompileError> {
        let graph = &function.graph;
        let mut rebuilder = Rebuilder::new(function);
        let mut results: FxHashMap<NodeId, Vec<NodeId>> = FxHashMap::default();
        for id in graph.ids() {
            match graph.op(id) {
                Op::Call(call) if call.inline => {
                    let operands = rebuilder.operands(id);
                    let origin = &graph.node(id).origin;
                    let values = splice(&mut rebuilder, call.function.function(), &operands, origin)?;
                    rebuilder.replace(id, values[0]);
                    results.insert(id, values);
                }
                Op::ResultOf(r) => match results.get(&graph.operands(id)[0]) {
                    Some(values) => rebuilder.replace(id, values[r.index]),
                    None => {
                        rebuilder.keep(id);
                    }
                },
                _ => {
                    rebuilder.keep(id);
                }
            }
        }
        Ok(rebuilder.finish())
    }
}

/// Appends the nodes of `f` over `inputs`; gives its outputs.
fn splice(
    rebuilder: &mut Rebuilder<'_>,
    f: &Function,
    inputs: &[NodeId],
    origin: &Origin,
) -> Result<Vec<NodeId>, CompileError> {
    let mut map: FxHashMap<NodeId, NodeId> = f.inputs.iter().copied().zip(inputs.iter().copied()).collect();
    let mut results: FxHashMap<NodeId, Vec<NodeId>> = FxHashMap::default();
    for id in f.graph.ids() {
        let node = f.graph.node(id);
        let operands: Vec<NodeId> = f.graph.operands(id).iter().map(|o| map[o]).collect();
        let new = match &node.op {
            Op::Input(_) => continue,
            Op::Call(call) if call.inline => {
                let values = splice(rebuilder, call.function.function(), &operands, &node.origin)?;
                results.insert(id, values.clone());
                values[0]
            }
            Op::ResultOf(r) if results.contains_key(&f.graph.operands(id)[0]) => {
                results[&f.graph.operands(id)[0]][r.index]
            }
            // What has no place of its own gets that of the call.
            op => {
                let own = if node.origin.loc.is_some() { &node.origin } else { origin };
                rebuilder.push(op.clone(), &operands, own)?
            }
        };
        map.insert(id, new);
    }
    Ok(f.outputs.iter().map(|o| map[&o.node]).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::passes::testing::{check, function};
    use crate::passes::{Cse, Dce};
    use expect_test::expect;
    use graphc_ir::{DType, gradients};

    #[test]
    fn a_custom_gradient_leaves_nothing_but_its_nodes() {
        let f = function(|f| {
            let x = f.input("x", DType::F32, [2]);
            let y = x.scale_gradient(0.5) * x;
            f.output("dx", gradients(y.reduce_sum(&[0]), &[x])[0]);
        });
        check(
            &[&Inline, &Dce, &Cse],
            &f,
            expect![[r#"
                %0 = input : f32[2]
                %1 = constant {1.0} : f32[]
                %2 = broadcast %1 {shape = [2], axes = []} : f32[2]
                %3 = mul %2 %0 : f32[2]
                %4 = constant {0.5} : f32[]
                %5 = broadcast %4 {shape = [2], axes = []} : f32[2]
                %6 = mul %3 %5 : f32[2]
                %7 = add %3 %6 : f32[2]
                return dx %7
            "#]],
        );
    }
}
