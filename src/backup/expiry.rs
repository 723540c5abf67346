//! When a backup's certificates expire.

use super::manifest::CertificateExpiry;
use super::resources::Certificates;

/// The certificate that expires first, as the Manifest has it.
pub fn earliest(certificates: &Certificates) -> Option<CertificateExpiry> {
    certificates.earliest_leaf().map(|first| CertificateExpiry {
        time: first.not_after,
        subject: first.subject.clone(),
        path: first.path.display().to_string(),
    })
}
