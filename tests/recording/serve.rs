//! `profiler serve`: recordings over HTTP, by the clients that people have, and by those that nobody wants.

use std::fs;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::process::{Command, Stdio};
use std::thread::{self, sleep};
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;

use crate::common::{Guarded, JUDGES, Recording, Test, has, kill, output, refusal, spawn, wait_until};

/// A server, and where it is.
struct Served {
    child: Guarded,
    address: String,
    told: String,
}

impl Served {
    fn start(test: &Test, args: &[&str]) -> Self {
        let told = test.path("served");
        let mut command = test.profiler(&[&["serve"], args].concat());
        command.stderr(fs::File::create(&told).unwrap());
        let child = spawn(&mut command);
        let mut address = String::new();
        wait_until("it serves", || {
            let text = fs::read_to_string(&told).unwrap();
            // The last line may be there in part.
            let whole = text.rsplit_once('\n').map_or("", |(whole, _)| whole);
            let line = whole.lines().find_map(|line| line.strip_prefix("profiler: serving at "));
            address = line.and_then(|line| line.split(' ').next()).unwrap_or_default().to_owned();
            !address.is_empty()
        });
        Self { child, address, told }
    }

    fn host(&self) -> &str {
        self.address.strip_prefix("http://").unwrap()
    }

    /// Status, head and body of an answer.
    fn get(&self, target: &str, headers: &str) -> (u16, String, Vec<u8>) {
        let mut stream = TcpStream::connect(self.host()).unwrap();
        write!(stream, "GET {target} HTTP/1.1\r\nHost: x\r\n{headers}\r\n").unwrap();
        answer(stream)
    }

    /// A recording, which the judge finds whole.
    fn profile(&self, test: &Test, name: &str, target: &str) -> Recording {
        let (status, head, body) = self.get(target, "");
        assert_eq!(status, 200, "{head}{}", String::from_utf8_lossy(&body));
        let file = test.path(name);
        fs::write(&file, body).unwrap();
        let dump = output("python3", &[&format!("{JUDGES}/dump.py"), &file]);
        let sum = dump.lines().find_map(|line| line.strip_prefix("comment\tsamples: "));
        Recording::read(&file, format!("  {}\n", sum.expect(&dump)))
    }

    fn end(mut self) -> String {
        kill(self.child.0.id(), Signal::SIGTERM);
        let ended = self.child.0.wait().unwrap();
        let told = fs::read_to_string(&self.told).unwrap();
        assert!(ended.success() && !told.contains("panicked"), "{told}");
        told
    }
}

fn answer(mut stream: impl Read) -> (u16, String, Vec<u8>) {
    let mut all = Vec::new();
    let _ = stream.read_to_end(&mut all);
    let end = all.windows(4).position(|four| four == b"\r\n\r\n").map_or(all.len(), |at| at + 4);
    let head = String::from_utf8_lossy(&all[..end]).into_owned();
    let status = head.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap_or(0);
    (status, head, all[end..].to_vec())
}

#[test]
fn profiles_on_demand() {
    let Some(test) = Test::alone("serve") else { return };
    let program = test.spin("spin", "busy", &[]);
    let _spin = spawn(Command::new(&program).arg("600"));
    let served = Served::start(&test, &["--listen", "127.0.0.1:0"]);
    // Nobody has asked: nothing records.
    let links = || output("bpftool", &["prog", "show"]).matches("name on_cpu_by_tables").count();
    let before = has("bpftool").then(links);
    // Several at once, each for its own time, and one too many.
    thread::scope(|scope| {
        let windows: Vec<_> = (0..8)
            .map(|at| {
                let (served, test) = (&served, &test);
                let seconds = if at < 4 { 2 } else { 4 };
                scope.spawn(move || {
                    let target = format!("/debug/pprof/profile?seconds={seconds}");
                    // The judge takes its time.
                    let is_judged = at == 0 || at == 7;
                    let judged = || served.profile(test, &format!("part{at}"), &target);
                    if !is_judged {
                        assert_eq!(served.get(&target, "").0, 200);
                    }
                    (seconds, is_judged.then(judged))
                })
            })
            .collect();
        sleep(Duration::from_millis(1500));
        let (status, head, _) = served.get("/debug/pprof/profile?seconds=1", "");
        assert!(status == 503 && head.contains("Retry-After: "), "{head}");
        if let Some(before) = before {
            assert_eq!(links(), before + 1, "one recorder for all");
        }
        for window in windows {
            let (seconds, recording) = window.join().unwrap();
            let Some(recording) = recording else { continue };
            let length = recording.seconds();
            assert!(length >= f64::from(seconds) - 0.1, "{length} s of {seconds}");
            let (all, busy) = (recording.total(|s| s.comm == "spin"), recording.with("busy"));
            assert!(all > 20 && busy * 100 >= all * 98, "{busy} of {all}: {:?}", recording.comments);
            assert_eq!(recording.lost, 0, "{:?}", recording.comments);
        }
    });
    // Where threads wait.
    let (status, head, body) = served.get("/debug/pprof/offcpu?seconds=1", "");
    assert!(status == 200, "{head}{}", String::from_utf8_lossy(&body));
    fs::write(test.path("waits"), body).unwrap();
    let waits = output(env!("CARGO_BIN_EXE_profiler"), &["folded", "--type", "off-cpu", &test.path("waits")]);
    assert!(waits.lines().count() > 10, "{waits}");
    if test.needs("go") {
        let url = format!("{}/debug/pprof/profile?seconds=5", served.address);
        let home = test.path("home");
        let pprof = Command::new("go")
            .args(["tool", "pprof", "-timeout", "300", "-top", &url])
            .env("PPROF_TMPDIR", &home)
            .stdin(Stdio::null())
            .output()
            .unwrap();
        let text = String::from_utf8_lossy(&pprof.stdout);
        assert!(
            pprof.status.success() && text.contains(" busy"),
            "{text}{}",
            String::from_utf8_lossy(&pprof.stderr)
        );
    }
    served.end();
}

#[test]
fn strangers_get_nothing_and_keep_nobody_out() {
    let Some(test) = Test::new("serve-strangers") else { return };
    let token = "0123456789abcdef0123456789abcdef";
    let file = test.file("token", &format!("{token}\n"));
    // Not without a token to where others can reach it.
    for address in ["0.0.0.0:0", "[::]:0"] {
        let message = refusal(&test.profiler(&["serve", "--listen", address]).output().unwrap());
        assert!(message.contains("--token-file"), "{message}");
    }
    fs::set_permissions(&file, fs::Permissions::from_mode(0o644)).unwrap();
    let open = refusal(&test.profiler(&["serve", "--token-file", &file]).output().unwrap());
    assert!(open.contains("open to every user"), "{open}");
    fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).unwrap();
    let served = Served::start(&test, &["--listen", "0.0.0.0:0", "--token-file", &file]);
    let port = served.host().rsplit(':').next().unwrap().to_owned();
    let served = Served { address: format!("http://127.0.0.1:{port}"), ..served };
    for (headers, right) in [
        (String::new(), 401),
        (format!("Authorization: Bearer {token}x\r\n"), 401),
        (format!("Authorization: Bearer {token}\r\n"), 200),
    ] {
        assert_eq!(served.get("/metrics", &headers).0, right, "{headers}");
    }
    assert_eq!(served.get("/healthz", "").0, 200);
    let front = output("pgrep", &["-P", &served.child.0.id().to_string()]);
    let front: u32 = front.lines().next().unwrap().trim().parse().unwrap();
    let status = |name: &str| {
        let text = fs::read_to_string(format!("/proc/{front}/status")).unwrap();
        text.lines().find_map(|line| line.strip_prefix(name)).unwrap().trim().to_owned()
    };
    // Who reads what strangers send has no rights.
    assert_eq!(u64::from_str_radix(&status("CapEff:"), 16), Ok(0));
    assert_eq!((status("Uid:").split_whitespace().next(), &*status("NoNewPrivs:")), (Some("65534"), "1"));
    let resident = || status("VmRSS:").split(' ').next().unwrap().parse::<u64>().unwrap();
    let before = resident();
    // One byte a second, for as long as it lets them; garbage; and thousands that say nothing.
    let host = served.host().to_owned();
    let slow = thread::spawn({
        let host = host.clone();
        move || {
            let mut stream = TcpStream::connect(host).unwrap();
            let began = Instant::now();
            while stream.write_all(b"G").is_ok() && began.elapsed() < Duration::from_secs(60) {
                sleep(Duration::from_secs(1));
            }
            began.elapsed()
        }
    });
    let mut silent = Vec::new();
    for at in 0..10_000u32 {
        let Ok(mut stream) = TcpStream::connect(&host) else { break };
        if at % 3 == 0 {
            let garbage: Vec<u8> = (0..64u32).map(|byte| (byte.wrapping_mul(at + 7) >> 3) as u8).collect();
            let _ = stream.write_all(&garbage);
        }
        silent.push(stream);
        if silent.len() >= 200 {
            silent.remove(0);
        }
        if at % 2_500 == 0 {
            assert_eq!(served.get("/healthz", "").0, 200, "after {at} connections");
        }
    }
    assert_eq!(served.get("/healthz", "").0, 200);
    let after = resident();
    assert!(after <= before + 8 * 1024, "memory of who listens: {before} KiB, {after} KiB");
    assert!(slow.join().unwrap() < Duration::from_secs(50), "one byte a second is waited for");
    for (request, right) in [
        ("POST /metrics HTTP/1.1\r\n\r\n".to_owned(), 405),
        (format!("GET /nothing HTTP/1.1\r\nAuthorization: Bearer {token}\r\n\r\n"), 404),
        (format!("GET / HTTP/1.1\r\nX: {}", "a".repeat(9000)), 431),
    ] {
        let mut stream = TcpStream::connect(&host).unwrap();
        stream.write_all(request.as_bytes()).unwrap();
        assert_eq!(answer(stream).0, right, "{request:.40}");
    }
    let bearer = format!("Authorization: Bearer {token}\r\n");
    assert_eq!(served.get("/debug/pprof/profile?seconds=0", &bearer).0, 400);
    if test.needs("go") {
        let url = format!("http://any:{token}@127.0.0.1:{port}/debug/pprof/profile?seconds=5");
        let home = test.path("home");
        let mut pprof = Command::new("go");
        pprof
            .args(["tool", "pprof", "-timeout", "300", "-top", &url])
            .env("PPROF_TMPDIR", &home)
            .stdin(Stdio::null());
        let pprof = pprof.output().unwrap();
        assert!(pprof.status.success(), "{}", String::from_utf8_lossy(&pprof.stderr));
    }
    served.end();
}

#[test]
fn a_socket_in_the_file_system() {
    let Some(test) = Test::new("serve-unix") else { return };
    let path = test.path("socket");
    let served = Served::start(&test, &["--listen", &format!("unix:{path}")]);
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    let mut stream = UnixStream::connect(&path).unwrap();
    stream.write_all(b"GET /healthz HTTP/1.1\r\n\r\n").unwrap();
    assert_eq!(answer(stream).2, b"ok\n");
    let second = refusal(&test.profiler(&["serve", "--listen", &format!("unix:{path}")]).output().unwrap());
    assert!(second.contains("somebody listens there already"), "{second}");
    // The kernel would make a name of its own of it, for everybody.
    let nowhere = refusal(&test.profiler(&["serve", "--listen", "unix:"]).output().unwrap());
    assert!(nowhere.contains("name a path"), "{nowhere}");
    served.end();
    assert!(!fs::exists(&path).unwrap());
}

#[test]
fn metrics_for_prometheus() {
    let Some(test) = Test::alone("serve-metrics") else { return };
    let program = test.spin("spin", "busy", &[]);
    let _spin = spawn(Command::new(&program).arg("600"));
    let served = Served::start(&test, &["--listen", "127.0.0.1:0"]);
    let statistics = || {
        let on = fs::read_to_string("/proc/sys/kernel/bpf_stats_enabled").unwrap_or_default();
        let (_, _, body) = served.get("/metrics", "");
        (on, String::from_utf8(body).unwrap())
    };
    statistics();
    // The profiler's own program runs while somebody records, where a CPU is busy.
    thread::scope(|scope| {
        let window = scope.spawn(|| served.get("/debug/pprof/profile?seconds=5", "").0);
        // It begins when the recorder has started, which takes a while on a machine with other work.
        wait_until("the sampler's runs are in the metrics", || {
            let (_, text) = statistics();
            let runs = text.lines().find(|line| {
                line.starts_with("bpf_program_runs_total") && line.contains("name=\"on_cpu_by_tables\"")
            });
            runs.is_some_and(|line| line.rsplit(' ').next().unwrap().parse::<f64>().unwrap() > 10.0)
        });
        assert_eq!(window.join().unwrap(), 200);
    });
    let (_, text) = statistics();
    assert!(text.contains("\n# TYPE bpf_program_runs_total counter\n"), "{text}");
    if test.needs("promtool") {
        let mut check = Command::new("promtool");
        check.args(["check", "metrics"]).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut check = check.spawn().unwrap();
        check.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
        let checked = check.wait_with_output().unwrap();
        let said = String::from_utf8_lossy(&checked.stderr);
        assert!(checked.status.success(), "{said}{}", String::from_utf8_lossy(&checked.stdout));
    }
    let (_, head, open) = served.get("/metrics", "Accept: application/openmetrics-text; version=1.0.0\r\n");
    assert!(head.contains("application/openmetrics-text") && open.ends_with(b"# EOF\n"), "{head}");
    if has("python3")
        && output(
            "python3",
            &["-c", "import importlib.util as u; print(u.find_spec('prometheus_client') is not None)"],
        )
        .trim()
            == "True"
    {
        fs::write(test.path("open"), &open).unwrap();
        let judge = "import sys; from prometheus_client.openmetrics.parser import text_string_to_metric_families as f; \
                     print(sum(len(m.samples) for m in f(open(sys.argv[1]).read())))";
        assert!(output("python3", &["-c", judge, &test.path("open")]).trim().parse::<u32>().unwrap() > 10);
    }
    if test.needs("prometheus") {
        prometheus(&test, &served);
    }
    served.end();
}

/// A real one scrapes, and knows the counters then.
fn prometheus(test: &Test, served: &Served) {
    let free = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let config = format!(
        "global: {{scrape_interval: 1s}}\nscrape_configs:\n- job_name: profiler\n  static_configs: [{{targets: ['{}']}}]\n",
        served.host()
    );
    let config = test.file("prometheus.yml", &config);
    let mut command = Command::new("prometheus");
    command.args(["--config.file", &config, "--storage.tsdb.path", &test.path("tsdb")]);
    command.args(["--web.listen-address", &format!("127.0.0.1:{free}"), "--log.level", "error"]);
    let mut running = spawn(command.stdout(Stdio::null()).stderr(Stdio::null()));
    let ask = |query: &str| {
        let Ok(mut stream) = TcpStream::connect(("127.0.0.1", free)) else { return String::new() };
        let _ = write!(stream, "GET /api/v1/query?query={query} HTTP/1.0\r\nHost: x\r\n\r\n");
        String::from_utf8_lossy(&answer(stream).2).into_owned()
    };
    wait_until("Prometheus has scraped", || {
        assert!(running.0.try_wait().unwrap().is_none(), "Prometheus has ended");
        sleep(Duration::from_millis(200));
        ask("profiler_cpu_seconds_total").contains("\"value\"")
    });
    assert!(ask("up").contains("\"1\""), "{}", ask("up"));
}

#[test]
fn recordings_are_pushed() {
    let Some(test) = Test::new("serve-push") else { return };
    let program = test.spin("spin", "busy", &[]);
    let _spin = spawn(Command::new(&program).arg("600"));
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/ingest", listener.local_addr().unwrap());
    let push = ["--listen", "127.0.0.1:0", "--push", &url, "--push-every", "1s", "--push-name"];
    let odd = refusal(&test.profiler(&[&["serve"], &push[..], &["app{"]].concat()).output().unwrap());
    assert!(odd.contains("failed to understand --push-name app{"), "{odd}");
    let served = Served::start(&test, &[&push[..], &["app{region=eu}"]].concat());
    let (mut before, mut seen) = (0, false);
    for at in 0..3 {
        let (mut stream, _) = listener.accept().unwrap();
        let mut all = Vec::new();
        let mut chunk = [0; 1 << 16];
        let (head, length) = loop {
            let n = stream.read(&mut chunk).unwrap();
            all.extend(&chunk[..n]);
            let Some(end) = all.windows(4).position(|four| four == b"\r\n\r\n") else { continue };
            let head = String::from_utf8_lossy(&all[..end]).into_owned();
            let length = head.lines().find_map(|line| line.strip_prefix("Content-Length: ")).unwrap();
            break (head.clone(), end + 4 + length.parse::<usize>().unwrap());
        };
        while all.len() < length {
            let n = stream.read(&mut chunk).unwrap();
            assert!(n > 0, "{head}");
            all.extend(&chunk[..n]);
        }
        stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n").unwrap();
        drop(stream);
        assert!(
            head.starts_with("POST /ingest?name=app%7Bregion%3Deu%2Chost%3D")
                && head.contains("&format=pprof&"),
            "{head}"
        );
        let number = |key: &str| {
            head.split(key).nth(1).unwrap().split(['&', ' ']).next().unwrap().parse::<u64>().unwrap()
        };
        let (from, until) = (number("&from="), number("&until="));
        assert!(from <= until && from >= before, "{head}");
        before = from;
        let file = test.path(&format!("pushed{at}"));
        fs::write(&file, &all[length - (length - (head.len() + 4))..]).unwrap();
        let dump = output("python3", &[&format!("{JUDGES}/dump.py"), &file]);
        assert!(!dump.lines().any(|line| line.starts_with("error\t")), "{dump:.500}");
        seen |= dump.contains("\tbusy\t");
    }
    assert!(seen, "none of three recordings has the program that runs all the time");
    drop(listener);
    served.end();
}
