//! The text form of vector IR, for dumps: one statement a line, loops indented. It is not read back.
//!
//! ```text
//! kernel k3_tanh(%0 first, %1 end) {
//!   for i0 in %0*2048..min(%1*2048, 50176) step 8 lanes 8 {
//!     %4 = load b0[i0] : f32x8
//!     %5 = fma %4, %2, %3 : f32x8
//!     store b1[i0] = %5
//!   }
//! }
//! ```

use super::{Base, Bound, Loop, MemRef, Stmt, VFunc, VOp, VType};
use graphc_ir::{Atom, Guard, IndexExpr, ReduceKind, ScalarOp};
use std::fmt::{self, Write};

/// The text of a function.
pub fn print_function(f: &VFunc) -> String {
    let mut out = String::new();
    // Writing to a string does not fail.
    let _ = function(&mut out, f);
    out
}

fn function(out: &mut String, f: &VFunc) -> fmt::Result {
    let params: Vec<String> =
        f.params.iter().zip(["first", "end"]).map(|(v, role)| format!("%{v} {role}")).collect();
    let scheduled = if f.scheduled { " scheduled" } else { "" };
    let streams: String = f.streams.iter().map(|b| format!(" stream b{b}")).collect();
    writeln!(out, "kernel {}({}){scheduled}{streams} {{", f.name, params.join(", "))?;
    block(out, f, &f.body, 1)?;
    writeln!(out, "}}")
}

fn block(out: &mut String, f: &VFunc, body: &[Stmt], depth: usize) -> fmt::Result {
    for s in body {
        write!(out, "{:1$}", "", 2 * depth)?;
        match s {
            Stmt::Def { dst, op, args } => {
                let args: Vec<String> = args.iter().map(|a| format!("%{a}")).collect();
                let ty = f.types.get(*dst as usize).map_or_else(|| "?".to_owned(), ToString::to_string);
                writeln!(out, "%{dst} = {} : {ty}", operation(op, &args))?;
            }
            Stmt::Store { mem, value } => writeln!(out, "store {} = %{value}", memory(mem))?,
            Stmt::Prefetch(mem) => writeln!(out, "prefetch {}", memory(mem))?,
            Stmt::Loop(l) => {
                writeln!(out, "{}", header(l))?;
                block(out, f, &l.body, depth + 1)?;
                if !l.carried.is_empty() {
                    let next: Vec<String> = l.carried.iter().map(|c| format!("%{}", c.next)).collect();
                    writeln!(out, "{:1$}next {2}", "", 2 * depth + 2, next.join(", "))?;
                }
                writeln!(out, "{:1$}}}", "", 2 * depth)?;
            }
        }
    }
    Ok(())
}

fn header(l: &Loop) -> String {
    let mut s = format!("for i{} in {}..{}", l.var, bound(&l.lo), bound(&l.hi));
    if l.step != 1 {
        s += &format!(" step {}", l.step);
    }
    if l.lanes != 1 {
        s += &format!(" lanes {}", l.lanes);
    }
    if !l.carried.is_empty() {
        let carried: Vec<String> = l.carried.iter().map(|c| format!("%{} = %{}", c.phi, c.init)).collect();
        s += &format!(" carry {}", carried.join(", "));
    }
    s + " {"
}

fn operation(op: &VOp, args: &[String]) -> String {
    match op {
        VOp::Scalar(op) => scalar_text(*op, args),
        VOp::Splat => format!("splat {}", args.join(", ")),
        VOp::Load(mem, guards) => format!("load {}{}", memory(mem), guards_text(guards, &value_name)),
        VOp::Index(e) => format!("index {}", local(e)),
        VOp::Guard(guards) => format!("guard{}", guards_text(guards, &value_name)),
        VOp::Fold(kind) => format!("fold {} {}", reduce_name(*kind), args.join(", ")),
    }
}

/// `b3[i0*4 + 1]`, `scratch@64[i0]`.
pub(super) fn memory(m: &MemRef) -> String {
    let base = match m.base {
        Base::Buffer(i) => format!("b{i}"),
        Base::Scratch(offset) => format!("scratch@{offset}"),
    };
    format!("{base}[{}]", local(&m.index))
}

fn bound(b: &Bound) -> String {
    match b {
        Bound::Expr(e) => local(e),
        Bound::Min(x, y) => format!("min({}, {})", local(x), local(y)),
    }
}

fn value_name(v: u32) -> String {
    format!("%{v}")
}

fn local(e: &IndexExpr) -> String {
    index_text(e, &value_name)
}

/// An index expression with its dynamic values named by `dynamic`.
pub(crate) fn index_text(e: &IndexExpr, dynamic: &dyn Fn(u32) -> String) -> String {
    let mut s = String::new();
    for (atom, c) in e.terms() {
        s += match (s.is_empty(), *c < 0) {
            (true, true) => "-",
            (true, false) => "",
            (false, true) => " - ",
            (false, false) => " + ",
        };
        s += &match atom {
            Atom::Var(v) => format!("i{v}"),
            Atom::Dynamic(v) => dynamic(*v),
            Atom::Div(e, m) => format!("({} / {m})", index_text(e, dynamic)),
            Atom::Mod(e, m) => format!("({} % {m})", index_text(e, dynamic)),
        };
        if c.unsigned_abs() != 1 {
            s += &format!("*{}", c.unsigned_abs());
        }
    }
    match (s.is_empty(), e.offset_value()) {
        (true, c) => s += &c.to_string(),
        (false, 0) => {}
        (false, c) => s += &format!(" {} {}", if c < 0 { '-' } else { '+' }, c.unsigned_abs()),
    }
    s
}

/// ` if 0 <= i0 < 7 && ..`, empty without guards.
pub(crate) fn guards_text(guards: &[Guard], dynamic: &dyn Fn(u32) -> String) -> String {
    let each: Vec<String> =
        guards.iter().map(|g| format!("{} <= {} < {}", g.lo, index_text(&g.expr, dynamic), g.hi)).collect();
    if each.is_empty() { String::new() } else { format!(" if {}", each.join(" && ")) }
}

/// An instruction by its lower-case name, with constants spelled out.
pub(crate) fn scalar_text(op: ScalarOp, args: &[String]) -> String {
    let (name, last) = match op {
        ScalarOp::Const(c) => ("const".to_owned(), Some(c.to_string())),
        ScalarOp::Cmp(kind) => (kind.name().to_owned(), None),
        ScalarOp::Shl(n) => ("shl".to_owned(), Some(n.to_string())),
        ScalarOp::ShrL(n) => ("shrl".to_owned(), Some(n.to_string())),
        ScalarOp::ShrA(n) => ("shra".to_owned(), Some(n.to_string())),
        ScalarOp::Cast(_) => ("cast".to_owned(), None),
        ScalarOp::Bitcast(_) => ("bitcast".to_owned(), None),
        plain => (format!("{plain:?}").to_lowercase(), None),
    };
    let args: Vec<String> = args.iter().cloned().chain(last).collect();
    format!("{name} {}", args.join(", "))
}

/// `sum`, `prod`, `max` or `min`.
pub(crate) fn reduce_name(kind: ReduceKind) -> &'static str {
    match kind {
        ReduceKind::Sum => "sum",
        ReduceKind::Prod => "prod",
        ReduceKind::Max => "max",
        ReduceKind::Min => "min",
    }
}

impl fmt::Display for VType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.lanes {
            1 => write!(f, "{}", self.dtype),
            n => write!(f, "{}x{n}", self.dtype),
        }
    }
}

impl fmt::Display for VFunc {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&print_function(self))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::vector::builder::VBuilder;
    use graphc_ir::{DType, ScalarBuilder};

    #[test]
    fn a_loop_prints_one_statement_a_line() {
        let mut b = VBuilder::kernel("k0_neg");
        let (lo, hi) = (b.param(0).scale(64), Bound::Min(b.param(1).scale(64), IndexExpr::constant(100)));
        let l = b.open(lo, hi, 8, 8, &[]);
        let at = |buffer, index| MemRef { base: Base::Buffer(buffer), dtype: DType::F32, index };
        let guard = Guard { expr: l.var.offset(-1), lo: 0, hi: 7 };
        let x = b.load(at(0, l.var.scale(2).offset(-2)), &[guard]);
        let y = b.neg(x);
        b.store(at(1, l.var.clone()), y);
        b.close(l, &[]);
        expect_test::expect![[r"
            kernel k0_neg(%0 first, %1 end) {
              for i0 in %0*64..min(%1*64, 100) step 8 lanes 8 {
                %2 = load b0[i0*2 - 2] if 0 <= i0 - 1 < 7 : f32x8
                %3 = neg %2 : f32x8
                store b1[i0] = %3
              }
            }
        "]]
        .assert_eq(&print_function(&b.finish()));
    }
}
