//! Which methods are inlined at an instruction: the debug information that HotSpot keeps to go back to the
//! interpreter (src/hotspot/share/code/{pcDesc,scopeDesc}.hpp).
//!
//! It is exact where a thread may stop: at calls and at safepoints. A sample may be anywhere: it takes the next such
//! place behind it.

use super::blobs::{Blob, Kind};
use super::methods::Counts;
use super::structs::{Field, Structs};
use super::{Reads, number};

/// Inlined into one another; HotSpot stops at 15 by default.
const MOST_INLINED: usize = 64;
/// Of places in one method: 16 MiB.
const MOST_PLACES: usize = 1 << 20;
/// Of a scope, what is wanted of it.
const SCOPE: usize = 15;

/// Where the fields are.
#[derive(Debug)]
pub struct Fields {
    place_bytes: usize,
    at: u64,
    scope: u64,
    parts: Parts,
}

/// How a method says where its parts are.
#[derive(Debug)]
enum Parts {
    /// Within its blob: up to JDK 22.
    Within { places: u64, end: u64, scopes: u64, metadata: u64 },
    /// In memory of their own: JDK 25.
    Apart { data: u64, places: u64, scopes: u64, mutable: u64, relocations: Field },
}

/// A method, and the bytecode that is executed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Scope {
    /// Its `Method`.
    pub method: u64,
    /// Index of the bytecode.
    pub bci: u32,
}

impl Fields {
    /// `None` if this version lays them out in a way that is not known.
    pub fn find(structs: &Structs) -> Option<Self> {
        let nmethod = |name| structs.offset("nmethod", name);
        let within = || {
            Some(Parts::Within {
                places: nmethod("_scopes_pcs_offset")?,
                end: nmethod("_dependencies_offset")?,
                scopes: structs.offset("CompiledMethod", "_scopes_data_begin")?,
                metadata: nmethod("_metadata_offset")?,
            })
        };
        let apart = || {
            Some(Parts::Apart {
                data: nmethod("_immutable_data")?,
                places: nmethod("_scopes_pcs_offset")?,
                scopes: nmethod("_scopes_data_offset")?,
                mutable: structs.offset("CodeBlob", "_mutable_data")?,
                relocations: structs.field("CodeBlob", "_relocation_size")?,
            })
        };
        Some(Self {
            place_bytes: structs.size("PcDesc").filter(|size| (8..=64).contains(size))? as usize,
            at: structs.offset("PcDesc", "_pc_offset")?,
            scope: structs.offset("PcDesc", "_scope_decode_offset")?,
            parts: within().or_else(apart)?,
        })
    }

    /// The methods at an address in a blob's code, those that are inlined first; none if that is not told.
    pub fn at(&self, memory: &Reads<'_>, blob: &Blob, addr: u64, counts: Counts) -> Vec<Scope> {
        let mut scopes = Vec::new();
        if blob.kind == Kind::Method && (blob.start..blob.end).contains(&addr) {
            self.collect(memory, blob, addr - blob.start, counts, &mut scopes);
        }
        scopes
    }

    fn collect(
        &self,
        memory: &Reads<'_>,
        blob: &Blob,
        offset: u64,
        counts: Counts,
        found: &mut Vec<Scope>,
    ) -> Option<()> {
        let offset_at = |field: u64| memory.u32(blob.at.wrapping_add(field)).map(u64::from);
        let (places, end, scopes, metadata) = match self.parts {
            Parts::Within { places, end, scopes, metadata } => (
                blob.at.wrapping_add(offset_at(places)?),
                blob.at.wrapping_add(offset_at(end)?),
                memory.u64(blob.at.wrapping_add(scopes))?,
                blob.at.wrapping_add(offset_at(metadata)?),
            ),
            Parts::Apart { data, places, scopes, mutable, relocations } => {
                let data = memory.u64(blob.at.wrapping_add(data))?;
                let scopes = data.wrapping_add(offset_at(scopes)?);
                let bytes = offset_at(relocations.at)?;
                let metadata =
                    memory.u64(blob.at.wrapping_add(mutable))?.wrapping_add(bytes.next_multiple_of(8));
                (data.wrapping_add(offset_at(places)?), scopes, scopes, metadata)
            }
        };
        let count = usize::try_from(end.checked_sub(places)?).ok()? / self.place_bytes;
        let all = memory.bytes(places, count.min(MOST_PLACES) * self.place_bytes)?;
        let place = |place: &[u8]| {
            let at = number(place, self.at, 4)? as u32;
            Some((at.cast_signed(), number(place, self.scope, 4)? as u32))
        };
        // Ascending, between one at -1 and one behind all code.
        let next = all.chunks_exact(self.place_bytes).filter_map(place);
        let mut next = next.filter(|&(at, _)| i64::from(at) >= offset as i64);
        let (_, mut scope) = next.next().filter(|&(at, _)| (at as u64) <= blob.end - blob.start)?;
        while scope != 0 && found.len() < MOST_INLINED {
            let bytes = memory.some_bytes(scopes.wrapping_add(scope.into()), SCOPE)?;
            let mut bytes = bytes.into_iter();
            let mut next = || counts.number(&mut bytes);
            let (sender, method, bci) = (next()?, next()?, next()?);
            let method = u64::from(method).checked_sub(1)?;
            let method = memory.u64(metadata.wrapping_add(8 * method))?;
            found.push(Scope { method, bci: bci.wrapping_sub(1) });
            scope = sender;
        }
        Some(())
    }
}
