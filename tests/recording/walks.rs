//! Stacks that tables alone do not lead through: code that nobody describes, addresses that the kernel
//! has replaced, callers on other stacks.

use std::fs;
use std::process::Command;

use crate::common::{ROOT, Recording, Sample, Test, output};
use crate::whole::HOW;

const TRUNCATED: &str = "[truncated";
/// Samples, for a share of them to mean something: of 1,000 or more, on a machine that has time.
const ENOUGH: u64 = 50;

fn is_cut(names: &[&str]) -> bool {
    names.iter().any(|name| name.starts_with(TRUNCATED))
}

/// Of the whole stacks with `leaf`, that this share has these callers, each directly above the one before.
fn have_callers(test: &Test, recording: &Recording, leaf: &str, callers: &[&str], share: f64) {
    let chain: Vec<&str> = std::iter::once(leaf).chain(callers.iter().copied()).collect();
    let starts = |name: &str, wanted: &str| name == wanted || name.starts_with(&format!("{wanted}("));
    let has = |sample: &Sample, chain: &[&str]| {
        let names = recording.names(sample);
        names.windows(chain.len()).any(|names| names.iter().zip(chain).all(|(name, want)| starts(name, want)))
    };
    let all = recording.total(|sample| has(sample, &chain[..1]) && !is_cut(&recording.names(sample)));
    let right = recording.total(|sample| has(sample, &chain));
    test.tell(&format!("{right} of {all} have {chain:?}"));
    assert!(all > ENOUGH && right as f64 >= share * all as f64, "{right} of {all}: {}", recording.told);
}

#[test]
fn data_in_the_frame_pointer_is_no_caller() {
    let Some(test) = Test::new("walks-data") else { return };
    let program = test.compile("tests/programs/undescribed.c", "undescribed", &["-fomit-frame-pointer"]);
    let recording = test.record(&[&HOW[..], &["--", &program, "3"]].concat());
    let invented = recording.with("never_called");
    assert_eq!(invented, 0, "{}", recording.told);
    // Who has no frame has its return address at hand; of the other nobody can say where it is.
    have_callers(&test, &recording, "frameless", &["caller", "main"], 0.995);
    let whole = recording.total(|sample| {
        let names = recording.names(sample);
        names.contains(&"undescribed") && !names.contains(&"main") && !is_cut(&names)
    });
    assert!(recording.with("undescribed") > ENOUGH && whole == 0, "{whole} are said to be whole");
}

/// musl's assembly has no call frame information, and the little C before main() has none either.
#[test]
fn through_the_c_library_of_musl() {
    let Some(test) = Test::new("walks-musl") else { return };
    if !test.needs("musl-gcc") {
        return;
    }
    for flags in [&["-static"][..], &[], &["-static", "-fno-omit-frame-pointer"]] {
        let program = test.path("copies");
        let source = format!("{ROOT}/tests/programs/copies.c");
        output("musl-gcc", &[&["-O2", "-o", &program, &source], flags].concat());
        let recording = test.record(&[&HOW[..], &["--", &program, "2"]].concat());
        // The shared library may have no names: then whoever runs in it, it was called.
        if flags.is_empty() {
            have_callers(&test, &recording, "copies", &["main"], 0.99);
            have_callers(&test, &recording, "fills", &["main"], 0.99);
        } else {
            have_callers(&test, &recording, "memcpy", &["copies", "main"], 0.99);
            have_callers(&test, &recording, "memset", &["fills", "main"], 0.99);
        }
        // What calls clock() is said to be doubtful: that has a frame, and nothing describes it.
        let of_main = |sample: &Sample| sample.comm == "copies" && recording.has_frame(sample, "main");
        let cut = recording.total(|sample| of_main(sample) && is_cut(&recording.names(sample)));
        assert!(cut * 100 <= recording.total(of_main), "{flags:?}: {cut}: {}", recording.told);
    }
}

/// A probe that waits for returns of a function, as bpftrace or perf probe make them.
struct ReturnProbe {
    tracefs: String,
    name: String,
}

impl ReturnProbe {
    fn new(test: &Test, program: &str, function: &str) -> Result<Self, String> {
        let tracefs = test.path("tracefs");
        fs::create_dir(&tracefs).unwrap();
        let mounted = Command::new("mount").args(["-t", "tracefs", "none", &tracefs]).output();
        if !mounted.is_ok_and(|output| output.status.success()) {
            return Err("tracefs cannot be mounted".to_owned());
        }
        let this = Self { tracefs, name: format!("profiler_{}/returns", std::process::id()) };
        let symbols = output("nm", &[program]);
        let address = symbols.lines().find_map(|line| line.strip_suffix(&format!(" T {function}"))).unwrap();
        let address = u64::from_str_radix(address, 16).unwrap();
        // Linked without -pie and so at 0x400000, where the file's beginning is.
        let place = format!("r:{} {program}:{:#x}", this.name, address - 0x40_0000);
        this.write("uprobe_events", &place).map_err(|error| format!("no uprobes: {error}"))?;
        this.write(&format!("events/{}/enable", this.name), "1").unwrap();
        Ok(this)
    }

    fn write(&self, file: &str, text: &str) -> std::io::Result<()> {
        let mut file = fs::OpenOptions::new().append(true).open(format!("{}/{file}", self.tracefs))?;
        std::io::Write::write_all(&mut file, text.as_bytes())
    }
}

impl Drop for ReturnProbe {
    fn drop(&mut self) {
        let _ = self.write(&format!("events/{}/enable", self.name), "0");
        let _ = self.write("uprobe_events", &format!("-:{}", self.name));
        let _ = Command::new("umount").arg(&self.tracefs).status();
    }
}

#[test]
fn through_a_return_that_is_waited_for() {
    let Some(test) = Test::new("walks-uretprobe") else { return };
    for (frames, unwind) in [("-fomit-frame-pointer", "table"), ("-fno-omit-frame-pointer", "fp")] {
        let program = test.compile("tests/programs/returns.c", "returns", &[frames, "-no-pie"]);
        let probe = match ReturnProbe::new(&test, &program, "returns") {
            Ok(probe) => probe,
            Err(why) => return test.skip(&why),
        };
        let recording = test.record(&["--unwind", unwind, "-F", "999", "--", &program, "3"]);
        drop(probe);
        if unwind == "table" {
            have_callers(&test, &recording, "works", &["returns", "outer", "main"], 0.99);
        } else {
            // A leaf may have no frame, and the C library has no frame pointers.
            let all = recording.with("works");
            let right = recording
                .total(|sample| recording.names(sample).windows(2).any(|names| names == ["outer", "main"]));
            assert!(
                all > ENOUGH && right as f64 >= 0.99 * all as f64,
                "{right} of {all}: {}",
                recording.told
            );
        }
        fs::remove_dir(test.path("tracefs")).unwrap();
    }
}

/// Marked as a signal's frame, as OCaml marks it, or not: it is where the rule says.
#[test]
fn from_one_stack_to_another_and_back() {
    let Some(test) = Test::new("walks-switches") else { return };
    for marks in [&["-fomit-frame-pointer"][..], &["-fomit-frame-pointer", "-DMARKED"]] {
        let program = test.compile("tests/programs/on_stack.c", "on_stack", marks);
        let recording = test.record(&[&HOW[..], &["--", &program, "2"]].concat());
        let callers = ["on_the_system", "on_stack", "on_the_fiber", "on_stack", "main"];
        have_callers(&test, &recording, "leaf", &callers, 0.995);
        // While the process is young the one stack is sent that it is on, and not the other.
        let cut =
            recording.total(|sample| recording.has_frame(sample, "leaf") && is_cut(&recording.names(sample)));
        assert!(cut as f64 <= 0.05 * recording.with("leaf") as f64, "{cut}: {}", recording.told);
    }
}

#[test]
fn stacks_of_a_programs_own_end_where_they_begin() {
    let Some(test) = Test::new("walks-fibers") else { return };
    if !test.needs("g++") {
        return;
    }
    if !fs::exists("/usr/include/boost/context/fiber.hpp").unwrap() {
        return test.skip("boost/context/fiber.hpp is not installed");
    }
    let flags = ["-std=c++20", "-fomit-frame-pointer", "-lboost_context"];
    let program = test.compile("tests/programs/fibers.cc", "fibers", &flags);
    for (kind, root) in [("ucontext", "entry_of_ucontext"), ("boost", "fiber_entry"), ("c++20", "main")] {
        let recording = test.record(&[&HOW[..], &["--", &program, kind, "2"]].concat());
        have_callers(&test, &recording, "leaf_of_fiber", &["middle_of_fiber"], 0.995);
        let (mut all, mut right) = (0, 0);
        for sample in &recording.samples {
            let names = recording.names(sample);
            if names.contains(&"leaf_of_fiber()") {
                all += sample.samples;
                let whole = names.iter().any(|name| name.contains(root)) && !is_cut(&names);
                right += sample.samples * u64::from(whole);
            }
        }
        assert!(right as f64 >= 0.995 * all as f64, "{kind}: {right} of {all}: {}", recording.told);
    }
}

#[test]
fn through_the_fibers_of_ocaml() {
    let Some(test) = Test::new("walks-ocaml") else { return };
    if !test.needs("ocamlopt") {
        return;
    }
    let version = output("ocamlopt", &["-version"]);
    if version.split('.').next().unwrap().parse::<u32>().unwrap() < 5 {
        return test.skip(&format!("OCaml {} has no fibers: 5 does", version.trim()));
    }
    let program = test.path("sorts");
    let source =
        test.file("sorts.ml", &fs::read_to_string(format!("{ROOT}/tests/programs/sorts.ml")).unwrap());
    output("ocamlopt", &["-I", "+unix", "unix.cmxa", &source, "-o", &program]);
    let recording = test.record(&[&HOW[..], &["--", &program, "3"]].concat());
    let compares = |names: &[&str]| names.iter().any(|name| name.contains("compare_val"));
    let all = recording.total(|sample| compares(&recording.names(sample)));
    let right = recording.total(|sample| {
        let names = recording.names(sample);
        let has = |part: &str| names.iter().any(|name| name.contains(part));
        compares(&names) && has("sorts") && has("calls") && names.contains(&"main") && !is_cut(&names)
    });
    assert!(all > ENOUGH && right as f64 >= 0.99 * all as f64, "{right} of {all}: {}", recording.told);
}
