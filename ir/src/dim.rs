//! Extents: numbers, names, and sums of products of names.

use crate::module::Bindings;
use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

/// One dimension of a shape: a number, a name that compilation binds to a number, or an expression of
/// names. Expressions have one form, so dimensions that are equal for all bindings are equal.
///
/// ```
/// use graphc_ir::{Bindings, Dim};
///
/// let b = Dim::from("B");
/// assert_eq!(b.clone() + &b, Dim::from("2*B"));
/// assert_eq!((b.clone() * 2 + 1) * &b, Dim::from("2*B*B+B"));
/// let half = Dim::from("T/2");
/// assert_eq!(half.bind(&Bindings::new().with("T", 6)), Ok(Dim::Const(3)));
/// assert_eq!(half.bind(&Bindings::new().with("T", 7)).unwrap_err(), "T/2 is not a whole number for T=7");
/// ```
#[derive(Clone, PartialEq, Eq, Hash, Debug, PartialOrd, Ord)]
pub enum Dim {
    /// A known extent.
    Const(usize),
    /// A named extent, such as the batch size `B`. Two dimensions of one name are equal.
    Named(Arc<str>),
    /// Anything else.
    Expr(Arc<DimExpr>),
}

/// A sum of products of names, each with a coefficient, divided by a number. In the order of the
/// products; no coefficient is 0, and coefficients and divisor have no common factor.
#[derive(Clone, PartialEq, Eq, Hash, Debug, PartialOrd, Ord)]
pub struct DimExpr {
    terms: BTreeMap<Vec<Arc<str>>, i64>,
    divisor: i64,
}

/// Largest coefficient, divisor and number of the terms and factors of an expression.
const MAX_NUMBER: i128 = 1 << 40;
const MAX_TERMS: usize = 32;
const MAX_FACTORS: usize = 8;

impl DimExpr {
    /// The expression in its one form, unless it is beyond the limits.
    fn new(terms: BTreeMap<Vec<Arc<str>>, i128>, divisor: i128) -> Option<Self> {
        let gcd = |mut a: i128, mut b: i128| {
            while b != 0 {
                (a, b) = (b, a % b);
            }
            a.abs()
        };
        let common = terms.values().fold(divisor, |g, &c| gcd(g, c)).max(1);
        let terms = terms.into_iter().filter(|(_, c)| *c != 0).map(|(names, c)| (names, c / common));
        let terms: BTreeMap<Vec<Arc<str>>, i128> = terms.collect();
        let divisor = divisor / common;
        let fits = |n: i128| i64::try_from(n).ok().filter(|_| n.abs() <= MAX_NUMBER);
        if terms.len() > MAX_TERMS || terms.keys().any(|names| names.len() > MAX_FACTORS) {
            return None;
        }
        let terms = terms.into_iter().map(|(names, c)| Some((names, fits(c)?))).collect::<Option<_>>()?;
        Some(Self { terms, divisor: fits(divisor)? })
    }

    /// The dimension, unless it is negative or no whole number.
    fn dim(self) -> Option<Dim> {
        let mut terms = self.terms.iter();
        match (terms.next(), terms.next(), self.divisor) {
            (None, ..) => Some(Dim::Const(0)),
            (Some((names, &c)), None, divisor) if names.is_empty() => {
                (divisor == 1).then_some(c)?.try_into().ok().map(Dim::Const)
            }
            (Some((names, 1)), None, 1) if names.len() == 1 => Some(Dim::Named(names[0].clone())),
            _ => Some(Dim::Expr(Arc::new(self))),
        }
    }

    fn wide(&self, factor: i128) -> impl Iterator<Item = (Vec<Arc<str>>, i128)> + '_ {
        self.terms.iter().map(move |(names, &c)| (names.clone(), i128::from(c) * factor))
    }
}

/// The products of a sum, together.
fn collect(terms: impl Iterator<Item = (Vec<Arc<str>>, i128)>) -> BTreeMap<Vec<Arc<str>>, i128> {
    let mut all = BTreeMap::new();
    for (names, c) in terms {
        *all.entry(names).or_default() += c;
    }
    all
}

/// True for names that expressions may use: letters, digits and `_`, not starting with a digit.
fn is_ident(name: &str) -> bool {
    name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')
        && name.bytes().next().is_some_and(|b| !b.is_ascii_digit())
}

impl Dim {
    /// The extent, if it is a number.
    pub const fn as_const(&self) -> Option<usize> {
        match self {
            Self::Const(n) => Some(*n),
            Self::Named(_) | Self::Expr(_) => None,
        }
    }

    /// The names that it depends on, with repetition.
    pub fn names(&self) -> Vec<Arc<str>> {
        match self {
            Self::Const(_) => Vec::new(),
            Self::Named(name) => vec![name.clone()],
            Self::Expr(e) => e.terms.keys().flatten().cloned().collect(),
        }
    }

    /// As a sum of products; `None` for a name that is no identifier.
    fn expr(&self) -> Option<DimExpr> {
        let terms = match self {
            Self::Const(0) => BTreeMap::new(),
            Self::Const(n) => BTreeMap::from([(Vec::new(), i64::try_from(*n).ok()?)]),
            Self::Named(name) if is_ident(name) => BTreeMap::from([(vec![name.clone()], 1)]),
            Self::Named(_) => return None,
            Self::Expr(e) => return Some((**e).clone()),
        };
        Some(DimExpr { terms, divisor: 1 })
    }

    fn combine(&self, other: &Self, sign: i128) -> Option<Self> {
        let (a, b) = (self.expr()?, other.expr()?);
        let (p, q) = (i128::from(a.divisor), i128::from(b.divisor));
        DimExpr::new(collect(a.wide(q).chain(b.wide(sign * p))), p * q)?.dim()
    }

    /// The sum; `None` beyond the limits (2^40 for numbers, 32 terms of 8 factors), and if a name that is
    /// not an identifier takes part.
    pub fn checked_add(&self, other: &Self) -> Option<Self> {
        match (self, other) {
            (Self::Const(0), d) | (d, Self::Const(0)) => Some(d.clone()),
            _ => self.combine(other, 1),
        }
    }

    /// The difference; `None` if it is a negative number, and as [`Self::checked_add`].
    pub fn checked_sub(&self, other: &Self) -> Option<Self> {
        match (self, other) {
            (d, Self::Const(0)) => Some(d.clone()),
            (a, b) if a == b => Some(Self::Const(0)),
            _ => self.combine(other, -1),
        }
    }

    /// The product; `None` as [`Self::checked_add`].
    pub fn checked_mul(&self, other: &Self) -> Option<Self> {
        match (self, other) {
            (Self::Const(1), d) | (d, Self::Const(1)) => return Some(d.clone()),
            (Self::Const(0), _) | (_, Self::Const(0)) => return Some(Self::Const(0)),
            _ => {}
        }
        let (a, b) = (self.expr()?, other.expr()?);
        let product = |(x, c): (&Vec<Arc<str>>, &i64), (y, d): (&Vec<Arc<str>>, &i64)| {
            let mut names = [x.as_slice(), y].concat();
            names.sort();
            (names, i128::from(*c) * i128::from(*d))
        };
        let all = a.terms.iter().flat_map(|x| b.terms.iter().map(move |y| product(x, y)));
        DimExpr::new(collect(all), i128::from(a.divisor) * i128::from(b.divisor))?.dim()
    }

    /// The quotient by a number, which must come out even: that is checked once the names are bound. `None`
    /// if it is known not to, and as [`Self::checked_add`].
    pub fn checked_div(&self, divisor: usize) -> Option<Self> {
        if divisor == 1 {
            return Some(self.clone());
        }
        let divisor = i128::try_from(divisor).ok().filter(|&d| d > 0)?;
        let e = self.expr()?;
        DimExpr::new(e.wide(1).collect(), i128::from(e.divisor) * divisor)?.dim()
    }

    /// The difference, if it is the same number for all bindings; it may be negative.
    pub fn distance(&self, other: &Self) -> Option<i64> {
        if self == other {
            return Some(0);
        }
        let (a, b) = (self.expr()?, other.expr()?);
        let (p, q) = (i128::from(a.divisor), i128::from(b.divisor));
        let difference = DimExpr::new(collect(a.wide(q).chain(b.wide(-p))), p * q)?;
        match difference.terms.iter().collect::<Vec<_>>().as_slice() {
            [] => Some(0),
            [(names, c)] if names.is_empty() && difference.divisor == 1 => Some(**c),
            _ => None,
        }
    }

    /// The dimension with the names that are bound replaced by their numbers.
    ///
    /// # Errors
    /// If that makes a negative number, or a fraction, or is beyond the limits; names the dimension and
    /// the numbers.
    pub fn bind(&self, bindings: &Bindings) -> Result<Self, String> {
        let e = match self {
            Self::Const(_) => return Ok(self.clone()),
            Self::Named(name) => {
                return Ok(bindings.get(name).map_or_else(|| self.clone(), Self::Const));
            }
            Self::Expr(e) => e,
        };
        let mut names = self.names();
        names.sort();
        names.dedup();
        let given: Vec<String> =
            names.iter().filter_map(|n| Some(format!("{n}={}", bindings.get(n)?))).collect();
        let fail = |what: &str| Err(format!("{self} is {what} for {}", given.join(", ")));
        let mut terms: Vec<(Vec<Arc<str>>, i128)> = Vec::new();
        for (names, &c) in &e.terms {
            let mut product = i128::from(c);
            for name in names {
                if let Some(n) = bindings.get(name) {
                    product = match i128::try_from(n).ok().and_then(|n| product.checked_mul(n)) {
                        Some(p) => p,
                        None => return fail("too large"),
                    };
                }
            }
            let open = names.iter().filter(|n| bindings.get(n).is_none()).cloned().collect();
            terms.push((open, product));
        }
        let Some(bound) = DimExpr::new(collect(terms.into_iter()), i128::from(e.divisor)) else {
            return fail("too large");
        };
        let number = bound.terms.keys().all(Vec::is_empty);
        let (value, divisor) = (bound.terms.values().next().copied().unwrap_or(0), bound.divisor);
        match bound.dim() {
            Some(dim) => Ok(dim),
            None if number && value < 0 && divisor == 1 => fail(&format!("{value}, which is negative,")),
            None => fail("not a whole number"),
        }
    }

    /// Reads an expression such as `2*B+1`, `T/2` or `B*T`, without spaces; `None` if it is none, or names
    /// nothing.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        if !text.bytes().any(|b| b.is_ascii_alphabetic() || b == b'_') {
            return None;
        }
        let mut all: Vec<(Vec<Arc<str>>, i128, i128)> = Vec::new();
        let mut rest = text;
        let mut sign = 1i128;
        loop {
            let end = rest.find(['+', '-']).unwrap_or(rest.len());
            let (mut names, mut c, mut divisor) = (Vec::new(), sign, 1i128);
            let mut divides = false;
            let mut term = &rest[..end];
            loop {
                let end = term.find(['*', '/']).unwrap_or(term.len());
                let factor = &term[..end];
                match factor.parse::<u64>().ok().filter(|_| factor.bytes().all(|b| b.is_ascii_digit())) {
                    Some(n) if divides => divisor = divisor.checked_mul(i128::from(n)).filter(|&d| d > 0)?,
                    Some(n) => c = c.checked_mul(i128::from(n))?,
                    None if is_ident(factor) && !divides => names.push(Arc::from(factor)),
                    None => return None,
                }
                let Some(next) = term.get(end..).filter(|t| !t.is_empty()) else { break };
                divides = next.starts_with('/');
                term = &next[1..];
            }
            names.sort();
            all.push((names, c, divisor));
            let Some(next) = rest.get(end..).filter(|t| !t.is_empty()) else { break };
            sign = if next.starts_with('-') { -1 } else { 1 };
            rest = &next[1..];
            if all.len() > 2 * MAX_TERMS {
                return None;
            }
        }
        let divisor = all.iter().try_fold(1i128, |p, t| p.checked_mul(t.2).filter(|&p| p <= MAX_NUMBER))?;
        let terms = all.into_iter().map(|(names, c, d)| Some((names, c.checked_mul(divisor / d)?)));
        let terms: Vec<_> = terms.collect::<Option<_>>()?;
        DimExpr::new(collect(terms.into_iter()), divisor)?.dim()
    }
}

impl From<usize> for Dim {
    fn from(n: usize) -> Self {
        Self::Const(n)
    }
}

/// A name, or an expression such as `2*B+1`, `T/2` or `B*T`.
impl From<&str> for Dim {
    fn from(text: &str) -> Self {
        if is_ident(text) {
            Self::Named(text.into())
        } else {
            Self::parse(text).unwrap_or(Self::Named(text.into()))
        }
    }
}

impl From<&Dim> for Dim {
    fn from(dim: &Dim) -> Self {
        dim.clone()
    }
}

/// What stands for a result beyond the limits: no tensor has such an extent, so its use is an error.
const BEYOND: Dim = Dim::Const(usize::MAX);

macro_rules! operators {
    ($($trait:ident $method:ident $checked:ident),*) => {$(
        /// Beyond the limits of expressions the result is `usize::MAX`, which no shape rule accepts.
        impl<D: Into<Dim>> std::ops::$trait<D> for Dim {
            type Output = Dim;
            fn $method(self, other: D) -> Dim {
                self.$checked(&other.into()).unwrap_or(BEYOND)
            }
        }
    )*};
}
operators!(Add add checked_add, Sub sub checked_sub, Mul mul checked_mul);

/// An exact quotient, see [`Dim::checked_div`]; what is known not to be exact gives `usize::MAX`.
impl std::ops::Div<usize> for Dim {
    type Output = Dim;
    fn div(self, divisor: usize) -> Dim {
        self.checked_div(divisor).unwrap_or(BEYOND)
    }
}

impl fmt::Display for Dim {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let e = match self {
            Self::Const(n) => return n.fmt(f),
            Self::Named(name) => return f.write_str(name),
            Self::Expr(e) => e,
        };
        // Products of most names first, numbers last.
        let mut terms: Vec<(&Vec<Arc<str>>, &i64)> = e.terms.iter().collect();
        terms.sort_by_key(|(names, c)| (**c < 0, std::cmp::Reverse(names.len())));
        for (i, (names, &c)) in terms.into_iter().enumerate() {
            f.write_str(if c < 0 {
                "-"
            } else if i > 0 {
                "+"
            } else {
                ""
            })?;
            let number = c.unsigned_abs();
            if number != 1 || names.is_empty() {
                write!(f, "{number}{}", if names.is_empty() { "" } else { "*" })?;
            }
            f.write_str(&names.join("*"))?;
            if e.divisor != 1 {
                write!(f, "/{}", e.divisor)?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_expressions_are_equal() {
        let (b, t) = (Dim::from("B"), Dim::from("T"));
        assert_eq!((b.clone() + 1) - 1, b);
        assert_eq!(b.clone() * &t, t.clone() * &b);
        assert_eq!((t.clone() / 2) * 2, t);
        assert_eq!(b.clone() - &b, Dim::Const(0));
        assert_eq!((b.clone() + &t) * 3, b.clone() * 3 + t.clone() * 3);
        assert_ne!(b.clone() * 2, b.clone() + 2);
        assert_eq!(b.clone() - (t.clone() + 1), Dim::from("B-T-1"));
    }

    #[test]
    fn text_reads_back() {
        for text in ["2*B+1", "T/2", "B*T", "B-2", "3*B*B/4+T/4", "A*B*C-2*A-1", "B/3-1/3"] {
            let dim = Dim::from(text);
            assert!(matches!(dim, Dim::Expr(_)), "{text}");
            assert_eq!(Dim::from(dim.to_string().as_str()), dim, "{text} as {dim}");
        }
        assert_eq!(Dim::from("B+B-B"), Dim::from("B"));
        assert_eq!(Dim::from("B-B+4"), Dim::Const(4));
        for name in ["two words", "7", "a+", "*a", "a//2", "2/a", "a/0", "é"] {
            assert_eq!(Dim::from(name), Dim::Named(name.into()), "{name}");
        }
    }

    #[test]
    fn binding_checks_that_extents_exist() {
        let bind = |text: &str, n| Dim::from(text).bind(&Bindings::new().with("B", n).with("T", 3));
        assert_eq!(bind("2*B+1", 4), Ok(Dim::Const(9)));
        assert_eq!(bind("B*T-12", 4), Ok(Dim::Const(0)));
        assert_eq!(bind("B*N", 4), Ok(Dim::from("4*N")));
        assert_eq!(bind("B-5", 4).unwrap_err(), "B-5 is -1, which is negative, for B=4");
        assert_eq!(bind("B/3", 4).unwrap_err(), "B/3 is not a whole number for B=4");
        assert!(bind("B*B*B*B", 1 << 31).unwrap_err().contains("too large"));
    }

    #[test]
    fn beyond_the_limits_there_is_no_expression() {
        let mut power = Dim::from("B");
        for _ in 0..10 {
            power = power * "B";
        }
        assert_eq!(power, BEYOND);
        assert_eq!(Dim::from("B") * (1 << 41), BEYOND);
        assert_eq!(Dim::Const(3) - 5, BEYOND);
        assert_eq!(Dim::from("two words") + 1, BEYOND);
    }
}
