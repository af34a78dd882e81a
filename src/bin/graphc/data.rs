//! Inputs bound to files, for `train` and `eval`.

use super::{Failure, load};
use graphc::data::{Loader, Table, load_column};
use graphc::{Dim, Function};
use std::path::{Path, PathBuf};

/// An input of a function and the file that holds its values.
#[derive(Clone, Debug)]
pub(super) struct Binding {
    input: String,
    file: PathBuf,
    /// Columns of a CSV file.
    columns: Vec<String>,
}

impl std::str::FromStr for Binding {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (input, place) = text.split_once('=').ok_or("expected NAME=FILE, such as x=images.idx")?;
        let (file, columns) = match place.rsplit_once(".csv:") {
            Some((stem, columns)) => (format!("{stem}.csv"), columns.split('+').map(str::to_owned).collect()),
            None => (place.to_owned(), Vec::new()),
        };
        Ok(Self { input: input.to_owned(), file: file.into(), columns })
    }
}

/// Arguments that bind inputs to files.
#[derive(clap::Args)]
#[group(skip)] // Flattened into arguments of the same name.
pub(super) struct Args {
    /// Files of the inputs: IDX (also gzipped), NPY, or columns of a CSV file as FILE.csv:a+b. Their first extent is
    /// that of rows. Bytes become floats on [0, 1]
    #[arg(long, value_name = "INPUT=FILE,..", value_delimiter = ',', required = true)]
    data: Vec<Binding>,
    /// Rows of a batch (32, unless the function says it)
    #[arg(long)]
    batch: Option<usize>,
}

impl Args {
    /// A loader of all inputs of `f`, in the order of the files.
    pub(super) fn loader(&self, f: &Function) -> Result<Loader, Failure> {
        let known = || load::list(f.inputs.iter().map(|&i| f.input_name(i)));
        if let Some(b) = self.data.iter().find(|b| !f.inputs.iter().any(|&i| f.input_name(i) == b.input)) {
            let message =
                format!("function `{}` has no input `{}`; its inputs: {}", f.name, b.input, known());
            return Err(Failure::Usage(message));
        }
        let mut table = Table::new();
        let mut rows = None;
        for &id in &f.inputs {
            let (name, ty) = (f.input_name(id), f.graph.ty(id));
            let Some(b) = self.data.iter().rfind(|b| b.input == name) else {
                let message = format!("input `{name}` {ty} is bound to no file: --data {name}=FILE");
                return Err(Failure::Usage(message));
            };
            let columns: Vec<&str> = b.columns.iter().map(String::as_str).collect();
            let (dims, elements) =
                load_column(&b.file, &columns, ty.dtype).map_err(|e| Failure::File(e.to_string()))?;
            let extents: Vec<&Dim> = ty.shape.iter().collect();
            let Some((first, row)) = extents.split_first() else {
                return Err(Failure::Usage(format!("input `{name}` {ty} has no rows")));
            };
            if let Dim::Const(n) = first {
                rows = Some(*n);
            }
            let row: Option<Vec<usize>> =
                row.iter().map(|d| if let Dim::Const(n) = d { Some(*n) } else { None }).collect();
            let given = &dims[1..];
            let row = row.unwrap_or_else(|| given.to_vec());
            if row.iter().product::<usize>() != given.iter().product::<usize>() {
                let file = Path::display(&b.file);
                return Err(Failure::File(format!("{file}: rows are {given:?}, input `{name}` is {ty}")));
            }
            table = table.with(name, &row, elements).map_err(|e| Failure::File(e.to_string()))?;
        }
        let size = match (rows, self.batch) {
            (Some(n), Some(asked)) if n != asked => {
                return Err(Failure::Usage(format!("function `{}` takes batches of {n} rows", f.name)));
            }
            (_, Some(0)) => return Err(Failure::Usage("a batch has at least one row".to_owned())),
            (Some(n), _) => n,
            (None, asked) => asked.unwrap_or(32),
        };
        let loader = Loader::new(table, size);
        Ok(if rows.is_some() { loader.drop_last() } else { loader })
    }
}
