//! A file of the browser as a checkpoint's source: a `File`, a `Blob`, or a file of the origin private file system.

use crate::checkpoint::Source;
use crate::error::{Error, Result};
use std::cell::RefCell;
use wasm_bindgen::prelude::*;
use web_sys::{Blob, FileReaderSync};

/// Bytes that the browser is asked for at a time. Each slice costs it some milliseconds, whatever its length: in Chromium 0.5 GB load in
/// 1.2 s by blocks of this size, in 1.5 s by blocks of 8 MB, and in 2.7 s by strips of 1 MB.
const BLOCK: u64 = 32 << 20;

/// Blocks that are kept. A model takes the tensors of a layer in another order than the file has them.
const KEPT: usize = 2;

/// Reads a `Blob` by slices, synchronously, as only a worker may.
pub(super) struct BlobSource {
    name: String,
    blob: Blob,
    reader: FileReaderSync,
    /// Blocks with their numbers, the one used last at the end.
    blocks: RefCell<Vec<(u64, js_sys::Uint8Array)>>,
}

impl BlobSource {
    /// The source of `file`, a `{ name, blob }`.
    pub(super) fn boxed(file: JsValue) -> std::result::Result<Box<dyn Source>, JsValue> {
        let name = js_sys::Reflect::get(&file, &"name".into())?.as_string().unwrap_or_default();
        let blob = js_sys::Reflect::get(&file, &"blob".into())?.dyn_into::<Blob>()?;
        Ok(Box::new(Self { name, blob, reader: FileReaderSync::new()?, blocks: RefCell::default() }))
    }

    fn failed(&self, offset: u64, problem: String) -> Error {
        Error::Read { file: self.name.clone(), offset, problem }
    }

    /// Block `number` of the file, the last one shorter than the others.
    fn block(&self, number: u64) -> Result<js_sys::Uint8Array> {
        let mut blocks = self.blocks.borrow_mut();
        let block = match blocks.iter().position(|(kept, _)| *kept == number) {
            Some(index) => blocks.remove(index),
            None => {
                if blocks.len() == KEPT {
                    blocks.remove(0);
                }
                (number, self.read_block(number)?)
            }
        };
        let bytes = block.1.clone();
        blocks.push(block);
        Ok(bytes)
    }

    fn read_block(&self, number: u64) -> Result<js_sys::Uint8Array> {
        let start = number * BLOCK;
        let end = self.len().min(start + BLOCK);
        let read = || -> std::result::Result<_, JsValue> {
            let slice = self.blob.slice_with_f64_and_f64(start as f64, end as f64)?;
            Ok(js_sys::Uint8Array::new(&self.reader.read_as_array_buffer(&slice)?.into()))
        };
        let bytes =
            read().map_err(|error| self.failed(start, format!("the browser cannot read it: {error:?}")))?;
        if u64::from(bytes.length()) != end - start {
            let problem = format!("expected {} bytes, found {}", end - start, bytes.length());
            return Err(self.failed(start, problem));
        }
        Ok(bytes)
    }
}

impl Source for BlobSource {
    fn name(&self) -> &str {
        &self.name
    }

    fn len(&self) -> u64 {
        // A JavaScript number: exact to 2^53, far beyond any file.
        self.blob.size() as u64
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> Result<()> {
        let length = self.len();
        if offset.checked_add(buffer.len() as u64).is_none_or(|end| end > length) {
            let problem = format!("expected {} bytes, the file has {length}", buffer.len());
            return Err(self.failed(offset, problem));
        }
        let (mut offset, mut rest) = (offset, buffer);
        while !rest.is_empty() {
            let within = offset % BLOCK;
            let (here, later) = rest.split_at_mut(rest.len().min((BLOCK - within) as usize));
            let block = self.block(offset / BLOCK)?;
            block.subarray(within as u32, within as u32 + here.len() as u32).copy_to(here);
            offset += here.len() as u64;
            rest = later;
        }
        Ok(())
    }
}
