//! Processes that come, grow and go, in arrays without a kernel.

use super::*;
use crate::model::event::{Event, FileId, Mmap};

/// Processes with private arrays.
struct Machine {
    processes: Processes,
    objects: Objects,
    unwinding: Unwinding,
    time_ns: u64,
}

/// Above what Linux gives out, so that nothing is asked of /proc.
const FIRST: u32 = 1 << 23;
const SECOND: u32 = FIRST + 1;

impl Machine {
    fn new(mappings: u32) -> Self {
        let mut processes = Processes::new(true);
        let (objects, mut unwinding) = (Objects::default(), Unwinding::default());
        let tables = Tables::private(&Capacity { mappings, ..Capacity::new(0, 0, 0) }).unwrap();
        unwinding.publish(tables, &mut processes, &objects);
        Self { processes, objects, unwinding, time_ns: 0 }
    }

    /// Maps code that a process has made itself, each piece apart.
    fn map(&mut self, tgid: u32, pieces: std::ops::Range<u64>) {
        for piece in pieces {
            let start = piece << 13;
            let mmap = Mmap {
                tgid,
                range: start..start + 4096,
                file_offset: 0,
                file: FileId::Anonymous,
                path: "//anon".to_owned(),
            };
            self.apply(Event::Mmap(mmap));
        }
    }

    fn apply(&mut self, event: Event) {
        self.time_ns += 1;
        self.processes.apply(self.time_ns, event, &mut self.objects);
    }

    fn update(&mut self) {
        self.unwinding.update(u64::MAX, &mut self.processes, &self.objects);
    }

    /// The pieces by which the kernel walks a process.
    fn walked_by(&self, tgid: u32) -> Vec<u64> {
        let tables = self.unwinding.tables.as_ref().unwrap();
        tables.walked_by(tgid).iter().map(|(start, _)| start >> 13).collect()
    }
}

#[test]
fn a_process_that_finds_no_room_is_never_walked_by_anothers_mappings() {
    let mut machine = Machine::new(10);
    machine.map(FIRST, 1..4);
    machine.update();
    assert_eq!(machine.walked_by(FIRST), [1, 2, 3]);
    machine.map(FIRST, 4..8);
    machine.update();
    assert_eq!((machine.walked_by(FIRST), machine.unwinding.refused_ever), (vec![], 1));
    // What it had before is given to another, once no walk can be in it.
    machine.map(SECOND, 100..108);
    machine.update();
    assert_eq!((machine.walked_by(SECOND), machine.unwinding.refused_ever), (vec![], 2));
    machine.processes.take_changed();
    machine.unwinding.refused.remove(&FIRST);
    machine.unwinding.settle();
    machine.update();
    assert_eq!(machine.walked_by(SECOND), (100..108).collect::<Vec<_>>());
    assert!(machine.walked_by(FIRST).is_empty());
}

#[test]
fn who_found_no_room_gets_it_when_there_is_some() {
    let mut machine = Machine::new(10);
    machine.map(FIRST, 1..4);
    machine.update();
    machine.map(FIRST, 4..8);
    machine.update();
    assert!(machine.walked_by(FIRST).is_empty());
    machine.unwinding.settle();
    machine.update();
    assert_eq!(machine.walked_by(FIRST), [1, 2, 3, 4, 5, 6, 7]);
    assert!(machine.unwinding.refused.is_empty());
}

#[test]
fn a_child_is_walked_by_what_its_parent_had_when_it_forked() {
    let mut machine = Machine::new(100);
    machine.map(FIRST, 1..4);
    machine.update();
    let fork = Event::Fork { tgid: SECOND, tid: SECOND, parent_tgid: FIRST, parent_tid: FIRST };
    machine.apply(fork);
    machine.map(FIRST, 4..5);
    machine.update();
    assert_eq!((machine.walked_by(FIRST), machine.walked_by(SECOND)), (vec![1, 2, 3, 4], vec![1, 2, 3]));
    machine.apply(Event::Exit { tgid: SECOND, tid: SECOND });
    machine.update();
    // In the kernel the entry goes with the process; here it leads nowhere.
    assert_eq!((machine.walked_by(FIRST), machine.walked_by(SECOND)), (vec![1, 2, 3, 4], vec![]));
}

#[test]
fn thousands_of_mappings_are_walked_by() {
    let most = 1 << 16;
    let mut machine = Machine::new(1 << 18);
    machine.map(FIRST, 0..most);
    machine.update();
    assert_eq!(machine.walked_by(FIRST), (0..most).collect::<Vec<_>>());
    machine.map(FIRST, most..most + 1);
    machine.map(SECOND, 0..1);
    machine.update();
    machine.unwinding.settle();
    machine.update();
    assert_eq!((machine.walked_by(FIRST), machine.walked_by(SECOND)), (vec![], vec![0]));
    assert_eq!(machine.unwinding.refused[&FIRST], Refusal::TooMany);
}
