//! What the tool prints, command by command, as a user sees it: sessions in `tests/transcripts/`, and those of
//! the guide. `TRYCMD=overwrite cargo test --test transcripts` writes what is printed now into them; times
//! and what else depends on the machine are written `[..]`, or `...` for lines, by hand.

#[test]
fn commands_print_what_the_transcripts_show() {
    trycmd::TestCases::new().case("tests/transcripts/*.md");
}
