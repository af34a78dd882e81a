//! Errors of declaring a program: type errors of one operation, and all that a builder collected.

use crate::graph::SourceLoc;
use crate::types::TensorType;
use std::fmt;

/// An operation applied to operands that its shape or dtype rule refuses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TypeError {
    /// Mnemonic of the operation.
    pub op: &'static str,
    /// The rule that is broken, naming axes and extents.
    pub message: String,
    /// Operand types.
    pub operands: Vec<TensorType>,
    /// Where it was declared.
    pub loc: Option<SourceLoc>,
}

impl TypeError {
    /// An error without a place; [`TypeError::at`] adds it.
    pub fn new(op: &'static str, operands: &[TensorType], message: impl Into<String>) -> Self {
        Self { op, message: message.into(), operands: operands.to_vec(), loc: None }
    }

    /// The same error at a place, unless it has one.
    pub fn at(mut self, loc: Option<SourceLoc>) -> Self {
        self.loc = self.loc.or(loc);
        self
    }
}

impl fmt::Display for TypeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.op, self.message)?;
        if !self.operands.is_empty() {
            f.write_str(" (")?;
            for (i, t) in self.operands.iter().enumerate() {
                if i > 0 {
                    f.write_str(", ")?;
                }
                write!(f, "{t}")?;
            }
            f.write_str(")")?;
        }
        if let Some(loc) = &self.loc {
            write!(f, " at {loc}")?;
        }
        Ok(())
    }
}

impl std::error::Error for TypeError {}

/// Why the reference semantics of an operation cannot give a value.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EvalError {
    /// An index operand holds a value outside its range.
    #[error("{op}: index {value} at position {position} is out of range 0..{bound}")]
    IndexOutOfRange {
        /// Mnemonic of the operation.
        op: &'static str,
        /// Row-major position in the index operand.
        position: usize,
        /// The value found there.
        value: i64,
        /// Exclusive upper bound.
        bound: usize,
    },
}

/// A gradient was asked for through an operation that has no rule.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{op}: no gradient rule{}{}", if .why.is_empty() { "" } else { ": " }, .why)]
pub struct NoGradient {
    /// Mnemonic of the operation.
    pub op: &'static str,
    /// Why there is none, or what to use; may be empty.
    pub why: &'static str,
}

/// A function was to be mapped over a batch, with an operation that has no rule for it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{op}: no batching rule{}{}", if .why.is_empty() { "" } else { ": " }, .why)]
pub struct NoBatch {
    /// Mnemonic of the operation.
    pub op: &'static str,
    /// Why there is none, or what to use; may be empty.
    pub why: &'static str,
}

/// One mistake found while a module was declared.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BuildError {
    /// A shape or dtype rule is broken.
    #[error(transparent)]
    Type(#[from] TypeError),
    /// A gradient rule is missing.
    #[error("{error} at {loc}")]
    NoGradient {
        /// Which rule.
        error: NoGradient,
        /// Where the gradient was asked for.
        loc: SourceLoc,
    },
    /// Any other misuse of the builder: a name taken twice, a value of another function, ...
    #[error("{message} at {loc}")]
    Misuse {
        /// What is wrong.
        message: String,
        /// Where.
        loc: SourceLoc,
    },
}

/// Every mistake found while a module was declared; never empty.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BuildErrors(pub Vec<BuildError>);

impl fmt::Display for BuildErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, e) in self.0.iter().enumerate() {
            if i > 0 {
                f.write_str("\n")?;
            }
            e.fmt(f)?;
        }
        Ok(())
    }
}

impl std::error::Error for BuildErrors {}
