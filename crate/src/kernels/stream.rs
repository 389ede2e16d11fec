//! Weights on their way from memory.
//!
//! Processors fetch what is read front to back ahead of its reader, but only within a page of memory: at the beginning of each the reader
//! waits, for its first line and then for the next, from which the processor takes what will follow. A product with one row of inputs
//! stands still meanwhile, for it cannot run on past a line that is not there by more than a few hundred instructions. So, where it
//! reaches a page, it reads two lines of the page behind that one. When it gets there, these and about a kilobyte after them are near.
//!
//! What that is worth, in native loops on an Intel Xeon of 2023, against the same loop without these reads: of the instructions of
//! `q8_simd128` 1.3, of reading alone 1.13. What does not help: one line (1.02), every line a page ahead (0.97), and the next page's
//! lines spread over this one (1.0). A missing line holds up whatever comes after it, so they must be few, at once, and neighbours.

use std::hint::black_box;

use bytemuck::NoUninit;

use super::Entry;

/// Bytes of the smallest page of memory that processors with wasm have. A linear memory begins with a page.
const MEMORY_PAGE: usize = 4096;

/// Bytes that a processor fetches at once.
const LINE: usize = 64;

/// Entries of `f32` in a page of memory: where a loop over single ones would look up too often whether it reaches a page.
pub(super) const PAGE_ENTRIES: usize = MEMORY_PAGE / size_of::<Entry>();

/// Data that is read front to back.
#[derive(Clone, Copy, Debug)]
pub(super) struct Stream<'a>(&'a [u8]);

impl<'a> Stream<'a> {
    #[inline(always)]
    pub(super) fn of<B: NoUninit>(data: &'a [B]) -> Self {
        Self(bytemuck::must_cast_slice(data))
    }

    /// Before `part` of the data is read: asks for the beginning of the next page, if `part` is the first to begin in its own.
    #[inline(always)]
    pub(super) fn ask_ahead<P>(self, part: &P) {
        let address = std::ptr::from_ref(part).addr();
        if let Some(distance) = to_next_page(address, size_of::<P>()) {
            let next = address - self.0.as_ptr().addr() + distance;
            if let (Some(first), Some(second)) = (self.0.get(next), self.0.get(next + LINE)) {
                black_box(first ^ second);
            }
        }
    }
}

/// How far the next page is from a part of `size` bytes at `address`, if none before it begins in the same page.
#[inline(always)]
fn to_next_page(address: usize, size: usize) -> Option<usize> {
    let into = address % MEMORY_PAGE;
    (into < size).then_some(MEMORY_PAGE - into)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[cfg_attr(target_arch = "wasm32", wasm_bindgen_test::wasm_bindgen_test)]
    #[cfg_attr(not(target_arch = "wasm32"), test)]
    fn every_page_is_asked_for_once() {
        for (start, size) in [(0, 544), (16, 544), (4080, 544), (48, 288), (64, 4096), (0, 4096)] {
            let parts = (start..start + 40 * MEMORY_PAGE).step_by(size);
            let asked: Vec<usize> =
                parts.filter_map(|address| Some(address + to_next_page(address, size)?)).collect();
            let expected = (1..).map(|page| page * MEMORY_PAGE).skip_while(|page| *page < asked[0]);
            assert!(asked.len() >= 39, "{} of {size} from {start}", asked.len());
            assert!(asked.iter().copied().eq(expected.take(asked.len())), "{size} from {start}: {asked:?}");
        }
    }
}
