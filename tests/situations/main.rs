//! Situations of real nodes: what administrators have done to their nodes, clusters and files, made
//! on kubeadm and OpenShift nodes with real etcd behind a stand-in kubelet and container runtime.

#[path = "../restore/node.rs"]
#[allow(dead_code)]
mod node;

mod cluster;
mod files;
mod manifests;
mod operations;
mod other_members;
