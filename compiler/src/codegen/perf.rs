//! What tells the profiler `perf` of Linux about generated code: with `GRAPHC_PERF_MAP=1` which function is
//! where, with `GRAPHC_JITDUMP=1` also its instructions and the line that it was made from.
//!
//! A map is read by `perf report` itself. For a dump: `perf record -k mono ..`, then `perf inject --jit -i
//! perf.data -o jit.data`, and `perf report -i jit.data`.

use graphc_ir::SourceLoc;
use rustix::mm::{MapFlags, ProtFlags, mmap};
use rustix::time::{ClockId, clock_gettime};
use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::sync::{Mutex, PoisonError};

/// A function in memory.
pub(super) struct Symbol {
    pub(super) address: u64,
    pub(super) code: Vec<u8>,
    pub(super) name: String,
    /// Where the user declared the first node that it computes.
    pub(super) loc: Option<SourceLoc>,
}

/// Whether somebody wants to know of code.
pub(super) fn wanted() -> bool {
    variable(MAP) || variable(DUMP)
}

const MAP: &str = "GRAPHC_PERF_MAP";
const DUMP: &str = "GRAPHC_JITDUMP";

fn variable(name: &str) -> bool {
    std::env::var_os(name).is_some()
}

/// Writes what the environment asks for, into the directory for temporary files.
///
/// # Errors
/// If a file cannot be written.
pub(super) fn announce(symbols: &[Symbol]) -> io::Result<()> {
    if variable(MAP) {
        map(symbols)?;
    }
    if variable(DUMP) {
        let mut open = OPEN.lock().unwrap_or_else(PoisonError::into_inner);
        let dump = match &mut *open {
            Some(dump) => dump,
            none => none.insert(Dump::create()?),
        };
        dump.write(symbols)?;
    }
    Ok(())
}

/// The form of the kernel's `tools/perf/Documentation/jit-interface.txt`.
fn map(symbols: &[Symbol]) -> io::Result<()> {
    let path = std::env::temp_dir().join(format!("perf-{}.map", std::process::id()));
    let mut file = OpenOptions::new().create(true).append(true).open(path)?;
    for s in symbols {
        writeln!(file, "{:x} {:x} {}", s.address, s.code.len(), s.name)?;
    }
    Ok(())
}

/// The dump of this process, once there is one.
static OPEN: Mutex<Option<Dump>> = Mutex::new(None);

/// A file in the form of the kernel's `tools/perf/Documentation/jitdump-specification.txt`.
struct Dump {
    file: File,
    /// Functions written so far.
    functions: u64,
}

/// `JiTD`
const MAGIC: u32 = 0x4A69_5444;
const VERSION: u32 = 1;
const HEADER_BYTES: u32 = 40;
/// Machines as ELF numbers them.
const ELF_MACHINE: u32 = if cfg!(target_arch = "aarch64") { 183 } else { 62 };
const CODE_LOAD: u32 = 0;
const CODE_DEBUG_INFO: u32 = 2;
/// Bytes in front of what a record holds.
const RECORD_BYTES: usize = 16;

impl Dump {
    fn create() -> io::Result<Self> {
        let path = std::env::temp_dir().join(format!("jit-{}.dump", std::process::id()));
        let mut file = OpenOptions::new().create(true).truncate(true).read(true).write(true).open(path)?;
        let mut header = Vec::new();
        for field in [MAGIC, VERSION, HEADER_BYTES, ELF_MACHINE, 0, std::process::id()] {
            header.extend(field.to_ne_bytes());
        }
        header.extend(now().to_ne_bytes());
        header.extend(0u64.to_ne_bytes());
        file.write_all(&header)?;
        // `perf record` learns of the file because it is mapped as code; the mapping stays.
        let (prot, flags) = (ProtFlags::READ | ProtFlags::EXEC, MapFlags::PRIVATE);
        // SAFETY: a new mapping at an address of the system's choice, which nobody uses.
        unsafe { mmap(std::ptr::null_mut(), HEADER_BYTES as usize, prot, flags, &file, 0) }?;
        Ok(Self { file, functions: 0 })
    }

    fn write(&mut self, symbols: &[Symbol]) -> io::Result<()> {
        let mut records = Vec::new();
        for s in symbols {
            if let Some(loc) = &s.loc {
                let mut body = Vec::new();
                [s.address, 1, s.address].iter().for_each(|v| body.extend(v.to_ne_bytes()));
                [loc.line, 0].iter().for_each(|v| body.extend(v.to_ne_bytes()));
                body.extend(loc.file.as_bytes());
                body.push(0);
                record(&mut records, CODE_DEBUG_INFO, &body);
            }
            let mut body = Vec::new();
            [std::process::id(); 2].iter().for_each(|v| body.extend(v.to_ne_bytes()));
            let fields = [s.address, s.address, s.code.len() as u64, self.functions];
            fields.iter().for_each(|v| body.extend(v.to_ne_bytes()));
            body.extend(s.name.as_bytes());
            body.push(0);
            body.extend(&s.code);
            record(&mut records, CODE_LOAD, &body);
            self.functions += 1;
        }
        self.file.write_all(&records)
    }
}

fn record(out: &mut Vec<u8>, id: u32, body: &[u8]) {
    out.extend(id.to_ne_bytes());
    out.extend(((RECORD_BYTES + body.len()) as u32).to_ne_bytes());
    out.extend(now().to_ne_bytes());
    out.extend(body);
}

/// Nanoseconds of the monotonic clock, which `perf record -k mono` uses too.
fn now() -> u64 {
    let t = clock_gettime(ClockId::Monotonic);
    t.tv_sec as u64 * 1_000_000_000 + t.tv_nsec as u64
}
