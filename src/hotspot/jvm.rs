//! One JVM, as the worker knows it: what it has compiled so far, and the answers to questions about it.

use std::collections::{BTreeMap, HashMap};
use std::time::Instant;

use super::blobs::{Blob, Kind};
use super::methods::{Counts, Method};
use super::structs::Structs;
use super::wire::{Answer, HeapTable, NewBlob, Place, Question, base};
use super::{Memory, Reads, blobs, frames, methods, scopes};
use crate::interpreters::Interpreters;
use crate::model::scripts::{Code, Name};
use crate::recording::capture::bpf::flat::FlatTable;
use crate::unwind::Rule;
use crate::unwind::table::{Builder, Stats};

/// Methods that are kept by their addresses: a large program has 50,000.
const MOST_METHODS: usize = 200_000;
/// Code of one blob that is read.
const MOST_CODE: usize = 16 << 20;

/// What the worker knows of a JVM.
#[derive(Debug, Default)]
pub struct Jvm {
    /// `None` as long as it could not be read.
    fields: Option<Fields>,
    /// By start: its number, and its rules.
    known: BTreeMap<u64, Known>,
    methods: HashMap<(u64, u64), Option<Method>>,
    has_told: bool,
    next: u64,
}

#[derive(Debug)]
struct Known {
    number: u64,
    blob: Blob,
    rules: Vec<(u64, Rule)>,
}

#[derive(Debug)]
struct Fields {
    blobs: blobs::Fields,
    methods: Option<methods::Fields>,
    scopes: Option<scopes::Fields>,
    counts: Counts,
}

impl Fields {
    fn find(structs: &Structs) -> Option<Self> {
        let methods = methods::Fields::find(structs);
        // What came with the other way to write numbers, in JDK 20.
        let is_new = structs.offset("ConstMethod", "_flags._flags").is_some();
        Some(Self {
            blobs: blobs::Fields::find(structs)?,
            methods,
            scopes: scopes::Fields::find(structs),
            counts: Counts { left_out: is_new.into() },
        })
    }
}

impl Jvm {
    /// Answers a question by the process's memory as it is now.
    pub fn answer(&mut self, question: &Question, memory: &dyn Memory) -> Answer {
        let reads = Reads::new(memory);
        let mut answer = Answer {
            places: vec![Vec::new(); question.places.len()],
            methods: vec![None; question.methods.len()],
            is_fresh: !self.has_told,
            ..Answer::default()
        };
        self.next = self.next.max(question.next_blob);
        if self.fields.is_none() {
            let layout = Interpreters::from_bytes(&question.layout).and_then(|file| file.hotspot);
            let structs = layout.and_then(|layout| Structs::read(&reads, &layout, question.bias));
            self.fields = structs.as_ref().and_then(Fields::find);
        }
        let Some(fields) = self.fields.take() else { return answer };
        answer.is_known = true;
        answer.has_code = !self.known.is_empty();
        if question.looks {
            let began = Instant::now();
            self.look(&fields, &reads, &mut answer);
            answer.look_ns = began.elapsed().as_nanos() as u64;
        }
        for (names, place) in answer.places.iter_mut().zip(&question.places) {
            *names = self.names(&fields, &reads, *place).unwrap_or_default();
        }
        for (code, &[method, checksum]) in answer.methods.iter_mut().zip(&question.methods) {
            if fields.methods.as_ref().is_some_and(|fields| fields.has(&reads, method, checksum)) {
                *code = self.method(&fields, &reads, method, 0).map(|method| Code {
                    name: method.name.to_string(),
                    file: method.file.to_string(),
                    first_line: method.first_line(),
                    lines: crate::interpreters::python::Lines::Bytecode,
                    table: method.table(),
                });
            }
        }
        self.fields = Some(fields);
        answer
    }

    /// Looks through the code heaps.
    fn look(&mut self, fields: &Fields, memory: &Reads<'_>, answer: &mut Answer) {
        let Some(heaps) = fields.blobs.heaps(memory) else { return };
        let call_stub = fields.blobs.call_stub(memory);
        answer.bounds = fields.blobs.bounds(memory).unwrap_or_default();
        let mut blobs = Vec::new();
        for (heap, shift) in &heaps {
            fields.blobs.blobs(memory, heap, *shift, &mut blobs);
        }
        let mut before = std::mem::take(&mut self.known);
        let mut changed = !self.has_told;
        for blob in blobs {
            // The stubs are one blob long before they are filled.
            let is_stub = blob.kind == Kind::Other && (blob.start..blob.end).contains(&call_stub);
            let is_whole = |known: &Known| blob.kind != Kind::Other || is_stub != known.rules.is_empty();
            match before.remove(&blob.start) {
                Some(known) if known.blob == blob && is_whole(&known) => {
                    self.known.insert(blob.start, known);
                }
                other => {
                    changed = true;
                    answer.gone.extend(other.map(|other| other.number));
                    let Some(known) = self.new_blob(fields, memory, blob, call_stub, &mut answer.come) else {
                        continue;
                    };
                    self.known.insert(known.blob.start, known);
                }
            }
        }
        changed |= !before.is_empty();
        answer.gone.extend(before.into_values().map(|known| known.number));
        answer.has_code = !self.known.is_empty();
        if changed {
            let table = |heap: &blobs::Heap| HeapTable {
                low: heap.low,
                high: heap.high,
                end: heap.end,
                table: self.table(heap).unwrap_or_default(),
            };
            answer.heaps = Some(heaps.iter().map(|(heap, _)| table(heap)).collect());
        }
        self.has_told = true;
    }

    fn new_blob(
        &mut self,
        fields: &Fields,
        memory: &Reads<'_>,
        blob: Blob,
        call_stub: u64,
        come: &mut Vec<NewBlob>,
    ) -> Option<Known> {
        let bytes = usize::try_from(blob.end - blob.start).ok().filter(|&bytes| bytes <= MOST_CODE)?;
        let has_frame = blob.frame != 0;
        let code = if has_frame { memory.bytes(blob.start, bytes)? } else { Vec::new() };
        let rules = frames::rules(&blob, &code, call_stub);
        let method = self.method(fields, memory, blob.method, blob.compilation);
        let name = match method {
            Some(method) => method.name.to_string(),
            None => memory.text(blob.name)?.to_string(),
        };
        self.next += 1;
        let number = self.next;
        come.push(NewBlob { number, start: blob.start, end: blob.end, name });
        Some(Known { number, blob, rules })
    }

    /// The rules for a heap.
    fn table(&self, heap: &blobs::Heap) -> Option<FlatTable> {
        let base = base(heap.low);
        let mut builder = Builder::default();
        // Between what was there at this look there may be code by the time of a sample.
        builder.push(heap.low - base, Rule::Soon).ok()?;
        let mut last = heap.low - base;
        for Known { blob, rules, .. } in self.known.range(heap.low..heap.high).map(|(_, known)| known) {
            let begin = [(blob.start, Rule::Uncovered)];
            let end = [(blob.end, Rule::Soon)];
            for &(addr, rule) in begin.iter().chain(rules).chain(&end) {
                // Blobs lie side by side, whatever they say.
                let offset = addr.min(heap.high).saturating_sub(base).max(last);
                builder.push(offset, rule).ok()?;
                last = offset;
            }
        }
        builder.push((heap.high - base).max(last), Rule::Uncovered).ok()?;
        Some(FlatTable::of(&builder.finish(Stats::default()).ok()?))
    }

    /// The functions at a place.
    fn names(&mut self, fields: &Fields, memory: &Reads<'_>, place: Place) -> Option<Vec<Name>> {
        let (_, known) = self.known.range(..=place.addr).next_back()?;
        let blob = known.blob.clone();
        let is_it = place.addr < blob.end && (place.blob == 0 || place.blob == known.number);
        if !is_it || !fields.blobs.is_same(memory, &blob) {
            return None;
        }
        let scopes = fields.scopes.as_ref();
        let scopes =
            scopes.map(|scopes| scopes.at(memory, &blob, place.addr, fields.counts)).unwrap_or_default();
        let mut names = Vec::new();
        for scope in scopes {
            let method = self.method(fields, memory, scope.method, blob.compilation)?;
            names.push(Name {
                function: method.name.clone(),
                file: method.file.clone(),
                first_line: method.first_line(),
                line: method.line(scope.bci),
            });
        }
        if names.is_empty() {
            let method = self.method(fields, memory, blob.method, blob.compilation);
            names.push(match method {
                Some(method) => Name {
                    function: method.name.clone(),
                    file: method.file.clone(),
                    first_line: method.first_line(),
                    line: 0,
                },
                None => Name { function: memory.text(blob.name)?, file: "".into(), first_line: 0, line: 0 },
            });
        }
        Some(names)
    }

    /// A method. Those of one compilation are read once: as long as it lasts they are not unloaded.
    fn method(
        &mut self,
        fields: &Fields,
        memory: &Reads<'_>,
        method: u64,
        compilation: u64,
    ) -> Option<Method> {
        let fields_of = fields.methods.as_ref().filter(|_| method != 0)?;
        if self.methods.len() >= MOST_METHODS {
            self.methods.clear();
        }
        let read = || fields_of.read(memory, method, &fields.counts);
        if compilation == 0 {
            return read();
        }
        self.methods.entry((method, compilation)).or_insert_with(read).clone()
    }
}
