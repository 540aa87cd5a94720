//! Finds a cgroup of the v2 hierarchy by its path.

use std::os::unix::fs::MetadataExt;
use std::path::Path;

use anyhow::{Context, Result, bail};

use crate::machine::mounts;

/// Id and depth below the root of a cgroup, as BPF's `bpf_get_current_ancestor_cgroup_id` takes
/// them. `path` is a directory, or a path under the mount as in `/proc/PID/cgroup`.
pub fn find(path: &Path) -> Result<(u64, u32)> {
    let mounts = mounts::of_type("cgroup2");
    let Some(mount) = mounts.into_iter().find(|mount| mount.root == "/").map(|mount| mount.point) else {
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
