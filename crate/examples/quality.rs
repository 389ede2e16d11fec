//! What quantising a model costs, measured against f32 on a text.
//!
//! ```text
//! cargo run --release --example quality -- www/models/storyteller story.txt
//! ```

#[cfg(not(target_arch = "wasm32"))]
#[path = "../../tests/quality/mod.rs"]
mod quality;

#[cfg(target_arch = "wasm32")]
fn main() {
    // A page has no terminal; `wasm-pack test` builds the examples all the same.
}

#[cfg(not(target_arch = "wasm32"))]
fn main() -> Result<(), Box<dyn std::error::Error>> {
    use vitrine::{Candidate, Files, Precision};

    let mut arguments = std::env::args().skip(1);
    let (Some(folder), Some(file)) = (arguments.next(), arguments.next()) else {
        return Err("usage: quality FOLDER TEXT".into());
    };
    let text = std::fs::read_to_string(file)?;
    let load = |precision| Candidate::open(Files::from_directory(&folder)?)?.load(precision, &mut |_, _| {});
    let mut sessions = Precision::ALL.into_iter().map(load).collect::<vitrine::Result<Vec<_>>>()?;
    let found = quality::compare(&mut load(Precision::F32)?, &mut sessions, &text)?;
    println!("precision  perplexity  change    divergence  same top token");
    for (precision, quality) in Precision::ALL.into_iter().zip(found) {
        println!(
            "{:<11}{:<12.4}{:<+10.4}{:<12.6}{:.2} % of {}",
            precision.name(),
            quality.perplexity,
            quality.perplexity_change,
            quality.divergence,
            100.0 * quality.top_1_agreement,
            quality.positions
        );
    }
    Ok(())
}
