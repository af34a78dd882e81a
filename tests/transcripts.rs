//! What the tool prints, command by command, as a user sees it: sessions in `tests/transcripts/`, one for each
//! example module with every command in `tests/transcripts/examples/`, and those of the guide.
//! `TRYCMD=overwrite cargo test --test transcripts` writes what is printed now into them; times and what else
//! depends on the machine are written `[..]`, or `...` for lines, by hand.

use std::path::Path;

#[test]
fn commands_print_what_the_transcripts_show() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    // Folders that the sessions write, from the last time.
    for folder in ["target/transcripts", "target/guide"] {
        let _ = std::fs::remove_dir_all(root.join(folder));
    }
    std::fs::create_dir_all(root.join("target/transcripts")).expect("a folder for what sessions write");
    trycmd::TestCases::new()
        .case("tests/transcripts/*.md")
        .case("tests/transcripts/examples/*.md")
        .case("docs/graphc.md");
}
