//! What is asked for: the head of a request, and of the answer. The only user of httparse.

use std::fmt::Write as _;

/// Longest head of a request.
pub const MOST_HEAD_BYTES: usize = 8 << 10;
const MOST_HEADERS: usize = 64;
/// Seconds of a recording that does not say how many.
const SECONDS: u32 = 30;
const MOST_SECONDS: u32 = 300;

/// A request that makes sense.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Request {
    /// Samples of the CPU.
    Profile(u32),
    /// Blocks.
    OffCpu(u32),
    /// Figures; in the format of OpenMetrics, or in Prometheus' older one.
    Metrics {
        /// Which.
        open: bool,
    },
    /// Whether it works.
    Health,
    /// What there is.
    Index,
}

/// One that does not: status and reason.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refused(pub u16, pub String);

/// The request of a head, when that is whole; `None` as long as it is not.
pub fn parse(head: &[u8], token: Option<&str>) -> Option<Result<Request, Refused>> {
    let mut headers = [httparse::EMPTY_HEADER; MOST_HEADERS];
    let mut request = httparse::Request::new(&mut headers);
    let refused = |status, why: &str| Some(Err(Refused(status, why.to_owned())));
    match request.parse(head) {
        Ok(httparse::Status::Complete(_)) => {}
        Ok(httparse::Status::Partial) if head.len() >= MOST_HEAD_BYTES => {
            return refused(431, "the request's head is longer than 8 KiB");
        }
        Ok(httparse::Status::Partial) => return None,
        Err(httparse::Error::TooManyHeaders) => return refused(431, "the request has more than 64 headers"),
        Err(_) => return refused(400, "this is no HTTP request"),
    }
    let (method, target) = (request.method.unwrap_or_default(), request.path.unwrap_or_default());
    if method != "GET" {
        return refused(405, "only GET is understood");
    }
    let header = |name: &str| {
        let found = request.headers.iter().find(|header| header.name.eq_ignore_ascii_case(name));
        found.and_then(|header| std::str::from_utf8(header.value).ok())
    };
    // As a proxy sends it.
    let target =
        target.strip_prefix("http://").map_or(target, |rest| rest.find('/').map_or("/", |at| &rest[at..]));
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    let route = match path {
        "/healthz" => return Some(Ok(Request::Health)),
        "/metrics" => Ok(Request::Metrics {
            open: header("accept").is_some_and(|it| it.contains("application/openmetrics-text")),
        }),
        "/debug/pprof/profile" => seconds(query).map(Request::Profile),
        "/debug/pprof/offcpu" => seconds(query).map(Request::OffCpu),
        "/" | "/debug/pprof" | "/debug/pprof/" => Ok(Request::Index),
        _ => Err(Refused(404, "there is nothing at this path: see /debug/pprof/".to_owned())),
    };
    if token.is_some_and(|token| !is_permitted(header("authorization"), token)) {
        return refused(
            401,
            "the token is missing or wrong: Authorization: Bearer TOKEN, or user:TOKEN@ in the URL",
        );
    }
    Some(route)
}

fn seconds(query: &str) -> Result<u32, Refused> {
    let Some(text) = query.split('&').find_map(|part| part.strip_prefix("seconds=")) else {
        return Ok(SECONDS);
    };
    match text.parse() {
        Ok(seconds @ 1..=MOST_SECONDS) => Ok(seconds),
        _ => Err(Refused(400, format!("seconds is a number from 1 to {MOST_SECONDS}"))),
    }
}

/// `Bearer TOKEN`, or `Basic` with the token as the password of any user.
fn is_permitted(authorization: Option<&str>, token: &str) -> bool {
    let Some((scheme, value)) = authorization.and_then(|text| text.trim().split_once(' ')) else {
        return false;
    };
    if scheme.eq_ignore_ascii_case("bearer") {
        return is_equal(value.trim().as_bytes(), token.as_bytes());
    }
    let pair = if scheme.eq_ignore_ascii_case("basic") { base64(value.trim()) } else { None };
    let password = pair.as_deref().and_then(|pair| pair.splitn(2, |&byte| byte == b':').nth(1));
    password.is_some_and(|password| is_equal(password, token.as_bytes()))
}

/// In a time that tells nothing of where they differ.
fn is_equal(one: &[u8], other: &[u8]) -> bool {
    let difference = one.iter().zip(other).fold(0, |all, (one, other)| all | (one ^ other));
    one.len() == other.len() && std::hint::black_box(difference) == 0
}

fn base64(text: &str) -> Option<Vec<u8>> {
    let mut bytes = Vec::new();
    let (mut bits, mut n) = (0u32, 0);
    for c in text.trim_end_matches('=').bytes() {
        let value = match c {
            b'A'..=b'Z' => c - b'A',
            b'a'..=b'z' => c - b'a' + 26,
            b'0'..=b'9' => c - b'0' + 52,
            b'+' => 62,
            b'/' => 63,
            _ => return None,
        };
        (bits, n) = (bits << 6 | u32::from(value), n + 6);
        if n >= 8 {
            n -= 8;
            bytes.push((bits >> n) as u8);
            bits &= (1 << n) - 1;
        }
    }
    Some(bytes)
}

/// The head of an answer with a body of so many bytes, after which the connection ends.
pub fn head(status: u16, kind: &str, length: usize) -> String {
    let reason = match status {
        200 => "OK",
        400 => "Bad Request",
        401 => "Unauthorized",
        404 => "Not Found",
        405 => "Method Not Allowed",
        408 => "Request Timeout",
        431 => "Request Header Fields Too Large",
        503 => "Service Unavailable",
        _ => "Internal Server Error",
    };
    let mut head = format!("HTTP/1.1 {status} {reason}\r\n");
    // Writing to a string cannot fail.
    let _ = write!(head, "Content-Type: {kind}\r\nContent-Length: {length}\r\nConnection: close\r\n");
    let _ = write!(head, "X-Content-Type-Options: nosniff\r\nCache-Control: no-store\r\n");
    match status {
        401 => head += "WWW-Authenticate: Basic realm=\"profiler\"\r\n",
        405 => head += "Allow: GET\r\n",
        503 => head += "Retry-After: 30\r\n",
        _ => {}
    }
    head + "\r\n"
}

#[cfg(test)]
mod tests {
    use super::*;

    fn get(target: &str, headers: &str, token: Option<&str>) -> Result<Request, Refused> {
        parse(format!("GET {target} HTTP/1.1\r\nHost: x\r\n{headers}\r\n").as_bytes(), token).unwrap()
    }

    fn status(answer: Result<Request, Refused>) -> u16 {
        answer.unwrap_err().0
    }

    #[test]
    fn requests() {
        assert_eq!(get("/debug/pprof/profile", "", None), Ok(Request::Profile(30)));
        assert_eq!(get("/debug/pprof/profile?debug=0&seconds=5", "", None), Ok(Request::Profile(5)));
        assert_eq!(get("http://h:1/debug/pprof/offcpu?seconds=300", "", None), Ok(Request::OffCpu(300)));
        assert_eq!(get("/metrics", "", None), Ok(Request::Metrics { open: false }));
        let accept = "Accept: application/openmetrics-text; version=1.0.0,text/plain\r\n";
        assert_eq!(get("/metrics", accept, None), Ok(Request::Metrics { open: true }));
        for bad in ["seconds=0", "seconds=301", "seconds=", "seconds=-1", "seconds=1e2"] {
            assert_eq!(status(get(&format!("/debug/pprof/profile?{bad}"), "", None)), 400, "{bad}");
        }
        assert_eq!(status(get("/etc/passwd", "", None)), 404);
        assert_eq!(parse(b"GET / HT", None), None);
        assert_eq!(status(parse(b"POST / HTTP/1.1\r\n\r\n", None).unwrap()), 405);
        assert_eq!(status(parse(b"\x16\x03\x01\x02\x00\x01", None).unwrap()), 400);
        let long = [b"GET / HTTP/1.1\r\nX: ".to_vec(), vec![b'a'; MOST_HEAD_BYTES]].concat();
        assert_eq!(status(parse(&long, None).unwrap()), 431);
        let many = format!("GET / HTTP/1.1\r\n{}\r\n", "X: y\r\n".repeat(65));
        assert_eq!(status(parse(many.as_bytes(), None).unwrap()), 431);
    }

    #[test]
    fn tokens() {
        let token = Some("0123456789abcdef");
        assert_eq!(status(get("/metrics", "", token)), 401);
        assert_eq!(get("/healthz", "", token), Ok(Request::Health));
        assert!(get("/metrics", "Authorization: Bearer 0123456789abcdef\r\n", token).is_ok());
        // printf u:0123456789abcdef | base64
        assert!(get("/metrics", "authorization: basic dTowMTIzNDU2Nzg5YWJjZGVm\r\n", token).is_ok());
        for bad in
            ["Bearer 0123456789abcdee", "Bearer", "Bearer 0123", "Basic !", "Basic MDEyMzQ1Njc4OWFiY2RlZg=="]
        {
            assert_eq!(status(get("/metrics", &format!("Authorization: {bad}\r\n"), token)), 401, "{bad}");
        }
    }
}
