//! Attributes of operations as text: a small value type and the conversions of field types.

use crate::literal::Literal;
use crate::module::{Bindings, StateId};
use crate::pattern::Combine;
use crate::region::Region;
use crate::scalar::CmpKind;
use crate::types::{DType, Dim, Shape, TensorType};
use std::collections::BTreeMap;

/// An attribute as written in the text form.
#[derive(Clone, Debug, PartialEq)]
pub enum AttrValue {
    /// An integer.
    Int(i64),
    /// A bare word: an element type, a predicate, a dimension name, `true` or `false`.
    Word(String),
    /// `[a, b, ...]`
    List(Vec<AttrValue>),
    /// A dimension that is an expression of names.
    Expr(Dim),
    /// Elements of a constant; written as numbers, typed by the node.
    Literal(Literal),
    /// A region; written by its name, `@name`.
    Region(Region),
}

/// Attributes given for an operation, by name. What is left after parsing is unknown.
#[derive(Clone, Debug, Default)]
pub struct AttrMap(pub BTreeMap<String, AttrValue>);

/// An attribute that is missing or not of the right form.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AttrError {
    /// Not given.
    #[error("attribute `{0}` is missing")]
    Missing(&'static str),
    /// Given, but of another form.
    #[error("attribute `{0}` must be {1}")]
    Form(&'static str, &'static str),
}

impl AttrMap {
    /// Removes and converts an attribute.
    pub fn take<T: Attr>(&mut self, name: &'static str) -> Result<T, AttrError> {
        let Some(value) = self.0.remove(name) else { return T::missing().ok_or(AttrError::Missing(name)) };
        T::from_attr(&value).ok_or(AttrError::Form(name, T::FORM))
    }
}

/// A type that a field of an operation may have.
pub trait Attr: Sized {
    /// What is expected, for error messages.
    const FORM: &'static str;
    /// To text.
    fn to_attr(&self) -> AttrValue;
    /// From text.
    fn from_attr(value: &AttrValue) -> Option<Self>;
    /// The value of an attribute that is not given: the empty list, for lists.
    fn missing() -> Option<Self> {
        None
    }
    /// Calls `visit` with each dimension in it.
    fn visit_dims(&self, _: &mut dyn FnMut(&Dim)) {}
    /// Replaces bound dimension names; all dimensions have values. Regions are left alone: binding them may fail, so
    /// [`crate::Function::bind`] does it.
    fn bind(&mut self, _: &Bindings) {}
    /// The region that it is.
    fn region(&self) -> Option<&Region> {
        None
    }
    /// Like [`Self::region`], for change.
    fn region_mut(&mut self) -> Option<&mut Region> {
        None
    }
}

/// Attributes of an operation: implemented by the `op!` macro.
pub trait Attrs: Sized {
    /// Every attribute by name.
    fn attrs(&self) -> Vec<(&'static str, AttrValue)>;
    /// The operation from its attributes.
    fn from_attrs(attrs: &mut AttrMap) -> Result<Self, AttrError>;
    /// Replaces bound dimension names.
    fn bind(&mut self, bindings: &Bindings);
    /// Calls `visit` with each dimension among them.
    fn visit_dims(&self, visit: &mut dyn FnMut(&Dim));
    /// Every region among them.
    fn regions(&self) -> Vec<&Region> {
        Vec::new()
    }
    /// Like [`Self::regions`], for change.
    fn regions_mut(&mut self) -> Vec<&mut Region> {
        Vec::new()
    }
}

impl Attr for i64 {
    const FORM: &'static str = "an integer";
    fn to_attr(&self) -> AttrValue {
        AttrValue::Int(*self)
    }
    fn from_attr(value: &AttrValue) -> Option<Self> {
        match value {
            AttrValue::Int(i) => Some(*i),
            _ => None,
        }
    }
}

impl Attr for usize {
    const FORM: &'static str = "a non-negative integer";
    fn to_attr(&self) -> AttrValue {
        AttrValue::Int(*self as i64)
    }
    fn from_attr(value: &AttrValue) -> Option<Self> {
        i64::from_attr(value)?.try_into().ok()
    }
}

impl Attr for u32 {
    const FORM: &'static str = "an integer in 0..2^32";
    fn to_attr(&self) -> AttrValue {
        AttrValue::Int(i64::from(*self))
    }
    fn from_attr(value: &AttrValue) -> Option<Self> {
        i64::from_attr(value)?.try_into().ok()
    }
}

impl Attr for bool {
    const FORM: &'static str = "`true` or `false`";
    fn to_attr(&self) -> AttrValue {
        AttrValue::Word(self.to_string())
    }
    fn from_attr(value: &AttrValue) -> Option<Self> {
        match value {
            AttrValue::Word(w) => w.parse().ok(),
            _ => None,
        }
    }
}

impl Attr for DType {
    const FORM: &'static str = "an element type";
    fn to_attr(&self) -> AttrValue {
        AttrValue::Word(self.name().to_owned())
    }
    fn from_attr(value: &AttrValue) -> Option<Self> {
        match value {
            AttrValue::Word(w) => Self::from_name(w),
            _ => None,
        }
    }
}

impl Attr for CmpKind {
    const FORM: &'static str = "one of eq, ne, lt, le, gt, ge";
    fn to_attr(&self) -> AttrValue {
        AttrValue::Word(self.name().to_owned())
    }
    fn from_attr(value: &AttrValue) -> Option<Self> {
        match value {
            AttrValue::Word(w) => Self::ALL.into_iter().find(|k| k.name() == w),
            _ => None,
        }
    }
}

impl Attr for Combine {
    const FORM: &'static str = "one of assign, add, mul, max, min";
    fn to_attr(&self) -> AttrValue {
        AttrValue::Word(self.name().to_owned())
    }
    fn from_attr(value: &AttrValue) -> Option<Self> {
        match value {
            AttrValue::Word(w) => Self::ALL.into_iter().find(|c| c.name() == w),
            _ => None,
        }
    }
}

impl Attr for Dim {
    const FORM: &'static str = "an extent";
    fn to_attr(&self) -> AttrValue {
        match self {
            Self::Const(n) => AttrValue::Int(*n as i64),
            Self::Named(n) => AttrValue::Word(n.to_string()),
            Self::Expr(_) => AttrValue::Expr(self.clone()),
        }
    }
    fn from_attr(value: &AttrValue) -> Option<Self> {
        match value {
            AttrValue::Int(i) => (*i).try_into().ok().map(Self::Const),
            AttrValue::Word(w) => Some(Self::from(w.as_str())),
            AttrValue::Expr(dim) => Some(dim.clone()),
            _ => None,
        }
    }
    fn bind(&mut self, bindings: &Bindings) {
        *self = bindings.dim(self);
    }
    fn visit_dims(&self, visit: &mut dyn FnMut(&Dim)) {
        visit(self);
    }
}

impl Attr for Shape {
    const FORM: &'static str = "a list of extents";
    fn to_attr(&self) -> AttrValue {
        AttrValue::List(self.iter().map(Attr::to_attr).collect())
    }
    fn from_attr(value: &AttrValue) -> Option<Self> {
        Vec::<Dim>::from_attr(value).map(Self::from)
    }
    fn bind(&mut self, bindings: &Bindings) {
        *self = bindings.shape(self);
    }
    fn visit_dims(&self, visit: &mut dyn FnMut(&Dim)) {
        self.iter().for_each(visit);
    }
}

impl<T: Attr> Attr for Vec<T> {
    const FORM: &'static str = "a list";
    fn to_attr(&self) -> AttrValue {
        AttrValue::List(self.iter().map(Attr::to_attr).collect())
    }
    fn from_attr(value: &AttrValue) -> Option<Self> {
        match value {
            AttrValue::List(items) => items.iter().map(T::from_attr).collect(),
            _ => None,
        }
    }
    fn missing() -> Option<Self> {
        Some(Self::new())
    }
    fn bind(&mut self, bindings: &Bindings) {
        self.iter_mut().for_each(|t| t.bind(bindings));
    }
    fn visit_dims(&self, visit: &mut dyn FnMut(&Dim)) {
        self.iter().for_each(|t| t.visit_dims(visit));
    }
}

impl<A: Attr, B: Attr> Attr for (A, B) {
    const FORM: &'static str = "a list of two";
    fn to_attr(&self) -> AttrValue {
        AttrValue::List(vec![self.0.to_attr(), self.1.to_attr()])
    }
    fn from_attr(value: &AttrValue) -> Option<Self> {
        match value {
            AttrValue::List(items) => match items.as_slice() {
                [a, b] => Some((A::from_attr(a)?, B::from_attr(b)?)),
                _ => None,
            },
            _ => None,
        }
    }
}

impl Attr for Literal {
    const FORM: &'static str = "numbers";
    fn to_attr(&self) -> AttrValue {
        AttrValue::Literal(self.clone())
    }
    fn from_attr(value: &AttrValue) -> Option<Self> {
        match value {
            AttrValue::Literal(l) => Some(l.clone()),
            _ => None,
        }
    }
}

impl Attr for StateId {
    const FORM: &'static str = "a state variable";
    fn to_attr(&self) -> AttrValue {
        self.0.to_attr()
    }
    fn from_attr(value: &AttrValue) -> Option<Self> {
        u32::from_attr(value).map(Self)
    }
}

impl Attr for TensorType {
    const FORM: &'static str = "a type";
    fn to_attr(&self) -> AttrValue {
        AttrValue::List(vec![self.dtype.to_attr(), self.shape.to_attr()])
    }
    fn from_attr(value: &AttrValue) -> Option<Self> {
        <(DType, Shape)>::from_attr(value).map(|(dtype, shape)| Self { dtype, shape })
    }
    fn bind(&mut self, bindings: &Bindings) {
        self.shape.bind(bindings);
    }
    fn visit_dims(&self, visit: &mut dyn FnMut(&Dim)) {
        self.shape.visit_dims(visit);
    }
}

impl Attr for Region {
    const FORM: &'static str = "a region, such as `@body`";
    fn to_attr(&self) -> AttrValue {
        AttrValue::Region(self.clone())
    }
    fn from_attr(value: &AttrValue) -> Option<Self> {
        match value {
            AttrValue::Region(r) => Some(r.clone()),
            _ => None,
        }
    }
    fn region(&self) -> Option<&Region> {
        Some(self)
    }
    fn region_mut(&mut self) -> Option<&mut Region> {
        Some(self)
    }
}

impl Attr for Option<Region> {
    const FORM: &'static str = "a region, such as `@rule`, or `none`";
    fn to_attr(&self) -> AttrValue {
        self.as_ref().map_or_else(|| AttrValue::Word("none".to_owned()), Attr::to_attr)
    }
    fn from_attr(value: &AttrValue) -> Option<Self> {
        match value {
            AttrValue::Word(w) if w == "none" => Some(None),
            value => Region::from_attr(value).map(Some),
        }
    }
    fn missing() -> Option<Self> {
        Some(None)
    }
    fn region(&self) -> Option<&Region> {
        self.as_ref()
    }
    fn region_mut(&mut self) -> Option<&mut Region> {
        self.as_mut()
    }
}
