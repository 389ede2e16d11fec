//! Which token comes next.
//!
//! The rules apply in the order of Hugging Face's processors: repetition penalty, temperature, top-k, top-p, min-p.
//! None of them sorts the vocabulary: see `candidates`.

use super::candidates::{BLOCK, Candidate, cut, mass, maximum, most_likely, sum};
use super::finite;
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
        let top_p = self.top_p.unwrap_or(1.0);
        if !(top_p > 0.0 && top_p <= 1.0) {
            return Err(Error::Request(format!("top-p: expected above 0 and at most 1, found {top_p}")));
        }
        within("min-p", self.min_p.unwrap_or(0.0), 0.0, 1.0)?;
        if self.top_k == Some(0) {
            return Err(Error::Request("top-k: expected at least 1, found 0".to_owned()));
        }
        Ok(())
    }
}

/// Below this temperature only the most likely token is possible, and dividing by it would leave the range of f32.
const COLDEST: f32 = 1e-6;

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
            let log_total = finite(self.vector.log_sum_exp(logits))?;
            let id = self.choose(logits);
            self.see(id);
            Ok(Choice { id, logprob: logits[id as usize] - log_total })
        })
    }

    fn choose(&mut self, logits: &[f32]) -> u32 {
        let greedy = self.sampling.temperature < COLDEST;
        if greedy && self.sampling.repetition_penalty == 1.0 {
            return most_likely(logits);
        }
        self.scores.clear();
        self.scores.extend_from_slice(logits);
        self.penalise_repetition();
        if greedy {
            return most_likely(&self.scores);
        }
        // Scaling the distance to the highest logit, not the logit, cannot overflow to infinity twice.
        let highest = self.scores[most_likely(&self.scores) as usize];
        let scale = self.sampling.temperature.recip();
        self.scores.iter_mut().for_each(|score| *score = (*score - highest) * scale);
        self.vector.softmax(&mut self.scores);
        let total = self.scores.chunks(BLOCK).map(|block| sum(block.iter().copied())).sum::<f64>();
        self.collect_candidates(total);
        if let Some(k) = self.sampling.top_k {
            cut(&mut self.candidates, |count, _| count >= k);
        }
        if let Some(top_p) = self.sampling.top_p {
            let enough =
                f64::from(top_p) * if self.sampling.top_k.is_some() { mass(&self.candidates) } else { total };
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

    /// Every token that top-k or top-p may keep; without them, every token that is possible at all.
    fn collect_candidates(&mut self, total: f64) {
        let mut least = f32::MIN_POSITIVE;
        if let Some(k) = self.sampling.top_k {
            // The k-th highest of the blocks' highest is not above the k-th highest of all.
            let mut highest: Vec<f32> = self.scores.chunks(BLOCK).map(maximum).collect();
            if k <= highest.len() {
                let (_, bound, _) = highest.select_nth_unstable_by(k - 1, |a, b| b.total_cmp(a));
                least = least.max(*bound);
            }
        } else if let Some(top_p) = self.sampling.top_p {
            // All tokens below this together have less than half of what top-p leaves out.
            let share = 0.5 * (1.0 - f64::from(top_p)) / self.scores.len() as f64;
            least = least.max((total * share) as f32);
        }
        self.candidates.clear();
        for (block, first) in self.scores.chunks(BLOCK).zip((0..).step_by(BLOCK)) {
            if maximum(block) >= least {
                let kept = block.iter().zip(first..).filter(|(probability, _)| **probability >= least);
                self.candidates.extend(kept.map(|(&probability, id)| Candidate { id, probability }));
            }
        }
    }

    /// Draws one of the candidates by its share.
    fn draw(&mut self) -> u32 {
        // 53 random bits: every f64 in [0, 1) that is a multiple of 2^-53.
        let uniform = (self.random.next_u64() >> 11) as f64 / (1u64 << 53) as f64;
        let mut rest = uniform * mass(&self.candidates);
        for block in self.candidates.chunks(BLOCK) {
            let of_block = mass(block);
            if rest >= of_block {
                rest -= of_block;
                continue;
            }
            for candidate in block {
                rest -= f64::from(candidate.probability);
                if rest < 0.0 {
                    return candidate.id;
                }
            }
        }
        // Rounding left a rest, or every probability was lost in it, as it can be with absurd penalties.
        self.candidates.last().map_or_else(|| most_likely(&self.scores), |candidate| candidate.id)
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::layers::Precision;
    use candle_core::Device;

    /// A vocabulary-sized row with the shape of a real model's logits: few likely tokens, a long tail.
    fn logits(size: usize) -> Vec<f32> {
        let mut random = Xoshiro256PlusPlus::seed_from_u64(7);
        let mut uniform = || (random.next_u64() >> 11) as f64 / (1u64 << 53) as f64;
        (0..size).map(|_| (-2.0 * uniform().max(1e-12).ln()) as f32 - 8.0).collect()
    }

    fn tensor(logits: &[f32]) -> Tensor {
        Tensor::from_slice(logits, (1, logits.len()), &Device::Cpu).expect("a tensor")
    }

    fn sampler(sampling: Sampling) -> Sampler {
        Sampler::new(sampling, Kernels::preferred(Precision::F32))
    }

    /// The ids that rules keep, by sorting everything: the obvious way.
    fn kept_by_sorting(logits: &[f32], sampling: &Sampling) -> Vec<u32> {
        let highest = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        let mut all: Vec<(u32, f64)> = (0..)
            .zip(logits)
            .map(|(id, logit)| (id, f64::from((logit - highest) / sampling.temperature).exp()))
            .collect();
        all.sort_by(|a, b| b.1.total_cmp(&a.1).then(a.0.cmp(&b.0)));
        all.truncate(sampling.top_k.unwrap_or(usize::MAX));
        if let Some(top_p) = sampling.top_p {
            let enough = all.iter().map(|entry| entry.1).sum::<f64>() * f64::from(top_p);
            let mut mass = 0.0;
            let mut kept = 0;
            while kept < all.len() && (kept == 0 || mass < enough) {
                mass += all[kept].1;
                kept += 1;
            }
            all.truncate(kept);
        }
        if let Some(min_p) = sampling.min_p {
            let least = all[0].1 * f64::from(min_p);
            all.retain(|entry| entry.1 >= least);
        }
        let mut ids: Vec<u32> = all.into_iter().map(|entry| entry.0).collect();
        ids.sort_unstable();
        ids
    }

    fn kept(logits: &[f32], sampling: Sampling) -> Vec<u32> {
        let mut sampler = sampler(sampling);
        sampler.choose(logits);
        let mut ids: Vec<_> = sampler.candidates.iter().map(|candidate| candidate.id).collect();
        ids.sort_unstable();
        ids
    }

    #[test]
    fn the_rules_keep_what_sorting_the_vocabulary_would() {
        let logits = logits(50_257);
        let base = Sampling { temperature: 1.0, ..Sampling::default() };
        for sampling in [
            Sampling { top_k: Some(1), ..base.clone() },
            Sampling { top_k: Some(40), ..base.clone() },
            Sampling { top_k: Some(20_000), ..base.clone() },
            Sampling { top_p: Some(0.1), ..base.clone() },
            Sampling { top_p: Some(0.95), temperature: 0.5, ..base.clone() },
            Sampling { min_p: Some(0.05), ..base.clone() },
            Sampling { top_k: Some(100), top_p: Some(0.5), min_p: Some(0.3), temperature: 2.0, ..base },
        ] {
            assert_eq!(kept(&logits, sampling.clone()), kept_by_sorting(&logits, &sampling), "{sampling:?}");
        }
    }

    #[test]
    fn of_equally_likely_tokens_the_lower_ids_are_kept() {
        let sampling = Sampling { temperature: 1.0, top_k: Some(3), ..Sampling::default() };
        assert_eq!(kept(&[1.0; 100], sampling), [0, 1, 2]);
    }

    #[test]
    fn greedy_takes_the_first_of_the_most_likely() {
        let mut sampler = sampler(Sampling::greedy());
        let choice = sampler.sample(&tensor(&[0.0, 3.0, 3.0, 1.0])).expect("a choice");
        assert_eq!(choice.id, 1);
    }

    #[test]
    fn the_most_likely_is_found_wherever_it_is() {
        for size in [1, BLOCK - 1, BLOCK, BLOCK + 1, 2 * BLOCK + 20] {
            for first in 0..size {
                let logits: Vec<f32> = (0..size).map(|id| if id < first { -3.0 } else { -2.0 }).collect();
                assert_eq!(most_likely(&logits) as usize, first, "of {size}");
            }
        }
    }

    #[test]
    fn the_logprob_is_that_of_the_raw_logits() {
        let logits = [0.5f32, 2.0, -1.0];
        let total: f64 = logits.iter().map(|logit| f64::from(*logit).exp()).sum();
        let sampling =
            Sampling { temperature: 3.0, top_k: Some(1), repetition_penalty: 1.5, ..Sampling::default() };
        let choice = sampler(sampling).sample(&tensor(&logits)).expect("a choice");
        let expected = 2.0 - total.ln();
        assert!((f64::from(choice.logprob) - expected).abs() < 1e-6, "{} for {expected}", choice.logprob);
    }

    #[test]
    fn a_repeated_token_is_penalised_as_candle_does() {
        let (logits, context) = ([1.0f32, -2.0, 0.5, 3.0], [1u32, 3, 3]);
        let sampling = Sampling { temperature: 0.0, repetition_penalty: 1.7, ..Sampling::default() };
        let mut sampler = sampler(sampling).with_context(&context);
        sampler.choose(&logits);
        #[cfg(not(target_arch = "wasm32"))]
        {
            let oracle = Tensor::from_slice(&logits, 4, &Device::Cpu).expect("a tensor");
            let oracle = candle_transformers::utils::apply_repeat_penalty(&oracle, 1.7, &context);
            assert_eq!(sampler.scores, oracle.expect("a penalty").to_vec1::<f32>().expect("four scores"));
        }
    }

    #[test]
    fn tokens_come_as_often_as_their_probability_says() {
        const DRAWS: usize = 20_000;
        let probabilities = [0.5f32, 0.3, 0.15, 0.05];
        let logits: Vec<f32> = probabilities.iter().map(|probability| probability.ln()).collect();
        let mut sampler = sampler(Sampling { temperature: 1.0, seed: 11, ..Sampling::default() });
        let mut counts = [0usize; 4];
        for _ in 0..DRAWS {
            counts[sampler.choose(&logits) as usize] += 1;
        }
        for (count, probability) in counts.into_iter().zip(probabilities) {
            let share = count as f32 / DRAWS as f32;
            // Four standard deviations of a binomial share.
            let slack = 4.0 * (probability * (1.0 - probability) / DRAWS as f32).sqrt();
            assert!((share - probability).abs() < slack, "{share} for {probability}");
        }
    }

    #[test]
    fn hardly_any_temperature_is_none() {
        for temperature in [1e-45, 1e-39, 1e-7, 1e-5] {
            let mut sampler = sampler(Sampling { temperature, ..Sampling::default() });
            assert_eq!(sampler.choose(&[0.0, 2.0, 1.0]), 1, "{temperature}");
        }
    }

    #[test]
    fn a_seed_gives_one_sequence_and_another_seed_another() {
        let logits = logits(1_000);
        let draw = |seed| {
            let mut sampler = sampler(Sampling { temperature: 1.0, seed, ..Sampling::default() });
            (0..20).map(|_| sampler.choose(&logits)).collect::<Vec<_>>()
        };
        assert_eq!(draw(5), draw(5));
        assert_ne!(draw(5), draw(6));
    }

    #[test]
    fn scores_that_are_not_numbers_are_an_error() {
        for logits in [[f32::NAN, 1.0], [f32::INFINITY, 1.0], [f32::NEG_INFINITY; 2]] {
            let error = sampler(Sampling::greedy()).sample(&tensor(&logits)).expect_err("damaged");
            assert_eq!(error.code(), "bad-file");
        }
    }

    #[test]
    fn values_that_mean_nothing_are_refused_by_name() {
        let base = Sampling::default();
        for (sampling, name) in [
            (Sampling { temperature: -1.0, ..base.clone() }, "temperature"),
            (Sampling { temperature: f32::NAN, ..base.clone() }, "temperature"),
            (Sampling { top_k: Some(0), ..base.clone() }, "top-k"),
            (Sampling { top_p: Some(0.0), ..base.clone() }, "top-p"),
            (Sampling { top_p: Some(1.5), ..base.clone() }, "top-p"),
            (Sampling { min_p: Some(f32::NAN), ..base.clone() }, "min-p"),
            (Sampling { repetition_penalty: 0.0, ..base.clone() }, "repetition penalty"),
        ] {
            let error = sampling.check().expect_err(name);
            assert_eq!(error.code(), "bad-request");
            assert!(error.to_string().contains(name), "{error}");
        }
    }
}
