//! Chance that is the same every time: SplitMix64, seeded by what the chance is about.

use domain::derived_id;

/// The chances of one story. A story that changes does not change the luck of the others.
pub struct Luck(u64);

/// What comes out of an exponential distribution with mean 1,000, in sixteen equal parts.
const SKEWED: [i64; 16] = [
    32, 98, 170, 247, 330, 421, 521, 632, 758, 901, 1068, 1269, 1520, 1856, 2367, 3466,
];

impl Luck {
    pub fn of(parts: &[&str]) -> Luck {
        let mut seed = [0; 8];
        seed.copy_from_slice(&derived_id(parts).as_bytes()[8..]);
        Luck(u64::from_be_bytes(seed))
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// From `low` to `high`, both included.
    pub fn between(&mut self, low: i64, high: i64) -> i64 {
        let choices = (high - low + 1) as u64;
        low + (self.next() % choices) as i64
    }

    pub fn percent(&mut self, chance: i64) -> bool {
        self.between(0, 99) < chance
    }

    pub fn pick<'a, T>(&mut self, from: &'a [T]) -> &'a T {
        &from[self.next() as usize % from.len()]
    }

    /// One of `from`, each as often as the number beside it says.
    pub fn weighted<T: Copy>(&mut self, from: &[(T, i64)]) -> T {
        let total = from.iter().map(|(_, weight)| weight).sum();
        let mut left = self.between(1, total);
        for (choice, weight) in from {
            left -= weight;
            if left <= 0 {
                return *choice;
            }
        }
        unreachable!("the weights sum to the total")
    }

    /// About `mean`: mostly less, now and then much more, as waiting times are.
    pub fn skewed(&mut self, mean: i64) -> i64 {
        mean * *self.pick(&SKEWED) / 1000
    }
}
