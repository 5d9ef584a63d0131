//! An entry's bytes, unpacked and held against what was declared of them.

use std::fmt;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::sync::atomic::AtomicBool;

use flate2::{Crc, Decompress, FlushDecompress, Status};

use super::Error;
use super::check::{Data, check_cancelled};
use super::input::Input;

const BUFFER: usize = 64 * 1024;

/// Unpacks one entry after the other with the same memory.
pub(super) struct Unpacker {
    inflate: Decompress,
    packed: Vec<u8>,
    plain: Vec<u8>,
}

impl fmt::Debug for Unpacker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Unpacker")
    }
}

impl Default for Unpacker {
    fn default() -> Self {
        Self { inflate: Decompress::new(false), packed: vec![0; BUFFER], plain: vec![0; BUFFER] }
    }
}

/// What has come out of an entry so far.
struct Progress<'a, W> {
    data: &'a Data,
    out: W,
    crc: Crc,
    left: u64,
}

impl<W: Write> Progress<'_, W> {
    fn take(&mut self, bytes: &[u8]) -> Result<(), Error> {
        let Some(left) = self.left.checked_sub(bytes.len() as u64) else {
            return Err(Error::LargerThanDeclared { entry: self.data.path.clone(), declared: self.data.size });
        };
        self.left = left;
        self.crc.update(bytes);
        self.out.write_all(bytes).map_err(|error| Error::Write { entry: self.data.path.clone(), error })
    }

    fn end(self) -> Result<(), Error> {
        let Data { path, size, crc, .. } = self.data;
        if self.left > 0 {
            return Err(Error::SmallerThanDeclared { entry: path.clone(), declared: *size });
        }
        if self.crc.sum() != *crc {
            return Err(Error::Checksum { entry: path.clone() });
        }
        Ok(())
    }
}

impl Unpacker {
    /// Writes an entry's bytes to `out`: never more than were declared.
    pub(super) fn unpack<R: Read + Seek>(
        &mut self,
        input: &mut Input<R>,
        data: &Data,
        out: impl Write,
        cancel: &AtomicBool,
    ) -> Result<(), Error> {
        input.seek(SeekFrom::Start(data.start)).map_err(Error::Read)?;
        let mut progress = Progress { data, out, crc: Crc::new(), left: data.size };
        let mut packed_left = data.packed;
        self.inflate.reset(false);
        // Some programs say of an empty file that it is packed, and pack nothing.
        let mut is_over = !data.is_deflated || data.packed == 0 && data.size == 0;
        while packed_left > 0 {
            check_cancelled(cancel)?;
            let most = usize::try_from(packed_left).unwrap_or(BUFFER).min(BUFFER);
            let packed = self.packed.get_mut(..most).unwrap_or_default();
            input.read_exact(packed).map_err(|error| match error.kind() {
                io::ErrorKind::UnexpectedEof => Error::OutOfBounds { entry: data.path.clone() },
                _ => Error::Read(error),
            })?;
            packed_left -= most as u64;
            if data.is_deflated {
                if is_over {
                    return Err(damaged(data, "it goes on after its end"));
                }
                is_over = inflate(&mut self.inflate, packed, &mut self.plain, &mut progress, cancel)?;
            } else {
                progress.take(packed)?;
            }
        }
        if !is_over {
            return Err(damaged(data, "it ends early"));
        }
        progress.end()
    }
}

/// Unpacks a piece; true if it was the last.
fn inflate<W: Write>(
    inflate: &mut Decompress,
    mut packed: &[u8],
    plain: &mut [u8],
    progress: &mut Progress<'_, W>,
    cancel: &AtomicBool,
) -> Result<bool, Error> {
    loop {
        check_cancelled(cancel)?;
        let (read, written) = (inflate.total_in(), inflate.total_out());
        let status = inflate.decompress(packed, plain, FlushDecompress::None);
        let status = status.map_err(|error| damaged(progress.data, &error.to_string()))?;
        let read = usize::try_from(inflate.total_in() - read).unwrap_or(usize::MAX);
        let written = usize::try_from(inflate.total_out() - written).unwrap_or(usize::MAX);
        packed = packed.get(read..).unwrap_or_default();
        progress.take(plain.get(..written).unwrap_or_default())?;
        match status {
            Status::StreamEnd if packed.is_empty() => return Ok(true),
            Status::StreamEnd => return Err(damaged(progress.data, "it goes on after its end")),
            // More may come out only if the buffer for it was full.
            _ if packed.is_empty() && written < plain.len() => return Ok(false),
            _ if read == 0 && written == 0 => return Err(damaged(progress.data, "it makes no progress")),
            _ => {}
        }
    }
}

fn damaged(data: &Data, reason: &str) -> Error {
    Error::Damaged { entry: data.path.clone(), reason: reason.to_owned() }
}
