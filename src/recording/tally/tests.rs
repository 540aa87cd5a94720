//! Counts and stacks, in every order.

use std::collections::BTreeMap;

use super::*;
use crate::model::event::Comm;
use crate::model::profile::ValueType;

fn key(stack: u64) -> CountKey {
    CountKey {
        tgid: 7,
        tid: 8,
        kind: Kind::OnCpu,
        process_state: 0,
        comm: Comm(*b"worker\0\0\0\0\0\0\0\0\0\0"),
        kernel_stack_id: 0,
        user_stack_id: stack,
        waker_id: 0,
        cgroups: CgroupIds::default(),
        moment: None,
    }
}

fn count(key: CountKey, samples: u64) -> Count {
    Count { key, samples, time_ns: samples * 10 }
}

fn resolved(address: u64, truncation: Option<Truncation>) -> Resolved {
    Resolved {
        frames: vec![Location { object: ObjectId::KERNEL, file_offset: address }],
        truncation,
        is_stale: false,
        comm: "process".into(),
        thread_comm: "worker".into(),
    }
}

fn tally() -> Tally {
    let types = [("samples", "count"), ("cpu", "nanoseconds"), ("off_cpu_events", "count")];
    let off = ("off_cpu", "nanoseconds");
    let types = types.into_iter().chain([off]).map(|(name, unit)| ValueType::new(name, unit)).collect();
    Tally::new(Profile::new(types), String::new(), Rc::default(), 0)
}

fn values(unsymbolized: &Unsymbolized) -> Vec<Vec<i64>> {
    unsymbolized.profile.samples().iter().map(|sample| sample.values.to_vec()).collect()
}

#[test]
fn a_count_finds_its_stack_whichever_comes_first() {
    let objects = Objects::default();
    let mut tally = tally();
    tally.stack(5, key(1), &resolved(0x1000, None), &objects);
    tally.count(&[count(key(1), 3), count(key(2), 4)], 10);
    tally.stack(9, key(2), &resolved(0x2000, None), &objects);
    let unsymbolized = tally.finish(&objects, |_| "unused".to_owned());
    assert_eq!(values(&unsymbolized), [[3, 30, 0, 0], [4, 40, 0, 0]]);
    assert_eq!((unsymbolized.samples.complete, unsymbolized.samples.incomplete()), (7, 0));
}

#[test]
fn a_count_whose_stack_never_comes_keeps_its_time_and_its_names() {
    let objects = Objects::default();
    let mut tally = tally();
    tally.count(&[count(key(1), 3)], 10);
    tally.count(&[count(key(1), 2)], 20);
    let unsymbolized = tally.finish(&objects, |tgid| format!("process {tgid}"));
    assert_eq!(values(&unsymbolized), [[5, 50, 0, 0]]);
    assert_eq!(unsymbolized.samples.incomplete, BTreeMap::from([(Truncation::NoFrames, 5)]));
    let labels = unsymbolized.profile.samples()[0].labels;
    assert_eq!(unsymbolized.profile.label(labels, "comm").as_deref(), Some("process 7"));
    assert_eq!(unsymbolized.profile.label(labels, "thread_comm").as_deref(), Some("worker"));
}

#[test]
fn an_empty_name_says_that_it_is_one() {
    let objects = Objects::default();
    let mut tally = tally();
    tally.stack(5, key(1), &Resolved { thread_comm: "".into(), ..resolved(0x1000, None) }, &objects);
    tally.stack(5, key(2), &Resolved { comm: "".into(), ..resolved(0x1000, None) }, &objects);
    tally.count(&[count(key(1), 3), count(key(2), 4)], 10);
    let profile = tally.finish(&objects, |_| String::new()).profile;
    let names = |at: usize| {
        let labels = profile.samples()[at].labels;
        ["comm", "thread_comm"].map(|key| profile.label(labels, key).unwrap())
    };
    assert_eq!([names(0), names(1)], [["process", "[unnamed]"], ["[unnamed]", "worker"]]);
}

#[test]
fn samples_count_as_what_their_stacks_are() {
    let objects = Objects::default();
    let mut tally = tally();
    tally.stack(5, key(1), &resolved(0x1000, Some(Truncation::Unmapped)), &objects);
    tally.stack(5, key(2), &resolved(0x1000, None), &objects);
    tally.count(&[count(key(1), 3), count(key(2), 4)], 10);
    let unsymbolized = tally.finish(&objects, |_| String::new());
    assert_eq!(unsymbolized.samples.complete, 4);
    assert_eq!(unsymbolized.samples.incomplete, BTreeMap::from([(Truncation::Unmapped, 3)]));
}

#[test]
fn a_block_goes_below_the_stack_of_who_ended_it() {
    let objects = Objects::default();
    let mut tally = tally();
    let waker = CountKey { kind: Kind::Waker, waker_id: 99, ..key(1) };
    let block = CountKey { kind: Kind::OffCpu, waker_id: 99, ..key(2) };
    tally.stack(5, block, &resolved(0x2000, None), &objects);
    tally.stack(5, waker, &resolved(0x1000, None), &objects);
    tally.count(&[count(block, 1), count(waker, 1)], 10);
    let unsymbolized = tally.finish(&objects, |_| String::new());
    assert_eq!(values(&unsymbolized), [[0, 0, 1, 10]]);
    let stack: Vec<_> = unsymbolized.profile.stack(unsymbolized.profile.samples()[0].stack).collect();
    let address = |at: usize| unsymbolized.profile.location(stack[at]).address;
    assert_eq!((stack.len(), address(1), address(3)), (4, 0x1000, 0x2000), "waker's root first");
    assert_eq!((unsymbolized.blocks.complete, unsymbolized.wakings.complete), (1, 1));
}
#[test]
fn without_room_what_is_known_is_counted_as_before() {
    let objects = Objects::default();
    let mut tally = tally();
    tally.stack(5, key(1), &resolved(0x1000, None), &objects);
    tally.count(&[count(key(1), 3)], 10);
    // New stacks and what is known, without ids and then with no room at all.
    for (at, pressure) in [(20, Pressure::High), (30, Pressure::Full)] {
        tally.pressure = pressure;
        for stack in [1, at, at + 1] {
            tally.stack(at, key(stack), &resolved(0x1000 * stack, None), &objects);
        }
        tally.count(&[count(key(1), 1), count(key(at), 10), count(key(at + 1), 100)], at);
    }
    tally.stack(40, key(20), &resolved(0x1000 * 20, None), &objects);
    tally.count(&[count(key(20), 1000)], 40);
    let unsymbolized = tally.finish(&objects, |_| String::new());
    let profile = &unsymbolized.profile;
    let mut found: Vec<_> = profile
        .samples()
        .iter()
        .map(|sample| {
            let leaf = profile.location(profile.stack(sample.stack).next().unwrap());
            (sample.values[0], profile.label(sample.labels, "pid"), leaf.mapping.is_some())
        })
        .collect();
    found.sort();
    let pid = Some("7".to_owned());
    let expected = [(5, pid, true), (100, None, true), (110, None, false), (1010, None, true)];
    assert_eq!(found, expected);
    assert_eq!(unsymbolized.samples.complete, 5 + 100 + 1010);
    assert_eq!(unsymbolized.samples.incomplete, BTreeMap::from([(Truncation::Budget, 110)]));
    assert_eq!(unsymbolized.without_ids, 1220);
}
