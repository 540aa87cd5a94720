//! BPF arrays as memory, and which parts of one are in use.

use std::collections::BTreeMap;
use std::marker::PhantomData;
use std::mem::size_of;
use std::os::fd::AsRawFd;

use anyhow::{Context, Result};
use libbpf_rs::MapCore;
use memmap2::{MmapMut, MmapOptions, MmapRaw};

/// An array map, as memory. `T` consists of integers: every bit pattern is one.
pub(super) struct Array<T> {
    memory: MmapRaw,
    len: u32,
    _type: PhantomData<T>,
}

impl<T: Copy> Array<T> {
    /// Maps the kernel's.
    pub fn map(map: &dyn MapCore) -> Result<Self> {
        let (len, bytes) = (map.max_entries(), map.max_entries() as usize * size_of::<T>());
        let name = map.name().to_string_lossy().into_owned();
        let memory = MmapOptions::new()
            .len(bytes)
            .map_raw(map.as_fd().as_raw_fd())
            .with_context(|| format!("failed to map {bytes} bytes of the BPF array {name}"))?;
        Ok(Self { memory, len, _type: PhantomData })
    }

    /// One of the same layout without a kernel that reads it.
    pub fn private(len: u32) -> Result<Self> {
        let bytes = len as usize * size_of::<T>();
        let memory = MmapMut::map_anon(bytes).with_context(|| format!("failed to allocate {bytes} bytes"))?;
        Ok(Self { memory: memory.into(), len, _type: PhantomData })
    }

    /// Number of entries.
    pub fn len(&self) -> u32 {
        self.len
    }

    /// The first entry, for C; it is followed by the others.
    pub fn as_ptr(&self) -> *const T {
        self.memory.as_ptr().cast()
    }

    /// An entry, none behind the end.
    pub fn read(&self, at: u32) -> Option<T> {
        // SAFETY: as in `write`.
        (at < self.len).then(|| unsafe { self.as_ptr().add(at as usize).read_volatile() })
    }

    /// Changes an entry.
    ///
    /// # Panics
    /// Behind the end.
    pub fn write(&mut self, at: u32, value: T) {
        self.write_part(at, 0, value);
    }

    /// Changes the `part`th `P` of an entry that consists of several.
    ///
    /// # Panics
    /// Behind the end of the array or of the entry.
    pub fn write_part<P>(&mut self, at: u32, part: usize, value: P) {
        assert!(at < self.len && part < size_of::<T>() / size_of::<P>(), "beyond the end of a BPF array");
        // SAFETY: the mapping holds `len` values of `T`, whose size is a multiple of 8 as the kernel
        // lays out array elements; `at` is below `len`, and `part` within that element. No reference
        // to it exists.
        unsafe {
            self.memory.as_mut_ptr().cast::<T>().add(at as usize).cast::<P>().add(part).write_volatile(value);
        }
    }
}

/// Which entries of an array are free: runs of them, by their start.
pub(super) struct FreeRuns(BTreeMap<u32, u32>);

impl FreeRuns {
    /// All `len` entries of an array.
    pub fn all(len: u32) -> Self {
        Self(BTreeMap::from([(0, len)]))
    }

    /// Takes the first run of `len` entries that there is; returns where it starts.
    pub fn take(&mut self, len: u32) -> Option<u32> {
        let (&start, &room) = self.0.iter().find(|(_, room)| **room >= len)?;
        self.0.remove(&start);
        if room > len {
            self.0.insert(start + len, room - len);
        }
        Some(start)
    }

    /// Gives a run back.
    pub fn give_back(&mut self, mut start: u32, mut len: u32) {
        if let Some((&before, &room)) = self.0.range(..start).next_back()
            && before + room == start
        {
            self.0.remove(&before);
            (start, len) = (before, room + len);
        }
        if let Some(room) = self.0.remove(&(start + len)) {
            len += room;
        }
        self.0.insert(start, len);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runs_that_are_given_back_are_whole_again() {
        let mut free = FreeRuns::all(100);
        let starts: Vec<u32> = (0..10).map(|_| free.take(10).unwrap()).collect();
        assert_eq!(starts, (0..10).map(|i| 10 * i).collect::<Vec<_>>());
        assert_eq!(free.take(1), None);
        // In an order in which each has no neighbour, one before, one behind, or both.
        for start in [50, 60, 40, 0, 20, 10, 90, 70, 80, 30] {
            free.give_back(start, 10);
        }
        assert_eq!(free.0, BTreeMap::from([(0, 100)]));
        assert_eq!(free.take(100), Some(0));
        assert!(free.0.is_empty());
    }

    #[test]
    fn the_first_run_that_is_large_enough_is_taken() {
        let mut free = FreeRuns::all(30);
        let [a, b] = [free.take(4).unwrap(), free.take(4).unwrap()];
        free.give_back(a, 4);
        assert_eq!(free.take(5), Some(8));
        assert_eq!(free.take(3), Some(0));
        assert_eq!(free.take(2), Some(13));
        free.give_back(b, 4);
        assert_eq!(free.take(5), Some(3));
    }

    #[test]
    fn arrays_end() {
        let mut array = Array::<[u16; 4]>::private(3).unwrap();
        array.write(2, [1, 2, 3, 4]);
        array.write_part(1, 3, 7_u16);
        assert_eq!(array.read(1), Some([0, 0, 0, 7]));
        assert_eq!((array.read(2), array.read(3)), (Some([1, 2, 3, 4]), None));
    }
}
