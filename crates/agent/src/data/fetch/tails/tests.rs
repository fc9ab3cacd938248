//! What begins a tail, what it answers, and what ends it.

use meta::ids::FileId;
use meta::places::SlicePlace;

use super::*;

const ROOMY: u64 = 1 << 20;

fn at(millis: u64) -> Instant {
    Instant::from_millis(millis)
}

fn place(base_offset: i64, last_offset: i64) -> SlicePlace {
    SlicePlace {
        file: FileId::default(),
        nonce: 0,
        file_length: 1_000,
        position: 16,
        length: 10,
        base_offset,
        last_offset,
        max_timestamp: 0,
    }
}

fn advanced(partition: u64, base_offset: i64, last_offset: i64) -> Notice {
    Notice::Advanced {
        partition: PartitionId(partition),
        high_watermark: last_offset + 1,
        place: place(base_offset, last_offset),
    }
}

fn told(from: u64, to: u64, notices: &[Notice]) -> Told {
    Told {
        from: Position(from),
        to: Position(to),
        age_millis: 0,
        notices: notices.to_vec(),
    }
}

fn wanted(partition: u64, offset: i64) -> Locate {
    Locate {
        partition: PartitionId(partition),
        offset,
        max_bytes: 25,
    }
}

fn found(high_watermark: i64, places: &[SlicePlace]) -> Located {
    Located::Found {
        log_start: 0,
        high_watermark,
        places: places.to_vec(),
    }
}

/// Tails that were told everything up to entry 5.
fn tails(bytes_max: u64) -> Tails {
    let mut tails = Tails::of_bytes(bytes_max);
    tails.tell(&told(5, 5, &[]), at(0));
    tails
}

fn look(tails: &mut Tails, partition: u64, offset: i64, now: Instant) -> Option<Located> {
    let looked = tails.look(&[wanted(partition, offset)], now);
    looked.found.into_iter().next().flatten()
}

/// The tail of partition 1, which ends at offset 10, as entry 5 left it.
fn begun() -> Tails {
    let mut tails = tails(ROOMY);
    assert_eq!(look(&mut tails, 1, 10, at(0)), None);
    answer(&mut tails, 10, 10, 5);
    tails
}

/// Takes the answer that partition 1 ends at `end` to somebody who wants it from `offset` on.
fn answer(tails: &mut Tails, offset: i64, end: i64, known_to: u64) {
    let places = [place(offset, end - 1)];
    let places = if offset < end { &places[..] } else { &[] };
    let both = (wanted(1, offset), found(end, places));
    tails.begin([(&both.0, &both.1)].into_iter(), Position(known_to));
}

#[test]
fn whoever_reads_at_the_end_or_where_the_last_records_are_needs_no_call() {
    let mut tails = begun();
    assert_eq!(look(&mut tails, 1, 10, at(1)), Some(found(10, &[])));
    let notices = [advanced(1, 10, 11), advanced(2, 0, 7), advanced(1, 12, 14)];
    tails.tell(&told(5, 6, &notices), at(1));
    let (first, second) = (place(10, 11), place(12, 14));
    assert_eq!(
        look(&mut tails, 1, 10, at(1)),
        Some(found(15, &[first, second]))
    );
    assert_eq!(
        look(&mut tails, 1, 11, at(1)),
        Some(found(15, &[first, second]))
    );
    assert_eq!(look(&mut tails, 1, 12, at(1)), Some(found(15, &[second])));
    assert_eq!(look(&mut tails, 1, 15, at(1)), Some(found(15, &[])));
    assert_eq!(look(&mut tails, 1, 16, at(1)), None, "beyond the end");
    assert_eq!(look(&mut tails, 1, 9, at(1)), None, "further behind");
    assert_eq!(look(&mut tails, 2, 8, at(1)), None, "nobody read there");
}

#[test]
fn an_answer_names_no_more_slices_than_are_wanted() {
    let mut tails = begun();
    let notices: Vec<Notice> = (10..20).map(|offset| advanced(1, offset, offset)).collect();
    tails.tell(&told(5, 6, &notices), at(1));
    let Some(Located::Found { places, .. }) = look(&mut tails, 1, 12, at(1)) else {
        panic!("it is known");
    };
    assert_eq!(places, [place(12, 12), place(13, 13), place(14, 14)]);
}

#[test]
fn what_does_not_join_ends_the_tail() {
    let mut tails = begun();
    tails.tell(
        &told(5, 6, &[advanced(1, 9, 9), advanced(1, 10, 10)]),
        at(1),
    );
    assert_eq!(
        look(&mut tails, 1, 11, at(1)),
        Some(found(11, &[])),
        "known before, and joined"
    );
    tails.tell(&told(6, 7, &[advanced(1, 12, 12)]), at(1));
    assert_eq!(look(&mut tails, 1, 11, at(1)), None);
}

#[test]
fn silence_and_whatever_may_be_missing_end_all_tails() {
    let mut silent = begun();
    assert!(look(&mut silent, 1, 10, at(999)).is_some());
    assert_eq!(look(&mut silent, 1, 10, at(1_000)), None);
    answer(&mut silent, 10, 10, 5);
    assert_eq!(
        look(&mut silent, 1, 10, at(1_000)),
        None,
        "as long as nothing is heard"
    );
    silent.tell(&told(5, 6, &[]), at(1_100));
    assert_eq!(look(&mut silent, 1, 10, at(1_100)), None);
    answer(&mut silent, 10, 10, 6);
    assert!(look(&mut silent, 1, 10, at(1_100)).is_some());

    // The message after a silence may be the one that tells what was missing.
    let mut late = begun();
    late.tell(&told(5, 6, &[]), at(1_000));
    assert_eq!(look(&mut late, 1, 10, at(1_000)), None);

    let mut missing = begun();
    missing.end_all();
    assert_eq!(look(&mut missing, 1, 10, at(1)), None);
    let mut gone = begun();
    gone.end([PartitionId(1)].into_iter());
    assert_eq!((look(&mut gone, 1, 10, at(1)), gone.count()), (None, 1));
}

#[test]
fn a_tail_begins_only_with_an_answer_that_joins_what_was_told_since_it_was_asked_for() {
    let cases = [
        // The end that an answer tells, what it knows, and the end that comes of it.
        (10, 4, None),
        (10, 5, Some(13)),
        (11, 6, Some(13)),
        (12, 6, Some(13)),
        (13, 7, Some(13)),
        (14, 9, Some(14)),
        (9, 5, None),
    ];
    for (end, known_to, expected) in cases {
        let mut tails = tails(ROOMY);
        assert_eq!(look(&mut tails, 1, end, at(0)), None);
        tails.tell(&told(5, 6, &[advanced(1, 10, 11)]), at(0));
        tails.tell(&told(6, 7, &[advanced(1, 12, 12)]), at(0));
        answer(&mut tails, end, end, known_to);
        let known = look(&mut tails, 1, expected.unwrap_or(end), at(0));
        assert_eq!(
            known,
            expected.map(|end| found(end, &[])),
            "{end} at {known_to}"
        );
    }
    let mut behind = tails(ROOMY);
    look(&mut behind, 1, 3, at(0));
    let both = (wanted(1, 3), found(10, &[place(3, 4)]));
    behind.begin([(&both.0, &both.1)].into_iter(), Position(5));
    assert_eq!(
        behind.count(),
        0,
        "a reader that is far behind needs no tail"
    );
}

#[test]
fn what_this_agent_has_committed_can_be_read_before_it_is_told() {
    let mut tails = begun();
    let mut commit = CommitFile::default();
    let accepted = |base_offset| BatchOutcome::Accepted {
        base_offset,
        log_start: 0,
    };
    commit.slices.partition = vec![7, 1];
    commit.slices.batches = vec![1, 2];
    commit.batches.records = vec![100, 2, 3];
    let outcomes = [accepted(0), accepted(10), BatchOutcome::OutOfOrder];
    tails.committed(&commit, &outcomes);
    assert_eq!(look(&mut tails, 1, 10, at(0)), None);
    tails.tell(&told(5, 6, &[advanced(1, 10, 11)]), at(0));
    assert!(look(&mut tails, 1, 10, at(0)).is_some());
}

#[test]
fn the_first_offset_moves_and_what_lies_before_it_is_asked_for() {
    let mut tails = begun();
    let start = |log_start| Notice::LogStart {
        partition: PartitionId(1),
        log_start,
    };
    tails.tell(
        &told(5, 6, &[advanced(1, 10, 14), advanced(1, 15, 15)]),
        at(0),
    );
    tails.tell(&told(6, 7, &[start(12)]), at(0));
    assert_eq!(look(&mut tails, 1, 11, at(0)), None);
    let Some(Located::Found {
        log_start, places, ..
    }) = look(&mut tails, 1, 12, at(0))
    else {
        panic!("it is known");
    };
    assert_eq!((log_start, places.len()), (12, 2));
    tails.tell(&told(7, 8, &[start(20)]), at(0));
    assert_eq!((look(&mut tails, 1, 16, at(0)), tails.count()), (None, 1));
}

#[test]
fn memory_is_bounded_and_tails_at_which_others_read_stay() {
    const BYTES_MAX: u64 = 10_000;
    let mut tails = tails(BYTES_MAX);
    answer_of(&mut tails, 0);
    for partition in 1..1_000 {
        answer_of(&mut tails, partition);
        assert!(tails.bytes <= BYTES_MAX);
    }
    let count = tails.count();
    assert!((2..100).contains(&count), "{count}");
    assert!(look(&mut tails, 0, 0, at(1)).is_some(), "the first stays");
    for offset in 0..1_000 {
        let of_all: Vec<Notice> = (0..1_000).map(|id| advanced(id, offset, offset)).collect();
        tails.tell(&told(5, 6, &of_all), at(1));
        assert!(tails.bytes <= BYTES_MAX);
    }
    assert_eq!(look(&mut tails, 0, 1_000, at(1)), Some(found(1_000, &[])));
    let bytes: u64 = tails.tails.values().map(Tail::bytes).sum();
    assert_eq!(tails.bytes, bytes);

    // Nobody reads any more, and others have room.
    let mut now = 1;
    while now < 61_000 {
        now += 500;
        tails.tell(&told(6, 6, &[]), at(now));
    }
    assert_eq!((tails.count(), tails.bytes), (0, 0));
}

/// Begins the tail of an empty partition, if there is room.
fn answer_of(tails: &mut Tails, partition: u64) {
    look(tails, partition, 0, at(0));
    let both = (wanted(partition, 0), found(0, &[]));
    tails.begin([(&both.0, &both.1)].into_iter(), Position(5));
}
