//! Disks that are full and folders that cannot be written: what was saved stays.

use graphc_ir::{DType, Initializer, ModuleBuilder};
use graphc_train::session::Session;
use graphc_train::trainer::{Checkpoints, Training};
use std::path::Path;
use std::process::Command;

/// A session with a megabyte of state, all elements of this value.
fn session(value: f32) -> Session {
    let m = ModuleBuilder::new("m");
    let w = m.state("w", DType::F32, [1 << 18], Initializer::Constant(0.0));
    m.function("f", |f| f.output("sum", f.read(&w).reduce_sum(&[0])));
    let mut session = Session::new(m.build().unwrap(), 1).unwrap();
    session.state_mut().get_mut::<f32>("w").unwrap().fill(value);
    session
}

/// Checks that a save fails with an error that names the file, leaves nothing behind, and that what was saved before is found.
fn a_failing_save_keeps_the_last(dir: &Path) {
    let checkpoints = Checkpoints::new(dir);
    let error = checkpoints.save(session(2.0).state(), &Training { step: 2, ..Training::default() });
    let error = error.expect_err("it cannot be saved").to_string();
    assert!(error.contains("step-0000000002.safetensors"), "{error}");
    let mut restored = session(0.0);
    let found = checkpoints.restore(restored.state_mut()).unwrap().unwrap();
    assert_eq!((found.training.step, found.damaged.len()), (1, 0));
    assert!(restored.state().get::<f32>("w").unwrap().iter().all(|&w| w == 1.0));
    assert_eq!(std::fs::read_dir(dir).unwrap().count(), 1);
}

fn save_first(dir: &Path) {
    let training = Training { step: 1, ..Training::default() };
    Checkpoints::new(dir).save(session(1.0).state(), &training).unwrap();
}

#[test]
fn a_full_disk_keeps_the_last_checkpoint() {
    let dir = tempfile::tempdir().unwrap();
    let mounted = Command::new("mount")
        .args(["-t", "tmpfs", "-o", "size=1536k", "tmpfs"])
        .arg(dir.path())
        .output()
        .is_ok_and(|o| o.status.success());
    if !mounted {
        println!("SKIPPED: a small disk can be mounted by root only");
        return;
    }
    let result = std::panic::catch_unwind(|| {
        save_first(dir.path());
        a_failing_save_keeps_the_last(dir.path());
    });
    assert!(Command::new("umount").arg(dir.path()).status().unwrap().success());
    if let Err(panic) = result {
        std::panic::resume_unwind(panic);
    }
}

#[cfg(unix)]
#[test]
fn a_folder_that_cannot_be_written_keeps_the_last_checkpoint() {
    use std::os::unix::fs::PermissionsExt;
    let dir = tempfile::tempdir().unwrap();
    save_first(dir.path());
    let permissions =
        |mode| std::fs::set_permissions(dir.path(), std::fs::Permissions::from_mode(mode)).unwrap();
    permissions(0o555);
    if std::fs::write(dir.path().join("probe"), "").is_ok() {
        println!("SKIPPED: root may write everywhere");
    } else {
        a_failing_save_keeps_the_last(dir.path());
    }
    permissions(0o755);
}
