//! A service's client, from an address and the settings.

use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use object_store::aws::{AmazonS3Builder, AmazonS3ConfigKey, Checksum};
use object_store::azure::{AzureConfigKey, MicrosoftAzureBuilder};
use object_store::gcp::{GoogleCloudStorageBuilder, GoogleConfigKey};
use object_store::{BackoffConfig, Certificate, ClientOptions, ObjectStore, RetryConfig};

use super::super::{Address, Scheme, Settings, profile};
use crate::error::{Doing, Failure, Kind, Result};

/// How long one request may take: a part at 28 KB/s.
const REQUEST: Duration = Duration::from_secs(300);
/// How long a connection may take to come about.
const CONNECT: Duration = Duration::from_secs(15);

/// The client for an address.
pub(super) fn build(address: &Address, settings: &Settings) -> Result<Arc<dyn ObjectStore>> {
    // The first one to ask decides for the process, and all here ask for the same.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let built = match address.scheme() {
        Scheme::S3 => s3(address, settings)?,
        Scheme::Gcs => gcs(address, settings)?,
        Scheme::Azure => azure(address, settings)?,
        Scheme::Directory | Scheme::Sftp => {
            return Err(Failure::new(Kind::Unexpected, "a directory is no bucket"));
        }
    };
    Ok(built)
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

/// Proxy variables are read by the HTTP client itself, as every program reads them.
fn client(settings: &Settings, endpoint: Option<&str>) -> Result<ClientOptions> {
    let mut options = ClientOptions::new()
        .with_timeout(REQUEST)
        .with_connect_timeout(CONNECT.min(settings.patience))
        // An endpoint that is given as http is meant so; no other is spoken to in the clear.
        .with_allow_http(endpoint.is_some_and(|url| url.starts_with("http://")));
    if let Some(pem) = &settings.ca {
        let certificates =
            Certificate::from_pem_bundle(pem).doing(Kind::Usage, || "reading the CA for stores")?;
        if certificates.is_empty() {
            let what = "reading the CA for stores: it holds no certificate";
            return Err(Failure::new(Kind::Usage, what));
        }
        for certificate in certificates {
            options = options.with_root_certificate(certificate);
        }
    }
    Ok(options)
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

fn s3(address: &Address, settings: &Settings) -> Result<Arc<dyn ObjectStore>> {
    let endpoint = settings
        .get("AWS_ENDPOINT_URL_S3")
        .or_else(|| settings.get("AWS_ENDPOINT_URL"));
    let mut builder = AmazonS3Builder::new();
    let ours = |key: &AmazonS3ConfigKey| {
        !matches!(
            key,
            AmazonS3ConfigKey::Bucket | AmazonS3ConfigKey::Client(_)
        )
    };
    for (key, value) in known(settings, "AWS_").filter(|(key, _)| ours(key)) {
        builder = builder.with_config(key, value);
    }
    // A role that a token file leads to goes before a file of keys, as with the AWS tools.
    let by_variable = settings.get("AWS_ACCESS_KEY_ID").is_some()
        || settings.get("AWS_WEB_IDENTITY_TOKEN_FILE").is_some();
    if !by_variable {
        for (name, value) in profile::keys(settings)? {
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
        .with_client_options(client(settings, endpoint)?)
        .with_retry(retries(settings))
        .build();
    Ok(Arc::new(built.map_err(|cause| wrong(settings, &cause))?))
}

fn gcs(address: &Address, settings: &Settings) -> Result<Arc<dyn ObjectStore>> {
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
        .with_client_options(client(settings, settings.get("GOOGLE_BASE_URL"))?)
        .with_retry(retries(settings))
        .build();
    Ok(Arc::new(built.map_err(|cause| wrong(settings, &cause))?))
}

fn azure(address: &Address, settings: &Settings) -> Result<Arc<dyn ObjectStore>> {
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
        .with_client_options(client(settings, endpoint)?)
        .with_retry(retries(settings))
        .build();
    Ok(Arc::new(built.map_err(|cause| wrong(settings, &cause))?))
}
