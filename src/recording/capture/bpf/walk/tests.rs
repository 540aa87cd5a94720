//! The walk on made-up tables and stacks: each kind of rule, each change of stacks, each refusal.

use super::super::encode::encode;
use super::*;
use crate::model::event::{CgroupIds, Comm, CountKey, Kind};
use crate::unwind::frame::{Cfa, Frame, ReturnAddress, SavedBase, SavedFp};
use crate::unwind::x86_64::REGISTERS;
use crate::unwind::{Reason, Rule, Switch};

/// A file with a table. Its functions are 256 bytes long and have one rule each.
const TEXT: u64 = 0x40_0000;
const FUNCTION: u64 = 0x100;
/// A file that describes nothing, and code of no file.
const BARE: u64 = 0x50_0000;
const MADE: u64 = 0x60_0000;
const LATE: u64 = 0x70_0000;
const STACK: u64 = 0x7ff0_0000;
/// mov %eax,%edi; xor %eax,%eax; mov $60,%al; syscall; hlt
const EXIT_AND_HALT: [u8; 9] = [0x89, 0xc7, 0x31, 0xc0, 0xb0, 60, 0x0f, 0x05, 0xf4];
/// More than there is room for frames.
const WORDS: usize = 1100;

fn function(n: u64) -> u64 {
    TEXT + n * FUNCTION
}

/// A return address within the n-th function.
fn within(n: u64) -> u64 {
    function(n) + 0x80
}

/// The address of a word of the stack.
fn word(n: u64) -> u64 {
    STACK + 8 * n
}

fn at_sp(offset: i32) -> Frame {
    Frame { cfa: Cfa::Sp(offset), fp: SavedFp::Same, base: SavedBase::Lost, ra: ReturnAddress::AtCfa(-8) }
}

struct World {
    rules: Vec<Rule>,
    /// Bytes of code by address; all others are 0.
    code: Vec<(u64, Vec<u8>)>,
    stack: [u64; WORDS],
    leaf: [u64; 16],
    fp: u64,
    is_return_address: bool,
    initial_stack: u64,
}

impl World {
    /// The n-th function has the n-th rule. All but the leaf have made a call before `within`.
    fn new(rules: &[Rule]) -> Self {
        let mut this = Self {
            rules: rules.to_vec(),
            code: Vec::new(),
            stack: [0; WORDS],
            leaf: [0; 16],
            fp: 0,
            is_return_address: false,
            initial_stack: 0,
        };
        (0..rules.len() as u64).for_each(|n| this.call(within(n)));
        this
    }

    fn call(&mut self, behind: u64) {
        self.code.push((behind - 2, vec![0xff, 0xd0])); // call *%rax
    }

    /// push %rbp; mov %rsp,%rbp
    fn keeps_frame_pointer(&mut self, n: u64) {
        self.code.push((function(n), vec![0x55, 0x48, 0x89, 0xe5]));
    }

    fn put(mut self, words: &[(usize, u64)]) -> Self {
        words.iter().for_each(|&(at, value)| self.stack[at] = value);
        self
    }

    fn walk(&self, ip: u64) -> (Vec<u64>, Option<Truncation>) {
        let mut chunk = Box::<abi::unwind_chunk>::default();
        let rows = self.rules.len() + 1;
        for n in 0..rows {
            chunk.rows[n] = abi::unwind_row { low: n as u16 * FUNCTION as u16, rule: n as u16 };
        }
        let rules: Vec<abi::unwind_rule> =
            self.rules.iter().copied().chain([Rule::Uncovered]).map(encode).collect();
        let pages = [abi::unwind_page { block: 0, chunk: 0, first: 0, rows: rows as u16 }];
        let mapping = |start: u64, has_table: abi::has_table| abi::unwind_mapping {
            start,
            end: start + 0x1_0000,
            to_table: start.wrapping_neg(),
            has_table: has_table.0 as u16,
            ..Default::default()
        };
        let mappings = [
            mapping(TEXT, abi::has_table::TABLE_READY),
            mapping(BARE, abi::has_table::TABLE_EMPTY),
            mapping(MADE, abi::has_table::TABLE_NONE),
            mapping(LATE, abi::has_table::TABLE_SOON),
        ];
        let mut leaf = self.leaf;
        leaf[6] = self.fp;
        leaf[7] = word(0);
        let dump = Dump {
            key: CountKey {
                tgid: 1,
                tid: 1,
                kind: Kind::OnCpu,
                process_state: 0,
                comm: Comm::default(),
                kernel_stack_id: 0,
                user_stack_id: 0,
                waker_id: 0,
                cgroups: CgroupIds::default(),
                moment: None,
            },
            truncation: None,
            kernel: Vec::new(),
            registers: [ip, word(0), self.fp],
            leaf,
            is_return_address: self.is_return_address,
            is_32_bit: false,
            initial_stack: self.initial_stack,
            thread_pointer: None,
            start: STACK,
            memory: self.stack.iter().flat_map(|word| word.to_ne_bytes()).collect(),
        };
        let read = |address: u64, into: &mut [u8]| {
            into.fill(0);
            for (start, bytes) in &self.code {
                for (at, &byte) in (*start..).zip(bytes) {
                    if let Some(into) = at.checked_sub(address).and_then(|i| into.get_mut(i as usize)) {
                        *into = byte;
                    }
                }
            }
            mappings.iter().any(|mapping| (mapping.start..mapping.end).contains(&address))
        };
        let mut frames = Vec::new();
        let block = Array::new(&raw const *chunk, 1);
        let tables = [
            Array::new(&raw const block, 1),
            Array::new(pages.as_ptr(), pages.len()),
            Array::new(rules.as_ptr(), rules.len()),
        ];
        let truncation = walk_in(tables, &mappings, &Interpreted::NONE, &dump, &read, &mut frames);
        (frames, truncation)
    }

    /// That the walk from the 0th function finds these callers and then the end.
    #[track_caller]
    fn whole(&self, callers: &[u64]) {
        assert_eq!(self.walk(within(0)), ([&[within(0)], callers].concat(), None));
    }

    /// That it ends early.
    #[track_caller]
    fn cut(&self, callers: &[u64], why: Truncation) {
        assert_eq!(self.walk(within(0)), ([&[within(0)], callers].concat(), Some(why)));
    }
}

/// From a leaf with this frame to a function that is the last.
fn from_leaf(frame: Frame) -> World {
    World::new(&[Rule::Frame(frame), Rule::EndOfStack])
}

#[test]
fn the_cfa_is_where_the_rule_says() {
    from_leaf(at_sp(24)).put(&[(2, within(1))]).whole(&[within(1)]);
    let mut by_fp = from_leaf(Frame { cfa: Cfa::Fp(16), ..at_sp(0) }).put(&[(5, within(1))]);
    by_fp.fp = word(4);
    by_fp.whole(&[within(1)]);
    let deref = Cfa::DerefSp { offset: 16, addend: 8 };
    from_leaf(Frame { cfa: deref, ..at_sp(0) }).put(&[(2, word(8)), (8, within(1))]).whole(&[within(1)]);
    let deref = Cfa::DerefFp { offset: -8, addend: 0 };
    let mut deref = from_leaf(Frame { cfa: deref, ..at_sp(0) }).put(&[(3, word(9)), (8, within(1))]);
    deref.fp = word(4);
    deref.whole(&[within(1)]);
    let plt = |threshold| from_leaf(Frame { cfa: Cfa::Plt { threshold }, ..at_sp(0) });
    // within() is the 0th byte of an entry.
    plt(11).put(&[(0, within(1)), (1, 1)]).whole(&[within(1)]);
    plt(0).put(&[(0, 1), (1, within(1))]).whole(&[within(1)]);
    let mut large = from_leaf(at_sp(8 * 60)).put(&[(59, within(1))]);
    large.whole(&[within(1)]);
    large.rules[0] = Rule::Frame(at_sp(8 * 1200));
    large.cut(&[], Truncation::UnreadableStack);
}

#[test]
fn other_registers_are_the_leafs_alone() {
    let r10 = REGISTERS.get(10).unwrap();
    let by_r10 = Frame { cfa: Cfa::Register { register: r10, offset: 8 }, ..at_sp(0) };
    let mut leaf = from_leaf(by_r10).put(&[(4, within(1))]);
    leaf.leaf[10] = word(4);
    leaf.whole(&[within(1)]);
    let mut ra = from_leaf(Frame { ra: ReturnAddress::Register(r10), ..at_sp(8) });
    ra.leaf[10] = within(1);
    ra.whole(&[within(1)]);
    // The leaf's caller may have called what leaves its registers alone; nobody above it has.
    let rules = [Rule::Frame(at_sp(8)), Rule::Frame(by_r10), Rule::Frame(by_r10), Rule::EndOfStack];
    let mut caller = World::new(&rules).put(&[(0, within(1)), (4, within(2))]);
    caller.leaf[10] = word(4);
    caller.cut(&[within(1), within(2)], Truncation::CallerRegister);
}

#[test]
fn the_frame_pointer_is_followed_and_a_lost_one_is_lost() {
    let by_fp = Rule::Frame(Frame { cfa: Cfa::Fp(16), ..at_sp(0) });
    let world = |fp| World::new(&[Rule::Frame(Frame { fp, ..at_sp(16) }), by_fp, Rule::EndOfStack]);
    let stack = [(1, within(1)), (9, within(2))];
    let mut same = world(SavedFp::Same).put(&stack);
    same.fp = word(8);
    same.whole(&[within(1), within(2)]);
    world(SavedFp::AtCfa(-16)).put(&stack).put(&[(0, word(8))]).whole(&[within(1), within(2)]);
    world(SavedFp::AtCfa(8)).put(&stack).put(&[(3, word(8))]).whole(&[within(1), within(2)]);
    world(SavedFp::AtSp(16)).put(&stack).put(&[(2, word(8))]).whole(&[within(1), within(2)]);
    let mut at_fp = world(SavedFp::AtFp(-8)).put(&stack).put(&[(4, word(8))]);
    at_fp.fp = word(5);
    at_fp.whole(&[within(1), within(2)]);
    let mut register = world(SavedFp::Register(REGISTERS.get(9).unwrap())).put(&stack);
    register.leaf[9] = word(8);
    register.whole(&[within(1), within(2)]);
    // What the callee has in it is not the caller's.
    let mut lost = world(SavedFp::Lost).put(&stack);
    lost.fp = word(8);
    lost.cut(&[within(1)], Truncation::CallerRegister);
    // Who needs none may go on.
    lost.rules[1] = Rule::Frame(at_sp(64));
    lost.whole(&[within(1), within(2)]);
}

#[test]
fn what_is_not_understood_or_lies_below_ends_the_walk() {
    let mut world = from_leaf(at_sp(8)).put(&[(0, within(1))]);
    world.rules[1] = Rule::NotUnderstood(Reason::Cfa);
    world.cut(&[within(1)], Truncation::NotUnderstood);
    world.rules[1] = Rule::Frame(at_sp(0));
    world.cut(&[within(1)], Truncation::FramePointer);
    from_leaf(at_sp(8)).put(&[(0, 0x1234_5678)]).cut(&[], Truncation::ReturnAddress);
    from_leaf(at_sp(8)).put(&[(0, LATE + 8)]).cut(&[LATE + 8], Truncation::NoTable);
    // The return address 0 is a coroutine's end.
    from_leaf(at_sp(8)).whole(&[]);
}

/// Interrupted, at its first byte, the last function: nothing of it lies before that.
#[test]
fn a_signal_has_interrupted_its_frame() {
    let mut world =
        World::new(&[Rule::Frame(at_sp(8)), Rule::SignalFrame, Rule::EndOfStack, Rule::Uncovered]).put(&[
            (0, within(1)),
            (21, word(40)),
            (22, function(2)),
        ]);
    world.whole(&[within(1) + 1, function(2) + 1]);
    // Described nowhere, as musl's: it is known by its code.
    world.rules[1] = Rule::Uncovered;
    world.code.push((within(1), vec![0x48, 0xc7, 0xc0, 15, 0, 0, 0, 0x0f, 0x05]));
    world.whole(&[within(1) + 1, function(2) + 1]);
}

/// On one stack and the other in turn: assembly whose frames say where it came from.
#[test]
fn a_caller_on_another_stack_is_found_where_the_cfa_says() {
    let other = Frame { cfa: Cfa::DerefSp { offset: 0, addend: 8 }, ..at_sp(0) };
    for rule in [Rule::Frame(other), Rule::ExactFrame(other)] {
        let world = World::new(&[Rule::Frame(at_sp(8 * 33)), rule, Rule::EndOfStack]).put(&[
            (32, within(1)),
            (33, word(4)),
            (4, within(2)),
        ]);
        world.whole(&[within(1), within(2)]);
    }
    // Where no call goes before, an exact frame was interrupted, and another is none.
    let mut world = World::new(&[Rule::Frame(at_sp(8 * 9)), Rule::ExactFrame(other), Rule::EndOfStack])
        .put(&[(8, within(1)), (9, word(20)), (20, function(2))]);
    world.whole(&[within(1), function(2) + 1]);
    world = world.put(&[(9, word(4)), (4, function(2))]);
    world.cut(&[within(1)], Truncation::FramePointer);
    // What sp leads to lies above.
    let down = World::new(&[Rule::Frame(at_sp(8 * 9)), Rule::Frame(at_sp(-8)), Rule::EndOfStack])
        .put(&[(8, within(1)), (7, within(2))]);
    down.cut(&[within(1)], Truncation::FramePointer);
    // A circle is left.
    let circle = World::new(&[Rule::Frame(at_sp(8 * 9)), Rule::Frame(other), Rule::Frame(at_sp(32))]).put(&[
        (8, within(1)),
        (9, word(4)),
        (4, within(2)),
        (8, within(1)),
    ]);
    let (frames, why) = circle.walk(within(0));
    assert!(frames.len() > 8 && frames.len() < 32, "{frames:x?}");
    assert_eq!(why, Some(Truncation::FramePointer));
}

/// musl's memcpy, as an example.
#[test]
fn a_leaf_that_no_row_covers_has_its_return_address_at_hand() {
    let mut world = World::new(&[Rule::Uncovered, Rule::EndOfStack]).put(&[(0, within(1))]);
    world.fp = word(8);
    world.whole(&[within(1)]);
    // Nothing there, but a frame pointer.
    let by_fp = || {
        let mut world =
            World::new(&[Rule::Uncovered, Rule::EndOfStack]).put(&[(0, 5), (8, 0), (9, within(1))]);
        world.fp = word(8);
        world.keeps_frame_pointer(0);
        world
    };
    by_fp().whole(&[within(1)]);
    // Data: an address of code, but behind no call; of no code.
    by_fp().put(&[(0, function(1))]).whole(&[within(1)]);
    by_fp().put(&[(9, function(1))]).cut(&[], Truncation::NoRow);
    by_fp().put(&[(9, STACK)]).cut(&[], Truncation::NoRow);
    by_fp().put(&[(9, 7)]).cut(&[], Truncation::NoRow);
    let mut odd = by_fp();
    odd.fp += 4;
    odd.cut(&[], Truncation::NoRow);
    // A file without any rows is the same.
    let mut bare = by_fp().put(&[(0, within(1))]);
    assert_eq!(bare.walk(BARE + 0x80), (vec![BARE + 0x80, within(1)], None));
    // In code that keeps frame pointers the word may be an old one, unless the instruction shows that there
    // is no frame, or the call was of this very code.
    bare.rules.push(Rule::EndOfStack);
    let mut made = bare.put(&[(0, within(2)), (9, within(1))]);
    made.call(within(2));
    let ip = MADE + 0x80;
    assert_eq!(made.walk(ip), (vec![ip, within(1)], None));
    for shown in [&[0x55][..], &[0xc3], &[0xf3, 0x0f, 0x1e, 0xfa]] {
        made.code.push((ip, shown.to_vec()));
        assert_eq!(made.walk(ip), (vec![ip, within(2)], None), "{shown:x?}");
        made.code.pop();
    }
    made.code.push((ip, vec![0x48, 0x89, 0xe5]));
    let pushed = made.put(&[(1, within(2))]);
    assert_eq!(pushed.walk(ip), (vec![ip, within(2)], None));
    let mut called = by_fp().put(&[(0, within(1))]);
    let distance = (MADE as i64 - within(1) as i64) as i32;
    called.code.push((within(1) - 5, [&[0xe8][..], &distance.to_le_bytes()].concat()));
    called.code.remove(1);
    assert_eq!(called.walk(ip), (vec![ip, within(1)], None));
}

/// `sub $8,%rsp; call *%rcx; add $8,%rsp; ret`, as Python makes one for each function to be seen by perf.
#[test]
fn a_trampoline_that_keeps_one_word_is_left() {
    let trampoline = |calls: bool| {
        let mut world = from_leaf(at_sp(8));
        world.code.push((MADE + 4, vec![0xff, 0xd1, 0x48, 0x83, 0xc4, 0x08, 0xc3]));
        if !calls {
            world.code.retain(|(at, _)| *at != within(1) - 2);
        }
        world.put(&[(0, MADE + 6), (1, 7), (2, within(1))])
    };
    trampoline(true).whole(&[MADE + 6, within(1)]);
    // Back from its call, as a leaf.
    let mut leaf = trampoline(true);
    leaf.stack[..2].copy_from_slice(&[7, within(1)]);
    assert_eq!(leaf.walk(MADE + 6), (vec![MADE + 6, within(1)], None));
    trampoline(false).cut(&[MADE + 6], Truncation::NoRow);
}

/// It may be that of a function further up.
#[test]
fn a_frame_pointer_is_followed_and_doubted_where_the_code_does_not_show_it() {
    let world = || {
        let mut world =
            World::new(&[Rule::Uncovered, Rule::EndOfStack]).put(&[(0, 5), (8, 0), (9, within(1))]);
        world.fp = word(8);
        world
    };
    world().cut(&[within(1)], Truncation::Unproven);
    let mut kept = world();
    kept.keeps_frame_pointer(0);
    kept.whole(&[within(1)]);
    // A function that has ended before: pop %rbp; ret.
    kept.code.push((function(0) + 0x20, vec![0x5d, 0xc3]));
    kept.cut(&[within(1)], Truncation::Unproven);
    // Compilers of code that is made at run time keep it.
    let ip = MADE + 0x80;
    assert_eq!(world().walk(ip), (vec![ip, within(1)], None));
}

/// LuaJIT's interpreter.
#[test]
fn a_leaf_whose_rule_finds_no_return_address_may_have_no_frame() {
    let rules = [Rule::Frame(at_sp(32)), Rule::EndOfStack];
    World::new(&rules).put(&[(0, within(1))]).whole(&[within(1)]);
    World::new(&rules).put(&[(0, 7)]).whole(&[]);
}

#[test]
fn a_frame_pointer_of_0_is_no_end_by_itself() {
    // Any register may be 0.
    World::new(&[Rule::Uncovered]).cut(&[], Truncation::NoRow);
    let covered = World::new(&[Rule::Frame(at_sp(8)), Rule::Uncovered]).put(&[(0, within(1))]);
    covered.cut(&[within(1)], Truncation::NoRow);
    // Any function may have saved it; where a chain ends the code shows it, or there are zeros.
    let mut chain = World::new(&[Rule::Uncovered; 3]).put(&[(4, word(8)), (5, within(1)), (9, within(2))]);
    chain.fp = word(4);
    (0..2).for_each(|n| chain.keeps_frame_pointer(n));
    chain.cut(&[within(1), within(2)], Truncation::NoRow);
    chain.code.push((within(2), EXIT_AND_HALT.to_vec()));
    chain.whole(&[within(1), within(2)]);
    chain.put(&[(9, 0)]).whole(&[within(1)]);
    // Zeros alone are no chain.
    let mut zeros = World::new(&[Rule::Uncovered]);
    zeros.fp = word(4);
    zeros.cut(&[], Truncation::NoRow);
}

#[test]
fn first_functions_show_in_their_code_or_by_their_place() {
    let covered = || World::new(&[Rule::Frame(at_sp(8)), Rule::Uncovered]).put(&[(0, within(1))]);
    let mut placed = covered();
    placed.initial_stack = word(10);
    placed.whole(&[within(1)]);
    placed.initial_stack = word(20);
    placed.cut(&[within(1)], Truncation::NoRow);
    // It has been called.
    placed.initial_stack = word(10);
    placed.put(&[(5, within(1))]).cut(&[within(1)], Truncation::NoRow);
    for (at, bytes) in [
        (-20, &[0x31, 0xed, 0x90, 0x48, 0x83, 0xe4, 0xf0][..]), // xor %ebp,%ebp; and $-16,%rsp
        (0, &EXIT_AND_HALT),
        (0, &[0x48, 0x31, 0xff, 0xe8, 1, 2, 3, 4, 0xf4]), // call; hlt
    ] {
        let mut root = covered();
        root.code.push((within(1).wrapping_add_signed(at), bytes.to_vec()));
        root.whole(&[within(1)]);
    }
    // Any function may do one of the two.
    for bytes in [&[0x31, 0xed][..], &[0x48, 0x83, 0xe4, 0xf0]] {
        let mut other = covered();
        other.code.push((within(1) - 20, bytes.to_vec()));
        other.cut(&[within(1)], Truncation::NoRow);
    }
}

/// A goroutine, its thread's system stack and the thread, all of them on the stack that was sent.
fn go(switch: Switch, fp_is_pushed: bool) -> World {
    let (system, goroutine, thread) = (16, 32, 2);
    let mut world = World::new(&[Rule::Frame(at_sp(8)), Rule::Switch(switch), Rule::EndOfStack]).put(&[
        (0, within(1)),
        // The system's descriptor: its thread, where its stack begins.
        (system + 6, word(thread as u64)),
        (system + 7, word(1)),
        // The goroutine's: its stack, thread, sp, pc, fp.
        (goroutine, word(50)),
        (goroutine + 1, word(60)),
        (goroutine + 6, word(thread as u64)),
        (goroutine + 7, word(52)),
        (goroutine + 8, within(2)),
        (goroutine + 12, if fp_is_pushed { word(52) } else { word(58) }),
        (if fp_is_pushed { 53 } else { 52 }, within(2)),
        // The thread's: the system's descriptor and the one that runs.
        (thread, word(system as u64)),
        (thread + 24, word(goroutine as u64)),
    ]);
    world.leaf[14] = word(goroutine as u64);
    world.fp = word(58);
    world
}

#[test]
fn go_switches_to_the_goroutine_that_called() {
    for pushed in [false, true] {
        go(Switch::SystemStack, pushed).whole(&[within(1), within(2)]);
        // asmcgocall has saved the goroutine.
        go(Switch::CgoCall, pushed).put(&[(7, word(32))]).whole(&[within(1), within(2)]);
    }
    go(Switch::MoreStack, false).whole(&[within(1), within(2)]);
    // The thread looks for another goroutine.
    go(Switch::MoreStack, false).put(&[(26, 0)]).whole(&[within(1)]);
    go(Switch::FramePointer, false).put(&[(58, 0), (59, within(2))]).whole(&[within(1), within(2)]);
}

#[test]
fn go_does_not_switch_to_what_does_not_agree() {
    for (at, value) in [(22, 0), (23, word(40)), (38, 0), (39, word(49)), (39, word(60)), (26, 0)] {
        let world = go(Switch::SystemStack, false).put(&[(at, value)]);
        let (frames, why) = world.walk(within(0));
        assert_eq!((frames.len(), why), (2, Some(Truncation::NotUnderstood)), "word {at}");
    }
    let mut other = go(Switch::MoreStack, false).put(&[(58, 1)]);
    other.fp = word(57);
    other.cut(&[within(1)], Truncation::NotUnderstood);
}

#[test]
fn more_frames_than_fit_are_said_to_be_more() {
    let mut world = World::new(&[Rule::Frame(at_sp(8))]);
    world.stack = [within(0); WORDS];
    let (frames, why) = world.walk(within(0));
    assert_eq!((frames.len(), why), (1023, Some(Truncation::UserDepth)));
    world.rules = vec![Rule::Frame(at_sp(16))];
    let (frames, why) = world.walk(within(0));
    assert_eq!((frames.len(), why), (WORDS / 2 + 1, Some(Truncation::UnreadableStack)));
}
