//! Weights on their way from memory.
//!
//! Processors fetch what is read front to back ahead of its reader, but only within a page of memory: at the beginning of each the reader
//! waits, for its first line and then for the next, from which the processor takes what will follow. A product with one row of inputs
//! stands still meanwhile, for it cannot run on past a line that is not there by more than a few hundred instructions. So, where it
//! reaches a page, it reads two lines of the page behind that one. When it gets there, these and about a kilobyte after them are near.
//!
//! On an Intel Xeon of 2023 the instructions of `q8_simd128` take 7.1 GB/s from memory without these two reads and 9.3 with them, where a
//! loop that does nothing but read takes 9.8. What does not help: one line (7.2), every line a page ahead (6.2 of a limit of 7.9), and the
//! next page's lines spread over this one (6.6 of 8.3). A missing line holds up whatever comes after it, so they must be few, at once, and
//! neighbours.

use std::hint::black_box;

use bytemuck::NoUninit;

/// Bytes of the smallest page of memory that processors with wasm have. A linear memory begins with a page.
pub(super) const PAGE: usize = 4096;

/// Bytes that a processor fetches at once.
const LINE: usize = 64;

/// Data that is read front to back.
#[derive(Clone, Copy, Debug)]
pub(super) struct Stream<'a>(&'a [u8]);

impl<'a> Stream<'a> {
    #[inline(always)]
    pub(super) fn of<B: NoUninit>(data: &'a [B]) -> Self {
        Self(bytemuck::must_cast_slice(data))
    }

    /// Asks for the beginning of the next page, if `part` of the data, which is about to be read, is the first to begin in its page.
    #[inline(always)]
    pub(super) fn reaches<P>(self, part: &P) {
        let address = std::ptr::from_ref(part).addr();
        if address % PAGE < size_of::<P>() {
            let next = (address / PAGE + 1) * PAGE - self.0.as_ptr().addr();
            if let (Some(first), Some(second)) = (self.0.get(next), self.0.get(next + LINE)) {
                black_box(first ^ second);
            }
        }
    }
}
