//! How much memory can still be had.
//!
//! A wasm memory holds at most 4 GiB and never shrinks, and an allocation that fails in the middle of a load traps. So
//! the memory of a whole model is asked for before its first byte is read.

use crate::error::{Error, Result};

/// Bytes that this process or page can still have, at most. What the machine really gives shows in [`reserve`].
pub(crate) fn available() -> u64 {
    #[cfg(target_arch = "wasm32")]
    {
        const PAGE: u64 = 64 << 10;
        const LARGEST: u64 = 4 << 30;
        LARGEST - PAGE * core::arch::wasm32::memory_size::<0>() as u64
    }
    #[cfg(not(target_arch = "wasm32"))]
    u64::MAX
}

/// Makes sure that `bytes` can be allocated: takes them in pieces and gives them back, so that the allocator holds
/// the memory. Elsewhere than in wasm an allocation takes no memory until it is written, and this proves nothing.
pub(crate) fn reserve(bytes: u64) -> Result<()> {
    const PIECE: u64 = 64 << 20;
    if !cfg!(target_arch = "wasm32") {
        return Ok(());
    }
    let mut pieces = Vec::new();
    let mut reserved = 0;
    while reserved < bytes {
        let mut piece = Vec::<u8>::new();
        let wanted = PIECE.min(bytes - reserved);
        if piece.try_reserve_exact(wanted as usize).is_err() {
            return Err(Error::Memory(format!(
                "this model needs {}, and the browser gives no more than {}; close other tabs or choose a smaller model",
                readable(bytes),
                readable(reserved)
            )));
        }
        reserved += wanted;
        pieces.push(piece);
    }
    Ok(())
}

/// `bytes` for people: `1.23 GB`, `45.6 MB`.
pub(crate) fn readable(bytes: u64) -> String {
    let bytes = bytes as f64;
    if bytes >= 1e9 { format!("{:.2} GB", bytes / 1e9) } else { format!("{:.1} MB", bytes / 1e6) }
}
