use super::*;
use crate::error::Kind;

fn found(cluster: &str, token: &str) -> FoundingCluster {
    InitialCluster::parse(cluster)
        .unwrap()
        .found(token)
        .unwrap()
}

fn ids(cluster: &FoundingCluster) -> Vec<String> {
    cluster.members.iter().map(|m| m.id.to_string()).collect()
}

/// Ids that `etcdutl snapshot restore` gave for the same arguments.
#[test]
fn ids_are_those_of_etcd() {
    let default = found("default=http://localhost:2380", "etcd-cluster");
    assert_eq!(ids(&default), ["8e9e05c52164694d"]);
    assert_eq!(default.members[0].id.0, 10_276_657_743_932_975_437);
    assert_eq!(default.id.to_string(), "cdf818194e3a8c32");
    assert_eq!(default.id.0, 14_841_639_068_965_178_418);

    let two = found(
        "m1=http://127.0.0.1:23801,m2=http://127.0.0.1:23803",
        "tok-1",
    );
    assert_eq!(two.member("m1").unwrap().id.0, 17_836_315_519_559_875_096);
    assert_eq!(two.member("m2").unwrap().id.0, 12_651_340_805_646_565_432);
    assert_eq!(two.id.to_string(), "67dd97daf3ded3f");

    let both = found(
        "node-a=https://192.168.1.1:2380,node-a=https://10.0.0.1:2380",
        "etcd-cluster",
    );
    assert_eq!(ids(&both), ["b0b7548d354dee51"]);
    assert_eq!(both.id.to_string(), "a336d4c9250fd9a1");
    assert_eq!(
        both.members[0].peer_urls,
        ["https://10.0.0.1:2380", "https://192.168.1.1:2380"]
    );

    let three = found(
        "node-a=https://10.0.0.1:2380,node-b=https://10.0.0.2:2380,node-c=https://10.0.0.3:2380",
        "openshift-etcd-0b9d",
    );
    assert_eq!(
        ids(&three),
        ["5dd911e655c75457", "6d0a4c82684f898c", "f9a8a86b63484d34"]
    );
    assert_eq!(three.id.to_string(), "c23847a0d9bcee1f");

    let numbered = found(
        "m1=http://127.0.0.1:23871,m2=http://127.0.0.1:23873,m3=http://127.0.0.1:23875",
        "T",
    );
    assert_eq!(
        ids(&numbered),
        ["e658130dc1ec876c", "ea0f86f7a618724c", "fe9d73ffa716c7cc"]
    );
    assert_eq!(numbered.id.to_string(), "39868cfc8037512a");

    let unix = found("u=unix://localhost:23801", "etcd-cluster");
    assert_eq!(ids(&unix), ["198d654f9f61c4c1"]);
    assert_eq!(unix.id.to_string(), "eca8bde3d6de4cf6");
}

#[test]
fn an_id_is_written_as_etcd_does() {
    assert_eq!(
        MemberId(0x067d_d97d_af3d_ed3f).to_string(),
        "67dd97daf3ded3f"
    );
    assert_eq!(serde_json::to_string(&MemberId(16)).unwrap(), "\"10\"");
}

#[test]
fn an_id_reads_as_hex_and_as_decimal() {
    assert_eq!(
        ClusterId::from_hex("67dd97daf3ded3f"),
        Some(ClusterId(467_769_070_150_610_239))
    );
    assert_eq!(
        MemberId::from_hex("0x8E9E05C52164694D"),
        MemberId::from_decimal("10276657743932975437")
    );
    assert_eq!(MemberId::readings("12"), [MemberId(18), MemberId(12)]);
    assert_eq!(MemberId::readings("7"), [MemberId(7)]);
    assert_eq!(
        MemberId::readings("10276657743932975437"),
        [MemberId(10_276_657_743_932_975_437)]
    );
    for text in ["", "0x", "+1", "g", "18446744073709551616z", " 1"] {
        assert_eq!(MemberId::readings(text), [], "{text:?}");
    }
}

#[test]
fn urls_are_refused_by_etcd_s_rules() {
    for (url, reason) in [
        ("localhost:2380", "no scheme"),
        ("http://localhost", "no port"),
        ("http://localhost:2380/", "path"),
        ("http://localhost:2380/etcd", "path"),
        ("ftp://localhost:2380", "scheme"),
        ("http://:2380", "no host"),
        ("http://h:", "port"),
        ("http://h:65536", "port"),
        ("http://h:+80", "port"),
        ("http://fe80::1:2380", "brackets"),
        ("http://[fe80::1:2380", "brackets"),
        ("http://u@h:2380", "user name"),
        ("http://h:2380?a", "path"),
        ("http://a b:2380", "blank"),
        ("unix://", "socket"),
        ("", "no scheme"),
    ] {
        let refused = PeerUrls::parse([url]).unwrap_err().to_string();
        assert!(refused.contains(reason), "{url}: {refused}");
    }
    let urls = PeerUrls::parse_list(" HTTPS://[::1]:2380 ,http://a:1,unixs://x").unwrap();
    assert_eq!(urls.to_string(), "http://a:1,https://[::1]:2380,unixs://x");
}

#[test]
fn a_cluster_that_makes_no_sense_is_refused() {
    for (text, reason) in [
        ("", "no member"),
        (",,", "no member"),
        ("a", "name=url"),
        ("=http://a:1", "not a member name"),
        ("a=http://a:1, b=http://b:1", "not a member name"),
        ("a=http://a:1,b=http://a:1", "duplicate URL http://a:1"),
        ("a=http://a:1,a=http://a:1", "duplicate URL http://a:1"),
        ("a=http://a:1/p", "path"),
    ] {
        let refused = InitialCluster::parse(text).unwrap_err();
        assert_eq!(refused.kind(), Kind::Usage);
        assert!(refused.to_string().contains(reason), "{text}: {refused}");
    }
}

#[test]
fn the_local_member_must_be_the_one_that_is_advertised() {
    let cluster = InitialCluster::parse("a=http://a:1,b=http://b:1,a=http://a:2").unwrap();
    assert_eq!(cluster.names().collect::<Vec<_>>(), ["a", "b"]);
    let both = PeerUrls::parse_list("http://a:2,http://a:1").unwrap();
    cluster.check_local("a", &both).unwrap();
    let one = PeerUrls::parse_list("http://a:1").unwrap();
    let refused = cluster.check_local("a", &one).unwrap_err().to_string();
    assert!(
        refused.contains("a=http://a:1,http://a:2, but http://a:1"),
        "{refused}"
    );
    let unknown = cluster.check_local("c", &one).unwrap_err().to_string();
    assert!(unknown.contains("local name \"c\""), "{unknown}");
}
