//! What a shard has ever seen, by a few bits each: enough to tell that something is new without asking the state store.

use std::hash::Hash;

use fastbloom::BloomFilter;

/// Bytes that a shard spends on it at most. More than it is made for (about 22 million) is kept too, and then more and more of what is new
/// is looked up: what was seen is never taken for new.
pub const SEEN_BYTES_MAX: usize = 32 * 1024 * 1024;
/// A full filter takes one in 300 of what is new for seen, six full ones one in 50: (1 - e^(-8/12))^8 with eight probes.
const BITS_EACH: usize = 12;
/// The first filter has room for so many, each further one for four times as many as the one before.
const FIRST_ROOM: usize = 16_384;
const GROWTH: usize = 4;
/// Where the bits of something are is the same in every process: a run can be repeated.
const SEED: u128 = 0;

/// A set that may only be asked what is surely not in it: Bloom filters, one more when the last is full (Almeida et al., *Scalable Bloom
/// Filters*, 2007).
///
/// It answers only once it is [`complete`](Seen::complete): until then anything may have been seen before.
pub struct Seen {
    filters: Vec<Filter>,
    bytes_max: usize,
    is_complete: bool,
}

struct Filter {
    bits: BloomFilter,
    count: usize,
    room: usize,
}

impl Filter {
    fn for_count(room: usize) -> Filter {
        let bits = BloomFilter::with_num_bits(room * BITS_EACH)
            .seed(&SEED)
            .expected_items(room);
        Filter { bits, count: 0, room }
    }

    fn bytes(&self) -> usize {
        self.bits.num_bits() / 8
    }
}

impl Default for Seen {
    fn default() -> Seen {
        Seen::within(SEEN_BYTES_MAX)
    }
}

impl Seen {
    pub(super) fn within(bytes_max: usize) -> Seen {
        Seen {
            filters: vec![Filter::for_count(FIRST_ROOM)],
            bytes_max,
            is_complete: false,
        }
    }

    pub fn add(&mut self, item: impl Hash) {
        if self.filters.iter().any(|filter| filter.bits.contains(&item)) {
            return;
        }
        self.grow();
        let last = self.filters.last_mut().expect("there is one from the beginning");
        last.bits.insert(&item);
        last.count += 1;
    }

    fn grow(&mut self) {
        let last = self.filters.last().expect("there is one from the beginning");
        let next = GROWTH * last.room;
        let fits = self.bytes() + next * BITS_EACH / 8 <= self.bytes_max;
        if last.count >= last.room && fits {
            self.filters.push(Filter::for_count(next));
        }
    }

    /// From now on it has all that was ever seen.
    pub fn complete(&mut self) {
        self.is_complete = true;
    }

    pub fn is_complete(&self) -> bool {
        self.is_complete
    }

    /// Has it surely never been seen?
    pub fn is_new(&self, item: impl Hash) -> bool {
        self.is_complete && !self.filters.iter().any(|filter| filter.bits.contains(&item))
    }

    fn bytes(&self) -> usize {
        self.filters.iter().map(Filter::bytes).sum()
    }
}

#[cfg(test)]
mod specs {
    use super::*;

    fn share_taken_for_seen(seen: &Seen, from: u64) -> f64 {
        let new = (from..from + 100_000).filter(|n| !seen.is_new(n));
        new.count() as f64 / 100_000.0
    }

    #[test]
    fn nothing_is_new_until_it_is_complete() {
        let mut seen = Seen::default();
        seen.add(1);
        assert!(!seen.is_new(1) && !seen.is_new(2));
        seen.complete();
        assert!(!seen.is_new(1) && seen.is_new(2));
    }

    #[test]
    fn what_was_seen_is_never_new_and_what_was_not_seldom_passes_for_it() {
        let mut seen = Seen::default();
        seen.complete();
        for n in 0..1_000_000_u64 {
            seen.add(n);
        }
        assert!((0..1_000_000_u64).all(|n| !seen.is_new(n)));
        assert!(share_taken_for_seen(&seen, 1_000_000) < 0.02);
        assert!(seen.bytes() < 8 * 1_000_000, "{} bytes", seen.bytes());
    }

    #[test]
    fn what_was_seen_stays_within_its_bytes_and_is_never_new_then_either() {
        let mut seen = Seen::within(100_000);
        seen.complete();
        for n in 0..300_000_u64 {
            seen.add(n);
        }
        assert!(seen.bytes() <= 100_000, "{} bytes", seen.bytes());
        assert!((0..300_000_u64).all(|n| !seen.is_new(n)));
        // It has filled up, and says so by calling nothing new.
        assert!(share_taken_for_seen(&seen, 1_000_000) > 0.5);
    }
}
