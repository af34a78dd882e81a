//! Time of the step of a module in a file.

use super::prepared::{Prepared, Setup};
use super::timing::reset_peak_memory;
use crate::{Failure, load, run};
use graphc::init::initialize;
use graphc::runtime::{Elements, StateLayout};
use graphc::{Module, State};
use serde_json::{Value, json};
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

/// Fewest runs that are measured.
const MIN_RUNS: usize = 20;

/// Measures the first function of the module in this file, its dimensions bound as everywhere in the tool, on inputs that are
/// made up.
pub(super) fn measure(path: &Path, setup: &Setup, seconds: f64) -> Result<Value, Failure> {
    reset_peak_memory();
    let selection = load::Selection { file: path.to_owned(), function: None, bind: Vec::new() };
    let mut module = load::module(path)?;
    let f = selection.first(&module)?;
    let bound = f.bind(&selection.bindings(&module, &f)?).map_err(Failure::other)?;
    let inputs = run::inputs(&[], SEED, &bound).into_iter().map(|input| input.1).collect();
    module.functions = vec![bound];

    let started = Instant::now();
    let mut step = Prepared::with_state(&module, inputs, setup, initial)?;
    step.run()?;
    let first_step = started.elapsed();
    let timing = step.measure(seconds, MIN_RUNS, 1)?;
    let mut row = step.row(&path.display().to_string(), &timing, first_step);
    row["function"] = json!(*f.name);
    Ok(row)
}

/// Of the initial state and the inputs.
const SEED: u64 = 1;

fn initial(module: &Module, layout: Arc<StateLayout>) -> Result<State, Failure> {
    let mut state = State::zeros(layout).map_err(Failure::other)?;
    for (name, value) in initialize(module, SEED).map_err(Failure::other)? {
        state.copy_from(&name, Elements::from(&value).value()).map_err(Failure::other)?;
    }
    Ok(state)
}
