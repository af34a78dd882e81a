//! What the tool prints, command by command, as a user sees it: sessions in `tests/transcripts/`, and those of
//! the guide. `TRYCMD=overwrite cargo test --test transcripts` writes what is printed now into them; times
//! and what else depends on the machine are written `[..]`, or `...` for lines, by hand.

use std::path::Path;

#[test]
fn commands_print_what_the_transcripts_show() {
    // Folders that the sessions write, from the last time.
    for folder in ["target/transcripts", "target/guide"] {
        let _ = std::fs::remove_dir_all(Path::new(env!("CARGO_MANIFEST_DIR")).join(folder));
    }
    trycmd::TestCases::new().case("tests/transcripts/*.md").case("docs/graphc.md");
}
