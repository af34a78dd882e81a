//! The text form: what is printed parses to an equal module; bad text gives errors, never a panic.

use graphc_ir::testing::Sample;
use graphc_ir::{DType, Initializer, Literal, Module, ModuleBuilder, Op, Scalar, shape, verify};
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};

fn cases() -> u32 {
    std::env::var("GRAPHC_CASES").ok().and_then(|v| v.parse().ok()).unwrap_or(64)
}

fn round_trip(m: &Module) -> Result<(), TestCaseError> {
    let text = m.to_string();
    let parsed = Module::parse("m.gir", &text).map_err(|e| TestCaseError::fail(format!("{e}\n{text}")))?;
    prop_assert!(parsed == *m, "changed:\n{text}\n{parsed}");
    prop_assert_eq!(parsed.to_string(), text);
    Ok(())
}

fn sample_module(s: &Sample) -> Module {
    let m = ModuleBuilder::new("sample");
    m.function("f", |f| {
        let x: Vec<_> = s
            .operands
            .iter()
            .enumerate()
            .map(|(i, l)| f.input(&format!("x{i}"), l.dtype(), l.ty().shape))
            .collect();
        f.output("y", f.push(s.op.clone(), &x));
    });
    m.build().unwrap_or_else(|e| panic!("{e}"))
}

#[test]
fn every_operation_round_trips() {
    for (name, samples) in Op::all_samples() {
        let Some(samples) = samples else { continue };
        let mut runner =
            TestRunner::new(Config { cases: cases(), failure_persistence: None, ..Config::default() });
        if let Err(e) = runner.run(&samples, |s| round_trip(&sample_module(&s))) {
            panic!("{name}: {e}");
        }
    }
}

fn odd_name() -> impl Strategy<Value = String> {
    prop_oneof![
        3 => "[a-z]{1,3}",
        2 => "[A-Za-z0-9_./-]{1,8}",
        1 => "[0-9]{1,3}",
        1 => any::<String>().prop_filter("short", |s| s.len() < 60),
        1 => Just("fn".to_owned()),
        1 => Just("splat \"\\;\n%@{}\u{202e}\u{0}".to_owned()),
    ]
}

fn any_scalar(dtype: DType) -> impl Strategy<Value = Scalar> {
    prop_oneof![
        any::<u64>().prop_map(move |b| Scalar::from_bits(dtype, b)),
        // NaN with payloads of both signs, zeros, infinities.
        (any::<bool>(), 0u64..4).prop_map(move |(neg, p)| {
            let v = match dtype {
                DType::F64 => 0x7ff0_0000_0000_0000 | p | u64::from(neg) << 63,
                _ => 0x7f80_0000 | p | u64::from(neg) << 31,
            };
            Scalar::from_bits(dtype, v)
        }),
        (-2i32..3).prop_map(move |v| Scalar::from_f64(dtype, f64::from(v))),
        Just(Scalar::from_f64(dtype, -0.0)),
    ]
}

fn any_dtype() -> impl Strategy<Value = DType> {
    proptest::sample::select(DType::ALL.to_vec())
}

fn any_init() -> impl Strategy<Value = Initializer> {
    (0..5, any::<u64>(), any::<u64>()).prop_map(|(k, a, b)| {
        let (a, b) = (f64::from_bits(a), f64::from_bits(b));
        match k {
            0 => Initializer::Constant(a),
            1 => Initializer::Uniform { lo: a, hi: b },
            2 => Initializer::Normal { mean: a, std: b },
            3 => Initializer::TruncatedNormal { mean: a, std: b, lo: b, hi: a },
            _ => Initializer::Orthogonal { gain: a },
        }
    })
}

fn any_literal() -> impl Strategy<Value = Literal> {
    (any_dtype(), graphc_ir::testing::dims(2)).prop_flat_map(|(dtype, dims)| {
        let n = dims.iter().product::<usize>();
        proptest::collection::vec(any_scalar(dtype), n)
            .prop_map(move |v| Literal::from_fn(dtype, &dims, |i| v[i]))
    })
}

prop_compose! {
    fn any_module()(
        module_name in odd_name(),
        function_name in odd_name(),
        dim in odd_name(),
        states in proptest::collection::vec((odd_name(), any_init(), any::<bool>()), 0..4),
        constants in proptest::collection::vec((any_literal(), odd_name()), 0..4),
        steps in proptest::collection::vec((0..5u8, any::<usize>(), any::<usize>(), odd_name(), odd_name()), 0..12),
        outputs in proptest::collection::vec((any::<usize>(), odd_name()), 0..4),
    ) -> Module {
        let m = ModuleBuilder::new(&module_name);
        let mut params = Vec::new();
        for (i, (name, init, trainable)) in states.iter().enumerate() {
            let name = if i > 0 { format!("{name}s{i}") } else { format!("{name}/w") };
            let declare = if *trainable { ModuleBuilder::param } else { ModuleBuilder::state };
            params.push(declare(&m, &name, DType::F32, shape![], *init));
        }
        m.function(&function_name, |f| {
            let mut values = vec![f.input("in put", DType::F32, shape![dim.as_str(), 3]), f.input("0", DType::F32, shape![])];
            for (literal, name) in &constants {
                f.scope(name, || f.constant(literal.clone()));
            }
            for (kind, i, j, name, scope) in &steps {
                let (a, b) = (values[i % values.len()], values[j % values.len()]);
                let made = f.scope(scope, || match kind {
                    0 => -a,
                    1 if a.shape() == b.shape() => a + b,
                    2 if !params.is_empty() => f.read(&params[i % params.len()]),
                    3 => a.tanh().named(&format!("{name}!")),
                    _ => f.scope("inner", || a * 2.0),
                });
                values.push(made);
            }
            for (i, p) in params.iter().enumerate().rev().step_by(2) {
                if let Some(v) = values.iter().skip(i).find(|v| v.ty() == p.ty) {
                    f.update(p, *v);
                }
            }
            for (i, (v, name)) in outputs.iter().enumerate() {
                f.output(&format!("{name}{}", "'".repeat(i)), values[v % values.len()]);
            }
        });
        m.function("second", |f| f.output("y", f.input("y", DType::I64, shape![4])));
        m.build().unwrap_or_else(|e| panic!("{e}"))
    }
}

#[test]
fn random_modules_round_trip_and_verify() {
    let config = Config { cases: 4 * cases(), failure_persistence: None, ..Config::default() };
    let result = TestRunner::new(config).run(&any_module(), |m| {
        if m.functions[0].name != m.functions[1].name {
            verify(&m).map_err(|e| TestCaseError::fail(e.to_string()))?;
        }
        round_trip(&m)
    });
    result.unwrap_or_else(|e| panic!("{e}"));
}

const EXAMPLE: &str = r#"graphc 1                              ; format version
module @mlp
param %fc1/weight: f32[784, 128] = uniform(-0.05, 0.05)     ; trainable state
state %step: i64[] = constant(0.0)

fn @loss(%x: f32[B, 784], %y: i32[B]) {
  %0 = dot_general(%x, %fc1/weight) {lhs_contract = [1], rhs_contract = [0]} : f32[B, 128]
  %h = tanh(%0) : f32[B, 128] @encoder/0            ; optional scope
  %c = constant {value = [1.0, nan(0x7fc00001)]} : f32[2]
  %z = constant {value = splat(true)} : bool[2, 3]
  %e = constant {value = []} : f32[0]
  %1 = add(%step, %step) : i64[]
  %w = compare(%c, %c) {kind = lt} : bool[2]
  update %step = %1
  return loss = %0, %h, %fc1/weight
}
"#;

#[test]
fn the_example_parses() {
    let m = Module::parse("mlp.gir", EXAMPLE).unwrap_or_else(|e| panic!("{e}"));
    verify(&m).unwrap();
    round_trip(&m).unwrap();
    assert_eq!(&*m.functions[0].outputs[2].name, "fc1/weight");
    let h = m.functions[0].outputs[1].node;
    let origin = &m.functions[0].graph.node(h).origin;
    assert_eq!(origin.loc.as_ref().unwrap().to_string(), "mlp.gir:8:3");
    assert_eq!(origin.scope.as_deref(), Some("encoder/0"));
}

#[test]
fn a_node_named_like_state_gets_a_suffix() {
    let m = ModuleBuilder::new("m");
    let w = m.param("w", DType::F32, shape![], Initializer::ONES);
    m.function("f", |f| f.output("y", (f.read(&w) * 2.0).named("w")));
    let m = m.build().unwrap();
    let text = m.to_string();
    assert!(text.contains("%w.1 = mul(%w, %0)"), "{text}");
    assert_eq!(Module::parse("m", &text).unwrap().to_string(), text);
}

#[test]
fn limits_hold_before_memory_is_taken() {
    let body = |line: &str| format!("graphc 1\nmodule @m\nfn @f(%x: f32[]) {{\n  {line}\n  return\n}}\n");
    let error = |line: &str| Module::parse("m", &body(line)).unwrap_err().to_string();
    assert!(error("%c = constant {value = splat(0.0)} : f32[1099511627776]").contains("256 MiB"));
    assert!(error("%c = constant {value = []} : f32[1099511627776, 2]").contains("2^40"));
    let nested = format!("%c = reduce_sum(%x) {{axes = {}{}}} : f32[]", "[".repeat(9999), "]".repeat(9999));
    assert!(error(&nested).contains("deeper than 16"));
    assert!(error(&format!("%{} = neg(%x) : f32[]", "a".repeat(257))).contains("256 bytes"));
    assert!(error(&format!("%\"{}\" = neg(%x) : f32[]", "a".repeat(257))).contains("256 bytes"));
    let huge = " ".repeat(graphc_ir::MAX_TEXT_BYTES + 1);
    assert!(Module::parse("m", &huge).unwrap_err().to_string().contains("64 MiB"));
    assert!(Module::parse_bytes("m", huge.as_bytes()).unwrap_err().to_string().contains("64 MiB"));
    assert!(error(&format!("%c = neg(%x) : f32[{}]", "a".repeat(257))).contains("longer than 256 bytes"));
    // Of what `str::parse` takes for a float, only numbers and `inf`.
    for dtype in ["f32", "f64", "bf16", "f16"] {
        for (value, sound) in [
            ("-inf", true),
            ("1e5", dtype != "f16"),
            ("infinity", false),
            ("-Infinity", false),
            ("1e999", false),
        ] {
            let text = body(&format!("%c = constant {{value = splat({value})}} : {dtype}[]"));
            assert_eq!(Module::parse("m", &text).is_ok(), sound, "{text}");
        }
    }
    // An escape is of one to six digits.
    for (escape, sound) in
        [("41", true), ("10ffff", true), ("000041", true), ("", false), ("0000041", false), ("d800", false)]
    {
        let text = body(&format!("%\"\\u{{{escape}}}\" = neg(%x) : f32[]"));
        let parsed = Module::parse("m", &text);
        assert_eq!(parsed.is_ok(), sound, "{text}{parsed:?}");
        assert!(sound || parsed.unwrap_err().to_string().contains("expected `\\u{HEX}` of a character"));
    }
    let many = Module::parse("m", &body(&"%x = 1\n".repeat(100))).unwrap_err();
    assert_eq!(many.0.len(), 20);
    let e = Module::parse_bytes("m\u{1b}", b"graphc 1\nmodule \xff").unwrap_err();
    assert_eq!((e.0[0].line, e.0[0].column), (2, 8));
    assert!(e.to_string().contains("m\\u{1b}:2:8"), "{e}");
}

#[test]
fn a_long_line_takes_linear_time() {
    let inputs: Vec<String> = (0..100_000).map(|i| format!("%e{i}: f32[]")).collect();
    let text = format!("graphc 1\nmodule @m\nfn @f({}) {{\n  return\n}}\n", inputs.join(", "));
    let m = Module::parse("m", &text).unwrap_or_else(|e| panic!("{e}"));
    let f = &m.functions[0];
    let loc = f.graph.node(f.inputs[99_999]).origin.loc.clone().unwrap();
    assert_eq!(loc.column as usize, text.lines().nth(2).unwrap().find("%e99999").unwrap() + 1);
}

#[test]
fn a_long_line_is_cut_around_the_caret() {
    let text = format!("graphc 1\nmodule @m {}?", " ".repeat(5000));
    let e = Module::parse("m", &text).unwrap_err();
    assert_eq!(e.0[0].column, 5011);
    let shown = e.to_string();
    let lines: Vec<&str> = shown.lines().collect();
    assert!(lines[2].len() < 200);
    assert_eq!(lines[2].find('?'), lines[3].find('^'));
}

proptest! {
    #![proptest_config(Config { cases: 2000, failure_persistence: None, ..Config::default() })]

    #[test]
    fn random_bytes_do_not_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        if let Err(e) = Module::parse_bytes("x", &bytes) {
            prop_assert!(!e.to_string().is_empty());
        }
        let mut text = b"graphc 1\nmodule @m\nfn @f() {\n".to_vec();
        text.extend(bytes);
        let _ = Module::parse_bytes("x", &text);
    }

    #[test]
    fn random_tokens_do_not_panic(tokens in proptest::collection::vec(proptest::sample::select(vec![
        "%x", "%0", "=", "neg", "(", ")", "[", "]", "{", "}", ",", ":", "f32", "i64", "\n", "@s", "1", "-1",
        "constant", "value", "splat", "pad", "low", "9223372036854775807", "reshape", "shape", "return", "update", "fn", "\"", " ",
    ]), 0..60)) {
        let _ = Module::parse("x", &format!("graphc 1\nmodule @m\nfn @f(%x: f32[B, 2]) {{\n  {}", tokens.join(" ")));
    }

    #[test]
    fn mutated_text_does_not_panic(
        edits in proptest::collection::vec((any::<proptest::sample::Index>(), any::<u8>(), 0..4u8, any::<proptest::sample::Index>()), 1..8),
        cut in proptest::option::of(any::<proptest::sample::Index>()),
    ) {
        let mut text = EXAMPLE.as_bytes().to_vec();
        for (at, byte, kind, from) in edits {
            let i = at.index(text.len());
            match kind {
                0 => text[i] = byte,
                1 => { text.remove(i); }
                2 => text.insert(i, byte),
                _ => {
                    let j = from.index(text.len());
                    text.swap(i, j);
                }
            }
        }
        if let Some(cut) = cut {
            text.truncate(cut.index(text.len()));
        }
        match Module::parse_bytes("x", &text) {
            Ok(m) => {
                verify(&m).map_err(|e| TestCaseError::fail(e.to_string()))?;
                round_trip(&m)?;
            }
            Err(e) => prop_assert!(!e.0.is_empty() && e.0.len() <= 20 && e.to_string().contains('^')),
        }
    }
}

#[test]
fn attributes_at_the_limits_of_integers_do_not_panic() {
    // Every operation of every sample, with one integer replaced by extremes.
    let mut runner = TestRunner::new(Config { cases: 1, failure_persistence: None, ..Config::default() });
    for (_, samples) in Op::all_samples() {
        let Some(samples) = samples else { continue };
        for _ in 0..12 {
            let Ok(tree) = samples.new_tree(&mut runner) else { continue };
            let text = sample_module(&proptest::strategy::ValueTree::current(&tree)).to_string();
            for (i, _) in text.char_indices().filter(|(_, c)| c.is_ascii_digit()).take(60) {
                for extreme in
                    ["9223372036854775807", "-9223372036854775808", "4611686018427387904", "0", "-1"]
                {
                    let mutated = format!("{}{extreme}{}", &text[..i], &text[i + 1..]);
                    let _ = Module::parse("x", &mutated);
                }
            }
        }
    }
}
