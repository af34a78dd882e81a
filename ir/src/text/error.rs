//! Errors of reading the text form, with the line they are in.

use std::fmt;

/// Most characters of a line, a message or a file name that an error shows.
const SHOWN: usize = 160;
const MAX_MESSAGE: usize = 500;

/// Most bytes that errors after the first may bring all of them to.
const MAX_BYTES: usize = 8000;

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
/// direction) is escaped, and what is longer than `limit` characters then is cut.
pub fn escaped(text: &str, limit: usize) -> String {
    let (mut out, mut length) = (String::new(), 0);
    for c in text.chars() {
        if length >= limit {
            out.push_str("...");
            break;
        }
        length += push_escaped(&mut out, c);
    }
    out
}

/// Returns how many characters it takes.
fn push_escaped(out: &mut String, c: char) -> usize {
    let directional =
        matches!(c, '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
    if c.is_control() || directional || c == '\u{feff}' {
        out.extend(c.escape_default());
        c.escape_default().len()
    } else {
        out.push(c);
        1
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
        let mut source_line = if first > 0 { "...".to_owned() } else { String::new() };
        let (mut length, mut caret) = (source_line.len(), None);
        for (i, c) in text.chars().enumerate().skip(first) {
            if i == before {
                caret = Some(length);
            }
            if length >= SHOWN && i > before {
                break;
            }
            length += push_escaped(&mut source_line, c);
        }
        let caret = caret.unwrap_or(length);
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

/// Every mistake found in a text, at most 20; never empty. Shown in at most 8 KiB.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ParseErrors(pub Vec<ParseError>);

impl fmt::Display for ParseErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut bytes = 0;
        for (i, e) in self.0.iter().enumerate() {
            let text = e.to_string();
            bytes += text.len() + 1;
            if i > 0 && bytes > MAX_BYTES {
                return write!(f, "\nand {} more", self.0.len() - i);
            }
            let newline = if i > 0 { "\n" } else { "" };
            write!(f, "{newline}{text}")?;
        }
        Ok(())
    }
}

impl std::error::Error for ParseErrors {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_short_whatever_the_text_is() {
        let plain = "x".repeat(10_000);
        let error = |message: &str, line: &str, at| ParseError::new(message, "a.gir", 7, line, at);
        for text in
            [plain.clone(), "\0".repeat(10_000), "\u{2029}".repeat(10_000), "\u{10000}".repeat(10_000)]
        {
            for at in [0, 40, 400, text.len()] {
                let one = ParseError::new(&text, &text, 7, &text, at);
                assert!(one.to_string().len() <= 6000, "{one}");
                let all = ParseErrors(vec![one; 20]).to_string();
                assert!(all.len() <= 8 << 10 && all.contains("\nand "), "{}: {all}", all.len());
            }
        }
        let caret = error("m", &plain, 5000);
        assert_eq!((caret.source_line.len(), caret.caret, caret.column), (160, 83, 5001));
        let escapes = error("m", &format!("{}!", "\0".repeat(100)), 100);
        assert_eq!(escapes.source_line.chars().nth(escapes.caret), Some('!'));
        assert_eq!(ParseErrors(vec![error("m", "a b", 2); 3]).to_string().lines().count(), 12);
    }
}
