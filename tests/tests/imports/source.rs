//! The modules of a crate and their tokens.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

/// Path of a module from the crate's root; empty for the root itself.
pub(crate) type ModulePath = Vec<String>;

/// A module's file.
pub(crate) struct Module {
    pub(crate) file: PathBuf,
    /// Identifiers and punctuation, without comments, literals and test code.
    pub(crate) tokens: Vec<String>,
}

/// Every module of a crate except test modules.
pub(crate) struct Crate {
    pub(crate) modules: BTreeMap<ModulePath, Module>,
}

impl Crate {
    /// Reads the files below a `src` folder.
    pub(crate) fn read(src: &Path) -> Self {
        let mut files = Vec::new();
        collect(src, &mut files);
        assert!(!files.is_empty(), "no files in {}", src.display());
        let (mut modules, mut of_tests) = (BTreeMap::new(), BTreeSet::new());
        for file in files {
            let relative = file.strip_prefix(src).unwrap().to_owned();
            let path = module_path(&relative);
            let text = fs::read_to_string(&file).unwrap();
            let (tokens, tests) = without_tests(tokens(&text));
            of_tests.extend(tests.into_iter().map(|name| [path.clone(), vec![name]].concat()));
            modules.insert(path, Module { file: relative, tokens });
        }
        let is_test = |path: &ModulePath| {
            (1..=path.len())
                .any(|length| of_tests.contains(&path[..length]) || path[length - 1] == "tests")
        };
        modules.retain(|path, _| !is_test(path));
        Self { modules }
    }

    /// Whether there is such a module.
    pub(crate) fn has(&self, path: &[String]) -> bool {
        self.modules.contains_key(path)
    }
}

fn collect(directory: &Path, files: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            collect(&path, files);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(path);
        }
    }
}

fn module_path(file: &Path) -> ModulePath {
    let stem = file.with_extension("");
    let mut path: ModulePath =
        stem.iter().map(|part| part.to_string_lossy().into_owned()).collect();
    let is_folder = path.last().is_some_and(|last| last == "mod");
    if is_folder || path == ["lib"] {
        path.pop();
    }
    path
}

/// Splits a file into identifiers and single characters; `::` is one token. Lifetimes lose their
/// quote.
fn tokens(text: &str) -> Vec<String> {
    let (chars, mut tokens, mut i) = (text.chars().collect::<Vec<_>>(), Vec::new(), 0);
    let at = |i: usize| chars.get(i).copied().unwrap_or('\0');
    while i < chars.len() {
        let c = chars[i];
        if c == '/' && at(i + 1) == '/' {
            while i < chars.len() && chars[i] != '\n' {
                i += 1;
            }
        } else if c == '/' && at(i + 1) == '*' {
            i += 2;
            while i < chars.len() && !(chars[i] == '*' && at(i + 1) == '/') {
                i += 1;
            }
            i += 2;
        } else if c == '"' {
            i += 1;
            while i < chars.len() && chars[i] != '"' {
                i += if chars[i] == '\\' { 2 } else { 1 };
            }
            i += 1;
        } else if c == 'r' && (at(i + 1) == '"' || at(i + 1) == '#' && "\"#".contains(at(i + 2))) {
            let hashes = (i + 1..).take_while(|&j| at(j) == '#').count();
            let end = |j: usize| at(j) == '"' && (1..=hashes).all(|k| at(j + k) == '#');
            i += 2 + hashes;
            while i < chars.len() && !end(i) {
                i += 1;
            }
            i += 1 + hashes;
        } else if c == '\'' && (at(i + 1) == '\\' || at(i + 2) == '\'') {
            i += if at(i + 1) == '\\' { 3 } else { 2 };
            while i < chars.len() && chars[i] != '\'' {
                i += 1;
            }
            i += 1;
        } else if c.is_alphanumeric() || c == '_' {
            let start = i;
            while at(i).is_alphanumeric() || at(i) == '_' {
                i += 1;
            }
            tokens.push(chars[start..i].iter().collect());
        } else if c == ':' && at(i + 1) == ':' {
            tokens.push("::".to_owned());
            i += 2;
        } else {
            if !c.is_whitespace() {
                tokens.push(c.to_string());
            }
            i += 1;
        }
    }
    tokens
}

/// Removes every item under `#[cfg(test)]`; returns the names of removed modules that are files.
fn without_tests(tokens: Vec<String>) -> (Vec<String>, Vec<String>) {
    const TEST: [&str; 7] = ["#", "[", "cfg", "(", "test", ")", "]"];
    let (mut kept, mut modules, mut i) = (Vec::new(), Vec::new(), 0);
    while i < tokens.len() {
        let is_test = tokens[i..].iter().zip(TEST).filter(|(a, b)| a == b).count() == TEST.len();
        if !is_test {
            kept.push(tokens[i].clone());
            i += 1;
            continue;
        }
        let start = i + TEST.len();
        let end = |j: &usize| matches!(tokens[*j].as_str(), ";" | "{");
        let mut stop = (start..tokens.len()).find(end).unwrap_or(tokens.len());
        let is_file = tokens.get(stop).is_some_and(|token| token == ";");
        if let Some(name) = (start..stop).find(|&j| tokens[j] == "mod").filter(|_| is_file) {
            modules.push(tokens[name + 1].clone());
        }
        if !is_file {
            let mut depth = 0;
            while stop < tokens.len() {
                depth += i32::from(tokens[stop] == "{") - i32::from(tokens[stop] == "}");
                if depth == 0 {
                    break;
                }
                stop += 1;
            }
        }
        i = stop + 1;
    }
    (kept, modules)
}
