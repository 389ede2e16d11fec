//! Where bytes come from: a named, sized, seekable file that is read by range.
//!
//! Not responsible for what the bytes mean. Sources over browser files live at the crate's JavaScript
//! boundary.

use std::ops::Range;
use std::pin::Pin;

use crate::{Error, Result};

/// Something that is waited for.
pub type Awaited<'a, T> = Pin<Box<dyn Future<Output = T> + 'a>>;

/// A file that can be read by range. Nothing here ever asks for the whole of it.
pub trait Source {
    /// The file's name, as errors show it.
    fn name(&self) -> &str;

    /// The file's length in bytes.
    fn len(&self) -> u64;

    /// Whether the file holds no byte at all.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Fills `buffer` with the bytes `[offset, offset + buffer.len())`.
    ///
    /// # Errors
    /// [`Error::Read`] where the range passes the end of the file or the bytes cannot be had.
    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> Result<()>;

    /// Told, before a load, which ranges it will wait for, roughly in their order: bytes that take long to come can be asked for in time.
    /// Others may be waited for too.
    fn expect(&self, _range: Range<u64>) {}

    /// Waits until [`Source::read_at`] has the bytes in `range` at hand. That may be called without waiting, but then it may block.
    ///
    /// # Errors
    /// [`Error::Read`] where the bytes cannot be had.
    fn ready(&self, _range: Range<u64>) -> Awaited<'_, Result<()>> {
        Box::pin(std::future::ready(Ok(())))
    }
}

/// Reads `length` bytes at `offset` into fresh memory, which is reserved only once the range is known to lie
/// inside the file.
pub(super) fn read_range(source: &dyn Source, offset: u64, length: u64) -> Result<Vec<u8>> {
    check_range(source.name(), source.len(), offset, length)?;
    let mut bytes = Vec::new();
    let reserved = usize::try_from(length).ok().filter(|&length| bytes.try_reserve_exact(length).is_ok());
    let Some(length) = reserved else {
        return Err(Error::Memory(format!("{}: {length} bytes to read at byte {offset}", source.name())));
    };
    bytes.resize(length, 0);
    source.read_at(offset, &mut bytes)?;
    Ok(bytes)
}

fn check_range(file: &str, file_length: u64, offset: u64, length: u64) -> Result<()> {
    if offset.checked_add(length).is_some_and(|end| end <= file_length) {
        return Ok(());
    }
    let problem = format!("{length} bytes asked for, but the file ends at byte {file_length}");
    Err(Error::Read { file: file.into(), offset, problem })
}

/// A file that lies in memory: an embedded fixture, or a small file already read.
pub struct BytesSource<B = Vec<u8>> {
    name: String,
    bytes: B,
}

impl<B: AsRef<[u8]>> BytesSource<B> {
    /// A file called `name` whose content is `bytes` (a `Vec<u8>`, a `&'static [u8]`, ...).
    pub fn new(name: impl Into<String>, bytes: B) -> Self {
        Self { name: name.into(), bytes }
    }
}

impl<B: AsRef<[u8]>> Source for BytesSource<B> {
    fn name(&self) -> &str {
        &self.name
    }

    fn len(&self) -> u64 {
        self.bytes.as_ref().len() as u64
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> Result<()> {
        check_range(&self.name, self.len(), offset, buffer.len() as u64)?;
        let start = offset as usize;
        buffer.copy_from_slice(&self.bytes.as_ref()[start..start + buffer.len()]);
        Ok(())
    }
}

#[cfg(not(target_arch = "wasm32"))]
pub use on_disk::FileSource;

#[cfg(not(target_arch = "wasm32"))]
mod on_disk {
    use std::cell::RefCell;
    use std::fs::File;
    use std::io::{self, Read, Seek, SeekFrom};
    use std::path::Path;

    use super::{Source, check_range};
    use crate::{Error, Result};

    /// A file on disk, read by seeking. Its length is taken when it is opened.
    pub struct FileSource {
        name: String,
        file: RefCell<File>,
        length: u64,
    }

    impl FileSource {
        /// Opens `path` for reading; errors will call it by its file name.
        ///
        /// # Errors
        /// [`Error::Read`] where the operating system refuses.
        pub fn open(path: impl AsRef<Path>) -> Result<Self> {
            let path = path.as_ref();
            let problem = |error: io::Error| Error::Read {
                file: path.display().to_string(),
                offset: 0,
                problem: error.to_string(),
            };
            let file = File::open(path).map_err(problem)?;
            let length = file.metadata().map_err(problem)?.len();
            let name = path.file_name().unwrap_or(path.as_os_str()).to_string_lossy().into_owned();
            Ok(Self { name, file: RefCell::new(file), length })
        }
    }

    impl Source for FileSource {
        fn name(&self) -> &str {
            &self.name
        }

        fn len(&self) -> u64 {
            self.length
        }

        fn read_at(&self, offset: u64, buffer: &mut [u8]) -> Result<()> {
            check_range(&self.name, self.length, offset, buffer.len() as u64)?;
            let mut file = self.file.borrow_mut();
            file.seek(SeekFrom::Start(offset))
                .and_then(|_| file.read_exact(buffer))
                .map_err(|error| Error::Read { file: self.name.clone(), offset, problem: error.to_string() })
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    #[cfg(target_arch = "wasm32")]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    fn reads_by_range(source: &dyn Source) {
        assert_eq!((source.name(), source.len(), source.is_empty()), ("digits", 10, false));
        let mut four = [0; 4];
        source.read_at(6, &mut four).unwrap();
        assert_eq!(&four, b"6789");
        source.read_at(10, &mut []).unwrap();
        for offset in [7, 10, 11, u64::MAX] {
            let error = source.read_at(offset, &mut four).unwrap_err();
            assert_eq!(error.code(), "read-failed");
            assert!(error.to_string().contains("the file ends at byte 10"), "{error}");
        }
        assert_eq!(read_range(source, 1, 3).unwrap(), b"123");
        // Refused before any memory is asked for.
        assert_eq!(read_range(source, 1, u64::MAX).unwrap_err().code(), "read-failed");
        assert_eq!(read_range(source, 1, 1 << 62).unwrap_err().code(), "read-failed");
    }

    #[test]
    fn bytes_are_read_by_range() {
        reads_by_range(&BytesSource::new("digits", b"0123456789"));
        reads_by_range(&BytesSource::new("digits", b"0123456789".to_vec()));
    }

    #[test]
    #[cfg(not(target_arch = "wasm32"))]
    fn a_file_on_disk_is_read_by_range() {
        let folder = std::env::temp_dir().join(format!("vitrine-source-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        std::fs::write(folder.join("digits"), b"0123456789").unwrap();
        let source = FileSource::open(folder.join("digits")).unwrap();
        reads_by_range(&source);
        let absent = FileSource::open(folder.join("absent")).err().unwrap();
        assert_eq!(absent.code(), "read-failed");
        std::fs::remove_dir_all(folder).unwrap();
    }
}
