//! CSV files that are not read into memory.

use super::csv::{number, of_reader, position};
use super::{DataError, Field, Row, Source};
use csv::{Position, Reader, ReaderBuilder, StringRecord, Trim};
use graphc_ir::DType;
use graphc_runtime::Elements;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Mutex;

/// Rows of a CSV file with a header that are read when asked for; memory holds where each begins, 16 bytes a row. Fields are
/// groups of columns of finite numbers, `f32[columns]`.
///
/// ```no_run
/// use graphc_train::data::{CsvRows, Loader};
///
/// let rows = CsvRows::open("large.csv", &[("x", &["width", "height"]), ("y", &["price"])])?;
/// let mut loader = Loader::new(rows, 64).shuffled_blocks(1, 10_000).workers(1);
/// # Ok::<(), graphc_train::data::DataError>(())
/// ```
pub struct CsvRows {
    path: PathBuf,
    /// Name, and positions and names of columns.
    fields: Vec<(String, Vec<(usize, String)>)>,
    /// Offset and line.
    rows: Vec<(u64, u64)>,
    reader: Mutex<Reader<File>>,
}

impl CsvRows {
    /// Finds where each row begins; this reads the file once, row after row.
    ///
    /// # Errors
    /// [`DataError::Io`]; [`DataError::Malformed`] as for [`Csv`](super::Csv). Cells are looked at when their row is read.
    pub fn open(path: impl AsRef<Path>, fields: &[(&str, &[&str])]) -> Result<Self, DataError> {
        let path = path.as_ref();
        let file = File::open(path).map_err(|source| DataError::Io { path: path.into(), source })?;
        let mut reader = ReaderBuilder::new().trim(Trim::All).from_reader(file);
        let header: Vec<String> =
            reader.headers().map_err(|e| of_reader(path, e))?.iter().map(str::to_owned).collect();
        let field = |(name, columns): &(&str, &[&str])| {
            let at = |c: &&str| Ok((position(&header, c, path)?, (*c).to_owned()));
            Ok(((*name).to_owned(), columns.iter().map(at).collect::<Result<_, DataError>>()?))
        };
        let fields = fields.iter().map(field).collect::<Result<_, DataError>>()?;
        let (mut rows, mut record) = (Vec::new(), StringRecord::new());
        loop {
            if !reader.read_record(&mut record).map_err(|e| of_reader(path, e))? {
                break;
            }
            rows.extend(record.position().map(|p| (p.byte(), p.line())));
        }
        Ok(Self { path: path.into(), fields, rows, reader: Mutex::new(reader) })
    }
}

impl Source for CsvRows {
    fn len(&self) -> usize {
        self.rows.len()
    }

    fn fields(&self) -> Vec<Field> {
        let field = |(name, columns): &(String, Vec<_>)| Field {
            name: name.clone(),
            dtype: DType::F32,
            dims: vec![columns.len()],
        };
        self.fields.iter().map(field).collect()
    }

    fn read(&self, row: Row, to: &mut [Elements], at: usize) -> Result<(), DataError> {
        let (offset, line) = self.rows[row.index];
        let mut record = StringRecord::new();
        {
            // A thread that panicked while it held the lock left the reader as good as any: each use seeks.
            let mut reader = self.reader.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
            let mut position = Position::new();
            position.set_byte(offset).set_line(line);
            reader.seek(position).map_err(|e| of_reader(&self.path, e))?;
            reader.read_record(&mut record).map_err(|e| of_reader(&self.path, e))?;
        }
        for ((_, columns), to) in self.fields.iter().zip(to) {
            let cell =
                |(i, name): &(usize, String)| number(&self.path, line, name, record.get(*i).unwrap_or(""));
            let numbers = columns.iter().map(cell).collect::<Result<Vec<f32>, _>>()?;
            to.write(at * columns.len(), (&*numbers).into());
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::Loader;

    #[test]
    fn rows_in_any_order() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("f.csv");
        let rows: String = (0..50).map(|i| format!("\"a {i}\",{i},{}\n", i * i)).collect();
        std::fs::write(&path, format!("name,i,square\n{rows}")).unwrap();
        let open = || CsvRows::open(&path, &[("y", &["square"]), ("x", &["i", "square"])]).unwrap();
        let mut seen = Vec::new();
        let mut loader = Loader::new(open(), 8).shuffled(3).workers(2);
        while let Some(batch) = loader.next_batch().unwrap() {
            let (x, y) = (batch.get::<f32>("x").unwrap(), batch.get::<f32>("y").unwrap());
            for (x, y) in x.chunks(2).zip(y) {
                assert_eq!((x[0] * x[0], x[1]), (*y, *y));
                seen.push(x[0]);
            }
        }
        seen.sort_by(f32::total_cmp);
        assert_eq!(seen, (0..50).map(|i| i as f32).collect::<Vec<_>>());

        std::fs::write(&path, "a\n1\nx\n").unwrap();
        let mut loader = Loader::new(CsvRows::open(&path, &[("x", &["a"])]).unwrap(), 2);
        let error = loader.next_batch().unwrap_err().to_string();
        assert!(error.ends_with("f.csv:3: column `a`: `x` is not a finite number"), "{error}");
        let error = CsvRows::open(&path, &[("x", &["b"])]).err().unwrap().to_string();
        assert!(error.ends_with("f.csv:1: there is no column `b`; there are a"), "{error}");
    }
}
