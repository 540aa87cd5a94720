//! Runs the instructions of `.eh_frame` or `.debug_frame`. The only user of the `gimli` crate.
//!
//! Three passes, each linear: find the entries; read which code each FDE describes, sort and cut
//! overlaps; run the instructions in that order, so that rows come out ascending (see
//! [`super::sources`], where several sections come together). An FDE is read twice rather than kept:
//! there can be a million of them.
//!
//! gimli reads entries and runs instructions, and treats both as untrusted. What it leaves to us is
//! the amount: a section in which many small FDEs share one huge CIE, or lists of instructions that
//! copy large states, would take hours. So the bytes of instructions to be run are limited by the
//! section's size, and states to a few registers. The walk over the entries is ours too: gimli's
//! ends at the first error and at the first terminator, but one bad entry should cost only itself,
//! and linkers leave terminators in the middle.
//!
//! gimli is as strict as DWARF in one place where others are not: `DW_CFA_def_cfa_register` after an
//! expression. GNU as writes it, and libgcc goes on with the offset before the expression. Only the
//! last instructions of some functions in libgcrypt were seen to need it; they are not understood.

use std::collections::HashMap;

use anyhow::{Result, ensure};
use gimli::{
    BaseAddresses, CfaRule, EndianSlice, LittleEndian, Register, RegisterRule, UnwindContext,
    UnwindContextStorage, UnwindExpression, UnwindOffset, UnwindSection, UnwindTableRow,
};

use super::dwarf::{self, RowRules, SavedRule};
use super::entries::{Code, Entry, entries, located};
use super::table::{Builder, Stats};
use super::{Reason, Rule};
use crate::elf::{CallFrames, Dialect, Machine, Segment};

type Bytes<'a> = EndianSlice<'a, LittleEndian>;
type Cie<'a> = gimli::CommonInformationEntry<Bytes<'a>>;
type Fde<'a> = gimli::FrameDescriptionEntry<Bytes<'a>>;

/// The largest libraries have half a million.
const MAX_FDES: usize = 2 << 20;
/// The largest libraries have a dozen, as linkers merge equal ones; `.debug_frame` has one for each
/// source file.
const MAX_CIES: usize = 1 << 16;
/// Common sections take twice their size: each FDE is about as large as its CIE.
const INSTRUCTION_BYTES_PER_BYTE: u64 = 4;

/// Room for one state of the instructions' machine: 17 registers in a signal frame, 16 vector
/// registers in some hand-written code. States nest two deep in practice.
struct Storage;

impl UnwindContextStorage<usize> for Storage {
    type Rules = [(Register, RegisterRule<usize>); 40];
    type Stack = Box<[UnwindTableRow<usize, Self>; 8]>;
}

/// What it takes to run instructions.
pub(super) struct Work {
    context: UnwindContext<usize, Storage>,
    /// Bytes of instructions that may still be run.
    budget: u64,
    follows_base: bool,
}

impl Work {
    /// For sections of so many bytes.
    pub fn new(bytes: u64, follows_base: bool) -> Self {
        let budget = INSTRUCTION_BYTES_PER_BYTE * bytes;
        Self { context: UnwindContext::new_in(), budget, follows_base }
    }
}

/// A section of call frame information.
pub(super) trait Section {
    /// Its size.
    fn bytes(&self) -> u64;

    /// Which code the FDEs describe: ascending and disjoint.
    fn codes(&mut self, segments: &[Segment], stats: &mut Stats) -> Vec<Code>;

    /// Runs an FDE's instructions.
    ///
    /// # Errors
    /// If there is more work than is reasonable. What is merely wrong is not understood.
    fn rows(&self, code: &Code, work: &mut Work, builder: &mut Builder) -> Result<()>;
}

/// Finds the entries of a section.
///
/// # Errors
/// If there are more than is reasonable. What is merely wrong is left out, and counted.
pub(super) fn open<'a>(frames: &'a CallFrames, stats: &mut Stats) -> Result<Box<dyn Section + 'a>> {
    let bytes = EndianSlice::new(&frames.bytes, LittleEndian);
    // Whose instructions there are beside DWARF's own.
    let vendor = match frames.machine {
        Machine::X86_64 | Machine::I386 => gimli::Vendor::Default,
        Machine::Aarch64 => gimli::Vendor::AArch64,
    };
    match frames.dialect {
        Dialect::EhFrame => {
            let mut section = gimli::EhFrame::from(bytes);
            section.set_address_size(frames.machine.address_bytes());
            section.set_vendor(vendor);
            Ok(Box::new(Conversion::new(section, frames, stats)?))
        }
        Dialect::DebugFrame => {
            let mut section = gimli::DebugFrame::from(bytes);
            section.set_address_size(frames.machine.address_bytes());
            section.set_vendor(vendor);
            Ok(Box::new(Conversion::new(section, frames, stats)?))
        }
    }
}

struct Conversion<'a, S> {
    machine: Machine,
    section: S,
    bases: BaseAddresses,
    cies: HashMap<usize, Cie<'a>>,
    fdes: Vec<usize>,
}

impl<'a, S: UnwindSection<Bytes<'a>>> Conversion<'a, S>
where
    S::Offset: From<usize>,
{
    fn new(section: S, frames: &CallFrames, stats: &mut Stats) -> Result<Self> {
        let mut this = Self {
            machine: frames.machine,
            bases: BaseAddresses::default().set_eh_frame(frames.vaddr),
            cies: HashMap::new(),
            fdes: Vec::new(),
            section,
        };
        let max_fdes = frames.max_fdes.map_or(usize::MAX, |max| max as usize);
        for entry in entries(frames) {
            match entry {
                Entry::Terminator if frames.max_fdes.is_some() => break,
                Entry::Terminator => {}
                Entry::Cie(offset) => match this.section.cie_from_offset(&this.bases, offset.into()) {
                    Ok(cie) => {
                        ensure!(this.cies.len() < MAX_CIES, "failed to hold more than {MAX_CIES} prologues");
                        this.cies.insert(offset, cie);
                    }
                    Err(_) => stats.broken_entries += 1,
                },
                Entry::Fde(_) if this.fdes.len() == max_fdes => break,
                Entry::Fde(offset) => {
                    ensure!(this.fdes.len() < MAX_FDES, "failed to hold more than {MAX_FDES} functions");
                    this.fdes.push(offset);
                }
                Entry::Broken => stats.broken_entries += 1,
            }
        }
        Ok(this)
    }

    /// Reads an FDE. Its CIE must be one that was found: one read anywhere else could be different,
    /// and large, for every FDE.
    fn fde(&self, offset: usize) -> gimli::Result<Fde<'a>> {
        self.section.fde_from_offset(&self.bases, offset.into(), |_, _, cie| {
            let cie: usize = UnwindOffset::into(cie);
            self.cies.get(&cie).cloned().ok_or(gimli::Error::NotCieId(cie as u64))
        })
    }

    fn rule(&self, row: &UnwindTableRow<usize, Storage>, fde: &Fde<'a>, follows_base: bool) -> Rule {
        let registers = self.machine.registers();
        self.machine.rule(&RowRules {
            cfa: match row.cfa() {
                CfaRule::RegisterAndOffset { register, offset } => {
                    dwarf::CfaRule::Register(register.0, *offset)
                }
                CfaRule::Expression(expression) => dwarf::CfaRule::Expression(self.expression(expression)),
            },
            sp: self.saved(row.register(Register(registers.sp))),
            fp: self.saved(row.register(Register(registers.fp))),
            base: follows_base.then(|| self.saved(row.register(Register(registers.base)))),
            ra: self.saved(row.register(Register(registers.ra))),
            is_signal_frame: fde.is_signal_trampoline(),
        })
    }

    fn saved(&self, rule: Option<RegisterRule<usize>>) -> SavedRule<'a> {
        match rule {
            None => SavedRule::Unspecified,
            Some(RegisterRule::Undefined) => SavedRule::Undefined,
            Some(RegisterRule::SameValue) => SavedRule::Same,
            Some(RegisterRule::Offset(offset)) => SavedRule::Offset(offset),
            Some(RegisterRule::ValOffset(offset)) => SavedRule::ValueOffset(offset),
            Some(RegisterRule::Register(register)) => SavedRule::Register(register.0),
            Some(RegisterRule::Expression(expression)) => SavedRule::Expression(self.expression(&expression)),
            Some(_) => SavedRule::Other,
        }
    }

    /// The bytes of an expression. One that gimli cannot give back is empty, which is no rule.
    fn expression(&self, expression: &UnwindExpression<usize>) -> &'a [u8] {
        expression.get(&self.section).map_or(&[], |expression| expression.0.slice())
    }
}

impl<'a, S: UnwindSection<Bytes<'a>>> Section for Conversion<'a, S>
where
    S::Offset: From<usize>,
{
    fn bytes(&self) -> u64 {
        self.section.section().len() as u64
    }

    fn codes(&mut self, segments: &[Segment], stats: &mut Stats) -> Vec<Code> {
        let mut codes = Vec::with_capacity(self.fdes.len());
        for fde in std::mem::take(&mut self.fdes) {
            match self.fde(fde).map(|found| located(fde, found.initial_address(), found.len(), segments)) {
                Ok(Some(code)) => codes.push(code),
                Ok(None) => stats.ignored_fdes += 1,
                Err(_) => stats.broken_entries += 1,
            }
        }
        // Of several that start at the same place, the first in the section is right.
        codes.sort_unstable_by_key(|code| (code.start, code.fde));
        let all = codes.len();
        codes.dedup_by_key(|code| code.start);
        stats.duplicate_fdes += all - codes.len();
        for i in 1..codes.len() {
            codes[i - 1].end = codes[i - 1].end.min(codes[i].start);
        }
        codes
    }

    fn rows(&self, code: &Code, work: &mut Work, builder: &mut Builder) -> Result<()> {
        let failed = Rule::NotUnderstood(Reason::Instructions);
        let fde = self.fde(code.fde)?;
        let cost = (fde.entry_len() + fde.cie().entry_len()) as u64;
        ensure!(cost <= work.budget, "failed to bound the work: too many functions share large prologues");
        work.budget -= cost;
        if fde.cie().return_address_register().0 != self.machine.registers().ra {
            return builder.push(code.start, Rule::NotUnderstood(Reason::ReturnAddress));
        }
        let Ok(mut table) = fde.rows(&self.section, &self.bases, &mut work.context) else {
            return builder.push(code.start, failed);
        };
        let mut next = code.start;
        loop {
            let (rule, end) = match table.next_row() {
                Ok(None) => break,
                Ok(Some(row)) => {
                    let length = row.end_address().wrapping_sub(fde.initial_address());
                    (self.rule(row, &fde, work.follows_base), code.start.saturating_add(length))
                }
                Err(_) => (failed, code.end),
            };
            builder.push(next, rule)?;
            // Descends only if addresses wrapped around.
            if end >= code.end || end < next {
                break;
            }
            next = end;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::frame::{Cfa, Frame, ReturnAddress, SavedBase, SavedFp};
    use super::super::sources::{self, Sources};
    use super::super::table::Table;
    use super::*;

    /// Address of the section; all code lies below it and at the same offset in the file.
    const VADDR: u64 = 0x100_0000;
    const CODE: Segment = Segment { vaddr: 0, file_offset: 0, file_bytes: VADDR, executable: true };
    const ADVANCE_4: u8 = 0x44;
    const DEF_CFA_OFFSET: u8 = 0x0e;
    const REMEMBER: u8 = 0x0a;
    const RESTORE: u8 = 0x0b;
    const UNKNOWN: u8 = 0x3f;

    /// A section under construction.
    #[derive(Default)]
    struct Writer(Vec<u8>);

    impl Writer {
        fn entry(&mut self, id: u32, body: &[&[u8]]) -> usize {
            let offset = self.0.len();
            let body = body.concat();
            self.0.extend((4 + body.len() as u32).to_le_bytes());
            self.0.extend(id.to_le_bytes());
            self.0.extend(body);
            offset
        }

        /// "zR" with pc-relative addresses, CFA = rsp + 8, return address at CFA - 8.
        fn cie(&mut self, more: &[u8]) -> usize {
            let start = [1, b'z', b'R', 0, 1, 0x78, 16, 1, 0x1b];
            self.entry(0, &[&start, &[0x0c, 7, 8, 0x90, 1], more])
        }

        fn fde(&mut self, cie: usize, start: u32, length: u32, instructions: &[u8]) -> usize {
            let here = self.0.len();
            let place = VADDR as u32 + here as u32 + 8;
            let start = start.wrapping_sub(place).to_le_bytes();
            self.entry((here + 4 - cie) as u32, &[&start, &length.to_le_bytes(), &[0], instructions])
        }

        fn frames(self, dialect: Dialect) -> CallFrames {
            let machine = Machine::X86_64;
            CallFrames { machine, dialect, vaddr: VADDR, bytes: self.0, max_fdes: None }
        }

        fn try_convert(self) -> Result<Table> {
            all_of(&[self.frames(Dialect::EhFrame)], Vec::new())
        }

        fn convert(self) -> Table {
            self.try_convert().unwrap()
        }
    }

    fn all_of(frames: &[CallFrames], plts: Vec<sources::Rows>) -> Result<Table> {
        let machine = Machine::X86_64;
        sources::table(Sources { machine, segments: &[CODE], go: Vec::new(), frames, plts, loops: &[] })
    }

    fn rsp(offset: i32) -> Rule {
        Rule::Frame(Frame {
            cfa: Cfa::Sp(offset),
            fp: SavedFp::Same,
            base: SavedBase::Lost,
            ra: ReturnAddress::AtCfa(-8),
        })
    }

    fn rows(table: &Table) -> Vec<(u64, Rule)> {
        table.rows().map(|row| (row.file_offset, table.rule(row.rule))).collect()
    }

    #[test]
    fn functions_end() {
        let mut section = Writer::default();
        let cie = section.cie(&[]);
        section.fde(cie, 0x1000, 0x10, &[ADVANCE_4, DEF_CFA_OFFSET, 16]);
        section.fde(cie, 0x1010, 0x10, &[]); // right behind
        section.fde(cie, 0x1030, 0x10, &[]); // after a gap
        let gap = |at| (at, Rule::Uncovered);
        assert_eq!(
            rows(&section.convert()),
            [
                (0x1000, rsp(8)),
                (0x1004, rsp(16)),
                (0x1010, rsp(8)),
                gap(0x1020),
                (0x1030, rsp(8)),
                gap(0x1040)
            ]
        );
    }

    #[test]
    fn of_overlapping_functions_the_one_that_starts_last_is_right() {
        let mut section = Writer::default();
        let cie = section.cie(&[]);
        section.fde(cie, 0x1008, 0x4, &[DEF_CFA_OFFSET, 32]);
        section.fde(cie, 0x1000, 0x20, &[DEF_CFA_OFFSET, 16]);
        section.fde(cie, 0x1000, 0x30, &[DEF_CFA_OFFSET, 24]); // identical code folding
        let table = section.convert();
        assert_eq!(rows(&table), [(0x1000, rsp(16)), (0x1008, rsp(32)), (0x100c, Rule::Uncovered)]);
        assert_eq!((table.stats.fdes, table.stats.duplicate_fdes), (2, 1));
    }

    #[test]
    fn functions_that_are_nowhere_are_ignored() {
        let mut section = Writer::default();
        let cie = section.cie(&[]);
        section.fde(cie, 0, 0x10, &[]); // discarded by the linker
        section.fde(cie, 0x1000, 0, &[]);
        section.fde(cie, VADDR as u32, 0x10, &[]); // beyond the segment
        section.fde(cie, VADDR as u32 - 4, 0x10, &[]); // its end is
        let table = section.convert();
        assert_eq!(rows(&table), [(VADDR - 4, rsp(8)), (VADDR, Rule::Uncovered)]);
        assert_eq!(table.stats.ignored_fdes, 3);
    }

    #[test]
    fn a_row_that_is_not_understood_ends_its_predecessor() {
        let failed = Rule::NotUnderstood(Reason::Instructions);
        for bad in [&[UNKNOWN][..], &[DEF_CFA_OFFSET], &[RESTORE], &[0x16, 6, 0xff, 0x7f], &[0xc0 + 50]] {
            let mut section = Writer::default();
            let cie = section.cie(&[]);
            section.fde(cie, 0x1000, 0x10, &[&[ADVANCE_4][..], bad].concat());
            section.fde(cie, 0x1010, 0x10, &[]);
            let table = section.convert();
            let wanted = match bad {
                // To restore a register that was never saved is allowed.
                [0xf2] => vec![(0x1000, rsp(8)), (0x1020, Rule::Uncovered)],
                _ => vec![(0x1000, rsp(8)), (0x1004, failed), (0x1010, rsp(8)), (0x1020, Rule::Uncovered)],
            };
            assert_eq!(rows(&table), wanted, "{bad:x?}");
        }
    }

    #[test]
    fn states_nest_but_not_without_end() {
        let nested = |depth| {
            let mut section = Writer::default();
            let cie = section.cie(&[]);
            let mut instructions = Vec::new();
            for level in 1..=depth {
                instructions.extend([REMEMBER, ADVANCE_4, DEF_CFA_OFFSET, 8 + level]);
            }
            for _ in 0..depth {
                instructions.extend([ADVANCE_4, RESTORE]);
            }
            section.fde(cie, 0x1000, 0x1000, &instructions);
            section.convert()
        };
        let table = nested(2);
        assert_eq!(
            rows(&table)[..5],
            [(0x1000, rsp(8)), (0x1004, rsp(9)), (0x1008, rsp(10)), (0x100c, rsp(9)), (0x1010, rsp(8))]
        );
        assert_eq!(nested(100).stats.not_understood[&Reason::Instructions], 1);
    }

    #[test]
    fn a_bad_entry_costs_only_itself() {
        let mut section = Writer::default();
        let bad = section.entry(0, &[&[9]]); // a CIE of an unknown version
        section.fde(bad, 0x1000, 0x10, &[]);
        section.0.extend([0; 4]); // a terminator in the middle
        let cie = section.cie(&[]);
        section.fde(cie, 0x2000, 0x10, &[]);
        section.fde(cie + 1, 0x3000, 0x10, &[]); // its CIE is none
        let last = section.fde(cie, 0x4000, 0x10, &[]);
        section.0[last..last + 4].copy_from_slice(&1000_u32.to_le_bytes()); // beyond the end
        let table = section.convert();
        assert_eq!(rows(&table), [(0x2000, rsp(8)), (0x2010, Rule::Uncovered)]);
        assert_eq!(table.stats.broken_entries, 4);
    }

    #[test]
    fn what_one_section_does_not_describe_another_may() {
        let mut section = Writer::default();
        let cie = section.cie(&[]);
        section.fde(cie, 0x1000, 0x10, &[]);
        section.fde(cie, 0x1020, 0x10, &[]);
        let mut debug = Writer::default();
        let cie = debug.entry(u32::MAX, &[&[4, 0, 8, 0, 1, 0x78, 16, 0x0c, 7, 8, 0x90, 1]]);
        let mut fde = |start: u64, length: u64| {
            let depth = [DEF_CFA_OFFSET, 64];
            debug.entry(cie as u32, &[&start.to_le_bytes(), &length.to_le_bytes(), &depth])
        };
        fde(0x1000, 0x10); // described by both
        fde(0x1018, 0x10); // and in part
        fde(0x1010, 8);
        fde(0x1030, 0x10);
        let stubs = |start| vec![(start, rsp(8)), (start + 8, rsp(16)), (start + 16, Rule::Uncovered)];
        let frames = [section.frames(Dialect::EhFrame), debug.frames(Dialect::DebugFrame)];
        let table = all_of(&frames, vec![stubs(0x1038), stubs(0x2000), stubs(0x800)]).unwrap();
        assert_eq!(
            rows(&table),
            [
                (0x800, rsp(8)),
                (0x808, rsp(16)),
                (0x810, Rule::Uncovered),
                (0x1000, rsp(8)),
                (0x1010, rsp(64)),
                (0x1018, Rule::Uncovered),
                (0x1020, rsp(8)),
                (0x1030, rsp(64)),
                (0x1040, Rule::Uncovered),
                (0x2000, rsp(8)),
                (0x2008, rsp(16)),
                (0x2010, Rule::Uncovered),
            ]
        );
        assert_eq!((table.stats.fdes, table.stats.broken_entries), (4, 0));
    }

    #[test]
    fn work_is_bounded() {
        let mut section = Writer::default();
        let cie = section.cie(&vec![0; 1 << 20]);
        for i in 1..50_000 {
            section.fde(cie, i * 16, 16, &[]);
        }
        let error = section.try_convert().unwrap_err();
        assert!(error.to_string().contains("share large prologues"), "{error:#}");
    }
}
