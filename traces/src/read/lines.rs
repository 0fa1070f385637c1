//! A file, plain or compressed, one line at a time.
//!
//! The compression is told by the first bytes, not by the name. Gzip files may have several members and zstd files
//! several frames (shards put together with `cat`). Only one line is held at a time, and no line may be longer than a
//! limit, so that a file of any size, or one that only claims to be a trace, needs little memory.

use std::io::{self, BufRead, BufReader, Cursor, Read};

use flate2::bufread::MultiGzDecoder;

/// Bytes read from the file at a time.
const BUFFER: usize = 1 << 16;

/// A longer line is an error: a million token ids take a tenth of this.
pub(crate) const LINE_LIMIT: usize = 64 << 20;

/// The lines of a trace file.
pub(crate) struct Lines<'r> {
    reader: Box<dyn BufRead + 'r>,
    limit: usize,
    line: Vec<u8>,
    number: u32,
    /// The current line is to be handed out once more.
    is_put_back: bool,
}

/// Why there is no next line.
#[derive(Debug)]
pub(crate) enum LineError {
    /// The file cannot be read on: a disk error, or compressed data that is damaged or cut off.
    Broken(io::Error),
    /// The line is longer than this.
    TooLong(usize),
    /// More than 2^32 lines.
    TooMany,
}

impl<'r> Lines<'r> {
    /// Looks at the first bytes of `file` to see how it is compressed.
    pub(crate) fn new(mut file: impl Read + 'r, limit: usize) -> io::Result<Self> {
        let mut magic = Vec::with_capacity(4);
        file.by_ref().take(4).read_to_end(&mut magic)?;
        let is_gzip = magic.starts_with(&[0x1f, 0x8b]);
        let is_zstd = magic.starts_with(&[0x28, 0xb5, 0x2f, 0xfd]);
        let file = BufReader::with_capacity(BUFFER, Cursor::new(magic).chain(file));
        let reader: Box<dyn BufRead + 'r> = if is_gzip {
            Box::new(BufReader::with_capacity(BUFFER, MultiGzDecoder::new(file)))
        } else if is_zstd {
            let decoder = zstd::stream::read::Decoder::with_buffer(file)?;
            Box::new(BufReader::with_capacity(BUFFER, decoder))
        } else {
            Box::new(file)
        };
        Ok(Lines {
            reader,
            limit,
            line: Vec::new(),
            number: 0,
            is_put_back: false,
        })
    }

    /// The next line that is not blank, without the white space at its ends, and its number, from 1.
    pub(crate) fn next(&mut self) -> Result<Option<(&[u8], u32)>, LineError> {
        if !std::mem::take(&mut self.is_put_back) && !self.advance()? {
            return Ok(None);
        }
        Ok(Some((trimmed(&self.line, self.number), self.number)))
    }

    /// Makes [`Lines::next`] hand out the current line again.
    pub(crate) fn put_back(&mut self) {
        self.is_put_back = true;
    }

    /// The number of the current line.
    pub(crate) fn number(&self) -> u32 {
        self.number
    }

    fn advance(&mut self) -> Result<bool, LineError> {
        loop {
            self.line.clear();
            let mut limited = self.reader.by_ref().take(self.limit as u64 + 1);
            let len = limited
                .read_until(b'\n', &mut self.line)
                .map_err(LineError::Broken)?;
            if len == 0 {
                return Ok(false);
            }
            self.number = self.number.checked_add(1).ok_or(LineError::TooMany)?;
            if len > self.limit && self.line.last() != Some(&b'\n') {
                return Err(LineError::TooLong(self.limit));
            }
            if !trimmed(&self.line, self.number).is_empty() {
                return Ok(true);
            }
        }
    }
}

fn trimmed(line: &[u8], number: u32) -> &[u8] {
    let line = if number == 1 {
        line.strip_prefix(b"\xef\xbb\xbf").unwrap_or(line)
    } else {
        line
    };
    line.trim_ascii()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    fn all(bytes: &[u8], limit: usize) -> Result<Vec<(String, u32)>, String> {
        let mut lines = Lines::new(bytes, limit).map_err(|error| error.to_string())?;
        let mut found = Vec::new();
        loop {
            match lines.next() {
                Ok(Some((line, number))) => {
                    found.push((String::from_utf8(line.to_vec()).unwrap(), number))
                }
                Ok(None) => return Ok(found),
                Err(error) => return Err(format!("after {}: {error:?}", lines.number())),
            }
        }
    }

    fn gzip(text: &str) -> Vec<u8> {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        encoder.write_all(text.as_bytes()).unwrap();
        encoder.finish().unwrap()
    }

    #[test]
    fn blank_lines_are_passed_over_and_counted() {
        let expected = vec![
            ("a".to_string(), 1),
            ("b c".to_string(), 4),
            ("d".to_string(), 5),
        ];
        assert_eq!(all(b"\xef\xbb\xbfa\n\n \r\n b c\r\nd", 100), Ok(expected));
        assert_eq!(all(b"", 100), Ok(Vec::new()));
        assert_eq!(all(b"\n\n", 100), Ok(Vec::new()));
    }

    #[test]
    fn a_line_put_back_comes_again() {
        let mut lines = Lines::new(&b"a\nb\n"[..], 100).unwrap();
        assert_eq!(lines.next().unwrap(), Some((&b"a"[..], 1)));
        lines.put_back();
        assert_eq!(lines.next().unwrap(), Some((&b"a"[..], 1)));
        assert_eq!(lines.next().unwrap(), Some((&b"b"[..], 2)));
        assert_eq!(lines.next().unwrap(), None);
    }

    #[test]
    fn gzip_members_and_zstd_frames_follow_each_other() {
        let expected = vec![("one".to_string(), 1), ("two".to_string(), 2)];
        let gz = [gzip("one\nt"), gzip("wo\n")].concat();
        assert_eq!(all(&gz, 100), Ok(expected.clone()));
        let zst = [
            zstd::encode_all(&b"one\nt"[..], 1).unwrap(),
            zstd::encode_all(&b"wo\n"[..], 1).unwrap(),
        ]
        .concat();
        assert_eq!(all(&zst, 100), Ok(expected));
    }

    #[test]
    fn compressed_data_that_is_cut_off_is_an_error() {
        let text = "line\n".repeat(1000);
        for whole in [gzip(&text), zstd::encode_all(text.as_bytes(), 1).unwrap()] {
            for cut in 1..whole.len() {
                if cut >= 4 {
                    assert!(
                        all(&whole[..cut], 100).is_err(),
                        "cut at {cut} of {}",
                        whole.len()
                    );
                }
            }
            assert_eq!(all(&whole, 100).unwrap().len(), 1000);
        }
    }

    #[test]
    fn no_line_is_longer_than_the_limit() {
        assert_eq!(all(b"12345\n", 5), Ok(vec![("12345".to_string(), 1)]));
        assert_eq!(all(b"12345", 5), Ok(vec![("12345".to_string(), 1)]));
        assert_eq!(
            all(b"1\n123456\n", 5),
            Err("after 2: TooLong(5)".to_string())
        );
        let bomb = zstd::encode_all(&vec![b' '; 1 << 22][..], 1).unwrap();
        assert_eq!(
            all(&bomb, 1 << 20),
            Err("after 1: TooLong(1048576)".to_string())
        );
    }
}
