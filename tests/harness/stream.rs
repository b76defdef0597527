//! Long byte streams that can be made and checked piecemeal, at no cost.

use std::sync::LazyLock;

/// A stream of bytes in which every few tell where they belong, so that bytes lost, doubled,
/// swapped or from another stream show where it happened.
///
/// It is made of pieces, each a different window of one block of random bytes.
#[derive(Debug, Clone)]
pub struct Stream {
    seed: u64,
    passed: u64,
}

const PIECE: usize = 64 * 1024;

static BLOCK: LazyLock<Vec<u8>> = LazyLock::new(|| {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    (0..2 * PIECE / 8)
        .flat_map(|_| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state.to_le_bytes()
        })
        .collect()
});

impl Stream {
    /// The stream of that number.
    pub fn new(seed: u64) -> Self {
        Self { seed, passed: 0 }
    }

    /// The same stream from its beginning.
    pub fn restart(&self) -> Self {
        Self::new(self.seed)
    }

    /// The first `length` bytes of that stream.
    pub fn bytes(seed: u64, length: usize) -> Vec<u8> {
        let mut stream = Self::new(seed);
        let mut bytes = Vec::with_capacity(length);
        while bytes.len() < length {
            let piece = stream.ahead(length - bytes.len());
            bytes.extend_from_slice(piece);
            stream.advance(piece.len());
        }
        bytes
    }

    /// How far it has been advanced.
    pub fn position(&self) -> u64 {
        self.passed
    }

    /// What comes next: at least one byte, at most `most`.
    pub fn ahead(&self, most: usize) -> &'static [u8] {
        let piece = self.passed / PIECE as u64;
        let within = (self.passed % PIECE as u64) as usize;
        let window = (self.seed * 40_503 + piece * 7_919) % PIECE as u64;
        let start = window as usize;
        let end = (start + PIECE).min(start + within + most);
        &BLOCK[start + within..end]
    }

    /// Goes on by `length` bytes.
    pub fn advance(&mut self, length: usize) {
        self.passed += length as u64;
    }

    /// Checks that `bytes` come next and goes on past them.
    #[track_caller]
    pub fn check(&mut self, bytes: &[u8]) {
        if let Some(at) = self.first_difference(bytes) {
            panic!("stream differs at byte {at}");
        }
    }

    /// Goes on past `bytes`, or says where they first differ from what comes next.
    pub fn first_difference(&mut self, mut bytes: &[u8]) -> Option<u64> {
        while !bytes.is_empty() {
            let expected = self.ahead(bytes.len());
            let (got, rest) = bytes.split_at(expected.len());
            if expected != got {
                let right = expected.iter().zip(got).take_while(|(a, b)| a == b).count();
                return Some(self.passed + right as u64);
            }
            self.advance(got.len());
            bytes = rest;
        }
        None
    }
}
