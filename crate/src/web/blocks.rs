//! The files of a checkpoint in blocks: those that were read last, and those that a load has asked for ahead of time.

use js_sys::futures::JsFuture;
use js_sys::{Promise, Uint8Array};
use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::ops::{Range, RangeInclusive};
use wasm_bindgen::prelude::*;
use web_sys::{Blob, FileReaderSync};

/// Bytes that the browser is asked for at a time: an eighth of a file, but no fewer and no more than these. Each slice costs it some
/// milliseconds, whatever its length.
const LENGTH: RangeInclusive<u64> = 1 << 20..=8 << 20;

/// Blocks that stay in memory once they are read: a strip of integers and its scales may each lie across a border of two, and a model takes
/// the tensors of a layer in another order than the file has them.
const KEPT: usize = 4;

/// Blocks that the browser is at while another is waited for or packed: it reads several at once faster than one after the other.
const AHEAD: usize = 3;

/// A load that would pass over as many blocks that it said it would read has not left them out, but read another one out of turn.
const FAR: usize = 8;

/// A block: the index of its file, and its number there.
type Place = (usize, u64);

/// What was read, or why it could not be.
type Outcome<T> = Result<T, String>;

/// Several files, of which at most [`KEPT`] and [`AHEAD`] blocks lie in memory, 56 MiB, however many files there are.
pub(super) struct Blocks {
    files: Vec<Blob>,
    reader: FileReaderSync,
    /// The one used last at the end.
    kept: RefCell<Vec<(Place, Uint8Array)>>,
    /// What a load will ask for and the browser was not asked for yet, in the load's order.
    expected: RefCell<VecDeque<Place>>,
    coming: RefCell<Vec<Coming>>,
    awaited: Cell<Option<Promise>>,
}

/// A block that the browser was asked for.
struct Coming {
    place: Place,
    promise: Promise,
    bytes: JsFuture,
}

impl Blocks {
    pub(super) fn of(files: Vec<Blob>) -> Result<Self, JsValue> {
        Ok(Self {
            files,
            reader: FileReaderSync::new()?,
            kept: RefCell::default(),
            expected: RefCell::default(),
            coming: RefCell::default(),
            awaited: Cell::default(),
        })
    }

    /// Bytes of that file.
    pub(super) fn file_length(&self, file: usize) -> u64 {
        // A JavaScript number: exact to 2^53, far beyond any file.
        self.files[file].size() as u64
    }

    /// Bytes of each of its blocks but the last.
    pub(super) fn length(&self, file: usize) -> u64 {
        length(self.file_length(file))
    }

    /// A block, whatever it takes: one that is not in memory is read now, and nothing else runs meanwhile.
    pub(super) fn get(&self, place: Place) -> Outcome<Uint8Array> {
        if let Some(bytes) = self.kept(place) {
            return Ok(bytes);
        }
        self.make_room();
        let buffer = self.reader.read_as_array_buffer(&self.slice(place)?).map_err(refused)?;
        self.keep(place, &buffer)
    }

    /// Says that a block will be fetched, after all that were said before.
    pub(super) fn expect(&self, place: Place) {
        let mut expected = self.expected.borrow_mut();
        if expected.back() != Some(&place) {
            expected.push_back(place);
        }
    }

    /// Waits until a block is in memory. The browser is at the next ones meanwhile, and until the next is fetched.
    pub(super) async fn fetch(&self, place: Place) -> Outcome<()> {
        if self.kept(place).is_some() {
            self.coming.borrow_mut().retain(|block| block.place != place);
            return Ok(());
        }
        let block = self.take(place)?;
        self.ask_ahead_of(place);
        self.make_room();
        self.awaited.set(Some(block.promise));
        let buffer = block.bytes.await.map_err(refused)?;
        self.keep(place, &buffer).map(|_| ())
    }

    /// What the latest fetch waits for, once: its promise is settled when another look at the fetch is worth it.
    pub(super) fn awaited(&self) -> Option<Promise> {
        self.awaited.take()
    }

    /// A block that the browser was asked for, or is now. Where it was expected soon, but not next, those before it were left out.
    fn take(&self, place: Place) -> Outcome<Coming> {
        let mut coming = self.coming.borrow_mut();
        if let Some(index) = coming.iter().position(|block| block.place == place) {
            return Ok(coming.remove(index));
        }
        let mut expected = self.expected.borrow_mut();
        if let Some(index) = expected.iter().take(FAR).position(|expected| *expected == place) {
            expected.drain(..=index);
            coming.clear();
        }
        self.ask(place)
    }

    /// Asks for what is expected after `current`, which will be in memory then. What cannot be asked for is refused when it is fetched.
    fn ask_ahead_of(&self, current: Place) {
        let mut coming = self.coming.borrow_mut();
        while coming.len() < AHEAD {
            let Some(place) = self.expected.borrow_mut().pop_front() else { break };
            let is_kept = self.kept.borrow().iter().any(|(kept, _)| *kept == place);
            if place != current && !is_kept && coming.iter().all(|block| block.place != place) {
                let Ok(block) = self.ask(place) else { break };
                coming.push(block);
            }
        }
    }

    fn ask(&self, place: Place) -> Outcome<Coming> {
        let promise = self.slice(place)?.array_buffer();
        let bytes = JsFuture::from(promise.clone());
        Ok(Coming { place, promise, bytes })
    }

    fn slice(&self, place: Place) -> Outcome<Blob> {
        let range = self.range(place);
        self.files[place.0].slice_with_f64_and_f64(range.start as f64, range.end as f64).map_err(refused)
    }

    fn range(&self, (file, number): Place) -> Range<u64> {
        let start = number * self.length(file);
        start..self.file_length(file).min(start + self.length(file))
    }

    fn kept(&self, place: Place) -> Option<Uint8Array> {
        let mut kept = self.kept.borrow_mut();
        let index = kept.iter().position(|(kept, _)| *kept == place)?;
        kept[index..].rotate_left(1);
        kept.last().map(|(_, bytes)| bytes.clone())
    }

    /// Before another block is read, so that there are never more.
    fn make_room(&self) {
        let mut kept = self.kept.borrow_mut();
        if kept.len() == KEPT {
            kept.remove(0);
        }
    }

    fn keep(&self, place: Place, buffer: &JsValue) -> Outcome<Uint8Array> {
        let (bytes, range) = (Uint8Array::new(buffer), self.range(place));
        if u64::from(bytes.length()) != range.end - range.start {
            return Err(format!("expected {} bytes, found {}", range.end - range.start, bytes.length()));
        }
        self.kept.borrow_mut().push((place, bytes.clone()));
        Ok(bytes)
    }
}

fn refused(error: JsValue) -> String {
    format!("the browser cannot read it: {error:?}")
}

fn length(file_length: u64) -> u64 {
    (file_length / 8).clamp(*LENGTH.start(), *LENGTH.end())
}

#[cfg(test)]
mod tests {
    use super::*;
    use wasm_bindgen_test::wasm_bindgen_test as test;

    const MIB: usize = 1 << 20;

    /// Files of that many MiB.
    fn blocks<const N: usize>(lengths: [usize; N]) -> Blocks {
        let blob = |length| {
            let parts = js_sys::Array::of1(&Uint8Array::new_with_length((length * MIB) as u32));
            Blob::new_with_u8_array_sequence(&parts).unwrap()
        };
        Blocks::of(lengths.map(blob).to_vec()).unwrap()
    }

    impl Blocks {
        pub(in crate::web) fn places_kept(&self) -> Vec<Place> {
            self.kept.borrow().iter().map(|(place, _)| *place).collect()
        }

        fn places_coming(&self) -> Vec<Place> {
            self.coming.borrow().iter().map(|block| block.place).collect()
        }
    }

    #[test]
    fn of_all_files_together_four_blocks_lie_in_memory() {
        let blocks = blocks([2, 2, 16]);
        for number in [0, 1] {
            for file in 0..3 {
                blocks.get((file, number)).unwrap();
            }
        }
        assert_eq!(blocks.places_kept(), [(2, 0), (0, 1), (1, 1), (2, 1)]);
        assert_eq!(blocks.get((2, 0)).unwrap().length(), 2 * MIB as u32);
        blocks.get((0, 0)).unwrap();
        assert_eq!(blocks.places_kept(), [(1, 1), (2, 1), (2, 0), (0, 0)], "those used last stay");
    }

    #[test]
    async fn what_comes_next_is_asked_for_while_a_block_is_used() {
        let blocks = blocks([4, 3]);
        for place in [(1, 2), (0, 0), (0, 0), (0, 1), (0, 2), (0, 1), (0, 3)] {
            blocks.expect(place);
        }
        assert_eq!(blocks.places_coming(), [], "nothing before a load begins");
        blocks.fetch((1, 2)).await.unwrap();
        assert_eq!(blocks.places_coming(), [(0, 0), (0, 1), (0, 2)]);
        // Another that is on its way already does not hold up the one in front of it.
        blocks.fetch((0, 1)).await.unwrap();
        assert_eq!(
            blocks.places_coming(),
            [(0, 0), (0, 2), (0, 3)],
            "what will be here is not asked for again"
        );
        for (place, coming) in
            [((0, 0), &[(0, 2), (0, 3)][..]), ((0, 2), &[(0, 3)]), ((0, 1), &[(0, 3)]), ((0, 3), &[])]
        {
            blocks.fetch(place).await.unwrap();
            assert_eq!(blocks.places_coming(), coming, "after {place:?}");
        }
        assert_eq!(blocks.places_kept(), [(0, 0), (0, 2), (0, 1), (0, 3)]);
    }

    #[test]
    async fn what_was_read_meanwhile_is_not_waited_for() {
        let blocks = blocks([3]);
        (0..3).for_each(|number| blocks.expect((0, number)));
        blocks.fetch((0, 0)).await.unwrap();
        blocks.get((0, 1)).unwrap();
        blocks.fetch((0, 1)).await.unwrap();
        assert_eq!(blocks.places_coming(), [(0, 2)]);
    }

    #[test]
    async fn a_wrong_expectation_costs_no_more_than_time() {
        let blocks = blocks([8, 8, 8]);
        (0..24).for_each(|number| blocks.expect((number as usize / 8, number % 8)));
        for number in [0, 4] {
            blocks.fetch((0, number)).await.unwrap();
        }
        let next = [(0, 5), (0, 6), (0, 7)];
        assert_eq!(blocks.places_coming(), next, "the blocks that were left out are forgotten");
        for place in [(0, 1), (2, 7), (2, 7)] {
            blocks.fetch(place).await.unwrap();
            assert_eq!(blocks.places_coming(), next, "{place:?} was not the next");
        }
        assert_eq!(blocks.places_kept(), [(0, 0), (0, 4), (0, 1), (2, 7)]);
    }

    #[test]
    fn a_block_is_a_part_of_its_file() {
        assert_eq!([0, 3 << 20, 40 << 20, 1 << 40].map(length), [1 << 20, 1 << 20, 5 << 20, 8 << 20]);
    }
}
