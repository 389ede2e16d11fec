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
    use vitrine::{Files, Precision};

    let mut arguments = std::env::args().skip(1);
    let (Some(folder), Some(file)) = (arguments.next(), arguments.next()) else {
        return Err("usage: quality FOLDER TEXT".into());
    };
    let text = std::fs::read_to_string(file)?;
    println!("precision  perplexity  change    divergence  same top token");
    for (precision, quality) in quality::compare(|| Files::from_directory(&folder), &text, &Precision::ALL)? {
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
