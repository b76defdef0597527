//! Content that shows a byte lost, doubled, swapped or taken from another session.
//!
//! Every eight bytes are a hash of a seed and their offset; each session and direction has its
//! own seed.

/// A stream of pseudo-random bytes that can be entered anywhere.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pattern {
    seed: u64,
}

impl Pattern {
    /// The stream of this seed.
    pub fn new(seed: u64) -> Self {
        Self { seed }
    }

    /// Fills `buffer` with the bytes from `offset` on, which must be a multiple of eight.
    pub fn fill(self, offset: u64, buffer: &mut [u8]) {
        debug_assert_eq!(offset % 8, 0, "words are hashed whole");
        let first = offset / 8;
        for (index, word) in (first..).zip(buffer.chunks_mut(8)) {
            let bytes = self.word(index).to_le_bytes();
            word.copy_from_slice(&bytes[..word.len()]);
        }
    }

    /// Where `data`, which begins at `offset`, first differs from the stream.
    pub fn first_difference(self, offset: u64, data: &[u8], scratch: &mut Vec<u8>) -> Option<u64> {
        let skipped = offset % 8;
        let skip = usize::try_from(skipped).expect("less than eight");
        scratch.resize(skip + data.len(), 0);
        self.fill(offset - skipped, scratch);
        let expected = &scratch[skip..];
        if expected == data {
            return None;
        }
        (offset..)
            .zip(expected.iter().zip(data))
            .find(|(_, (a, b))| a != b)
            .map(|(at, _)| at)
    }

    /// SplitMix64: cheap, and one flipped bit of seed or index changes every byte.
    fn word(self, index: u64) -> u64 {
        let mut z = self
            .seed
            .wrapping_add(index.wrapping_mul(0x9e37_79b9_7f4a_7c15));
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }
}
