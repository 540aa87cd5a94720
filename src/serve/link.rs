//! What the two processes say to each other: requests of a few numbers one way, answers the other.

use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;

use super::http::Request;

/// Bytes of a request.
const REQUEST: usize = 16;
/// Bytes before an answer's body: id, status, length.
const ANSWER: usize = 24;

/// From the front.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Asked {
    /// By the connection of this number.
    For(u64, Request),
    /// The connection is gone.
    Nothing(u64),
}

/// To the front.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// The connection's number.
    pub id: u64,
    /// Of HTTP.
    pub status: u16,
    /// The file, or a reason.
    pub body: Vec<u8>,
}

/// Asks.
pub fn ask(link: &mut UnixStream, asked: Asked) -> io::Result<()> {
    let (id, kind, number) = match asked {
        Asked::For(id, Request::Profile(seconds)) => (id, 1, seconds),
        Asked::For(id, Request::OffCpu(seconds)) => (id, 2, seconds),
        Asked::For(id, Request::Metrics { open }) => (id, 3, u32::from(open)),
        Asked::For(id, Request::Health | Request::Index) | Asked::Nothing(id) => (id, 0, 0),
    };
    let mut bytes = [0; REQUEST];
    bytes[..8].copy_from_slice(&id.to_ne_bytes());
    bytes[8..12].copy_from_slice(&u32::to_ne_bytes(kind));
    bytes[12..].copy_from_slice(&number.to_ne_bytes());
    link.write_all(&bytes)
}

/// Reads what was asked. The front reads what strangers send, so nothing of it is believed.
pub fn asked(link: &mut UnixStream) -> io::Result<Asked> {
    let mut bytes = [0; REQUEST];
    link.read_exact(&mut bytes)?;
    let word = |at: usize| bytes[at..].first_chunk().map_or(0, |word| u32::from_ne_bytes(*word));
    let id = bytes.first_chunk().map_or(0, |word| u64::from_ne_bytes(*word));
    let number = word(12);
    Ok(match word(8) {
        1 => Asked::For(id, Request::Profile(number.clamp(1, 300))),
        2 => Asked::For(id, Request::OffCpu(number.clamp(1, 300))),
        3 => Asked::For(id, Request::Metrics { open: number != 0 }),
        _ => Asked::Nothing(id),
    })
}

/// Answers.
pub fn answer(link: &mut UnixStream, answer: &Answer) -> io::Result<()> {
    let mut head = [0; ANSWER];
    head[..8].copy_from_slice(&answer.id.to_ne_bytes());
    head[8..16].copy_from_slice(&u64::from(answer.status).to_ne_bytes());
    head[16..].copy_from_slice(&(answer.body.len() as u64).to_ne_bytes());
    link.write_all(&head)?;
    link.write_all(&answer.body)
}

/// Takes the first whole answer out of what has been read.
pub fn take_answer(read: &mut Vec<u8>) -> Option<Answer> {
    let word = |at: usize| read.get(at..)?.first_chunk().map(|word| u64::from_ne_bytes(*word));
    let (id, status, length) = (word(0)?, word(8)? as u16, word(16)? as usize);
    let end = ANSWER.checked_add(length)?;
    let body = read.get(ANSWER..end)?.to_vec();
    read.drain(..end);
    Some(Answer { id, status, body })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_said_is_understood() {
        let (mut front, mut back) = UnixStream::pair().unwrap();
        for said in [
            Asked::For(1, Request::Profile(5)),
            Asked::For(u64::MAX, Request::OffCpu(300)),
            Asked::For(7, Request::Metrics { open: true }),
            Asked::Nothing(3),
        ] {
            ask(&mut front, said).unwrap();
            assert_eq!(asked(&mut back).unwrap(), said);
        }
        let first = Answer { id: 9, status: 200, body: vec![1, 2, 3] };
        let second = Answer { id: 2, status: 503, body: Vec::new() };
        answer(&mut back, &first).unwrap();
        answer(&mut back, &second).unwrap();
        drop(back);
        let mut all = Vec::new();
        front.read_to_end(&mut all).unwrap();
        let mut read = all[..20].to_vec();
        assert_eq!(take_answer(&mut read), None);
        read.extend(&all[20..]);
        assert_eq!(take_answer(&mut read), Some(first));
        assert_eq!(take_answer(&mut read), Some(second));
        assert!(read.is_empty());
    }
}
