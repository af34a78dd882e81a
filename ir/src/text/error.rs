//! Errors of reading the text form, with the line they are in.

use std::fmt;

/// Most characters of a line or a message that an error shows.
const SHOWN: usize = 160;
const MAX_MESSAGE: usize = 1000;

/// One mistake in a text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ParseError {
    /// What is wrong; control characters are escaped.
    pub message: String,
    /// File name as given.
    pub file: String,
    /// Line, from 1.
    pub line: u32,
    /// Column in characters, from 1.
    pub column: u32,
    /// The line as shown: control characters are escaped, a long line is cut.
    pub source_line: String,
    /// Characters of `source_line` before the caret.
    caret: usize,
}

/// Text of unknown origin as messages show it: what would disturb a terminal (control characters and marks of text
/// direction) is escaped, and what is longer than `limit` characters is cut.
pub fn escaped(text: &str, limit: usize) -> String {
    let mut out = String::new();
    for (i, c) in text.chars().enumerate() {
        if i == limit {
            out.push_str("...");
            break;
        }
        push_escaped(&mut out, c);
    }
    out
}

fn push_escaped(out: &mut String, c: char) {
    let directional =
        matches!(c, '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
    if c.is_control() || directional || c == '\u{feff}' {
        out.extend(c.escape_default());
    } else {
        out.push(c);
    }
}

impl ParseError {
    /// An error at byte `at` of `text`, the line number `line`.
    pub(super) fn new(message: &str, file: &str, line: u32, text: &str, at: usize) -> Self {
        let mut at = at.min(text.len());
        while !text.is_char_boundary(at) {
            at -= 1;
        }
        let before = text[..at].chars().count();
        // A long line is shown around the place.
        let first = if before > SHOWN / 2 && text.len() > SHOWN { before - SHOWN / 2 } else { 0 };
        let (mut source_line, mut caret) = (String::new(), None);
        if first > 0 {
            source_line.push_str("...");
        }
        for (i, c) in text.chars().enumerate().skip(first).take(SHOWN) {
            if i == before {
                caret = Some(source_line.chars().count());
            }
            push_escaped(&mut source_line, c);
        }
        let caret = caret.unwrap_or_else(|| source_line.chars().count());
        Self {
            message: escaped(message, MAX_MESSAGE),
            file: escaped(file, MAX_MESSAGE),
            line,
            column: u32::try_from(before + 1).unwrap_or(u32::MAX),
            source_line,
            caret,
        }
    }
}

impl fmt::Display for ParseError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "error: {}", self.message)?;
        writeln!(f, "  --> {}:{}:{}", self.file, self.line, self.column)?;
        writeln!(f, "   | {}", self.source_line)?;
        write!(f, "   | {:1$}^", "", self.caret)
    }
}

impl std::error::Error for ParseError {}

/// Every mistake found in a text, at most 20; never empty.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ParseErrors(pub Vec<ParseError>);

impl fmt::Display for ParseErrors {
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

impl std::error::Error for ParseErrors {}
