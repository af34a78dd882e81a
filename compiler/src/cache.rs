//! Compiled code in files, so that a program which is started again need not compile.
//!
//! A file has the key of what was compiled: a digest of the function with its places in the source, of the state's layout,
//! the bindings, the options, the CPU's features, and of the program that compiled it. A program that is built again thus
//! compiles again, with whichever version of the compiler it has. What is damaged, cut off, of another key or writable by
//! others is not used, and replaced.

use crate::codegen::{self, Image};
use crate::compile::{CompileOptions, Frame};
use graphc_ir::{Bindings, Function};
use graphc_runtime::StateLayout;
use sha2::{Digest, Sha256};
use std::fs::{self, File};
use std::io::{self, BufWriter, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::LazyLock;
use std::time::SystemTime;

/// First bytes of a file; another form has another number.
const MAGIC: [u8; 8] = *b"graphc\x00\x01";
const EXTENSION: &str = "code";
/// Largest size of all files; the ones that were used longest ago make room.
const LARGEST: u64 = 256 << 20;

/// A folder that keeps compiled code, for [`CompileOptions::cache`]. Any number of programs may use it at a time.
///
/// ```
/// use graphc_compiler::{CodeCache, CompileOptions};
///
/// let folder = std::env::temp_dir().join("graphc-code");
/// let options = CompileOptions { cache: Some(CodeCache::new(folder)), ..CompileOptions::default() };
/// ```
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct CodeCache {
    folder: PathBuf,
}

impl CodeCache {
    /// Name of the environment variable that [`from_environment`](Self::from_environment) reads.
    pub const VARIABLE: &str = "GRAPHC_CACHE";

    /// A cache in this folder, which is made when there is something to keep. It must be the user's own: who can write to
    /// it decides what code is run.
    pub fn new(folder: impl Into<PathBuf>) -> Self {
        Self { folder: folder.into() }
    }

    /// A cache in the folder that the environment variable `GRAPHC_CACHE` names, if it is set.
    pub fn from_environment() -> Option<Self> {
        std::env::var_os(Self::VARIABLE).filter(|v| !v.is_empty()).map(Self::new)
    }

    /// The folder.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    fn path(&self, key: &Key) -> PathBuf {
        let hex: String = key.0.iter().map(|b| format!("{b:02x}")).collect();
        self.folder.join(hex).with_extension(EXTENSION)
    }

    /// What was stored under this key, if it is there and whole.
    pub(crate) fn load(&self, key: &Key) -> Option<(Frame, Image)> {
        let mut file = File::open(self.path(key)).ok()?;
        let metadata = file.metadata().ok()?;
        if !is_private(&metadata) || metadata.len() > LARGEST {
            return None;
        }
        let mut bytes = Vec::with_capacity(metadata.len() as usize);
        file.read_to_end(&mut bytes).ok()?;
        let rest = bytes.strip_prefix(&MAGIC)?.strip_prefix(&key.0)?;
        let (digest, content) = rest.split_first_chunk::<32>()?;
        if *digest != <[u8; 32]>::from(Sha256::digest(content)) {
            return None;
        }
        let stored = postcard::from_bytes(content).ok()?;
        // Files that were not used for long make room first; where that is not known, older ones.
        let _ = file.set_modified(SystemTime::now());
        Some(stored)
    }

    /// Keeps what is needed to make an executable again. On failure there is nothing to keep.
    pub(crate) fn store(&self, key: &Key, frame: &Frame, image: &Image) {
        let write = || -> io::Result<()> {
            let content = postcard::to_stdvec(&(frame, image)).map_err(io::Error::other)?;
            make_private(&self.folder)?;
            let mut file = tempfile::NamedTempFile::new_in(&self.folder)?;
            for part in [&MAGIC[..], &key.0, &Sha256::digest(&content), &content] {
                file.write_all(part)?;
            }
            file.persist(self.path(key))?;
            self.make_room(LARGEST)
        };
        // Compiling has succeeded, and will again.
        let _ = write();
    }

    fn make_room(&self, largest: u64) -> io::Result<()> {
        let mut files = Vec::new();
        for entry in fs::read_dir(&self.folder)? {
            let path = entry?.path();
            if path.extension().is_some_and(|e| e == EXTENSION)
                && let Ok(metadata) = path.metadata()
            {
                files.push((metadata.modified()?, metadata.len(), path));
            }
        }
        files.sort();
        let mut size: u64 = files.iter().map(|f| f.1).sum();
        for (_, bytes, path) in files {
            if size <= largest {
                break;
            }
            fs::remove_file(path)?;
            size -= bytes;
        }
        Ok(())
    }
}

/// Under which code is kept.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Key([u8; 32]);

impl Key {
    /// The key of a function that is compiled like this; none if the running program cannot be told from others.
    pub(crate) fn of(
        function: &Function,
        layout: &StateLayout,
        bindings: &Bindings,
        options: &CompileOptions,
    ) -> Option<Self> {
        static HERE: LazyLock<Option<String>> =
            LazyLock::new(|| Some(format!("{} {}", this_program().ok()?, codegen::features().ok()?)));
        let CompileOptions {
            passes,
            max_threads,
            isa,
            keep_code: _,
            budget,
            nan_guard,
            poison,
            fence,
            cache: _,
        } = options;
        let mut digest = BufWriter::new(Hashing(Sha256::new()));
        // The text of a value says all of it. Every part ends where the next begins, by its form.
        write!(
            digest,
            "{}\n{:?}\n",
            HERE.as_ref()?,
            (passes, max_threads, isa, budget, nan_guard, poison, fence)
        )
        .ok()?;
        let bindings: Vec<_> = bindings.iter().collect();
        write!(digest, "{bindings:?}\n{:?}\n{function:?}", layout.entries()).ok()?;
        Some(Self(digest.into_inner().ok()?.0.finalize().into()))
    }
}

/// What tells this program from others, and from itself before it was built again.
fn this_program() -> io::Result<String> {
    let program = std::env::current_exe()?;
    let metadata = fs::metadata(&program)?;
    let version = env!("CARGO_PKG_VERSION");
    Ok(format!("{version} {} {} {:?}", program.display(), metadata.len(), metadata.modified()?))
}

struct Hashing(Sha256);

impl Write for Hashing {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.update(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(unix)]
fn is_private(metadata: &fs::Metadata) -> bool {
    use std::os::unix::fs::MetadataExt;
    metadata.uid() == rustix::process::geteuid().as_raw() && metadata.mode() & 0o022 == 0
}

#[cfg(not(unix))]
fn is_private(_: &fs::Metadata) -> bool {
    true
}

fn make_private(folder: &Path) -> io::Result<()> {
    let mut builder = fs::DirBuilder::new();
    builder.recursive(true);
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder.create(folder)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::compile::{compile, state_layout};
    use graphc_ir::{DType, Initializer, Module, ModuleBuilder, shape};
    use graphc_runtime::{Elements, RunContext, RuntimeError, State, ThreadPool};
    use std::sync::Arc;

    /// A product for each step of a loop, an exponential, a lookup that can fail and a constant.
    fn module() -> Module {
        let m = ModuleBuilder::new("m");
        let one = Initializer::Constant(1.0);
        let states: Vec<_> = (0..9).map(|i| m.state(&format!("s{i}"), DType::F32, [2], one)).collect();
        m.function("f", |f| {
            states.iter().for_each(|s| f.update(s, f.read(s) * 2.0));
            let x = f.input("x", DType::F32, shape!["T", "N"]);
            let w = f.input("w", DType::F32, shape!["N", "N"]);
            let row = f.input("row", DType::I32, [2]);
            let zero = f.full(DType::F32, shape!["N"], 0.5);
            let h = f.scan(&[zero], &[x], |_, h, x| (vec![(h[0].dot(w) + x[0]).tanh()], vec![])).carries[0];
            f.output("h", h.exp());
            // Kernels that share code.
            f.output("deep", (0..4).fold(x, |x, _| x.dot(w).tanh()));
            f.output("rows", x.take(row, 0));
        });
        m.build().unwrap()
    }

    fn run(options: &CompileOptions, row: i32) -> Result<Vec<Elements>, RuntimeError> {
        let module = module();
        let bindings = Bindings::from_iter([("T", 6), ("N", 24)]);
        let executable = compile(&module, "f", &bindings, options).unwrap();
        let mut cx = RunContext::new(&executable, Arc::new(ThreadPool::new(2)?))?;
        let mut state = State::zeros(executable.state_layout().clone())?;
        let numbers = |n: usize| Elements::F32((0..n).map(|i| (i as f32 * 0.37).sin()).collect());
        let inputs = [numbers(6 * 24), numbers(24 * 24), Elements::I32(vec![3, row])];
        let ports = executable.outputs().iter();
        let mut outputs: Vec<Elements> = ports.map(|p| Elements::zeros(p.dtype, p.num_elements())).collect();
        let inputs: Vec<_> = inputs.iter().map(Elements::value).collect();
        let mut slots: Vec<_> = outputs.iter_mut().map(Elements::value_mut).collect();
        executable.run(&mut cx, &mut state, &inputs, &mut slots)?;
        Ok(outputs)
    }

    fn key(bindings: &Bindings, options: &CompileOptions) -> Key {
        let module = module();
        Key::of(module.function("f").unwrap(), &state_layout(&module).unwrap(), bindings, options).unwrap()
    }

    fn files(cache: &CodeCache) -> Vec<PathBuf> {
        let mut files: Vec<_> = fs::read_dir(&cache.folder).unwrap().map(|e| e.unwrap().path()).collect();
        files.sort();
        files
    }

    fn with(cache: &CodeCache, isa: crate::Isa) -> CompileOptions {
        CompileOptions { max_threads: 2, cache: Some(cache.clone()), isa, ..CompileOptions::default() }
    }

    #[test]
    fn code_from_a_file_gives_the_same_bits_and_errors() {
        let dir = tempfile::tempdir().unwrap();
        for isa in crate::Isa::ALL.into_iter().filter(|isa| isa.is_available()) {
            let cache = CodeCache::new(dir.path().join(isa.to_string()));
            let options = with(&cache, isa);
            let without = CompileOptions { cache: None, ..options.clone() };
            let expected = (run(&without, 5).unwrap(), run(&without, 6).unwrap_err().to_string());
            for _ in 0..2 {
                assert_eq!(run(&options, 5).unwrap(), expected.0);
                assert_eq!(run(&options, 6).unwrap_err().to_string(), expected.1);
                assert_eq!(files(&cache).len(), 1, "compiled once");
            }
        }
    }

    #[test]
    fn whatever_code_depends_on_has_a_key_of_its_own() {
        let options = CompileOptions { max_threads: 2, ..CompileOptions::default() };
        let bindings = Bindings::from_iter([("T", 6), ("N", 24)]);
        let same = key(&bindings, &options);
        assert_eq!(same, key(&bindings, &options));
        assert_ne!(same, key(&Bindings::from_iter([("T", 7), ("N", 24)]), &options));
        let another = crate::Isa::ALL.into_iter().find(|&isa| isa != options.isa).unwrap();
        for other in [
            CompileOptions { max_threads: 1, ..options.clone() },
            CompileOptions { budget: Some(1 << 20), ..options.clone() },
            CompileOptions { isa: another, ..options.clone() },
            CompileOptions { passes: crate::PassOptions::at(crate::OptLevel::O1), ..options.clone() },
        ] {
            assert!(
                same != key(&bindings, &other)
                    || other.isa == options.isa && other.isa == crate::Isa::default()
            );
        }
        // A constant that differs in its sign alone.
        let constant = |value: f64| {
            let m = ModuleBuilder::new("m");
            m.function("f", |f| f.output("y", f.full(DType::F32, [2], value)));
            let module = m.build().unwrap();
            let layout = state_layout(&module).unwrap();
            Key::of(&module.functions[0], &layout, &Bindings::new(), &options)
        };
        assert!(constant(0.0) == constant(0.0) && constant(0.0) != constant(-0.0));
    }

    #[test]
    fn files_that_are_not_sound_are_replaced() {
        let dir = tempfile::tempdir().unwrap();
        let cache = CodeCache::new(dir.path().join("code"));
        let options = with(&cache, crate::Isa::default());
        let expected = run(&options, 5).unwrap();
        let [path] = &*files(&cache) else { panic!("one file") };
        let key = key(&Bindings::from_iter([("T", 6), ("N", 24)]), &options);
        let sound = fs::read(path).unwrap();
        assert!(cache.load(&key).is_some());
        let flips = (0..sound.len()).step_by(sound.len() / 97 + 1);
        let flipped = flips.map(|at| {
            let mut bytes = sound.clone();
            bytes[at] ^= 1 << (at % 8);
            bytes
        });
        let cut = [0, 7, 8, 40, 72, sound.len() - 1].map(|n| sound[..n].to_vec());
        for (i, bytes) in flipped.chain(cut).chain([b"\x7fELF".repeat(100)]).enumerate() {
            fs::write(path, bytes).unwrap();
            assert!(cache.load(&key).is_none(), "{i}");
        }
        assert_eq!(run(&options, 5).unwrap(), expected);
        assert!(cache.load(&key).is_some(), "replaced");
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt;
            fs::set_permissions(path, fs::Permissions::from_mode(0o666)).unwrap();
            assert!(cache.load(&key).is_none(), "others may have written it");
        }
        // Neither a folder that cannot be made nor a file that cannot be replaced stops compiling.
        fs::remove_file(path).unwrap();
        fs::create_dir(path).unwrap();
        assert_eq!(run(&options, 5).unwrap(), expected);
        fs::write(dir.path().join("file"), "").unwrap();
        let nowhere = with(&CodeCache::new(dir.path().join("file")), options.isa);
        assert_eq!(run(&nowhere, 5).unwrap(), expected);
    }

    #[test]
    fn what_was_used_longest_ago_makes_room() {
        let dir = tempfile::tempdir().unwrap();
        let cache = CodeCache::new(dir.path());
        for (name, age) in [("a", 30), ("b", 20), ("c", 10)] {
            let path = dir.path().join(name).with_extension(EXTENSION);
            fs::write(&path, [0; 100]).unwrap();
            let then = SystemTime::now() - std::time::Duration::from_secs(age);
            File::options().append(true).open(path).unwrap().set_modified(then).unwrap();
        }
        cache.make_room(250).unwrap();
        assert_eq!(files(&cache).len(), 2);
        cache.make_room(100).unwrap();
        assert!(files(&cache).iter().all(|p| p.ends_with("c.code")));
    }
}
