//! Training runs: resumed, interrupted, stopped early, stopped by what is not finite.

use graphc_compiler::CompileOptions;
use graphc_ir::{DType, ModuleBuilder, shape};
use graphc_runtime::ThreadPool;
use graphc_train::data::{Loader, Table, load_directory};
use graphc_train::loss::cross_entropy;
use graphc_train::metrics::accuracy;
use graphc_train::nn::{Activation, Dense, Dropout, Layer, Sequential};
use graphc_train::optim::{Adam, Sgd, StepOptions, train_step, train_step_with};
use graphc_train::schedule::{Cosine, ReduceOnPlateau};
use graphc_train::session::Session;
use graphc_train::trainer::*;
use std::sync::Arc;

fn digits() -> (Table, Table) {
    let (train, test) = load_directory(concat!(env!("CARGO_MANIFEST_DIR"), "/../data/digits")).unwrap();
    (train.split(200).unwrap().0.into(), test.into())
}

/// A network with dropout, so that random numbers are part of the state.
fn session() -> (Session, Vec<String>) {
    let m = ModuleBuilder::new("digits");
    let net = Sequential::new()
        .then(Dense::new(&m, "hidden", 64, 16))
        .then(Activation::Relu)
        .then(Dropout::new("dropout", 0.2))
        .then(Dense::new(&m, "out", 16, 10));
    m.function("predict", |f| {
        f.output("logits", net.apply(f.input("x", DType::F32, shape!["B", 8, 8]).reshape(shape!["B", 64])))
    });
    let options = StepOptions { guard: true, ..StepOptions::default() };
    let names = train_step_with(&m, "train_step", &Adam::new(1e-2), options, |f| {
        let x = f.input("x", DType::F32, shape!["B", 8, 8]).reshape(shape!["B", 64]);
        cross_entropy(net.train(x), f.input("y", DType::I32, shape!["B"]))
    });
    let pool = Arc::new(ThreadPool::new(1).unwrap());
    (Session::with(m.build().unwrap(), 1, pool, CompileOptions::default()).unwrap(), names)
}

fn loader() -> Loader {
    Loader::new(digits().0, 32).shuffled(7).workers(1)
}

fn weights(session: &Session) -> Vec<Vec<u8>> {
    session.state().iter().map(|(_, v)| v.as_bytes().to_vec()).collect()
}

fn trainer<'a>() -> Trainer<'a> {
    let (_, test) = digits();
    Trainer::new(4)
        .quiet()
        .schedule(Cosine::new(1e-2, 0.0, 28))
        .reduce_on_plateau(ReduceOnPlateau::new(0.5, 0))
        .best(Best::Largest("accuracy".to_owned()))
        .validate(move |session| {
            let outputs = session.run("predict", &test.inputs()[..1])?;
            Ok(vec![("accuracy", accuracy(outputs.get("logits")?, 10, test.get("y").unwrap()))])
        })
}

/// Stops after some step.
struct StopAt(u64);

impl Callback for StopAt {
    fn on_step(&mut self, step: u64, _: f64, _: &Session) -> Control {
        if step == self.0 { Control::Stop } else { Control::Continue }
    }
}

#[test]
fn resumed_runs_are_those_without_interruption() {
    let (mut whole, _) = session();
    let expected = trainer().run(&mut whole, &mut loader()).unwrap();
    assert_eq!((expected.stopped, expected.steps, expected.history.len()), (Stopped::Finished, 28, 4));
    assert!(expected.last("accuracy") > 0.3, "{expected}");
    for cut in [1, 6, 7, 8, 13, 27] {
        let dir = tempfile::tempdir().unwrap();
        let checkpoints = Checkpoints::new(dir.path()).every(3);
        let (mut first, _) = session();
        let report = trainer()
            .checkpoints(checkpoints.clone())
            .callback(StopAt(cut))
            .run(&mut first, &mut loader())
            .unwrap();
        assert_eq!((report.stopped, report.steps), (Stopped::Callback, cut));
        // Another process begins with another state.
        let (mut second, _) = session();
        second.reset(99).unwrap();
        let report = trainer().checkpoints(checkpoints.clone()).run(&mut second, &mut loader()).unwrap();
        assert_eq!(weights(&second), weights(&whole), "cut after {cut}");
        assert!(report.resumed_from.is_some());
        assert_eq!(report.losses(), expected.losses());
        assert_eq!(report.metric("accuracy"), expected.metric("accuracy"));
        // The best is that of the run without interruption, too.
        let best = read(second.state_mut(), &checkpoints.best()).unwrap();
        assert_eq!(best.best, expected.best);
    }
}

#[test]
fn logs_of_a_resumed_run_are_whole() {
    let dir = tempfile::tempdir().unwrap();
    let logs = |t: Trainer<'static>| {
        t.log(Log::Csv(dir.path().join("log/run.csv")))
            .log(Log::JsonLines(dir.path().join("run.jsonl")))
            .log(Log::TensorBoard(dir.path().join("board")))
            .checkpoints(Checkpoints::new(dir.path().join("checkpoints")))
    };
    let (mut s, _) = session();
    logs(trainer()).callback(StopAt(17)).run(&mut s, &mut loader()).unwrap();
    let (mut s, _) = session();
    let report = logs(trainer()).run(&mut s, &mut loader()).unwrap();
    let csv = std::fs::read_to_string(dir.path().join("log/run.csv")).unwrap();
    let lines: Vec<_> = csv.lines().collect();
    assert_eq!(lines[0], "epoch,step,loss,learning_rate,seconds,rows_per_second,accuracy");
    assert_eq!(lines.len(), 5);
    for (line, record) in lines[1..].iter().zip(&report.history) {
        let cells: Vec<f64> = line.split(',').map(|c| c.parse().unwrap()).collect();
        assert_eq!(cells[..4], [record.epoch as f64, record.step as f64, record.loss, record.learning_rate]);
        assert_eq!(cells[6], record.metrics["accuracy"]);
    }
    let jsonl = std::fs::read_to_string(dir.path().join("run.jsonl")).unwrap();
    let records: Vec<EpochRecord> = jsonl.lines().map(|l| serde_json::from_str(l).unwrap()).collect();
    assert_eq!(records, report.history);
    assert!(std::fs::metadata(dir.path().join("board/events.out.tfevents.0.graphc")).unwrap().len() > 100);
    assert_eq!(report.to_string().lines().count(), 1 + 1 + 4 + 1);
}

#[test]
fn early_stopping_keeps_the_best() {
    let dir = tempfile::tempdir().unwrap();
    let checkpoints = Checkpoints::new(dir.path());
    let (mut s, _) = session();
    // The measure is best in the second epoch.
    let mut measures = [0.5, 0.25, 0.75, 0.3, 0.1].into_iter();
    let mut seen = Vec::new();
    let report = Trainer::new(5)
        .quiet()
        .validate(|session| {
            seen.push(weights(session));
            Ok(vec![("error", measures.next().unwrap())])
        })
        .best(Best::Smallest("error".to_owned()))
        .stop_early(2)
        .checkpoints(checkpoints)
        .run(&mut s, &mut loader())
        .unwrap();
    assert_eq!((report.stopped, report.history.len(), report.best), (Stopped::Early, 4, Some(0.25)));
    assert_eq!(weights(&s), seen[1]);
}

#[test]
fn what_is_not_finite_is_named_and_changes_nothing() {
    let (train, _) = digits();
    let mut x = train.get::<f32>("x").unwrap().to_vec();
    x[70 * 64 + 5] = f32::NAN;
    let table = Table::new()
        .with("x", &[8, 8], x)
        .unwrap()
        .with("y", &[], train.get::<i32>("y").unwrap().to_vec())
        .unwrap();
    let (mut s, names) = session();
    let mut seen = Vec::new();
    struct Keep<'a>(&'a mut Vec<Vec<Vec<u8>>>);
    impl Callback for Keep<'_> {
        fn on_step(&mut self, _: u64, _: f64, session: &Session) -> Control {
            self.0.push(weights(session));
            Control::Continue
        }
    }
    let mut trainer = Trainer::new(1).quiet().parameters(names.clone()).callback(Keep(&mut seen));
    let error = trainer.run(&mut s, &mut Loader::new(table, 32)).unwrap_err().to_string();
    drop(trainer);
    let expected =
        "epoch 1, step 3: input `x` is not finite in row 6 of the batch; the state is that before the step";
    assert_eq!(error, expected);
    assert_eq!(weights(&s), seen[1]);

    // A weight that makes a gradient overflow.
    s.state_mut().get_mut::<f32>("out/weight").unwrap()[3] = f32::INFINITY;
    let mut trainer = Trainer::new(1).quiet().parameters(names);
    let error = trainer.run(&mut s, &mut loader()).unwrap_err().to_string();
    assert!(error.starts_with("epoch 1, step 1: the loss is not finite"), "{error}");

    // A step that is not guarded.
    let m = ModuleBuilder::new("m");
    let dense = Dense::new(&m, "dense", 64, 10);
    train_step(&m, "train_step", &Sgd::new(1e39), |f| {
        let x = f.input("x", DType::F32, shape!["B", 8, 8]).reshape(shape!["B", 64]);
        cross_entropy(dense.apply(x), f.input("y", DType::I32, shape!["B"]))
    });
    let mut s = Session::new(m.build().unwrap(), 1).unwrap();
    let error = Trainer::new(9).quiet().run(&mut s, &mut loader()).unwrap_err().to_string();
    assert!(error.contains("the loss is not finite, nor is `dense/weight` at element"), "{error}");
    assert!(error.ends_with("the state is not sound any more: a guarded step would have kept it"), "{error}");
}

#[test]
fn a_measure_that_is_not_there() {
    let (mut s, _) = session();
    let error =
        trainer().best(Best::Largest("f1".to_owned())).run(&mut s, &mut loader()).unwrap_err().to_string();
    assert_eq!(error, "the validation gives no measure `f1`; it gives accuracy");
}

#[test]
fn a_checkpoint_of_another_architecture_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let (mut s, _) = session();
    trainer().checkpoints(Checkpoints::new(dir.path())).run(&mut s, &mut loader()).unwrap();
    let m = ModuleBuilder::new("other");
    let dense = Dense::new(&m, "hidden", 64, 10);
    let options = StepOptions::default();
    train_step_with(&m, "train_step", &Adam::new(1e-2), options, |f| {
        let x = f.input("x", DType::F32, shape!["B", 8, 8]).reshape(shape!["B", 64]);
        cross_entropy(dense.apply(x), f.input("y", DType::I32, shape!["B"]))
    });
    let mut other = Session::new(m.build().unwrap(), 1).unwrap();
    let mut trainer = Trainer::new(4).quiet().checkpoints(Checkpoints::new(dir.path()));
    let error = trainer.run(&mut other, &mut loader()).unwrap_err().to_string();
    for part in [
        "`hidden/weight` is f32[16, 64], expected f32[10, 64]",
        "`out/weight` f32[10, 16] is not in the state",
    ] {
        assert!(error.contains(part), "{error}");
    }
}
