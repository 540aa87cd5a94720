//! Containers: which one a cgroup is of, and what the node calls it.
//!
//! The managers name a container's cgroup by its id: `docker-ID.scope`, `cri-containerd-ID.scope`, `crio-ID.scope`,
//! `libpod-ID.scope`, or `ID` alone, and ECS's by the task's. What pod it belongs to the node tells in the names
//! of log files (Kubernetes), or in what the runtime was given (OCI annotations).

use std::fs::{self, File};
use std::io::Read;
use std::os::unix::fs::MetadataExt;

use serde_json::Value;

/// Files of runtimes are small; one that is not is none.
const MOST_BYTES: u64 = 4 << 20;

/// The id of the container that a cgroup is of, or of one around it.
pub fn container_id(cgroup: &str) -> Option<&str> {
    cgroup.rsplit('/').find_map(|part| {
        let part = part.strip_suffix(".scope").unwrap_or(part);
        // The process that watches a container has a scope of its own, beside the container's.
        if part.contains("conmon") {
            return None;
        }
        let is_hex = |text: &str| text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
        // Of Amazon's: a task's id, and a number.
        if let Some((task, number)) = part.split_once('-')
            && task.len() == 32
            && is_hex(task)
            && !number.is_empty()
            && number.bytes().all(|byte| byte.is_ascii_digit())
        {
            return Some(part);
        }
        let id = part.rsplit(['-', ':']).next()?;
        (id.len() == 64 && is_hex(id)).then_some(id)
    })
}

/// What a container is called.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Names {
    /// Pod.
    pub pod: Option<String>,
    /// Namespace of the pod.
    pub namespace: Option<String>,
    /// Name of the container, in its pod or by itself.
    pub container: Option<String>,
}

impl Names {
    /// Label and name of those that are known.
    pub fn known(&self) -> impl Iterator<Item = (&'static str, &str)> {
        let all = [("pod", &self.pod), ("namespace", &self.namespace), ("container", &self.container)];
        all.into_iter().filter_map(|(key, name)| Some((key, name.as_deref()?)))
    }
}

/// Asks the node what a container is called.
pub fn names(id: &str) -> Option<Names> {
    // Where we are in a container ourselves but see the node's processes, the node's files are those of its first.
    let mounts = |pid: &str| fs::metadata(format!("/proc/{pid}/ns/mnt")).map(|it| it.ino()).ok();
    let of_node = mounts("1").is_some_and(|node| Some(node) != mounts("self")).then_some("/proc/1/root");
    [Some(""), of_node].into_iter().flatten().find_map(|root| {
        let of_runtime = || BUNDLES.iter().find_map(|(before, after)| annotated(root, before, id, after));
        logged(root, id).or_else(of_runtime).or_else(|| of_docker(root, id)).or_else(|| of_storage(root, id))
    })
}

/// `/var/log/containers/POD_NAMESPACE_CONTAINER-ID.log`.
fn logged(root: &str, id: &str) -> Option<Names> {
    let entries = fs::read_dir(format!("{root}/var/log/containers")).ok()?;
    entries.flatten().find_map(|entry| log_name(entry.file_name().to_str()?, id))
}

fn log_name(name: &str, id: &str) -> Option<Names> {
    let mut parts = name.strip_suffix(".log")?.strip_suffix(id)?.strip_suffix('-')?.splitn(3, '_');
    let mut next = || parts.next().filter(|part| !part.is_empty()).map(str::to_owned);
    Some(Names { pod: Some(next()?), namespace: Some(next()?), container: Some(next()?) })
}

/// Where runtimes keep the `config.json` of a container: before its id, and after.
const BUNDLES: [(&str, &str); 5] = [
    ("/run/containerd/io.containerd.runtime.v2.task/k8s.io/", "/config.json"),
    ("/run/containerd/io.containerd.runtime.v2.task/default/", "/config.json"),
    ("/run/k3s/containerd/io.containerd.runtime.v2.task/k8s.io/", "/config.json"),
    ("/run/containers/storage/overlay-containers/", "/userdata/config.json"),
    ("/var/lib/containers/storage/overlay-containers/", "/userdata/config.json"),
];

/// containerd's annotations, and CRI-O's.
const ANNOTATIONS: [[&str; 3]; 2] = [
    [
        "io.kubernetes.cri.sandbox-name",
        "io.kubernetes.cri.sandbox-namespace",
        "io.kubernetes.cri.container-name",
    ],
    ["io.kubernetes.pod.name", "io.kubernetes.pod.namespace", "io.kubernetes.container.name"],
];

fn annotated(root: &str, before: &str, id: &str, after: &str) -> Option<Names> {
    let config = json(&format!("{root}{before}{id}{after}"))?;
    let annotation = |key: &str| config["annotations"][key].as_str().map(str::to_owned);
    ANNOTATIONS.iter().find_map(|[pod, namespace, container]| {
        let names = Names {
            pod: annotation(pod),
            namespace: annotation(namespace),
            container: annotation(container),
        };
        (names != Names::default()).then_some(names)
    })
}

fn of_docker(root: &str, id: &str) -> Option<Names> {
    let config = json(&format!("{root}/var/lib/docker/containers/{id}/config.v2.json"))?;
    let name = config["Name"].as_str()?.trim_start_matches('/');
    Some(Names { container: Some(name.to_owned()), ..Names::default() })
}

/// Podman's and CRI-O's store of containers; of Podman's, the name is the user's.
fn of_storage(root: &str, id: &str) -> Option<Names> {
    let stored = ["overlay", "vfs"].into_iter().find_map(|driver| {
        let all = json(&format!("{root}/var/lib/containers/storage/{driver}-containers/containers.json"))?;
        all.as_array()?.iter().find(|container| container["id"] == id).cloned()
    })?;
    Some(Names { container: Some(stored["names"][0].as_str()?.to_owned()), ..Names::default() })
}

fn json(path: &str) -> Option<Value> {
    let file = File::open(path).ok()?;
    let metadata = file.metadata().ok()?;
    if !metadata.is_file() || metadata.len() > MOST_BYTES {
        return None;
    }
    let mut bytes = Vec::new();
    file.take(MOST_BYTES).read_to_end(&mut bytes).ok()?;
    serde_json::from_slice(&bytes).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: &str = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";

    #[test]
    fn cgroups_of_containers() {
        for path in [
            "/docker/ID",
            "/system.slice/docker-ID.scope",
            "/machine.slice/libpod-ID.scope/container",
            "/libpod_parent/libpod-ID",
            "/kubepods/burstable/podd5a0f3c1-6a3c-4f0e-8f5e-0e6d2f3b7a11/ID",
            "/kubepods.slice/kubepods-podd5a0f3c1_6a3c_4f0e_8f5e_0e6d2f3b7a11.slice/cri-containerd-ID.scope",
            "/kubepods.slice/x.slice:cri-containerd:ID",
            "/../crio-ID.scope",
            "/docker/ID/system.slice/cron.service",
        ] {
            assert_eq!(container_id(&path.replace("ID", ID)), Some(ID), "{path}");
        }
        let nested = format!("/docker/{}/kubelet/{ID}", ID.replace('0', "f"));
        assert_eq!(container_id(&nested), Some(ID));
        let ecs = "/ecs/0123456789abcdef0123456789abcdef/0123456789abcdef0123456789abcdef-1234567890";
        assert_eq!(container_id(ecs), Some("0123456789abcdef0123456789abcdef-1234567890"));
    }

    #[test]
    fn cgroups_of_the_host() {
        for path in [
            "/",
            "/user.slice/user-1000.slice/session-2.scope",
            "/machine.slice/libpod-conmon-ID.scope",
            "/system.slice/crio-conmon-ID.scope",
            "/x/0ID",
            "/x/0123456789abcdef0123456789abcdef",
            "/x/0123456789ABCDEF",
        ] {
            assert_eq!(container_id(&path.replace("ID", ID)), None, "{path}");
        }
    }

    #[test]
    fn names_of_log_files() {
        let names = log_name(&format!("web-0_shop_nginx-proxy-{ID}.log"), ID).unwrap();
        let known: Vec<_> = names.known().collect();
        assert_eq!(known, [("pod", "web-0"), ("namespace", "shop"), ("container", "nginx-proxy")]);
        assert_eq!(log_name(&format!("web-0_shop-{ID}.log"), ID), None);
        assert_eq!(log_name("web-0_shop_nginx.log", ID), None);
    }
}
