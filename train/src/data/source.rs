//! Where rows come from.

use super::DataError;
use graphc_ir::{DType, Shape};
use graphc_runtime::Elements;

/// Name and type of a column.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Field {
    /// Name of the input that takes it.
    pub name: String,
    /// Element type.
    pub dtype: DType,
    /// Extents of a row.
    pub dims: Vec<usize>,
}

impl Field {
    /// Number of elements of a row.
    pub fn row_len(&self) -> usize {
        self.dims.iter().product()
    }

    /// Extents of a batch of `rows` rows.
    pub fn batch_shape(&self, rows: usize) -> Shape {
        std::iter::once(rows).chain(self.dims.iter().copied()).map(graphc_ir::Dim::from).collect()
    }
}

/// Which row is read, and when: all that what is read may depend on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Row {
    /// Number of the row in the source.
    pub index: usize,
    /// Seed of the loader.
    pub seed: u64,
    /// The epoch.
    pub epoch: u64,
}

/// Rows that can be read in any order, from several threads at once.
pub trait Source: Send + Sync {
    /// Number of rows.
    fn len(&self) -> usize;

    /// True if there are no rows.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Its columns.
    fn fields(&self) -> Vec<Field>;

    /// Reads a row into position `at` of a batch: `to` has the elements of a batch for each field.
    ///
    /// # Errors
    /// Whatever reading meets.
    fn read(&self, row: Row, to: &mut [Elements], at: usize) -> Result<(), DataError>;
}

/// A source whose rows a function changes, such as an augmentation. It is a function of the row and of [`Row`] alone, so what
/// it makes does not depend on threads.
///
/// ```
/// use graphc_train::data::{Mapped, Table};
///
/// let table = Table::new().with("x", &[2], vec![1.0f32, 2.0, 3.0, 4.0])?;
/// let doubled = Mapped::new(table, "x", |_, x: &mut [f32]| x.iter_mut().for_each(|x| *x *= 2.0));
/// # Ok::<(), graphc_train::data::DataError>(())
/// ```
pub struct Mapped<S, F> {
    source: S,
    column: String,
    map: F,
}

impl<S: Source, F: Fn(Row, &mut [f32]) + Send + Sync> Mapped<S, F> {
    /// Changes the elements of a row of the column, which is of f32; others stay as they are.
    pub fn new(source: S, column: &str, map: F) -> Self {
        Self { source, column: column.to_owned(), map }
    }
}

impl<S: Source, F: Fn(Row, &mut [f32]) + Send + Sync> Source for Mapped<S, F> {
    fn len(&self) -> usize {
        self.source.len()
    }

    fn fields(&self) -> Vec<Field> {
        self.source.fields()
    }

    fn read(&self, row: Row, to: &mut [Elements], at: usize) -> Result<(), DataError> {
        self.source.read(row, to, at)?;
        let fields = self.source.fields();
        let found = fields.iter().zip(to).find(|(f, _)| f.name == self.column);
        let Some((field, Elements::F32(elements))) = found else {
            let message = "there is none of f32 by that name to be changed".to_owned();
            return Err(DataError::Column { column: self.column.clone(), message });
        };
        let n = field.row_len();
        (self.map)(row, &mut elements[at * n..(at + 1) * n]);
        Ok(())
    }
}
