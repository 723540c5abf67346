//! The options of every command.

use std::path::PathBuf;

use clap::{ArgAction, Args, ValueEnum, ValueHint};

/// Options of every command.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Global options")]
pub struct Global {
    /// The node's file system; for an `oc debug node` shell, /host
    #[arg(long, global = true, value_name = "DIR", env = "ETCD_DR_ROOT", value_hint = ValueHint::DirPath)]
    pub root: Option<PathBuf>,

    /// Configuration file [default: /etc/etcd-dr/config.toml, if present]
    #[arg(long, global = true, value_name = "FILE", env = "ETCD_DR_CONFIG", value_hint = ValueHint::FilePath)]
    pub config: Option<PathBuf>,

    /// Where manifests, certificates and data lie [default: auto]
    #[arg(
        long,
        global = true,
        value_enum,
        value_name = "PROFILE",
        env = "ETCD_DR_PROFILE"
    )]
    pub profile: Option<ProfileArg>,

    /// This node's name, where its addresses do not tell it
    #[arg(long, global = true, value_name = "NAME", env = "ETCD_DR_NODE_NAME")]
    pub node_name: Option<String>,

    /// etcd's client URLs; of several a snapshot uses the local member's
    #[arg(long, global = true, value_name = "URL", env = "ETCD_DR_ENDPOINTS", value_delimiter = ',', value_hint = ValueHint::Url)]
    pub endpoints: Vec<String>,

    /// CA bundle that etcd's certificate is checked with
    #[arg(long, global = true, value_name = "FILE", env = "ETCD_DR_CACERT", value_hint = ValueHint::FilePath)]
    pub cacert: Option<PathBuf>,

    /// Client certificate
    #[arg(long, global = true, value_name = "FILE", env = "ETCD_DR_CERT", value_hint = ValueHint::FilePath)]
    pub cert: Option<PathBuf>,

    /// Client key
    #[arg(long, global = true, value_name = "FILE", env = "ETCD_DR_KEY", value_hint = ValueHint::FilePath)]
    pub key: Option<PathBuf>,

    /// Form of the result on standard output
    #[arg(short, long, global = true, value_enum, value_name = "FORM", default_value_t = OutputArg::Text, env = "ETCD_DR_OUTPUT")]
    pub output: OutputArg,

    /// Progress on standard error; json: one event a line
    #[arg(long, global = true, value_enum, value_name = "WHEN", default_value_t = ProgressArg::Auto, env = "ETCD_DR_PROGRESS")]
    pub progress: ProgressArg,

    /// Colours; NO_COLOR is honoured
    #[arg(long, global = true, value_enum, value_name = "WHEN", default_value_t = ColorArg::Auto, env = "ETCD_DR_COLOR")]
    pub color: ColorArg,

    /// More detail; secrets are never shown
    #[arg(short, long, global = true, action = ArgAction::Count)]
    pub verbose: u8,
}

/// `--profile`
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ProfileArg {
    /// Look which it is
    Auto,
    /// OpenShift's static pods and their revisions
    Openshift,
    /// kubeadm's manifests and PKI
    Kubeadm,
    /// An etcd with no static pods: everything from options
    Bare,
}

/// `--output`
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum OutputArg {
    /// For people; may change
    Text,
    /// One versioned JSON document
    Json,
}

/// `--progress`
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum ProgressArg {
    /// A bar on a terminal, a line every few seconds elsewhere
    Auto,
    /// Lines, also on a terminal
    Always,
    /// None
    Never,
    /// One JSON event a line
    Json,
}

/// `--color`
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum ColorArg {
    /// On a terminal
    Auto,
    /// Always
    Always,
    /// Never
    Never,
}
