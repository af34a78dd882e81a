//! Windows of time series.

use super::{DataError, Field, Row, Source};
use graphc_ir::DType;
use graphc_runtime::Elements;

/// Windows of a series of rows of `width` numbers, and what follows: `x: f32[length, width]` and `y: f32[horizon, width]`, the
/// rows that come next. Neighbouring windows are one row apart.
///
/// ```
/// use graphc_train::data::{Loader, SeriesWindows};
///
/// let mut loader = Loader::new(SeriesWindows::new(vec![1.0, 2.0, 3.0, 4.0], 1, 2, 1), 8);
/// let batch = loader.next_batch()?.unwrap();
/// assert_eq!(batch.get::<f32>("x"), Some(&[1.0, 2.0, 2.0, 3.0][..]));
/// assert_eq!(batch.get::<f32>("y"), Some(&[3.0, 4.0][..]));
/// # Ok::<(), graphc_train::data::DataError>(())
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct SeriesWindows {
    values: Vec<f32>,
    width: usize,
    length: usize,
    horizon: usize,
}

impl SeriesWindows {
    /// Windows of `length` rows with the `horizon` rows after them.
    ///
    /// # Panics
    /// If one of them is 0, or the values are no whole number of rows.
    pub fn new(values: Vec<f32>, width: usize, length: usize, horizon: usize) -> Self {
        assert!(width > 0 && length > 0 && horizon > 0, "windows of {length} and {horizon} rows of {width}");
        assert!(values.len().is_multiple_of(width), "{} numbers in rows of {width}", values.len());
        Self { values, width, length, horizon }
    }
}

impl Source for SeriesWindows {
    fn len(&self) -> usize {
        (self.values.len() / self.width + 1).saturating_sub(self.length + self.horizon)
    }

    fn fields(&self) -> Vec<Field> {
        let field = |name: &str, rows| Field {
            name: name.to_owned(),
            dtype: DType::F32,
            dims: vec![rows, self.width],
        };
        vec![field("x", self.length), field("y", self.horizon)]
    }

    fn read(&self, row: Row, to: &mut [Elements], at: usize) -> Result<(), DataError> {
        let (x, y) = (self.length * self.width, self.horizon * self.width);
        let begin = row.index * self.width;
        to[0].write(at * x, self.values[begin..begin + x].into());
        to[1].write(at * y, self.values[begin + x..begin + x + y].into());
        Ok(())
    }
}
