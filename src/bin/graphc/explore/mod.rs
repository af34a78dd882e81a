//! `graphc explore`: one HTML file that shows a function at every stage of the compiler, with its memory and
//! what was measured. The file needs nothing else: scripts, styles and data are inside.

mod data;

use super::profile::{self, Extras, How};
use super::{Failure, Out, load, output};
use base64::prelude::{BASE64_STANDARD, Engine};
use flate2::{Compression, write::GzEncoder};
use serde_json::json;
use std::io::Write;
use std::path::PathBuf;

#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  graphc explore model.gir --fn train_step -o report.html
  graphc explore model.gir --fn loss.grad --bind B=64 --isa avx2 -o report.html")]
pub(super) struct Args {
    #[command(flatten)]
    selection: load::Selection,
    /// The file that is written
    #[arg(short, long, value_name = "FILE", default_value = "report.html")]
    output: PathBuf,
    #[command(flatten)]
    how: How,
}

/// The parts of the page.
const PAGE: &str = include_str!("page.html");
const STYLE: &str = include_str!("style.css");
const SCRIPTS: [&str; 5] = [
    include_str!("common.js"),
    include_str!("graph.js"),
    include_str!("charts.js"),
    include_str!("code.js"),
    include_str!("app.js"),
];
const LAYOUT: &str = include_str!("layout.js");
const DAGRE: &str = include_str!("vendor/dagre.min.js");
const DAGRE_LICENSE: &str = include_str!("vendor/LICENSE.dagre");

pub(super) fn run(args: &Args, out: &mut Out) -> Result<(), Failure> {
    let (text, module) = load::text_and_module(&args.selection.file)?;
    let f = args.selection.first(&module)?;
    let bindings = args.selection.bindings(&module, &f)?;
    let extras = Extras { traced: 0, keep: true };
    let measured = profile::measure(&module, &f, &bindings, &args.how, extras)?;
    let data = data::report(&module, &f, &bindings, &measured, (&args.selection.file, &text));
    let page = page(&format!("{} · {}", module.name, f.name), &data)?;
    let path = args.output.display();
    output::file(&args.output, &page)?;
    if out.json() {
        return out.value(&json!({ "file": path.to_string(), "bytes": page.len() }));
    }
    writeln!(out, "{path}: {} bytes, open it in a browser", page.len())?;
    Ok(())
}

/// The page with everything in it.
fn page(title: &str, data: &serde_json::Value) -> Result<String, Failure> {
    let escaped = title.replace('&', "&amp;").replace('<', "&lt;");
    let license = format!("/*!\n{DAGRE_LICENSE}*/\n");
    let parts = [
        ("{{title}}", escaped),
        ("{{style}}", STYLE.to_owned()),
        ("{{layout}}", format!("{license}{DAGRE}\n{LAYOUT}")),
        ("{{app}}", SCRIPTS.join("\n")),
        ("{{data}}", packed(data)?),
    ];
    // One after the other from the left, so that what has been filled in is not looked at again.
    let (mut page, mut rest) = (String::new(), PAGE);
    for (mark, part) in parts {
        let (before, after) = rest.split_once(mark).expect("the page has each mark, in this order");
        page.push_str(before);
        page.push_str(&part);
        rest = after;
    }
    Ok(page + rest)
}

/// JSON, compressed, as text.
fn packed(data: &serde_json::Value) -> Result<String, Failure> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
    serde_json::to_writer(&mut encoder, data).map_err(Failure::other)?;
    Ok(BASE64_STANDARD.encode(encoder.finish()?))
}
