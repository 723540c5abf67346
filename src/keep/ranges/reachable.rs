//! The revisions that can be restored, as ranges, and the gaps between them.

use std::collections::BTreeSet;

use jiff::Timestamp;
use serde::Serialize;

use super::chain::Chain;
use super::continuation::continuation;
use crate::keep::catalog::BackupSet;

/// Why revisions cannot be reached though earlier and later ones can.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum GapCause {
    /// The recorder was overtaken by a compaction.
    Compacted,
    /// etcd was restored.
    OtherHistory,
    /// The watch left out events.
    EventsLost,
    /// The last segment of a chain was damaged when the recorder was started again.
    DamagedSegment,
    /// A segment of a chain is not there any more.
    MissingSegment,
    /// The changes after it are encrypted, and so is the cause.
    Encrypted,
    /// Nothing was recorded, and the next backup's own history does not go back so far.
    NotRecorded,
}

impl GapCause {
    /// The cause as a sentence.
    pub const fn sentence(self) -> &'static str {
        match self {
            Self::Compacted => "etcd had compacted it before it was recorded",
            Self::OtherHistory => "etcd was restored, and has another history",
            Self::EventsLost => "etcd's watch left out events",
            Self::DamagedSegment => "a segment was damaged",
            Self::MissingSegment => "a segment is missing",
            Self::Encrypted => "why is encrypted: give --identity",
            Self::NotRecorded => "it was not recorded",
        }
    }

    fn of(cause: crate::etcd::segment::Cause) -> Self {
        use crate::etcd::segment::Cause;
        match cause {
            Cause::Compacted => Self::Compacted,
            Cause::OtherHistory => Self::OtherHistory,
            Cause::EventsLost => Self::EventsLost,
            Cause::DamagedSegment => Self::DamagedSegment,
            Cause::First | Cause::OtherCluster => Self::NotRecorded,
        }
    }
}

/// Revisions that can all be restored.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Range {
    /// The first one.
    pub from: i64,
    /// The last one.
    pub to: i64,
    /// When the first backup in it was taken: earlier moments are in that backup's own history.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub from_time: Option<Timestamp>,
    /// When the last revision was written, as far as that is known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub to_time: Option<Timestamp>,
    /// The backups in it, the oldest first.
    pub backups: Vec<String>,
    /// Whether recorded changes are in it.
    pub recorded: bool,
}

/// Revisions between two ranges.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Gap {
    /// The last revision before it.
    pub after: i64,
    /// The first one after it.
    pub until: i64,
    /// Why.
    pub cause: GapCause,
}

/// What can be reached of one cluster.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Reachable {
    /// The folder of the node, `<cluster>/<node>`, in a store that has several.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub node: Option<String>,
    /// The cluster, hex.
    pub cluster_id: String,
    /// The ranges, ascending.
    pub ranges: Vec<Range>,
    /// What is between them.
    pub gaps: Vec<Gap>,
}

/// What can be reached of each cluster that good backups or recorded changes are of.
pub fn reachable(chains: &[Chain], sets: &[BackupSet]) -> Vec<Reachable> {
    let of_set = |set: &BackupSet| Some(set.manifest.as_ref()?.cluster.etcd_id.clone());
    let good = || sets.iter().filter(|set| set.is_good());
    let mut clusters: BTreeSet<String> = good().filter_map(of_set).collect();
    clusters.extend(chains.iter().map(|chain| chain.cluster_id.clone()));
    let one = |cluster: String| {
        let own = good().filter(|set| of_set(set).as_ref() == Some(&cluster));
        let mut ranges: Vec<Range> = own.filter_map(|set| range(chains, sets, set)).collect();
        ranges.sort_by_key(|range| (range.from, range.to));
        let ranges = merged(ranges);
        let gaps = ranges.windows(2).filter_map(|pair| match pair {
            [before, after] => Some(gap(chains, &cluster, before.to, after.from)),
            _ => None,
        });
        Reachable {
            node: None,
            gaps: gaps.collect(),
            cluster_id: cluster,
            ranges,
        }
    };
    clusters.into_iter().map(one).collect()
}

/// What one backup reaches, with the changes recorded after it.
fn range(chains: &[Chain], sets: &[BackupSet], set: &BackupSet) -> Option<Range> {
    let database = &set.manifest.as_ref()?.database;
    let own = database.kv_revision?;
    let continued = continuation(chains, sets, set);
    let chain = continued.as_ref();
    let chain = chain.and_then(|known| chains.iter().find(|chain| chain.dir == known.dir));
    let to = continued.as_ref().map_or(own, |continued| continued.until);
    let to_time = match chain {
        // Of a segment in the middle, nothing tells without reading it.
        Some(chain) if chain.last() == to => Some(chain.last_received),
        Some(_) => None,
        None => set.created,
    };
    Some(Range {
        from: database.compact_revision.unwrap_or(1).max(1),
        to,
        from_time: set.created,
        to_time,
        backups: vec![set.name.clone()],
        recorded: continued.is_some(),
    })
}

/// Ranges that overlap or follow each other as one.
fn merged(ranges: Vec<Range>) -> Vec<Range> {
    let mut merged: Vec<Range> = Vec::new();
    for range in ranges {
        match merged.last_mut() {
            Some(last) if range.from <= last.to.saturating_add(1) => {
                if range.to >= last.to {
                    last.to = range.to;
                    last.to_time = range.to_time.or(last.to_time);
                }
                last.from_time = last.from_time.min(range.from_time);
                last.recorded |= range.recorded;
                last.backups.extend(range.backups);
            }
            _ => merged.push(range),
        }
    }
    merged
}

fn gap(chains: &[Chain], cluster: &str, after: i64, until: i64) -> Gap {
    let of_cluster = || chains.iter().filter(|chain| chain.cluster_id == cluster);
    let broken = of_cluster().any(|chain| chain.first() <= after && chain.last() > after);
    let near = |chain: &&Chain| (after..=until).contains(&chain.first().saturating_sub(1));
    let began = of_cluster().find_map(|chain| {
        let begun = chain.begun?;
        // It may begin after the next backup's own history does.
        let follows = begun
            .after
            .is_some_and(|last| (after..until).contains(&last));
        (near(&chain) || follows).then_some(begun)
    });
    let cause = match began {
        _ if broken => GapCause::MissingSegment,
        Some(begun) => GapCause::of(begun.cause),
        None if of_cluster().any(|chain| chain.encrypted) => GapCause::Encrypted,
        None => GapCause::NotRecorded,
    };
    Gap {
        after,
        until,
        cause,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::etcd::segment::{Begun, Cause};

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    fn chain(cluster: &str, begun: Cause, names: &[(i64, i64)]) -> Chain {
        let first = names[0].0;
        Chain {
            cluster_id: cluster.to_owned(),
            begun: Some(Begun {
                cause: begun,
                after: None,
            }),
            ..Chain::of_segments(&first.to_string(), names, first + 1000)
        }
    }

    #[test]
    fn a_chain_reaches_up_to_its_first_hole() {
        let chain = chain("c", Cause::First, &[(5, 9), (10, 12), (14, 20)]);
        assert_eq!(chain.reach(3), None);
        for from in [4, 7, 9, 11] {
            assert_eq!(chain.reach(from), Some(12), "{from}");
        }
        assert_eq!(chain.reach(12), None);
        assert_eq!(chain.reach(13), Some(20));
        assert_eq!(chain.reach(20), None);
    }

    #[test]
    fn ranges_are_merged_and_each_gap_has_a_cause() {
        let range = |from, to, name: &str| Range {
            from,
            to,
            from_time: Some(at(from)),
            to_time: Some(at(to)),
            backups: vec![name.to_owned()],
            recorded: to % 2 == 1,
        };
        let ranges = merged(vec![
            range(1, 10, "a"),
            range(5, 8, "b"),
            range(11, 20, "c"),
            range(22, 31, "d"),
        ]);
        let shown: Vec<(i64, i64, usize, bool)> = ranges
            .iter()
            .map(|range| (range.from, range.to, range.backups.len(), range.recorded))
            .collect();
        assert_eq!(shown, [(1, 20, 3, false), (22, 31, 1, true)]);
        assert_eq!(
            (ranges[0].from_time, ranges[0].to_time),
            (Some(at(1)), Some(at(20)))
        );
        let cause = |chains: &[Chain]| gap(chains, "c", 20, 40).cause;
        assert_eq!(cause(&[]), GapCause::NotRecorded);
        assert_eq!(
            cause(&[chain("c", Cause::Compacted, &[(30, 50)])]),
            GapCause::Compacted
        );
        assert_eq!(
            cause(&[chain("d", Cause::Compacted, &[(30, 50)])]),
            GapCause::NotRecorded
        );
        let mut later = chain("c", Cause::Compacted, &[(45, 50)]);
        assert_eq!(cause(std::slice::from_ref(&later)), GapCause::NotRecorded);
        later.begun = Some(Begun {
            cause: Cause::Compacted,
            after: Some(20),
        });
        assert_eq!(cause(&[later]), GapCause::Compacted);
        let closed = Chain {
            begun: None,
            encrypted: true,
            ..chain("c", Cause::First, &[(30, 50)])
        };
        assert_eq!(cause(&[closed]), GapCause::Encrypted);
        let holed = chain("c", Cause::First, &[(5, 20), (31, 50)]);
        assert_eq!(cause(&[holed]), GapCause::MissingSegment);
    }
}
