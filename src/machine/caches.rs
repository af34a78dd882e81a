//! What the system says of the processor and its caches.

use std::fs;

/// A cache of data.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) struct Cache {
    /// From 1.
    pub(super) level: usize,
    /// Size in bytes.
    pub(super) bytes: usize,
    /// Number of logical CPUs that share one.
    shared_by: usize,
}

impl Cache {
    /// The part of it that each of so many threads has to itself.
    pub(super) fn bytes_per_thread(&self, threads: usize) -> usize {
        self.bytes / self.shared_by.min(threads).max(1)
    }
}

/// The caches of data of the first CPU, small ones first; none where the system does not list them.
pub(super) fn data_caches() -> Vec<Cache> {
    let Ok(entries) = fs::read_dir("/sys/devices/system/cpu/cpu0/cache") else { return Vec::new() };
    let cache = |dir: fs::DirEntry| -> Option<Cache> {
        let read = |name: &str| fs::read_to_string(dir.path().join(name)).ok();
        if read("type")?.trim() == "Instruction" {
            return None;
        }
        let bytes = read("size")?.trim().strip_suffix('K')?.parse::<usize>().ok()? << 10;
        let shared_by = cpus(read("shared_cpu_list")?.trim());
        Some(Cache { level: read("level")?.trim().parse().ok()?, bytes, shared_by })
    };
    let mut caches: Vec<Cache> = entries.flatten().filter_map(cache).collect();
    caches.sort();
    caches
}

/// Number of CPUs in a list such as `0-3,8`.
fn cpus(list: &str) -> usize {
    let count = |range: &str| -> Option<usize> {
        let (first, last) = range.split_once('-').unwrap_or((range, range));
        Some(last.parse::<usize>().ok()?.checked_sub(first.parse().ok()?)? + 1)
    };
    list.split(',').filter_map(count).sum()
}

/// Name of the processor, or its architecture where the system does not tell.
pub(super) fn processor() -> String {
    let info = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let name = info.lines().find_map(|l| l.strip_prefix("model name")?.split_once(':'));
    name.map_or(std::env::consts::ARCH, |(_, name)| name.trim()).to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_of_cpus_are_counted() {
        assert_eq!((cpus("0"), cpus("0-3"), cpus("0-3,8"), cpus("")), (1, 4, 5, 0));
    }

    #[test]
    fn shared_caches_are_divided() {
        let last = Cache { level: 3, bytes: 64 << 20, shared_by: 8 };
        assert_eq!((last.bytes_per_thread(1), last.bytes_per_thread(4)), (64 << 20, 16 << 20));
        assert_eq!(last.bytes_per_thread(16), 8 << 20);
    }
}
