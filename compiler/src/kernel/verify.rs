//! The rules of kernel IR. What is broken here is a defect of fusion, not of a program that a user
//! wrote; debug builds check every kernel.
//!
//! That every load is in range is proved from the ranges of the variables, the bounds of dynamic
//! indices (which the program checks at run time) and the load's guards.

use super::{BufferId, ContractionPart, Expr, ExprId, ExprOp, Exprs, Kernel, KernelBody, Updates};
use crate::narrow::lane_type;
use crate::program::Buffer;
use crate::vector::print::index_text;
use graphc_ir::{Atom, DType, Guard, IndexCx, IndexExpr, Var, row_major_strides};

/// A rule that a kernel breaks.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KernelError {
    /// A number that names nothing.
    #[error("{user}: there is no {what}")]
    Missing {
        /// Who names it.
        user: String,
        /// What does not exist.
        what: String,
    },
    /// An operand, or a dynamic index's value, does not come before its user.
    #[error("%{user} uses %{operand}, which is not earlier")]
    Order {
        /// The expression.
        user: ExprId,
        /// What it uses.
        operand: ExprId,
    },
    /// Element types do not fit.
    #[error("{user}: {message}")]
    Type {
        /// Who breaks the rule.
        user: String,
        /// What does not fit.
        message: String,
    },
    /// An index has another number of dimensions than its buffer.
    #[error("{user}: {given} index expressions for the {rank} dimensions of b{buffer}")]
    Rank {
        /// Who breaks the rule.
        user: String,
        /// The buffer.
        buffer: BufferId,
        /// Number of expressions.
        given: usize,
        /// Number of dimensions.
        rank: usize,
    },
    /// An index cannot be proved to be in range.
    #[error("{user}: {index} is in {lo}..={hi}, which is not inside 0..{extent} of b{buffer}")]
    Range {
        /// Who breaks the rule.
        user: String,
        /// The buffer.
        buffer: BufferId,
        /// The index expression.
        index: String,
        /// Least value that it may have.
        lo: i64,
        /// Greatest value that it may have.
        hi: i64,
        /// Extent of the dimension.
        extent: usize,
    },
    /// The structure is broken.
    #[error("{user}: {message}")]
    Structure {
        /// Who breaks the rule.
        user: String,
        /// The rule.
        message: &'static str,
    },
}

/// Checks a kernel; `buffers` are the program's.
///
/// # Errors
/// Every broken rule.
pub fn verify(kernel: &Kernel, buffers: &[Buffer]) -> Result<(), Vec<KernelError>> {
    let reduced = match &kernel.body {
        KernelBody::Loop { reductions, .. } => reductions.len(),
        KernelBody::Contraction(_) => 1,
        _ => 0,
    };
    let mut v = Verifier { buffers, errors: Vec::new() };
    v.exprs("", &kernel.exprs, &kernel.space, reduced);
    v.body(kernel);
    v.stores(kernel);
    if v.errors.is_empty() { Ok(()) } else { Err(v.errors) }
}

struct Verifier<'a> {
    buffers: &'a [Buffer],
    errors: Vec<KernelError>,
}

impl Verifier<'_> {
    fn missing(&mut self, user: &str, what: String) {
        self.errors.push(KernelError::Missing { user: user.to_owned(), what });
    }

    fn mismatch(&mut self, user: &str, message: String) {
        self.errors.push(KernelError::Type { user: user.to_owned(), message });
    }

    fn structure(&mut self, user: &str, message: &'static str) {
        self.errors.push(KernelError::Structure { user: user.to_owned(), message });
    }

    fn exprs(&mut self, whose: &str, exprs: &Exprs, space: &IndexCx, reduced: usize) {
        let dynamic = exprs.dynamics.iter().map(|d| d.1).collect();
        let cx = IndexCx { extents: space.extents.clone(), dynamic };
        for (id, e) in exprs.iter() {
            let user = format!("{whose}%{id}");
            if let Some(&operand) = e.args.iter().find(|&&a| a >= id) {
                self.errors.push(KernelError::Order { user: id, operand });
                continue;
            }
            let known = e.op.index_exprs().into_iter().all(|x| self.index(&user, x, id, exprs, &cx));
            if known {
                self.dividends(&user, &e.op, &cx);
                self.expr(&user, e, exprs, &cx, reduced);
            }
        }
    }

    /// Whether an index of expression `id` names only variables and dynamic values that exist.
    fn index(&mut self, user: &str, x: &IndexExpr, id: ExprId, exprs: &Exprs, cx: &IndexCx) -> bool {
        let mut known = true;
        for (atom, _) in x.terms() {
            match atom {
                Atom::Var(v) if *v as usize >= cx.extents.len() => {
                    self.missing(user, format!("variable i{v}"));
                    known = false;
                }
                Atom::Var(_) => {}
                Atom::Dynamic(d) => match exprs.dynamics.get(*d as usize) {
                    None => {
                        self.missing(user, format!("dynamic value {d}"));
                        known = false;
                    }
                    Some(&(value, _)) if value >= id => {
                        self.errors.push(KernelError::Order { user: id, operand: value });
                        known = false;
                    }
                    Some(&(value, _)) if exprs.get(value).dtype != DType::I64 => {
                        self.mismatch(user, format!("dynamic index %{value} is not i64"));
                    }
                    Some(_) => {}
                },
                Atom::Div(inner, m) | Atom::Mod(inner, m) => {
                    known &= self.index(user, inner, id, exprs, cx);
                    if *m <= 0 {
                        self.structure(user, "a divisor is positive");
                        known = false;
                    }
                }
            }
        }
        known
    }

    /// Checks that nothing negative is divided where the guards hold; elsewhere the quotient is not
    /// used.
    fn dividends(&mut self, user: &str, op: &ExprOp, cx: &IndexCx) {
        let guards = match op {
            ExprOp::Load { guards, .. } | ExprOp::Guard(guards) => guards.as_slice(),
            _ => &[],
        };
        let Some(ranges) = Ranges::under(guards, cx) else { return };
        if op.index_exprs().into_iter().any(|x| ranges.divides_negative(x)) {
            self.structure(user, "a dividend is not negative");
        }
    }

    fn expr(&mut self, user: &str, e: &Expr, exprs: &Exprs, cx: &IndexCx, reduced: usize) {
        let args: Vec<DType> = e.args.iter().map(|&a| exprs.get(a).dtype).collect();
        let expected = match &e.op {
            ExprOp::Load { buffer, index, guards } => {
                self.access(user, *buffer, index, guards, cx);
                self.buffers.get(*buffer as usize).map(|b| lane_type(b.dtype))
            }
            ExprOp::Index(_) => Some(DType::I64),
            ExprOp::Guard(_) => Some(DType::Bool),
            ExprOp::Scalar(op) => op.infer(&args),
            ExprOp::Reduced(i) => {
                if *i as usize >= reduced {
                    self.missing(user, format!("reduction {i}"));
                }
                Some(e.dtype)
            }
        };
        if !matches!(e.op, ExprOp::Scalar(_)) && !args.is_empty() {
            self.structure(user, "only instructions have operands");
        }
        if expected != Some(e.dtype) {
            self.mismatch(user, format!("{:?} of {args:?} does not give {}", e.op, e.dtype));
        }
    }

    /// Checks that `buffer[index]` exists wherever the guards hold.
    fn access(&mut self, user: &str, buffer: BufferId, index: &[IndexExpr], guards: &[Guard], cx: &IndexCx) {
        let Some(b) = self.buffers.get(buffer as usize) else {
            self.missing(user, format!("buffer b{buffer}"));
            return;
        };
        if b.dims.len() != index.len() {
            let (given, rank) = (index.len(), b.dims.len());
            self.errors.push(KernelError::Rank { user: user.to_owned(), buffer, given, rank });
            return;
        }
        // At no point at all, every access is in range. The check of an index that has no legal value
        // fails, or there is none to check.
        if cx.extents.contains(&0) || cx.dynamic.contains(&0) {
            return;
        }
        let Some(ranges) = Ranges::under(guards, cx) else { return };
        for (x, &extent) in index.iter().zip(&b.dims) {
            let (lo, hi) = ranges.of(x);
            if lo < 0 || hi >= extent as i64 {
                self.errors.push(KernelError::Range {
                    user: user.to_owned(),
                    buffer,
                    index: index_text(x, &|d| format!("d{d}")),
                    lo,
                    hi,
                    extent,
                });
            }
        }
    }

    fn named(&mut self, user: &str, buffer: BufferId) -> bool {
        let known = (buffer as usize) < self.buffers.len();
        if !known {
            self.missing(user, format!("buffer b{buffer}"));
        }
        known
    }

    fn body(&mut self, kernel: &Kernel) {
        let exprs = &kernel.exprs;
        let value = |v: ExprId| ((v as usize) < exprs.len()).then(|| exprs.get(v));
        match &kernel.body {
            KernelBody::Loop { outer, reductions } => {
                if *outer > kernel.space.extents.len() {
                    self.structure("the loop", "outer variables are part of the space");
                }
                for (i, (_, v)) in reductions.iter().enumerate() {
                    let user = format!("r{i}");
                    match value(*v) {
                        None => self.missing(&user, format!("expression %{v}")),
                        Some(e) if e.dtype == DType::Bool => {
                            self.mismatch(&user, "bools are not reduced".to_owned())
                        }
                        Some(_) if exprs.reduced(*v).any(|r| r as usize >= i) => {
                            self.structure(&user, "what is reduced depends on earlier reductions only");
                        }
                        Some(_) => {}
                    }
                }
            }
            KernelBody::Contraction(parts) => {
                for (i, p) in parts.iter().enumerate() {
                    self.part(&format!("part {i}"), p, kernel);
                }
            }
            KernelBody::ArgSort { value: v, axis, out, .. }
            | KernelBody::Cumulative { value: v, axis, out, .. } => {
                let user = "along an axis";
                if value(*v).is_none() {
                    self.missing(user, format!("expression %{v}"));
                }
                if self.named(user, *out) {
                    let dims = &self.buffers[*out as usize].dims;
                    let extent = kernel.space.extents.last().copied();
                    if dims.get(*axis).map(|&d| d as i64) != extent {
                        self.structure(user, "the innermost variable is the axis of the result");
                    }
                }
            }
            KernelBody::ArgReduce { value: v, out, .. } => {
                if value(*v).is_none() {
                    self.missing("argreduce", format!("expression %{v}"));
                }
                if kernel.space.extents.is_empty() {
                    self.structure("argreduce", "an axis is reduced");
                }
                if self.named("argreduce", *out) && !self.buffers[*out as usize].dtype.is_int() {
                    self.mismatch("argreduce", "positions are integers".to_owned());
                }
            }
            KernelBody::Scatter(updates) => self.updates(updates, kernel),
            KernelBody::SelectAndGather { window, x, values, out } => {
                let user = "select_and_gather";
                if [*x, *values, *out].map(|b| self.named(user, b)) != [true; 3] {
                    return;
                }
                let [x, values, out] = [*x, *values, *out].map(|b| &self.buffers[b as usize]);
                let rank = x.dims.len();
                let ranks =
                    [window.size.len(), window.strides.len(), window.padding.len(), window.dilation.len()];
                if x.dims != values.dims || out.dims.len() != rank || ranks != [rank; 4] {
                    self.structure(user, "operands, result and window have the same dimensions");
                }
                if x.dtype != out.dtype || values.dtype != out.dtype {
                    self.mismatch(user, "operands and result are of one type".to_owned());
                }
            }
            KernelBody::SelectAndScatter { window, x, ct, out } => {
                let user = "select_and_scatter";
                if [*x, *ct, *out].map(|b| self.named(user, b)) != [true; 3] {
                    return;
                }
                let [x, ct, out] = [*x, *ct, *out].map(|b| &self.buffers[b as usize]);
                let rank = x.dims.len();
                let ranks =
                    [window.size.len(), window.strides.len(), window.padding.len(), window.dilation.len()];
                if x.dims != out.dims || ct.dims.len() != rank || ranks != [rank; 4] {
                    self.structure(user, "operands, result and window have the same dimensions");
                }
                if x.dtype != out.dtype || ct.dtype != out.dtype {
                    self.mismatch(user, "operands and result are of one type".to_owned());
                }
            }
            KernelBody::Region { .. } => {
                for b in kernel.reads().into_iter().chain(kernel.writes()) {
                    if self.named("region", b) {
                        let b = &self.buffers[b as usize];
                        if b.strides != row_major_strides(&b.dims) {
                            self.structure("region", "its operands and results are row-major");
                        }
                    }
                }
            }
        }
    }

    fn updates(&mut self, u: &Updates, kernel: &Kernel) {
        let user = "the updates";
        self.exprs("updates ", &u.exprs, &u.space, 0);
        let [store] = kernel.stores.as_slice() else {
            self.structure(user, "a scatter has one store, whose elements it updates");
            return;
        };
        let Some(out) = self.buffers.get(store.buffer as usize) else { return };
        let whole = (0..out.dims.len() as Var).map(IndexExpr::var).eq(store.index.iter().cloned());
        let extents = kernel.space.extents.iter().map(|&e| e as usize);
        if !whole || !extents.eq(out.dims.iter().copied()) || store.inner {
            self.structure(user, "the store of a scatter covers its buffer");
        }
        if u.value as usize >= u.exprs.len() {
            self.missing(user, format!("expression %{}", u.value));
            return;
        }
        let from = u.exprs.get(u.value).dtype;
        if from != lane_type(out.dtype) {
            self.mismatch(user, format!("a value of {from} in a buffer of {}", out.dtype));
        }
        let dynamic = u.exprs.dynamics.iter().map(|d| d.1).collect();
        let cx = IndexCx { extents: u.space.extents.clone(), dynamic };
        let all = u.exprs.len() as ExprId;
        if u.index.iter().all(|x| self.index(user, x, all, &u.exprs, &cx)) {
            self.access(user, store.buffer, &u.index, &[], &cx);
        }
    }

    fn part(&mut self, user: &str, p: &ContractionPart, kernel: &Kernel) {
        let rank: usize = p.ranks.iter().sum();
        if rank != p.space.extents.len() {
            self.structure(user, "ranks are those of the space");
            return;
        }
        let [nb, nm, nn, _] = p.ranks;
        let m = nb as Var..(nb + nm) as Var;
        let k = (nb + nm + nn) as Var..rank as Var;
        let mut dtypes = Vec::new();
        for (name, f, foreign) in [("lhs", &p.lhs, 0..0), ("rhs", &p.rhs, m)] {
            let user = format!("{user} {name}");
            self.exprs(&format!("{user} "), &f.exprs, &p.space, 0);
            if f.value as usize >= f.exprs.len() {
                self.missing(&user, format!("expression %{}", f.value));
                return;
            }
            dtypes.push(f.exprs.get(f.value).dtype);
            let needed = f.exprs.needed(&[f.value]);
            let exprs = f.exprs.iter().filter(|(id, _)| needed[*id as usize]);
            let mut used = exprs.flat_map(|(_, e)| e.op.index_exprs());
            if used.any(|x| foreign.clone().any(|v| x.uses(v))) {
                self.structure(&user, "the right factor does not depend on the left one's own dimensions");
            }
        }
        if dtypes[0] != dtypes[1] || dtypes[0] == DType::Bool {
            self.mismatch(user, format!("factors of types {} and {}", dtypes[0], dtypes[1]));
        }
        if p.out.len() != kernel.space.extents.len() {
            self.structure(user, "the result has an index expression for each variable of the kernel");
            return;
        }
        let summed = |x: &IndexExpr| k.clone().any(|v| x.uses(v));
        if p.out.iter().any(summed) {
            self.structure(user, "the result does not depend on what is summed");
        }
        // Without a point there is no result; sums of nothing have one.
        if p.space.extents[..nb + nm + nn].contains(&0) {
            return;
        }
        for (x, &extent) in p.out.iter().zip(&kernel.space.extents) {
            let (lo, hi) = p.space.range(x);
            if lo < 0 || hi >= extent {
                self.structure(user, "the result's index is inside the kernel's space");
            }
        }
    }

    fn stores(&mut self, kernel: &Kernel) {
        let dynamic = kernel.exprs.dynamics.iter().map(|d| d.1).collect();
        let cx = IndexCx { extents: kernel.space.extents.clone(), dynamic };
        let (outer, looped) = match &kernel.body {
            KernelBody::Loop { outer, .. } => (*outer, true),
            body => (cx.extents.len(), matches!(body, KernelBody::Contraction(_) | KernelBody::Scatter(_))),
        };
        for (i, s) in kernel.stores.iter().enumerate() {
            let user = format!("store {i} to b{}", s.buffer);
            if !looped {
                self.structure(&user, "only loops, contractions and scatters store expressions");
            }
            if s.value as usize >= kernel.exprs.len() {
                self.missing(&user, format!("expression %{}", s.value));
                continue;
            }
            let all = kernel.exprs.len() as ExprId;
            if !s.index.iter().all(|x| self.index(&user, x, all, &kernel.exprs, &cx))
                || !self.named(&user, s.buffer)
            {
                continue;
            }
            self.access(&user, s.buffer, &s.index, &[], &cx);
            let (from, to) = (kernel.exprs.get(s.value).dtype, self.buffers[s.buffer as usize].dtype);
            if from != lane_type(to) {
                self.mismatch(&user, format!("a value of {from} in a buffer of {to}"));
            }
            if s.inner {
                continue;
            }
            let inner = outer as Var..cx.extents.len() as Var;
            let needed = kernel.exprs.needed(&[s.value]);
            let exprs = kernel.exprs.iter().filter(|(id, _)| needed[*id as usize]);
            let mut used = exprs.flat_map(|(_, e)| e.op.index_exprs()).chain(&s.index);
            if used.any(|x| inner.clone().any(|v| x.uses(v))) {
                self.structure(&user, "an outer store does not depend on inner variables");
            }
        }
    }
}

/// Ranges of variables and of whole expressions where guards hold.
struct Ranges<'a> {
    cx: &'a IndexCx,
    guards: &'a [Guard],
    /// Least and greatest value of each variable.
    vars: Vec<(i64, i64)>,
}

impl<'a> Ranges<'a> {
    /// `None` if the guards never hold.
    fn under(guards: &'a [Guard], cx: &'a IndexCx) -> Option<Self> {
        let vars = cx.extents.iter().map(|&e| (0, (e - 1).max(0))).collect();
        let mut ranges = Self { cx, guards, vars };
        for g in guards {
            if let [(Atom::Var(v), c)] = g.expr.terms() {
                // lo <= c*v + d <= hi - 1
                let (a, b) = (g.lo - g.expr.offset_value(), g.hi - 1 - g.expr.offset_value());
                let (a, b) = if *c > 0 { (a, b) } else { (-b, -a) };
                let c = c.abs();
                let own = &mut ranges.vars[*v as usize];
                *own = (own.0.max(-(-a).div_euclid(c)), own.1.min(b.div_euclid(c)));
            }
        }
        let possible = ranges.vars.iter().all(|(lo, hi)| lo <= hi)
            && guards.iter().all(|g| {
                let (lo, hi) = ranges.of(&g.expr);
                lo <= hi
            });
        possible.then_some(ranges)
    }

    fn of(&self, e: &IndexExpr) -> (i64, i64) {
        // A guard on some of the terms bounds their sum.
        let part = |g: &&Guard| g.expr.terms().iter().all(|t| e.terms().contains(t));
        self.guards.iter().filter(part).fold(self.sum(e), |(lo, hi), g| {
            let (a, b) = self.sum(&e.add(&g.expr.scale(-1)));
            (lo.max(g.lo + a), hi.min(g.hi - 1 + b))
        })
    }

    /// The range that the atoms' ranges give.
    fn sum(&self, e: &IndexExpr) -> (i64, i64) {
        e.terms().iter().fold((e.offset_value(), e.offset_value()), |(lo, hi), (atom, c)| {
            let (a, b) = self.atom(atom);
            let (x, y) = (a * c, b * c);
            (lo + x.min(y), hi + x.max(y))
        })
    }

    fn divides_negative(&self, e: &IndexExpr) -> bool {
        e.terms().iter().any(|(atom, _)| match atom {
            Atom::Var(_) | Atom::Dynamic(_) => false,
            Atom::Div(inner, _) | Atom::Mod(inner, _) => self.of(inner).0 < 0 || self.divides_negative(inner),
        })
    }

    fn atom(&self, atom: &Atom) -> (i64, i64) {
        match atom {
            Atom::Var(v) => self.vars[*v as usize],
            Atom::Dynamic(d) => (0, (self.cx.dynamic[*d as usize] - 1).max(0)),
            Atom::Div(e, m) => {
                let (lo, hi) = self.of(e);
                (lo.div_euclid(*m), hi.div_euclid(*m))
            }
            Atom::Mod(e, m) => {
                let (lo, hi) = self.of(e);
                if lo >= 0 && hi < *m { (lo, hi) } else { (0, m - 1) }
            }
        }
    }
}

#[cfg(test)]
mod tests;
