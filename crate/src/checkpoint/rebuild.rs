//! What a pickle of PyTorch may name and call: storages, tensors, parameters, and the dict that holds them.
//!
//! The calls are those of torch/_utils.py, the storages those of torch/serialization.py (`persistent_id`).
//! None of them touches a byte of the tensors: a tensor here is a storage's key, an offset, a size and
//! strides.

use std::collections::BTreeSet;

use super::pickle::{DictId, Items, Machine, Outcome, StorageId, TensorId, Value};
use super::{checked_shape, escaped};

/// A name that a pickle may import. There are no others.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Global {
    OrderedDict,
    /// `(storage, offset, size, stride, requires_grad, backward_hooks[, metadata])`
    RebuildTensor,
    /// `(tensor, requires_grad, backward_hooks)`
    RebuildParameter,
    StorageClass(&'static StorageClass),
}

/// One of PyTorch's typed storages.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct StorageClass {
    torch_name: &'static str,
    /// The dtype, as safetensors calls it.
    pub(super) dtype: &'static str,
    /// Bytes per element.
    pub(super) width: u64,
}

const STORAGE_CLASSES: &[StorageClass] = &[
    StorageClass { torch_name: "FloatStorage", dtype: "F32", width: 4 },
    StorageClass { torch_name: "HalfStorage", dtype: "F16", width: 2 },
    StorageClass { torch_name: "BFloat16Storage", dtype: "BF16", width: 2 },
    StorageClass { torch_name: "DoubleStorage", dtype: "F64", width: 8 },
    StorageClass { torch_name: "LongStorage", dtype: "I64", width: 8 },
    StorageClass { torch_name: "IntStorage", dtype: "I32", width: 4 },
    StorageClass { torch_name: "ShortStorage", dtype: "I16", width: 2 },
    StorageClass { torch_name: "CharStorage", dtype: "I8", width: 1 },
    StorageClass { torch_name: "ByteStorage", dtype: "U8", width: 1 },
    StorageClass { torch_name: "BoolStorage", dtype: "BOOL", width: 1 },
];

impl Global {
    /// The global `module.name`, or the refusal of it.
    pub(super) fn named(module: &str, name: &str) -> Outcome<Self> {
        let class = STORAGE_CLASSES.iter().find(|class| module == "torch" && name == class.torch_name);
        match (module, name) {
            ("collections", "OrderedDict") => Ok(Self::OrderedDict),
            ("torch._utils", "_rebuild_tensor_v2") => Ok(Self::RebuildTensor),
            ("torch._utils", "_rebuild_parameter") => Ok(Self::RebuildParameter),
            _ => class.map(Self::StorageClass).ok_or_else(|| {
                format!(
                    "the pickle names the function `{}.{}`, which this reader never calls: plain weights \
                     need no such thing; take the model's .safetensors files, or save its state_dict() alone",
                    escaped(module),
                    escaped(name)
                )
            }),
        }
    }
}

/// A run of elements that one entry of the archive holds.
#[derive(Debug, Clone, Copy)]
pub(super) struct Storage<'a> {
    pub(super) class: &'static StorageClass,
    /// Name of the archive's entry, below `data/`.
    pub(super) key: &'a str,
    /// Number of elements.
    pub(super) elements: u64,
}

/// A view of a storage, as the pickle has it: nothing in it is checked yet.
#[derive(Debug, Clone, Copy)]
pub(super) struct Tensor {
    storage: StorageId,
    offset: i64,
    size: Items,
    stride: Items,
}

/// A tensor of a state dict, contiguous, and inside the elements that its storage claims to have.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct NamedTensor<'a> {
    pub(super) name: &'a str,
    pub(super) class: &'static StorageClass,
    /// Name of the archive's entry, below `data/`.
    pub(super) key: &'a str,
    /// Number of elements that the entry must hold.
    pub(super) storage_elements: u64,
    /// First of the tensor's elements among them.
    pub(super) offset: u64,
    pub(super) shape: Vec<usize>,
    pub(super) elements: u64,
}

/// The tensors of the state dict that `pickle` stands for. Its other values are passed over.
pub(super) fn state_dict(pickle: &[u8]) -> Outcome<Vec<NamedTensor<'_>>> {
    let (machine, value) = Machine::run(pickle)?;
    let Value::Dict(dict) = value else {
        return Err("the pickle holds no state dict; save the model's state_dict() alone".into());
    };
    // Seen here, since a name recalled from the memo costs two bytes in the pickle, but a copy in the result.
    let mut names = BTreeSet::new();
    let mut tensors = Vec::new();
    for &(key, value) in machine.dict(dict) {
        let Value::Tensor(tensor) = value else { continue };
        let Value::Text(name) = key else {
            return Err("the pickle holds a tensor whose name is not text".into());
        };
        if !names.insert(name) {
            return Err(format!("the tensor `{}` appears twice", escaped(name)));
        }
        let tensor = machine.view(name, tensor);
        tensors.push(tensor.map_err(|problem| format!("the tensor `{}` {problem}", escaped(name)))?);
    }
    if tensors.is_empty() {
        return Err(machine.without_tensors(dict));
    }
    Ok(tensors)
}

impl<'a> Machine<'a> {
    /// What `global(*arguments)` stands for.
    pub(super) fn call(&mut self, global: Global, arguments: Items) -> Outcome<Value<'a>> {
        let arguments = self.items(arguments);
        match (global, arguments) {
            (Global::OrderedDict, []) => Ok(self.new_dict()),
            (Global::RebuildParameter, &[tensor @ Value::Tensor(_), Value::Bool, Value::Dict(_)]) => {
                Ok(tensor)
            }
            (
                Global::RebuildTensor,
                &[
                    Value::Storage(storage),
                    Value::Int(offset),
                    Value::Tuple(size),
                    Value::Tuple(stride),
                    Value::Bool,
                    Value::Dict(_) | Value::None,
                    ref metadata @ ..,
                ],
            ) => match metadata {
                [] | [Value::None] => Ok(self.new_tensor(Tensor { storage, offset, size, stride })),
                // Conjugate and negative views: the stored numbers are not the tensor's.
                _ => {
                    Err("the pickle rebuilds a tensor with metadata, which this reader does not know".into())
                }
            },
            _ => Err(format!("the pickle calls {global} with arguments that do not belong to it")),
        }
    }

    /// The storage that the persistent id `("storage", class, key, location, elements)` names.
    pub(super) fn persistent_storage(&mut self, id: Value<'a>) -> Outcome<Value<'a>> {
        let Value::Tuple(id) = id else { return Err("the pickle's persistent id is not a storage".into()) };
        let &[
            Value::Text("storage"),
            Value::Global(Global::StorageClass(class)),
            Value::Text(key),
            Value::Text(_location),
            Value::Int(elements),
        ] = self.items(id)
        else {
            return Err("the pickle's persistent id is not a storage".into());
        };
        let elements =
            u64::try_from(elements).map_err(|_| "the pickle holds a storage of negative length")?;
        Ok(self.new_storage(Storage { class, key, elements }))
    }

    /// Checks a tensor against the storage that it views.
    fn view(&self, name: &'a str, tensor: TensorId) -> Outcome<NamedTensor<'a>> {
        let Tensor { storage, offset, size, stride } = *self.tensor(tensor);
        let Storage { class, key, elements: storage_elements } = *self.storage(storage);
        let (size, stride) = (self.items(size), self.items(stride));
        if size.len() != stride.len() {
            return Err(format!("has {} dimensions, but {} strides", size.len(), stride.len()));
        }
        let extents: Outcome<Vec<u64>> = size.iter().take(super::MAX_RANK + 1).map(natural).collect();
        let (shape, elements) = checked_shape(extents?.into_iter())?;

        // In an empty tensor no stride is ever used, nor is that of a dimension of extent 1.
        let mut contiguous = 1;
        for (&extent, stride) in shape.iter().zip(stride).rev().filter(|_| elements > 0) {
            if extent != 1 && natural(stride)? != contiguous {
                return Err(
                    "is a view with gaps or another order (transposed, sliced or expanded), which this \
                            reader does not follow; save it with .contiguous()"
                        .into(),
                );
            }
            contiguous *= extent as u64;
        }

        let offset = natural(&Value::Int(offset))?;
        if offset.checked_add(elements).is_none_or(|end| end > storage_elements) {
            return Err(format!(
                "has {elements} elements from {offset} on, but its storage `{}` has {storage_elements}",
                escaped(key)
            ));
        }
        Ok(NamedTensor { name, class, key, storage_elements, offset, shape, elements })
    }

    /// Why a dict without tensors is no state dict, with the keys that it has.
    fn without_tensors(&self, dict: DictId) -> String {
        let keys = self.dict(dict).iter().filter_map(|(key, _)| match key {
            Value::Text(key) => Some(format!("`{}`", escaped(key))),
            _ => None,
        });
        let keys: Vec<_> = keys.take(5).collect();
        let keys = if keys.is_empty() { "nothing".into() } else { keys.join(", ") };
        format!("the pickle's dict holds no tensor, but {keys}; save the model's state_dict() alone")
    }
}

fn natural(value: &Value) -> Outcome<u64> {
    match value {
        Value::Int(value) if *value >= 0 => Ok(*value as u64),
        Value::Int(value) => Err(format!("has a negative size, stride or offset: {value}")),
        _ => Err("has a size or stride that is not a number".into()),
    }
}

impl std::fmt::Display for Global {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::OrderedDict => f.write_str("OrderedDict"),
            Self::RebuildTensor => f.write_str("_rebuild_tensor_v2"),
            Self::RebuildParameter => f.write_str("_rebuild_parameter"),
            Self::StorageClass(class) => f.write_str(class.torch_name),
        }
    }
}
