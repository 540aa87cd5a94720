//! Where to listen, and for whom.

use std::fmt;
use std::fs;
use std::net::{SocketAddr, TcpListener, ToSocketAddrs};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use nix::sys::stat::{Mode, umask};

/// A listening socket.
#[derive(Debug)]
pub enum Listener {
    /// Of the network.
    Tcp(TcpListener),
    /// A socket in the file system, removed at the end.
    Unix(UnixListener, PathBuf),
}

impl Listener {
    /// Listens at `ADDR:PORT` or `unix:PATH`. What is not this machine alone takes a token.
    ///
    /// # Errors
    /// If it cannot, or must not.
    pub fn open(address: &str, has_token: bool) -> Result<Self> {
        let listener = match address.strip_prefix("unix:") {
            Some(path) => Self::at_path(Path::new(path))?,
            None => Self::at_address(address, has_token)?,
        };
        match &listener {
            Self::Tcp(socket) => socket.set_nonblocking(true),
            Self::Unix(socket, _) => socket.set_nonblocking(true),
        }
        .context("failed to set up the listening socket")?;
        Ok(listener)
    }

    fn at_address(address: &str, has_token: bool) -> Result<Self> {
        let all: Vec<SocketAddr> = address
            .to_socket_addrs()
            .with_context(|| format!("failed to understand --listen {address}: name ADDR:PORT or unix:PATH"))?
            .collect();
        ensure!(
            has_token || all.iter().all(|address| address.ip().is_loopback()),
            "--listen {address} is open to other machines, who would see what this one runs: give them a token by \
             --token-file, or listen at 127.0.0.1 or unix:PATH"
        );
        let socket = TcpListener::bind(&*all).with_context(|| format!("failed to listen at {address}"))?;
        Ok(Self::Tcp(socket))
    }

    fn at_path(path: &Path) -> Result<Self> {
        let name = path.display();
        // The kernel would choose a name that is in no directory, and that everybody may open.
        ensure!(
            !path.as_os_str().is_empty(),
            "failed to understand --listen unix: name a path behind the colon"
        );
        if let Ok(metadata) = fs::symlink_metadata(path) {
            ensure!(
                metadata.file_type().is_socket(),
                "failed to listen at {name}: it is there, and no socket"
            );
            ensure!(
                UnixStream::connect(path).is_err(),
                "failed to listen at {name}: somebody listens there already"
            );
            // Left behind by one that was killed.
            fs::remove_file(path).with_context(|| format!("failed to remove the old socket {name}"))?;
        }
        // Nobody but us may connect, from the moment that it is there.
        let mask = umask(Mode::from_bits_truncate(0o177));
        let socket = UnixListener::bind(path);
        umask(mask);
        Ok(Self::Unix(socket.with_context(|| format!("failed to listen at {name}"))?, path.to_owned()))
    }

    /// Accepts a connection, if there is one.
    pub fn accept(&self) -> Option<OwnedFd> {
        let socket = match self {
            Self::Tcp(socket) => {
                let (stream, _) = socket.accept().ok()?;
                stream.set_nonblocking(true).ok()?;
                OwnedFd::from(stream)
            }
            Self::Unix(socket, _) => {
                let (stream, _) = socket.accept().ok()?;
                stream.set_nonblocking(true).ok()?;
                OwnedFd::from(stream)
            }
        };
        Some(socket)
    }

    /// For poll.
    pub fn fd(&self) -> BorrowedFd<'_> {
        match self {
            Self::Tcp(socket) => socket.as_fd(),
            Self::Unix(socket, _) => socket.as_fd(),
        }
    }

    /// Removes what it left in the file system.
    pub fn remove(&self) {
        if let Self::Unix(_, path) = self {
            let _ = fs::remove_file(path);
        }
    }
}

impl fmt::Display for Listener {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(socket) => match socket.local_addr() {
                Ok(address) => write!(f, "http://{address}"),
                Err(_) => f.write_str("http://?"),
            },
            Self::Unix(_, path) => write!(f, "unix:{}", path.display()),
        }
    }
}

/// Reads a token: the first line of a file that nobody else may read.
///
/// # Errors
/// If it is open to others, or too short to be a secret.
pub fn token(path: &Path) -> Result<String> {
    let name = path.display();
    let metadata = fs::metadata(path).with_context(|| format!("failed to read the token file {name}"))?;
    if metadata.mode() & 0o007 != 0 {
        bail!("the token file {name} is open to every user: chmod o= {name}");
    }
    let text = fs::read_to_string(path).with_context(|| format!("failed to read the token file {name}"))?;
    let token = text.lines().next().unwrap_or_default().trim().to_owned();
    ensure!(
        token.len() >= 16,
        "the token in {name} is shorter than 16 characters: openssl rand -hex 16 >{name}"
    );
    ensure!(
        token.bytes().all(|byte| byte.is_ascii_graphic()),
        "the token in {name} has characters that are not printable ASCII"
    );
    Ok(token)
}
