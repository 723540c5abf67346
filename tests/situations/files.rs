//! Certificates, folders and data directories as people have them.
