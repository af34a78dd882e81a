//! Where the stacked values of a scan come from. A value that a scan both carries and stacks is written
//! once, in its place among the stacked ones, and the next step reads it there.

use graphc_ir::Function;
use graphc_ir::ops::Scan;

/// Where a step finds a value that it stacks.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Stacked {
    /// An output of the body, by number.
    Output(usize),
    /// What the step gives a carry, which lies among the stacked values.
    Next(usize),
    /// What the step takes of a carry, which lies among the stacked values.
    Before(usize),
}

/// Where each stacked value of a scan comes from. A carry lies among those of one stacked value only.
pub(crate) fn sources(scan: &Scan) -> Vec<Stacked> {
    let body = scan.body.function();
    let (carries, stacked) = body.outputs.split_at(scan.carries);
    let mut sources: Vec<Option<Stacked>> = vec![None; stacked.len()];
    for (c, carry) in carries.iter().enumerate() {
        let free = |node| (0..stacked.len()).find(|&s| sources[s].is_none() && stacked[s].node == node);
        if let Some(s) = free(carry.node) {
            sources[s] = Some(Stacked::Next(c));
        } else if let Some(s) = free(body.inputs[c]) {
            sources[s] = Some(Stacked::Before(c));
        }
    }
    let mut output = scan.carries;
    let mut own = || {
        output += 1;
        Stacked::Output(output - 1)
    };
    sources.into_iter().map(|s| s.unwrap_or_else(&mut own)).collect()
}

/// The body of a scan without the outputs that are carries.
pub(crate) fn body(scan: &Scan) -> Function {
    let mut body = scan.body.function().clone();
    let carries = std::iter::repeat_n(true, scan.carries);
    let stacked = sources(scan).into_iter().map(|s| matches!(s, Stacked::Output(_)));
    let mut keep = carries.chain(stacked);
    body.outputs.retain(|_| keep.next() == Some(true));
    body
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::passes::testing::function;
    use graphc_ir::{DType, Op};

    #[test]
    fn a_carry_lies_among_one_stacked_value() {
        let f = function(|f| {
            let x = f.input("x", DType::F32, [3]);
            let options = graphc_ir::ScanOptions { length: Some(4.into()), ..Default::default() };
            let s = f.scan_with(&options, &[x, x, x], &[], |_, c, _| {
                let next = [c[0] * c[0], c[1] + c[0], c[2].exp()];
                (next.to_vec(), vec![c[0], c[0] + 1.0, next[0], c[1], next[0]])
            });
            s.stacked.iter().enumerate().for_each(|(i, &y)| f.output(&format!("y{i}"), y));
        });
        let scan = f.graph.ids().find_map(|id| match f.graph.op(id) {
            Op::Scan(s) => Some(s),
            _ => None,
        });
        let scan = scan.expect("the function has one");
        use Stacked::{Before, Next, Output};
        assert_eq!(sources(scan), [Output(3), Output(4), Next(0), Before(1), Output(5)]);
        assert_eq!(body(scan).outputs.len(), 6);
    }
}
