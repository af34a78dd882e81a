//! Why a function cannot be compiled.

use graphc_ir::{EvalError, SourceLoc, TypeError};
use std::fmt;
use std::sync::Arc;

/// Why a function cannot be compiled. Everything but [`CompileError::BrokenPass`] is about the
/// user's program or machine.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CompileError {
    /// A shape or dtype rule is broken: found when dimensions are bound to numbers.
    #[error(transparent)]
    Type(#[from] TypeError),
    /// A value that compilation must know cannot be computed.
    #[error("{error}{}", At(.loc))]
    Eval {
        /// What failed.
        error: EvalError,
        /// Where it was declared.
        loc: Option<SourceLoc>,
    },
    /// A named dimension has no number.
    #[error("function `{function}`: dimension `{name}` is not bound to a number")]
    UnboundDim {
        /// The dimension.
        name: Arc<str>,
        /// The function that uses it.
        function: Arc<str>,
    },
    /// The module has no function of that name.
    #[error("there is no function `{name}`; the module has {}", Names(.known))]
    UnknownFunction {
        /// The name asked for.
        name: String,
        /// Names of the module's functions.
        known: Vec<Arc<str>>,
    },
    /// There is no pass of that name.
    #[error("there is no pass `{name}`; there are {}", Names(.known))]
    UnknownPass {
        /// The name asked for.
        name: String,
        /// Names of all passes.
        known: Vec<Arc<str>>,
    },
    /// Something does not fit in memory.
    #[error("{what} takes {bytes} bytes, which is more than the limit")]
    TooLarge {
        /// How much it takes.
        bytes: u64,
        /// What it is.
        what: String,
    },
    /// The budget of memory is too small, whatever is computed again.
    #[error("function `{function}` does not fit into {budget} bytes: the least that was found is {least}")]
    Budget {
        /// The function.
        function: Arc<str>,
        /// [`CompileOptions::budget`](crate::CompileOptions::budget).
        budget: u64,
        /// The smallest arena that was found.
        least: u64,
    },
    /// The compiler has no code for this.
    #[error("{op}: {what} is not supported{}", At(.loc))]
    Unsupported {
        /// The feature that is missing.
        what: String,
        /// Mnemonic of the operation that needs it.
        op: &'static str,
        /// Where it was declared.
        loc: Option<SourceLoc>,
    },
    /// The code generator refused a function.
    #[error("function `{function}`: code generation failed: {message}")]
    Backend {
        /// The function.
        function: Arc<str>,
        /// What the code generator says.
        message: String,
    },
    /// A pass left a function that breaks a rule of the IR: a defect of the compiler.
    #[error("pass `{pass}` broke function `{function}`: {message}")]
    BrokenPass {
        /// Name of the pass.
        pass: &'static str,
        /// The function.
        function: Arc<str>,
        /// The rule that is broken.
        message: String,
    },
}

struct At<'a>(&'a Option<SourceLoc>);

impl fmt::Display for At<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.as_ref().map_or(Ok(()), |loc| write!(f, " at {loc}"))
    }
}

struct Names<'a>(&'a [Arc<str>]);

impl fmt::Display for Names<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_empty() {
            return f.write_str("no functions");
        }
        for (i, name) in self.0.iter().enumerate() {
            write!(f, "{}`{name}`", if i > 0 { ", " } else { "" })?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_name_what_is_wrong_and_where() {
        let loc = Some(SourceLoc { file: "mlp.rs".into(), line: 3, column: 7 });
        let unsupported = CompileError::Unsupported { what: "f64".into(), op: "sort", loc };
        assert_eq!(unsupported.to_string(), "sort: f64 is not supported at mlp.rs:3:7");
        let unknown = CompileError::UnknownFunction {
            name: "trian".into(),
            known: vec!["train".into(), "predict".into()],
        };
        assert_eq!(unknown.to_string(), "there is no function `trian`; the module has `train`, `predict`");
        let unknown = CompileError::UnknownFunction { name: "f".into(), known: Vec::new() };
        assert_eq!(unknown.to_string(), "there is no function `f`; the module has no functions");
    }
}
