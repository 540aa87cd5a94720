//! What is known of a sample beside its stack.

use std::rc::Rc;

use crate::model::event::{CgroupIds, Moment, OUTSIDE};
use crate::model::profile::{CPU_LABEL, Label, LabelValue, TIME_LABEL};
use crate::recording::containers::Groups;
use crate::viewing::names::UNNAMED;

/// What is known of samples and is not a process's own.
#[derive(Debug, Default)]
pub struct Labels {
    /// By cgroup.
    pub groups: Groups,
    /// Those of a former time, which stacks that are held may need.
    pub before: Groups,
    /// Of all samples.
    pub fixed: Vec<Label>,
    /// What slow calls are of: the leaf of their stacks.
    pub called: String,
    /// Length of the slots of time in which it is kept when samples were taken.
    pub slot_ns: Option<u64>,
}

/// Whose a sample is, and when it was taken.
#[derive(Clone, Copy, Debug)]
pub struct Origin<'a> {
    /// Process; `None` where it is not told apart.
    pub tgid: Option<u32>,
    /// Thread, the same.
    pub tid: Option<u32>,
    /// The process's name.
    pub comm: &'a Rc<str>,
    /// The thread's.
    pub thread_comm: &'a Rc<str>,
    /// Where it was.
    pub cgroups: CgroupIds,
    /// When, where that is kept.
    pub moment: Option<Moment>,
}

impl Origin<'_> {
    /// The same of any process of that name, at any time.
    pub fn without_ids(self) -> Self {
        Self { tgid: None, tid: None, moment: None, ..self }
    }
}

impl Labels {
    /// Those of a sample, of a window that began in this slot of time.
    pub fn of(&self, origin: &Origin, first_slot: u32) -> Vec<Label> {
        let Origin { tgid, tid, comm, thread_comm, cgroups, moment } = *origin;
        let number =
            |key: &str, id: u32| Label { key: key.into(), value: LabelValue::Num(id.into(), "".into()) };
        // Tasks of other PID namespaces have no ids here.
        let of_ours = |id: &u32| *id != OUTSIDE;
        let mut labels: Vec<Label> =
            tgid.filter(of_ours).map(|tgid| number("pid", tgid)).into_iter().collect();
        labels.extend(tid.filter(of_ours).map(|tid| number("tid", tid)));
        labels.extend([name("comm", comm), name("thread_comm", thread_comm)]);
        let group = self.groups.get(&cgroups).or_else(|| self.before.get(&cgroups));
        labels.extend(group.into_iter().flat_map(|group| group.iter()).cloned());
        labels.extend(self.fixed.iter().cloned());
        if let (Some(moment), Some(slot_ns)) = (moment, self.slot_ns) {
            // What a window before counted last may be a slot early.
            let slot = moment.slot.wrapping_sub(first_slot).cast_signed().max(0);
            let since = i64::from(slot).saturating_mul(i64::try_from(slot_ns).unwrap_or(i64::MAX));
            labels
                .push(Label { key: TIME_LABEL.into(), value: LabelValue::Num(since, "nanoseconds".into()) });
            // As text: a reader takes the number 0 for no label.
            labels.extend(moment.cpu.map(|cpu| text(CPU_LABEL, &cpu.to_string().into())));
        }
        labels
    }
}

fn text(key: &str, value: &Rc<str>) -> Label {
    Label { key: key.into(), value: LabelValue::Str(Rc::clone(value)) }
}

/// What a process or thread is called: it may give itself an empty name, which is none in pprof, so that its stacks
/// would stand beside the processes instead of below one.
pub fn called(comm: &str) -> &str {
    if comm.is_empty() { UNNAMED } else { comm }
}

fn name(key: &str, comm: &Rc<str>) -> Label {
    if comm.is_empty() { text(key, &called(comm).into()) } else { text(key, comm) }
}
