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

/// Panels and the sums of their rows.
pub(super) type Panels<'a, B> = (&'a [B], &'a mut [Entry]);

/// `panels`, of `blocks` each, with their sums, in groups of `group`: in pairs of one group of the first half and one of the second, and the last of
/// an odd number.
pub(super) fn in_two_streams<'a, B>(
    panels: &'a [B],
    blocks: usize,
    group: usize,
    sums: &'a mut [Entry],
) -> (impl Iterator<Item = [Panels<'a, B>; 2]>, Option<Panels<'a, B>>) {
    let (group, in_group) = (group.max(1), (group * blocks).max(1));
    let half = sums.len() / group / 2;
    let (first, second) = panels.split_at(half * group * blocks);
    let (second, last) = second.split_at(half * group * blocks);
    let (first_sums, second_sums) = sums.split_at_mut(half * group);
    let (second_sums, last_sums) = second_sums.split_at_mut(half * group);
    let groups = |panels: &'a [B], sums: &'a mut [Entry]| {
        panels.chunks_exact(in_group).zip(sums.chunks_exact_mut(group))
    };
    let pairs = groups(first, first_sums).zip(groups(second, second_sums)).map(<[_; 2]>::from);
    (pairs, (!last_sums.is_empty()).then_some((last, last_sums)))
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
        for (panels, blocks, group) in [
            (0, 3, 1),
            (1, 3, 1),
            (2, 3, 1),
            (7, 2, 1),
            (8, 1, 1),
            (3, 0, 1),
            (0, 2, 3),
            (6, 2, 2),
            (12, 2, 3),
        ] {
            let of_panel = |panel: usize| vec![panel as f32; blocks];
            let weights: Vec<f32> = (0..panels).flat_map(of_panel).collect();
            let mut sums: Vec<Entry> = (0..panels).map(|panel| [panel as f32; PANEL]).collect();
            let (pairs, last) = in_two_streams(&weights, blocks, group, &mut sums);
            let (mut firsts, mut seconds) = (Vec::new(), Vec::new());
            let check = |(panels, sums): Panels<'_, f32>| {
                let of_sums: Vec<usize> = sums.iter().map(|sums| sums[0] as usize).collect();
                assert_eq!(panels, of_sums.iter().copied().flat_map(of_panel).collect::<Vec<_>>());
                assert_eq!(of_sums.len(), group, "of {panels:?}");
                of_sums
            };
            for [first, second] in pairs {
                firsts.extend(check(first));
                seconds.extend(check(second));
            }
            seconds.extend(last.map(check).into_iter().flatten());
            let met = [firsts, seconds].concat();
            if blocks > 0 {
                assert_eq!(met, (0..panels).collect::<Vec<_>>(), "{panels} panels in groups of {group}");
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
