//! The write-ahead file that a SQLite log has after a crash.
//!
//! SQLite reads it up to the first frame that is not whole, for that is how a power cut tears it, and forgets the rest without a word.
//! Only the last transaction can be torn: each is durable before the next one begins. Where two or more stand behind the frame that is not
//! whole, they were acked, and the file is damaged. Whether the last one was acked, [`acked`](super::acked) knows.
//!
//! Its format: <https://sqlite.org/fileformat2.html#the_write_ahead_log>.

use std::fs::File;
use std::io::{self, BufReader, ErrorKind, Read};
use std::ops::RangeInclusive;
use std::path::Path;

const HEADER_BYTES: usize = 32;
const FRAME_HEADER_BYTES: usize = 24;
/// Without its last bit, which says in which order checksums take the bytes.
const MAGIC: u32 = 0x377f_0682;
const PAGE_BYTES: RangeInclusive<u32> = 512..=65_536;

/// What SQLite would forget of this file although later transactions rest on it, in words. `None`: nothing, or there is no such file.
///
/// # Errors
/// When the file cannot be read.
pub fn damage_in(path: &Path) -> io::Result<Option<String>> {
    let file = match File::open(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        file => file?,
    };
    let mut file = BufReader::new(file);
    let mut header = [0; HEADER_BYTES];
    if !is_filled(&mut file, &mut header)? {
        return Ok(None);
    }
    let Some(mut sum) = Checksum::of_header(&header) else {
        // It is durable before the first frame is written: without frames it may be torn.
        let has_frames = file.bytes().any(|byte| byte.is_ok_and(|byte| byte != 0));
        return Ok(has_frames.then(|| "the header of its write-ahead file is not what was written".into()));
    };
    let salts = &header[16..24];
    let page_bytes = number(&header, 8);
    if !PAGE_BYTES.contains(&page_bytes) {
        return Ok(Some(format!("its write-ahead file has pages of {page_bytes} bytes")));
    }
    let mut frame = vec![0; FRAME_HEADER_BYTES + page_bytes as usize];
    let mut broken_at = None;
    let mut forgotten = 0_u32;
    for place in 1_u64.. {
        if !is_filled(&mut file, &mut frame)? {
            break;
        }
        let is_of_this_run = frame[8..16] == *salts;
        let ends_a_transaction = number(&frame, 4) != 0;
        if broken_at.is_some() {
            forgotten += u32::from(is_of_this_run && ends_a_transaction);
            continue;
        }
        let before = sum;
        let is_chained = sum.goes_on_with(&frame);
        if !(is_chained && is_of_this_run) {
            broken_at = Some(place);
            // The checksum does not cover the salts; and it tells which size stood there, if only that is wrong.
            let ended_one = match is_chained {
                true => ends_a_transaction,
                false => (is_of_this_run && ends_a_transaction) || before.says_that_a_transaction_ended(&frame),
            };
            forgotten += u32::from(ended_one);
        }
    }
    Ok(broken_at.filter(|_| forgotten > 1).map(|place| {
        format!("frame {place} of its write-ahead file is not what was written, and {forgotten} transactions end there or behind it")
    }))
}

/// The running checksum over all frames.
#[derive(Clone, Copy)]
struct Checksum {
    sums: [u32; 2],
    is_big_endian: bool,
}

impl Checksum {
    /// `None` when the header is not what was written.
    fn of_header(header: &[u8; HEADER_BYTES]) -> Option<Checksum> {
        let magic = number(header, 0);
        let mut sum = Checksum {
            sums: [0, 0],
            is_big_endian: magic & 1 == 1,
        };
        sum.add(&header[..24]);
        (magic & !1 == MAGIC && sum.sums == [number(header, 24), number(header, 28)]).then_some(sum)
    }

    /// Is the frame the one that was written here?
    fn goes_on_with(&mut self, frame: &[u8]) -> bool {
        self.add(&frame[..8]);
        self.add(&frame[FRAME_HEADER_BYTES..]);
        self.sums == [number(frame, 16), number(frame, 20)]
    }

    /// Taken back from the sums that the frame was written with: was it the last of a transaction, for the same page?
    fn says_that_a_transaction_ended(&self, frame: &[u8]) -> bool {
        let [mut first, mut second] = [number(frame, 16), number(frame, 20)];
        for pair in frame[FRAME_HEADER_BYTES..].chunks_exact(8).rev() {
            second = second.wrapping_sub(self.word(&pair[4..])).wrapping_sub(first);
            first = first.wrapping_sub(self.word(&pair[..4])).wrapping_sub(second);
        }
        let [before_first, before_second] = self.sums;
        let page = first.wrapping_sub(before_first).wrapping_sub(before_second);
        let size = second.wrapping_sub(before_second).wrapping_sub(first);
        page == self.word(&frame[..4]) && size != 0
    }

    fn add(&mut self, bytes: &[u8]) {
        let [mut first, mut second] = self.sums;
        for pair in bytes.chunks_exact(8) {
            first = first.wrapping_add(self.word(&pair[..4])).wrapping_add(second);
            second = second.wrapping_add(self.word(&pair[4..])).wrapping_add(first);
        }
        self.sums = [first, second];
    }

    fn word(&self, bytes: &[u8]) -> u32 {
        let bytes = bytes.try_into().expect("four bytes");
        match self.is_big_endian {
            true => u32::from_be_bytes(bytes),
            false => u32::from_le_bytes(bytes),
        }
    }
}

/// The big-endian number at a place.
fn number(bytes: &[u8], at: usize) -> u32 {
    u32::from_be_bytes(bytes[at..at + 4].try_into().expect("four bytes"))
}

/// `false` at the end of the file, also where it ends in the middle.
fn is_filled(file: &mut impl Read, buffer: &mut [u8]) -> io::Result<bool> {
    match file.read_exact(buffer) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == ErrorKind::UnexpectedEof => Ok(false),
        Err(error) => Err(error),
    }
}
