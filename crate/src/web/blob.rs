//! A file of the browser as a checkpoint's source: a `File`, a `Blob`, or a file of the origin private file system.

use crate::checkpoint::Source;
use crate::error::{Error, Result};
use wasm_bindgen::prelude::*;
use web_sys::{Blob, FileReaderSync};

/// Reads a `Blob` by slices, synchronously, as only a worker may.
pub(super) struct BlobSource {
    name: String,
    blob: Blob,
    reader: FileReaderSync,
}

impl BlobSource {
    /// The source of `file`, a `{ name, blob }`.
    pub(super) fn boxed(file: JsValue) -> std::result::Result<Box<dyn Source>, JsValue> {
        let name = js_sys::Reflect::get(&file, &"name".into())?.as_string().unwrap_or_default();
        let blob = js_sys::Reflect::get(&file, &"blob".into())?.dyn_into::<Blob>()?;
        Ok(Box::new(Self { name, blob, reader: FileReaderSync::new()? }))
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
        let failed = |problem: String| Error::Read { file: self.name.clone(), offset, problem };
        let end = offset.saturating_add(buffer.len() as u64);
        if end > self.len() {
            return Err(failed(format!("expected {} bytes, the file has {}", buffer.len(), self.len())));
        }
        let read = || -> std::result::Result<js_sys::Uint8Array, JsValue> {
            let slice = self.blob.slice_with_f64_and_f64(offset as f64, end as f64)?;
            Ok(js_sys::Uint8Array::new(&self.reader.read_as_array_buffer(&slice)?.into()))
        };
        let bytes = read().map_err(|error| failed(format!("the browser cannot read it: {error:?}")))?;
        if bytes.length() as usize != buffer.len() {
            return Err(failed(format!("expected {} bytes, found {}", buffer.len(), bytes.length())));
        }
        bytes.copy_to(buffer);
        Ok(())
    }
}
