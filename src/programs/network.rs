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

/// Where programs run, by program.
pub type Places = Vec<(u32, String)>;

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
    pub fn programs(&self) -> Places {
        let visit = || {
            let mut places = Places::new();
            for (path, name) in self.0.values() {
                let Ok(namespace) = File::open(path) else { continue };
                if setns(&namespace, CloneFlags::CLONE_NEWNET).is_err() {
                    continue;
                }
                // A kernel without network, or half an answer: what was told is told.
                let _ = devices(&mut places, name);
                let fd = namespace.as_raw_fd() as u32;
                for kind in [raw::BPF_FLOW_DISSECTOR, raw::BPF_SK_LOOKUP] {
                    let place = format!("{}{}", sys::attach_type(kind), name);
                    places.extend(sys::attached(fd, kind).into_iter().map(|id| (id, place.clone())));
                }
            }
            places
        };
        std::thread::scope(|scope| scope.spawn(visit).join()).unwrap_or_default()
    }
}

// From linux/netlink.h, rtnetlink.h, if_link.h and pkt_sched.h.
const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;
const REQUEST_DUMP: u16 = 0x301;
const RTM_GETLINK: u16 = 18;
const RTM_GETQDISC: u16 = 38;
const RTM_GETTFILTER: u16 = 46;
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

/// What runs on the devices of the namespace that this thread is in.
fn devices(places: &mut Places, namespace: &str) -> io::Result<()> {
    let flags = SockFlag::SOCK_CLOEXEC;
    let fd = socket(AddressFamily::Netlink, SockType::Raw, flags, SockProtocol::NetlinkRoute)?;
    let mut netlink = File::from(fd);
    let mut names = BTreeMap::new();
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
        places.extend(programs.iter().map(|(id, mode)| (*id, format!("xdp {name} ({mode}){namespace}"))));
        names.insert(index, name);
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
            places.extend(sys::attached(*index, kind).into_iter().map(|id| (id, place.clone())));
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
            places.extend(id.map(|id| (id, format!("tc {name} {direction}{namespace}"))));
        })?;
    }
    Ok(())
}

/// Asks for everything of a kind; calls `each` with the messages, without their headers.
fn dump(netlink: &mut File, kind: u16, body: &[u8], mut each: impl FnMut(&[u8])) -> io::Result<()> {
    let length = 16 + body.len() as u32;
    let mut request = length.to_ne_bytes().to_vec();
    request.extend(kind.to_ne_bytes());
    request.extend(REQUEST_DUMP.to_ne_bytes());
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
