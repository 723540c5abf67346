//! Values that an API server encrypted before it stored them (k8s.io/apiserver,
//! `pkg/server/options/encryptionconfig` and `pkg/storage/value/encrypt`).
//!
//! | prefix after `k8s:enc:` | then |
//! | --- | --- |
//! | `aescbc:v1:KEY:` | IV of 16 bytes; AES-CBC with PKCS #7 padding |
//! | `aesgcm:v1:KEY:` | nonce of 12 bytes; AES-GCM with its tag; the etcd key is additional data |
//! | `secretbox:v1:KEY:` | nonce of 24 bytes; XSalsa20-Poly1305 |
//! | `kms:v1:PLUGIN:` | length of 2 bytes, wrapped key; AES-CBC |
//! | `kms:v2:PLUGIN:` | protobuf `EncryptedObject`: encryptedData=1, keyID=2, … |
//!
//! The first three are decrypted with the keys of an EncryptionConfiguration. What a KMS plugin wrapped needs the
//! plugin. No key appears in a text or in `Debug`.

mod ciphers;
mod config;
mod provider;

use std::fmt;

use prost::Message;

pub use config::{ConfigError, Keys};
pub use provider::Provider;

use super::envelope::ENCRYPTED;

/// Why a value cannot be decrypted.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Locked {
    /// No key of that name was given.
    NoKey {
        /// `aescbc`, `aesgcm` or `secretbox`.
        provider: &'static str,
        /// The key's name.
        key: String,
    },
    /// The key of that name does not decrypt it.
    WrongKey {
        /// `aescbc`, `aesgcm` or `secretbox`.
        provider: &'static str,
        /// The key's name.
        key: String,
    },
    /// Its key is wrapped by a KMS plugin.
    Kms {
        /// `v1` or `v2`.
        version: &'static str,
        /// The plugin's name in the EncryptionConfiguration.
        plugin: String,
        /// The plugin's name of its key; empty in v1.
        key_id: String,
    },
    /// Its prefix is not one that is known.
    Unknown,
}

impl fmt::Display for Locked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoKey { provider, key } => {
                write!(
                    f,
                    "encrypted by {provider} with key {key:?}, which is missing"
                )
            }
            Self::WrongKey { provider, key } => write!(
                f,
                "encrypted by {provider} with key {key:?}: the given key of that name does not decrypt it"
            ),
            Self::Kms {
                version,
                plugin,
                key_id,
            } => {
                write!(f, "encrypted by KMS {version} plugin {plugin:?}")?;
                match key_id.as_str() {
                    "" => Ok(()),
                    key_id => write!(f, " with its key {key_id:?}"),
                }?;
                f.write_str("; only the plugin can decrypt it")
            }
            Self::Unknown => f.write_str("encrypted in an unknown way"),
        }
    }
}

/// The prefix of an encrypted value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Prefix<'a> {
    /// Encrypted with a key of the configuration.
    Local {
        provider: Provider,
        key: &'a str,
        data: &'a [u8],
    },
    /// Encrypted with a key that a plugin wrapped.
    Kms {
        version: &'static str,
        plugin: &'a str,
        data: &'a [u8],
    },
}

impl<'a> Prefix<'a> {
    fn parse(value: &'a [u8]) -> Option<Self> {
        let rest = value.strip_prefix(ENCRYPTED)?;
        let (provider, rest) = part(rest)?;
        let (version, rest) = part(rest)?;
        let (name, data) = part(rest)?;
        if provider == "kms" {
            let version = ["v1", "v2"].into_iter().find(|known| *known == version)?;
            return Some(Self::Kms {
                version,
                plugin: name,
                data,
            });
        }
        let provider = Provider::ALL
            .into_iter()
            .find(|known| known.name() == provider)?;
        (version == "v1").then_some(Self::Local {
            provider,
            key: name,
            data,
        })
    }
}

fn part(bytes: &[u8]) -> Option<(&str, &[u8])> {
    let end = bytes.iter().position(|byte| *byte == b':')?;
    let (name, rest) = bytes.split_at_checked(end)?;
    Some((std::str::from_utf8(name).ok()?, rest.get(1..)?))
}

/// How a value is encrypted, in short: `aescbc:v1:KEY`; none for a value that is not.
pub fn described(value: &[u8]) -> Option<String> {
    if !value.starts_with(ENCRYPTED) {
        return None;
    }
    Some(match Prefix::parse(value) {
        Some(Prefix::Local { provider, key, .. }) => format!("{}:v1:{key}", provider.name()),
        Some(Prefix::Kms {
            version, plugin, ..
        }) => format!("kms:{version}:{plugin}"),
        None => "unknown".to_owned(),
    })
}

impl Keys {
    /// Decrypts the value under an etcd key.
    ///
    /// # Errors
    /// Why it cannot be decrypted.
    pub fn decrypt(&self, key: &[u8], value: &[u8]) -> Result<Vec<u8>, Locked> {
        match Prefix::parse(value) {
            None => Err(Locked::Unknown),
            Some(Prefix::Kms {
                version,
                plugin,
                data,
            }) => Err(Locked::Kms {
                version,
                plugin: plugin.to_owned(),
                key_id: kms_key_id(version, data),
            }),
            Some(Prefix::Local {
                provider,
                key: name,
                data,
            }) => {
                let mut tried = false;
                for secret in self.named(provider, name) {
                    tried = true;
                    if let Some(plain) = ciphers::decrypt(provider, secret, key, data) {
                        return Ok(plain);
                    }
                }
                let (provider, key) = (provider.name(), name.to_owned());
                Err(match tried {
                    true => Locked::WrongKey { provider, key },
                    false => Locked::NoKey { provider, key },
                })
            }
        }
    }
}

fn kms_key_id(version: &str, data: &[u8]) -> String {
    match version {
        "v2" => {
            EncryptedObject::decode(data).map_or_else(|_| String::new(), |object| object.key_id)
        }
        _ => String::new(),
    }
}

#[derive(Clone, PartialEq, prost::Message)]
struct EncryptedObject {
    #[prost(string, tag = "2")]
    key_id: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prefixes_name_provider_and_key() {
        for (value, expected) in [
            (&b"k8s:enc:aescbc:v1:key1:data"[..], Some("aescbc:v1:key1")),
            (b"k8s:enc:kms:v2:plug:\x12\x01k", Some("kms:v2:plug")),
            (b"k8s:enc:kms:v3:plug:x", Some("unknown")),
            (b"k8s:enc:rot13:v1:k:x", Some("unknown")),
            (b"k8s:enc:aescbc", Some("unknown")),
            (b"{}", None),
        ] {
            assert_eq!(described(value).as_deref(), expected);
        }
    }

    #[test]
    fn a_value_without_its_key_names_what_is_missing() {
        let keys = Keys::default();
        let locked = keys
            .decrypt(b"/registry/secrets/a/b", b"k8s:enc:secretbox:v1:k2:xxxx")
            .unwrap_err();
        assert_eq!(
            locked.to_string(),
            "encrypted by secretbox with key \"k2\", which is missing"
        );
        let locked = keys
            .decrypt(
                b"/registry/secrets/a/b",
                b"k8s:enc:kms:v2:vault:\x12\x03k-7",
            )
            .unwrap_err();
        assert_eq!(
            locked.to_string(),
            "encrypted by KMS v2 plugin \"vault\" with its key \"k-7\"; only the plugin can decrypt it"
        );
    }
}
