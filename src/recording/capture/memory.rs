//! Memory of another process, as it is now.

use std::fs::File;
use std::os::unix::fs::FileExt;

/// A process's memory.
pub struct Memory(File);

impl Memory {
    /// `None` if the process is gone, or may not be read.
    pub fn open(tgid: u32) -> Option<Self> {
        File::open(format!("/proc/{tgid}/mem")).ok().map(Self)
    }

    /// Fills `bytes` from an address; false if something there cannot be read.
    pub fn read(&self, addr: u64, bytes: &mut [u8]) -> bool {
        // Offsets are signed.
        i64::try_from(addr).is_ok() && self.0.read_exact_at(bytes, addr).is_ok()
    }

    /// Whether an address holds these bytes.
    pub fn holds(&self, addr: u64, bytes: &[u8]) -> bool {
        let mut now = vec![0; bytes.len()];
        self.read(addr, &mut now) && now == bytes
    }
}
