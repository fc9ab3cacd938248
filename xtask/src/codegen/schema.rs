//! The notation of `crates/wire/schema`, parsed. One file per API:
//!
//! ```text
//! # A remark.
//! api 1 Fetch versions 4-18 flexible 12+
//! served advertised-from 4
//!
//! request
//!   max_wait_ms: int32                     in every version
//!   cluster_id: string? 12+ tag 0          nullable, a tagged field, since version 12
//!   topics: [FetchTopic] 4-12              an array of a structure, whose fields are indented
//!     name: string? null 10+               nullable only since version 10
//!     epoch: int32 9+ = -1                 what it is in versions that lack it
//! ```
//!
//! Types: bool, int8, int16, int32, int64, string, bytes, uuid, records (bytes of a request), rope
//! (bytes of a response, written without copying), or the name of a structure. Without `served` an
//! API is known to clients only. `advertised-from` tells clients of versions that are refused.

use anyhow::{Context, bail, ensure};

/// Versions, both ends included.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Versions {
    pub(crate) min: i16,
    pub(crate) max: i16,
}

impl Versions {
    pub(crate) fn contains(self, version: i16) -> bool {
        (self.min..=self.max).contains(&version)
    }
}

/// One API: a request and its response.
#[derive(Debug)]
pub(crate) struct Api {
    pub(crate) module: String,
    pub(crate) key: i16,
    pub(crate) name: String,
    pub(crate) versions: Versions,
    pub(crate) flexible_from: Option<i16>,
    /// For a served API, the least version that is advertised.
    pub(crate) advertised_from: Option<i16>,
    pub(crate) request: Structure,
    pub(crate) response: Structure,
}

/// A structure and the versions in which it occurs.
#[derive(Debug)]
pub(crate) struct Structure {
    pub(crate) name: String,
    pub(crate) versions: Versions,
    pub(crate) fields: Vec<Field>,
}

/// What an element is.
#[derive(Debug)]
pub(crate) enum Kind {
    Primitive(String),
    Structure(Structure),
}

/// One field of a structure.
#[derive(Debug)]
pub(crate) struct Field {
    pub(crate) name: String,
    pub(crate) kind: Kind,
    pub(crate) array: bool,
    pub(crate) versions: Versions,
    /// In which versions null may be sent; None if never.
    pub(crate) nullable: Option<Versions>,
    pub(crate) tag: Option<u32>,
    pub(crate) default: Option<String>,
}

const PRIMITIVES: [&str; 10] = [
    "bool", "int8", "int16", "int32", "int64", "string", "bytes", "uuid", "records", "rope",
];

struct Line<'a> {
    number: usize,
    depth: usize,
    words: Vec<&'a str>,
}

pub(crate) fn parse(module: &str, text: &str) -> anyhow::Result<Api> {
    let lines = text.lines().enumerate().filter_map(|(index, line)| {
        let content = line.trim_start();
        if content.is_empty() || content.starts_with('#') {
            return None;
        }
        let depth = (line.len() - content.len()) / 2;
        Some(Line {
            number: index + 1,
            depth,
            words: content.split_whitespace().collect(),
        })
    });
    let lines: Vec<Line<'_>> = lines.collect();
    let mut rest = lines.as_slice();
    let head = take(&mut rest).context("the file is empty")?;
    let ["api", key, name, "versions", versions, "flexible", flexible] = head.words.as_slice()
    else {
        bail!("the first line is not `api KEY NAME versions A-B flexible V+|none`");
    };
    let versions = parse_versions(versions, i16::MAX)?;
    let flexible_from = match *flexible {
        "none" => None,
        from => Some(parse_versions(from, versions.max)?.min),
    };
    let advertised_from = match rest.first().map(|line| line.words.as_slice()) {
        Some(["served"]) => Some(versions.min),
        Some(["served", "advertised-from", from]) => Some(from.parse()?),
        _ => None,
    };
    if advertised_from.is_some() {
        take(&mut rest);
    }
    let mut section = |title: &str, suffix: &str| -> anyhow::Result<Structure> {
        let line = take(&mut rest).with_context(|| format!("no {title}"))?;
        ensure!(
            line.words == [title],
            "line {}: expected `{title}`",
            line.number
        );
        let fields = parse_fields(&mut rest, 1, versions)?;
        Ok(Structure {
            name: format!("{name}{suffix}"),
            versions,
            fields,
        })
    };
    let request = section("request", "Request")?;
    let response = section("response", "Response")?;
    ensure!(rest.is_empty(), "lines are left after the response");
    Ok(Api {
        module: module.to_owned(),
        key: key.parse()?,
        name: (*name).to_owned(),
        versions,
        flexible_from,
        advertised_from,
        request,
        response,
    })
}

fn take<'a, 'b>(rest: &mut &'a [Line<'b>]) -> Option<&'a Line<'b>> {
    let (first, others) = rest.split_first()?;
    *rest = others;
    Some(first)
}

fn parse_fields(
    rest: &mut &[Line<'_>],
    depth: usize,
    versions: Versions,
) -> anyhow::Result<Vec<Field>> {
    let mut fields = Vec::new();
    while rest.first().is_some_and(|line| line.depth == depth) {
        let line = take(rest).context("a field")?;
        let field = parse_field(line, rest, depth, versions)
            .with_context(|| format!("line {}", line.number))?;
        fields.push(field);
    }
    Ok(fields)
}

fn parse_field(
    line: &Line<'_>,
    rest: &mut &[Line<'_>],
    depth: usize,
    outer: Versions,
) -> anyhow::Result<Field> {
    let [name, type_word, attributes @ ..] = line.words.as_slice() else {
        bail!("a field needs a name and a type");
    };
    let name = name
        .strip_suffix(':')
        .context("a field's name ends with a colon")?;
    let (type_word, can_be_null) = match type_word.strip_suffix('?') {
        Some(inner) => (inner, true),
        None => (*type_word, false),
    };
    let inner = type_word
        .strip_prefix('[')
        .and_then(|inner| inner.strip_suffix(']'));
    let (type_name, array) = (inner.unwrap_or(type_word), inner.is_some());
    let mut versions = outer;
    let mut attributes = attributes;
    if let [first, others @ ..] = attributes
        && first.starts_with(|start: char| start.is_ascii_digit())
    {
        versions = parse_versions(first, outer.max)?;
        attributes = others;
    }
    let mut field = Field {
        name: name.to_owned(),
        kind: Kind::Primitive(type_name.to_owned()),
        array,
        versions,
        nullable: can_be_null.then_some(versions),
        tag: None,
        default: None,
    };
    while let [word, value, others @ ..] = attributes {
        match *word {
            "tag" => field.tag = Some(value.parse()?),
            "null" => field.nullable = Some(parse_versions(value, versions.max)?),
            "=" => field.default = Some((*value).to_owned()),
            other => bail!("unknown attribute {other}"),
        }
        attributes = others;
    }
    ensure!(attributes.is_empty(), "an attribute lacks its value");
    if !PRIMITIVES.contains(&type_name) {
        let fields = parse_fields(rest, depth + 1, versions)?;
        ensure!(!fields.is_empty(), "unknown type {type_name}");
        field.kind = Kind::Structure(Structure {
            name: type_name.to_owned(),
            versions,
            fields,
        });
    }
    Ok(field)
}

fn parse_versions(word: &str, max: i16) -> anyhow::Result<Versions> {
    let versions = match (word.strip_suffix('+'), word.split_once('-')) {
        (Some(min), _) => Versions {
            min: min.parse()?,
            max,
        },
        (None, Some((min, max))) => Versions {
            min: min.parse()?,
            max: max.parse()?,
        },
        (None, None) => bail!("{word} is no range of versions"),
    };
    ensure!(versions.min <= versions.max, "{word} is an empty range");
    Ok(versions)
}
