//! What the BPF program writes, as events.

use std::mem::{offset_of, size_of};
use std::ptr;

use super::skeleton::types as abi;
use crate::interpreters::python::{self, Lines};
use crate::model::event::{
    CgroupIds, Comm, CountKey, Dump, Event, Kind, Loss, Moment, Outcome, Stack, ThreadTime, Timed, Truncation,
};
use crate::model::scripts::{Code, CodeKey, Frame, Missing, Runtime};

/// Types of the ABI: integers only, so that any bytes make a value.
pub(super) trait Plain: Default {}
impl Plain for abi::counts_key {}
impl Plain for abi::cpu_state {}
impl Plain for abi::stack_dump {}
impl Plain for abi::thread_record {}
impl Plain for abi::blocked_thread {}
impl Plain for abi::cgroup_event {}
impl Plain for abi::code_record {}

/// A value from the start of `bytes`; what they do not cover stays zero.
pub(super) fn plain<T: Plain>(bytes: &[u8]) -> T {
    let mut value = T::default();
    let n = bytes.len().min(size_of::<T>());
    // SAFETY: both are valid for `n` bytes and do not overlap; every bit pattern is a valid `T`.
    unsafe { ptr::copy_nonoverlapping(bytes.as_ptr(), (&raw mut value).cast(), n) };
    value
}

pub(super) fn count_key(key: &abi::counts_key) -> CountKey {
    CountKey {
        tgid: key.tgid,
        tid: key.tid,
        kind: match abi::kind(key.kind) {
            abi::kind::KIND_OFF_CPU => Kind::OffCpu,
            abi::kind::KIND_WAKER => Kind::Waker,
            abi::kind::KIND_LATENCY => Kind::Latency,
            _ => Kind::OnCpu,
        },
        process_state: key.process_state,
        comm: comm(key.comm),
        kernel_stack_id: key.kernel_stack_id,
        user_stack_id: key.user_stack_id,
        waker_id: key.waker_id,
        cgroups: cgroups(&key.cgroups),
        moment: (key.time_slot != 0)
            .then(|| Moment { slot: key.time_slot, cpu: (key.cpu != NO_CPU).then_some(key.cpu) }),
    }
}

/// As in bpf/profile.h.
const NO_CPU: u32 = u32::MAX;

fn cgroups(ids: &abi::cgroup_ids) -> CgroupIds {
    CgroupIds { v2: ids.v2, v1: ids.v1 }
}

pub(super) fn cgroup(bytes: &[u8]) -> Option<Timed> {
    let event: abi::cgroup_event = plain(bytes);
    let path = event.path.split(|&byte| byte == 0).next()?;
    let told = match event.tgid {
        0 => Event::Cgroup {
            is_v1: event.is_v1 != 0,
            id: event.id,
            path: String::from_utf8_lossy(path).into_owned(),
        },
        tgid => Event::Joined { tgid },
    };
    Some(Timed { time_ns: event.time_ns, event: told })
}

pub(super) fn comm(words: [u64; 2]) -> Comm {
    let mut comm = Comm::default();
    comm.0[..8].copy_from_slice(&words[0].to_ne_bytes());
    comm.0[8..].copy_from_slice(&words[1].to_ne_bytes());
    comm
}

/// The frames of a key. Only what was sent is looked at: a body has room for far more frames.
pub(super) fn stack(bytes: &[u8]) -> Option<Timed> {
    const FRAMES: usize = offset_of!(abi::stack_body, frames);
    let head: &[u8; FRAMES] = bytes.first_chunk()?;
    let kernel = usize::from(u16::from_ne_bytes(at(head, offset_of!(abi::stack_body, kernel_frames))?));
    let user = usize::from(u16::from_ne_bytes(at(head, offset_of!(abi::stack_body, user_frames))?));
    let mut frames = bytes[FRAMES..].chunks_exact(8).map(|frame| at(frame, 0).map_or(0, u64::from_ne_bytes));
    let key = count_key(&plain(head));
    let kernel = frames.by_ref().take(kernel).collect();
    let (user, scripts) = script_frames(key.tgid, frames.take(user));
    let stack = Stack {
        key,
        truncation: truncation(u32::from_ne_bytes(at(head, offset_of!(abi::stack_body, outcome))?)),
        kernel,
        user,
        scripts,
    };
    let time_ns = u64::from_ne_bytes(at(head, offset_of!(abi::stack_body, time_ns))?);
    Some(Timed { time_ns, event: Event::Stack(stack) })
}

/// Addresses, and the frames of scripts among them: see `SCRIPT_FRAME` in bpf/profile.h.
pub(super) fn script_frames(tgid: u32, words: impl Iterator<Item = u64>) -> (Vec<u64>, Vec<(usize, Frame)>) {
    const SCRIPT: u64 = 1 << 63;
    const RUNTIME_SHIFT: u32 = 58;
    const INSTRUCTION_SHIFT: u32 = 40;
    let (mut user, mut scripts) = (Vec::new(), Vec::new());
    let mut words = words;
    while let Some(word) = words.next() {
        if word & SCRIPT == 0 {
            user.push(word);
            continue;
        }
        let runtime = usize::try_from((word & !SCRIPT) >> RUNTIME_SHIFT).ok();
        let Some(&runtime) = runtime.and_then(|at| Runtime::ALL.get(at)) else { continue };
        let frame = if word & 1 != 0 {
            Frame::Missing(runtime, missing((word >> 8 & 0xff) as u32))
        } else {
            let Some(second) = words.next() else { break };
            let code = word & ((1 << RUNTIME_SHIFT) - 1);
            let checksum = second & ((1 << INSTRUCTION_SHIFT) - 1);
            let instruction = (second & !SCRIPT) >> INSTRUCTION_SHIFT;
            Frame::In(CodeKey { tgid, runtime, code, checksum }, instruction as u32)
        };
        scripts.push((user.len(), frame));
    }
    (user, scripts)
}

fn missing(number: u32) -> Missing {
    match abi::script_missing(number) {
        abi::script_missing::MISSING_THREAD => Missing::Thread,
        abi::script_missing::MISSING_FRAME => Missing::Frame,
        _ => Missing::Code,
    }
}

/// What names a code object, as it was sent.
pub(super) fn code(bytes: &[u8]) -> Option<Timed> {
    let record: abi::code_record = plain(bytes);
    let (key, code) = described(&record)?;
    Some(Timed { time_ns: record.time_ns, event: Event::Code(key, Box::new(code)) })
}

/// What names a code object.
pub(super) fn described(record: &abi::code_record) -> Option<(CodeKey, Code)> {
    let runtime = *Runtime::ALL.get(usize::from(record.runtime))?;
    let key = CodeKey { tgid: record.tgid, runtime, code: record.code, checksum: record.checksum };
    let (name, rest) = record.text.split_at_checked(record.name_bytes.into())?;
    let (file, rest) = rest.split_at_checked(record.file_bytes.into())?;
    let lines = match abi::python_lines(record.lines.into()) {
        abi::python_lines::PYTHON_LNOTAB => Lines::Lnotab,
        abi::python_lines::PYTHON_LINETABLE => Lines::Linetable,
        _ => Lines::Locations,
    };
    let name = python::text(name, record.name_kind);
    let code = Code {
        name: if name.is_empty() { "(anonymous)".to_owned() } else { name },
        file: python::text(file, record.file_kind),
        first_line: record.first_line,
        lines,
        table: rest.get(..usize::from(record.lines_bytes))?.to_vec(),
    };
    Some((key, code))
}

fn at<const N: usize>(bytes: &[u8], offset: usize) -> Option<[u8; N]> {
    bytes.get(offset..)?.first_chunk().copied()
}

pub(super) fn dump(bytes: &[u8]) -> Option<Timed> {
    let body: abi::stack_dump = plain(bytes);
    Some(Timed { time_ns: body.time_ns, event: Event::Dump(dump_event(&body)?) })
}

pub(super) fn thread(bytes: &[u8]) -> Option<Timed> {
    Some(thread_time(&plain(bytes)))
}

pub(super) fn thread_time(record: &abi::thread_record) -> Timed {
    let time = ThreadTime {
        tgid: record.tgid,
        tid: record.tid,
        comm: Comm(record.comm).to_string(),
        lifetime_ns: record.end_ns.saturating_sub(record.start_ns),
        on_cpu_ns: record.on_cpu_ns,
        off_cpu_ns: record.off_cpu_ns,
        // The scheduler's clocks differ a little from CPU to CPU.
        runnable_ns: record.runnable_ns.min(record.off_cpu_ns.saturating_sub(record.stacked_ns)),
        stacked_ns: record.stacked_ns,
        blocks: record.blocks,
        preemptions: record.preemptions,
        stacked: record.stacked,
        cgroups: cgroups(&record.cgroups),
    };
    Timed { time_ns: record.end_ns, event: Event::Thread(time) }
}

pub(super) fn dump_event(body: &abi::stack_dump) -> Option<Dump> {
    let page = abi::limits::STACK_DUMP_PAGE.0 as usize;
    let start = body.regs.sp & !(page as u64 - 1);
    Some(Dump {
        key: count_key(&body.key),
        truncation: truncation(body.outcome),
        kernel: body.kernel.get(..usize::from(body.kernel_frames))?.to_vec(),
        registers: [body.regs.ip, body.regs.sp, body.regs.fp],
        leaf: body.leaf,
        is_return_address: body.is_return_address != 0,
        is_32_bit: body.is_32_bit != 0,
        initial_stack: body.initial_stack,
        thread_pointer: (body.thread_pointer != 0).then_some(body.thread_pointer),
        start,
        memory: body.stack.get(..usize::from(body.pages) * page)?.to_vec(),
    })
}

fn truncation(number: u32) -> Option<Truncation> {
    match outcome(number) {
        Outcome::Incomplete(truncation) => Some(truncation),
        _ => None,
    }
}

/// What the numbers of `enum outcome` mean. One that is not listed would be a new one that this
/// function was not taught: it counts as lost rather than as nothing.
pub(super) fn outcome(number: u32) -> Outcome {
    use Outcome::{Complete, Dumped, Filtered, Idle, Incomplete, Lost};
    match abi::outcome(number) {
        abi::outcome::OUTCOME_IDLE => Idle,
        abi::outcome::OUTCOME_FILTERED => Filtered,
        abi::outcome::OUTCOME_COMPLETE => Complete,
        abi::outcome::OUTCOME_KERNEL_DEPTH => Incomplete(Truncation::KernelDepth),
        abi::outcome::OUTCOME_KERNEL_FAILED => Incomplete(Truncation::KernelFailed),
        abi::outcome::OUTCOME_USER_DEPTH => Incomplete(Truncation::UserDepth),
        abi::outcome::OUTCOME_USER_CHAIN => Incomplete(Truncation::FramePointer),
        abi::outcome::OUTCOME_USER_FAULT => Incomplete(Truncation::UnreadableStack),
        abi::outcome::OUTCOME_USER_UNKNOWN => Incomplete(Truncation::KernelWalk),
        abi::outcome::OUTCOME_USER_NO_ROW => Incomplete(Truncation::NoRow),
        abi::outcome::OUTCOME_USER_NOT_UNDERSTOOD => Incomplete(Truncation::NotUnderstood),
        abi::outcome::OUTCOME_USER_REGISTER => Incomplete(Truncation::CallerRegister),
        abi::outcome::OUTCOME_USER_NO_MAPPING => Incomplete(Truncation::ReturnAddress),
        abi::outcome::OUTCOME_USER_UNPROVEN => Incomplete(Truncation::Unproven),
        abi::outcome::OUTCOME_USER_32_BIT => Incomplete(Truncation::Bits32),
        abi::outcome::OUTCOME_USER_NO_TABLE => Incomplete(Truncation::NoTable),
        abi::outcome::OUTCOME_USER_DUMPED => Dumped,
        abi::outcome::OUTCOME_LOST_COUNTS_FULL => Lost(Loss::CountsFull),
        abi::outcome::OUTCOME_LOST_UNSEEN => Lost(Loss::Unseen),
        _ => Lost(Loss::CountsBusy),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_outcome_has_a_meaning_of_its_own() {
        let mut seen: Vec<Outcome> = (0..abi::outcome::OUTCOME_MAX.0).map(outcome).collect();
        seen.sort();
        seen.dedup();
        assert_eq!(seen.len(), abi::outcome::OUTCOME_MAX.0 as usize);
    }
}
