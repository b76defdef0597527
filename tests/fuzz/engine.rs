//! Makes inputs out of inputs: those that came out in a way nobody has seen yet are made further
//! ones of.
//!
//! The corpus of a target, `tests/fuzz/corpus/NAME`, is tried first, file by file; an input that
//! broke something belongs there once that is repaired.

use std::{
    collections::HashSet,
    env, fs,
    hash::{BuildHasher, RandomState},
    panic::{AssertUnwindSafe, catch_unwind, resume_unwind},
    path::Path,
    time::{Duration, Instant},
};

use super::harness::figure;

/// How long each target is tried with new inputs, in seconds: `TML_PROXY_FUZZ_SECONDS`.
const SECONDS: u64 = 3;

/// The longest input that is made, in bytes.
const LONGEST: usize = 8 << 10;

/// What takes inputs from outside.
pub struct Target<'t> {
    /// The name of its corpus.
    pub name: &'static str,
    /// What inputs are made of, beside parts of each other.
    pub words: &'t [&'t str],
    /// Inputs that are no files of the corpus.
    pub more: Vec<Vec<u8>>,
}

impl Target<'_> {
    /// Tries the corpus and then what can be made of it. `attempt` panics if something is wrong and
    /// says otherwise how it came out; the words for that are few.
    #[track_caller]
    pub fn fuzz(&self, mut attempt: impl FnMut(&[u8]) -> String) {
        let mut pool = Vec::new();
        let mut seen = HashSet::new();
        let mut inputs = 0_u64;
        let mut random = Random::start();
        let mut run = |input: Vec<u8>, origin: &str, keep: bool, pool: &mut Vec<Vec<u8>>| {
            inputs += 1;
            match catch_unwind(AssertUnwindSafe(|| attempt(&input))) {
                Ok(outcome) => {
                    if seen.insert(outcome) || keep {
                        pool.push(input);
                    }
                }
                Err(panic) => {
                    eprintln!("{}, {origin}: \"{}\"", self.name, input.escape_ascii());
                    resume_unwind(panic);
                }
            }
        };
        for (name, input) in self.corpus() {
            run(input, &name, true, &mut pool);
        }
        for input in &self.more {
            run(input.clone(), "given", true, &mut pool);
        }
        assert!(!pool.is_empty(), "no corpus");
        let origin = format!("made with TML_PROXY_FUZZ_SEED={}", random.seed);
        let until = Instant::now() + seconds();
        while Instant::now() < until {
            let input = self.make(&pool, &mut random);
            run(input, &origin, false, &mut pool);
        }
        println!("{}: {origin}", self.name);
        figure(
            &format!(
                "inputs made up for `{}`, with {} kinds of outcome",
                self.name,
                seen.len()
            ),
            inputs,
        );
    }

    fn corpus(&self) -> Vec<(String, Vec<u8>)> {
        let directory = Path::new(env!("CARGO_MANIFEST_DIR"))
            .join("tests/fuzz/corpus")
            .join(self.name);
        let Ok(entries) = fs::read_dir(directory) else {
            return Vec::new();
        };
        let mut files: Vec<_> = entries
            .map(|entry| {
                let entry = entry.expect("a readable directory");
                let name = entry.file_name().to_string_lossy().into_owned();
                (name, fs::read(entry.path()).expect("a readable file"))
            })
            .collect();
        files.sort();
        files
    }

    fn make(&self, pool: &[Vec<u8>], random: &mut Random) -> Vec<u8> {
        let mut input = pool[random.below(pool.len())].clone();
        for _ in 0..=random.below(4) {
            self.change(&mut input, pool, random);
        }
        input.truncate(LONGEST);
        input
    }

    fn change(&self, input: &mut Vec<u8>, pool: &[Vec<u8>], random: &mut Random) {
        let start = random.below(input.len() + 1);
        let end = (start + random.below(32)).min(input.len());
        match random.below(9) {
            0 if start < input.len() => input[start] ^= 1 << random.below(8),
            1 if start < input.len() => input[start] = random.odd_byte(),
            2 => input.insert(start, random.odd_byte()),
            3 => drop(input.drain(start..end)),
            4 => input.truncate(start),
            5 => {
                let again = input[start..end].to_vec();
                let times = 1 + random.below(3);
                input.splice(start..start, again.repeat(times));
            }
            6 => {
                let other = &pool[random.below(pool.len())];
                let from = random.below(other.len() + 1);
                let to = (from + random.below(64)).min(other.len());
                input.splice(start..end, other[from..to].iter().copied());
            }
            _ if !self.words.is_empty() => {
                let word = self.words[random.below(self.words.len())];
                input.splice(start..end.min(start + word.len()), word.bytes());
            }
            _ => {}
        }
    }
}

fn seconds() -> Duration {
    let seconds = env::var("TML_PROXY_FUZZ_SECONDS").map_or(SECONDS, |seconds| {
        seconds.parse().expect("TML_PROXY_FUZZ_SECONDS: a number")
    });
    Duration::from_secs(seconds)
}

/// xorshift.
pub struct Random {
    seed: u64,
    state: u64,
}

impl Random {
    fn start() -> Self {
        let seed = env::var("TML_PROXY_FUZZ_SEED").map_or_else(
            |_| RandomState::new().hash_one(0_u8),
            |seed| seed.parse().expect("TML_PROXY_FUZZ_SEED: a number"),
        );
        Self {
            seed,
            // A state of 0 would stay 0.
            state: seed | 1,
        }
    }

    fn next(&mut self) -> u64 {
        self.state ^= self.state << 13;
        self.state ^= self.state >> 7;
        self.state ^= self.state << 17;
        self.state
    }

    fn below(&mut self, end: usize) -> usize {
        // Less than `end`, which is a length.
        (self.next() % end.max(1) as u64) as usize
    }

    fn odd_byte(&mut self) -> u8 {
        const ODD: &[u8] = b"\0\t\n\r \"#%',-./0129:;<=>?@AZ[\\]_az{|}~\x7f\x80\xc3\xff";
        ODD[self.below(ODD.len())]
    }
}
