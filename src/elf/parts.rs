//! Reading parts of a file into memory: nothing is allocated before its size is known to be sound.

use std::io::Read;

use anyhow::{Context as _, Result, bail, ensure};
use object::elf::{self, CompressionHeader32, CompressionHeader64};
use object::{LittleEndian as LE, Pod, pod};

use super::{MAX_CALL_FRAMES_BYTES, MAX_HEADERS, Source};

/// The contents of a section with the flag `SHF_COMPRESSED`. Memory grows with what comes out and
/// not with what the header promises.
pub(super) fn decompressed(section: &[u8], is_32_bit: bool) -> Result<Vec<u8>> {
    /// Base 2 logarithm of the bytes that zstd may look back. Its highest level looks back 2²⁷.
    const ZSTD_WINDOW: u32 = 25;
    let (kind, size, header_bytes) = if is_32_bit {
        let header: CompressionHeader32<LE> = one(section)?;
        (header.ch_type.get(LE), header.ch_size.get(LE).into(), size_of_val(&header))
    } else {
        let header: CompressionHeader64<LE> = one(section)?;
        (header.ch_type.get(LE), header.ch_size.get(LE), size_of_val(&header))
    };
    let data = &section[header_bytes..];
    ensure!(size <= MAX_CALL_FRAMES_BYTES, "{size} bytes are more than the limit of {MAX_CALL_FRAMES_BYTES}");
    let reader: &mut dyn Read = match kind {
        elf::ELFCOMPRESS_ZLIB => &mut flate2::bufread::ZlibDecoder::new(data),
        elf::ELFCOMPRESS_ZSTD => {
            let mut decoder = zstd::Decoder::with_buffer(data)?;
            decoder.window_log_max(ZSTD_WINDOW)?;
            &mut { decoder }
        }
        other => bail!("unknown compression {other}"),
    };
    let mut bytes = Vec::new();
    reader.take(size).read_to_end(&mut bytes).context("failed to decompress")?;
    ensure!(bytes.len() as u64 == size, "{} bytes in place of {size}", bytes.len());
    Ok(bytes)
}

/// Reads part of the file. Nothing is allocated before its size is known to be sound.
pub(super) fn read(file: &dyn Source, offset: u64, size: u64, limit: u64) -> Result<Vec<u8>> {
    ensure!(size <= limit, "{size} bytes are more than the limit of {limit}");
    let file_size = file.size().context("failed to get the file's size")?;
    ensure!(
        offset.checked_add(size).is_some_and(|end| end <= file_size),
        "{size} bytes at offset {offset} are beyond the file's end at {file_size}"
    );
    let mut bytes = vec![0; usize::try_from(size)?];
    file.read_exact_at(&mut bytes, offset).with_context(|| format!("failed to read at offset {offset}"))?;
    Ok(bytes)
}

pub(super) fn array<T: Pod>(file: &dyn Source, offset: u64, count: u64) -> Result<Vec<T>> {
    ensure!(count <= MAX_HEADERS, "{count} headers are more than the limit of {MAX_HEADERS}");
    let size = count * size_of::<T>() as u64;
    let bytes = read(file, offset, size, size)?;
    let (values, _) = pod::slice_from_bytes(&bytes, usize::try_from(count)?)
        .ok()
        .context("failed to lay out the headers")?;
    Ok(values.to_vec())
}

pub(super) fn one<T: Pod>(bytes: &[u8]) -> Result<T> {
    let (value, _) = pod::from_bytes(bytes).ok().context("failed to lay out the header")?;
    Ok(*value)
}
