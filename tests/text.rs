//! Token ids against the reference tokenizer, and text that arrives token by token.
//!
//! The embedded tokenizers are our own (see `make_fixtures.py`). The published ones of GPT-2 and OPT are tested
//! natively, where VITRINE_TOKENIZERS names a folder that holds gpt2/ and opt/; what was skipped is counted.

mod fixture;

use fixture::{Fixture, GPT2_A, GPT2_B, OPT_A};
use serde::Deserialize;
use vitrine::{SpecialTokens, StreamDecoder, Tokenizer};
#[cfg(target_arch = "wasm32")]
use wasm_bindgen_test::wasm_bindgen_test as test;

#[cfg(target_arch = "wasm32")]
wasm_bindgen_test::wasm_bindgen_test_configure!(run_in_dedicated_worker);

/// What the reference tokenizer says of many strings.
#[derive(Deserialize)]
struct Reference {
    /// The token that the family puts in front of a text; the cases are without it.
    bos: Option<u32>,
    /// The ids of the special tokens.
    special: Vec<u32>,
    cases: Vec<Case>,
}

#[derive(Deserialize)]
struct Case {
    text: String,
    /// Where the name of a special token is plain text.
    ids: Vec<u32>,
    /// Where it is the token; absent if that makes no difference.
    ids_with_specials: Option<Vec<u32>>,
}

fn reference(json: &str) -> Reference {
    serde_json::from_str(json).expect("a file of text/")
}

fn gpt2_reference() -> Reference {
    reference(include_str!("fixtures/text/gpt2.json"))
}

fn opt_reference() -> Reference {
    reference(include_str!("fixtures/text/opt.json"))
}

/// GPT-2's tokenizer.
fn gpt2() -> Tokenizer {
    Tokenizer::from_json(GPT2_A.bytes("tokenizer.json")).expect("tokenizer.json")
}

fn from_vocab_and_merges(fixture: &Fixture, reference: &Reference) -> Tokenizer {
    let (vocab, merges) = (fixture.bytes("vocab.json"), fixture.bytes("merges.txt"));
    let tokenizer =
        Tokenizer::from_vocab_and_merges(vocab, merges, &reference.special).expect("vocab and merges");
    tokenizer.with_bos(reference.bos)
}

fn opt() -> Tokenizer {
    from_vocab_and_merges(&OPT_A, &opt_reference())
}

/// `text` as `tokenizer` splits it, without the token in front.
fn encode(tokenizer: &mut Tokenizer, bos: Option<u32>, text: &str, special: SpecialTokens) -> Vec<u32> {
    let mut ids = tokenizer.encode(text, special).expect("text");
    if bos.is_some() {
        assert_eq!(ids.first(), bos.as_ref(), "{text:?}: the token in front");
        ids.remove(0);
    }
    ids
}

/// The text of `ids`, pushed one by one; panics where a piece holds part of a character that `whole` has.
fn streamed(tokenizer: &Tokenizer, ids: &[u32]) -> Vec<String> {
    let mut decoder = StreamDecoder::default();
    let mut pieces: Vec<_> = ids.iter().map(|&id| decoder.push(tokenizer, id).expect("an id")).collect();
    pieces.push(decoder.finish(tokenizer).expect("an end"));
    pieces
}

fn matches_reference(tokenizer: &mut Tokenizer, reference: &Reference) {
    assert!(reference.cases.len() > 60, "{} cases", reference.cases.len());
    for case in &reference.cases {
        let ids = encode(tokenizer, reference.bos, &case.text, SpecialTokens::AsText);
        assert_eq!(ids, case.ids, "{:?}, as text", case.text);
        // A text that starts with the token in front does not get it twice.
        let with_specials = case.ids_with_specials.as_ref().unwrap_or(&case.ids);
        let starts_with_bos = reference.bos.is_some() && with_specials.first() == reference.bos.as_ref();
        let ids = encode(tokenizer, reference.bos, &case.text, SpecialTokens::Recognised);
        assert_eq!(
            ids,
            with_specials[usize::from(starts_with_bos)..],
            "{:?}, specials recognised",
            case.text
        );
    }
}

fn decoding_gives_the_text_back(tokenizer: &Tokenizer, reference: &Reference) {
    for Case { text, ids, .. } in &reference.cases {
        assert_eq!(tokenizer.decode(ids).expect("ids"), *text);
        let pieces = streamed(tokenizer, ids);
        assert_eq!(pieces.concat(), *text, "{pieces:?}");
        let is_split = |piece: &String| piece.contains(char::REPLACEMENT_CHARACTER);
        assert!(!pieces.iter().any(is_split), "{text:?}: a character was split: {pieces:?}");
        assert_eq!(
            pieces.last().map(String::as_str),
            Some(""),
            "{text:?}: text was held beyond its last token"
        );
        let pieces = tokenizer.pieces(ids).expect("ids");
        assert!(pieces.iter().map(|piece| piece.id).eq(ids.iter().copied()));
        assert_eq!(pieces.iter().map(|piece| piece.text.as_str()).collect::<String>(), *text);
    }
}

#[test]
fn gpt2_ids_match_the_reference_from_tokenizer_json() {
    matches_reference(&mut gpt2(), &gpt2_reference());
}

#[test]
fn gpt2_ids_match_the_reference_from_vocab_and_merges() {
    matches_reference(&mut from_vocab_and_merges(&GPT2_B, &gpt2_reference()), &gpt2_reference());
}

#[test]
fn opt_ids_match_the_reference() {
    matches_reference(&mut opt(), &opt_reference());
}

#[test]
fn opt_puts_its_token_in_front_once() {
    let mut opt = opt();
    let encode = |opt: &mut Tokenizer, text, special| opt.encode(text, special).expect("text");
    assert_eq!(encode(&mut opt, "", SpecialTokens::AsText), [2]);
    assert_eq!(encode(&mut opt, "</s>", SpecialTokens::Recognised), [2]);
    assert_eq!(encode(&mut opt, "</s></s>", SpecialTokens::Recognised), [2, 2]);
    assert_eq!(gpt2().encode("", SpecialTokens::AsText).expect("text"), [0; 0]);
}

#[test]
fn decoding_whole_or_streamed_gives_the_text_back() {
    decoding_gives_the_text_back(&gpt2(), &gpt2_reference());
    decoding_gives_the_text_back(&opt(), &opt_reference());
}

/// A model may write any bytes. Whatever they are, the pieces joined are the text of all ids, and no piece is shown
/// before it is certain.
#[test]
fn a_stream_of_arbitrary_bytes_is_the_text_of_all_of_them() {
    let tokenizer = gpt2();
    let mut state = 1u64;
    let mut random = move || {
        state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        (state >> 33) as u32
    };
    for length in 0..200 {
        // In GPT-2's order the first 188 tokens are the printable bytes, the next 68 the others.
        let ids: Vec<u32> = (0..length % 40).map(|_| 94 + random() % 162).collect();
        let whole = tokenizer.decode(&ids).expect("ids");
        assert_eq!(streamed(&tokenizer, &ids).concat(), whole, "{ids:?}");
    }
}

#[test]
fn an_unfinished_character_is_held_until_it_is_whole() {
    let tokenizer = gpt2();
    let mut bytes = Vec::new();
    for byte in "😀".bytes() {
        // Each byte is a token of its own; the emoji's tokens may span several, so it is built from the alphabet.
        let id = (0..256).find(|&id| byte_of(&tokenizer, id) == Some(byte)).expect("every byte is a token");
        bytes.push(id);
    }
    let mut decoder = StreamDecoder::default();
    let pieces: Vec<_> = bytes.iter().map(|&id| decoder.push(&tokenizer, id).expect("an id")).collect();
    assert_eq!(pieces, ["", "", "", "😀"]);

    // Cut short, it becomes one replacement character at the end, and not before.
    let pieces = streamed(&tokenizer, &bytes[..3]);
    assert_eq!(pieces, ["", "", "", "\u{fffd}"]);
}

/// The byte that the token `id` of GPT-2's alphabet stands for, found by decoding it behind the start of a character.
fn byte_of(tokenizer: &Tokenizer, id: u32) -> Option<u8> {
    const PRINTABLE: [std::ops::RangeInclusive<u32>; 3] = [0x21..=0x7e, 0xa1..=0xac, 0xae..=0xff];
    let printable = || PRINTABLE.into_iter().flatten();
    let others = (0..256).filter(|byte| !printable().any(|other| other == *byte));
    let byte = printable().chain(others).nth(id as usize)?;
    debug_assert!(byte >= 0x80 || tokenizer.decode(&[id]).is_ok_and(|text| text.as_bytes() == [byte as u8]));
    u8::try_from(byte).ok()
}

#[test]
fn an_id_beyond_the_tokenizer_has_no_text() {
    // OPT's models have more entries than its tokenizer.
    let opt = opt();
    let beyond = opt.vocabulary() as u32 + 3;
    assert_eq!(opt.decode(&[beyond]).expect("no text"), "");
    let ids =
        opt_reference().cases.iter().find(|case| case.text == "Hello world").expect("the case").ids.clone();
    let (first, rest) = ids.split_at(2);
    assert_eq!(streamed(&opt, &[first, &[beyond], rest].concat()).concat(), "Hello world");
}

#[cfg(not(target_arch = "wasm32"))]
mod published {
    use super::*;
    use std::io::Write;
    use std::path::Path;
    use vitrine::Result;

    /// The folder of published files that a check needs, what it shows, and the check.
    type Check = (&'static str, &'static str, fn(&Path));

    const CHECKS: [Check; 5] = [
        ("gpt2", "ids match the reference, from tokenizer.json", gpt2_from_json),
        ("gpt2", "ids match the reference, from vocab and merges", gpt2_from_vocab),
        ("gpt2", "a long text matches the reference", gpt2_long_text),
        ("opt", "ids match the reference", opt_from_vocab),
        ("opt", "a photo of a cat", opt_photo),
    ];

    #[test]
    fn published_tokenizers_match_the_reference() {
        let folder = std::env::var_os("VITRINE_TOKENIZERS").map(std::path::PathBuf::from);
        let mut skipped = Vec::new();
        for (name, what, check) in CHECKS {
            match folder.as_ref().map(|folder| folder.join(name)).filter(|folder| folder.is_dir()) {
                Some(folder) => check(&folder),
                None => skipped.push(format!("{name}: {what}")),
            }
        }
        if !skipped.is_empty() {
            // Straight to stderr, past the test harness, which hides what a passing test prints.
            let reason = "VITRINE_TOKENIZERS names no folder with these published tokenizers";
            let n_skipped = skipped.len();
            writeln!(std::io::stderr(), "\n{reason}:\n  {}\n# skipped {n_skipped}", skipped.join("\n  "))
                .expect("stderr");
        }
    }

    fn read(folder: &Path, file: &str) -> Vec<u8> {
        std::fs::read(folder.join(file))
            .unwrap_or_else(|error| panic!("{}/{file}: {error}", folder.display()))
    }

    fn from_vocab(folder: &Path, reference: &Reference) -> Result<Tokenizer> {
        let (vocab, merges) = (read(folder, "vocab.json"), read(folder, "merges.txt"));
        Ok(Tokenizer::from_vocab_and_merges(&vocab, &merges, &reference.special)?.with_bos(reference.bos))
    }

    fn agrees(mut tokenizer: Tokenizer, reference: &Reference) {
        matches_reference(&mut tokenizer, reference);
        decoding_gives_the_text_back(&tokenizer, reference);
    }

    fn gpt2_strings() -> Reference {
        reference(include_str!("fixtures/text/published-gpt2.json"))
    }

    fn opt_strings() -> Reference {
        reference(include_str!("fixtures/text/published-opt.json"))
    }

    fn gpt2_from_json(folder: &Path) {
        agrees(
            Tokenizer::from_json(&read(folder, "tokenizer.json")).expect("tokenizer.json"),
            &gpt2_strings(),
        );
    }

    fn gpt2_from_vocab(folder: &Path) {
        agrees(from_vocab(folder, &gpt2_strings()).expect("vocab and merges"), &gpt2_strings());
    }

    fn gpt2_long_text(folder: &Path) {
        #[derive(Deserialize)]
        struct LongText {
            token_ids: Vec<u32>,
        }
        let text = String::from_utf8(read(folder, "reference.txt")).expect("UTF-8");
        let expected: LongText =
            serde_json::from_slice(&read(folder, "reference.json")).expect("reference.json");
        let mut tokenizer = from_vocab(folder, &gpt2_strings()).expect("vocab and merges");
        assert_eq!(tokenizer.encode(&text, SpecialTokens::AsText).expect("text"), expected.token_ids);
        assert_eq!(streamed(&tokenizer, &expected.token_ids).concat(), text);
    }

    fn opt_from_vocab(folder: &Path) {
        agrees(from_vocab(folder, &opt_strings()).expect("vocab and merges"), &opt_strings());
    }

    fn opt_photo(folder: &Path) {
        let mut tokenizer = from_vocab(folder, &opt_strings()).expect("vocab and merges");
        let ids = tokenizer.encode("A photo of a cat", SpecialTokens::AsText).expect("text");
        assert_eq!(ids, [2, 250, 1345, 9, 10, 4758]);
    }
}
