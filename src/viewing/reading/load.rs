//! The bytes of a file, unpacked, of which a small gzip file may claim to have very many: decompression stops
//! at a limit. How well a file is compressed says nothing: some writers repeat equal samples.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::path::Path;

use anyhow::{Result, anyhow, bail, ensure};
use flate2::bufread::GzDecoder;

use super::super::budget::{DAMAGED, TOO_BIG};

/// Most bytes of a file once it is decompressed. Recordings of hours have some ten MiB.
const MAX_BYTES: usize = 2 << 30;
/// Most layers of gzip around each other.
const MOST_LAYERS: usize = 3;
const GZIP: [u8; 2] = [0x1f, 0x8b];

/// A file's bytes, decompressed.
pub(super) struct Loaded {
    pub(super) data: Vec<u8>,
    /// Where in `data` each of the gzip streams ends of which the file is made: several, if files were
    /// joined by `cat`, or one was compressed piece by piece.
    pub(super) ends: Vec<usize>,
}

/// Standard input.
pub(super) fn stdin() -> Result<Loaded> {
    load(io::stdin().lock())
}

/// A file.
pub(super) fn file(path: &Path) -> Result<Loaded> {
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

fn load(mut source: impl Read) -> Result<Loaded> {
    let mut magic = Vec::new();
    source.by_ref().take(2).read_to_end(&mut magic)?;
    ensure!(!magic.is_empty(), "it is empty: make one with `profiler record`");
    let gzipped = magic == GZIP;
    let whole = io::Cursor::new(magic).chain(source);
    if !gzipped {
        let mut data = Vec::new();
        whole.take(MAX_BYTES as u64 + 1).read_to_end(&mut data)?;
        ensure!(data.len() <= MAX_BYTES, "it has more than {} MiB: {TOO_BIG}", MAX_BYTES >> 20);
        let ends = vec![data.len()];
        return Ok(Loaded { data, ends });
    }
    let mut loaded = unpack(whole)?;
    for _ in 1..MOST_LAYERS {
        if !loaded.data.starts_with(&GZIP) {
            break;
        }
        loaded = unpack(&loaded.data[..])?;
    }
    Ok(loaded)
}

/// What all gzip streams of a source hold.
fn unpack(source: impl Read) -> Result<Loaded> {
    let mut loaded = Loaded { data: Vec::new(), ends: Vec::new() };
    let mut source = BufReader::new(source);
    let mut chunk = vec![0; 64 << 10];
    while !source.fill_buf()?.is_empty() {
        let mut gzip = GzDecoder::new(source);
        loop {
            let count = match gzip.read(&mut chunk) {
                Ok(0) => break,
                Ok(count) => count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
                    bail!("its gzip data ends too early: {DAMAGED}")
                }
                Err(error) => bail!("its gzip data is not valid ({error}): {DAMAGED}"),
            };
            let data = &mut loaded.data;
            data.extend_from_slice(&chunk[..count]);
            ensure!(
                data.len() <= MAX_BYTES,
                "it decompresses to more than {} MiB: {TOO_BIG}",
                MAX_BYTES >> 20
            );
        }
        loaded.ends.push(loaded.data.len());
        source = gzip.into_inner();
    }
    Ok(loaded)
}
