//! Everything code can lie in, pinned while it can still be reached.
//!
//! A process may be gone in 3 ms, its binary deleted, its container stopped: names must be found
//! after that. So an object's file is opened when a mapping of it is first seen, and the
//! descriptor kept until the end. The kernel tells a mapping's file by device and inode; every
//! candidate path is checked against that before it is believed. Objects are shared by all
//! processes, and files of one build id are one object.
//!
//! Where a file is looked for, best first: the kernel's own link to the mapped file
//! (`map_files`, right even for deleted files), the path below the root of the living process,
//! and the path below the root that its parent had, for processes that are gone already.

use std::collections::HashMap;
use std::fs::File;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::{SystemTime, UNIX_EPOCH};

use nix::fcntl::{OFlag, open, openat};
use nix::sys::stat::Mode;

use crate::elf;
use crate::model::event::{FileId, Mmap};

/// Index of an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ObjectId(u32);

impl ObjectId {
    /// The kernel image and its modules, by address.
    pub const KERNEL: Self = Self(0);
    /// Addresses that no object holds.
    pub const NONE: Self = Self(1);

    /// Position in [`Objects::iter`].
    pub fn index(self) -> usize {
        self.0 as usize
    }
}

/// What an object is, and what names its code.
#[derive(Debug)]
pub enum Source {
    /// The running kernel; offsets are addresses.
    Kernel,
    /// A BPF program or trampoline; offsets are addresses, from `start` on.
    Bpf {
        /// First address.
        start: u64,
        /// First address behind it.
        end: u64,
    },
    /// A file; `None` if it could not be opened in time.
    File(Option<File>),
    /// The kernel's page of user code.
    Vdso,
    /// Code that a runtime compiled; offsets are addresses in the process. The file is the
    /// runtime's own list of functions, `/tmp/perf-PID.map`.
    Jit(Option<File>),
    /// Nothing.
    Nowhere,
}

/// Something that code lies in.
#[derive(Debug)]
pub struct Object {
    /// Path as a process saw it, or a name in brackets.
    pub path: String,
    /// GNU build id, or empty.
    pub build_id: Vec<u8>,
    /// What names its code.
    pub source: Source,
}

/// A process's root directory: what its paths start from.
#[derive(Clone, Debug)]
pub struct Root(Option<Rc<OwnedFd>>);

/// All objects seen so far.
#[derive(Debug)]
pub struct Objects {
    objects: Vec<Object>,
    by_file: HashMap<(FileId, String), ObjectId>,
    by_build_id: HashMap<Vec<u8>, ObjectId>,
    /// Roots are few (one per container), so each is opened once: (device, inode, namespace).
    roots: HashMap<(u64, u64, u64), Rc<OwnedFd>>,
    vdso: Option<ObjectId>,
    /// When the recording began, in seconds since 1970.
    began_s: i64,
}

impl Default for Objects {
    fn default() -> Self {
        let named = |path: &str, build_id, source| Object { path: path.to_owned(), build_id, source };
        let kernel_build_id = elf::kernel_build_id().unwrap_or_default();
        Self {
            objects: vec![
                named("[kernel.kallsyms]", kernel_build_id, Source::Kernel),
                named("[unmapped]", Vec::new(), Source::Nowhere),
            ],
            by_file: HashMap::new(),
            by_build_id: HashMap::new(),
            roots: HashMap::new(),
            vdso: None,
            began_s: SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |now| now.as_secs() as i64),
        }
    }
}

impl Objects {
    /// The object at an id.
    pub fn get(&self, id: ObjectId) -> &Object {
        &self.objects[id.index()]
    }

    /// All objects in the order of their ids.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = &Object> {
        self.objects.iter()
    }

    fn add(&mut self, path: &str, build_id: Vec<u8>, source: Source) -> ObjectId {
        let id = ObjectId(self.objects.len() as u32);
        self.objects.push(Object { path: path.to_owned(), build_id, source });
        id
    }

    /// The object of a BPF program's code.
    pub fn bpf(&mut self, name: &str, start: u64, end: u64) -> ObjectId {
        self.add(name, Vec::new(), Source::Bpf { start, end })
    }

    /// The object that a mapping maps, opened if this is the first mapping of it.
    /// `jit` is the process's object for code that no file backs, made on first use.
    pub fn of_mapping(&mut self, mmap: &Mmap, root: &Root, jit: &mut Option<ObjectId>) -> ObjectId {
        match &mmap.file {
            FileId::Anonymous if mmap.path == "[vdso]" => {
                if self.vdso.is_none() {
                    self.vdso = Some(self.add("[vdso]", Vec::new(), Source::Vdso));
                }
                self.vdso.unwrap_or(ObjectId::NONE)
            }
            FileId::Anonymous => *jit.get_or_insert_with(|| self.add("[jit]", Vec::new(), Source::Jit(None))),
            // A runtime may back its code with shared memory, to map it twice (W^X).
            _ if mmap.path.starts_with("/memfd:") || mmap.path.starts_with("/dev/zero") => {
                *jit.get_or_insert_with(|| self.add("[jit]", Vec::new(), Source::Jit(None)))
            }
            file => self.of_file(file, mmap, root),
        }
    }

    /// Whether a mapping's file has been opened, so that nothing has to be looked for.
    pub fn knows(&self, mmap: &Mmap) -> bool {
        let known = match &mmap.file {
            FileId::Anonymous => return true,
            FileId::Inode { .. } => self.by_file.get(&(mmap.file.clone(), mmap.path.clone())),
        };
        known.is_some_and(|&id| !matches!(self.get(id).source, Source::File(None)))
    }

    fn of_file(&mut self, id: &FileId, mmap: &Mmap, root: &Root) -> ObjectId {
        // An inode says nothing without its path: device numbers differ between what the kernel
        // and what stat(2) reports for stacked file systems.
        let key = (id.clone(), mmap.path.clone());
        if let Some(&known) = self.by_file.get(&key) {
            // Another process may lead to a file that the first one did not live to show.
            if let Source::File(file @ None) = &mut self.objects[known.index()].source {
                *file = find_file(id, mmap, root, self.began_s).map(|(file, _)| file);
            }
            return known;
        }
        let (file, build_id) = match find_file(id, mmap, root, self.began_s) {
            Some((file, build_id)) => (Some(file), build_id),
            None => (None, Vec::new()),
        };
        // One file can have several paths and inodes: containers, package caches.
        let known = self.by_build_id.get(&build_id).copied().filter(|_| !build_id.is_empty());
        let object = known.unwrap_or_else(|| self.add(&mmap.path, build_id.clone(), Source::File(file)));
        if !build_id.is_empty() {
            self.by_build_id.insert(build_id, object);
        }
        self.by_file.insert(key, object);
        object
    }

    /// Opens a runtime's list of compiled functions while the process lives.
    pub fn pin_perf_map(&mut self, jit: ObjectId, tgid: u32, root: &Root) {
        let Source::Jit(map @ None) = &mut self.objects[jit.index()].source else { return };
        *map = perf_map_paths(tgid).iter().find_map(|path| root.open(tgid, path));
    }

    /// The root directory of a living process; `None` when it is gone.
    pub fn root_of(&mut self, tgid: u32) -> Option<Root> {
        let link = PathBuf::from(format!("/proc/{tgid}/root"));
        let root = std::fs::metadata(&link).ok()?;
        let namespace = std::fs::metadata(format!("/proc/{tgid}/ns/mnt")).ok()?;
        let key = (root.dev(), root.ino(), namespace.ino());
        if let Some(known) = self.roots.get(&key) {
            return Some(Root(Some(Rc::clone(known))));
        }
        let fd =
            Rc::new(open(&link, OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC, Mode::empty()).ok()?);
        self.roots.insert(key, Rc::clone(&fd));
        Some(Root(Some(fd)))
    }
}

impl Root {
    /// Our own root, for processes of which nothing is known.
    pub const OURS: Self = Self(None);

    fn open(&self, tgid: u32, path: &str) -> Option<File> {
        let flags = OFlag::O_RDONLY | OFlag::O_CLOEXEC | OFlag::O_NONBLOCK | OFlag::O_NOCTTY;
        let relative = path.trim_start_matches('/');
        let living = open_regular(Path::new(&format!("/proc/{tgid}/root/{relative}")));
        living.or_else(|| match &self.0 {
            Some(root) => openat(root, relative, flags, Mode::empty()).ok().map(File::from).and_then(regular),
            None => open_regular(Path::new(path)),
        })
    }
}

/// Opening a FIFO or a device on behalf of a process would block or have effects.
fn regular(file: File) -> Option<File> {
    file.metadata().ok()?.is_file().then_some(file)
}

fn open_regular(path: &Path) -> Option<File> {
    let flags = OFlag::O_RDONLY | OFlag::O_CLOEXEC | OFlag::O_NONBLOCK | OFlag::O_NOCTTY;
    open(path, flags, Mode::empty()).ok().map(File::from).and_then(regular)
}

/// The mapped file and its build id (maybe empty), if it can still be reached.
fn find_file(id: &FileId, mmap: &Mmap, root: &Root, began_s: i64) -> Option<(File, Vec<u8>)> {
    // Unpadded hex, unlike /proc/PID/maps.
    let link = format!("/proc/{}/map_files/{:x}-{:x}", mmap.tgid, mmap.range.start, mmap.range.end);
    let direct = open_regular(Path::new(&link)).map(|file| (file, true));
    let candidates = direct.into_iter().chain(root.open(mmap.tgid, &mmap.path).map(|file| (file, false)));
    for (file, direct) in candidates {
        let build_id = elf::build_id(&file).unwrap_or_default();
        let same = match id {
            // A link of the kernel's is right unless the process has executed another program.
            FileId::Inode { device, inode, .. } if !direct => file.metadata().is_ok_and(|meta| {
                // Stacked file systems (overlayfs, btrfs) show other numbers than the kernel does:
                // there, a path leads to the same file if that has not changed since we began.
                meta.ino() == *inode || (meta.dev() != *device && meta.ctime() < began_s)
            }),
            FileId::Inode { inode, .. } => {
                file.metadata().is_ok_and(|meta| meta.ino() == *inode) || same_path(&file, &mmap.path)
            }
            FileId::Anonymous => false,
        };
        if same {
            return Some((file, build_id));
        }
    }
    None
}

fn same_path(file: &File, path: &str) -> bool {
    std::fs::read_link(format!("/proc/self/fd/{}", file.as_raw_fd()))
        .is_ok_and(|link| link.to_string_lossy().trim_end_matches(" (deleted)") == path)
}

/// A runtime names its map by the id that it has in its own PID namespace, the innermost.
fn perf_map_paths(tgid: u32) -> Vec<String> {
    let status = std::fs::read_to_string(format!("/proc/{tgid}/status")).unwrap_or_default();
    let inner = status
        .lines()
        .find_map(|line| line.strip_prefix("NSpid:"))
        .and_then(|ids| ids.split_whitespace().last()?.parse::<u32>().ok());
    let mut ids = vec![inner.unwrap_or(tgid), tgid];
    ids.dedup();
    ids.iter().map(|id| format!("/tmp/perf-{id}.map")).collect()
}
