//! Writes vector IR: types are inferred, scalars meeting vectors are splat, equal pure values of
//! one scope are shared.

use super::{Bound, Carried, Loop, MemRef, Stmt, VFunc, VOp, VType, Val};
use crate::narrow::lane_type;
use graphc_ir::{
    DType, Guard, IndexCx, IndexExpr, MAX_ELEMENTS, ReduceKind, Scalar, ScalarBuilder, ScalarOp, Var,
};
use rustc_hash::FxHashMap;
use smallvec::SmallVec;

/// Appends statements to a function under construction.
pub struct VBuilder {
    name: String,
    types: Vec<VType>,
    /// Ranges of the loop variables and of scalar `I64` values, for simplifying index expressions.
    cx: IndexCx,
    params: Vec<Val>,
    scheduled: bool,
    streams: Vec<u32>,
    /// Statements of the open scopes, innermost last.
    scopes: Vec<Scope>,
}

#[derive(Default)]
struct Scope {
    body: Vec<Stmt>,
    /// Pure values of this scope by what they are.
    known: FxHashMap<(VOp, SmallVec<[Val; 3]>), Val>,
    /// Vector variable of the innermost vector loop, with its lanes.
    vector: Option<(Var, u16)>,
}

/// A loop under construction.
pub struct OpenLoop {
    /// Its variable.
    pub var: IndexExpr,
    /// The carried values inside an iteration.
    pub values: Vec<Val>,
    /// The loop and its initial values; `None` if it is unrolled.
    header: Option<(Loop, Vec<Val>)>,
}

impl VBuilder {
    /// A kernel: its two scalar parameters are the first unit and the end of the units.
    pub fn kernel(name: &str) -> Self {
        Self {
            name: name.to_owned(),
            types: vec![VType { dtype: DType::I64, lanes: 1 }; 2],
            cx: IndexCx { extents: Vec::new(), dynamic: vec![MAX_ELEMENTS as i64; 2] },
            params: vec![0, 1],
            scheduled: false,
            streams: Vec::new(),
            scopes: vec![Scope::default()],
        }
    }

    /// Asks the emitter to keep the order of instructions.
    pub fn keep_order(&mut self) {
        self.scheduled = true;
    }

    /// Scalar parameter `i` as an index.
    pub fn param(&self, i: usize) -> IndexExpr {
        IndexExpr::atom(graphc_ir::Atom::Dynamic(self.params[i]))
    }

    /// The finished function.
    pub fn finish(mut self) -> VFunc {
        let body = self.scopes.pop().expect("the outermost scope is open").body;
        debug_assert!(self.scopes.is_empty(), "every loop is closed");
        VFunc {
            name: self.name,
            types: self.types,
            n_vars: self.cx.extents.len() as u32,
            params: self.params,
            body,
            scheduled: self.scheduled,
            streams: self.streams,
        }
    }

    /// Says that stores to a buffer may go past the caches.
    pub fn stream(&mut self, buffer: u32) {
        if !self.streams.contains(&buffer) {
            self.streams.push(buffer);
        }
    }

    /// Type of a value.
    pub fn ty(&self, v: Val) -> VType {
        self.types[v as usize]
    }

    /// A scalar `I64` value as an index.
    ///
    /// It is in `0..bound`.
    pub fn dynamic(&mut self, v: Val, bound: i64) -> IndexExpr {
        debug_assert_eq!(self.ty(v), VType { dtype: DType::I64, lanes: 1 });
        self.cx.dynamic[v as usize] = bound;
        IndexExpr::atom(graphc_ir::Atom::Dynamic(v))
    }

    /// Ranges of the variables so far.
    pub fn cx(&self) -> &IndexCx {
        &self.cx
    }

    /// States the exclusive upper bound of scalar parameter `i`.
    pub fn bound_param(&mut self, i: usize, bound: i64) {
        self.cx.dynamic[self.params[i] as usize] = bound;
    }

    fn scope(&mut self) -> &mut Scope {
        self.scopes.last_mut().expect("the outermost scope is open")
    }

    fn value(&mut self, ty: VType) -> Val {
        self.types.push(ty);
        self.cx.dynamic.push(MAX_ELEMENTS as i64);
        (self.types.len() - 1) as Val
    }

    fn define(&mut self, op: VOp, args: &[Val], ty: VType) -> Val {
        let pure = !matches!(op, VOp::Load(..));
        let key = (op, SmallVec::from_slice(args));
        if pure {
            let known = self.scopes.iter().rev().find_map(|s| s.known.get(&key)).copied();
            if let Some(v) = known.filter(|&v| self.ty(v) == ty) {
                return v;
            }
        }
        let dst = self.value(ty);
        let scope = self.scope();
        scope.body.push(Stmt::Def { dst, op: key.0.clone(), args: key.1.clone() });
        if pure {
            scope.known.insert(key, dst);
        }
        dst
    }

    fn lanes_of(&self, mut uses: impl FnMut(Var) -> bool) -> u16 {
        match self.scopes.last().expect("the outermost scope is open").vector {
            Some((var, lanes)) if uses(var) => lanes,
            _ => 1,
        }
    }

    /// Reads memory; where a guard fails, the value is 0.
    pub fn load(&mut self, mem: MemRef, guards: &[Guard]) -> Val {
        let lanes = self.lanes_of(|v| mem.index.uses(v) || guards.iter().any(|g| g.expr.uses(v)));
        let ty = VType { dtype: lane_type(mem.dtype), lanes };
        self.define(VOp::Load(mem, guards.to_vec()), &[], ty)
    }

    /// An index expression as `I64`.
    pub fn index(&mut self, e: &IndexExpr) -> Val {
        if let Some(c) = e.as_constant() {
            return self.i64(c);
        }
        let lanes = self.lanes_of(|v| e.uses(v));
        self.define(VOp::Index(e.clone()), &[], VType { dtype: DType::I64, lanes })
    }

    /// Whether all guards hold.
    pub fn guard(&mut self, guards: &[Guard]) -> Val {
        let lanes = self.lanes_of(|v| guards.iter().any(|g| g.expr.uses(v)));
        self.define(VOp::Guard(guards.to_vec()), &[], VType { dtype: DType::Bool, lanes })
    }

    /// `v` in `lanes` lanes.
    pub fn splat(&mut self, v: Val, lanes: u16) -> Val {
        let ty = self.ty(v);
        if ty.lanes == lanes {
            return v;
        }
        debug_assert_eq!(ty.lanes, 1, "a vector is not splat");
        self.define(VOp::Splat, &[v], VType { dtype: ty.dtype, lanes })
    }

    /// All lanes into one, by the fixed tree.
    pub fn fold(&mut self, kind: ReduceKind, v: Val) -> Val {
        let dtype = self.ty(v).dtype;
        self.define(VOp::Fold(kind), &[v], VType { dtype, lanes: 1 })
    }

    /// Writes memory. A value of fewer lanes than the address asks for is splat; lanes with one
    /// address are written in order.
    pub fn store(&mut self, mem: MemRef, value: Val) {
        let lanes = self.lanes_of(|v| mem.index.uses(v)).max(self.ty(value).lanes);
        let value = self.splat(value, lanes);
        self.scope().body.push(Stmt::Store { mem, value });
    }

    /// Says that an element is needed soon.
    pub fn prefetch(&mut self, mem: MemRef) {
        self.scope().body.push(Stmt::Prefetch(mem));
    }

    /// Opens a loop `for var in (lo..hi).step_by(step)` of `lanes` lanes with carried values that
    /// start as `init`. What is appended until [`VBuilder::close`] is its body. A scalar loop of
    /// exactly one iteration is unrolled.
    pub fn open(&mut self, lo: IndexExpr, hi: Bound, step: i64, lanes: u16, init: &[Val]) -> OpenLoop {
        let extent = match &hi {
            Bound::Expr(hi) => hi.add(&lo.scale(-1)).as_constant(),
            Bound::Min(..) => None,
        };
        if lanes == 1 && extent.is_some_and(|n| 0 < n && n <= step) {
            return OpenLoop { var: lo, values: init.to_vec(), header: None };
        }
        let id = self.cx.extents.len() as Var;
        let largest = |e: &IndexExpr| self.cx.range(e).1;
        self.cx.extents.push(match &hi {
            Bound::Expr(e) => largest(e),
            Bound::Min(x, y) => largest(x).min(largest(y)),
        });
        let outer = self.scopes.last().expect("the outermost scope is open").vector;
        let vector = if lanes > 1 { Some((id, lanes)) } else { outer };
        self.scopes.push(Scope { vector, ..Scope::default() });
        let values: Vec<Val> = init.iter().map(|&v| self.value(self.ty(v))).collect();
        let header =
            Loop { var: id, lo: Bound::Expr(lo), hi, step, lanes, carried: Vec::new(), body: Vec::new() };
        OpenLoop { var: IndexExpr::var(id), values, header: Some((header, init.to_vec())) }
    }

    /// Closes a loop with the next values of what it carries; gives the values after it.
    pub fn close(&mut self, open: OpenLoop, next: &[Val]) -> Vec<Val> {
        let Some((mut header, init)) = open.header else { return next.to_vec() };
        for ((&phi, init), &next) in open.values.iter().zip(init).zip(next) {
            let next = self.splat(next, self.ty(phi).lanes);
            header.carried.push(Carried { phi, init, next });
        }
        header.body = self.scopes.pop().expect("opened with a scope").body;
        self.scope().body.push(Stmt::Loop(header));
        open.values
    }

    /// A constant in `lanes` lanes.
    pub fn constant_lanes(&mut self, value: Scalar, lanes: u16) -> Val {
        let v = self.constant(value);
        self.splat(v, lanes)
    }

    /// Lanes of the enclosing vector loop, or 1.
    pub fn lanes(&self) -> u16 {
        self.scopes.last().and_then(|s| s.vector).map_or(1, |(_, lanes)| lanes)
    }
}

impl ScalarBuilder for VBuilder {
    type V = Val;

    fn op(&mut self, op: ScalarOp, args: &[Val]) -> Val {
        let lanes = args.iter().map(|&a| self.ty(a).lanes).max().unwrap_or(1);
        let args: SmallVec<[Val; 3]> = args.iter().map(|&a| self.splat(a, lanes)).collect();
        let types: SmallVec<[DType; 3]> = args.iter().map(|&a| self.ty(a).dtype).collect();
        let dtype = op.infer(&types).unwrap_or_else(|| panic!("{op:?} does not take {types:?}"));
        self.define(VOp::Scalar(op), &args, VType { dtype, lanes })
    }

    fn dtype(&self, v: Val) -> DType {
        self.ty(v).dtype
    }
}
