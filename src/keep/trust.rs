//! Whether a backup is by whom it says: its signature, and the keys that may sign for its node.
//!
//! Three refusals: `unsigned-backup`, `unknown-signer` (no line of the allowed signers holds for the key),
//! `wrong-signer` (the key signs for other nodes). They come before anything of a backup is read but its
//! Manifest and signature.

use std::sync::Arc;

use super::catalog::{self, BackupSet, Distrust, SetSignature};
use crate::backup::manifest::Manifest;
use crate::backup::names;
use crate::backup::signers::{AllowedSigners, Standing, Subject};
use crate::error::{Failure, Kind, Result};
use crate::store::LocalStore;

/// The backup has no signature, or one that does not fit it.
pub const UNSIGNED: &str = "unsigned-backup";
/// No line of the allowed signers holds for the key that signed.
pub const UNKNOWN_SIGNER: &str = "unknown-signer";
/// The key that signed may sign for other nodes only.
pub const WRONG_SIGNER: &str = "wrong-signer";
/// The refusals, each of which can be allowed.
pub const ALLOWABLE: [&str; 3] = [UNSIGNED, UNKNOWN_SIGNER, WRONG_SIGNER];

/// What is asked of signatures.
#[derive(Debug, Clone, Default)]
pub struct Trust {
    signers: Option<Arc<AllowedSigners>>,
    /// Whether a backup must be signed at all.
    required: bool,
    allowed: Vec<String>,
}

impl Trust {
    /// Signatures are judged by these signers. If they are not `required`, an unsigned backup is
    /// accepted, and a signed one still must be by one of them.
    pub fn new(signers: AllowedSigners, required: bool) -> Self {
        Self {
            signers: Some(Arc::new(signers)),
            required,
            allowed: Vec::new(),
        }
    }

    /// The same with refusals that are overridden, by name.
    #[must_use]
    pub fn allowing(mut self, names: &[String]) -> Self {
        self.allowed.extend(names.iter().cloned());
        self
    }

    /// Whether signatures are judged at all.
    pub fn is_asked(&self) -> bool {
        self.signers.is_some()
    }

    /// Who signed a backup, as the principals of the signer's line; none: nobody, or nobody is asked about.
    ///
    /// # Errors
    /// Why the signature does not count, whatever is allowed.
    pub fn judge(
        &self,
        manifest: Option<&Manifest>,
        signature: &SetSignature,
    ) -> std::result::Result<Option<String>, Distrust> {
        let Some(signers) = &self.signers else {
            return Ok(None);
        };
        let distrust = |name, why: String| Err(Distrust { name, why });
        match (manifest, signature) {
            // A signature that does not fit is worse than none: something was changed.
            (_, SetSignature::Bad(why)) => distrust(UNSIGNED, misfit(why)),
            (None, _) | (_, SetSignature::None) if !self.required => Ok(None),
            (None, _) => distrust(
                UNSIGNED,
                "it has no Manifest that could be signed".to_owned(),
            ),
            (_, SetSignature::None) => {
                distrust(UNSIGNED, format!("it has no {}", names::SIGNATURE))
            }
            (Some(manifest), SetSignature::Fits(signature)) => {
                match signers.judge(signature, &subject(manifest)) {
                    Standing::Allowed(principals) => Ok(Some(principals)),
                    Standing::Unknown(why) => distrust(UNKNOWN_SIGNER, why),
                    Standing::Wrong(why) => distrust(WRONG_SIGNER, why),
                }
            }
        }
    }

    /// Refuses a backup by the name of what is wrong with its signature, unless that is allowed.
    ///
    /// # Errors
    /// The refusal; [`Kind::BadBackup`] if a signature is there and does not fit, whether or not
    /// anybody asked.
    pub fn check(&self, manifest: Option<&Manifest>, signature: &SetSignature) -> Result<()> {
        if let SetSignature::Bad(why) = signature {
            return Err(Failure::new(Kind::BadBackup, misfit(why)));
        }
        self.unless_allowed(self.judge(manifest, signature))
    }

    /// The same of a backup that is listed.
    ///
    /// # Errors
    /// As [`Trust::check`].
    pub fn check_set(&self, set: &BackupSet) -> Result<()> {
        let checked = self.check(set.manifest.as_ref(), &set.signature);
        checked.map_err(|failure| failure.doing(format!("checking who signed {}", set.name)))
    }

    /// Whether a signature of something else than a Manifest is by one who may sign for a node; where nobody
    /// asks, one that is there must only fit.
    pub fn vouches(&self, signature: &SetSignature, subject: &Subject<'_>) -> bool {
        match (&self.signers, signature) {
            (_, SetSignature::Bad(_)) => false,
            (None, _) => true,
            (Some(_), SetSignature::None) => false,
            (Some(signers), SetSignature::Fits(signature)) => {
                matches!(signers.judge(signature, subject), Standing::Allowed(_))
            }
        }
    }

    /// Refuses a backup by the name of what is wrong with its signature, unless that is allowed. One that
    /// does not fit is reported by whoever reads the backup, where nobody asked whose it is.
    ///
    /// # Errors
    /// The refusal.
    pub fn admit(&self, set: &BackupSet) -> Result<()> {
        let checked = self.unless_allowed(self.judge(set.manifest.as_ref(), &set.signature));
        checked.map_err(|failure| failure.doing(format!("checking who signed {}", set.name)))
    }

    /// Why a backup neither counts for a rule of retention nor goes: there an unsigned one must be
    /// signed wherever signers are known, so that it displaces no signed one. An allowed refusal
    /// does not count.
    pub fn doubt(&self, set: &BackupSet) -> Option<Distrust> {
        let strict = Self {
            required: true,
            ..self.clone()
        };
        let distrust = strict.judge(set.manifest.as_ref(), &set.signature).err()?;
        (!self.allows(distrust.name)).then_some(distrust)
    }

    /// Refuses the index of an encrypted copy that is not signed as the backup must be: age says nothing of
    /// who encrypted, so that what is decrypted is what somebody trusted has stored.
    ///
    /// # Errors
    /// The refusal.
    pub fn check_index(
        &self,
        manifest: &Manifest,
        index: &[u8],
        signature: Option<&[u8]>,
    ) -> Result<()> {
        if self.signers.is_none() {
            return Ok(());
        }
        let of_index = SetSignature::of(index, signature);
        let judged = self.judge(Some(manifest), &of_index);
        let checked = self.unless_allowed(judged.map_err(|distrust| Distrust {
            why: match distrust.name {
                UNSIGNED => {
                    "the list of its encrypted objects, remote.json, is not signed".to_owned()
                }
                _ => distrust.why,
            },
            ..distrust
        }));
        checked.map_err(|failure| failure.doing("checking who encrypted it"))
    }

    fn unless_allowed(&self, judged: std::result::Result<Option<String>, Distrust>) -> Result<()> {
        match judged {
            Err(distrust) if !self.allows(distrust.name) => {
                Err(Failure::refused(distrust.name, distrust.why))
            }
            _ => Ok(()),
        }
    }

    fn allows(&self, name: &str) -> bool {
        self.allowed.iter().any(|allowed| allowed == name)
    }

    /// Notes of each backup who signed it, or why its signature does not count: then it is not good.
    pub fn mark(&self, sets: &mut [BackupSet]) {
        for set in sets.iter_mut() {
            match self.judge(set.manifest.as_ref(), &set.signature) {
                Ok(signer) => set.signer = signer,
                Err(distrust) if self.allows(distrust.name) => {}
                Err(distrust) => set.distrust = Some(distrust),
            }
        }
    }

    /// Finds the one backup that a word means, as [`catalog::resolve`]; `latest` is the newest good one
    /// whose signature counts.
    ///
    /// # Errors
    /// As there, and as [`Trust::check`].
    pub fn resolve(&self, store: &LocalStore, word: &str) -> Result<BackupSet> {
        let set = catalog::resolve_marked(store, word, |sets| self.mark(sets))?;
        self.check_set(&set)?;
        Ok(set)
    }
}

fn misfit(why: &str) -> String {
    format!("{}: {why}", names::SIGNATURE)
}

fn subject(manifest: &Manifest) -> Subject<'_> {
    let (cluster, node) = manifest.origin();
    Subject {
        cluster,
        node,
        created: manifest.created,
    }
}
