//! A file of the browser as a checkpoint's source: a `File`, a `Blob`, or a file of the origin private file system.

use super::blocks::Blocks;
use crate::checkpoint::{Awaited, Source};
use crate::error::{Error, Result};
use std::ops::Range;
use std::rc::Rc;
use wasm_bindgen::prelude::*;
use web_sys::Blob;

/// Reads a `Blob` by slices. What was not waited for is read synchronously, as only a worker may.
pub(super) struct BlobSource {
    name: String,
    /// Which of the files in `blocks` this one is.
    file: usize,
    blocks: Rc<Blocks>,
}

impl BlobSource {
    /// The sources of `files`, each a `{ name, blob }`, and the blocks that they share.
    pub(super) fn open(files: &js_sys::Array) -> std::result::Result<(Vec<Self>, Rc<Blocks>), JsValue> {
        let (mut names, mut blobs) = (Vec::new(), Vec::new());
        for given in files.iter() {
            names.push(js_sys::Reflect::get(&given, &"name".into())?.as_string().unwrap_or_default());
            blobs.push(js_sys::Reflect::get(&given, &"blob".into())?.dyn_into::<Blob>()?);
        }
        let blocks = Rc::new(Blocks::of(blobs)?);
        let source = |(file, name)| Self { name, file, blocks: Rc::clone(&blocks) };
        Ok((names.into_iter().enumerate().map(source).collect(), blocks))
    }

    fn failed(&self, offset: u64, problem: String) -> Error {
        Error::Read { file: self.name.clone(), offset, problem }
    }

    /// The blocks that `range` lies in.
    fn blocks_of(&self, range: &Range<u64>) -> Range<u64> {
        let length = self.blocks.length(self.file);
        range.start / length..range.end.div_ceil(length)
    }
}

impl Source for BlobSource {
    fn name(&self) -> &str {
        &self.name
    }

    fn len(&self) -> u64 {
        self.blocks.file_length(self.file)
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> Result<()> {
        let length = self.len();
        if offset.checked_add(buffer.len() as u64).is_none_or(|end| end > length) {
            let problem = format!("expected {} bytes, the file has {length}", buffer.len());
            return Err(self.failed(offset, problem));
        }
        let block_length = self.blocks.length(self.file);
        let (mut offset, mut rest) = (offset, buffer);
        while !rest.is_empty() {
            let (number, within) = (offset / block_length, offset % block_length);
            let (here, later) = rest.split_at_mut(rest.len().min((block_length - within) as usize));
            let block = self.blocks.get((self.file, number));
            let block = block.map_err(|problem| self.failed(number * block_length, problem))?;
            block.subarray(within as u32, within as u32 + here.len() as u32).copy_to(here);
            offset += here.len() as u64;
            rest = later;
        }
        Ok(())
    }

    fn expect(&self, range: Range<u64>) {
        self.blocks_of(&range).for_each(|number| self.blocks.expect((self.file, number)));
    }

    fn ready(&self, range: Range<u64>) -> Awaited<'_, Result<()>> {
        Box::pin(async move {
            for number in self.blocks_of(&range) {
                let block = self.blocks.fetch((self.file, number)).await;
                block.map_err(|problem| self.failed(number * self.blocks.length(self.file), problem))?;
            }
            Ok(())
        })
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
        BlobSource::open(&files.iter().copied().collect()).unwrap().0
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
    async fn what_was_waited_for_is_what_is_there() {
        let files = [file(0, 5 * MIB / 2), file(1, 9 * MIB)];
        let sources = sources(&[&files[0].1, &files[1].1]);
        let end = |file: usize| files[file].0.len() as u64;
        // As it was said, out of order, and of what was not mentioned.
        let expected = [(1, 0..end(1)), (0, 0..end(0) - 1)];
        expected.iter().for_each(|(file, range)| sources[*file].expect(range.clone()));
        let (first, last, across) = (7..9u64, end(1) - 9..end(1), MIB as u64 - 1..MIB as u64 + 1);
        for (file, range) in
            [(1, first), (1, across.clone()), (0, across), (1, last), (0, end(0) - 1..end(0))]
        {
            sources[file].ready(range.clone()).await.unwrap();
            let kept = sources[file].blocks.places_kept();
            assert!(sources[file].blocks_of(&range).all(|number| kept.contains(&(file, number))), "{kept:?}");
            let mut read = vec![0; (range.end - range.start) as usize];
            sources[file].read_at(range.start, &mut read).unwrap();
            assert!(
                read == files[file].0[range.start as usize..range.end as usize],
                "{range:?} of file {file}"
            );
        }
    }

    #[test]
    async fn what_the_browser_cannot_read_is_named() {
        let (_, given) = file(0, 9 * MIB);
        let blob = js_sys::Reflect::get(&given, &"blob".into()).unwrap();
        let slice = js_sys::Function::new_with_args(
            "start, end",
            "const part = Blob.prototype.slice.call(this, start, end);
             if (start > 0) part.arrayBuffer = () => Promise.reject(new Error('it has changed'));
             return part;",
        );
        js_sys::Reflect::set(&blob, &"slice".into(), &slice).unwrap();
        let source = &sources(&[&given])[0];
        source.expect(0..source.len());
        source.ready(0..9).await.unwrap();
        let error = source.ready(0..3 * MIB as u64).await.unwrap_err();
        assert_eq!(error.code(), "read-failed");
        let said = error.to_string();
        assert!(said.contains("shard-0") && said.contains("it has changed"), "{said}");
    }
}
