//! The BPF program's walk of user stacks, compiled for this machine: for stacks that came as memory,
//! and for tests. See `bpf/walk.h`.

use std::ffi::c_void;
use std::marker::PhantomData;
use std::mem::size_of;
use std::ptr;

use super::decode::outcome;
use super::skeleton::types as abi;
use super::tables::{Mapping, Tables};
use crate::model::event::{Dump, Outcome, Truncation};

/// `struct array` of bpf/unwind_native.c.
#[repr(C)]
#[derive(Clone, Copy)]
pub(super) struct Array {
    entries: *const c_void,
    length: u64,
    entry_bytes: u64,
}

impl Array {
    /// Of `length` entries, which must outlive the walk.
    pub(super) fn new<T>(entries: *const T, length: usize) -> Self {
        Self { entries: entries.cast(), length: length as u64, entry_bytes: size_of::<T>() as u64 }
    }
}

/// `struct environment` of bpf/unwind_native.c.
#[repr(C)]
struct Environment<'a> {
    chunks: Array,
    pages: Array,
    mappings: Array,
    rules: Array,
    stack: *const u8,
    stack_start: u64,
    stack_bytes: u64,
    initial_stack: u64,
    read_code: extern "C" fn(*mut c_void, *mut u8, u64, u64) -> i64,
    context: *mut c_void,
    _lives: PhantomData<&'a ()>,
}

unsafe extern "C" {
    fn profiler_walk(environment: *const Environment<'_>, cpu: *mut abi::cpu_state);
}

/// Reads the code at an address; false if it cannot.
type ReadCode<'a> = &'a dyn Fn(u64, &mut [u8]) -> bool;

extern "C" fn read_code(context: *mut c_void, into: *mut u8, bytes: u64, address: u64) -> i64 {
    // SAFETY: `walk_in` has put a `ReadCode` there, which lives as long as the call.
    let read = unsafe { &*context.cast::<ReadCode<'_>>() };
    // SAFETY: the C side gives a buffer of its own, of `bytes` bytes that are initialized.
    let into = unsafe { std::slice::from_raw_parts_mut(into, bytes as usize) };
    // A panic must not go through C.
    let read = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| read(address, into)));
    if read.unwrap_or(false) { 0 } else { -1 }
}

/// Walks a stack that came as memory, by the mappings that its process had, sorted by address.
/// Without tables they have none.
pub fn walk(
    tables: Option<&Tables>,
    mappings: &[Mapping],
    dump: &Dump,
    read: impl Fn(u64, &mut [u8]) -> bool,
    frames: &mut Vec<u64>,
) -> Option<Truncation> {
    let none = Array::new(ptr::null::<u64>(), 0);
    let tables = tables.map_or([none; 3], Tables::for_walk);
    let mappings: Vec<abi::unwind_mapping> = mappings.iter().map(abi::unwind_mapping::from).collect();
    walk_in(tables, &mappings, dump, &read, frames)
}

fn walk_in(
    [chunks, pages, rules]: [Array; 3],
    mappings: &[abi::unwind_mapping],
    dump: &Dump,
    mut read: ReadCode<'_>,
    frames: &mut Vec<u64>,
) -> Option<Truncation> {
    let environment = Environment {
        chunks,
        pages,
        mappings: Array::new(mappings.as_ptr(), mappings.len()),
        rules,
        stack: dump.memory.as_ptr(),
        stack_start: dump.start,
        stack_bytes: dump.memory.len() as u64,
        initial_stack: dump.initial_stack,
        read_code,
        context: (&raw mut read).cast(),
        _lives: PhantomData,
    };
    let mut cpu = Box::<abi::cpu_state>::default();
    let [ip, sp, fp] = dump.registers;
    cpu.walk.regs = abi::unwind_registers { ip, sp, fp, bx: 0 };
    cpu.walk.leaf = dump.leaf;
    cpu.walk.is_return_address = dump.is_return_address.into();
    // SAFETY: both are what the C side declares: the one here, the other in BTF. Arrays and stack are
    // longer than they say nowhere, and nothing is kept.
    unsafe { profiler_walk(&raw const environment, &raw mut *cpu) };
    frames.extend(cpu.body.frames.iter().take(usize::from(cpu.body.user_frames)));
    match outcome(cpu.walk.outcome) {
        Outcome::Incomplete(truncation) => Some(truncation),
        _ => None,
    }
}

#[cfg(test)]
mod tests;
