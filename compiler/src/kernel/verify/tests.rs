//! Each rule is broken by the least change that does.

use super::*;
use crate::kernel::{Factor, Store};
use crate::program::Place;
use graphc_ir::{Combine, ModuleBuilder, ReduceKind, ScalarBuilder, ScalarOp, Window};

/// Buffers by number, all of them row-major.
const BUFFERS: [(DType, &[usize]); 9] = [
    (DType::F32, &[4]),
    (DType::F32, &[4]),
    (DType::F32, &[4, 3]),
    (DType::F32, &[3, 5]),
    (DType::F32, &[4, 5]),
    (DType::I64, &[4]),
    (DType::I32, &[4]),
    (DType::F32, &[0]),
    (DType::Bool, &[4, 3]),
];

fn buffers() -> Vec<Buffer> {
    let m = ModuleBuilder::new("m");
    m.function("f", |f| {
        let x = f.input("x", DType::F32, [4]);
        f.output("y", x);
    });
    let module = m.build().unwrap();
    let node = module.functions[0].inputs[0];
    let buffer = |(i, &(dtype, dims)): (usize, &(DType, &[usize]))| {
        let (dims, strides) = (dims.to_vec(), row_major_strides(dims));
        Buffer { dtype, dims, strides, place: Place::Input(i), node }
    };
    BUFFERS.iter().enumerate().map(buffer).collect()
}

/// What is wrong with a kernel, in one line.
fn problems(kernel: &Kernel) -> String {
    let errors = verify(kernel, &buffers()).err().unwrap_or_default();
    errors.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ")
}

/// A kernel that is right, and wrong in this way after a change.
#[track_caller]
fn broken(mut kernel: Kernel, expected: &str, change: impl FnOnce(&mut Kernel)) {
    assert_eq!(problems(&kernel), "", "before the change");
    change(&mut kernel);
    let found = problems(&kernel);
    assert!(found.contains(expected), "{expected:?} is not in {found:?}");
}

/// Changes a kernel to another one that is right.
#[track_caller]
fn right(mut kernel: Kernel, change: impl FnOnce(&mut Kernel)) {
    change(&mut kernel);
    assert_eq!(problems(&kernel), "");
}

fn i(v: Var) -> IndexExpr {
    IndexExpr::var(v)
}

fn kernel(extents: &[i64], exprs: Exprs, body: KernelBody, stores: Vec<Store>) -> Kernel {
    let space = IndexCx { extents: extents.to_vec(), dynamic: Vec::new() };
    Kernel { name: "k0".to_owned(), space, exprs, body, stores, sources: Vec::new() }
}

fn store(buffer: BufferId, index: Vec<IndexExpr>, value: ExprId) -> Vec<Store> {
    vec![Store { buffer, index, value, inner: false }]
}

/// `b1[i] = -b0[i + by]`.
fn shifted(by: i64, guards: &[Guard]) -> Kernel {
    let mut exprs = Exprs::default();
    let x = exprs.load(0, vec![i(0).offset(by)], guards.to_vec(), DType::F32);
    let value = exprs.neg(x);
    kernel(&[4], exprs, KernelBody::Loop { outer: 1, reductions: Vec::new() }, store(1, vec![i(0)], value))
}

/// `b1[i] = sum over j of b2[i, j]`.
fn reduction() -> Kernel {
    let mut exprs = Exprs::default();
    let x = exprs.load(2, vec![i(0), i(1)], Vec::new(), DType::F32);
    let value = exprs.add(ExprOp::Reduced(0), &[], DType::F32);
    let body = KernelBody::Loop { outer: 1, reductions: vec![(ReduceKind::Sum, x)] };
    kernel(&[4, 3], exprs, body, store(1, vec![i(0)], value))
}

/// `b4[i, j] = sum over k of b2[i, k] * b3[k, j]`.
fn product() -> Kernel {
    let factor = |buffer, index: [u32; 2]| {
        let mut exprs = Exprs::default();
        let value = exprs.load(buffer, index.map(i).to_vec(), Vec::new(), DType::F32);
        Factor { exprs, value }
    };
    let part = ContractionPart {
        space: IndexCx { extents: vec![4, 5, 3], dynamic: Vec::new() },
        ranks: [0, 1, 1, 1],
        lhs: factor(2, [0, 2]),
        rhs: factor(3, [2, 1]),
        panel: None,
        out: vec![i(0), i(1)],
    };
    let mut exprs = Exprs::default();
    let value = exprs.add(ExprOp::Reduced(0), &[], DType::F32);
    kernel(&[4, 5], exprs, KernelBody::Contraction(vec![part]), store(4, vec![i(0), i(1)], value))
}

fn part(k: &mut Kernel) -> &mut ContractionPart {
    let KernelBody::Contraction(parts) = &mut k.body else { panic!("a product") };
    &mut parts[0]
}

/// `b1[i] = b0[b5[i]]`.
fn gather() -> Kernel {
    let mut exprs = Exprs::default();
    let at = exprs.load(5, vec![i(0)], Vec::new(), DType::I64);
    let at = exprs.dynamic(at, 4);
    let value = exprs.load(0, vec![at], Vec::new(), DType::F32);
    kernel(&[4], exprs, KernelBody::Loop { outer: 1, reductions: Vec::new() }, store(1, vec![i(0)], value))
}

/// `b1 = b0`, then `b1[b5[j]] += b0[j]` for three `j`.
fn scatter() -> Kernel {
    let mut exprs = Exprs::default();
    let at = exprs.load(5, vec![i(0)], Vec::new(), DType::I64);
    let index = vec![exprs.dynamic(at, 4)];
    let value = exprs.load(0, vec![i(0)], Vec::new(), DType::F32);
    let space = IndexCx { extents: vec![3], dynamic: Vec::new() };
    let updates = Updates { space, exprs, value, index, combine: Combine::Add };
    let mut exprs = Exprs::default();
    let x = exprs.load(0, vec![i(0)], Vec::new(), DType::F32);
    kernel(&[4], exprs, KernelBody::Scatter(updates), store(1, vec![i(0)], x))
}

fn updates(k: &mut Kernel) -> &mut Updates {
    let KernelBody::Scatter(updates) = &mut k.body else { panic!("a scatter") };
    updates
}

/// A kernel without stores, of values `b2[i, j]`.
fn along_an_axis(body: KernelBody) -> Kernel {
    let mut exprs = Exprs::default();
    exprs.load(2, vec![i(0), i(1)], Vec::new(), DType::F32);
    kernel(&[4, 3], exprs, body, Vec::new())
}

fn window(rank: usize) -> Window {
    let of = |n| vec![n; rank];
    Window { size: of(1), strides: of(1), padding: vec![(0, 0); rank], dilation: of(1) }
}

#[test]
fn loads_are_in_range_by_their_variables_or_guards() {
    assert_eq!(problems(&shifted(0, &[])), "");
    assert_eq!(problems(&shifted(1, &[])), "%0: i0 + 1 is in 1..=4, which is not inside 0..4 of b0");
    assert_eq!(problems(&shifted(-1, &[])), "%0: i0 - 1 is in -1..=2, which is not inside 0..4 of b0");
    let guard = Guard { expr: i(0).scale(2), lo: 0, hi: 6 };
    assert_eq!(problems(&shifted(1, &[guard])), "");
    let guard = Guard { expr: i(0).offset(1), lo: 0, hi: 5 };
    assert!(!problems(&shifted(1, &[guard])).is_empty());
    // At no point at all.
    right(shifted(1, &[]), |k| k.space.extents[0] = 0);
    right(gather(), |k| {
        k.exprs.dynamics[0].1 = 0;
        k.space.extents[0] = 3;
    });
    broken(gather(), "d0 is in 0..=4, which is not inside 0..4 of b0", |k| k.exprs.dynamics[0].1 = 5);
}

#[test]
fn guards_bound_variables_and_sums() {
    let cx = IndexCx { extents: vec![10, 10, 0], dynamic: vec![7] };
    let guard = |expr: IndexExpr, lo, hi| Guard { expr, lo, hi };
    let range = |guards: &[Guard], e: IndexExpr| Ranges::under(guards, &cx).map(|r| r.of(&e));
    assert_eq!(range(&[], i(0)), Some((0, 9)));
    assert_eq!(range(&[], i(2)), Some((0, 0)), "a variable without values");
    assert_eq!(range(&[], i(0).scale(-2).add(&i(1)).offset(3)), Some((-15, 12)));
    assert_eq!(range(&[], IndexExpr::atom(Atom::Dynamic(0))), Some((0, 6)));
    // 4 <= 3 i + 1 < 20: i in 1..=6.
    assert_eq!(range(&[guard(i(0).scale(3).offset(1), 4, 20)], i(0)), Some((1, 6)));
    // 5 <= 3 i + 1 < 19: i in 2..=5.
    assert_eq!(range(&[guard(i(0).scale(3).offset(1), 5, 19)], i(0)), Some((2, 5)));
    // 0 <= 7 - 2 i < 6: i in 1..=3.
    assert_eq!(range(&[guard(i(0).scale(-2).offset(7), 0, 6)], i(0)), Some((1, 3)));
    // Of two guards the narrower end of each.
    let both = [guard(i(0), 2, 8), guard(i(0), 0, 5)];
    assert_eq!(range(&both, i(0)), Some((2, 4)));
    // The range of a sum, and what is left of a longer one.
    let sum = i(0).add(&i(1));
    let of_sum = [guard(sum.clone(), 5, 9)];
    assert_eq!(range(&of_sum, sum.clone()), Some((5, 8)));
    assert_eq!(range(&of_sum, sum.offset(1)), Some((6, 9)));
    let dynamic = IndexExpr::atom(Atom::Dynamic(0));
    assert_eq!(range(&of_sum, sum.add(&dynamic)), Some((5, 14)));
    assert_eq!(range(&of_sum, i(0).add(&i(1).scale(2))), Some((0, 27)), "not a part of it");
    // Guards that never hold: of one variable, and of a sum.
    assert_eq!(range(&[guard(i(0), 10, 12)], i(0)), None);
    assert_eq!(range(&[guard(i(0), 3, 4)], i(0)), Some((3, 3)));
    assert_eq!(range(&[guard(sum.clone(), 19, 30)], sum.clone()), None);
    assert_eq!(range(&[guard(sum.clone(), 18, 30)], sum), Some((18, 18)));
}

#[test]
fn quotients_and_remainders_have_ranges() {
    let cx = IndexCx { extents: vec![10], dynamic: Vec::new() };
    let ranges = Ranges::under(&[], &cx).unwrap();
    let div = |e: IndexExpr, m| IndexExpr::atom(Atom::Div(Box::new(e), m));
    let rem = |e: IndexExpr, m| IndexExpr::atom(Atom::Mod(Box::new(e), m));
    assert_eq!(ranges.of(&div(i(0), 4)), (0, 2));
    assert_eq!(ranges.of(&div(i(0).offset(-3), 4)), (-1, 1));
    assert_eq!(ranges.of(&rem(i(0), 4)), (0, 3));
    assert_eq!(ranges.of(&rem(i(0), 10)), (0, 9));
    assert_eq!(ranges.of(&rem(i(0), 12)), (0, 9));
    assert_eq!(ranges.of(&rem(i(0).offset(1), 11)), (1, 10));
    assert_eq!(ranges.of(&rem(i(0).offset(1), 10)), (0, 9));
    assert_eq!(ranges.of(&rem(i(0).offset(-1), 12)), (0, 11));
    assert!(!ranges.divides_negative(&i(0).offset(-1)));
    assert!(!ranges.divides_negative(&div(i(0), 4).offset(-1)));
    assert!(ranges.divides_negative(&div(i(0).offset(-1), 4)));
    assert!(ranges.divides_negative(&rem(i(0).offset(-1), 4)));
    assert!(ranges.divides_negative(&rem(div(i(0).offset(-1), 4).offset(1), 4)), "within another one");
}

#[test]
fn expressions() {
    let at = |k: &mut Kernel, op| {
        k.exprs.nodes[0].op = op;
        k.exprs.nodes[0].dtype = DType::I64;
        k.exprs.nodes[1].dtype = DType::I64;
        k.stores[0].buffer = 5;
    };
    broken(shifted(0, &[]), "%1 uses %1, which is not earlier", |k| k.exprs.nodes[1].args[0] = 1);
    broken(shifted(0, &[]), "there is no variable i1", |k| at(k, ExprOp::Index(i(1))));
    right(shifted(0, &[]), |k| at(k, ExprOp::Index(i(0))));
    let within = IndexExpr::atom(Atom::Div(Box::new(i(1)), 2));
    broken(shifted(0, &[]), "there is no variable i1", |k| at(k, ExprOp::Index(within)));
    let by_zero = IndexExpr::atom(Atom::Mod(Box::new(i(0)), 0));
    broken(shifted(0, &[]), "a divisor is positive", |k| at(k, ExprOp::Index(by_zero)));
    let negative = IndexExpr::atom(Atom::Div(Box::new(i(0).offset(-1)), 2));
    broken(shifted(0, &[]), "a dividend is not negative", |k| at(k, ExprOp::Index(negative.clone())));
    // Where the guard holds it is not.
    let guarded = |lo| ExprOp::Load {
        buffer: 0,
        index: vec![negative.clone()],
        guards: vec![Guard { expr: i(0), lo, hi: 4 }],
    };
    right(shifted(0, &[]), |k| k.exprs.nodes[0].op = guarded(1));
    broken(shifted(0, &[]), "a dividend is not negative", |k| k.exprs.nodes[0].op = guarded(0));
    broken(gather(), "there is no dynamic value 0", |k| k.exprs.dynamics.clear());
    broken(gather(), "%1 uses %1, which is not earlier", |k| k.exprs.dynamics[0].0 = 1);
    broken(gather(), "dynamic index %0 is not i64", |k| {
        k.exprs.nodes[0].op = ExprOp::Load { buffer: 0, index: vec![i(0)], guards: Vec::new() };
        k.exprs.nodes[0].dtype = DType::F32;
    });
    broken(shifted(0, &[]), "does not give f64", |k| k.exprs.nodes[0].dtype = DType::F64);
    broken(shifted(0, &[]), "does not give f32", |k| {
        k.exprs.nodes[0].op = ExprOp::Index(i(0));
    });
    broken(shifted(0, &[]), "does not give f32", |k| k.exprs.nodes[0].op = ExprOp::Guard(Vec::new()));
    broken(shifted(0, &[]), "does not give f32", |k| k.exprs.nodes[1].op = ExprOp::Scalar(ScalarOp::Not));
    broken(shifted(0, &[]), "there is no reduction 0", |k| k.exprs.nodes[0].op = ExprOp::Reduced(0));
    broken(reduction(), "there is no reduction 1", |k| k.exprs.nodes[1].op = ExprOp::Reduced(1));
    broken(product(), "there is no reduction 1", |k| k.exprs.nodes[0].op = ExprOp::Reduced(1));
    broken(reduction(), "only instructions have operands", |k| k.exprs.nodes[1].args.push(0));
    let load = |buffer, index| ExprOp::Load { buffer, index, guards: Vec::new() };
    broken(shifted(0, &[]), "there is no buffer b9", |k| k.exprs.nodes[0].op = load(9, vec![i(0)]));
    broken(shifted(0, &[]), "%0: 0 index expressions for the 1 dimensions of b0", |k| {
        k.exprs.nodes[0].op = load(0, Vec::new());
    });
}

#[test]
fn loops() {
    broken(reduction(), "outer variables are part of the space", |k| {
        k.body = KernelBody::Loop { outer: 3, reductions: vec![(ReduceKind::Sum, 0)] };
    });
    right(shifted(0, &[]), |k| k.body = KernelBody::Loop { outer: 1, reductions: Vec::new() });
    let of = |value| KernelBody::Loop { outer: 1, reductions: vec![(ReduceKind::Sum, value)] };
    broken(reduction(), "r0: there is no expression %2", |k| k.body = of(2));
    broken(reduction(), "what is reduced depends on earlier reductions only", |k| k.body = of(1));
    broken(reduction(), "bools are not reduced", |k| {
        k.exprs.nodes[0].op = ExprOp::Load { buffer: 8, index: vec![i(0), i(1)], guards: Vec::new() };
        k.exprs.nodes[0].dtype = DType::Bool;
    });
    right(reduction(), |k| {
        k.body = KernelBody::Loop { outer: 1, reductions: vec![(ReduceKind::Sum, 0), (ReduceKind::Max, 1)] };
    });
}

#[test]
fn stores() {
    broken(shifted(0, &[]), "store 0 to b1: there is no expression %2", |k| k.stores[0].value = 2);
    broken(shifted(0, &[]), "0 index expressions for the 1 dimensions of b1", |k| k.stores[0].index.clear());
    broken(shifted(0, &[]), "there is no buffer b9", |k| k.stores[0].buffer = 9);
    broken(shifted(0, &[]), "there is no variable i3", |k| k.stores[0].index = vec![i(3)]);
    broken(shifted(0, &[]), "which is not inside 0..4 of b1", |k| k.stores[0].index = vec![i(0).offset(1)]);
    broken(shifted(0, &[]), "a value of f32 in a buffer of i64", |k| k.stores[0].buffer = 5);
    broken(shifted(0, &[]), "an outer store does not depend on inner variables", |k| {
        k.body = KernelBody::Loop { outer: 0, reductions: Vec::new() };
    });
    right(shifted(0, &[]), |k| {
        k.body = KernelBody::Loop { outer: 0, reductions: Vec::new() };
        k.stores[0].inner = true;
    });
    // By its value alone, and by its index alone.
    let to = |index, value| Store { buffer: 2, index, value, inner: false };
    broken(reduction(), "an outer store does not depend on inner variables", |k| {
        k.stores.push(to(vec![i(0), IndexExpr::constant(0)], 0));
    });
    broken(reduction(), "an outer store does not depend on inner variables", |k| {
        k.stores.push(to(vec![i(0), i(1)], 1));
    });
    right(reduction(), |k| k.stores.push(to(vec![i(0), IndexExpr::constant(2)], 1)));
}

#[test]
fn products() {
    broken(product(), "ranks are those of the space", |k| part(k).ranks = [0, 1, 1, 2]);
    broken(product(), "part 0 lhs: there is no expression %1", |k| part(k).lhs.value = 1);
    broken(product(), "part 0 rhs: there is no expression %1", |k| part(k).rhs.value = 1);
    let load =
        |buffer, index: [Var; 2]| ExprOp::Load { buffer, index: index.map(i).to_vec(), guards: Vec::new() };
    broken(product(), "does not depend on the left one's own dimensions", |k| {
        part(k).rhs.exprs.nodes[0].op = load(2, [0, 2]);
    });
    // The left one may depend on those of the right one.
    right(product(), |k| part(k).lhs.exprs.nodes[0].op = load(3, [2, 1]));
    // Of a batch, all may depend on its dimensions.
    right(product(), |k| {
        part(k).ranks = [1, 0, 1, 1];
        part(k).rhs.exprs.nodes[0].op = load(2, [0, 2]);
    });
    broken(product(), "factors of types f32 and i64", |k| {
        part(k).rhs.exprs.nodes[0] = Expr {
            op: ExprOp::Load { buffer: 5, index: vec![i(2)], guards: Vec::new() },
            args: Default::default(),
            dtype: DType::I64,
        };
    });
    broken(product(), "factors of types bool and bool", |k| {
        let part = part(k);
        for factor in [&mut part.lhs, &mut part.rhs] {
            let index = vec![IndexExpr::constant(0), i(2)];
            factor.exprs.nodes[0].op = ExprOp::Load { buffer: 8, index, guards: Vec::new() };
            factor.exprs.nodes[0].dtype = DType::Bool;
        }
    });
    broken(product(), "an index expression for each variable of the kernel", |k| drop(part(k).out.pop()));
    broken(product(), "the result does not depend on what is summed", |k| part(k).out[0] = i(2));
    broken(product(), "the result's index is inside the kernel's space", |k| part(k).out[0] = i(0).offset(1));
    broken(product(), "the result's index is inside the kernel's space", |k| {
        part(k).out[0] = i(0).offset(-1)
    });
    // Sums of nothing are results; without rows there is none.
    broken(product(), "the result's index is inside the kernel's space", |k| {
        part(k).space.extents[2] = 0;
        part(k).out[0] = i(0).offset(1);
    });
    for rows_or_columns in [0, 1] {
        right(product(), |k| {
            part(k).space.extents[rows_or_columns] = 0;
            part(k).out[0] = i(0).offset(5);
        });
    }
}

#[test]
fn scatters() {
    assert_eq!(problems(&scatter()), "");
    broken(scatter(), "a scatter has one store", |k| k.stores.clear());
    broken(scatter(), "the store of a scatter covers its buffer", |k| k.space.extents[0] = 3);
    broken(scatter(), "the store of a scatter covers its buffer", |k| {
        k.stores[0].index = vec![i(0).scale(-1).offset(3)];
    });
    broken(scatter(), "the store of a scatter covers its buffer", |k| k.stores[0].inner = true);
    broken(scatter(), "the updates: there is no expression %2", |k| updates(k).value = 2);
    broken(scatter(), "a value of i64 in a buffer of f32", |k| updates(k).value = 0);
    broken(scatter(), "there is no variable i1", |k| updates(k).index = vec![i(1)]);
    broken(scatter(), "which is not inside 0..4 of b1", |k| updates(k).exprs.dynamics[0].1 = 5);
    broken(scatter(), "which is not inside 0..4 of b1", |k| updates(k).index = vec![i(0).offset(2)]);
    broken(scatter(), "updates %1: i0 + 2 is in 2..=4", |k| {
        let index = vec![i(0).offset(2)];
        updates(k).exprs.nodes[1].op = ExprOp::Load { buffer: 0, index, guards: Vec::new() };
    });
}

#[test]
fn along_axes() {
    let sort = |value, axis, out| KernelBody::ArgSort { value, axis, descending: false, out };
    let sum = |value, axis, out| KernelBody::Cumulative {
        value,
        kind: ReduceKind::Sum,
        axis,
        reverse: false,
        exclusive: false,
        out,
    };
    let position = |value, out| KernelBody::ArgReduce { value, largest: true, out };
    for body in [sort(0, 1, 2), sum(0, 1, 2), position(0, 6)] {
        assert_eq!(problems(&along_an_axis(body)), "");
    }
    let wrong = |body, expected: &str| broken(along_an_axis(sum(0, 1, 2)), expected, |k| k.body = body);
    wrong(sort(1, 1, 2), "there is no expression %1");
    wrong(sum(1, 1, 2), "there is no expression %1");
    wrong(sum(0, 0, 2), "the innermost variable is the axis of the result");
    wrong(sum(0, 2, 2), "the innermost variable is the axis of the result");
    wrong(sum(0, 1, 9), "there is no buffer b9");
    wrong(position(1, 6), "argreduce: there is no expression %1");
    wrong(position(0, 1), "positions are integers");
    wrong(position(0, 9), "there is no buffer b9");
    broken(along_an_axis(position(0, 6)), "an axis is reduced", |k| {
        k.space.extents.clear();
        k.exprs.nodes[0].op =
            ExprOp::Load { buffer: 2, index: vec![IndexExpr::constant(0); 2], guards: Vec::new() };
    });
    broken(along_an_axis(sum(0, 1, 2)), "only loops, contractions and scatters store expressions", |k| {
        k.stores = store(2, vec![i(0), i(1)], 0);
    });
}

#[test]
fn windows() {
    let gather = |window, x, values, out| KernelBody::SelectAndGather { window, x, values, out };
    let scatter = |window, x, ct, out| KernelBody::SelectAndScatter { window, x, ct, out };
    for body in [gather(window(2), 2, 2, 4), scatter(window(2), 2, 4, 2)] {
        assert_eq!(problems(&along_an_axis(body)), "");
    }
    let wrong =
        |body, expected: &str| broken(along_an_axis(gather(window(2), 2, 2, 4)), expected, |k| k.body = body);
    let alike = "operands, result and window have the same dimensions";
    wrong(gather(window(2), 2, 3, 4), alike);
    wrong(gather(window(2), 2, 2, 1), alike);
    wrong(scatter(window(2), 2, 4, 3), alike);
    wrong(scatter(window(2), 2, 1, 2), alike);
    let changes: [fn(&mut Window); 4] = [
        |w| w.size.truncate(1),
        |w| w.strides.truncate(1),
        |w| w.padding.truncate(1),
        |w| w.dilation.truncate(1),
    ];
    for change in changes {
        let mut w = window(2);
        change(&mut w);
        wrong(gather(w.clone(), 2, 2, 4), alike);
        wrong(scatter(w, 2, 4, 2), alike);
    }
    for wrong_buffer in 0..3 {
        let of = |right: [BufferId; 3]| std::array::from_fn(|i| if i == wrong_buffer { 9 } else { right[i] });
        let [x, values, out] = of([2, 2, 4]);
        wrong(gather(window(2), x, values, out), "there is no buffer b9");
        let [x, ct, out] = of([2, 4, 2]);
        wrong(scatter(window(2), x, ct, out), "there is no buffer b9");
    }
    let types = "operands and result are of one type";
    // Of one dimension, of which there is one of another type.
    for [a, b, c] in [[5, 0, 0], [0, 5, 0], [0, 0, 5]] {
        wrong(gather(window(1), a, b, c), types);
        wrong(scatter(window(1), a, b, c), types);
    }
}

#[test]
fn regions() {
    let region = KernelBody::Region { operands: vec![0], results: vec![1], workspace: None };
    assert_eq!(problems(&along_an_axis(region)), "");
    let region = KernelBody::Region { operands: vec![9], results: vec![1], workspace: None };
    assert_eq!(problems(&along_an_axis(region)), "region: there is no buffer b9");
    let region = KernelBody::Region { operands: vec![2], results: vec![1], workspace: None };
    let mut across = buffers();
    across[2].strides = vec![1, 4];
    let errors = verify(&along_an_axis(region), &across).unwrap_err();
    assert_eq!(errors[0].to_string(), "region: its operands and results are row-major");
}
