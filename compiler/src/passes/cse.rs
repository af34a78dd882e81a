//! Shares nodes that compute the same value.

use crate::error::CompileError;
use crate::pass::{Pass, PassCx, Rebuilder};
use graphc_ir::{Function, NodeId, Op};
use rustc_hash::FxHashMap;
use smallvec::SmallVec;

/// Constants of more elements are not compared with each other: hashing them costs more time than
/// sharing them saves memory.
const MAX_CONSTANT: usize = 1 << 16;

/// Replaces a node by an earlier one of the same operation with the same attributes and operands.
/// Operations are pure functions of these, random numbers included (their key and counter are
/// operands or attributes). Inputs are never merged: two of one type are different values. Reads
/// of one state variable are, since every read gives its value at the start of the function.
pub struct Cse;

impl Pass for Cse {
    fn name(&self) -> &'static str {
        "cse"
    }

    fn run(&self, function: &Function, _: &PassCx) -> Result<Function, CompileError> {
        let graph = &function.graph;
        let mut rebuilder = Rebuilder::new(function);
        // Only looked up, never iterated, so its order does not matter.
        let mut known: FxHashMap<(&Op, SmallVec<[NodeId; 3]>), NodeId> = FxHashMap::default();
        for id in graph.ids() {
            let op = graph.op(id);
            let unique = match op {
                Op::Input(_) => true,
                Op::Constant(c) => c.value.len() > MAX_CONSTANT,
                _ => false,
            };
            if unique {
                rebuilder.keep(id);
                continue;
            }
            let mut key = (op, rebuilder.operands(id));
            if fault!(12) {
                key.1.sort();
            }
            match known.get(&key) {
                Some(&earlier) => rebuilder.replace(id, earlier),
                None => {
                    known.insert(key, rebuilder.keep(id));
                }
            }
        }
        Ok(rebuilder.finish())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::passes::Dce;
    use crate::passes::testing::{check, function};
    use expect_test::expect;
    use graphc_ir::DType;

    #[test]
    fn shares_equal_nodes_but_never_inputs() {
        let f = function(|f| {
            let x = f.input("x", DType::F32, [2]);
            let y = f.input("y", DType::F32, [2]);
            let a = (x + y) * f.full(DType::F32, [2], 2.0);
            let b = (x + y) * f.full(DType::F32, [2], 2.0);
            f.output("out", a - b);
        });
        check(
            &[&Cse, &Dce],
            &f,
            expect![[r#"
                %0 = input : f32[2]
                %1 = input : f32[2]
                %2 = add %0 %1 : f32[2]
                %3 = constant {2.0} : f32[]
                %4 = broadcast %3 {shape = [2], axes = []} : f32[2]
                %5 = mul %2 %4 : f32[2]
                %6 = sub %5 %5 : f32[2]
                return out %6
            "#]],
        );
    }

    #[test]
    fn zeros_of_different_sign_are_different_constants() {
        let f = function(|f| {
            let x = f.input("x", DType::F32, []);
            f.output("a", x + 0.0);
            f.output("b", x + -0.0);
        });
        check(
            &[&Cse],
            &f,
            expect![[r#"
                %0 = input : f32[]
                %1 = constant {0.0} : f32[]
                %2 = add %0 %1 : f32[]
                %3 = constant {-0.0} : f32[]
                %4 = add %0 %3 : f32[]
                return a %2, b %4
            "#]],
        );
    }
}
