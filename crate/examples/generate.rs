//! Continues a prompt in a terminal, with the same [`Session`](vitrine::Session) that the page runs.
//!
//! ```text
//! cargo run --release --example generate -- www/models/storyteller "Once upon a time" [PRECISION [SEED]]
//! ```
//!
//! Without a seed it always takes the most likely token.

#[cfg(target_arch = "wasm32")]
fn main() {
    // A page has no terminal; `wasm-pack test` builds the examples all the same.
}

#[cfg(not(target_arch = "wasm32"))]
fn main() -> Result<(), Box<dyn std::error::Error>> {
    use std::io::Write;
    use vitrine::{Candidate, Files, GenerateOptions, Precision};

    let mut arguments = std::env::args().skip(1);
    let (Some(folder), Some(prompt)) = (arguments.next(), arguments.next()) else {
        return Err("usage: generate FOLDER PROMPT [PRECISION [SEED]]".into());
    };
    let precision = match arguments.next() {
        Some(name) => Precision::from_name(&name).ok_or("precisions: f32, q8, q4")?,
        None => Precision::default(),
    };
    let mut options = GenerateOptions::default();
    match arguments.next() {
        Some(seed) => options.sampling.seed = seed.parse()?,
        None => options.sampling.temperature = 0.0,
    }
    let candidate = Candidate::open(Files::from_directory(folder)?)?;
    let mut session = candidate.load(precision, &mut |_, _| {})?;
    print!("{prompt}");
    let start = std::time::Instant::now();
    let mut tokens = 0;
    let mut generation = session.generate(&prompt, &options)?;
    for token in &mut generation {
        print!("{}", token?.text);
        std::io::stdout().flush()?;
        tokens += 1;
    }
    let (reason, held) = generation.end().expect("the iterator has ended");
    println!("{held}");
    let seconds = start.elapsed().as_secs_f64();
    eprintln!("[{tokens} tokens in {seconds:.2} s, ended by {}]", reason.name());
    Ok(())
}
