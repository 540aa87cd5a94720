//! Labels for cgroups and containers.
//!
//! The kernel counts by the ids of cgroups. Their paths are read when the recording starts; those that come
//! later are told by a hook at their making, so that the containers of 30 ms have one too. What nobody told
//! is asked of the process, while it lives, or looked for.
//!
//! A container's path has its id, and the node knows its name: not always at once, and not for long after its
//! end. So it is asked about each new container until it knows, and names are joined to the samples when the
//! recording ends.

use std::collections::hash_map::Entry;
use std::collections::{BTreeMap, HashMap};
use std::rc::Rc;

use crate::machine::cgroups::{self, Hierarchy};
use crate::machine::containers::{self, Names};
use crate::model::event::{CgroupIds, Event, Timed};
use crate::model::profile::{Label, LabelValue, LabelsId, Profile};

/// Paths that are kept; beyond it they are read anew.
const MOST_PATHS: usize = 65_536;
/// Times that the node is asked for a container's names, once a second.
const MOST_ASKED: u32 = 20;

/// Labels of samples by the cgroups that they fell in.
pub type Groups = HashMap<CgroupIds, Rc<[Label]>>;

/// What is known of cgroups and containers.
#[derive(Debug)]
pub struct Containers {
    /// v2, and what stands for all of v1.
    hierarchies: [Option<Hierarchy>; 2],
    paths: HashMap<(bool, u64), Rc<str>>,
    /// Containers whose names are not known, and how often they were asked for.
    unnamed: BTreeMap<String, u32>,
    names: HashMap<String, Names>,
}

impl Containers {
    /// Reads what there is.
    pub fn new(v2: Option<Hierarchy>, v1: Option<Hierarchy>) -> Self {
        let hierarchies = [v2, v1];
        let mut new =
            Self { hierarchies, paths: HashMap::new(), unnamed: BTreeMap::new(), names: HashMap::new() };
        new.scan();
        new
    }

    fn scan(&mut self) {
        for (is_v1, hierarchy) in [false, true].into_iter().zip(&self.hierarchies) {
            let Some(hierarchy) = hierarchy else { continue };
            hierarchy.scan(|id, path| {
                self.paths.insert((is_v1, id), path.into());
            });
        }
    }

    /// Takes out of the inbox what it tells of cgroups, and has labels for all that was sampled in it.
    pub fn look(&mut self, inbox: &mut Vec<Timed>, groups: &mut Groups) {
        inbox.retain_mut(|timed| match &mut timed.event {
            Event::Cgroup { is_v1, id, path } => {
                self.paths.insert((*is_v1, *id), std::mem::take(path).into());
                false
            }
            _ => true,
        });
        let mut was_scanned = false;
        for timed in inbox {
            let (tgid, ids) = match &timed.event {
                Event::Stack(stack) => (stack.key.tgid, stack.key.cgroups),
                Event::Dump(dump) => (dump.key.tgid, dump.key.cgroups),
                Event::Thread(time) => (time.tgid, time.cgroups),
                _ => continue,
            };
            if let Entry::Vacant(group) = groups.entry(ids) {
                self.find(tgid, ids, &mut was_scanned);
                group.insert(self.labels(ids));
            }
        }
        if self.paths.len() > MOST_PATHS {
            self.paths.clear();
            self.scan();
        }
    }

    /// Looks for paths that are not known.
    fn find(&mut self, tgid: u32, ids: CgroupIds, was_scanned: &mut bool) {
        for (is_v1, id) in [(false, ids.v2), (true, ids.v1)] {
            let Some(hierarchy) = &self.hierarchies[usize::from(is_v1)] else { continue };
            if id == 0 || self.paths.contains_key(&(is_v1, id)) {
                continue;
            }
            // It may be in another one by now.
            let path = cgroups::path_of(tgid, hierarchy);
            let is_it = |path: &String| hierarchy.id_of(path).is_none_or(|found| found == id);
            if let Some(path) = path.filter(is_it) {
                self.paths.insert((is_v1, id), path.into());
            } else if !*was_scanned {
                *was_scanned = true;
                self.scan();
            }
        }
    }

    fn labels(&mut self, ids: CgroupIds) -> Rc<[Label]> {
        let paths = [(false, ids.v2), (true, ids.v1)].map(|key| self.paths.get(&key).cloned());
        let mut paths: Vec<Rc<str>> = paths.into_iter().flatten().filter(|path| &**path != "/").collect();
        // A manager may use one of the two only.
        paths.sort_by_key(|path| containers::container_id(path).is_none());
        let Some(path) = paths.into_iter().next() else { return Rc::new([]) };
        let container = containers::container_id(&path).map(str::to_owned);
        let mut labels = vec![text("cgroup", &path)];
        if let Some(container) = container {
            labels.push(text("container_id", &container));
            if !self.names.contains_key(&container) && !self.unnamed.contains_key(&container) {
                self.unnamed.insert(container.clone(), 0);
                self.ask(&container);
            }
        }
        labels.into()
    }

    fn ask(&mut self, container: &str) {
        if let Some(names) = containers::names(container) {
            self.names.insert(container.to_owned(), names);
            self.unnamed.remove(container);
        }
    }

    /// Asks again for names that are not known; to be called about once a second.
    pub fn tick(&mut self) {
        let due = self.unnamed.iter_mut().filter(|(_, asked)| **asked < MOST_ASKED);
        let due: Vec<String> = due
            .map(|(container, asked)| {
                *asked += 1;
                container.clone()
            })
            .collect();
        due.iter().for_each(|container| self.ask(container));
    }

    /// Gives back what may not be asked for again.
    pub fn forget(&mut self) {
        const MOST_NAMES: usize = 4096;
        if self.names.len() > MOST_NAMES {
            self.names.clear();
        }
        if self.unnamed.len() > MOST_NAMES {
            self.unnamed.clear();
        }
    }

    /// Adds the containers' names to a recording.
    pub fn name(&self, profile: &mut Profile) {
        if self.names.is_empty() {
            return;
        }
        let mut named: HashMap<LabelsId, LabelsId> = HashMap::new();
        for sample in profile.take_samples() {
            let labels = *named.entry(sample.labels).or_insert_with(|| {
                let names = profile.label(sample.labels, "container_id").and_then(|id| self.names.get(&id));
                let Some(names) = names else { return sample.labels };
                let names = names.known().map(|(key, name)| text(key, name));
                let labels: Vec<Label> = profile.labels(sample.labels).iter().cloned().chain(names).collect();
                profile.intern_labels(&labels)
            });
            profile.add(sample.stack, labels, &sample.values);
        }
    }
}

/// A label of text.
pub fn text(key: &str, value: &str) -> Label {
    Label { key: key.into(), value: LabelValue::Str(value.into()) }
}
