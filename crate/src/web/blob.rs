//! A file of the browser as a checkpoint's source: a `File`, a `Blob`, or a file of the origin private file system.

use crate::checkpoint::Source;
use crate::error::{Error, Result};
use std::cell::RefCell;
use std::ops::RangeInclusive;
use std::rc::Rc;
use wasm_bindgen::prelude::*;
use web_sys::{Blob, FileReaderSync};

/// Bytes that the browser is asked for at a time: an eighth of a file, but no fewer and no more than these. Each slice costs it some
/// milliseconds, whatever its length: in Chromium 0.5 GB load in 1.2 s by blocks of 32 MB, in 1.5 s by blocks of 8 MB, and in 2.7 s by
/// strips of 1 MB.
const BLOCK: RangeInclusive<u64> = 1 << 20..=32 << 20;

fn block_length(file_length: u64) -> u64 {
    (file_length / 8).clamp(*BLOCK.start(), *BLOCK.end())
}

/// Reads a `Blob` by slices, synchronously, as only a worker may.
pub(super) struct BlobSource {
    name: String,
    blob: Blob,
    /// Which of the files that share the blocks this one is.
    file: usize,
    block_length: u64,
    blocks: Rc<Blocks>,
}

/// What was read last of some files, however many they are.
struct Blocks {
    reader: FileReaderSync,
    /// The one used last at the end.
    kept: RefCell<Vec<Block>>,
}

struct Block {
    file: usize,
    number: u64,
    bytes: js_sys::Uint8Array,
}

impl Blocks {
    /// A model takes the tensors of a layer in another order than the file has them.
    const MOST: usize = 2;

    /// Block `number` of that file, which `read` has the bytes of if they are not here.
    fn get(
        &self,
        file: usize,
        number: u64,
        read: impl FnOnce() -> Result<js_sys::Uint8Array>,
    ) -> Result<js_sys::Uint8Array> {
        let mut kept = self.kept.borrow_mut();
        let block = match kept.iter().position(|block| (block.file, block.number) == (file, number)) {
            Some(index) => kept.remove(index),
            None => {
                // Before the next is read, so that there are never more.
                if kept.len() == Self::MOST {
                    kept.remove(0);
                }
                Block { file, number, bytes: read()? }
            }
        };
        let bytes = block.bytes.clone();
        kept.push(block);
        Ok(bytes)
    }
}

impl BlobSource {
    /// The sources of `files`, each a `{ name, blob }`.
    pub(super) fn open(files: &js_sys::Array) -> std::result::Result<Vec<Self>, JsValue> {
        let blocks = Rc::new(Blocks { reader: FileReaderSync::new()?, kept: RefCell::default() });
        let sources = files.iter().enumerate().map(|(file, given)| {
            let name = js_sys::Reflect::get(&given, &"name".into())?.as_string().unwrap_or_default();
            let blob = js_sys::Reflect::get(&given, &"blob".into())?.dyn_into::<Blob>()?;
            let block_length = block_length(blob.size() as u64);
            Ok(Self { name, blob, file, block_length, blocks: Rc::clone(&blocks) })
        });
        sources.collect()
    }

    fn failed(&self, offset: u64, problem: String) -> Error {
        Error::Read { file: self.name.clone(), offset, problem }
    }

    fn read_block(&self, number: u64) -> Result<js_sys::Uint8Array> {
        let start = number * self.block_length;
        let end = self.len().min(start + self.block_length);
        let read = || -> std::result::Result<_, JsValue> {
            let slice = self.blob.slice_with_f64_and_f64(start as f64, end as f64)?;
            Ok(js_sys::Uint8Array::new(&self.blocks.reader.read_as_array_buffer(&slice)?.into()))
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
            let (number, within) = (offset / self.block_length, offset % self.block_length);
            let (here, later) = rest.split_at_mut(rest.len().min((self.block_length - within) as usize));
            let block = self.blocks.get(self.file, number, || self.read_block(number))?;
            block.subarray(within as u32, within as u32 + here.len() as u32).copy_to(here);
            offset += here.len() as u64;
            rest = later;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use wasm_bindgen_test::wasm_bindgen_test as test;

    const MIB: usize = 1 << 20;

    /// A file of that many bytes, none of them like its neighbours: byte `i` is `i % 251 + file`.
    fn file(file: u8, length: usize) -> (Vec<u8>, JsValue) {
        let bytes: Vec<u8> = (0..length).map(|i| (i % 251) as u8 + file).collect();
        let parts = js_sys::Array::of1(&js_sys::Uint8Array::from(&bytes[..]));
        let given = js_sys::Object::new();
        js_sys::Reflect::set(&given, &"name".into(), &format!("shard-{file}").into()).unwrap();
        js_sys::Reflect::set(&given, &"blob".into(), &Blob::new_with_u8_array_sequence(&parts).unwrap())
            .unwrap();
        (bytes, given.into())
    }

    fn sources(files: &[&JsValue]) -> Vec<BlobSource> {
        BlobSource::open(&files.iter().copied().collect()).unwrap()
    }

    #[test]
    fn bytes_are_read_by_range_across_blocks_and_files() {
        let files = [file(0, 5 * MIB / 2), file(1, 9 * MIB), file(2, 10)];
        let sources = sources(&[&files[0].1, &files[1].1, &files[2].1]);
        let ranges = [
            (1, 0, 9 * MIB),
            (0, MIB - 3, MIB + 7),
            (1, MIB, 5),
            (0, 5 * MIB / 2 - 1, 1),
            (2, 0, 10),
            (2, 10, 0),
        ];
        for (file, start, length) in ranges {
            let mut read = vec![0; length];
            sources[file].read_at(start as u64, &mut read).unwrap();
            assert!(read == files[file].0[start..start + length], "{length} bytes at {start} of file {file}");
        }
        for (offset, length) in [(1, 10), (10, 1), (u64::MAX, 1)] {
            let error = sources[2].read_at(offset, &mut vec![0; length]).unwrap_err();
            assert_eq!(error.code(), "read-failed");
            assert!(error.to_string().contains("the file has 10"), "{error}");
        }
    }

    #[test]
    fn of_all_files_together_two_blocks_lie_in_memory() {
        let files = [file(0, 2 * MIB), file(1, 2 * MIB), file(2, 16 * MIB)];
        let sources = sources(&[&files[0].1, &files[1].1, &files[2].1]);
        for start in [0, MIB] {
            for source in &sources {
                source.read_at(start as u64, &mut [0; 9]).unwrap();
            }
        }
        let kept = sources[0].blocks.kept.borrow();
        let kept: Vec<_> =
            kept.iter().map(|block| (block.file, block.number, block.bytes.length())).collect();
        assert_eq!(kept, [(1, 1, MIB as u32), (2, 0, 2 * MIB as u32)]);
    }

    #[test]
    fn a_block_is_a_part_of_its_file() {
        assert_eq!([0, 3 << 20, 80 << 20, 1 << 40].map(block_length), [1 << 20, 1 << 20, 10 << 20, 32 << 20]);
    }
}
