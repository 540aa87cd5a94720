//! What is mounted, as `/proc/self/mountinfo` lists it (proc_pid_mountinfo(5)).

use std::path::PathBuf;

/// A mount.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mount {
    /// The directory of the file system that is mounted.
    pub root: String,
    /// Where.
    pub point: PathBuf,
    /// Options of the file system: of a cgroup hierarchy its controllers.
    pub options: String,
}

/// Mounts of a type of file system, as far as this process sees them.
pub fn of_type(kind: &str) -> Vec<Mount> {
    let text = super::read_text("/proc/self/mountinfo").unwrap_or_default();
    text.lines().filter_map(|line| parse(line, kind)).collect()
}

/// `36 35 98:0 /root /mount/point rw,noatime master:1 - ext4 /dev/root rw`. Spaces are `\040`.
fn parse(line: &str, kind: &str) -> Option<Mount> {
    let (fields, rest) = line.split_once(" - ")?;
    let mut rest = rest.split(' ');
    (rest.next() == Some(kind)).then_some(())?;
    let options = rest.nth(1).unwrap_or_default().to_owned();
    let mut fields = fields.split(' ').skip(3).map(|field| field.replace("\\040", " "));
    Some(Mount { root: fields.next()?, point: fields.next()?.into(), options })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mount_points_of_a_type() {
        let line = "31 23 0:27 / /sys/fs/a\\040b rw,nosuid shared:9 - bpf bpf rw,mode=700";
        let (root, point, options) = ("/".into(), "/sys/fs/a b".into(), "rw,mode=700".into());
        assert_eq!(parse(line, "bpf"), Some(Mount { root, point, options }));
        assert_eq!(parse(line, "cgroup2"), None);
        assert_eq!(parse("31 23 0:27 / /x - bpffs none rw", "bpf"), None);
    }
}
