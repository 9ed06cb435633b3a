//! A small seeded generator, so that every allocator gets the same sequence of calls.

/// The state of an xorshift64* generator. It is never zero.
#[derive(Clone, Debug)]
pub struct Rng(u64);

impl Rng {
    /// A generator that repeats the same sequence for the same `seed`.
    pub fn new(seed: u64) -> Self {
        // Seeds are small numbers; the multiplication spreads them over all bits.
        Self(seed.wrapping_add(1).wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1)
    }

    /// The next 64 bits.
    #[inline]
    pub fn next_u64(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_F491_4F6C_DD1D)
    }

    /// A number below `bound`, which is not 0.
    #[inline]
    pub fn below(&mut self, bound: usize) -> usize {
        ((u128::from(self.next_u64()) * bound as u128) >> 64) as usize
    }

    /// A number in `low..high`.
    #[inline]
    pub fn range(&mut self, low: usize, high: usize) -> usize {
        low + self.below(high - low)
    }

    /// A number in `0.0..1.0`.
    pub fn unit(&mut self) -> f64 {
        (self.next_u64() >> 11) as f64 / (1u64 << 53) as f64
    }

    /// A size in `low..=high` whose logarithm is evenly spread: as many sizes between 16 and 32
    /// as between 1024 and 2048.
    pub fn log_uniform(&mut self, low: usize, high: usize) -> usize {
        let (low_log, high_log) = ((low as f64).ln(), (high as f64 + 1.0).ln());
        let size = (low_log + self.unit() * (high_log - low_log)).exp() as usize;
        size.clamp(low, high)
    }
}
