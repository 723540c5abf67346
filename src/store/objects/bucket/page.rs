//! A page of a listing without the entries that have no name here.
//!
//! A bucket takes keys that are no paths (`a//b`, `./`, control characters), and whoever may write
//! there can put one; `object_store` makes each an error of the whole listing. They are not ours
//! and are left out, as every other object of other programs is.

use bytes::Bytes;
use object_store::path::Path;
use quick_xml::Reader;
use quick_xml::escape::resolve_predefined_entity;
use quick_xml::events::Event;

/// The element of an object or a folder: of S3 and Google Cloud Storage, and of Azure Blob.
fn is_object(name: &[u8]) -> bool {
    let known: [&[u8]; 4] = [b"Contents", b"CommonPrefixes", b"Blob", b"BlobPrefix"];
    known.contains(&name)
}

/// The element of its name.
fn is_name(name: &[u8]) -> bool {
    name == b"Key" || name == b"Prefix" || name == b"Name"
}

/// The object that is being read.
struct Object {
    /// Where its element begins.
    start: usize,
    name: Option<String>,
    /// Whether what is read is its name.
    within: bool,
}

impl Object {
    fn add(&mut self, text: Option<&str>) {
        if self.within {
            // What cannot be read makes a name that no path has.
            let text = text.unwrap_or("\0");
            self.name.get_or_insert_default().push_str(text);
        }
    }

    fn is_path(&self) -> bool {
        self.name
            .as_ref()
            .is_some_and(|name| Path::parse(name).is_ok())
    }
}

/// The page without the objects whose names are no paths. One that is not XML is returned as it
/// is: who reads it says what is wrong with it.
pub(super) fn of_names(page: Bytes) -> Bytes {
    match kept(&page) {
        Some(kept) => kept.into(),
        None => page,
    }
}

/// What is left, where something is left out.
fn kept(page: &[u8]) -> Option<Vec<u8>> {
    // Azure begins with one, and the reader does not count it.
    let page = page.strip_prefix(b"\xef\xbb\xbf").unwrap_or(page);
    let mut reader = Reader::from_reader(page);
    let mut kept = Vec::new();
    let mut copied = 0;
    let mut object: Option<Object> = None;
    loop {
        let start = usize::try_from(reader.buffer_position()).ok()?;
        match (reader.read_event().ok()?, &mut object) {
            (Event::Eof, _) => break,
            (Event::Start(element), None) if is_object(element.local_name().as_ref()) => {
                object = Some(Object {
                    start,
                    name: None,
                    within: false,
                });
            }
            (Event::Start(element), Some(object)) if is_name(element.local_name().as_ref()) => {
                object.within = object.name.is_none();
            }
            (Event::End(element), Some(inner)) => {
                if is_name(element.local_name().as_ref()) {
                    inner.within = false;
                } else if is_object(element.local_name().as_ref()) {
                    if !inner.is_path() {
                        kept.extend_from_slice(page.get(copied..inner.start)?);
                        copied = usize::try_from(reader.buffer_position()).ok()?;
                    }
                    object = None;
                }
            }
            (Event::Text(text), Some(object)) => object.add(text.decode().ok().as_deref()),
            (Event::CData(text), Some(object)) => object.add(text.decode().ok().as_deref()),
            (Event::GeneralRef(reference), Some(object)) => {
                let by_number = reference.resolve_char_ref().ok().flatten();
                let named = reference.decode().ok();
                let named = named.as_deref().and_then(resolve_predefined_entity);
                let by_number = by_number.map(String::from);
                object.add(by_number.as_deref().or(named));
            }
            _ => {}
        }
    }
    if copied == 0 {
        return None;
    }
    kept.extend_from_slice(page.get(copied..)?);
    Some(kept)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn contents(keys: &[&str]) -> String {
        let entry = |key: &&str| {
            format!(
                "<Contents>\n<Key>{key}</Key><Size>1</Size><Owner><DisplayName>x//y</DisplayName></Owner></Contents>"
            )
        };
        keys.iter().map(entry).collect()
    }

    fn s3(keys: &[&str]) -> String {
        format!(
            "<?xml version=\"1.0\"?>\n<ListBucketResult xmlns=\"http://s3\"><Name>b//c</Name>{}<NextContinuationToken>t</NextContinuationToken></ListBucketResult>",
            contents(keys)
        )
    }

    #[test]
    fn keys_that_are_not_paths_are_left_out_and_the_rest_is_unchanged() {
        let odd = [
            "c//n/backup-1/x",
            "./",
            "../x",
            "a/\u{1}",
            "a/&#1;b",
            "a/&unknown;",
            "",
        ];
        let good = ["c/n/backup-1/backup.json", "a b/&amp;c", "a/&#x65;"];
        let page = s3(&good);
        assert_eq!(of_names(page.clone().into()), page);
        let mut mixed = vec![odd[0], good[0], odd[1], odd[2], good[1], odd[3], good[2]];
        mixed.extend(&odd[4..]);
        assert_eq!(of_names(s3(&mixed).into()), page);
        assert_eq!(of_names(s3(&odd).into()), s3(&[]));
    }

    #[test]
    fn pages_of_azure_are_read_in_the_same_way() {
        let page = |mark: &str, names: &[&str]| {
            let entry = |name: &&str| {
                format!("<Blob><Name>{name}</Name><Metadata><Name>//</Name></Metadata></Blob>")
            };
            let blobs: String = names.iter().map(entry).collect();
            format!(
                "{mark}<EnumerationResults ContainerName=\"c\"><Blobs>{blobs}</Blobs><NextMarker/></EnumerationResults>"
            )
        };
        assert_eq!(
            of_names(page("\u{feff}", &["a//b", "a/b"]).into()),
            page("", &["a/b"])
        );
    }

    #[test]
    fn folders_that_are_not_paths_are_left_out() {
        let page = |folders: &[&str]| {
            let s3 =
                |name: &&str| format!("<CommonPrefixes><Prefix>{name}</Prefix></CommonPrefixes>");
            let azure = |name: &&str| format!("<BlobPrefix><Name>{name}</Name></BlobPrefix>");
            let s3: String = folders.iter().map(s3).collect();
            let azure: String = folders.iter().map(azure).collect();
            format!("<ListBucketResult><Prefix>../</Prefix>{s3}{azure}</ListBucketResult>")
        };
        let good = page(&["a/", "b c/"]);
        assert_eq!(of_names(good.clone().into()), good);
        assert_eq!(
            of_names(page(&["a/", "../", "./", "b c/", "x//"]).into()),
            good
        );
    }

    #[test]
    fn a_page_that_is_not_xml_is_returned_unchanged() {
        for other in ["", "<", "<a></b>", "no xml", "<Contents><Key>//</Key>"] {
            assert_eq!(of_names(other.to_owned().into()), other);
        }
    }
}
