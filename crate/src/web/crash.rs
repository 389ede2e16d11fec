//! What is left after a trap, and traps on purpose for those who test their recovery.

use std::sync::Mutex;
use wasm_bindgen::prelude::*;

static LAST_PANIC: Mutex<Option<String>> = Mutex::new(None);

/// Has every panic leave its text for [`last_panic`].
pub(super) fn keep_panic_text() {
    std::panic::set_hook(Box::new(|panic| {
        if let Ok(mut last) = LAST_PANIC.lock() {
            *last = Some(panic.to_string());
        }
    }));
}

/// The text of the panic that ended this instance, if one did.
#[wasm_bindgen(js_name = lastPanic)]
pub fn last_panic() -> Option<String> {
    LAST_PANIC.lock().ok()?.clone()
}

/// Bytes of this instance's memory, which never shrinks.
pub(super) fn wasm_memory_bytes() -> u64 {
    (core::arch::wasm32::memory_size::<0>() as u64) << 16
}

/// Ends this instance with a real trap: a `"panic"`, exhausted `"memory"`, or an exhausted `"stack"`.
#[wasm_bindgen]
pub fn crash(how: &str) {
    match how {
        "memory" => {
            const PIECE: usize = 256 << 20;
            loop {
                std::mem::forget(std::hint::black_box(Vec::<u8>::with_capacity(PIECE)));
            }
        }
        "stack" => {
            std::hint::black_box(recurse(1));
        }
        _ => panic!("a crash was asked for"),
    }
}

#[allow(unconditional_recursion, reason = "the stack is to overflow")]
fn recurse(depth: u64) -> u64 {
    std::hint::black_box([depth; 64]).iter().sum::<u64>() + recurse(depth + 1)
}
