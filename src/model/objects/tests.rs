//! Objects of real files and of our own memory.

use std::fs;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use memmap2::MmapOptions;
use nix::sys::memfd::{MFdFlags, memfd_create};

use super::*;

/// A small program that every system has.
const PROGRAM: &str = "/bin/true";

struct Dir(PathBuf);

impl Dir {
    fn new(name: &str) -> Self {
        let dir = std::env::temp_dir().join(format!("profiler-objects-{name}-{}", std::process::id()));
        fs::create_dir_all(&dir).unwrap();
        Self(dir)
    }

    fn write(&self, name: &str, content: &[u8]) -> PathBuf {
        let path = self.0.join(name);
        fs::write(&path, content).unwrap();
        path
    }
}

impl Drop for Dir {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// A mapping of a file's code as a process made it that is gone: only the path is left.
fn mapping(path: &Path) -> Mmap {
    let identity = Identity::of(&File::open(path).unwrap()).unwrap();
    let Identity { device, inode, generation, .. } = identity;
    Mmap {
        tgid: 0,
        range: 0x1000..0x2000,
        file_offset: 0,
        file: FileId::Inode { device, inode, generation },
        path: path.to_str().unwrap().to_owned(),
    }
}

/// Later than all changes so far, by more than a file system's clock may be late.
fn later() -> u64 {
    now_ns() + 1_000_000_000
}

fn object(objects: &mut Objects, mmap: &Mmap) -> ObjectId {
    match objects.of_mapping(later(), mmap, &Root::OURS) {
        Held::Object(object) => object,
        Held::Memory => panic!("{mmap:?} was taken for memory"),
    }
}

fn content(objects: &Objects, object: ObjectId) -> Result<Vec<u8>, Missing> {
    let file = objects.get(object).file()?;
    let mut content = vec![0; file.metadata().unwrap().len() as usize];
    std::os::unix::fs::FileExt::read_exact_at(file, &mut content, 0).unwrap();
    Ok(content)
}

#[test]
fn files_of_one_build_id_are_objects_of_their_own() {
    let dir = Dir::new("build-id");
    let program = fs::read(PROGRAM).unwrap();
    let longer = [program.as_slice(), b"more"].concat();
    let (one, copy, other) =
        (dir.write("one", &program), dir.write("copy", &program), dir.write("other", &longer));
    let mut objects = Objects::default();
    let [one, copy, other] = [one, copy, other].map(|path| object(&mut objects, &mapping(&path)));
    let [one, copy, other] = [one, copy, other].map(|id| objects.get(id));
    assert!(!one.build_id.is_empty() && one.build_id == copy.build_id && one.build_id == other.build_id);
    assert!(one.path != copy.path && copy.path != other.path);
    // Equal files are walked by one table, others are not.
    assert!(one.table == copy.table && one.table != other.table);
}

#[test]
fn a_file_that_is_overwritten_is_another_object() {
    let dir = Dir::new("overwritten");
    let first = fs::read(PROGRAM).unwrap();
    let second = [first.as_slice(), b"second"].concat();
    let path = dir.write("tool", &first);
    let mut objects = Objects::default();
    let before = object(&mut objects, &mapping(&path));
    assert_eq!(before, object(&mut objects, &mapping(&path)));
    assert_eq!(content(&objects, before).unwrap(), first);
    // Once without samples in it, so that nothing was copied.
    dir.write("tool", &second);
    assert_eq!(content(&objects, before).unwrap_err(), Missing::Changed);
    let after = object(&mut objects, &mapping(&path));
    assert_ne!(before, after);
    assert_eq!(content(&objects, after).unwrap(), second);
    // Once with some.
    objects.sampled(after);
    dir.write("tool", &first);
    assert_eq!(content(&objects, after).unwrap(), second);
    let again = object(&mut objects, &mapping(&path));
    assert!(again != before && again != after);
    assert_eq!(content(&objects, again).unwrap(), first);
    objects.sampled(before);
    assert_eq!(objects.missing(), BTreeMap::from([("binary changed since", 1)]));
}

#[test]
fn other_names_and_rights_are_no_change() {
    let dir = Dir::new("renamed");
    let path = dir.write("tool", &fs::read(PROGRAM).unwrap());
    let mut objects = Objects::default();
    let one = object(&mut objects, &mapping(&path));
    fs::hard_link(&path, dir.0.join("link")).unwrap();
    let mut rights = fs::metadata(&path).unwrap().permissions();
    rights.set_readonly(true);
    fs::set_permissions(&path, rights).unwrap();
    assert_eq!(one, object(&mut objects, &mapping(&path)));
    fs::remove_file(&path).unwrap();
    assert!(objects.get(one).file().is_ok());
}

/// The path of a process that is gone leads to what has its place now.
#[test]
fn a_file_that_has_the_place_of_another_is_not_taken_for_it() {
    let dir = Dir::new("place");
    let path = dir.write("tool", &fs::read(PROGRAM).unwrap());
    let here = mapping(&path);
    let FileId::Inode { device, inode, generation } = here.file else { panic!("{here:?}") };
    let missing = |file: FileId, time_ns: u64| {
        let mut objects = Objects::default();
        let mmap = Mmap { file, ..here.clone() };
        let Held::Object(object) = objects.of_mapping(time_ns, &mmap, &Root::OURS) else {
            panic!("taken for memory");
        };
        objects.get(object).file().err()
    };
    assert_eq!(missing(here.file.clone(), later()), None);
    let of_another = FileId::Inode { device, inode: inode + 1, generation };
    assert_eq!(missing(of_another, later()), Some(Missing::Replaced));
    let of_another_device = FileId::Inode { device: device + 1, inode, generation };
    assert_eq!(missing(of_another_device, later()), Some(Missing::Replaced));
    // tmpfs has no generations, and does not use an inode's number again.
    if generation != 0 {
        let of_the_one_before = FileId::Inode { device, inode, generation: generation + 1 };
        assert_eq!(missing(of_the_one_before, later()), Some(Missing::Replaced));
    }
    // Mapped before it was written.
    assert_eq!(missing(here.file.clone(), now_ns() - 1_000_000_000), Some(Missing::Changed));
    fs::remove_file(&path).unwrap();
    assert_eq!(missing(here.file.clone(), later()), Some(Missing::Gone));
}

/// Our own mapping at an address, as the kernel tells it.
fn own_mapping(addr: *const u8) -> Mmap {
    let maps = fs::read_to_string("/proc/self/maps").unwrap();
    let start = format!("{:x}-", addr as u64);
    let line = maps.lines().find(|line| line.starts_with(&start)).unwrap();
    let mut mmap = crate::model::maps::part(std::process::id(), line).unwrap();
    mmap.range = addr as u64..mmap.range.end;
    mmap
}

#[test]
fn memory_with_a_program_in_it_is_that_program() {
    if !nix::unistd::geteuid().is_root() {
        return;
    }
    let program = fs::read(PROGRAM).unwrap();
    for (content, is_program) in [(program.as_slice(), true), (&[0xc3; 1 << 16], false)] {
        let memory = File::from(memfd_create("code", MFdFlags::MFD_CLOEXEC).unwrap());
        std::os::unix::fs::FileExt::write_all_at(&memory, content, 0).unwrap();
        // SAFETY: nobody else has the file, and nothing of it is run or read.
        let map = unsafe { MmapOptions::new().map_exec(&memory) }.unwrap();
        let mut objects = Objects::default();
        match objects.of_mapping(now_ns(), &own_mapping(map.as_ptr()), &Root::OURS) {
            Held::Object(object) if is_program => assert!(!objects.get(object).build_id.is_empty()),
            Held::Memory if !is_program => {}
            held => panic!("{held:?}"),
        }
    }
}

#[test]
fn our_own_vdso() {
    let range = vdso::own().expect("this process has a vdso");
    let mmap = Mmap {
        tgid: std::process::id(),
        range,
        file_offset: 0,
        file: FileId::Anonymous,
        path: "[vdso]".to_owned(),
    };
    let mut objects = Objects::default();
    let vdso = object(&mut objects, &mmap);
    assert!(content(&objects, vdso).unwrap().starts_with(b"\x7fELF"));
    assert!(!objects.get(vdso).build_id.is_empty() && objects.get(vdso).is_32_bit() != Some(true));
    assert_eq!(vdso, object(&mut objects, &mmap));
}

#[test]
fn a_file_is_read_with_the_rights_of_a_process() {
    if !nix::unistd::geteuid().is_root() {
        return;
    }
    let dir = Dir::new("as-user");
    let path = dir.write("secret", b"secret");
    let place = open::locate(path.to_str().unwrap()).unwrap();
    let (mut patience, mut none) = (Duration::from_secs(60), Duration::ZERO);
    let mut copied = as_user::copy(std::process::id(), &place, &mut patience).unwrap();
    let mut content = String::new();
    std::io::Seek::rewind(&mut copied).unwrap();
    std::io::Read::read_to_string(&mut copied, &mut content).unwrap();
    assert_eq!(content, "secret");
    // Nobody may not read what only root may.
    fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
    let mut nobody = Command::new("/bin/sleep").arg("60").uid(65534).gid(65534).spawn().unwrap();
    let refused = as_user::copy(nobody.id(), &place, &mut patience);
    let _ = nobody.kill();
    nobody.wait().unwrap();
    assert_eq!(refused.unwrap_err(), Missing::NotPermitted);
    assert_eq!(as_user::copy(std::process::id(), &place, &mut none).unwrap_err(), Missing::NotPermitted);
}

/// They take room on their disk as long as they are open, and a recording may take days.
#[test]
fn deleted_files_that_nobody_uses_are_closed() {
    let dir = Dir::new("deleted");
    let program = fs::read(PROGRAM).unwrap();
    let paths =
        ["used", "unused", "there"].map(|name| dir.write(name, &[&program, name.as_bytes()].concat()));
    let mut objects = Objects::default();
    let [used, unused, there] = paths.each_ref().map(|path| object(&mut objects, &mapping(path)));
    paths[..2].iter().for_each(|path| fs::remove_file(path).unwrap());
    objects.close_deleted(HashSet::from([used]));
    assert!(objects.get(used).file().is_ok() && objects.get(there).file().is_ok());
    assert_eq!(objects.get(unused).file().unwrap_err(), Missing::Gone);
}
