//! The zip archive around a `torch.save` file: which entries it has, and where the bytes of each lie.
//!
//! Only what PyTorch writes: stored entries (their bytes lie in the file as they are), one disk, zip64 beyond
//! 4 GiB. Everything comes from the central directory; the local header of an entry is read for its length
//! alone, once the entry is asked for. Format: PKWARE's APPNOTE.TXT 6.3, sections 4.3.7 (local header),
//! 4.3.12 (central directory), 4.3.14 to 4.3.16 (its end) and 4.5.3 (zip64).
//!
//! Not responsible for what the entries mean, nor for their checksums.

use std::collections::BTreeMap;
use std::ops::Range;

use super::cursor::Cursor;
use super::source::read_range;
use super::{Source, escaped};
use crate::{Error, Result};

const LOCAL_HEADER: u32 = u32::from_le_bytes(*b"PK\x03\x04");
const CENTRAL_HEADER: u32 = u32::from_le_bytes(*b"PK\x01\x02");
const END: u32 = u32::from_le_bytes(*b"PK\x05\x06");
const ZIP64_END: u32 = u32::from_le_bytes(*b"PK\x06\x06");
const ZIP64_LOCATOR: u32 = u32::from_le_bytes(*b"PK\x06\x07");

const LOCAL_HEADER_LENGTH: u64 = 30;
const END_LENGTH: u64 = 22;
const ZIP64_END_LENGTH: u64 = 56;
const ZIP64_LOCATOR_LENGTH: u64 = 20;

/// Room for some 200,000 entries: more than any shard has tensors.
const MAX_DIRECTORY: u64 = 16 << 20;

/// The entries of a zip archive.
pub(super) struct Archive<'a> {
    source: &'a dyn Source,
    entries: BTreeMap<String, Entry>,
    /// Where the central directory starts and all entries have ended.
    directory: u64,
}

#[derive(Debug, Clone, Copy)]
struct Entry {
    /// Where its local header starts.
    header: u64,
    /// Bytes that its content takes in the file.
    stored: u64,
    /// Length of the content itself: the same, unless it is compressed.
    length: u64,
    method: u16,
    flags: u16,
}

impl<'a> Archive<'a> {
    /// Reads the central directory of `source`.
    pub(super) fn open(source: &'a dyn Source) -> Result<Self> {
        let (directory, n_entries) = find_directory(source)?;
        let bytes = read_range(source, directory.start, directory.end - directory.start)?;
        let mut archive = Self { source, entries: BTreeMap::new(), directory: directory.start };
        let mut cursor = Cursor::new(&bytes);
        for i in 0..n_entries {
            let Some((name, entry)) = archive.read_entry(&mut cursor)? else {
                return Err(archive.refuse(format!("the zip directory ends inside entry {i} of {n_entries}")));
            };
            if archive.entries.insert(name.clone(), entry).is_some() {
                return Err(archive.refuse(format!("the zip entry `{}` appears twice", escaped(&name))));
            }
        }
        if cursor.left() > 0 {
            return Err(
                archive.refuse(format!("the zip directory does not end after its {n_entries} entries"))
            );
        }
        archive.check_overlap()?;
        Ok(archive)
    }

    /// The names of all entries, sorted.
    pub(super) fn names(&self) -> impl Iterator<Item = &str> {
        self.entries.keys().map(String::as_str)
    }

    /// Whether there is an entry called `name`.
    pub(super) fn has(&self, name: &str) -> bool {
        self.entries.contains_key(name)
    }

    /// Where the content of the entry `name`, a stored one, lies in the file; `None` where there is no such
    /// entry.
    pub(super) fn find(&self, name: &str) -> Result<Option<Range<u64>>> {
        let Some(entry) = self.entries.get(name) else { return Ok(None) };
        let refuse = |problem: &str| self.refuse(format!("the zip entry `{}` {problem}", escaped(name)));
        if entry.flags & 1 != 0 {
            return Err(refuse("is encrypted"));
        }
        if entry.method != 0 || entry.length != entry.stored {
            return Err(refuse(
                "is compressed, which torch.save never does; unpack the archive, and pack it stored",
            ));
        }
        let header = read_range(self.source, entry.header, LOCAL_HEADER_LENGTH)?;
        let Some((name_length, extra_length)) = local_lengths(&header) else {
            return Err(refuse("has no local header where the directory says; download the file again"));
        };
        // No overflow: the header lies in the file, and what is added is below 2^18.
        let start = entry.header + LOCAL_HEADER_LENGTH + u64::from(name_length) + u64::from(extra_length);
        match start.checked_add(entry.length) {
            Some(end) if end <= self.directory => Ok(Some(start..end)),
            _ => Err(refuse("reaches into the zip directory")),
        }
    }

    /// The next entry of the central directory; `None` where the bytes end.
    fn read_entry(&self, cursor: &mut Cursor) -> Result<Option<(String, Entry)>> {
        if cursor.u32().is_some_and(|signature| signature != CENTRAL_HEADER) {
            return Err(self.refuse("the zip directory holds something that is not an entry".into()));
        }
        let Some((fields, name, mut extra)) = CentralHeader::read(cursor) else { return Ok(None) };
        let name = std::str::from_utf8(name)
            .map_err(|_| self.refuse("the zip directory holds a name that is not UTF-8".into()))?;
        let refuse = |problem: &str| self.refuse(format!("the zip entry `{}` {problem}", escaped(name)));
        // A field of all ones has its true value in the zip64 extra block, in this order.
        let mut zip64 = zip64_block(&mut extra);
        let mut wide = |narrow: u32| match narrow {
            u32::MAX => zip64.u64().ok_or_else(|| refuse("lacks its 64-bit sizes")),
            narrow => Ok(u64::from(narrow)),
        };
        let (length, stored, header) = (wide(fields.length)?, wide(fields.stored)?, wide(fields.header)?);
        let end = header
            .checked_add(LOCAL_HEADER_LENGTH + name.len() as u64)
            .and_then(|content| content.checked_add(stored));
        if end.is_none_or(|end| end > self.directory) {
            return Err(refuse(&format!(
                "takes {stored} bytes at byte {header}, which passes byte {}, where the entries end",
                self.directory
            )));
        }
        Ok(Some((name.into(), Entry { header, stored, length, method: fields.method, flags: fields.flags })))
    }

    fn check_overlap(&self) -> Result<()> {
        let mut entries: Vec<_> = self.entries.iter().collect();
        entries.sort_by_key(|(_, entry)| entry.header);
        for pair in entries.windows(2) {
            let [(first, entry), (second, next)] = pair else { unreachable!() };
            // At the least: a local header may be longer. No overflow: this was seen to lie in the file.
            if entry.header + LOCAL_HEADER_LENGTH + first.len() as u64 + entry.stored > next.header {
                let (first, second) = (escaped(first), escaped(second));
                return Err(self.refuse(format!("the zip entries `{first}` and `{second}` overlap")));
            }
        }
        Ok(())
    }

    fn refuse(&self, problem: String) -> Error {
        Error::file(self.source.name(), problem)
    }
}

/// Where the central directory lies, and how many entries it says to have.
fn find_directory(source: &dyn Source) -> Result<(Range<u64>, u64)> {
    let refuse = |problem: &str| Error::file(source.name(), problem);
    let truncated = || refuse("the zip archive has no end: the file is truncated; download it again");

    // The end record is last, but for a comment of up to 65,535 bytes.
    let tail_start = source.len().saturating_sub(END_LENGTH + u64::from(u16::MAX));
    let tail = read_range(source, tail_start, source.len() - tail_start)?;
    let (at, end) = (0..tail.len())
        .rev()
        .find_map(|at| EndRecord::read(&tail[at..]).map(|end| (tail_start + at as u64, end)))
        .ok_or_else(truncated)?;

    let (end_of_entries, n_entries, length, start) = match find_zip64_end(source, at)? {
        None => (at, end.n_entries.into(), end.length.into(), end.start.into()),
        Some((at, zip64)) => {
            if zip64.disk != 0 || zip64.n_entries_here != zip64.n_entries {
                return Err(refuse("the zip archive is split over several files"));
            }
            (at, zip64.n_entries, zip64.length, zip64.start)
        }
    };
    if end.disk != 0 || end.directory_disk != 0 || end.n_entries_here != end.n_entries {
        return Err(refuse("the zip archive is split over several files"));
    }
    let directory = start.checked_add(length).map(|end| start..end);
    let Some(directory) = directory.filter(|directory| directory.end <= end_of_entries) else {
        return Err(refuse(&format!(
            "the zip directory is {length} bytes long at byte {start}, which passes byte {end_of_entries}, \
             where it must have ended"
        )));
    };
    if length > MAX_DIRECTORY {
        return Err(refuse(&format!(
            "the zip directory is {length} bytes long; expected at most {MAX_DIRECTORY}"
        )));
    }
    Ok((directory, n_entries))
}

/// The zip64 end record, where the one at `end` is preceded by a locator for it.
fn find_zip64_end(source: &dyn Source, end: u64) -> Result<Option<(u64, Zip64End)>> {
    let Some(locator) = end.checked_sub(ZIP64_LOCATOR_LENGTH) else { return Ok(None) };
    let bytes = read_range(source, locator, ZIP64_LOCATOR_LENGTH)?;
    let Some(at) = zip64_end_position(&bytes) else { return Ok(None) };
    let refuse = || Error::file(source.name(), "the zip64 end record is not where its locator says");
    if at.checked_add(ZIP64_END_LENGTH).is_none_or(|after| after > locator) {
        return Err(refuse());
    }
    let record = Zip64End::read(&read_range(source, at, ZIP64_END_LENGTH)?).ok_or_else(refuse)?;
    Ok(Some((at, record)))
}

/// The fields of an end record that matter.
struct EndRecord {
    disk: u16,
    directory_disk: u16,
    n_entries_here: u16,
    n_entries: u16,
    length: u32,
    start: u32,
}

impl EndRecord {
    /// `None` where `bytes` is not an end record and its comment, to the last byte.
    fn read(bytes: &[u8]) -> Option<Self> {
        if !bytes.starts_with(&END.to_le_bytes()) {
            return None;
        }
        let mut cursor = Cursor::new(&bytes[4..]);
        let record = Self {
            disk: cursor.u16()?,
            directory_disk: cursor.u16()?,
            n_entries_here: cursor.u16()?,
            n_entries: cursor.u16()?,
            length: cursor.u32()?,
            start: cursor.u32()?,
        };
        let comment = cursor.u16()?;
        (cursor.left() == usize::from(comment)).then_some(record)
    }
}

fn zip64_end_position(locator: &[u8]) -> Option<u64> {
    let mut cursor = Cursor::new(locator);
    let (signature, _disk) = (cursor.u32()?, cursor.u32()?);
    if signature == ZIP64_LOCATOR { cursor.u64() } else { None }
}

/// The fields of a zip64 end record that matter.
struct Zip64End {
    disk: u32,
    n_entries_here: u64,
    n_entries: u64,
    length: u64,
    start: u64,
}

impl Zip64End {
    fn read(bytes: &[u8]) -> Option<Self> {
        let mut cursor = Cursor::new(bytes);
        let (signature, _record_length, _versions) = (cursor.u32()?, cursor.u64()?, cursor.u32()?);
        let (_this_disk, disk) = (cursor.u32()?, cursor.u32()?);
        let record = Self {
            disk,
            n_entries_here: cursor.u64()?,
            n_entries: cursor.u64()?,
            length: cursor.u64()?,
            start: cursor.u64()?,
        };
        (signature == ZIP64_END).then_some(record)
    }
}

/// The fields of a central directory entry that matter.
struct CentralHeader {
    flags: u16,
    method: u16,
    stored: u32,
    length: u32,
    header: u32,
}

impl CentralHeader {
    /// The fields after the signature, the name, and the extra blocks.
    fn read<'b>(cursor: &mut Cursor<'b>) -> Option<(Self, &'b [u8], Cursor<'b>)> {
        let _versions = cursor.u32()?;
        let (flags, method) = (cursor.u16()?, cursor.u16()?);
        let (_time_and_date, _crc) = (cursor.u32()?, cursor.u32()?);
        let (stored, length) = (cursor.u32()?, cursor.u32()?);
        let (name, extra, comment) = (cursor.u16()?, cursor.u16()?, cursor.u16()?);
        let _disk_and_attributes = cursor.take(8)?;
        let header = cursor.u32()?;
        let name = cursor.take(name.into())?;
        let extra = Cursor::new(cursor.take(extra.into())?);
        cursor.take(comment.into())?;
        Some((Self { flags, method, stored, length, header }, name, extra))
    }
}

/// The lengths of name and extra blocks in a local header; `None` where it is not one.
fn local_lengths(header: &[u8]) -> Option<(u16, u16)> {
    let mut cursor = Cursor::new(header);
    let signature = cursor.u32()?;
    let _as_in_the_directory = cursor.take(22)?;
    let lengths = (cursor.u16()?, cursor.u16()?);
    (signature == LOCAL_HEADER).then_some(lengths)
}

/// The content of the zip64 block among `extra`, empty where there is none.
fn zip64_block<'b>(extra: &mut Cursor<'b>) -> Cursor<'b> {
    const ZIP64: u16 = 1;
    while let (Some(id), Some(length)) = (extra.u16(), extra.u16()) {
        match extra.take(length.into()) {
            Some(block) if id == ZIP64 => return Cursor::new(block),
            Some(_) => {}
            None => break,
        }
    }
    Cursor::new(&[])
}
