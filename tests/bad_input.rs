//! Bad input gets a clear error, never a panic, and nothing is lost.

use graphc::nn::Dense;
use graphc::optim::{Adam, train_step};
use graphc::{
    Bindings, CompileOptions, DType, Initializer, Module, ModuleBuilder, Session, compile, cross_entropy,
    data, shape,
};

/// The mistakes of declaring one function.
fn mistakes(body: impl FnOnce(&graphc::FunctionBuilder)) -> String {
    let m = ModuleBuilder::new("m");
    m.function("f", body);
    m.build().unwrap_err().to_string()
}

#[test]
fn shape_and_dtype_mistakes_name_op_types_and_line() {
    let line = line!() + 4;
    let message = mistakes(|f| {
        let (x, w) = (f.input("x", DType::F32, [32, 784]), f.input("w", DType::F32, [786, 10]));
        let n = f.input("n", DType::I32, [32, 784]);
        f.output("y", x.dot(w));
        f.output("z", x + n);
    });
    let lines: Vec<&str> = message.lines().collect();
    assert_eq!(lines.len(), 2, "{message}");
    let here = format!("tests/bad_input.rs:{line}:");
    assert!(lines[0].starts_with("dot_general: lhs axis 1 is 784 but rhs axis 0 is 786"), "{message}");
    assert!(lines[0].contains("(f32[32, 784], f32[786, 10])") && lines[0].contains(&here), "{message}");
    assert!(lines[1].starts_with("add: operand 1 is i32, operand 0 is f32"), "{message}");
}

#[test]
fn misuse_of_the_builder_is_recorded() {
    let message = mistakes(|f| {
        f.output("y", f.input("x", DType::F32, [2]).reshape([3]));
        f.output("y", f.input("x", DType::F32, [2]));
    });
    assert!(message.contains("reshape: [2] and [3] differ"), "{message}");
    assert!(message.contains("the name `x` is taken twice"), "{message}");
    let m = ModuleBuilder::new("m");
    m.param("w", DType::F32, shape!["B"], Initializer::ZEROS);
    assert!(m.build().unwrap_err().to_string().contains("its extents must be numbers"));
}

fn classifier() -> Module {
    let m = ModuleBuilder::new("m");
    let dense = Dense::new(&m, "dense", 4, 3);
    m.function("embed", |f| {
        let rows = f.read(&m.trainable()[0]).take(f.input("i", DType::I64, shape!["N"]), 0);
        f.output("rows", rows);
    });
    train_step(&m, "train_step", &Adam::new(0.1), |f| {
        let x = f.input("x", DType::F32, shape!["B", 4]);
        cross_entropy(dense.apply(x), f.input("y", DType::I32, shape!["B"]))
    });
    m.build().unwrap()
}

#[test]
fn an_index_out_of_range_leaves_the_state_as_it_was() {
    let mut session = Session::new(classifier(), 1).unwrap();
    let x = [0.5f32; 8];
    session.run("train_step", &[("x", (&x).into()), ("y", (&[0, 2]).into())]).unwrap();
    let bytes = |s: &Session| s.state().iter().map(|(_, v)| v.as_bytes().to_vec()).collect::<Vec<_>>();
    let before = bytes(&session);
    for labels in [[0, 3], [-1, 0], [i32::MAX, i32::MIN]] {
        let message = match session.run("train_step", &[("x", (&x).into()), ("y", (&labels).into())]) {
            Ok(_) => panic!("labels {labels:?} are accepted"),
            Err(e) => e.to_string(),
        };
        let position = usize::from(labels[0] == 0);
        let what = format!("index {} at position {position} is out of range 0..3", labels[position]);
        assert!(message.contains(&what) && message.contains("tests/bad_input.rs"), "{message}");
        assert_eq!(bytes(&session), before);
    }
    assert!(session.run("embed", &[("i", (&[2i64, 3]).into())]).is_err());
    session.run("train_step", &[("x", (&x).into()), ("y", (&[0, 2]).into())]).unwrap();
    assert_ne!(bytes(&session), before);
}

#[test]
fn places_out_of_range_leave_the_state_as_it_was() {
    let m = ModuleBuilder::new("m");
    let cache = m.state("cache", DType::F32, [4, 8], Initializer::Constant(1.0));
    m.function("write", |f| {
        let (row, column) = (f.input("row", DType::I32, []), f.input("column", DType::I64, []));
        let new = f.full(DType::F32, [1, 3], 2.0);
        f.update(&cache, f.read(&cache).dynamic_update_slice(new, &[row, column]));
    });
    m.function("scatter", |f| {
        let indices = f.input("i", DType::I64, [2, 2]);
        let updates = f.full(DType::F32, [2], 2.0);
        f.update(&cache, f.read(&cache).scatter_nd(graphc::ir::Combine::Assign, indices, updates));
    });
    m.function("read", |f| {
        let (row, column) = (f.input("row", DType::I32, []), f.input("column", DType::I64, []));
        f.output("y", f.read(&cache).dynamic_slice(&[row, column], [2, 8]));
    });
    let mut session = Session::new(m.build().unwrap(), 1).unwrap();
    let bytes = |s: &Session| s.state().iter().map(|(_, v)| v.as_bytes().to_vec()).collect::<Vec<_>>();
    let before = bytes(&session);
    let mut fails = |function: &str, inputs: &[(&str, graphc::Value<'_>)], what: &str| {
        let message = match session.run(function, inputs) {
            Ok(_) => panic!("{function} accepts what is out of range"),
            Err(e) => e.to_string(),
        };
        assert!(message.contains(what) && message.contains("tests/bad_input.rs"), "{message}");
        assert_eq!(bytes(&session), before);
    };
    let starts =
        |row: &'static [i32; 1], column: &'static [i64; 1]| [("row", row.into()), ("column", column.into())];
    fails(
        "write",
        &starts(&[4], &[5]),
        "dynamic_update_slice (axis 0): index 4 at position 0 is out of range 0..4",
    );
    fails(
        "write",
        &starts(&[3], &[6]),
        "dynamic_update_slice (axis 1): index 6 at position 0 is out of range 0..6",
    );
    fails(
        "write",
        &starts(&[3], &[-1]),
        "dynamic_update_slice (axis 1): index -1 at position 0 is out of range 0..6",
    );
    fails("read", &starts(&[3], &[0]), "dynamic_slice (axis 0): index 3 at position 0 is out of range 0..3");
    fails("read", &starts(&[0], &[1]), "dynamic_slice (axis 1): index 1 at position 0 is out of range 0..1");
    let rows = [0i64, 0, 4, 0];
    fails(
        "scatter",
        &[("i", (&rows).into())],
        "scatter (axis 0): index 4 at position 1 is out of range 0..4",
    );
    let columns = [0i64, 8, 1, 0];
    fails(
        "scatter",
        &[("i", (&columns).into())],
        "scatter (axis 1): index 8 at position 0 is out of range 0..8",
    );
    session.run("write", &starts(&[3], &[5])).unwrap();
    assert_ne!(bytes(&session), before);
}

#[test]
fn inputs_of_a_wrong_size_or_type_are_named() {
    let mut session = Session::new(classifier(), 1).unwrap();
    let mut message =
        |x: graphc::Value<'_>, y: graphc::Value<'_>| match session.run("train_step", &[("x", x), ("y", y)]) {
            Ok(_) => panic!("accepted"),
            Err(e) => e.to_string(),
        };
    assert!(
        message((&[0.0f32; 8]).into(), (&[0, 1, 2]).into()).contains('`'),
        "the dimension or input is named"
    );
    assert!(message((&[0.0f32; 7]).into(), (&[0]).into()).contains("`x`"));
    assert!(message((&[0.0f64; 4]).into(), (&[0]).into()).contains("`x`"));
}

#[test]
fn what_cannot_be_compiled_is_an_error() {
    let m = ModuleBuilder::new("m");
    m.function("f", |f| {
        let x = f.input("x", DType::F32, shape!["B"]);
        f.output("y", x * 2.0);
    });
    m.function("huge", |f| {
        // Four terabytes between two products.
        let x = f.input("x", DType::F32, [1 << 20, 1]);
        let big = x.dot(x.transpose(&[1, 0]));
        f.output("y", big.dot(x));
    });
    let module = m.build().unwrap();
    let error = |name: &str, b: &Bindings| match compile(&module, name, b, &CompileOptions::default()) {
        Ok(exe) => {
            let pool = graphc::ThreadPool::global().unwrap();
            graphc::RunContext::new(&exe, pool).err().unwrap_or_else(|| panic!("{name} fits")).to_string()
        }
        Err(e) => e.to_string(),
    };
    assert!(error("f", &Bindings::new()).contains("dimension `B` is not bound"));
    assert!(error("g", &Bindings::new()).contains("there is no function `g`; the module has `f`, `huge`"));
    assert!(error("f", &Bindings::new().with("B", 1 << 50)).contains("2^40"));
    let message = error("huge", &Bindings::new());
    assert!(message.contains("bytes") && message.contains("arena"), "{message}");
}

#[test]
fn integer_division_does_not_trap() {
    let m = ModuleBuilder::new("m");
    m.function("f", |f| {
        let (x, y) = (f.input("x", DType::I32, [4]), f.input("y", DType::I32, [4]));
        f.output("quotient", x / y);
        f.output("rest", x % y);
    });
    let mut session = Session::new(m.build().unwrap(), 1).unwrap();
    let (x, y) = ([7, i32::MIN, i32::MIN, 5], [0, -1, 0, -3]);
    let outputs = session.run("f", &[("x", (&x).into()), ("y", (&y).into())]).unwrap();
    assert_eq!(outputs.get::<i32>("quotient").unwrap(), [-1, i32::MIN, -1, -1]);
    assert_eq!(outputs.get::<i32>("rest").unwrap(), [7, 0, i32::MIN, 2]);
}

#[test]
fn files_cut_short_are_named() {
    let dir = tempfile::tempdir().unwrap();
    let missing = data::load_directory(dir.path()).unwrap_err().to_string();
    assert!(missing.contains("train-images-idx3-ubyte"), "{missing}");
    let digits = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("data/digits");
    for entry in std::fs::read_dir(&digits).unwrap() {
        let from = entry.unwrap().path();
        std::fs::copy(&from, dir.path().join(from.file_name().unwrap())).unwrap();
    }
    let images = dir.path().join("train-images-idx3-ubyte");
    let whole = std::fs::read(&images).unwrap();
    std::fs::write(&images, &whole[..whole.len() - 1]).unwrap();
    let message = data::load_directory(dir.path()).unwrap_err().to_string();
    assert!(message.contains("train-images-idx3-ubyte"), "{message}");

    let mut session = Session::new(classifier(), 1).unwrap();
    let path = dir.path().join("w.safetensors");
    session.save(&path).unwrap();
    let bytes = std::fs::read(&path).unwrap();
    let before = session.state().get::<f32>("dense/weight").unwrap().to_vec();
    for n in [0, 7, 100, bytes.len() - 1] {
        std::fs::write(&path, &bytes[..n]).unwrap();
        let message = session.load(&path).unwrap_err().to_string();
        assert!(message.contains("w.safetensors"), "{message}");
        assert_eq!(session.state().get::<f32>("dense/weight").unwrap(), before);
    }
}
