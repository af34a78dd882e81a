//! Index expressions: integer arithmetic on loop variables, in a normal form.
//!
//! Data movement (broadcast, transpose, slice, pad, ...) is described by how the index of a result
//! element gives the index of the operand element ([`Access`]). The compiler composes these maps
//! instead of moving data.

use std::fmt;

/// A loop variable; its range is `0..extent`, see [`IndexCx`].
pub type Var = u32;

/// The non-constant part of one term.
#[derive(Clone, PartialEq, Eq, Hash, Debug, PartialOrd, Ord)]
pub enum Atom {
    /// A loop variable.
    Var(Var),
    /// A value read at run time, numbered by the compiler; it was checked to be in range.
    Dynamic(u32),
    /// Floor division of a non-negative expression by a positive constant.
    Div(Box<IndexExpr>, i64),
    /// Remainder of the same.
    Mod(Box<IndexExpr>, i64),
}

/// `constant + sum(coefficient * atom)`: terms sorted by atom, no zero coefficient, no atom twice.
#[derive(Clone, PartialEq, Eq, Hash, Debug, PartialOrd, Ord, Default)]
pub struct IndexExpr {
    constant: i64,
    terms: Vec<(Atom, i64)>,
}

/// Ranges of the loop variables: variable `v` runs over `0..extents[v]`; likewise for dynamic
/// values.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Default)]
pub struct IndexCx {
    /// Extent of each loop variable.
    pub extents: Vec<i64>,
    /// Exclusive upper bound of each dynamic value.
    pub dynamic: Vec<i64>,
}

impl IndexCx {
    /// Adds a variable of this extent.
    pub fn var(&mut self, extent: usize) -> IndexExpr {
        self.extents.push(extent as i64);
        IndexExpr::var((self.extents.len() - 1) as Var)
    }

    /// Smallest and largest value of `e`. Empty ranges count as `0..=0`.
    pub fn range(&self, e: &IndexExpr) -> (i64, i64) {
        e.terms.iter().fold((e.constant, e.constant), |(lo, hi), (atom, c)| {
            let (a, b) = self.atom_range(atom);
            let (x, y) = (a * c, b * c);
            (lo + x.min(y), hi + x.max(y))
        })
    }

    fn atom_range(&self, atom: &Atom) -> (i64, i64) {
        match atom {
            Atom::Var(v) => (0, (self.extents[*v as usize] - 1).max(0)),
            Atom::Dynamic(v) => (0, (self.dynamic[*v as usize] - 1).max(0)),
            Atom::Div(e, m) => {
                let (lo, hi) = self.range(e);
                (lo.div_euclid(*m), hi.div_euclid(*m))
            }
            Atom::Mod(e, m) => {
                let (lo, hi) = self.range(e);
                if lo >= 0 && hi < *m { (lo, hi) } else { (0, m - 1) }
            }
        }
    }

    /// `e / m` rounded down, for `m > 0`.
    pub fn div(&self, e: &IndexExpr, m: i64) -> IndexExpr {
        let (quotient, rest) = self.split(e, m);
        let (lo, hi) = self.range(&rest);
        if lo.div_euclid(m) == hi.div_euclid(m) {
            return quotient.offset(lo.div_euclid(m));
        }
        if let Some((unit, coarse, _)) = self.coarse(&rest, m) {
            return quotient.add(&self.div(&coarse, m / unit));
        }
        quotient.add(&IndexExpr::atom(Atom::Div(Box::new(rest), m)))
    }

    /// `e mod m` in `0..m`, for `m > 0`.
    pub fn rem(&self, e: &IndexExpr, m: i64) -> IndexExpr {
        let (_, rest) = self.split(e, m);
        let (lo, hi) = self.range(&rest);
        if lo.div_euclid(m) == hi.div_euclid(m) {
            return rest.offset(-m * lo.div_euclid(m));
        }
        if let Some((unit, coarse, fine)) = self.coarse(&rest, m) {
            return self.rem(&coarse, m / unit).scale(unit).add(&fine);
        }
        IndexExpr::atom(Atom::Mod(Box::new(rest), m))
    }

    /// `e = m * quotient + rest`, with every coefficient of `rest` not a multiple of `m`, and `rest`
    /// never negative.
    fn split(&self, e: &IndexExpr, m: i64) -> (IndexExpr, IndexExpr) {
        let e = e.clone().recombined();
        let mut quotient = IndexExpr::constant(e.constant.div_euclid(m));
        let mut rest = IndexExpr::constant(e.constant.rem_euclid(m));
        for (atom, c) in e.terms {
            if c % m == 0 {
                quotient.terms.push((atom, c / m));
            } else {
                rest.terms.push((atom, c));
            }
        }
        // Negative coefficients: what was taken out may have been all that kept it positive.
        let shift = (-self.range(&rest).0.div_euclid(m)).max(0);
        (quotient.offset(-shift), rest.offset(shift * m))
    }

    /// `(unit, coarse, fine)` with `e = unit * coarse + fine`, where `unit` divides `m` and `fine` is in `0..unit`, so that
    /// only `coarse` decides what `e / m` is. The largest such unit above 1.
    fn coarse(&self, e: &IndexExpr, m: i64) -> Option<(i64, IndexExpr, IndexExpr)> {
        let mut units: Vec<i64> = e.terms.iter().map(|t| gcd(t.1.abs(), m)).filter(|&u| u > 1).collect();
        units.sort_unstable_by_key(|&u| std::cmp::Reverse(u));
        units.dedup();
        units.into_iter().find_map(|unit| {
            let (whole, rest): (Vec<_>, Vec<_>) = e.terms.iter().cloned().partition(|t| t.1 % unit == 0);
            let fine = IndexExpr { constant: e.constant.rem_euclid(unit), terms: rest };
            let (lo, hi) = self.range(&fine);
            let terms = whole.into_iter().map(|(atom, c)| (atom, c / unit)).collect();
            let coarse = IndexExpr { constant: e.constant.div_euclid(unit), terms };
            (lo >= 0 && hi < unit).then_some((unit, coarse, fine))
        })
    }
}

/// The greatest common divisor of two numbers that are not negative.
fn gcd(a: i64, b: i64) -> i64 {
    if b == 0 { a } else { gcd(b, a % b) }
}

impl IndexExpr {
    /// A number.
    pub const fn constant(value: i64) -> Self {
        Self { constant: value, terms: Vec::new() }
    }

    /// A loop variable.
    pub fn var(v: Var) -> Self {
        Self::atom(Atom::Var(v))
    }

    /// A single atom.
    pub fn atom(atom: Atom) -> Self {
        Self { constant: 0, terms: vec![(atom, 1)] }
    }

    /// The constant term.
    pub const fn offset_value(&self) -> i64 {
        self.constant
    }

    /// The terms.
    pub fn terms(&self) -> &[(Atom, i64)] {
        &self.terms
    }

    /// The value, if there are no terms.
    pub fn as_constant(&self) -> Option<i64> {
        self.terms.is_empty().then_some(self.constant)
    }

    /// `self + other`
    pub fn add(&self, other: &Self) -> Self {
        let mut sum = self.clone();
        sum.constant += other.constant;
        for (atom, c) in &other.terms {
            match sum.terms.binary_search_by(|(a, _)| a.cmp(atom)) {
                Ok(i) => {
                    sum.terms[i].1 += c;
                    if sum.terms[i].1 == 0 {
                        sum.terms.remove(i);
                    }
                }
                Err(i) => sum.terms.insert(i, (atom.clone(), *c)),
            }
        }
        sum
    }

    /// `self + c`
    pub fn offset(&self, c: i64) -> Self {
        Self { constant: self.constant + c, terms: self.terms.clone() }
    }

    /// `self * c`
    pub fn scale(&self, c: i64) -> Self {
        if c == 0 {
            return Self::constant(0);
        }
        Self {
            constant: self.constant * c,
            terms: self.terms.iter().map(|(a, k)| (a.clone(), k * c)).collect(),
        }
    }

    /// `sum(index[i] * stride[i])`, with quotients and remainders of one division recombined.
    pub fn linear(index: &[Self], strides: &[usize]) -> Self {
        let sum = index.iter().zip(strides).fold(Self::default(), |acc, (e, &s)| acc.add(&e.scale(s as i64)));
        sum.recombined()
    }

    /// Applies `c*m*(e div m) + c*(e mod m) = c*e` and
    /// `c*m*((e div m) mod d) + c*(e mod m) = c*(e mod m*d)` until neither matches.
    fn recombined(mut self) -> Self {
        'again: loop {
            for i in 0..self.terms.len() {
                let (Atom::Mod(e, m), c) = self.terms[i].clone() else { continue };
                for j in 0..self.terms.len() {
                    let (atom, k) = &self.terms[j];
                    if *k != c * m {
                        continue;
                    }
                    let merged = match atom {
                        Atom::Div(f, n) if *n == m && *f == e => (*e).clone(),
                        Atom::Mod(q, d) => match (q.as_atom(), d) {
                            (Some(Atom::Div(f, n)), d) if *n == m && *f == e => {
                                Self::atom(Atom::Mod(e.clone(), m * d))
                            }
                            _ => continue,
                        },
                        _ => continue,
                    };
                    let (hi, lo) = (i.max(j), i.min(j));
                    self.terms.remove(hi);
                    self.terms.remove(lo);
                    self = self.add(&merged.scale(c));
                    continue 'again;
                }
            }
            return self;
        }
    }

    fn as_atom(&self) -> Option<&Atom> {
        match (self.constant, self.terms.as_slice()) {
            (0, [(atom, 1)]) => Some(atom),
            _ => None,
        }
    }

    /// Replaces every variable `v` by `f(v)`; `cx` gives the ranges of the new variables.
    pub fn substitute(&self, cx: &IndexCx, f: &impl Fn(Var) -> IndexExpr) -> Self {
        let mut sum = Self::constant(self.constant);
        for (atom, c) in &self.terms {
            let value = match atom {
                Atom::Var(v) => f(*v),
                Atom::Dynamic(_) => Self::atom(atom.clone()),
                Atom::Div(e, m) => cx.div(&e.substitute(cx, f), *m),
                Atom::Mod(e, m) => cx.rem(&e.substitute(cx, f), *m),
            };
            sum = sum.add(&value.scale(*c));
        }
        sum.recombined()
    }

    /// True if `v` occurs anywhere.
    pub fn uses(&self, v: Var) -> bool {
        self.terms.iter().any(|(atom, _)| match atom {
            Atom::Var(w) => *w == v,
            Atom::Dynamic(_) => false,
            Atom::Div(e, _) | Atom::Mod(e, _) => e.uses(v),
        })
    }

    /// The coefficient of `v` if the expression is `c * v + rest` with `v` not in `rest`.
    pub fn coefficient(&self, v: Var) -> Option<i64> {
        let mut coefficient = 0;
        for (atom, c) in &self.terms {
            match atom {
                Atom::Var(w) if *w == v => coefficient = *c,
                Atom::Div(e, _) | Atom::Mod(e, _) if e.uses(v) => return None,
                _ => {}
            }
        }
        Some(coefficient)
    }

    /// The value for given variables and dynamic values.
    pub fn eval(&self, vars: &[i64], dynamic: &[i64]) -> i64 {
        self.terms.iter().fold(self.constant, |acc, (atom, c)| {
            let value = match atom {
                Atom::Var(v) => vars[*v as usize],
                Atom::Dynamic(v) => dynamic[*v as usize],
                Atom::Div(e, m) => e.eval(vars, dynamic).div_euclid(*m),
                Atom::Mod(e, m) => e.eval(vars, dynamic).rem_euclid(*m),
            };
            acc + c * value
        })
    }
}

impl fmt::Display for IndexExpr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut first = true;
        for (atom, c) in &self.terms {
            let sign = if *c < 0 { "-" } else { "+" };
            match (first, *c < 0) {
                (true, true) => f.write_str("-")?,
                (true, false) => {}
                (false, _) => write!(f, " {sign} ")?,
            }
            first = false;
            match atom {
                Atom::Var(v) => write!(f, "i{v}")?,
                Atom::Dynamic(v) => write!(f, "d{v}")?,
                Atom::Div(e, m) => write!(f, "({e})/{m}")?,
                Atom::Mod(e, m) => write!(f, "({e})%{m}")?,
            }
            if c.abs() != 1 {
                write!(f, "*{}", c.abs())?;
            }
        }
        match (first, self.constant) {
            (true, c) => write!(f, "{c}"),
            (false, 0) => Ok(()),
            (false, c) if c < 0 => write!(f, " - {}", -c),
            (false, c) => write!(f, " + {c}"),
        }
    }
}

/// A condition `lo <= expr < hi`.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Guard {
    /// What is compared.
    pub expr: IndexExpr,
    /// Inclusive lower bound.
    pub lo: i64,
    /// Exclusive upper bound.
    pub hi: i64,
}

impl Guard {
    /// True if the guard holds for all values of the variables.
    pub fn always(&self, cx: &IndexCx) -> bool {
        let (lo, hi) = cx.range(&self.expr);
        self.lo <= lo && hi < self.hi
    }
}

impl fmt::Display for Guard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} <= {} < {}", self.lo, self.expr, self.hi)
    }
}

/// Where a result element comes from: element `index` of operand `operand`, if all `guards` hold.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Access {
    /// Which operand.
    pub operand: usize,
    /// Index into it, one expression per dimension.
    pub index: Vec<IndexExpr>,
    /// Conditions, all of which must hold.
    pub guards: Vec<Guard>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn splitting_and_joining_a_dimension_cancels() {
        let mut cx = IndexCx::default();
        let lin = cx.var(60);
        let parts = [cx.rem(&cx.div(&lin, 20), 3), cx.rem(&cx.div(&lin, 5), 4), cx.rem(&lin, 5)];
        assert_eq!(IndexExpr::linear(&parts, &[20, 5, 1]), lin);
    }

    #[test]
    fn what_is_divided_is_never_negative() {
        let mut cx = IndexCx::default();
        let (i, j) = (cx.var(3), cx.var(5));
        // Row 2 - i of a 3 x 5 matrix read as rows of 3.
        let e = i.scale(-5).offset(10).add(&j);
        let (q, r) = (cx.div(&e, 3), cx.rem(&e, 3));
        for (atom, _) in q.terms().iter().chain(r.terms()) {
            if let Atom::Div(inner, _) | Atom::Mod(inner, _) = atom {
                assert!(cx.range(inner).0 >= 0, "{inner}");
            }
        }
        for (i, j) in (0..3).flat_map(|i| (0..5).map(move |j| (i, j))) {
            let at = 10 - 5 * i + j;
            assert_eq!((q.eval(&[i, j], &[]), r.eval(&[i, j], &[])), (at / 3, at % 3));
        }
        assert_eq!(IndexExpr::linear(&[q, r], &[3, 1]), e);
    }

    #[test]
    fn what_is_below_a_common_unit_is_left_out_of_a_quotient() {
        let mut cx = IndexCx::default();
        let (panel, column) = (cx.var(8), cx.var(16));
        let at = panel.scale(16).add(&column);
        assert_eq!(cx.div(&at, 32), IndexExpr::atom(Atom::Div(Box::new(panel.clone()), 2)));
        let half = IndexExpr::atom(Atom::Mod(Box::new(panel.clone()), 2));
        assert_eq!(cx.rem(&at, 32), half.scale(16).add(&column));
        assert_eq!(IndexExpr::linear(&[cx.div(&at, 32), cx.rem(&at, 32)], &[32, 1]), at);
        // All coefficients, offsets and divisors: the values are those of arithmetic.
        let evaluate = |e: &IndexExpr, i: i64, j: i64| {
            let of = |v: Var| IndexExpr::constant(if v == 0 { i } else { j });
            e.substitute(&cx, &of).as_constant().expect("all variables have numbers")
        };
        for (a, b, offset, m) in (0..5).flat_map(|a| {
            (0..5).flat_map(move |b| {
                (0..3).flat_map(move |o| (1..=4).map(move |m| (6 * a - 6, 2 * b, 7 * o, 6 * m)))
            })
        }) {
            let e = panel.scale(a).add(&column.scale(b)).offset(offset);
            let (q, r) = (cx.div(&e, m), cx.rem(&e, m));
            for (i, j) in (0..8).flat_map(|i| (0..16).map(move |j| (i, j))) {
                let value = a * i + b * j + offset;
                assert_eq!(evaluate(&q, i, j), value.div_euclid(m), "{e} / {m}");
                assert_eq!(evaluate(&r, i, j), value.rem_euclid(m), "{e} mod {m}");
            }
        }
    }

    #[test]
    fn joining_then_splitting_cancels() {
        let mut cx = IndexCx::default();
        let (i, j) = (cx.var(7), cx.var(4));
        let lin = IndexExpr::linear(&[i.clone(), j.clone()], &[4, 1]);
        assert_eq!((cx.div(&lin, 4), cx.rem(&lin, 4)), (i, j));
    }
}
