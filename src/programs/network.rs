//! Programs on network devices and namespaces.
//!
//! Filters of `tc` and programs of XDP are told by rtnetlink, others by `BPF_PROG_QUERY`; both only of
//! the namespace that the asking thread is in. So a thread of its own visits each: those that processes
//! are in, and those that are mounted somewhere (`ip netns add`).

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::os::fd::AsRawFd;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;

use nix::sched::{CloneFlags, setns};
use nix::sys::socket::{AddressFamily, SockFlag, SockProtocol, SockType, socket};

use super::sys::{self, raw};
use crate::machine::mounts;

/// Where a program runs.
#[derive(Debug)]
pub struct Place {
    /// Its id.
    pub program: u32,
    /// The place, in words.
    pub text: String,
    /// The network namespace whose traffic passes: that of the device, or, for a device of our own namespace
    /// that is one end of a pair, that of the other end.
    pub namespace: u64,
}

/// Network namespaces by inode: a file to enter each by, and what to call it.
#[derive(Debug, Default)]
pub struct Namespaces(BTreeMap<u64, (PathBuf, String)>);

impl Namespaces {
    /// Finds those of all processes and mounts.
    pub fn find() -> Self {
        let mut found = BTreeMap::new();
        let inode = |path: &PathBuf| fs::metadata(path).map(|file| file.ino()).ok();
        let own = inode(&PathBuf::from("/proc/self/ns/net"));
        found.extend(own.map(|own| (own, (PathBuf::from("/proc/self/ns/net"), String::new()))));
        for path in mounts::of_type("nsfs").into_iter().map(|mount| mount.point) {
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            let entry = (path.clone(), format!(" in netns {name}"));
            found.extend(inode(&path).filter(|inode| Some(*inode) != own).map(|inode| (inode, entry)));
        }
        for pid in crate::recording::capture::proc::processes() {
            let path = PathBuf::from(format!("/proc/{pid}/ns/net"));
            if let Some(inode) = inode(&path) {
                found.entry(inode).or_insert_with(|| (path, format!(" in the netns of pid {pid}")));
            }
        }
        Self(found)
    }

    /// What follows the name of something in a namespace; nothing in our own.
    pub fn name(&self, inode: u64) -> String {
        self.0.get(&inode).map_or_else(|| format!(" in netns {inode}"), |(_, name)| name.clone())
    }

    /// Programs on the devices of all namespaces. Those that cannot be entered are left out.
    pub fn programs(&self) -> Vec<Place> {
        let visit = || {
            let mut places = Vec::new();
            for (&inode, (path, name)) in &self.0 {
                let Ok(namespace) = File::open(path) else { continue };
                if setns(&namespace, CloneFlags::CLONE_NEWNET).is_err() {
                    continue;
                }
                // A kernel without network, or half an answer: what was told is told.
                let ends = if self.is_own(inode) { self.ids() } else { BTreeMap::new() };
                let _ = devices(name, &ends, |program, text, end| {
                    places.push(Place { program, text, namespace: end.unwrap_or(inode) });
                });
                let fd = namespace.as_raw_fd() as u32;
                for kind in [raw::BPF_FLOW_DISSECTOR, raw::BPF_SK_LOOKUP] {
                    let place = format!("{}{}", sys::attach_type(kind), name);
                    for program in sys::attached(fd, kind) {
                        places.push(Place { program, text: place.clone(), namespace: inode });
                    }
                }
            }
            places
        };
        std::thread::scope(|scope| scope.spawn(visit).join()).unwrap_or_default()
    }

    /// Whether a namespace is that of this process.
    pub fn is_own(&self, inode: u64) -> bool {
        self.0.get(&inode).is_some_and(|(_, name)| name.is_empty())
    }

    /// The namespaces by the ids that the one of this thread has given them: a device whose other end lies
    /// in another namespace tells that one's id.
    fn ids(&self) -> BTreeMap<u32, u64> {
        let mut ids = BTreeMap::new();
        let Ok(mut netlink) = open() else { return ids };
        for (&inode, (path, _)) in &self.0 {
            let Ok(file) = File::open(path) else { continue };
            let mut request = vec![0; 4];
            request.extend([8, 0]);
            request.extend(NETNSA_FD.to_ne_bytes());
            request.extend(file.as_raw_fd().to_ne_bytes());
            let _ = ask(&mut netlink, RTM_GETNSID, REQUEST, &request, |message| {
                let id = message.get(4..).and_then(|tail| number(attribute(tail, NETNSA_NSID)?, 0));
                ids.extend(id.filter(|id| *id != u32::MAX).map(|id| (id, inode)));
            });
        }
        ids
    }
}

// From linux/netlink.h, rtnetlink.h, if_link.h and pkt_sched.h.
const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;
const REQUEST: u16 = 1;
const REQUEST_DUMP: u16 = 0x301;
const RTM_GETLINK: u16 = 18;
const RTM_GETQDISC: u16 = 38;
const RTM_GETTFILTER: u16 = 46;
const RTM_GETNSID: u16 = 90;
const NETNSA_NSID: u16 = 1;
const NETNSA_FD: u16 = 3;
const IFLA_LINK_NETNSID: u16 = 37;
const IFLA_IFNAME: u16 = 3;
const IFLA_XDP: u16 = 43;
/// Programs by mode: attributes within IFLA_XDP.
const XDP_MODES: [(u16, &str); 3] = [(5, "driver"), (6, "generic"), (7, "offloaded")];
const IFLA_XDP_ATTACHED: u16 = 2;
const IFLA_XDP_PROG_ID: u16 = 4;
const TCA_KIND: u16 = 1;
const TCA_OPTIONS: u16 = 2;
const TCA_BPF_ID: u16 = 11;
const CLSACT_INGRESS: u32 = 0xffff_fff2;
const CLSACT_EGRESS: u32 = 0xffff_fff3;

/// A socket of rtnetlink in the namespace that this thread is in.
fn open() -> io::Result<File> {
    let flags = SockFlag::SOCK_CLOEXEC;
    let fd = socket(AddressFamily::Netlink, SockType::Raw, flags, SockProtocol::NetlinkRoute)?;
    Ok(File::from(fd))
}

/// Calls `each` with what runs on the devices of the namespace that this thread is in: the program, its place,
/// and, of `ends`, where the device's other end is.
fn devices(
    namespace: &str,
    ends: &BTreeMap<u32, u64>,
    mut each: impl FnMut(u32, String, Option<u64>),
) -> io::Result<()> {
    let mut netlink = open()?;
    let mut names = BTreeMap::new();
    let mut end_of = BTreeMap::new();
    dump(&mut netlink, RTM_GETLINK, &[0; 16], |message| {
        let (Some(index), Some(tail)) = (number(message, 4), message.get(16..)) else { return };
        let name = attribute(tail, IFLA_IFNAME).map(text).unwrap_or_default();
        let xdp = attribute(tail, IFLA_XDP).unwrap_or_default();
        let mut programs: Vec<_> = XDP_MODES
            .iter()
            .filter_map(|(kind, mode)| Some((number(attribute(xdp, *kind)?, 0)?, *mode)))
            .collect();
        if programs.is_empty() {
            // Older kernels name the one program apart from its mode.
            let mode = attribute(xdp, IFLA_XDP_ATTACHED).and_then(|mode| mode.first());
            let mode = if mode == Some(&2) { "generic" } else { "driver" };
            programs.extend(attribute(xdp, IFLA_XDP_PROG_ID).and_then(|id| Some((number(id, 0)?, mode))));
        }
        let end = attribute(tail, IFLA_LINK_NETNSID).and_then(|id| ends.get(&number(id, 0)?)).copied();
        for (program, mode) in programs {
            each(program, format!("xdp {name} ({mode}){namespace}"), end);
        }
        names.insert(index, name);
        end_of.extend(end.map(|end| (index, end)));
    })?;
    for (index, name) in &names {
        for (kind, word) in [
            (raw::BPF_TCX_INGRESS, "tcx ingress"),
            (raw::BPF_TCX_EGRESS, "tcx egress"),
            (raw::BPF_NETKIT_PRIMARY, "netkit primary"),
            (raw::BPF_NETKIT_PEER, "netkit peer"),
        ] {
            let (word, direction) = word.split_once(' ').unwrap_or((word, ""));
            let place = format!("{word} {name} {direction}{namespace}");
            for program in sys::attached(*index, kind) {
                each(program, place.clone(), end_of.get(index).copied());
            }
        }
    }
    let mut parents = Vec::new();
    dump(&mut netlink, RTM_GETQDISC, &[0; 20], |message| {
        let (Some(index), Some(handle), Some(tail)) =
            (number(message, 4), number(message, 8), message.get(20..))
        else {
            return;
        };
        match attribute(tail, TCA_KIND).map(text).as_deref() {
            Some("clsact") => {
                parents.extend([(index, CLSACT_INGRESS, "ingress"), (index, CLSACT_EGRESS, "egress")]);
            }
            Some("ingress") => parents.push((index, CLSACT_INGRESS, "ingress")),
            _ if handle != 0 => parents.push((index, handle, "egress")),
            _ => {}
        }
    })?;
    for (index, parent, direction) in parents {
        let mut request = [0; 20];
        request[4..8].copy_from_slice(&index.to_ne_bytes());
        request[12..16].copy_from_slice(&parent.to_ne_bytes());
        let name = names.get(&index).cloned().unwrap_or_else(|| format!("if{index}"));
        dump(&mut netlink, RTM_GETTFILTER, &request, |message| {
            let options = message.get(20..).and_then(|tail| attribute(tail, TCA_OPTIONS));
            let id = options.and_then(|options| number(attribute(options, TCA_BPF_ID)?, 0));
            if let Some(program) = id {
                each(program, format!("tc {name} {direction}{namespace}"), end_of.get(&index).copied());
            }
        })?;
    }
    Ok(())
}

/// Asks for everything of a kind; calls `each` with the messages, without their headers.
fn dump(netlink: &mut File, kind: u16, body: &[u8], each: impl FnMut(&[u8])) -> io::Result<()> {
    ask(netlink, kind, REQUEST_DUMP, body, each)
}

/// Asks for one thing, or everything of a kind; calls `each` with the messages, without their headers.
fn ask(
    netlink: &mut File,
    kind: u16,
    flags: u16,
    body: &[u8],
    mut each: impl FnMut(&[u8]),
) -> io::Result<()> {
    let length = 16 + body.len() as u32;
    let mut request = length.to_ne_bytes().to_vec();
    request.extend(kind.to_ne_bytes());
    request.extend(flags.to_ne_bytes());
    request.extend([0; 8]);
    request.extend(body);
    netlink.write_all(&request)?;
    let mut buffer = vec![0; 1 << 16];
    loop {
        let length = netlink.read(&mut buffer)?;
        let mut rest = &buffer[..length];
        if rest.is_empty() {
            return Ok(());
        }
        while let Some(length) = number(rest, 0).map(|length| length as usize) {
            let Some(message) = rest.get(16..length) else { return Ok(()) };
            match u16::from_ne_bytes([rest[4], rest[5]]) {
                NLMSG_DONE | NLMSG_ERROR => return Ok(()),
                _ => each(message),
            }
            rest = rest.get(length.next_multiple_of(4)..).unwrap_or_default();
        }
        // The answer to one question is one message.
        if flags == REQUEST {
            return Ok(());
        }
    }
}

fn number(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_ne_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).trim_end_matches('\0').to_owned()
}

/// The value of the first attribute of a kind: they are {u16 length, u16 kind, value}, aligned to 4.
fn attribute(mut rest: &[u8], wanted: u16) -> Option<&[u8]> {
    loop {
        let header = rest.get(..4)?;
        let length = usize::from(u16::from_ne_bytes([header[0], header[1]]));
        let value = rest.get(4..length)?;
        if u16::from_ne_bytes([header[2], header[3]]) & 0x3fff == wanted {
            return Some(value);
        }
        rest = rest.get(length.next_multiple_of(4)..)?;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attributes_are_found_behind_others_and_never_beyond_the_end() {
        let bytes = [6, 0, 3, 0, b'a', 0, 0, 0, 8, 0, 11, 0x80, 42, 0, 0, 0];
        assert_eq!(attribute(&bytes, 3).map(text).as_deref(), Some("a"));
        assert_eq!(attribute(&bytes, 11).and_then(|value| number(value, 0)), Some(42));
        assert_eq!(attribute(&bytes, 5), None);
        for end in 0..bytes.len() {
            assert_eq!(attribute(&bytes[..end], 11), None, "{end} bytes");
        }
        assert_eq!(attribute(&[2, 0, 3, 0], 3), None);
    }
}
