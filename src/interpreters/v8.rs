//! V8, in Node.js, Electron and other programs that export `v8dbg_…`: constants for debuggers, which V8
//! generates from its own sources (tools/gen-postmortem-metadata.py), such as
//! `v8dbg_class_JSFunction__shared__SharedFunctionInfo`.
//!
//! The names end in the field's type, which changes from version to version; so the beginning decides.
//! Pointers take 8 bytes: builds with compressed pointers are not recognised.

use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

use anyhow::{Context as _, Result, ensure};

use crate::elf::symbols::Exported;
use crate::elf::{Elf, Source};

/// Beginnings of the names of symbols that are looked for.
pub const SYMBOLS: [&str; 1] = [PREFIX];
const PREFIX: &str = "v8dbg_";

/// Where V8 has what: `struct v8` of bpf/profile.h.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs)] // by the names of V8's own fields
pub struct Layout {
    pub fp_function: i16,
    pub map_type: u16,
    pub js_first: u16,
    pub js_last: u16,
    pub js_shared: u16,
    pub shared_type: u16,
    pub shared_name: u16,
    pub shared_script: u16,
    pub shared_flags: u16,
    pub shared_bytes: u16,
    pub scope_type: u16,
    pub scope_first_local: u16,
    pub scope_locals: u16,
    pub nonstring: u16,
    pub string_length: u16,
    pub string_chars: u16,
    pub script_type: u16,
    pub script_name: u16,
}

/// The most that is read of a SharedFunctionInfo.
const MOST_OF_FUNCTION: u16 = 248;
/// How many types of functions there are from JSFunction on, where the last one is not told (up to Node.js
/// 20).
const FUNCTION_TYPES: u16 = 14;

/// Whether a file says that it is V8.
pub fn is_claimed(symbols: &[Exported]) -> bool {
    symbols.iter().any(|symbol| symbol.name.starts_with(PREFIX))
}

/// The layout.
///
/// # Errors
/// If this is not V8, or not one whose constants are all known.
pub fn find(elf: &Elf, file: &dyn Source, symbols: &[Exported]) -> Result<Layout> {
    let constants: BTreeMap<&str, u64> =
        symbols.iter().filter_map(|symbol| Some((symbol.name.strip_prefix(PREFIX)?, symbol.vaddr))).collect();
    let value = |vaddr: u64| -> i32 {
        // Zeros are in no file: such a constant lies in .bss.
        let bytes = elf.image(file, vaddr, 4).ok();
        bytes.and_then(|bytes| bytes.first_chunk().copied()).map_or(0, i32::from_le_bytes)
    };
    let get = |beginnings: &[&str]| -> Result<i32> {
        let found = beginnings.iter().find_map(|beginning| {
            let (_, &vaddr) = constants.iter().find(|(name, _)| name.starts_with(beginning))?;
            Some(value(vaddr))
        });
        found.with_context(|| format!("no {PREFIX}{}", beginnings[0]))
    };
    let small = |beginnings: &[&str]| -> Result<u16> {
        let value = get(beginnings)?;
        u16::try_from(value).with_context(|| format!("{PREFIX}{} is {value}", beginnings[0]))
    };
    // What bpf/v8.h takes for granted.
    for (name, expected) in [
        ("HeapObjectTag", 1),
        ("HeapObjectTagMask", 3),
        ("SmiShiftSize", 31),
        ("TaggedSize", 8),
        ("StringRepresentationMask", 7),
        ("SeqStringTag", 0),
        ("ThinStringTag", 5),
        ("StringEncodingMask", 8),
        ("OneByteStringTag", 8),
    ] {
        if let Some(&vaddr) = constants.get(name) {
            ensure!(value(vaddr) == expected, "{PREFIX}{name} is {}", value(vaddr));
        }
    }
    let js_first = small(&["FirstJSFunctionType", "type_JSFunction__"])?;
    let shared_name = small(&["class_SharedFunctionInfo__name_or_scope_info__"])?;
    let shared_script =
        small(&["class_SharedFunctionInfo__script__", "class_SharedFunctionInfo__script_or_debug_info__"])?;
    let shared_flags = small(&["class_SharedFunctionInfo__flags__"])?;
    let shared_bytes = shared_name.max(shared_script).max(shared_flags) + 8;
    ensure!(shared_bytes < MOST_OF_FUNCTION, "a field ends at {shared_bytes}");
    Ok(Layout {
        fp_function: i16::try_from(get(&["off_fp_function"])?)?,
        map_type: small(&["class_Map__instance_type__"])?,
        js_first,
        js_last: small(&["LastJSFunctionType"]).unwrap_or(js_first.saturating_add(FUNCTION_TYPES)),
        js_shared: small(&["class_JSFunction__shared__"])?,
        shared_type: small(&["type_SharedFunctionInfo__"])?,
        shared_name,
        shared_script,
        shared_flags,
        shared_bytes,
        scope_type: small(&["type_ScopeInfo__"])?,
        scope_first_local: small(&["scopeinfo_idx_first_vars"])?,
        scope_locals: small(&["scopeinfo_idx_ncontextlocals"])?,
        nonstring: small(&["FirstNonstringType"])?,
        string_length: small(&["class_String__length__"])?,
        string_chars: small(&["class_SeqOneByteString__chars__"])?,
        script_type: small(&["type_Script__"])?,
        script_name: small(&["class_Script__name__"])?,
    })
}
