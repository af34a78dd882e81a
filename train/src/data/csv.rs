//! CSV files.

use super::DataError;
use std::collections::HashSet;
use std::path::{Path, PathBuf};

/// A CSV file with a header, in memory; cells are text until they are asked for as numbers or classes. Names and cells are
/// trimmed.
///
/// ```no_run
/// use graphc_train::data::{Csv, Table};
///
/// let file = Csv::open("data/tabular/iris.csv")?;
/// let train = file.filter("split", "train")?;
/// let features = train.except(&["split", "class"])?;
/// let table = Table::new()
///     .with("x", &[features.len()], train.numbers(&features)?)?
///     .with("y", &[], train.integers("class")?)?;
/// # Ok::<(), graphc_train::data::DataError>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Csv {
    path: PathBuf,
    header: Vec<String>,
    /// With the line each begins at.
    rows: Vec<(u64, Vec<String>)>,
}

impl Csv {
    /// Reads a file.
    ///
    /// # Errors
    /// [`DataError::Io`]; [`DataError::Malformed`] for text that is not UTF-8, a row of another length than the header, or a name
    /// that occurs twice in the header.
    pub fn open(path: impl AsRef<Path>) -> Result<Self, DataError> {
        let path = path.as_ref();
        let file = std::fs::File::open(path).map_err(|source| DataError::Io { path: path.into(), source })?;
        Self::read(file, path)
    }

    /// Reads what `from` gives. `path` serves error messages only.
    ///
    /// # Errors
    /// As [`Csv::open`].
    pub fn read(from: impl std::io::Read, path: impl AsRef<Path>) -> Result<Self, DataError> {
        let path = path.as_ref();
        let mut reader = csv::ReaderBuilder::new().trim(csv::Trim::All).from_reader(from);
        let header: Vec<String> =
            reader.headers().map_err(|e| of_reader(path, e))?.iter().map(str::to_owned).collect();
        let mut seen = HashSet::new();
        if let Some(name) = header.iter().find(|name| !seen.insert(name.as_str())) {
            return Err(malformed(path, 1, format!("column `{name}` is there twice")));
        }
        let mut rows = Vec::new();
        for record in reader.records() {
            let record = record.map_err(|e| of_reader(path, e))?;
            let line = record.position().map_or(0, csv::Position::line);
            rows.push((line, record.iter().map(str::to_owned).collect()));
        }
        Ok(Self { path: path.into(), header, rows })
    }

    /// Number of rows, the header not counted.
    pub fn len(&self) -> usize {
        self.rows.len()
    }

    /// True if there are no rows.
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// Names of the columns.
    pub fn header(&self) -> &[String] {
        &self.header
    }

    /// The names of all columns but these.
    ///
    /// # Errors
    /// [`DataError::Malformed`] if one of these is missing.
    pub fn except(&self, names: &[&str]) -> Result<Vec<&str>, DataError> {
        names.iter().try_for_each(|name| self.column(name).map(drop))?;
        Ok(self.header.iter().map(String::as_str).filter(|n| !names.contains(n)).collect())
    }

    /// The rows with this text in this column.
    ///
    /// # Errors
    /// [`DataError::Malformed`] if there is no such column.
    pub fn filter(&self, column: &str, text: &str) -> Result<Self, DataError> {
        let at = self.column(column)?;
        let rows = self.rows.iter().filter(|(_, cells)| cells[at] == text).cloned().collect();
        Ok(Self { rows, ..self.clone() })
    }

    /// Columns of numbers, row after row: `f32[len(), columns.len()]`.
    ///
    /// # Errors
    /// [`DataError::Malformed`] with line and column: a column is missing, a cell is no finite number.
    pub fn numbers(&self, columns: &[&str]) -> Result<Vec<f32>, DataError> {
        let at = columns.iter().map(|c| self.column(c)).collect::<Result<Vec<_>, _>>()?;
        let mut numbers = Vec::with_capacity(self.len() * columns.len());
        for (line, cells) in &self.rows {
            for (&i, column) in at.iter().zip(columns) {
                numbers.push(number(&self.path, *line, column, &cells[i])?);
            }
        }
        Ok(numbers)
    }

    /// A column of integers, such as labels.
    ///
    /// # Errors
    /// [`DataError::Malformed`] with line and column.
    pub fn integers(&self, column: &str) -> Result<Vec<i32>, DataError> {
        let at = self.column(column)?;
        let integer = |(line, cells): &(u64, Vec<String>)| {
            let cell = &cells[at];
            let message = || format!("column `{column}`: `{cell}` is not an integer");
            cell.parse().map_err(|_| malformed(&self.path, *line, message()))
        };
        self.rows.iter().map(integer).collect()
    }

    /// A column of names as numbers of classes, and the classes, in alphabetical order.
    ///
    /// # Errors
    /// [`DataError::Malformed`] if there is no such column.
    pub fn classes(&self, column: &str) -> Result<(Vec<i32>, Vec<String>), DataError> {
        let at = self.column(column)?;
        let mut classes: Vec<String> = self.rows.iter().map(|(_, cells)| cells[at].clone()).collect();
        classes.sort_unstable();
        classes.dedup();
        let of = |cell: &String| classes.partition_point(|class| class < cell) as i32;
        Ok((self.rows.iter().map(|(_, cells)| of(&cells[at])).collect(), classes))
    }

    fn column(&self, name: &str) -> Result<usize, DataError> {
        position(&self.header, name, &self.path)
    }
}

/// Where a column is.
pub(super) fn position(header: &[String], name: &str, path: &Path) -> Result<usize, DataError> {
    header.iter().position(|n| n == name).ok_or_else(|| {
        malformed(path, 1, format!("there is no column `{name}`; there are {}", header.join(", ")))
    })
}

/// A cell as a number.
pub(super) fn number(path: &Path, line: u64, column: &str, cell: &str) -> Result<f32, DataError> {
    let parsed = cell.parse().ok().filter(|v: &f32| v.is_finite());
    parsed.ok_or_else(|| malformed(path, line, format!("column `{column}`: `{cell}` is not a finite number")))
}

fn malformed(path: &Path, line: u64, message: String) -> DataError {
    DataError::Malformed { path: path.into(), place: format!(":{line}"), message }
}

pub(super) fn of_reader(path: &Path, error: csv::Error) -> DataError {
    let line = error.position().map_or(1, csv::Position::line);
    match error.into_kind() {
        csv::ErrorKind::Io(source) => DataError::Io { path: path.into(), source },
        csv::ErrorKind::UnequalLengths { expected_len, len, .. } => {
            malformed(path, line, format!("the row has {len} cells, the header {expected_len}"))
        }
        csv::ErrorKind::Utf8 { err, .. } => malformed(path, line, err.to_string()),
        other => malformed(path, line, format!("{other:?}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FILE: &str = "split,a, b,class\ntrain,1,2.5,cat\ntest,3,-4e2,dog\ntrain,\"5\",6,ant\n";

    fn csv(text: &str) -> Result<Csv, String> {
        Csv::read(text.as_bytes(), "f.csv").map_err(|e| e.to_string())
    }

    #[test]
    fn columns_by_name() {
        let file = csv(FILE).unwrap();
        assert_eq!(
            (file.header(), file.len()),
            (["split", "a", "b", "class"].map(str::to_owned).as_slice(), 3)
        );
        assert!(!file.is_empty() && csv("a,b\n").unwrap().is_empty());
        assert_eq!(file.except(&["split", "class"]).unwrap(), ["a", "b"]);
        assert_eq!(file.numbers(&["b", "a"]).unwrap(), [2.5, 1.0, -400.0, 3.0, 6.0, 5.0]);
        assert_eq!(file.integers("a").unwrap(), [1, 3, 5]);
        let train = file.filter("split", "train").unwrap();
        assert_eq!(train.len(), 2);
        assert_eq!(
            file.classes("class").unwrap(),
            (vec![1, 2, 0], ["ant", "cat", "dog"].map(str::to_owned).to_vec())
        );
    }

    #[test]
    fn errors_name_line_and_column() {
        let file = csv(FILE).unwrap();
        let error = |e: DataError| e.to_string();
        assert_eq!(error(file.integers("b").unwrap_err()), "f.csv:2: column `b`: `2.5` is not an integer");
        assert_eq!(
            error(file.numbers(&["class"]).unwrap_err()),
            "f.csv:2: column `class`: `cat` is not a finite number"
        );
        assert_eq!(
            error(file.numbers(&["x"]).unwrap_err()),
            "f.csv:1: there is no column `x`; there are split, a, b, class"
        );
        let nan = csv("a\n1\nnan\n").unwrap();
        assert_eq!(
            error(nan.numbers(&["a"]).unwrap_err()),
            "f.csv:3: column `a`: `nan` is not a finite number"
        );
        assert_eq!(csv("a,b\n1,2\n3\n").unwrap_err(), "f.csv:3: the row has 1 cells, the header 2");
        assert_eq!(csv("a,a\n").unwrap_err(), "f.csv:1: column `a` is there twice");
        assert!(Csv::open("/nonexistent.csv").unwrap_err().to_string().starts_with("/nonexistent.csv: "));
    }
}
