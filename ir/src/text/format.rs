//! The canonical text of a module, with the comments of the text it was read from.
//!
//! A statement is a line, so a comment belongs to the statement on its line, or to the next one. Statements are found
//! again by what they declare; nodes, which canonical text may number anew, by their position in their function.

use super::ParseErrors;
use super::lexer::{Lexer, Token};
use crate::module::Module;
use std::collections::{HashMap, HashSet};

/// Reads a module and writes it in the canonical form, as `Display` of [`Module`] does, save that comments stay, and
/// blank lines between statements (one at a place). `file` is its name in error messages.
///
/// # Errors
/// As [`Module::parse`].
pub fn format_module(file: &str, text: &str) -> Result<String, ParseErrors> {
    let canonical = Module::parse(file, text)?.to_string();
    let known: HashSet<Place> = statements(&canonical).into_iter().map(|s| s.place).collect();
    let mut comments: HashMap<Place, Comments> = HashMap::new();
    let mut before: Vec<&str> = Vec::new();
    let source = statements(text);
    for s in &source {
        before.extend(&s.before);
        // What is not written, such as a region without users, leaves its comments to what follows.
        if known.contains(&s.place) {
            let before = std::mem::take(&mut before);
            comments.insert(s.place.clone(), Comments { before, behind: s.behind });
        } else {
            before.extend(s.behind);
        }
    }
    let end = source.last().map_or(0, |s| s.line + 1);
    before.extend(text.lines().skip(end).map(str::trim));

    let mut out = String::new();
    for s in statements(&canonical) {
        let own = comments.remove(&s.place).unwrap_or_default();
        let indent = if s.text.starts_with(' ') { "  " } else { "" };
        // Canonical text has blank lines between functions alone.
        let blank = s.before.contains(&"");
        let lead = if blank { vec![""] } else { Vec::new() };
        for line in lead.into_iter().chain(own.before) {
            push(&mut out, indent, line);
        }
        out.push_str(s.text);
        if let Some(comment) = own.behind {
            out.push(' ');
            out.push_str(comment);
        }
        out.push('\n');
    }
    before.into_iter().for_each(|line| push(&mut out, "", line));
    out.truncate(out.trim_end().len());
    out.push('\n');
    Ok(out)
}

/// Adds a comment or, if there is not one already, a blank line.
fn push(out: &mut String, indent: &str, line: &str) {
    if line.is_empty() {
        if !out.ends_with("\n\n") {
            out.push('\n');
        }
    } else {
        out.push_str(indent);
        out.push_str(line);
        out.push('\n');
    }
}

#[derive(Default)]
struct Comments<'a> {
    /// Comments and blank lines.
    before: Vec<&'a str>,
    behind: Option<&'a str>,
}

/// What tells a statement from all others of a text.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
struct Place {
    /// The function or region it is in; none at the top.
    inside: Option<String>,
    /// Keyword and name of what is declared; of nodes nothing.
    head: String,
    /// Position among those with this head.
    position: usize,
}

/// A line with a statement.
struct Statement<'a> {
    place: Place,
    /// Without the comment.
    text: &'a str,
    /// Comments and blank lines before it.
    before: Vec<&'a str>,
    /// The comment on its line.
    behind: Option<&'a str>,
    /// Number of its line, from 0.
    line: usize,
}

fn statements(text: &str) -> Vec<Statement<'_>> {
    let mut statements = Vec::new();
    let mut counts: HashMap<(Option<String>, String), usize> = HashMap::new();
    let mut before = Vec::new();
    let mut inside: Option<String> = None;
    for (line, whole) in text.lines().enumerate() {
        let (text, behind) = split(whole);
        if text.trim().is_empty() {
            before.push(behind.unwrap_or(""));
            continue;
        }
        let head = head(text);
        let opens = head.starts_with("fn ") || head.starts_with("region ");
        if opens {
            inside = Some(head.clone());
        }
        let position = counts.entry((inside.clone(), head.clone())).or_default();
        let place = Place { inside: inside.clone(), head, position: *position };
        *position += 1;
        if text.trim() == "}" {
            inside = None;
        }
        statements.push(Statement { place, text, before: std::mem::take(&mut before), behind, line });
    }
    statements
}

/// A line without its comment and the space before that, and the comment without the space behind it.
fn split(line: &str) -> (&str, Option<&str>) {
    let mut lexer = Lexer::new(line);
    loop {
        let at = lexer.start();
        match lexer.token() {
            Ok(Token::End) if at < line.len() => return (line[..at].trim_end(), Some(line[at..].trim_end())),
            Ok(Token::End) => return (line.trim_end(), None),
            Ok(_) => {}
            // A text that was parsed has no such line.
            Err(_) => return (line.trim_end(), None),
        }
    }
}

/// Keyword and name of a declaration; nothing for nodes.
fn head(statement: &str) -> String {
    let mut lexer = Lexer::new(statement);
    let (keyword, name) = (lexer.token(), lexer.token());
    match (keyword, name) {
        (Ok(Token::Word(keyword)), Ok(Token::Value(name) | Token::At(name))) if keyword != "return" => {
            format!("{keyword} {}", name.text)
        }
        (Ok(Token::Word(keyword)), _) => keyword.to_owned(),
        (Ok(Token::Punct(c)), _) => c.to_string(),
        _ => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const UNTIDY: &str = "\
graphc 1
; What it is.
module   @m ; a name
param %w: f32[2]=constant( 1 )   ; ones

state  %n: i32[] = constant(0)


; Doubles; then adds.
fn @f( %x:f32[2] ) {
      %a = constant {value = [2.0]} : f32[]
  ; to all elements
  %7 = broadcast(%a) {shape=[2]} : f32[2]

  %b = mul(%x,%7):f32[2]   @s ; \"twice\"
  %c = add(%b, %w) : f32[2]
  update %w = %c ; kept
  return   %c
} ; the end
; Nothing follows.
";

    const TIDY: &str = "\
graphc 1
; What it is.
module @m ; a name
param %w: f32[2] = constant(1.0) ; ones

state %n: i32[] = constant(0.0)

; Doubles; then adds.
fn @f(%x: f32[2]) {
  %a = constant {value = splat(2.0)} : f32[]
  ; to all elements
  %0 = broadcast(%a) {shape = [2], axes = []} : f32[2]

  %b = mul(%x, %0) : f32[2] @s ; \"twice\"
  %c = add(%b, %w) : f32[2]
  update %w = %c ; kept
  return %c
} ; the end
; Nothing follows.
";

    #[test]
    fn comments_stay_where_they_belong() {
        assert_eq!(format_module("m", UNTIDY).unwrap(), TIDY);
    }

    #[test]
    fn canonical_text_stays_as_it_is_and_says_the_same() {
        assert_eq!(format_module("m", TIDY).unwrap(), TIDY);
        assert_eq!(Module::parse("m", TIDY).unwrap(), Module::parse("m", UNTIDY).unwrap());
        let plain = Module::parse("m", TIDY).unwrap().to_string();
        assert_eq!(format_module("m", &plain).unwrap(), plain);
    }

    #[test]
    fn comments_follow_what_is_declared_elsewhere() {
        // Printed, updates come after all nodes.
        let text = "\
graphc 1
module @m
param %w: f32[] = constant(0.0)
fn @f(%x: f32[]) {
  ; kept
  update %w = %x
  ; doubled
  %y = add(%x, %x) : f32[]
  return y = %y
}
";
        let tidy = format_module("m", text).unwrap();
        for (comment, next) in [("; kept", "update %w"), ("; doubled", "%y = add")] {
            let after = tidy.split(comment).nth(1).unwrap_or_else(|| panic!("no {comment}\n{tidy}"));
            assert!(after.trim_start().starts_with(next), "{comment}\n{tidy}");
        }
    }

    #[test]
    fn what_is_no_module_is_an_error() {
        let error = format_module("m", "graphc 1\nmodule @m\nparam w\n").unwrap_err();
        assert!(error.to_string().contains("m:3:"), "{error}");
    }
}
