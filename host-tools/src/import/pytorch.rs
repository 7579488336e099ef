//! The `.pt` files of `torch.save`: a ZIP archive with one pickle that describes the tensors, and
//! one entry with the bytes of each storage.
//!
//! Not read by a library because every published checkpoint contains a complex number, `z`:
//! pytorch-reader 0.22.1 and burn-store 0.22.1, which is built on it, reject the whole file for it,
//! and candle-core 0.11.1 drops `z`, so that η could not be checked. The part of the format needed
//! here is small, and `zip` alone is 19 crates to build, against 38, 140 and 131.

use super::element::{Element, Entry};
use super::pickle::{Id, Node, Pickle};
use super::refusal::Refusal;
use super::state::{self, Dictionary, State};
use std::collections::{BTreeMap, HashSet, VecDeque};
use std::io::{Cursor, Read};
use zip::ZipArchive;

const RESAVE: &str = "load it in PyTorch and save it again with \
                      `torch.save(model.state_dict(), path)` (PyTorch 1.6 or later)";
const COPY_AGAIN: &str = "the file is damaged or incomplete; copy or download it again";

const PLAIN: &str = "load it in PyTorch, replace these tensors by plain dense FP32 ones \
                     (`t.to_dense().float()`, `t.dequantize()`, `t.resolve_conj()`) and save the \
                     state_dict again";
const CONTIGUOUS: &str = "load it in PyTorch, replace its tensors by contiguous copies \
                          (`t.contiguous().clone()`) and save the state_dict again";

/// Maximum total number of elements of views beyond those of their storages, 1 GiB in FP32: a small
/// file must not exhaust memory.
const MOST_REPEATED: usize = 1 << 28;

/// Maximum length of joined dictionary keys.
const LONGEST_PATH: usize = 1 << 8;

/// Maximum size of the pickle; a larger one describes millions of tensors or is damaged.
const LARGEST_PICKLE: u64 = 64 << 20;

/// Header of files from PyTorch before version 1.6: a pickled magic number.
const LEGACY_MAGIC: &[u8] = b"\x80\x02\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19.";

pub(super) fn is_archive(bytes: &[u8]) -> bool {
    bytes.starts_with(b"PK\x03\x04")
}

/// The error for a file that is neither an archive nor safetensors.
pub(super) fn refuse_other(bytes: &[u8]) -> Refusal {
    if bytes.starts_with(LEGACY_MAGIC) {
        Refusal::new("it is in the format of PyTorch before 1.6, which is not supported", RESAVE)
    } else if bytes.first() == Some(&0x80) {
        Refusal::new("it is a bare pickle without the tensors' storages", RESAVE)
    } else {
        Refusal::new(
            "it is neither a ZIP archive as `torch.save` writes it nor a safetensors file",
            "pass a .pt, .pth or .safetensors file with the model's state_dict",
        )
    }
}

/// The tensors of one state in an archive: the one named `wanted`, or the only one. Each storage is
/// read once, however many tensors are views of it.
pub(super) fn read(bytes: &[u8], wanted: Option<&str>) -> Result<State<Entry>, Refusal> {
    let mut archive = Archive::open(bytes)?;
    let pickle = Pickle::parse(&archive.pickle()?)
        .map_err(|reason| Refusal::new(format!("its pickle cannot be read: {reason}"), RESAVE))?;
    let State { name, tensors, left_out } = state::choose(&dictionaries(&pickle)?, wanted)?;
    let mut problems = Vec::new();
    let mut storages: BTreeMap<String, Vec<(String, View)>> = BTreeMap::new();
    for (name, id) in tensors {
        match View::parse(&pickle, id) {
            Ok(view) => storages.entry(view.storage.clone()).or_default().push((name, view)),
            Err(reason) => problems.push(format!("`{name}` {reason}")),
        }
    }
    if !problems.is_empty() {
        return Err(Refusal { problems, remedy: PLAIN.into() });
    }
    let mut entries = BTreeMap::new();
    let mut surplus = 0usize;
    for (key, views) in storages {
        let storage = match archive.entry(&format!("data/{key}"), u64::MAX) {
            Ok(storage) => storage,
            Err(reason) => {
                problems.extend(views.iter().map(|(name, _)| format!("`{name}` {reason}")));
                continue;
            }
        };
        surplus = surplus.saturating_add(repeated(&views, storage.len()));
        if surplus > MOST_REPEATED {
            let problem = format!(
                "its tensors have more than {MOST_REPEATED} elements beyond those of their storages"
            );
            return Err(Refusal::new(problem, CONTIGUOUS));
        }
        for (name, view) in views {
            match view.gather(&storage) {
                Ok(entry) => drop(entries.insert(name, entry)),
                Err(reason) => problems.push(format!("`{name}` {reason}")),
            }
        }
    }
    if problems.is_empty() {
        Ok(State { name, tensors: entries, left_out })
    } else {
        Err(Refusal { problems, remedy: COPY_AGAIN.into() })
    }
}

/// Total number of elements that views of a storage of `bytes` bytes have beyond its own.
fn repeated(views: &[(String, View)], bytes: usize) -> usize {
    let elements = views.iter().map(|(_, view)| view.count()).fold(0, usize::saturating_add);
    elements.saturating_sub(views.first().map_or(0, |(_, view)| bytes / view.element.size()))
}

/// Every dictionary of the pickled object that contains tensors, at any depth.
fn dictionaries(pickle: &Pickle) -> Result<Vec<Dictionary<Id>>, Refusal> {
    let root = pickle.root();
    if pickle.dict(root).is_none() && pickle.list(root).is_none() {
        let what = match pickle.node(root) {
            Node::Call { function, .. } => {
                format!("a pickled `{}` object", pickle.global(*function).unwrap_or("unknown"))
            }
            _ => "something else".into(),
        };
        return Err(Refusal::new(format!("it holds {what}, not a state_dict"), RESAVE));
    }
    let mut found = Vec::new();
    let mut seen = HashSet::from([root]);
    let mut waiting = VecDeque::from([(String::new(), root)]);
    // Breadth first, for a natural order of dictionaries.
    while let Some((path, id)) = waiting.pop_front() {
        let mut tensors = Vec::new();
        for (name, value) in items(pickle, id) {
            if is_tensor(pickle, value) {
                tensors.push((name, value));
            } else if seen.insert(value) {
                let path = if path.is_empty() { name } else { format!("{path}.{name}") };
                // No script nests this deeply, and long paths cost memory.
                if path.len() < LONGEST_PATH {
                    waiting.push_back((path, value));
                }
            }
        }
        if !tensors.is_empty() {
            found.push(Dictionary { path, tensors });
        }
    }
    if !found.is_empty() {
        return Ok(found);
    }
    let keys: Vec<String> =
        items(pickle, root).into_iter().map(|(name, _)| name).take(10).collect();
    Err(Refusal::new(format!("it holds no dictionary of tensors; its keys are {keys:?}"), RESAVE))
}

/// The items of a dictionary or list, by key or index. Keys that are neither text nor number are
/// skipped: no state_dict has them.
fn items(pickle: &Pickle, id: Id) -> Vec<(String, Id)> {
    match pickle.node(id) {
        Node::Dict(items) => {
            let name = |key| match pickle.node(key) {
                Node::Text(text) => Some(text.clone()),
                Node::Int(number) => Some(number.to_string()),
                _ => None,
            };
            items.iter().filter_map(|&(key, value)| Some((name(key)?, value))).collect()
        }
        Node::List(items) => {
            items.iter().enumerate().map(|(index, &item)| (index.to_string(), item)).collect()
        }
        _ => Vec::new(),
    }
}

/// Whether a value is built by one of PyTorch's functions that build tensors.
fn is_tensor(pickle: &Pickle, id: Id) -> bool {
    pickle.call(id).is_some_and(|(function, _)| {
        function.starts_with("torch._utils._rebuild_") || function == REBUILD_WITH_STATE
    })
}

/// Builds a tensor with attributes from a function, a class, the function's arguments and the
/// attributes.
const REBUILD_WITH_STATE: &str = "torch._tensor._rebuild_from_type_v2";

/// The function that builds the plain tensor inside a parameter or a tensor with attributes, and
/// its arguments.
fn plain(pickle: &Pickle, id: Id) -> Option<(&str, &[Id])> {
    let (function, arguments) = pickle.call(id)?;
    match (function, arguments) {
        ("torch._utils._rebuild_parameter" | "torch._utils._rebuild_parameter_with_state", _) => {
            pickle.call(*arguments.first()?)
        }
        (REBUILD_WITH_STATE, &[function, _, arguments, ..]) => {
            Some((pickle.global(function)?, pickle.list(arguments)?))
        }
        _ => Some((function, arguments)),
    }
}

/// A tensor as described in the pickle: a strided view of a storage.
struct View {
    element: Element,
    storage: String,
    offset: usize,
    shape: Vec<usize>,
    strides: Vec<usize>,
}

impl View {
    fn parse(pickle: &Pickle, id: Id) -> Result<Self, String> {
        let malformed = || "is described in an unknown way".to_string();
        let (function, arguments) = plain(pickle, id).ok_or_else(malformed)?;
        if function != "torch._utils._rebuild_tensor_v2" {
            return Err(format!("is made by `{function}`; only plain dense tensors are supported"));
        }
        let &[storage, offset, shape, strides, ..] = arguments else { return Err(malformed()) };
        let marks = arguments.get(6).and_then(|&id| pickle.dict(id)).unwrap_or_default();
        if !marks.is_empty() {
            return Err("is a conjugated or negated view".into());
        }
        let Node::Persistent(storage) = *pickle.node(storage) else { return Err(malformed()) };
        let Some(&[_, class, key, ..]) = pickle.list(storage) else { return Err(malformed()) };
        let class = pickle.global(class).ok_or_else(malformed)?;
        let size = |&id: &Id| pickle.int(id).and_then(|value| usize::try_from(value).ok());
        let sizes = |id| pickle.list(id)?.iter().map(size).collect::<Option<Vec<_>>>();
        let shape = sizes(shape).ok_or_else(malformed)?;
        let strides = sizes(strides).ok_or_else(malformed)?;
        if shape.len() != strides.len() || shape.len() > 8 {
            return Err(malformed());
        }
        Ok(Self {
            element: Element::of_storage(class)
                .ok_or_else(|| format!("has elements of type `{class}`, which is not supported"))?,
            storage: pickle.text(key).ok_or_else(malformed)?.into(),
            offset: size(&offset).ok_or_else(malformed)?,
            shape,
            strides,
        })
    }

    /// Number of elements; can exceed the storage's where strides are 0.
    fn count(&self) -> usize {
        self.shape.iter().fold(1, |count: usize, &extent| count.saturating_mul(extent))
    }

    /// Whether the elements are contiguous in row-major order.
    fn is_contiguous(&self) -> bool {
        let mut step = 1;
        self.shape.iter().zip(&self.strides).rev().all(|(&extent, &stride)| {
            let fits = extent == 1 || stride == step;
            step = usize::saturating_mul(step, extent);
            fits
        })
    }

    /// The elements in row-major order, for any strides.
    fn gather(self, storage: &[u8]) -> Result<Entry, String> {
        let size = self.element.size();
        let (count, stored) = (self.count(), storage.len() / size);
        let outside = || {
            let (shape, key) = (&self.shape, &self.storage);
            format!("{shape:?} does not fit its storage `{key}` of {stored} elements")
        };
        let last =
            self.shape.iter().zip(&self.strides).try_fold(self.offset, |at, (&n, &stride)| {
                at.checked_add(n.saturating_sub(1).checked_mul(stride)?)
            });
        if count == 0 {
            return Ok(Entry { values: self.element.decode(&[]), shape: self.shape });
        }
        if last.is_none_or(|last| last >= stored) {
            return Err(outside());
        }
        if self.is_contiguous() {
            let values = self.element.decode(&storage[self.offset * size..][..count * size]);
            return Ok(Entry { values, shape: self.shape });
        }
        let mut gathered = Vec::with_capacity(count * size);
        for index in 0..count {
            let (mut rest, mut position) = (index, self.offset);
            for (&extent, &stride) in self.shape.iter().zip(&self.strides).rev() {
                position += rest % extent * stride;
                rest /= extent;
            }
            gathered.extend_from_slice(&storage[position * size..][..size]);
        }
        Ok(Entry { values: self.element.decode(&gathered), shape: self.shape })
    }
}

/// The archive and the name of its only folder.
struct Archive<'a> {
    zip: ZipArchive<Cursor<&'a [u8]>>,
    folder: String,
}

impl<'a> Archive<'a> {
    fn open(bytes: &'a [u8]) -> Result<Self, Refusal> {
        let zip = ZipArchive::new(Cursor::new(bytes)).map_err(|e| {
            Refusal::new(format!("it is not a complete ZIP archive: {e}"), COPY_AGAIN)
        })?;
        // PyTorch writes only UTF-8 names.
        let names: Vec<String> = zip.file_names().flatten().map(|name| name.into_owned()).collect();
        if names.iter().any(|name| name.ends_with("/constants.pkl") || name.contains("/code/")) {
            return Err(Refusal::new("it is a TorchScript archive, not a state_dict", RESAVE));
        }
        let folder = names.iter().find_map(|name| name.strip_suffix("data.pkl"));
        let Some(folder) = folder.map(String::from) else {
            return Err(Refusal::new("it is a ZIP archive, but not one of PyTorch", RESAVE));
        };
        let mut archive = Self { zip, folder };
        // Archives of PyTorch before 2.1 lack this entry and are little-endian.
        if archive.entry("byteorder", 16).is_ok_and(|order| order != b"little") {
            return Err(Refusal::new("it was saved on a big-endian machine", RESAVE));
        }
        Ok(archive)
    }

    fn pickle(&mut self) -> Result<Vec<u8>, Refusal> {
        self.entry("data.pkl", LARGEST_PICKLE)
            .map_err(|reason| Refusal::new(format!("its pickle {reason}"), COPY_AGAIN))
    }

    /// Reads an entry of at most `limit` bytes and verifies the archive's checksum.
    fn entry(&mut self, name: &str, limit: u64) -> Result<Vec<u8>, String> {
        let path = format!("{}{name}", self.folder);
        let mut file =
            self.zip.by_name(&path).map_err(|e| format!("cannot be read from `{path}`: {e}"))?;
        if file.size() > limit {
            return Err(format!("is {} bytes long, which is too long", file.size()));
        }
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes).map_err(|e| format!("cannot be read from `{path}`: {e}"))?;
        Ok(bytes)
    }
}
