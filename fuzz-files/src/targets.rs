//! The readers, with sound files of each format.

use graphc_compiler::{CompileOptions, compile};
use graphc_ir::{Bindings, DType, Dim, Module, ModuleBuilder, Op, StaticType, verify};
use graphc_runtime::Elements;
use graphc_train::checkpoint::{Tensor, load_tensors, save_tensors};
use graphc_train::data::{Csv, CsvRows, Idx, Row, Source, load_npy, load_npz, save_npy, save_npz};
use proptest::strategy::{Strategy, ValueTree};
use proptest::test_runner::TestRunner;
use std::path::Path;
use std::time::Duration;

/// One reader of files.
pub struct Target {
    /// Name on the command line.
    pub name: &'static str,
    /// Sound files, all of which are read.
    pub seeds: fn() -> Vec<Vec<u8>>,
    /// What the format knows.
    pub words: &'static [&'static str],
    /// Reads a file, which it may put into the directory; gives the message of the error.
    pub read: fn(&[u8], &Path) -> Result<(), String>,
    /// Longest time that one file may take, in a release build.
    pub time: Duration,
}

const TIME: Duration = Duration::from_millis(100);

/// Name of the mutated file in messages.
const FILE: &str = "hostile";

/// All readers.
pub const TARGETS: [Target; 7] = [
    Target { name: "gir", seeds: modules, words: WORDS, read: gir, time: TIME },
    // Compiling is bounded by the size of the module, not by the time of reading a file.
    Target {
        name: "compile",
        seeds: modules,
        words: WORDS,
        read: compile_all,
        time: Duration::from_millis(2000),
    },
    Target { name: "safetensors", seeds: checkpoints, words: JSON_WORDS, read: safetensors, time: TIME },
    Target { name: "idx", seeds: idx_files, words: &[], read: idx, time: TIME },
    Target { name: "npy", seeds: npy_files, words: NPY_WORDS, read: npy, time: TIME },
    Target { name: "npz", seeds: npz_files, words: NPY_WORDS, read: npz, time: TIME },
    Target { name: "csv", seeds: csv_files, words: CSV_WORDS, read: csv, time: TIME },
];

const WORDS: &[&str] = &[
    "graphc 1\n",
    "module @m\n",
    "param %",
    "state %",
    "fn @",
    "region @",
    "update %",
    "return ",
    "result",
    "scan",
    "while",
    "cond",
    "call",
    "iota",
    "broadcast",
    "reshape",
    "constant",
    "splat(",
    "nan(0x7fc00001)",
    "inf",
    "-inf",
    "1e308",
    "-0.0",
    "f32[",
    "bf16[",
    "i64[1099511627776]",
    "bool[]",
    "f32[0]",
    "f32[1, 1, 1, 1, 1, 1, 1, 1, 1]",
    "{",
    "}",
    "[",
    "]",
    "(",
    ")",
    "\"",
    "\\u{0}",
    "\\u{10ffff}",
    "%",
    "@",
    "=",
    ":",
    ",",
    ";",
    "\n",
    "\r\n",
    "B",
    "2*B+1",
    "B/3",
    "B*B*B*B*B*B*B*B*B",
    "axes = [0, 0]",
    "shape = [1099511627776]",
    "-1",
    "9223372036854775807",
    "4096",
];
const JSON_WORDS: &[&str] = &[
    "{",
    "}",
    "[",
    "]",
    "\"",
    ":",
    ",",
    "\"dtype\":\"F32\"",
    "\"shape\":[]",
    "\"data_offsets\":[0,0]",
    "F64",
    "BOOL",
    "__metadata__",
    "\\u0000",
    "null",
    "1e9",
    "-1",
    "18446744073709551615",
    "graphc",
];
const NPY_WORDS: &[&str] = &[
    "{",
    "}",
    "(",
    ")",
    "[",
    "'",
    "\"",
    ",",
    ":",
    "'descr'",
    "'fortran_order'",
    "'shape'",
    "True",
    "False",
    "'<f4'",
    "'<f8'",
    "'|b1'",
    "'|O'",
    "\\x00",
    "1L",
    "-1",
    "1e9",
    "(4294967295, 4294967295, 4294967295)",
    "(0,)",
    "None",
];
const CSV_WORDS: &[&str] = &[
    ",",
    "\"",
    "\"\"",
    "\n",
    "\r",
    "\r\n",
    "nan",
    "inf",
    "-1e400",
    "1e39",
    "\u{1b}[31m",
    "\u{feff}",
    "a",
    "",
];

fn said(error: impl ToString) -> String {
    error.to_string()
}

/// A module for each operation, and what they lack: state, regions, named dimensions.
fn modules() -> Vec<Vec<u8>> {
    let mut runner = TestRunner::deterministic();
    let mut all = Vec::new();
    for (name, samples) in Op::all_samples() {
        let Some(samples) = samples else { continue };
        let sample = samples.new_tree(&mut runner).expect("samples are drawn without refusal").current();
        let m = ModuleBuilder::new(name);
        m.function("f", |f| {
            let types = sample.types();
            let x: Vec<_> = (types.into_iter().enumerate())
                .map(|(i, t)| f.input(&format!("x{i}"), t.dtype, t.shape))
                .collect();
            f.output("y", f.push(sample.op.clone(), &x));
        });
        all.push(m.build().expect("samples are legal").to_string().into_bytes());
    }
    all.push(include_bytes!("../../examples/mlp.gir").to_vec());
    all.push(include_bytes!("../../examples/cnn.gir").to_vec());
    all.push(include_bytes!("../seeds/regions.gir").to_vec());
    all
}

fn parsed(file: &[u8]) -> Result<Module, String> {
    let module = Module::parse_bytes(FILE, file).map_err(said)?;
    verify(&module).map_err(|e| format!("{FILE}: {e}"))?;
    Ok(module)
}

fn gir(file: &[u8], _: &Path) -> Result<(), String> {
    let module = parsed(file)?;
    let text = module.to_string();
    let again = Module::parse("again", &text).expect("what is written parses");
    assert!(again == module && again.to_string() == text, "what is written parses to an equal module");
    Ok(())
}

/// Elements of all values of a function up to which it is interpreted.
const INTERPRETED: usize = 1 << 12;

fn compile_all(file: &[u8], _: &Path) -> Result<(), String> {
    let module = parsed(file)?;
    for f in &module.functions {
        let names =
            f.graph.ids().flat_map(|id| f.graph.ty(id).shape.iter().flat_map(Dim::names).collect::<Vec<_>>());
        let bindings = names.fold(Bindings::new(), |b, name| b.with(&name, 6));
        let options = CompileOptions { max_threads: 2, ..CompileOptions::default() };
        let executable =
            compile(&module, &f.name, &bindings, &options).map_err(|e| format!("{FILE}: {e}"))?;
        assert_eq!(executable.outputs().len(), f.outputs.len());
        interpret(f, &bindings)?;
    }
    Ok(())
}

/// Small functions without loops are interpreted too, on zeros.
fn interpret(f: &graphc_ir::Function, bindings: &Bindings) -> Result<(), String> {
    let bound = f.bind(bindings).map_err(|e| format!("{FILE}: {e}"))?;
    let g = &bound.graph;
    let elements = |id| g.ty(id).shape.num_elements().unwrap_or(usize::MAX);
    let total = g.ids().fold(0usize, |n, id| n.saturating_add(elements(id)));
    if total > INTERPRETED || g.ids().any(|id| !g.op(id).regions().is_empty()) {
        return Ok(());
    }
    let zero = |ty: &graphc_ir::TensorType| {
        let ty = StaticType::of(ty).expect("it is bound");
        graphc_ir::Literal::full(&ty.dims, graphc_ir::Scalar::from_bits(ty.dtype, 0))
    };
    let inputs: Vec<_> = bound.inputs.iter().map(|&i| zero(g.ty(i))).collect();
    let state = |id| {
        let reads = |n: &graphc_ir::NodeId| matches!(g.op(*n), Op::ReadState(r) if r.state == id);
        zero(g.ty(g.ids().find(reads).expect("it is read")))
    };
    graphc_ir::evaluate(&bound, &inputs, state).map(drop).map_err(|e| format!("{FILE}: {e}"))
}

const TENSORS: [(&str, DType, &[usize]); 4] = [
    ("dense/weight", DType::F32, &[2, 3]),
    ("mask", DType::Bool, &[3]),
    ("optimizer/step", DType::I64, &[]),
    ("empty", DType::F64, &[0, 4]),
];

fn checkpoints() -> Vec<Vec<u8>> {
    let dir = tempfile::tempdir().expect("a directory for temporary files");
    let path = dir.path().join(FILE);
    let tensor = |(name, dtype, dims): (&'static str, DType, &'static [usize])| Tensor {
        name: name.into(),
        dtype,
        dims: dims.into(),
        bytes: vec![1; dims.iter().product::<usize>() * dtype.size_bytes()].into(),
    };
    save_tensors(&TENSORS.map(tensor), &path).expect("it is written");
    vec![std::fs::read(&path).expect("it is there")]
}

/// The file in the directory.
fn stored(file: &[u8], dir: &Path) -> std::path::PathBuf {
    let path = dir.join(FILE);
    std::fs::write(&path, file).expect("temporary files can be written");
    path
}

fn safetensors(file: &[u8], dir: &Path) -> Result<(), String> {
    let expected = TENSORS.map(|(name, dtype, dims)| (name.to_owned(), dtype, dims.to_vec()));
    let tensors = load_tensors(&expected, stored(file, dir)).map_err(said)?;
    for (tensor, (name, dtype, dims)) in tensors.iter().zip(&expected) {
        assert_eq!((&*tensor.name, tensor.dtype, &*tensor.dims), (name.as_str(), *dtype, dims.as_slice()));
    }
    Ok(())
}

fn idx_files() -> Vec<Vec<u8>> {
    let header = |dims: &[u8]| {
        let mut file = vec![0, 0, 8, dims.len() as u8];
        dims.iter().for_each(|&d| file.extend([0, 0, 0, d]));
        file.extend(vec![7; dims.iter().map(|&d| usize::from(d)).product()]);
        file
    };
    let labels = include_bytes!("../../data/digits/t10k-labels-idx1-ubyte.gz").to_vec();
    vec![header(&[6]), header(&[2, 3, 4]), header(&[1, 2, 2, 2]), header(&[0]), labels]
}

fn idx(file: &[u8], _: &Path) -> Result<(), String> {
    let read = Idx::parse(file, FILE).map_err(said)?;
    assert_eq!(read.dims.iter().product::<usize>(), read.bytes.len());
    Ok(())
}

fn arrays() -> [(&'static str, &'static [usize], Elements); 4] {
    [
        ("a", &[2, 3], vec![1.5f32; 6].into()),
        ("b", &[4], vec![true; 4].into()),
        ("c", &[], vec![7i64].into()),
        ("d", &[0, 5], Vec::<f64>::new().into()),
    ]
}

fn npy_files() -> Vec<Vec<u8>> {
    let dir = tempfile::tempdir().expect("a directory for temporary files");
    let path = dir.path().join(FILE);
    let file = |(_, dims, elements): &(&str, &[usize], Elements)| {
        save_npy(&path, dims, elements).expect("it is written");
        std::fs::read(&path).expect("it is there")
    };
    arrays().iter().map(file).collect()
}

fn npy(file: &[u8], dir: &Path) -> Result<(), String> {
    let (dims, elements) = load_npy(stored(file, dir)).map_err(said)?;
    assert_eq!(graphc_ir::checked_product(&dims), Some(elements.value().len()));
    Ok(())
}

fn npz_files() -> Vec<Vec<u8>> {
    let dir = tempfile::tempdir().expect("a directory for temporary files");
    let path = dir.path().join(FILE);
    let arrays = arrays();
    let arrays: Vec<_> = arrays.iter().map(|(name, dims, elements)| (*name, *dims, elements)).collect();
    save_npz(&path, &arrays).expect("it is written");
    let deflated = include_bytes!("../../train/tests/golden/arrays.npz").to_vec();
    vec![std::fs::read(&path).expect("it is there"), deflated]
}

fn npz(file: &[u8], dir: &Path) -> Result<(), String> {
    for (_, dims, elements) in load_npz(stored(file, dir)).map_err(said)? {
        assert_eq!(graphc_ir::checked_product(&dims), Some(elements.value().len()));
    }
    Ok(())
}

fn csv_files() -> Vec<Vec<u8>> {
    let small = "split,a, b,class\ntrain,1,2.5,cat\ntest,3,-4e2,dog\ntrain,\"5\",6,ant\n";
    let quoted = "a,b\r\n\"1\",\"two, \"\"quoted\"\"\nlines\"\r\n2,x\r\n";
    let iris = include_str!("../../data/tabular/iris.csv");
    let start: String = iris.lines().take(12).flat_map(|line| [line, "\n"]).collect();
    [small, quoted, &start].map(|text| text.as_bytes().to_vec()).to_vec()
}

/// Reads all of it, each column as what it is, and again row by row.
fn csv(file: &[u8], dir: &Path) -> Result<(), String> {
    let read = Csv::read(file, FILE).map_err(said)?;
    let (mut refused, mut numbers) = (None, Vec::new());
    // Columns are looked up one by one.
    for column in read.header().iter().take(64).map(String::as_str) {
        assert_eq!(read.classes(column).map_err(said)?.0.len(), read.len());
        match read.numbers(&[column]) {
            Ok(_) => numbers.push(column),
            Err(e) => refused = Some(said(e)),
        }
        refused = read.integers(column).err().map(said).or(refused);
    }
    let rows = CsvRows::open(stored(file, dir), &[("x", &numbers)]).map_err(said)?;
    assert_eq!(rows.len(), read.len());
    let mut to = [Elements::from(vec![0f32; numbers.len()])];
    for index in 0..rows.len().min(16) {
        rows.read(Row { index, seed: 0, epoch: 0 }, &mut to, 0).map_err(said)?;
    }
    // A sound file has columns that are no numbers: their messages count as well.
    match refused {
        Some(message) if !message.contains("is not a") => Err(message),
        Some(message) => crate::check_message(&message),
        None => Ok(()),
    }
}
