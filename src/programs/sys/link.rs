//! Where links attach programs, and where perf events run them.

use std::ffi::{c_char, c_int};
use std::io;
use std::os::fd::OwnedFd;

use super::{ask, checked, raw, string};

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
