//! Code that a process's runtime compiles, and the runtime's own lists of it.
//!
//! A list belongs to one process: workers that are forked from one server each compile their own code, at
//! the same addresses. What a worker has inherited is in the list of the process that it was forked from,
//! which is asked where its own list has no name.
//!
//! A perf map is found by its name alone, `/tmp/perf-PID.map`, in a directory where everybody writes, and ids
//! repeat. So one is believed only if it belongs to a user that the process runs as (or to root, if everybody may
//! read it and no link led there), and was written since the process began. A jitdump is mapped by the process itself, which says that it is its own.
//!
//! A list grows, or is written when its process ends; some runtimes write another file in its place. So it is
//! looked for when the first sample falls into such code, when the process ends, and at the end.

use std::cell::Cell;
use std::fs::File;
use std::os::unix::fs::MetadataExt;
use std::rc::Rc;
use std::time::{SystemTime, UNIX_EPOCH};

use nix::sys::stat::{FileStat, Mode};
use nix::time::{ClockId, clock_gettime};
use nix::unistd::{SysconfVar, sysconf};

use super::{Missing, ObjectId, Root};
use crate::machine;

/// Processes that were forked from one another, and whose lists are asked one after the other.
pub const MOST_PARENTS: usize = 16;

/// A process's place for the object of its compiled code, shared by all states that the process is kept in.
#[derive(Debug)]
pub struct JitSlot {
    tgid: u32,
    object: Cell<Option<ObjectId>>,
    /// That of the process whose memory it began with.
    pub(super) parent: Option<Rc<JitSlot>>,
}

impl JitSlot {
    /// The place of a process that began with no compiled code, or with that of `parent`.
    pub fn new(tgid: u32, parent: Option<&Rc<Self>>) -> Rc<Self> {
        Rc::new(Self { tgid, object: Cell::new(None), parent: parent.cloned() })
    }

    /// The process.
    pub fn tgid(&self) -> u32 {
        self.tgid
    }

    /// Its object, if a sample fell into compiled code.
    pub fn object(&self) -> Option<ObjectId> {
        self.object.get()
    }

    /// Its object and those of the processes whose memory it began with.
    pub fn objects(&self) -> impl Iterator<Item = ObjectId> {
        std::iter::successors(Some(self), |slot| slot.parent.as_deref())
            .take(MOST_PARENTS)
            .filter_map(Self::object)
    }

    pub(super) fn set(&self, object: ObjectId) {
        self.object.set(Some(object));
    }
}

/// The lists of a process's compiled functions.
#[derive(Debug)]
pub struct Jit {
    tgid: u32,
    owner: Option<Owner>,
    /// Perf maps, the newest last, or why there is none.
    pub maps: Result<Vec<File>, NoMap>,
    /// What the process mapped as its jitdump.
    pub dump: Option<File>,
    /// The object of the process that it was forked from.
    pub parent: Option<ObjectId>,
}

/// Why a process has no perf map.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NoMap {
    /// There is no such file.
    Absent,
    /// It belongs to somebody else.
    NotItsOwners,
    /// It was there before the process.
    Older,
    /// It is no file, or may not be opened.
    NotReadable,
}

impl NoMap {
    /// A few words for people.
    pub fn why(self) -> &'static str {
        match self {
            Self::Absent => "JIT code, no perf map",
            Self::NotItsOwners => "JIT code, perf map not its owner's",
            Self::Older => "JIT code, perf map older than the process",
            Self::NotReadable => "JIT code, perf map not readable",
        }
    }
}

/// Who a process is, as far as a file can be its own.
#[derive(Clone, Debug)]
struct Owner {
    /// Real, effective, saved and file system's user.
    uids: Vec<u32>,
    /// When it began, in seconds since 1970.
    started_s: i64,
    /// Its id in the PID namespaces that it is in, the innermost last.
    ids: Vec<u32>,
}

impl Jit {
    pub(super) fn new(tgid: u32, parent: Option<ObjectId>) -> Self {
        Self { tgid, owner: Owner::of(tgid), maps: Err(NoMap::Absent), dump: None, parent }
    }

    /// Looks for the perf map again.
    pub(super) fn find_map(&mut self, root: &Root) {
        // A runtime names it by the id that it has itself.
        let mut ids = self.owner.as_ref().map_or_else(Vec::new, |owner| owner.ids.clone());
        ids.reverse();
        ids.push(self.tgid);
        ids.dedup();
        let mut why = NoMap::Absent;
        for id in ids {
            match self.open_map(root, &format!("/tmp/perf-{id}.map")) {
                Ok(map) => return self.add_map(map),
                Err(NoMap::Absent) => {}
                Err(other) => why = other,
            }
        }
        if self.maps.is_err() {
            self.maps = Err(why);
        }
    }

    fn open_map(&self, root: &Root, path: &str) -> Result<File, NoMap> {
        let map = root.open_believed(path, |status, by_link| self.believes(status, by_link));
        map.map_err(|why| match why {
            Missing::Gone => NoMap::Absent,
            _ => NoMap::NotReadable,
        })?
    }

    /// Whether a file is a list of this process. We are root, and the process could have put there what it may not
    /// read itself: a link to a file of root's, a second name of it, or a mount.
    fn believes(&self, status: &FileStat, by_link: bool) -> Result<(), NoMap> {
        let is_its = self.owner.as_ref().is_some_and(|owner| owner.uids.contains(&status.st_uid));
        let everybody_reads = Mode::from_bits_truncate(status.st_mode).contains(Mode::S_IROTH);
        if !is_its && (status.st_uid != 0 || by_link || !everybody_reads) {
            return Err(NoMap::NotItsOwners);
        }
        if self.owner.as_ref().is_some_and(|owner| status.st_mtime < owner.started_s) {
            return Err(NoMap::Older);
        }
        Ok(())
    }

    fn add_map(&mut self, map: File) {
        /// A runtime that writes new files all the time has its first and its last names.
        const MOST: usize = 4;
        let id = |map: &File| map.metadata().map(|meta| (meta.dev(), meta.ino())).ok();
        match &mut self.maps {
            Ok(maps) if maps.last().and_then(id) == id(&map) => {}
            Ok(maps) => {
                maps.truncate(MOST - 1);
                maps.push(map);
            }
            maps => *maps = Ok(vec![map]),
        }
    }
}

impl Owner {
    /// Who a living process is.
    fn of(tgid: u32) -> Option<Self> {
        let status = machine::read_text(format!("/proc/{tgid}/status")).ok()?;
        let numbers = |name: &str| -> Vec<u32> {
            let line = status.lines().find_map(|line| line.strip_prefix(name));
            line.into_iter().flat_map(str::split_whitespace).filter_map(|word| word.parse().ok()).collect()
        };
        let stat = machine::read_text(format!("/proc/{tgid}/stat")).ok()?;
        // The name, in parentheses, may hold anything; the 20th field behind it is the start since boot.
        let ticks: i64 = stat.rsplit_once(')')?.1.split_whitespace().nth(19)?.parse().ok()?;
        let ticks_per_s = sysconf(SysconfVar::CLK_TCK).ok()??;
        let now_s = SystemTime::now().duration_since(UNIX_EPOCH).ok()?.as_secs() as i64;
        let up_s = clock_gettime(ClockId::CLOCK_BOOTTIME).ok()?.tv_sec();
        Some(Self {
            uids: numbers("Uid:"),
            // Clocks are compared by the second: one may have passed in between.
            started_s: now_s - up_s + ticks / ticks_per_s - 1,
            ids: numbers("NSpid:"),
        })
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::{PermissionsExt, chown};
    use std::time::Duration;

    use super::*;
    use crate::model::objects::open;

    /// A root directory with `tmp` in it, and the lists of this process.
    struct Scene(std::path::PathBuf, Root, Jit);

    impl Scene {
        fn new(name: &str) -> Self {
            let dir = std::env::temp_dir().join(format!("profiler-jit-{name}-{}", std::process::id()));
            fs::create_dir_all(dir.join("tmp")).unwrap();
            let root = Root(Some(Rc::new(open::directory(dir.to_str().unwrap()).unwrap())));
            Self(dir, root, Jit::new(std::process::id(), None))
        }

        fn map(&self) -> std::path::PathBuf {
            self.0.join(format!("tmp/perf-{}.map", std::process::id()))
        }

        fn found(&mut self) -> Result<usize, NoMap> {
            self.2.find_map(&self.1);
            self.2.maps.as_ref().map(Vec::len).map_err(|why| *why)
        }
    }

    impl Drop for Scene {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    #[test]
    fn its_own_map_is_found_and_found_again() {
        let mut scene = Scene::new("own");
        assert_eq!(scene.found(), Err(NoMap::Absent));
        fs::write(scene.map(), "1000 10 f\n").unwrap();
        assert_eq!(scene.found(), Ok(1));
        assert_eq!(scene.found(), Ok(1));
        // Another file in its place; the first is kept by its descriptor.
        fs::remove_file(scene.map()).unwrap();
        assert_eq!(scene.found(), Ok(1));
        fs::write(scene.map(), "1000 10 g\n").unwrap();
        assert_eq!(scene.found(), Ok(2));
    }

    #[test]
    fn a_map_of_before_is_not_its() {
        let mut scene = Scene::new("older");
        fs::write(scene.map(), "1000 10 f\n").unwrap();
        let past = SystemTime::now() - Duration::from_secs(2 * 86_400);
        File::options().write(true).open(scene.map()).unwrap().set_modified(past).unwrap();
        assert_eq!(scene.found(), Err(NoMap::Older));
    }

    #[test]
    fn a_strangers_map_is_not_its() {
        let mut scene = Scene::new("strangers");
        fs::write(scene.map(), "1000 10 f\n").unwrap();
        if chown(scene.map(), Some(65_534), None).is_err() {
            say!("SKIP: giving a file away needs root");
            return;
        }
        assert_eq!(scene.found(), Err(NoMap::NotItsOwners));
        // Root's files are the process's as long as it could have read them itself.
        scene.2.owner.as_mut().unwrap().uids = vec![65_534];
        chown(scene.map(), Some(0), None).unwrap();
        fs::set_permissions(scene.map(), fs::Permissions::from_mode(0o600)).unwrap();
        assert_eq!(scene.found(), Err(NoMap::NotItsOwners));
        fs::set_permissions(scene.map(), fs::Permissions::from_mode(0o644)).unwrap();
        let elsewhere = scene.map().with_extension("elsewhere");
        fs::rename(scene.map(), &elsewhere).unwrap();
        std::os::unix::fs::symlink("perf.elsewhere", scene.map()).unwrap();
        fs::rename(&elsewhere, scene.map().with_file_name("perf.elsewhere")).unwrap();
        assert_eq!(scene.found(), Err(NoMap::NotItsOwners));
        fs::remove_file(scene.map()).unwrap();
        std::os::unix::fs::symlink("/proc/kmsg", scene.map()).unwrap();
        assert_eq!(scene.found(), Err(NoMap::Absent));
        fs::remove_file(scene.map()).unwrap();
        nix::unistd::mkfifo(&scene.map(), Mode::S_IRWXU).unwrap();
        chown(scene.map(), Some(65_534), None).unwrap();
        assert_eq!(scene.found(), Err(NoMap::NotReadable));
    }
}
