//! How much memory this process can have: what the machine has, or less, where a control group
//! says so.

use std::path::{Path, PathBuf};

/// What is reckoned with where nothing can be found out.
const UNKNOWN: u64 = 4 << 30;

/// Bytes of memory that this process can have at most.
pub fn available() -> u64 {
    let machine = read(Path::new("/proc/meminfo")).and_then(|text| total(&text));
    let group = group_limit(Path::new("/sys/fs/cgroup"), Path::new("/proc/self/cgroup"));
    let known = machine.into_iter().chain(group);
    known.min().unwrap_or(UNKNOWN)
}

fn read(path: &Path) -> Option<String> {
    std::fs::read_to_string(path).ok()
}

/// `MemTotal:       16384256 kB`
fn total(meminfo: &str) -> Option<u64> {
    let line = meminfo
        .lines()
        .find_map(|line| line.strip_prefix("MemTotal:"))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    kib.checked_mul(1024)
}

/// The smallest limit of this process's control groups, of both kinds: in the second version all
/// resources share one tree, in the first memory has a tree of its own.
fn group_limit(mounted: &Path, groups: &Path) -> Option<u64> {
    let groups = read(groups)?;
    let limits = groups.lines().filter_map(|line| {
        let mut parts = line.splitn(3, ':').skip(1);
        let (kinds, path) = (parts.next()?, parts.next()?);
        let (tree, file) = match kinds {
            "" => (mounted.to_owned(), "memory.max"),
            kinds if kinds.split(',').any(|kind| kind == "memory") => {
                (mounted.join("memory"), "memory.limit_in_bytes")
            }
            _ => return None,
        };
        smallest(&tree, path, file)
    });
    limits.min()
}

/// The smallest limit on the way from a group to the root of its tree: each holds for all below
/// it. In a container the group may lie at the root of what is mounted, whatever its path is.
fn smallest(tree: &Path, group: &str, file: &str) -> Option<u64> {
    let inside = Path::new(group.trim_start_matches('/'));
    let folders = inside.ancestors().map(|part| tree.join(part));
    let limit = |folder: PathBuf| read(&folder.join(file))?.trim().parse::<u64>().ok();
    // "No limit" is the word `max`, or a number beyond all memory.
    folders
        .filter_map(limit)
        .filter(|limit| *limit < 1 << 60)
        .min()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tree(files: &[(&str, &str)]) -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        for (path, text) in files {
            let path = dir.path().join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        }
        dir
    }

    fn limit(files: &[(&str, &str)]) -> Option<u64> {
        let dir = tree(files);
        group_limit(&dir.path().join("mounted"), &dir.path().join("groups"))
    }

    #[test]
    fn the_machine_tells_its_memory_in_kibibytes() {
        let text = "MemTotal:       16384256 kB\nMemFree:  1 kB\n";
        assert_eq!(total(text), Some(16_384_256 * 1024));
        assert_eq!(total("MemFree: 1 kB"), None);
    }

    #[test]
    fn the_nearest_limit_above_holds_in_the_second_version() {
        let found = limit(&[
            ("groups", "0::/a/b\n"),
            ("mounted/a/b/memory.max", "max\n"),
            ("mounted/a/memory.max", "1073741824\n"),
        ]);
        assert_eq!(found, Some(1 << 30));
        assert_eq!(limit(&[("groups", "0::/a/b\n")]), None);
    }

    #[test]
    fn the_first_version_has_a_tree_for_memory_alone() {
        let found = limit(&[
            ("groups", "5:cpu:/x\n4:memory:/docker/1\n0::/\n"),
            (
                "mounted/memory/memory.limit_in_bytes",
                "9223372036854771712\n",
            ),
            (
                "mounted/memory/docker/1/memory.limit_in_bytes",
                "536870912\n",
            ),
        ]);
        assert_eq!(found, Some(512 << 20));
    }

    #[test]
    fn a_container_sees_its_group_at_the_root() {
        let found = limit(&[
            ("groups", "0::/elsewhere/pod\n"),
            ("mounted/memory.max", "268435456\n"),
        ]);
        assert_eq!(found, Some(256 << 20));
    }

    #[test]
    fn every_machine_has_some() {
        assert!(available() > 1 << 20);
    }
}
