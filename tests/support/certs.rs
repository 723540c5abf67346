//! Certificates as an OpenShift control plane has them, and wrong ones.
//!
//! OpenShift's etcd leaf certificates are for server and client authentication alike, with the
//! node's addresses and the names of the etcd service as alternative names
//! (openshift/cluster-etcd-operator, pkg/tlshelpers/tlshelpers.go).

use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, SanType,
};

use crate::process::write_private;

const DAY: Duration = Duration::from_secs(24 * 60 * 60);
/// Names that every etcd leaf of OpenShift bears besides its node's addresses.
const SERVICE_NAMES: [&str; 5] = [
    "localhost",
    "etcd.kube-system.svc",
    "etcd.kube-system.svc.cluster.local",
    "etcd.openshift-etcd.svc",
    "etcd.openshift-etcd.svc.cluster.local",
];

/// A certificate with its key, both in PEM.
#[derive(Debug, Clone)]
pub struct Pair {
    /// The certificate.
    pub cert: String,
    /// Its private key (PKCS #8).
    pub key: String,
}

impl Pair {
    /// Writes `<stem>.crt` and `<stem>.key`, both 0600, and says where.
    pub fn write(&self, dir: &Path, stem: &str) -> PairFiles {
        let files = PairFiles {
            cert: dir.join(format!("{stem}.crt")),
            key: dir.join(format!("{stem}.key")),
        };
        write_private(&files.cert, self.cert.as_bytes());
        write_private(&files.key, self.key.as_bytes());
        files
    }
}

/// Where a [`Pair`] is.
#[derive(Debug, Clone)]
pub struct PairFiles {
    /// The certificate's file.
    pub cert: PathBuf,
    /// The key's file.
    pub key: PathBuf,
}

/// From when until when a certificate holds.
#[derive(Debug, Clone, Copy)]
pub struct Validity {
    from: SystemTime,
    until: SystemTime,
}

impl Validity {
    /// From an hour ago, for so many days: OpenShift's leaves hold three years.
    pub fn days(days: u32) -> Self {
        let now = SystemTime::now();
        Self {
            from: now - Duration::from_secs(3600),
            until: now + DAY * days,
        }
    }

    /// Over since yesterday.
    pub fn expired() -> Self {
        let now = SystemTime::now();
        Self {
            from: now - DAY * 30,
            until: now - DAY,
        }
    }
}

/// A certificate authority that lives as long as the test.
pub struct Ca {
    /// Its own certificate in PEM.
    pub cert: String,
    issuer: Issuer<'static, KeyPair>,
}

impl Ca {
    /// Makes one; two of the same name are still two, with different keys.
    pub fn new(common_name: &str) -> Self {
        let mut params = params(common_name, None, Validity::days(5 * 365));
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![
            KeyUsagePurpose::DigitalSignature,
            KeyUsagePurpose::KeyEncipherment,
            KeyUsagePurpose::KeyCertSign,
        ];
        let key = KeyPair::generate().expect("making a CA key");
        let cert = params.self_signed(&key).expect("signing a CA certificate");
        Self {
            cert: cert.pem(),
            issuer: Issuer::new(params, key),
        }
    }

    /// A leaf as OpenShift makes them: server and client at once.
    pub fn leaf(&self, common_name: &str, organisation: &str, ips: &[IpAddr]) -> Pair {
        self.leaf_valid(common_name, organisation, ips, Validity::days(3 * 365))
    }

    /// The same with another time of validity.
    pub fn leaf_valid(
        &self,
        common_name: &str,
        organisation: &str,
        ips: &[IpAddr],
        validity: Validity,
    ) -> Pair {
        self.leaf_named(common_name, organisation, &[], ips, validity)
    }

    /// The same with further names.
    fn leaf_named(
        &self,
        common_name: &str,
        organisation: &str,
        dns: &[String],
        ips: &[IpAddr],
        validity: Validity,
    ) -> Pair {
        let mut params = params(common_name, Some(organisation), validity);
        params.use_authority_key_identifier_extension = true;
        params.key_usages = vec![
            KeyUsagePurpose::DigitalSignature,
            KeyUsagePurpose::KeyEncipherment,
        ];
        params.extended_key_usages = vec![
            ExtendedKeyUsagePurpose::ServerAuth,
            ExtendedKeyUsagePurpose::ClientAuth,
        ];
        let local = ["127.0.0.1", "::1"].map(|ip| ip.parse().expect("a literal address"));
        params.subject_alt_names = SERVICE_NAMES
            .into_iter()
            .chain(dns.iter().map(String::as_str))
            .map(|name| SanType::DnsName(name.try_into().expect("an ASCII name")))
            .chain(local.iter().chain(ips).map(|ip| SanType::IpAddress(*ip)))
            .collect();
        let key = KeyPair::generate().expect("making a leaf key");
        let cert = params
            .signed_by(&key, &self.issuer)
            .expect("signing a leaf certificate");
        Pair {
            cert: cert.pem(),
            key: key.serialize_pem(),
        }
    }

    /// A client certificate that was good once.
    pub fn expired_client(&self) -> Pair {
        self.leaf_valid(
            "system:etcd-peer",
            "system:etcd-peers",
            &[],
            Validity::expired(),
        )
    }
}

/// A client certificate from an authority that no server here trusts.
pub fn strangers_client() -> Pair {
    Ca::new("another-signer").leaf("system:etcd-peer", "system:etcd-peers", &[])
}

fn params(common_name: &str, organisation: Option<&str>, validity: Validity) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = rcgen::DistinguishedName::new();
    if let Some(organisation) = organisation {
        params
            .distinguished_name
            .push(DnType::OrganizationName, organisation);
    }
    params
        .distinguished_name
        .push(DnType::CommonName, common_name);
    let epoch = rcgen::date_time_ymd(1970, 1, 1);
    let since_epoch = |time: SystemTime| {
        // X.509 times are whole seconds.
        Duration::from_secs(
            time.duration_since(SystemTime::UNIX_EPOCH)
                .expect("a time after 1970")
                .as_secs(),
        )
    };
    params.not_before = epoch + since_epoch(validity.from);
    params.not_after = epoch + since_epoch(validity.until);
    params
}

/// The files of one cluster, laid out and named as in OpenShift's `etcd-certs` directory, and so
/// a ready source for a scratch node.
pub struct ClusterCerts {
    ca: Ca,
    dir: PathBuf,
}

impl ClusterCerts {
    /// Makes the authority and its bundle under `dir`.
    pub fn new(dir: &Path) -> Self {
        let ca = Ca::new("openshift-etcd_etcd-signer");
        let certs = Self {
            ca,
            dir: dir.to_owned(),
        };
        std::fs::create_dir_all(&certs.dir).expect("making the certificate folder");
        write_private(&certs.ca_file(), certs.ca.cert.as_bytes());
        write_private(
            &certs.dir.join("metrics-ca-bundle.crt"),
            Ca::new("openshift-etcd_etcd-metric-signer").cert.as_bytes(),
        );
        certs
    }

    /// The authority, to sign more.
    pub fn ca(&self) -> &Ca {
        &self.ca
    }

    /// Where all of it is.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// The bundle that servers and clients trust.
    pub fn ca_file(&self) -> PathBuf {
        self.dir.join("server-ca-bundle.crt")
    }

    /// Makes peer, serving and metrics certificates of one member.
    pub fn add_member(&self, name: &str, ip: IpAddr) {
        self.add_member_at(name, &[], &[ip]);
    }

    /// The same for these names and addresses.
    pub fn add_member_at(&self, name: &str, dns: &[String], ips: &[IpAddr]) {
        for (stem, user) in [
            ("etcd-peer", "peer"),
            ("etcd-serving", "server"),
            ("etcd-serving-metrics", "metric"),
        ] {
            self.ca
                .leaf_named(
                    &format!("system:etcd-{user}:{name}"),
                    &format!("system:etcd-{user}s"),
                    dns,
                    ips,
                    Validity::days(3 * 365),
                )
                .write(&self.dir, &format!("{stem}-{name}"));
        }
    }

    /// A member's peer certificate, which on OpenShift is also the client identity.
    pub fn peer(&self, name: &str) -> PairFiles {
        self.files(&format!("etcd-peer-{name}"))
    }

    /// A member's serving certificate.
    pub fn serving(&self, name: &str) -> PairFiles {
        self.files(&format!("etcd-serving-{name}"))
    }

    fn files(&self, stem: &str) -> PairFiles {
        PairFiles {
            cert: self.dir.join(format!("{stem}.crt")),
            key: self.dir.join(format!("{stem}.key")),
        }
    }
}
