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
//!
//! What is ahead of one reader is limited too, so a product reads the two halves of its matrix side by side: what waits for one
//! stream, and the page that it has reached, does not hold up the other. In such loops over a gigabyte that is worth 1.11 with the instructions of
//! `q8_relaxed` and 1.07 without any; four streams are worth 1.05, and two that are neighbouring panels 1.08.

use std::hint::black_box;

use bytemuck::NoUninit;

use super::Entry;

/// Bytes of the smallest page of memory that processors with wasm have. A linear memory begins with a page.
const MEMORY_PAGE: usize = 4096;

/// Bytes that a processor fetches at once.
const LINE: usize = 64;

/// Entries of `f32` in a page of memory: where a loop over single ones would look up too often whether it reaches a page.
pub(super) const PAGE_ENTRIES: usize = MEMORY_PAGE / size_of::<Entry>();

/// Data that is read front to back, or in halves that are.
#[derive(Clone, Copy, Debug)]
pub(super) struct Stream<'a>(&'a [u8]);

impl<'a> Stream<'a> {
    #[inline(always)]
    pub(super) fn of<B: NoUninit>(data: &'a [B]) -> Self {
        Self(bytemuck::must_cast_slice(data))
    }

    /// Before `part` of the data is read: asks for the beginning of the next page, if `part` is the first to begin in its own.
    #[inline(always)]
    pub(super) fn ask_ahead<P: ?Sized>(self, part: &P) {
        let address = std::ptr::from_ref(part).cast::<u8>().addr();
        if let Some(distance) = to_next_page(address, size_of_val(part)) {
            let next = address - self.0.as_ptr().addr() + distance;
            if let (Some(first), Some(second)) = (self.0.get(next), self.0.get(next + LINE)) {
                black_box(first ^ second);
            }
        }
    }
}

/// A panel and the sums of its rows.
pub(super) type Panel<'a, B> = (&'a [B], &'a mut Entry);

/// `panels`, of `blocks` each, with their sums: in pairs of one of the first half and one of the second, and the last of an odd number.
pub(super) fn in_two_streams<'a, B>(
    panels: &'a [B],
    blocks: usize,
    sums: &'a mut [Entry],
) -> (impl Iterator<Item = [Panel<'a, B>; 2]>, Option<Panel<'a, B>>) {
    let pairs = sums.len() / 2;
    let (first, second) = panels.split_at(pairs * blocks);
    let (second, last) = second.split_at(pairs * blocks);
    let (first_sums, second_sums) = sums.split_at_mut(pairs);
    let (second_sums, last_sums) = second_sums.split_at_mut(pairs);
    let half = |panels: &'a [B], sums: &'a mut [Entry]| panels.chunks_exact(blocks.max(1)).zip(sums);
    let pairs = half(first, first_sums).zip(half(second, second_sums)).map(<[_; 2]>::from);
    (pairs, last_sums.first_mut().map(|sums| (last, sums)))
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
    use crate::kernels::PANEL;
    #[cfg(target_arch = "wasm32")]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    #[test]
    fn two_streams_give_each_panel_its_sums() {
        for (panels, blocks) in [(0, 3), (1, 3), (2, 3), (7, 2), (8, 1), (3, 0)] {
            let of_panel = |panel: usize| vec![panel as f32; blocks];
            let weights: Vec<f32> = (0..panels).flat_map(of_panel).collect();
            let mut sums: Vec<Entry> = (0..panels).map(|panel| [panel as f32; PANEL]).collect();
            let (pairs, last) = in_two_streams(&weights, blocks, &mut sums);
            let (mut firsts, mut seconds) = (Vec::new(), Vec::new());
            let check = |panel: &[f32], sums: &mut Entry| {
                assert_eq!(panel, of_panel(sums[0] as usize), "{panels} panels");
                sums[0]
            };
            for [(first, first_sums), (second, second_sums)] in pairs {
                firsts.push(check(first, first_sums));
                seconds.push(check(second, second_sums));
            }
            seconds.extend(last.map(|(panel, sums)| check(panel, sums)));
            let met = [firsts, seconds].concat();
            if blocks > 0 {
                assert_eq!(met, (0..panels).map(|panel| panel as f32).collect::<Vec<_>>(), "{panels} panels");
            }
        }
    }

    #[test]
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
