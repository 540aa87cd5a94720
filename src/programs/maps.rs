//! Maps and their memory, by the kernel's own account: `memlock` of a descriptor's `fdinfo`. What
//! several programs use is split between them.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};

use super::owners::field;
use super::sys::{self, Object};

/// A map.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Map {
    /// Its id.
    pub id: u32,
    /// Its type.
    pub kind: String,
    /// Its name, of which the kernel keeps 15 characters.
    pub name: String,
    /// Bytes that it takes.
    pub bytes: u64,
    /// Programs that use it, by their ids, in order. None use the inner maps of maps, and those that
    /// are only held open.
    pub users: Vec<u32>,
    /// Programs that it holds, to be called by tail calls.
    pub programs: Vec<u32>,
}

/// All maps that there are, by id.
pub fn read() -> io::Result<BTreeMap<u32, Map>> {
    let mut maps = BTreeMap::new();
    for id in sys::ids_after(Object::Map, 0)? {
        // What cannot be opened is gone.
        let Ok(Some(fd)) = sys::open(Object::Map, id) else { continue };
        let Ok(info) = sys::map(&fd) else { continue };
        let map = Map {
            id,
            kind: sys::map_type(info.type_),
            name: sys::string(&info.name),
            bytes: memory(&fd),
            users: Vec::new(),
            programs: sys::held_programs(&fd, &info),
        };
        maps.insert(id, map);
    }
    Ok(maps)
}

/// Bytes that a program or map of ours takes.
pub fn memory(fd: &OwnedFd) -> u64 {
    let info = fs::read_to_string(format!("/proc/self/fdinfo/{}", fd.as_raw_fd())).unwrap_or_default();
    field(&info, "memlock:").and_then(|bytes| bytes.parse().ok()).unwrap_or(0)
}

impl Map {
    /// The share of one of its users, so that all shares together are the whole.
    pub fn share(&self, user: u32) -> u64 {
        let users = self.users.len().max(1) as u64;
        let place = self.users.iter().position(|&id| id == user).unwrap_or(0) as u64;
        (self.bytes + place) / users
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_add_up() {
        for bytes in [0, 1, 4095, 4096, 10_000_001] {
            let map = Map { bytes, users: vec![7, 9, 30], ..Map::default() };
            let shares: Vec<u64> = map.users.iter().map(|&user| map.share(user)).collect();
            assert_eq!(shares.iter().sum::<u64>(), bytes, "{shares:?}");
            assert!(shares.iter().all(|&share| share.abs_diff(bytes / 3) <= 1), "{shares:?}");
        }
    }
}
