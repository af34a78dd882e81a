//! NumPy's files.

use super::DataError;
use crate::checkpoint::replace;
use graphc_ir::MAX_ELEMENTS;
use graphc_runtime::Elements;
use npyz::WriterBuilder;
use std::io::{BufReader, Cursor, Read, Write};
use std::path::Path;
use zip::write::SimpleFileOptions;

/// Reads an NPY file: extents, and elements in row-major order. f32, f64, i32, i64, u8 and bool are read.
///
/// # Errors
/// [`DataError::Io`]; [`DataError::Malformed`] for another format, element type or Fortran order.
pub fn load_npy(path: impl AsRef<Path>) -> Result<(Vec<usize>, Elements), DataError> {
    let path = path.as_ref();
    let file = std::fs::File::open(path).map_err(|source| DataError::Io { path: path.into(), source })?;
    read(BufReader::new(file), path, String::new())
}

/// Reads an NPZ file, a zip of NPY files: name, extents and elements of each, in the order of the file.
///
/// # Errors
/// As [`load_npy`].
pub fn load_npz(path: impl AsRef<Path>) -> Result<Vec<(String, Vec<usize>, Elements)>, DataError> {
    let path = path.as_ref();
    let file = std::fs::File::open(path).map_err(|source| DataError::Io { path: path.into(), source })?;
    let mut archive =
        zip::ZipArchive::new(BufReader::new(file)).map_err(|e| malformed(path, String::new(), e))?;
    let mut arrays = Vec::new();
    for i in 0..archive.len() {
        let file = archive.by_index(i).map_err(|e| malformed(path, format!(", entry {i}"), e))?;
        let name = file.name().map_err(|e| malformed(path, format!(", entry {i}"), e))?.into_owned();
        let name = name.strip_suffix(".npy").unwrap_or(&name).to_owned();
        let (dims, elements) = read(file, path, format!(", array `{name}`"))?;
        arrays.push((name, dims, elements));
    }
    Ok(arrays)
}

/// Writes an NPY file.
///
/// # Errors
/// [`DataError::Io`]; [`DataError::Malformed`] for extents that do not fit the elements, and element types that NumPy has not.
pub fn save_npy(path: impl AsRef<Path>, dims: &[usize], elements: &Elements) -> Result<(), DataError> {
    let path = path.as_ref();
    let content = encode(path, dims, elements)?;
    replace(path, &content).map_err(|source| DataError::Io { path: path.into(), source })
}

/// Writes an NPZ file: arrays with name, extents and elements, not compressed, as `numpy.savez`.
///
/// # Errors
/// As [`save_npy`]; [`DataError::Malformed`] if a name is there twice.
pub fn save_npz(path: impl AsRef<Path>, arrays: &[(&str, &[usize], &Elements)]) -> Result<(), DataError> {
    let path = path.as_ref();
    let mut archive = zip::ZipWriter::new(Cursor::new(Vec::new()));
    let options = SimpleFileOptions::default().compression_method(zip::CompressionMethod::Stored);
    for (name, dims, elements) in arrays {
        let content = encode(path, dims, elements)?;
        archive
            .start_file(format!("{name}.npy"), options)
            .map_err(|e| malformed(path, format!(", array `{name}`"), e))?;
        archive.write_all(&content).map_err(|source| DataError::Io { path: path.into(), source })?;
    }
    let content = archive.finish().map_err(|e| malformed(path, String::new(), e))?;
    replace(path, content.get_ref()).map_err(|source| DataError::Io { path: path.into(), source })
}

/// An NPY file in memory. `path` serves error messages only.
fn encode(path: &Path, dims: &[usize], elements: &Elements) -> Result<Vec<u8>, DataError> {
    let io = |source| DataError::Io { path: path.into(), source };
    let given = elements.value();
    if graphc_ir::checked_product(dims) != Some(given.len()) {
        return Err(malformed(path, String::new(), format!("{} elements are not {dims:?}", given.len())));
    }
    let shape: Vec<u64> = dims.iter().map(|&d| d as u64).collect();
    let mut file = Vec::new();
    macro_rules! write {
        ($elements:expr) => {{
            let options = npyz::WriteOptions::new().default_dtype().shape(&shape).writer(&mut file);
            let mut writer = options.begin_nd().map_err(io)?;
            writer.extend($elements.iter().copied()).map_err(io)?;
            writer.finish().map_err(io)?;
        }};
    }
    match elements {
        Elements::F32(v) => write!(v),
        Elements::F64(v) => write!(v),
        Elements::I32(v) => write!(v),
        Elements::I64(v) => write!(v),
        Elements::U8(v) => write!(v),
        Elements::Bool(v) => write!(v),
        Elements::BF16(_) | Elements::F16(_) => {
            let message = format!("elements of {} are not written", given.dtype());
            return Err(malformed(path, String::new(), message));
        }
    }
    Ok(file)
}

fn malformed(path: &Path, place: String, message: impl ToString) -> DataError {
    DataError::Malformed { path: path.into(), place, message: message.to_string() }
}

fn read(mut from: impl Read, path: &Path, place: String) -> Result<(Vec<usize>, Elements), DataError> {
    let malformed = |message: String| malformed(path, place.clone(), message);
    let wrong = |e: std::io::Error| malformed(format!("not an NPY file: {e}"));
    let header = header(&mut from).map_err(wrong)?;
    let file = npyz::NpyFile::new(header.chain(from)).map_err(wrong)?;
    let dims: Vec<usize> = file.shape().iter().map(|&d| d as usize).collect();
    if file.order() == npyz::Order::Fortran && dims.len() > 1 {
        return Err(malformed(
            "the elements are in Fortran order; save them with numpy.ascontiguousarray".to_owned(),
        ));
    }
    let dtype = file.dtype().descr();
    macro_rules! elements {
        ($t:ty) => {
            file.into_vec::<$t>().map(Elements::from).map_err(|e| malformed(e.to_string()))?
        };
    }
    let elements = match dtype.trim_matches('\'') {
        "<f4" => elements!(f32),
        "<f8" => elements!(f64),
        "<i4" => elements!(i32),
        "<i8" => elements!(i64),
        "|u1" => elements!(u8),
        "|b1" => elements!(bool),
        other => {
            return Err(malformed(format!("elements are {other}; <f4, <f8, <i4, <i8, |u1 and |b1 are read")));
        }
    };
    Ok((dims, elements))
}

/// Longest header that is read, in bytes: NumPy's own limit.
const MAX_HEADER: usize = 10_000;

/// Deepest nesting of brackets in a header.
const MAX_NESTING: usize = 8;

/// The bytes up to the elements. `npyz` trusts what a header says, so what it would take memory or stack for, and products
/// that overflow, are refused here.
fn header(from: &mut impl Read) -> std::io::Result<Cursor<Vec<u8>>> {
    let wrong = |message: &str| std::io::Error::new(std::io::ErrorKind::InvalidData, message);
    let mut bytes = Vec::new();
    let mut take = |n: usize| {
        let at = bytes.len();
        from.take(n as u64).read_to_end(&mut bytes)?;
        if bytes.len() < at + n { Err(wrong("it ends in the header")) } else { Ok(bytes.clone()) }
    };
    let start = take(8)?;
    if !start.starts_with(b"\x93NUMPY") {
        return Err(wrong("it does not begin with \\x93NUMPY"));
    }
    let width = if start[6] == 1 { 2 } else { 4 };
    let length = take(width)?[8..].iter().rev().fold(0, |n, &b| n << 8 | usize::from(b));
    if length > MAX_HEADER {
        return Err(wrong(&format!("a header of {length} bytes; at most {MAX_HEADER} are read")));
    }
    let bytes = take(length)?;
    let (mut quoted, mut depth, mut product) = (None, 0usize, 1usize);
    let mut rest = &bytes[8 + width..];
    while let [b, after @ ..] = rest {
        rest = after;
        match (quoted, b) {
            (_, b'\\') => return Err(wrong("a backslash in the header")),
            (Some(quote), b) if quote == *b => quoted = None,
            (Some(_), _) => {}
            (None, b'\'' | b'"') => quoted = Some(*b),
            (None, b'(' | b'[' | b'{') => depth += 1,
            (None, b')' | b']' | b'}') => depth = depth.saturating_sub(1),
            // Numbers out of quotes are extents.
            (None, b'0'..=b'9') => {
                let len = after.iter().take_while(|b| b.is_ascii_alphanumeric() || **b == b'_').count();
                let word = std::iter::once(*b).chain(after[..len].iter().copied()).map(char::from);
                let n = word.collect::<String>().parse::<usize>().ok();
                product =
                    n.and_then(|n| product.checked_mul(n.max(1))).filter(|&n| n <= MAX_ELEMENTS).ok_or_else(
                        || wrong("the extents in the header are no numbers or more than 2^40 elements"),
                    )?;
                rest = &after[len..];
            }
            (None, _) => {}
        }
        if depth > MAX_NESTING {
            return Err(wrong(&format!("brackets in the header are nested deeper than {MAX_NESTING}")));
        }
    }
    Ok(Cursor::new(bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_come_back() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.npy");
        let all: [Elements; 6] = [
            vec![1.5f32, -0.0].into(),
            vec![f64::MAX, 0.1].into(),
            vec![i32::MIN, 7].into(),
            vec![i64::MAX, -7].into(),
            vec![0u8, 255].into(),
            vec![true, false].into(),
        ];
        for elements in all {
            save_npy(&path, &[1, 2], &elements).unwrap();
            assert_eq!(load_npy(&path).unwrap(), (vec![1, 2], elements));
        }
        assert!(save_npy(&path, &[3], &vec![1u8].into()).is_err());
    }

    #[test]
    fn archives() {
        let numpy = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/arrays.npz");
        let expected = [
            ("a".to_owned(), vec![2], Elements::from(vec![1.5f32, -2.0])),
            ("b".to_owned(), vec![1, 3], Elements::from(vec![1i64, 2, 3])),
        ];
        assert_eq!(load_npz(numpy).unwrap(), expected);
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.npz");
        let arrays = expected.each_ref().map(|(name, dims, elements)| (name.as_str(), &dims[..], elements));
        save_npz(&path, &arrays).unwrap();
        assert_eq!(load_npz(&path).unwrap(), expected);
        assert!(save_npz(&path, &[arrays[0], arrays[0]]).is_err());
        std::fs::write(&path, "no archive").unwrap();
        assert!(load_npz(&path).unwrap_err().to_string().contains("a.npz: "));
    }

    /// `numpy.save` of `numpy.asfortranarray([[1., 2.], [3., 4.]])` and of `numpy.array([1], 'u2')`, NumPy 2.
    #[test]
    fn what_is_not_read_is_said() {
        let header = |text: &str| {
            let padded = format!("{text:<117}\n");
            [b"\x93NUMPY\x01\x00\x76\x00", padded.as_bytes()].concat()
        };
        let error = |file: &[u8]| read(file, Path::new("a.npy"), String::new()).unwrap_err().to_string();
        let fortran = header("{'descr': '<f8', 'fortran_order': True, 'shape': (2, 2), }");
        assert!(error(&[fortran, vec![0; 32]].concat()).contains("a.npy: the elements are in Fortran order"));
        let short = header("{'descr': '<u2', 'fortran_order': False, 'shape': (1,), }");
        assert!(error(&[short, vec![0; 2]].concat()).contains("a.npy: elements are <u2; <f4"));
        assert!(error(b"no numpy").contains("a.npy: not an NPY file"));
        let cut = header("{'descr': '<f8', 'fortran_order': False, 'shape': (9,), }");
        assert!(error(&cut).starts_with("a.npy: "));
        // What would take memory or stack, or overflow.
        let long = [b"\x93NUMPY\x02\x00\xff\xff\xff\xff".as_slice(), &[b' '; 64]].concat();
        assert!(error(&long).contains("a header of 4294967295 bytes; at most 10000"), "{}", error(&long));
        let shape = |shape: &str| {
            error(&header(&format!("{{'descr': '<f8', 'fortran_order': False, 'shape': {shape}")))
        };
        assert!(shape("(4294967295, 4294967295, 4294967295)}").contains("more than 2^40 elements"));
        assert!(shape("(0x7fffffffffffffff, 0xff)}").contains("more than 2^40 elements"));
        assert!(shape("(((((((((((1,),),),),),),),),)}").contains("nested deeper than 8"));
    }
}
