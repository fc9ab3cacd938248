//! Gzip as Java's reader takes it: one member after another; bytes after the last one are ignored.

use std::io::{self, Read};

use flate2::bufread::GzDecoder;

/// The first bytes of a member.
const MAGIC: [u8; 2] = [0x1f, 0x8b];

/// Reads decompressed bytes.
pub(super) struct Decompressor<'a> {
    /// The member being read; None at the end.
    member: Option<GzDecoder<&'a [u8]>>,
}

impl<'a> Decompressor<'a> {
    pub(super) fn new(input: &'a [u8]) -> Self {
        let member = Some(GzDecoder::new(input));
        Decompressor { member }
    }
}

impl Read for Decompressor<'_> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        while let Some(member) = &mut self.member {
            let read = member.read(out)?;
            if read > 0 || out.is_empty() {
                return Ok(read);
            }
            let rest = *member.get_ref();
            self.member = rest.starts_with(&MAGIC).then(|| GzDecoder::new(rest));
        }
        Ok(0)
    }
}
