//! Lines of a file that may be anything: of one that is too long no more than the bound is held in memory.

use std::io::{self, BufRead, Read};

/// A line that was read.
#[derive(Debug, PartialEq, Eq)]
pub struct Line {
    /// Bytes that were read for it, its end included.
    pub read: u64,
    /// With its end, if it has one; `None` when it is longer than the bound.
    pub text: Option<Vec<u8>>,
}

/// The next line; `None` at the end of the input. It may have `bytes_max` bytes with its end.
///
/// # Errors
/// The input's.
pub fn next_line(input: &mut impl BufRead, bytes_max: usize) -> io::Result<Option<Line>> {
    let mut text = Vec::new();
    let read = input.take(bytes_max as u64 + 1).read_until(b'\n', &mut text)? as u64;
    Ok(match text.len() {
        0 => None,
        fits if fits <= bytes_max => Some(Line { read, text: Some(text) }),
        _ => {
            let rest = if text.ends_with(b"\n") { 0 } else { skip_line(input)? };
            Some(Line {
                read: read + rest,
                text: None,
            })
        }
    })
}

/// Reads past the end of the line; how many bytes that were.
fn skip_line(input: &mut impl BufRead) -> io::Result<u64> {
    let mut skipped = 0;
    loop {
        let buffer = input.fill_buf()?;
        if buffer.is_empty() {
            return Ok(skipped);
        }
        let end = buffer.iter().position(|byte| *byte == b'\n');
        let read = end.map_or(buffer.len(), |end| end + 1);
        input.consume(read);
        skipped += read as u64;
        if end.is_some() {
            return Ok(skipped);
        }
    }
}

#[cfg(test)]
mod specs {
    use super::*;

    #[test]
    fn a_line_has_so_many_bytes_and_the_next_one_is_read_whatever_came_before() {
        let mut input: &[u8] = b"1234\n12345\n123456789\n\n12\n12345";
        let mut next = || next_line(&mut input, 5).unwrap();
        let line = |text: &[u8]| {
            Some(Line {
                read: text.len() as u64,
                text: Some(text.to_vec()),
            })
        };
        let too_long = |read| Some(Line { read, text: None });
        assert_eq!(next(), line(b"1234\n"));
        assert_eq!(next(), too_long(6));
        assert_eq!(next(), too_long(10));
        assert_eq!(next(), line(b"\n"));
        assert_eq!(next(), line(b"12\n"));
        assert_eq!(next(), line(b"12345"));
        assert_eq!(next(), None);
    }
}
