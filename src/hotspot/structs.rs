//! `gHotSpotVMStructs` and `gHotSpotVMTypes`: which field lies where (src/hotspot/share/runtime/vmStructs.hpp).

use std::collections::HashMap;

use super::{Reads, number};
use crate::interpreters::hotspot::{Layout, Variable};

/// Entries of one table; there are 4,500.
const MOST_ENTRIES: u64 = 20_000;

/// Where a field is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Field {
    /// Its offset in the structure or, of a static one, its address.
    pub at: u64,
    /// Its size, as far as its type tells it: others are pointers.
    pub width: u8,
}

/// The tables.
#[derive(Debug, Default)]
pub struct Structs {
    fields: HashMap<(String, String), Field>,
    sizes: HashMap<String, u64>,
}

/// Structures that are looked at.
const TYPES: [&str; 17] = [
    "CodeBlob",
    "CodeCache",
    "CodeHeap",
    "CompiledMethod",
    "ConstMethod",
    "ConstantPool",
    "GrowableArray<int>",
    "GrowableArrayBase",
    "HeapBlock",
    "InstanceKlass",
    "Klass",
    "Method",
    "PcDesc",
    "StubRoutines",
    "Symbol",
    "VirtualSpace",
    "nmethod",
];

fn width(ty: &str) -> u8 {
    match ty {
        "int" | "u4" | "jint" | "unsigned int" | "CompLevel" => 4,
        "u2" | "int16_t" | "uint16_t" | "short" => 2,
        "u1" | "bool" | "signed char" | "CodeBlobKind" => 1,
        _ => 8,
    }
}

impl Structs {
    /// Reads them, where libjvm's image is `bias` away from its addresses.
    pub fn read(memory: &Reads<'_>, layout: &Layout, bias: u64) -> Option<Self> {
        let variable = |which: Variable| memory.u64(bias.wrapping_add(layout.get(which)));
        let mut structs = Self::default();
        let wanted = |name: u64| memory.text(name).filter(|name| TYPES.contains(&&**name));

        let stride = entry_bytes(variable(Variable::StructStride)?)?;
        let mut at = variable(Variable::Structs)?;
        let (type_name, field_name) =
            (variable(Variable::StructTypeName)?, variable(Variable::StructFieldName)?);
        let (type_string, is_static) =
            (variable(Variable::StructTypeString)?, variable(Variable::StructIsStatic)?);
        let (field_offset, address) = (variable(Variable::StructOffset)?, variable(Variable::StructAddress)?);
        for _ in 0..MOST_ENTRIES {
            let entry = memory.bytes(at, stride)?;
            let name = number(&entry, type_name, 8)?;
            if name == 0 {
                break;
            }
            if let Some(of) = wanted(name) {
                let field = memory.text(number(&entry, field_name, 8)?)?;
                let ty = memory.text(number(&entry, type_string, 8)?);
                let is_static = number(&entry, is_static, 4)? != 0;
                let at = number(&entry, if is_static { address } else { field_offset }, 8)?;
                let width = width(ty.as_deref().unwrap_or_default());
                structs.fields.insert((of.to_string(), field.to_string()), Field { at, width });
            }
            at = at.wrapping_add(stride as u64);
        }

        let stride = entry_bytes(variable(Variable::TypeStride)?)?;
        let mut at = variable(Variable::Types)?;
        let (type_name, size) = (variable(Variable::TypeName)?, variable(Variable::TypeSize)?);
        for _ in 0..MOST_ENTRIES {
            let entry = memory.bytes(at, stride)?;
            let name = number(&entry, type_name, 8)?;
            if name == 0 {
                break;
            }
            if let Some(of) = wanted(name) {
                structs.sizes.insert(of.to_string(), number(&entry, size, 8)?);
            }
            at = at.wrapping_add(stride as u64);
        }
        Some(structs)
    }

    /// A field, if this version has it.
    pub fn field(&self, of: &str, name: &str) -> Option<Field> {
        self.fields.get(&(of.to_owned(), name.to_owned())).copied()
    }

    /// Its offset, if that is one within a structure.
    pub fn offset(&self, of: &str, name: &str) -> Option<u64> {
        self.field(of, name).map(|field| field.at).filter(|&at| at < super::blobs::MOST_OF_STRUCTURE)
    }

    /// The address of a static field.
    pub fn address(&self, of: &str, name: &str) -> Option<u64> {
        self.field(of, name).map(|field| field.at)
    }

    /// The size of a structure.
    pub fn size(&self, of: &str) -> Option<u64> {
        self.sizes.get(of).copied().filter(|&size| size < super::blobs::MOST_OF_STRUCTURE)
    }
}

/// Of an entry of either table.
fn entry_bytes(stride: u64) -> Option<usize> {
    usize::try_from(stride).ok().filter(|stride| (16..=256).contains(stride))
}
