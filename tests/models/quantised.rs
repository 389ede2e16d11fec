//! Quantised models: the same bits in every build and browser, and close to f32.

use super::{bits, run, sampled, trace};
use crate::fixture::{Fixture, GPT2_A, GPT2_B, OPT_A, OPT_B};
use vitrine::{Candidate, Precision, Session};
#[cfg(target_arch = "wasm32")]
use wasm_bindgen_test::wasm_bindgen_test as test;

const FIXTURES: [&Fixture; 4] = [&GPT2_A, &GPT2_B, &OPT_A, &OPT_B];

fn load(fixture: &Fixture, precision: Precision) -> Session {
    let candidate = Candidate::open(fixture.with(&[])).expect("a candidate");
    candidate.load(precision, &mut |_, _| {}).expect("a session")
}

fn logits(session: &mut Session, ids: &[u32], chunk: usize) -> Vec<Vec<f32>> {
    trace(session, ids, chunk).pop().expect("logits come last").1
}

/// FNV-1a over the bits of all values.
fn hash(rows: &[Vec<f32>]) -> u64 {
    let bytes = rows.iter().flatten().flat_map(|value| value.to_bits().to_le_bytes());
    bytes.fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3))
}

/// Recorded from this crate, natively; the browsers and both wasm builds must give the same.
#[test]
fn logits_are_the_same_bits_on_every_platform() {
    let found: Vec<_> = [Precision::Q8, Precision::Q4]
        .iter()
        .map(|&precision| {
            FIXTURES.map(|fixture| {
                let ids = fixture.expected().long.ids;
                format!("{:016x}", hash(&logits(&mut load(fixture, precision), &ids, ids.len())))
            })
        })
        .collect();
    let expected = [
        ["4561e8e4ed5e3bf2", "baa475f14a7c4354", "74a6c73f430e9aff", "fc620b009bd127e8"],
        ["4895405ce5d532c1", "21ade6c59fad3a27", "7080a8461034fe1f", "8eaea6895e507f5f"],
    ];
    assert_eq!(found, expected);
}

#[test]
fn token_by_token_chunked_and_whole_agree_to_the_bit() {
    for precision in [Precision::Q8, Precision::Q4] {
        for fixture in FIXTURES {
            let ids = fixture.expected().long.ids;
            let mut session = load(fixture, precision);
            let whole = bits(&logits(&mut session, &ids, ids.len()));
            for chunk in [1, 3, 16] {
                let chunked = bits(&logits(&mut session, &ids, chunk));
                assert!(chunked == whole, "{} in {precision:?}, chunks of {chunk}", fixture.name);
            }
        }
    }
}

#[test]
fn a_seed_draws_the_same_text_on_every_platform() {
    let (q8, ..) = run(&mut load(&GPT2_A, Precision::Q8), "The lamp in the window", &sampled(7));
    let (q4, ..) = run(&mut load(&GPT2_A, Precision::Q4), "The lamp in the window", &sampled(7));
    let expected = [
        16, 16, 93, 283, 301, 259, 29, 81, 325, 311, 11, 281, 290, 4, 69, 54, 54, 54, 54, 283, 283, 283, 58,
        58, 283, 283, 283, 54, 54, 54, 54, 54,
    ];
    assert_eq!(q8, expected);
    let expected = [
        16, 16, 93, 283, 301, 259, 29, 43, 8, 93, 93, 93, 93, 4, 69, 69, 89, 29, 307, 74, 74, 74, 58, 58,
        283, 283, 283, 54, 54, 54, 269, 93,
    ];
    assert_eq!(q4, expected);
}

/// The mean error of the logits beside their spread: what quantising these random weights costs, which is the same on every platform. The
/// bounds are the largest that was found and a third; the post-norm form scales an error up with every block.
#[test]
fn logits_are_close_to_those_of_f32() {
    for (precision, pre_norm, post_norm) in [(Precision::Q8, 0.013, 0.034), (Precision::Q4, 0.2, 0.51)] {
        for fixture in FIXTURES {
            let bound = if fixture.name == OPT_B.name { post_norm } else { pre_norm };
            let ids = fixture.expected().long.ids;
            let exact = logits(&mut fixture.load(), &ids, ids.len()).concat();
            let found = logits(&mut load(fixture, precision), &ids, ids.len()).concat();
            let squares =
                |values: &mut dyn Iterator<Item = f32>| values.map(|x| f64::from(x * x)).sum::<f64>();
            let error = squares(&mut exact.iter().zip(&found).map(|(exact, found)| exact - found));
            let share = (error / squares(&mut exact.iter().copied())).sqrt();
            assert!(share < bound, "{} in {precision:?}: {share}", fixture.name);
        }
    }
}

#[test]
fn a_quantised_model_says_so_and_is_smaller() {
    let bytes = |precision| {
        let info = load(&GPT2_A, precision).info();
        assert_eq!(info.precision, precision);
        info.bytes.weights
    };
    let [f32, q8, q4] = Precision::ALL.map(bytes);
    assert!(q8 < f32 / 2 && q4 < q8, "{f32}, {q8}, {q4}");
}
