//! What `get` and `diff` share.

use std::path::PathBuf;

use clap::{Args, ValueHint};

/// Which objects are read, and how they are shown.
#[derive(Debug, Clone, Default, Args)]
pub struct ObjectArgs {
    /// Only objects in this namespace [default: all namespaces]
    #[arg(short, long, value_name = "NAMESPACE")]
    pub namespace: Option<String>,

    /// Show the values of Secrets, which are masked otherwise
    #[arg(long)]
    pub show_secrets: bool,

    /// Decrypt objects with the keys in this EncryptionConfiguration, in
    /// addition to those that the backup holds; repeatable
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath, verbatim_doc_comment)]
    pub encryption_config: Vec<PathBuf>,
}
