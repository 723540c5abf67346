//! Nodes for unit tests.

use super::layout::NodeLayout;

/// A node that has these files, by their paths below its root.
pub(super) fn node(files: &[(&str, &str)]) -> (tempfile::TempDir, NodeLayout) {
    let dir = tempfile::tempdir().unwrap();
    let layout = NodeLayout::new(dir.path());
    for (path, text) in files {
        let path = layout.host(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    }
    (dir, layout)
}
