//! Every operation's loop structure, evaluated directly, gives the bits of its reference semantics.
//! The compiler reads patterns only; this is what makes them trustworthy.

use graphc_ir::ops::{ConvConfig, Convolution, ReduceMax, ReduceSum, ReduceWindowSum};
use graphc_ir::testing::Sample;
use graphc_ir::{
    Access, Contraction, EvalError, IndexExpr, Indexing, Literal, Native, Op, Pattern, Reduce, ReduceKind,
    Scalar, ScalarOp, StaticType, Window, indices, linear_index,
};
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};

fn cases() -> u32 {
    std::env::var("GRAPHC_CASES").ok().and_then(|v| v.parse().ok()).unwrap_or(64)
}

fn vars(index: &[usize]) -> Vec<i64> {
    index.iter().map(|&i| i as i64).collect()
}

/// The element that `access` names, or `None` where its guards fail.
fn read(access: &Access, operands: &[&Literal], vars: &[i64]) -> Option<Scalar> {
    if access.guards.iter().any(|g| !(g.lo..g.hi).contains(&g.expr.eval(vars, &[]))) {
        return None;
    }
    let x = operands[access.operand];
    assert_eq!(access.index.len(), x.dims().len(), "one index expression per dimension");
    let place = |(e, &d): (&IndexExpr, &usize)| {
        let i = e.eval(vars, &[]);
        assert!(0 <= i && i < d as i64, "index {i} = {e} of operand {} is not in 0..{d}", access.operand);
        i as usize
    };
    let index: Vec<usize> = access.index.iter().zip(x.dims()).map(place).collect();
    Some(x.get(linear_index(&index, x.dims())))
}

fn zero(x: &Literal) -> Scalar {
    Scalar::from_f64(x.dtype(), 0.0)
}

fn is_nan(s: Scalar) -> bool {
    s.to_f64().is_nan()
}

/// True if `a` comes before `b` as the extremum: NaN first, else strictly greater (or less).
fn beats(a: Scalar, b: Scalar, largest: bool) -> bool {
    let (a, b) = if largest { (a, b) } else { (b, a) };
    let greater = match (a, b) {
        (Scalar::I64(a), Scalar::I64(b)) => a > b,
        (a, b) => a.to_f64() > b.to_f64(),
    };
    let (first, second) = if largest { (a, b) } else { (b, a) };
    !is_nan(second) && (is_nan(first) || greater)
}

fn positions(indices: &Literal, bound: usize) -> Vec<usize> {
    let position = |i| match indices.get(i).cast(graphc_ir::DType::I64) {
        Scalar::I64(v) if 0 <= v && v < bound as i64 => v as usize,
        other => panic!("samples have indices in range, not {other}"),
    };
    (0..indices.len()).map(position).collect()
}

/// The order of [`Reduce`], written out a second time.
fn reduce(r: &Reduce, operands: &[&Literal], out: &StaticType, index: &[usize]) -> Scalar {
    let (op, identity) = match r.kind {
        ReduceKind::Sum => (ScalarOp::Add, 0.0),
        ReduceKind::Prod => (ScalarOp::Mul, 1.0),
        ReduceKind::Max => (ScalarOp::Max, f64::NEG_INFINITY),
        ReduceKind::Min => (ScalarOp::Min, f64::INFINITY),
    };
    let identity = Scalar::from_f64(out.dtype, identity);
    let n: usize = r.extents.iter().product();
    let n_blocks = n.div_ceil(Reduce::BLOCK).max(1);
    let mut lanes = vec![[identity; Reduce::LANES]; n_blocks];
    for (i, at) in indices(&r.extents).enumerate() {
        let vars = [vars(index), vars(&at)].concat();
        if let Some(x) = read(&r.access, operands, &vars) {
            let lane = &mut lanes[i / Reduce::BLOCK][i % Reduce::LANES];
            *lane = op.eval(&[*lane, x]);
        }
    }
    let fold = |mut l: [Scalar; Reduce::LANES]| {
        for h in [8, 4, 2, 1] {
            for j in 0..h {
                l[j] = op.eval(&[l[j], l[j + h]]);
            }
        }
        l[0]
    };
    let mut blocks: Vec<Scalar> = lanes.into_iter().map(fold).collect();
    // Neighbours first: halving the list pairwise is the same tree.
    while blocks.len() > 1 {
        blocks = blocks
            .chunks(2)
            .map(|pair| if let [a, b] = pair { op.eval(&[*a, *b]) } else { pair[0] })
            .collect();
    }
    blocks[0]
}

fn contract(parts: &[Contraction], operands: &[&Literal], out: &StaticType) -> Vec<Scalar> {
    let mut result = vec![None; out.len()];
    for part in parts {
        let outer = [part.batch.clone(), part.m.clone(), part.n.clone()].concat();
        for index in indices(&outer) {
            let mut acc = Scalar::from_f64(out.dtype, 0.0);
            for k in indices(&part.k) {
                let vars = [vars(&index), vars(&k)].concat();
                let a = read(&part.lhs, operands, &vars).unwrap_or(zero(operands[0]));
                let b = read(&part.rhs, operands, &vars).unwrap_or(zero(operands[1]));
                acc = if out.dtype.is_float() {
                    ScalarOp::Fma.eval(&[a, b, acc])
                } else {
                    ScalarOp::Add.eval(&[ScalarOp::Mul.eval(&[a, b]), acc])
                };
            }
            let vars = vars(&index);
            let to: Vec<usize> = part.out.iter().map(|e| e.eval(&vars, &[]) as usize).collect();
            let to = &mut result[linear_index(&to, &out.dims)];
            assert!(to.is_none(), "two parts of a contraction write one element");
            *to = Some(acc);
        }
    }
    result.into_iter().map(|v| v.expect("the parts write every element")).collect()
}

/// Where the first NaN, else the first maximum, of a window of `x` lies.
fn first_maximum(w: &Window, x: &Literal, window: &[usize]) -> Option<usize> {
    let mut best: Option<usize> = None;
    for at in indices(&w.size) {
        let place: Vec<i64> = (0..at.len())
            .map(|a| (window[a] * w.strides[a]) as i64 + (at[a] * w.dilation[a]) as i64 - w.padding[a].0)
            .collect();
        if place.iter().zip(x.dims()).any(|(&p, &d)| p < 0 || p >= d as i64) {
            continue;
        }
        let place: Vec<usize> = place.iter().map(|&p| p as usize).collect();
        let i = linear_index(&place, x.dims());
        if best.is_none_or(|b| beats(x.get(i), x.get(b), true)) {
            best = Some(i);
        }
    }
    best
}

fn select_and_scatter(w: &Window, x: &Literal, ct: &Literal) -> Vec<Scalar> {
    let mut result = vec![zero(x); x.len()];
    for (o, window) in indices(ct.dims()).enumerate() {
        if let Some(i) = first_maximum(w, x, &window) {
            result[i] = ScalarOp::Add.eval(&[result[i], ct.get(o)]);
        }
    }
    result
}

/// Where in operand 0 each element lies that `places` names, as a function of its index.
fn locate(places: &Indexing, operands: &[&Literal]) -> impl Fn(&[usize]) -> usize {
    let dims = operands[0].dims().to_vec();
    let picked = |s: &graphc_ir::Start| (s.axis, positions(operands[s.operand], s.bound));
    let starts: Vec<(usize, Vec<usize>)> = places.starts.iter().map(picked).collect();
    let of_indices = operands[places.starts.first().map_or(0, |s| s.operand)].dims().to_vec();
    let places = places.clone();
    move |index| {
        let vars = vars(index);
        let value = |e: &IndexExpr| e.eval(&vars, &[]) as usize;
        let mut place: Vec<usize> = places.window.iter().map(value).collect();
        for (axis, positions) in &starts {
            let at: Vec<usize> = places.at.iter().map(value).collect();
            place[*axis] += positions[linear_index(&at, &of_indices)];
        }
        assert!(place.iter().zip(&dims).all(|(p, d)| p < d), "{place:?} is outside of {dims:?}");
        linear_index(&place, &dims)
    }
}

/// Evaluates `pattern` from its documentation.
fn interpret(pattern: &Pattern, operands: &[&Literal], out: &StaticType) -> Option<Literal> {
    let each = |f: &dyn Fn(&[usize]) -> Scalar| {
        let values: Vec<Scalar> = indices(&out.dims).map(|index| f(&index)).collect();
        Literal::from_fn(out.dtype, &out.dims, |i| {
            assert_eq!(values[i].dtype(), out.dtype, "a pattern gives the type of the result");
            values[i]
        })
    };
    let list = |values: Vec<Scalar>| Literal::from_fn(out.dtype, &out.dims, |i| values[i]);
    Some(match pattern {
        Pattern::Leaf => return None,
        Pattern::Elementwise(body) => each(&|index| {
            let i = linear_index(index, &out.dims);
            let args: Vec<Scalar> = operands.iter().map(|x| x.get(i)).collect();
            body.emit(&mut Native, &args)
        }),
        Pattern::Generate { index: e, body } => each(&|index| {
            let mut args = vec![Scalar::I64(e.eval(&vars(index), &[]))];
            args.extend(operands.iter().map(|x| x.get(0)));
            body.emit(&mut Native, &args)
        }),
        Pattern::Injective(accesses) => {
            assert!(accesses.last().is_some_and(|a| a.guards.is_empty()), "the last access has no guards");
            each(&|index| {
                let vars = vars(index);
                accesses.iter().find_map(|a| read(a, operands, &vars)).expect("the last access always reads")
            })
        }
        Pattern::Gather(places) => {
            let x = operands[0];
            let locate = locate(places, operands);
            each(&|index| x.get(locate(index)))
        }
        Pattern::Scatter { places, updates, combine } => {
            let (x, updates) = (operands[0], operands[*updates]);
            let locate = locate(places, operands);
            let mut result: Vec<Scalar> = (0..x.len()).map(|i| x.get(i)).collect();
            for (i, index) in indices(updates.dims()).enumerate() {
                let to = &mut result[locate(&index)];
                *to = combine.op().map_or(updates.get(i), |op| op.eval(&[*to, updates.get(i)]));
            }
            list(result)
        }
        Pattern::CheckIndex { bound } => {
            positions(operands[0], *bound);
            operands[0].clone()
        }
        Pattern::Reduce(r) => each(&|index| reduce(r, operands, out, index)),
        Pattern::ArgReduce { axis, largest } => {
            let x = operands[0];
            each(&|index| {
                let at = |i: usize| {
                    let from = [&index[..*axis], &[i], &index[*axis..]].concat();
                    x.get(linear_index(&from, x.dims()))
                };
                let first =
                    (1..x.dims()[*axis]).fold(0, |b, i| if beats(at(i), at(b), *largest) { i } else { b });
                Scalar::from_f64(out.dtype, first as f64)
            })
        }
        Pattern::Contraction(parts) => list(contract(parts, operands, out)),
        Pattern::SelectAndScatter(w) => list(select_and_scatter(w, operands[0], operands[1])),
        Pattern::SelectAndGather(w) => each(&|window| {
            first_maximum(w, operands[0], window).map_or(zero(operands[0]), |i| operands[1].get(i))
        }),
        #[allow(unreachable_patterns, reason = "patterns that later operations bring have their own tests")]
        _ => return None,
    })
}

/// Equal bits; which NaN an addition of two NaNs gives is left open.
fn same(a: &Literal, b: &Literal) -> bool {
    let element = |i| a.get(i) == b.get(i) || (is_nan(a.get(i)) && is_nan(b.get(i)));
    a.ty() == b.ty() && (0..a.len()).all(element)
}

fn check(s: &Sample) -> Result<(), TestCaseError> {
    let out = s.op.infer(&s.types()).map_err(|e| TestCaseError::fail(format!("refused: {e}")))?;
    let out = StaticType::of(&out).unwrap();
    let types: Vec<StaticType> = s.types().iter().map(|t| StaticType::of(t).unwrap()).collect();
    let operands: Vec<&Literal> = s.operands.iter().collect();
    let expected = match s.op.eval(&operands, &out) {
        Ok(value) => value,
        Err(EvalError::IndexOutOfRange { .. }) => return Ok(()),
    };
    let pattern = s.op.pattern(&types, &out);
    let Some(value) = interpret(&pattern, &operands, &out) else { return Ok(()) };
    prop_assert!(same(&value, &expected), "pattern {pattern:?}\ngives {value:?}\nnot   {expected:?}");
    Ok(())
}

#[test]
fn reductions_over_many_blocks_agree() {
    let x = |dims: &[usize]| {
        let value = |i: usize| Scalar::F32(((i * 7919) % 1013) as f32 / 97.0 - 5.0);
        Literal::from_fn(graphc_ir::DType::F32, dims, value)
    };
    for n in [1023, 1024, 1025, 2048, 3100, 5 * 1024 + 17] {
        let sum = Op::from(ReduceSum { axes: vec![1] });
        check(&Sample { op: sum, operands: vec![x(&[2, n])], smooth: false }).unwrap();
        let most = Op::from(ReduceMax { axes: vec![0, 1] });
        check(&Sample { op: most, operands: vec![x(&[n, 2])], smooth: false }).unwrap();
        let window = Window {
            size: vec![n, 2],
            strides: vec![3, 1],
            padding: vec![(2, 2), (1, 0)],
            dilation: vec![1, 1],
        };
        let sums = Op::from(ReduceWindowSum::new(window));
        check(&Sample { op: sums, operands: vec![x(&[n, 2])], smooth: false }).unwrap();
    }
}

#[test]
fn steps_at_the_limit_do_not_overflow() {
    let huge = 1usize << 44;
    let one = Literal::full(&[2], Scalar::F32(1.0));
    // The second window would start beyond the padded tensor; no window fits at all.
    for (size, padding) in [(1, (0, 0)), (2, (0, 0)), (1, (-2, 0)), (1, (1 << 30, -(1 << 30)))] {
        let window =
            Window { size: vec![size], strides: vec![huge], padding: vec![padding], dilation: vec![huge] };
        let op = Op::from(ReduceWindowSum::new(window));
        check(&Sample { op, operands: vec![one.clone()], smooth: true }).unwrap();
    }
    let image = Literal::full(&[1, 1, 2], Scalar::F32(1.0));
    let limit = huge as i64;
    for (stride, lhs, rhs, padding) in [
        (huge, 1, huge, (0, 0)),
        (huge, huge, huge, (0, 0)),
        (1, huge, 1, (-limit, 0)),
        (huge - 1, huge, huge, (limit, limit)),
    ] {
        let config = ConvConfig::new(1).strides(&[stride]).lhs_dilation(&[lhs]).rhs_dilation(&[rhs]);
        let op = Op::from(Convolution::from(config.padding(&[padding])));
        check(&Sample { op, operands: vec![image.clone(), image.clone()], smooth: true }).unwrap();
    }
}

#[test]
fn every_pattern_agrees_with_the_reference() {
    let mut failures = Vec::new();
    for (name, samples) in Op::all_samples() {
        let Some(samples) = samples else { continue };
        let mut runner =
            TestRunner::new(Config { cases: cases(), failure_persistence: None, ..Config::default() });
        if let Err(e) = runner.run(&samples, |s| check(&s)) {
            failures.push(format!("{name}: {e}"));
        }
    }
    assert!(failures.is_empty(), "{}", failures.join("\n\n"));
}
