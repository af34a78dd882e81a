//! `graphc eval`: a function over data, with the state of a checkpoint.

use super::{Failure, Out, data, load};
use graphc::metrics::RunningMean;
use graphc::trainer::Checkpoints;
use graphc::{CompileOptions, Session, checkpoint};
use serde_json::{Map, Value, json};
use std::io::Write;
use std::path::{Path, PathBuf};

#[derive(clap::Args)]
#[command(after_help = "\
Outputs that are float scalars are means over the rows of a batch; what is printed are the means over all rows. Other
outputs are computed and not shown.

Examples:
  graphc eval model.gir --data x=test-images.idx,y=test-labels.idx --checkpoint run/
  graphc eval model.gir --fn loss --data x=x.npy,y=y.npy --checkpoint run/best.safetensors --json")]
pub(super) struct Args {
    /// A module in the text form
    file: PathBuf,
    #[command(flatten)]
    data: data::Args,
    /// A function; the first with an output that is a float scalar unless given
    #[arg(long = "fn", value_name = "NAME")]
    function: Option<String>,
    /// A checkpoint, or a folder of them, whose newest is taken
    #[arg(long, value_name = "FILE")]
    checkpoint: Option<PathBuf>,
    /// Seed of the state without a checkpoint
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Threads (all of the machine unless given)
    #[arg(long)]
    threads: Option<usize>,
}

pub(super) fn run(args: &Args, out: &mut Out) -> Result<(), Failure> {
    let module = load::module(&args.file)?;
    let f = match &args.function {
        Some(name) => module.function(name).ok_or_else(|| load::unknown_function(&module, name))?,
        None => {
            let found = module.functions.iter().find(|f| f.outputs.iter().any(|o| load::is_measure(f, o)));
            found.ok_or_else(|| Failure::Other("no function has a float scalar as an output".to_owned()))?
        }
    };
    let (name, updates) = (f.name.to_string(), f.updates.len());
    if updates > 0 {
        return Err(Failure::Usage(format!(
            "function `{name}` updates state: it trains, and does not evaluate"
        )));
    }
    let measures: Vec<String> =
        f.outputs.iter().filter(|o| load::is_measure(f, o)).map(|o| o.name.to_string()).collect();
    let mut loader = args.data.loader(f)?;
    let mut session = Session::with(module, args.seed, load::pool(args.threads)?, CompileOptions::default())
        .map_err(Failure::other)?;
    if let Some(path) = &args.checkpoint {
        let file = newest(path)?;
        checkpoint::load_from_larger(session.state_mut(), file).map_err(|e| Failure::File(e.to_string()))?;
    }
    let mut means = vec![RunningMean::default(); measures.len()];
    let mut rows = 0;
    while let Some(batch) = loader.next_batch().map_err(Failure::other)? {
        let outputs = session.run(&name, &batch.inputs()).map_err(Failure::other)?;
        for (measure, mean) in measures.iter().zip(&mut means) {
            let value = outputs.iter().find(|(n, _, _)| n == measure).map(|(_, _, v)| v);
            mean.add(value.map_or(f64::NAN, number), batch.rows());
        }
        rows += batch.rows();
    }
    if out.json() {
        let means = measures.iter().zip(&means).map(|(n, m)| (n.clone(), json!(m.get())));
        let means: Map<String, Value> = means.collect();
        return out.value(&json!({ "function": name, "rows": rows, "means": means }));
    }
    writeln!(out, "{rows} rows")?;
    for (measure, mean) in measures.iter().zip(&means) {
        writeln!(out, "{measure} {:.6}", mean.get())?;
    }
    Ok(())
}

/// The only element.
fn number(value: graphc::Value<'_>) -> f64 {
    let mut element = graphc::runtime::Elements::zeros(value.dtype(), 1);
    element.write(0, value);
    element.get(0).to_f64()
}

/// The file, or the newest checkpoint of the folder.
fn newest(path: &Path) -> Result<PathBuf, Failure> {
    if !path.is_dir() {
        return Ok(path.to_owned());
    }
    let files = Checkpoints::new(path).list().map_err(|e| Failure::File(e.to_string()))?;
    files
        .into_iter()
        .next_back()
        .ok_or_else(|| Failure::File(format!("{} holds no checkpoints", path.display())))
}
