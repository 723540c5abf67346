//! Flags that a release of etcd has renamed or removed.

use crate::node::settings::Setting;

/// Flags that 3.6 does not have any more (etcd, `CHANGELOG-3.6.md`).
pub(super) const GONE_IN_3_6: [&str; 8] = [
    "enable-v2",
    "experimental-enable-v2v3",
    "proxy",
    "proxy-failure-wait",
    "proxy-refresh-interval",
    "proxy-dial-timeout",
    "proxy-write-timeout",
    "proxy-read-timeout",
];

/// Flags that became gates or got another name (etcd, `server/features/etcd_features.go`).
const RENAMED: [(&str, &str); 7] = [
    (
        "experimental-stop-grpc-service-on-defrag",
        "--feature-gates=StopGRPCServiceOnDefrag",
    ),
    (
        "experimental-initial-corrupt-check",
        "--feature-gates=InitialCorruptCheck",
    ),
    (
        "experimental-compact-hash-check-enabled",
        "--feature-gates=CompactHashCheck",
    ),
    (
        "experimental-txn-mode-write-with-shared-buffer",
        "--feature-gates=TxnModeWriteWithSharedBuffer",
    ),
    (
        "experimental-enable-lease-checkpoint",
        "--feature-gates=LeaseCheckpoint",
    ),
    (
        "experimental-enable-lease-checkpoint-persist",
        "--feature-gates=LeaseCheckpointPersist",
    ),
    (
        "experimental-snapshot-catch-up-entries",
        "--snapshot-catchup-entries",
    ),
];

/// What an experimental flag is called since 3.6.
pub(super) fn successor(setting: &Setting) -> String {
    let plain = setting.name.trim_start_matches("experimental-");
    let mut renamed = RENAMED.iter();
    match renamed.find(|(old, _)| *old == setting.name) {
        Some((_, new)) => format!("{new}={}", setting.value),
        None => format!("--{plain}={}", setting.value),
    }
}
