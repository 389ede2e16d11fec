//! Choosing among a vocabulary's tokens in passes that read it from front to back, without sorting it.

/// A token that may be chosen.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Candidate {
    pub(super) id: u32,
    /// Its share, of whatever the candidates' shares add up to.
    pub(super) probability: f32,
}

/// Scores that are looked at together: few enough for the first-level cache, enough to skip most of a vocabulary.
pub(super) const BLOCK: usize = 128;

/// The first index of the highest score.
pub(super) fn most_likely(scores: &[f32]) -> u32 {
    let highest = maximum(scores);
    // Whether a block has it takes no branch for each score.
    let has = |block: &[f32]| block.iter().fold(false, |has, &score| has | (score == highest));
    let block = BLOCK * scores.chunks(BLOCK).position(has).unwrap_or(0);
    let in_block = scores[block..].iter().position(|&score| score == highest);
    (block + in_block.unwrap_or(0)) as u32
}

/// The highest of `scores`, in lanes that do not wait for each other.
pub(super) fn maximum(scores: &[f32]) -> f32 {
    let (lanes, rest) = scores.as_chunks::<16>();
    let mut highest = [f32::NEG_INFINITY; 16];
    for scores in lanes {
        for (highest, score) in highest.iter_mut().zip(scores) {
            *highest = if *score > *highest { *score } else { *highest };
        }
    }
    highest.iter().chain(rest).copied().fold(f32::NEG_INFINITY, f32::max)
}

/// The candidates' probabilities together.
pub(super) fn mass(candidates: &[Candidate]) -> f64 {
    candidates.chunks(BLOCK).map(|block| sum(block.iter().map(|candidate| candidate.probability))).sum()
}

/// A sum in lanes that do not wait for each other, in an order of its own that never changes.
pub(super) fn sum(values: impl Iterator<Item = f32>) -> f64 {
    let mut lanes = [0.0; 8];
    for (index, value) in values.enumerate() {
        lanes[index % 8] += f64::from(value);
    }
    lanes.iter().sum()
}

/// Keeps the most likely candidates until `enough(count, mass)` of them are kept; of equal ones, the lower ids.
///
/// Probabilities fall into buckets by exponent and three bits of mantissa. One pass adds up the buckets, a walk from
/// the top finds the one in which `enough` is reached, and only that one is sorted. What is kept stays in the order
/// of ids but for that bucket, which comes last.
pub(super) fn cut(candidates: &mut Vec<Candidate>, enough: impl Fn(usize, f64) -> bool) {
    const BUCKETS: usize = 1 << 11;
    let bucket = |candidate: &Candidate| (candidate.probability.to_bits() >> 20) as usize;
    let mut buckets = [(0usize, 0f64); BUCKETS];
    for candidate in candidates.iter() {
        let (count, mass) = &mut buckets[bucket(candidate)];
        *count += 1;
        *mass += f64::from(candidate.probability);
    }
    let (mut count, mut mass) = (0, 0.0);
    let Some(boundary) = (0..BUCKETS).rev().find(|&bucket| {
        let with_bucket = (count + buckets[bucket].0, mass + buckets[bucket].1);
        if buckets[bucket].0 > 0 && enough(with_bucket.0, with_bucket.1) {
            return true;
        }
        (count, mass) = with_bucket;
        false
    }) else {
        return;
    };
    let mut on_boundary: Vec<_> =
        candidates.iter().copied().filter(|candidate| bucket(candidate) == boundary).collect();
    candidates.retain(|candidate| bucket(candidate) > boundary);
    on_boundary.sort_unstable_by(|a, b| b.probability.total_cmp(&a.probability).then(a.id.cmp(&b.id)));
    for candidate in on_boundary {
        if enough(count, mass) && count > 0 {
            break;
        }
        count += 1;
        mass += f64::from(candidate.probability);
        candidates.push(candidate);
    }
}
