//! Taking a bucket's URL apart. It must not know what the parts are used for.

use std::path::PathBuf;

use super::check;

/// The forms of URL that are accepted, for error messages.
const POSSIBLE: &str = "a directory (DIR or file:///DIR), mem:, s3://BUCKET/PREFIX, \
                        gs://BUCKET/PREFIX and az://CONTAINER/PREFIX are possible";

#[derive(Debug, PartialEq, Eq)]
pub(super) enum Url {
    Memory,
    Directory(PathBuf),
    Cloud {
        scheme: String,
        bucket: String,
        /// Empty, or ends with a slash.
        prefix: String,
        /// The parameters after the question mark.
        parameters: Parameters,
    },
}

impl Url {
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        if text.is_empty() {
            return Err(format!("the bucket's URL is empty: {POSSIBLE}"));
        }
        if text == "mem:" {
            return Ok(Url::Memory);
        }
        if let Some(path) = text.strip_prefix("file://") {
            if !path.starts_with('/') {
                let what = "a directory's URL has three slashes: file:///DIR";
                return Err(what.to_owned());
            }
            return Ok(Url::Directory(path.into()));
        }
        match text.split_once("://") {
            Some((scheme @ ("s3" | "gs" | "az"), rest)) => Url::cloud(scheme, rest),
            Some((scheme, _)) => Err(format!("{scheme}:// is unknown: {POSSIBLE}")),
            // "s3:bucket" is a slip for "s3://bucket", not a directory.
            None => match text.split_once(':') {
                Some((scheme, _)) if !scheme.contains(['/', '.']) => {
                    Err(format!("{scheme}: is unknown: {POSSIBLE}"))
                }
                _ => Ok(Url::Directory(text.into())),
            },
        }
    }

    fn cloud(scheme: &str, rest: &str) -> Result<Self, String> {
        let (place, query) = rest.split_once('?').unwrap_or((rest, ""));
        let (bucket, prefix) = place.split_once('/').unwrap_or((place, ""));
        if bucket.is_empty() {
            return Err(format!("the bucket's name is missing: {scheme}://BUCKET"));
        }
        check::name("the bucket's name", bucket)?;
        let prefix = prefix.strip_suffix('/').unwrap_or(prefix);
        let fits = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
        let good =
            |part: &str| !part.is_empty() && !part.starts_with('.') && part.chars().all(fits);
        if !prefix.is_empty() && !prefix.split('/').all(good) {
            return Err(format!(
                "the prefix {prefix:?} is not possible: letters, digits, '.', '_' and '-' are, \
                 in parts that are separated by one slash and do not begin with a '.'"
            ));
        }
        let slash = if prefix.is_empty() { "" } else { "/" };
        Ok(Url::Cloud {
            scheme: scheme.to_owned(),
            bucket: bucket.to_owned(),
            prefix: format!("{prefix}{slash}"),
            parameters: Parameters::parse(query)?,
        })
    }
}

#[derive(Debug, PartialEq, Eq)]
pub(super) struct Parameters(Vec<(String, String)>);

impl Parameters {
    fn parse(query: &str) -> Result<Self, String> {
        let mut given: Vec<(String, String)> = Vec::new();
        for pair in query.split('&').filter(|pair| !pair.is_empty()) {
            let (name, value) = pair.split_once('=').unwrap_or((pair, "true"));
            if given.iter().any(|(other, _)| other == name) {
                return Err(format!("{name} is given twice"));
            }
            given.push((name.to_owned(), decode(value)?));
        }
        Ok(Parameters(given))
    }

    /// Removes a parameter and yields its value.
    pub(super) fn take(&mut self, name: &str) -> Option<String> {
        let at = self.0.iter().position(|(given, _)| given == name)?;
        Some(self.0.remove(at).1)
    }

    /// Removes the endpoint and yields it, checked.
    pub(super) fn endpoint(&mut self) -> Result<Option<String>, String> {
        let endpoint = self.take("endpoint");
        if let Some(endpoint) = &endpoint {
            check::endpoint("endpoint", endpoint)?;
        }
        Ok(endpoint)
    }

    /// Removes a true-or-false parameter; false if it is not given.
    pub(super) fn flag(&mut self, name: &str) -> Result<bool, String> {
        match self.take(name).as_deref() {
            None | Some("false") => Ok(false),
            Some("true") => Ok(true),
            Some(other) => Err(format!("{name}={other} is neither true or false")),
        }
    }

    /// Refuses parameters that are left over; `possible` names those that would be known.
    pub(super) fn end(self, possible: &str) -> Result<(), String> {
        match self.0.first() {
            None => Ok(()),
            Some((name, _)) => Err(format!("{name} is unknown: {possible} are possible")),
        }
    }
}

fn decode(value: &str) -> Result<String, String> {
    let wrong = || format!("{value:?} has a percent sign that two hex digits do not follow");
    let mut bytes = Vec::with_capacity(value.len());
    let mut rest = value.bytes();
    while let Some(byte) = rest.next() {
        if byte != b'%' {
            bytes.push(byte);
            continue;
        }
        let mut digit = || {
            let digit = rest.next().map(char::from)?;
            digit.to_digit(16)
        };
        let (high, low) = digit().zip(digit()).ok_or_else(wrong)?;
        bytes.push((high * 16 + low) as u8);
    }
    String::from_utf8(bytes).map_err(|_| wrong())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_and_urls_are_told_apart() {
        for path in ["data", "./s3:x", "/var/lib/seaway", "../a b"] {
            assert_eq!(Url::parse(path), Ok(Url::Directory(path.into())));
        }
        let absolute = Url::parse("file:///var/lib/x");
        assert_eq!(absolute, Ok(Url::Directory("/var/lib/x".into())));
    }

    #[test]
    fn a_cloud_url_has_bucket_prefix_and_parameters() {
        let url = Url::parse("s3://b/A/c-1/?endpoint=http%3A//h:1/x&allow_http");
        let Ok(Url::Cloud {
            bucket,
            prefix,
            mut parameters,
            ..
        }) = url
        else {
            panic!("{url:?}");
        };
        assert_eq!((bucket.as_str(), prefix.as_str()), ("b", "A/c-1/"));
        assert_eq!(parameters.take("endpoint").as_deref(), Some("http://h:1/x"));
        assert_eq!(parameters.flag("allow_http"), Ok(true));
        assert_eq!(parameters.end("none"), Ok(()));
    }
}
