//! Downloads one snapshot and prints time and memory as JSON, for experiments with the stream alone,
//! such as those in docs/performance-tables.md.
//!
//! `download ENDPOINT FILE [CA CERT KEY]`

use std::fs::File;
use std::time::{Duration, Instant};

use etcd_dr::error::{Doing, Failure, Kind, Result};
use etcd_dr::etcd::client::{ConnectOptions, Connection, Endpoint, Pem, TlsConfig};
use etcd_dr::etcd::download::{DownloadOptions, Downloaded, download};

#[derive(serde::Serialize)]
struct Report {
    #[serde(flatten)]
    downloaded: Downloaded,
    fsync: Duration,
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> std::process::ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match run(&arguments).await {
        Ok(report) => {
            println!("{report}");
            std::process::ExitCode::SUCCESS
        }
        Err(failure) => {
            eprintln!("{failure}");
            std::process::ExitCode::from(failure.kind().exit_code())
        }
    }
}

async fn run(arguments: &[String]) -> Result<String> {
    let mut options = ConnectOptions::default();
    let (endpoint, path) = match arguments {
        [endpoint, path] => (endpoint, path),
        [endpoint, path, ca, cert, key] => {
            let (ca, cert, key) = (Pem::read(ca)?, Pem::read(cert)?, Pem::read(key)?);
            options.tls = Some(TlsConfig::new(&[ca], Some((&cert, &key)))?);
            (endpoint, path)
        }
        _ => {
            return Err(Failure::new(
                Kind::Usage,
                "usage: download ENDPOINT FILE [CA CERT KEY]",
            ));
        }
    };
    let endpoint = Endpoint::parse(endpoint, options.tls.is_some())?;
    let connection = Connection::open(&endpoint, &options).await?;
    let file = File::create_new(path).doing(Kind::Store, || format!("creating {path}"))?;
    let (file, downloaded) = download(&connection, file, &DownloadOptions::default()).await?;
    let start = Instant::now();
    file.sync_all()
        .doing(Kind::Store, || format!("syncing {path}"))?;
    let report = Report {
        downloaded,
        fsync: start.elapsed(),
    };
    serde_json::to_string(&report).doing(Kind::Unexpected, || "writing the report")
}
