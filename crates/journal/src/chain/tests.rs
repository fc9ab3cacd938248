//! Checks which entries count, against a model that looks at all entries from the start each time.

use bytes::Bytes;
use host::rng::Rng;

use super::*;
use crate::entry::{ClusterNumber, Item};

fn id(index: u64, nonce: u128) -> EntryId {
    EntryId { index, nonce }
}

/// An entry named by numbers; a body for each kind.
fn entry(id: EntryId, claim: EntryId, predecessor: EntryId, is_claim: bool) -> Entry {
    let item = Item {
        cluster: ClusterNumber(1),
        command: Bytes::from_static(b"x"),
    };
    Entry {
        header: Header {
            shard: 0,
            id,
            claim,
            predecessor,
            stamp: Stamp::default(),
        },
        body: if is_claim {
            Body::Claim {
                node: "n".to_owned(),
                reads: 1,
            }
        } else {
            Body::Commands(vec![item])
        },
    }
}

/// Whether the last of `slots` counts, by the words of the rule: a claim is valid only if it names
/// the last valid claim and the last valid entry before it; an entry, only if its claim is the last
/// valid one and its predecessor the last valid entry.
fn counts(slots: &[Entry]) -> bool {
    let Some((last, before)) = slots.split_last() else {
        return false;
    };
    let is_claim = |entry: &&Entry| matches!(entry.body, Body::Claim { .. });
    let valid: Vec<&Entry> = (1..=before.len())
        .filter(|n| counts(&before[..*n]))
        .map(|n| &before[n - 1])
        .collect();
    let last_valid = valid.last().map_or(EntryId::GENESIS, |e| e.header.id);
    let mut claims = valid.iter().copied().filter(is_claim);
    let last_claim = claims.next_back().map_or(EntryId::GENESIS, |e| e.header.id);
    last.header.claim == last_claim
        && last.header.predecessor == last_valid
        && (is_claim(&last) || last_claim != EntryId::GENESIS)
}

/// Ten slots filled by writers that know more or less of the earlier ones.
fn journal(seed: u64) -> Vec<Entry> {
    let mut rng = Rng::seeded(seed);
    let mut slots: Vec<Entry> = Vec::new();
    for index in 1..=10 {
        let seen = slots.len() as u64;
        let pick = |newest: EntryId, rng: &mut Rng| match rng.below(8) {
            0 if seen > 0 => slots[rng.below(seen) as usize].header.id,
            1 => EntryId::GENESIS,
            _ => newest,
        };
        let mut truth = Chain::genesis(0);
        for slot in &slots {
            truth.feed(&slot.encode()).expect("an entry");
        }
        let claim = pick(truth.claim(), &mut rng);
        let predecessor = pick(truth.last(), &mut rng);
        let is_claim = index == 1 || rng.once_in(3);
        let own = id(index, u128::from(rng.next_u64()));
        slots.push(entry(own, claim, predecessor, is_claim));
    }
    slots
}

/// Whether the chain agrees with the model on every slot of a journal.
fn agrees(slots: &[Entry], rules: Rules) -> bool {
    let mut chain = Chain::genesis(0).under(rules);
    (1..=slots.len()).all(|n| {
        let verdict = chain.feed(&slots[n - 1].encode()).expect("an entry");
        matches!(verdict, Verdict::Valid { .. }) == counts(&slots[..n])
    })
}

#[test]
fn the_chain_agrees_with_the_words_of_the_rule() {
    let mut valid = 0;
    for seed in 0..500 {
        let slots = journal(seed);
        assert!(agrees(&slots, Rules::all()), "seed {seed}");
        valid += (1..=slots.len()).filter(|n| counts(&slots[..*n])).count();
    }
    assert!((1_000..4_500).contains(&valid), "{valid} of 5000 are valid");
}

#[test]
fn every_removed_rule_is_missed() {
    for rule in [
        Rule::ClaimNamesLastClaim,
        Rule::ClaimNamesLastEntry,
        Rule::CommandsNameLastClaim,
        Rule::CommandsNameLastEntry,
    ] {
        let caught = (0..500).find(|seed| !agrees(&journal(*seed), Rules::without(rule)));
        assert!(caught.is_some(), "{rule:?} is not missed");
    }
}

#[test]
fn a_void_slot_is_passed_and_changes_nothing() {
    let mut chain = Chain::genesis(0);
    let claim = entry(id(1, 1), EntryId::GENESIS, EntryId::GENESIS, true);
    chain.feed(&claim.encode()).expect("an entry");
    let stranger = entry(id(2, 9), id(1, 7), id(1, 1), false);
    let verdict = chain.feed(&stranger.encode()).expect("an entry");
    assert_eq!(verdict, Verdict::Void(Void::WrongClaim));
    assert_eq!(
        (chain.next(), chain.last(), chain.claim()),
        (3, id(1, 1), id(1, 1))
    );
    let own = entry(id(3, 2), id(1, 1), id(1, 1), false);
    let verdict = chain.feed(&own.encode()).expect("an entry");
    assert!(matches!(verdict, Verdict::Valid { .. }));
}

#[test]
fn commands_before_any_claim_are_void() {
    let mut chain = Chain::genesis(0);
    let commands = entry(id(1, 1), EntryId::GENESIS, EntryId::GENESIS, false);
    let verdict = chain.feed(&commands.encode()).expect("an entry");
    assert_eq!(verdict, Verdict::Void(Void::Unclaimed));
}

#[test]
fn damage_leaves_the_chain_where_it_was() {
    let mut chain = Chain::genesis(0);
    let before = chain.clone();
    assert!(chain.feed(&Bytes::from_static(b"noise")).is_err());
    // Whole entries of another slot and of another shard, which no writer puts there.
    let mut astray = entry(id(2, 1), EntryId::GENESIS, EntryId::GENESIS, true);
    assert!(chain.feed(&astray.encode()).is_err());
    astray.header.id.index = 1;
    astray.header.shard = 1;
    assert!(chain.feed(&astray.encode()).is_err());
    assert_eq!(chain, before);
}

#[test]
fn stamps_never_decrease() {
    let mut chain = Chain::genesis(0);
    let mut claim = entry(id(1, 1), EntryId::GENESIS, EntryId::GENESIS, true);
    claim.header.stamp = Stamp {
        wall_millis: 100,
        ticks_millis: 5,
    };
    chain.feed(&claim.encode()).expect("an entry");
    let mut late = entry(id(2, 2), id(1, 1), id(1, 1), false);
    late.header.stamp = Stamp {
        wall_millis: 50,
        ticks_millis: 9,
    };
    let Ok(Verdict::Valid { stamp, .. }) = chain.feed(&late.encode()) else {
        panic!("the entry is valid");
    };
    assert_eq!((stamp.wall_millis, stamp.ticks_millis), (100, 9));
}
