//! Everything code can lie in, pinned while it can still be reached.
//!
//! A process may be gone in 3 ms, its binary deleted, its container stopped: names must be found
//! after that. So an object's file is opened when a mapping of it is first seen, and the
//! descriptor kept until the end. Objects are shared by all processes.
//!
//! **An object is its content.** The kernel tells a mapping's file by device, inode and generation;
//! every candidate is checked against that, and whether it is still what it was then (see
//! `identity.rs`). A file that was written anew is another object from then on. Two files are two
//! objects even if they have one build id: people strip copies, and give ids away by hand.
//!
//! **What a mapping holds is decided by its content, not by its name.** A runtime may keep its code
//! in memory that the kernel calls a file (huge pages, a memfd, System V segments), and a program may
//! be executed from just such memory. An ELF file one of whose segments is mapped is that file; all
//! else is code that somebody made at run time.
//!
//! Where a file is looked for, best first: the kernel's own link to the mapped file (`map_files`, right
//! even for deleted files), the path below the root of the living process, and the path below the root
//! that its parent had, for processes that are gone already.

mod as_user;
mod content;
mod find;
mod identity;
mod jit;
mod open;
#[cfg(test)]
mod tests;
mod vdso;

use std::collections::{BTreeMap, HashMap, HashSet};
use std::fs::File;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::rc::Rc;
use std::time::Duration;

use nix::time::{ClockId, clock_gettime};

pub use self::content::Pinned;
pub use self::find::open_mapped;
use self::identity::Identity;
pub use self::jit::{Jit, JitSlot};
pub use self::open::{Missing, Root};
use crate::elf;
use crate::model::compiled::Compiled;
use crate::model::event::{FileId, Mmap};
use crate::model::scripts::{Runtime, Scripts};
use crate::text::basename;

/// Index of an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ObjectId(u32);

impl ObjectId {
    /// The kernel image and its modules, by address.
    pub const KERNEL: Self = Self(0);
    /// Addresses that no object holds.
    pub const NONE: Self = Self(1);
    /// Memory that was filled at run time, of whatever process: see [`Objects::jit`].
    pub const MEMORY: Self = Self(2);

    /// Functions of scripts that a runtime runs.
    pub fn of_scripts(runtime: Runtime) -> Self {
        Self(3 + runtime as u32)
    }

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
    /// A file, or why there is none. The kernel's pages of user code (vDSO) are one that was read
    /// from memory.
    File(Result<Pinned, Missing>),
    /// Code that a process's runtime compiled; offsets are addresses in the process. `None` of memory whose
    /// process is not known.
    Jit(Option<Jit>),
    /// Functions of scripts; offsets are numbers in [`Objects::scripts`].
    Script(Runtime),
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
    /// What the path starts from: the root of the process that was first seen to map it.
    pub root: Root,
    /// The object whose unwind table is this one's: itself, or a file with the same build id, size and
    /// headers.
    pub table: ObjectId,
    /// Whether a sample fell into it.
    sampled: bool,
}

impl Object {
    /// Its file, with the content that it had when it was mapped.
    ///
    /// # Errors
    /// If there is none, or its content has changed.
    pub fn file(&self) -> Result<&File, Missing> {
        match &self.source {
            Source::File(file) => file.as_ref().map_err(|why| *why).and_then(Pinned::file),
            _ => Err(Missing::NotElf),
        }
    }

    /// Owner and rights of its file, whatever has become of the content.
    pub fn metadata(&self) -> Option<std::fs::Metadata> {
        match &self.source {
            Source::File(file) => file.as_ref().ok()?.metadata().ok(),
            _ => None,
        }
    }

    /// Whether it is a file with code for the 32-bit mode of the machine, or one with other code.
    pub fn is_32_bit(&self) -> Option<bool> {
        match &self.source {
            Source::File(Ok(file)) => Some(file.layout.is_32_bit),
            _ => None,
        }
    }
}

/// Memory that the kernel gives a file, of which it tells these paths.
const MEMORY_WITH_PATH: [&str; 3] = ["/anon_hugepage", "/SYSV", "/dev/zero"];

/// What a mapping holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Held {
    /// Part of an object.
    Object(ObjectId),
    /// Memory that was filled at run time.
    Memory,
}

/// The object that a file of the kernel's was, when it was last mapped.
#[derive(Clone, Copy, Debug)]
struct Known {
    object: ObjectId,
    /// When that was first seen.
    since_ns: u64,
}

/// All objects seen so far.
#[derive(Debug)]
pub struct Objects {
    objects: Vec<Object>,
    /// An inode says nothing without its path: device numbers differ between what the kernel and what
    /// stat(2) reports for stacked file systems.
    by_file: HashMap<(FileId, String), Known>,
    by_identity: HashMap<(Identity, String), ObjectId>,
    /// The last one that was opened of a device and inode, for files that have lost their path.
    by_inode: HashMap<(u64, u64), ObjectId>,
    /// Files without an ELF program in them.
    memory: HashSet<(FileId, String)>,
    /// By build id, size and digest of the headers.
    tables: HashMap<(Vec<u8>, u64, u64), ObjectId>,
    /// Roots are few (one per container), so each is opened once: (device, inode, namespace).
    roots: HashMap<(u64, u64, u64), Rc<OwnedFd>>,
    /// The kernel has one image for each mode of the machine, told apart by length and place.
    vdso: HashMap<(u64, bool), ObjectId>,
    /// Frames of scripts.
    pub scripts: Scripts,
    /// Code that runtimes have compiled.
    pub compiled: Compiled,
    /// Bytes of content that are copied.
    copied: u64,
    /// How long may be waited for file systems that are their users' own.
    patience: Duration,
    /// Below which number descriptors must be that are kept: the others are needed for other things.
    keep_below: i32,
}

impl Default for Objects {
    fn default() -> Self {
        let mut objects = Self {
            objects: Vec::new(),
            by_file: HashMap::new(),
            by_identity: HashMap::new(),
            by_inode: HashMap::new(),
            memory: HashSet::new(),
            tables: HashMap::new(),
            roots: HashMap::new(),
            vdso: HashMap::new(),
            scripts: Scripts::default(),
            compiled: Compiled::default(),
            copied: 0,
            patience: as_user::PATIENCE,
            keep_below: i32::MAX,
        };
        objects.add("[kernel.kallsyms]", elf::kernel_build_id().unwrap_or_default(), Source::Kernel);
        objects.add("[unmapped]", Vec::new(), Source::Nowhere);
        objects.add("[jit]", Vec::new(), Source::Jit(None));
        for runtime in Runtime::ALL {
            let path = format!("[{}]", runtime.language().to_lowercase());
            objects.add(&path, Vec::new(), Source::Script(runtime));
        }
        objects
    }
}

impl Objects {
    /// Keeps no file open from now on whose descriptor has this number or a higher one: the kernel gives the
    /// lowest that is free, so that so many are in use then.
    pub fn keep_below(&mut self, number: i32) {
        self.keep_below = number;
    }

    fn kept<T: AsRawFd>(&self, file: T) -> Result<T, Missing> {
        if file.as_raw_fd() < self.keep_below { Ok(file) } else { Err(Missing::TooManyFiles) }
    }

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
        let root = Root::OURS;
        self.objects.push(Object {
            path: path.to_owned(),
            build_id,
            source,
            root,
            table: id,
            sampled: false,
        });
        id
    }

    fn add_file(&mut self, path: &str, file: Result<Pinned, Missing>) -> ObjectId {
        match file {
            Ok(pinned) => {
                let id = self.add(path, Vec::new(), Source::Nowhere);
                self.fill(id, pinned);
                id
            }
            Err(why) => self.add(path, Vec::new(), Source::File(Err(why))),
        }
    }

    fn fill(&mut self, id: ObjectId, pinned: Pinned) {
        let object = &mut self.objects[id.index()];
        object.build_id.clone_from(&pinned.layout.build_id);
        if !object.build_id.is_empty() {
            let same_table = (object.build_id.clone(), pinned.identity().size, pinned.layout.digest);
            object.table = *self.tables.entry(same_table).or_insert(id);
        }
        object.source = Source::File(Ok(pinned));
        if std::mem::take(&mut object.sampled) {
            self.sampled(id);
        }
    }

    /// Closes the files of all objects but those that are used. Their ids stay, and what was built of them; who
    /// maps such a file again gets another object.
    pub fn keep_open(&mut self, mut used: HashSet<ObjectId>) {
        used.extend(used.clone().into_iter().map(|id| self.get(id).table));
        for (at, object) in self.objects.iter_mut().enumerate() {
            let holds = matches!(object.source, Source::File(Ok(_)) | Source::Jit(Some(_)));
            if holds && !used.contains(&ObjectId(at as u32)) {
                object.source = Source::File(Err(Missing::Gone));
                object.path = String::new();
                object.root = Root::OURS;
            }
        }
        self.by_file.retain(|_, known| used.contains(&known.object));
        self.by_identity.retain(|_, object| used.contains(object));
        self.by_inode.retain(|_, object| used.contains(object));
        self.roots.retain(|_, root| Rc::strong_count(root) > 1);
        self.memory.clear();
    }

    /// The same for deleted files alone, which take room on their disk as long as they are open.
    pub fn close_deleted(&mut self, mut used: HashSet<ObjectId>) {
        let is_deleted = |object: &Object| {
            let meta = object.file().ok().and_then(|file| file.metadata().ok());
            meta.is_some_and(|meta| meta.nlink() == 0)
        };
        let all = (0..self.objects.len()).map(|at| ObjectId(at as u32));
        used.extend(all.filter(|&id| !is_deleted(self.get(id))));
        self.keep_open(used);
    }

    /// The object of a BPF program's code.
    pub fn bpf(&mut self, name: &str, start: u64, end: u64) -> ObjectId {
        self.add(name, Vec::new(), Source::Bpf { start, end })
    }

    /// The object of the code that a process makes at run time, made when the first sample falls into it.
    pub fn jit(&mut self, slot: &JitSlot, root: &Root) -> ObjectId {
        // Processes that were forked from one another, the first of them last.
        let mut slots = vec![slot];
        while let Some(parent) = slots.last().and_then(|slot| slot.parent.as_deref())
            && slots.len() < jit::MOST_PARENTS
        {
            slots.push(parent);
        }
        let mut above = None;
        for slot in slots.into_iter().rev() {
            let object = slot.object().unwrap_or_else(|| {
                let mut jit = Jit::new(slot.tgid(), above);
                jit.find_map(root);
                let object = self.add("[jit]", Vec::new(), Source::Jit(Some(jit)));
                slot.set(object);
                object
            });
            above = Some(object);
        }
        above.unwrap_or(ObjectId::MEMORY)
    }

    /// Looks for a process's list of compiled functions again, if samples fell into such code.
    pub fn find_perf_map(&mut self, slot: &JitSlot, root: &Root) {
        if let Some(object) = slot.object()
            && let Source::Jit(Some(jit)) = &mut self.objects[object.index()].source
        {
            jit.find_map(root);
        }
    }

    /// Keeps a process's jitdump, if that is what it maps.
    pub fn find_jitdump(&mut self, time_ns: u64, slot: &JitSlot, mmap: &Mmap, root: &Root) {
        let name = basename(&mmap.path);
        if !(name.starts_with("jit-") && name.ends_with(".dump")) {
            return;
        }
        let found = find::file(time_ns, mmap, root).and_then(|(file, _)| self.kept(file));
        let Ok(file) = found else { return };
        let object = self.jit(slot, root);
        if let Source::Jit(Some(jit)) = &mut self.objects[object.index()].source {
            jit.dump = Some(file);
        }
    }

    /// What a mapping held at `time_ns`, opened if this is the first mapping of it.
    pub fn of_mapping(&mut self, time_ns: u64, mmap: &Mmap, root: &Root) -> Held {
        match &mmap.file {
            FileId::Anonymous if mmap.path == "[vdso]" => Held::Object(self.of_vdso(mmap)),
            FileId::Anonymous if ["[uprobes]", "[vsyscall]"].contains(&mmap.path.as_str()) => {
                Held::Object(self.of_kernel_page(&mmap.path))
            }
            FileId::Anonymous => Held::Memory,
            FileId::Inode { .. } => self.of_file(time_ns, mmap, root),
        }
    }

    /// Whether a mapping's file has been opened, so that nothing has to be looked for.
    pub fn knows(&self, time_ns: u64, mmap: &Mmap) -> bool {
        if mmap.file == FileId::Anonymous {
            return true;
        }
        let key = (mmap.file.clone(), mmap.path.clone());
        let is_current = |known: &Known| match &self.get(known.object).source {
            Source::File(Ok(file)) => file.was_same_at(time_ns),
            _ => false,
        };
        self.memory.contains(&key) || self.by_file.get(&key).is_some_and(is_current)
    }

    fn of_file(&mut self, time_ns: u64, mmap: &Mmap, root: &Root) -> Held {
        let key = (mmap.file.clone(), mmap.path.clone());
        if self.memory.contains(&key) {
            return Held::Memory;
        }
        let known = self.by_file.get(&key).copied();
        if let Some(known) = known {
            match &self.get(known.object).source {
                Source::File(Ok(file)) if file.was_same_at(time_ns) => return self.held(known.object, mmap),
                Source::File(Err(Missing::NotForLinux)) => return Held::Object(known.object),
                _ => {}
            }
        }
        let found = match find::file(time_ns, mmap, root) {
            Ok((file, identity)) => self.kept(file).and_then(|file| Pinned::new(file, identity, now_ns())),
            Err(Missing::NotPermitted) => find::place(mmap)
                .and_then(|place| as_user::copy(mmap.tgid, &place, &mut self.patience))
                .and_then(Pinned::copied),
            Err(why) => Err(why),
        };
        match found {
            Ok(pinned) => {
                let count = self.objects.len();
                let object = self.opened(known, &mmap.path, pinned);
                if self.objects.len() > count || known.is_some_and(|known| known.object == object) {
                    self.objects[object.index()].root = root.clone();
                }
                if known.is_none_or(|known| known.object != object) {
                    self.by_file.insert(key, Known { object, since_ns: time_ns });
                }
                self.held(object, mmap)
            }
            Err(Missing::NotElf) => {
                self.memory.insert(key);
                Held::Memory
            }
            Err(_) if MEMORY_WITH_PATH.iter().any(|path| mmap.path.starts_with(path)) => Held::Memory,
            Err(why) => {
                if let Some(object) = self.kept_of_inode(time_ns, &mmap.file) {
                    self.by_file.insert(key, Known { object, since_ns: time_ns });
                    return self.held(object, mmap);
                }
                Held::Object(self.not_opened(time_ns, key, known, why))
            }
        }
    }

    /// The object whose descriptor holds an inode, whatever its path is by now: it was renamed, or removed and is
    /// mapped still.
    fn kept_of_inode(&self, time_ns: u64, id: &FileId) -> Option<ObjectId> {
        let FileId::Inode { device, inode, .. } = *id else { return None };
        let object = *self.by_inode.get(&(device, inode))?;
        let Source::File(Ok(file)) = &self.get(object).source else { return None };
        (file.identity().is(id) && file.was_same_at(time_ns)).then_some(object)
    }

    /// The object of a file that was found.
    fn opened(&mut self, known: Option<Known>, path: &str, pinned: Pinned) -> ObjectId {
        let identity = pinned.identity();
        let by_identity = (identity, path.to_owned());
        if let Some(&same) = self.by_identity.get(&by_identity) {
            return same;
        }
        let object = match known {
            // Another process leads to a file that the first one did not live to show.
            Some(known) if self.is_missing(known.object) && identity.is_older_than(known.since_ns) => {
                self.fill(known.object, pinned);
                known.object
            }
            _ => self.add_file(path, Ok(pinned)),
        };
        self.by_identity.insert(by_identity, object);
        self.by_inode.insert((identity.device, identity.inode), object);
        object
    }

    /// The object of a file that was not found, which another process may still lead to.
    fn not_opened(
        &mut self,
        time_ns: u64,
        key: (FileId, String),
        known: Option<Known>,
        why: Missing,
    ) -> ObjectId {
        if let Some(known) = known.filter(|known| self.is_missing(known.object)) {
            self.objects[known.object.index()].source = Source::File(Err(why));
            return known.object;
        }
        let object = self.add_file(&key.1, Err(why));
        self.by_file.insert(key, Known { object, since_ns: time_ns });
        object
    }

    fn is_missing(&self, object: ObjectId) -> bool {
        matches!(self.get(object).source, Source::File(Err(_)))
    }

    /// An object, unless the mapping is of a part of its file that no program is loaded from.
    fn held(&self, object: ObjectId, mmap: &Mmap) -> Held {
        match &self.get(object).source {
            Source::File(Ok(file)) if !file.layout.is_loaded_at(mmap.file_offset) => Held::Memory,
            _ => Held::Object(object),
        }
    }

    /// A page of the kernel's that has no file and no names.
    fn of_kernel_page(&mut self, path: &str) -> ObjectId {
        let key = (FileId::Anonymous, path.to_owned());
        if let Some(known) = self.by_file.get(&key) {
            return known.object;
        }
        let object = self.add_file(path, Err(Missing::KernelPage));
        self.by_file.insert(key, Known { object, since_ns: 0 });
        object
    }

    /// Notes that a sample fell into an object: from then on its content is worth something.
    pub fn sampled(&mut self, id: ObjectId) {
        let object = &mut self.objects[id.index()];
        if std::mem::replace(&mut object.sampled, true) {
            return;
        }
        if let Source::File(Ok(file)) = &mut object.source {
            self.copied += file.copy(content::COPIES_BYTES - self.copied);
        }
    }

    /// Memory that copies of files take in the kernel.
    pub fn copied_bytes(&self) -> u64 {
        self.copied
    }

    /// Files with samples that could not be opened or have changed, by the reason.
    pub fn missing(&self) -> BTreeMap<&'static str, usize> {
        let mut missing = BTreeMap::new();
        for object in self.objects.iter().filter(|object| object.sampled) {
            if let (Source::File(_), Err(why)) = (&object.source, object.file()) {
                *missing.entry(why.why()).or_default() += 1;
            }
        }
        missing
    }

    /// Of files with samples, those that have their unwind tables.
    pub fn sampled_tables(&self) -> impl Iterator<Item = ObjectId> {
        self.objects.iter().filter(|object| object.sampled).map(|object| object.table)
    }

    /// Files with samples whose code is for the machine's 32-bit mode.
    pub fn of_32_bits(&self) -> usize {
        self.objects.iter().filter(|object| object.sampled && object.is_32_bit() == Some(true)).count()
    }

    /// The root directory of a living process; `None` when it is gone.
    pub fn root_of(&mut self, tgid: u32) -> Option<Root> {
        let link = format!("/proc/{tgid}/root");
        let root = std::fs::metadata(&link).ok()?;
        let namespace = std::fs::metadata(format!("/proc/{tgid}/ns/mnt")).ok()?;
        let key = (root.dev(), root.ino(), namespace.ino());
        if let Some(known) = self.roots.get(&key) {
            return Some(Root(Some(Rc::clone(known))));
        }
        let fd = Rc::new(open::directory(&link).ok()?);
        self.roots.insert(key, Rc::clone(&fd));
        Some(Root(Some(fd)))
    }
}

/// Now, on CLOCK_MONOTONIC.
fn now_ns() -> u64 {
    clock_gettime(ClockId::CLOCK_MONOTONIC)
        .map_or(0, |now| now.tv_sec() as u64 * 1_000_000_000 + now.tv_nsec() as u64)
}
