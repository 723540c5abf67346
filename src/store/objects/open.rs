//! Opens the store that an address means.

use std::sync::Arc;

use super::address::{Address, Scheme};
use super::contract::Store;
use super::settings::Settings;
use super::{bucket, directory, sftp};
use crate::error::Result;

/// Opens the store at an address.
///
/// # Errors
/// [`Kind::Usage`] if the address or a setting cannot be meant, [`Kind::Store`] if the store
/// cannot be reached.
pub async fn open(address: &Address, settings: &Settings) -> Result<Arc<dyn Store>> {
    Ok(match address.scheme() {
        Scheme::Directory => Arc::new(directory::Directory::open(address)?),
        Scheme::S3 | Scheme::Gcs | Scheme::Azure => {
            Arc::new(bucket::Bucket::open(address, settings)?)
        }
        Scheme::Sftp => Arc::new(sftp::Sftp::open(address, settings).await?),
    })
}
