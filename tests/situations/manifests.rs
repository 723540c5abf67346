//! Manifests and static pods as people write them.
