//! Reads IDX files, the format of MNIST and its descendants, plain or gzipped.
//!
//! An IDX file is two zero bytes, a byte for the element type, a byte for the rank, one big-endian
//! u32 per dimension, then the elements in row-major order. Only unsigned bytes (type 0x08) of rank
//! 1 to 4 are read. Whether a file is gzipped is seen from its first bytes, not from its name.
//!
//! Files are not trusted: the declared size is compared with the size of the file before memory is
//! taken, and decompression stops one byte after the declared size.

use super::{DataError, Dataset};
use flate2::read::MultiGzDecoder;
use std::fs::File;
use std::io::{self, BufReader, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

/// Largest rank of an IDX file.
pub const MAX_IDX_RANK: usize = 4;

/// Largest number of elements of an IDX file (2^32); larger sets need a reader that streams.
pub const MAX_IDX_ELEMENTS: u64 = 1 << 32;

/// Deflate expands at most 1032 times: a match of 258 bytes takes at least two bits.
const MAX_DEFLATE_RATIO: u64 = 1032;

/// Code of the only element type that is read.
const UNSIGNED_BYTE: u8 = 0x08;

/// The content of an IDX file: unsigned bytes in row-major order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Idx {
    /// Extents, outermost first; 1 to 4 of them.
    pub dims: Vec<usize>,
    /// The elements; as many as the product of `dims`.
    pub bytes: Vec<u8>,
}

impl Idx {
    /// Reads a file, plain or gzipped.
    ///
    /// # Errors
    /// [`DataError`] naming the file and what is wrong with it.
    pub fn open(path: impl AsRef<Path>) -> Result<Self, DataError> {
        let path = path.as_ref();
        let io = |source| DataError::Io { path: path.into(), source };
        let mut file = File::open(path).map_err(io)?;
        let stored = file.metadata().map_err(io)?.len();
        let mut start = Vec::with_capacity(2);
        (&mut file).take(2).read_to_end(&mut start).map_err(io)?;
        file.seek(SeekFrom::Start(0)).map_err(io)?;
        Self::read(BufReader::new(file), stored, is_gzip(&start), path)
    }

    /// Reads the bytes of a file, plain or gzipped. `path` serves error messages only.
    ///
    /// # Errors
    /// As [`Idx::open`].
    pub fn parse(file: &[u8], path: impl AsRef<Path>) -> Result<Self, DataError> {
        Self::read(file, file.len() as u64, is_gzip(file), path.as_ref())
    }

    /// `stored` is the size of the file in bytes.
    fn read(file: impl Read, stored: u64, gzip: bool, path: &Path) -> Result<Self, DataError> {
        if gzip {
            let most = stored.saturating_mul(MAX_DEFLATE_RATIO);
            Self::read_content(MultiGzDecoder::new(file), Content::AtMost(most), path)
        } else {
            Self::read_content(file, Content::Exactly(stored), path)
        }
    }

    fn read_content(mut content: impl Read, size: Content, path: &Path) -> Result<Self, DataError> {
        let truncated = |expected: u64, got: u64| DataError::Truncated { path: path.into(), expected, got };

        let mut header = Vec::new();
        read_up_to(&mut content, 4, &mut header, path)?;
        let Ok([a, b, element, rank]) = <[u8; 4]>::try_from(header.as_slice()) else {
            return Err(truncated(4, header.len() as u64));
        };
        let found = [a, b, element, rank];
        if [a, b] != [0, 0] {
            return Err(DataError::BadMagic { path: path.into(), found });
        }
        if element != UNSIGNED_BYTE {
            return Err(match element_name(element) {
                Some(name) => DataError::ElementType { path: path.into(), code: element, name },
                None => DataError::BadMagic { path: path.into(), found },
            });
        }
        if !(1..=MAX_IDX_RANK).contains(&usize::from(rank)) {
            return Err(DataError::UnsupportedRank { path: path.into(), rank });
        }

        let header_len = 4 + 4 * u64::from(rank);
        read_up_to(&mut content, header_len - 4, &mut header, path)?;
        if (header.len() as u64) < header_len {
            return Err(truncated(header_len, header.len() as u64));
        }
        let (extents, _) = header[4..].as_chunks::<4>();
        let extents: Vec<u64> = extents.iter().map(|b| u64::from(u32::from_be_bytes(*b))).collect();
        let n_elems = (extents.iter())
            .try_fold(1u64, |n, &d| n.checked_mul(d.max(1)).filter(|&n| n <= MAX_IDX_ELEMENTS));
        let dims: Option<Vec<usize>> = extents.iter().map(|&d| usize::try_from(d).ok()).collect();
        let (Some(n_elems), Some(dims)) = (n_elems, dims) else {
            return Err(DataError::TooLarge { path: path.into(), dims: extents });
        };
        let n_elems = if extents.contains(&0) { 0 } else { n_elems };

        let expected = header_len + n_elems;
        match size {
            Content::Exactly(got) if got < expected => return Err(truncated(expected, got)),
            Content::Exactly(got) if got > expected => {
                return Err(DataError::Trailing { path: path.into(), expected });
            }
            Content::AtMost(most) if most < expected => {
                return Err(DataError::Implausible { path: path.into(), expected, most });
            }
            _ => {}
        }
        let mut bytes = Vec::new();
        let too_large = |_| DataError::TooLarge { path: path.into(), dims: extents.clone() };
        bytes.try_reserve_exact(usize::try_from(n_elems).unwrap_or(usize::MAX)).map_err(too_large)?;
        read_up_to(&mut content, n_elems, &mut bytes, path)?;
        if (bytes.len() as u64) < n_elems {
            return Err(truncated(expected, header_len + bytes.len() as u64));
        }
        // Asking for more than there should be also makes the decoder check its checksum.
        let mut rest = Vec::new();
        read_up_to(&mut content, 1, &mut rest, path)?;
        if !rest.is_empty() {
            return Err(DataError::Trailing { path: path.into(), expected });
        }
        Ok(Self { dims, bytes })
    }
}

/// What is known of the size of the uncompressed content, in bytes.
enum Content {
    Exactly(u64),
    AtMost(u64),
}

fn is_gzip(start: &[u8]) -> bool {
    start.starts_with(&[0x1f, 0x8b])
}

/// Appends up to `n` bytes; fewer if the content ends before, be it amid a compressed stream.
fn read_up_to(content: &mut impl Read, n: u64, to: &mut Vec<u8>, path: &Path) -> Result<(), DataError> {
    match content.take(n).read_to_end(to) {
        Ok(_) => Ok(()),
        Err(e) if e.kind() == io::ErrorKind::UnexpectedEof && n > 1 => Ok(()),
        Err(source) => Err(DataError::Io { path: path.into(), source }),
    }
}

/// Name of an IDX element type that exists but is not read.
fn element_name(code: u8) -> Option<&'static str> {
    Some(match code {
        0x09 => "i8",
        0x0b => "i16",
        0x0c => "i32",
        0x0d => "f32",
        0x0e => "f64",
        _ => return None,
    })
}

/// Reads a file of images `[n, ..]` (rank 2 to 4) and one of labels `[n]`. Pixels are scaled to
/// `0..=1`. `classes` is the number of classes; if `None`, one more than the largest label.
///
/// # Errors
/// [`DataError`] of either file; [`DataError::FileRank`], [`DataError::CountMismatch`],
/// [`DataError::LabelOutOfRange`].
pub fn load_images_labels(
    images: impl AsRef<Path>,
    labels: impl AsRef<Path>,
    classes: Option<usize>,
) -> Result<Dataset, DataError> {
    let (images_path, labels_path) = (images.as_ref(), labels.as_ref());
    let (images, labels) = (Idx::open(images_path)?, Idx::open(labels_path)?);
    let rank = |path: &Path, what, expected, idx: &Idx| DataError::FileRank {
        path: path.into(),
        what,
        expected,
        dims: idx.dims.clone(),
    };
    if images.dims.len() < 2 {
        return Err(rank(images_path, "images", "2 to 4", &images));
    }
    if labels.dims.len() != 1 {
        return Err(rank(labels_path, "labels", "1", &labels));
    }
    if images.dims[0] != labels.dims[0] {
        return Err(DataError::CountMismatch {
            images: images_path.into(),
            n_images: images.dims[0],
            labels: labels_path.into(),
            n_labels: labels.dims[0],
        });
    }
    let largest = labels.bytes.iter().copied().max().map_or(0, usize::from);
    let classes = classes.unwrap_or(largest + 1);
    if let Some(position) = labels.bytes.iter().position(|&l| usize::from(l) >= classes) {
        return Err(DataError::LabelOutOfRange {
            place: format!("{}: ", labels_path.display()),
            position,
            label: labels.bytes[position].into(),
            classes,
        });
    }
    let features = images.bytes.iter().map(|&b| f32::from(b) / 255.0).collect();
    Dataset::new(features, &images.dims[1..], labels.bytes.iter().map(|&l| l.into()).collect(), classes)
}

/// Reads the training and the test set of a directory that follows MNIST's file names:
/// `train-images-idx3-ubyte`, `train-labels-idx1-ubyte`, `t10k-images-idx3-ubyte` and
/// `t10k-labels-idx1-ubyte`, each with or without `.gz`. The number of classes is that of the
/// training set.
///
/// # Errors
/// [`DataError::NotFound`] listing every missing file by the names looked for; otherwise as
/// [`load_images_labels`].
pub fn load_directory(dir: impl AsRef<Path>) -> Result<(Dataset, Dataset), DataError> {
    let dir = dir.as_ref();
    let names = [
        "train-images-idx3-ubyte",
        "train-labels-idx1-ubyte",
        "t10k-images-idx3-ubyte",
        "t10k-labels-idx1-ubyte",
    ];
    let find = |name: &str| -> Option<PathBuf> {
        [name.to_owned(), format!("{name}.gz")].iter().map(|n| dir.join(n)).find(|p| p.is_file())
    };
    let [Some(train_images), Some(train_labels), Some(test_images), Some(test_labels)] = names.map(find)
    else {
        let missing = names.iter().filter(|n| find(n).is_none());
        let missing = missing.map(|n| format!("{n} or {n}.gz")).collect();
        return Err(DataError::NotFound { dir: dir.into(), missing });
    };
    let train = load_images_labels(train_images, train_labels, None)?;
    let test = load_images_labels(&test_images, test_labels, Some(train.classes()))?;
    if train.dims() != test.dims() {
        return Err(DataError::ImageSize {
            path: test_images,
            dims: test.dims().to_vec(),
            train_dims: train.dims().to_vec(),
        });
    }
    Ok((train, test))
}

#[cfg(test)]
mod tests {
    use super::*;
    use flate2::{Compression, write::GzEncoder};
    use proptest::prelude::*;
    use std::io::Write;

    /// The bytes of an IDX file of that header.
    fn idx(element: u8, dims: &[u32], data: &[u8]) -> Vec<u8> {
        let mut file = vec![0, 0, element, dims.len() as u8];
        dims.iter().for_each(|d| file.extend(d.to_be_bytes()));
        file.extend(data);
        file
    }

    fn gz(content: &[u8]) -> Vec<u8> {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
        encoder.write_all(content).unwrap();
        encoder.finish().unwrap()
    }

    fn check_error(file: &[u8], expected: &str) {
        assert_eq!(Idx::parse(file, "f").unwrap_err().to_string(), expected);
    }

    #[test]
    fn reads_plain_and_gzipped() {
        for (dims, n) in
            [(vec![6], 6), (vec![2, 3], 6), (vec![2, 1, 3], 6), (vec![1, 2, 3, 1], 6), (vec![0, 9], 0)]
        {
            let data: Vec<u8> = (0..n).collect();
            let file = idx(8, &dims, &data);
            let expected = Idx { dims: dims.iter().map(|&d| d as usize).collect(), bytes: data };
            assert_eq!(Idx::parse(&file, "f").unwrap(), expected);
            assert_eq!(Idx::parse(&gz(&file), "f").unwrap(), expected);
        }
    }

    #[test]
    fn several_gzip_members_are_one_file() {
        let file = idx(8, &[4], &[1, 2, 3, 4]);
        let halves = [gz(&file[..5]), gz(&file[5..])].concat();
        assert_eq!(Idx::parse(&halves, "f").unwrap().bytes, [1, 2, 3, 4]);
    }

    #[test]
    fn errors_of_the_header() {
        check_error(b"", "f: truncated: expected 4 bytes, got 0");
        check_error(&[0, 0, 8], "f: truncated: expected 4 bytes, got 3");
        check_error(
            b"\x89PNG....",
            "f: not an IDX file: it starts with 89 50 4e 47, expected 00 00 08 and the rank",
        );
        check_error(
            &[0, 0, 7, 1],
            "f: not an IDX file: it starts with 00 00 07 01, expected 00 00 08 and the rank",
        );
        for (code, name) in [(9, "i8"), (11, "i16"), (12, "i32"), (13, "f32"), (14, "f64")] {
            check_error(
                &idx(code, &[1], &[0; 8]),
                &format!("f: elements are {name} (type 0x{code:02x}), only u8 (type 0x08) is read"),
            );
        }
        check_error(&idx(8, &[], &[1]), "f: rank 0 is not read, only 1 to 4");
        check_error(&idx(8, &[1; 5], &[1]), "f: rank 5 is not read, only 1 to 4");
        check_error(&idx(8, &[1, 1], &[])[..10], "f: truncated: expected 12 bytes, got 10");
    }

    #[test]
    fn errors_of_the_size() {
        check_error(&idx(8, &[2, 3], &[0; 5]), "f: truncated: expected 18 bytes, got 17");
        check_error(&gz(&idx(8, &[2, 3], &[0; 5])), "f: truncated: expected 18 bytes, got 17");
        check_error(
            &idx(8, &[2, 3], &[0; 7]),
            "f: trailing bytes: the header declares 18 bytes in all, there are more",
        );
        check_error(
            &gz(&idx(8, &[2, 3], &[0; 7])),
            "f: trailing bytes: the header declares 18 bytes in all, there are more",
        );
        check_error(
            &idx(8, &[u32::MAX, u32::MAX, 0], &[]),
            "f: extents [4294967295, 4294967295, 0] have more elements than can be read",
        );
        check_error(&idx(8, &[1 << 31], &[0; 9]), "f: truncated: expected 2147483656 bytes, got 17");
    }

    #[test]
    fn bombs_are_bounded_by_the_declared_size() {
        // A small file may declare little and contain much, or declare much and contain little.
        let bomb = gz(&idx(8, &[10], &vec![0; 50_000_000]));
        check_error(&bomb, "f: trailing bytes: the header declares 18 bytes in all, there are more");
        let file = gz(&idx(8, &[1 << 31], &[]));
        let most = file.len() * 1032;
        check_error(
            &file,
            &format!("f: declares 2147483656 bytes, but its compressed size allows at most {most}"),
        );
    }

    #[test]
    fn damaged_gzip() {
        let good = gz(&idx(8, &[6], &[7; 6]));
        let mut bad_checksum = good.clone();
        let n = bad_checksum.len();
        bad_checksum[n - 8] ^= 1;
        assert!(matches!(Idx::parse(&bad_checksum, "f"), Err(DataError::Io { .. })));
        assert!(matches!(Idx::parse(&good[..n - 3], "f"), Err(DataError::Io { .. })));
        check_error(&good[..10], "f: truncated: expected 4 bytes, got 0");
        assert!(Idx::parse(&[&good[..], b"junk"].concat(), "f").is_err());
    }

    #[test]
    fn missing_file_is_named() {
        let error = Idx::open("/nonexistent/train-images").unwrap_err().to_string();
        assert!(error.starts_with("/nonexistent/train-images: "), "{error}");
    }

    fn load(images: &[u8], labels: &[u8], classes: Option<usize>) -> Result<Dataset, String> {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("images"), images).unwrap();
        std::fs::write(dir.path().join("labels"), labels).unwrap();
        load_images_labels(dir.path().join("images"), dir.path().join("labels"), classes)
            .map_err(|e| e.to_string().replace(&format!("{}/", dir.path().display()), ""))
    }

    #[test]
    fn images_and_labels_make_a_dataset() {
        let data = load(&idx(8, &[2, 1, 2], &[0, 255, 51, 102]), &gz(&idx(8, &[2], &[4, 0])), None).unwrap();
        assert_eq!((data.len(), data.dims(), data.classes()), (2, &[1, 2][..], 5));
        assert_eq!(data.features(), [0.0, 1.0, 0.2, 0.4]);
        assert_eq!(data.labels(), [4, 0]);
    }

    #[test]
    fn errors_of_pairs() {
        let images = |n: u32| idx(8, &[n, 1, 1], &vec![0; n as usize]);
        let labels = |l: &[u8]| idx(8, &[l.len() as u32], l);
        let check = |images: &[u8], labels: &[u8], classes, expected: &str| {
            assert_eq!(load(images, labels, classes).unwrap_err(), expected);
        };
        check(&images(3), &labels(&[0, 1]), None, "images has 3 images but labels has 2 labels");
        check(
            &labels(&[0]),
            &labels(&[0]),
            None,
            "images: images must have rank 2 to 4, the extents are [1]",
        );
        check(&images(1), &images(1), None, "labels: labels must have rank 1, the extents are [1, 1, 1]");
        check(
            &images(3),
            &labels(&[0, 9, 10]),
            Some(10),
            "labels: label 10 at position 2 is out of range 0..10",
        );
    }

    #[test]
    fn directory_lists_what_is_missing() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("train-images-idx3-ubyte.gz"), gz(&idx(8, &[1, 1, 1], &[9]))).unwrap();
        std::fs::write(dir.path().join("train-labels-idx1-ubyte"), idx(8, &[1], &[1])).unwrap();
        let error = load_directory(dir.path()).unwrap_err().to_string();
        assert_eq!(
            error.replace(&dir.path().display().to_string(), "DIR"),
            "DIR: not found: t10k-images-idx3-ubyte or t10k-images-idx3-ubyte.gz, \
             t10k-labels-idx1-ubyte or t10k-labels-idx1-ubyte.gz"
        );
        std::fs::write(dir.path().join("t10k-images-idx3-ubyte"), idx(8, &[1, 1, 2], &[9, 9])).unwrap();
        std::fs::write(dir.path().join("t10k-labels-idx1-ubyte"), idx(8, &[1], &[0])).unwrap();
        let error = load_directory(dir.path()).unwrap_err().to_string();
        assert!(error.ends_with("images are [1, 2], those of the training set [1, 1]"), "{error}");
    }

    #[test]
    fn the_digits_load() {
        let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("../data/digits");
        let (train, test) = load_directory(dir).unwrap();
        assert_eq!((train.len(), train.dims(), train.classes()), (1500, &[8, 8][..], 10));
        assert_eq!((test.len(), test.dims(), test.classes()), (297, &[8, 8][..], 10));
        for data in [&train, &test] {
            assert!(data.features().iter().all(|x| (0.0..=1.0).contains(x)));
            assert!((0..10).all(|c| data.labels().contains(&c)));
        }
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_never_panic(file in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = Idx::parse(&file, "f");
            let _ = Idx::parse(&[&[0x1f, 0x8b, 8, 0][..], &file].concat(), "f");
        }

        #[test]
        fn damaged_files_never_panic(
            dims in proptest::collection::vec(0u32..5, 1..=4),
            edits in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..4),
            cut in proptest::option::of(any::<prop::sample::Index>()),
            gzip: bool,
        ) {
            let n: u32 = dims.iter().product();
            let file = idx(8, &dims, &vec![3; n as usize]);
            let good = if gzip { gz(&file) } else { file };
            let mut bad = good.clone();
            if let Some(cut) = cut {
                bad.truncate(cut.index(good.len()));
            }
            for (at, byte) in edits {
                let at = at.index(good.len());
                if at < bad.len() { bad[at] = byte; }
            }
            if let Ok(read) = Idx::parse(&bad, "f") {
                prop_assert_eq!(read.dims.iter().product::<usize>(), read.bytes.len());
            }
        }
    }
}
