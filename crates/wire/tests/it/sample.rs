//! Valid messages of every API and version, made from the schema's text by an encoder of its own, so
//! that generated code is checked against another reading of the schema.
//!
//! It must not use the crate's codec.

#[allow(
    dead_code,
    reason = "the generator needs more of the schema than a sample does"
)]
#[path = "../../../../xtask/src/codegen/schema.rs"]
mod schema;

use std::fs;
use std::path::Path;

pub(crate) use schema::Api;
use schema::{Field, Kind, Structure};

/// Which half of an API.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Side {
    Request,
    Response,
}

/// SplitMix64: enough to vary samples, the same on every run.
pub(crate) struct Random(pub(crate) u64);

impl Random {
    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub(crate) fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }
}

/// The schema of every API.
pub(crate) fn apis() -> Vec<Api> {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("../wire/schema");
    let mut apis: Vec<Api> = fs::read_dir(directory)
        .expect("the schema is there")
        .map(|entry| {
            let path = entry.expect("an entry").path();
            let module = path
                .file_stem()
                .expect("a name")
                .to_string_lossy()
                .into_owned();
            schema::parse(&module, &fs::read_to_string(&path).expect("text")).expect("a schema")
        })
        .collect();
    apis.sort_by_key(|api| api.key);
    apis
}

pub(crate) fn is_flexible(api: &Api, version: i16) -> bool {
    api.flexible_from.is_some_and(|from| version >= from)
}

/// The body of one message with random content.
pub(crate) fn body(api: &Api, side: Side, version: i16, random: &mut Random) -> Vec<u8> {
    let structure = match side {
        Side::Request => &api.request,
        Side::Response => &api.response,
    };
    let mut writer = Writer {
        out: Vec::new(),
        version,
        flexible: is_flexible(api, version),
        random,
    };
    writer.structure(structure);
    writer.out
}

/// A whole request frame without its length.
pub(crate) fn request(api: &Api, version: i16, random: &mut Random) -> Vec<u8> {
    let mut out = Vec::new();
    out.extend_from_slice(&api.key.to_be_bytes());
    out.extend_from_slice(&version.to_be_bytes());
    out.extend_from_slice(&7_i32.to_be_bytes());
    out.extend_from_slice(&[0, 3, b'c', b'l', b'i']);
    if is_flexible(api, version) {
        out.push(0);
    }
    out.extend(body(api, Side::Request, version, random));
    out
}

/// A whole response frame without its length.
pub(crate) fn response(api: &Api, version: i16, random: &mut Random) -> Vec<u8> {
    let mut out = 7_i32.to_be_bytes().to_vec();
    if is_flexible(api, version) && api.name != "ApiVersions" {
        out.push(0);
    }
    out.extend(body(api, Side::Response, version, random));
    out
}

struct Writer<'a> {
    out: Vec<u8>,
    version: i16,
    flexible: bool,
    random: &'a mut Random,
}

impl Writer<'_> {
    fn structure(&mut self, structure: &Structure) {
        let present = |field: &&Field| field.versions.contains(self.version);
        let fields: Vec<&Field> = structure.fields.iter().filter(present).collect();
        for field in fields.iter().filter(|field| field.tag.is_none()) {
            self.field(field);
        }
        if !self.flexible {
            return;
        }
        let mut tagged: Vec<&&Field> = fields.iter().filter(|field| field.tag.is_some()).collect();
        tagged.retain(|_| self.random.below(2) == 0);
        tagged.sort_by_key(|field| field.tag);
        self.uvarint(tagged.len() as u64);
        for field in tagged {
            let outer = std::mem::take(&mut self.out);
            self.field(field);
            let content = std::mem::replace(&mut self.out, outer);
            self.uvarint(u64::from(field.tag.expect("it is tagged")));
            self.uvarint(content.len() as u64);
            self.out.extend(content);
        }
    }

    /// Tagged fields get values that differ from their defaults: others are not sent.
    fn field(&mut self, field: &Field) {
        let tagged = field.tag.is_some();
        let nullable = field
            .nullable
            .is_some_and(|nullable| nullable.contains(self.version));
        let null = nullable && !tagged && self.random.below(4) == 0;
        if field.array {
            let least = u64::from(tagged);
            let count = (!null).then(|| least + self.random.below(3));
            self.length(count, false);
            for _ in 0..count.unwrap_or(0) {
                self.element(&field.kind, false, false);
            }
        } else {
            self.element(&field.kind, nullable, null);
        }
    }

    fn element(&mut self, kind: &Kind, nullable: bool, null: bool) {
        match kind {
            Kind::Structure(inner) => {
                if nullable {
                    self.out.push(if null { 0xff } else { 1 });
                }
                if !null {
                    self.structure(inner);
                }
            }
            Kind::Primitive(name) => self.primitive(name, null),
        }
    }

    fn primitive(&mut self, name: &str, null: bool) {
        let bits = self.random.next();
        match name {
            "bool" => self.out.push(1),
            "int8" => self.out.push(bits as u8 | 2),
            "int16" => self.out.extend_from_slice(&(bits as u16 | 2).to_be_bytes()),
            "int32" => self
                .out
                .extend_from_slice(&(bits as u32 & !1).to_be_bytes()),
            "int64" => self.out.extend_from_slice(&(bits & !1).to_be_bytes()),
            "uuid" => self
                .out
                .extend((0..16).map(|index| (bits >> index) as u8 | 1)),
            "string" => {
                let text = ["", "a", "orders", "käse-日本", "x.y_z-0123456789"][bits as usize % 5];
                self.length((!null).then_some(text.len() as u64), true);
                if !null {
                    self.out.extend_from_slice(text.as_bytes());
                }
            }
            _ => {
                let length = [0, 1, 40, 300, 5000][bits as usize % 5];
                self.length((!null).then_some(length), false);
                if !null {
                    self.out.extend((0..length).map(|index| index as u8));
                }
            }
        }
    }

    fn length(&mut self, length: Option<u64>, short: bool) {
        match (self.flexible, short) {
            (true, _) => self.uvarint(length.map_or(0, |length| length + 1)),
            (false, true) => {
                let length = length.map_or(-1, |length| length as i16);
                self.out.extend_from_slice(&length.to_be_bytes());
            }
            (false, false) => {
                let length = length.map_or(-1, |length| length as i32);
                self.out.extend_from_slice(&length.to_be_bytes());
            }
        }
    }

    fn uvarint(&mut self, mut value: u64) {
        while value > 0x7f {
            self.out.push(value as u8 | 0x80);
            value >>= 7;
        }
        self.out.push(value as u8);
    }
}
