//! The options of every command.

use std::path::PathBuf;

use clap::{ArgAction, Args, ValueEnum, ValueHint};

/// Options of every command.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Global options")]
pub struct Global {
    /// Root of the node's file system; /host in an `oc debug node` shell
    #[arg(long, global = true, value_name = "DIR", env = "ETCD_DR_ROOT", value_hint = ValueHint::DirPath)]
    pub root: Option<PathBuf>,

    /// Configuration file [default: /etc/etcd-dr/config.toml, if present]
    #[arg(long, global = true, value_name = "FILE", env = "ETCD_DR_CONFIG", value_hint = ValueHint::FilePath)]
    pub config: Option<PathBuf>,

    /// Where manifests, certificates and data are [default: auto]
    #[arg(
        long,
        global = true,
        value_enum,
        value_name = "PROFILE",
        env = "ETCD_DR_PROFILE"
    )]
    pub profile: Option<ProfileArg>,

    /// Node name, if it cannot be detected
    #[arg(long, global = true, value_name = "NAME", env = "ETCD_DR_NODE_NAME")]
    pub node_name: Option<String>,

    /// Client URLs of etcd; a snapshot is taken from the local member
    #[arg(long, global = true, value_name = "URL", env = "ETCD_DR_ENDPOINTS", value_delimiter = ',', value_hint = ValueHint::Url)]
    pub endpoints: Vec<String>,

    /// Verify etcd's certificate with this CA bundle
    #[arg(long, global = true, value_name = "FILE", env = "ETCD_DR_CACERT", value_hint = ValueHint::FilePath)]
    pub cacert: Option<PathBuf>,

    /// Client certificate to present to etcd
    #[arg(long, global = true, value_name = "FILE", env = "ETCD_DR_CERT", value_hint = ValueHint::FilePath)]
    pub cert: Option<PathBuf>,

    /// Private key of the client certificate
    #[arg(long, global = true, value_name = "FILE", env = "ETCD_DR_KEY", value_hint = ValueHint::FilePath)]
    pub key: Option<PathBuf>,

    /// Format of the result on standard output
    #[arg(short, long, global = true, value_enum, value_name = "FORMAT", default_value_t = OutputArg::Text, env = "ETCD_DR_OUTPUT")]
    pub output: OutputArg,

    /// Show progress on standard error; json: one event per line
    #[arg(long, global = true, value_enum, value_name = "WHEN", default_value_t = ProgressArg::Auto, env = "ETCD_DR_PROGRESS")]
    pub progress: ProgressArg,

    /// When to use colours; NO_COLOR is honoured
    #[arg(long, global = true, value_enum, value_name = "WHEN", default_value_t = ColorArg::Auto, env = "ETCD_DR_COLOR")]
    pub color: ColorArg,

    /// Show more detail; secrets are never shown
    #[arg(short, long, global = true, action = ArgAction::Count)]
    pub verbose: u8,
}

/// `--profile`
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ProfileArg {
    /// Detect automatically
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
    /// Text for people; may change
    #[value(alias = "table")]
    Text,
    /// One versioned JSON document
    Json,
    /// Objects as YAML, by get
    #[value(hide = true)]
    Yaml,
    /// Names of objects, by get
    #[value(hide = true)]
    Name,
    /// The stored bytes of one object, by get
    #[value(hide = true)]
    Raw,
    /// One page for a browser, by diff and list --fleet
    #[value(hide = true)]
    Html,
}

/// `--progress`
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum ProgressArg {
    /// A bar on a terminal, otherwise a line every few seconds
    Auto,
    /// Lines, even on a terminal
    Always,
    /// No progress
    Never,
    /// One JSON event per line
    Json,
}

/// `--color`
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum ColorArg {
    /// On a terminal only
    Auto,
    /// Always
    Always,
    /// Never
    Never,
}

/// Whether a change is agreed to first, and made at all.
#[derive(Debug, Clone, Args)]
pub struct AskArgs {
    /// Do not ask for confirmation
    #[arg(short, long)]
    pub yes: bool,

    /// Show what would be done; change nothing
    #[arg(long)]
    pub dry_run: bool,
}
