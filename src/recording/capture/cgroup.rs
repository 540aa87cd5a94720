//! Finds a cgroup of the v2 hierarchy by its path.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

/// Id and depth below the root of a cgroup, as BPF's `bpf_get_current_ancestor_cgroup_id` takes
/// them. `path` is a directory, or a path under the mount as in `/proc/PID/cgroup`.
pub fn find(path: &Path) -> Result<(u64, u32)> {
    let mounts = fs::read_to_string("/proc/self/mountinfo").context("failed to read /proc/self/mountinfo")?;
    let Some(mount) = mounts.lines().find_map(cgroup2_mount) else {
        bail!("no cgroup v2 hierarchy is mounted: mount -t cgroup2 none /sys/fs/cgroup");
    };
    let under = mount.join(path.strip_prefix("/").unwrap_or(path));
    let candidates = if path.starts_with(&mount) { [path, &under] } else { [&under, path] };
    let found = candidates.into_iter().find_map(|candidate| candidate.canonicalize().ok());
    let Some(directory) = found.filter(|found| found.is_dir()) else {
        bail!("no cgroup {}: no such directory under {}", path.display(), mount.display());
    };
    let Ok(below) = directory.strip_prefix(&mount) else {
        bail!(
            "{} is not in the cgroup v2 hierarchy, which is mounted at {}",
            directory.display(),
            mount.display()
        );
    };
    // A cgroup's id is the inode number of its directory (kernfs, 64 bit).
    let metadata =
        directory.metadata().with_context(|| format!("failed to look at {}", directory.display()))?;
    Ok((metadata.ino(), below.components().count() as u32))
}

/// The mount point, if a line of mountinfo is one of the v2 hierarchy from its root.
fn cgroup2_mount(line: &str) -> Option<PathBuf> {
    let (fields, filesystem) = line.split_once(" - ")?;
    let mut fields = fields.split(' ').skip(3);
    let (root, mount) = (fields.next()?, fields.next()?);
    (filesystem.starts_with("cgroup2 ") && root == "/").then(|| PathBuf::from(mount))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mountinfo_lines() {
        let line = "31 23 0:27 / /sys/fs/cgroup rw,nosuid shared:4 - cgroup2 cgroup2 rw";
        assert_eq!(cgroup2_mount(line), Some(PathBuf::from("/sys/fs/cgroup")));
        assert_eq!(cgroup2_mount("24 30 0:22 / /sys rw - sysfs sysfs rw"), None);
    }
}
