//! The providers whose keys are in the configuration.

/// How a value is encrypted, from its prefix.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Provider {
    /// AES-CBC.
    AesCbc,
    /// AES-GCM.
    AesGcm,
    /// XSalsa20-Poly1305.
    Secretbox,
}

impl Provider {
    /// The name in the prefix and in the configuration.
    pub const fn name(self) -> &'static str {
        match self {
            Self::AesCbc => "aescbc",
            Self::AesGcm => "aesgcm",
            Self::Secretbox => "secretbox",
        }
    }

    pub(super) const ALL: [Self; 3] = [Self::AesCbc, Self::AesGcm, Self::Secretbox];
}
