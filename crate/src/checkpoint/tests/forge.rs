//! Builds the files that the tests open, well-formed and not: safetensors, zip archives, pickles.

use crate::checkpoint::{BytesSource, Checkpoint, Source};
use crate::{Error, Result};

/// Opens one file called `weights`.
pub(super) fn open(bytes: Vec<u8>) -> Result<Checkpoint> {
    Checkpoint::open(vec![Box::new(BytesSource::new("weights", bytes))])
}

/// The error that opening `bytes` gives, which must be a refusal that names the file and says `expected`.
#[track_caller]
pub(super) fn refused(bytes: Vec<u8>, expected: &str) {
    let Err(error) = open(bytes) else { panic!("opened, but expected: {expected}") };
    let text = error.to_string();
    assert!(matches!(error, Error::File { .. }), "{error:?}");
    assert!(text.starts_with("weights: ") && text.contains(expected), "`{text}`, but expected: {expected}");
}

/// A safetensors file with this header, as it stands.
pub(super) fn safetensors(header: &str, data: &[u8]) -> Vec<u8> {
    let mut file = (header.len() as u64).to_le_bytes().to_vec();
    file.extend_from_slice(header.as_bytes());
    file.extend_from_slice(data);
    file
}

/// A zip archive under construction; each public field can be turned into a lie before [`Zip::finish`].
#[derive(Default)]
pub(super) struct Zip {
    pub(super) entries: Vec<ZipEntry>,
    /// Whether sizes and offsets are given as 64 bits, as beyond 4 GiB.
    pub(super) zip64: bool,
    /// Added to the place where the directory is said to lie.
    pub(super) directory_shift: i64,
    /// Added to the number of entries.
    pub(super) entries_shift: i64,
    pub(super) comment: Vec<u8>,
}

pub(super) struct ZipEntry {
    pub(super) name: Vec<u8>,
    pub(super) content: Vec<u8>,
    /// Zeros after the content, which belong to it.
    pub(super) hole: u64,
    pub(super) flags: u16,
    pub(super) method: u16,
    /// Padding in the local header, as PyTorch aligns storages by it.
    pub(super) local_extra: Vec<u8>,
    /// Added to the length in the directory.
    pub(super) length_shift: i64,
    /// Added to the offset in the directory.
    pub(super) header_shift: i64,
}

impl Zip {
    pub(super) fn add(mut self, name: &str, content: &[u8]) -> Self {
        self.entries.push(ZipEntry {
            name: name.into(),
            content: content.into(),
            hole: 0,
            flags: 1 << 11,
            method: 0,
            local_extra: b"FB\x03\x00ZZZ".into(),
            length_shift: 0,
            header_shift: 0,
        });
        self
    }

    /// The entry added last.
    pub(super) fn last(&mut self) -> &mut ZipEntry {
        self.entries.last_mut().unwrap()
    }

    /// The whole archive, of entries without holes.
    pub(super) fn finish(&self) -> Vec<u8> {
        let SparseSource { mut segments, length } = self.finish_sparse();
        let (_, bytes) = segments.pop().unwrap();
        assert!(segments.is_empty() && bytes.len() as u64 == length, "the archive has holes");
        bytes
    }

    /// The whole archive.
    pub(super) fn finish_sparse(&self) -> SparseSource {
        let mut file = SparseSource { segments: vec![(0, Vec::new())], length: 0 };
        let mut directory = Vec::new();
        for entry in &self.entries {
            let header = file.length.wrapping_add_signed(entry.header_shift);
            let length = (entry.content.len() as u64 + entry.hole).wrapping_add_signed(entry.length_shift);
            self.directory_entry(&mut directory, entry, header, length);
            file.write(b"PK\x03\x04");
            file.write(&[0; 22]);
            file.write(&(entry.name.len() as u16).to_le_bytes());
            file.write(&(entry.local_extra.len() as u16).to_le_bytes());
            file.write(&entry.name);
            file.write(&entry.local_extra);
            file.write(&entry.content);
            file.skip(entry.hole);
        }
        self.end(&mut file, &directory);
        file
    }

    fn directory_entry(&self, directory: &mut Vec<u8>, entry: &ZipEntry, header: u64, length: u64) {
        let mut extra = b"XX\x02\x00ab".to_vec();
        if self.zip64 {
            extra.extend_from_slice(&[1, 0, 24, 0]);
            extra.extend([length, length, header].iter().flat_map(|wide| wide.to_le_bytes()));
        }
        directory.extend_from_slice(b"PK\x01\x02");
        directory.extend_from_slice(&[0; 4]);
        directory.extend([entry.flags, entry.method].iter().flat_map(|field| field.to_le_bytes()));
        directory.extend_from_slice(&[0; 8]);
        directory.extend([self.narrow(length); 2].iter().flat_map(|field| field.to_le_bytes()));
        directory.extend(
            [entry.name.len(), extra.len(), 0].iter().flat_map(|&length| (length as u16).to_le_bytes()),
        );
        directory.extend_from_slice(&[0; 8]);
        directory.extend_from_slice(&self.narrow(header).to_le_bytes());
        directory.extend_from_slice(&entry.name);
        directory.extend_from_slice(&extra);
    }

    fn end(&self, file: &mut SparseSource, directory: &[u8]) {
        let start = file.length.wrapping_add_signed(self.directory_shift);
        let length = directory.len() as u64;
        let n_entries = (self.entries.len() as u64).wrapping_add_signed(self.entries_shift);
        file.write(directory);
        if self.zip64 {
            let end = file.length;
            file.write(b"PK\x06\x06");
            file.write(&44u64.to_le_bytes());
            file.write(&[0; 12]);
            for field in [n_entries, n_entries, length, start] {
                file.write(&field.to_le_bytes());
            }
            file.write(b"PK\x06\x07\0\0\0\0");
            file.write(&end.to_le_bytes());
            file.write(&1u32.to_le_bytes());
        }
        file.write(b"PK\x05\x06\0\0\0\0");
        file.write(&[(n_entries as u16).to_le_bytes(); 2].concat());
        file.write(&self.narrow(length).to_le_bytes());
        file.write(&self.narrow(start).to_le_bytes());
        file.write(&(self.comment.len() as u16).to_le_bytes());
        file.write(&self.comment);
    }

    /// A 32-bit field: in a zip64 archive, the sign that the value stands elsewhere.
    fn narrow(&self, wide: u64) -> u32 {
        if self.zip64 { u32::MAX } else { wide as u32 }
    }
}

/// A `torch.save` file with this pickle and one storage, `0`.
pub(super) fn torch_file(pickle: &[u8], storage: &[u8]) -> Zip {
    Zip::default()
        .add("archive/data.pkl", pickle)
        .add("archive/byteorder", b"little")
        .add("archive/data/0", storage)
}

/// One tensor as a pickle has it.
pub(super) struct Pickled<'a> {
    pub(super) name: &'a str,
    pub(super) class: &'a str,
    pub(super) key: &'a str,
    pub(super) storage_elements: i32,
    pub(super) offset: i32,
    pub(super) size: &'a [i32],
    pub(super) stride: &'a [i32],
}

/// `weight`: 2 by 3, f32, all of the storage `0`.
pub(super) const WEIGHT: Pickled = Pickled {
    name: "weight",
    class: "FloatStorage",
    key: "0",
    storage_elements: 6,
    offset: 0,
    size: &[2, 3],
    stride: &[3, 1],
};

/// The pickle of a plain dict of `tensors`, protocol 2.
pub(super) fn state_dict(tensors: &[Pickled]) -> Vec<u8> {
    let mut pickle = b"\x80\x02}(".to_vec();
    for tensor in tensors {
        text(&mut pickle, tensor.name);
        pickle.extend_from_slice(b"ctorch._utils\n_rebuild_tensor_v2\n((");
        text(&mut pickle, "storage");
        pickle.extend_from_slice(format!("ctorch\n{}\n", tensor.class).as_bytes());
        text(&mut pickle, tensor.key);
        text(&mut pickle, "cpu");
        int(&mut pickle, tensor.storage_elements);
        pickle.extend_from_slice(b"tQ");
        int(&mut pickle, tensor.offset);
        for extents in [tensor.size, tensor.stride] {
            pickle.push(b'(');
            extents.iter().for_each(|&extent| int(&mut pickle, extent));
            pickle.push(b't');
        }
        pickle.extend_from_slice(b"\x89ccollections\nOrderedDict\n)RtR");
    }
    pickle.extend_from_slice(b"u.");
    pickle
}

pub(super) fn text(pickle: &mut Vec<u8>, text: &str) {
    pickle.push(b'X');
    pickle.extend_from_slice(&(text.len() as u32).to_le_bytes());
    pickle.extend_from_slice(text.as_bytes());
}

fn int(pickle: &mut Vec<u8>, value: i32) {
    pickle.push(b'J');
    pickle.extend_from_slice(&value.to_le_bytes());
}

/// A file of any length: zeros but for a few segments.
pub(super) struct SparseSource {
    /// Offset and bytes of each, ascending.
    pub(super) segments: Vec<(u64, Vec<u8>)>,
    pub(super) length: u64,
}

impl SparseSource {
    fn write(&mut self, bytes: &[u8]) {
        self.segments.last_mut().unwrap().1.extend_from_slice(bytes);
        self.length += bytes.len() as u64;
    }

    fn skip(&mut self, zeros: u64) {
        if zeros > 0 {
            self.length += zeros;
            self.segments.push((self.length, Vec::new()));
        }
    }
}

impl Source for SparseSource {
    fn name(&self) -> &str {
        "sparse"
    }

    fn len(&self) -> u64 {
        self.length
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> Result<()> {
        for (at, byte) in (offset..).zip(buffer) {
            let segment = self.segments.iter().rev().find(|(start, _)| *start <= at);
            *byte = segment.and_then(|(start, bytes)| bytes.get((at - start) as usize).copied()).unwrap_or(0);
        }
        Ok(())
    }
}
