//! What each capability is for, as README.md has it in a table; a virtual machine on another kernel is held to
//! the same table by scripts/test-kernels.

use std::collections::BTreeSet;
use std::fs;
use std::process::Command;

use crate::common::{ROOT, Running, Test, copy_program, output, refusal};

pub const SIX: &str = "bpf,perfmon,sys_ptrace,dac_read_search,checkpoint_restore,syslog";

/// All words of a text that are names of capabilities.
fn capabilities(text: &str) -> BTreeSet<&str> {
    let words = text.split(|c: char| !(c.is_ascii_uppercase() || c == '_'));
    words.filter(|word| word.len() > 4 && word.starts_with("CAP_")).collect()
}

/// A sysctl that decides who sees what.
fn sysctl(name: &str) -> i32 {
    fs::read_to_string(format!("/proc/sys/kernel/{name}")).unwrap().trim().parse().unwrap()
}

/// The program that takes rights away.
pub fn with_capabilities(test: &Test) -> String {
    test.compile("tests/programs/with_capabilities.c", "with", &["-static"])
}

/// `profiler record` with some capabilities, of a user who may write here: it must be refused.
fn refused(test: &Test, set: &str, args: &[&str]) -> String {
    use std::os::unix::fs::PermissionsExt;
    let profiler = test.path("profiler");
    if !fs::exists(&profiler).unwrap() {
        copy_program(env!("CARGO_BIN_EXE_profiler"), &profiler, 0);
        fs::set_permissions(&test.dir, fs::Permissions::from_mode(0o777)).unwrap();
    }
    let command = [&["1001", set, profiler.as_str()], args].concat();
    let message =
        refusal(&Command::new(test.path("with")).args(command).current_dir(&test.dir).output().unwrap());
    assert_eq!(message.trim_end().lines().count(), 1, "{message}");
    assert!(!message.contains("lacks"), "{message}");
    message
}

#[test]
fn the_table_of_the_readme_is_what_the_kernel_does() {
    let Some(test) = Test::alone("rights") else { return };
    let (paranoid, hidden) = (sysctl("perf_event_paranoid"), sysctl("kptr_restrict"));
    if paranoid < 2 || hidden > 1 {
        return test.skip(&format!(
            "the table is of kernel.perf_event_paranoid 2 or more and kernel.kptr_restrict below 2; here they are {paranoid} and {hidden}"
        ));
    }
    if !["unshare", "mount", "awk"].into_iter().all(|tool| test.needs(tool)) {
        return;
    }
    let with = with_capabilities(&test);
    let spin = test.spin("spin", "busy", &["-static"]);
    let version = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap();
    let expected = output(
        "awk",
        &[
            "-v",
            &format!("version={}", version.trim()),
            "-v",
            &format!("paranoid={paranoid}"),
            "-f",
            &format!("{ROOT}/tests/rights/expected.awk"),
            &format!("{ROOT}/README.md"),
        ],
    );
    let rows: Vec<&str> = expected.lines().collect();
    assert!(
        rows.iter().any(|row| row.starts_with(&format!("{SIX} "))),
        "README has no row of the six: {expected}"
    );
    let mut args = vec![env!("CARGO_BIN_EXE_profiler"), &with, &spin];
    args.extend(rows.iter().map(|row| row.split(' ').next().unwrap()));
    let table = output(format!("{ROOT}/tests/rights/table.sh"), &args);
    test.tell(&format!("at perf_event_paranoid {paranoid} on {}:\n{table}", version.trim()));
    for (row, made) in rows.iter().zip(table.lines()) {
        // Behind `refused` comes the message.
        let same = made == *row || (row.ends_with(" refused") && made.starts_with(&format!("{row} ")));
        assert!(same, "README says\n{row}\nand the kernel\n{made}");
    }
    assert_eq!(table.lines().count(), rows.len(), "{table}");
}

#[test]
fn refusals_name_what_is_missing() {
    let Some(test) = Test::alone("refused-rights") else { return };
    if sysctl("perf_event_paranoid") > 2 {
        return test.skip("kernel.perf_event_paranoid is above 2, where CAP_SYS_ADMIN is all that counts");
    }
    with_capabilities(&test);
    for (set, missing) in [
        ("none", &["CAP_BPF", "CAP_PERFMON"][..]),
        ("bpf", &["CAP_PERFMON"]),
        ("perfmon", &["CAP_BPF"]),
        ("sys_ptrace,syslog,dac_read_search,checkpoint_restore,perfmon", &["CAP_BPF"]),
    ] {
        for args in [&["record", "-d", "1s"][..], &["record", "--", "true"]] {
            let message = refused(&test, set, args);
            assert_eq!(capabilities(&message), missing.iter().copied().collect(), "{set}: {message}");
            assert!(message.contains("root"), "{set}: {message}");
        }
    }
    let message = refused(&test, SIX, &["stats"]);
    assert_eq!(capabilities(&message), ["CAP_SYS_ADMIN"].into(), "{message}");
}

#[test]
fn what_is_done_without_is_told() {
    let Some(test) = Test::alone("partial-rights") else { return };
    if sysctl("perf_event_paranoid") > 2 {
        return test.skip("kernel.perf_event_paranoid is above 2, where CAP_SYS_ADMIN is all that counts");
    }
    let with = with_capabilities(&test);
    let told = |set: &str, option: &[&str]| {
        let mut command = Command::new(&with);
        let profiler = env!("CARGO_BIN_EXE_profiler");
        let args =
            [&["0", set, profiler, "record", "-o", "o.pb.gz"], option, &["--", "sleep", "0.1"]].concat();
        let output = command.args(args).current_dir(&test.dir).output().unwrap();
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success(), "{set}: {text}");
        text
    };
    let costs = ["CAP_SYS_ADMIN"];
    let names = ["CAP_SYS_PTRACE", "CAP_DAC_READ_SEARCH", "CAP_CHECKPOINT_RESTORE", "CAP_SYSLOG"];
    // What the programs that run meanwhile are called is none of ours.
    let notices = |text: &str| -> String {
        text.lines().filter(|line| line.starts_with("profiler: ")).map(|line| format!("{line}\n")).collect()
    };
    for option in [&[][..], &["--no-bpf-stats"]] {
        let text = notices(&told("bpf,perfmon", option));
        assert_eq!(capabilities(&text), names.into_iter().chain(costs).collect(), "{text}");
        assert!(!text.contains("lacks BPF run-time"), "{text}");
        let text = notices(&told(SIX, option));
        assert_eq!(capabilities(&text), costs.into(), "{text}");
        assert_eq!(text.matches("CAP_SYS_ADMIN").count(), 1, "{text}");
    }
    let text = notices(&told(&format!("{SIX},sys_admin"), &[]));
    assert_eq!(capabilities(&text), [].into(), "{text}");
}

/// A worker that has become another user could not be ended, and would be waited for: it stays who it was.
#[test]
fn who_may_not_end_other_users_processes_waits_for_none() {
    let Some(test) = Test::alone("no-cap-kill") else { return };
    if sysctl("perf_event_paranoid") > 2 {
        return test.skip("kernel.perf_event_paranoid is above 2, where CAP_SYS_ADMIN is all that counts");
    }
    let with = with_capabilities(&test);
    let spin = test.spin("spin", "busy", &[]);
    let set = format!("{SIX},setuid,setgid");
    let start = |args: &[&str]| {
        let mut command = Command::new(&with);
        command.args(["0", &set, env!("CARGO_BIN_EXE_profiler")]).args(args).current_dir(&test.dir);
        command
    };
    let recording = Running::new(test.dir.join("output.pb.gz"), start(&["record", "--", &spin, "0.5"]));
    let recording = recording.finish();
    assert!(recording.with("busy") > 10, "{:?}", recording.leaves());
    let told = String::from_utf8_lossy(&start(&["doctor"]).output().unwrap().stdout).into_owned();
    assert!(told.contains("CAP_KILL"), "{told}");
    assert!(!told.contains("OPEN"), "{told}");
}

#[test]
fn help_and_readme_name_the_same_capabilities() {
    let readme = fs::read_to_string(format!("{ROOT}/README.md")).unwrap();
    let help = output(env!("CARGO_BIN_EXE_profiler"), &["record", "--help"]);
    let seven: Vec<String> =
        format!("{SIX},sys_admin").split(',').map(|name| format!("CAP_{}", name.to_uppercase())).collect();
    let seven: BTreeSet<&str> = seven.iter().map(String::as_str).collect();
    assert_eq!(capabilities(&readme), seven);
    assert_eq!(capabilities(&help), seven);
    for page in fs::read_dir(format!("{ROOT}/docs")).unwrap().map(|entry| entry.unwrap().path()) {
        let text = String::from_utf8_lossy(&fs::read(&page).unwrap()).into_owned();
        let strange: Vec<_> = capabilities(&text).difference(&seven).map(|name| (*name).to_owned()).collect();
        assert!(
            page.extension().is_none_or(|end| end != "md") || strange.is_empty(),
            "{page:?}: {strange:?}"
        );
    }
}
