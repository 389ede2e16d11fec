//! The machine that runs a pickle: a stack, marks and a memo, over the few opcodes that a state dict needs.
//!
//! It builds numbers, texts, tuples, dicts, storages and tensors, and nothing else. A name that the pickle
//! wants to import is looked up in a closed list ([`Global`]); any other is refused where it is named, long
//! before it could be called. Opcodes: CPython's Lib/pickletools.py, protocols 2 to 5.
//!
//! Bounded by construction: every opcode takes constant time beyond the bytes that it consumes; values are
//! small and copied whole, since what is in tuples, dicts and tensors lies in arenas that grow only by what
//! was popped from the stack; the number of opcodes is limited; nothing recurses.
//!
//! Not responsible for what calls do ([`super::rebuild`]), nor for where the bytes of a storage lie.

use std::collections::BTreeMap;

use super::cursor::Cursor;
use super::rebuild::{Global, Storage, Tensor};

/// Some 30,000 tensors' worth; it bounds the machine's memory at about 100 MB.
const MAX_OPCODES: usize = 1_000_000;

/// What was wrong with a pickle, as text for an [`Error::File`](crate::Error::File).
pub(super) type Outcome<T> = Result<T, String>;

/// One value: small, and copied freely.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Value<'a> {
    None,
    Bool,
    Int(i64),
    Float,
    Text(&'a str),
    Tuple(Items),
    /// A list; nothing in a state dict needs to know what is in it.
    List,
    Dict(DictId),
    Global(Global),
    Storage(StorageId),
    Tensor(TensorId),
}

/// The values of a tuple: a range of [`Machine::items`].
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Items {
    start: u32,
    length: u32,
}

/// An index into [`Machine::dicts`].
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct DictId(u32);

/// An index into [`Machine::storages`].
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct StorageId(u32);

/// An index into [`Machine::tensors`].
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct TensorId(u32);

/// The machine, and after [`Machine::run`] everything that the pickle built.
pub(super) struct Machine<'a> {
    input: Cursor<'a>,
    stack: Vec<Value<'a>>,
    /// Heights of the stack at which a mark was set; nothing is popped from below the last one.
    marks: Vec<usize>,
    memo: BTreeMap<u32, Value<'a>>,
    items: Vec<Value<'a>>,
    dicts: Vec<Vec<(Value<'a>, Value<'a>)>>,
    storages: Vec<Storage<'a>>,
    tensors: Vec<Tensor>,
}

impl<'a> Machine<'a> {
    /// Runs `pickle` to its end; returns what it built, and the one value that it stands for.
    pub(super) fn run(pickle: &'a [u8]) -> Outcome<(Self, Value<'a>)> {
        let mut machine = Self {
            input: Cursor::new(pickle),
            stack: Vec::new(),
            marks: Vec::new(),
            memo: BTreeMap::new(),
            items: Vec::new(),
            dicts: Vec::new(),
            storages: Vec::new(),
            tensors: Vec::new(),
        };
        for _ in 0..MAX_OPCODES {
            let at = pickle.len() - machine.input.left();
            let opcode = machine.read(Cursor::u8)?;
            if opcode == op::STOP {
                return match (machine.pop()?, machine.stack.is_empty() && machine.marks.is_empty()) {
                    (value, true) => Ok((machine, value)),
                    (_, false) => Err("the pickle stops with values left over".into()),
                };
            }
            machine.step(opcode).map_err(|problem| format!("{problem} (byte {at} of its data.pkl)"))?;
        }
        Err(format!("the pickle has more than {MAX_OPCODES} opcodes, more than any state dict needs"))
    }

    fn step(&mut self, opcode: u8) -> Outcome<()> {
        match opcode {
            op::PROTO => match self.read(Cursor::u8)? {
                2..=5 => Ok(()),
                other => Err(format!("the pickle has protocol {other}; expected 2 to 5")),
            },
            op::FRAME => self.read(Cursor::u64).map(drop),

            op::NONE => self.push(Value::None),
            op::NEWTRUE | op::NEWFALSE => self.push(Value::Bool),
            op::BININT => self.push_read(|input| input.u32().map(|bits| Value::Int((bits as i32).into()))),
            op::BININT1 => self.push_read(|input| input.u8().map(|value| Value::Int(value.into()))),
            op::BININT2 => self.push_read(|input| input.u16().map(|value| Value::Int(value.into()))),
            op::LONG1 => {
                let length = self.read(Cursor::u8)?;
                let bytes = self.read(|input| input.take(length.into()))?;
                self.push(Value::Int(long(bytes).ok_or("the pickle holds a number beyond 64 bits")?))
            }
            op::BINFLOAT => self.push_read(|input| input.u64().map(|_| Value::Float)),
            op::SHORT_BINUNICODE => self.text(|input| input.u8().map(u64::from)),
            op::BINUNICODE => self.text(|input| input.u32().map(u64::from)),
            op::BINUNICODE8 => self.text(Cursor::u64),

            op::MARK => {
                self.marks.push(self.stack.len());
                Ok(())
            }
            op::EMPTY_TUPLE => self.tuple(self.stack.len()),
            op::TUPLE1 => self.tuple_of(1),
            op::TUPLE2 => self.tuple_of(2),
            op::TUPLE3 => self.tuple_of(3),
            op::TUPLE => {
                let start = self.pop_mark()?;
                self.tuple(start)
            }
            op::EMPTY_LIST => self.push(Value::List),
            op::APPEND => {
                self.pop()?;
                self.expect_list()
            }
            op::APPENDS => {
                let start = self.pop_mark()?;
                self.stack.truncate(start);
                self.expect_list()
            }
            op::EMPTY_DICT => {
                let dict = self.new_dict();
                self.push(dict)
            }
            op::SETITEM => {
                let (value, key) = (self.pop()?, self.pop()?);
                let dict = self.top_dict()?;
                dict.push((key, value));
                Ok(())
            }
            op::SETITEMS => self.set_items(),

            op::BINPUT => {
                let index = self.read(Cursor::u8)?;
                self.memoize(index.into())
            }
            op::LONG_BINPUT => {
                let index = self.read(Cursor::u32)?;
                self.memoize(index)
            }
            op::MEMOIZE => self.memoize(self.memo.len() as u32),
            op::BINGET => {
                let index = self.read(Cursor::u8)?;
                self.recall(index.into())
            }
            op::LONG_BINGET => {
                let index = self.read(Cursor::u32)?;
                self.recall(index)
            }

            op::GLOBAL | op::INST => {
                let (module, name) = (self.line()?, self.line()?);
                let global = Global::named(module, name)?;
                if opcode == op::INST {
                    return Err("the pickle builds an object by INST, which no state dict needs".into());
                }
                self.push(Value::Global(global))
            }
            op::STACK_GLOBAL => match (self.pop()?, self.pop()?) {
                (Value::Text(name), Value::Text(module)) => {
                    self.push(Value::Global(Global::named(module, name)?))
                }
                _ => Err("the pickle imports something by what is not a name".into()),
            },
            op::REDUCE => match (self.pop()?, self.pop()?) {
                (Value::Tuple(arguments), Value::Global(global)) => {
                    let result = self.call(global, arguments)?;
                    self.push(result)
                }
                _ => Err("the pickle calls something that is not a function".into()),
            },
            op::BUILD => {
                // The attributes of an OrderedDict: PyTorch hangs `_metadata`, module versions, on the state
                // dict.
                self.pop()?;
                self.top_dict().map(drop)
            }
            op::BINPERSID => {
                let id = self.pop()?;
                let storage = self.persistent_storage(id)?;
                self.push(storage)
            }
            other => Err(format!("the pickle uses the opcode {other:#04x}, which no state dict needs")),
        }
    }

    /// The values of a tuple.
    pub(super) fn items(&self, items: Items) -> &[Value<'a>] {
        &self.items[items.start as usize..][..items.length as usize]
    }

    /// The keys and values of a dict, in the order in which they were set; a key may be there twice.
    pub(super) fn dict(&self, dict: DictId) -> &[(Value<'a>, Value<'a>)] {
        &self.dicts[dict.0 as usize]
    }

    pub(super) fn storage(&self, storage: StorageId) -> &Storage<'a> {
        &self.storages[storage.0 as usize]
    }

    pub(super) fn tensor(&self, tensor: TensorId) -> &Tensor {
        &self.tensors[tensor.0 as usize]
    }

    // An arena's length fits 32 bits: no opcode adds more than one dict, storage or tensor, or more items
    // than were pushed before it.

    pub(super) fn new_dict(&mut self) -> Value<'a> {
        self.dicts.push(Vec::new());
        Value::Dict(DictId(self.dicts.len() as u32 - 1))
    }

    pub(super) fn new_storage(&mut self, storage: Storage<'a>) -> Value<'a> {
        self.storages.push(storage);
        Value::Storage(StorageId(self.storages.len() as u32 - 1))
    }

    pub(super) fn new_tensor(&mut self, tensor: Tensor) -> Value<'a> {
        self.tensors.push(tensor);
        Value::Tensor(TensorId(self.tensors.len() as u32 - 1))
    }

    fn read<T>(&mut self, field: impl FnOnce(&mut Cursor<'a>) -> Option<T>) -> Outcome<T> {
        field(&mut self.input).ok_or_else(|| "the pickle ends in the middle".into())
    }

    fn line(&mut self) -> Outcome<&'a str> {
        let line = self.read(Cursor::line)?;
        std::str::from_utf8(line).map_err(|_| "the pickle imports a name that is not UTF-8".into())
    }

    fn push(&mut self, value: Value<'a>) -> Outcome<()> {
        self.stack.push(value);
        Ok(())
    }

    fn push_read(&mut self, field: impl FnOnce(&mut Cursor<'a>) -> Option<Value<'a>>) -> Outcome<()> {
        let value = self.read(field)?;
        self.push(value)
    }

    fn text(&mut self, length: impl FnOnce(&mut Cursor<'a>) -> Option<u64>) -> Outcome<()> {
        let length = self.read(length)?;
        let bytes = self.read(|input| input.take(length))?;
        let text = std::str::from_utf8(bytes).map_err(|_| "the pickle holds a text that is not UTF-8")?;
        self.push(Value::Text(text))
    }

    /// The height below which nothing may be popped.
    fn floor(&self) -> usize {
        self.marks.last().copied().unwrap_or(0)
    }

    fn pop(&mut self) -> Outcome<Value<'a>> {
        let popped = if self.stack.len() > self.floor() { self.stack.pop() } else { None };
        popped.ok_or_else(underflow)
    }

    fn top(&self) -> Outcome<Value<'a>> {
        self.stack[self.floor()..].last().copied().ok_or_else(underflow)
    }

    /// Takes the last mark away; returns its height, which the stack still has.
    fn pop_mark(&mut self) -> Outcome<usize> {
        self.marks.pop().ok_or_else(|| "the pickle goes back to a mark that it never set".into())
    }

    fn top_dict(&mut self) -> Outcome<&mut Vec<(Value<'a>, Value<'a>)>> {
        match self.top()? {
            Value::Dict(dict) => Ok(&mut self.dicts[dict.0 as usize]),
            _ => Err("the pickle fills something that is not a dict".into()),
        }
    }

    fn expect_list(&self) -> Outcome<()> {
        match self.top()? {
            Value::List => Ok(()),
            _ => Err("the pickle appends to something that is not a list".into()),
        }
    }

    fn set_items(&mut self) -> Outcome<()> {
        let start = self.pop_mark()?;
        let pairs = self.stack.split_off(start);
        let dict = self.top_dict()?;
        for pair in pairs.chunks(2) {
            let &[key, value] = pair else { return Err("the pickle sets a key without a value".into()) };
            dict.push((key, value));
        }
        Ok(())
    }

    fn tuple_of(&mut self, length: usize) -> Outcome<()> {
        let start = self.stack.len().checked_sub(length).filter(|&start| start >= self.floor());
        self.tuple(start.ok_or_else(underflow)?)
    }

    /// Replaces the stack from the height `start` on by a tuple of it.
    fn tuple(&mut self, start: usize) -> Outcome<()> {
        let items = Items { start: self.items.len() as u32, length: (self.stack.len() - start) as u32 };
        self.items.extend(self.stack.drain(start..));
        self.push(Value::Tuple(items))
    }

    fn memoize(&mut self, index: u32) -> Outcome<()> {
        let value = self.top()?;
        self.memo.insert(index, value);
        Ok(())
    }

    fn recall(&mut self, index: u32) -> Outcome<()> {
        match self.memo.get(&index) {
            Some(&value) => self.push(value),
            None => Err(format!("the pickle recalls value {index}, which it never kept")),
        }
    }
}

fn underflow() -> String {
    "the pickle takes a value that is not there".into()
}

/// A two's complement number of at most 8 bytes, little-endian; no bytes are zero.
fn long(bytes: &[u8]) -> Option<i64> {
    let negative = bytes.last().is_some_and(|&byte| byte >= 0x80);
    let mut extended = [if negative { 0xff } else { 0 }; 8];
    extended.get_mut(..bytes.len())?.copy_from_slice(bytes);
    Some(i64::from_le_bytes(extended))
}

/// The opcodes, as pickletools calls them.
mod op {
    pub(super) const MARK: u8 = b'(';
    pub(super) const STOP: u8 = b'.';
    pub(super) const NONE: u8 = b'N';
    pub(super) const BININT: u8 = b'J';
    pub(super) const BININT1: u8 = b'K';
    pub(super) const BININT2: u8 = b'M';
    pub(super) const BINFLOAT: u8 = b'G';
    pub(super) const BINUNICODE: u8 = b'X';
    pub(super) const EMPTY_TUPLE: u8 = b')';
    pub(super) const TUPLE: u8 = b't';
    pub(super) const EMPTY_LIST: u8 = b']';
    pub(super) const APPEND: u8 = b'a';
    pub(super) const APPENDS: u8 = b'e';
    pub(super) const EMPTY_DICT: u8 = b'}';
    pub(super) const SETITEM: u8 = b's';
    pub(super) const SETITEMS: u8 = b'u';
    pub(super) const BINPUT: u8 = b'q';
    pub(super) const LONG_BINPUT: u8 = b'r';
    pub(super) const BINGET: u8 = b'h';
    pub(super) const LONG_BINGET: u8 = b'j';
    pub(super) const GLOBAL: u8 = b'c';
    pub(super) const INST: u8 = b'i';
    pub(super) const REDUCE: u8 = b'R';
    pub(super) const BUILD: u8 = b'b';
    pub(super) const BINPERSID: u8 = b'Q';
    // Protocol 2.
    pub(super) const PROTO: u8 = 0x80;
    pub(super) const TUPLE1: u8 = 0x85;
    pub(super) const TUPLE2: u8 = 0x86;
    pub(super) const TUPLE3: u8 = 0x87;
    pub(super) const NEWTRUE: u8 = 0x88;
    pub(super) const NEWFALSE: u8 = 0x89;
    pub(super) const LONG1: u8 = 0x8a;
    // Protocol 4.
    pub(super) const SHORT_BINUNICODE: u8 = 0x8c;
    pub(super) const BINUNICODE8: u8 = 0x8d;
    pub(super) const STACK_GLOBAL: u8 = 0x93;
    pub(super) const MEMOIZE: u8 = 0x94;
    pub(super) const FRAME: u8 = 0x95;
}
