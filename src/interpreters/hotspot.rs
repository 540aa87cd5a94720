//! HotSpot, the Java virtual machine of OpenJDK: recognised by `gHotSpotVMStructs` and what belongs to it, which it
//! exports for its debugger. What these lead to is in the process's memory: see [`crate::hotspot`].

use anyhow::{Context as _, Result, ensure};
use serde::{Deserialize, Serialize};

use crate::elf::symbols::Exported;
use crate::elf::{Elf, Machine};

/// Beginnings of the names of symbols that are looked for.
pub const SYMBOLS: [&str; 2] = ["gHotSpotVMStruct", "gHotSpotVMType"];

/// A variable of HotSpot's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)] // by their names in `NAMES`
pub enum Variable {
    Structs,
    StructTypeName,
    StructFieldName,
    StructTypeString,
    StructIsStatic,
    StructOffset,
    StructAddress,
    StructStride,
    Types,
    TypeName,
    TypeSize,
    TypeStride,
}

const NAMES: [&str; 12] = [
    "gHotSpotVMStructs",
    "gHotSpotVMStructEntryTypeNameOffset",
    "gHotSpotVMStructEntryFieldNameOffset",
    "gHotSpotVMStructEntryTypeStringOffset",
    "gHotSpotVMStructEntryIsStaticOffset",
    "gHotSpotVMStructEntryOffsetOffset",
    "gHotSpotVMStructEntryAddressOffset",
    "gHotSpotVMStructEntryArrayStride",
    "gHotSpotVMTypes",
    "gHotSpotVMTypeEntryTypeNameOffset",
    "gHotSpotVMTypeEntrySizeOffset",
    "gHotSpotVMTypeEntryArrayStride",
];

/// Where its variables are.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Layout {
    variables: [u64; 12],
}

impl Layout {
    /// With the variables at these addresses, in the order of [`Variable`].
    pub fn new(variables: [u64; 12]) -> Self {
        Self { variables }
    }

    /// The address of a variable in the image.
    pub fn get(&self, variable: Variable) -> u64 {
        self.variables[variable as usize]
    }
}

/// The layout.
///
/// # Errors
/// If this is not HotSpot, or on a machine on which its frames are not known.
pub fn find(elf: &Elf, symbols: &[Exported]) -> Result<Layout> {
    let mut variables = [0; 12];
    for (variable, name) in variables.iter_mut().zip(NAMES) {
        let symbol = symbols.iter().find(|symbol| symbol.name == name);
        *variable = symbol.with_context(|| format!("no {name}"))?.vaddr;
    }
    ensure!(elf.machine == Machine::X86_64, "frames of HotSpot are known on x86-64 alone");
    Ok(Layout { variables })
}
