//! The paths in a module and the modules they resolve to.

use std::collections::BTreeMap;

use crate::source::{Crate, Module, ModulePath};

/// A path as written in the code, and whether it is re-exported.
struct Written {
    segments: Vec<String>,
    /// Its local name.
    name: String,
    is_exported: bool,
}

/// The re-exports of every module: name to path as written.
type Exports = BTreeMap<ModulePath, BTreeMap<String, Vec<String>>>;

/// A use of a module by another.
pub(crate) struct Edge {
    pub(crate) from: ModulePath,
    pub(crate) to: ModulePath,
    /// The path as written.
    pub(crate) text: String,
}

/// Every use of one module by another, with re-exports resolved.
pub(crate) fn edges(source: &Crate) -> Vec<Edge> {
    let written: BTreeMap<&ModulePath, Vec<Written>> =
        source.modules.iter().map(|(path, module)| (path, written(module))).collect();
    let mut exports = Exports::new();
    for (path, paths) in &written {
        let exported = paths.iter().filter(|path| path.is_exported);
        let exported = exported.map(|path| (path.name.clone(), path.segments.clone()));
        exports.insert((*path).clone(), exported.collect());
    }
    let mut edges = Vec::new();
    for (from, paths) in written {
        for path in paths.iter().filter(|path| !path.is_exported) {
            if let Some(to) = resolve(source, &exports, from, &path.segments, 0)
                && to != *from
            {
                edges.push(Edge { from: from.clone(), to, text: path.segments.join("::") });
            }
        }
    }
    edges
}

/// Every path that may lead to a module: one that starts with `crate`, `self`, `super` or a name,
/// which [`resolve`] looks up among child modules.
fn written(module: &Module) -> Vec<Written> {
    let (tokens, mut paths, mut i) = (&module.tokens, Vec::new(), 0);
    let at = |i: usize| tokens.get(i).map_or("", String::as_str);
    while i < tokens.len() {
        if at(i) == "use" {
            let is_exported = i > 0 && (at(i - 1) == "pub" || at(i - 1) == ")");
            let start = paths.len();
            i = tree(tokens, i + 1, Vec::new(), &mut paths);
            paths[start..].iter_mut().for_each(|path: &mut Written| path.is_exported = is_exported);
        } else if at(i + 1) == "::" && is_name(at(i)) && (i == 0 || at(i - 1) != "::") {
            let start = i;
            let mut segments = vec![at(i).to_owned()];
            while at(i + 1) == "::" && is_name(at(i + 2)) {
                segments.push(at(i + 2).to_owned());
                i += 2;
            }
            // The path of `pub(in path)` is not a use.
            if !(start > 1 && at(start - 1) == "in" && at(start - 2) == "(") {
                paths.push(Written { segments, name: String::new(), is_exported: false });
            }
        }
        i += 1;
    }
    paths
}

fn is_name(token: &str) -> bool {
    token.starts_with(|c: char| c.is_alphabetic() || c == '_')
}

/// Parses the use tree at token `i`; returns the index of its end.
fn tree(tokens: &[String], mut i: usize, mut head: Vec<String>, paths: &mut Vec<Written>) -> usize {
    let at = |i: usize| tokens.get(i).map_or(";", String::as_str);
    loop {
        match at(i) {
            "{" => {
                i += 1;
                while !matches!(at(i), "}" | ";") {
                    i = tree(tokens, i, head.clone(), paths);
                    i += usize::from(at(i) == ",");
                }
                return i + 1;
            }
            "::" => i += 1,
            "*" => i += 1,
            "as" => {
                let name = at(i + 1).to_owned();
                paths.push(Written { segments: head, name, is_exported: false });
                return i + 2;
            }
            "," | "}" | ";" => {
                let name = head.last().cloned().unwrap_or_default();
                paths.push(Written { segments: head, name, is_exported: false });
                return i;
            }
            name => {
                // `{self}` is the module itself.
                if name != "self" || head.is_empty() {
                    head.push(name.to_owned());
                }
                i += 1;
            }
        }
    }
}

/// The module that a path in `from` resolves to; `None` for paths outside the crate.
fn resolve(
    source: &Crate,
    exports: &Exports,
    from: &ModulePath,
    segments: &[String],
    depth: usize,
) -> Option<ModulePath> {
    let mut rest = segments.iter().peekable();
    let first = rest.peek()?.as_str();
    let mut here = from.clone();
    match first {
        "crate" => {
            here.clear();
            rest.next();
        }
        "self" => {
            rest.next();
        }
        "super" => {
            while rest.peek().is_some_and(|segment| *segment == "super") {
                here.pop();
                rest.next();
            }
        }
        // Other paths stay in the crate only if they start with the name of a child module.
        name if !source.has(&[&here[..], &[name.to_owned()]].concat()) => return None,
        _ => {}
    }
    while let Some(segment) = rest.next() {
        let child = [&here[..], std::slice::from_ref(segment)].concat();
        if source.has(&child) {
            here = child;
            continue;
        }
        let exported = exports.get(&here).and_then(|names| names.get(segment));
        if let Some(target) = exported.filter(|_| depth < 8) {
            let rest: Vec<String> = rest.cloned().collect();
            // A re-export from another crate belongs to no module here.
            let target = [&target[..], &rest].concat();
            return resolve(source, exports, &here, &target, depth + 1);
        }
        break;
    }
    Some(here)
}
