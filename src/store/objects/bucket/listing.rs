//! A whole listing, several pages of it at a time.
//!
//! A service returns a thousand keys at a time, and each page names the next one: a thousand backups are some ten
//! pages, one after the other. So once there is a second page, the folders that are still to come are asked for, a
//! thousand of them in one page. They cut the rest into spans of about a page, and four spans are asked for at a time.
//!
//! At the same time the second page is asked for, with up to ten thousand keys. Most services return a thousand
//! nevertheless, and it is the first page of the first span. Some return them all, in the time of few pages: a service
//! that keeps objects as files looks at all of them for each page.
//!
//! This needs a service that lists in the order of the keys and can begin behind one, which not every service does.
//! Each page of a span is held to that, and at the first that fails everything is listed page by page.

use std::collections::{BTreeSet, HashSet};

use futures_util::{StreamExt, TryStreamExt};
use object_store::list::{PaginatedListOptions, PaginatedListResult};

use super::super::address::Scheme;
use super::super::contract::{Level, join};
use super::{AT_A_TIME, Bucket};
use crate::error::{Failure, Kind, Result};

/// Pages of a listing that are asked for: each has a thousand keys, unless a service makes little
/// ones.
const MAX_PAGES: usize = 10_000;
/// Keys that are asked for in one page once a thousand are not all. Services that return fewer at a time do so whatever
/// is asked for (Amazon S3, `ListObjectsV2`, `max-keys`); a few refuse the number.
const MANY: usize = 10_000;

/// What is listed.
#[derive(Debug, Clone, Copy)]
struct Asked<'a> {
    /// For messages: the folder, by its name in the store.
    folder: &'a str,
    /// What the keys begin with.
    below: Option<&'a str>,
    delimiter: Option<&'static str>,
}

/// A part of the keys, or all of them.
#[derive(Default)]
struct Span {
    /// The page that it begins with, where the page before named it.
    token: Option<String>,
    /// It begins behind this key.
    after: Option<String>,
    /// The last key that can be in it.
    until: Option<String>,
    /// Its first page, if that is here already.
    begun: Option<PaginatedListResult>,
    /// How many keys a page of it has at most, if the service goes by that.
    most: Option<usize>,
}

impl Bucket {
    /// Everything below a folder; with a delimiter what is behind it in a name is one folder.
    pub(super) async fn pages(
        &self,
        folder: &str,
        delimiter: Option<&'static str>,
    ) -> Result<Level> {
        let from = match folder {
            "" => self.below(folder),
            folder => self.path(folder)?,
        };
        let below = Some(from.as_ref()).filter(|from| !from.is_empty());
        let below = below.map(|from| format!("{from}/"));
        let asked = Asked {
            folder,
            below: below.as_deref(),
            delimiter,
        };
        let found = self.all(&asked).await;
        let mut found = found
            .map_err(|failure| failure.doing(format!("listing {}/{}", self.url, asked.folder)))?;
        found.objects.sort_by(|a, b| a.name.cmp(&b.name));
        // A service may name a folder on two pages.
        found.folders.sort_unstable();
        found.folders.dedup();
        Ok(found)
    }

    async fn all(&self, asked: &Asked<'_>) -> Result<Level> {
        let first = self.page(asked, PaginatedListOptions::default()).await?;
        let token = first.page_token.clone().filter(|next| !next.is_empty());
        let spans = match &token {
            Some(token) => self.rest(asked, &first, token).await,
            None => Vec::new(),
        };
        let mut found = Level::default();
        self.take_page(first.result, &mut found)?;
        let Some(token) = token else {
            return Ok(found);
        };
        let walks = spans.into_iter().map(|span| self.span(asked, span));
        let walks = futures_util::stream::iter(walks).buffered(AT_A_TIME);
        let parts: Option<Vec<Level>> = walks.try_collect::<Vec<_>>().await?.into_iter().collect();
        let parts = match parts.filter(|parts| !parts.is_empty()) {
            Some(parts) => parts,
            None => {
                let rest = Span {
                    token: Some(token),
                    ..Span::default()
                };
                Vec::from_iter(self.span(asked, rest).await?)
            }
        };
        for part in parts {
            join(&mut found, part)?;
        }
        Ok(found)
    }

    async fn page(
        &self,
        asked: &Asked<'_>,
        options: PaginatedListOptions,
    ) -> Result<PaginatedListResult> {
        let options = PaginatedListOptions {
            delimiter: asked.delimiter.map(Into::into),
            ..options
        };
        let page = self.client.pages.list_paginated(asked.below, options).await;
        page.map_err(|cause| self.teller.tell(&cause))
    }

    /// The pages of a span; nothing if it has bounds and the service does not keep to them.
    async fn span(&self, asked: &Asked<'_>, mut span: Span) -> Result<Option<Level>> {
        let bounded = span.after.is_some();
        let mut found = Level::default();
        let mut last = span.after.clone();
        let mut token = span.token.clone();
        let mut tokens: HashSet<u64> = token.iter().map(|token| digest(token)).collect();
        loop {
            let options = PaginatedListOptions {
                offset: span.after.clone().filter(|_| token.is_none()),
                page_token: token.take(),
                max_keys: span.most,
                ..PaginatedListOptions::default()
            };
            let mut page = match span.begun.take() {
                Some(page) => page,
                None => self.page(asked, options).await?,
            };
            let mut ended = false;
            if bounded {
                for object in &page.result.objects {
                    let key = object.location.as_ref();
                    if last.as_deref().is_some_and(|last| key <= last) {
                        return Ok(None);
                    }
                    last = Some(key.to_owned());
                }
                let within = |key: &str| span.until.as_deref().is_none_or(|until| key <= until);
                ended = last.as_deref().is_some_and(|last| !within(last));
                page.result
                    .objects
                    .retain(|object| within(object.location.as_ref()));
            }
            self.take_page(page.result, &mut found)?;
            let next = page.page_token.filter(|next| !next.is_empty() && !ended);
            let Some(next) = next else {
                return Ok(Some(found));
            };
            if tokens.len() >= MAX_PAGES || !tokens.insert(digest(&next)) {
                let what = "the listing does not end: the service sends the same pages again";
                return Err(Failure::new(Kind::Store, what));
            }
            token = Some(next);
        }
    }

    /// What follows the first page, in spans; none if nothing but its token is known of it.
    async fn rest(&self, asked: &Asked<'_>, first: &PaginatedListResult, token: &str) -> Vec<Span> {
        if asked.delimiter.is_some() || !matches!(self.scheme, Scheme::S3 | Scheme::Gcs) {
            return Vec::new();
        }
        let more = PaginatedListOptions {
            page_token: Some(token.to_owned()),
            max_keys: Some(MANY),
            ..PaginatedListOptions::default()
        };
        let second = self.page(asked, more);
        let (second, mut spans) = futures_util::join!(second, self.spans(asked, first, token));
        // A service that refuses the number is asked again without it, and then reports what fails.
        let Ok(second) = second else { return spans };
        let ended = second.page_token.as_deref().is_none_or(str::is_empty);
        let goes_by_it = second.result.objects.len() > 2 * first.result.objects.len();
        match spans.first_mut().filter(|_| !ended && !goes_by_it) {
            Some(span) => span.begun = Some(second),
            None => {
                spans = vec![Span {
                    token: Some(token.to_owned()),
                    begun: Some(second),
                    most: goes_by_it.then_some(MANY),
                    ..Span::default()
                }];
            }
        }
        spans
    }

    /// The spans of what follows the first page; none where it is not worth it, or not possible.
    async fn spans(
        &self,
        asked: &Asked<'_>,
        first: &PaginatedListResult,
        token: &str,
    ) -> Vec<Span> {
        let keys = first.result.objects.iter();
        let keys: Vec<&str> = keys.map(|object| object.location.as_ref()).collect();
        let known = keys.last().zip(folders_of(&keys));
        let Some((last, (parent, each))) = known.filter(|_| keys.is_sorted()) else {
            return Vec::new();
        };
        let level = Asked {
            folder: asked.folder,
            below: Some(parent),
            delimiter: Some("/"),
        };
        let options = PaginatedListOptions {
            offset: Some((*last).to_owned()),
            ..PaginatedListOptions::default()
        };
        // Who may list pages only, or not this folder, lists page by page, and reports what fails there.
        let Ok(page) = self.page(&level, options).await else {
            return Vec::new();
        };
        let folders = page.result.common_prefixes.iter();
        let folders: BTreeSet<&str> = folders.map(|folder| folder.as_ref()).collect();
        let behind = folders.into_iter().filter(|folder| folder > last);
        // What is in a folder is behind the folder's own name.
        let cuts = behind.skip(each).step_by(each);
        between(last, token, cuts)
    }
}

/// The folder of the folder of the last key, and how many of its folders make about nine tenths of a page.
fn folders_of<'k>(keys: &[&'k str]) -> Option<(&'k str, usize)> {
    let (last, _) = keys.last()?.rsplit_once('/')?;
    let parent = last.get(..=last.rfind('/')?)?;
    let of_parent = |key: &&'k str| {
        let (folder, _) = key.strip_prefix(parent)?.split_once('/')?;
        Some(folder)
    };
    let folders: BTreeSet<&str> = keys.iter().filter_map(of_parent).collect();
    let objects = keys.iter().filter_map(of_parent).count();
    let a_page = folders.len() * keys.len() / objects.max(1);
    Some((parent, (a_page * 9 / 10).max(1)))
}

/// The spans that cuts make of all behind a key; none without a cut.
fn between<'c>(last: &str, token: &str, cuts: impl Iterator<Item = &'c str>) -> Vec<Span> {
    let mut spans = vec![Span {
        token: Some(token.to_owned()),
        after: Some(last.to_owned()),
        ..Span::default()
    }];
    for cut in cuts {
        if let Some(before) = spans.last_mut() {
            before.until = Some(cut.to_owned());
        }
        spans.push(Span {
            after: Some(cut.to_owned()),
            ..Span::default()
        });
    }
    if spans.len() < 2 {
        spans.clear();
    }
    spans
}

/// What tells one page's token from another's; the tokens themselves may be of any length.
fn digest(token: &str) -> u64 {
    use std::hash::{BuildHasher, BuildHasherDefault, DefaultHasher};
    BuildHasherDefault::<DefaultHasher>::default().hash_one(token)
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
    use std::sync::{Arc, Mutex};

    use async_trait::async_trait;
    use object_store::list::PaginatedListStore;
    use object_store::memory::InMemory;
    use object_store::path::Path;
    use object_store::{ListResult, ObjectMeta};

    use super::super::build::Client;
    use super::super::meaning::Teller;
    use super::*;
    use crate::store::objects::Settings;

    const A_PAGE: usize = 100;

    /// A service with these keys.
    #[derive(Debug, Default)]
    struct Service {
        keys: Vec<String>,
        ignores_offset: bool,
        lists_backwards: bool,
        refuses_folders: bool,
        refuses_numbers: bool,
        /// Keys of a page of which more are asked for; else [`A_PAGE`].
        largest: Option<usize>,
        requests: AtomicUsize,
        /// Where requests that no page named began.
        offsets: Mutex<Vec<String>>,
    }

    impl Service {
        fn page(
            &self,
            names: Vec<String>,
            from: &str,
            folders: bool,
            asked: Option<usize>,
        ) -> PaginatedListResult {
            let largest = self.largest.filter(|_| asked.is_some());
            let a_page = largest.unwrap_or(A_PAGE);
            let rest: Vec<String> = names
                .into_iter()
                .filter(|key| key.as_str() > from)
                .collect();
            let mut shown: Vec<String> = rest.iter().take(a_page).cloned().collect();
            let last = shown.last().cloned();
            if self.lists_backwards {
                shown.reverse();
            }
            let object = |key: &String| ObjectMeta {
                location: Path::parse(key).unwrap(),
                last_modified: Default::default(),
                size: 1,
                e_tag: None,
                version: None,
            };
            let folder = |key: &String| Path::parse(key).unwrap();
            let of = |wanted: bool| if wanted { shown.as_slice() } else { &[] };
            PaginatedListResult {
                page_token: last.filter(|_| rest.len() > a_page),
                result: ListResult {
                    objects: of(!folders).iter().map(object).collect(),
                    common_prefixes: of(folders).iter().map(folder).collect(),
                    extensions: Default::default(),
                },
            }
        }
    }

    #[async_trait]
    impl PaginatedListStore for Service {
        async fn list_paginated(
            &self,
            prefix: Option<&str>,
            options: PaginatedListOptions,
        ) -> object_store::Result<PaginatedListResult> {
            self.requests.fetch_add(1, Ordering::Relaxed);
            let refused = (self.refuses_folders && options.delimiter.is_some())
                || (self.refuses_numbers && options.max_keys.is_some());
            if refused {
                return Err(object_store::Error::NotImplemented {
                    operation: "this".into(),
                    implementer: "a test".into(),
                });
            }
            let prefix = prefix.unwrap_or_default();
            let below = self.keys.iter().filter(|key| key.starts_with(prefix));
            let mut names: Vec<String> = match options.delimiter {
                None => below.cloned().collect(),
                Some(_) => below
                    .filter_map(|key| Some((key, key[prefix.len()..].find('/')?)))
                    .map(|(key, len)| key[..prefix.len() + len].to_owned())
                    .collect(),
            };
            names.sort();
            names.dedup();
            if let Some(offset) = &options.offset {
                self.offsets.lock().unwrap().push(offset.clone());
            }
            let offset = options.offset.filter(|_| !self.ignores_offset);
            let from = options.page_token.or(offset).unwrap_or_default();
            let folders = options.delimiter.is_some();
            Ok(self.page(names, &from, folders, options.max_keys))
        }
    }

    fn bucket(service: &Arc<Service>) -> Bucket {
        let client = Client {
            objects: Arc::new(InMemory::new()),
            pages: Arc::clone(service) as Arc<dyn PaginatedListStore>,
            looked_at: String::new(),
        };
        let settings = Settings::default();
        Bucket {
            url: "s3://backups".to_owned(),
            prefix: String::new(),
            client,
            scheme: Scheme::S3,
            checks_content: true,
            shows_versions: true,
            unconditional: AtomicBool::new(false),
            teller: Arc::new(Teller::new(&settings, String::new())),
        }
    }

    /// Objects of many sets of two nodes, and others around them.
    fn keys() -> Vec<String> {
        let of_set = |number: usize| {
            let node = ["c/m-0", "c/m-1"][usize::from(number > 290)];
            (0..7).map(move |object| format!("{node}/backup-{number}/object-{object}"))
        };
        let mut keys: Vec<String> = (1..=300).flat_map(of_set).collect();
        let others = [
            "a",
            "c/m-0/backup-1-x",
            "c/m-0/catalog-00000000.json.zst",
            "z",
        ];
        keys.extend(others.map(str::to_owned));
        keys.sort();
        keys
    }

    async fn listed(service: Service) -> (Vec<String>, Arc<Service>) {
        let service = Arc::new(service);
        let found = bucket(&service).pages("", None).await.unwrap();
        let names = found.objects.into_iter().map(|object| object.name);
        (names.collect(), service)
    }

    #[tokio::test]
    async fn what_follows_the_first_page_is_listed_in_spans() {
        let keys = keys();
        let service = Service {
            keys: keys.clone(),
            ..Service::default()
        };
        let (found, service) = listed(service).await;
        assert_eq!(found, keys);
        let offsets = service.offsets.lock().unwrap().clone();
        // For the folders, and behind every twelfth of the hundred that one page of them names.
        assert_eq!(offsets.len(), 9, "{offsets:?}");
        // One for the folders, and for each span of nine tenths of a page hardly more than one.
        let pages = keys.len().div_ceil(A_PAGE);
        let requests = service.requests.load(Ordering::Relaxed);
        assert!(requests < pages + pages / 2, "{requests} for {pages} pages");
    }

    #[tokio::test]
    async fn a_service_with_larger_pages_is_asked_for_fewer() {
        let keys = keys();
        for (largest, most) in [(10_000, 3), (1_000, 5), (A_PAGE + 1, 34)] {
            let service = Service {
                keys: keys.clone(),
                largest: Some(largest),
                ..Service::default()
            };
            let (found, service) = listed(service).await;
            assert_eq!(found, keys);
            let requests = service.requests.load(Ordering::Relaxed);
            assert!(requests <= most, "{requests} for pages of {largest}");
        }
        // Or lists all of it as it did unasked.
        let service = Service {
            keys: keys.clone(),
            refuses_numbers: true,
            ..Service::default()
        };
        let (found, service) = listed(service).await;
        assert_eq!(found, keys);
        assert_eq!(service.offsets.lock().unwrap().len(), 9);
    }

    #[tokio::test]
    async fn a_service_that_keeps_to_no_order_is_listed_page_by_page() {
        let keys = keys();
        let with = |ignores_offset, lists_backwards, refuses_folders| Service {
            keys: keys.clone(),
            ignores_offset,
            lists_backwards,
            refuses_folders,
            ..Service::default()
        };
        for service in [
            with(true, false, false),
            with(false, true, false),
            with(false, false, true),
        ] {
            let (found, service) = listed(service).await;
            assert_eq!(found, keys, "{service:?}");
        }
    }

    #[tokio::test]
    async fn one_page_is_one_request() {
        let keys: Vec<String> = keys().into_iter().take(A_PAGE).collect();
        let service = Service {
            keys: keys.clone(),
            ..Service::default()
        };
        let (found, service) = listed(service).await;
        assert_eq!(found, keys);
        assert_eq!(service.requests.load(Ordering::Relaxed), 1);
    }
}
