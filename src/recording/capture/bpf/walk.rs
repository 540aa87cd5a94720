//! The BPF program's walk of user stacks, compiled for this machine: for stacks that came as memory,
//! and for tests. See `bpf/walk.h`.

use std::ffi::c_void;
use std::marker::PhantomData;
use std::mem::size_of;
use std::ptr;

use super::decode::{described as described_code, outcome, script_frames};
use super::interpreters::Mapped;
use super::skeleton::types as abi;
use super::tables::{Mapping, Tables};
use crate::model::event::{Dump, Outcome, Truncation};
use crate::model::scripts::{Code, CodeKey, Frame};

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
    blocks: Array,
    pages: Array,
    mappings: Array,
    rules: Array,
    stack: *const u8,
    stack_start: u64,
    stack_bytes: u64,
    initial_stack: u64,
    pythons: Array,
    v8s: Array,
    run: abi::unwind_run,
    thread_pointer: u64,
    read_code: extern "C" fn(*mut c_void, *mut u8, u64, u64) -> i64,
    context: *mut c_void,
    _lives: PhantomData<&'a ()>,
}

unsafe extern "C" {
    fn profiler_walk(environment: *const Environment<'_>, cpu: *mut abi::cpu_state);
    fn profiler_describe(
        environment: *const Environment<'_>,
        cpu: *mut abi::cpu_state,
        runtime: u32,
        code: u64,
    ) -> i32;
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

/// Interpreters of a process.
struct Interpreted {
    layouts: [Array; 2],
    run: abi::unwind_run,
}

impl Interpreted {
    const NO_ARRAY: Array = Array { entries: ptr::null(), length: 0, entry_bytes: 0 };
    const NONE: Self = Self {
        layouts: [Self::NO_ARRAY; 2],
        run: abi::unwind_run { number: 0, python_bias: 0, python: 0, v8: 0, java: 0, unused: 0 },
    };

    fn new(tables: Option<&Tables>, mapped: Mapped) -> Self {
        tables.map_or(Self::NONE, |tables| Self { layouts: tables.layouts_for_walk(), run: mapped.header(0) })
    }
}

/// Walks a stack that came as memory, by the mappings that its process had, sorted by address.
/// Without tables they have none. Returns addresses and frames of scripts, and what is missing.
pub fn walk(
    tables: Option<&Tables>,
    mappings: &[Mapping],
    mapped: Mapped,
    dump: &Dump,
    read: impl Fn(u64, &mut [u8]) -> bool,
) -> (Vec<u64>, Vec<(usize, Frame)>, Option<Truncation>) {
    let arrays = tables.map_or([Interpreted::NO_ARRAY; 3], Tables::for_walk);
    let mappings: Vec<abi::unwind_mapping> = mappings.iter().map(abi::unwind_mapping::from).collect();
    let mut words = Vec::new();
    let interpreted = Interpreted::new(tables, mapped);
    let truncation = walk_in(arrays, &mappings, &interpreted, dump, &read, &mut words);
    let (user, scripts) = script_frames(dump.key.tgid, words.into_iter());
    (user, scripts, truncation)
}

/// What names a code object, by memory of its process as it is now; `None` if it is another one by now, or
/// none.
pub fn describe(
    tables: &Tables,
    mapped: Mapped,
    key: &CodeKey,
    read: impl Fn(u64, &mut [u8]) -> bool,
) -> Option<Code> {
    let interpreted = Interpreted::new(Some(tables), mapped);
    let mut read: ReadCode<'_> = &read;
    let environment = Environment { context: (&raw mut read).cast(), ..Environment::new(&interpreted) };
    let mut cpu = Box::<abi::cpu_state>::default();
    cpu.code.tgid = key.tgid;
    cpu.code.code = key.code;
    // SAFETY: as in `walk_in`.
    let described =
        unsafe { profiler_describe(&raw const environment, &raw mut *cpu, key.runtime as u32, key.code) };
    let (found, code) = (described != 0).then(|| described_code(&cpu.code)).flatten()?;
    (found == *key).then_some(code)
}

impl Environment<'_> {
    /// Without memory and tables.
    fn new(interpreted: &Interpreted) -> Self {
        let none = Interpreted::NO_ARRAY;
        let [pythons, v8s] = interpreted.layouts;
        Self {
            blocks: none,
            pages: none,
            mappings: none,
            rules: none,
            stack: ptr::null(),
            stack_start: 0,
            stack_bytes: 0,
            initial_stack: 0,
            pythons,
            v8s,
            run: interpreted.run,
            thread_pointer: 0,
            read_code,
            context: ptr::null_mut(),
            _lives: PhantomData,
        }
    }
}

fn walk_in(
    [blocks, pages, rules]: [Array; 3],
    mappings: &[abi::unwind_mapping],
    interpreted: &Interpreted,
    dump: &Dump,
    mut read: ReadCode<'_>,
    frames: &mut Vec<u64>,
) -> Option<Truncation> {
    let environment = Environment {
        blocks,
        pages,
        mappings: Array::new(mappings.as_ptr(), mappings.len()),
        rules,
        stack: dump.memory.as_ptr(),
        stack_start: dump.start,
        stack_bytes: dump.memory.len() as u64,
        initial_stack: dump.initial_stack,
        thread_pointer: dump.thread_pointer.unwrap_or(0),
        context: (&raw mut read).cast(),
        ..Environment::new(interpreted)
    };
    let mut cpu = Box::<abi::cpu_state>::default();
    let [ip, sp, fp] = dump.registers;
    cpu.walk.regs = abi::unwind_registers { ip, sp, fp, bx: 0 };
    cpu.walk.leaf = dump.leaf;
    cpu.walk.is_return_address = dump.is_return_address.into();
    cpu.walk.is_32_bit = dump.is_32_bit.into();
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
