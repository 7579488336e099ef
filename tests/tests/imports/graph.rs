//! Cycles among the modules of a folder.

use std::collections::{BTreeMap, BTreeSet};

use crate::paths::{Edge, edges};
use crate::source::Crate;

/// Node of the folder's own file among its children.
const OWN: &str = "(own file)";

/// The dependency graph of one folder's modules, with an example for each edge.
type Folder<'a> = BTreeMap<&'a str, BTreeMap<&'a str, &'a Edge>>;

/// Whether a folder's own file is a node of the graph.
#[derive(Clone, Copy, PartialEq)]
pub(crate) enum OwnFile {
    /// It is.
    Counts,
    /// Only its children are: they may use its items, whatever it uses.
    Shared,
}

/// One or more lines for every cycle.
pub(crate) fn circles(source: &Crate, own: OwnFile) -> Vec<String> {
    let edges = edges(source);
    let mut folders: BTreeMap<&[String], Folder<'_>> = BTreeMap::new();
    for edge in &edges {
        let common = edge.from.iter().zip(&edge.to).take_while(|(a, b)| a == b).count();
        let [from, to] = [&edge.from, &edge.to].map(|path| path.get(common).map_or(OWN, |n| n));
        if own == OwnFile::Shared && [from, to].contains(&OWN) {
            continue;
        }
        let folder = folders.entry(&edge.from[..common]).or_default();
        folder.entry(from).or_default().entry(to).or_insert(edge);
    }
    folders.iter().flat_map(|(path, folder)| in_folder(source, path, folder)).collect()
}

/// One cycle for every strongly connected component.
fn in_folder(source: &Crate, path: &[String], folder: &Folder<'_>) -> Vec<String> {
    let (mut found, mut seen) = (Vec::new(), BTreeSet::new());
    for &start in folder.keys() {
        if seen.contains(start) {
            continue;
        }
        let Some(circle) = shortest(folder, start) else { continue };
        seen.extend(circle.iter().copied());
        let mut text = format!("  in {}/:", path.join("/"));
        for pair in circle.windows(2) {
            let edge = folder[pair[0]][pair[1]];
            let file = source.modules[&edge.from].file.display();
            text += &format!("\n    {} -> {} ({file}: {})", pair[0], pair[1], edge.text);
        }
        found.push(text);
    }
    found
}

/// The shortest path from a module back to itself.
fn shortest<'a>(folder: &Folder<'a>, start: &'a str) -> Option<Vec<&'a str>> {
    let mut ways = vec![vec![start]];
    let mut reached = BTreeSet::new();
    while !ways.is_empty() {
        let mut longer = Vec::new();
        for way in &ways {
            for &next in folder.get(way[way.len() - 1]).into_iter().flat_map(BTreeMap::keys) {
                let way = [&way[..], &[next]].concat();
                if next == start {
                    return Some(way);
                }
                if reached.insert(next) {
                    longer.push(way);
                }
            }
        }
        ways = longer;
    }
    None
}
