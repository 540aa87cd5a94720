//! Options of `profiler serve`.

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;

use crate::cli::TEMPLATE;
use crate::cli::durations::parse_period;
use crate::machine::rights;

const SERVE_EXAMPLES: &str = "\
Examples:
  profiler serve                            at 127.0.0.1:6060, for this machine alone
  go tool pprof -http=: 'http://127.0.0.1:6060/debug/pprof/profile?seconds=30'
  go tool pprof 'http://127.0.0.1:6060/debug/pprof/offcpu?seconds=10'
  curl http://127.0.0.1:6060/metrics        what BPF programs cost, for Prometheus
  profiler serve --listen unix:/run/profiler.sock
  profiler serve --listen 0.0.0.0:6060 --token-file /etc/profiler.token
  go tool pprof 'http://any:TOKEN@host:6060/debug/pprof/profile'
  profiler serve --push http://127.0.0.1:4040/ingest       to Pyroscope, again and again";

/// Options of `profiler serve`.
#[derive(Args, Debug)]
#[command(before_help = SERVE_EXAMPLES, after_help = rights::HELP, help_template = TEMPLATE)]
pub struct ServeArgs {
    /// Where to listen: ADDR:PORT, or unix:PATH for a socket that only this user may open. An address
    /// that other machines reach takes --token-file. There is no TLS: put a proxy in front
    #[arg(long, value_name = "ADDR:PORT", default_value = "127.0.0.1:6060")]
    pub listen: String,

    /// A file whose first line everybody has to know who asks: as a Bearer token, or as the password of
    /// any user in the URL
    #[arg(long, value_name = "FILE")]
    pub token_file: Option<PathBuf>,

    /// Samples per second and CPU
    #[arg(short = 'F', long, value_name = "HZ", default_value_t = 99, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub frequency: u32,

    /// Send recordings, one after the other, to a server that takes Pyroscope's /ingest
    #[arg(long, value_name = "URL")]
    pub push: Option<String>,

    /// How long each of those is
    #[arg(long, value_name = "DUR", default_value = "15s", value_parser = parse_period, requires = "push")]
    pub push_every: Duration,

    /// What they are called there, as in app or app{region=eu}; the host is added as a label
    #[arg(long, value_name = "NAME", default_value = "profiler", requires = "push")]
    pub push_name: String,
}
