//! An independent judge of memory plans, written from the definition of a correct plan and sharing
//! no code with the planner: it plays the steps one by one and records which bytes of the arena
//! hold which buffer.

use crate::memory::{ALIGNMENT, BufferReq, MemoryPlan};
use std::collections::BTreeMap;

/// What is wrong with a plan. Buffers are named by their labels and numbers.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MemoryError {
    /// The plan is not for these buffers.
    #[error("the plan has {found} entries for {expected} buffers")]
    Count {
        /// Number of buffers.
        expected: usize,
        /// Number of entries.
        found: usize,
    },
    /// An offset is not aligned.
    #[error("buffer {buffer} (`{label}`) starts at {offset}, not a multiple of 64")]
    Misaligned {
        /// The buffer.
        buffer: usize,
        /// Its label.
        label: String,
        /// Its offset.
        offset: usize,
    },
    /// A buffer does not lie within the arena.
    #[error("buffer {buffer} (`{label}`) ends at {end} in an arena of {bytes} bytes")]
    OutOfArena {
        /// The buffer.
        buffer: usize,
        /// Its label.
        label: String,
        /// Where it ends; the largest number if that overflows.
        end: usize,
        /// Size of the arena.
        bytes: usize,
    },
    /// A buffer takes over another one that it must not take over.
    #[error("buffer {buffer} (`{label}`) in place of buffer {of}: {why}")]
    InPlace {
        /// The buffer.
        buffer: usize,
        /// Its label.
        label: String,
        /// The other one.
        of: usize,
        /// What forbids it.
        why: &'static str,
    },
    /// A write destroys a value that is still needed.
    #[error(
        "step {step}: writing buffer {writer} (`{writer_label}`) destroys bytes {start}..{end} of buffer \
         {victim} (`{victim_label}`), which is needed until step {until}"
    )]
    Destroyed {
        /// When.
        step: usize,
        /// The buffer that is written.
        writer: usize,
        /// Its label.
        writer_label: String,
        /// The buffer whose value is lost.
        victim: usize,
        /// Its label.
        victim_label: String,
        /// First byte of the arena that is lost.
        start: usize,
        /// End of these bytes.
        end: usize,
        /// The last step that needs the victim.
        until: usize,
    },
    /// The stated lower bound is not the largest live set, or the stated step does not have it.
    #[error("the largest live set is {bound} bytes, the plan states {stated} at step {step}")]
    LowerBound {
        /// What it is.
        bound: usize,
        /// What the plan says.
        stated: usize,
        /// The step that the plan names.
        step: usize,
    },
}

/// Checks a plan.
///
/// # Errors
/// Everything that is wrong with it, in order of the steps.
pub fn check_plan(reqs: &[BufferReq], plan: &MemoryPlan) -> Result<(), Vec<MemoryError>> {
    for found in [plan.offsets.len(), plan.shared_with.len()] {
        if found != reqs.len() {
            return Err(vec![MemoryError::Count { expected: reqs.len(), found }]);
        }
    }
    let mut errors = Vec::new();
    for (buffer, req) in reqs.iter().enumerate() {
        check_place(buffer, req, plan, &mut errors);
        check_in_place(buffer, reqs, plan, &mut errors);
    }
    // Ends of buffers may overflow unless their places are right.
    if errors.is_empty() {
        play(reqs, plan, &mut errors);
        check_bound(reqs, plan, &mut errors);
    }
    if errors.is_empty() { Ok(()) } else { Err(errors) }
}

fn check_place(buffer: usize, req: &BufferReq, plan: &MemoryPlan, errors: &mut Vec<MemoryError>) {
    let offset = plan.offsets[buffer];
    let label = || req.label.clone();
    if !offset.is_multiple_of(ALIGNMENT) {
        errors.push(MemoryError::Misaligned { buffer, label: label(), offset });
    }
    let end = offset.saturating_add(req.bytes);
    if end > plan.bytes {
        errors.push(MemoryError::OutOfArena { buffer, label: label(), end, bytes: plan.bytes });
    }
}

fn check_in_place(buffer: usize, reqs: &[BufferReq], plan: &MemoryPlan, errors: &mut Vec<MemoryError>) {
    let Some(of) = plan.shared_with[buffer] else { return };
    let new = &reqs[buffer];
    let why = match reqs.get(of) {
        None => "there is no such buffer",
        Some(_) if !new.may_reuse.contains(&of) => "it may not reuse it",
        Some(old) if old.last.max(old.first) != new.first => "that one does not die at the step of the write",
        Some(old) if old.first >= new.first => "that one is written at the same step",
        Some(old) if old.bytes < new.bytes => "it is larger",
        Some(_) if plan.offsets[of] != plan.offsets[buffer] => "they start at different offsets",
        Some(_) if plan.shared_with[..buffer].contains(&Some(of)) => "another buffer has taken it",
        Some(_) => return,
    };
    errors.push(MemoryError::InPlace { buffer, label: new.label.clone(), of, why });
}

/// Plays the steps: a map from the start of a range of bytes to its end and the buffer it holds.
fn play(reqs: &[BufferReq], plan: &MemoryPlan, errors: &mut Vec<MemoryError>) {
    let mut order: Vec<usize> = (0..reqs.len()).filter(|&i| reqs[i].bytes > 0).collect();
    order.sort_by_key(|&i| (reqs[i].first, i));
    let mut memory: BTreeMap<usize, (usize, usize)> = BTreeMap::new();
    for writer in order {
        let step = reqs[writer].first;
        let (start, end) = (plan.offsets[writer], plan.offsets[writer] + reqs[writer].bytes);
        // Ranges are disjoint, so their ends are in order as well.
        let hit: Vec<(usize, usize, usize)> = memory
            .range(..end)
            .rev()
            .take_while(|(_, (e, _))| *e > start)
            .map(|(&s, &(e, victim))| (s, e, victim))
            .collect();
        for (s, e, victim) in hit {
            let until = reqs[victim].last.max(reqs[victim].first);
            if until >= step && plan.shared_with[writer] != Some(victim) {
                errors.push(MemoryError::Destroyed {
                    step,
                    writer,
                    writer_label: reqs[writer].label.clone(),
                    victim,
                    victim_label: reqs[victim].label.clone(),
                    start: s.max(start),
                    end: e.min(end),
                    until,
                });
            }
            memory.remove(&s);
            if s < start {
                memory.insert(s, (start, victim));
            }
            if e > end {
                memory.insert(end, (e, victim));
            }
        }
        memory.insert(start, (end, writer));
    }
}

/// Adds up what is alive at each step.
fn check_bound(reqs: &[BufferReq], plan: &MemoryPlan, errors: &mut Vec<MemoryError>) {
    let mut change: BTreeMap<usize, i128> = BTreeMap::new();
    for (i, req) in reqs.iter().enumerate() {
        let bytes = req.bytes.div_ceil(ALIGNMENT) as i128 * ALIGNMENT as i128;
        // At its first step, a buffer in place lies within the other one.
        let from = req.first + usize::from(plan.shared_with[i].is_some());
        *change.entry(from).or_default() += bytes;
        *change.entry(req.last.max(req.first) + 1).or_default() -= bytes;
    }
    let (mut live, mut bound, mut at_stated) = (0i128, 0i128, 0i128);
    for (step, change) in change {
        live += change;
        bound = bound.max(live);
        if step <= plan.peak_step {
            at_stated = live;
        }
    }
    let stated = plan.lower_bound as i128;
    if stated != bound || at_stated != bound || (plan.bytes as i128) < bound {
        let (bound, stated) = (bound as usize, plan.lower_bound);
        errors.push(MemoryError::LowerBound { bound, stated, step: plan.peak_step });
    }
}

/// Buffers for tests.
#[cfg(test)]
pub(crate) mod testing {
    use crate::memory::BufferReq;

    /// A small generator of numbers: xorshift64*.
    pub(crate) struct Random(u64);

    impl Random {
        pub(crate) fn new(seed: u64) -> Self {
            Self(seed.wrapping_mul(2) + 1)
        }

        /// A number below `n`.
        pub(crate) fn below(&mut self, n: usize) -> usize {
            self.0 ^= self.0 >> 12;
            self.0 ^= self.0 << 25;
            self.0 ^= self.0 >> 27;
            ((self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 33) % n.max(1) as u64) as usize
        }
    }

    /// Buffers of any size and lifetime, of which some may be in place of others.
    pub(crate) fn random_reqs(n: usize, steps: usize, seed: u64) -> Vec<BufferReq> {
        let mut random = Random::new(seed);
        let mut reqs: Vec<BufferReq> = Vec::new();
        let mut dying: Vec<Vec<usize>> = vec![Vec::new(); steps + 1];
        let mut firsts: Vec<usize> = (0..n).map(|_| random.below(steps)).collect();
        firsts.sort_unstable();
        for (i, first) in firsts.into_iter().enumerate() {
            let longest = if random.below(4) == 0 { steps } else { 4 };
            let life = random.below(longest);
            let last = (first + life).min(steps - 1);
            let bytes = match random.below(8) {
                0 => 0,
                1 => 1 + random.below(63),
                2 | 3 => 64 << random.below(12),
                4 => 4096 * (1 + random.below(64)),
                _ => 1 + random.below(100_000),
            };
            let may_reuse = if random.below(2) == 0 { dying[first].clone() } else { Vec::new() };
            let may_reuse = may_reuse.into_iter().take(4).collect();
            reqs.push(BufferReq { bytes, first, last, may_reuse, label: format!("b{i}") });
            dying[last].push(i);
        }
        reqs
    }

    /// A step of training: activations of a stack of layers, a backward pass that frees them in
    /// reverse order, and gradients that live until the update at the end of their layer.
    pub(crate) fn training(layers: usize, seed: u64) -> Vec<BufferReq> {
        let mut random = Random::new(seed);
        let sizes: Vec<usize> = (0..layers).map(|_| 4 * 32 * (16 + random.below(1000))).collect();
        let weights: Vec<usize> = (0..layers).map(|_| 4 * (1000 + random.below(200_000))).collect();
        let backward = 2 * layers;
        let mut reqs: Vec<BufferReq> = Vec::new();
        for (i, &bytes) in sizes.iter().enumerate() {
            // Layer i: a linear part at step 2i, its activation at 2i + 1, both needed by the
            // backward step of the layer.
            let done = backward + 3 * (layers - 1 - i) + 1;
            let label = |s: &str| format!("layer{i}/{s}");
            reqs.push(BufferReq {
                bytes,
                first: 2 * i,
                last: 2 * i + 1,
                may_reuse: Vec::new(),
                label: label("linear"),
            });
            let linear = reqs.len() - 1;
            reqs.push(BufferReq {
                bytes,
                first: 2 * i + 1,
                last: done,
                may_reuse: vec![linear],
                label: label("act"),
            });
        }
        let mut cotangent = None;
        for i in (0..layers).rev() {
            let at = backward + 3 * (layers - 1 - i);
            let label = |s: &str| format!("layer{i}/{s}");
            // The cotangent through the activation, then the weight gradient and its update, then
            // the cotangent of the layer below.
            reqs.push(BufferReq {
                bytes: sizes[i],
                first: at,
                last: at + 2,
                may_reuse: cotangent.into_iter().collect(),
                label: label("d_act"),
            });
            reqs.push(BufferReq {
                bytes: weights[i],
                first: at + 1,
                last: at + 2,
                may_reuse: Vec::new(),
                label: label("dw"),
            });
            if i > 0 {
                reqs.push(BufferReq {
                    bytes: sizes[i - 1],
                    first: at + 2,
                    last: at + 3,
                    may_reuse: Vec::new(),
                    label: label("dx"),
                });
                cotangent = Some(reqs.len() - 1);
            }
        }
        reqs
    }
}

#[cfg(test)]
mod tests {
    use super::testing::{Random, random_reqs, training};
    use super::*;
    use crate::memory::plan;

    fn overlap(reqs: &[BufferReq], plan: &MemoryPlan, a: usize, b: usize) -> bool {
        let (x, y) = (&reqs[a], &reqs[b]);
        let together = x.first <= y.end() && y.first <= x.end();
        let (p, q) = (plan.offsets[a], plan.offsets[b]);
        together && x.bytes > 0 && y.bytes > 0 && p < q + y.bytes && q < p + x.bytes
    }

    /// Plants one mistake; `None` if the plan has no place for it.
    fn plant(kind: usize, reqs: &[BufferReq], good: &MemoryPlan, random: &mut Random) -> Option<MemoryPlan> {
        let mut bad = good.clone();
        let a = random.below(reqs.len());
        let full = (0..reqs.len()).filter(|&i| reqs[i].bytes > 0 && i != a);
        match kind {
            0 => bad.offsets[a] += 1 + random.below(63),
            // Onto a buffer alive at the same time.
            1 => {
                let b = full.clone().find(|&b| {
                    let alias = MemoryPlan {
                        offsets: {
                            let mut o = good.offsets.clone();
                            o[a] = o[b];
                            o
                        },
                        ..good.clone()
                    };
                    overlap(reqs, &alias, a, b)
                        && [good.shared_with[a], good.shared_with[b]] != [Some(b), Some(a)]
                        && good.shared_with[a] != Some(b)
                        && good.shared_with[b] != Some(a)
                })?;
                bad.offsets[a] = good.offsets[b];
            }
            // A little into a neighbour.
            2 => {
                let move_by = 64 * (1 + random.below(4));
                bad.offsets[a] = bad.offsets[a].checked_sub(move_by)?;
                full.clone().find(|&b| {
                    overlap(reqs, &bad, a, b)
                        && good.shared_with[a] != Some(b)
                        && good.shared_with[b] != Some(a)
                })?;
            }
            // Planned for a shorter life than it has.
            3 => {
                let mut short = reqs.to_vec();
                short.iter_mut().for_each(|r| {
                    r.last = r.first;
                    r.may_reuse.clear();
                });
                bad = plan(&short);
                (0..reqs.len()).find(|&x| (0..x).any(|y| overlap(reqs, &bad, x, y)))?;
            }
            4 => {
                let end = full.map(|i| good.offsets[i] + reqs[i].bytes).max()?;
                bad.bytes = end - 1;
            }
            5 => bad.lower_bound += 64,
            // An undeclared takeover.
            6 => {
                let b = full.clone().find(|&b| !reqs[a].may_reuse.contains(&b))?;
                bad.shared_with[a] = Some(b);
            }
            // A declared one kept secret.
            7 => {
                let i = (0..reqs.len()).find(|&i| good.shared_with[i].is_some())?;
                bad.shared_with[i] = None;
            }
            8 => drop(bad.offsets.pop()),
            _ => {
                bad.offsets[a] = usize::MAX - 63;
                (reqs[a].bytes > 64).then_some(())?;
            }
        }
        Some(bad)
    }

    #[test]
    fn planted_mistakes_are_found() {
        let mut planted = [0usize; 10];
        let mut random = Random::new(42);
        for seed in 0..40 {
            let reqs = if seed % 2 == 0 { random_reqs(60, 20, seed) } else { training(8, seed) };
            let good = plan(&reqs);
            assert_eq!(check_plan(&reqs, &good), Ok(()));
            for (kind, planted) in planted.iter_mut().enumerate() {
                let Some(bad) = plant(kind, &reqs, &good, &mut random) else { continue };
                assert!(check_plan(&reqs, &bad).is_err(), "seed {seed}, kind {kind}");
                *planted += 1;
            }
        }
        assert!(planted.iter().sum::<usize>() >= 100 && planted.iter().all(|&n| n >= 5), "{planted:?}");
    }

    fn req(bytes: usize, first: usize, last: usize, label: &str) -> BufferReq {
        BufferReq { bytes, first, last, may_reuse: Vec::new(), label: label.to_owned() }
    }

    /// What is wrong with a plan, in one line.
    fn problems(reqs: &[BufferReq], plan: &MemoryPlan) -> String {
        let errors = check_plan(reqs, plan).err().unwrap_or_default();
        errors.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ")
    }

    /// Two buffers, of which the second is in the place of the first.
    fn in_place() -> (Vec<BufferReq>, MemoryPlan) {
        let new = BufferReq { may_reuse: vec![0], ..req(128, 2, 3, "new") };
        let plan = MemoryPlan {
            offsets: vec![0, 0],
            bytes: 128,
            lower_bound: 128,
            peak_step: 0,
            shared_with: vec![None, Some(0)],
        };
        (vec![req(128, 0, 2, "old"), new], plan)
    }

    #[test]
    fn each_rule_of_taking_over_is_checked() {
        let (reqs, plan) = in_place();
        assert_eq!(problems(&reqs, &plan), "");
        type Change = fn(&mut Vec<BufferReq>, &mut MemoryPlan);
        let cases: [(&str, Change); 8] = [
            ("there is no such buffer", |_, plan| plan.shared_with[1] = Some(2)),
            ("it may not reuse it", |reqs, _| reqs[1].may_reuse.clear()),
            ("that one does not die at the step of the write", |reqs, _| reqs[0].last = 3),
            ("that one does not die at the step of the write", |reqs, _| reqs[0].last = 1),
            ("that one is written at the same step", |reqs, _| reqs[0].first = 2),
            ("it is larger", |reqs, plan| (reqs[1].bytes, plan.bytes) = (129, 192)),
            ("they start at different offsets", |_, plan| (plan.offsets[1], plan.bytes) = (128, 256)),
            ("another buffer has taken it", |reqs, plan| {
                reqs.push(reqs[1].clone());
                plan.offsets.push(0);
                plan.shared_with.push(Some(0));
            }),
        ];
        for (why, change) in cases {
            let (mut reqs, mut plan) = in_place();
            change(&mut reqs, &mut plan);
            let (buffer, of) = (reqs.len() - 1, plan.shared_with[reqs.len() - 1].unwrap());
            let expected = format!("buffer {buffer} (`new`) in place of buffer {of}: {why}");
            assert_eq!(problems(&reqs, &plan), expected);
        }
    }

    #[test]
    fn each_rule_of_places_is_checked() {
        let reqs = [req(100, 0, 1, "x"), req(64, 1, 2, "y"), req(0, 0, 2, "empty")];
        let good = MemoryPlan {
            offsets: vec![64, 0, 192],
            bytes: 192,
            lower_bound: 192,
            peak_step: 1,
            shared_with: vec![None; 3],
        };
        assert_eq!(problems(&reqs, &good), "");
        let wrong = |expected: &str, change: &dyn Fn(&mut MemoryPlan)| {
            let mut plan = good.clone();
            change(&mut plan);
            assert_eq!(problems(&reqs, &plan), expected);
        };
        wrong("the plan has 2 entries for 3 buffers", &|p| p.offsets.truncate(2));
        wrong("the plan has 2 entries for 3 buffers", &|p| p.shared_with.truncate(2));
        wrong("buffer 1 (`y`) starts at 32, not a multiple of 64", &|p| p.offsets[1] = 32);
        wrong("buffer 0 (`x`) ends at 228 in an arena of 192 bytes", &|p| p.offsets[0] = 128);
        let most = usize::MAX;
        wrong(&format!("buffer 0 (`x`) ends at {most} in an arena of 192 bytes"), &|p| {
            p.offsets[0] = most - 63;
        });
        let bound = |stated, step| {
            format!("the largest live set is 192 bytes, the plan states {stated} at step {step}")
        };
        wrong(&bound(128, 1), &|p| p.lower_bound = 128);
        wrong(&bound(256, 1), &|p| p.lower_bound = 256);
        // At another step less is alive, before and after.
        wrong(&bound(192, 0), &|p| p.peak_step = 0);
        wrong(&bound(192, 2), &|p| p.peak_step = 2);
        // Onto another value, within it and at its end.
        let destroyed = "step 1: writing buffer 1 (`y`) destroys bytes 64..128 of buffer 0 (`x`), which is needed until step 1";
        wrong(destroyed, &|p| p.offsets[1] = 64);
        wrong(
            "step 1: writing buffer 1 (`y`) destroys bytes 128..164 of buffer 0 (`x`), which is needed until step 1",
            &|p| {
                p.offsets[1] = 128;
            },
        );
    }

    #[test]
    fn what_is_left_of_a_value_is_still_checked() {
        // `y` takes the middle of `x`, which nothing needs any more; `z` then lies beside it, in what was `x`.
        let reqs = [req(192, 0, 1, "x"), req(64, 2, 4, "y"), req(64, 3, 4, "z"), req(64, 3, 4, "w")];
        let plan = MemoryPlan {
            offsets: vec![0, 64, 0, 128],
            bytes: 192,
            lower_bound: 192,
            peak_step: 0,
            shared_with: vec![None; 4],
        };
        assert_eq!(problems(&reqs, &plan), "");
        for (buffer, place) in [(2, 0), (3, 128)] {
            let mut longer = reqs.to_vec();
            longer[0].last = 3;
            let found = problems(&longer, &plan);
            let expected = format!("destroys bytes {place}..{} of buffer 0", place + 64);
            assert!(
                found.contains(&format!("writing buffer {buffer}")) && found.contains(&expected),
                "{found}"
            );
        }
    }

    #[test]
    fn a_mistake_is_described_precisely() {
        let reqs = [req(128, 0, 2, "x"), req(64, 1, 2, "y")];
        let plan = MemoryPlan {
            offsets: vec![0, 64],
            bytes: 192,
            lower_bound: 192,
            peak_step: 1,
            shared_with: vec![None, None],
        };
        let errors = check_plan(&reqs, &plan).unwrap_err();
        assert_eq!(
            errors.iter().map(ToString::to_string).collect::<Vec<_>>(),
            [
                "step 1: writing buffer 1 (`y`) destroys bytes 64..128 of buffer 0 (`x`), which is needed until step 2"
            ]
        );
    }
}
