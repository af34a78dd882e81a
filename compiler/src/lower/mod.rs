//! Schedules kernels: kernel IR to vector IR. One file per loop structure.

mod contraction;
mod loops;
mod odd;
mod scatter;
mod sort;

use crate::codegen::Isa;
use crate::kernel::{BufferId, ExprId, ExprOp, Exprs, Kernel, KernelBody};
use crate::program::{Buffer, Layout, Scheduled};
use crate::vector::builder::VBuilder;
use crate::vector::{Base, MemRef, VFunc, Val};
use graphc_ir::{Atom, Guard, IndexExpr, ScalarBuilder, row_major_strides};
pub(crate) use loops::suits_stages;
use rustc_hash::FxHashMap;
use smallvec::SmallVec;

/// What the scheduler knows of the machine.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Target {
    /// Lanes of `f32` in a register.
    pub vector_lanes: u16,
    /// Vector registers that a contraction's tile may take: accumulators, a row of the right factor,
    /// an element of the left one, and one more.
    pub registers: u16,
    /// Lanes of an elementwise vector loop.
    pub map_lanes: u16,
    /// Bytes of a second-level cache, as processors with these instructions have it for the most part: what is compiled
    /// depends on the instructions alone.
    pub l2_bytes: i64,
    /// Bytes of a column panel of a right factor that tiles may read from the second-level cache, which gives it as fast as
    /// they multiply it; 0 where panels have to stay in the first-level cache.
    pub panel_bytes: i64,
    /// Threads that will run the program, at most; no result depends on it.
    pub threads: usize,
}

impl Target {
    /// 128-bit vectors; of the 16 registers Cranelift's allocator needs two to move values around.
    pub(crate) const V128: Self = Self {
        vector_lanes: 4,
        registers: 14,
        map_lanes: 8,
        l2_bytes: 512 << 10,
        panel_bytes: 0,
        threads: 1,
    };

    /// The machine with these vector instructions.
    pub(crate) const fn of(isa: Isa, threads: usize) -> Self {
        let threads = if threads > 0 { threads } else { 1 };
        match isa {
            Isa::Portable => Self { threads, ..Self::V128 },
            Isa::Avx2 => Self { vector_lanes: 8, registers: 16, threads, ..Self::V128 },
            Isa::Avx512 => Self {
                vector_lanes: 16,
                registers: 32,
                map_lanes: 16,
                l2_bytes: 1 << 20,
                panel_bytes: 512 << 10,
                threads,
            },
        }
    }
}

/// Schedules one kernel.
pub(crate) fn schedule(kernel: &Kernel, buffers: &[Buffer], target: &Target) -> Scheduled {
    match &kernel.body {
        KernelBody::Loop { outer, reductions } => {
            loops::schedule(kernel, *outer, reductions, buffers, target)
        }
        KernelBody::Contraction(parts) => contraction::schedule(kernel, parts, buffers, target),
        KernelBody::ArgReduce { value, largest, out } => {
            odd::arg_reduce(kernel, *value, *largest, *out, buffers)
        }
        KernelBody::Scatter(updates) => scatter::schedule(kernel, updates, buffers, target),
        KernelBody::SelectAndGather { window, x, values, out } => {
            odd::select_and_gather(kernel, window, [*x, *values, *out], buffers, target)
        }
        KernelBody::SelectAndScatter { window, x, ct, out } => {
            odd::select_and_scatter(kernel, window, [*x, *ct, *out], buffers, target)
        }
        &KernelBody::ArgSort { value, axis, descending, out } => {
            sort::arg_sort(kernel, value, axis, descending, out, buffers)
        }
        &KernelBody::Cumulative { value, kind, axis, reverse, exclusive, out } => {
            odd::cumulative(kernel, value, kind, (axis, reverse, exclusive), out, buffers, target)
        }
        KernelBody::Region { .. } => {
            let function = VFunc { name: kernel.name.clone(), ..VFunc::default() };
            Scheduled { function, units: 0, parallel: false, scratch: 0 }
        }
    }
}

/// Estimated work below which a kernel is not spread over threads, in element operations: handing
/// over costs less than a microsecond, waking a parked worker some tens.
const PARALLEL_WORK: u64 = 40_000;

/// A reference to an element of a buffer by its multi-dimensional index.
fn element(buffers: &[Buffer], buffer: BufferId, index: &[IndexExpr]) -> MemRef {
    let b = &buffers[buffer as usize];
    MemRef { base: Base::Buffer(buffer), dtype: b.dtype, index: b.linear(index) }
}

/// Emits expressions of a kernel at the current place of a builder. Values are remembered per open
/// scope, so what does not change in a loop can be emitted before it ([`Emit::hoist`]).
#[derive(Clone)]
struct Emit<'a> {
    exprs: &'a Exprs,
    buffers: &'a [Buffer],
    /// What each variable of the kernel stands for.
    vars: Vec<IndexExpr>,
    /// Results of the kernel's reductions by number, once known.
    reduced: FxHashMap<u32, Val>,
    scopes: Vec<FxHashMap<ExprId, Val>>,
}

impl<'a> Emit<'a> {
    fn new(exprs: &'a Exprs, buffers: &'a [Buffer], vars: Vec<IndexExpr>) -> Self {
        Self { exprs, buffers, vars, reduced: FxHashMap::default(), scopes: vec![FxHashMap::default()] }
    }

    /// Opens a scope, for a loop body.
    fn open(&mut self) {
        self.scopes.push(FxHashMap::default());
    }

    /// Closes a scope.
    fn close(&mut self) {
        self.scopes.pop();
    }

    /// An index expression of the kernel as one of the function.
    fn index(&mut self, b: &mut VBuilder, e: &IndexExpr) -> IndexExpr {
        let mut sum = IndexExpr::constant(e.offset_value());
        for (atom, c) in e.terms() {
            let term = match atom {
                Atom::Dynamic(d) => {
                    let (value, bound) = self.exprs.dynamics[*d as usize];
                    let v = self.value(b, value);
                    b.dynamic(v, bound)
                }
                other => {
                    IndexExpr::atom(other.clone()).substitute(b.cx(), &|v| self.vars[v as usize].clone())
                }
            };
            sum = sum.add(&term.scale(*c));
        }
        sum
    }

    fn guards(&mut self, b: &mut VBuilder, guards: &[Guard]) -> Vec<Guard> {
        let mapped: Vec<Guard> =
            guards.iter().map(|g| Guard { expr: self.index(b, &g.expr), lo: g.lo, hi: g.hi }).collect();
        mapped.into_iter().filter(|g| !g.always(b.cx())).collect()
    }

    /// Lets an expression have a known value in the open scope.
    fn define(&mut self, id: ExprId, v: Val) {
        self.scopes.last_mut().expect("a scope is open").insert(id, v);
    }

    /// The address of a buffer element.
    fn element(&mut self, b: &mut VBuilder, buffer: BufferId, index: &[IndexExpr]) -> MemRef {
        let index = self.index(b, &self.buffers[buffer as usize].linear(index));
        MemRef { base: Base::Buffer(buffer), dtype: self.buffers[buffer as usize].dtype, index }
    }

    /// The value of an expression here.
    fn value(&mut self, b: &mut VBuilder, id: ExprId) -> Val {
        if let Some(&v) = self.scopes.iter().rev().find_map(|s| s.get(&id)) {
            return v;
        }
        let e = self.exprs.get(id).clone();
        let args: SmallVec<[Val; 3]> = e.args.iter().map(|&a| self.value(b, a)).collect();
        let v = match &e.op {
            ExprOp::Load { buffer, index, guards } => {
                let guards = self.guards(b, guards);
                let mem = self.element(b, *buffer, index);
                b.load(mem, &guards)
            }
            ExprOp::Index(e) => {
                let e = self.index(b, e);
                b.index(&e)
            }
            ExprOp::Guard(guards) => {
                let guards = self.guards(b, guards);
                b.guard(&guards)
            }
            ExprOp::Scalar(op) => b.op(*op, &args),
            ExprOp::Reduced(i) => self.reduced[i],
        };
        self.define(id, v);
        v
    }

    /// Emits here what `roots` need and what depends on none of the kernel variables `inside`, nor
    /// on reductions still to come.
    fn hoist(&mut self, b: &mut VBuilder, roots: &[ExprId], inside: &dyn Fn(u32) -> bool) {
        let needed = self.exprs.needed(roots);
        let varies = self.varies(inside);
        for (id, e) in self.exprs.iter() {
            // Constants cost nothing where they are used.
            if needed[id as usize] && !varies[id as usize] && !crate::fuse::is_constant(e) {
                self.value(b, id);
            }
        }
    }

    /// Which expressions depend on the given kernel variables or on reductions.
    fn varies(&self, inside: &dyn Fn(u32) -> bool) -> Vec<bool> {
        let vars = self.vars.len() as u32;
        self.exprs.depend(&|e| match &e.op {
            ExprOp::Reduced(i) => !self.reduced.contains_key(i),
            op => op.index_exprs().iter().any(|x| (0..vars).any(|v| inside(v) && x.uses(v))),
        })
    }
}

/// An index space with dimensions of extent 1 dropped and neighbours joined where every expression
/// allows it.
struct Collapsed {
    /// Extents of the remaining dimensions, per group.
    extents: Vec<Vec<i64>>,
    /// Each old variable in terms of the new ones, numbered through all groups.
    vars: Vec<IndexExpr>,
}

impl Collapsed {
    /// `groups` list the variables in the order that the new ones shall have; only neighbours of one
    /// group are joined. `exprs` are all index expressions, with buffer indices made linear.
    fn new<G>(extents: &[i64], groups: &[G], exprs: &[IndexExpr]) -> Self
    where
        G: Clone + IntoIterator<Item = usize>,
    {
        let mut vars = vec![IndexExpr::default(); extents.len()];
        let mut new_extents = Vec::new();
        let mut next = 0;
        for group in groups {
            let mut own: Vec<i64> = Vec::new();
            let mut last: Option<usize> = None;
            for v in group.clone().into_iter().filter(|&v| extents[v] != 1) {
                let joins = last.is_some_and(|u| {
                    exprs.iter().all(|e| {
                        let (cu, cv) = (e.coefficient(u as u32), e.coefficient(v as u32));
                        matches!((cu, cv), (Some(cu), Some(cv)) if cu == cv * extents[v] || fault!(48) && cv == 0)
                    })
                });
                if joins {
                    let u = last.expect("joined to it");
                    vars[v] = std::mem::take(&mut vars[u]);
                    *own.last_mut().expect("joined to it") *= extents[v];
                } else {
                    vars[v] = IndexExpr::var(next);
                    next += 1;
                    own.push(extents[v]);
                }
                last = Some(v);
            }
            new_extents.push(own);
        }
        Self { extents: new_extents, vars }
    }

    /// Which of the old variables belong to new ones in `range`.
    fn inside(&self, range: std::ops::Range<usize>) -> Vec<bool> {
        self.vars.iter().map(|e| range.clone().any(|v| e.uses(v as u32))).collect()
    }

    /// First new variable of a group.
    fn first(&self, group: usize) -> usize {
        self.extents[..group].iter().map(Vec::len).sum()
    }
}

/// Index expressions of a kernel's own level: of loads (linear), guards, indices and stores.
fn linear_exprs(kernel: &Kernel, buffers: &[impl Layout]) -> Vec<IndexExpr> {
    let mut all = exprs_linear(&kernel.exprs, buffers);
    all.extend(kernel.stores.iter().map(|s| buffers[s.buffer as usize].offset(&s.index)));
    all
}

fn exprs_linear(exprs: &Exprs, buffers: &[impl Layout]) -> Vec<IndexExpr> {
    let mut all = Vec::new();
    for (_, e) in exprs.iter() {
        match &e.op {
            ExprOp::Load { buffer, index, guards } => {
                all.push(buffers[*buffer as usize].offset(index));
                all.extend(guards.iter().map(|g| g.expr.clone()));
            }
            other => all.extend(other.index_exprs().into_iter().cloned()),
        }
    }
    all
}

/// The dimensions of `extents` at linear position `linear`.
fn delinearize(b: &VBuilder, linear: &IndexExpr, extents: &[i64]) -> Vec<IndexExpr> {
    let dims: Vec<usize> = extents.iter().map(|&e| e as usize).collect();
    let strides = row_major_strides(&dims);
    let cx = b.cx();
    extents
        .iter()
        .zip(strides)
        .enumerate()
        .map(|(i, (&d, s))| {
            let q = cx.div(linear, s as i64);
            if i == 0 { q } else { cx.rem(&q, d.max(1)) }
        })
        .collect()
}
