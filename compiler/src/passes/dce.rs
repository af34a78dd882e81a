//! Drops nodes that no result needs.

use crate::error::CompileError;
use crate::pass::{Pass, PassCx, Rebuilder};
use graphc_ir::{Function, Op};

/// Drops nodes from which no output and no update can be reached. Inputs stay.
///
/// A node that can fail (an index check, a gather) is no exception: it guards those that use its value, and
/// without users there is nothing to guard. So a function may succeed after this pass where it
/// failed before, but only by not looking at an index whose value nothing needs.
pub struct Dce;

impl Pass for Dce {
    fn name(&self) -> &'static str {
        "dce"
    }

    fn run(&self, function: &Function, _: &PassCx) -> Result<Function, CompileError> {
        Ok(remove_dead(function))
    }
}

/// The function without the nodes that no result needs, in the same order.
pub fn remove_dead(function: &Function) -> Function {
    let graph = &function.graph;
    let mut live = vec![false; graph.len()];
    function.results().for_each(|id| live[id.index()] = true);
    for id in graph.ids().rev() {
        if live[id.index()] {
            graph.operands(id).iter().for_each(|o| live[o.index()] = true);
        }
    }
    let mut rebuilder = Rebuilder::new(function);
    for id in graph.ids() {
        if live[id.index()] || matches!(graph.op(id), Op::Input(_)) {
            rebuilder.keep(id);
        }
    }
    rebuilder.finish()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::passes::testing::{check, function};
    use expect_test::expect;
    use graphc_ir::DType;

    #[test]
    fn keeps_inputs_and_what_results_need() {
        let f = function(|f| {
            let x = f.input("x", DType::F32, [2]);
            let y = f.input("y", DType::F32, [2]);
            let dead = x * y;
            let _deader = dead + y;
            f.output("out", -x);
        });
        check(
            &[&Dce],
            &f,
            expect![[r#"
                %0 = input : f32[2]
                %1 = input : f32[2]
                %2 = neg %0 : f32[2]
                return out %2
            "#]],
        );
    }
}
