//! The text form of modules: [`Module::parse`] reads it, `Display` writes it. What is written
//! parses to an equal module (see `docs/ir.md` for the grammar).
//!
//! Two things are not written: where nodes were declared, and the scopes and names of reads of
//! state. A node whose name a state variable or an earlier node has is written with a suffix.

mod error;
mod file;
mod format;
mod lexer;
mod parser;
mod printer;

use crate::scalar::Scalar;
use crate::types::DType;

pub use error::{ParseError, ParseErrors, escaped};
pub use file::FileError;
pub use format::format_module;
pub use printer::print_function;

/// Version of the text form that this crate reads and writes.
pub const FORMAT_VERSION: u32 = 1;
/// Longest text that is read, in bytes.
pub const MAX_TEXT_BYTES: usize = 64 << 20;
/// Longest name, in bytes.
pub const MAX_NAME_BYTES: usize = 256;
/// Deepest nesting of lists in attributes.
pub(crate) const MAX_NESTING: usize = 16;
/// Most numbers of an initializer.
pub(crate) const MAX_INIT_NUMBERS: usize = 4;
/// Most elements of one list in an attribute (elements of constants are not counted).
pub(crate) const MAX_LIST: usize = 4096;
/// Most memory that `splat` constants of one text may take, in bytes.
pub(crate) const MAX_SPLAT_BYTES: usize = 256 << 20;
/// Most errors that are reported for one text.
pub(crate) const MAX_ERRORS: usize = 20;

/// True for names that are written without quotes: `[A-Za-z0-9_./-]+`.
pub(crate) fn is_plain_name(name: &str) -> bool {
    !name.is_empty() && name.bytes().all(|b| b.is_ascii_alphanumeric() || b"_./-".contains(&b))
}

/// True for words in attributes and shapes that are written without quotes.
pub(crate) fn is_ident(word: &str) -> bool {
    word.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')
        && word.bytes().next().is_some_and(|b| !b.is_ascii_digit())
}

/// True for the names of nodes without a name: digits alone.
pub(crate) fn is_number(name: &str) -> bool {
    !name.is_empty() && name.bytes().all(|b| b.is_ascii_digit())
}

/// The NaN of a float type that is written without its bits: quiet, positive, without a payload.
fn plain_nan(dtype: DType) -> Scalar {
    Scalar::from_bits(
        dtype,
        match dtype {
            DType::F32 => 0x7fc0_0000,
            DType::BF16 => 0x7fc0,
            DType::F16 => 0x7e00,
            _ => 0x7ff8_0000_0000_0000,
        },
    )
}
