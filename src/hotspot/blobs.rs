//! The code heaps, and the code blobs in them.
//!
//! A heap is a row of blocks without gaps, each with its length and whether it is used. A blob begins behind its
//! block's header. While we read HotSpot goes on compiling: a block may be read half old and half new. What
//! makes no sense is left out, and is there at the next look.

use super::structs::{Field, Structs};
use super::{Reads, number};

/// The most that is read of any structure.
pub const MOST_OF_STRUCTURE: u64 = 1024;
/// There are three, or one.
const MOST_HEAPS: u32 = 16;
/// Of all heaps: a code cache of 240 MB has some 30,000.
const MOST_BLOBS: usize = 200_000;
/// A code cache is 2 GB at most.
const LARGEST_HEAP: u64 = 2 << 30;
/// In words; the largest frames have some thousand.
const LARGEST_FRAME: u64 = 1 << 17;

/// A code heap.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Heap {
    /// Its first address.
    pub low: u64,
    /// Behind what of it is memory now.
    pub high: u64,
    /// Behind what of it may become memory.
    pub end: u64,
}

/// What a blob's code is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A compiled method.
    Method,
    /// A method in C, and what calls it.
    Native,
    /// The interpreter.
    Interpreter,
    /// What else has one frame, of the size that it says.
    Runtime,
    /// What only goes on to a method, with the return address where it was.
    Frameless,
    /// Stubs and others, which have no frame or various ones.
    Other,
}

/// A code blob.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Blob {
    /// Its own address.
    pub at: u64,
    /// Addresses of its code.
    pub start: u64,
    /// First address behind it.
    pub end: u64,
    /// What it is.
    pub kind: Kind,
    /// Address of its name.
    pub name: u64,
    /// Size of its frame with the return address, in bytes; 0 if there is none.
    pub frame: u64,
    /// From this offset on the frame is there. Beyond the code if that is not known.
    pub complete: u64,
    /// Its `Method`, or 0.
    pub method: u64,
    /// Number of the compilation: no two methods have the same.
    pub compilation: u64,
}

/// Where the fields are.
#[derive(Debug)]
pub struct Fields {
    heaps: u64,
    array_data: u64,
    array_length: u64,
    memory: u64,
    low: u64,
    high: u64,
    end: u64,
    shift: u64,
    block: u64,
    name: u64,
    code: Code,
    frame: Field,
    complete: Field,
    method: Option<u64>,
    compilation: Option<u64>,
    bytes: usize,
    call_stub: Option<u64>,
    bounds: Option<(u64, u64)>,
}

/// How a blob says where its code is.
#[derive(Debug)]
enum Code {
    /// By two addresses: up to JDK 22.
    Addresses(u64, u64),
    /// By two offsets.
    Offsets(u64, u64),
}

impl Fields {
    /// `None` if this version lays them out in a way that is not known.
    pub fn find(structs: &Structs) -> Option<Self> {
        let blob = |name| structs.offset("CodeBlob", name);
        let code = match (blob("_code_begin"), blob("_code_end")) {
            (Some(begin), Some(end)) => Code::Addresses(begin, end),
            _ => Code::Offsets(blob("_code_offset")?, blob("_data_offset")?),
        };
        let block = structs.size("HeapBlock").filter(|size| [8, 16].contains(size))?;
        let of_blob = structs.size("CodeBlob")?;
        let of_method = structs.size("nmethod").unwrap_or(of_blob);
        Some(Self {
            heaps: structs.address("CodeCache", "_heaps")?,
            array_data: structs.offset("GrowableArray<int>", "_data")?,
            array_length: structs.offset("GrowableArrayBase", "_len")?,
            memory: structs.offset("CodeHeap", "_memory")?,
            low: structs.offset("VirtualSpace", "_low")?,
            high: structs.offset("VirtualSpace", "_high")?,
            end: structs.offset("VirtualSpace", "_high_boundary")?,
            shift: structs.offset("CodeHeap", "_log2_segment_size")?,
            block,
            name: blob("_name")?,
            code,
            frame: structs.field("CodeBlob", "_frame_size")?,
            complete: structs.field("CodeBlob", "_frame_complete_offset")?,
            method: structs
                .offset("nmethod", "_method")
                .or_else(|| structs.offset("CompiledMethod", "_method")),
            compilation: structs.offset("nmethod", "_compile_id"),
            bytes: (block + of_blob.max(of_method)) as usize,
            bounds: structs
                .address("CodeCache", "_low_bound")
                .zip(structs.address("CodeCache", "_high_bound")),
            call_stub: structs.address("StubRoutines", "_call_stub_return_address"),
        })
    }

    /// Where calls from C++ return to, once that is made.
    pub fn call_stub(&self, memory: &Reads<'_>) -> u64 {
        self.call_stub.and_then(|at| memory.u64(at)).unwrap_or(0)
    }

    /// Between which addresses all heaps are or will be.
    pub fn bounds(&self, memory: &Reads<'_>) -> Option<(u64, u64)> {
        let (low, high) = self.bounds?;
        let (low, high) = (memory.u64(low)?, memory.u64(high)?);
        (low < high && high - low <= LARGEST_HEAP).then_some((low, high))
    }

    /// The heaps; none as long as there are none.
    pub fn heaps(&self, memory: &Reads<'_>) -> Option<Vec<(Heap, u32)>> {
        let list = memory.u64(self.heaps).filter(|&list| list != 0)?;
        let data = memory.u64(list.wrapping_add(self.array_data))?;
        let length = memory.u32(list.wrapping_add(self.array_length))?.min(MOST_HEAPS);
        let mut heaps = Vec::new();
        for at in 0..u64::from(length) {
            let heap = memory.u64(data.wrapping_add(8 * at))?;
            let space = heap.wrapping_add(self.memory);
            let low = memory.u64(space.wrapping_add(self.low))?;
            let high = memory.u64(space.wrapping_add(self.high))?;
            let end = memory.u64(space.wrapping_add(self.end))?;
            let shift = memory.u32(heap.wrapping_add(self.shift))?;
            if low < high && high <= end && end - low <= LARGEST_HEAP && (3..=16).contains(&shift) {
                heaps.push((Heap { low, high, end }, shift));
            }
        }
        heaps.sort_by_key(|(heap, _)| heap.low);
        heaps.dedup_by(|later, earlier| later.0.low < earlier.0.end);
        Some(heaps)
    }

    /// The blobs of a heap, by address.
    pub fn blobs(&self, memory: &Reads<'_>, heap: &Heap, shift: u32, blobs: &mut Vec<Blob>) {
        let mut at = heap.low;
        while at < heap.high && blobs.len() < MOST_BLOBS {
            let most = self.bytes.min(usize::try_from(heap.high - at).unwrap_or(usize::MAX));
            let Some(bytes) = memory.bytes(at, most) else { return };
            let wide = if self.block == 16 { 8 } else { 4 };
            let Some(segments) = number(&bytes, 0, wide) else { return };
            let used = number(&bytes, wide.into(), 1).is_some_and(|used| used == 1);
            // Behind the last block there are zeros.
            let Some(length) = segments.checked_mul(1 << shift).filter(|&length| length > 0) else { return };
            let Some(next) = at.checked_add(length).filter(|&next| next <= heap.high) else { return };
            if used
                && let Some(blob) = self.blob(memory, at + self.block, next, &bytes[self.block as usize..])
            {
                blobs.push(blob);
            }
            at = next;
        }
    }

    fn blob(&self, memory: &Reads<'_>, at: u64, end_of_block: u64, bytes: &[u8]) -> Option<Blob> {
        let (start, end) = match self.code {
            Code::Addresses(begin, end) => (number(bytes, begin, 8)?, number(bytes, end, 8)?),
            Code::Offsets(begin, end) => {
                (at.checked_add(number(bytes, begin, 4)?)?, at.checked_add(number(bytes, end, 4)?)?)
            }
        };
        if !(at <= start && start < end && end <= end_of_block) {
            return None;
        }
        let name = number(bytes, self.name, 8)?;
        let frame = number(bytes, self.frame.at, self.frame.width)?;
        let complete = number(bytes, self.complete.at, self.complete.width)?;
        let text = memory.text(name)?;
        let is_method = text.starts_with("nmethod") || text.starts_with("native nmethod");
        let kind = match &*text {
            _ if is_method && text.starts_with("native") => Kind::Native,
            _ if is_method => Kind::Method,
            "Interpreter" => Kind::Interpreter,
            "I2C/C2I adapters" | "vtable chunks" => Kind::Frameless,
            _ if (2..LARGEST_FRAME).contains(&frame) => Kind::Runtime,
            _ => Kind::Other,
        };
        let of_method = |field: Option<u64>, width| {
            field.filter(|_| is_method).and_then(|at| number(bytes, at, width)).unwrap_or(0)
        };
        Some(Blob {
            at,
            start,
            end,
            kind,
            name,
            frame: if (2..LARGEST_FRAME).contains(&frame) { 8 * frame } else { 0 },
            complete,
            method: of_method(self.method, 8),
            compilation: of_method(self.compilation, 4),
        })
    }

    /// Whether a blob still is what it was.
    pub fn is_same(&self, memory: &Reads<'_>, blob: &Blob) -> bool {
        let bytes = memory.some_bytes(blob.at, self.bytes - self.block as usize);
        let now = bytes.and_then(|bytes| self.blob(memory, blob.at, blob.end, &bytes));
        now.as_ref() == Some(blob)
    }
}
