//! The reference of operations in `docs/operations.md` is what the sources say.
//! `UPDATE_EXPECT=1 cargo test -p graphc-ir --test docs` writes it anew.

use graphc_ir::Op;
use std::fmt::Write;
use std::path::Path;

/// One operation's documentation, from its file.
struct Entry {
    name: String,
    text: String,
    /// Name, type and documentation of each attribute.
    attributes: Vec<(String, String, String)>,
}

/// The text of a `///` line, if it is one.
fn doc(line: &str) -> Option<&str> {
    let text = line.trim().strip_prefix("///")?;
    Some(text.strip_prefix(' ').unwrap_or(text))
}

/// The entry of the operation that a file declares, if it declares one.
fn entry(source: &str) -> Option<Entry> {
    let quoted = |line: &str| line.split('"').nth(1).map(str::to_owned);
    let name = source.lines().find_map(|l| {
        let l = l.trim();
        if l.starts_with("const NAME: &'static str = ") { quoted(l) } else { None }
    });
    let in_macro = source.lines().find(|l| l.trim().starts_with("pub struct") && l.contains(" as \""));
    let name = name.or_else(|| in_macro.and_then(quoted))?;
    let lines: Vec<&str> = source.lines().collect();
    let starts = |l: &&str| l.trim().starts_with("op! {") || l.trim().starts_with("elementwise_op! {");
    let declared = lines.iter().position(starts);
    let is_struct = |l: &&str| l.trim().starts_with("pub struct");
    let at = declared.unwrap_or(0) + lines[declared.unwrap_or(0)..].iter().position(is_struct)?;
    let first = lines[..at].iter().rposition(|l| doc(l).is_none() && !l.trim().starts_with("#["))? + 1;
    let text: Vec<&str> = lines[first..at].iter().filter_map(|l| doc(l)).collect();
    let mut attributes = Vec::new();
    if lines[at].trim().ends_with('{') {
        let mut described: Vec<&str> = Vec::new();
        for line in lines[at + 1..].iter().take_while(|l| l.trim() != "}") {
            if let Some(text) = doc(line) {
                described.push(text);
            } else if let Some((field, ty)) =
                line.trim().strip_prefix("pub ").and_then(|l| l.split_once(": "))
            {
                let ty = ty.trim_end_matches(',').to_owned();
                attributes.push((field.to_owned(), ty, described.join(" ")));
                described.clear();
            }
        }
    }
    Some(Entry { name, text: text.join("\n"), attributes })
}

fn reference() -> String {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/ops");
    let mut files: Vec<_> = std::fs::read_dir(folder).unwrap().map(|f| f.unwrap().path()).collect();
    files.sort();
    let entries: Vec<Entry> =
        files.iter().filter_map(|f| entry(&std::fs::read_to_string(f).unwrap())).collect();
    let mut out = String::from(
        "# Operations\n\nEvery operation of the IR, from the documentation in `ir/src/ops/`: a test keeps this page \
         equal to it. Shapes\nand element types are checked when an operation is declared; names in `[..]` are \
         items of the crate `graphc_ir`.\n",
    );
    for name in Op::NAMES {
        let e = entries.iter().find(|e| e.name == *name).unwrap_or_else(|| panic!("no file declares {name}"));
        assert!(!e.text.is_empty(), "{name} is not documented");
        writeln!(out, "\n## `{name}`\n\n{}", e.text).unwrap();
        if !e.attributes.is_empty() {
            out.push('\n');
        }
        for (field, ty, text) in &e.attributes {
            assert!(!text.is_empty(), "attribute {field} of {name} is not documented");
            writeln!(out, "- `{field}: {ty}`: {text}").unwrap();
        }
    }
    out
}

#[test]
fn the_reference_of_operations_is_up_to_date() {
    expect_test::expect_file!["../../docs/operations.md"].assert_eq(&reference());
}
