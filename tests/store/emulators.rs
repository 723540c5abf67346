//! Azure Blob and Google Cloud Storage, which run on no test machine: stand-ins for both.
//!
//! Azure's is Azurite, Microsoft's emulator, from npm. Google's XML API has no emulator in the
//! registries that knows its multipart uploads; a fake of our own translates the few headers in
//! which that API differs from S3's, before a real S3 server that asks for no signature.

use etcd_dr::store::objects;
use etcd_dr::store::{Address, Settings};

use crate::conformance::{Claims, conforms};
use crate::copies::there_and_back;
use crate::wire::{Act, Wire};
use testbench::azurite::Azurite;
use testbench::s3::{BUCKET, S3};

type Env = Vec<(&'static str, String)>;

/// Holds a store to the suite at the root of its bucket and below a path in it, and runs the
/// commands there.
pub fn whole_suite(scheme: &str, bucket: &str, env: &Env, claims: Claims) {
    let variables = env
        .iter()
        .map(|(name, value)| ((*name).to_owned(), value.clone()));
    let settings = Settings {
        variables: variables.collect(),
        ..Settings::default()
    };
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    for path in ["", "/some/path"] {
        let url = format!("{scheme}://{bucket}{path}");
        let address = Address::parse(&url).expect("an address");
        runtime.block_on(async {
            let store = objects::open(&address, &settings).await.expect("a store");
            conforms(store, claims).await.expect("it conforms");
        });
    }
    there_and_back(&format!("{scheme}://{bucket}/etcd"), env);
}

#[test]
fn azure_conforms_by_its_emulator() {
    let Some(server) = Azurite::start() else {
        return;
    };
    whole_suite("az", BUCKET, &server.variables(), Claims::Exclude);

    let mut env = server.variables();
    env.retain(|(name, _)| *name != "AZURE_STORAGE_ACCOUNT_KEY");
    let wrong = "bm90IHRoZSBrZXkgYXQgYWxsLCBidXQgYXMgbG9uZyBhcyBvbmU=";
    env.push(("AZURE_STORAGE_ACCOUNT_KEY", wrong.to_owned()));
    let refused = crate::bench::run(&["list", &format!("az://{BUCKET}/etcd")], &env).expect(6);
    assert!(!refused.stderr.contains(wrong), "{refused}");
    crate::bench::run(&["list", "az://nocontainer/x"], &server.variables()).expect(6);
}

#[test]
fn google_conforms_by_a_fake() {
    let Some(server) = S3::anonymous() else {
        return;
    };
    let wire = Wire::start(server.address, |mut request| {
        // An account without a token service sends none, or an empty one.
        request.take("authorization");
        if let Some(generation) = request.take("x-goog-if-generation-match") {
            assert_eq!(generation, "0", "there must be none yet");
            request
                .headers
                .push(("if-none-match".to_owned(), "*".to_owned()));
        }
        Act::Pass(request)
    });
    // What object_store takes for an account without a token service.
    let account = r#"{"private_key":"none","private_key_id":"none","client_email":"none","disable_oauth":true}"#;
    let env = vec![
        ("GOOGLE_BASE_URL", format!("http://{}", wire.address)),
        ("GOOGLE_SERVICE_ACCOUNT_KEY", account.to_owned()),
        ("ETCD_DR_STORE_PATIENCE", "2s".to_owned()),
    ];
    whole_suite("gs", BUCKET, &env, Claims::Race);
}
