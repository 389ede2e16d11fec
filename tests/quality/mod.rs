//! What a precision costs, against f32 on the same text.

use vitrine::{Result, Session};

/// How far a precision's predictions are from those of f32.
#[derive(Debug)]
pub(crate) struct Quality {
    /// Perplexity in this precision over that in f32, less 1.
    pub(crate) perplexity_change: f64,
    /// Mean Kullback-Leibler divergence of the predictions from those of f32, in nats.
    pub(crate) divergence: f64,
    /// Positions at which the most likely token is the same.
    pub(crate) top_1_agreement: f64,
    /// Perplexity in this precision.
    pub(crate) perplexity: f64,
    /// Positions compared.
    pub(crate) positions: usize,
}

/// Log-probabilities of every token at every position of `ids` but the last, in windows of the context.
fn predictions(session: &mut Session, ids: &[u32]) -> Result<Vec<Vec<f64>>> {
    let context = session.info().shape.context;
    let mut predictions = Vec::new();
    for window in ids.chunks(context) {
        let logits = session.trace(window, 64, &mut |_, _| {})?;
        let rows: Vec<Vec<f32>> = logits.to_vec2()?;
        for row in &rows[..window.len() - 1] {
            let largest = row.iter().copied().fold(f32::NEG_INFINITY, f32::max);
            let total: f64 = row.iter().map(|x| f64::from(x - largest).exp()).sum();
            predictions.push(row.iter().map(|x| f64::from(x - largest) - total.ln()).collect());
        }
    }
    Ok(predictions)
}

fn most_likely(row: &[f64]) -> Option<usize> {
    (0..row.len()).max_by(|&a, &b| row[a].total_cmp(&row[b]))
}

/// Compares each of `sessions` with `exact`, a session of the same model in f32, on `text`.
///
/// # Errors
/// Those of reading.
pub(crate) fn compare(exact: &mut Session, sessions: &mut [Session], text: &str) -> Result<Vec<Quality>> {
    let ids: Vec<u32> = exact.tokenize(text)?.iter().map(|piece| piece.id).collect();
    let context = exact.info().shape.context;
    let following: Vec<u32> = ids.chunks(context).flat_map(|window| window[1..].to_vec()).collect();
    let reference = predictions(exact, &ids)?;
    let positions = following.len();
    let perplexity = |rows: &[Vec<f64>]| {
        let nats: f64 = rows.iter().zip(&following).map(|(row, &id)| -row[id as usize]).sum();
        (nats / positions as f64).exp()
    };
    let mut results = Vec::new();
    for session in sessions {
        let found = predictions(session, &ids)?;
        let pairs = || reference.iter().zip(&found);
        let divergence =
            |(p, q): (&Vec<f64>, &Vec<f64>)| -> f64 { p.iter().zip(q).map(|(p, q)| p.exp() * (p - q)).sum() };
        let agreeing = pairs().filter(|(p, q)| most_likely(p) == most_likely(q)).count();
        results.push(Quality {
            perplexity_change: perplexity(&found) / perplexity(&reference) - 1.0,
            divergence: pairs().map(divergence).sum::<f64>() / positions as f64,
            top_1_agreement: agreeing as f64 / positions as f64,
            perplexity: perplexity(&found),
            positions,
        });
    }
    Ok(results)
}
