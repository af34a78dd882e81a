//! Columns of data in memory.

use super::{DataError, Field, Row, Source, permutation};
use graphc_ir::{DType, checked_product};
use graphc_runtime::{Element, Elements, Value};

/// Named columns with one row for each example; a row of a column is a tensor. Batches of it, see [`Loader`](super::Loader), are
/// inputs of functions by the same names.
///
/// ```
/// use graphc_train::data::Table;
///
/// let table = Table::new()
///     .with("x", &[2], vec![0.0f32, 0.0, 0.0, 1.0, 1.0, 0.0, 1.0, 1.0])?
///     .with("y", &[], vec![0i32, 1, 1, 0])?;
/// assert_eq!(table.len(), 4);
/// assert_eq!(table.get::<i32>("y"), Some(&[0, 1, 1, 0][..]));
/// # Ok::<(), graphc_train::data::DataError>(())
/// ```
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Table {
    rows: Option<usize>,
    columns: Vec<(Field, Elements)>,
}

impl Table {
    /// No columns, and no rows.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a column whose rows have the extents `dims`; `[]`: numbers.
    ///
    /// # Errors
    /// [`DataError::Column`] if the elements are no whole number of rows, or not as many rows as the other columns have, or the
    /// name is taken.
    pub fn with(
        mut self,
        name: &str,
        dims: &[usize],
        elements: impl Into<Elements>,
    ) -> Result<Self, DataError> {
        let elements = elements.into();
        let len = elements.value().len();
        let wrong = |message: String| DataError::Column { column: name.to_owned(), message };
        let Some(row) = checked_product(dims).filter(|&row| row > 0 && len.is_multiple_of(row)) else {
            return Err(wrong(format!("{len} elements are no whole number of rows {dims:?}")));
        };
        let rows = len / row;
        if let Some(expected) = self.rows.filter(|&expected| expected != rows) {
            return Err(wrong(format!("has {rows} rows, the others {expected}")));
        }
        if self.columns.iter().any(|(f, _)| f.name == name) {
            return Err(wrong("is there already".to_owned()));
        }
        self.rows = Some(rows);
        let field = Field { name: name.to_owned(), dtype: elements.value().dtype(), dims: dims.to_vec() };
        self.columns.push((field, elements));
        Ok(self)
    }

    /// Number of rows.
    pub fn len(&self) -> usize {
        self.rows.unwrap_or(0)
    }

    /// True if there are no rows.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The elements of a column, if there is one of that name and element type.
    pub fn get<T: Element>(&self, name: &str) -> Option<&[T]> {
        self.column(name)?.1.value().get()
    }

    /// All columns as inputs of a function, to use all rows at once.
    pub fn inputs(&self) -> Vec<(&str, Value<'_>)> {
        self.columns.iter().map(|(f, e)| (f.name.as_str(), e.value())).collect()
    }

    fn column(&self, name: &str) -> Option<&(Field, Elements)> {
        self.columns.iter().find(|(f, _)| f.name == name)
    }

    /// These rows, in this order.
    ///
    /// # Panics
    /// If there is no such row.
    pub fn select(&self, rows: &[usize]) -> Self {
        let columns = self.columns.iter().map(|(field, elements)| {
            let n = field.row_len();
            let mut selected = Elements::zeros(field.dtype, rows.len() * n);
            for (i, &row) in rows.iter().enumerate() {
                selected.write(i * n, elements.value().slice(row * n..(row + 1) * n));
            }
            (field.clone(), selected)
        });
        Self { rows: Some(rows.len()), columns: columns.collect() }
    }

    /// The first `at` rows, and the others, in the order they have.
    ///
    /// # Errors
    /// [`DataError::Split`] if there are fewer rows.
    pub fn split(&self, at: usize) -> Result<(Self, Self), DataError> {
        let len = self.len();
        if at > len {
            return Err(DataError::Split { at, len });
        }
        let rows: Vec<usize> = (0..len).collect();
        Ok((self.select(&rows[..at]), self.select(&rows[at..])))
    }

    /// All rows but the share `fraction`, and that share, for validation; which rows, [`permutation`] of `seed` decides. Both keep
    /// the order.
    ///
    /// # Errors
    /// [`DataError::Fraction`] if it is not in `0..=1`.
    pub fn split_random(&self, fraction: f64, seed: u64) -> Result<(Self, Self), DataError> {
        let mut order = Vec::new();
        permutation(seed, 0, self.len(), &mut order);
        self.split_by(&[order], fraction)
    }

    /// As [`Table::split_random`], with the share taken of each label in the column `labels: i32[]` alike.
    ///
    /// # Errors
    /// [`DataError::Fraction`]; [`DataError::Column`] if there is no such column.
    pub fn split_stratified(
        &self,
        labels: &str,
        fraction: f64,
        seed: u64,
    ) -> Result<(Self, Self), DataError> {
        let Some(values) = self.get::<i32>(labels) else {
            let message = "there is none of i32 by that name".to_owned();
            return Err(DataError::Column { column: labels.to_owned(), message });
        };
        let mut order = Vec::new();
        permutation(seed, 0, self.len(), &mut order);
        let mut classes: Vec<i32> = values.to_vec();
        classes.sort_unstable();
        classes.dedup();
        let of = |class: i32| order.iter().copied().filter(|&row| values[row] == class).collect::<Vec<_>>();
        self.split_by(&classes.into_iter().map(of).collect::<Vec<_>>(), fraction)
    }

    /// Splits each group of rows.
    fn split_by(&self, groups: &[Vec<usize>], fraction: f64) -> Result<(Self, Self), DataError> {
        if !(0.0..=1.0).contains(&fraction) {
            return Err(DataError::Fraction(fraction));
        }
        let (mut kept, mut taken) = (Vec::new(), Vec::new());
        for group in groups {
            let n = (group.len() as f64 * fraction).round() as usize;
            taken.extend_from_slice(&group[..n]);
            kept.extend_from_slice(&group[n..]);
        }
        kept.sort_unstable();
        taken.sort_unstable();
        Ok((self.select(&kept), self.select(&taken)))
    }

    /// Fails at the first float that is not finite.
    ///
    /// # Errors
    /// [`DataError::NotFinite`].
    pub fn check_finite(&self) -> Result<(), DataError> {
        for (field, elements) in self.columns.iter().filter(|(f, _)| f.dtype.is_float()) {
            let found = (0..elements.value().len()).find(|&i| !elements.get(i).to_f64().is_finite());
            if let Some(i) = found {
                let (column, value) = (field.name.clone(), elements.get(i).to_f64());
                return Err(DataError::NotFinite { column, row: i / field.row_len(), value });
            }
        }
        Ok(())
    }

    /// Fails at the first label of the column `i32[]` that is not in `0..classes`.
    ///
    /// # Errors
    /// [`DataError::LabelOutOfRange`]; [`DataError::Column`] if there is no such column.
    pub fn check_labels(&self, column: &str, classes: usize) -> Result<(), DataError> {
        let Some(labels) = self.get::<i32>(column) else {
            let message = "there is none of i32 by that name".to_owned();
            return Err(DataError::Column { column: column.to_owned(), message });
        };
        let wrong = |&l: &i32| usize::try_from(l).map_or(true, |l| l >= classes);
        match labels.iter().position(wrong) {
            None => Ok(()),
            Some(position) => {
                let (place, label) = (format!("column `{column}`: "), labels[position].into());
                Err(DataError::LabelOutOfRange { place, position, label, classes })
            }
        }
    }
}

impl From<super::Dataset> for Table {
    /// Columns `x`, the features, and `y`, the labels.
    fn from(data: super::Dataset) -> Self {
        let dtype =
            |name: &str, dtype, dims: &[usize]| Field { name: name.to_owned(), dtype, dims: dims.to_vec() };
        let (x, y) = (dtype("x", DType::F32, data.dims()), dtype("y", DType::I32, &[]));
        let columns = vec![(x, data.features().to_vec().into()), (y, data.labels().to_vec().into())];
        Self { rows: Some(data.len()), columns }
    }
}

impl Source for Table {
    fn len(&self) -> usize {
        self.len()
    }

    fn fields(&self) -> Vec<Field> {
        self.columns.iter().map(|(f, _)| f.clone()).collect()
    }

    fn read(&self, row: Row, to: &mut [Elements], at: usize) -> Result<(), DataError> {
        for ((field, elements), to) in self.columns.iter().zip(to) {
            let n = field.row_len();
            to.write(at * n, elements.value().slice(row.index * n..(row.index + 1) * n));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table() -> Table {
        let y = vec![0, 0, 0, 0, 0, 0, 1, 1, 1, 1];
        Table::new()
            .with("x", &[2], (0..20).map(|i| i as f32).collect::<Vec<_>>())
            .unwrap()
            .with("y", &[], y)
            .unwrap()
    }

    #[test]
    fn splits() {
        let (a, b) = table().split(3).unwrap();
        assert_eq!((a.len(), b.len(), b.get::<f32>("x").unwrap()[0]), (3, 7, 6.0));
        assert_eq!(table().split(11).unwrap_err().to_string(), "cannot split off 11 rows: there are 10");
        let (a, b) = table().split_stratified("y", 0.5, 1).unwrap();
        assert_eq!(a.get::<i32>("y").unwrap(), [0, 0, 0, 1, 1]);
        assert_eq!(b.get::<i32>("y").unwrap(), [0, 0, 0, 1, 1]);
        let (c, d) = table().split_random(0.2, 1).unwrap();
        assert_eq!((c.len(), d.len()), (8, 2));
        let mut all: Vec<f32> = [c, d].iter().flat_map(|t| t.get::<f32>("x").unwrap().to_vec()).collect();
        all.sort_by(f32::total_cmp);
        assert_eq!(all, table().get::<f32>("x").unwrap());
        assert_eq!(table().split_random(0.2, 1).unwrap().1, table().split_random(0.2, 1).unwrap().1);
        assert!(table().split_random(1.5, 1).is_err());
    }

    #[test]
    fn what_is_wrong_is_named() {
        let error = |t: Result<Table, DataError>| t.unwrap_err().to_string();
        assert_eq!(
            error(table().with("z", &[3], vec![0.0f32; 20])),
            "column `z`: 20 elements are no whole number of rows [3]"
        );
        assert_eq!(error(table().with("z", &[], vec![0.0f32; 9])), "column `z`: has 9 rows, the others 10");
        assert_eq!(error(table().with("y", &[], vec![0i32; 10])), "column `y`: is there already");
        let nan = table().with("z", &[2], [vec![0.0f64; 15], vec![f64::NAN; 5]].concat()).unwrap();
        assert_eq!(nan.check_finite().unwrap_err().to_string(), "column `z`, row 7: NaN is not finite");
        let labels = table().check_labels("y", 1).unwrap_err().to_string();
        assert_eq!(labels, "column `y`: label 1 at position 6 is out of range 0..1");
    }
}
