//! Control groups: which hierarchies there are, the ids of their directories, and who is in them.
//!
//! A machine has the v2 hierarchy, v1 hierarchies of one or a few controllers each, or both (hybrid). Container
//! managers put a container at the same place of all that they use, so that one v1 controller tells enough.
//! A cgroup's id is the inode number of its directory, and each hierarchy has ids of its own.
//!
//! In a cgroup namespace paths begin at the namespace's root, in `/proc/PID/cgroup` and in mounts that were made
//! there. A mount that was made outside shows all, and its root in `mountinfo` is `/..`, as often as the
//! namespace lies deep.

use std::fs;
use std::os::unix::fs::{DirEntryExt, MetadataExt};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

use crate::machine::mounts::{self, Mount};

/// Of v1 controllers, those that container managers use first.
const CONTROLLERS: [&str; 7] = ["memory", "pids", "cpu", "cpuacct", "devices", "freezer", "blkio"];
/// Directories that are looked through for one that is not known.
const MOST_DIRECTORIES: usize = 65_536;

/// A tree of cgroups.
#[derive(Clone, Debug)]
pub struct Hierarchy {
    /// Its v1 controller; none of v2.
    pub controller: Option<String>,
    /// Number in `/proc/PID/cgroup`; 0 of v2.
    pub number: u32,
    mounts: Vec<Mount>,
}

/// A cgroup that was asked for.
#[derive(Clone, Debug)]
pub struct Target {
    /// Where it is.
    pub directory: PathBuf,
    /// Its id.
    pub id: u64,
    /// The tree that it is in.
    pub hierarchy: Hierarchy,
}

/// Lines of `/proc/PID/cgroup`: number, controllers, path.
fn lines_of(pid: &str) -> Vec<(u32, String, String)> {
    let text = fs::read(format!("/proc/{pid}/cgroup")).unwrap_or_default();
    let text = String::from_utf8_lossy(&text);
    let parse = |line: &str| {
        let mut fields = line.splitn(3, ':');
        let number = fields.next()?.parse().ok()?;
        Some((number, fields.next()?.to_owned(), fields.next()?.trim_end_matches(" (deleted)").to_owned()))
    };
    text.lines().filter_map(parse).collect()
}

/// All hierarchies of this machine that have a controller: v2, then v1 by how much they tell.
pub fn hierarchies() -> Vec<Hierarchy> {
    let v2 =
        Hierarchy { controller: None, number: 0, mounts: mounts::of_type("cgroup2").into_iter().collect() };
    let lines = lines_of("self");
    let mut all = vec![v2];
    let of_v1 = mounts::of_type("cgroup");
    for controller in CONTROLLERS {
        let holds = |list: &str| list.split(',').any(|name| name == controller);
        let Some(&(number, ..)) = lines.iter().find(|(number, list, _)| *number > 0 && holds(list)) else {
            continue;
        };
        let mounts = of_v1.iter().filter(|mount| holds(&mount.options)).cloned().collect();
        all.push(Hierarchy { controller: Some(controller.to_owned()), number, mounts });
    }
    all
}

/// The path of a process's cgroup in a hierarchy, as our cgroup namespace has it.
pub fn path_of(tgid: u32, hierarchy: &Hierarchy) -> Option<String> {
    let mut lines = lines_of(&tgid.to_string()).into_iter();
    lines.find(|(number, ..)| *number == hierarchy.number).map(|(_, _, path)| path)
}

/// The paths of a process's cgroups in all hierarchies, as our cgroup namespace has them.
pub fn paths_of(tgid: u32) -> Vec<String> {
    lines_of(&tgid.to_string()).into_iter().map(|(_, _, path)| path).collect()
}

impl Hierarchy {
    /// Tells all cgroups that can be seen, by id and path.
    pub fn scan(&self, mut each: impl FnMut(u64, String)) {
        for mount in &self.mounts {
            let Ok(metadata) = mount.point.metadata() else { continue };
            let root = if mount.root == "/" || mount.root.starts_with("/..") { "" } else { &mount.root };
            each(metadata.ino(), if root.is_empty() { "/".to_owned() } else { root.to_owned() });
            walk(&mount.point, |directory, id| {
                if let Ok(below) = directory.strip_prefix(&mount.point) {
                    each(id, format!("{root}/{}", below.display()));
                }
                true
            });
        }
    }

    /// The id of the cgroup at a path, if its directory can be seen.
    pub fn id_of(&self, path: &str) -> Option<u64> {
        let candidates = self.mounts.iter().flat_map(|mount| places(mount, Path::new(path), self));
        candidates.filter_map(|place| place.metadata().ok()).map(|metadata| metadata.ino()).next()
    }
}

/// The least memory, in bytes, that our cgroup or one above it may have, as far as they can be seen.
pub fn memory_limit() -> Option<u64> {
    let mut least: Option<u64> = None;
    for hierarchy in hierarchies() {
        let name = match hierarchy.controller.as_deref() {
            None => "memory.max",
            Some("memory") => "memory.limit_in_bytes",
            Some(_) => continue,
        };
        let Some(path) = path_of(std::process::id(), &hierarchy) else { continue };
        for mount in &hierarchy.mounts {
            let place = places(mount, Path::new(&path), &hierarchy).into_iter().find(|place| place.is_dir());
            let above = place.iter().flat_map(|place| place.ancestors());
            for directory in above.take_while(|directory| directory.starts_with(&mount.point)) {
                // Of a cgroup without a limit it is a word, or a number beyond all memory.
                let limit = fs::read_to_string(directory.join(name)).unwrap_or_default();
                least = limit.trim().parse().ok().into_iter().chain(least).min();
            }
        }
    }
    least
}

/// Calls `each` with all directories below one, and their ids, until it has seen enough.
fn walk(top: &Path, mut each: impl FnMut(&Path, u64) -> bool) {
    let mut open = vec![top.to_owned()];
    let mut seen = 0;
    while let Some(directory) = open.pop() {
        for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
            if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                seen += 1;
                let path = entry.path();
                if seen > MOST_DIRECTORIES || !each(&path, entry.ino()) {
                    return;
                }
                open.push(path);
            }
        }
    }
}

/// Where a path of our cgroup namespace may be below a mount.
fn places(mount: &Mount, path: &Path, hierarchy: &Hierarchy) -> Vec<PathBuf> {
    let relative = path.strip_prefix("/").unwrap_or(path);
    let mut places = Vec::new();
    if let Some(root) = namespace_root(mount, hierarchy) {
        places.push(root.join(relative));
    }
    // A part of the tree may be mounted, as a path beside the whole of it.
    if let Ok(below) = path.strip_prefix(&mount.root) {
        places.push(mount.point.join(below));
    }
    places.push(mount.point.join(relative));
    places
}

/// The root of our cgroup namespace below a mount that shows more than it: where we are, less our path in it.
fn namespace_root(mount: &Mount, hierarchy: &Hierarchy) -> Option<PathBuf> {
    if !mount.root.starts_with("/..") {
        return None;
    }
    let own = path_of(std::process::id(), hierarchy)?;
    let id = std::process::id();
    let mut found = None;
    walk(&mount.point, |directory, _| {
        if processes(directory).contains(&id) {
            found = Some(directory.to_owned());
        }
        found.is_none()
    });
    let mut root = found?;
    for _ in Path::new(own.strip_prefix('/')?).components() {
        root.pop();
    }
    Some(root)
}

fn processes(directory: &Path) -> Vec<u32> {
    let text = fs::read_to_string(directory.join("cgroup.procs")).unwrap_or_default();
    text.lines().filter_map(|line| line.parse().ok()).collect()
}

/// Processes in a cgroup and below it.
pub fn members(directory: &Path) -> Vec<u32> {
    let mut all = processes(directory);
    walk(directory, |below, _| {
        all.extend(processes(below));
        true
    });
    // Those of other PID namespaces have no id here.
    all.retain(|&tgid| tgid != 0);
    all
}

/// Finds a cgroup by its directory or by its path as in `/proc/PID/cgroup`. Where several hierarchies have one
/// of the name, it is the first that has processes.
///
/// # Errors
/// If there is none, or no hierarchy at all.
pub fn find(path: &Path) -> Result<Target> {
    let all = hierarchies();
    if all.iter().all(|hierarchy| hierarchy.mounts.is_empty()) {
        bail!("no cgroup hierarchy is mounted: mount -t cgroup2 none /sys/fs/cgroup");
    }
    let mut found: Vec<(PathBuf, &Hierarchy)> = Vec::new();
    for hierarchy in &all {
        for mount in &hierarchy.mounts {
            let direct = path.canonicalize().ok().filter(|path| path.starts_with(&mount.point));
            let places = if direct.is_some() { Vec::new() } else { places(mount, path, hierarchy) };
            let places = places.iter().filter_map(|place| place.canonicalize().ok());
            let within = |place: &PathBuf| place.is_dir() && place.starts_with(&mount.point);
            found.extend(direct.into_iter().chain(places).filter(within).map(|place| (place, hierarchy)));
        }
    }
    let best = found.iter().position(|(place, _)| !members(place).is_empty()).unwrap_or(0);
    if found.is_empty() {
        let points = all.iter().flat_map(|hierarchy| &hierarchy.mounts);
        let points: Vec<String> = points.map(|mount| mount.point.display().to_string()).collect();
        bail!("no cgroup {}: no such directory under {}", path.display(), points.join(" or "));
    }
    let (directory, hierarchy) = found.swap_remove(best);
    let metadata =
        directory.metadata().with_context(|| format!("failed to look at {}", directory.display()))?;
    Ok(Target { directory, id: metadata.ino(), hierarchy: hierarchy.clone() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_of_the_namespace_below_a_mount_of_a_part() {
        let mount = Mount { root: "/a/b".into(), point: "/mnt".into(), options: String::new() };
        let hierarchy = Hierarchy { controller: None, number: 0, mounts: vec![mount.clone()] };
        let places = places(&mount, Path::new("/a/b/c"), &hierarchy);
        assert_eq!(places, [PathBuf::from("/mnt/c"), "/mnt/a/b/c".into()]);
    }
}
