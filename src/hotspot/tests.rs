//! A JVM in a few kilobytes, as it should be and as nobody would make it.

use super::jvm::Jvm;
use super::wire::{Answer, Place, Question};
use super::{Memory, frames};
use crate::interpreters::Interpreters;
use crate::interpreters::hotspot::Layout;
use crate::model::scripts::Name;

const BASE: u64 = 0x10_0000;
const HEAP: u64 = BASE + 0x8000;
const METHOD: u64 = BASE + 0x4000;
/// Bytes of code of the compiled method.
const CODE: u64 = 64;

/// Memory from `BASE` on.
#[derive(Clone)]
struct Image(Vec<u8>);

impl Memory for Image {
    fn read(&self, addr: u64, bytes: &mut [u8]) -> bool {
        let Some(at) = addr.checked_sub(BASE).and_then(|at| usize::try_from(at).ok()) else { return false };
        let Some(from) = self.0.get(at..).and_then(|rest| rest.get(..bytes.len())) else { return false };
        bytes.copy_from_slice(from);
        true
    }
}

impl Image {
    fn put(&mut self, addr: u64, bytes: &[u8]) {
        let at = (addr - BASE) as usize;
        self.0[at..at + bytes.len()].copy_from_slice(bytes);
    }

    fn u64(&mut self, addr: u64, value: u64) {
        self.put(addr, &value.to_le_bytes());
    }

    fn u32(&mut self, addr: u64, value: u32) {
        self.put(addr, &value.to_le_bytes());
    }

    fn u16(&mut self, addr: u64, value: u16) {
        self.put(addr, &value.to_le_bytes());
    }
}

/// Fields: of which structure, name, type, offset; addresses if they are beyond `BASE`.
const FIELDS: [(&str, &str, &str, u64); 37] = [
    ("CodeCache", "_heaps", "GrowableArray<CodeHeap*>*", BASE + 0x3000),
    ("StubRoutines", "_call_stub_return_address", "address", BASE + 0x3008),
    ("GrowableArrayBase", "_len", "int", 0),
    ("GrowableArray<int>", "_data", "int*", 8),
    ("CodeHeap", "_memory", "VirtualSpace", 8),
    ("CodeHeap", "_log2_segment_size", "int", 0x80),
    ("VirtualSpace", "_low", "char*", 16),
    ("VirtualSpace", "_high", "char*", 24),
    ("VirtualSpace", "_high_boundary", "char*", 8),
    ("CodeBlob", "_name", "const char*", 8),
    ("CodeBlob", "_code_begin", "address", 16),
    ("CodeBlob", "_code_end", "address", 24),
    ("CodeBlob", "_frame_size", "int", 32),
    ("CodeBlob", "_frame_complete_offset", "int", 36),
    ("CompiledMethod", "_method", "Method*", 40),
    ("CompiledMethod", "_scopes_data_begin", "address", 48),
    ("nmethod", "_compile_id", "int", 56),
    ("nmethod", "_metadata_offset", "int", 60),
    ("nmethod", "_scopes_pcs_offset", "int", 64),
    ("nmethod", "_dependencies_offset", "int", 68),
    ("PcDesc", "_pc_offset", "int", 0),
    ("PcDesc", "_scope_decode_offset", "int", 4),
    ("Method", "_constMethod", "ConstMethod*", 8),
    ("ConstMethod", "_constants", "ConstantPool*", 8),
    ("ConstMethod", "_constMethod_size", "int", 24),
    ("ConstMethod", "_flags", "u2", 28),
    ("ConstMethod", "_code_size", "u2", 32),
    ("ConstMethod", "_name_index", "u2", 34),
    ("ConstantPool", "_pool_holder", "InstanceKlass*", 24),
    ("ConstantPool", "_source_file_name_index", "u2", 54),
    ("Klass", "_name", "Symbol*", 24),
    ("Symbol", "_length", "u2", 4),
    ("Symbol", "_body", "u1", 6),
    ("Unknown", "_field", "int", 4),
    ("CodeBlob", "_size", "int", 4),
    ("nmethod", "_state", "signed char", 72),
    ("Method", "_code", "nmethod*", 16),
];

const SIZES: [(&str, u64); 6] = [
    ("HeapBlock", 16),
    ("CodeBlob", 40),
    ("nmethod", 80),
    ("PcDesc", 16),
    ("ConstMethod", 48),
    ("ConstantPool", 72),
];

/// The image, and a question about it.
fn jvm() -> (Image, Question) {
    let mut image = Image(vec![0; 0x1_0000]);
    // Texts, then the two tables.
    let mut texts = BASE + 0x6000;
    let mut text = |image: &mut Image, text: &str| {
        let at = texts;
        image.put(at, text.as_bytes());
        texts += text.len() as u64 + 1;
        at
    };
    for (at, &(of, name, ty, offset)) in (BASE + 0x1000..).step_by(48).zip(&FIELDS) {
        let [of, name, ty] = [of, name, ty].map(|it| text(&mut image, it));
        image.u64(at, of);
        image.u64(at + 8, name);
        image.u64(at + 16, ty);
        image.u32(at + 24, (offset >= BASE).into());
        image.u64(at + 32, offset);
        image.u64(at + 40, offset);
    }
    for (at, &(of, size)) in (BASE + 0x2000..).step_by(32).zip(&SIZES) {
        let of = text(&mut image, of);
        image.u64(at, of);
        image.u64(at + 24, size);
    }
    let variables: [u64; 12] = [BASE + 0x1000, 0, 8, 16, 24, 32, 40, 48, BASE + 0x2000, 0, 24, 32];
    for (at, value) in (BASE..).step_by(8).zip(variables) {
        image.u64(at, value);
    }
    // One heap, with one compiled method in it.
    let name = text(&mut image, "nmethod");
    image.u64(BASE + 0x3000, BASE + 0x3010);
    image.u32(BASE + 0x3010, 1);
    image.u64(BASE + 0x3018, BASE + 0x3020);
    image.u64(BASE + 0x3020, BASE + 0x3100);
    image.u64(BASE + 0x3118, HEAP);
    image.u64(BASE + 0x3120, HEAP + 0x4000);
    image.u64(BASE + 0x3110, HEAP + 0x10_0000);
    image.u32(BASE + 0x3180, 7);
    let blob = HEAP + 16;
    image.u64(HEAP, 0x1000 >> 7);
    image.put(HEAP + 8, &[1]);
    image.u64(blob + 8, name);
    image.u64(blob + 16, blob + 0x100);
    image.u64(blob + 24, blob + 0x100 + CODE);
    image.u32(blob + 32, 6);
    image.u32(blob + 36, 6);
    image.u64(blob + 40, METHOD);
    image.u64(blob + 48, blob + 0x400);
    image.u32(blob + 56, 3);
    image.u32(blob + 60, 0x500);
    image.u32(blob + 64, 0x300);
    image.u32(blob + 68, 0x330);
    image.put(blob + 0x100, &[0x90, 0x55, 0x48, 0x83, 0xec, 0x20]);
    for (at, (pc, scope)) in (blob + 0x300..).step_by(16).zip([(u32::MAX, 0), (20, 10), (1000, 0)]) {
        image.u32(at, pc);
        image.u32(at + 4, scope);
    }
    // Sender, method, bytecode: the second is inlined into the first.
    image.put(blob + 0x400 + 10, &[20, 2, 1 + 9]);
    image.put(blob + 0x400 + 20, &[0, 1, 1 + 2]);
    image.u64(blob + 0x500, METHOD);
    image.u64(blob + 0x508, METHOD + 0x200);
    for (method, name) in [(METHOD, "outer"), (METHOD + 0x200, "inner")] {
        let (part, pool) = (method + 0x40, method + 0x100);
        image.u64(method + 8, part);
        image.u64(part + 8, pool);
        image.u32(part + 24, 10);
        image.u16(part + 28, 1);
        image.u16(part + 32, 16);
        image.u16(part + 34, 1);
        image.put(part + 48 + 16, &[7, 2 << 3 | 3, 0]);
        image.u64(pool + 24, METHOD + 0x800);
        image.u16(pool + 54, 2);
        for (index, text) in [(1, name), (2, "Some.java")] {
            let symbol = method + 0x400 + 0x20 * index + if name == "inner" { 0x80 } else { 0 };
            image.u64(pool + 72 + 8 * index, symbol);
            image.u16(symbol + 4, text.len() as u16);
            image.put(symbol + 6, text.as_bytes());
        }
    }
    image.u64(METHOD + 0x800 + 24, METHOD + 0x900);
    image.u16(METHOD + 0x904, 9);
    image.put(METHOD + 0x906, b"some/Some");
    let layout = Layout::new(std::array::from_fn(|at| BASE + 8 * at as u64));
    let question = Question {
        jvm: 1,
        layout: Interpreters { hotspot: Some(layout), ..Interpreters::default() }.to_bytes(),
        looks: true,
        places: vec![Place { blob: 0, addr: blob + 0x100 + 12 }, Place { blob: 0, addr: blob }],
        methods: vec![[METHOD, METHOD + 0x40], [METHOD, 1]],
        ..Question::default()
    };
    (image, question)
}

fn name(function: &str, line: u32) -> Name {
    Name { function: function.into(), file: "some/Some.java".into(), first_line: 7, line }
}

#[test]
fn code_and_names_are_found_by_the_exported_tables() {
    let (image, question) = jvm();
    let mut jvm = Jvm::default();
    let answer = jvm.answer(&question, &image);
    assert!(answer.is_known && answer.has_code && answer.is_fresh);
    assert_eq!(answer.come.len(), 1);
    assert_eq!(answer.come[0].name, "some.Some.outer");
    let heaps = answer.heaps.as_ref().unwrap();
    assert_eq!((heaps[0].low, heaps[0].high, heaps[0].end), (HEAP, HEAP + 0x4000, HEAP + 0x10_0000));
    assert!(heaps[0].table.rows() > 4);
    assert_eq!(answer.places, [vec![name("some.Some.inner", 10), name("some.Some.outer", 10)], vec![]]);
    let codes: Vec<Option<&str>> =
        answer.methods.iter().map(|code| Some(code.as_ref()?.name.as_str())).collect();
    assert_eq!(codes, [Some("some.Some.outer"), None]);
    // It travels, and half of it does not.
    let sent = answer.to_bytes();
    assert_eq!(Answer::from_bytes(&sent, &question), Some(answer));
    assert!((0..sent.len()).all(|cut| Answer::from_bytes(&sent[..cut], &question).is_none()));
    assert_eq!(Question::from_bytes(&question.to_bytes()), Some(question.clone()));
    // Nothing is told twice; what is gone is told.
    let again = jvm.answer(&question, &image);
    assert!(!again.is_fresh && again.come.is_empty() && again.heaps.is_none());
    let mut freed = image.clone();
    freed.put(HEAP + 8, &[0]);
    let after = jvm.answer(&question, &freed);
    assert_eq!((after.gone.len(), after.places[0].len()), (1, 0));
    assert!(after.heaps.is_some());
}

#[test]
fn another_compilation_in_the_same_place_is_another() {
    let (mut image, mut question) = jvm();
    let mut jvm = Jvm::default();
    let first = jvm.answer(&question, &image).come[0].number;
    question.looks = false;
    question.places[0].blob = first;
    assert_eq!(jvm.answer(&question, &image).places[0].len(), 2);
    image.u32(HEAP + 16 + 56, 4);
    assert_eq!(jvm.answer(&question, &image).places[0], []);
    question.looks = true;
    let second = jvm.answer(&question, &image);
    assert_eq!((second.gone, second.places[0].len()), (vec![first], 0));
    assert_ne!(second.come[0].number, first);
}

/// Numbers without a pattern.
fn xorshift(state: &mut u64) -> u64 {
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    *state
}

/// Ends, and says nothing that the recorder would not take.
fn survives(image: &dyn Memory, question: &Question) {
    let mut jvm = Jvm::default();
    for _ in 0..2 {
        let answer = jvm.answer(question, image);
        let sent = answer.to_bytes();
        assert!(sent.len() < 64 << 20, "{} bytes", sent.len());
        assert!(Answer::from_bytes(&sent, question).is_some());
    }
}

#[test]
fn a_process_that_lies_costs_its_own_names() {
    let (image, question) = jvm();
    let mut state = 0x9e37_79b9_7f4a_7c15;
    let values = [0, 1, 7, 0x7f, 0xff, 0x7fff_ffff, u64::MAX, HEAP, METHOD, BASE, HEAP + 0x4000, 1 << 40];
    for _ in 0..6000 {
        let mut image = image.clone();
        for _ in 0..1 + xorshift(&mut state) % 4 {
            let at = BASE + xorshift(&mut state) % 0xa000;
            let value = match xorshift(&mut state) % 3 {
                0 => xorshift(&mut state),
                _ => values[xorshift(&mut state) as usize % values.len()],
            };
            let width = [1, 2, 4, 8][xorshift(&mut state) as usize % 4];
            image.put(at, &value.to_le_bytes()[..width]);
        }
        survives(&image, &question);
    }
}

/// Memory that answers every address.
struct Everywhere(fn(u64) -> u8);

impl Memory for Everywhere {
    fn read(&self, addr: u64, bytes: &mut [u8]) -> bool {
        (addr..).zip(bytes).for_each(|(addr, byte)| *byte = self.0(addr));
        true
    }
}

#[test]
fn tables_and_heaps_without_an_end_come_to_one() {
    let (_, question) = jvm();
    for memory in [|_| 0, |_| 1, |_| 0xff, |addr| addr as u8, |addr| (addr >> 8) as u8] {
        survives(&Everywhere(memory), &question);
    }
    // A list of blobs that leads around: their blocks have no length.
    let (mut image, question) = jvm();
    image.u64(HEAP, 0);
    survives(&image, &question);
    assert!(frames::rules(&blob(u64::MAX), &[0x55; 64], 0).is_sorted_by_key(|rule| rule.0));
}

fn blob(frame: u64) -> super::blobs::Blob {
    let (at, start, end) = (HEAP, HEAP + 64, HEAP + 128);
    let kind = super::blobs::Kind::Method;
    super::blobs::Blob { at, start, end, kind, name: 0, frame, complete: 8, method: 0, compilation: 0 }
}
