//! A service's errors in words, without what is secret, and no longer than a person reads.

use object_store::Error;

use super::super::Settings;
use super::http::{Answered, answered};
use crate::error::{self, Failure, Kind};

/// What codes and phrases in an error mean: those of the S3 API reference, "Error responses", and
/// some of `object_store`'s own.
const MEANINGS: [(&str, &str); 10] = [
    (
        "RequestTimeTooSkewed",
        "the service reports that this machine's clock is wrong",
    ),
    (
        "InvalidAccessKeyId",
        "the service does not know the access key",
    ),
    (
        "SignatureDoesNotMatch",
        "the secret key does not match the access key",
    ),
    ("NoSuchBucket", "there is no such bucket"),
    ("AccessDenied", "access is denied"),
    ("ExpiredToken", "the credentials have expired"),
    ("QuotaExceeded", "the store's quota is used up"),
    // RFC 4918, and the codes that servers give it.
    ("507 Insufficient Storage", "the store is full"),
    (
        "ETag Header missing",
        "the service sends no ETag for a part, and joining parts needs it; files over 8 MiB need a service that sends them",
    ),
    (
        "Server returned non-2xx status code: 405",
        "the service does not allow this call",
    ),
];

/// Makes failures of a service's errors.
#[derive(Debug)]
pub(super) struct Teller {
    settings: Settings,
    /// Where credentials were looked for.
    looked_at: String,
}

impl Teller {
    pub(super) fn new(settings: &Settings, looked_at: String) -> Self {
        Self {
            settings: settings.clone(),
            looked_at,
        }
    }

    /// A service's error, and what it means where that is known.
    pub(super) fn tell(&self, cause: &Error) -> Failure {
        match answered(cause) {
            Some(Answered::NoMetadata(why)) => {
                let what = format!(
                    "no credentials: {}, and there is no instance metadata service ({why})",
                    self.looked_at
                );
                return Failure::new(Kind::Store, what);
            }
            Some(answer @ (Answered::WebPage | Answered::TooLong | Answered::Redirect(_))) => {
                let text = self.settings.redact(&answer.to_string());
                return Failure::new(Kind::Store, text);
            }
            _ => {}
        }
        let mut text = cause.to_string();
        let mut below = std::error::Error::source(cause);
        while let Some(deeper) = below {
            let more = deeper.to_string();
            if !text.contains(&more) {
                text = format!("{text}: {more}");
            }
            below = deeper.source();
        }
        let failure = Failure::new(Kind::Store, error::cut(self.settings.redact(&text)));
        match MEANINGS.iter().find(|(code, _)| text.contains(code)) {
            Some((_, meaning)) => failure.doing(*meaning),
            None => failure,
        }
    }
}

/// Whether it is the object that is not there, and not the bucket.
pub(super) fn is_absent(cause: &Error) -> bool {
    matches!(cause, Error::NotFound { .. }) && !cause.to_string().contains("NoSuchBucket")
}
