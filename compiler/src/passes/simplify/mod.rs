//! Rewrites to fewer or cheaper operations. Every rule is exact: the results keep their bits for
//! all operands, zeros of both signs, infinities and subnormals included (of a NaN, only that it is
//! one). What holds for real numbers alone, such as `x * 0 => 0` or `x - x => 0`, is not here
//! except for integers.

mod arithmetic;
mod contraction;
mod movement;
mod reduction;
mod selection;

use super::rewrite::{Rule, rewrite};
use crate::error::CompileError;
use crate::pass::{Pass, PassCx};
use graphc_ir::Function;

/// Applies the rules until none matches. It requires what `canonicalize` leaves true only in order
/// to find more: constants are looked for on the right.
pub struct Simplify;

impl Pass for Simplify {
    fn name(&self) -> &'static str {
        "simplify"
    }

    fn run(&self, function: &Function, cx: &PassCx) -> Result<Function, CompileError> {
        Ok(rewrite(function, &rules(), cx)?.0)
    }
}

/// Names of the rules of [`Simplify`], as [`crate::PassRecord::fired`] has them.
pub fn simplify_rules() -> Vec<&'static str> {
    rules().into_iter().map(|(name, _)| name).collect()
}

/// Every rule. The first that matches is applied: identities, which leave nothing, come first.
fn rules() -> Vec<Rule> {
    [arithmetic::RULES, movement::RULES, selection::RULES, reduction::RULES, contraction::RULES].concat()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::passes::rewrite::MAX_SWEEPS;
    use crate::passes::testing::{assert_same_results, function, print};
    use crate::{OptLevel, PassOptions, optimize};
    use graphc_ir::{DType, Tensor};
    use proptest::prelude::*;
    use proptest::test_runner::{Config, TestRunner};

    /// Applies the operation that `choice` picks to values declared before.
    fn step<'f>(pool: &[Tensor<'f>], choice: (u8, usize, usize)) -> Tensor<'f> {
        let (op, a, b) = choice;
        // Mostly one of the last values, so that operations meet each other's results.
        let a = pool[pool.len() - 1 - a % if a < 48 { 2 } else { pool.len() }];
        let same: Vec<Tensor<'f>> = pool.iter().copied().filter(|t| t.shape() == a.shape()).collect();
        let b = same[b % same.len()];
        let f = a.builder();
        let constant = [0.0, -0.0, 1.0, -1.0, 2.0, 0.25, 3.0][choice.2 / 2 % 7];
        let dims = a.shape().as_static().unwrap();
        let ones = vec![1; a.rank()];
        match op % 28 {
            0 => a + b,
            1 => a - b,
            2 => a * b,
            3 => -a,
            4 => a + constant,
            5 => a - constant,
            6 => a * constant,
            7 => a / constant,
            8 => constant - a,
            9 | 27 => {
                let mut axes: Vec<usize> = (0..a.rank()).collect();
                axes.rotate_left(usize::from(a.rank() > 0 && choice.2.is_multiple_of(2)));
                axes.reverse();
                a.transpose(&axes)
            }
            10 => a.reshape([a.shape().num_elements().unwrap()]),
            11 if a.rank() < 3 => {
                a.broadcast([dims.as_slice(), &[2]].concat().as_slice(), &(0..a.rank()).collect::<Vec<_>>())
            }
            12 if a.rank() < 3 => {
                a.broadcast([&[2], dims.as_slice()].concat().as_slice(), &(1..=a.rank()).collect::<Vec<_>>())
            }
            13 if (2..4).contains(&a.rank()) => a.dot_general(b, (&[], &[]), (&[0], &[0])),
            14 if a.rank() > 0 => a.reduce_sum(&[0]),
            15 => f.full(a.dtype(), a.shape(), constant),
            16 | 17 => {
                let range = |d: &usize| (choice.2 % 2).min(*d)..*d;
                a.slice(&dims.iter().map(range).collect::<Vec<_>>(), &ones)
            }
            18 => a.slice(
                &dims.iter().map(|d| (choice.2 % 2).min(*d)..*d).collect::<Vec<_>>(),
                &vec![2; a.rank()],
            ),
            19 if a.rank() > 0 => f.concatenate(&[a, b], a.rank() - 1),
            20 => a.reverse(&(0..a.rank()).collect::<Vec<_>>()),
            21 if a.rank() > 0 => a.reduce_max(&[a.rank() - 1]),
            22 if a.rank() > 0 => a.reduce_min(&[0]),
            23 if a.rank() > 0 && dims[0] > 0 => a.take(f.scalar(DType::I32, 0.0), 0),
            24 if a.rank() > 0 => f.iota(a.dtype(), a.shape(), 0),
            25 if a.rank() > 0 => a.pad_axis(0, 1, 0, constant),
            26 => {
                let squeezed: Vec<usize> = dims.iter().copied().filter(|&d| d != 1).collect();
                a.reshape(squeezed.as_slice())
            }
            _ => a + a,
        }
    }

    /// Random graphs keep their results at every level, rewriting ends by itself, and a second run
    /// finds nothing.
    #[test]
    fn random_graphs_keep_their_results() {
        let steps = proptest::collection::vec((any::<u8>(), 0usize..64, 0usize..64), 1..24);
        let dtype = prop_oneof![Just(DType::F32), Just(DType::F64), Just(DType::I32)];
        let cases = std::env::var("GRAPHC_CASES").ok().and_then(|v| v.parse().ok()).unwrap_or(1024);
        let mut runner = TestRunner::new(Config { cases, failure_persistence: None, ..Config::default() });
        runner
            .run(&(dtype, steps), |(dtype, steps)| {
                let f = function(|f| {
                    let mut pool = vec![
                        f.input("s", dtype, []),
                        f.input("v", dtype, [5]),
                        f.input("m", dtype, [2, 5]),
                        f.input("t", dtype, [2, 3, 2]),
                    ];
                    for choice in steps {
                        let next = step(&pool, choice);
                        if next.shape().num_elements().unwrap() <= 200 {
                            pool.push(next);
                        }
                    }
                    pool.iter().rev().take(3).enumerate().for_each(|(i, &t)| f.output(&format!("y{i}"), t));
                });
                let (simple, sweeps) = rewrite(&f, &rules(), &PassCx::default()).unwrap();
                prop_assert!(sweeps < MAX_SWEEPS, "{}", print(&f));
                assert_same_results(&f, &simple, 4);
                for level in [OptLevel::O1, OptLevel::O2, OptLevel::O3] {
                    let options = PassOptions { verify: true, ..PassOptions::at(level) };
                    let (after, _) = optimize(&f, &options).unwrap();
                    assert_same_results(&f, &after, 4);
                    if level >= OptLevel::O2 {
                        let (again, _) = optimize(&after, &options).unwrap();
                        prop_assert!(again.graph.len() <= after.graph.len());
                    }
                }
                Ok(())
            })
            .unwrap_or_else(|e| panic!("{e}"));
    }
}
