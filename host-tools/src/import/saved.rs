//! Writes archives as `torch.save` does, for tests.

use super::element::{Entries, Entry, Values};
use std::io::{Cursor, Write};
use zip::write::{SimpleFileOptions, ZipWriter};

/// Object to pickle.
#[derive(Clone)]
pub(super) enum Object {
    Int(i32),
    Float(f64),
    Text(&'static str),
    List(Vec<Self>),
    Dict(Vec<(String, Self)>),
    Tensor(Tensor),
}

/// A tensor as a view of a storage.
#[derive(Clone)]
pub(super) struct Tensor {
    pub(super) class: &'static str,
    pub(super) storage: usize,
    pub(super) offset: usize,
    pub(super) shape: Vec<usize>,
    pub(super) strides: Vec<usize>,
    /// How the tensor is built from its parts.
    pub(super) maker: Maker,
}

#[derive(Clone, Copy)]
pub(super) enum Maker {
    Plain,
    Parameter,
    WithState,
    /// Marked as a negated or conjugated view.
    Marked(&'static str),
}

/// The storages of an archive.
#[derive(Default)]
pub(super) struct Storages(pub(super) Vec<Vec<u8>>);

impl Storages {
    pub(super) fn add(&mut self, bytes: Vec<u8>) -> usize {
        self.0.push(bytes);
        self.0.len() - 1
    }

    /// A tensor with its own storage.
    pub(super) fn tensor(&mut self, entry: &Entry) -> Tensor {
        let (class, bytes) = match &entry.values {
            Values::Real(values) => {
                ("FloatStorage", values.iter().flat_map(|v| v.to_le_bytes()).collect())
            }
            Values::Complex(values) => {
                let parts = values.iter().flatten();
                ("ComplexFloatStorage", parts.flat_map(|v| v.to_le_bytes()).collect())
            }
            Values::Integers => ("LongStorage", vec![0; 8]),
        };
        let mut step = 1;
        let mut strides: Vec<usize> = Vec::new();
        for extent in entry.shape.iter().rev() {
            strides.insert(0, step);
            step *= extent;
        }
        let (storage, shape) = (self.add(bytes), entry.shape.clone());
        Tensor { class, storage, offset: 0, shape, strides, maker: Maker::Plain }
    }

    /// A state_dict of these tensors, renamed.
    pub(super) fn dict(&mut self, entries: &Entries, rename: impl Fn(&str) -> String) -> Object {
        let item =
            |(name, entry): (&String, &Entry)| (rename(name), Object::Tensor(self.tensor(entry)));
        Object::Dict(entries.iter().map(item).collect())
    }

    /// Writes the archive.
    pub(super) fn save(self, object: &Object) -> Vec<u8> {
        let mut pickle = b"\x80\x02".to_vec();
        object.pickle(&mut pickle);
        pickle.push(b'.');
        let mut zip = ZipWriter::new(Cursor::new(Vec::new()));
        let stored =
            SimpleFileOptions::default().compression_method(zip::CompressionMethod::Stored);
        let mut add = |name: &str, bytes: &[u8]| {
            zip.start_file(format!("archive/{name}"), stored).unwrap();
            zip.write_all(bytes).unwrap();
        };
        add("data.pkl", &pickle);
        add("byteorder", b"little");
        for (key, bytes) in self.0.iter().enumerate() {
            add(&format!("data/{key}"), bytes);
        }
        zip.finish().unwrap().into_inner()
    }
}

fn text(text: &str, out: &mut Vec<u8>) {
    out.push(b'X');
    out.extend((text.len() as u32).to_le_bytes());
    out.extend(text.bytes());
}

fn global(module: &str, name: &str, out: &mut Vec<u8>) {
    out.extend(format!("c{module}\n{name}\n").bytes());
}

fn sizes(sizes: &[usize], out: &mut Vec<u8>) {
    Object::List(sizes.iter().map(|&n| Object::Int(n as i32)).collect()).pickle(out);
}

impl Object {
    fn pickle(&self, out: &mut Vec<u8>) {
        match self {
            Self::Int(value) => {
                out.push(b'J');
                out.extend(value.to_le_bytes());
            }
            Self::Float(value) => {
                out.push(b'G');
                out.extend(value.to_be_bytes());
            }
            Self::Text(value) => text(value, out),
            Self::List(items) => {
                out.push(b'(');
                items.iter().for_each(|item| item.pickle(out));
                out.push(b't');
            }
            Self::Dict(items) => {
                out.extend(b"}(");
                for (key, value) in items {
                    text(key, out);
                    value.pickle(out);
                }
                out.push(b'u');
            }
            Self::Tensor(tensor) => tensor.pickle(out),
        }
    }
}

impl Tensor {
    fn pickle(&self, out: &mut Vec<u8>) {
        match self.maker {
            Maker::Plain | Maker::Marked(_) => {
                global("torch._utils", "_rebuild_tensor_v2", out);
                self.arguments(out);
                out.push(b'R');
            }
            Maker::Parameter => {
                global("torch._utils", "_rebuild_parameter_with_state", out);
                out.push(b'(');
                Self { maker: Maker::Plain, ..self.clone() }.pickle(out);
                out.extend(b"\x89}}tR");
            }
            Maker::WithState => {
                global("torch._tensor", "_rebuild_from_type_v2", out);
                out.push(b'(');
                global("torch._utils", "_rebuild_tensor_v2", out);
                global("torch", "Tensor", out);
                self.arguments(out);
                out.extend(b"}tR");
            }
        }
    }

    fn arguments(&self, out: &mut Vec<u8>) {
        out.extend(b"((");
        text("storage", out);
        global("torch", self.class, out);
        text(&self.storage.to_string(), out);
        text("cpu", out);
        Object::Int(0).pickle(out);
        out.extend(b"tQ");
        Object::Int(self.offset as i32).pickle(out);
        sizes(&self.shape, out);
        sizes(&self.strides, out);
        out.push(0x89);
        global("collections", "OrderedDict", out);
        out.extend(b")R");
        if let Maker::Marked(mark) = self.maker {
            out.push(b'}');
            text(mark, out);
            out.extend(b"\x88s");
        }
        out.push(b't');
    }
}
