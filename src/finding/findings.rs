//! A bounded collection of [`Finding`]s: a hostile file must not fill memory or a terminal.

use serde::Serialize;

use super::{Finding, Layer, Place, Severity};

/// How many findings of each severity are kept for each layer unless configured otherwise.
pub const DEFAULT_KEPT: usize = 50;

/// How many findings one layer had, kept or not.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Tally {
    /// The layer.
    pub layer: Layer,
    /// Errors found in it.
    pub errors: u64,
    /// Warnings found in it.
    pub warnings: u64,
    /// Of both, how many are counted only, and not listed.
    pub unlisted: u64,
}

/// Findings in the order they were made; for each layer and severity only the first are kept, so
/// that many findings in one layer do not hide another's. The rest is counted.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Findings {
    listed: Vec<Finding>,
    tallies: Vec<Tally>,
    #[serde(skip)]
    kept: usize,
}

impl Default for Findings {
    fn default() -> Self {
        Self::keeping(DEFAULT_KEPT)
    }
}

impl Findings {
    /// An empty collection that keeps `kept` findings of each severity for each layer.
    pub fn keeping(kept: usize) -> Self {
        Self {
            listed: Vec::new(),
            tallies: Vec::new(),
            kept,
        }
    }

    /// Adds a finding made elsewhere.
    pub fn add(&mut self, finding: Finding) {
        if self.count(finding.layer, finding.severity) {
            self.listed.push(finding);
        }
    }

    /// Takes over all findings of another collection, counted ones too.
    pub fn merge(&mut self, other: Self) {
        for tally in &other.tallies {
            self.merge_layer(&other, tally.layer);
        }
    }

    /// Takes over the findings that another collection has of one layer.
    pub fn merge_layer(&mut self, other: &Self, layer: Layer) {
        let listed = other.listed.iter().filter(|f| f.layer == layer);
        let (mut errors, mut warnings) = (other.errors_in(layer), other.warnings_in(layer));
        for finding in listed {
            match finding.severity {
                Severity::Error => errors -= 1,
                Severity::Warning => warnings -= 1,
            }
            self.add(finding.clone());
        }
        for (count, severity) in [(errors, Severity::Error), (warnings, Severity::Warning)] {
            if count > 0 {
                self.count_unlisted(layer, severity, count);
            }
        }
    }

    fn count_unlisted(&mut self, layer: Layer, severity: Severity, count: u64) {
        let tally = self.tally_mut(layer);
        tally.unlisted += count;
        match severity {
            Severity::Error => tally.errors += count,
            Severity::Warning => tally.warnings += count,
        }
    }

    fn tally_mut(&mut self, layer: Layer) -> &mut Tally {
        let known = self.tallies.iter().position(|t| t.layer == layer);
        let index = known.unwrap_or(self.tallies.len());
        if known.is_none() {
            self.tallies.push(Tally {
                layer,
                errors: 0,
                warnings: 0,
                unlisted: 0,
            });
        }
        &mut self.tallies[index]
    }

    /// Adds an error; the words are made only if the finding is kept.
    pub fn error(
        &mut self,
        layer: Layer,
        place: impl Into<Option<Place>>,
        words: impl FnOnce() -> (String, String),
    ) {
        self.push(layer, Severity::Error, place.into(), words);
    }

    /// Adds a warning; the words are made only if the finding is kept.
    pub fn warning(
        &mut self,
        layer: Layer,
        place: impl Into<Option<Place>>,
        words: impl FnOnce() -> (String, String),
    ) {
        self.push(layer, Severity::Warning, place.into(), words);
    }

    fn push(
        &mut self,
        layer: Layer,
        severity: Severity,
        place: Option<Place>,
        words: impl FnOnce() -> (String, String),
    ) {
        if !self.count(layer, severity) {
            return;
        }
        let (expected, found) = words();
        let mut finding = match severity {
            Severity::Error => Finding::error(layer, expected, found),
            Severity::Warning => Finding::warning(layer, expected, found),
        };
        finding.place = place;
        self.listed.push(finding);
    }

    /// Counts one finding; says whether it is to be listed.
    fn count(&mut self, layer: Layer, severity: Severity) -> bool {
        let kept = self.kept as u64;
        let tally = self.tally_mut(layer);
        let counter = match severity {
            Severity::Error => &mut tally.errors,
            Severity::Warning => &mut tally.warnings,
        };
        *counter += 1;
        let listed = *counter <= kept;
        if !listed {
            tally.unlisted += 1;
        }
        listed
    }

    /// The findings that were kept.
    pub fn listed(&self) -> &[Finding] {
        &self.listed
    }

    /// The counts, by layer, in the order the layers first appeared.
    pub fn tallies(&self) -> &[Tally] {
        &self.tallies
    }

    /// How many errors a layer has.
    pub fn errors_in(&self, layer: Layer) -> u64 {
        self.tally(layer).map_or(0, |t| t.errors)
    }

    /// How many warnings a layer has.
    pub fn warnings_in(&self, layer: Layer) -> u64 {
        self.tally(layer).map_or(0, |t| t.warnings)
    }

    /// How many errors there are in all layers.
    pub fn errors(&self) -> u64 {
        self.tallies.iter().map(|t| t.errors).sum()
    }

    /// Whether nothing at all was found.
    pub fn is_empty(&self) -> bool {
        self.tallies.is_empty()
    }

    fn tally(&self, layer: Layer) -> Option<&Tally> {
        self.tallies.iter().find(|t| t.layer == layer)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_in_one_layer_is_counted_and_does_not_hide_another() {
        let mut findings = Findings::keeping(2);
        for n in 0..10 {
            findings.error(Layer::Pages, Place::Offset(n), || {
                ("a".into(), n.to_string())
            });
        }
        findings.warning(Layer::Pages, None, || ("w".into(), "w".into()));
        findings.error(Layer::Keys, None, || ("b".into(), "c".into()));
        assert_eq!(findings.listed().len(), 4);
        assert_eq!(findings.errors_in(Layer::Pages), 10);
        assert_eq!(findings.warnings_in(Layer::Pages), 1);
        assert_eq!(findings.tallies().first().map(|t| t.unlisted), Some(8));
        assert_eq!(findings.errors(), 11);
    }
}
