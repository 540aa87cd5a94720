//! What is asked about a JVM, and what is answered. The recorder believes no answer more than the memory that it is
//! made from: numbers are bounded, ranges are in order, names are text.

use crate::model::scripts::{Code, Name};
use crate::recording::capture::bpf::flat::FlatTable;
use crate::worker::wire::{Reader, Writer};

/// Inlined at one place.
const MOST_NAMES: usize = 256;

/// A place in compiled code.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Place {
    /// The number of its blob, or 0: of whatever is there.
    pub blob: u64,
    /// Its address.
    pub addr: u64,
}

/// What is asked.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Question {
    /// Which JVM: whose memory comes along.
    pub jvm: u64,
    /// What its file says, as [`crate::interpreters::Interpreters::to_bytes`].
    pub layout: Vec<u8>,
    /// What is added to addresses in the file.
    pub bias: u64,
    /// Whether the code heaps are looked through.
    pub looks: bool,
    /// The number of the next blob that is found.
    pub next_blob: u64,
    /// Places of which the methods are wanted.
    pub places: Vec<Place>,
    /// Methods that the interpreter ran: their addresses and checksums.
    pub methods: Vec<[u64; 2]>,
}

/// A blob that is new.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewBlob {
    /// Its number.
    pub number: u64,
    /// Its first address.
    pub start: u64,
    /// First address behind it.
    pub end: u64,
    /// The method that is compiled, or what the blob is called.
    pub name: String,
}

/// Rules for a code heap.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HeapTable {
    /// Its first address.
    pub low: u64,
    /// First address behind what has a table.
    pub high: u64,
    /// First address behind where it may grow to.
    pub end: u64,
    /// By the distance from [`base`].
    pub table: FlatTable,
}

/// The address from which a heap's table counts.
pub fn base(low: u64) -> u64 {
    low & !0xffff
}

/// What is answered.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Answer {
    /// Whether this is a JVM whose structures are known.
    pub is_known: bool,
    /// Whether there are code heaps yet.
    pub has_code: bool,
    /// Whether what was told before is void.
    pub is_fresh: bool,
    /// How long looking took.
    pub look_ns: u64,
    /// Blobs that are gone, by their numbers.
    pub gone: Vec<u64>,
    /// Blobs that were not there before.
    pub come: Vec<NewBlob>,
    /// Between which addresses all heaps are or will be.
    pub bounds: (u64, u64),
    /// New tables, if anything has changed.
    pub heaps: Option<Vec<HeapTable>>,
    /// The functions at each place, innermost first; none if that is not known.
    pub places: Vec<Vec<Name>>,
    /// What names each method.
    pub methods: Vec<Option<Code>>,
}

impl Question {
    /// As bytes.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut writer = Writer::default();
        writer.number(self.jvm).bytes(&self.layout).number(self.bias);
        writer.number(self.looks.into()).number(self.next_blob);
        writer.numbers(&self.places.iter().flat_map(|place| [place.blob, place.addr]).collect::<Vec<_>>());
        writer.numbers(self.methods.as_flattened());
        writer.finish()
    }

    /// From bytes.
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let mut reader = Reader(bytes);
        Some(Self {
            jvm: reader.number()?,
            layout: reader.bytes()?.to_vec(),
            bias: reader.number()?,
            looks: reader.number()? != 0,
            next_blob: reader.number()?,
            places: pairs(&mut reader)?.into_iter().map(|[blob, addr]| Place { blob, addr }).collect(),
            methods: pairs(&mut reader)?,
        })
    }
}

fn pairs(reader: &mut Reader<'_>) -> Option<Vec<[u64; 2]>> {
    let numbers = reader.numbers()?;
    let (pairs, rest) = numbers.as_chunks();
    rest.is_empty().then(|| pairs.to_vec())
}

impl Answer {
    /// As bytes.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut writer = Writer::default();
        writer
            .number(self.is_known.into())
            .number(self.has_code.into())
            .number(self.is_fresh.into())
            .number(self.look_ns);
        writer.number(self.bounds.0).number(self.bounds.1);
        writer.numbers(&self.gone).number(self.come.len() as u64);
        for NewBlob { number, start, end, name } in &self.come {
            writer.number(*number).number(*start).number(*end).bytes(name.as_bytes());
        }
        writer.number(self.heaps.is_some().into());
        writer.number(self.heaps.as_ref().map_or(0, Vec::len) as u64);
        for HeapTable { low, high, end, table } in self.heaps.iter().flatten() {
            writer.number(*low).number(*high).number(*end).bytes(&table.to_bytes());
        }
        writer.number(self.places.len() as u64);
        for names in &self.places {
            writer.number(names.len() as u64);
            for Name { function, file, first_line, line } in names {
                writer.bytes(function.as_bytes()).bytes(file.as_bytes());
                writer.number((*first_line).into()).number((*line).into());
            }
        }
        writer.number(self.methods.len() as u64);
        for code in &self.methods {
            writer.number(code.is_some().into());
            if let Some(code) = code {
                writer.bytes(code.name.as_bytes()).bytes(code.file.as_bytes());
                writer.number(code.first_line.into()).bytes(&code.table);
            }
        }
        writer.finish()
    }

    /// From bytes; `None` if they are not the answer to such a question.
    pub fn from_bytes(bytes: &[u8], question: &Question) -> Option<Self> {
        let mut reader = Reader(bytes);
        let is_known = reader.number()? != 0;
        let has_code = reader.number()? != 0;
        let is_fresh = reader.number()? != 0;
        let look_ns = reader.number()?;
        let bounds = (reader.number()?, reader.number()?);
        let gone = reader.numbers()?;
        let come: Option<Vec<NewBlob>> = (0..reader.count(32)?)
            .map(|_| {
                let (number, start, end) = (reader.number()?, reader.number()?, reader.number()?);
                (start < end).then_some(())?;
                Some(NewBlob { number, start, end, name: reader.text()? })
            })
            .collect();
        let has_heaps = reader.number()? != 0;
        let heaps: Option<Vec<HeapTable>> = (0..reader.count(32)?)
            .map(|_| {
                let (low, high, end) = (reader.number()?, reader.number()?, reader.number()?);
                (low < high && high <= end).then_some(())?;
                Some(HeapTable { low, high, end, table: FlatTable::from_bytes(reader.bytes()?)? })
            })
            .collect();
        let heaps = heaps?;
        if !heaps.is_sorted_by(|a, b| a.end <= b.low) {
            return None;
        }
        let places: Option<Vec<Vec<Name>>> = (0..reader.count(8)?).map(|_| names(&mut reader)).collect();
        let methods: Option<Vec<Option<Code>>> = (0..reader.count(8)?).map(|_| code(&mut reader)).collect();
        let (places, methods) = (places?, methods?);
        let fits = places.len() == question.places.len() && methods.len() == question.methods.len();
        (fits && reader.is_at_end()).then_some(Self {
            is_known,
            has_code,
            is_fresh,
            look_ns,
            bounds,
            gone,
            come: come?,
            heaps: has_heaps.then_some(heaps),
            places,
            methods,
        })
    }
}

fn names(reader: &mut Reader<'_>) -> Option<Vec<Name>> {
    let count = reader.count(32)?;
    let mut name = || {
        let (function, file) = (reader.text()?.into(), reader.text()?.into());
        let (first_line, line) = (reader.number()? as u32, reader.number()? as u32);
        Some(Name { function, file, first_line, line })
    };
    if count > MOST_NAMES { None } else { (0..count).map(|_| name()).collect() }
}

fn code(reader: &mut Reader<'_>) -> Option<Option<Code>> {
    if reader.number()? == 0 {
        return Some(None);
    }
    Some(Some(Code {
        name: reader.text()?,
        file: reader.text()?,
        first_line: reader.number()? as u32,
        lines: crate::interpreters::python::Lines::Bytecode,
        table: reader.bytes()?.to_vec(),
    }))
}
