//! Mutations of files.

use crate::LONGEST;
use fastrand::Rng;

/// Numbers at which counts, sizes and indices go wrong.
const NUMBERS: [u64; 16] = [
    0,
    1,
    2,
    16,
    255,
    256,
    65_535,
    1 << 31,
    (1 << 31) - 1,
    u32::MAX as u64,
    1 << 40,
    (1 << 40) + 1,
    1_000_000_000_000_000,
    i64::MAX as u64,
    1 << 63,
    u64::MAX,
];

/// Makes mutants, the same for the same seed.
pub struct Mutator {
    random: Rng,
    words: &'static [&'static str],
}

impl Mutator {
    /// `words` are what the format knows: they are put in at random places.
    pub fn new(seed: u64, words: &'static [&'static str]) -> Self {
        Self { random: Rng::with_seed(seed), words }
    }

    /// A file of the corpus with one to eight mutations.
    pub fn mutant(&mut self, corpus: &[Vec<u8>]) -> Vec<u8> {
        let mut file = corpus[self.random.usize(..corpus.len())].clone();
        for _ in 0..1 << self.random.u32(..4) {
            self.mutate(&mut file, corpus);
            file.truncate(LONGEST);
        }
        file
    }

    /// A place in the file and how many bytes behind it are meant.
    fn range(&mut self, file: &[u8]) -> std::ops::Range<usize> {
        let at = self.random.usize(..=file.len());
        let most = [4, 16, 64, 1024][self.random.usize(..4)];
        at..(at + self.random.usize(..=most)).min(file.len())
    }

    fn mutate(&mut self, file: &mut Vec<u8>, corpus: &[Vec<u8>]) {
        let range = self.range(file);
        let at = range.start;
        match self.random.u32(..14) {
            0 if at < file.len() => file[at] ^= 1 << self.random.u32(..8),
            1 if at < file.len() => file[at] = self.random.u8(..),
            2 => {
                let bytes: Vec<u8> = range.map(|_| self.random.u8(..)).collect();
                file.splice(at..at, bytes);
            }
            3 => drop(file.drain(range)),
            4 => file.truncate(at),
            // A piece of this file elsewhere, up to a thousand times: nesting, and long lists and names.
            5 => {
                let times = [1, 1, 1, 2, 20, 1000][self.random.usize(..6)];
                let piece = file[range].repeat(times);
                let to = self.random.usize(..=file.len());
                file.splice(to..to, piece);
            }
            // A piece of another file in the place of this.
            6 => {
                let other = &corpus[self.random.usize(..corpus.len())];
                let piece = self.range(other);
                file.splice(range, other[piece].iter().copied());
            }
            7 => {
                if let Some(word) = self.word() {
                    file.splice(at..at, word.bytes());
                }
            }
            8 => {
                if let (Some(word), Some(place)) = (self.word(), token(file, at)) {
                    file.splice(place, word.bytes());
                }
            }
            9 => {
                if let Some(place) = (at..file.len()).find(|&i| file[i].is_ascii_digit()) {
                    let end = (place..file.len()).find(|&i| !file[i].is_ascii_digit()).unwrap_or(file.len());
                    file.splice(place..end, self.number().to_string().into_bytes());
                }
            }
            10 => {
                let n = self.number();
                let width = [2, 4, 8][self.random.usize(..3)];
                let bytes = if self.random.bool() {
                    n.to_le_bytes()[..width].to_vec()
                } else {
                    n.to_be_bytes()[8 - width..].to_vec()
                };
                file.splice(at..(at + width).min(file.len()), bytes);
            }
            11 => self.lines(file),
            12 => {
                if let (Some(from), Some(to)) = (token(file, at), token(file, self.range(file).start)) {
                    let piece = file[from].to_vec();
                    file.splice(to, piece);
                }
            }
            _ => {
                let to = self.random.usize(..=file.len());
                let piece: Vec<u8> = file.drain(range).collect();
                let to = to.min(file.len());
                file.splice(to..to, piece);
            }
        }
    }

    fn word(&mut self) -> Option<&'static str> {
        self.random.choice(self.words).copied()
    }

    /// A number near one of [`NUMBERS`].
    fn number(&mut self) -> u64 {
        NUMBERS[self.random.usize(..NUMBERS.len())].wrapping_add(self.random.u64(..3)).wrapping_sub(1)
    }

    /// Doubles, removes or moves a line.
    fn lines(&mut self, file: &mut Vec<u8>) {
        let lines: Vec<&[u8]> = file.split_inclusive(|&b| b == b'\n').collect();
        if lines.is_empty() {
            return;
        }
        let (from, to) = (self.random.usize(..lines.len()), self.random.usize(..lines.len()));
        let mut order: Vec<usize> = (0..lines.len()).collect();
        match self.random.u32(..3) {
            0 => order.insert(to, from),
            1 => drop(order.remove(from)),
            _ => order.swap(from, to),
        }
        *file = order.iter().flat_map(|&i| lines[i]).copied().collect();
    }
}

/// The run of letters, digits and `_` at or behind a place.
fn token(file: &[u8], at: usize) -> Option<std::ops::Range<usize>> {
    let inside = |i: &usize| file[*i].is_ascii_alphanumeric() || file[*i] == b'_';
    let start = (at..file.len()).find(inside)?;
    let end = (start..file.len()).find(|i| !inside(i)).unwrap_or(file.len());
    Some(start..end)
}
