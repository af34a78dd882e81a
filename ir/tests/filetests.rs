//! Runs `tests/filetests/*.gir`. The first line says what: `; test print` parses and prints,
//! `check` verifies, `grad` prints the gradient function of every function, `interp` evaluates every
//! function on inputs 0, 1, 2, ... and state from constant initializers. What is expected follows the
//! text in lines `;> `; `GRAPHC_BLESS=1` rewrites it.

use graphc_ir::{
    Function, Initializer, Literal, Module, Scalar, evaluate, gradient_function, print_function, verify,
};
use std::fmt::Write;

fn interpret(m: &Module, f: &Function) -> String {
    let inputs: Vec<Literal> = f
        .inputs
        .iter()
        .map(|&id| {
            let ty = f.graph.ty(id);
            let dims = ty.shape.as_static().expect("interp takes static shapes");
            Literal::from_fn(ty.dtype, &dims, |i| Scalar::I64(i as i64))
        })
        .collect();
    let state = |id: graphc_ir::StateId| {
        let s = &m.state[id.index()];
        let Initializer::Constant(v) = s.init else { panic!("interp takes constant initializers") };
        Literal::full(&s.ty.shape.as_static().unwrap(), Scalar::from_f64(s.ty.dtype, v))
    };
    let show = |l: &Literal| {
        let elements: Vec<String> = (0..l.len()).map(|i| l.get(i).to_string()).collect();
        format!("{} [{}]", l.ty(), elements.join(", "))
    };
    let mut out = format!("@{}\n", f.name);
    match evaluate(f, &inputs, state) {
        Ok(e) => {
            for (o, l) in f.outputs.iter().zip(&e.outputs) {
                writeln!(out, "  {}: {}", o.name, show(l)).unwrap();
            }
            for (id, l) in &e.updates {
                writeln!(out, "  update {}: {}", m.state[id.index()].name, show(l)).unwrap();
            }
        }
        Err(e) => writeln!(out, "  {e}").unwrap(),
    }
    out
}

fn run(test: &str, file: &str, text: &str) -> String {
    let m = match Module::parse(file, text) {
        Ok(m) => m,
        Err(e) => return e.to_string(),
    };
    let verified = verify(&m);
    match (test, verified) {
        (_, Err(e)) => e.to_string(),
        ("print", _) => {
            let printed = m.to_string();
            assert_eq!(Module::parse(file, &printed).unwrap_or_else(|e| panic!("{e}")), m);
            printed
        }
        ("check", _) => "ok".to_owned(),
        ("grad", _) => {
            let one = |f: &Function| match gradient_function(&m, &f.name) {
                Ok(g) => print_function(&m, &g),
                Err(e) => e.to_string(),
            };
            m.functions.iter().map(one).collect()
        }
        ("interp", _) => m.functions.iter().map(|f| interpret(&m, f)).collect(),
        (other, _) => panic!("unknown test `{other}`"),
    }
}

#[test]
fn filetests() {
    let dir = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/filetests");
    let bless = std::env::var_os("GRAPHC_BLESS").is_some();
    let mut paths: Vec<_> = std::fs::read_dir(dir).unwrap().map(|e| e.unwrap().path()).collect();
    paths.sort();
    let mut failures = Vec::new();
    for path in paths.iter().filter(|p| p.extension().is_some_and(|e| e == "gir")) {
        let file = path.file_name().unwrap().to_str().unwrap();
        let all = std::fs::read_to_string(path).unwrap();
        let text: String =
            all.split_inclusive('\n').take_while(|l| !l.starts_with(";>")).collect::<Vec<_>>().concat();
        let test =
            all.lines().next().and_then(|l| l.strip_prefix("; test ")).expect("`; test ...` first").trim();
        let mut expected = text.clone();
        for line in run(test, file, &text).lines() {
            expected.push_str(format!(";> {line}").trim_end());
            expected.push('\n');
        }
        if expected != all {
            if bless {
                std::fs::write(path, expected).unwrap();
            } else {
                failures.push(format!("{file}: expected\n{all}\nbut got\n{expected}"));
            }
        }
    }
    assert!(failures.is_empty(), "{}\n(GRAPHC_BLESS=1 rewrites)", failures.join("\n"));
    assert!(paths.len() >= 12);
}
