//! Messages and descriptors over a socket.
//!
//! A message is its kind, how many descriptors and how many bytes it has, and these. Descriptors travel with
//! its first byte. Nobody
//! waits for a peer that does not read or write: [`Channel::receive`] takes what is there, and what is sent
//! waits in memory until the peer takes it.

use std::collections::VecDeque;
use std::io::{self, IoSlice, IoSliceMut};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

use nix::errno::Errno;
use nix::sys::socket::{ControlMessage, ControlMessageOwned, MsgFlags, recvmsg, sendmsg};

/// Of a message's head: kind, number of descriptors, length.
const HEAD: usize = 10;
/// Descriptors of a message: the kernel takes 253.
pub const MOST_DESCRIPTORS: usize = 128;
/// A message larger than this is none: the rows of the largest tables are 32 MiB.
const MOST_BYTES: usize = 256 << 20;

/// A message.
#[derive(Debug)]
pub struct Message {
    /// What it is.
    pub kind: u8,
    /// What it says.
    pub payload: Vec<u8>,
    /// What it hands over.
    pub descriptors: Vec<OwnedFd>,
}

/// One end.
#[derive(Debug)]
pub struct Channel {
    socket: OwnedFd,
    /// Bytes to be sent, the first message first, with the descriptors that go with the first byte.
    outgoing: VecDeque<(Vec<u8>, usize, Vec<OwnedFd>)>,
    incoming: Vec<u8>,
    arrived: VecDeque<OwnedFd>,
    /// Whether descriptors are taken: a worker has none to give.
    takes: bool,
}

impl Channel {
    /// Over a socket, which does not have to be non-blocking.
    pub fn new(socket: OwnedFd, takes: bool) -> Self {
        Self { socket, outgoing: VecDeque::new(), incoming: Vec::new(), arrived: VecDeque::new(), takes }
    }

    /// To be polled.
    pub fn fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }

    /// Whether something waits to be sent.
    pub fn wants_to_send(&self) -> bool {
        !self.outgoing.is_empty()
    }

    /// Sends, as far as the peer takes it now; [`Self::push`] goes on.
    ///
    /// # Errors
    /// If the peer is gone.
    pub fn send(&mut self, kind: u8, payload: &[u8], descriptors: Vec<OwnedFd>) -> io::Result<()> {
        let mut bytes = Vec::with_capacity(HEAD + payload.len());
        bytes.extend([kind, u8::try_from(descriptors.len()).unwrap_or(u8::MAX)]);
        bytes.extend((payload.len() as u64).to_le_bytes());
        bytes.extend(payload);
        self.outgoing.push_back((bytes, 0, descriptors));
        self.push(MsgFlags::MSG_DONTWAIT)
    }

    /// Sends what waits, however long that takes.
    ///
    /// # Errors
    /// If the peer is gone.
    pub fn flush(&mut self) -> io::Result<()> {
        self.push(MsgFlags::empty())
    }

    /// Sends what waits and can be sent.
    ///
    /// # Errors
    /// If the peer is gone.
    pub fn push(&mut self, flags: MsgFlags) -> io::Result<()> {
        while let Some((bytes, sent, descriptors)) = self.outgoing.front_mut() {
            let raw: Vec<_> = descriptors.iter().map(AsRawFd::as_raw_fd).collect();
            let with = [ControlMessage::ScmRights(&raw)];
            let with = if raw.is_empty() { &[][..] } else { &with[..] };
            let part = [IoSlice::new(&bytes[*sent..])];
            match sendmsg::<()>(self.socket.as_raw_fd(), &part, with, flags | MsgFlags::MSG_NOSIGNAL, None) {
                Ok(count) => {
                    *sent += count;
                    descriptors.clear();
                    if *sent == bytes.len() {
                        self.outgoing.pop_front();
                    }
                }
                Err(Errno::EAGAIN) => return Ok(()),
                Err(Errno::EINTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }

    /// The next message, if it is there; waits for it if `wait` is set.
    ///
    /// # Errors
    /// If the peer is gone, or says what is no message.
    pub fn receive(&mut self, wait: bool) -> io::Result<Option<Message>> {
        loop {
            if let Some(message) = self.message()? {
                return Ok(Some(message));
            }
            let mut buffer = vec![0; 1 << 16];
            let mut room = nix::cmsg_space!([std::os::fd::RawFd; MOST_DESCRIPTORS]);
            let room = self.takes.then_some(&mut room[..]);
            let flags = if wait { MsgFlags::empty() } else { MsgFlags::MSG_DONTWAIT };
            let flags = flags | MsgFlags::MSG_CMSG_CLOEXEC;
            let mut parts = [IoSliceMut::new(&mut buffer)];
            let received = match recvmsg::<()>(self.socket.as_raw_fd(), &mut parts, room, flags) {
                Ok(received) => received,
                Err(Errno::EAGAIN) => return Ok(None),
                Err(Errno::EINTR) => continue,
                Err(error) => return Err(error.into()),
            };
            for message in received.cmsgs()? {
                if let ControlMessageOwned::ScmRights(descriptors) = message {
                    // SAFETY: the kernel has just made them for us.
                    let owned = |&fd| unsafe { OwnedFd::from_raw_fd(fd) };
                    self.arrived.extend(descriptors.iter().map(owned));
                }
            }
            let count = received.bytes;
            if count == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            self.incoming.extend(&buffer[..count]);
        }
    }

    /// A message that has arrived whole.
    fn message(&mut self) -> io::Result<Option<Message>> {
        let Some((head, rest)) = self.incoming.split_first_chunk::<HEAD>() else { return Ok(None) };
        let [kind, descriptors, length @ ..] = *head;
        let length = u64::from_le_bytes(length);
        if length > MOST_BYTES as u64 || self.arrived.len() < descriptors.into() {
            return Err(io::ErrorKind::InvalidData.into());
        }
        let length = length as usize;
        if rest.len() < length {
            return Ok(None);
        }
        let payload = rest[..length].to_vec();
        self.incoming.drain(..HEAD + length);
        let descriptors = self.arrived.drain(..usize::from(descriptors)).collect();
        Ok(Some(Message { kind, payload, descriptors }))
    }
}
