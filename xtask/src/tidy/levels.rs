//! What `apply` reads comes from the level in force (docs/safety.md, 22), not from the build: no bare numbers in the
//! modules that decide what a command does. It must not know what a number is used for.

use super::floors::code;
use super::tree::{Allowed, Tree, is_test_file};

/// Files and folders that decide what becomes of a command. How state is written (`meta::bytes`) decides nothing.
const DECIDING: &[&str] = &[
    "crates/meta/src/apply.rs",
    "crates/meta/src/apply/",
    "crates/meta/src/nouns/",
    "crates/meta/src/state.rs",
    "crates/meta/src/terms/",
];

/// The table itself.
const TABLE: &str = "crates/meta/src/terms/level/";

/// Constants, numbers of more than one digit, and digits that something is compared with, multiplied or divided by, that
/// are not in the table of a level.
pub(crate) fn bare_numbers(tree: &Tree, allowed: &Allowed) -> Vec<String> {
    let mut found = Vec::new();
    for (path, text) in tree.rust() {
        let decides = DECIDING.iter().any(|deciding| path.starts_with(deciding));
        if is_test_file(path) || !decides || path.starts_with(TABLE) {
            continue;
        }
        for (index, line) in code(text).lines().enumerate() {
            let names: Vec<&str> = constant(line).map_or_else(|| numbers(line), |name| vec![name]);
            for name in names {
                if !allowed.permits(&format!("{path}#{name}")) {
                    found.push(format!(
                        "{path}:{}: {name} belongs to a level (crates/meta/src/terms/level)",
                        index + 1
                    ));
                }
            }
        }
    }
    found
}

/// The name of the number that a line makes a constant.
fn constant(line: &str) -> Option<&str> {
    let (_, rest) = line.split_once("const ")?;
    let (name, rest) = rest.split_once(": ")?;
    let (kind, _) = rest.split_once(" = ")?;
    let is_number = kind.starts_with(['u', 'i']) && kind[1..].parse::<u8>().is_ok();
    (is_number || matches!(kind, "usize" | "isize")).then_some(name)
}

/// The numbers in a line, without texts, types and names: those of more than one digit, and digits above 1 that scale
/// something or that it is compared with.
fn numbers(line: &str) -> Vec<&str> {
    let outside = line.split('"').step_by(2);
    let pieces = outside.flat_map(|code| code.split(' ')).collect::<Vec<_>>();
    let mut found = Vec::new();
    for (at, piece) in pieces.iter().enumerate() {
        let beside = |nth: Option<usize>| nth.and_then(|nth| pieces.get(nth)).copied();
        let before = beside(at.checked_sub(1)).unwrap_or_default();
        let decides = matches!(before, "<" | "<=" | ">" | ">=" | "==" | "!=")
            || [before, beside(at.checked_add(1)).unwrap_or_default()]
                .iter()
                .any(|beside| matches!(*beside, "*" | "/" | "%"));
        let words = piece.split(|c: char| !c.is_alphanumeric() && c != '_');
        found.extend(words.filter(|word| is_long(word) || decides && is_digit(word)));
    }
    found
}

fn is_long(word: &str) -> bool {
    let more = word.strip_prefix(|first: char| first.is_ascii_digit());
    let more = more.map(|more| more.trim_start_matches('_'));
    more.is_some_and(|more| more.starts_with(|c: char| c.is_ascii_digit() || c == 'x'))
}

fn is_digit(word: &str) -> bool {
    matches!(word.as_bytes(), [b'2'..=b'9'])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn constants_and_numbers_are_found_and_nothing_else() {
        assert_eq!(constant("pub const KEPT: usize = 64;"), Some("KEPT"));
        assert_eq!(
            constant("    const PARTITION: PartitionId = PartitionId(1);"),
            None
        );
        assert_eq!(constant("pub const fn name(self) -> &'static str {"), None);
        assert_eq!(
            numbers(r#"let a = minutes * 60_000 + 0x1f + 0_usize + u64::from(b10); let t = "12";"#),
            ["60_000", "0x1f"]
        );
        assert_eq!(
            numbers("if taken > max / 2 || first.len() >= 3 || 1 == one || [0; 4] == four {"),
            ["2", "3"]
        );
    }
}
