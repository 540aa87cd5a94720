//! The executable memory of a process: which object lies at which addresses, and since when.
//!
//! Mapping has events, unmapping has none: what was unmapped stays until something else is mapped
//! over it, which does no harm, since no code runs there. Events can come late. So each region
//! knows the time that it is known from, and what is older never covers what is newer.

use std::collections::BTreeMap;
use std::ops::Range;

use crate::model::objects::ObjectId;

/// A range of executable memory; its start is the key in [`Regions`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Region {
    /// First address behind it.
    pub end: u64,
    /// Offset of its start in the object's file.
    pub file_offset: u64,
    /// What is mapped.
    pub object: ObjectId,
    /// It has been there since then, or for longer.
    pub since_ns: u64,
    /// It was there then, as far as is known: nothing older covers it.
    pub seen_ns: u64,
}

impl Region {
    /// The part of a region that begins at `start` from `at` on, up to `end`.
    fn part(&self, start: u64, at: u64, end: u64) -> Self {
        Self { end, file_offset: self.file_offset.wrapping_add(at - start), ..self.clone() }
    }
}

/// Executable memory by address; regions do not overlap.
pub type Regions = BTreeMap<u64, Region>;

/// The region that holds an address, and its start.
pub fn holding(regions: &Regions, addr: u64) -> Option<(u64, &Region)> {
    let (&start, region) = regions.range(..=addr).next_back()?;
    (addr < region.end).then_some((start, region))
}

/// Whether the same is mapped in both.
pub fn are_alike(one: &Regions, other: &Regions) -> bool {
    let same = |(one, other): ((&u64, &Region), (&u64, &Region))| {
        one.0 == other.0
            && (one.1.end, one.1.file_offset, one.1.object)
                == (other.1.end, other.1.file_offset, other.1.object)
    };
    one.len() == other.len() && one.iter().zip(other).all(same)
}

/// Maps a region over everything that was seen before it; says whether that changed anything.
pub fn map(regions: &mut Regions, start: u64, new: &Region) -> bool {
    if start >= new.end {
        return false;
    }
    let same = |known: &&mut Region| {
        (known.end, known.file_offset, known.object) == (new.end, new.file_offset, new.object)
    };
    if let Some(known) = regions.get_mut(&start).filter(same) {
        known.since_ns = known.since_ns.min(new.since_ns);
        known.seen_ns = known.seen_ns.max(new.seen_ns);
        return false;
    }
    let gaps = carve(regions, start..new.end, |known| known.seen_ns > new.seen_ns);
    for gap in &gaps {
        regions.insert(gap.start, new.part(start, gap.start, gap.end));
    }
    !gaps.is_empty()
}

/// Takes everything out of a range but what shall stay; returns what is empty then.
fn carve(regions: &mut Regions, range: Range<u64>, stays: impl Fn(&Region) -> bool) -> Vec<Range<u64>> {
    let first = holding(regions, range.start).map_or(range.start, |(start, _)| start);
    let overlapped: Vec<u64> = regions.range(first..range.end).map(|(&at, _)| at).collect();
    let mut gaps = Vec::new();
    let mut empty_from = range.start;
    for at in overlapped {
        let Some(old) = regions.remove(&at) else { continue };
        if stays(&old) {
            gaps.push(empty_from..at);
            empty_from = old.end;
            regions.insert(at, old);
            continue;
        }
        // What sticks out on either side stays.
        if at < range.start {
            regions.insert(at, old.part(at, at, range.start));
        }
        if old.end > range.end {
            regions.insert(range.end, old.part(at, range.end, old.end));
        }
    }
    gaps.push(empty_from..range.end);
    gaps.retain(|gap| gap.start < gap.end);
    gaps
}

/// Takes everything out of a range.
fn clear(regions: &mut Regions, range: Range<u64>) {
    if range.start < range.end {
        carve(regions, range, |_| false);
    }
}

/// Fills the gaps between regions with what others have there.
pub fn fill(regions: &mut Regions, others: &Regions) {
    for (&start, other) in others {
        for gap in carve(regions, start..other.end, |_| true) {
            regions.insert(gap.start, other.part(start, gap.start, gap.end));
        }
    }
}

/// What one has at addresses where the other has nothing.
pub fn only_in(regions: &Regions, others: &Regions) -> Regions {
    let mut rest = regions.clone();
    for (&start, other) in others {
        clear(&mut rest, start..other.end);
    }
    rest
}

#[cfg(test)]
mod tests {
    use super::*;

    fn region(end: u64, object: ObjectId, since_ns: u64) -> Region {
        Region { end, file_offset: 0, object, since_ns, seen_ns: since_ns }
    }

    const A: ObjectId = ObjectId::KERNEL;
    const B: ObjectId = ObjectId::NONE;

    fn shape(regions: &Regions) -> Vec<(u64, u64, u64, ObjectId)> {
        regions.iter().map(|(&start, one)| (start, one.end, one.file_offset, one.object)).collect()
    }

    #[test]
    fn what_is_mapped_later_covers_what_was_there() {
        let mut regions = Regions::new();
        assert!(map(&mut regions, 10, &region(40, A, 1)));
        assert!(map(&mut regions, 20, &region(30, B, 2)));
        assert_eq!(shape(&regions), [(10, 20, 0, A), (20, 30, 0, B), (30, 40, 20, A)]);
        assert!(!map(&mut regions, 20, &region(30, B, 3)), "nothing has changed");
        assert!(!map(&mut regions, 5, &region(5, B, 3)), "no addresses");
    }

    #[test]
    fn what_comes_late_does_not_cover_what_is_newer() {
        let mut regions = Regions::new();
        map(&mut regions, 20, &region(30, A, 5));
        assert!(map(&mut regions, 10, &region(40, B, 3)));
        assert_eq!(shape(&regions), [(10, 20, 0, B), (20, 30, 0, A), (30, 40, 20, B)]);
        assert!(!map(&mut regions, 22, &region(24, B, 4)), "it has been covered since");
    }

    #[test]
    fn what_lies_behind_the_end_of_a_covered_region_is_no_part_of_it() {
        let mut regions = Regions::new();
        map(&mut regions, 0, &region(10, A, 1));
        map(&mut regions, 12, &region(20, A, 1));
        assert!(holding(&regions, 11).is_none());
        assert!(map(&mut regions, 10, &region(12, B, 2)));
        assert_eq!(holding(&regions, 11).map(|(start, one)| (start, one.object)), Some((10, B)));
        assert_eq!(shape(&regions).len(), 3);
    }

    #[test]
    fn gaps_are_filled_and_nothing_else() {
        let (mut regions, mut others) = (Regions::new(), Regions::new());
        map(&mut regions, 10, &region(20, A, 9));
        map(&mut others, 0, &region(30, B, 1));
        fill(&mut regions, &others);
        assert_eq!(shape(&regions), [(0, 10, 0, B), (10, 20, 0, A), (20, 30, 20, B)]);
        let mut known = Regions::new();
        map(&mut known, 0, &region(25, A, 1));
        assert_eq!(shape(&only_in(&regions, &known)), [(25, 30, 25, B)]);
    }
}
