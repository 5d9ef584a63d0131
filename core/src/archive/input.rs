//! Reading an archive in small pieces here and there, mostly forwards, without a system call for each.

use std::io::{self, BufReader, Read, Seek, SeekFrom};

/// A buffer that a step forwards or backwards within it does not empty, as a seek of [`BufReader`] would.
#[derive(Debug)]
pub(super) struct Input<R> {
    inner: BufReader<R>,
    at: u64,
}

impl<R: Read + Seek> Input<R> {
    /// From the archive's beginning.
    pub(super) fn new(archive: R) -> io::Result<Self> {
        let mut inner = BufReader::with_capacity(32 * 1024, archive);
        inner.rewind()?;
        Ok(Self { inner, at: 0 })
    }

    /// How many bytes the archive has.
    pub(super) fn len(&mut self) -> io::Result<u64> {
        self.seek(SeekFrom::End(0))
    }
}

impl<R: Read> Read for Input<R> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let len = self.inner.read(buf)?;
        self.at += len as u64;
        Ok(len)
    }
}

impl<R: Seek> Seek for Input<R> {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        match to {
            SeekFrom::Current(0) => {}
            SeekFrom::Start(place) => match place.checked_signed_diff(self.at) {
                Some(step) => {
                    self.inner.seek_relative(step)?;
                    self.at = place;
                }
                None => self.at = self.inner.seek(to)?,
            },
            SeekFrom::End(_) | SeekFrom::Current(_) => self.at = self.inner.seek(to)?,
        }
        Ok(self.at)
    }
}
