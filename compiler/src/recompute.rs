//! Fits a step into a budget of memory: steps run in another order, and values that are alive for long are
//! computed again before their later uses instead of kept (rematerialization, Chen et al., "Training deep nets
//! with sublinear memory cost", 2016). Both change when a value is computed, never how: results keep their bits.
//!
//! It knows no kernel and no graph, only what each step reads and writes and about how long it takes. What it
//! decides, `assemble` carries out.

use crate::kernel::BufferId;
use crate::program::Step;
use rustc_hash::{FxHashMap, FxHashSet};

/// Kernels that are run again for one value, at most.
const CHAIN: usize = 24;

/// Values that are looked at in one round, the most promising first.
const TRIALS: usize = 16;

/// The part of the peak, one in so many, that is to be taken off it next: smaller ones when none helps any more.
const STRIDES: [usize; 2] = [16, 64];

/// Values that are computed again at most, for each one that there is: beyond that, time grows for little.
const COPIES: usize = 1;

/// A value that a step writes.
#[derive(Clone, Debug)]
pub(crate) struct Written {
    /// Its buffer.
    pub buffer: BufferId,
    /// What has to be read for it alone.
    pub reads: Vec<BufferId>,
    /// About how long it takes alone, in any unit; `None` if it cannot be computed again.
    pub cost: Option<u64>,
}

/// A step of the order.
#[derive(Clone, Debug)]
pub(crate) struct Item {
    /// The step; of one that computes a value again, that of the first time.
    pub step: Step,
    /// All that it reads.
    pub reads: Vec<BufferId>,
    /// All that it writes.
    pub writes: Vec<Written>,
    /// Pairs of a buffer that it writes and one whose memory that may take over.
    pub reuse: Vec<(BufferId, BufferId)>,
    /// Whether it can fail.
    pub fails: bool,
    /// Buffers that it reads or writes in the place of others, in the order in which they took their places.
    pub renames: Vec<(BufferId, BufferId)>,
    /// Whether it computes its value again.
    pub again: bool,
}

impl Item {
    fn rename(&mut self, from: BufferId, to: BufferId) {
        let replace = |b: &mut BufferId| {
            if *b == from {
                *b = to;
            }
        };
        if let Step::Check { buffer, .. } = &mut self.step {
            replace(buffer);
        }
        self.reads.iter_mut().for_each(replace);
        self.reuse.iter_mut().for_each(|(_, b)| replace(b));
        for w in &mut self.writes {
            w.reads.iter_mut().for_each(replace);
        }
        self.renames.push((from, to));
    }
}

/// Where the value of a buffer is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Home {
    /// In the arena, for as long as it is alive.
    Arena,
    /// Where it stays until the end of the step.
    Kept,
    /// In the state, at this offset, before the step overwrites it.
    OldState(usize),
    /// In the state, at this offset, after that.
    NewState(usize),
}

/// An order of steps with the memory that it needs.
#[derive(Clone, Debug)]
pub(crate) struct Schedule {
    /// The steps.
    pub items: Vec<Item>,
    /// Size of each buffer, in bytes.
    pub bytes: Vec<usize>,
    /// Where each buffer is.
    pub homes: Vec<Home>,
    /// Buffers that have been added, by their numbers: those whose values they hold again.
    pub copies: Vec<BufferId>,
    /// Whether another order has been tried.
    pub reordered: bool,
    /// Which of the strides the search takes.
    pub stride: usize,
}

/// Lifetimes and the memory alive at each step.
struct Profile {
    first: Vec<usize>,
    last: Vec<usize>,
    live: Vec<usize>,
}

impl Profile {
    /// By how much the order exceeds `target` bytes, summed over its steps.
    fn excess(&self, target: usize) -> u128 {
        self.live.iter().map(|l| l.saturating_sub(target) as u128).sum()
    }

    fn peak(&self) -> usize {
        self.live.iter().copied().max().unwrap_or(0)
    }
}

/// A value with a stretch of time in which nothing uses it.
struct Gap {
    buffer: BufferId,
    /// The step before which it would be computed again.
    at: usize,
    /// Values to compute for that, operands first.
    chain: Vec<BufferId>,
    /// Time per byte and step that it saves.
    score: f64,
}

impl Schedule {
    /// Changes the order until at most `target` bytes are alive at once, or until nothing helps. Returns the
    /// largest number that is alive at once then. The target only says where to stop: what the search tries
    /// does not depend on it, so whatever is reached on the way to one target is reached for any below it.
    pub(crate) fn fit(&mut self, target: usize) -> usize {
        let mut profile = self.profile();
        if profile.peak() <= target {
            return profile.peak();
        }
        if !std::mem::replace(&mut self.reordered, true) {
            let mut other = self.clone();
            other.by_memory();
            let reordered = other.profile();
            if reordered.peak() < profile.peak() {
                (*self, profile) = (other, reordered);
            }
        }
        let most = COPIES * (self.bytes.len() - self.copies.len());
        while profile.peak() > target && self.copies.len() < most {
            let Some(part) = STRIDES.get(self.stride) else { break };
            let next = profile.peak() - profile.peak().div_ceil(*part);
            let excess = profile.excess(next);
            let better = self.gaps(&profile, next).into_iter().take(TRIALS).find_map(|gap| {
                let mut other = self.clone();
                other.compute_again(&gap);
                let after = other.profile();
                (after.excess(next) < excess).then_some((other, after))
            });
            match better {
                Some((other, after)) => (*self, profile) = (other, after),
                None => self.stride += 1,
            }
        }
        profile.peak()
    }

    /// The largest number of bytes that is alive at once.
    pub(crate) fn peak(&self) -> usize {
        self.profile().peak()
    }

    fn profile(&self) -> Profile {
        let n = self.bytes.len();
        let (mut first, mut last) = (vec![usize::MAX; n], vec![0; n]);
        for (at, item) in self.items.iter().enumerate() {
            for w in &item.writes {
                let b = w.buffer as usize;
                first[b] = first[b].min(at);
                last[b] = last[b].max(at);
            }
            item.reads.iter().for_each(|&b| last[b as usize] = at);
        }
        let mut change = vec![0isize; self.items.len() + 1];
        for b in 0..n {
            if self.homes[b] == Home::Arena && first[b] != usize::MAX {
                change[first[b]] += self.bytes[b] as isize;
                change[last[b] + 1] -= self.bytes[b] as isize;
            }
        }
        let mut alive = 0;
        let mut live: Vec<usize> = Vec::with_capacity(self.items.len());
        for (at, item) in self.items.iter().enumerate() {
            alive += change[at];
            // What is overwritten in place is counted once.
            let mut taken: FxHashSet<BufferId> = FxHashSet::default();
            let mut twice = 0;
            for &(to, from) in &item.reuse {
                let dies = last[from as usize] == at && self.homes[from as usize] == Home::Arena;
                let fits = self.bytes[from as usize] >= self.bytes[to as usize];
                if dies && fits && !taken.contains(&to) && !taken.contains(&from) {
                    taken.extend([to, from]);
                    twice += self.bytes[to as usize];
                }
            }
            live.push((alive as usize).saturating_sub(twice));
        }
        Profile { first, last, live }
    }

    /// The values that could be computed again to save memory where more than `target` is alive, the cheapest
    /// for what they save first.
    fn gaps(&self, profile: &Profile, target: usize) -> Vec<Gap> {
        let mut over = vec![0usize];
        for &live in &profile.live {
            over.push(over.last().expect("it has an element") + usize::from(live > target));
        }
        let mut uses: Vec<Vec<usize>> = vec![Vec::new(); self.bytes.len()];
        for (at, item) in self.items.iter().enumerate() {
            item.reads.iter().for_each(|&b| uses[b as usize].push(at));
        }
        let overwritten = self.overwritten();
        let writer = self.writers();
        let mut gaps = Vec::new();
        for (b, uses) in uses.iter().enumerate() {
            if self.homes[b] != Home::Arena || profile.first[b] == usize::MAX || self.bytes[b] == 0 {
                continue;
            }
            let mut before = profile.first[b];
            for &at in uses {
                let saved = over[at].saturating_sub(over[before + 1]);
                if saved > 0 {
                    let search =
                        Search { schedule: self, profile, overwritten: &overwritten, writer: &writer, at };
                    let mut chain = Vec::new();
                    if let Some(cost) = search.value(b as BufferId, true, &mut chain) {
                        let score = (cost + 1) as f64 / (saved as f64 * self.bytes[b] as f64);
                        gaps.push(Gap { buffer: b as BufferId, at, chain, score });
                    }
                }
                before = at;
            }
        }
        gaps.sort_by(|a, b| a.score.total_cmp(&b.score).then((a.at, a.buffer).cmp(&(b.at, b.buffer))));
        gaps
    }

    /// For each offset in the state the step that overwrites what is there.
    fn overwritten(&self) -> FxHashMap<usize, usize> {
        let mut overwritten = FxHashMap::default();
        for (at, w) in self.items.iter().enumerate().flat_map(|(at, i)| i.writes.iter().map(move |w| (at, w)))
        {
            if let Home::NewState(offset) = self.homes[w.buffer as usize] {
                overwritten.insert(offset, at);
            }
        }
        overwritten
    }

    /// For each buffer the step that writes it, and which of the values that step writes it is.
    fn writers(&self) -> FxHashMap<BufferId, (usize, usize)> {
        let writes = self.items.iter().enumerate();
        writes
            .flat_map(|(at, i)| i.writes.iter().enumerate().map(move |(n, w)| (w.buffer, (at, n))))
            .collect()
    }

    /// Computes the value of a gap again where it is over.
    fn compute_again(&mut self, gap: &Gap) {
        let writer = self.writers();
        let mut names: Vec<(BufferId, BufferId)> = Vec::new();
        let mut copies = Vec::new();
        for &buffer in &gap.chain {
            let (at, n) = writer[&buffer];
            let own = self.bytes.len() as BufferId;
            self.bytes.push(self.bytes[buffer as usize]);
            self.homes.push(Home::Arena);
            self.copies.push(buffer);
            let source = &self.items[at];
            let written = source.writes[n].clone();
            let mut copy = Item {
                step: source.step,
                reads: written.reads.clone(),
                reuse: source.reuse.iter().filter(|r| r.0 == buffer).map(|r| (own, r.1)).collect(),
                writes: vec![Written { buffer: own, ..written }],
                fails: false,
                renames: source.renames.clone(),
                again: true,
            };
            names.iter().for_each(|&(from, to)| copy.rename(from, to));
            copy.renames.push((buffer, own));
            names.push((buffer, own));
            copies.push(copy);
        }
        let (_, own) = *names.last().expect("a gap ends with its own value");
        for item in &mut self.items[gap.at..] {
            if item.reads.contains(&gap.buffer) {
                item.rename(gap.buffer, own);
            }
        }
        self.items.splice(gap.at..gap.at, copies);
        self.drop_unused(gap.buffer);
    }

    /// Takes away the writing of a buffer that nothing reads, and what was read for that alone.
    fn drop_unused(&mut self, buffer: BufferId) {
        if self.homes[buffer as usize] != Home::Arena || self.items.iter().any(|i| i.reads.contains(&buffer))
        {
            return;
        }
        let Some(at) = self.items.iter().position(|i| i.writes.iter().any(|w| w.buffer == buffer)) else {
            return;
        };
        let item = &mut self.items[at];
        // A step is left whole if what it would no longer read is not known.
        if item.writes.iter().any(|w| w.cost.is_none()) {
            return;
        }
        item.writes.retain(|w| w.buffer != buffer);
        item.reuse.retain(|r| r.0 != buffer);
        let needed: FxHashSet<BufferId> = item.writes.iter().flat_map(|w| w.reads.iter().copied()).collect();
        let (kept, unread): (Vec<BufferId>, Vec<BufferId>) =
            item.reads.iter().partition(|b| needed.contains(b));
        item.reads = kept;
        if item.writes.is_empty() {
            self.items.remove(at);
        }
        unread.into_iter().for_each(|b| self.drop_unused(b));
    }

    /// Sorts the steps so that each one is, of those that can run, one that leaves the least alive.
    fn by_memory(&mut self) {
        let n = self.items.len();
        let mut after: Vec<Vec<usize>> = vec![Vec::new(); n];
        let mut missing = vec![0usize; n];
        for (from, to) in self.order() {
            after[from].push(to);
            missing[to] += 1;
        }
        let mut readers = vec![0usize; self.bytes.len()];
        self.items.iter().flat_map(|i| &i.reads).for_each(|&b| readers[b as usize] += 1);
        let arena = |b: BufferId| self.homes[b as usize] == Home::Arena;
        let size = |b: BufferId| if arena(b) { self.bytes[b as usize] as isize } else { 0 };
        let mut ready: Vec<usize> = (0..n).filter(|&i| missing[i] == 0).collect();
        let mut sorted = Vec::with_capacity(n);
        while !ready.is_empty() {
            let growth = |i: usize| {
                let item = &self.items[i];
                let dying = item.reads.iter().filter(|&&b| readers[b as usize] == 1);
                let made: isize = item.writes.iter().map(|w| size(w.buffer)).sum();
                made - dying.map(|&b| size(b)).sum::<isize>()
            };
            let best = (0..ready.len()).min_by_key(|&r| (growth(ready[r]), ready[r]));
            let i = ready.swap_remove(best.expect("some step is ready"));
            self.items[i].reads.iter().for_each(|&b| readers[b as usize] -= 1);
            for &next in &after[i] {
                missing[next] -= 1;
                if missing[next] == 0 {
                    ready.push(next);
                }
            }
            sorted.push(i);
        }
        let mut items: Vec<Option<Item>> = std::mem::take(&mut self.items).into_iter().map(Some).collect();
        self.items = sorted.into_iter().filter_map(|i| items[i].take()).collect();
    }

    /// Pairs of steps that must keep their order.
    fn order(&self) -> Vec<(usize, usize)> {
        let writer = self.writers();
        let overwritten = self.overwritten();
        let mut checked: FxHashMap<BufferId, Vec<usize>> = FxHashMap::default();
        let mut pairs = Vec::new();
        for (at, item) in self.items.iter().enumerate() {
            for &b in &item.reads {
                pairs.extend(writer.get(&b).map(|&(w, _)| (w, at)));
                pairs.extend(checked.get(&b).into_iter().flatten().map(|&c| (c, at)));
                if let Home::OldState(offset) = self.homes[b as usize] {
                    pairs.extend(overwritten.get(&offset).map(|&w| (at, w)));
                }
            }
            if let Step::Check { buffer, .. } = item.step {
                checked.entry(buffer).or_default().push(at);
            }
        }
        // A step that fails leaves the state as it was.
        let fails = (0..self.items.len()).filter(|&i| self.items[i].fails);
        pairs.extend(fails.flat_map(|i| overwritten.values().map(move |&w| (i, w))));
        pairs.retain(|(from, to)| from != to);
        pairs.sort_unstable();
        pairs.dedup();
        pairs
    }
}

/// Looks for the steps that a value takes to compute it again.
struct Search<'a> {
    schedule: &'a Schedule,
    profile: &'a Profile,
    overwritten: &'a FxHashMap<usize, usize>,
    writer: &'a FxHashMap<BufferId, (usize, usize)>,
    /// Before which step.
    at: usize,
}

impl Search<'_> {
    /// Adds what `buffer` takes to `chain`, and returns how long that lasts; `itself` if it is not to be found
    /// where it was kept.
    fn value(&self, buffer: BufferId, itself: bool, chain: &mut Vec<BufferId>) -> Option<u64> {
        if chain.contains(&buffer) || !itself && self.is_there(buffer) {
            return Some(0);
        }
        let &(at, n) = self.writer.get(&buffer)?;
        if self.schedule.homes[buffer as usize] != Home::Arena || at >= self.at {
            return None;
        }
        let written = &self.schedule.items[at].writes[n];
        let mut cost = written.cost?;
        for &r in &written.reads {
            cost += self.value(r, false, chain)?;
        }
        chain.push(buffer);
        (chain.len() <= CHAIN).then_some(cost)
    }

    /// Whether a value is in memory anyway.
    fn is_there(&self, buffer: BufferId) -> bool {
        let b = buffer as usize;
        match self.schedule.homes[b] {
            Home::Arena => self.profile.first[b] < self.at && self.profile.last[b] >= self.at,
            Home::OldState(offset) => self.overwritten.get(&offset).is_none_or(|&w| w >= self.at),
            Home::NewState(_) => self.profile.first[b] < self.at,
            Home::Kept => self.profile.first[b] == usize::MAX || self.profile.first[b] < self.at,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::memory_check::testing::Random;
    use proptest::prelude::*;

    /// A step that takes over no memory and cannot fail.
    fn plain(step: Step, reads: Vec<BufferId>, writes: Vec<Written>) -> Item {
        Item { step, reads, writes, reuse: Vec::new(), fails: false, renames: Vec::new(), again: false }
    }

    /// Steps of a chain forward, `n` kernels each of which reads the one before, and back: kernel `n + i` reads
    /// the one before it and what kernel `n - 1 - i` has made. All values take one unit.
    fn there_and_back(n: usize) -> Schedule {
        let item = |k: usize| {
            let mut reads = Vec::new();
            if k > 0 {
                reads.push(k as BufferId - 1);
            }
            if k > n {
                reads.push((2 * n - 1 - k) as BufferId);
            }
            let writes = vec![Written { buffer: k as BufferId, reads: reads.clone(), cost: Some(1) }];
            plain(Step::Run(k), reads, writes)
        };
        Schedule {
            items: (0..2 * n).map(item).collect(),
            bytes: vec![64; 2 * n],
            homes: vec![Home::Arena; 2 * n],
            copies: Vec::new(),
            reordered: false,
            stride: 0,
        }
    }

    /// Runs the steps on numbers: each makes one of what it reads. Gives what the last one makes.
    fn result(s: &Schedule) -> u64 {
        let mut values: FxHashMap<BufferId, u64> = FxHashMap::default();
        let mut last = 0;
        for item in &s.items {
            let Step::Run(k) = item.step else { unreachable!("there are no checks") };
            let mix = |h: u64, b: &BufferId| (h ^ values[b]).wrapping_mul(0x9e37_79b9_7f4a_7c15);
            last = item.reads.iter().fold(k as u64 + 1, mix);
            values.extend(item.writes.iter().map(|w| (w.buffer, last)));
        }
        last
    }

    #[test]
    fn a_chain_fits_into_less_and_computes_the_same() {
        let free = there_and_back(32);
        assert_eq!(free.peak(), 33 * 64);
        for target in [24, 16, 12] {
            let mut s = free.clone();
            let peak = s.fit(target * 64);
            assert!(peak <= target * 64, "{peak} bytes instead of {}", target * 64);
            assert_eq!(peak, s.peak());
            assert_eq!(result(&s), result(&free));
            assert!(s.items.iter().any(|i| i.again));
        }
    }

    #[test]
    fn the_least_does_not_depend_on_the_target() {
        let mut least = there_and_back(32);
        let bytes = least.fit(0);
        assert!(bytes > 0);
        let mut stepwise = there_and_back(32);
        for target in (0..2 * 32).rev() {
            stepwise.fit(target * 64);
        }
        assert_eq!(stepwise.peak(), bytes);
        assert_eq!(stepwise.items.len(), least.items.len());
    }

    #[test]
    fn what_fits_stays_as_it_is() {
        let mut s = there_and_back(8);
        assert_eq!(s.fit(9 * 64), 9 * 64);
        assert_eq!(s.items.len(), 16);
        assert!(s.copies.is_empty());
    }

    #[test]
    fn values_that_stay_are_where_others_are_computed_from() {
        let least = |home: fn(usize) -> Home| {
            let mut s = there_and_back(32);
            (0..32).step_by(4).for_each(|k| s.homes[k] = home(k));
            s.fit(0)
        };
        assert!(least(|_| Home::Arena) > 3 * 64);
        assert_eq!(least(|_| Home::Kept), 3 * 64);
        assert_eq!(least(Home::NewState), 3 * 64);
    }

    #[test]
    fn the_last_reader_of_a_large_value_comes_first() {
        // 0 is read by 1 and by 6, which frees it; 2 to 5 only add to what the last one reads.
        let reads: [&[BufferId]; 8] = [&[], &[0], &[1], &[1], &[1], &[1], &[0], &[1, 2, 3, 4, 5, 6]];
        let mut s = there_and_back(4);
        s.bytes = vec![64, 16, 16, 16, 16, 16, 32, 0];
        for (item, reads) in s.items.iter_mut().zip(reads) {
            item.reads = reads.to_vec();
            item.writes[0].reads = reads.to_vec();
        }
        assert_eq!(s.peak(), 64 + 5 * 16 + 32);
        s.by_memory();
        assert_eq!(s.peak(), 5 * 16 + 32);
    }

    #[test]
    fn state_is_read_before_it_is_overwritten() {
        // 1 reads the old state, 2 overwrites it, 4 would like 1's result computed again.
        let mut s = there_and_back(3);
        let (old, new) = (6, 7);
        s.bytes.extend([64; 2]);
        s.homes.extend([Home::OldState(0), Home::NewState(0)]);
        s.items[1].reads.push(old);
        s.items[1].writes[0].reads.push(old);
        s.items[2].writes.push(Written { buffer: new, reads: vec![1], cost: Some(1) });
        s.fit(0);
        let overwritten = s.items.iter().position(|i| i.writes.iter().any(|w| w.buffer == new)).unwrap();
        let readers = s.items.iter().enumerate().filter(|(_, i)| i.reads.contains(&old));
        assert!(readers.into_iter().all(|(at, _)| at <= overwritten));
    }

    /// A valid order of steps on values in every home: some steps write two, take over memory, check what they read, can fail, or
    /// make what cannot be made again. The state is overwritten after the last step that can fail.
    fn random(seed: u64) -> Schedule {
        let mut random = Random::new(seed);
        let steps = 1 + random.below(40);
        let state_from = random.below(steps + 1);
        let states = random.below(4);
        // Inputs, then the old state.
        let mut homes = vec![Home::Kept; 2];
        homes.extend((0..states).map(Home::OldState));
        let mut overwriters: Vec<Option<usize>> = vec![None; states];
        for overwriter in overwriters.iter_mut().filter(|_| state_from < steps) {
            *overwriter = Some(state_from + random.below(steps - state_from));
        }
        let mut items: Vec<Item> = Vec::new();
        for k in 0..steps {
            let readable = |&b: &usize| match homes[b] {
                Home::OldState(offset) => overwriters[offset].is_none_or(|w| w >= k),
                _ => true,
            };
            // Mostly what is new.
            let known: Vec<usize> = (0..homes.len()).filter(readable).collect();
            let some = |random: &mut Random| {
                let back = if random.below(3) == 0 { known.len() } else { known.len().min(6) };
                known[known.len() - 1 - random.below(back)] as BufferId
            };
            if k < state_from && random.below(8) == 0 {
                let buffer = some(&mut random);
                let step = Step::Check { buffer, bound: 1, site: k as u64 + 1 };
                items.push(Item { fails: true, ..plain(step, vec![buffer], Vec::new()) });
                continue;
            }
            let written = |random: &mut Random, buffer: usize| {
                let mut reads: Vec<BufferId> = (0..random.below(4)).map(|_| some(random)).collect();
                reads.sort_unstable();
                reads.dedup();
                let cost = (random.below(8) > 0).then(|| random.below(100) as u64);
                Written { buffer: buffer as BufferId, reads, cost }
            };
            let mut writes = Vec::new();
            let mut new_homes = Vec::new();
            for _ in 0..1 + random.below(2) {
                new_homes.push(if random.below(8) == 0 { Home::Kept } else { Home::Arena });
            }
            let own = (0..states).filter(|&offset| overwriters[offset] == Some(k));
            new_homes.extend(own.map(Home::NewState));
            for home in new_homes {
                writes.push(written(&mut random, homes.len()));
                homes.push(home);
            }
            let mut reads: Vec<BufferId> = writes.iter().flat_map(|w| w.reads.iter().copied()).collect();
            reads.sort_unstable();
            reads.dedup();
            let pairs = writes.iter().flat_map(|w| reads.iter().map(|&from| (w.buffer, from)));
            let reuse = pairs.filter(|_| random.below(2) == 0).collect();
            let fails = k < state_from && random.below(16) == 0;
            items.push(Item { reuse, fails, ..plain(Step::Run(k), reads, writes) });
        }
        let bytes = homes.iter().map(|_| 64 * random.below(20)).collect();
        Schedule { items, bytes, homes, copies: Vec::new(), reordered: false, stride: 0 }
    }

    /// What a schedule leaves in outputs and state, and what its checks see.
    #[derive(PartialEq, Debug, Default)]
    struct Effects {
        kept: FxHashMap<BufferId, u64>,
        state: FxHashMap<usize, u64>,
        checked: FxHashMap<u64, u64>,
    }

    /// Plays the steps on numbers. Panics where a value is read that was not written, and where a step can fail
    /// after the state has changed.
    fn play(s: &Schedule) -> Effects {
        let originals = s.bytes.len() - s.copies.len();
        let original = |mut b: BufferId| {
            while b as usize >= originals {
                b = s.copies[b as usize - originals];
            }
            b
        };
        let written: FxHashSet<BufferId> =
            s.items.iter().flat_map(|i| i.writes.iter().map(|w| w.buffer)).collect();
        let mut arena: FxHashMap<BufferId, u64> = FxHashMap::default();
        let mut effects = Effects::default();
        for b in (0..s.bytes.len() as BufferId).filter(|b| !written.contains(b)) {
            match s.homes[b as usize] {
                Home::OldState(offset) => drop(effects.state.insert(offset, offset as u64)),
                Home::Kept => drop(effects.kept.insert(b, 1000 + u64::from(b))),
                Home::Arena | Home::NewState(_) => {}
            }
        }
        let mut changed = false;
        for item in &s.items {
            assert!(!(item.fails && changed), "{:?} can fail after the state has changed", item.step);
            let value = |b: &BufferId| match s.homes[*b as usize] {
                Home::Arena => arena[b],
                Home::Kept => effects.kept[b],
                Home::OldState(offset) | Home::NewState(offset) => effects.state[&offset],
            };
            if let Step::Check { site, .. } = item.step {
                effects.checked.insert(site, value(&item.reads[0]));
            }
            let mix = |h: u64, b: &BufferId| (h ^ value(b)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
            let result = |w: &Written| (w.buffer, w.reads.iter().fold(u64::from(original(w.buffer)), mix));
            assert!(item.writes.iter().flat_map(|w| &w.reads).all(|b| item.reads.contains(b)));
            for (b, result) in item.writes.iter().map(result).collect::<Vec<_>>() {
                match s.homes[b as usize] {
                    Home::Arena => drop(arena.insert(b, result)),
                    Home::Kept => drop(effects.kept.insert(b, result)),
                    Home::NewState(offset) => {
                        effects.state.insert(offset, result);
                        changed = true;
                    }
                    Home::OldState(_) => panic!("the old state is not written"),
                }
            }
        }
        effects
    }

    /// The bytes alive at each step, by the definition: a value in the arena lives from the step that makes it to the last that
    /// reads it, and each takes over the memory of at most one that dies, which nothing else takes over.
    fn alive(s: &Schedule) -> Vec<usize> {
        let makes = |i: &Item, b: usize| i.writes.iter().any(|w| w.buffer as usize == b);
        let lifetime = |b: usize| {
            let first = s.items.iter().position(|i| makes(i, b))?;
            let last = s.items.iter().rposition(|i| i.reads.contains(&(b as BufferId)));
            Some(first..=last.unwrap_or(first))
        };
        let lifetimes: Vec<_> =
            (0..s.bytes.len()).map(|b| lifetime(b).filter(|_| s.homes[b] == Home::Arena)).collect();
        let at = |at: usize| {
            let here = (0..s.bytes.len()).filter(|&b| lifetimes[b].as_ref().is_some_and(|l| l.contains(&at)));
            let mut taken: Vec<BufferId> = Vec::new();
            let mut shared = 0;
            for &(to, from) in &s.items[at].reuse {
                let dies = lifetimes[from as usize].as_ref().is_some_and(|l| *l.end() == at)
                    && makes(&s.items[at], to as usize);
                let free = !taken.contains(&to) && !taken.contains(&from);
                if dies && free && s.bytes[to as usize] <= s.bytes[from as usize] {
                    taken.extend([to, from]);
                    shared += s.bytes[to as usize];
                }
            }
            here.map(|b| s.bytes[b]).sum::<usize>().saturating_sub(shared)
        };
        (0..s.items.len()).map(at).collect()
    }

    proptest! {
        #[test]
        fn whatever_is_done_to_fit_computes_the_same(seed in any::<u64>(), part in 0usize..10) {
            let free = random(seed);
            prop_assert_eq!(free.profile().live, alive(&free));
            let effects = play(&free);
            let mut s = free.clone();
            let target = free.peak() * part / 10;
            let peak = s.fit(target);
            prop_assert_eq!(s.profile().live, alive(&s));
            prop_assert_eq!(s.peak(), peak);
            prop_assert!(peak <= free.peak());
            prop_assert_eq!(play(&s), effects);
            let steps = |s: &Schedule| s.items.iter().map(|i| i.step).collect::<Vec<_>>();
            if peak <= target {
                // It ends as soon as the target is reached.
                let mut same = free.clone();
                same.fit(peak);
                prop_assert_eq!(steps(&same), steps(&s));
            } else if peak == free.peak() && s.copies.is_empty() {
                prop_assert_eq!(steps(&free), steps(&s));
            }
            // A value that was read is still read, or not made any more.
            let read = |s: &Schedule, b: BufferId| s.items.iter().any(|i| i.reads.contains(&b));
            let whole = |i: &&Item| i.writes.iter().all(|w| w.cost.is_some());
            for w in s.items.iter().filter(whole).flat_map(|i| &i.writes) {
                if s.homes[w.buffer as usize] == Home::Arena && !read(&s, w.buffer) {
                    prop_assert!((w.buffer as usize) < free.bytes.len() && !read(&free, w.buffer), "{}", w.buffer);
                }
            }
        }

        #[test]
        fn another_order_is_one_that_the_steps_allow(seed in any::<u64>()) {
            let free = random(seed);
            let mut s = free.clone();
            s.by_memory();
            prop_assert_eq!(s.items.len(), free.items.len());
            prop_assert_eq!(play(&s), play(&free));
            let position = |s: &Schedule, step: Step| s.items.iter().position(|i| i.step == step).unwrap();
            for (at, item) in free.items.iter().enumerate() {
                let Step::Check { buffer, .. } = item.step else { continue };
                for reader in free.items[at + 1..].iter().filter(|i| i.reads.contains(&buffer)) {
                    prop_assert!(position(&s, item.step) < position(&s, reader.step));
                }
            }
        }
    }
}
