//! Luck from a seed: all that happens by chance in a simulated world comes from here, so that the same seed is the same world.

use std::sync::atomic::{AtomicU64, Ordering};

/// SplitMix64: one number of state, so that a world can share it without a lock.
#[derive(Debug)]
pub struct Luck(AtomicU64);

impl Luck {
    pub fn new(seed: u64) -> Luck {
        // Neighbouring seeds must not be neighbouring worlds.
        Luck(AtomicU64::new(
            seed.wrapping_mul(0xd134_2543_de82_ef95) ^ 0x5bf0_3635_dcf8_1d0f,
        ))
    }

    pub fn number(&self) -> u64 {
        const STEP: u64 = 0x9e37_79b9_7f4a_7c15;
        let mut z = self.0.fetch_add(STEP, Ordering::Relaxed).wrapping_add(STEP);
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// 0 to `limit` - 1.
    pub fn below(&self, limit: u64) -> u64 {
        ((u128::from(self.number()) * u128::from(limit)) >> 64) as u64
    }

    /// `low` to `high`, both included.
    pub fn between(&self, low: u64, high: u64) -> u64 {
        low + self.below(high - low + 1)
    }

    /// `low` to `high`, short ones as likely as long ones: 1 to 10 as often as 100 to 1,000.
    pub fn magnitude(&self, low: u64, high: u64) -> u64 {
        let span = (high as f64 / low as f64).ln();
        let part = self.below(1 << 20) as f64 / f64::from(1 << 20);
        (low as f64 * (span * part).exp()) as u64
    }

    pub fn chance(&self, per_mille: u64) -> bool {
        per_mille > 0 && self.below(1_000) < per_mille
    }

    pub fn pick<'a, T>(&self, among: &'a [T]) -> &'a T {
        &among[self.below(among.len() as u64) as usize]
    }
}
