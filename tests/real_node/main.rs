//! The same on the real thing: a kubelet, containerd and four static pods of OpenShift's shape,
//! in their own namespaces. `make test-node` runs it; it takes minutes, so that `make test`
//! does not.

mod backups;
mod bench;
mod clients;
mod containers;
mod image;
mod older;
mod restores;
