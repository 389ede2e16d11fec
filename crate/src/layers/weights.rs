//! Where a layer finds its tensors: a checkpoint seen through a dotted prefix.
//!
//! A model is built twice from the same code. [`Mode::Plan`] checks that every tensor is there with the right shape
//! and dtype and adds up the bytes that the model will take, without reading one; [`Mode::Load`] reads. So a
//! checkpoint that does not fit is refused before anything is read, and the two passes cannot disagree.

use super::{Kernels, Precision};
use crate::checkpoint::{Checkpoint, DType, STRIP, TensorInfo};
use crate::error::{Error, Result};
use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::ops::Range;
use std::pin::pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

/// Whether a pass over the model reads its weights.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Check names, shapes and dtypes, and count bytes.
    Plan,
    /// Read and pack.
    Load,
}

/// Told how many bytes of the checkpoint have been read, of how many that will be.
pub(super) type Progress<'a> = &'a mut dyn FnMut(u64, u64);

/// A place in a checkpoint.
#[derive(Clone)]
pub struct Weights<'a> {
    pass: Rc<Pass<'a>>,
    prefix: String,
}

struct Pass<'a> {
    /// `None` where a plan is made from a config alone: every tensor is taken to be there.
    checkpoint: Option<&'a Checkpoint>,
    mode: Mode,
    precision: Precision,
    kernels: Kernels,
    /// Names that the model asked for, and the numbers in each.
    used: RefCell<BTreeMap<String, u64>>,
    /// Bytes that the model takes in memory, so far.
    resident: Cell<u64>,
    /// What a planning pass found that a load will read, in its order: of each tensor the first elements, so many.
    reads: RefCell<Vec<(&'a TensorInfo, u64)>>,
    /// Bytes of the file that the pass has been through.
    read: Cell<u64>,
    total: u64,
    progress: RefCell<Progress<'a>>,
}

impl<'a> Weights<'a> {
    /// The root of `checkpoint`, or of whatever the config implies, for a planning pass.
    pub(crate) fn plan(
        checkpoint: Option<&'a Checkpoint>,
        precision: Precision,
        ignore: Progress<'a>,
    ) -> Self {
        Self::new(checkpoint, precision, Mode::Plan, 0, ignore)
    }

    /// The root of `checkpoint` for a loading pass that will read `total` bytes.
    pub(crate) fn load(
        checkpoint: &'a Checkpoint,
        precision: Precision,
        total: u64,
        progress: Progress<'a>,
    ) -> Self {
        Self::new(Some(checkpoint), precision, Mode::Load, total, progress)
    }

    fn new(
        checkpoint: Option<&'a Checkpoint>,
        precision: Precision,
        mode: Mode,
        total: u64,
        progress: Progress<'a>,
    ) -> Self {
        let pass = Pass {
            checkpoint,
            mode,
            precision,
            kernels: Kernels::preferred(precision),
            used: RefCell::default(),
            resident: Cell::new(0),
            reads: RefCell::default(),
            read: Cell::new(0),
            total,
            progress: RefCell::new(progress),
        };
        Self { pass: Rc::new(pass), prefix: String::new() }
    }

    /// The place called `name` below this one; an empty name is this one.
    pub fn pp(&self, name: impl std::fmt::Display) -> Self {
        Self { pass: Rc::clone(&self.pass), prefix: self.path(&name.to_string()) }
    }

    /// The first of `prefixes` below which the checkpoint holds `tensor`, or else the first of all: published
    /// checkpoints of one architecture differ in the prefix of their names.
    pub fn pp_that_has(&self, prefixes: &[&str], tensor: &str) -> Self {
        let has = |prefix: &&&str| self.pp(prefix).contains(tensor);
        self.pp(prefixes.iter().find(has).unwrap_or(&prefixes[0]))
    }

    /// Whether the checkpoint holds `name` below this place.
    pub fn contains(&self, name: &str) -> bool {
        self.pass.checkpoint.is_some_and(|checkpoint| checkpoint.get(&self.path(name)).is_some())
    }

    /// The whole vector `name`, `[size]`, as f32.
    ///
    /// # Errors
    /// [`Error::MissingTensor`], [`Error::Tensor`], [`Error::Read`].
    pub async fn vector(&self, name: &str, size: usize) -> Result<Vec<f32>> {
        self.values(name, &[size]).await
    }

    /// The whole tensor `name` of that shape as f32, row-major; empty while planning.
    ///
    /// # Errors
    /// [`Error::MissingTensor`], [`Error::Tensor`], [`Error::Read`].
    pub async fn values(&self, name: &str, shape: &[usize]) -> Result<Vec<f32>> {
        let n_values = n_values(shape);
        self.count_resident(n_values.saturating_mul(size_of::<f32>() as u64));
        let Some(tensor) = self.tensor(name, shape, n_values)? else { return Ok(Vec::new()) };
        let mut values = vec![0.0; n_values as usize];
        self.read(tensor, 0, &mut values).await?;
        Ok(values)
    }

    /// What the checkpoint says of tensor `name`, which must have that shape and be readable as floats; `None` while
    /// planning, when the `n_read` values that a load would read are counted instead.
    ///
    /// # Errors
    /// [`Error::MissingTensor`], [`Error::Tensor`].
    pub(super) fn tensor(&self, name: &str, shape: &[usize], n_read: u64) -> Result<Option<&'a TensorInfo>> {
        let name = self.path(name);
        self.pass.used.borrow_mut().insert(name.clone(), n_values(shape));
        let Some(checkpoint) = self.pass.checkpoint else { return Ok(None) };
        let Some(tensor) = checkpoint.get(&name) else {
            return Err(Error::MissingTensor { name, expected: shape.to_vec() });
        };
        if tensor.shape != shape {
            let (expected, found) = (format!("{shape:?}"), format!("{:?}", tensor.shape));
            return Err(Error::Tensor { name, expected, found });
        }
        if matches!(tensor.dtype, DType::Other(_)) {
            return Err(tensor.not_floats());
        }
        if self.mode() == Mode::Load {
            return Ok(Some(tensor));
        }
        self.count_read(tensor, 0..n_read);
        if n_read > 0 {
            self.pass.reads.borrow_mut().push((tensor, n_read));
        }
        Ok(None)
    }

    /// Reads values of `tensor` from element `start` on, which must be finite, and reports progress.
    pub(super) async fn read(&self, tensor: &TensorInfo, start: u64, values: &mut [f32]) -> Result<()> {
        let checkpoint = self.pass.checkpoint.expect("only a checkpoint has tensors");
        let mut start = start;
        for values in values.chunks_mut(STRIP) {
            let end = start + values.len() as u64;
            checkpoint.ready(tensor, start..end).await?;
            checkpoint.read_f32(tensor, start, values)?;
            tensor.check_finite(start, values)?;
            self.count_read(tensor, start..end);
            start = end;
        }
        (self.pass.progress.borrow_mut())(self.pass.read.get().min(self.pass.total), self.pass.total);
        Ok(())
    }

    /// After a planning pass: tells the sources what a loading pass will read.
    pub(crate) fn expect_reads(&self) {
        for (tensor, n_read) in self.pass.reads.borrow().iter() {
            let checkpoint = self.pass.checkpoint.expect("only a checkpoint has tensors");
            checkpoint.expect(tensor, 0..*n_read);
        }
    }

    /// Counts the bytes of these elements. Ranges that follow each other count what the whole does, though scales are shared.
    fn count_read(&self, tensor: &TensorInfo, elements: Range<u64>) {
        let bytes = tensor.bytes_of_first(elements.end) - tensor.bytes_of_first(elements.start);
        self.pass.read.set(self.pass.read.get() + bytes);
    }

    pub(super) fn count_resident(&self, bytes: u64) {
        self.pass.resident.set(self.pass.resident.get().saturating_add(bytes));
    }

    pub(super) fn mode(&self) -> Mode {
        self.pass.mode
    }

    /// The precision that matrices are packed in.
    pub fn precision(&self) -> Precision {
        self.pass.precision
    }

    /// The kernels that the layers will run on.
    pub fn kernels(&self) -> Kernels {
        self.pass.kernels
    }

    /// Bytes that the layers loaded so far take (or will take) in memory.
    pub(crate) fn resident_bytes(&self) -> u64 {
        self.pass.resident.get()
    }

    /// Bytes of the checkpoint that the layers so far read (or will read).
    pub(crate) fn read_bytes(&self) -> u64 {
        self.pass.read.get()
    }

    /// Numbers in the tensors that the layers asked for, each tensor once.
    pub(crate) fn parameters(&self) -> u64 {
        self.pass.used.borrow().values().fold(0, |sum: u64, n_values| sum.saturating_add(*n_values))
    }

    /// Names of the checkpoint's tensors that no layer asked for.
    pub(crate) fn ignored(&self) -> Vec<String> {
        let used = self.pass.used.borrow();
        let names = self.pass.checkpoint.into_iter().flat_map(Checkpoint::names);
        names.filter(|name| !used.contains_key(*name)).map(str::to_owned).collect()
    }

    fn path(&self, name: &str) -> String {
        match (self.prefix.as_str(), name) {
            (prefix, "") => prefix.to_owned(),
            ("", name) => name.to_owned(),
            (prefix, name) => format!("{prefix}.{name}"),
        }
    }
}

/// What a pass that need not wait comes to: a planning pass, and a loading pass over sources that are always ready.
///
/// # Panics
/// Where it has to wait.
pub(crate) fn at_once<T>(pass: impl Future<Output = T>) -> T {
    match pin!(pass).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(result) => result,
        Poll::Pending => panic!("a source is not ready, and nothing here can wait for it"),
    }
}

/// Numbers in a tensor of that shape, which an untrusted config may make more than a `usize` of 32 bits holds.
fn n_values(shape: &[usize]) -> u64 {
    shape.iter().fold(1, |product: u64, &extent| product.saturating_mul(extent as u64))
}
