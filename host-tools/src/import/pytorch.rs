//! The `.pt` files that `torch.save` writes: a ZIP archive with one pickle that describes the tensors
//! and one entry with the bytes of each.
//!
//! Read here and not by a library, because every published checkpoint holds a complex number, `z`:
//! pytorch-reader 0.22.1 and burn-store 0.22.1, which is built on it, refuse the whole file for it,
//! and candle-core 0.11.1 leaves `z` out, so that η would have to be taken on trust. What is needed
//! of the format is small, and `zip` alone is 19 crates to build, against 38, 140 and 131.

use super::element::{Element, Entry};
use super::pickle::{Id, Node, Pickle};
use super::{Entries, Refusal};
use std::io::{Cursor, Read};
use zip::ZipArchive;

const RESAVE: &str = "load it in PyTorch and save it again with \
                      `torch.save(model.state_dict(), path)` (PyTorch 1.6 or later)";
const COPY_AGAIN: &str = "the file is damaged or incomplete; copy or download it again";

/// Keys under which training scripts keep the state_dict beside the optimizer's.
const NESTED_UNDER: [&str; 3] = ["model_state_dict", "state_dict", "model"];

/// A pickle beyond this describes millions of tensors or is not what it says.
const LARGEST_PICKLE: u64 = 64 << 20;

/// How every file begins that PyTorch wrote before version 1.6: a pickled magic number.
const LEGACY_MAGIC: &[u8] = b"\x80\x02\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19.";

pub(super) fn is_archive(bytes: &[u8]) -> bool {
    bytes.starts_with(b"PK\x03\x04")
}

/// What is wrong with a file that is neither an archive nor safetensors.
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

/// The tensors of the state_dict in an archive.
pub(super) fn read(bytes: &[u8]) -> Result<Entries, Refusal> {
    let mut archive = Archive::open(bytes)?;
    let pickle = Pickle::parse(&archive.pickle()?)
        .map_err(|reason| Refusal::new(format!("its pickle cannot be read: {reason}"), RESAVE))?;
    let mut entries = Entries::new();
    let mut problems = Vec::new();
    for &(key, value) in state_dict(&pickle)? {
        let Some(name) = pickle.text(key) else {
            problems.push(format!("a tensor is named by {:?}, not by text", pickle.node(key)));
            continue;
        };
        match View::parse(&pickle, value).and_then(|view| view.read(&mut archive)) {
            Ok(entry) => drop(entries.insert(name.into(), entry)),
            Err(reason) => problems.push(format!("`{name}` {reason}")),
        }
    }
    if problems.is_empty() { Ok(entries) } else { Err(Refusal { problems, remedy: RESAVE.into() }) }
}

/// The dictionary of tensors: the pickled object itself or what it keeps under a usual key.
fn state_dict(pickle: &Pickle) -> Result<&[(Id, Id)], Refusal> {
    let holds_tensors =
        |items: &[(Id, Id)]| items.iter().any(|&(_, value)| is_tensor(pickle, value));
    let Some(items) = pickle.dict(pickle.root()) else {
        let what = match pickle.node(pickle.root()) {
            Node::Call { function, .. } => {
                format!("a pickled `{}` object", pickle.global(*function).unwrap_or("unknown"))
            }
            Node::List(_) => "a list".into(),
            _ => "something else".into(),
        };
        return Err(Refusal::new(format!("it holds {what}, not a state_dict"), RESAVE));
    };
    if holds_tensors(items) {
        return Ok(items);
    }
    let under = |name| {
        items.iter().find(|&&(key, _)| pickle.text(key) == Some(name)).map(|&(_, value)| value)
    };
    for name in NESTED_UNDER {
        if let Some(nested) = under(name).and_then(|id| pickle.dict(id))
            && holds_tensors(nested)
        {
            return Ok(nested);
        }
    }
    let mut keys: Vec<&str> = items.iter().filter_map(|&(key, _)| pickle.text(key)).collect();
    keys.truncate(10);
    Err(Refusal::new(
        format!(
            "its dictionary holds no tensors, neither directly nor under {}; its keys are {keys:?}",
            NESTED_UNDER.map(|name| format!("`{name}`")).join(", ")
        ),
        RESAVE,
    ))
}

/// The functions by which PyTorch makes tensors when it unpickles.
fn is_tensor(pickle: &Pickle, id: Id) -> bool {
    pickle.call(id).is_some_and(|(function, _)| function.starts_with("torch._utils._rebuild_"))
}

/// A tensor as the pickle describes it: a window on a storage.
struct View {
    element: Element,
    storage: String,
    offset: usize,
    shape: Vec<usize>,
    strides: Vec<usize>,
}

impl View {
    fn parse(pickle: &Pickle, id: Id) -> Result<Self, String> {
        let (mut function, mut arguments) = pickle.call(id).ok_or("is not a tensor")?;
        if function == "torch._utils._rebuild_parameter" {
            let tensor = arguments.first().ok_or("is an empty parameter")?;
            (function, arguments) = pickle.call(*tensor).ok_or("is not a tensor")?;
        }
        if function != "torch._utils._rebuild_tensor_v2" {
            return Err(format!("is made by `{function}`; only plain dense tensors are supported"));
        }
        let malformed = || "is described in an unknown way".to_string();
        let &[storage, offset, shape, strides, ..] = arguments else { return Err(malformed()) };
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

    /// Reads the tensor; its elements come out in row-major order, however they are stored.
    fn read(self, archive: &mut Archive) -> Result<Entry, String> {
        let storage = archive.entry(&format!("data/{}", self.storage), u64::MAX)?;
        let size = self.element.size();
        let stored = storage.len() / size;
        let outside = || {
            let (shape, key) = (&self.shape, &self.storage);
            format!("{shape:?} does not fit its storage `{key}` of {stored} elements")
        };
        let count = self.shape.iter().try_fold(1usize, |n, &extent| n.checked_mul(extent));
        let count = count.filter(|n| *n <= stored).ok_or_else(outside)?;
        let mut gathered = Vec::with_capacity(count * size);
        for index in 0..count {
            let (mut rest, mut position) = (index, Some(self.offset));
            for (&extent, &stride) in self.shape.iter().zip(&self.strides).rev() {
                let step = (rest % extent).checked_mul(stride);
                position = position.and_then(|p| p.checked_add(step?));
                rest /= extent;
            }
            let position = position.filter(|p| *p < stored).ok_or_else(outside)?;
            gathered.extend_from_slice(&storage[position * size..][..size]);
        }
        Ok(Entry { values: self.element.decode(&gathered), shape: self.shape })
    }
}

/// The archive and the name of the one folder in it.
struct Archive<'a> {
    zip: ZipArchive<Cursor<&'a [u8]>>,
    folder: String,
}

impl<'a> Archive<'a> {
    fn open(bytes: &'a [u8]) -> Result<Self, Refusal> {
        let zip = ZipArchive::new(Cursor::new(bytes)).map_err(|e| {
            Refusal::new(format!("it is not a complete ZIP archive: {e}"), COPY_AGAIN)
        })?;
        // A name that is not text is not one that PyTorch writes.
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

    /// The bytes of an entry of at most `limit` bytes; the archive's checksum is verified.
    fn entry(&mut self, name: &str, limit: u64) -> Result<Vec<u8>, String> {
        let path = format!("{}{name}", self.folder);
        let mut file =
            self.zip.by_name(&path).map_err(|e| format!("cannot be read from `{path}`: {e}"))?;
        if file.size() > limit {
            return Err(format!("is {} bytes long, which is too much", file.size()));
        }
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes).map_err(|e| format!("cannot be read from `{path}`: {e}"))?;
        Ok(bytes)
    }
}
