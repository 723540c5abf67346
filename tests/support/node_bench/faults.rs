//! What the stand-ins do wrong, on demand and while they run.

use std::time::Duration;

/// All that can go wrong at once; the default is nothing.
#[derive(Debug, Clone, Default)]
pub struct Faults {
    /// How the runtime answers.
    pub answer: Answer,
    /// What it says that is not so.
    pub lie: Lie,
    /// How pods stop.
    pub stop: Stop,
    /// The pods that `lie` and `stop` are about, by their manifests' names; all if empty.
    pub pods: Vec<String>,
    /// The kubelet sees no manifest at all: what runs is stopped, and nothing starts.
    pub blind: bool,
    /// Lists an ended earlier attempt beside each container.
    pub earlier_attempts: bool,
    /// How long the runtime takes to remove a pod.
    pub removal: Duration,
}

/// How the runtime answers.
#[derive(Debug, Clone, Default)]
pub enum Answer {
    /// As it should.
    #[default]
    Normal,
    /// With this status: a gRPC code and a message.
    Error(i32, String),
    /// Never.
    Hang,
}

/// What the runtime says that is not so.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Lie {
    /// Nothing.
    #[default]
    None,
    /// Lists neither container nor sandbox, whatever lives.
    Gone,
    /// Lists what lives as ended.
    Ended,
    /// Lists what ended as running.
    RunsForEver,
    /// Lists what was a pod as one that stands, without a container that runs.
    Stands,
}

/// How pods stop whose manifest is gone.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Stop {
    /// Asked at once, killed after the grace.
    #[default]
    Prompt,
    /// Asked only this long after the manifest went.
    After(Duration),
    /// Never asked; they continue serving.
    Never,
}

impl Faults {
    /// Whether this pod is meant.
    pub fn is_about(&self, pod: &str) -> bool {
        self.pods.is_empty() || self.pods.iter().any(|name| name == pod)
    }
}
