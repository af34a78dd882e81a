//! Vector IR to CLIF, one function at a time. Works on every machine that Cranelift supports: a
//! vector of `n` lanes becomes as many 128-bit values as it takes.

use super::ops::{self, Parts};
use crate::program::{Place, Program};
use crate::vector::{Base, Bound, Loop, MemRef, Stmt, VFunc, VOp, Val};
use cranelift_codegen::ir::condcodes::IntCC;
use cranelift_codegen::ir::{BlockArg, InstBuilder, MemFlagsData, Value, types};
use cranelift_frontend::FunctionBuilder;
use graphc_ir::{Atom, DType, Guard, IndexExpr, Reduce, ReduceKind, ScalarOp, Var};
use graphc_runtime::abi;
use rustc_hash::FxHashMap;
use smallvec::SmallVec;

/// How the innermost vector loop is being emitted.
#[derive(Clone, Copy)]
enum Mode {
    /// Values have one lane: outside vector loops, and in their scalar tails.
    Scalar,
    /// Values that depend on `var` are vectors.
    Vector {
        var: Var,
        lanes: usize,
        /// Lanes that exist; the others must not touch memory.
        active: usize,
        /// `var` is a multiple of `lanes` in every iteration.
        aligned: bool,
    },
}

/// Emits one function.
pub(super) struct Emitter<'a, 'b> {
    b: &'a mut FunctionBuilder<'b>,
    program: &'a Program,
    f: &'a VFunc,
    values: Vec<Parts>,
    vars: FxHashMap<Var, Value>,
    /// Addresses of what is named in the open scopes, without the constant part.
    addresses: Vec<FxHashMap<(Base, IndexExpr), Value>>,
    bases: Bases,
    mode: Mode,
    /// How many scalar tails of vector loops enclose the current point: there, vector values have one
    /// lane.
    tail_depth: u32,
}

/// Pointers that a kernel loads once, at its entry.
struct Bases {
    arena: Value,
    state: Value,
    constants: Value,
    scratch: Value,
    ports: FxHashMap<u32, Value>,
}

const fn flags() -> MemFlagsData {
    MemFlagsData::new().with_notrap()
}

impl<'a, 'b> Emitter<'a, 'b> {
    /// Emits kernel `f` with parameters (context, first unit, end of units, worker).
    pub(super) fn kernel(b: &'a mut FunctionBuilder<'b>, program: &'a Program, f: &'a VFunc) {
        let entry = b.create_block();
        b.append_block_params_for_function_params(entry);
        b.switch_to_block(entry);
        let params = b.block_params(entry).to_vec();
        let context = params[0];
        let pointer =
            |b: &mut FunctionBuilder<'_>, offset: i32| b.ins().load(types::I64, flags(), context, offset);
        let arena = pointer(b, abi::OFFSET_ARENA);
        let state = pointer(b, abi::OFFSET_STATE);
        let constants = pointer(b, abi::OFFSET_CONSTANTS);
        let stride =
            b.ins().imul_imm_s(params[3], if fault!(50) { 0 } else { program.scratch_stride as i64 });
        let scratch = b.ins().iadd(arena, stride);
        let scratch = b.ins().iadd_imm_s(scratch, program.scratch_offset as i64);
        let mut ports = FxHashMap::default();
        for buffer in buffers_of(&f.body) {
            let (offset, i) = match program.buffers[buffer as usize].place {
                Place::Input(i) => (abi::OFFSET_INPUTS, i),
                Place::Output(i) => (abi::OFFSET_OUTPUTS, i),
                _ => continue,
            };
            let list = pointer(b, offset);
            ports.insert(buffer, b.ins().load(types::I64, flags(), list, 8 * i as i32));
        }
        let bases = Bases { arena, state, constants, scratch, ports };
        let values = vec![Parts::new(); f.types.len()];
        let mut e = Self {
            b,
            program,
            f,
            values,
            vars: FxHashMap::default(),
            addresses: vec![FxHashMap::default()],
            bases,
            mode: Mode::Scalar,
            tail_depth: 0,
        };
        e.values[0] = Parts::from_slice(&params[1..2]);
        e.values[1] = Parts::from_slice(&params[2..3]);
        e.finish();
    }

    fn finish(mut self) {
        let f = self.f;
        self.block(&f.body);
        self.b.ins().return_(&[]);
        self.b.seal_all_blocks();
    }

    /// The body of a loop, in which its variable has a value of its own.
    fn scope(&mut self, body: &[Stmt]) {
        self.addresses.push(FxHashMap::default());
        self.block(body);
        self.addresses.pop();
    }

    fn block(&mut self, body: &[Stmt]) {
        for stmt in body {
            match stmt {
                Stmt::Def { dst, op, args } => {
                    let parts = self.define(*dst, op, args);
                    self.values[*dst as usize] = parts;
                }
                Stmt::Store { mem, value } => self.store(mem, *value),
                // Cranelift has no such instruction.
                Stmt::Prefetch(_) => {}
                Stmt::Loop(l) => self.emit_loop(l),
            }
        }
    }

    /// Lanes of a value as emitted now. A scalar tail emits vectors as scalars; outside of vector
    /// loops there are vectors too: the carried values of a vector loop before and after it.
    fn lanes(&self, v: Val) -> usize {
        if self.tail_depth > 0 { 1 } else { self.f.types[v as usize].lanes as usize }
    }

    fn dtype(&self, v: Val) -> DType {
        self.f.types[v as usize].dtype
    }

    fn define(&mut self, dst: Val, op: &VOp, args: &[Val]) -> Parts {
        let ty = self.f.types[dst as usize];
        let lanes = self.lanes(dst);
        match op {
            VOp::Scalar(op) => {
                let types: SmallVec<[DType; 3]> = args.iter().map(|&a| self.dtype(a)).collect();
                if lanes == 1 {
                    let x: SmallVec<[Value; 3]> = args.iter().map(|&a| self.values[a as usize][0]).collect();
                    let from = types.first().copied().unwrap_or(DType::Bool);
                    return Parts::from_slice(&[ops::scalar_op(self.b, *op, from, &x)]);
                }
                let x: SmallVec<[&Parts; 3]> = args.iter().map(|&a| &self.values[a as usize]).collect();
                ops::vector_op(self.b, *op, &types, lanes, &x)
            }
            VOp::Splat => {
                let parts = self.values[args[0] as usize].clone();
                if lanes == 1 { parts } else { ops::splat(self.b, ty.dtype, lanes, parts[0]) }
            }
            VOp::Load(mem, guards) => self.load(mem, guards, lanes),
            VOp::Index(e) => self.per_lane(e.clone(), lanes),
            VOp::Guard(guards) => {
                if lanes == 1 {
                    return Parts::from_slice(&[self.guard(guards, None)]);
                }
                let values: Vec<Value> = (0..lanes).map(|l| self.guard(guards, Some(l))).collect();
                ops::build(self.b, DType::Bool, &values)
            }
            VOp::Fold(kind) => Parts::from_slice(&[self.fold(*kind, args[0])]),
        }
    }

    fn per_lane(&mut self, e: IndexExpr, lanes: usize) -> Parts {
        if lanes == 1 {
            return Parts::from_slice(&[self.index(&e)]);
        }
        let values: Vec<Value> = (0..lanes).map(|l| self.lane_index(&e, l)).collect();
        ops::build(self.b, DType::I64, &values)
    }

    /// All guards, for one lane of the vector variable.
    fn guard(&mut self, guards: &[Guard], lane: Option<usize>) -> Value {
        let mut all = None;
        for g in guards {
            let v = match lane {
                Some(l) => self.lane_index(&g.expr, l),
                None => self.index(&g.expr),
            };
            // One unsigned comparison checks both ends.
            let shifted = if g.lo == 0 { v } else { self.b.ins().iadd_imm_s(v, -g.lo) };
            let span = self.b.ins().iconst(types::I64, (g.hi - g.lo).max(0));
            let ok = self.b.ins().icmp(IntCC::UnsignedLessThan, shifted, span);
            all = Some(match all {
                None => ok,
                Some(a) => self.b.ins().band(a, ok),
            });
        }
        all.unwrap_or_else(|| self.b.ins().iconst(types::I8, 1))
    }

    fn lane_index(&mut self, e: &IndexExpr, lane: usize) -> Value {
        let Mode::Vector { var, .. } = self.mode else { return self.index(e) };
        if lane == 0 || !e.uses(var) {
            return self.index(e);
        }
        let base = self.vars[&var];
        let shifted = self.b.ins().iadd_imm_s(base, lane as i64);
        self.vars.insert(var, shifted);
        let v = self.index(e);
        self.vars.insert(var, base);
        v
    }

    /// The value of an index expression.
    fn index(&mut self, e: &IndexExpr) -> Value {
        let mut sum: Option<Value> = None;
        for (atom, c) in e.terms() {
            let v = match atom {
                Atom::Var(v) => self.vars[v],
                Atom::Dynamic(v) => self.values[*v as usize][0],
                Atom::Div(e, m) => {
                    let e = self.index(e);
                    match power_of_two(*m) {
                        Some(s) => self.b.ins().sshr_imm_u(e, s),
                        None => self.divide(e, *m),
                    }
                }
                Atom::Mod(e, m) => {
                    let e = self.index(e);
                    match power_of_two(*m) {
                        Some(_) => self.b.ins().band_imm_s(e, m - 1),
                        None => {
                            let q = self.divide(e, *m);
                            let p = self.b.ins().imul_imm_s(q, *m);
                            self.b.ins().isub(e, p)
                        }
                    }
                }
            };
            let term = match (*c, power_of_two(*c)) {
                (1, _) => v,
                (_, Some(s)) => self.b.ins().ishl_imm_u(v, s),
                _ => self.b.ins().imul_imm_s(v, *c),
            };
            sum = Some(match sum {
                None => term,
                Some(s) => self.b.ins().iadd(s, term),
            });
        }
        match (sum, e.offset_value()) {
            (None, c) => self.b.ins().iconst(types::I64, c),
            (Some(s), 0) => s,
            (Some(s), c) => self.b.ins().iadd_imm_s(s, c),
        }
    }

    /// `e / m` for `0 <= e < 2^40`, by the high half of a product with `r = ceil(2^64 / m)`. With
    /// `r * m = 2^64 + d`, `d < m`, the quotient is exact while `e * d < 2^64` (Granlund and
    /// Montgomery 1994, theorem 4.2).
    fn divide(&mut self, e: Value, m: i64) -> Value {
        if (3..1 << 23).contains(&m) {
            let reciprocal = (u128::from(u64::MAX) + 1).div_ceil(m as u128) as u64;
            let r = self.b.ins().iconst(types::I64, reciprocal as i64);
            return self.b.ins().umulhi(e, r);
        }
        let m = self.b.ins().iconst(types::I64, m);
        self.b.ins().udiv(e, m)
    }

    /// Pointer to a base and the constant byte offset that goes with it.
    fn base(&self, base: Base) -> (Value, i64) {
        match base {
            Base::Scratch(offset) => (self.bases.scratch, i64::from(offset)),
            Base::Buffer(i) => match self.program.buffers[i as usize].place {
                Place::Arena(offset) => (self.bases.arena, offset as i64),
                Place::State(offset) => (self.bases.state, offset as i64),
                Place::Constant(offset) => (self.bases.constants, offset as i64),
                Place::Input(_) | Place::Output(_) => (self.bases.ports[&i], 0),
            },
        }
    }

    fn address(&mut self, mem: &MemRef) -> Value {
        self.address_at(mem, 0)
    }

    /// Address of `mem` at a lane of the vector variable.
    fn address_at(&mut self, mem: &MemRef, lane: usize) -> Value {
        let (base, offset) = self.base(mem.base);
        let size = mem.dtype.size_bytes() as i64;
        // The constant goes last, where it becomes the displacement of the access.
        let variable = mem.index.offset(-mem.index.offset_value());
        let constant = offset + size * mem.index.offset_value();
        let mut address = base;
        if !variable.terms().is_empty() {
            // Rows of a tile and unrolled steps differ in the constant only.
            let shared = lane == 0 || !matches!(self.mode, Mode::Vector { var, .. } if variable.uses(var));
            let key = (mem.base, variable);
            let known = self.addresses.iter().rev().find_map(|s| s.get(&key)).filter(|_| shared).copied();
            address = match known {
                Some(address) => address,
                None => {
                    let i = self.lane_index(&key.1, lane);
                    let shift = i64::from(size.trailing_zeros());
                    let bytes = if size == 1 { i } else { self.b.ins().ishl_imm_u(i, shift) };
                    self.b.ins().iadd(base, bytes)
                }
            };
            if shared {
                self.addresses.last_mut().expect("a scope is open").insert(key, address);
            }
        }
        if constant == 0 { address } else { self.b.ins().iadd_imm_s(address, constant) }
    }

    /// Distance in elements between neighbouring lanes, if it is the same for all.
    fn lane_stride(&self, e: &IndexExpr) -> Option<i64> {
        let Mode::Vector { var, lanes, aligned, .. } = self.mode else { return Some(0) };
        if let Some(c) = e.coefficient(var) {
            return Some(c);
        }
        // In an aligned loop the lanes of `v / m` agree and those of `v % m` count up, for `m` a
        // multiple of the lanes.
        let mut stride = 0;
        for (atom, c) in e.terms() {
            stride += match atom {
                Atom::Var(v) if *v == var => *c,
                Atom::Div(inner, m) | Atom::Mod(inner, m) if inner.uses(var) => {
                    if !aligned || *inner.as_ref() != IndexExpr::var(var) || m % lanes as i64 != 0 {
                        return None;
                    }
                    if matches!(atom, Atom::Mod(..)) { *c } else { 0 }
                }
                _ => 0,
            };
        }
        Some(stride)
    }

    fn load(&mut self, mem: &MemRef, guards: &[Guard], lanes: usize) -> Parts {
        if lanes == 1 {
            let address = self.address(mem);
            let ok = (!guards.is_empty()).then(|| self.guard(guards, None));
            let address = self.guarded(address, ok);
            return Parts::from_slice(&[self.load_scalar(mem.dtype, address)]);
        }
        let Mode::Vector { var, active, .. } = self.mode else { unreachable!("vectors are in vector loops") };
        let uniform = !guards.iter().any(|g| g.expr.uses(var));
        if uniform && self.lane_stride(&mem.index) == Some(1) && mem.dtype != DType::Bool {
            let address = self.address(mem);
            let ok = (!guards.is_empty()).then(|| self.guard(guards, None));
            let address = self.guarded(address, ok);
            let n = ops::part_lanes(mem.dtype);
            let size = mem.dtype.size_bytes();
            return (0..lanes / n)
                .map(|p| {
                    let first = p * n;
                    if first + n <= active {
                        let offset = (first * size) as i32;
                        return ops::load_part(self.b, mem.dtype, flags(), address, offset);
                    }
                    let mut part = ops::vector_op(self.b, ScalarOp::Const(zero(mem.dtype)), &[], n, &[])[0];
                    for l in first..active.max(first) {
                        let v = ops::load(self.b, mem.dtype, flags(), address, (l * size) as i32);
                        part = self.b.ins().insertlane(part, v, (l - first) as u8);
                    }
                    part
                })
                .collect();
        }
        let values: Vec<Value> = (0..lanes)
            .map(|l| {
                if l >= active {
                    return ops::scalar_const(self.b, zero(mem.dtype));
                }
                let address = self.address_at(mem, l);
                let ok = (!guards.is_empty()).then(|| self.guard(guards, Some(l)));
                let address = self.guarded(address, ok);
                self.load_scalar(mem.dtype, address)
            })
            .collect();
        ops::build(self.b, mem.dtype, &values)
    }

    fn load_scalar(&mut self, dtype: DType, address: Value) -> Value {
        ops::load(self.b, dtype, flags(), address, 0)
    }

    /// The address if `ok`, else that of zeros: the constants begin with enough of them for a load.
    fn guarded(&mut self, address: Value, ok: Option<Value>) -> Value {
        let Some(ok) = ok else { return address };
        self.b.ins().select(ok, address, self.bases.constants)
    }

    fn store(&mut self, mem: &MemRef, value: Val) {
        let lanes = self.lanes(value);
        let parts = self.values[value as usize].clone();
        if lanes == 1 {
            let address = self.address(mem);
            ops::store(self.b, mem.dtype, flags(), parts[0], address, 0);
            return;
        }
        let Mode::Vector { active, .. } = self.mode else { unreachable!("vectors are in vector loops") };
        let size = mem.dtype.size_bytes();
        if self.lane_stride(&mem.index) == Some(1) && mem.dtype != DType::Bool {
            let n = ops::part_lanes(mem.dtype);
            let address = self.address(mem);
            for (p, &part) in parts.iter().enumerate() {
                if (p + 1) * n <= active {
                    ops::store_part(self.b, mem.dtype, flags(), part, address, (p * n * size) as i32);
                    continue;
                }
                for l in p * n..active {
                    let v = self.b.ins().extractlane(part, (l % n) as u8);
                    ops::store(self.b, mem.dtype, flags(), v, address, (l * size) as i32);
                }
            }
            return;
        }
        for l in 0..lanes.min(active) {
            let v = ops::extract(self.b, mem.dtype, &parts, l);
            let address = self.address_at(mem, l);
            ops::store(self.b, mem.dtype, flags(), v, address, 0);
        }
    }

    /// The lanes of a vector into a scalar, by halves: 8, 4, 2, 1.
    fn fold(&mut self, kind: ReduceKind, v: Val) -> Value {
        let dtype = self.dtype(v);
        let op = kind.op();
        let mut parts = self.values[v as usize].clone();
        debug_assert_eq!(self.f.types[v as usize].lanes as usize, Reduce::LANES);
        while parts.len() > 1 {
            let (lo, hi) = parts.split_at(parts.len() / 2);
            let (lo, hi) = (Parts::from_slice(lo), Parts::from_slice(hi));
            let lanes = lo.len() * ops::part_lanes(dtype);
            parts = ops::vector_op(self.b, op, &[dtype, dtype], lanes, &[&lo, &hi]);
        }
        let n = ops::part_lanes(dtype);
        let mut lanes: Vec<Value> = (0..n).map(|l| self.b.ins().extractlane(parts[0], l as u8)).collect();
        while lanes.len() > 1 {
            let half = lanes.len() / 2;
            lanes =
                (0..half).map(|l| ops::scalar_op(self.b, op, dtype, &[lanes[l], lanes[l + half]])).collect();
        }
        lanes[0]
    }

    fn bound(&mut self, bound: &Bound) -> Value {
        match bound {
            Bound::Expr(e) => self.index(e),
            Bound::Min(x, y) => {
                let (x, y) = (self.index(x), self.index(y));
                self.b.ins().smin(x, y)
            }
        }
    }

    fn emit_loop(&mut self, l: &Loop) {
        if l.lanes == 1 {
            let (lo, hi) = (self.bound(&l.lo), self.bound(&l.hi));
            let sure = extent(l).is_some_and(|n| n > 0);
            self.counted(l, lo, hi, l.step, sure);
            return;
        }
        let lanes = l.lanes as usize;
        let outer = (self.mode, self.tail_depth);
        let whole = |c: i64| c % lanes as i64 == 0;
        let aligned = matches!(&l.lo, Bound::Expr(e) if whole(e.offset_value()) && e.terms().iter().all(|t| whole(t.1)));
        let vector = |active| Mode::Vector { var: l.var, lanes, active, aligned };
        let lo = self.bound(&l.lo);
        if let Some(n) = extent(l) {
            // A range that ends before it begins is empty.
            let n = n.max(0);
            let full = n / lanes as i64 * lanes as i64;
            let rest = (n - full) as usize;
            let main_end = self.b.ins().iadd_imm_s(lo, full);
            self.mode = vector(lanes);
            if full == lanes as i64 {
                self.once(l, lo);
            } else if full > 0 {
                self.counted(l, lo, main_end, lanes as i64, true);
            } else {
                self.pass_carried(l);
            }
            if rest > 0 && l.carried.is_empty() && full > 0 {
                self.mode = Mode::Scalar;
                self.tail_depth += 1;
                let end = self.b.ins().iadd_imm_s(lo, n);
                self.counted(l, main_end, end, 1, true);
            } else if rest > 0 {
                self.mode = vector(rest);
                self.masked_iteration(l, main_end, rest);
            }
        } else {
            debug_assert!(
                l.carried.is_empty(),
                "verified: a vector loop with carried values has a fixed extent"
            );
            let hi = self.bound(&l.hi);
            let n = self.b.ins().isub(hi, lo);
            let full = self.b.ins().band_imm_s(n, -(lanes as i64));
            let main_end = self.b.ins().iadd(lo, full);
            // A range that ends before it begins is empty.
            let backward = self.b.ins().icmp(IntCC::SignedLessThan, hi, lo);
            let main_end = self.b.ins().select(backward, lo, main_end);
            self.mode = vector(lanes);
            self.counted(l, lo, main_end, lanes as i64, false);
            self.mode = Mode::Scalar;
            self.tail_depth += 1;
            self.counted(l, main_end, hi, 1, false);
        }
        (self.mode, self.tail_depth) = outer;
    }

    /// The loop body once, with the variable at `at`.
    fn once(&mut self, l: &Loop, at: Value) {
        self.vars.insert(l.var, at);
        self.pass_carried(l);
        self.scope(&l.body);
        for c in &l.carried {
            self.values[c.phi as usize] = self.values[c.next as usize].clone();
        }
    }

    /// After no iteration, carried values are the initial ones.
    fn pass_carried(&mut self, l: &Loop) {
        for c in &l.carried {
            self.values[c.phi as usize] = self.values[c.init as usize].clone();
        }
    }

    /// One iteration in which only `active` lanes exist; carried values keep their other lanes.
    fn masked_iteration(&mut self, l: &Loop, at: Value, active: usize) {
        self.vars.insert(l.var, at);
        let before: Vec<Parts> = l.carried.iter().map(|c| self.values[c.phi as usize].clone()).collect();
        self.scope(&l.body);
        let mask = ops::lane_mask(self.b, active, l.lanes as usize);
        for (c, before) in l.carried.iter().zip(before) {
            let dtype = self.dtype(c.phi);
            let next = self.values[c.next as usize].clone();
            let args = [&mask, &next, &before];
            let types = [DType::Bool, dtype, dtype];
            self.values[c.phi as usize] =
                ops::vector_op(self.b, ScalarOp::Select, &types, l.lanes as usize, &args);
        }
    }

    /// `for var in (lo..hi).step_by(step)`, tested at the bottom; `sure` if it has an iteration.
    fn counted(&mut self, l: &Loop, lo: Value, hi: Value, step: i64, sure: bool) {
        let (body, exit) = (self.b.create_block(), self.b.create_block());
        let var = self.b.append_block_param(body, types::I64);
        let mut start: Vec<BlockArg> = vec![lo.into()];
        let mut skip: Vec<BlockArg> = Vec::new();
        let mut phis: Vec<(Parts, Parts)> = Vec::new();
        for c in &l.carried {
            let init = self.values[c.init as usize].clone();
            let mut inside = Parts::new();
            let mut after = Parts::new();
            for &v in &init {
                let ty = self.b.func.dfg.value_type(v);
                inside.push(self.b.append_block_param(body, ty));
                after.push(self.b.append_block_param(exit, ty));
                start.push(v.into());
                skip.push(v.into());
            }
            phis.push((inside, after));
        }
        if sure {
            self.b.ins().jump(body, &start);
        } else {
            let any = self.b.ins().icmp(IntCC::SignedLessThan, lo, hi);
            self.b.ins().brif(any, body, &start, exit, &skip);
        }
        self.b.switch_to_block(body);
        self.vars.insert(l.var, var);
        for (c, (inside, _)) in l.carried.iter().zip(&phis) {
            self.values[c.phi as usize] = inside.clone();
        }
        self.scope(&l.body);
        let next_var = self.b.ins().iadd_imm_s(var, step);
        let mut done: Vec<BlockArg> = Vec::new();
        for c in &l.carried {
            done.extend(self.values[c.next as usize].iter().map(|&v| BlockArg::from(v)));
        }
        let again: Vec<BlockArg> = std::iter::once(next_var.into()).chain(done.iter().copied()).collect();
        let more = self.b.ins().icmp(IntCC::SignedLessThan, next_var, hi);
        self.b.ins().brif(more, body, &again, exit, &done);
        self.b.switch_to_block(exit);
        for (c, (_, after)) in l.carried.iter().zip(phis) {
            self.values[c.phi as usize] = after;
        }
    }
}

fn zero(dtype: DType) -> graphc_ir::Scalar {
    graphc_ir::Scalar::from_bits(crate::narrow::lane_type(dtype), 0)
}

const fn power_of_two(m: i64) -> Option<i64> {
    if m > 0 && m & (m - 1) == 0 { Some(m.trailing_zeros() as i64) } else { None }
}

/// Number of values of the variable, if it is known.
fn extent(l: &Loop) -> Option<i64> {
    match (&l.lo, &l.hi) {
        (Bound::Expr(lo), Bound::Expr(hi)) => hi.add(&lo.scale(-1)).as_constant(),
        _ => None,
    }
}

/// Buffers that statements name, in order of first use.
pub(crate) fn buffers_of(body: &[Stmt]) -> Vec<u32> {
    fn walk(body: &[Stmt], out: &mut Vec<u32>) {
        let add = |m: &MemRef, out: &mut Vec<u32>| {
            if let Base::Buffer(i) = m.base
                && !out.contains(&i)
            {
                out.push(i);
            }
        };
        for s in body {
            match s {
                Stmt::Def { op: VOp::Load(m, _), .. } | Stmt::Store { mem: m, .. } => add(m, out),
                Stmt::Prefetch(m) => add(m, out),
                Stmt::Def { .. } => {}
                Stmt::Loop(l) => walk(&l.body, out),
            }
        }
    }
    let mut out = Vec::new();
    walk(body, &mut out);
    out
}
