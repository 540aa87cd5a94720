//! `--label KEY=VALUE`.

use crate::model::profile::{CPU_LABEL, TIME_LABEL};

/// Labels that samples may have anyhow; so may all that begin with `bpf_`.
const OWN_LABELS: [&str; 11] = [
    "pid",
    "tid",
    "comm",
    "thread_comm",
    "cgroup",
    "container_id",
    "pod",
    "namespace",
    "container",
    TIME_LABEL,
    CPU_LABEL,
];

/// Parses a label of all samples.
pub(super) fn parse_label(text: &str) -> Result<(String, String), String> {
    let (key, value) = text.split_once('=').ok_or("expected KEY=VALUE, such as region=eu")?;
    let is_name = |c: char| c.is_ascii_alphanumeric() || "_.-".contains(c);
    if value.is_empty() {
        return Err(format!("{key} has no value: expected KEY=VALUE, such as region=eu"));
    }
    if key.is_empty() || !key.chars().all(is_name) {
        return Err("expected KEY=VALUE, where KEY has letters, digits, _, . and -".to_owned());
    }
    if OWN_LABELS.contains(&key) || key.starts_with("bpf_") {
        return Err(format!("{key} is a label of the profiler's own: name another"));
    }
    Ok((key.to_owned(), value.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_have_keys_and_values() {
        assert_eq!(parse_label("region=eu=1"), Ok(("region".to_owned(), "eu=1".to_owned())));
        for bad in ["", "x", "=x", "x=", "a b=c", "pid=3", "container_id=x", "bpf_id=1"] {
            assert!(parse_label(bad).is_err(), "{bad:?} was taken");
        }
    }
}
