//! Fuzzing on the stable compiler: damages valid inputs and feeds them to a decoder until the time is
//! up. Every decoder of untrusted bytes has a test made of it.
//!
//! It must not know any format: a corpus of valid inputs is the caller's, and so is what must hold.
//!
//! `FUZZ_SECONDS` says how long (2 by default), `FUZZ_SEED` where to start. Each round depends on seed
//! and round alone, so a failure is repeated with the `FUZZ_SEED` and `FUZZ_ROUND` that it prints.

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::time::Duration;

use host::clock;
use host::rng::Rng;

/// Numbers at which lengths and counts go wrong.
const EDGES: [u64; 10] = [
    0,
    1,
    0x7f,
    0x80,
    0xff,
    0x7fff,
    0x7fff_ffff,
    0x8000_0000,
    0xffff_ffff,
    u64::MAX,
];
/// More changes in one input rarely get past the first check.
const CHANGES_MAX: u64 = 6;
const SECONDS_DEFAULT: u64 = 2;
const SEED_DEFAULT: u64 = 1;

/// Damages members of `corpus` and runs `target` on each until `FUZZ_SECONDS` have passed; the corpus
/// itself comes first, unchanged.
///
/// # Panics
/// If `target` does, after printing how to repeat it.
pub fn fuzz(name: &str, corpus: &[Vec<u8>], target: impl Fn(&[u8])) {
    assert!(!corpus.is_empty(), "{name} needs a valid input to damage");
    let seed = setting("FUZZ_SEED").unwrap_or(SEED_DEFAULT);
    if let Some(round) = setting("FUZZ_ROUND") {
        return target(&input_of(seed, round, corpus));
    }
    let budget = Duration::from_secs(setting("FUZZ_SECONDS").unwrap_or(SECONDS_DEFAULT));
    let started = clock::now();
    let mut round = 0;
    while round < corpus.len() as u64 || clock::now().since(started) < budget {
        let input = input_of(seed, round, corpus);
        let outcome = catch_unwind(AssertUnwindSafe(|| target(&input)));
        if let Err(panic) = outcome {
            eprintln!(
                "{name}: repeat with FUZZ_SEED={seed} FUZZ_ROUND={round}; input {input:02x?}"
            );
            resume_unwind(panic);
        }
        round += 1;
    }
    println!("{name}: {round} rounds from FUZZ_SEED={seed}");
}

fn setting(name: &str) -> Option<u64> {
    let value = std::env::var(name).ok()?;
    Some(
        value
            .parse()
            .unwrap_or_else(|_| panic!("{name} is not a number: {value}")),
    )
}

fn input_of(seed: u64, round: u64, corpus: &[Vec<u8>]) -> Vec<u8> {
    if let Some(valid) = corpus.get(round as usize) {
        return valid.clone();
    }
    let mut rng = Rng::seeded(seed ^ round.wrapping_mul(0x9e37_79b9_7f4a_7c15));
    mutate(corpus, &mut rng)
}

/// A damaged copy of some member of `corpus`: bits, bytes, numbers at their edges, pieces cut out,
/// repeated or taken from another member.
pub fn mutate(corpus: &[Vec<u8>], rng: &mut Rng) -> Vec<u8> {
    let pick = |rng: &mut Rng| &corpus[rng.below(corpus.len() as u64) as usize];
    let mut input = pick(rng).clone();
    for _ in 0..=rng.below(CHANGES_MAX) {
        let at = rng.below(input.len() as u64 + 1) as usize;
        let end = at + rng.below((input.len() - at) as u64 + 1) as usize;
        match rng.below(8) {
            0 => flip_bit(&mut input, at, rng),
            1 => overwrite(&mut input, at, &[rng.next_u64() as u8]),
            2 | 3 => overwrite(&mut input, at, &edge(rng)),
            4 => input.truncate(at),
            5 => drop(input.drain(at..end)),
            6 => {
                let piece = input[at..end].to_vec();
                input.splice(at..at, piece);
            }
            _ => {
                let other = pick(rng);
                let from = rng.below(other.len() as u64 + 1) as usize;
                input.truncate(at);
                input.extend_from_slice(&other[from..]);
            }
        }
    }
    input
}

fn flip_bit(input: &mut [u8], at: usize, rng: &mut Rng) {
    if let Some(byte) = input.get_mut(at) {
        *byte ^= 1 << rng.below(8);
    }
}

fn overwrite(input: &mut [u8], at: usize, bytes: &[u8]) {
    for (slot, byte) in input[at..].iter_mut().zip(bytes) {
        *slot = *byte;
    }
}

/// A number at an edge, or next to one, in one of the usual encodings.
fn edge(rng: &mut Rng) -> Vec<u8> {
    let value = EDGES[rng.below(EDGES.len() as u64) as usize].wrapping_sub(rng.below(3));
    match rng.below(6) {
        0 => vec![value as u8],
        1 => (value as u16).to_be_bytes().to_vec(),
        2 => (value as u32).to_be_bytes().to_vec(),
        3 => (value as u32).to_le_bytes().to_vec(),
        4 => value.to_be_bytes().to_vec(),
        _ => {
            let mut rest = value;
            let mut bytes = Vec::new();
            while rest > 0x7f {
                bytes.push(rest as u8 | 0x80);
                rest >>= 7;
            }
            bytes.push(rest as u8);
            bytes
        }
    }
}
