//! Text as numbers of characters or bytes.

use super::{DataError, Field, Row, Source};
use graphc_ir::DType;
use graphc_runtime::Elements;
use std::collections::HashMap;

/// The characters of a text, numbered in the order of their code points.
///
/// ```
/// use graphc_train::data::Vocabulary;
///
/// let vocabulary = Vocabulary::of("hello world");
/// assert_eq!(vocabulary.len(), 8);
/// let ids = vocabulary.encode("low")?;
/// assert_eq!(vocabulary.decode(&ids), "low");
/// # Ok::<(), graphc_train::data::DataError>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Vocabulary {
    characters: Vec<char>,
    ids: HashMap<char, i32>,
}

impl Vocabulary {
    /// The characters that occur in `text`.
    pub fn of(text: &str) -> Self {
        let mut characters: Vec<char> = text.chars().collect();
        characters.sort_unstable();
        characters.dedup();
        let ids = characters.iter().zip(0..).map(|(&c, i)| (c, i)).collect();
        Self { characters, ids }
    }

    /// Number of characters.
    pub fn len(&self) -> usize {
        self.characters.len()
    }

    /// True if there are none.
    pub fn is_empty(&self) -> bool {
        self.characters.is_empty()
    }

    /// The number of each character.
    ///
    /// # Errors
    /// [`DataError::UnknownCharacter`] for one that is not in the vocabulary.
    pub fn encode(&self, text: &str) -> Result<Vec<i32>, DataError> {
        let id = |(position, character): (usize, char)| {
            self.ids.get(&character).copied().ok_or(DataError::UnknownCharacter { character, position })
        };
        text.chars().enumerate().map(id).collect()
    }

    /// The text of these numbers; `\u{fffd}` for one out of range.
    pub fn decode(&self, ids: &[i32]) -> String {
        let of = |&id: &i32| usize::try_from(id).ok().and_then(|i| self.characters.get(i));
        ids.iter().map(|id| of(id).copied().unwrap_or(char::REPLACEMENT_CHARACTER)).collect()
    }
}

/// The bytes of a text, 256 in number, as they are.
///
/// ```
/// assert_eq!(graphc_train::data::bytes("AB"), [65, 66]);
/// ```
pub fn bytes(text: &str) -> Vec<i32> {
    text.bytes().map(i32::from).collect()
}

/// Windows of a sequence of numbers, such as a text: `x: i32[length]` and, one further on, `y: i32[length]`.
///
/// ```
/// use graphc_train::data::{Loader, TextWindows};
///
/// // Neighbouring windows have no character in common.
/// let mut loader = Loader::new(TextWindows::new(vec![0, 1, 2, 3, 4, 5, 6], 3, 3), 2);
/// let batch = loader.next_batch()?.unwrap();
/// assert_eq!(batch.get::<i32>("x"), Some(&[0, 1, 2, 3, 4, 5][..]));
/// assert_eq!(batch.get::<i32>("y"), Some(&[1, 2, 3, 4, 5, 6][..]));
/// # Ok::<(), graphc_train::data::DataError>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TextWindows {
    ids: Vec<i32>,
    length: usize,
    stride: usize,
}

impl TextWindows {
    /// Windows of `length`, `stride` apart.
    ///
    /// # Panics
    /// If one of them is 0.
    pub fn new(ids: Vec<i32>, length: usize, stride: usize) -> Self {
        assert!(length > 0 && stride > 0, "windows of {length}, {stride} apart");
        Self { ids, length, stride }
    }
}

impl Source for TextWindows {
    fn len(&self) -> usize {
        self.ids.len().checked_sub(self.length + 1).map_or(0, |last| last / self.stride + 1)
    }

    fn fields(&self) -> Vec<Field> {
        let field = |name: &str| Field { name: name.to_owned(), dtype: DType::I32, dims: vec![self.length] };
        vec![field("x"), field("y")]
    }

    fn read(&self, row: Row, to: &mut [Elements], at: usize) -> Result<(), DataError> {
        for (shift, to) in to.iter_mut().enumerate() {
            let begin = row.index * self.stride + shift;
            to.write(at * self.length, self.ids[begin..begin + self.length].into());
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unknown_character_is_named() {
        let error = Vocabulary::of("abc").encode("cabd").unwrap_err().to_string();
        assert_eq!(error, "character 'd' at position 3 is not in the vocabulary");
        assert_eq!(Vocabulary::of("abc").decode(&[2, -1, 3]), "c\u{fffd}\u{fffd}");
        assert_eq!(bytes("é"), [0xc3, 0xa9]);
    }

    #[test]
    fn windows_end_where_the_target_ends() {
        let n = |ids: i32, length, stride| TextWindows::new((0..ids).collect(), length, stride).len();
        assert_eq!([n(3, 3, 1), n(4, 3, 1), n(5, 3, 1), n(9, 3, 3), n(10, 3, 3)], [0, 1, 2, 2, 3]);
    }
}
