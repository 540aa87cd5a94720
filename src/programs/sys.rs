//! What the kernel is asked about its programs, maps and links. With `sys/link.rs`, the only file of the room that
//! calls libbpf, and all its unsafe code.
//!
//! An object may vanish between two calls; [`open`] says so with `None`, and what is open stays.

use std::ffi::{CString, c_char, c_int, c_void};
use std::io;
use std::mem::size_of;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::path::Path;

pub use libbpf_rs::libbpf_sys as raw;

mod link;
pub use link::{Target, link, perf_event};

/// What has an id.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Object {
    /// A program.
    Program,
    /// A map.
    Map,
    /// A link, which attaches a program.
    Link,
}

/// What the kernel tells of a program.
#[derive(Clone, Debug, Default)]
pub struct Program {
    /// As bpf_prog_info has it.
    pub raw: raw::bpf_prog_info,
    /// Maps it uses.
    pub maps: Vec<u32>,
    /// Its main function, in its type information.
    pub function_type: Option<u32>,
    /// Addresses of its functions' code.
    pub functions: Vec<u64>,
    /// Bytes of each function's code.
    pub lengths: Vec<u32>,
    /// Hashes of each function's instructions.
    pub tags: Vec<[u8; 8]>,
}

/// Which source line machine code is of, from its address on.
#[derive(Clone, Copy, Debug)]
pub struct LineRecord {
    /// Where the code begins.
    pub addr: u64,
    /// The file's name, as an offset into the strings of the program's type information.
    pub file: u32,
    /// The line.
    pub line: u32,
}

fn checked(returned: c_int) -> io::Result<c_int> {
    if returned < 0 { Err(io::Error::from_raw_os_error(-returned)) } else { Ok(returned) }
}

fn owned(returned: c_int) -> io::Result<OwnedFd> {
    let fd = checked(returned)?;
    // SAFETY: the call succeeded, so that it is a new descriptor and nobody else's.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Ids above `id`, in order.
pub fn ids_after(object: Object, mut id: u32) -> io::Result<Vec<u32>> {
    let next = match object {
        Object::Program => raw::bpf_prog_get_next_id,
        Object::Map => raw::bpf_map_get_next_id,
        Object::Link => raw::bpf_link_get_next_id,
    };
    let mut ids = Vec::new();
    loop {
        // SAFETY: the call writes one number.
        match checked(unsafe { next(id, &raw mut id) }) {
            Ok(_) => ids.push(id),
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(ids),
            Err(error) => return Err(error),
        }
    }
}

/// A descriptor of an object; `None` if there is none of this id any more.
pub fn open(object: Object, id: u32) -> io::Result<Option<OwnedFd>> {
    // SAFETY: the calls take a number.
    let fd = unsafe {
        match object {
            Object::Program => raw::bpf_prog_get_fd_by_id(id),
            Object::Map => raw::bpf_map_get_fd_by_id(id),
            Object::Link => raw::bpf_link_get_fd_by_id(id),
        }
    };
    match owned(fd) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        fd => fd.map(Some),
    }
}

/// The object that is pinned at a path.
pub fn open_pinned(path: &Path) -> io::Result<OwnedFd> {
    let path = CString::new(path.as_os_str().as_encoded_bytes())?;
    // SAFETY: `path` ends in NUL.
    owned(unsafe { raw::bpf_obj_get(path.as_ptr()) })
}

/// Structures of the kernel's answers.
///
/// # Safety
/// They are plain numbers, and zero for what is not asked for.
unsafe trait Info: Default {}
// SAFETY: they are generated from the kernel's header, without padding that is not named.
unsafe impl Info for raw::bpf_prog_info {}
// SAFETY: as above.
unsafe impl Info for raw::bpf_map_info {}
// SAFETY: as above; a union of structures of numbers.
unsafe impl Info for raw::bpf_link_info {}
// SAFETY: as above.
unsafe impl Info for raw::bpf_btf_info {}

/// Asks for what `info` has room for.
///
/// # Safety
/// Every pointer in `info` points to as many elements as the number beside it says.
unsafe fn ask<T: Info>(fd: &OwnedFd, info: &mut T) -> io::Result<()> {
    let mut length = size_of::<T>() as u32;
    // SAFETY: `info` has `length` bytes; the caller vouches for what it points to.
    let returned = unsafe {
        raw::bpf_obj_get_info_by_fd(fd.as_raw_fd(), (&raw mut *info).cast::<c_void>(), &raw mut length)
    };
    checked(returned).map(drop)
}

/// Everything about a program.
pub fn program(fd: &OwnedFd) -> io::Result<Program> {
    let mut room = 32;
    loop {
        let mut maps = vec![0u32; room];
        let mut functions = vec![0u64; room];
        let mut lengths = vec![0u32; room];
        let mut tags = vec![[0u8; 8]; room];
        let mut function = raw::bpf_func_info::default();
        let mut info = raw::bpf_prog_info {
            nr_map_ids: room as u32,
            map_ids: maps.as_mut_ptr() as u64,
            nr_jited_ksyms: room as u32,
            jited_ksyms: functions.as_mut_ptr() as u64,
            nr_jited_func_lens: room as u32,
            jited_func_lens: lengths.as_mut_ptr() as u64,
            nr_prog_tags: room as u32,
            prog_tags: tags.as_mut_ptr() as u64,
            nr_func_info: 1,
            func_info_rec_size: size_of::<raw::bpf_func_info>() as u32,
            func_info: &raw mut function as u64,
            ..Default::default()
        };
        // SAFETY: there is room for `room` ids, addresses, lengths and tags, and one function.
        unsafe { ask(fd, &mut info)? };
        let counts = [info.nr_map_ids, info.nr_jited_ksyms, info.nr_jited_func_lens, info.nr_prog_tags];
        let needed = counts.into_iter().max().unwrap_or(0) as usize;
        if needed > room {
            room = needed;
            continue;
        }
        maps.truncate(info.nr_map_ids as usize);
        // They are hidden where kernel addresses are.
        functions.truncate(info.nr_jited_ksyms as usize);
        lengths.truncate(info.nr_jited_func_lens as usize);
        tags.truncate(info.nr_prog_tags as usize);
        if functions.contains(&0) {
            functions.clear();
            lengths.clear();
        }
        let told = info.nr_func_info > 0 && function.type_id > 0;
        let function_type = told.then_some(function.type_id);
        return Ok(Program { raw: info, maps, function_type, functions, lengths, tags });
    }
}

/// Source lines of a program's code, in the order of its instructions. Empty where kernel addresses are hidden.
pub fn lines(fd: &OwnedFd, program: &raw::bpf_prog_info) -> io::Result<Vec<LineRecord>> {
    let mut lines = vec![raw::bpf_line_info::default(); program.nr_line_info as usize];
    let mut addrs = vec![0u64; program.nr_jited_line_info as usize];
    let mut info = raw::bpf_prog_info {
        nr_line_info: lines.len() as u32,
        line_info_rec_size: size_of::<raw::bpf_line_info>() as u32,
        line_info: lines.as_mut_ptr() as u64,
        nr_jited_line_info: addrs.len() as u32,
        jited_line_info_rec_size: size_of::<u64>() as u32,
        jited_line_info: addrs.as_mut_ptr() as u64,
        ..Default::default()
    };
    // SAFETY: both numbers of records are those of the buffers, of whose records they have the size.
    unsafe { ask(fd, &mut info)? };
    let records = lines.iter().zip(addrs).filter(|(_, addr)| *addr != 0);
    // The lower ten bits of a place are its column.
    Ok(records
        .map(|(line, addr)| LineRecord { addr, file: line.file_name_off, line: line.line_col >> 10 })
        .collect())
}

/// A program's counters, and nothing that takes room.
pub fn counters(fd: &OwnedFd) -> io::Result<raw::bpf_prog_info> {
    let mut info = raw::bpf_prog_info::default();
    // SAFETY: it points to nothing.
    unsafe { ask(fd, &mut info)? };
    Ok(info)
}

/// What the kernel tells of a map.
pub fn map(fd: &OwnedFd) -> io::Result<raw::bpf_map_info> {
    let mut info = raw::bpf_map_info::default();
    // SAFETY: it points to nothing.
    unsafe { ask(fd, &mut info)? };
    Ok(info)
}

/// Ids of the programs in a map for tail calls, of which none has more than a few hundred.
pub fn held_programs(fd: &OwnedFd, info: &raw::bpf_map_info) -> Vec<u32> {
    const MOST: u32 = 4096;
    if info.type_ != raw::BPF_MAP_TYPE_PROG_ARRAY || info.key_size != 4 || info.value_size != 4 {
        return Vec::new();
    }
    let mut programs = Vec::new();
    for key in 0..info.max_entries.min(MOST) {
        let mut id = 0u32;
        // SAFETY: key and value have the sizes that the map was just checked to have.
        let returned = unsafe {
            raw::bpf_map_lookup_elem(fd.as_raw_fd(), (&raw const key).cast(), (&raw mut id).cast())
        };
        programs.extend((returned == 0).then_some(id));
    }
    programs
}

/// The type information of an id: its bytes, its name if it is the kernel's or a module's.
pub fn types(id: u32) -> io::Result<(Vec<u8>, String)> {
    // SAFETY: the call takes a number.
    let fd = owned(unsafe { raw::bpf_btf_get_fd_by_id(id) })?;
    let mut sizes = raw::bpf_btf_info::default();
    // SAFETY: it points to nothing.
    unsafe { ask(&fd, &mut sizes)? };
    let mut bytes = vec![0u8; sizes.btf_size as usize];
    let mut name = [0 as c_char; 64];
    let mut info = raw::bpf_btf_info {
        btf: bytes.as_mut_ptr() as u64,
        btf_size: bytes.len() as u32,
        name: name.as_mut_ptr() as u64,
        name_len: name.len() as u32,
        ..Default::default()
    };
    // SAFETY: both lengths are those of the buffers.
    unsafe { ask(&fd, &mut info)? };
    Ok((bytes, if info.kernel_btf != 0 { string(&name) } else { String::new() }))
}

/// Programs that are attached, by type, to what a descriptor (of a cgroup, a network namespace, a map)
/// or the index of a network device stands for. None if that cannot have any.
pub fn attached(target: u32, attach_type: u32) -> Vec<u32> {
    let mut room = 16u32;
    loop {
        let mut ids = vec![0u32; room as usize];
        let mut count = room;
        let mut flags = 0;
        // SAFETY: there is room for `count` ids.
        let returned = unsafe {
            raw::bpf_prog_query(
                target as c_int,
                attach_type,
                0,
                &raw mut flags,
                ids.as_mut_ptr(),
                &raw mut count,
            )
        };
        match checked(returned) {
            Ok(_) => {
                ids.truncate(count as usize);
                return ids;
            }
            Err(error) if error.kind() == io::ErrorKind::StorageFull && room < 1 << 16 => room *= 4,
            Err(_) => return Vec::new(),
        }
    }
}

/// Switches statistics on for as long as the descriptor is open.
pub fn enable_statistics() -> io::Result<OwnedFd> {
    // SAFETY: the call takes a number.
    owned(unsafe { raw::bpf_enable_stats(raw::BPF_STATS_RUN_TIME) })
}

/// Loads a program that does nothing: `return 0`.
pub fn load_empty() -> io::Result<OwnedFd> {
    let instructions = [0xb7, 0x95].map(|code| raw::bpf_insn { code, ..Default::default() });
    // SAFETY: the strings end in NUL, there are as many instructions as told, and no options.
    owned(unsafe {
        raw::bpf_prog_load(
            raw::BPF_PROG_TYPE_SOCKET_FILTER,
            c"profiler_empty".as_ptr(),
            c"GPL".as_ptr(),
            instructions.as_ptr(),
            instructions.len() as _,
            std::ptr::null_mut(),
        )
    })
}

/// Runs the empty program so many times.
pub fn run_empty(fd: &OwnedFd, times: u32) -> io::Result<()> {
    let packet = [0u8; 64];
    let mut options = raw::bpf_test_run_opts {
        sz: size_of::<raw::bpf_test_run_opts>() as _,
        data_in: packet.as_ptr().cast(),
        data_size_in: packet.len() as u32,
        repeat: times as c_int,
        ..Default::default()
    };
    // SAFETY: the packet has the length that is told, and nothing is to be written.
    checked(unsafe { raw::bpf_prog_test_run_opts(fd.as_raw_fd(), &raw mut options) }).map(drop)
}

/// The kernel's word for a program's type, as libbpf and bpftool spell it.
pub fn program_type(number: u32) -> String {
    // SAFETY: libbpf returns a constant string, or null.
    named(unsafe { raw::libbpf_bpf_prog_type_str(number) }, number)
}

/// The word for a map's type.
pub fn map_type(number: u32) -> String {
    // SAFETY: as above.
    named(unsafe { raw::libbpf_bpf_map_type_str(number) }, number)
}

/// The word for an attach type.
pub fn attach_type(number: u32) -> String {
    // SAFETY: as above.
    named(unsafe { raw::libbpf_bpf_attach_type_str(number) }, number)
}

/// The word for a link's type.
pub fn link_type(number: u32) -> String {
    // SAFETY: as above.
    named(unsafe { raw::libbpf_bpf_link_type_str(number) }, number)
}

fn named(name: *const c_char, number: u32) -> String {
    if name.is_null() {
        return format!("type {number}");
    }
    // SAFETY: a constant of libbpf's, which ends in NUL.
    unsafe { std::ffi::CStr::from_ptr(name) }.to_string_lossy().into_owned()
}

/// The text before the first NUL.
pub fn string(chars: &[c_char]) -> String {
    let bytes: Vec<u8> = chars.iter().map(|&char| char as u8).take_while(|&byte| byte != 0).collect();
    String::from_utf8_lossy(&bytes).into_owned()
}
