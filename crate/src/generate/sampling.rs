//! Which token comes next.
//!
//! The rules apply in the order of Hugging Face's processors: repetition penalty, temperature, top-k, top-p, min-p.
//! None of them sorts the vocabulary: see [`cut`].

use crate::error::{Error, Result};
use crate::kernels::VectorKernel;
use crate::layers::{Kernels, with_values};
use candle_core::Tensor;
use rand_xoshiro::Xoshiro256PlusPlus;
use rand_xoshiro::rand_core::{RngCore, SeedableRng};

/// How the next token is chosen.
#[derive(Clone, Debug, PartialEq)]
pub struct Sampling {
    /// Divides the logits: 0 always takes the most likely token, 1 is the model's own distribution.
    pub temperature: f32,
    /// Only the `k` most likely tokens, if given.
    pub top_k: Option<usize>,
    /// Only the most likely tokens that together have this probability, if given (Holtzman et al., 2019).
    pub top_p: Option<f32>,
    /// Only tokens at least this probable relative to the most likely one, if given (Nguyen et al., 2024).
    pub min_p: Option<f32>,
    /// Positive logits of tokens already in the text are divided by it, negative ones multiplied
    /// (Keskar et al., 2019). 1 changes nothing.
    pub repetition_penalty: f32,
    /// The same seed gives the same text, in every browser. (The two wasm builds may round f32 differently.)
    pub seed: u64,
}

impl Default for Sampling {
    fn default() -> Self {
        Self { temperature: 0.8, top_k: None, top_p: None, min_p: None, repetition_penalty: 1.0, seed: 0 }
    }
}

impl Sampling {
    /// Always the most likely token.
    pub fn greedy() -> Self {
        Self { temperature: 0.0, ..Self::default() }
    }

    /// Refuses values that mean nothing.
    pub(super) fn check(&self) -> Result<()> {
        let within = |name: &str, value: f32, low: f32, high: f32| {
            if (low..=high).contains(&value) {
                return Ok(());
            }
            Err(Error::Request(format!("{name}: expected {low} to {high}, found {value}")))
        };
        within("temperature", self.temperature, 0.0, 100.0)?;
        within("repetition penalty", self.repetition_penalty, 0.01, 100.0)?;
        within("top-p", self.top_p.unwrap_or(1.0), f32::MIN_POSITIVE, 1.0)?;
        within("min-p", self.min_p.unwrap_or(0.0), 0.0, 1.0)?;
        if self.top_k == Some(0) {
            return Err(Error::Request("top-k: expected at least 1, found 0".to_owned()));
        }
        Ok(())
    }
}

/// The token that was chosen.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Choice {
    /// Its id.
    pub id: u32,
    /// Natural logarithm of its probability under the model, before any rule.
    pub logprob: f32,
}

/// Chooses tokens one after the other.
pub struct Sampler {
    sampling: Sampling,
    random: Xoshiro256PlusPlus,
    vector: &'static dyn VectorKernel,
    /// Ids in the text so far, each once.
    seen: Vec<u32>,
    is_seen: Vec<bool>,
    /// Logits, then probabilities, of the whole vocabulary.
    scores: Vec<f32>,
    candidates: Vec<Candidate>,
}

#[derive(Clone, Copy, Debug, PartialEq)]
struct Candidate {
    id: u32,
    probability: f32,
}

impl Sampler {
    /// A sampler at the start of its seed's sequence.
    pub fn new(sampling: Sampling, kernels: Kernels) -> Self {
        let random = Xoshiro256PlusPlus::seed_from_u64(sampling.seed);
        let (seen, is_seen, scores, candidates) = Default::default();
        Self { sampling, random, vector: kernels.vector, seen, is_seen, scores, candidates }
    }

    /// The same sampler, to which `ids` count as repeated.
    pub fn with_context(mut self, ids: &[u32]) -> Self {
        ids.iter().for_each(|&id| self.see(id));
        self
    }

    /// Chooses a token; `logits` is `[1, vocabulary]`.
    ///
    /// # Errors
    /// [`Error::File`] where the logits are not numbers, as with damaged weights.
    pub fn sample(&mut self, logits: &Tensor) -> Result<Choice> {
        with_values(logits, |logits| {
            let log_total = self.vector.log_sum_exp(logits);
            if !log_total.is_finite() {
                return Err(Error::file("model", "its scores are not numbers: the weights are damaged"));
            }
            let id = self.choose(logits);
            self.see(id);
            Ok(Choice { id, logprob: logits[id as usize] - log_total })
        })
    }

    fn choose(&mut self, logits: &[f32]) -> u32 {
        self.scores.clear();
        self.scores.extend_from_slice(logits);
        self.penalise_repetition();
        if self.sampling.temperature == 0.0 {
            return most_likely(&self.scores);
        }
        // Scaling the distance to the highest logit, not the logit, cannot overflow to infinity twice.
        let highest = self.scores[most_likely(&self.scores) as usize];
        let scale = self.sampling.temperature.recip();
        self.scores.iter_mut().for_each(|score| *score = (*score - highest) * scale);
        self.vector.softmax(&mut self.scores);
        self.collect_candidates();
        if let Some(k) = self.sampling.top_k {
            cut(&mut self.candidates, |count, _| count >= k);
        }
        if let Some(top_p) = self.sampling.top_p {
            let total: f64 = self.candidates.iter().map(|candidate| f64::from(candidate.probability)).sum();
            let enough = total * f64::from(top_p);
            cut(&mut self.candidates, |_, mass| mass >= enough);
        }
        if let Some(min_p) = self.sampling.min_p {
            let highest = self.candidates.iter().map(|candidate| candidate.probability).fold(0.0, f32::max);
            self.candidates.retain(|candidate| candidate.probability >= min_p * highest);
        }
        self.draw()
    }

    fn penalise_repetition(&mut self) {
        let penalty = self.sampling.repetition_penalty;
        if penalty != 1.0 {
            for &id in &self.seen {
                if let Some(score) = self.scores.get_mut(id as usize) {
                    *score = if *score > 0.0 { *score / penalty } else { *score * penalty };
                }
            }
        }
    }

    /// Every token that is possible at all.
    fn collect_candidates(&mut self) {
        self.candidates.clear();
        let scores = self.scores.iter().zip(0..);
        let possible = scores.filter(|(probability, _)| **probability > 0.0);
        self.candidates.extend(possible.map(|(&probability, id)| Candidate { id, probability }));
    }

    /// Draws one of the candidates by its share.
    fn draw(&mut self) -> u32 {
        let total: f64 = self.candidates.iter().map(|candidate| f64::from(candidate.probability)).sum();
        // 53 random bits: every f64 in [0, 1) that is a multiple of 2^-53.
        let uniform = (self.random.next_u64() >> 11) as f64 / (1u64 << 53) as f64;
        let mut rest = uniform * total;
        for candidate in &self.candidates {
            rest -= f64::from(candidate.probability);
            if rest < 0.0 {
                return candidate.id;
            }
        }
        self.candidates.last().expect("the most likely token is a candidate").id
    }

    fn see(&mut self, id: u32) {
        let index = id as usize;
        if index >= self.is_seen.len() {
            self.is_seen.resize(index + 1, false);
        }
        if !std::mem::replace(&mut self.is_seen[index], true) {
            self.seen.push(id);
        }
    }
}

impl std::fmt::Debug for Sampler {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Sampler").field("sampling", &self.sampling).finish_non_exhaustive()
    }
}

/// The first index of the highest score.
fn most_likely(scores: &[f32]) -> u32 {
    let highest = scores.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    scores.iter().position(|&score| score == highest).unwrap_or(0) as u32
}

/// Keeps the most likely candidates until `enough(count, mass)` of them are kept; of equal ones, the lower ids.
///
/// Probabilities fall into buckets by exponent and three bits of mantissa. One pass adds up the buckets, a walk from
/// the top finds the one in which `enough` is reached, and only that one is sorted. What is kept stays in the order
/// of ids but for that bucket, which comes last.
fn cut(candidates: &mut Vec<Candidate>, enough: impl Fn(usize, f64) -> bool) {
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
