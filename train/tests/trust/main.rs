//! What must hold whatever happens: where `unsafe` may be, many executables on many threads, memory that does
//! not grow, bits that do not change, and disks that fail.

mod bits;
mod disk;
#[cfg(target_os = "linux")]
mod fork;
mod load;
mod unsafe_code;
