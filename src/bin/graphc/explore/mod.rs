//! `graphc explore`: one HTML file that shows a function at every stage of the compiler, with its memory and
//! what was measured. The file needs nothing else: scripts, styles and data are inside.

mod data;

use super::profile::{self, How};
use super::{Failure, Out, load};
use flate2::{Compression, write::GzEncoder};
use graphc::Isa;
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
    /// Seed of the initial state and of the inputs that are measured with
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Shortest time of the measurement
    #[arg(long, default_value_t = 1.0)]
    seconds: f64,
    /// Threads (all of the machine unless given)
    #[arg(long)]
    threads: Option<usize>,
    /// Vector instructions: sse (128-bit, by Cranelift), avx2 or avx512; this machine's by default
    #[arg(long)]
    isa: Option<Isa>,
    /// Level of optimization, 0 to 3
    #[arg(short = 'O', default_value_t = 3, value_parser = clap::value_parser!(u8).range(0..=3))]
    opt: u8,
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
    let how = How {
        seed: args.seed,
        seconds: args.seconds,
        threads: args.threads,
        isa: args.isa.unwrap_or_default(),
        opt: args.opt,
        traced: 0,
        keep: true,
    };
    let measured = profile::measure(&module, &f, &bindings, &how)?;
    let data = data::report(&module, &f, &bindings, &measured, (&args.selection.file, &text));
    let page = page(&format!("{} · {}", module.name, f.name), &data)?;
    let path = args.output.display();
    std::fs::write(&args.output, &page).map_err(|e| Failure::Other(format!("cannot write {path}: {e}")))?;
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
    Ok(base64(&encoder.finish()?))
}

/// RFC 4648.
fn base64(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for chunk in bytes.chunks(3) {
        let word = chunk.iter().fold(0u32, |w, &b| w << 8 | u32::from(b)) << (8 * (3 - chunk.len()));
        for i in 0..4 {
            let digit = DIGITS[(word >> (18 - 6 * i) & 63) as usize];
            text.push(if i <= chunk.len() { char::from(digit) } else { '=' });
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::base64;

    #[test]
    fn base64_as_in_the_rfc() {
        let cases = [("", ""), ("f", "Zg=="), ("fo", "Zm8="), ("foo", "Zm9v"), ("foobar", "Zm9vYmFy")];
        cases.iter().for_each(|(bytes, text)| assert_eq!(base64(bytes.as_bytes()), *text));
    }
}
