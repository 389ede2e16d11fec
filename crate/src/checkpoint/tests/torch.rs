//! The `torch.save` reader: files that PyTorch made, and each refusal of zip archive, pickle and tensor.

#[cfg(target_arch = "wasm32")]
use wasm_bindgen_test::wasm_bindgen_test as test;

use super::forge::{Pickled, WEIGHT, Zip, open, refused, state_dict, torch_file};
use super::{floats, read};
use crate::checkpoint::{Checkpoint, DType};

const CURRENT: &[u8] = include_bytes!("oracle/current.bin");
const PROTOCOL_4: &[u8] = include_bytes!("oracle/protocol_4.bin");
const OF_2022: &[u8] = include_bytes!("oracle/of_2022.bin");

/// What `make_oracle.py` fills its tensors with.
fn ramp(range: std::ops::Range<usize>) -> Vec<f32> {
    range.map(|i| i as f32 / 8.0 - 2.0).collect()
}

#[test]
fn what_pytorch_saves_is_read() {
    for (made, bytes) in [("now", CURRENT), ("with protocol 4", PROTOCOL_4), ("in 2022", OF_2022)] {
        let checkpoint = open(bytes.to_vec()).unwrap_or_else(|error| panic!("{made}: {error}"));
        let found: Vec<_> = checkpoint
            .tensors()
            .map(|info| format!("{} {} {:?}", info.name, info.dtype, info.shape))
            .collect();
        let expected = [
            "bfloat BF16 [33]",
            "empty F32 [0, 4]",
            "half F16 [2, 3, 5]",
            "mask BOOL [1, 1, 2, 2]",
            "parameter F32 [7]",
            "position_ids I64 [1, 5]",
            "scalar F32 []",
            "second_row F32 [3]",
            "tied F32 [4, 3]",
            "weight F32 [4, 3]",
        ];
        assert_eq!(found, expected, "{made}");
        for (name, elements) in [
            ("bfloat", 0..33),
            ("empty", 0..0),
            ("half", 0..30),
            ("parameter", 0..7),
            ("scalar", 0..1),
            ("second_row", 3..6),
            ("tied", 0..12),
            ("weight", 0..12),
        ] {
            assert_eq!(read(&checkpoint, name), ramp(elements), "{name}, saved {made}");
        }
    }
}

#[test]
fn what_is_no_state_dict_is_refused() {
    for (bytes, expected) in [
        (
            &include_bytes!("oracle/transposed.bin")[..],
            "the tensor `transposed` is a view with gaps or another order",
        ),
        (
            include_bytes!("oracle/nested.bin"),
            "holds no tensor, but `model`, `epoch`; save the model's state_dict()",
        ),
        (
            include_bytes!("oracle/module.bin"),
            "names the function `torch.nn.modules.linear.Linear`, which this reader",
        ),
        (include_bytes!("oracle/program.bin"), "a TorchScript program"),
    ] {
        refused(bytes.to_vec(), expected);
    }
}

#[test]
fn a_pickle_that_names_a_function_is_refused_by_that_name() {
    for (pickle, function) in [
        (&b"\x80\x02cos\nsystem\nX\x02\x00\x00\x00id\x85R."[..], "os.system"),
        (b"\x80\x04\x8c\x08builtins\x8c\x04eval\x93\x8c\x011\x85R.", "builtins.eval"),
        (b"\x80\x02(X\x02\x00\x00\x00idios\nsystem\n.", "os.system"),
        (b"\x80\x02ctorch\nload\n.", "torch.load"),
        (b"\x80\x02ccollections.OrderedDict\n__class__\n.", "collections.OrderedDict.__class__"),
        (b"\x80\x02ctorch.storage\nUntypedStorage\n.", "torch.storage.UntypedStorage"),
        (b"\x80\x02ca\x1b[2J\nb\n.", "a\\u{1b}[2J.b"),
    ] {
        refused(
            torch_file(pickle, b"").finish(),
            &format!("names the function `{function}`, which this reader never calls"),
        );
    }
}

#[test]
fn a_broken_pickle_is_refused() {
    for (pickle, expected) in [
        (&b""[..], "ends in the middle"),
        (b"\x80\x02", "ends in the middle"),
        (b"\x80\x02X\xff\xff\xff\xffabc", "ends in the middle (byte 2 of its data.pkl)"),
        (b"\x80\x02\x8d\xff\xff\xff\xff\xff\xff\xff\xffabc", "ends in the middle"),
        (b"\x80\x02ctorch", "ends in the middle"),
        (b"\x80\x01N.", "protocol 1; expected 2 to 5"),
        (b"\x80\x02.", "takes a value that is not there"),
        (b"\x80\x02N(.", "takes a value that is not there"),
        (b"\x80\x02N(\x85.", "takes a value that is not there"),
        (b"\x80\x02NN.", "values left over"),
        (b"\x80\x02N.", "holds no state dict"),
        (b"\x80\x02t.", "a mark that it never set"),
        (b"\x80\x02u.", "a mark that it never set"),
        (b"\x80\x02h\x07.", "recalls value 7, which it never kept"),
        (b"\x80\x02q\x00.", "takes a value that is not there"),
        (b"\x80\x02}(K\x01u.", "sets a key without a value"),
        (b"\x80\x02NK\x01K\x02s.", "fills something that is not a dict"),
        (b"\x80\x02N}b.", "fills something that is not a dict"),
        (b"\x80\x02NK\x01a.", "appends to something that is not a list"),
        (b"\x80\x02N(K\x01e.", "appends to something that is not a list"),
        (b"\x80\x02X\x01\x00\x00\x00\xff.", "a text that is not UTF-8"),
        (b"\x80\x02c\xff\n\n.", "a name that is not UTF-8"),
        (b"\x80\x02\x8a\x09\x01\x01\x01\x01\x01\x01\x01\x01\x01.", "a number beyond 64 bits"),
        (b"\x80\x02}\x8f.", "the opcode 0x8f, which no state dict needs (byte 3"),
        (b"\x80\x04NN\x93.", "imports something by what is not a name"),
        (b"\x80\x02N)R.", "calls something that is not a function"),
        (b"\x80\x02ccollections\nOrderedDict\nNR.", "calls something that is not a function"),
        (
            b"\x80\x02ccollections\nOrderedDict\nN\x85R.",
            "calls OrderedDict with arguments that do not belong",
        ),
        (b"\x80\x02ctorch\nFloatStorage\n)R.", "calls FloatStorage with arguments that do not belong"),
        (b"\x80\x02ctorch._utils\n_rebuild_parameter\n)R.", "calls _rebuild_parameter with arguments"),
        (b"\x80\x02(icollections\nOrderedDict\n.", "an object by INST"),
        (b"\x80\x02NQ.", "persistent id is not a storage"),
        (b"\x80\x02)Q.", "persistent id is not a storage"),
        (b"\x80\x02}.", "holds no tensor, but nothing"),
    ] {
        refused(torch_file(pickle, b"").finish(), expected);
    }
}

#[test]
fn numbers_of_every_opcode_are_read() {
    use crate::checkpoint::pickle::{Machine, Value};
    for (pickle, expected) in [
        (&b"K\xff."[..], 255),
        (b"M\xff\xff.", 65535),
        (b"J\xff\xff\xff\xff.", -1),
        (b"\x8a\x00.", 0),
        (b"\x8a\x01\xff.", -1),
        (b"\x8a\x02\xff\x00.", 255),
        (b"\x8a\x05\x00\x00\x00\x00\x01.", 1 << 32),
        (b"\x8a\x08\x00\x00\x00\x00\x00\x00\x00\x80.", i64::MIN),
    ] {
        let (_, value) = Machine::run(pickle).unwrap();
        assert_eq!(value, Value::Int(expected));
    }
}

/// A dict inside itself, and 2^1000 references in a kilobyte: held as references, never walked.
#[test]
fn a_pickle_bomb_stays_small() {
    refused(torch_file(b"\x80\x02}q\x00X\x01\x00\x00\x00ah\x00s.", b"").finish(), "holds no tensor, but `a`");
    let mut doubling = b"\x80\x02})q\x00".to_vec();
    for _ in 0..1000 {
        doubling.extend_from_slice(b"h\x00h\x00\x86q\x00");
    }
    doubling.extend_from_slice(b"\x89s.");
    refused(torch_file(&doubling, b"").finish(), "fills something that is not a dict");
    refused(torch_file(&vec![b'N'; 2_000_000], b"").finish(), "more than 1000000 opcodes");
    refused(torch_file(&vec![b'('; 2_000_000], b"").finish(), "more than 1000000 opcodes");
    refused(
        torch_file(&vec![0x95; 17 << 20], b"").finish(),
        "its data.pkl is 17825792 bytes long; expected at most",
    );
}

#[test]
fn a_tensor_that_its_storage_does_not_hold_is_refused() {
    let storage = floats(&[1., 2., 3., 4., 5., 6.]);
    let file = |tensors: &[Pickled]| torch_file(&state_dict(tensors), &storage).finish();
    assert_eq!(read(&open(file(&[WEIGHT])).unwrap(), "weight"), [1., 2., 3., 4., 5., 6.]);

    // Strides that are never used may be anything.
    let flat = Pickled { size: &[1, 6, 1], stride: &[77, 1, -5], ..WEIGHT };
    assert_eq!(open(file(&[flat])).unwrap().get("weight").unwrap().shape, [1, 6, 1]);
    let most = i32::MAX;
    let empty = Pickled { size: &[0, most, most], stride: &[-1, 2, 3], ..WEIGHT };
    assert_eq!(open(file(&[empty])).unwrap().get("weight").unwrap().elements(), 0);

    for (tensor, expected) in [
        (
            Pickled { size: &[3, 2], stride: &[1, 3], ..WEIGHT },
            "`weight` is a view with gaps or another order",
        ),
        (
            Pickled { size: &[3, 2], stride: &[0, 1], ..WEIGHT },
            "`weight` is a view with gaps or another order",
        ),
        (
            Pickled { size: &[2, 1], stride: &[3, 1], ..WEIGHT },
            "`weight` is a view with gaps or another order",
        ),
        (Pickled { size: &[2, 3], stride: &[3], ..WEIGHT }, "has 2 dimensions, but 1 strides"),
        (Pickled { size: &[1; 17], stride: &[1; 17], ..WEIGHT }, "has 17 dimensions; expected at most 16"),
        (Pickled { size: &[-2, 3], ..WEIGHT }, "negative size, stride or offset: -2"),
        (Pickled { stride: &[-3, 1], ..WEIGHT }, "negative size, stride or offset: -3"),
        (Pickled { offset: -1, ..WEIGHT }, "negative size, stride or offset: -1"),
        (Pickled { offset: 1, ..WEIGHT }, "has 6 elements from 1 on, but its storage `0` has 6"),
        (Pickled { size: &[3, 3], ..WEIGHT }, "has 9 elements from 0 on, but its storage `0` has 6"),
        (
            Pickled { size: &[most; 3], stride: &[1; 3], ..WEIGHT },
            "has more elements than this machine can address",
        ),
        (Pickled { storage_elements: -6, ..WEIGHT }, "a storage of negative length"),
        (
            Pickled { storage_elements: 7, ..WEIGHT },
            "storage `0`: expected 7 elements of F32, 4 bytes each, found 24",
        ),
        (
            Pickled { class: "HalfStorage", ..WEIGHT },
            "expected 6 elements of F16, 2 bytes each, found 24 bytes",
        ),
        (Pickled { key: "1", ..WEIGHT }, "`weight` is in the storage `1`, which is missing"),
        (Pickled { key: "../data.pkl", ..WEIGHT }, "the storage `../data.pkl`, which is missing"),
    ] {
        refused(file(&[tensor]), expected);
    }
    refused(file(&[WEIGHT, WEIGHT]), "the tensor `weight` appears twice");

    let mut named_by_a_number = state_dict(&[Pickled { name: "", ..WEIGHT }]);
    named_by_a_number.splice(4..9, *b"K\x01");
    refused(torch_file(&named_by_a_number, &storage).finish(), "a tensor whose name is not text");
    let mut conjugate = state_dict(&[WEIGHT]);
    let end = conjugate.len() - 4;
    conjugate.splice(end.., *b"}tRu.");
    refused(torch_file(&conjugate, &storage).finish(), "rebuilds a tensor with metadata");
}

#[test]
fn a_storage_is_read_whatever_the_top_folder_is_called() {
    let pickle = state_dict(&[WEIGHT]);
    let storage = floats(&[1.; 6]);
    let zip = Zip::default().add("pytorch model/data.pkl", &pickle).add("pytorch model/data/0", &storage);
    assert_eq!(open(zip.finish()).unwrap().get("weight").unwrap().dtype, DType::F32);
    // The end record is found before a comment, even one that looks like an end record.
    let zip = Zip { comment: b"PK\x05\x06 not really".into(), ..zip };
    assert_eq!(open(zip.finish()).unwrap().get("weight").unwrap().shape, [2, 3]);
    let zip = Zip { zip64: true, ..zip };
    assert_eq!(read(&open(zip.finish()).unwrap(), "weight"), [1.; 6]);
}

#[test]
fn an_archive_that_pytorch_did_not_write_is_refused() {
    let pickle = state_dict(&[WEIGHT]);
    let zip = || torch_file(&pickle, &[0; 24]);
    let forged = |lie: fn(&mut Zip)| {
        let mut zip = zip();
        lie(&mut zip);
        zip.finish()
    };
    for (bytes, expected) in [
        (Zip::default().finish(), "holds no data.pkl"),
        (Zip::default().add("model.safetensors", b"").finish(), "holds no data.pkl"),
        (zip().add("other/data.pkl", b"").finish(), "several files data.pkl"),
        (zip().add("archive/data/0", b"").finish(), "the zip entry `archive/data/0` appears twice"),
        (forged(|zip| zip.last().method = 8), "`archive/data/0` is compressed, which torch.save never does"),
        (forged(|zip| zip.last().flags |= 1), "`archive/data/0` is encrypted"),
        (forged(|zip| zip.entries[1].content = b"big".into()), "the byte order is `big`; expected `little`"),
        (forged(|zip| zip.last().name = b"\xff".into()), "a name that is not UTF-8"),
        (forged(|zip| zip.last().length_shift = 1000), "`archive/data/0` takes 1024 bytes at byte"),
        (forged(|zip| zip.last().length_shift = 1), "`archive/data/0` reaches into the zip directory"),
        (forged(|zip| zip.last().header_shift = 1 << 30), "passes byte"),
        (
            forged(|zip| zip.last().header_shift = -20),
            "the zip entries `archive/byteorder` and `archive/data/0` overlap",
        ),
        (forged(|zip| zip.entries[1].header_shift = 1), "`archive/byteorder` has no local header where"),
        (forged(|zip| zip.directory_shift = 1), "the zip directory is"),
        (forged(|zip| zip.directory_shift = -1), "the zip directory holds something that is not an entry"),
        (forged(|zip| zip.entries_shift = 1), "the zip directory ends inside entry 3 of 4"),
        (forged(|zip| zip.entries_shift = -1), "does not end after its 2 entries"),
        (
            forged(|zip| {
                zip.zip64 = true;
                zip.directory_shift = i64::MIN;
            }),
            "which passes byte",
        ),
        (
            forged(|zip| {
                zip.zip64 = true;
                zip.last().header_shift = -1 << 40;
            }),
            "which passes byte",
        ),
        (
            forged(|zip| {
                zip.zip64 = true;
                zip.entries_shift = 1 << 40;
            }),
            "ends inside entry 3 of 1099511627779",
        ),
    ] {
        refused(bytes, expected);
    }
    let whole = zip().finish();
    for length in 0..whole.len() {
        assert!(
            open(whole[..length].to_vec()).is_err(),
            "opened when cut to {length} of {} bytes",
            whole.len()
        );
    }
    refused(whole[..whole.len() - 1].to_vec(), "truncated");
    let mut split = whole.clone();
    let disk = whole.len() - 18;
    split[disk] = 1;
    refused(split, "split over several files");
    let mut moved = Zip { zip64: true, ..zip() }.finish();
    let locator = moved.len() - 22 - 20;
    moved[locator + 8] ^= 1;
    refused(moved, "the zip64 end record is not where its locator says");
}

#[test]
fn an_archive_beyond_4_gib_is_read() {
    const HOLE: u64 = 5 << 30;
    let large = Pickled {
        name: "large",
        storage_elements: 5 << 28,
        size: &[5 << 14, 1 << 14],
        stride: &[1 << 14, 1],
        ..WEIGHT
    };
    let small = Pickled { name: "small", key: "1", ..WEIGHT };

    let mut zip = torch_file(&state_dict(&[large, small]), b"");
    zip.last().hole = HOLE;
    let zip = Zip { zip64: true, ..zip }.add("archive/data/1", &floats(&[1., 2., 3., 4., 5., 6.]));
    let source = zip.finish_sparse();
    assert!(source.length > HOLE);
    let checkpoint = Checkpoint::open(vec![Box::new(source)]).unwrap();
    assert_eq!(checkpoint.bytes(), HOLE + 24);
    assert_eq!(read(&checkpoint, "small"), [1., 2., 3., 4., 5., 6.]);
    let mut last = [f32::NAN; 3];
    let large = checkpoint.get("large").unwrap();
    checkpoint.read_f32(large, large.elements() - 3, &mut last).unwrap();
    assert_eq!(last, [0.; 3]);
}
