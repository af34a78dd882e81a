//! The rules of vector IR. What is broken here is a defect of the scheduler, not of a program that
//! a user wrote; debug builds check every function.

use super::print::memory;
use super::{Base, Bound, Loop, MemRef, Stmt, VFunc, VOp, VType, Val};
use crate::narrow::lane_type;
use crate::program::Buffer;
use graphc_ir::{Atom, DType, Guard, IndexExpr, Reduce, Var};

/// A rule that a function breaks.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum VectorError {
    /// A value is defined twice, or has no type.
    #[error("%{0} is defined twice or has no type")]
    Redefined(Val),
    /// A value is used where it is not defined.
    #[error("{user} uses %{value}, which is not defined there")]
    Undefined {
        /// The value.
        value: Val,
        /// Who uses it.
        user: String,
    },
    /// An index names a variable whose loop does not enclose it, or a loop one that is taken.
    #[error("{user}: variable i{var} is out of scope or taken")]
    Variable {
        /// The variable.
        var: Var,
        /// Who uses it.
        user: String,
    },
    /// Types or lane counts do not fit.
    #[error("{user}: {message}")]
    Type {
        /// The statement.
        user: String,
        /// What does not fit.
        message: String,
    },
    /// A loop breaks a rule of its own.
    #[error("{user}: {message}")]
    Structure {
        /// The statement.
        user: String,
        /// The rule.
        message: &'static str,
    },
    /// A reference to something that does not exist.
    #[error("{user}: there is no {what}")]
    Missing {
        /// The statement.
        user: String,
        /// What does not exist.
        what: String,
    },
}

/// Checks a kernel's function. `buffers` are those it may name.
///
/// # Errors
/// Every broken rule, in order of the statements.
pub fn verify(f: &VFunc, buffers: &[Buffer]) -> Result<(), Vec<VectorError>> {
    let mut v = Verifier {
        f,
        buffers,
        defined: vec![false; f.types.len()],
        visible: vec![false; f.types.len()],
        vars: vec![false; f.n_vars as usize],
        used_vars: vec![false; f.n_vars as usize],
        vector: None,
        errors: Vec::new(),
    };
    for &p in &f.params {
        v.define(p);
        v.index_type(p, "a parameter");
    }
    v.block(&f.body);
    if v.errors.is_empty() { Ok(()) } else { Err(v.errors) }
}

struct Verifier<'a> {
    f: &'a VFunc,
    buffers: &'a [Buffer],
    /// Values defined anywhere so far.
    defined: Vec<bool>,
    /// Values defined in the open scopes.
    visible: Vec<bool>,
    /// Variables of the open loops.
    vars: Vec<bool>,
    used_vars: Vec<bool>,
    /// Variable and lanes of the enclosing vector loop.
    vector: Option<(Var, u16)>,
    errors: Vec<VectorError>,
}

impl Verifier<'_> {
    fn mismatch(&mut self, user: &str, message: String) {
        self.errors.push(VectorError::Type { user: user.to_owned(), message });
    }

    fn structure(&mut self, user: &str, message: &'static str) {
        self.errors.push(VectorError::Structure { user: user.to_owned(), message });
    }

    fn missing(&mut self, user: &str, what: String) {
        self.errors.push(VectorError::Missing { user: user.to_owned(), what });
    }

    fn define(&mut self, v: Val) -> bool {
        let known = self.defined.get(v as usize).copied();
        if known != Some(false) {
            self.errors.push(VectorError::Redefined(v));
            return false;
        }
        self.defined[v as usize] = true;
        self.visible[v as usize] = true;
        true
    }

    /// The type of a value that must be visible here.
    fn operand(&mut self, v: Val, user: &str) -> Option<VType> {
        if self.visible.get(v as usize) == Some(&true) {
            return Some(self.f.types[v as usize]);
        }
        self.errors.push(VectorError::Undefined { value: v, user: user.to_owned() });
        None
    }

    fn index_type(&mut self, v: Val, user: &str) {
        if let Some(ty) = self.operand(v, user)
            && ty != (VType { dtype: DType::I64, lanes: 1 })
        {
            self.mismatch(user, format!("%{v} is {ty}, not a scalar i64"));
        }
    }

    fn index(&mut self, e: &IndexExpr, user: &str) {
        for (atom, _) in e.terms() {
            match atom {
                Atom::Var(v) if self.vars.get(*v as usize) != Some(&true) => {
                    self.errors.push(VectorError::Variable { var: *v, user: user.to_owned() });
                }
                Atom::Var(_) => {}
                Atom::Dynamic(v) => self.index_type(*v, user),
                Atom::Div(inner, m) | Atom::Mod(inner, m) => {
                    if *m <= 0 {
                        self.structure(user, "a divisor is positive");
                    }
                    self.index(inner, user);
                }
            }
        }
    }

    /// An index that is the same for all lanes.
    fn uniform(&mut self, e: &IndexExpr, user: &str) {
        self.index(e, user);
        if self.vector.is_some_and(|(var, _)| e.uses(var)) {
            self.structure(user, "bounds are the same for all lanes");
        }
    }

    fn guards(&mut self, guards: &[Guard], user: &str) {
        guards.iter().for_each(|g| self.index(&g.expr, user));
    }

    fn memory(&mut self, m: &MemRef, user: &str) {
        self.index(&m.index, user);
        match m.base {
            Base::Buffer(i) => match self.buffers.get(i as usize) {
                None => self.missing(user, format!("buffer b{i}")),
                Some(b) if b.dtype != m.dtype => {
                    self.mismatch(user, format!("b{i} holds {}, not {}", b.dtype, m.dtype));
                }
                Some(_) => {}
            },
            Base::Scratch(offset) if !(offset as usize).is_multiple_of(m.dtype.size_bytes()) => {
                self.structure(user, "scratch offsets are aligned");
            }
            Base::Scratch(_) => {}
        }
    }

    /// `lanes` values of something with these index expressions.
    fn lanes_of(&mut self, lanes: u16, exprs: &[&IndexExpr], user: &str) {
        let varies = self.vector.is_some_and(|(var, _)| exprs.iter().any(|e| e.uses(var)));
        match self.vector {
            Some((_, n)) if lanes == n || (lanes == 1 && !varies) => {}
            None if lanes == 1 => {}
            Some((var, n)) => {
                self.mismatch(user, format!("{lanes} lanes of an index over i{var} in a loop of {n}"));
            }
            None => self.mismatch(user, format!("{lanes} lanes outside of vector loops")),
        }
    }

    fn block(&mut self, body: &[Stmt]) {
        for s in body {
            match s {
                Stmt::Def { dst, op, args } => self.def(*dst, op, args),
                Stmt::Store { mem, value } => {
                    let user = format!("store {}", memory(mem));
                    self.memory(mem, &user);
                    if let Some(ty) = self.operand(*value, &user) {
                        if ty.dtype != lane_type(mem.dtype) {
                            self.mismatch(&user, format!("%{value} is {ty}"));
                        }
                        self.lanes_of(ty.lanes, &[&mem.index], &user);
                    }
                }
                Stmt::Prefetch(mem) => self.memory(mem, &format!("prefetch {}", memory(mem))),
                Stmt::Loop(l) => self.enter(l),
            }
        }
    }

    fn def(&mut self, dst: Val, op: &VOp, args: &[Val]) {
        let user = format!("%{dst}");
        let types: Vec<Option<VType>> = args.iter().map(|&a| self.operand(a, &user)).collect();
        let types: Option<Vec<VType>> = types.into_iter().collect();
        match op {
            VOp::Load(mem, guards) => {
                self.memory(mem, &user);
                self.guards(guards, &user);
            }
            VOp::Index(e) => self.index(e, &user),
            VOp::Guard(guards) => self.guards(guards, &user),
            VOp::Scalar(_) | VOp::Splat | VOp::Fold(_) => {}
        }
        if !self.define(dst) {
            return;
        }
        let Some(types) = types else { return };
        let ty = self.f.types[dst as usize];
        let expected = self.expected(op, &types, ty, &user);
        if expected != Some(ty) {
            let types: Vec<String> = types.iter().map(ToString::to_string).collect();
            self.mismatch(&user, format!("{op:?} of ({}) does not give {ty}", types.join(", ")));
        }
    }

    /// The type of an operation's result; that of memory and indices takes the lanes of `ty`.
    fn expected(&mut self, op: &VOp, args: &[VType], ty: VType, user: &str) -> Option<VType> {
        let of = |dtype| Some(VType { dtype, lanes: ty.lanes });
        match (op, args) {
            (VOp::Scalar(op), args) => {
                let dtypes: Vec<DType> = args.iter().map(|t| t.dtype).collect();
                let lanes = args.first().map_or(1, |t| t.lanes);
                let one_count = args.iter().all(|t| t.lanes == lanes);
                op.infer(&dtypes).filter(|_| one_count).map(|dtype| VType { dtype, lanes })
            }
            (VOp::Splat, [x]) if x.lanes == 1 && ty.lanes > 1 => of(x.dtype),
            (VOp::Fold(_), [x]) if usize::from(x.lanes) == Reduce::LANES && ty.lanes == 1 => of(x.dtype),
            (VOp::Load(mem, guards), []) => {
                let exprs: Vec<&IndexExpr> =
                    std::iter::once(&mem.index).chain(guards.iter().map(|g| &g.expr)).collect();
                self.lanes_of(ty.lanes, &exprs, user);
                of(lane_type(mem.dtype))
            }
            (VOp::Index(e), []) => {
                self.lanes_of(ty.lanes, &[e], user);
                of(DType::I64)
            }
            (VOp::Guard(guards), []) => {
                let exprs: Vec<&IndexExpr> = guards.iter().map(|g| &g.expr).collect();
                self.lanes_of(ty.lanes, &exprs, user);
                of(DType::Bool)
            }
            _ => None,
        }
    }

    fn enter(&mut self, l: &Loop) {
        let user = format!("loop i{}", l.var);
        for b in [&l.lo, &l.hi] {
            match b {
                Bound::Expr(e) => self.uniform(e, &user),
                Bound::Min(x, y) => {
                    self.uniform(x, &user);
                    self.uniform(y, &user);
                }
            }
        }
        if l.step < 1 || l.lanes < 1 || (l.lanes > 1 && l.step != i64::from(l.lanes)) {
            self.structure(&user, "a step is positive, and the number of lanes if that is above 1");
        }
        if l.lanes > 1 {
            if self.vector.is_some() {
                self.structure(&user, "a vector loop is not inside another");
            }
            if !l.carried.is_empty() && l.extent().is_none() {
                self.structure(&user, "a vector loop with carried values has a fixed extent");
            }
        }
        let init: Vec<Option<VType>> = l.carried.iter().map(|c| self.operand(c.init, &user)).collect();
        if self.used_vars.get(l.var as usize) != Some(&false) {
            self.errors.push(VectorError::Variable { var: l.var, user });
            return;
        }
        self.used_vars[l.var as usize] = true;
        self.vars[l.var as usize] = true;
        let outside = self.visible.clone();
        let outer = self.vector;
        if l.lanes > 1 {
            self.vector = Some((l.var, l.lanes));
        }
        for c in &l.carried {
            self.define(c.phi);
        }
        self.block(&l.body);
        for (c, init) in l.carried.iter().zip(init) {
            let next = self.operand(c.next, &user);
            let phi = self.f.types.get(c.phi as usize).copied();
            if init != phi || next != phi {
                self.mismatch(&user, format!("%{}, %{} and %{} are of one type", c.phi, c.init, c.next));
            }
            if l.lanes > 1 && phi.is_some_and(|t| t.lanes != l.lanes) {
                self.mismatch(&user, format!("carried %{} has a value for each lane", c.phi));
            }
        }
        self.visible = outside;
        for c in &l.carried {
            if let Some(v) = self.visible.get_mut(c.phi as usize) {
                *v = true;
            }
        }
        self.vector = outer;
        self.vars[l.var as usize] = false;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::vector::builder::VBuilder;
    use graphc_ir::ScalarBuilder;

    fn sum_of_squares() -> VFunc {
        let mut b = VBuilder::kernel("k");
        let zero = b.constant_lanes(graphc_ir::Scalar::F32(0.0), 16);
        let l = b.open(IndexExpr::default(), Bound::Expr(IndexExpr::constant(100)), 16, 16, &[zero]);
        let at = |index| MemRef { base: Base::Scratch(0), dtype: DType::F32, index };
        let x = b.load(at(l.var.clone()), &[]);
        let next = b.fma(x, x, l.values[0]);
        let lanes = b.close(l, &[next]);
        let sum = b.fold(graphc_ir::ReduceKind::Sum, lanes[0]);
        b.store(at(IndexExpr::constant(100)), sum);
        b.finish()
    }

    fn first_loop(f: &mut VFunc) -> &mut Loop {
        let l = f.body.iter_mut().find_map(|s| if let Stmt::Loop(l) = s { Some(l) } else { None });
        l.unwrap()
    }

    #[test]
    fn a_well_formed_function_passes() {
        assert_eq!(verify(&sum_of_squares(), &[]), Ok(()));
    }

    #[test]
    fn each_broken_rule_is_reported() {
        broken("the number of lanes", |f| first_loop(f).step = 8);
        broken("fixed extent", |f| first_loop(f).hi = Bound::Expr(IndexExpr::atom(Atom::Dynamic(1))));
        broken("defined twice", |f| {
            let copy = f.body[0].clone();
            f.body.push(copy);
        });
        broken("not defined there", |f| f.body.swap(0, 1));
        broken("out of scope", |f| {
            let load = first_loop(f).body[0].clone();
            f.body.push(load);
        });
        broken("does not give", |f| f.types[2].dtype = DType::F64);
        for expected in ["no buffer b3", "%0 is i64"] {
            broken(expected, |f| {
                let mem = MemRef { base: Base::Buffer(3), dtype: DType::F32, index: IndexExpr::default() };
                f.body.push(Stmt::Store { mem, value: 0 });
            });
        }
    }

    /// What is wrong with the function after a change, in one line.
    fn problems(buffers: &[Buffer], change: impl FnOnce(&mut VFunc)) -> String {
        let mut f = sum_of_squares();
        change(&mut f);
        let errors = verify(&f, buffers).err().unwrap_or_default();
        errors.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ")
    }

    #[track_caller]
    fn broken(expected: &str, change: impl FnOnce(&mut VFunc)) {
        let found = problems(&[], change);
        assert!(found.contains(expected), "{expected:?} is not in {found:?}");
    }

    #[track_caller]
    fn right(change: impl FnOnce(&mut VFunc)) {
        assert_eq!(problems(&[], change), "");
    }

    fn scratch(offset: u32, index: IndexExpr) -> MemRef {
        MemRef { base: Base::Scratch(offset), dtype: DType::F32, index }
    }

    /// A new value of this type, computed in this way, at the end of the function or of its loop.
    fn compute(f: &mut VFunc, inside: bool, ty: (DType, u16), op: VOp, args: &[Val]) -> Val {
        let dst = f.types.len() as Val;
        f.types.push(VType { dtype: ty.0, lanes: ty.1 });
        let stmt = Stmt::Def { dst, op, args: args.into() };
        if inside {
            first_loop(f).body.push(stmt)
        } else {
            f.body.push(stmt)
        }
        dst
    }

    fn loop_over(f: &mut VFunc, hi: Bound, lanes: u16) -> Loop {
        f.n_vars += 1;
        let (var, step) = (f.n_vars - 1, i64::from(lanes));
        Loop {
            var,
            lo: Bound::Expr(IndexExpr::default()),
            hi,
            step,
            lanes,
            carried: Vec::new(),
            body: Vec::new(),
        }
    }

    fn upto(n: i64) -> Bound {
        Bound::Expr(IndexExpr::constant(n))
    }

    #[test]
    fn loops() {
        right(|f| {
            let inner = loop_over(f, upto(3), 1);
            first_loop(f).body.push(Stmt::Loop(inner));
        });
        broken("a vector loop is not inside another", |f| {
            let inner = loop_over(f, upto(16), 16);
            first_loop(f).body.push(Stmt::Loop(inner));
        });
        let of_lanes = |bound: fn(IndexExpr) -> Bound| {
            broken("bounds are the same for all lanes", |f| {
                let var = IndexExpr::var(first_loop(f).var);
                let inner = loop_over(f, bound(var), 1);
                first_loop(f).body.push(Stmt::Loop(inner));
            });
        };
        of_lanes(Bound::Expr);
        of_lanes(|x| Bound::Min(x, IndexExpr::constant(1)));
        of_lanes(|x| Bound::Min(IndexExpr::constant(1), x));
        let rule = "a step is positive, and the number of lanes if that is above 1";
        for (step, lanes) in [(0, 1), (1, 0), (8, 16)] {
            broken(rule, |f| {
                let l = loop_over(f, upto(3), 1);
                f.body.push(Stmt::Loop(Loop { step, lanes, ..l }));
            });
        }
        right(|f| {
            let l = loop_over(f, upto(3), 1);
            f.body.push(Stmt::Loop(Loop { step: 2, ..l }));
        });
        broken("variable i0 is out of scope or taken", |f| {
            let again = Loop { var: 0, ..loop_over(f, upto(3), 1) };
            f.body.push(Stmt::Loop(again));
        });
        broken("is out of scope or taken", |f| {
            let l = loop_over(f, upto(3), 1);
            f.n_vars -= 1;
            f.body.push(Stmt::Loop(l));
        });
    }

    #[test]
    fn values_around_a_loop() {
        broken("are of one type", |f| {
            let ty = (DType::F64, 16);
            let other = compute(
                f,
                true,
                ty,
                VOp::Load(MemRef { dtype: DType::F64, ..scratch(0, IndexExpr::default()) }, vec![]),
                &[],
            );
            first_loop(f).carried[0].next = other;
        });
        broken("are of one type", |f| {
            let other =
                compute(f, false, (DType::F32, 1), VOp::Load(scratch(0, IndexExpr::default()), vec![]), &[]);
            let definition = f.body.pop().expect("just pushed");
            f.body.insert(0, definition);
            first_loop(f).carried[0].init = other;
        });
        broken("has a value for each lane", |f| {
            let l = first_loop(f).clone();
            for v in [l.carried[0].phi, l.carried[0].init, l.carried[0].next] {
                f.types[v as usize].lanes = 1;
            }
        });
        broken("which is not defined there", |f| {
            let inside = first_loop(f).carried[0].next;
            let value = compute(f, false, (DType::F32, 1), VOp::Fold(graphc_ir::ReduceKind::Sum), &[inside]);
            f.body.push(Stmt::Store { mem: scratch(0, IndexExpr::default()), value });
        });
        broken("which is not defined there", |f| first_loop(f).carried[0].init = 1000);
    }

    #[test]
    fn types_of_memory() {
        let m = graphc_ir::ModuleBuilder::new("m");
        m.function("f", |f| {
            f.output("y", f.input("x", DType::I32, [4]));
        });
        let node = m.build().unwrap().functions[0].inputs[0];
        let place = crate::program::Place::Input(0);
        let buffers = [Buffer { dtype: DType::I32, dims: vec![4], strides: vec![1], place, node }];
        let of = |dtype| {
            let mem = MemRef { base: Base::Buffer(0), dtype, index: IndexExpr::default() };
            problems(&buffers, |f| f.body.push(Stmt::Prefetch(mem)))
        };
        assert_eq!(of(DType::I32), "");
        assert!(of(DType::F32).contains("b0 holds i32, not f32"));
    }

    #[test]
    fn memory_and_indices() {
        broken("there is no buffer b0", |f| {
            let mem = MemRef { base: Base::Buffer(0), ..scratch(0, IndexExpr::default()) };
            f.body.push(Stmt::Prefetch(mem));
        });
        broken("scratch offsets are aligned", |f| {
            f.body.push(Stmt::Prefetch(scratch(2, IndexExpr::default())))
        });
        right(|f| f.body.push(Stmt::Prefetch(scratch(4, IndexExpr::default()))));
        let by = |m| {
            move |f: &mut VFunc| {
                let within = IndexExpr::constant(3);
                f.body.push(Stmt::Prefetch(scratch(0, IndexExpr::atom(Atom::Div(Box::new(within), m)))));
            }
        };
        broken("a divisor is positive", by(0));
        right(by(1));
        broken("variable i0 is out of scope", |f| {
            let within = Box::new(IndexExpr::var(0));
            f.body.push(Stmt::Prefetch(scratch(0, IndexExpr::atom(Atom::Mod(within, 2)))));
        });
        let dynamic = |ty, op: fn() -> VOp| {
            problems(&[], |f| {
                let v = compute(f, false, ty, op(), &[]);
                f.body.push(Stmt::Prefetch(scratch(0, IndexExpr::atom(Atom::Dynamic(v)))));
            })
        };
        let load = || VOp::Load(scratch(0, IndexExpr::default()), Vec::new());
        assert_eq!(dynamic((DType::I64, 1), || VOp::Index(IndexExpr::constant(1))), "");
        assert!(dynamic((DType::F32, 1), load).contains("not a scalar i64"));
        broken("not a scalar i64", |f| {
            let v = compute(f, true, (DType::I64, 16), VOp::Index(IndexExpr::var(0)), &[]);
            let mem = scratch(0, IndexExpr::atom(Atom::Dynamic(v)));
            first_loop(f).body.push(Stmt::Prefetch(mem));
        });
        broken("a parameter: %0 is i32, not a scalar i64", |f| f.types[0].dtype = DType::I32);
        // Of a load, an index and a guard.
        let guard = Guard { expr: IndexExpr::var(0), lo: 0, hi: 1 };
        for (dtype, op) in [
            (DType::F32, VOp::Load(scratch(0, IndexExpr::default()), vec![guard.clone()])),
            (DType::F32, VOp::Load(scratch(0, IndexExpr::var(0)), vec![])),
            (DType::I64, VOp::Index(IndexExpr::var(0))),
            (DType::Bool, VOp::Guard(vec![guard])),
        ] {
            broken("variable i0 is out of scope", |f| {
                compute(f, false, (dtype, 1), op.clone(), &[]);
            });
            right(|f| {
                compute(f, true, (dtype, 16), op.clone(), &[]);
            });
            broken("16 lanes outside of vector loops", |f| {
                compute(f, false, (dtype, 16), op.clone(), &[]);
            });
            broken("1 lanes of an index over i0", |f| {
                compute(f, true, (dtype, 1), op.clone(), &[]);
            });
            broken("8 lanes of an index over i0", |f| {
                compute(f, true, (dtype, 8), op, &[]);
            });
        }
    }
}
