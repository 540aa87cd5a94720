//! Names in BTF, the kernel's type information, by their type's id.
//!
//! The format is that of the kernel's Documentation/bpf/btf.rst: a header, types one after the other,
//! strings. A type's id is its place in the order, from 1. A module's information continues the
//! kernel's: ids and string offsets go on where those of the kernel end.

use std::collections::{BTreeMap, BTreeSet};

use super::sys;

/// Type information of one object.
#[derive(Debug)]
struct Btf {
    bytes: Vec<u8>,
    types: std::ops::Range<usize>,
    strings: std::ops::Range<usize>,
}

/// Names of types that were asked for, by object and type.
#[derive(Debug, Default)]
pub struct Names(BTreeMap<(u32, u32), String>);

impl Names {
    /// Looks up pairs of an object's and a type's id. What cannot be read has no name.
    pub fn learn(&mut self, wanted: impl Iterator<Item = (u32, u32)>) {
        let wanted: BTreeSet<_> = wanted.filter(|key| !self.0.contains_key(key)).collect();
        let mut kernel: Option<(Btf, u32)> = None;
        let objects: BTreeSet<u32> = wanted.iter().map(|&(object, _)| object).collect();
        for object in objects {
            let Some((btf, name)) = read(object) else { continue };
            let is_module = !name.is_empty() && name != "vmlinux";
            if is_module && kernel.is_none() {
                kernel = std::fs::read("/sys/kernel/btf/vmlinux").ok().and_then(Btf::new).map(|btf| {
                    let types = btf.walk(|_, _| {});
                    (btf, types)
                });
            }
            let base = kernel.as_ref().filter(|_| is_module);
            let (first, skipped) = base.map_or((0, 0), |(btf, types)| (*types, btf.strings.len()));
            btf.walk(|id, offset| {
                let key = (object, first + id);
                if !wanted.contains(&key) {
                    return;
                }
                let name = match base {
                    Some((kernel, _)) if offset < skipped => kernel.string(offset),
                    _ => btf.string(offset - skipped),
                };
                self.0.insert(key, name);
            });
        }
    }

    /// The name of a type.
    pub fn get(&self, object: u32, id: u32) -> Option<&str> {
        self.0.get(&(object, id)).map(String::as_str).filter(|name| !name.is_empty())
    }
}

/// Strings of one object, by their offsets, which also line information has.
#[derive(Debug)]
pub struct Strings(Btf);

impl Strings {
    /// Those of the information that has an id; `None` if it cannot be read.
    pub fn of(object: u32) -> Option<Self> {
        read(object).map(|(btf, _)| Self(btf))
    }

    /// The string at an offset.
    pub fn get(&self, offset: u32) -> String {
        self.0.string(offset as usize)
    }
}

fn read(object: u32) -> Option<(Btf, String)> {
    let (bytes, name) = sys::types(object).ok()?;
    Some((Btf::new(bytes)?, name))
}

impl Btf {
    /// Takes the sections apart; `None` if they are not within the bytes.
    fn new(bytes: Vec<u8>) -> Option<Self> {
        let number = |at| Some(u32::from_ne_bytes(bytes.get(at..at + 4)?.try_into().ok()?) as usize);
        (bytes.get(..2)? == 0xeb9fu16.to_ne_bytes()).then_some(())?;
        let header = number(4)?;
        let types = header + number(8)?..header + number(8)? + number(12)?;
        let strings = header + number(16)?..header + number(16)? + number(20)?;
        (types.end <= bytes.len() && strings.end <= bytes.len()).then_some(Self { bytes, types, strings })
    }

    /// Calls `visit` with each type's place in the order, from 1, and the offset of its name; returns
    /// their number.
    fn walk(&self, mut visit: impl FnMut(u32, usize)) -> u32 {
        let types = &self.bytes[self.types.clone()];
        let number = |at: usize| Some(u32::from_ne_bytes(types.get(at..at + 4)?.try_into().ok()?));
        let (mut at, mut id) = (0, 0);
        while let (Some(name), Some(info)) = (number(at), number(at + 4)) {
            id += 1;
            visit(id, name as usize);
            let members = (info & 0xffff) as usize;
            at += 12
                + match info >> 24 & 0x1f {
                    1 | 14 | 17 => 4,                // INT, VAR, DECL_TAG
                    3 => 12,                         // ARRAY
                    4 | 5 | 15 | 19 => 12 * members, // STRUCT, UNION, DATASEC, ENUM64
                    6 | 13 => 8 * members,           // ENUM, FUNC_PROTO
                    _ => 0,
                };
        }
        id
    }

    fn string(&self, offset: usize) -> String {
        let strings = &self.bytes[self.strings.clone()];
        let text = strings.get(offset..).unwrap_or_default();
        let end = text.iter().position(|&byte| byte == 0).unwrap_or(text.len());
        String::from_utf8_lossy(&text[..end]).into_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Types as (name, kind, members, bytes that follow) and strings, as the kernel lays them out.
    fn btf(types: &[(u32, u32, u32, usize)], strings: &str) -> Vec<u8> {
        let mut body = Vec::new();
        for &(name, kind, members, more) in types {
            for number in [name, kind << 24 | members, 0] {
                body.extend(number.to_ne_bytes());
            }
            body.resize(body.len() + more, 0);
        }
        let mut bytes = [0xeb9fu16.to_ne_bytes(), [1, 0]].concat();
        for number in [24, 0, body.len() as u32, body.len() as u32, strings.len() as u32] {
            bytes.extend(number.to_ne_bytes());
        }
        [bytes, body, strings.as_bytes().to_vec()].concat()
    }

    #[test]
    fn every_kind_of_type_is_passed_over() {
        let strings = "\0int\0point\0main\0";
        let types = [(1, 1, 0, 4), (5, 4, 2, 24), (0, 13, 3, 24), (0, 3, 0, 12), (11, 12, 1, 0)];
        let btf = Btf::new(btf(&types, strings)).unwrap();
        let mut found = Vec::new();
        assert_eq!(btf.walk(|id, name| found.push((id, btf.string(name)))), 5);
        let names: Vec<_> = found.iter().map(|(id, name)| (*id, name.as_str())).collect();
        assert_eq!(names, [(1, "int"), (2, "point"), (3, ""), (4, ""), (5, "main")]);
    }

    #[test]
    fn broken_information_has_no_names() {
        let whole = btf(&[(1, 1, 0, 4)], "\0int\0");
        for end in 0..whole.len() {
            assert!(Btf::new(whole[..end].to_vec()).is_none(), "{end} bytes");
        }
        let unterminated = Btf::new(btf(&[(1, 4, 9, 0)], "\0int")).unwrap();
        assert_eq!(
            (unterminated.walk(|_, _| {}), unterminated.string(1), unterminated.string(99)),
            (1, "int".to_owned(), String::new())
        );
    }
}
