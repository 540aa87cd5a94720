//! The bytes of a file, of which a small gzip file may claim to have very many: decompression stops
//! at a limit. How well a file is compressed says nothing: some writers repeat equal samples.

use std::fs::File;
use std::io::{self, BufReader, Read};
use std::path::Path;

use anyhow::{Result, anyhow, bail, ensure};
use flate2::bufread::MultiGzDecoder;

/// Most bytes of a file once it is decompressed. Recordings of hours have some ten MiB.
const MAX_BYTES: usize = 2 << 30;

/// What to do about a damaged file.
pub(super) const DAMAGED: &str = "the file is damaged: make or copy it again";
/// What to do about a file that is too large.
pub(super) const TOO_BIG: &str = "if it is a profile at all, record a shorter one";

/// The message on standard input, decompressed.
pub(super) fn stdin() -> Result<Vec<u8>> {
    load(io::stdin().lock())
}

/// The message in a file, decompressed.
pub(super) fn file(path: &Path) -> Result<Vec<u8>> {
    let file = File::open(path).map_err(|error| match error.kind() {
        io::ErrorKind::NotFound => {
            anyhow!("no such file: make one with `profiler record`, or name another")
        }
        io::ErrorKind::PermissionDenied => {
            anyhow!("permission denied: run this as the file's owner, or make it readable")
        }
        _ => error.into(),
    })?;
    let is_dir = file.metadata().is_ok_and(|metadata| metadata.is_dir());
    ensure!(!is_dir, "it is a directory: name the file in it");
    load(file)
}

fn load(mut source: impl Read) -> Result<Vec<u8>> {
    let mut magic = Vec::new();
    source.by_ref().take(2).read_to_end(&mut magic)?;
    ensure!(!magic.is_empty(), "it is empty: make one with `profiler record`");
    let gzipped = magic == [0x1f, 0x8b];
    let whole = io::Cursor::new(magic).chain(source);
    if !gzipped {
        let mut data = Vec::new();
        whole.take(MAX_BYTES as u64 + 1).read_to_end(&mut data)?;
        ensure!(data.len() <= MAX_BYTES, "it has more than {} MiB: {TOO_BIG}", MAX_BYTES >> 20);
        return Ok(data);
    }
    let mut gzip = MultiGzDecoder::new(BufReader::new(whole));
    let mut data = Vec::new();
    let mut chunk = vec![0; 64 << 10];
    loop {
        let count = match gzip.read(&mut chunk) {
            Ok(0) => return Ok(data),
            Ok(count) => count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
                bail!("its gzip data ends too early: {DAMAGED}")
            }
            Err(error) => bail!("its gzip data is not valid ({error}): {DAMAGED}"),
        };
        data.extend_from_slice(&chunk[..count]);
        ensure!(data.len() <= MAX_BYTES, "it decompresses to more than {} MiB: {TOO_BIG}", MAX_BYTES >> 20);
    }
}

/// Formats that people hand to pprof readers, by the first bytes, and what to do.
pub(super) fn foreign_format(data: &[u8]) -> Option<&'static str> {
    const LEGACY: &str = "a profile in one of pprof's old text formats: convert it with \
                          `go tool pprof -proto -output=new.pb.gz BINARY FILE`";
    const STARTS: &[(&[u8], &str)] = &[
        (b"heap profile:", LEGACY),
        (b"heapz ", LEGACY),
        (b"growthz ", LEGACY),
        (b"fragmentationz ", LEGACY),
        (b"goroutine profile:", LEGACY),
        (b"threadcreate profile:", LEGACY),
        (b"--- ", LEGACY),
        (b"cycles/second", LEGACY),
        (b"\0\0\0\0\0\0\0\0\x03\0\0\0\0\0\0\0", LEGACY),
        (b"PERFILE2", "a perf.data file: this program records on its own, see `profiler record`"),
        (b"<?xml", "an XML or SVG file: name the pprof file that it was drawn from"),
        (b"<svg", "an SVG file: name the pprof file that it was drawn from"),
        (b"\x28\xb5\x2f\xfd", "compressed with zstd: unpack it with `zstd -d` first"),
        (b"\xfd7zXZ\0", "compressed with xz: unpack it with `xz -d` first"),
    ];
    STARTS.iter().find(|(start, _)| data.starts_with(start)).map(|(_, format)| *format)
}
