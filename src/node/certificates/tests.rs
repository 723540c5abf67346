use std::fs;

use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    PKCS_ECDSA_P384_SHA384, PKCS_ED25519, SanType, date_time_ymd,
};

use super::*;
use crate::node::detection::look;

const NOW: &str = "2030-06-15T00:00:00Z";

fn now() -> Timestamp {
    NOW.parse().unwrap()
}

struct Authority {
    pem: String,
    issuer: Issuer<'static, KeyPair>,
}

fn ca_params(name: &str, years: (i32, i32)) -> CertificateParams {
    let mut params = CertificateParams::new(vec![]).unwrap();
    params.distinguished_name = rcgen::DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, name);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.not_before = date_time_ymd(years.0, 1, 1);
    params.not_after = date_time_ymd(years.1, 1, 1);
    params
}

impl Authority {
    fn new(name: &str) -> Self {
        Self::valid(name, (2020, 2040))
    }

    fn valid(name: &str, years: (i32, i32)) -> Self {
        Self::of(ca_params(name, years))
    }

    fn of(params: CertificateParams) -> Self {
        let key = KeyPair::generate().unwrap();
        let pem = params.self_signed(&key).unwrap().pem();
        Self {
            pem,
            issuer: Issuer::new(params, key),
        }
    }

    /// One that this one signed.
    fn below(&self, name: &str, years: (i32, i32)) -> Self {
        let (params, key) = (ca_params(name, years), KeyPair::generate().unwrap());
        let pem = params.signed_by(&key, &self.issuer).unwrap().pem();
        Self {
            pem,
            issuer: Issuer::new(params, key),
        }
    }

    fn leaf(&self, change: impl FnOnce(&mut CertificateParams)) -> (String, String) {
        self.leaf_of(&KeyPair::generate().unwrap(), change)
    }

    fn leaf_of(
        &self,
        key: &KeyPair,
        change: impl FnOnce(&mut CertificateParams),
    ) -> (String, String) {
        let mut params = CertificateParams::new(vec![]).unwrap();
        params.not_before = date_time_ymd(2029, 1, 1);
        params.not_after = date_time_ymd(2030, 7, 15);
        params.subject_alt_names = vec![
            SanType::DnsName("localhost".try_into().unwrap()),
            SanType::DnsName("*.etcd.svc".try_into().unwrap()),
            SanType::IpAddress("10.0.0.1".parse().unwrap()),
            SanType::IpAddress("fd00::1".parse().unwrap()),
        ];
        params.extended_key_usages = vec![
            ExtendedKeyUsagePurpose::ServerAuth,
            ExtendedKeyUsagePurpose::ClientAuth,
        ];
        change(&mut params);
        let cert = params.signed_by(key, &self.issuer).unwrap();
        (cert.pem(), key.serialize_pem())
    }
}

struct Files {
    dir: tempfile::TempDir,
}

impl Files {
    fn new(cert: &str, key: &str, ca: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        for (name, text) in [("tls.crt", cert), ("tls.key", key), ("ca.crt", ca)] {
            fs::write(dir.path().join(name), text).unwrap();
        }
        Self { dir }
    }

    fn good() -> Self {
        let ca = Authority::new("ca");
        let (cert, key) = ca.leaf(|_| {});
        Self::new(&cert, &key, &ca.pem)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn wanted(&self) -> WantedCertificate {
        WantedCertificate {
            name: "the one".to_owned(),
            cert: self.path("tls.crt"),
            key: self.path("tls.key"),
            ca: self.path("ca.crt"),
            hosts: vec!["LOCALHOST".to_owned(), "a.etcd.svc".to_owned()],
            addresses: vec!["10.0.0.1".parse().unwrap(), "fd00::1".parse().unwrap()],
            uses: vec![Use::Server, Use::Client],
        }
    }

    fn all(&self) -> Vec<CertificateFinding> {
        check_certificates(&[self.wanted()], now())
    }

    /// The defects: each one's file and what it is.
    fn defects(&self) -> Vec<(String, Fitness)> {
        let told = self.all().into_iter().filter(CertificateFinding::is_defect);
        told.map(|finding| {
            assert!(finding.to_string().starts_with("the one ("), "{finding}");
            let name = finding.path.file_name().unwrap();
            (name.to_str().unwrap().to_owned(), finding.what)
        })
        .collect()
    }
}

fn one(file: &str, what: Fitness) -> Vec<(String, Fitness)> {
    vec![(file.to_owned(), what)]
}

#[test]
fn a_fit_certificate_has_one_finding() {
    let all = Files::good().all();
    assert_eq!(all.len(), 1, "{all:?}");
    let until = "2030-07-15T00:00:00Z".parse().unwrap();
    assert_eq!(all[0].what, Fitness::Holds { until, days: 30 });
    for algorithm in [&PKCS_ED25519, &PKCS_ECDSA_P384_SHA384] {
        let ca = Authority::new("ca");
        let key = KeyPair::generate_for(algorithm).unwrap();
        let (cert, key) = ca.leaf_of(&key, |_| {});
        assert_eq!(Files::new(&cert, &key, &ca.pem).defects(), []);
    }
}

#[test]
fn absent_files_and_other_things_are_reported() {
    for name in ["tls.crt", "tls.key", "ca.crt"] {
        let files = Files::good();
        fs::remove_file(files.path(name)).unwrap();
        assert_eq!(files.defects(), one(name, Fitness::Absent));
        fs::create_dir(files.path(name)).unwrap();
        let others: [&dyn Fn(); 4] = [
            &|| {},
            &|| {
                fs::remove_dir(files.path(name)).unwrap();
                fs::write(files.path(name), "").unwrap();
            },
            &|| fs::write(files.path(name), "-----BEGIN CERTIFICATE-----\n!\n").unwrap(),
            &|| fs::write(files.path(name), vec![b'-'; 2 << 20]).unwrap(),
        ];
        for make in others {
            make();
            let told = files.defects();
            assert_eq!(told.len(), 1, "{told:?}");
            assert_eq!(told[0].0, name);
            assert!(matches!(told[0].1, Fitness::Unreadable(_)), "{told:?}");
        }
    }
    // A whole PEM block of no certificate, and of a certificate that is cut.
    for der in ["AAAA", "MIIBszCCAVmgAwIBAgI="] {
        let files = Files::good();
        let pem = format!("-----BEGIN CERTIFICATE-----\n{der}\n-----END CERTIFICATE-----\n");
        fs::write(files.path("tls.crt"), pem).unwrap();
        assert!(matches!(files.defects()[..], [(_, Fitness::Unreadable(_))]));
    }
}

#[test]
fn a_key_must_be_the_certificates_own() {
    let files = Files::good();
    let other = KeyPair::generate().unwrap().serialize_pem();
    fs::write(files.path("tls.key"), other).unwrap();
    assert_eq!(files.defects(), one("tls.key", Fitness::OtherKey));
    let other = KeyPair::generate_for(&PKCS_ED25519).unwrap();
    fs::write(files.path("tls.key"), other.serialize_pem()).unwrap();
    assert_eq!(files.defects(), one("tls.key", Fitness::OtherKey));
}

#[test]
fn keys_in_the_older_forms_are_read() {
    // library-go and kubeadm write PKCS #1 for RSA and SEC 1 for EC.
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name).to_str().unwrap().to_owned();
    let openssl = |arguments: &[&str]| {
        let run = std::process::Command::new("openssl")
            .args(arguments)
            .output();
        run.is_ok_and(|output| output.status.success())
    };
    if !openssl(&["version"]) {
        println!("SKIPPED older key forms: no openssl here");
        return;
    }
    let (rsa, ec) = (at("rsa.key"), at("ec.key"));
    assert!(openssl(&["genrsa", "-traditional", "-out", &rsa, "2048"]));
    assert!(openssl(&[
        "ecparam",
        "-name",
        "prime256v1",
        "-genkey",
        "-out",
        &ec
    ]));
    for (key, label) in [
        (&rsa, "BEGIN RSA PRIVATE KEY"),
        (&ec, "BEGIN EC PRIVATE KEY"),
    ] {
        let text = fs::read_to_string(key).unwrap();
        assert!(text.contains(label), "{label}");
        let cert = at("self.crt");
        assert!(openssl(&[
            "req", "-x509", "-new", "-key", key, "-subj", "/CN=self", "-days", "30", "-out", &cert
        ]));
        let cert = fs::read_to_string(cert).unwrap();
        let files = Files::new(&cert, &text, &cert);
        let mut wanted = files.wanted();
        (wanted.hosts, wanted.addresses) = (vec![], vec![]);
        let told = check_certificates(&[wanted.clone()], Timestamp::now());
        assert!(
            matches!(
                told[..],
                [CertificateFinding {
                    what: Fitness::Holds { days: 29..=30, .. },
                    ..
                }]
            ),
            "{told:?}"
        );
        fs::write(
            files.path("tls.key"),
            KeyPair::generate().unwrap().serialize_pem(),
        )
        .unwrap();
        let told = check_certificates(&[wanted], Timestamp::now());
        assert_eq!(told[0].what, Fitness::OtherKey, "{told:?}");
    }
}

#[test]
fn the_bundle_must_lead_to_it() {
    let ca = Authority::new("ca");
    // The same name, another key: what a rotation leaves, or another cluster's.
    let namesake = Authority::new("ca");
    let (cert, key) = ca.leaf(|_| {});
    let not_signed = || one("tls.crt", Fitness::NotSigned);
    let of = |cert: &str, bundle: &[&str]| Files::new(cert, &key, &bundle.concat()).defects();
    assert_eq!(of(&cert, &[&namesake.pem]), not_signed());
    assert_eq!(of(&cert, &[&Authority::new("x").pem]), not_signed());
    assert_eq!(of(&cert, &[&namesake.pem, "# and\n", &ca.pem]), []);

    // Through one between, which must stand in the certificate's own file or in the bundle.
    let between = ca.below("between", (2020, 2040));
    let (cert, key) = between.leaf(|_| {});
    let of = |cert: &[&str], bundle: &str| Files::new(&cert.concat(), &key, bundle).defects();
    assert_eq!(of(&[&cert, &between.pem], &ca.pem), []);
    assert_eq!(of(&[&cert], &between.pem), []);
    assert_eq!(of(&[&cert], &ca.pem), not_signed());
    assert_eq!(of(&[&cert, &between.pem], &namesake.pem), not_signed());
    let over = ca.below("between", (2020, 2025));
    let (cert, key) = over.leaf(|_| {});
    let of = |cert: &[&str], bundle: &str| Files::new(&cert.concat(), &key, bundle).defects();
    assert_eq!(of(&[&cert, &over.pem], &ca.pem), not_signed());

    // A CA that is over, or not begun, or no CA at all.
    for years in [(2010, 2030), (2031, 2040)] {
        let ca = Authority::valid("ca", years);
        let (cert, key) = ca.leaf(|_| {});
        let files = Files::new(&cert, &key, &ca.pem);
        assert_eq!(files.defects(), one("tls.crt", Fitness::SignerOver));
    }
    let mut params = ca_params("ca", (2020, 2040));
    params.is_ca = IsCa::ExplicitNoCa;
    let no_ca = Authority::of(params);
    let (cert, key) = no_ca.leaf(|_| {});
    assert_eq!(Files::new(&cert, &key, &no_ca.pem).defects(), not_signed());
}

#[test]
fn time_names_and_uses_are_looked_at() {
    let ca = Authority::new("ca");
    let of = |change: fn(&mut CertificateParams)| {
        let (cert, key) = ca.leaf(change);
        let files = Files::new(&cert, &key, &ca.pem);
        let defects = files.defects();
        let holds = files.all().iter().any(|told| !told.is_defect());
        (defects, holds)
    };
    let at = |text: &str| text.parse::<Timestamp>().unwrap();
    let (defects, holds) = of(|params| params.not_after = date_time_ymd(2030, 6, 14));
    let since = at("2030-06-14T00:00:00Z");
    assert_eq!(defects, one("tls.crt", Fitness::Expired { since }));
    assert!(!holds);
    let (defects, holds) = of(|params| params.not_before = date_time_ymd(2030, 6, 16));
    let from = at("2030-06-16T00:00:00Z");
    assert_eq!(defects, one("tls.crt", Fitness::NotYet { from }));
    assert!(!holds);
    let (defects, holds) = of(|params| params.subject_alt_names.truncate(3));
    let missing = Fitness::AddressMissing("fd00::1".parse().unwrap());
    assert_eq!(defects, one("tls.crt", missing));
    assert!(holds);
    let (defects, _) = of(|params| params.subject_alt_names.clear());
    assert_eq!(defects.len(), 4, "{defects:?}");
    let (defects, _) = of(|params| drop(params.subject_alt_names.remove(1)));
    let missing = Fitness::HostMissing("a.etcd.svc".to_owned());
    assert_eq!(defects, one("tls.crt", missing));
    let (defects, _) = of(|params| drop(params.extended_key_usages.pop()));
    assert_eq!(defects, one("tls.crt", Fitness::UseMissing(Use::Client)));
    let (defects, _) = of(|params| drop(params.extended_key_usages.remove(0)));
    assert_eq!(defects, one("tls.crt", Fitness::UseMissing(Use::Server)));
    let (defects, _) = of(|params| params.extended_key_usages.clear());
    assert_eq!(defects, []);
    let (defects, _) = of(|params| params.extended_key_usages = vec![ExtendedKeyUsagePurpose::Any]);
    assert_eq!(defects, []);
    assert!(!fits("*.svc", "a.b.svc") && !fits("*.svc", ".svc") && !fits("*", "a"));
}

#[test]
fn no_damage_makes_it_panic() {
    let ca = Authority::new("ca");
    let (cert, key) = ca.leaf(|_| {});
    let der = Pem::iter_from_buffer(cert.as_bytes())
        .next()
        .unwrap()
        .unwrap()
        .contents;
    let (_, whole) = X509Certificate::from_der(&der).unwrap();
    let signed = 4..4 + whole.tbs_certificate.as_ref().len();
    let mut different = 0;
    for at in 0..der.len() {
        let mut damaged = der.clone();
        damaged[at] ^= 0x41;
        let text = base64::Engine::encode(&base64::engine::general_purpose::STANDARD, damaged);
        let pem = format!("-----BEGIN CERTIFICATE-----\n{text}\n-----END CERTIFICATE-----\n");
        let told = Files::new(&pem, &key, &ca.pem).defects();
        // Of what the signature does not cover, a tag may be wrong and still be read.
        assert!(!told.is_empty() || !signed.contains(&at), "byte {at}");
        different += usize::from(told != one("tls.crt", Fitness::NotSigned));
    }
    assert!(different > 10);
    for at in (0..key.len()).step_by(3) {
        let mut damaged = key.clone().into_bytes();
        damaged[at] = damaged[at].wrapping_add(1) & 0x7f;
        let damaged = String::from_utf8(damaged).unwrap();
        let told = Files::new(&cert, &damaged, &ca.pem).all();
        assert!(
            told.iter()
                .all(|finding| !finding.to_string().contains(&damaged))
        );
    }
}

fn lay(layout: &NodeLayout, ca: &Authority, files: [&str; 3]) {
    let (cert, key) = ca.leaf(|params| params.subject_alt_names.truncate(3));
    for (path, text) in files.into_iter().zip([&cert, &key, &ca.pem]) {
        let path = layout.host(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }
}

fn wanted_of(layout: &NodeLayout) -> Vec<WantedCertificate> {
    let detection = look(layout, None).unwrap();
    let told = AccessOverrides {
        local_addresses: vec!["10.0.0.1".parse().unwrap()],
        ..AccessOverrides::default()
    };
    wanted_by_etcd(layout, &detection, &told).unwrap()
}

#[test]
fn openshifts_certificates_are_found_where_each_release_has_them() {
    let certs = "/etc/kubernetes/static-pod-resources/etcd-certs";
    let env = "export ALL_ETCD_ENDPOINTS=\"https://10.0.0.1:2379,https://10.0.0.2:2379\"\n\
               export NODE_m_0_ETCD_NAME=\"m-0\"\nexport NODE_m_0_IP=\"10.0.0.1\"\n";
    for (serving, peer, bundle) in [
        (
            "etcd-all-certs",
            "etcd-all-certs",
            "etcd-all-bundles/server-ca-bundle.crt",
        ),
        (
            "etcd-all-certs",
            "etcd-all-certs",
            "etcd-serving-ca/ca-bundle.crt",
        ),
        (
            "etcd-all-serving",
            "etcd-all-peer",
            "etcd-serving-ca/ca-bundle.crt",
        ),
    ] {
        let dir = tempfile::tempdir().unwrap();
        let layout = NodeLayout::new(dir.path());
        fs::create_dir_all(layout.etcd_scripts()).unwrap();
        fs::write(layout.etcd_env(), env).unwrap();
        let ca = Authority::new("ca");
        let bundle = format!("{certs}/configmaps/{bundle}");
        for (kind, secret) in [("serving", serving), ("peer", peer)] {
            let stem = format!("{certs}/secrets/{secret}/etcd-{kind}-m-0");
            lay(
                &layout,
                &ca,
                [&format!("{stem}.crt"), &format!("{stem}.key"), &bundle],
            );
        }
        let wanted = wanted_of(&layout);
        assert_eq!(wanted.len(), 2);
        let own: IpAddr = "10.0.0.1".parse().unwrap();
        assert!(wanted.iter().all(|wanted| wanted.addresses == [own]));
        let told = check_certificates(&wanted, now());
        assert!(told.iter().all(|finding| !finding.is_defect()), "{told:?}");
        assert_eq!(told.len(), 2);
        let gone = layout.host(format!("{certs}/secrets/{peer}/etcd-peer-m-0.crt"));
        fs::remove_file(gone).unwrap();
        let told = check_certificates(&wanted_of(&layout), now());
        let absent = told
            .iter()
            .filter(|finding| finding.what == Fitness::Absent);
        assert_eq!(absent.count(), 1, "{told:?}");
    }
}

#[test]
fn a_node_that_does_not_know_its_member_cannot_name_them() {
    let dir = tempfile::tempdir().unwrap();
    let layout = NodeLayout::new(dir.path());
    fs::create_dir_all(layout.certs(Component::Etcd)).unwrap();
    let detection = look(&layout, Some(Profile::Openshift)).unwrap();
    let nobody = AccessOverrides::default();
    let failure = wanted_by_etcd(&layout, &detection, &nobody).unwrap_err();
    assert_eq!(failure.refusal(), Some("local-member-unknown"));
    let named = AccessOverrides {
        node: Some(crate::node::overrides::Sourced::new(
            "m-1".to_owned(),
            "the caller",
        )),
        ..AccessOverrides::default()
    };
    let wanted = wanted_by_etcd(&layout, &detection, &named).unwrap();
    assert!(wanted[1].key.ends_with("etcd-peer-m-1.key"));
    assert!(wanted[1].addresses.is_empty());
    let bare = look(&layout, Some(Profile::Bare)).unwrap();
    assert_eq!(wanted_by_etcd(&layout, &bare, &named).unwrap(), []);
}

#[test]
fn kubeadms_certificates_are_those_of_its_manifest() {
    let pod = "apiVersion: v1\nkind: Pod\nmetadata: {name: etcd, namespace: kube-system}\nspec:\n  \
        containers:\n  - name: etcd\n    command: [etcd, --name=a, \
        --advertise-client-urls=https://10.0.0.1:2379, \
        --listen-client-urls=https://10.0.0.1:2379, \
        --initial-advertise-peer-urls=https://10.0.0.1:2380, \
        --cert-file=/pki/etcd/s.crt, --key-file=/pki/etcd/s.key, \
        --trusted-ca-file=/pki/etcd/ca.crt]\n    volumeMounts: \
        [{mountPath: /pki/etcd, name: c}]\n  volumes: [{name: c, hostPath: {path: /srv/pki}}]\n";
    let dir = tempfile::tempdir().unwrap();
    let layout = NodeLayout::new(dir.path());
    fs::create_dir_all(layout.manifests()).unwrap();
    let manifest = layout.manifests().join("etcd.yaml");
    fs::write(&manifest, pod).unwrap();
    let ca = Authority::new("ca");
    lay(
        &layout,
        &ca,
        ["/srv/pki/s.crt", "/srv/pki/s.key", "/srv/pki/ca.crt"],
    );
    // The manifest says nothing of peers: kubeadm's own names.
    let usual = "/etc/kubernetes/pki/etcd";
    let peer = ["peer.crt", "peer.key", "ca.crt"].map(|name| format!("{usual}/{name}"));
    lay(&layout, &ca, [&peer[0], &peer[1], &peer[2]]);
    let wanted = wanted_of(&layout);
    assert_eq!(wanted[0].cert, layout.host("/srv/pki/s.crt"));
    assert_eq!(wanted[1].ca, layout.host(&peer[2]));
    let told = check_certificates(&wanted, now());
    assert_eq!(told.len(), 2, "{told:?}");
    assert!(told.iter().all(|finding| !finding.is_defect()), "{told:?}");
}
