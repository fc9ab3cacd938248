//! Quarantines as bytes: what comes back, what is refused, and the worked example of the docs.

use super::*;

const PAGE: &str = include_str!("../../../../docs/formats/journal.md");

#[test]
fn the_documented_bytes_are_the_command_described() {
    let bytes = crate::page::dump(PAGE, "quarantine");
    let item = command(9, &[9; 32], "overflow");
    let hex: Vec<String> = item
        .command
        .chunks(16)
        .map(|c| format!("{c:02x?}"))
        .collect();
    assert_eq!(item.command, bytes, "the page should say {hex:#?}");
    let mut items = vec![item];
    let quarantined = Quarantined {
        slot: 9,
        sha256: [9; 32],
        by: 12,
    };
    assert_eq!(take(12, &mut items), [quarantined]);
    assert!(items.is_empty());
}

#[test]
fn what_is_no_quarantine_of_an_earlier_entry_stays_and_nobody_can_apply_it() {
    let item = |command: &[u8]| Item {
        cluster: OWN,
        command: Bytes::copy_from_slice(command),
    };
    let right = command(9, &[9; 32], "").command;
    let mut other_number = right.to_vec();
    other_number[0] = 2;
    let long = [&right[..], &[b'a'; 1_001]].concat();
    let no_text = [&right[..], &[0xff]].concat();
    for wrong in [&right[..41], &other_number, &long, &no_text, b""] {
        let mut items = vec![item(wrong)];
        assert_eq!(take(12, &mut items), [], "{wrong:?}");
        assert_eq!(items, [item(wrong)]);
    }
    let of_a_cluster = Item {
        cluster: ClusterNumber(1),
        command: right.clone(),
    };
    let mut items = vec![item(&right), of_a_cluster.clone()];
    assert_eq!(take(9, &mut items), [], "of itself");
    assert_eq!(take(10, &mut items).len(), 1);
    assert_eq!(items, [of_a_cluster]);
}

#[test]
fn a_long_reason_is_cut_between_characters() {
    let reason = "é".repeat(700);
    let mut items = vec![command(9, &[9; 32], &reason)];
    assert_eq!(items[0].command.len(), 42 + 1_000);
    assert_eq!(take(12, &mut items).len(), 1);
}

#[test]
fn a_word_is_read_as_it_is_told() {
    let word = Word::of(4_097, &[0x0f; 32]);
    assert_eq!(word.to_string(), "4097-0f0f0f0f0f0f0f0f");
    assert_eq!(word.to_string().parse(), Ok(word));
    for wrong in [
        "",
        "4097",
        "4097-",
        "4097-f0f",
        "-1-0f0f0f0f0f0f0f0f",
        "04097-0f0f0f0f0f0f0f0f",
    ] {
        let refused = wrong.parse::<Word>().expect_err(wrong);
        assert!(refused.contains("SLOT-DIGEST"), "{refused}");
    }
}

#[test]
fn an_order_is_a_word_or_a_word_that_is_forced() {
    let word = Word::of(4_097, &[0x0f; 32]);
    for (text, is_forced) in [
        ("4097-0f0f0f0f0f0f0f0f", false),
        ("4097-0f0f0f0f0f0f0f0f-forced", true),
    ] {
        let order = Order { word, is_forced };
        assert_eq!(order.to_string(), text);
        assert_eq!(text.parse(), Ok(order));
    }
    for wrong in ["4097-forced", "4097-0f0f0f0f0f0f0f0f-force", "-forced"] {
        wrong.parse::<Order>().expect_err(wrong);
    }
}
