//! The configuration file: TOML, of which only names and values count. A table's name and its keys make one dotted name, so
//! that `[flush]` with `interval.ms = 25` is `flush.interval.ms = 25`. It must not know which names there are.

use std::path::Path;
use std::sync::Arc;

use anyhow::{Result, anyhow};
use toml::de::{DeTable, DeValue};

use crate::origin::{Assigned, Origin};

/// A file being read.
struct File<'a> {
    path: Arc<Path>,
    text: &'a str,
}

/// All that a file assigns, in the order of its lines.
pub fn parse(path: &Path, text: &str) -> Result<Vec<Assigned>> {
    let file = File {
        path: Arc::from(path),
        text,
    };
    let table = DeTable::parse(text).map_err(|error| {
        let at = error.span().map_or(text.len(), |span| span.start);
        let why = error.message();
        // Of these, TOML takes the first for a value and the second for a table with a value in it.
        let hint = match why.contains("dotted key") {
            true => {
                "; of two names of which one begins the other, write the longer in quotes: \
                 \"max.connections.per.ip\" = 100"
            }
            false => "",
        };
        file.origin(at).blame(anyhow!("{why}{hint}"))
    })?;
    let mut found = Vec::new();
    file.read("", table.get_ref(), &mut found)?;
    found.sort_by_key(|(at, _)| *at);
    Ok(found.into_iter().map(|(_, assigned)| assigned).collect())
}

impl File<'_> {
    /// Where the byte at this place of the text is, for people.
    fn origin(&self, at: usize) -> Origin {
        let before = self.text.as_bytes().iter().take(at);
        Origin::File {
            path: Arc::clone(&self.path),
            line: 1 + before.filter(|byte| **byte == b'\n').count(),
        }
    }

    /// Adds what a table assigns, each with its place; `prefix` is the table's own name, with a dot at its end.
    fn read(
        &self,
        prefix: &str,
        table: &DeTable<'_>,
        found: &mut Vec<(usize, Assigned)>,
    ) -> Result<()> {
        for (key, value) in table {
            let name = format!("{prefix}{}", key.get_ref());
            let at = key.span().start;
            if let DeValue::Table(inner) = value.get_ref() {
                self.read(&format!("{name}."), inner, found)?;
                continue;
            }
            let origin = self.origin(at);
            let value =
                text_of(value.get_ref()).map_err(|why| origin.blame(format!("{name}: {why}")))?;
            found.push((
                at,
                Assigned {
                    name,
                    value,
                    origin,
                },
            ));
        }
        Ok(())
    }
}

/// A value as it would stand in a flag: of a list, the values with commas between them.
fn text_of(value: &DeValue<'_>) -> Result<String, &'static str> {
    match value {
        DeValue::String(text) => Ok(text.trim().to_owned()),
        DeValue::Integer(number) => i64::from_str_radix(number.as_str(), number.radix())
            .map(|number| number.to_string())
            .map_err(|_| "the number is too large"),
        DeValue::Float(number) => Ok(number.as_str().to_owned()),
        DeValue::Boolean(value) => Ok(value.to_string()),
        DeValue::Array(values) => {
            let texts: Result<Vec<String>, _> = values
                .iter()
                .map(|value| match value.get_ref() {
                    DeValue::Array(_) => Err("a list of lists means nothing"),
                    value => text_of(value),
                })
                .collect();
            Ok(texts?.join(","))
        }
        DeValue::Datetime(_) => Err("a date means nothing; write a text, in quotes, or a number"),
        DeValue::Table(_) => Err("a table in a list means nothing"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(text: &str) -> Vec<(String, String, String)> {
        let found = parse(Path::new("seaway.toml"), text).expect("it is TOML");
        let found = found.into_iter();
        found
            .map(|one| (one.name, one.value, one.origin.to_string()))
            .collect()
    }

    fn refusal(text: &str) -> String {
        let refused = parse(Path::new("seaway.toml"), text);
        refused.expect_err("must be refused").to_string()
    }

    fn one(name: &str, value: &str, line: usize) -> (String, String, String) {
        let from = format!("seaway.toml:{line}");
        (name.to_owned(), value.to_owned(), from)
    }

    #[test]
    fn tables_and_dots_make_one_name_and_each_value_knows_its_line() {
        let text = r#"# a comment
bucket = "s3://b/p"
"max.connections" = 5

[flush]
interval.ms = 25
bytes = 0x10_0000

[max]
"connections.per.ip" = 3
"#;
        assert_eq!(
            parsed(text),
            [
                one("bucket", "s3://b/p", 2),
                one("max.connections", "5", 3),
                one("flush.interval.ms", "25", 6),
                one("flush.bytes", "1048576", 7),
                one("max.connections.per.ip", "3", 10),
            ]
        );
    }

    #[test]
    fn values_of_every_kind_are_those_of_flags() {
        let text = "a = true\nb = 0.5\nc = ['x:1', 'y:2']\nd = { e = -1 }\nf = ' g '\n";
        assert_eq!(
            parsed(text),
            [
                one("a", "true", 1),
                one("b", "0.5", 2),
                one("c", "x:1,y:2", 3),
                one("d.e", "-1", 4),
                one("f", "g", 5),
            ]
        );
        assert!(parsed("").is_empty());
    }

    #[test]
    fn what_means_nothing_is_refused_with_its_line() {
        for (text, expected) in [
            (
                "\na = 2026-01-02\n",
                "seaway.toml:2: a: a date means nothing",
            ),
            ("a = [[1]]\n", "seaway.toml:1: a: a list of lists"),
            ("a = [{ b = 1 }]\n", "seaway.toml:1: a: a table in a list"),
            (
                "a = 99999999999999999999\n",
                "seaway.toml:1: a: the number is too large",
            ),
            ("a = 1\na = 2\n", "seaway.toml:2: duplicate key"),
            ("a = 1\n\nb =\n", "seaway.toml:3: "),
            ("[a\n", "seaway.toml:1: "),
        ] {
            let refused = refusal(text);
            assert!(refused.starts_with(expected), "{text:?}: {refused}");
        }
    }

    #[test]
    fn a_name_that_begins_another_is_refused_with_what_to_write() {
        for text in [
            "max.connections = 1\nmax.connections.per.ip = 2\n",
            "[max]\nconnections = 1\nconnections.per.ip = 2\n",
        ] {
            let refused = refusal(text);
            assert!(
                refused.contains("\"max.connections.per.ip\" = 100"),
                "{refused}"
            );
        }
        let quoted = "max.connections = 1\n\"max.connections.per.ip\" = 2\n";
        assert_eq!(parsed(quoted).len(), 2);
    }
}
