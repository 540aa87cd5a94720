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
        // What a tape or a disk's block is filled up with; gzip(1) takes it too.
        if !loaded.ends.is_empty() && !source.fill_buf()?.starts_with(&GZIP[..1]) {
            ensure!(only_zeros(&mut source)?, "its gzip data is followed by something else: {DAMAGED}");
            break;
        }
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

fn only_zeros(source: &mut impl BufRead) -> io::Result<bool> {
    loop {
        let bytes = source.fill_buf()?;
        if bytes.is_empty() || bytes.iter().any(|&byte| byte != 0) {
            return Ok(bytes.is_empty());
        }
        let count = bytes.len();
        source.consume(count);
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use flate2::{Compression, write::GzEncoder};

    use super::*;

    #[test]
    fn gzip_may_be_filled_up_with_zeros() {
        let mut gzip = GzEncoder::new(Vec::new(), Compression::fast());
        gzip.write_all(b"a 1\n").unwrap();
        let packed = gzip.finish().unwrap();
        let read = |behind: &[u8]| {
            load(&[&packed[..], behind].concat()[..]).map(|loaded| (loaded.data, loaded.ends))
        };
        assert_eq!(read(&[0; 100_000]).unwrap(), (b"a 1\n".to_vec(), vec![4]));
        assert_eq!(read(&packed).unwrap(), (b"a 1\na 1\n".to_vec(), vec![4, 8]));
        for behind in [&b"\0\0x"[..], b"junk"] {
            assert!(read(behind).unwrap_err().to_string().contains("its gzip data is"), "{behind:?}");
        }
    }
}
