//! A column of data from a file whose format its name tells.

use super::{Csv, DataError, Idx, load_npy};
use graphc_ir::DType;
use graphc_runtime::{Elements, Value};
use std::path::Path;

/// Reads a column: extents, rows first, and elements of type `dtype`, from a file `*.npy`, `*.csv`, or else IDX, which may be
/// gzipped. Of a CSV file the columns named are read; one column gives numbers, several give rows of numbers. Unsigned
/// bytes that become floats are pixels: 255 becomes 1.
///
/// # Errors
/// [`DataError`] of the format; [`DataError::Malformed`] if numbers are not of the type, such as 0.5 for integers.
///
/// ```no_run
/// use graphc_ir::DType;
/// use graphc_train::data::{Table, load_column};
///
/// let (dims, images) = load_column("train-images-idx3-ubyte.gz", &[], DType::F32)?;
/// let table = Table::new().with("x", &dims[1..], images)?;
/// # Ok::<(), graphc_train::data::DataError>(())
/// ```
pub fn load_column(
    path: impl AsRef<Path>,
    columns: &[&str],
    dtype: DType,
) -> Result<(Vec<usize>, Elements), DataError> {
    let path = path.as_ref();
    let malformed =
        |message: String| DataError::Malformed { path: path.into(), place: String::new(), message };
    let (dims, elements, scale) = match path.extension().and_then(|e| e.to_str()) {
        Some("csv") => {
            let csv = Csv::open(path)?;
            let (dims, elements): (_, Elements) = match columns {
                [] => return Err(malformed("which columns of it? Name them: FILE:a+b".to_owned())),
                [one] if dtype == DType::I32 => (vec![csv.len()], csv.integers(one)?.into()),
                [one] => (vec![csv.len()], csv.numbers(&[one])?.into()),
                several => (vec![csv.len(), several.len()], csv.numbers(several)?.into()),
            };
            (dims, elements, 1.0)
        }
        _ if !columns.is_empty() => return Err(malformed("only a CSV file has columns".to_owned())),
        Some("npy") => {
            let (dims, elements) = load_npy(path)?;
            (dims, elements, 1.0)
        }
        _ => {
            let idx = Idx::open(path)?;
            let scale = if dtype.is_float() { 1.0 / 255.0 } else { 1.0 };
            (idx.dims, idx.bytes.into(), scale)
        }
    };
    let value = elements.value();
    if value.dtype() == dtype && scale == 1.0 {
        return Ok((dims, elements));
    }
    let number = |i: usize| elements.get(i).to_f64();
    if !dtype.is_float()
        && let Some(i) = (0..value.len()).find(|&i| !holds(dtype, number(i)))
    {
        return Err(malformed(format!("element {i} is {}, which is no {dtype}", number(i))));
    }
    Ok((dims, convert(&elements, value, dtype, scale)))
}

/// Whether an integer or truth value of this type can be `x`.
fn holds(dtype: DType, x: f64) -> bool {
    let range = match dtype {
        DType::Bool => 0.0..=1.0,
        DType::U8 => 0.0..=255.0,
        DType::I32 => f64::from(i32::MIN)..=f64::from(i32::MAX),
        // Larger ones are not exact in f64.
        _ => -(2f64.powi(53))..=2f64.powi(53),
    };
    x.fract() == 0.0 && range.contains(&x)
}

fn convert(elements: &Elements, value: Value<'_>, dtype: DType, scale: f64) -> Elements {
    match value.get::<u8>() {
        // Rounded once, as `load_images_labels` does.
        Some(bytes) if dtype == DType::F32 && scale != 1.0 => {
            bytes.iter().map(|&b| f32::from(b) / 255.0).collect::<Vec<f32>>().into()
        }
        _ => Elements::from_fn(dtype, value.len(), |i| elements.get(i).to_f64() * scale),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::{load_directory, save_npy};

    #[test]
    fn images_are_scaled_and_labels_are_not() {
        let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("../data/digits");
        let (memory, _) = load_directory(&dir).unwrap();
        let (dims, x) = load_column(dir.join("train-images-idx3-ubyte"), &[], DType::F32).unwrap();
        assert_eq!(dims, [memory.len(), 8, 8]);
        assert_eq!(x.value().get::<f32>().unwrap(), memory.features());
        let (_, y) = load_column(dir.join("train-labels-idx1-ubyte"), &[], DType::I32).unwrap();
        assert_eq!(y.value().get::<i32>().unwrap(), memory.labels());
    }

    #[test]
    fn tables_and_arrays_are_converted() {
        let dir = tempfile::tempdir().unwrap();
        let (csv, npy) = (dir.path().join("t.csv"), dir.path().join("a.npy"));
        std::fs::write(&csv, "a,b,c\n1,2,0\n0.5,4,1\n").unwrap();
        let f64s = |e: Elements| -> Vec<f64> { (0..e.value().len()).map(|i| e.get(i).to_f64()).collect() };
        let (dims, x) = load_column(&csv, &["b", "a"], DType::F64).unwrap();
        assert_eq!((dims, x.value().dtype(), f64s(x)), (vec![2, 2], DType::F64, vec![2.0, 1.0, 4.0, 0.5]));
        assert_eq!(load_column(&csv, &["c"], DType::I32).unwrap().0, [2]);
        save_npy(&npy, &[2], &vec![1.5f64, 2.0].into()).unwrap();
        assert_eq!(f64s(load_column(&npy, &[], DType::F32).unwrap().1), [1.5, 2.0]);
        let error =
            |path: &Path, columns: &[&str], dtype| load_column(path, columns, dtype).unwrap_err().to_string();
        assert!(error(&npy, &[], DType::I32).ends_with("a.npy: element 0 is 1.5, which is no i32"));
        assert!(error(&npy, &["a"], DType::F32).ends_with("only a CSV file has columns"));
        assert!(error(&csv, &[], DType::F32).ends_with("Name them: FILE:a+b"));
        assert!(error(&csv, &["d"], DType::F32).contains("`d`"));
    }
}
