//! A service's client, from an address and the settings.

use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use object_store::aws::{AmazonS3Builder, AmazonS3ConfigKey, Checksum};
use object_store::azure::{AzureConfigKey, MicrosoftAzureBuilder};
use object_store::gcp::{GoogleCloudStorageBuilder, GoogleConfigKey};
use object_store::list::PaginatedListStore;
use object_store::{BackoffConfig, ClientOptions, ObjectStore, RetryConfig};

use super::super::{Address, Scheme, Settings, profile};
use super::http::Connector;
use crate::error::{Failure, Kind, Result};
use crate::sys::crypto;

/// A service's client.
#[derive(Clone)]
pub(super) struct Client {
    pub(super) objects: Arc<dyn ObjectStore>,
    /// The same one, listing page by page.
    pub(super) pages: Arc<dyn PaginatedListStore>,
    /// Where credentials were looked for besides the machine's metadata service.
    pub(super) looked_at: String,
}

impl std::fmt::Debug for Client {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.objects.fmt(f)
    }
}

impl Client {
    fn new<C: ObjectStore + PaginatedListStore>(client: C, looked_at: String) -> Self {
        let client = Arc::new(client);
        Self {
            objects: client.clone(),
            pages: client,
            looked_at,
        }
    }
}

/// The client for an address.
pub(super) fn build(address: &Address, settings: &Settings) -> Result<Client> {
    // The first one to ask decides for the process, and all here ask for the same.
    let _ = crypto::provider().install_default();
    match address.scheme() {
        Scheme::S3 => s3(address, settings),
        Scheme::Gcs => gcs(address, settings),
        Scheme::Azure => azure(address, settings),
        Scheme::Directory | Scheme::Sftp => Err(Failure::new(
            Kind::Unexpected,
            "a directory is not a bucket",
        )),
    }
}

fn wrong(settings: &Settings, cause: &object_store::Error) -> Failure {
    Failure::new(Kind::Usage, settings.redact(&cause.to_string()))
        .doing("reading the store's settings")
}

fn retries(settings: &Settings) -> RetryConfig {
    RetryConfig {
        backoff: BackoffConfig {
            init_backoff: Duration::from_millis(200),
            max_backoff: Duration::from_secs(15),
            base: 2.0,
        },
        max_retries: 10,
        retry_timeout: settings.patience,
    }
}

/// What [`Connector`] is configured with of an endpoint.
fn client(endpoint: Option<&str>) -> ClientOptions {
    ClientOptions::new().with_allow_http(endpoint.is_some_and(|url| url.starts_with("http://")))
}

/// The variables that a service's builder knows, by its own names for them.
fn known<'a, K: FromStr>(
    settings: &'a Settings,
    prefix: &'a str,
) -> impl Iterator<Item = (K, &'a str)> {
    settings
        .variables
        .iter()
        .filter(move |(name, value)| name.starts_with(prefix) && !value.is_empty())
        .filter_map(|(name, value)| Some((name.to_ascii_lowercase().parse().ok()?, value.as_str())))
}

fn s3(address: &Address, settings: &Settings) -> Result<Client> {
    let endpoint = settings
        .get("AWS_ENDPOINT_URL_S3")
        .or_else(|| settings.get("AWS_ENDPOINT_URL"));
    // One object goes at a time: the bulk call, which not every service has, would save nothing.
    let mut builder = AmazonS3Builder::new().with_disable_bulk_delete(true);
    let ours = |key: &AmazonS3ConfigKey| {
        !matches!(
            key,
            AmazonS3ConfigKey::Bucket
                | AmazonS3ConfigKey::DisableBulkDelete
                | AmazonS3ConfigKey::Client(_)
        )
    };
    for (key, value) in known(settings, "AWS_").filter(|(key, _)| ours(key)) {
        builder = builder.with_config(key, value);
    }
    let mut looked_at = String::new();
    // A role that a token file leads to goes before a file of keys, as with the AWS tools.
    let by_variable = settings.get("AWS_ACCESS_KEY_ID").is_some()
        || settings.get("AWS_WEB_IDENTITY_TOKEN_FILE").is_some();
    if !by_variable {
        let found = profile::keys(settings)?;
        looked_at = format!("AWS_ACCESS_KEY_ID is not set, {}", found.looked_at);
        for (name, value) in found.keys {
            if let Ok(key) = name.to_ascii_lowercase().parse() {
                builder = builder.with_config(key, value);
            }
        }
    }
    if let Some(region) = settings
        .get("AWS_REGION")
        .or_else(|| settings.get("AWS_DEFAULT_REGION"))
    {
        builder = builder.with_region(region);
    }
    if let Some(endpoint) = endpoint {
        builder = builder.with_endpoint(endpoint);
    }
    let built = builder
        .with_bucket_name(address.bucket())
        .with_checksum_algorithm(Checksum::SHA256)
        .with_client_options(client(endpoint))
        .with_http_connector(Connector::new(settings)?)
        .with_retry(retries(settings))
        .build();
    let built = built.map_err(|cause| wrong(settings, &cause))?;
    Ok(Client::new(built, looked_at))
}

fn gcs(address: &Address, settings: &Settings) -> Result<Client> {
    let mut builder = GoogleCloudStorageBuilder::new();
    for (key, value) in known::<GoogleConfigKey>(settings, "GOOGLE_") {
        if !matches!(key, GoogleConfigKey::Bucket | GoogleConfigKey::Client(_)) {
            builder = builder.with_config(key, value);
        }
    }
    if let Some(path) = settings.get("GOOGLE_APPLICATION_CREDENTIALS") {
        builder = builder.with_application_credentials(path);
    }
    let built = builder
        .with_bucket_name(address.bucket())
        .with_client_options(client(settings.get("GOOGLE_BASE_URL")))
        .with_http_connector(Connector::new(settings)?)
        .with_retry(retries(settings))
        .build();
    let looked_at =
        "neither GOOGLE_APPLICATION_CREDENTIALS nor GOOGLE_SERVICE_ACCOUNT_KEY is set".to_owned();
    let built = built.map_err(|cause| wrong(settings, &cause))?;
    Ok(Client::new(built, looked_at))
}

fn azure(address: &Address, settings: &Settings) -> Result<Client> {
    let mut builder = MicrosoftAzureBuilder::new();
    for (key, value) in known::<AzureConfigKey>(settings, "AZURE_") {
        if !matches!(
            key,
            AzureConfigKey::ContainerName | AzureConfigKey::Client(_)
        ) {
            builder = builder.with_config(key, value);
        }
    }
    let endpoint = settings
        .get("AZURE_STORAGE_ENDPOINT")
        .or_else(|| settings.get("AZURE_ENDPOINT"));
    let built = builder
        .with_container_name(address.bucket())
        .with_client_options(client(endpoint))
        .with_http_connector(Connector::new(settings)?)
        .with_retry(retries(settings))
        .build();
    let looked_at =
        "none of AZURE_STORAGE_ACCOUNT_KEY, AZURE_STORAGE_SAS_TOKEN and AZURE_CLIENT_SECRET is set"
            .to_owned();
    let built = built.map_err(|cause| wrong(settings, &cause))?;
    Ok(Client::new(built, looked_at))
}
