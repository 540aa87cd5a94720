//! HotSpot, the Java virtual machine of OpenJDK: where its code is, how to walk through that, and what is
//! compiled there, read from the memory of a process that runs and knows nothing of it.
//!
//! Code that HotSpot compiles describes itself to nobody, and has no frame pointers: `rbp` is a register like
//! others. But HotSpot exports tables for its own debugger, `gHotSpotVMStructs` and the like, which say at what
//! offset each field of its structures lies. By them one finds the *code heaps*; in these lie *code blobs*, one
//! behind the other, each with its frame's size, and, where it is a compiled method (*nmethod*), its `Method`;
//! and for each place where the thread may stop (*PcDesc*) which methods are inlined there.
//!
//! ```text
//! file ─▶ interpreters::hotspot ─▶ structs ─▶ blobs ─▶ frames ─▶ rows of an unwind table
//!                                               └────▶ scopes ─▶ methods ─▶ names and lines
//! ```
//!
//! The interpreter's frames have frame pointers; the walk itself reads their `Method` (bpf/java.h).
//!
//! All of it runs in a worker without rights ([`crate::worker`]), which has the process's memory as a descriptor.
//! Whatever that memory holds, each structure is read with bounds: how often a question reads is limited, and so are
//! names, lists and depths. A process that lies costs itself its own names and stacks.

pub mod blobs;
pub mod frames;
pub mod jvm;
pub mod methods;
pub mod scopes;
pub mod structs;
#[cfg(test)]
mod tests;
pub mod wire;

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::rc::Rc;

/// Memory of a process.
pub trait Memory {
    /// Fills `bytes` from an address; false if something there cannot be read.
    fn read(&self, addr: u64, bytes: &mut [u8]) -> bool;
}

impl Memory for File {
    fn read(&self, addr: u64, bytes: &mut [u8]) -> bool {
        // Offsets are signed.
        i64::try_from(addr).is_ok() && self.read_exact_at(bytes, addr).is_ok()
    }
}

/// Reads that one question may take: those of 200,000 blobs with their code.
const MOST_READS: u64 = 1 << 20;
/// Bytes of all of them.
const MOST_BYTES: u64 = 2 << 30;

/// Memory that is read a limited number of times.
pub struct Reads<'a> {
    memory: &'a dyn Memory,
    left: Cell<u64>,
    bytes_left: Cell<u64>,
    /// Texts that were read, by address.
    texts: RefCell<HashMap<u64, Rc<str>>>,
}

impl<'a> Reads<'a> {
    /// For one question.
    pub fn new(memory: &'a dyn Memory) -> Self {
        Self {
            memory,
            left: Cell::new(MOST_READS),
            bytes_left: Cell::new(MOST_BYTES),
            texts: RefCell::default(),
        }
    }

    /// Fills `bytes`; `None` if that cannot be read, or enough has been.
    pub fn fill(&self, addr: u64, bytes: &mut [u8]) -> Option<()> {
        self.left.set(self.left.get().checked_sub(1)?);
        self.bytes_left.set(self.bytes_left.get().checked_sub(bytes.len() as u64)?);
        self.memory.read(addr, bytes).then_some(())
    }

    /// So many bytes.
    pub fn bytes(&self, addr: u64, count: usize) -> Option<Vec<u8>> {
        if count as u64 > self.bytes_left.get() {
            return None;
        }
        let mut bytes = vec![0; count];
        self.fill(addr, &mut bytes)?;
        Some(bytes)
    }

    /// As many of so many bytes as there are before the end of a page that cannot be read.
    pub fn some_bytes(&self, addr: u64, most: usize) -> Option<Vec<u8>> {
        const PAGE: u64 = 4096;
        let to_page = (PAGE - addr % PAGE) as usize;
        match self.bytes(addr, most) {
            None if to_page < most => self.bytes(addr, to_page),
            bytes => bytes,
        }
    }

    /// A number of 8 bytes.
    pub fn u64(&self, addr: u64) -> Option<u64> {
        let mut bytes = [0; 8];
        self.fill(addr, &mut bytes)?;
        Some(u64::from_le_bytes(bytes))
    }

    /// A number of 4 bytes.
    pub fn u32(&self, addr: u64) -> Option<u32> {
        let mut bytes = [0; 4];
        self.fill(addr, &mut bytes)?;
        Some(u32::from_le_bytes(bytes))
    }

    /// A number of 2 bytes.
    pub fn u16(&self, addr: u64) -> Option<u16> {
        let mut bytes = [0; 2];
        self.fill(addr, &mut bytes)?;
        Some(u16::from_le_bytes(bytes))
    }

    /// Text up to a zero, cut if it is long.
    pub fn text(&self, addr: u64) -> Option<Rc<str>> {
        const LONGEST: usize = 128;
        if let Some(known) = self.texts.borrow().get(&addr) {
            return Some(Rc::clone(known));
        }
        let bytes = self.some_bytes(addr, LONGEST)?;
        let text = bytes.split(|&byte| byte == 0).next()?;
        let text: Rc<str> = String::from_utf8_lossy(text).into();
        self.texts.borrow_mut().insert(addr, Rc::clone(&text));
        Some(text)
    }
}

/// The number of `width` bytes at an offset of a structure.
fn number(bytes: &[u8], at: u64, width: u8) -> Option<u64> {
    let at = usize::try_from(at).ok()?;
    let bytes = bytes.get(at..at.checked_add(width.into())?)?;
    Some(bytes.iter().rev().fold(0, |number, &byte| number << 8 | u64::from(byte)))
}
