//! ListObjectsV2 and the deletion of many objects, which are S3's XML. It must not know of faults.

use std::collections::BTreeSet;
use std::fmt::Write;
use std::ops::Bound;

use super::body::Frames;
use super::dates;
use super::message::{Answer, Error, Request, respond};
use super::objects::{Object, Objects};

/// The most keys in one page, as in S3.
const MAX_KEYS: usize = 1_000;

/// Lists what was written until `seen_ms`.
pub(super) fn answer(objects: &Objects, request: &Request, seen_ms: u64) -> Answer {
    let asked = request
        .parameter("max-keys")
        .and_then(|text| text.parse().ok());
    let limit = asked.unwrap_or(MAX_KEYS).min(MAX_KEYS);
    let page = Page::select(objects, request, (limit, seen_ms));
    let mut text = format!(
        "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n\
         <ListBucketResult xmlns=\"http://s3.amazonaws.com/doc/2006-03-01/\">\
         <Name>{}</Name><Prefix>{}</Prefix><KeyCount>{}</KeyCount>\
         <MaxKeys>{limit}</MaxKeys><IsTruncated>{}</IsTruncated>",
        escape(&request.bucket),
        escape(request.parameter("prefix").unwrap_or("")),
        page.keys.len() + page.groups.len(),
        page.truncated
    );
    if page.truncated {
        let token = escape(page.last);
        let _ = write!(
            text,
            "<NextContinuationToken>{token}</NextContinuationToken>"
        );
    }
    for (key, object) in page.keys {
        let _ = write!(
            text,
            "<Contents><Key>{}</Key><LastModified>{}</LastModified>\
             <ETag>&quot;{}&quot;</ETag><Size>{}</Size>\
             <StorageClass>STANDARD</StorageClass></Contents>",
            escape(key),
            dates::xml(object.written_ms),
            object.etag,
            object.size
        );
    }
    for group in page.groups {
        let group = escape(group);
        let _ = write!(
            text,
            "<CommonPrefixes><Prefix>{group}</Prefix></CommonPrefixes>"
        );
    }
    text.push_str("</ListBucketResult>");
    respond(
        200,
        &[("content-type", "application/xml")],
        Frames::text(text),
    )
}

/// The contents of one page of a listing.
#[derive(Default)]
struct Page<'a> {
    keys: Vec<(&'a str, &'a Object)>,
    /// Prefixes that each stand for all keys up to a delimiter.
    groups: BTreeSet<&'a str>,
    /// The last key that the page covers.
    last: &'a str,
    truncated: bool,
}

impl<'a> Page<'a> {
    fn select(objects: &'a Objects, request: &Request, (limit, seen_ms): (usize, u64)) -> Self {
        let prefix = request.parameter("prefix").unwrap_or("");
        let delimiter = request
            .parameter("delimiter")
            .filter(|text| !text.is_empty());
        // The continuation token is the last key of the page before; only this server reads it.
        let after = request
            .parameter("continuation-token")
            .or(request.parameter("start-after"))
            .unwrap_or("");
        let start = if after >= prefix && !after.is_empty() {
            Bound::Excluded(after)
        } else {
            Bound::Included(prefix)
        };
        let mut page = Page::default();
        let objects = objects.from(&request.bucket, start);
        for (key, object) in objects.filter(|(_, object)| object.written_ms <= seen_ms) {
            if !key.starts_with(prefix) {
                break;
            }
            let group = delimiter.and_then(|delimiter| {
                let at = key[prefix.len()..].find(delimiter)?;
                Some(&key[..prefix.len() + at + delimiter.len()])
            });
            let listed = |group: &str| page.groups.contains(group) || after.starts_with(group);
            if !group.is_some_and(listed) {
                if page.keys.len() + page.groups.len() == limit {
                    page.truncated = true;
                    break;
                }
                match group {
                    Some(group) => drop(page.groups.insert(group)),
                    None => page.keys.push((key, object)),
                }
            }
            page.last = key;
        }
        page
    }
}

/// Deletes the keys that the body names.
pub(super) fn delete_many(objects: &mut Objects, request: &Request) -> Answer {
    let body = request.frames.concat();
    let Ok(text) = std::str::from_utf8(&body) else {
        return Error::MALFORMED.answer();
    };
    let mut answer = String::from("<DeleteResult>");
    for part in text.split("<Key>").skip(1) {
        let Some((key, _)) = part.split_once("</Key>") else {
            return Error::MALFORMED.answer();
        };
        objects.delete(&request.bucket, &unescape(key));
        let _ = write!(answer, "<Deleted><Key>{key}</Key></Deleted>");
    }
    answer.push_str("</DeleteResult>");
    respond(
        200,
        &[("content-type", "application/xml")],
        Frames::text(answer),
    )
}

fn escape(text: &str) -> String {
    let text = text.replace('&', "&amp;").replace('<', "&lt;");
    text.replace('>', "&gt;").replace('"', "&quot;")
}

fn unescape(text: &str) -> String {
    let text = text.replace("&lt;", "<").replace("&gt;", ">");
    let text = text.replace("&quot;", "\"").replace("&apos;", "'");
    text.replace("&amp;", "&")
}
