//! CIFAR's binary files: a byte for each label, then 3072 bytes of an image of 3 x 32 x 32.

use super::{DataError, Dataset};
use std::path::Path;

const PIXELS: usize = 3 * 32 * 32;

/// Reads files of CIFAR-10 (`data_batch_1.bin`, ...), one after the other: images `f32[3, 32, 32]` in `0..=1` and 10 classes.
///
/// # Errors
/// [`DataError`] naming the file: it cannot be read, is no whole number of records, or has a label out of range.
pub fn load_cifar10(paths: &[impl AsRef<Path>]) -> Result<Dataset, DataError> {
    load(paths, 1, 10)
}

/// Reads files of CIFAR-100 (`train.bin`, `test.bin`), as [`load_cifar10`]; labels are the 100 fine ones.
///
/// # Errors
/// As [`load_cifar10`].
pub fn load_cifar100(paths: &[impl AsRef<Path>]) -> Result<Dataset, DataError> {
    load(paths, 2, 100)
}

/// The last of `labels` bytes is the label.
fn load(paths: &[impl AsRef<Path>], labels: usize, classes: usize) -> Result<Dataset, DataError> {
    let (mut pixels, mut values) = (Vec::new(), Vec::new());
    for path in paths {
        let path = path.as_ref();
        let file = std::fs::read(path).map_err(|source| DataError::Io { path: path.into(), source })?;
        let malformed =
            |message: String| DataError::Malformed { path: path.into(), place: String::new(), message };
        let record = labels + PIXELS;
        if !file.len().is_multiple_of(record) {
            return Err(malformed(format!(
                "{} bytes are no whole number of records of {record}",
                file.len()
            )));
        }
        for (position, record) in file.chunks(record).enumerate() {
            let label = record[labels - 1];
            if usize::from(label) >= classes {
                let place = format!("{}: ", path.display());
                return Err(DataError::LabelOutOfRange { place, position, label: label.into(), classes });
            }
            values.push(i32::from(label));
            pixels.extend(record[labels..].iter().map(|&p| f32::from(p) / 255.0));
        }
    }
    Dataset::new(pixels, &[3, 32, 32], values, classes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("data_batch_1.bin");
        let record = |label: &[u8], pixel: u8| [label, &[pixel; PIXELS]].concat();
        std::fs::write(&path, [record(&[3], 255), record(&[9], 51)].concat()).unwrap();
        let data = load_cifar10(&[&path, &path]).unwrap();
        assert_eq!((data.len(), data.dims(), data.labels()), (4, &[3, 32, 32][..], &[3, 9, 3, 9][..]));
        assert_eq!((data.row(0)[0], data.row(1)[7]), (1.0, 0.2));
        let error = load_cifar100(&[&path]).unwrap_err().to_string();
        assert!(
            error.ends_with("data_batch_1.bin: 6146 bytes are no whole number of records of 3074"),
            "{error}"
        );
        std::fs::write(&path, record(&[10], 0)).unwrap();
        let error = load_cifar10(&[&path]).unwrap_err().to_string();
        assert!(error.ends_with("data_batch_1.bin: label 10 at position 0 is out of range 0..10"), "{error}");
        std::fs::write(&path, record(&[10, 99], 0)).unwrap();
        assert_eq!(load_cifar100(&[&path]).unwrap().labels(), [99]);
    }
}
