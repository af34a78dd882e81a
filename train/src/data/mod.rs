//! Data sets in memory, readers of their files, and batches in a fixed random order.

pub mod augment;
mod batches;
mod cifar;
mod csv;
mod csv_rows;
mod file;
mod idx;
#[cfg(feature = "images")]
mod images;
mod loader;
mod npy;
mod records;
mod series;
mod source;
mod standardize;
mod table;
mod text;

pub(crate) use batches::random;
pub use batches::{Batches, LabelledBatch, permutation};
pub use cifar::{load_cifar10, load_cifar100};
pub use csv::Csv;
pub use csv_rows::CsvRows;
pub use file::load_column;
pub use idx::{Idx, MAX_IDX_ELEMENTS, MAX_IDX_RANK, load_directory, load_images_labels};
#[cfg(feature = "images")]
pub use images::{ImageFolder, Pixels};
pub use loader::{Batch, Loader};
pub use npy::{load_npy, load_npz, save_npy, save_npz};
pub use records::{Records, Zipped};
pub use series::SeriesWindows;
pub use source::{Field, Mapped, Row, Source};
pub use standardize::Standardizer;
pub use table::Table;
pub use text::{TextWindows, Vocabulary, bytes};

use graphc_ir::escaped;
use std::path::PathBuf;

/// Why data cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum DataError {
    /// The file cannot be read; also a damaged gzip stream.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system or the decoder said.
        source: std::io::Error,
    },
    /// The first bytes are not those of an IDX file.
    #[error(
        "{}: not an IDX file: it starts with {:02x} {:02x} {:02x} {:02x}, expected 00 00 08 and the rank",
        path.display(), found[0], found[1], found[2], found[3]
    )]
    BadMagic {
        /// The file.
        path: PathBuf,
        /// Its first bytes.
        found: [u8; 4],
    },
    /// An IDX element type other than unsigned bytes.
    #[error("{}: elements are {name} (type {code:#04x}), only u8 (type 0x08) is read", path.display())]
    ElementType {
        /// The file.
        path: PathBuf,
        /// Code of the type in the file.
        code: u8,
        /// Its name.
        name: &'static str,
    },
    /// An IDX rank outside 1 to 4.
    #[error("{}: rank {rank} is not read, only 1 to 4", path.display())]
    UnsupportedRank {
        /// The file.
        path: PathBuf,
        /// Its rank.
        rank: u8,
    },
    /// The extents declare more elements than [`MAX_IDX_ELEMENTS`] or than memory can hold.
    #[error("{}: extents {dims:?} have more elements than can be read", path.display())]
    TooLarge {
        /// The file.
        path: PathBuf,
        /// Its extents.
        dims: Vec<u64>,
    },
    /// A gzipped file declares more than its compressed size can expand to.
    #[error("{}: declares {expected} bytes, but its compressed size allows at most {most}", path.display())]
    Implausible {
        /// The file.
        path: PathBuf,
        /// Bytes declared, header included.
        expected: u64,
        /// Bytes that are possible.
        most: u64,
    },
    /// The file ends before its declared size.
    #[error("{}: truncated: expected {expected} bytes, got {got}", path.display())]
    Truncated {
        /// The file.
        path: PathBuf,
        /// Bytes declared (uncompressed), header included.
        expected: u64,
        /// Bytes found.
        got: u64,
    },
    /// The file goes on after its declared size.
    #[error("{}: trailing bytes: the header declares {expected} bytes in all, there are more", path.display())]
    Trailing {
        /// The file.
        path: PathBuf,
        /// Bytes declared (uncompressed), header included.
        expected: u64,
    },
    /// A file of images or labels has extents of another rank.
    #[error("{}: {what} must have rank {expected}, the extents are {dims:?}", path.display())]
    FileRank {
        /// The file.
        path: PathBuf,
        /// Images or labels.
        what: &'static str,
        /// The rank they have.
        expected: &'static str,
        /// The extents found.
        dims: Vec<usize>,
    },
    /// Two files that belong together differ in their number of entries.
    #[error("{} has {n_images} images but {} has {n_labels} labels", images.display(), labels.display())]
    CountMismatch {
        /// File of the images.
        images: PathBuf,
        /// Number of images.
        n_images: usize,
        /// File of the labels.
        labels: PathBuf,
        /// Number of labels.
        n_labels: usize,
    },
    /// Test images of another size than the training images.
    #[error("{}: images are {dims:?}, those of the training set {train_dims:?}", path.display())]
    ImageSize {
        /// File of the test images.
        path: PathBuf,
        /// Extents of a test image.
        dims: Vec<usize>,
        /// Extents of a training image.
        train_dims: Vec<usize>,
    },
    /// A label that is no class.
    #[error("{place}label {label} at position {position} is out of range 0..{classes}")]
    LabelOutOfRange {
        /// `<file>: `, or empty.
        place: String,
        /// Position of the label.
        position: usize,
        /// The label.
        label: i64,
        /// Number of classes.
        classes: usize,
    },
    /// Files of a directory that do not exist.
    #[error("{}: not found: {}", dir.display(), missing.join(", "))]
    NotFound {
        /// The directory.
        dir: PathBuf,
        /// Per missing file the names that were looked for.
        missing: Vec<String>,
    },
    /// Numbers of features and labels that do not fit the extents.
    #[error("{n_features} features are not {n_labels} rows of extents {dims:?}")]
    FeatureCount {
        /// Number of features.
        n_features: usize,
        /// Number of labels.
        n_labels: usize,
        /// Extents of a row.
        dims: Vec<usize>,
    },
    /// A column that cannot be used.
    #[error("column `{column}`: {message}")]
    Column {
        /// Its name.
        column: String,
        /// What is wrong.
        message: String,
    },
    /// A number that is not finite.
    #[error("column `{column}`, row {row}: {value} is not finite")]
    NotFinite {
        /// Name of the column.
        column: String,
        /// The row.
        row: usize,
        /// The number.
        value: f64,
    },
    /// A file whose content is wrong.
    #[error("{}{}: {}", path.display(), escaped(place, 100), escaped(message, 1000))]
    Malformed {
        /// The file.
        path: PathBuf,
        /// Where in the file: empty, or beginning with a separator.
        place: String,
        /// What is wrong.
        message: String,
    },
    /// A share of rows that is not between nothing and all.
    #[error("a share of {0} rows is not in 0..=1")]
    Fraction(f64),
    /// A character that a vocabulary has not.
    #[error("character {character:?} at position {position} is not in the vocabulary")]
    UnknownCharacter {
        /// The character.
        character: char,
        /// Its position in the text, in characters.
        position: usize,
    },
    /// A thread that prepares data failed.
    #[error("a thread that prepares data failed: {0}")]
    Worker(String),
    /// A split that asks for more rows than there are.
    #[error("cannot split off {at} rows: there are {len}")]
    Split {
        /// Rows asked for.
        at: usize,
        /// Rows there are.
        len: usize,
    },
}

/// Labelled examples in memory: features `f32[n, dims..]` in row-major order and `n` labels in
/// `0..classes`.
///
/// ```
/// # use graphc_train::data::Dataset;
/// let data = Dataset::new(vec![0.0, 0.5, 1.0, 0.5], &[2], vec![0, 1], 2)?;
/// assert_eq!(data.row(1), [1.0, 0.5]);
/// # Ok::<(), graphc_train::data::DataError>(())
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct Dataset {
    features: Vec<f32>,
    dims: Vec<usize>,
    labels: Vec<i32>,
    classes: usize,
}

impl Dataset {
    /// A data set of these features (`labels.len()` rows of extents `dims`) and labels.
    ///
    /// # Errors
    /// [`DataError::FeatureCount`] and [`DataError::LabelOutOfRange`].
    pub fn new(
        features: Vec<f32>,
        dims: &[usize],
        labels: Vec<i32>,
        classes: usize,
    ) -> Result<Self, DataError> {
        let n = dims.iter().try_fold(labels.len(), |n, &d| n.checked_mul(d));
        if n != Some(features.len()) {
            let (n_features, n_labels) = (features.len(), labels.len());
            return Err(DataError::FeatureCount { n_features, n_labels, dims: dims.to_vec() });
        }
        let wrong = |&l: &i32| usize::try_from(l).map_or(true, |l| l >= classes);
        if let Some(position) = labels.iter().position(wrong) {
            let label = labels[position].into();
            return Err(DataError::LabelOutOfRange { place: String::new(), position, label, classes });
        }
        Ok(Self { features, dims: dims.to_vec(), labels, classes })
    }

    /// Number of rows.
    pub fn len(&self) -> usize {
        self.labels.len()
    }

    /// True if there are no rows.
    pub fn is_empty(&self) -> bool {
        self.labels.is_empty()
    }

    /// Features of all rows.
    pub fn features(&self) -> &[f32] {
        &self.features
    }

    /// Extents of one row, such as `[28, 28]`.
    pub fn dims(&self) -> &[usize] {
        &self.dims
    }

    /// Number of features of one row.
    pub fn row_len(&self) -> usize {
        self.dims.iter().product()
    }

    /// Features of row `i`.
    ///
    /// # Panics
    /// If `i >= len()`.
    pub fn row(&self, i: usize) -> &[f32] {
        assert!(i < self.len(), "row {i} of {}", self.len());
        &self.features[i * self.row_len()..][..self.row_len()]
    }

    /// Labels of all rows.
    pub fn labels(&self) -> &[i32] {
        &self.labels
    }

    /// Number of classes.
    pub fn classes(&self) -> usize {
        self.classes
    }

    /// The first `at` rows, and the others, in the order they have.
    ///
    /// # Errors
    /// [`DataError::Split`] if there are fewer rows.
    pub fn split(mut self, at: usize) -> Result<(Self, Self), DataError> {
        if at > self.len() {
            return Err(DataError::Split { at, len: self.len() });
        }
        let features = self.features.split_off(at * self.row_len());
        let labels = self.labels.split_off(at);
        let rest = Self { features, labels, dims: self.dims.clone(), classes: self.classes };
        Ok((self, rest))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn data() -> Dataset {
        Dataset::new((0..6).map(|i| i as f32).collect(), &[2], vec![0, 1, 2], 3).unwrap()
    }

    #[test]
    fn rows_and_split() {
        assert_eq!(data().row(1), [2.0, 3.0]);
        let (a, b) = data().split(1).unwrap();
        assert_eq!((a.features(), a.labels()), (&[0.0, 1.0][..], &[0][..]));
        assert_eq!((b.features(), b.labels()), (&[2.0, 3.0, 4.0, 5.0][..], &[1, 2][..]));
        assert_eq!(data().split(3).unwrap().1.len(), 0);
        assert_eq!(data().split(4).unwrap_err().to_string(), "cannot split off 4 rows: there are 3");
    }

    #[test]
    fn errors() {
        let check = |features: usize, labels: &[i32], expected: &str| {
            let error = Dataset::new(vec![0.0; features], &[2], labels.to_vec(), 3).unwrap_err();
            assert_eq!(error.to_string(), expected);
        };
        check(5, &[0, 1, 2], "5 features are not 3 rows of extents [2]");
        check(4, &[0, 3], "label 3 at position 1 is out of range 0..3");
        check(4, &[-1, 0], "label -1 at position 0 is out of range 0..3");
    }
}
