//! Dependencies go one way: the modules of a crate have no import cycles.
//!
//! The rule. In every folder, a module's own file and its children are the nodes of a graph. Every
//! path to another node, in a `use` or in the code, is an edge from the node that contains it (a
//! child contains its subtree). The graph must have no cycle. So a parent may use its children, or
//! children their parent's items, but not both along one cycle. Re-exports are resolved: a path to
//! `parent::Item` with `pub use child::Item` in the parent leads to `child`, and the re-export
//! itself is not an edge. Code under `#[cfg(test)]` is ignored.

mod graph;
mod paths;
mod source;

use std::path::{Path, PathBuf};

use graph::{OwnFile, circles};
use source::Crate;

fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// Fails with a list of a crate's cycles.
fn check(name: &str, own: OwnFile) {
    let found = circles(&Crate::read(&repository().join(name).join("src")), own);
    assert!(found.is_empty(), "{name} has circles:\n{}", found.join("\n"));
}

#[test]
fn workspace_has_no_circles() {
    for name in ["schema", "host-tools", "benchmarks", "tests", "xtask", "xtask/rustc-wrapper"] {
        check(name, OwnFile::Counts);
    }
}

/// If a folder's own file selects among its children by target, it also defines their shared types,
/// so only cycles among siblings count.
#[test]
fn firmware_has_no_circles() {
    for name in ["firmware-example", "bench-firmware"] {
        check(name, OwnFile::Shared);
    }
}

/// As for the firmware: files such as `kernels/mod.rs` dispatch.
#[test]
fn core_has_no_circles() {
    check("core", OwnFile::Shared);
}

#[test]
fn every_member_is_checked() {
    let manifest = std::fs::read_to_string(repository().join("Cargo.toml")).unwrap();
    let this = include_str!("main.rs");
    let start = manifest.find("members = [").unwrap();
    let members = &manifest[start..][..manifest[start..].find(']').unwrap()];
    let names: Vec<&str> = members.split('"').skip(1).step_by(2).collect();
    assert!(names.len() > 4, "{names:?}");
    for name in names {
        assert!(this.contains(&format!("\"{name}\"")), "{name} is not checked");
    }
}

/// Cycles of a crate with these files.
fn planted(files: &[(&str, &str)]) -> Vec<String> {
    let directory = tempfile::tempdir().unwrap();
    for (name, text) in files {
        let path = directory.path().join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    }
    circles(&Crate::read(directory.path()), OwnFile::Counts)
}

#[test]
fn planted_circles_are_found() {
    let root = ("lib.rs", "mod a;\nmod b;\nmod c;");
    for (b, why) in [
        ("use crate::c::C;\npub struct B(C);", "by use"),
        ("use crate::{c::C};\npub struct B(C);", "by a group"),
        ("use super::c;\npub struct B(c::C);", "by super"),
        ("pub struct B(crate::c::C);", "in the code"),
    ] {
        let files = [
            root,
            ("a.rs", "use crate::b::B;\npub struct A(B);"),
            ("b.rs", b),
            ("c.rs", "use crate::a::A;\npub struct C(Box<A>);"),
        ];
        let found = planted(&files);
        assert_eq!(found.len(), 1, "{why}: {found:?}");
        for part in ["a -> b", "b -> c", "c -> a", "b.rs"] {
            assert!(found[0].contains(part), "{why}: {found:?}");
        }
    }
    // Folders count with their subtrees.
    let found = planted(&[
        ("lib.rs", "mod a;\nmod b;"),
        ("a/mod.rs", "mod deep;\npub struct A;"),
        ("a/deep.rs", "use crate::b::B;\nstruct Deep(B);"),
        ("b.rs", "use crate::a::A;\npub struct B(A);"),
    ]);
    assert_eq!(found.len(), 1, "{found:?}");
    // The parent's own code uses a child that uses the parent's own items.
    let found = planted(&[
        ("lib.rs", "mod a;"),
        ("a/mod.rs", "mod child;\npub struct A;\nfn f() { child::f() }"),
        ("a/child.rs", "use super::A;\npub fn f() -> A { A }"),
    ]);
    assert_eq!(found.len(), 1, "{found:?}");
    // Through a re-export.
    let found = planted(&[
        ("lib.rs", "mod a;"),
        ("a/mod.rs", "mod x;\nmod y;\npub use x::X;\npub(crate) use y::Y;"),
        ("a/x.rs", "use super::Y;\npub struct X(Box<Y>);"),
        ("a/y.rs", "use crate::a::X;\npub struct Y(X);"),
    ]);
    assert_eq!(found.len(), 1, "{found:?}");
}

#[test]
fn what_flows_one_way_is_no_circle() {
    let found = planted(&[
        ("lib.rs", "pub mod a;\nmod b;\npub use b::B;\nfn f() { b::f() }"),
        // `a` uses `a::x`, and `B` is re-exported: neither uses the root's own items.
        ("a/mod.rs", "mod x;\npub use x::X;\nuse crate::B;\npub fn f(_: B, x: X) { x::f() }"),
        ("a/x.rs", "pub struct X;\npub fn f() {}\n// crate::a::f is only mentioned."),
        ("b.rs", "pub struct B;\npub fn f() -> &'static str { \"crate::a::f\" }"),
        ("b/tests.rs", "use crate::a;"),
    ]);
    assert_eq!(found, Vec::<String>::new());
    let found = planted(&[
        ("lib.rs", "mod a;\nmod b;"),
        ("a.rs", "use crate::b::B;\n#[cfg(test)]\nmod tests {\n use super::*; fn f() { {} }\n}"),
        ("b.rs", "pub struct B;\n#[cfg(test)]\nmod tests {\n use crate::a;\n}"),
    ]);
    assert_eq!(found, Vec::<String>::new());
}
