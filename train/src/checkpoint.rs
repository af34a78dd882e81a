//! Checkpoints: the state of a module, by name, in a safetensors file
//! (<https://github.com/huggingface/safetensors>), which other systems read too.
//!
//! Bool tensors have safetensors type `BOOL`, one byte 0 or 1 each. A file is replaced as a whole
//! or not at all, and has checksums: of a damaged one nothing is loaded. Loading changes nothing unless every
//! tensor of the state is in the file with the right type and extents, and the file holds no other.

mod seal;

use graphc_ir::{DType, MAX_RANK, TensorType, checked_product, escaped};
use graphc_runtime::{Elements, RuntimeError, State, Value};
use half::{bf16, f16};
use safetensors::tensor::{Dtype, SafeTensorError, SafeTensors, View};
use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap};
use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};

// Elements are written as they are in memory, and safetensors files are little-endian.
const _: () = assert!(cfg!(target_endian = "little"), "checkpoints need a little-endian machine");

/// Key of the safetensors header that is not a tensor.
const RESERVED: &str = "__metadata__";

/// Beginning of the names of files that are being written.
pub(crate) const TEMPORARY: &str = ".checkpoint";

/// Key of note and checksums in a file's metadata.
const KEY: &str = "graphc";

/// Most differences that an error lists, and most characters of a name that it shows.
const MAX_LISTED: usize = 20;
const MAX_SHOWN: usize = 64;

/// Why a checkpoint cannot be written or read.
#[derive(Debug, thiserror::Error)]
pub enum CheckpointError {
    /// The file cannot be read or written.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// The file is not a sound safetensors file.
    #[error("{}: not a safetensors file: {}", path.display(), escaped(&source.to_string(), 1000))]
    Format {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        source: SafeTensorError,
    },
    /// The file is not as it was written.
    #[error("{}: damaged: {message}", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What does not have its checksum.
        message: String,
    },
    /// Another run uses the folder.
    #[error("{}: another run writes its checkpoints here", dir.display())]
    Locked {
        /// The folder.
        dir: PathBuf,
    },
    /// The tensors of the file are not those of the state.
    #[error("{}: the checkpoint does not fit:{}", path.display(), list(problems))]
    Mismatch {
        /// The file.
        path: PathBuf,
        /// Every difference, sorted by name.
        problems: Vec<Mismatch>,
    },
    /// How far training was is not in the file, or not as expected.
    #[error("{}: not a checkpoint of a training run: {message}", path.display())]
    Note {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        message: String,
    },
    /// A tensor of a type that there is not here.
    #[error("{}: tensor `{name}` is {found}, which is not read", path.display())]
    ElementType {
        /// The file.
        path: PathBuf,
        /// Name of the tensor.
        name: String,
        /// Its type in the file.
        found: String,
    },
    /// A state variable whose name a safetensors file cannot hold.
    #[error("a tensor named `{0}` cannot be saved")]
    Name(String),
    /// The bytes of a tensor to be saved are not as many as its type has.
    #[error("tensor `{name}` of type {ty} comes with {got} bytes")]
    Bytes {
        /// Name of the tensor.
        name: String,
        /// Its type.
        ty: Box<TensorType>,
        /// Number of bytes given.
        got: usize,
    },
    /// The state refuses a value.
    #[error(transparent)]
    State(#[from] RuntimeError),
}

/// One difference between a checkpoint and the state it is loaded into.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Mismatch {
    /// A tensor of the state is not in the file.
    #[error("{} {expected} is missing", shown_name(name))]
    Missing {
        /// Name of the tensor.
        name: String,
        /// Its type in the state.
        expected: TensorType,
    },
    /// A tensor of the file is not in the state.
    #[error("{} {found} is not in the state", shown_name(name))]
    Extra {
        /// Name of the tensor.
        name: String,
        /// Its type in the file.
        found: String,
    },
    /// A tensor has another element type or other extents.
    #[error("{} is {found}, expected {expected}", shown_name(name))]
    Type {
        /// Name of the tensor.
        name: String,
        /// Its type in the file.
        found: String,
        /// Its type in the state.
        expected: TensorType,
    },
    /// A bool tensor holds a byte other than 0 and 1.
    #[error("{} is bool, but has the byte {byte} at position {position}", shown_name(name))]
    NotBool {
        /// Name of the tensor.
        name: String,
        /// Position of the byte.
        position: usize,
        /// The byte.
        byte: u8,
    },
}

impl Mismatch {
    fn name(&self) -> &str {
        match self {
            Self::Missing { name, .. } | Self::Extra { name, .. } => name,
            Self::Type { name, .. } | Self::NotBool { name, .. } => name,
        }
    }
}

fn list(problems: &[Mismatch]) -> String {
    let mut list: String = problems.iter().take(MAX_LISTED).map(|p| format!("\n  {p}")).collect();
    if problems.len() > MAX_LISTED {
        list.push_str(&format!("\n  and {} more", problems.len() - MAX_LISTED));
    }
    list
}

/// A tensor's name, which may be anything, in a message.
fn shown_name(name: &str) -> String {
    format!("`{}`", escaped(name, MAX_SHOWN))
}

/// A tensor to be saved.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tensor<'a> {
    /// Unique name.
    pub name: Cow<'a, str>,
    /// Element type.
    pub dtype: DType,
    /// Extents.
    pub dims: Cow<'a, [usize]>,
    /// The elements, row-major, little-endian; bools are bytes 0 and 1.
    pub bytes: Cow<'a, [u8]>,
}

impl Tensor<'_> {
    /// The elements as numbers.
    pub fn elements(&self) -> Elements {
        macro_rules! elements {
            ($t:ty) => {
                self.bytes.as_chunks().0.iter().map(|&b| <$t>::from_le_bytes(b)).collect::<Vec<$t>>().into()
            };
        }
        match self.dtype {
            DType::F32 => elements!(f32),
            DType::F64 => elements!(f64),
            DType::I32 => elements!(i32),
            DType::I64 => elements!(i64),
            DType::U8 => elements!(u8),
            DType::BF16 => elements!(bf16),
            DType::F16 => elements!(f16),
            DType::Bool => self.bytes.iter().map(|&b| b != 0).collect::<Vec<bool>>().into(),
        }
    }
}

impl View for &Tensor<'_> {
    fn dtype(&self) -> Dtype {
        match self.dtype {
            DType::F32 => Dtype::F32,
            DType::F64 => Dtype::F64,
            DType::I32 => Dtype::I32,
            DType::I64 => Dtype::I64,
            DType::Bool => Dtype::BOOL,
            DType::U8 => Dtype::U8,
            DType::BF16 => Dtype::BF16,
            DType::F16 => Dtype::F16,
        }
    }

    fn shape(&self) -> &[usize] {
        &self.dims
    }

    fn data(&self) -> Cow<'_, [u8]> {
        Cow::Borrowed(&self.bytes)
    }

    fn data_len(&self) -> usize {
        self.bytes.len()
    }
}

fn dtype_of(dtype: Dtype) -> Option<DType> {
    Some(match dtype {
        Dtype::F32 => DType::F32,
        Dtype::F64 => DType::F64,
        Dtype::I32 => DType::I32,
        Dtype::I64 => DType::I64,
        Dtype::BOOL => DType::Bool,
        Dtype::U8 => DType::U8,
        Dtype::BF16 => DType::BF16,
        Dtype::F16 => DType::F16,
        _ => return None,
    })
}

/// Writes tensors to a file, replacing it as a whole: they go to a temporary file in the same
/// directory, which is synchronized with the disk and then renamed. The same tensors give the same
/// bytes.
///
/// # Errors
/// [`CheckpointError::Io`], [`CheckpointError::Name`], [`CheckpointError::Bytes`]; the file then is
/// what it was before.
pub fn save_tensors(tensors: &[Tensor<'_>], path: impl AsRef<Path>) -> Result<(), CheckpointError> {
    save_all(tensors, None, path.as_ref())
}

fn save_all(tensors: &[Tensor<'_>], note: Option<&str>, path: &Path) -> Result<(), CheckpointError> {
    for t in tensors {
        if t.name == RESERVED {
            return Err(CheckpointError::Name(RESERVED.to_owned()));
        }
        let len = checked_product(&t.dims).map(|n| n * t.dtype.size_bytes());
        if len != Some(t.bytes.len()) {
            let ty = Box::new(TensorType::new(t.dtype, &*t.dims));
            return Err(CheckpointError::Bytes { name: t.name.to_string(), ty, got: t.bytes.len() });
        }
    }
    // One entry: the order of several would be a random one.
    let metadata = HashMap::from([(KEY.to_owned(), seal::seal(tensors, note))]);
    let file = safetensors::serialize(tensors.iter().map(|t| (&t.name, t)), Some(metadata))
        .map_err(|source| CheckpointError::Format { path: path.into(), source })?;
    replace(path, &file).map_err(|source| CheckpointError::Io { path: path.into(), source })
}

/// Writes a file as a whole or not at all.
pub(crate) fn replace(path: &Path, content: &[u8]) -> std::io::Result<()> {
    let dir = match path.parent() {
        Some(dir) if !dir.as_os_str().is_empty() => dir,
        _ => Path::new("."),
    };
    let mut builder = tempfile::Builder::new();
    #[cfg(unix)]
    {
        // As for any new file, the umask decides; temporary files are private by default.
        use std::os::unix::fs::PermissionsExt;
        builder.permissions(std::fs::Permissions::from_mode(0o666));
    }
    let mut file = builder.prefix(TEMPORARY).tempfile_in(dir)?;
    file.write_all(content)?;
    file.as_file().sync_all()?;
    file.persist(path)?;
    // The rename is on disk once the directory is.
    #[cfg(unix)]
    File::open(dir)?.sync_all()?;
    Ok(())
}

/// The tensors of a file that has exactly those of `expected`, in that order.
///
/// # Errors
/// [`CheckpointError::Io`], [`CheckpointError::Format`], [`CheckpointError::Damaged`],
/// [`CheckpointError::Mismatch`] with every difference.
pub fn load_tensors(
    expected: &[(String, DType, Vec<usize>)],
    path: impl AsRef<Path>,
) -> Result<Vec<Tensor<'static>>, CheckpointError> {
    load_all(expected, path.as_ref()).map(|(tensors, _)| tensors)
}

/// The tensors, and the note.
fn load_all(
    expected: &[(String, DType, Vec<usize>)],
    path: &Path,
) -> Result<(Vec<Tensor<'static>>, Option<String>), CheckpointError> {
    let file = read(path)?;
    let (file, note) = parse(&file, path)?;
    let mut problems = Vec::new();
    let mut found: BTreeMap<&str, _> = file.iter().collect();
    let mut tensors = Vec::new();
    for (name, dtype, dims) in expected {
        let ty = || TensorType::new(*dtype, dims.as_slice());
        let Some(view) = found.remove(name.as_str()) else {
            problems.push(Mismatch::Missing { name: name.clone(), expected: ty() });
            continue;
        };
        // Older writers have no type of their own for bools.
        let bytes_as_bools = *dtype == DType::Bool && view.dtype() == Dtype::U8;
        let fits = bytes_as_bools || dtype_of(view.dtype()) == Some(*dtype);
        if !fits || view.shape() != dims {
            let found = type_in_file(view.dtype(), view.shape());
            problems.push(Mismatch::Type { name: name.clone(), found, expected: ty() });
            continue;
        }
        let bytes = view.data();
        if *dtype == DType::Bool
            && let Some(position) = bytes.iter().position(|&b| b > 1)
        {
            problems.push(Mismatch::NotBool { name: name.clone(), position, byte: bytes[position] });
            continue;
        }
        tensors.push(Tensor {
            name: name.clone().into(),
            dtype: *dtype,
            dims: dims.clone().into(),
            bytes: bytes.to_vec().into(),
        });
    }
    for (name, view) in found {
        let found = type_in_file(view.dtype(), view.shape());
        problems.push(Mismatch::Extra { name: name.to_owned(), found });
    }
    if problems.is_empty() {
        return Ok((tensors, note));
    }
    problems.sort_by(|a, b| a.name().cmp(b.name()));
    Err(CheckpointError::Mismatch { path: path.into(), problems })
}

fn read(path: &Path) -> Result<Vec<u8>, CheckpointError> {
    std::fs::read(path).map_err(|source| CheckpointError::Io { path: path.into(), source })
}

/// The tensors of a file that is not damaged, and the note.
fn parse<'a>(file: &'a [u8], path: &Path) -> Result<(SafeTensors<'a>, Option<String>), CheckpointError> {
    let format = |source| CheckpointError::Format { path: path.into(), source };
    let (_, header) = SafeTensors::read_metadata(file).map_err(format)?;
    let tensors = SafeTensors::deserialize(file).map_err(format)?;
    let note = seal::open(header.metadata().as_ref(), &tensors)
        .map_err(|message| CheckpointError::Damaged { path: path.into(), message })?;
    Ok((tensors, note))
}

/// As in `F32[2, 3]`, with the names of safetensors for types that we lack.
fn type_in_file(dtype: Dtype, dims: &[usize]) -> String {
    if dims.len() > MAX_RANK {
        return format!("{dtype:?} of rank {}", dims.len());
    }
    match dtype_of(dtype) {
        Some(dtype) => TensorType::new(dtype, dims).to_string(),
        None => format!("{dtype:?}{dims:?}").to_lowercase(),
    }
}

/// Saves every tensor of a state. See [`save_tensors`].
///
/// # Errors
/// As [`save_tensors`].
pub fn save(state: &State, path: impl AsRef<Path>) -> Result<(), CheckpointError> {
    save_noted(state, None, path)
}

/// As [`save`], with a text beside the tensors.
///
/// # Errors
/// As [`save_tensors`].
pub fn save_noted(state: &State, note: Option<&str>, path: impl AsRef<Path>) -> Result<(), CheckpointError> {
    let tensor = |(entry, value): (&'_ graphc_runtime::StateEntry, Value<'_>)| Tensor {
        name: entry.name.clone().into(),
        dtype: entry.dtype,
        dims: entry.dims.clone().into(),
        bytes: value.as_bytes().to_vec().into(),
    };
    save_all(&state.iter().map(tensor).collect::<Vec<_>>(), note, path.as_ref())
}

/// Overwrites every tensor of a state with those of a file. On an error the state is unchanged.
///
/// # Errors
/// As [`load_tensors`].
pub fn load(state: &mut State, path: impl AsRef<Path>) -> Result<(), CheckpointError> {
    load_noted(state, path).map(drop)
}

/// As [`load`], and gives the text that [`save_noted`] wrote.
///
/// # Errors
/// As [`load_tensors`].
pub fn load_noted(state: &mut State, path: impl AsRef<Path>) -> Result<Option<String>, CheckpointError> {
    let expected: Vec<_> =
        state.layout().entries().iter().map(|e| (e.name.clone(), e.dtype, e.dims.clone())).collect();
    let (tensors, note) = load_all(&expected, path.as_ref())?;
    for t in tensors {
        copy(state, &t)?;
    }
    Ok(note)
}

fn copy(state: &mut State, t: &Tensor<'_>) -> Result<(), RuntimeError> {
    state.copy_from(&t.name, t.elements().value())
}

/// What a file holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Contents {
    /// The tensors, sorted by name.
    pub tensors: Vec<Tensor<'static>>,
    /// The text that [`save_noted`] wrote.
    pub note: Option<String>,
}

/// Reads a file of any tensors.
///
/// # Errors
/// [`CheckpointError::Io`], [`CheckpointError::Format`], [`CheckpointError::Damaged`],
/// [`CheckpointError::ElementType`].
pub fn open(path: impl AsRef<Path>) -> Result<Contents, CheckpointError> {
    let path = path.as_ref();
    let file = read(path)?;
    let (file, note) = parse(&file, path)?;
    let mut tensors = Vec::new();
    for (name, view) in file.iter() {
        let dtype = dtype_of(view.dtype()).ok_or_else(|| CheckpointError::ElementType {
            path: path.into(),
            name: name.to_owned(),
            found: type_in_file(view.dtype(), view.shape()),
        })?;
        tensors.push(Tensor {
            name: name.to_owned().into(),
            dtype,
            dims: view.shape().to_vec().into(),
            bytes: view.data().to_vec().into(),
        });
    }
    tensors.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(Contents { tensors, note })
}

/// Overwrites every tensor of a state with those of a file that may hold more, such as the slots of an optimizer that
/// a state for inference has not. On an error the state is unchanged.
///
/// # Errors
/// As [`load_tensors`], save that a tensor too many is none.
pub fn load_from_larger(state: &mut State, path: impl AsRef<Path>) -> Result<(), CheckpointError> {
    let path = path.as_ref();
    let contents = open(path)?;
    let mut problems = Vec::new();
    let mut found = Vec::new();
    for e in state.layout().entries() {
        let expected = e.tensor_type();
        match contents.tensors.iter().find(|t| t.name == e.name.as_str()) {
            Some(t) if t.dtype == e.dtype && *t.dims == *e.dims => found.push(t),
            Some(t) => problems.push(Mismatch::Type {
                name: e.name.clone(),
                found: TensorType::new(t.dtype, &*t.dims).to_string(),
                expected,
            }),
            None => problems.push(Mismatch::Missing { name: e.name.clone(), expected }),
        }
    }
    if !problems.is_empty() {
        problems.sort_by(|a, b| a.name().cmp(b.name()));
        return Err(CheckpointError::Mismatch { path: path.into(), problems });
    }
    Ok(found.into_iter().try_for_each(|t| copy(state, t))?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use graphc_runtime::StateLayout;
    use proptest::prelude::*;
    use std::sync::Arc;

    type Entry = (&'static str, DType, &'static [usize]);

    const ENTRIES: [Entry; 6] = [
        ("a/weight", DType::F32, &[2, 3]),
        ("mask", DType::Bool, &[3]),
        ("optimizer/step", DType::I64, &[]),
        ("wide", DType::F64, &[2]),
        ("labels", DType::I32, &[2]),
        ("empty", DType::F32, &[0, 4]),
    ];

    fn zeros(entries: &[Entry]) -> State {
        let entries = entries.iter().map(|&(n, d, dims)| (n.to_owned(), d, dims.to_vec()));
        State::zeros(Arc::new(StateLayout::new(entries).unwrap())).unwrap()
    }

    fn filled() -> State {
        let mut state = zeros(&ENTRIES);
        state.get_mut::<f32>("a/weight").unwrap().copy_from_slice(&[
            1.5,
            -0.0,
            f32::NAN,
            f32::INFINITY,
            1e-45,
            7.0,
        ]);
        state.get_mut::<bool>("mask").unwrap()[1] = true;
        state.copy_from("optimizer/step", &(1i64 << 40)).unwrap();
        state.get_mut::<f64>("wide").unwrap()[0] = 0.1;
        state.get_mut::<i32>("labels").unwrap()[1] = -5;
        state
    }

    fn bytes(state: &State) -> Vec<Vec<u8>> {
        state.iter().map(|(_, v)| v.as_bytes().to_vec()).collect()
    }

    #[test]
    fn bits_round_trip() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("c.safetensors");
        let state = filled();
        save(&state, &path).unwrap();
        let first = std::fs::read(&path).unwrap();
        let mut loaded = zeros(&ENTRIES);
        load(&mut loaded, &path).unwrap();
        assert_eq!(bytes(&loaded), bytes(&state));
        // Saving again replaces the file by the same bytes and leaves nothing else behind.
        save(&loaded, &path).unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), first);
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1);
    }

    #[test]
    fn all_differences_are_listed_and_nothing_is_loaded() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("c.safetensors");
        save(&filled(), &path).unwrap();
        let mut other = zeros(&[
            ("a/weight", DType::F32, &[3, 2]),
            ("b", DType::I32, &[]),
            ("mask", DType::Bool, &[3]),
            ("optimizer/step", DType::I32, &[]),
            ("wide", DType::F64, &[2]),
            ("empty", DType::F32, &[0, 4]),
        ]);
        let error = load(&mut other, &path).unwrap_err().to_string();
        assert_eq!(
            error.replace(&dir.path().display().to_string(), "DIR"),
            "DIR/c.safetensors: the checkpoint does not fit:\
             \n  `a/weight` is f32[2, 3], expected f32[3, 2]\
             \n  `b` i32[] is missing\
             \n  `labels` i32[2] is not in the state\
             \n  `optimizer/step` is i64[], expected i32[]"
        );
        assert!(bytes(&other).concat().iter().all(|&b| b == 0));
    }

    #[test]
    fn tensors_of_every_type_round_trip() {
        use DType::{BF16, Bool, F16, F32, F64, I32, I64, U8};
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("c.safetensors");
        let tensors = [F64, I64, F32, I32, BF16, F16, Bool, U8].map(|dtype| Tensor {
            name: dtype.to_string().into(),
            dtype,
            dims: vec![2].into(),
            bytes: vec![1; 2 * dtype.size_bytes()].into(),
        });
        save_tensors(&tensors, &path).unwrap();
        let expected: Vec<_> =
            tensors.iter().map(|t| (t.name.to_string(), t.dtype, t.dims.to_vec())).collect();
        assert_eq!(load_tensors(&expected, &path).unwrap(), tensors);
    }

    #[test]
    fn long_lists_of_differences_are_cut() {
        let missing = |i: usize| Mismatch::Missing {
            name: format!("w{i}"),
            expected: TensorType::new(DType::F32, &[1usize][..]),
        };
        let lines = |n: usize| list(&(0..n).map(missing).collect::<Vec<_>>());
        assert_eq!(lines(MAX_LISTED).lines().last(), Some("  `w19` f32[1] is missing"));
        assert_eq!(lines(MAX_LISTED + 2).lines().last(), Some("  and 2 more"));
    }

    #[test]
    fn a_file_may_hold_more_than_a_smaller_state() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("c.safetensors");
        save_noted(&filled(), Some("a note"), &path).unwrap();
        let contents = open(&path).unwrap();
        assert_eq!(contents.note.as_deref(), Some("a note"));
        let names: Vec<_> = contents.tensors.iter().map(|t| &*t.name).collect();
        assert!(names.is_sorted() && names.len() == ENTRIES.len(), "{names:?}");
        let (name, dtype, dims) = ENTRIES[0];
        let mut smaller = zeros(&[(name, dtype, dims)]);
        load_from_larger(&mut smaller, &path).unwrap();
        assert_eq!(smaller.value(name).unwrap().as_bytes(), filled().value(name).unwrap().as_bytes());
        let mut other = zeros(&[(name, DType::I64, &[7]), ("lost", DType::F32, &[2])]);
        let error = load_from_larger(&mut other, &path).unwrap_err().to_string();
        assert!(error.contains("`lost` f32[2] is missing") && error.contains("expected i64[7]"), "{error}");
    }

    fn write(dir: &tempfile::TempDir, tensors: &[(&str, Dtype, &[usize], &[u8])]) -> PathBuf {
        let views = tensors
            .iter()
            .map(|&(n, d, s, b)| (n, safetensors::tensor::TensorView::new(d, s.to_vec(), b).unwrap()));
        let path = dir.path().join("c.safetensors");
        std::fs::write(&path, safetensors::serialize(views, None).unwrap()).unwrap();
        path
    }

    #[test]
    fn bools_may_be_bytes_but_only_zero_and_one() {
        let dir = tempfile::tempdir().unwrap();
        let mut state = zeros(&[("mask", DType::Bool, &[3])]);
        load(&mut state, write(&dir, &[("mask", Dtype::U8, &[3], &[1, 0, 1])])).unwrap();
        assert_eq!(state.get::<bool>("mask").unwrap(), [true, false, true]);
        let error = load(&mut state, write(&dir, &[("mask", Dtype::BOOL, &[3], &[1, 0, 7])])).unwrap_err();
        assert!(
            error.to_string().ends_with("\n  `mask` is bool, but has the byte 7 at position 2"),
            "{error}"
        );
        let error = load(&mut state, write(&dir, &[("mask", Dtype::F16, &[3], &[0; 6])])).unwrap_err();
        assert!(error.to_string().ends_with("\n  `mask` is f16[3], expected bool[3]"), "{error}");
    }

    #[test]
    fn what_cannot_be_saved_leaves_the_file_alone() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("c.safetensors");
        std::fs::write(&path, "old").unwrap();
        let tensor = |name: &'static str, bytes: usize| Tensor {
            name: name.into(),
            dtype: DType::F32,
            dims: vec![2].into(),
            bytes: vec![0; bytes].into(),
        };
        let check = |t: Tensor<'_>, expected: &str| {
            assert_eq!(save_tensors(&[t], &path).unwrap_err().to_string(), expected);
        };
        check(tensor("__metadata__", 8), "a tensor named `__metadata__` cannot be saved");
        check(tensor("w", 7), "tensor `w` of type f32[2] comes with 7 bytes");
        assert_eq!(std::fs::read(&path).unwrap(), b"old");
        assert!(matches!(
            save_tensors(&[tensor("w", 8)], dir.path().join("none/c")),
            Err(CheckpointError::Io { .. })
        ));
        assert!(matches!(load(&mut zeros(&[]), dir.path().join("none")), Err(CheckpointError::Io { .. })));
        assert!(matches!(load(&mut zeros(&[]), &path), Err(CheckpointError::Format { .. })));
    }

    /// Every bit of a small file, then parts and bits of one of many pages.
    #[test]
    fn no_damage_goes_unseen() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("c");
        let refused = |file: &[u8], state: &mut State, what: String| {
            std::fs::write(&path, file).unwrap();
            let error = load_noted(state, &path).expect_err(&what);
            let damage = matches!(
                error,
                CheckpointError::Format { .. }
                    | CheckpointError::Damaged { .. }
                    | CheckpointError::Note { .. }
            );
            assert!(damage && error.to_string().len() < 8 << 10, "{what}: {error}");
            assert!(bytes(state).concat().iter().all(|&b| b == 0), "{what}: something was loaded");
        };
        save_noted(&filled(), Some("{\"step\":7}"), &path).unwrap();
        let small = std::fs::read(&path).unwrap();
        let mut state = zeros(&ENTRIES);
        for bit in 0..small.len() * 8 {
            let mut file = small.clone();
            file[bit / 8] ^= 1 << (bit % 8);
            refused(&file, &mut state, format!("bit {bit}"));
        }
        std::fs::write(&path, &small).unwrap();
        assert_eq!(load_noted(&mut state, &path).unwrap().unwrap(), "{\"step\":7}");

        let entries = [("w", DType::F32, &[64, 300][..]), ("v", DType::F64, &[2000])];
        let mut state = zeros(&entries);
        for (i, w) in state.get_mut::<f32>("w").unwrap().iter_mut().enumerate() {
            *w = i as f32;
        }
        save(&state, &path).unwrap();
        let large = std::fs::read(&path).unwrap();
        let mut state = zeros(&entries);
        for len in (0..large.len()).step_by(4096).chain([large.len() - 1]) {
            refused(&large[..len], &mut state, format!("{len} bytes"));
        }
        let mut random = 1u64;
        for _ in 0..1000 {
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            let bit = (random >> 16) as usize % (large.len() * 8);
            let mut file = large.clone();
            file[bit / 8] ^= 1 << (bit % 8);
            refused(&file, &mut state, format!("bit {bit}"));
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]
        #[test]
        fn damaged_files_never_panic(
            edits in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..8),
            cut in proptest::option::of(any::<prop::sample::Index>()),
        ) {
            let dir = tempfile::tempdir().unwrap();
            let path = dir.path().join("c");
            save(&filled(), &path).unwrap();
            let mut file = std::fs::read(&path).unwrap();
            for (at, byte) in edits {
                let at = at.index(file.len());
                file[at] = byte;
            }
            if let Some(cut) = cut {
                file.truncate(cut.index(file.len()));
            }
            std::fs::write(&path, file).unwrap();
            let _ = load(&mut zeros(&ENTRIES), &path);
        }
    }
}
