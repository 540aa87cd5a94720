//! What the kernel is asked about its programs, maps and links. The only file of the room that calls
//! libbpf, and all its unsafe code.
//!
//! An object may vanish between two calls; [`open`] says so with `None`, and what is open stays.

use std::ffi::{CString, c_char, c_int, c_void};
use std::io;
use std::mem::size_of;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::path::Path;

pub use libbpf_rs::libbpf_sys as raw;

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
}

/// Where a link attaches its program, or a perf event runs one. Attach types are those of bpf.h.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    /// A raw tracepoint.
    RawTracepoint(String),
    /// A function, by its type's id in the type information `object`; or in a program, if it is replaced.
    Function { attach_type: u32, object: u32, function: u32 },
    /// A cgroup.
    Cgroup { id: u64, attach_type: u32 },
    /// An iterator over something.
    Iterator(String),
    /// A network namespace.
    Netns { inode: u32, attach_type: u32 },
    /// A network device, whose namespace the link does not tell.
    Device,
    /// Operations of a kernel structure, held in a map.
    Operations { map: u32 },
    /// A hook of netfilter.
    Netfilter { family: u32, hook: u32, priority: i32 },
    /// Kernel functions by their addresses, which are 0 if kallsyms hides them.
    Kprobes { addresses: Vec<u64>, at_return: bool },
    /// Places in a file.
    Uprobes { path: String, offsets: Vec<u64>, at_return: bool },
    /// A place in a kernel function, or an address.
    Kprobe { function: String, offset: u64, address: u64, at_return: bool },
    /// A place in a file.
    Uprobe { path: String, offset: u64, at_return: bool },
    /// A tracepoint.
    Tracepoint(String),
    /// A perf event, by its type and configuration.
    Event { kind: u32, config: u64 },
    /// A map of sockets.
    Sockets { map: u32, attach_type: u32 },
    /// Something that this kernel does not tell, or that we do not know; the link's type.
    Unknown(u32),
}

/// What the kernel tells of a link.
#[derive(Clone, Debug)]
pub struct Link {
    /// The program that it attaches.
    pub program: u32,
    /// Where.
    pub target: Target,
    /// Runs that were left out, since the kernel could not probe there and then.
    pub misses: u64,
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
        let mut function = raw::bpf_func_info::default();
        let mut info = raw::bpf_prog_info {
            nr_map_ids: room as u32,
            map_ids: maps.as_mut_ptr() as u64,
            nr_jited_ksyms: room as u32,
            jited_ksyms: functions.as_mut_ptr() as u64,
            nr_func_info: 1,
            func_info_rec_size: size_of::<raw::bpf_func_info>() as u32,
            func_info: &raw mut function as u64,
            ..Default::default()
        };
        // SAFETY: there is room for `room` ids and addresses, and one function.
        unsafe { ask(fd, &mut info)? };
        let needed = info.nr_map_ids.max(info.nr_jited_ksyms) as usize;
        if needed > room {
            room = needed;
            continue;
        }
        maps.truncate(info.nr_map_ids as usize);
        // They are hidden where kernel addresses are.
        functions.truncate(info.nr_jited_ksyms as usize);
        functions.retain(|address| *address != 0);
        let told = info.nr_func_info > 0 && function.type_id > 0;
        return Ok(Program { raw: info, maps, function_type: told.then_some(function.type_id), functions });
    }
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

/// Where a link attaches what.
pub fn link(fd: &OwnedFd) -> io::Result<Link> {
    let mut info = raw::bpf_link_info::default();
    // SAFETY: it points to nothing.
    unsafe { ask(fd, &mut info)? };
    let mut path = vec![0 as c_char; 4096];
    let (text, room) = (path.as_mut_ptr() as u64, path.len() as u32);
    let at = &mut info.__bindgen_anon_1;
    let mut misses = 0;
    // SAFETY: each field of the union is read where the link's type says that the kernel wrote it, and
    // all are numbers, valid whatever they are. Buffers outlive the second question.
    let target = unsafe {
        match info.type_ {
            raw::BPF_LINK_TYPE_RAW_TRACEPOINT => {
                (at.raw_tracepoint.tp_name, at.raw_tracepoint.tp_name_len) = (text, room);
                ask(fd, &mut info)?;
                Target::RawTracepoint(string(&path))
            }
            raw::BPF_LINK_TYPE_TRACING => Target::Function {
                attach_type: at.tracing.attach_type,
                object: at.tracing.target_obj_id,
                function: at.tracing.target_btf_id,
            },
            raw::BPF_LINK_TYPE_CGROUP => {
                Target::Cgroup { id: at.cgroup.cgroup_id, attach_type: at.cgroup.attach_type }
            }
            raw::BPF_LINK_TYPE_ITER => {
                (at.iter.target_name, at.iter.target_name_len) = (text, room);
                ask(fd, &mut info)?;
                Target::Iterator(string(&path))
            }
            raw::BPF_LINK_TYPE_NETNS => {
                Target::Netns { inode: at.netns.netns_ino, attach_type: at.netns.attach_type }
            }
            raw::BPF_LINK_TYPE_XDP | raw::BPF_LINK_TYPE_TCX | raw::BPF_LINK_TYPE_NETKIT => Target::Device,
            raw::BPF_LINK_TYPE_STRUCT_OPS => Target::Operations { map: at.struct_ops.map_id },
            raw::BPF_LINK_TYPE_NETFILTER => Target::Netfilter {
                family: at.netfilter.pf,
                hook: at.netfilter.hooknum,
                priority: at.netfilter.priority,
            },
            raw::BPF_LINK_TYPE_KPROBE_MULTI => {
                misses = at.kprobe_multi.missed;
                let at_return = at.kprobe_multi.flags & 1 != 0;
                let mut addresses = vec![0u64; at.kprobe_multi.count as usize];
                at.kprobe_multi.addrs = addresses.as_mut_ptr() as u64;
                ask(fd, &mut info)?;
                Target::Kprobes { addresses, at_return }
            }
            raw::BPF_LINK_TYPE_UPROBE_MULTI => {
                let at_return = at.uprobe_multi.flags & 1 != 0;
                let mut offsets = vec![0u64; at.uprobe_multi.count as usize];
                at.uprobe_multi.offsets = offsets.as_mut_ptr() as u64;
                (at.uprobe_multi.path, at.uprobe_multi.path_size) = (text, room);
                ask(fd, &mut info)?;
                Target::Uprobes { path: string(&path), offsets, at_return }
            }
            raw::BPF_LINK_TYPE_SOCKMAP => {
                Target::Sockets { map: at.sockmap.map_id, attach_type: at.sockmap.attach_type }
            }
            raw::BPF_LINK_TYPE_PERF_EVENT => {
                let kind = at.perf_event.type_;
                let event = &mut at.perf_event.__bindgen_anon_1;
                match kind {
                    raw::BPF_PERF_EVENT_UPROBE | raw::BPF_PERF_EVENT_URETPROBE => {
                        let offset = u64::from(event.uprobe.offset);
                        (event.uprobe.file_name, event.uprobe.name_len) = (text, room);
                        ask(fd, &mut info)?;
                        let at_return = kind == raw::BPF_PERF_EVENT_URETPROBE;
                        Target::Uprobe { path: string(&path), offset, at_return }
                    }
                    raw::BPF_PERF_EVENT_KPROBE | raw::BPF_PERF_EVENT_KRETPROBE => {
                        let kprobe = event.kprobe;
                        misses = kprobe.missed;
                        (event.kprobe.func_name, event.kprobe.name_len) = (text, room);
                        ask(fd, &mut info)?;
                        Target::Kprobe {
                            function: string(&path),
                            offset: u64::from(kprobe.offset),
                            address: kprobe.addr,
                            at_return: kind == raw::BPF_PERF_EVENT_KRETPROBE,
                        }
                    }
                    raw::BPF_PERF_EVENT_TRACEPOINT => {
                        (event.tracepoint.tp_name, event.tracepoint.name_len) = (text, room);
                        ask(fd, &mut info)?;
                        Target::Tracepoint(string(&path))
                    }
                    raw::BPF_PERF_EVENT_EVENT => {
                        Target::Event { kind: event.event.type_, config: event.event.config }
                    }
                    _ => Target::Unknown(info.type_),
                }
            }
            other => Target::Unknown(other),
        }
    };
    Ok(Link { program: info.prog_id, target, misses })
}

/// The program that another process's perf event runs, and where; `None` if it runs none, or of those
/// that the kernel does not tell of (clocks and counters).
pub fn perf_event(pid: u32, fd: u32) -> Option<(u32, Target)> {
    let mut buffer = [0 as c_char; 4096];
    let mut length = buffer.len() as u32;
    let (mut program, mut kind, mut offset, mut address) = (0, 0, 0, 0);
    // SAFETY: the buffer has `length` bytes; the rest are single numbers.
    let returned = unsafe {
        raw::bpf_task_fd_query(
            pid as c_int,
            fd as c_int,
            0,
            buffer.as_mut_ptr(),
            &raw mut length,
            &raw mut program,
            &raw mut kind,
            &raw mut offset,
            &raw mut address,
        )
    };
    checked(returned).ok()?;
    let name = string(&buffer);
    let target = match kind {
        raw::BPF_FD_TYPE_RAW_TRACEPOINT => Target::RawTracepoint(name),
        raw::BPF_FD_TYPE_TRACEPOINT => Target::Tracepoint(name),
        raw::BPF_FD_TYPE_KPROBE | raw::BPF_FD_TYPE_KRETPROBE => {
            Target::Kprobe { function: name, offset, address, at_return: kind == raw::BPF_FD_TYPE_KRETPROBE }
        }
        _ => Target::Uprobe { path: name, offset, at_return: kind == raw::BPF_FD_TYPE_URETPROBE },
    };
    Some((program, target))
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
