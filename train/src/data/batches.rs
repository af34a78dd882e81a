//! Batches in a random order that is a pure function of seed and epoch.

use super::Dataset;

/// Fills `order` with a permutation of `0..n` that depends on `n`, `seed` and `epoch` only, so a
/// run that resumes at an epoch sees the batches it would have seen. Uniform over all permutations
/// as far as 64 bits of state allow.
///
/// Definition, fixed for all versions: Fisher and Yates' shuffle from the end (Durstenfeld 1964):
/// for `i` from `n - 1` down to 1, exchange elements `i` and `below(i + 1)` of the identity.
/// `below(m)` is Lemire's multiplication with rejection ("Fast random integer generation in an
/// interval", 2019), without bias, over SplitMix64 (Steele, Lea and Flood 2014) whose state starts
/// at `mix(mix(seed + G) + epoch * G)`, with SplitMix64's increment `G` and finalizer `mix`, modulo
/// 2^64.
///
/// ```
/// # use graphc_train::data::permutation;
/// let mut order = Vec::new();
/// permutation(42, 0, 5, &mut order);
/// let mut sorted = order.clone();
/// sorted.sort();
/// assert_eq!(sorted, [0, 1, 2, 3, 4]);
/// ```
pub fn permutation(seed: u64, epoch: u64, n: usize, order: &mut Vec<usize>) {
    order.clear();
    order.extend(0..n);
    let mut random = SplitMix64(mix(mix(seed.wrapping_add(GAMMA)).wrapping_add(epoch.wrapping_mul(GAMMA))));
    for i in (1..n).rev() {
        order.swap(i, random.below(i as u64 + 1) as usize);
    }
}

/// Increment of SplitMix64: the odd integer closest to 2^64 / golden ratio.
const GAMMA: u64 = 0x9e37_79b9_7f4a_7c15;

/// Finalizer of SplitMix64 (Stafford's variant 13).
fn mix(z: u64) -> u64 {
    let z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

pub(crate) struct SplitMix64(u64);

impl SplitMix64 {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(GAMMA);
        mix(self.0)
    }

    /// Uniform on `[0, 1)`, a multiple of 2^-53.
    pub(crate) fn unit(&mut self) -> f64 {
        (self.next() >> 11) as f64 * f64::powi(2.0, -53)
    }

    /// Uniform in `0..m`.
    pub(super) fn below(&mut self, m: u64) -> u64 {
        let mut product = u128::from(self.next()) * u128::from(m);
        // Low words below 2^64 mod m belong to the values that would come once too often.
        let threshold = m.wrapping_neg() % m;
        while (product as u64) < threshold {
            product = u128::from(self.next()) * u128::from(m);
        }
        (product >> 64) as u64
    }
}

/// Random numbers for a row: a function of it alone.
pub(crate) fn random(row: super::Row) -> SplitMix64 {
    let epoch = mix(mix(row.seed.wrapping_add(GAMMA)).wrapping_add(row.epoch.wrapping_mul(GAMMA)));
    // Shuffling draws from the state without the second step.
    SplitMix64(mix(mix(epoch).wrapping_add((row.index as u64).wrapping_mul(GAMMA))))
}

/// One batch, valid until the next is asked for.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct LabelledBatch<'b> {
    /// Features `f32[labels.len(), dims..]`.
    pub features: &'b [f32],
    /// Labels.
    pub labels: &'b [i32],
}

impl LabelledBatch<'_> {
    /// Number of rows.
    pub fn len(&self) -> usize {
        self.labels.len()
    }

    /// True if there are no rows; batches that [`Batches`] gives have some.
    pub fn is_empty(&self) -> bool {
        self.labels.is_empty()
    }
}

/// Cuts the rows of a data set into batches. The last batch of an epoch holds what is left and may
/// be smaller. Rows are gathered into buffers that are reused: after the first batch of the first
/// epoch nothing is allocated.
///
/// ```
/// # use graphc_train::data::{Batches, Dataset};
/// # let data = Dataset::new(vec![0.0; 10], &[2], vec![0; 5], 1)?;
/// let mut batches = Batches::shuffled(&data, 2, 42);
/// for epoch in 0..3 {
///     batches.start(epoch);
///     while let Some(batch) = batches.next_batch() {
///         assert_eq!(batch.features.len(), 2 * batch.len());
///     }
/// }
/// # Ok::<(), graphc_train::data::DataError>(())
/// ```
#[derive(Clone, Debug)]
pub struct Batches<'d> {
    data: &'d Dataset,
    size: usize,
    /// `None`: the order of the data set.
    seed: Option<u64>,
    order: Vec<usize>,
    /// Rows of this epoch given so far.
    given: usize,
    features: Vec<f32>,
    labels: Vec<i32>,
}

impl<'d> Batches<'d> {
    /// Batches of `size` rows, in the order [`permutation`] of (`seed`, epoch). Ready to give epoch 0.
    ///
    /// # Panics
    /// If `size` is 0.
    pub fn shuffled(data: &'d Dataset, size: usize, seed: u64) -> Self {
        Self::new(data, size, Some(seed))
    }

    /// Batches of `size` rows in the order of the data set, for evaluation.
    ///
    /// # Panics
    /// If `size` is 0.
    pub fn in_order(data: &'d Dataset, size: usize) -> Self {
        Self::new(data, size, None)
    }

    fn new(data: &'d Dataset, size: usize, seed: Option<u64>) -> Self {
        assert!(size > 0, "a batch has at least one row");
        let (order, features, labels) = (Vec::new(), Vec::new(), Vec::new());
        let mut batches = Self { data, size, seed, order, given: 0, features, labels };
        batches.start(0);
        batches
    }

    /// Begins an epoch, whether or not the last one was read to its end.
    pub fn start(&mut self, epoch: u64) {
        self.given = 0;
        if let Some(seed) = self.seed {
            permutation(seed, epoch, self.data.len(), &mut self.order);
        }
    }

    /// The next batch of the epoch, or `None` at its end.
    pub fn next_batch(&mut self) -> Option<LabelledBatch<'_>> {
        let begin = self.given;
        let end = self.data.len().min(begin.saturating_add(self.size));
        if begin == end {
            return None;
        }
        self.given = end;
        let row_len = self.data.row_len();
        if self.seed.is_none() {
            return Some(LabelledBatch {
                features: &self.data.features()[begin * row_len..end * row_len],
                labels: &self.data.labels()[begin..end],
            });
        }
        self.features.clear();
        self.labels.clear();
        for &row in &self.order[begin..end] {
            self.features.extend_from_slice(self.data.row(row));
            self.labels.push(self.data.labels()[row]);
        }
        Some(LabelledBatch { features: &self.features, labels: &self.labels })
    }

    /// Number of batches of an epoch.
    pub fn per_epoch(&self) -> usize {
        self.data.len().div_ceil(self.size)
    }

    /// Number of rows of an epoch.
    pub fn rows(&self) -> usize {
        self.data.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn order(seed: u64, epoch: u64, n: usize) -> Vec<usize> {
        let mut order = Vec::new();
        permutation(seed, epoch, n, &mut order);
        order
    }

    #[test]
    fn splitmix64_is_the_published_one() {
        let mut random = SplitMix64(1234567);
        assert_eq!(
            [random.next(), random.next(), random.next()],
            [6457827717110365317, 3203168211198807973, 9817491932198370423]
        );
    }

    #[test]
    fn every_permutation_is_about_as_likely() {
        let mut counts = std::collections::HashMap::new();
        (0..24_000).for_each(|epoch| *counts.entry(order(7, epoch, 4)).or_insert(0) += 1);
        assert_eq!(counts.len(), 24);
        // Binomial with mean 1000 and deviation 31.
        assert!(counts.values().all(|n| (850..1150).contains(n)), "{counts:?}");
    }

    #[test]
    fn differs_by_seed_and_epoch() {
        assert_eq!(order(1, 2, 100), order(1, 2, 100));
        assert_ne!(order(1, 2, 100), order(1, 3, 100));
        assert_ne!(order(1, 2, 100), order(2, 2, 100));
        // Seed and epoch are not interchangeable.
        assert_ne!(order(1, 2, 100), order(2, 1, 100));
    }

    proptest! {
        #[test]
        fn is_a_permutation(seed: u64, epoch: u64, n in 0usize..200) {
            let mut sorted = order(seed, epoch, n);
            sorted.sort_unstable();
            prop_assert!(sorted.into_iter().eq(0..n));
        }

        #[test]
        fn every_row_comes_once_per_epoch(n in 0usize..50, size in 1usize..60, epoch: u64) {
            let features = (0..2 * n).map(|i| i as f32).collect();
            let data = Dataset::new(features, &[2], (0..n as i32).collect(), n.max(1)).unwrap();
            for mut batches in [Batches::shuffled(&data, size, 3), Batches::in_order(&data, size)] {
                batches.start(epoch);
                let (mut seen, mut count) = (Vec::new(), 0);
                while let Some(batch) = batches.next_batch() {
                    count += 1;
                    prop_assert!(batch.len() == size || count == data.len().div_ceil(size));
                    for (row, &label) in batch.features.chunks(2).zip(batch.labels) {
                        prop_assert_eq!(row, data.row(label as usize));
                        seen.push(label);
                    }
                }
                prop_assert_eq!(count, batches.per_epoch());
                seen.sort_unstable();
                prop_assert!(seen.into_iter().eq(0..n as i32));
            }
        }
    }

    #[test]
    fn buffers_are_reused() {
        let data = Dataset::new(vec![0.0; 30], &[3], vec![0; 10], 1).unwrap();
        let mut batches = Batches::shuffled(&data, 4, 0);
        let first = batches.next_batch().unwrap();
        let (features, labels) = (first.features.as_ptr(), first.labels.as_ptr());
        for epoch in 0..3 {
            batches.start(epoch);
            while let Some(batch) = batches.next_batch() {
                assert_eq!((batch.features.as_ptr(), batch.labels.as_ptr()), (features, labels));
            }
        }
    }
}
