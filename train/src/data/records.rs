//! Files of records of one size, larger than memory.

use super::{DataError, Field, Row, Source};
use graphc_ir::DType;
use graphc_runtime::Elements;
use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::sync::Mutex;

/// Records of one size in a file, read when asked for; memory holds one at a time. A record is the elements of its fields, one field
/// after the other, little-endian.
///
/// ```no_run
/// use graphc_train::data::{Field, Loader, Records};
/// use graphc_ir::DType;
///
/// // An image and its label.
/// let fields = [("x", DType::U8, &[28, 28][..]), ("y", DType::I32, &[])];
/// let fields = fields.map(|(name, dtype, dims)| Field { name: name.into(), dtype, dims: dims.to_vec() });
/// let records = Records::open("large.bin", 0, &fields)?;
/// let mut loader = Loader::new(records, 64).shuffled_blocks(1, 4096).workers(1);
/// # Ok::<(), graphc_train::data::DataError>(())
/// ```
pub struct Records {
    path: PathBuf,
    header: u64,
    fields: Vec<Field>,
    rows: usize,
    /// The file, and one record.
    file: Mutex<(File, Vec<u8>)>,
}

impl Records {
    /// Opens a file whose first record begins at byte `header`.
    ///
    /// # Errors
    /// [`DataError::Io`]; [`DataError::Malformed`] if what follows the header is no whole number of records, or a record has no bytes.
    pub fn open(path: impl AsRef<Path>, header: u64, fields: &[Field]) -> Result<Self, DataError> {
        let path = path.as_ref();
        let io = |source| DataError::Io { path: path.into(), source };
        let file = File::open(path).map_err(io)?;
        let bytes = file.metadata().map_err(io)?.len();
        let record: usize = fields.iter().map(|f| f.row_len() * f.dtype.size_bytes()).sum();
        let content = bytes.checked_sub(header).filter(|n| record > 0 && n.is_multiple_of(record as u64));
        let Some(content) = content else {
            let message = format!("{bytes} bytes are not a header of {header} and whole records of {record}");
            return Err(DataError::Malformed { path: path.into(), place: String::new(), message });
        };
        let rows = (content / record as u64) as usize;
        Ok(Self {
            path: path.into(),
            header,
            fields: fields.to_vec(),
            rows,
            file: Mutex::new((file, vec![0; record])),
        })
    }

    /// Opens an IDX file that is not compressed: a field of u8 with the extents after the first.
    ///
    /// # Errors
    /// As [`Records::open`], and if the header is not that of bytes.
    pub fn idx(path: impl AsRef<Path>, name: &str) -> Result<Self, DataError> {
        let path = path.as_ref();
        let io = |source| DataError::Io { path: path.into(), source };
        let malformed =
            |message: String| DataError::Malformed { path: path.into(), place: String::new(), message };
        let mut file = File::open(path).map_err(io)?;
        let mut start = [0; 4];
        file.read_exact(&mut start).map_err(io)?;
        let [0, 0, 8, rank @ 1..=u8::MAX] = start else {
            return Err(malformed(format!("starts with {start:02x?}, not with 00 00 08 and a rank")));
        };
        let mut dims = Vec::new();
        for _ in 0..rank {
            let mut dim = [0; 4];
            file.read_exact(&mut dim).map_err(io)?;
            dims.push(u32::from_be_bytes(dim) as usize);
        }
        let rows = dims.remove(0);
        let field = Field { name: name.to_owned(), dtype: DType::U8, dims };
        let records = Self::open(path, 4 + 4 * u64::from(rank), &[field])?;
        if records.rows != rows {
            return Err(malformed(format!("the header declares {rows} rows, there are {}", records.rows)));
        }
        Ok(records)
    }
}

impl Source for Records {
    fn len(&self) -> usize {
        self.rows
    }

    fn fields(&self) -> Vec<Field> {
        self.fields.clone()
    }

    fn read(&self, row: Row, to: &mut [Elements], at: usize) -> Result<(), DataError> {
        // A thread that panicked while it held the lock left the file as good as any: each use seeks.
        let mut guard = self.file.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let (file, record) = &mut *guard;
        let offset = self.header + row.index as u64 * record.len() as u64;
        let read = file.seek(SeekFrom::Start(offset)).and_then(|_| file.read_exact(record));
        read.map_err(|source| DataError::Io { path: self.path.clone(), source })?;
        let mut bytes = &record[..];
        for (field, to) in self.fields.iter().zip(to) {
            let (own, rest) = bytes.split_at(field.row_len() * field.dtype.size_bytes());
            decode(own, to, at * field.row_len()).map_err(|byte| DataError::Malformed {
                path: self.path.clone(),
                place: format!(", record {}", row.index),
                message: format!("`{}` is bool, but has the byte {byte}", field.name),
            })?;
            bytes = rest;
        }
        Ok(())
    }
}

/// Little-endian elements, written from `at` on; else the byte that is no bool.
fn decode(bytes: &[u8], to: &mut Elements, at: usize) -> Result<(), u8> {
    macro_rules! numbers {
        ($to:expr, $t:ty) => {
            for (to, from) in $to[at..].iter_mut().zip(bytes.as_chunks().0) {
                *to = <$t>::from_le_bytes(*from);
            }
        };
    }
    match to {
        Elements::F32(to) => numbers!(to, f32),
        Elements::F64(to) => numbers!(to, f64),
        Elements::I32(to) => numbers!(to, i32),
        Elements::I64(to) => numbers!(to, i64),
        Elements::U8(to) => to[at..at + bytes.len()].copy_from_slice(bytes),
        Elements::BF16(to) => numbers!(to, half::bf16),
        Elements::F16(to) => numbers!(to, half::f16),
        Elements::Bool(to) => {
            for (to, &from) in to[at..].iter_mut().zip(bytes) {
                *to = match from {
                    0 | 1 => from == 1,
                    byte => return Err(byte),
                };
            }
        }
    }
    Ok(())
}

/// The fields of two sources of as many rows.
pub struct Zipped<A, B>(A, B);

impl<A: Source, B: Source> Zipped<A, B> {
    /// Row `i` has the fields of row `i` of each.
    ///
    /// # Errors
    /// [`DataError::Column`] if they have not as many rows.
    pub fn new(a: A, b: B) -> Result<Self, DataError> {
        if a.len() != b.len() {
            let column = b.fields().first().map_or(String::new(), |f| f.name.clone());
            let message = format!("has {} rows, the others {}", b.len(), a.len());
            return Err(DataError::Column { column, message });
        }
        Ok(Self(a, b))
    }
}

impl<A: Source, B: Source> Source for Zipped<A, B> {
    fn len(&self) -> usize {
        self.0.len()
    }

    fn fields(&self) -> Vec<Field> {
        [self.0.fields(), self.1.fields()].concat()
    }

    fn read(&self, row: Row, to: &mut [Elements], at: usize) -> Result<(), DataError> {
        let (a, b) = to.split_at_mut(self.0.fields().len());
        self.0.read(row, a, at)?;
        self.1.read(row, b, at)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::Loader;

    #[test]
    fn records_in_blocks() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("r.bin");
        let field =
            |name: &str, dtype, dims: &[usize]| Field { name: name.to_owned(), dtype, dims: dims.to_vec() };
        let fields = [field("x", DType::U8, &[3]), field("y", DType::F32, &[]), field("z", DType::Bool, &[])];
        let record = |i: u8| [&[i, i + 1, i + 2][..], &f32::from(i).to_le_bytes(), &[i % 2]].concat();
        let content: Vec<u8> = [vec![9; 5], (0..100).flat_map(record).collect()].concat();
        std::fs::write(&path, &content).unwrap();
        let mut loader =
            Loader::new(Records::open(&path, 5, &fields).unwrap(), 7).shuffled_blocks(1, 16).workers(2);
        let mut seen = Vec::new();
        while let Some(batch) = loader.next_batch().unwrap() {
            let (x, y) = (batch.get::<u8>("x").unwrap(), batch.get::<f32>("y").unwrap());
            for ((x, y), z) in x.chunks(3).zip(y).zip(batch.get::<bool>("z").unwrap()) {
                assert_eq!((x, f32::from(x[0])), (&[x[0], x[0] + 1, x[0] + 2][..], *y));
                assert_eq!(*z, x[0] % 2 == 1);
                seen.push(x[0]);
            }
        }
        // The first 16 rows are a block.
        let block = seen[0] / 16;
        assert!(seen[..16].iter().all(|i| i / 16 == block), "{seen:?}");
        seen.sort_unstable();
        assert_eq!(seen, (0..100).collect::<Vec<_>>());
        let error = Records::open(&path, 4, &fields).err().unwrap().to_string();
        assert!(error.ends_with("805 bytes are not a header of 4 and whole records of 8"), "{error}");
        std::fs::write(&path, [0, 0, 0, 0, 0, 0, 0, 7]).unwrap();
        let mut loader = Loader::new(Records::open(&path, 0, &fields).unwrap(), 1);
        let error = loader.next_batch().unwrap_err().to_string();
        assert!(error.ends_with("r.bin, record 0: `z` is bool, but has the byte 7"), "{error}");
    }

    #[test]
    fn idx_and_labels_together() {
        let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("../data/digits");
        let images = Records::idx(dir.join("train-images-idx3-ubyte"), "x").unwrap();
        let labels = Records::idx(dir.join("train-labels-idx1-ubyte"), "y").unwrap();
        let (memory, _) = crate::data::load_directory(&dir).unwrap();
        let mut loader = Loader::new(Zipped::new(images, labels).unwrap(), 100);
        let batch = loader.next_batch().unwrap().unwrap();
        let x: Vec<f32> = batch.get::<u8>("x").unwrap().iter().map(|&b| f32::from(b) / 255.0).collect();
        assert_eq!(x, memory.features()[..6400]);
        let y: Vec<i32> = batch.get::<u8>("y").unwrap().iter().map(|&b| b.into()).collect();
        assert_eq!(y, memory.labels()[..100]);
    }
}
