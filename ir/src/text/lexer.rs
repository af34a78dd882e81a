//! Tokens of one line. Nothing is stored: the parser asks for one token after the other.

use super::{MAX_NAME_BYTES, is_plain_name};
use std::borrow::Cow;

/// A mistake at a byte of the line.
#[derive(Clone, Debug)]
pub(super) struct Fail {
    pub(super) at: usize,
    pub(super) message: String,
}

impl Fail {
    pub(super) fn new(at: usize, message: impl Into<String>) -> Self {
        Self { at, message: message.into() }
    }
}

/// A name after `%` or `@`.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Name<'a> {
    pub(super) text: Cow<'a, str>,
    pub(super) quoted: bool,
}

#[derive(Clone, Debug, PartialEq)]
pub(super) enum Token<'a> {
    /// A keyword, a mnemonic, a number: a run of `[A-Za-z0-9_./*+-]`.
    Word(&'a str),
    /// `"..."`
    Str(String),
    /// `%name`
    Value(Name<'a>),
    /// `@name`
    At(Name<'a>),
    /// One of `( ) [ ] { } = : ,`
    Punct(char),
    /// The end of the line.
    End,
}

impl Token<'_> {
    /// As error messages name it.
    pub(super) fn describe(&self) -> String {
        match self {
            Self::Word(w) => format!("`{}`", clip(w)),
            Self::Str(_) => "a string".to_owned(),
            Self::Value(n) => format!("`%{}`", n.text),
            Self::At(n) => format!("`@{}`", n.text),
            Self::Punct(c) => format!("`{c}`"),
            Self::End => "the end of the line".to_owned(),
        }
    }
}

/// The start of a text that may be long.
pub(super) fn clip(text: &str) -> Cow<'_, str> {
    match text.char_indices().nth(64) {
        Some((i, _)) => Cow::Owned(format!("{}...", &text[..i])),
        None => Cow::Borrowed(text),
    }
}

#[derive(Clone, Copy)]
pub(super) struct Lexer<'a> {
    pub(super) line: &'a str,
    pub(super) pos: usize,
}

impl<'a> Lexer<'a> {
    pub(super) fn new(line: &'a str) -> Self {
        Self { line, pos: 0 }
    }

    fn byte(&self) -> Option<u8> {
        self.line.as_bytes().get(self.pos).copied()
    }

    fn run(&mut self, extra: &[u8]) -> &'a str {
        let start = self.pos;
        while self.byte().is_some_and(|b| b.is_ascii_alphanumeric() || extra.contains(&b)) {
            self.pos += 1;
        }
        &self.line[start..self.pos]
    }

    /// Byte at which the next token starts.
    pub(super) fn start(&mut self) -> usize {
        while matches!(self.byte(), Some(b' ' | b'\t')) {
            self.pos += 1;
        }
        self.pos
    }

    /// The next token; the position stays behind it.
    pub(super) fn token(&mut self) -> Result<Token<'a>, Fail> {
        let at = self.start();
        let Some(b) = self.byte() else { return Ok(Token::End) };
        match b {
            b';' => {
                self.pos = self.line.len();
                Ok(Token::End)
            }
            b'(' | b')' | b'[' | b']' | b'{' | b'}' | b'=' | b':' | b',' => {
                self.pos += 1;
                Ok(Token::Punct(char::from(b)))
            }
            b'"' => Ok(Token::Str(self.string()?)),
            b'%' => Ok(Token::Value(self.name()?)),
            b'@' => Ok(Token::At(self.name()?)),
            _ => {
                let word = self.run(b"_./*+-");
                if word.is_empty() {
                    let c = self.line[at..].chars().next().unwrap_or(' ');
                    return Err(Fail::new(at, format!("unexpected character `{c}`")));
                }
                Ok(Token::Word(word))
            }
        }
    }

    /// A name after its sigil.
    fn name(&mut self) -> Result<Name<'a>, Fail> {
        let at = self.pos;
        self.pos += 1;
        if self.byte() == Some(b'"') {
            return Ok(Name { text: Cow::Owned(self.string()?), quoted: true });
        }
        let name = self.run(b"_./-");
        if !is_plain_name(name) {
            return Err(Fail::new(at, format!("a name must follow `{}`", &self.line[at..at + 1])));
        }
        if name.len() > MAX_NAME_BYTES {
            return Err(Fail::new(at, format!("the name is longer than {MAX_NAME_BYTES} bytes")));
        }
        Ok(Name { text: Cow::Borrowed(name), quoted: false })
    }

    fn string(&mut self) -> Result<String, Fail> {
        let at = self.pos;
        let mut out = String::new();
        let mut chars = self.line[at + 1..].char_indices();
        let unclosed = || Fail::new(at, "the string is not closed on its line");
        loop {
            let (i, c) = chars.next().ok_or_else(unclosed)?;
            match c {
                '"' => {
                    self.pos = at + 1 + i + 1;
                    return Ok(out);
                }
                '\\' => {
                    let (_, e) = chars.next().ok_or_else(unclosed)?;
                    match e {
                        '"' | '\\' => out.push(e),
                        'u' => {
                            let bad = || Fail::new(at + 1 + i, "expected `\\u{HEX}` of a character");
                            if chars.next().map(|(_, c)| c) != Some('{') {
                                return Err(bad());
                            }
                            let mut code = 0u32;
                            for digits in 0.. {
                                let (_, c) = chars.next().ok_or_else(unclosed)?;
                                match c.to_digit(16) {
                                    Some(d) if digits < 6 => code = code * 16 + d,
                                    None if c == '}' && digits > 0 => break,
                                    _ => return Err(bad()),
                                }
                            }
                            out.push(char::from_u32(code).ok_or_else(bad)?);
                        }
                        _ => return Err(Fail::new(at + 1 + i, "unknown escape: use \\\" \\\\ or \\u{HEX}")),
                    }
                }
                c => out.push(c),
            }
            if out.len() > MAX_NAME_BYTES {
                return Err(Fail::new(at, format!("the name is longer than {MAX_NAME_BYTES} bytes")));
            }
        }
    }
}
