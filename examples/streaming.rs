//! Training on a file that is larger than the memory it is given: records are read as they are needed, in blocks, and prepared by a
//! thread. The file is made of digits, shifted at random.
//!
//! `cargo run --release --example streaming [-- --epochs N]`

use common::{Args, Outcome};
use graphc::data::{Field, Loader, Mapped, Records, Row, Source, Table, augment};
use graphc::nn::{Activation, Dense, Flatten, Layer, Sequential};
use graphc::optim::{Adam, train_step};
use graphc::runtime::Elements;
use graphc::trainer::Trainer;
use graphc::{DType, ModuleBuilder, Session, cross_entropy, metrics, shape};
use std::io::{BufWriter, Write};
use std::process::ExitCode;

/// How often each digit is in the file, each time another image.
const COPIES: u64 = 1000;

/// Bytes that the process may take while it trains, beyond what it took before: far less than the file has.
const CAP: u64 = 16 << 20;

/// Memory in use, where the system tells.
fn resident() -> Option<u64> {
    let statm = std::fs::read_to_string("/proc/self/statm").ok()?;
    statm.split(' ').nth(1)?.parse::<u64>().ok().map(|pages| pages * 4096)
}

fn main() -> ExitCode {
    common::report(run)
}

fn run(args: &Args) -> Outcome {
    let (train, test) = args.digits()?;
    let dims = train.dims().to_vec();
    let &[height, width] = &dims[..] else { return Err("the images are not grey".into()) };
    let (rows, pixels) = (train.len(), height * width);

    // Records of an image, f32, and its label, i32.
    let file = tempfile::NamedTempFile::new()?;
    let shifted = Mapped::new(Table::from(train), "x", augment::shift([1, height, width], 1));
    let mut out = BufWriter::new(&file);
    let mut record = [Elements::zeros(DType::F32, pixels), Elements::zeros(DType::I32, 1)];
    for epoch in 0..COPIES {
        for index in 0..rows {
            shifted.read(Row { index, seed: 1, epoch }, &mut record, 0)?;
            record.iter().try_for_each(|column| out.write_all(column.value().as_bytes()))?;
        }
    }
    out.flush()?;
    drop(out);
    let bytes = file.as_file().metadata()?.len();
    println!("{} records, {} MB, with {} MB of memory", COPIES * rows as u64, bytes >> 20, CAP >> 20);

    let field =
        |name: &str, dtype, dims: &[usize]| Field { name: name.to_owned(), dtype, dims: dims.to_vec() };
    let records =
        Records::open(file.path(), 0, &[field("x", DType::F32, &dims), field("y", DType::I32, &[])])?;
    let mut loader = Loader::new(records, 100).shuffled_blocks(1, 1000).limit(3000).workers(1);

    let m = ModuleBuilder::new("streaming");
    let net = Sequential::new()
        .then(Flatten)
        .then(Dense::new(&m, "hidden", pixels, 128))
        .then(Activation::Relu)
        .then(Dense::new(&m, "out", 128, 10));
    let images = shape!["B", height, width];
    m.function("predict", |f| f.output("logits", net.apply(f.input("x", DType::F32, &images))));
    train_step(&m, "train_step", &Adam::new(1e-3), |f| {
        cross_entropy(net.train(f.input("x", DType::F32, &images)), f.input("y", DType::I32, shape!["B"]))
    });
    let mut session = Session::new(m.build()?, 1)?;
    let before = resident();
    let report = Trainer::new(args.epochs.unwrap_or(2)).run(&mut session, &mut loader)?;
    println!("{report}");
    if let (Some(before), Some(after)) = (before, resident()) {
        let grown = after.saturating_sub(before);
        println!("memory grew by {:.1} MB", grown as f64 / f64::from(1 << 20));
        if grown > CAP {
            return Err(format!("memory grew by {grown} bytes, more than {CAP}").into());
        }
    }
    let outputs = session.run("predict", &[("x", test.features().into())])?;
    println!("test accuracy {:.4}", metrics::accuracy(outputs.get("logits")?, 10, test.labels()));
    Ok(())
}
