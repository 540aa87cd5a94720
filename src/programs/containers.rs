//! Which containers programs are of: those of the processes that keep one, of the cgroup that it is attached
//! to, of the network namespace that its device is in or, of a pair whose one end is here, leads to.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::fs::MetadataExt;

use super::Owner;
use crate::machine::cgroups;
use crate::machine::containers::{self, Names};

/// A container.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Container {
    /// Its id.
    pub id: String,
    /// What it and its pod are called, as far as the node knows.
    pub names: Names,
}

impl Container {
    /// Label and value of what is known of it, as samples of a recording have them.
    pub fn labels(&self) -> impl Iterator<Item = (&'static str, &str)> {
        [("container_id", &*self.id)].into_iter().chain(self.names.known())
    }
}

impl std::fmt::Display for Container {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Names { pod, namespace, container } = &self.names;
        let names: Vec<&str> =
            [namespace, pod, container].into_iter().filter_map(|name| name.as_deref()).collect();
        if names.is_empty() {
            f.write_str(self.id.get(..12).unwrap_or(&self.id))
        } else {
            f.write_str(&names.join("/"))
        }
    }
}

/// Asks about containers, about each once.
#[derive(Debug, Default)]
pub struct Containers {
    names: BTreeMap<String, Names>,
    in_namespaces: BTreeMap<u64, BTreeSet<String>>,
}

impl Containers {
    /// `namespaces` are the network namespaces that will be asked about.
    pub fn new(namespaces: &BTreeSet<u64>) -> Self {
        let mut in_namespaces: BTreeMap<u64, BTreeSet<String>> = BTreeMap::new();
        let processes =
            if namespaces.is_empty() { Vec::new() } else { crate::recording::capture::proc::processes() };
        for pid in processes {
            let inode = fs::metadata(format!("/proc/{pid}/ns/net")).map(|namespace| namespace.ino());
            if let Ok(inode) = inode
                && namespaces.contains(&inode)
            {
                in_namespaces.entry(inode).or_default().extend(of_process(pid));
            }
        }
        Self { names: BTreeMap::new(), in_namespaces }
    }

    /// The containers of a program's owners, cgroups and network namespaces.
    pub fn of<'a>(
        &mut self,
        owners: &[Owner],
        cgroups: impl Iterator<Item = &'a str>,
        namespaces: impl Iterator<Item = &'a u64>,
    ) -> Vec<Container> {
        let mut ids: BTreeSet<String> = owners.iter().filter_map(|owner| of_process(owner.pid)).collect();
        ids.extend(cgroups.filter_map(containers::container_id).map(str::to_owned));
        ids.extend(namespaces.filter_map(|inode| self.in_namespaces.get(inode)).flatten().cloned());
        let mut named = |id: String| {
            let names =
                self.names.entry(id.clone()).or_insert_with(|| containers::names(&id).unwrap_or_default());
            Container { names: names.clone(), id }
        };
        ids.into_iter().map(&mut named).collect()
    }
}

/// The container that a process is in.
fn of_process(pid: u32) -> Option<String> {
    let paths = cgroups::paths_of(pid);
    paths.iter().find_map(|path| containers::container_id(path)).map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn containers_in_words() {
        let mut container = Container { id: "0123456789abcdef".repeat(4), names: Names::default() };
        assert_eq!(container.to_string(), "0123456789ab");
        container.names.container = Some("nginx".to_owned());
        assert_eq!(container.to_string(), "nginx");
        container.names.namespace = Some("shop".to_owned());
        container.names.pod = Some("web-0".to_owned());
        assert_eq!(container.to_string(), "shop/web-0/nginx");
        let labels: Vec<_> = container.labels().map(|(key, _)| key).collect();
        assert_eq!(labels, ["container_id", "pod", "namespace", "container"]);
    }
}
