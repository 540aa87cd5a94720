//! A program's own text in memory that no file backs.
//!
//! Large programs are moved to huge pages when they start: node's `--use-largepages`, Intel's iodlr and
//! BOLT's runtime put anonymous memory where the text was and copy it there. The code, its names and its
//! unwind tables are those of the file as before. So anonymous memory that lies where a loaded file has its
//! code is that file, as long as the process still has other parts of the file mapped around it: what once was
//! a library and was unloaded says nothing of what came after it.

use std::ops::Range;

use crate::elf::layout::Layout;
use crate::model::event::Mmap;
use crate::model::maps;
use crate::model::objects::{Held, ObjectId, Objects, Root, Source};
use crate::model::regions::Regions;

/// Neighbours that are looked at: a program's text falls in few pieces.
const NEIGHBOURS: usize = 8;
/// Memory smaller than that is in no huge page.
const HUGE_PAGE_BYTES: u64 = 2 << 20;

/// The file whose text a mapping without a file holds, and the offset of its first byte there.
pub fn text(
    time_ns: u64,
    mmap: &Mmap,
    regions: &Regions,
    root: &Root,
    objects: &mut Objects,
) -> Option<(ObjectId, u64)> {
    let below = regions.range(..mmap.range.end).rev().take(NEIGHBOURS);
    let neighbours = below.chain(regions.range(mmap.range.end..).take(NEIGHBOURS));
    let found = neighbours.into_iter().find_map(|(&start, region)| {
        let layout = layout(objects, region.object)?;
        let bias = layout.bias(start, region.file_offset, true)?;
        Some((region.object, bias, code_at(layout, bias, &mmap.range)?))
    });
    if let Some((object, bias, file_offset)) = found {
        let extent = layout(objects, object)?.extent(bias);
        let path = &objects.get(object).path;
        let is_part = |part: &Mmap| extent.contains(&part.range.start) && part.path == *path;
        return maps::of_files(mmap.tgid).iter().any(is_part).then_some((object, file_offset));
    }
    // All of the text may have been moved before we saw it.
    if mmap.range.end - mmap.range.start < HUGE_PAGE_BYTES {
        return None;
    }
    let maps = maps::of_files(mmap.tgid);
    let at = maps.partition_point(|part| part.range.start < mmap.range.start);
    let around = [at.checked_sub(1).and_then(|at| maps.get(at)), maps.get(at)];
    around.into_iter().flatten().find_map(|part| {
        let Held::Object(object) = objects.of_mapping(time_ns, part, root) else { return None };
        let layout = layout(objects, object)?;
        let bias = layout.bias(part.range.start, part.file_offset, false)?;
        Some((object, code_at(layout, bias, &mmap.range)?))
    })
}

fn layout(objects: &Objects, object: ObjectId) -> Option<&Layout> {
    match &objects.get(object).source {
        Source::File(Ok(file)) => Some(&file.layout),
        _ => None,
    }
}

fn code_at(layout: &Layout, bias: u64, range: &Range<u64>) -> Option<u64> {
    layout.code_at(range.start.wrapping_sub(bias), range.end - range.start)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::event::FileId;
    use crate::model::regions::Region;

    /// Our own program, as if a part of its text had been moved.
    #[test]
    fn memory_in_a_programs_text_is_that_program() {
        let tgid = std::process::id();
        let program = std::fs::read_link("/proc/self/exe").unwrap();
        let listed = std::fs::read_to_string("/proc/self/maps").unwrap();
        let line = listed.lines().find(|line| {
            line.ends_with(program.to_str().unwrap()) && line.split(' ').nth(1).unwrap().contains('x')
        });
        let code = maps::part(tgid, line.unwrap()).unwrap();
        let mut objects = Objects::default();
        let Held::Object(object) = objects.of_mapping(u64::MAX >> 2, &code, &Root::OURS) else {
            panic!("our own program was taken for memory");
        };
        let (start, end) = (code.range.start, code.range.end);
        let regions = Regions::from([(
            start,
            Region { end, file_offset: code.file_offset, object, since_ns: 0, seen_ns: 0 },
        )]);
        let mut text_at = |range: Range<u64>, regions: &Regions| {
            let mmap =
                Mmap { tgid, range, file_offset: 0, file: FileId::Anonymous, path: "//anon".to_owned() };
            text(0, &mmap, regions, &Root::OURS, &mut objects)
        };
        let page = start + 0x1000..start + 0x2000;
        assert_eq!(text_at(page.clone(), &regions), Some((object, code.file_offset + 0x1000)));
        // Behind the text, in part behind it, and elsewhere.
        assert_eq!(text_at(end + (1 << 40)..end + (1 << 40) + 0x1000, &regions), None);
        assert_eq!(text_at(end - 0x1000..end + (1 << 30), &regions), None);
        assert_eq!(text_at(page.clone(), &Regions::new()), None);
        // A program that is not mapped where it is thought to be was unloaded.
        let elsewhere = start ^ (1 << 45);
        let region = Region {
            end: elsewhere + (end - start),
            file_offset: code.file_offset,
            object,
            since_ns: 0,
            seen_ns: 0,
        };
        let regions = Regions::from([(elsewhere, region)]);
        assert_eq!(text_at(elsewhere + 0x1000..elsewhere + 0x2000, &regions), None);
    }
}
