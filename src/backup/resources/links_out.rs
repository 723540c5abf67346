//! Links that lead out of the tree.

use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};

use super::left::{LeftOut, special};
use super::links::{Budget, Landing, follow};
use super::node::{Node, children, look};
use super::selection::Selection;
use crate::error::Result;
use crate::sys::rooted;

/// What every installation of the system has: a link to one of these needs no copy.
const SYSTEM: [&str; 4] = [
    "/usr/share/ca-certificates",
    "/usr/share/pki",
    "/etc/pki",
    "/etc/ssl/certs",
];

/// A folder with more than this behind a link is not followed.
const MAX_LINKED: usize = 2_000;

/// Puts in place of each link that leads out of the tree what it leads to, which the archive has
/// room for where the link itself would lead nowhere on another node.
pub(super) fn follow_links_out(
    nodes: Vec<Node>,
    selection: &Selection,
    left: &mut Vec<LeftOut>,
) -> Result<Vec<Node>> {
    let links: HashMap<PathBuf, PathBuf> = nodes
        .iter()
        .filter_map(|node| Some((node.name.clone(), node.target.clone()?)))
        .collect();
    let base = selection.node_base.as_deref();
    let mut budget = Budget::default();
    let mut kept = Vec::with_capacity(nodes.len());
    for node in nodes {
        let leads_out = node.target.is_some()
            && follow(&node.name, &links, base, &mut budget) == Landing::Outside;
        if !leads_out {
            kept.push(node);
            continue;
        }
        let target = node.target.clone().unwrap_or_default();
        match behind(&node, selection, left)? {
            Ok(mut found) => kept.append(&mut found),
            Err((why, harmless)) => {
                let why = format!("it is a link to {}, {why}", target.display());
                left.push(LeftOut::new(&node.source, why, harmless));
            }
        }
    }
    Ok(kept)
}

/// What a link leads to, under the link's name; or why that is not taken, and whether nothing is lost.
fn behind(
    link: &Node,
    selection: &Selection,
    left: &mut Vec<LeftOut>,
) -> Result<std::result::Result<Vec<Node>, (String, bool)>> {
    let root = selection.root();
    let below = link.source.strip_prefix(&root).unwrap_or(&link.source);
    let Ok(real) = rooted::resolve(&root, below) else {
        return Ok(Err(("which is dangling".to_owned(), false)));
    };
    let on_node = Path::new("/").join(real.strip_prefix(&root).unwrap_or(&real));
    let Ok(meta) = fs::symlink_metadata(&real) else {
        return Ok(Err(("which does not exist".to_owned(), false)));
    };
    if let Some(special) = special(&real, &meta) {
        return Ok(Err((special.why, special.harmless)));
    }
    if meta.is_dir() && SYSTEM.iter().any(|system| on_node.starts_with(system)) {
        return Ok(Err(("which every installation has".to_owned(), true)));
    }
    let mut found = Vec::new();
    let mut todo = vec![(real, link.name.clone())];
    while let Some((source, name)) = todo.pop() {
        let node = match look(source, name)? {
            Ok(node) => node,
            Err(found) => {
                left.push(found);
                continue;
            }
        };
        if node.target.is_some() {
            let why = format!(
                "{} is a link to it, and only one link is followed",
                link.source.display()
            );
            left.push(LeftOut::new(&node.source, why, false));
            continue;
        }
        if node.meta.is_dir() {
            let mut below = children(&node)?;
            below.sort_by(|a, b| b.1.cmp(&a.1));
            todo.append(&mut below);
        }
        found.push(node);
        if found.len() > MAX_LINKED {
            return Ok(Err((
                format!("which has more than {MAX_LINKED} files"),
                false,
            )));
        }
    }
    Ok(Ok(found))
}
