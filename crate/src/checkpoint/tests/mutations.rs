//! Thousands of damaged files: none makes the reader panic, hang, or allocate out of proportion.

#![allow(unsafe_code)] // A counting allocator cannot be written without.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

use super::forge::{Pickled, WEIGHT, Zip, open, state_dict, torch_file};
use super::{floats, one_tensor};

thread_local! {
    /// Bytes that this thread holds, and the most that it held.
    static HELD: Cell<(isize, isize)> = const { Cell::new((0, 0)) };
}

/// The system's allocator, counting per thread.
struct Counting;

fn count(bytes: isize) {
    // Fails while a thread is torn down; nothing is measured there.
    _ = HELD.try_with(|held| {
        let (now, most) = held.get();
        held.set((now + bytes, most.max(now + bytes)));
    });
}

// SAFETY: every call is handed on as it came; what is counted in between allocates nothing.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the caller's promises are the system allocator's own.
        let pointer = unsafe { System.alloc(layout) };
        // What was refused, an absurd size say, is not held.
        if !pointer.is_null() {
            count(layout.size() as isize);
        }
        pointer
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        count(-(layout.size() as isize));
        // SAFETY: the caller's promises are the system allocator's own.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// The most memory that `work` held beyond what was held before, in bytes.
fn peak(work: impl FnOnce()) -> usize {
    let (before, _) = HELD.get();
    HELD.set((before, before));
    work();
    (HELD.get().1 - before) as usize
}

/// A fixed sequence of well-mixed numbers: splitmix64.
struct Numbers(u64);

impl Numbers {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    fn below(&mut self, end: usize) -> usize {
        (self.next() % end.max(1) as u64) as usize
    }

    /// Damages `file` in one to four places, in the ways in which formats break.
    fn damage(&mut self, file: &mut Vec<u8>) {
        const TELLING: [u8; 12] = [0, 1, 0x7f, 0x80, 0xff, b'(', b'0', b'9', b'R', b't', b'q', b'h'];
        for _ in 0..=self.below(4) {
            let at = self.below(file.len());
            let end = (at + 1 + self.below(12)).min(file.len());
            match self.below(7) {
                _ if file.is_empty() => return,
                0 => file[at] ^= 1 << self.below(8),
                1 => file[at] = TELLING[self.below(TELLING.len())],
                2 => file[at] = self.next() as u8,
                3 => file[at..end].fill(0xff),
                4 => drop(file.drain(at..end)),
                5 => {
                    let copied = file[at..end].to_vec();
                    let to = self.below(file.len());
                    drop(file.splice(to..to, copied));
                }
                _ => file.truncate(at),
            }
        }
    }
}

/// Opens `file` and, where that succeeds, reads all that it holds. Returns whether it opened.
fn open_and_read(file: Vec<u8>) -> bool {
    let Ok(checkpoint) = open(file) else { return false };
    let mut strip = [0.0; 100];
    for info in checkpoint.tensors() {
        let mut start = 0;
        while start < info.elements() {
            let count = (info.elements() - start).min(strip.len() as u64);
            if checkpoint.read_f32(info, start, &mut strip[..count as usize]).is_err() {
                break;
            }
            start += count;
        }
    }
    true
}

/// Memory that opening a file of `length` bytes may take: a buffer for the end of a zip archive, and every
/// byte of a header or pickle turned into the largest thing that one byte can stand for.
fn bound(length: usize) -> usize {
    (256 << 10) + 128 * length
}

fn survives_damage(what: &str, files: &[Vec<u8>], rounds: usize) {
    let mut numbers = Numbers(1);
    let mut opened = 0;
    for round in 0..rounds {
        let mut file = files[numbers.below(files.len())].clone();
        numbers.damage(&mut file);
        let length = file.len();
        let peak = peak(|| opened += usize::from(open_and_read(file)));
        assert!(peak <= bound(length), "{what}, round {round}: {peak} bytes held for a file of {length}");
    }
    // Damage must reach the depths: some files still open, most do not.
    assert!(opened > 0 && opened < rounds / 2, "{what}: {opened} of {rounds} damaged files opened");
}

#[test]
fn damaged_safetensors() {
    let two = r#"{"__metadata__":{"format":"pt"},
        "h.0.ln_1.weight":{"dtype":"F16","shape":[2,3],"data_offsets":[0,12]},
        "wte":{"dtype":"F32","shape":[2],"data_offsets":[12,20]}}"#;
    let scaled = [&[1, 2], &[2, 1]].map(|shape| super::scaled::scaled_file(&[2, 2], shape));
    let files = [one_tensor("wte", &[1.; 4]), super::forge::safetensors(two, &[7; 20])];
    let files = [&files[..], &scaled[..]].concat();
    survives_damage("safetensors", &files, 40_000);
}

#[test]
fn damaged_archives() {
    let pickle =
        state_dict(&[WEIGHT, Pickled { name: "bias", size: &[3], stride: &[1], offset: 3, ..WEIGHT }]);
    let zip = torch_file(&pickle, &floats(&[1.; 6]));
    let plain = zip.finish();
    let zip64 = Zip { zip64: true, ..zip }.finish();
    let made_by_pytorch = include_bytes!("oracle/current.bin").to_vec();
    survives_damage("archives", &[plain, zip64, made_by_pytorch], 40_000);
}

/// The pickle alone is damaged, inside a sound archive, so that every round reaches the machine.
#[test]
fn damaged_pickles() {
    let pickle_of = |file: &[u8]| {
        let start = file.windows(2).position(|bytes| bytes == b"\x80\x02" || bytes == b"\x80\x04").unwrap();
        let end = start
            + file[start..]
                .windows(4)
                .position(|bytes| bytes == b"PK\x03\x04" || bytes == b"PK\x07\x08")
                .unwrap();
        file[start..end].to_vec()
    };
    let made_by_pytorch =
        [include_bytes!("oracle/of_2022.bin").as_slice(), include_bytes!("oracle/protocol_4.bin")];
    let mut pickles: Vec<_> = made_by_pytorch.iter().map(|file| pickle_of(file)).collect();
    pickles.push(state_dict(&[WEIGHT]));
    let storages: Vec<Vec<u8>> =
        [48, 40, 60, 66, 28, 4, 4, 0].iter().map(|&length| vec![1; length]).collect();

    let mut numbers = Numbers(2);
    let rounds = 60_000;
    let mut opened = 0;
    for round in 0..rounds {
        let mut pickle = pickles[numbers.below(pickles.len())].clone();
        if round >= pickles.len() {
            numbers.damage(&mut pickle);
        }
        let mut zip = Zip::default().add("archive/data.pkl", &pickle);
        for (key, storage) in storages.iter().enumerate() {
            zip = zip.add(&format!("archive/data/{key}"), storage);
        }
        let file = zip.finish();
        let length = file.len();
        let peak = peak(|| opened += usize::from(open_and_read(file)));
        assert!(peak <= bound(length), "round {round}: {peak} bytes held for a file of {length}");
    }
    assert!(opened > 100 && opened < rounds / 2, "{opened} of {rounds} damaged pickles opened");
}

/// The opcodes that cost the most memory per byte, at the length where the machine gives up.
#[test]
fn the_greediest_pickles_stay_below_the_bound() {
    let repeated = |unit: &[u8]| {
        let mut pickle = b"\x80\x02}q\x00N".to_vec();
        pickle.extend_from_slice(&unit.repeat(1_000_000 / unit.len()));
        torch_file(&pickle, b"").finish()
    };
    for unit in [
        &b"N"[..],
        b"(",
        b"}",
        b")",
        b"]",
        b"h\x00",
        b"N\x85",
        b"h\x00NNs",
        b"}\x94",
        b"N\x94",
        b"h\x00h\x00\x86\x94",
    ] {
        let file = repeated(unit);
        let length = file.len();
        let peak = peak(|| _ = open_and_read(file));
        assert!(peak <= bound(length), "{unit:?}: {peak} bytes held for a file of {length}");
    }
}

#[test]
fn the_greediest_headers_stay_below_the_bound() {
    let many = (0..50_000).map(|i| format!(r#""{i}":{{"dtype":"","shape":[],"data_offsets":[0,0]}}"#));
    let many = format!("{{{}}}", many.collect::<Vec<_>>().join(","));
    let long =
        format!(r#"{{"a":{{"dtype":"F32","shape":[{}0],"data_offsets":[0,0]}}}}"#, "0,".repeat(1_000_000));
    let name =
        format!(r#"{{"{}":{{"dtype":"F32","shape":[1],"data_offsets":[0,0]}}}}"#, "\\n".repeat(1_000_000));
    for (header, opens) in [(many, true), (long, false), (name, false)] {
        let file = super::forge::safetensors(&header, b"");
        let length = file.len();
        let mut opened = false;
        let peak = peak(|| opened = open_and_read(file));
        assert_eq!(opened, opens, "{}", &header[..80]);
        assert!(peak <= bound(length), "{peak} bytes held for a file of {length}: {}", &header[..80]);
    }
}
