//! Recordings sent to a server, in the shape of Pyroscope's `/ingest`: a POST whose body is the pprof file.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, bail, ensure};

use crate::machine::usage;

const PATIENCE: Duration = Duration::from_secs(10);

/// Where to send.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    /// Host and port.
    authority: String,
    /// Path and query, with what the server wants to know before the times.
    path: String,
}

impl Target {
    /// Understands `http://HOST:PORT/ingest`.
    ///
    /// # Errors
    /// If it is not such a URL.
    pub fn parse(url: &str, name: &str) -> Result<Self> {
        let Some(rest) = url.strip_prefix("http://") else {
            bail!(
                "failed to understand --push {url}: it begins with http://; for TLS, push to a proxy on this machine"
            )
        };
        let (authority, path) = rest.find('/').map_or((rest, "/ingest"), |at| rest.split_at(at));
        let plain = |text: &str| text.bytes().all(|byte| byte.is_ascii_graphic());
        ensure!(
            !authority.is_empty() && plain(rest),
            "failed to understand --push {url}: name http://HOST:PORT/ingest"
        );
        let authority =
            if authority.contains(':') { authority.to_owned() } else { format!("{authority}:80") };
        let name = with_host(name, &usage::host()).with_context(|| {
            format!("failed to understand --push-name {name}: name it as app, or with labels as app{{region=eu,zone=a}}")
        })?;
        let name = encoded(&name);
        let separator = if path.contains('?') { '&' } else { '?' };
        let path = format!("{path}{separator}name={name}&format=pprof&spyName=profiler");
        Ok(Self { authority, path })
    }

    /// Sends a recording of the time between two.
    ///
    /// # Errors
    /// If nobody takes it.
    pub fn send(&self, data: &[u8], from: SystemTime, until: SystemTime) -> Result<()> {
        let seconds = |time: SystemTime| time.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        let failed = || format!("failed to push to http://{}", self.authority);
        let mut stream = TcpStream::connect(&*self.authority).with_context(failed)?;
        stream
            .set_read_timeout(Some(PATIENCE))
            .and_then(|()| stream.set_write_timeout(Some(PATIENCE)))
            .with_context(failed)?;
        let head = format!(
            "POST {}&from={}&until={} HTTP/1.1\r\nHost: {}\r\nUser-Agent: profiler/{}\r\nContent-Type: \
             application/octet-stream\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
            self.path,
            seconds(from),
            seconds(until),
            self.authority,
            env!("CARGO_PKG_VERSION"),
            data.len()
        );
        stream.write_all(head.as_bytes()).and_then(|()| stream.write_all(data)).with_context(failed)?;
        let mut answer = Vec::new();
        stream.take(1024).read_to_end(&mut answer).with_context(failed)?;
        let line = String::from_utf8_lossy(&answer).lines().next().unwrap_or_default().to_owned();
        ensure!(
            line.split(' ').nth(1).is_some_and(|status| status.starts_with('2')),
            "{}: it answered {line:?}",
            failed()
        );
        Ok(())
    }
}

/// A name as Pyroscope has them, `app{label=value,…}`, with the host's as another label, if it has none yet.
fn with_host(name: &str, host: &str) -> Option<String> {
    let (app, labels) = match name.split_once('{') {
        Some((app, labels)) => (app, labels.strip_suffix('}')?),
        None => (name, ""),
    };
    let mut labels: Vec<&str> = labels.split(',').filter(|label| !label.is_empty()).collect();
    let is_label =
        |label: &&str| label.split_once('=').is_some_and(|(key, value)| !key.is_empty() && !value.is_empty());
    if app.is_empty()
        || name.matches(['{', '}']).count() > 2
        || app.contains('}')
        || !labels.iter().all(is_label)
    {
        return None;
    }
    let of_host = format!("host={host}");
    if !labels.iter().any(|label| label.starts_with("host=")) {
        labels.push(&of_host);
    }
    Some(format!("{app}{{{}}}", labels.join(",")))
}

/// For a URL's query.
fn encoded(text: &str) -> String {
    let is_plain = |byte: &u8| byte.is_ascii_alphanumeric() || b"-_.~".contains(byte);
    text.bytes()
        .map(|byte| if is_plain(&byte) { char::from(byte).to_string() } else { format!("%{byte:02X}") })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls() {
        let target = Target::parse("http://localhost:4040/ingest", "profiler").unwrap();
        assert_eq!(target.authority, "localhost:4040");
        assert!(target.path.starts_with("/ingest?name=profiler%7Bhost%3D"), "{}", target.path);
        assert_eq!(Target::parse("http://h", "x").unwrap().authority, "h:80");
        for bad in ["https://h/ingest", "h:4040", "http://", "http:///x", "http://h/a b"] {
            assert!(Target::parse(bad, "x").is_err(), "{bad} was taken");
        }
    }

    #[test]
    fn names_have_one_set_of_labels() {
        let named = |name| with_host(name, "h");
        assert_eq!(named("app").unwrap(), "app{host=h}");
        assert_eq!(named("app{}").unwrap(), "app{host=h}");
        assert_eq!(named("my app{region=eu,zone=a}").unwrap(), "my app{region=eu,zone=a,host=h}");
        assert_eq!(named("app{host=mine}").unwrap(), "app{host=mine}");
        for bad in
            ["", "{a=b}", "app{a=b", "app{a}", "app{a=}", "app{a=b}}", "app{a={b}", "app}", "app{a=b}x"]
        {
            assert_eq!(named(bad), None, "{bad}");
        }
        assert!(Target::parse("http://h", "app{").unwrap_err().to_string().contains("--push-name app{"));
    }
}
