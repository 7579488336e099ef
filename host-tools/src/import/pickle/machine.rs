//! The stack machine.

use super::graph::{Id, Node, Pickle};
use super::opcode as op;
use std::collections::HashMap;

/// Maximum number of values: some forty describe a tensor, so that more are damage. Bounds the
/// memory of a pickle of one-byte instructions.
const MOST_VALUES: usize = 1 << 21;

/// Runs a program to its end.
pub(super) fn run(bytes: &[u8]) -> Result<Pickle, String> {
    let mut machine = Machine { bytes, ..Machine::default() };
    while !machine.stopped {
        let at = machine.at;
        machine.step().map_err(|reason| format!("byte {at}: {reason}"))?;
        if machine.size() > MOST_VALUES {
            return Err(format!("it has more than {MOST_VALUES} values"));
        }
    }
    let root = machine.pop()?;
    Ok(Pickle { nodes: machine.nodes, root, length: machine.at })
}

#[derive(Default)]
struct Machine<'a> {
    bytes: &'a [u8],
    at: usize,
    stopped: bool,
    nodes: Vec<Node>,
    stack: Vec<Id>,
    /// Stack heights at the program's marks.
    marks: Vec<usize>,
    /// Memoized values.
    memo: HashMap<u64, Id>,
}

impl<'a> Machine<'a> {
    /// Number of values and of references to them, whichever is largest.
    fn size(&self) -> usize {
        let references = self.stack.len().max(self.marks.len()).max(self.memo.len());
        self.nodes.len().max(references)
    }

    /// Executes one instruction.
    fn step(&mut self) -> Result<(), String> {
        let opcode = self.take::<1>()?[0];
        match opcode {
            op::PROTO => drop(self.take::<1>()?),
            op::FRAME => drop(self.take::<8>()?),
            op::STOP => self.stopped = true,
            op::MARK => self.marks.push(self.stack.len()),
            op::POP => drop(self.pop()?),
            op::POP_MARK => drop(self.pop_mark()?),
            op::DUP => self.stack.push(self.top()?),
            op::NONE => self.push(Node::Opaque),
            op::NEWTRUE | op::NEWFALSE => self.push(Node::Bool(opcode == op::NEWTRUE)),
            op::BINFLOAT => {
                let value = f64::from_be_bytes(self.take()?);
                self.push(Node::Float(value));
            }
            op::BININT => self.push_int(4, true)?,
            op::BININT1 => self.push_int(1, false)?,
            op::BININT2 => self.push_int(2, false)?,
            op::LONG1 => self.long(1)?,
            op::LONG4 => self.long(4)?,
            op::BINUNICODE => self.text_of(4)?,
            op::SHORT_BINUNICODE => self.text_of(1)?,
            op::BINUNICODE8 => self.text_of(8)?,
            op::BINSTRING => self.text_of(4)?,
            op::SHORT_BINSTRING => self.text_of(1)?,
            op::SHORT_BINBYTES => self.bytes_of(1)?,
            op::BINBYTES => self.bytes_of(4)?,
            op::BINBYTES8 | op::BYTEARRAY8 => self.bytes_of(8)?,
            op::EMPTY_TUPLE | op::EMPTY_LIST => self.push(Node::List(Vec::new())),
            op::EMPTY_DICT => self.push(Node::Dict(Vec::new())),
            op::EMPTY_SET => self.push(Node::List(Vec::new())),
            op::TUPLE | op::LIST | op::FROZENSET => {
                let items = self.pop_mark()?;
                self.push(Node::List(items));
            }
            op::TUPLE1 | op::TUPLE2 | op::TUPLE3 => {
                let height = self.height(usize::from(opcode - op::TUPLE1) + 1)?;
                let items = self.stack.split_off(height);
                self.push(Node::List(items));
            }
            op::DICT => {
                let items = self.pop_mark()?;
                self.push(Node::Dict(pairs(&items)?));
            }
            op::APPEND => {
                let item = self.pop()?;
                self.extend_list(&[item])?;
            }
            op::APPENDS | op::ADDITEMS => {
                let items = self.pop_mark()?;
                self.extend_list(&items)?;
            }
            op::SETITEM => {
                let height = self.height(2)?;
                let items = self.stack.split_off(height);
                self.extend_dict(&items)?;
            }
            op::SETITEMS => {
                let items = self.pop_mark()?;
                self.extend_dict(&items)?;
            }
            op::GLOBAL => {
                let (module, name) = (self.line()?, self.line()?);
                self.push(Node::Global(format!("{module}.{name}")));
            }
            op::STACK_GLOBAL => self.stack_global()?,
            op::REDUCE | op::NEWOBJ => self.call()?,
            op::NEWOBJ_EX => {
                self.pop()?;
                self.call()?;
            }
            op::BUILD => self.build()?,
            op::BINPERSID => {
                let name = self.pop()?;
                self.push(Node::Persistent(name));
            }
            op::BINPUT => self.store(1)?,
            op::LONG_BINPUT => self.store(4)?,
            op::MEMOIZE => {
                let id = self.top()?;
                self.memo.insert(self.memo.len() as u64, id);
            }
            op::BINGET => self.fetch(1)?,
            op::LONG_BINGET => self.fetch(4)?,
            other => return Err(format!("unknown instruction {other:#04x}")),
        }
        Ok(())
    }

    fn slice(&mut self, length: usize) -> Result<&'a [u8], String> {
        let rest = &self.bytes[self.at..];
        let slice = rest.get(..length).ok_or("it ends in the middle of an instruction")?;
        self.at += length;
        Ok(slice)
    }

    fn take<const N: usize>(&mut self) -> Result<[u8; N], String> {
        let mut array = [0; N];
        array.copy_from_slice(self.slice(N)?);
        Ok(array)
    }

    /// An unsigned little-endian number of at most eight bytes.
    fn unsigned(&mut self, width: usize) -> Result<u64, String> {
        Ok(self.slice(width)?.iter().rev().fold(0, |value, &byte| value << 8 | u64::from(byte)))
    }

    fn length(&mut self, width: usize) -> Result<usize, String> {
        usize::try_from(self.unsigned(width)?).map_err(|e| e.to_string())
    }

    fn line(&mut self) -> Result<&'a str, String> {
        let rest = &self.bytes[self.at..];
        let end = rest.iter().position(|&b| b == b'\n').ok_or("a name without an end")?;
        self.at += end + 1;
        std::str::from_utf8(&rest[..end]).map_err(|e| e.to_string())
    }

    fn push(&mut self, node: Node) {
        self.stack.push(self.nodes.len());
        self.nodes.push(node);
    }

    fn push_int(&mut self, width: usize, signed: bool) -> Result<(), String> {
        let value = self.unsigned(width)?;
        let value = if signed { i64::from(value as u32 as i32) } else { value as i64 };
        self.push(Node::Int(value));
        Ok(())
    }

    /// A two's complement number of any length.
    fn long(&mut self, width: usize) -> Result<(), String> {
        let length = self.length(width)?;
        let digits = self.slice(length)?;
        if length > 8 {
            self.push(Node::Opaque);
            return Ok(());
        }
        let sign = digits.last().is_some_and(|&byte| byte >= 0x80);
        let mut value = [if sign { 0xff } else { 0 }; 8];
        value[..length].copy_from_slice(digits);
        self.push(Node::Int(i64::from_le_bytes(value)));
        Ok(())
    }

    fn text_of(&mut self, width: usize) -> Result<(), String> {
        let length = self.length(width)?;
        let text = String::from_utf8_lossy(self.slice(length)?).into_owned();
        self.push(Node::Text(text));
        Ok(())
    }

    fn bytes_of(&mut self, width: usize) -> Result<(), String> {
        let length = self.length(width)?;
        self.skip(length)
    }

    fn skip(&mut self, length: usize) -> Result<(), String> {
        self.slice(length)?;
        self.push(Node::Opaque);
        Ok(())
    }

    fn stack_global(&mut self) -> Result<(), String> {
        let (name, module) = (self.pop()?, self.pop()?);
        match (&self.nodes[module], &self.nodes[name]) {
            (Node::Text(module), Node::Text(name)) => {
                let global = format!("{module}.{name}");
                self.push(Node::Global(global));
                Ok(())
            }
            _ => Err("a global whose name is not text".into()),
        }
    }

    fn call(&mut self) -> Result<(), String> {
        let (arguments, function) = (self.pop()?, self.pop()?);
        let ordered =
            matches!(&self.nodes[function], Node::Global(g) if g == "collections.OrderedDict");
        self.push(match &self.nodes[arguments] {
            // The dictionary of a state_dict: created empty, then filled.
            Node::List(items) if ordered && items.is_empty() => Node::Dict(Vec::new()),
            _ => Node::Call { function, arguments, state: None },
        });
        Ok(())
    }

    /// Gives the object on top of the stack its attributes. Those of dictionaries, such as the
    /// metadata of a state_dict, are not needed.
    fn build(&mut self) -> Result<(), String> {
        let attributes = self.pop()?;
        let top = self.top()?;
        if let Node::Call { state, .. } = &mut self.nodes[top] {
            *state = Some(attributes);
        }
        Ok(())
    }

    /// Extends the list on top of the stack; ignored for other objects.
    fn extend_list(&mut self, items: &[Id]) -> Result<(), String> {
        let top = self.top()?;
        if let Node::List(list) = &mut self.nodes[top] {
            list.extend(items);
        }
        Ok(())
    }

    /// Extends the dictionary on top of the stack; ignored for other objects.
    fn extend_dict(&mut self, items: &[Id]) -> Result<(), String> {
        let top = self.top()?;
        let pairs = pairs(items)?;
        if let Node::Dict(dict) = &mut self.nodes[top] {
            dict.extend(pairs);
        }
        Ok(())
    }

    fn store(&mut self, width: usize) -> Result<(), String> {
        let (key, id) = (self.unsigned(width)?, self.top()?);
        self.memo.insert(key, id);
        Ok(())
    }

    fn fetch(&mut self, width: usize) -> Result<(), String> {
        let key = self.unsigned(width)?;
        let id = self.memo.get(&key).ok_or("it fetches what it did not store")?;
        self.stack.push(*id);
        Ok(())
    }

    /// The lowest stack position that an instruction may access.
    fn floor(&self) -> usize {
        self.marks.last().copied().unwrap_or(0)
    }

    /// Stack position of the topmost `count` values.
    fn height(&self, count: usize) -> Result<usize, String> {
        let height = self.stack.len().checked_sub(count).filter(|h| *h >= self.floor());
        height.ok_or_else(|| "the stack is empty".into())
    }

    fn top(&self) -> Result<Id, String> {
        Ok(self.stack[self.height(1)?])
    }

    fn pop(&mut self) -> Result<Id, String> {
        let height = self.height(1)?;
        Ok(self.stack.split_off(height)[0])
    }

    fn pop_mark(&mut self) -> Result<Vec<Id>, String> {
        let mark = self.marks.pop().ok_or("an end without a beginning")?;
        Ok(self.stack.split_off(mark))
    }
}

fn pairs(items: &[Id]) -> Result<Vec<(Id, Id)>, String> {
    let (pairs, rest) = items.as_chunks::<2>();
    if !rest.is_empty() {
        return Err("a key without a value".into());
    }
    Ok(pairs.iter().map(|&[key, value]| (key, value)).collect())
}
