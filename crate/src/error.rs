//! The one error type: what was being done, where, what was expected and what was found.

/// Every way in which a call into this crate can fail.
///
/// [`Error::code`] is the stable name that JavaScript callers switch on; the `Display` text is for people
/// and says what to do next where that is not obvious.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A file that the checkpoint needs is not among those given.
    #[error("{0}")]
    MissingFile(String),
    /// `config.json` cannot be read or contradicts itself.
    #[error("config.json: {0}")]
    Config(String),
    /// The architecture that `config.json` names is not in the registry.
    #[error("unknown architecture `{found}`; this build knows {known}")]
    Architecture {
        /// `model_type` of `config.json`.
        found: String,
        /// The registry's names, comma separated.
        known: String,
    },
    /// A file is not what its name or its header says: truncated, overlapping, malformed, refused.
    #[error("{file}: {problem}")]
    File {
        /// The file's name.
        file: String,
        /// What was expected and what was found.
        problem: String,
    },
    /// The checkpoint lacks a tensor that the model needs.
    #[error(
        "`{name}`: not in the checkpoint (expected shape {expected:?}); do config.json and the weights belong together?"
    )]
    MissingTensor {
        /// Dotted path of the tensor.
        name: String,
        /// The shape that `config.json` implies.
        expected: Vec<usize>,
    },
    /// A tensor has another shape or dtype than `config.json` implies.
    #[error("`{name}`: expected {expected}, found {found}")]
    Tensor {
        /// Dotted path of the tensor.
        name: String,
        /// Shape or dtype expected.
        expected: String,
        /// Shape or dtype found.
        found: String,
    },
    /// `tokenizer.json`, `vocab.json` or `merges.txt` is broken.
    #[error("tokenizer: {0}")]
    Tokenizer(String),
    /// A request that cannot be carried out: an empty prompt, an absurd sampling value.
    #[error("{0}")]
    Request(String),
    /// A prompt or text that does not fit into the model's context.
    #[error("the text is {tokens} tokens long, but the model's context {}; shorten it", room(*tokens, *context))]
    Context {
        /// Length of the text in tokens, beginning-of-sequence token included.
        tokens: usize,
        /// The model's context in tokens.
        context: usize,
    },
    /// The model does not fit into the memory that is left.
    #[error("not enough memory: {0}")]
    Memory(String),
    /// Bytes could not be read.
    #[error("reading {file} at byte {offset}: {problem}")]
    Read {
        /// The file's name.
        file: String,
        /// Position of the first byte asked for.
        offset: u64,
        /// What the source said.
        problem: String,
    },
    /// The tensor library refused an operation: a defect of this crate.
    #[error(transparent)]
    Candle(#[from] candle_core::Error),
}

/// What a context offers to a text that does not fit into it: one that just fills it leaves nothing to write into.
fn room(tokens: usize, context: usize) -> String {
    if tokens > context {
        format!("holds {context}")
    } else {
        format!("holds {context} with what is written")
    }
}

impl Error {
    /// The stable code of this error, as typed in `www/protocol.js`.
    pub fn code(&self) -> &'static str {
        match self {
            Self::MissingFile(_) => "missing-file",
            Self::Config(_) => "bad-config",
            Self::Architecture { .. } => "unknown-architecture",
            Self::File { .. } => "bad-file",
            Self::MissingTensor { .. } => "missing-tensor",
            Self::Tensor { .. } => "bad-tensor",
            Self::Tokenizer(_) => "bad-tokenizer",
            Self::Request(_) => "bad-request",
            Self::Context { .. } => "context-exceeded",
            Self::Memory(_) => "out-of-memory",
            Self::Read { .. } => "read-failed",
            Self::Candle(_) => "internal",
        }
    }

    /// A [`Error::File`] about `file`.
    pub(crate) fn file(file: impl Into<String>, problem: impl Into<String>) -> Self {
        Self::File { file: file.into(), problem: problem.into() }
    }
}

/// The result of every fallible call in this crate.
pub type Result<T> = std::result::Result<T, Error>;
