//! Chunks of rows, in arrays of one length: when those that are there are full, another one is added. In the kernel
//! they are an array of maps.
//!
//! What a recording will need is not known when it begins. The first block has room for the tables of what runs
//! then, and for a little more.

use std::mem::size_of;
use std::os::fd::{AsFd, AsRawFd};

use anyhow::{Context, Result};
use libbpf_rs::{MapCore, MapFlags, MapHandle, MapType, libbpf_sys};

use super::arrays::Array;
use super::skeleton::types as abi;
use super::walk;

/// Blocks that there may be.
const MOST: usize = abi::limits::MAX_BLOCKS.0 as usize;

/// The blocks, and where the kernel has them.
pub(super) struct Blocks {
    kernel: Option<MapHandle>,
    blocks: Vec<Array<abi::unwind_chunk>>,
    for_walk: Vec<walk::Array>,
    /// Of each block.
    chunks: u32,
    most: usize,
}

/// A block in the kernel, to which nothing leads.
///
/// # Errors
/// If there is no memory for it.
pub(super) fn in_kernel(chunks: u32) -> Result<MapHandle> {
    let options = libbpf_sys::bpf_map_create_opts {
        sz: size_of::<libbpf_sys::bpf_map_create_opts>() as u64,
        map_flags: libbpf_sys::BPF_F_MMAPABLE,
        ..Default::default()
    };
    let (key, value) = (size_of::<u32>() as u32, size_of::<abi::unwind_chunk>() as u32);
    MapHandle::create(MapType::Array, Some("unwind_block"), key, value, chunks, &options)
        .with_context(|| format!("failed to make a BPF array of {chunks} × {value} bytes for unwind tables"))
}

impl Blocks {
    /// Those of the kernel, `first` alone so far.
    ///
    /// # Errors
    /// If the kernel refuses it.
    pub fn of_kernel(kernel: MapHandle, first: &MapHandle, most: u32) -> Result<Self> {
        let mut this = Self::empty(Some(kernel), first.max_entries(), most);
        this.add(first)?;
        Ok(this)
    }

    /// One, without a kernel that reads it.
    ///
    /// # Errors
    /// If there is no memory for it.
    pub fn private(chunks: u32, most: u32) -> Result<Self> {
        let mut this = Self::empty(None, chunks, most);
        this.push(Array::private(chunks)?);
        Ok(this)
    }

    fn empty(kernel: Option<MapHandle>, chunks: u32, most: u32) -> Self {
        let most = MOST.min(most as usize);
        Self { kernel, blocks: Vec::new(), for_walk: Vec::new(), chunks, most }
    }

    fn add(&mut self, block: &MapHandle) -> Result<()> {
        let array = Array::map(block)?;
        if let Some(kernel) = &self.kernel {
            let (at, fd) = (self.blocks.len() as u32, block.as_fd().as_raw_fd());
            kernel
                .update(&at.to_ne_bytes(), &fd.to_ne_bytes(), MapFlags::ANY)
                .context("failed to add a BPF array for unwind tables")?;
        }
        self.push(array);
        Ok(())
    }

    fn push(&mut self, block: Array<abi::unwind_chunk>) {
        self.for_walk.push(walk::Array::new(block.as_ptr(), block.len() as usize));
        self.blocks.push(block);
    }

    /// Adds a block, if there may be another one and there is memory for it; says whether it has.
    pub fn grow(&mut self) -> bool {
        if self.blocks.len() >= self.most {
            return false;
        }
        let grown = match &self.kernel {
            Some(_) => in_kernel(self.chunks).and_then(|block| self.add(&block)),
            None => Array::private(self.chunks).map(|block| self.push(block)),
        };
        grown.is_ok()
    }

    /// Chunks of all blocks. They are numbered through.
    pub fn len(&self) -> u32 {
        self.blocks.len() as u32 * self.chunks
    }

    /// The block that a chunk is in, and its number there.
    pub fn place(&self, chunk: u32) -> (u16, u16) {
        ((chunk / self.chunks) as u16, (chunk % self.chunks) as u16)
    }

    /// Changes a row of a chunk.
    ///
    /// # Panics
    /// Behind the last chunk, or the end of one.
    pub fn write(&mut self, chunk: u32, at: usize, row: abi::unwind_row) {
        let (block, chunk) = self.place(chunk);
        self.blocks[usize::from(block)].write_part(chunk.into(), at, row);
    }

    /// The chunk that a page's rows are in, if there is one.
    pub fn chunk(&self, page: &abi::unwind_page) -> Option<*const abi::unwind_chunk> {
        let block = self.blocks.get(usize::from(page.block))?;
        // SAFETY: the block has more chunks than that, one behind the other.
        (u32::from(page.chunk) < block.len()).then(|| unsafe { block.as_ptr().add(page.chunk.into()) })
    }

    /// Bytes in the kernel.
    pub fn bytes(&self) -> u64 {
        u64::from(self.len()) * size_of::<abi::unwind_chunk>() as u64
    }

    /// An array of the blocks' arrays, for a walk in this process.
    pub fn for_walk(&self) -> walk::Array {
        walk::Array::new(self.for_walk.as_ptr(), self.for_walk.len())
    }
}
