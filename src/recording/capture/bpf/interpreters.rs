//! Where interpreters have what, as the BPF program reads it: see `bpf/interpreters.h`.

use anyhow::Result;
use libbpf_rs::MapCore;

use super::arrays::Array;
use super::skeleton::types as abi;
use crate::interpreters::{Interpreters, python, v8};

/// Files of each runtime that there is room for, less one: index 0 is none's.
const MOST: u32 = abi::limits::MAX_INTERPRETERS.0;

/// The interpreters that one file is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Known {
    python: u32,
    v8: u32,
    java: bool,
}

/// The interpreters that a process has mapped: at most one of each runtime.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Mapped {
    python: u32,
    python_bias: u64,
    v8: u32,
    java: bool,
}

impl Mapped {
    /// No interpreter.
    pub const NONE: Self = Self { python: 0, python_bias: 0, v8: 0, java: false };

    /// Takes in a file that is mapped with this distance to the addresses in its image.
    pub fn add(&mut self, known: Known, bias: u64) {
        if self.python == 0 && known.python != 0 {
            (self.python, self.python_bias) = (known.python, bias);
        }
        if self.v8 == 0 {
            self.v8 = known.v8;
        }
        self.java |= known.java;
    }

    /// What can be asked whose frames are wholly on the stack: Java.
    pub fn on_stack(self) -> Self {
        Self { java: self.java, ..Self::NONE }
    }

    /// The header of a run of mappings.
    pub(super) fn header(self, number: u32) -> abi::unwind_run {
        let Self { python, python_bias, v8, java } = self;
        let (number, java) = (number.into(), java.into());
        abi::unwind_run { number, python, python_bias, v8, java, ..Default::default() }
    }
}

/// The arrays of layouts. Entries are added, and never changed.
pub(super) struct Layouts {
    pythons: Array<abi::python>,
    pythons_used: u32,
    v8s: Array<abi::v8>,
    v8s_used: u32,
    /// Files that found no room.
    pub refused: u64,
}

impl Layouts {
    pub fn map(pythons: &dyn MapCore, v8s: &dyn MapCore) -> Result<Self> {
        Ok(Self::of(Array::map(pythons)?, Array::map(v8s)?))
    }

    /// Without a kernel that reads them.
    pub fn private() -> Result<Self> {
        Ok(Self::of(Array::private(MOST)?, Array::private(MOST)?))
    }

    fn of(pythons: Array<abi::python>, v8s: Array<abi::v8>) -> Self {
        Self { pythons, pythons_used: 1, v8s, v8s_used: 1, refused: 0 }
    }

    /// For the native walk, which only reads.
    pub fn for_walk(&self) -> [super::walk::Array; 2] {
        [
            super::walk::Array::new(self.pythons.as_ptr(), self.pythons.len() as usize),
            super::walk::Array::new(self.v8s.as_ptr(), self.v8s.len() as usize),
        ]
    }

    /// Adds what a file has.
    pub fn add(&mut self, interpreters: &Interpreters) -> Known {
        let mut known = Known { java: interpreters.hotspot.is_some(), ..Known::default() };
        if let Some(layout) = &interpreters.python {
            match write_next(&mut self.pythons, &mut self.pythons_used, encode_python(layout)) {
                Some(at) => known.python = at,
                None => self.refused += 1,
            }
        }
        if let Some(layout) = &interpreters.v8 {
            match write_next(&mut self.v8s, &mut self.v8s_used, encode_v8(layout)) {
                Some(at) => known.v8 = at,
                None => self.refused += 1,
            }
        }
        known
    }
}

fn write_next<T: Copy>(array: &mut Array<T>, used: &mut u32, value: T) -> Option<u32> {
    let at = *used;
    if at >= MOST {
        return None;
    }
    array.write(at, value);
    *used += 1;
    Some(at)
}

fn encode_v8(layout: &v8::Layout) -> abi::v8 {
    abi::v8 {
        fp_function: layout.fp_function,
        map_type: layout.map_type,
        js_first: layout.js_first,
        js_last: layout.js_last,
        js_shared: layout.js_shared,
        shared_type: layout.shared_type,
        shared_name: layout.shared_name,
        shared_script: layout.shared_script,
        shared_flags: layout.shared_flags,
        shared_bytes: layout.shared_bytes,
        scope_type: layout.scope_type,
        scope_first_local: layout.scope_first_local,
        scope_locals: layout.scope_locals,
        nonstring: layout.nonstring,
        string_length: layout.string_length,
        string_chars: layout.string_chars,
        script_type: layout.script_type,
        script_name: layout.script_name,
        ..Default::default()
    }
}

fn encode_python(layout: &python::Layout) -> abi::python {
    let runs = match layout.runs {
        python::Runs::OneEach => abi::python_runs::PYTHON_ONE_EACH,
        python::Runs::IsEntry => abi::python_runs::PYTHON_IS_ENTRY,
        python::Runs::Shim => abi::python_runs::PYTHON_SHIM,
    };
    let lines = match layout.lines {
        python::Lines::Lnotab => abi::python_lines::PYTHON_LNOTAB,
        python::Lines::Linetable => abi::python_lines::PYTHON_LINETABLE,
        python::Lines::Locations | python::Lines::Bytecode => abi::python_lines::PYTHON_LOCATIONS,
    };
    abi::python {
        interpreters: layout.interpreters,
        code_type: layout.code_type,
        interpreter_next: layout.interpreter_next,
        interpreter_threads: layout.interpreter_threads,
        thread_next: layout.thread_next,
        thread_id: layout.thread_id,
        thread_frame: layout.thread_frame,
        thread_cframe: layout.thread_cframe,
        cframe_frame: layout.cframe_frame,
        cframe_previous: layout.cframe_previous,
        frame_code: layout.frame_code,
        frame_previous: layout.frame_previous,
        frame_instruction: layout.frame_instruction,
        frame_owner: layout.frame_owner,
        object_type: layout.object_type,
        code_size: layout.code_size,
        code_first_line: layout.code_first_line,
        code_name: layout.code_name,
        code_qualified: layout.code_qualified,
        code_file: layout.code_file,
        code_lines: layout.code_lines,
        code_instructions: layout.code_instructions,
        text_length: layout.text_length,
        text_hash: layout.text_hash,
        text_ascii: layout.text_ascii,
        text_wide: layout.text_wide,
        bytes_data: layout.bytes_data,
        text_kind_shift: layout.text_kind_shift,
        runs: runs.0 as u16,
        lines: lines.0 as u16,
    }
}
