//! Three buckets in memory, some of which are away, silent, late, or not the cluster's.

use std::time::Duration;

use super::copies::Copier;
use super::filling::Filled;
use super::*;
use crate::faulty::{Fault, FaultRule, Faulty};
use crate::memory::Memory;
use crate::retry::{Limits, Retry};

struct Case {
    buckets: Arc<Buckets>,
    faulty: Vec<Arc<Faulty>>,
    key: Key,
}

impl Case {
    fn new() -> Self {
        let faulty = (0..3).map(|seed| Arc::new(Faulty::new(Arc::new(Memory::new()), seed)));
        let faulty: Vec<_> = faulty.collect();
        let members = (0..).zip(&faulty).map(|(number, bucket)| Member {
            number,
            name: number.to_string(),
            bucket: Arc::<Faulty>::clone(bucket),
            counters: Arc::default(),
        });
        let buckets = Buckets::new(members.collect(), 2).unwrap();
        for number in 0..3 {
            buckets.looked(number, host::clock::now(), Standing::Proven);
        }
        Case {
            buckets: Arc::new(buckets),
            faulty,
            key: Key::new("a/b").unwrap(),
        }
    }

    fn fault(&self, bucket: usize, fault: Fault) {
        self.faulty[bucket].faults().add(FaultRule::always(fault));
    }

    async fn put(&self) -> Result<Put, Error> {
        in_time(self.buckets.put_new(&self.key, BODY.into())).await
    }

    async fn get(&self) -> Result<Option<Bytes>, Error> {
        in_time(self.buckets.get(&self.key)).await
    }

    /// Puts the object into one bucket alone.
    async fn put_into(&self, bucket: usize) {
        let put = self.faulty[bucket].put_new(&self.key, BODY.into()).await;
        assert_eq!(put, Ok(Put::Created));
    }
}

const BODY: Bytes = Bytes::from_static(b"0123456789");

/// Runs `work` with a limit, far below the time that a request which is never answered would take.
async fn in_time<T>(work: impl Future<Output = T>) -> T {
    let ended = host::clock::timeout(Duration::from_secs(60), work).await;
    ended.expect("it ends")
}

#[tokio::test]
async fn an_object_is_stored_once_two_hold_it_and_found_without_either() {
    for away in 0..3 {
        for fault in [Fault::Silence, Fault::Unknown, Fault::Definite] {
            let case = Case::new();
            case.fault(away, fault);
            assert_eq!(case.put().await, Ok(Put::Created), "{fault:?} of {away}");
            case.faulty[away].faults().clear();
            for lost in (0..3).filter(|other| *other != away) {
                case.fault(lost, fault);
                assert_eq!(case.get().await, Ok(Some(BODY)), "without {lost}");
                case.faulty[lost].faults().clear();
            }
        }
    }
}

#[tokio::test]
async fn without_two_buckets_nothing_is_stored_and_nothing_is_absent() {
    let case = Case::new();
    case.put_into(2).await;
    case.fault(1, Fault::Unknown);
    case.fault(2, Fault::Unknown);
    let failed = case.put().await.expect_err("one bucket is too few");
    assert!(failed.may_have_happened(), "{failed}");
    // The first lacks it, the others do not say.
    case.faulty[0].delete(&case.key).await.unwrap();
    let failed = case.get().await.expect_err("nobody knows");
    assert!(failed.may_have_happened(), "{failed}");
    let listed = in_time(case.buckets.list("", None, 10)).await;
    listed.expect_err("one bucket is too few for a listing");
}

#[tokio::test]
async fn what_two_buckets_lack_is_not_stored_whatever_the_third_says() {
    let case = Case::new();
    case.fault(0, Fault::Silence);
    assert_eq!(case.get().await, Ok(None));
}

#[tokio::test]
async fn an_object_is_read_from_whichever_bucket_has_it() {
    for only in 0..3 {
        let case = Case::new();
        case.put_into(only).await;
        match only {
            // Two lack it, which proves that it was never stored.
            2 => assert_eq!(case.get().await, Ok(None)),
            _ => assert_eq!(case.get().await, Ok(Some(BODY))),
        }
        let listed = in_time(case.buckets.list("a", None, 10)).await.unwrap();
        assert_eq!(listed.len(), 1, "listings nominate what is anywhere");
    }
}

#[tokio::test]
async fn a_refusal_of_all_is_a_refusal_and_other_content_a_conflict() {
    let case = Case::new();
    (0..3).for_each(|bucket| case.fault(bucket, Fault::Definite));
    let refused = case.put().await.expect_err("all refuse");
    assert!(!refused.worth_repeating(), "{refused}");

    let case = Case::new();
    for bucket in &case.faulty {
        let other = Bytes::from_static(b"other");
        bucket.put_new(&case.key, other.into()).await.unwrap();
    }
    assert_eq!(case.put().await, Ok(Put::Conflict));
}

#[tokio::test]
async fn a_bucket_that_is_not_the_clusters_counts_for_nothing() {
    let case = Case::new();
    let now = host::clock::now();
    let why = "it was wiped".to_owned();
    case.buckets.looked(1, now, Standing::Refused(why));
    case.buckets.looked(2, now, Standing::Unproven);
    let failed = case.put().await.expect_err("one bucket is too few");
    assert!(failed.may_have_happened(), "{failed}");
    assert_eq!(case.faulty[1].get(&case.key).await, Ok(None));
    assert_eq!(case.faulty[2].get(&case.key).await, Ok(None));
    // What was refused stays so, and a look of long ago proves nothing.
    case.buckets.looked(1, now, Standing::Proven);
    let long_ago = host::clock::Instant::default();
    case.buckets.looked(2, long_ago, Standing::Proven);
    case.put().await.expect_err("one bucket is too few");
    case.buckets.looked(2, host::clock::now(), Standing::Proven);
    assert_eq!(case.put().await, Ok(Put::Created));
}

#[tokio::test]
async fn an_answer_that_comes_after_a_bucket_was_refused_counts_for_nothing() {
    let case = Case::new();
    case.put_into(0).await;
    let late = Fault::Delay(Duration::from_millis(200));
    case.faulty[0].faults().add(FaultRule::always(late));
    let alone = &case.buckets.by_number()[0];
    let (read, ()) = tokio::join!(alone.get(&case.key), async {
        host::clock::sleep(Duration::from_millis(20)).await;
        let why = "it was wiped".to_owned();
        case.buckets
            .looked(0, host::clock::now(), Standing::Refused(why));
    });
    read.expect_err("it counts for nothing any more");
}

#[tokio::test]
async fn a_copier_names_who_holds_an_object_and_who_comes_to_hold_it_later() {
    let case = Case::new();
    case.faulty[0]
        .faults()
        .add(FaultRule::always(Fault::Unknown).times(2));
    let copier = Copier::new(Arc::clone(&case.buckets), Limits::FILES);
    let copies = in_time(copier.put(&case.key, &BODY.into())).await.unwrap();
    assert_eq!(copies.held, [1, 2]);
    let mut late = copies.late;
    assert_eq!(in_time(late.next()).await, Some((0, Ok(()))));
    assert_eq!(late.next().await, None);
}

#[tokio::test]
async fn a_bucket_is_filled_with_what_another_holds_and_other_bytes_are_left() {
    let retry = Retry::new(Limits::FILES);
    for fault in [Fault::LoseReply, Fault::Unknown, Fault::Conflict] {
        let case = Case::new();
        case.put_into(1).await;
        case.faulty[2]
            .faults()
            .add(FaultRule::on(Op::PutNew, fault).times(2));
        let others = case.buckets.among(&[0, 1]).expect("two");
        let read = in_time(others.get(&case.key)).await.unwrap();
        assert_eq!(read, Some(BODY), "one that lacks it proves nothing");
        for _ in 0..2 {
            let same = BODY.into();
            let filled = case.buckets.fill(2, &case.key, &same, &retry);
            assert_eq!(in_time(filled).await, Ok(Filled::Held), "{fault:?}");
        }
        let other = Bytes::from_static(b"0123456780").into();
        let filled = case.buckets.fill(2, &case.key, &other, &retry);
        assert_eq!(in_time(filled).await, Ok(Filled::Other));
        assert_eq!(case.faulty[2].get(&case.key).await, Ok(Some(BODY)));
    }
}

#[tokio::test]
async fn one_bucket_alone_counts_only_while_it_is_the_clusters() {
    let case = Case::new();
    case.put_into(0).await;
    let alone = case.buckets.among(&[0]).expect("one");
    assert_eq!(alone.get(&case.key).await, Ok(Some(BODY)));
    assert!(case.buckets.is_usable(0) && !case.buckets.is_usable(3));
    let why = "it was wiped".to_owned();
    let now = host::clock::now();
    case.buckets.looked(0, now, Standing::Refused(why));
    alone
        .get(&case.key)
        .await
        .expect_err("it counts for nothing");
    assert!(!case.buckets.is_usable(0));
    assert!(case.buckets.among(&[3]).is_none());
}

#[tokio::test]
async fn an_object_is_relied_upon_only_where_two_buckets_hold_it() {
    let case = Case::new();
    let holds = async || {
        let payload = BODY.into();
        let whole = in_time(case.buckets.holds(&case.key, &payload)).await;
        let long = case.buckets.holds_bytes(&case.key, BODY.len() as u64);
        assert_eq!(whole.clone().ok(), in_time(long).await.ok());
        whole
    };
    assert_eq!(holds().await, Ok(false));
    case.put_into(2).await;
    assert_eq!(holds().await, Ok(false), "one is too few");
    case.put_into(0).await;
    assert_eq!(holds().await, Ok(true));
    case.fault(1, Fault::Silence);
    assert_eq!(holds().await, Ok(true));
    case.fault(0, Fault::Unknown);
    case.faulty[1].faults().clear();
    case.fault(1, Fault::Unknown);
    holds().await.expect_err("two do not say");
}

#[tokio::test]
async fn a_bucket_that_never_answers_is_asked_last_after_a_while_and_comes_back() {
    let case = Case::new();
    assert_eq!(case.put().await, Ok(Put::Created));
    case.fault(0, Fault::Silence);
    for _ in 0..FAILURES_MAX {
        assert_eq!(case.get().await, Ok(Some(BODY)));
    }
    assert!(!case.buckets.states()[0].answers, "it counts as failing");
    case.faulty[0].faults().clear();
    in_time(async {
        while !case.buckets.states()[0].answers {
            assert_eq!(case.get().await, Ok(Some(BODY)));
            host::clock::sleep(Duration::from_millis(20)).await;
        }
    })
    .await;
}

#[tokio::test]
async fn a_deletion_that_one_bucket_did_not_do_is_done_again() {
    let case = Case::new();
    assert_eq!(case.put().await, Ok(Put::Created));
    case.fault(2, Fault::Unknown);
    in_time(case.buckets.delete(&case.key))
        .await
        .expect_err("one is away");
    case.faulty[2].faults().clear();
    in_time(case.buckets.delete(&case.key)).await.unwrap();
    assert_eq!(case.get().await, Ok(None));
}

#[tokio::test]
async fn what_one_bucket_holds_damaged_is_read_from_another() {
    let whole = |case: &Case| {
        let is_whole: IsWhole = Arc::new(|bytes| *bytes == BODY);
        let (buckets, key) = (Arc::clone(&case.buckets), case.key.clone());
        async move { in_time(buckets.get_whole(&key, is_whole)).await }
    };
    for damaged in 0..3 {
        let case = Case::new();
        for bucket in 0..3 {
            case.put_into(bucket).await;
        }
        assert_eq!(whole(&case).await, Ok(Some(BODY)));
        case.fault(damaged, Fault::Corrupt);
        assert_eq!(whole(&case).await, Ok(Some(BODY)), "{damaged}");
        // The one that might have it does not say.
        let other = (damaged + 1) % 3;
        case.fault(other, Fault::Corrupt);
        case.fault((damaged + 2) % 3, Fault::Unknown);
        let failed = whole(&case).await.expect_err("nobody knows");
        assert!(failed.worth_repeating(), "{failed}");
        case.faulty[(damaged + 2) % 3].faults().clear();
        assert_eq!(whole(&case).await, Ok(Some(BODY)));
        case.fault((damaged + 2) % 3, Fault::Corrupt);
        let read = whole(&case).await.expect("all have said so");
        assert!(read.is_some_and(|read| read != BODY), "it is damaged");
    }
    let case = Case::new();
    assert_eq!(whole(&case).await, Ok(None));
}

#[tokio::test]
async fn nothing_is_kept_for_the_sake_of_a_bucket_that_is_away() {
    let case = Case::new();
    for bucket in 0..3 {
        case.put_into(bucket).await;
    }
    let away = |bucket| {
        let long_ago = host::clock::Instant::default();
        case.buckets.looked(bucket, long_ago, Standing::Proven);
    };
    away(2);
    in_time(case.buckets.delete(&case.key)).await.unwrap();
    assert_eq!(case.get().await, Ok(None));
    assert_eq!(case.faulty[2].get(&case.key).await, Ok(Some(BODY)));
    case.put_into(0).await;
    away(1);
    let failed = in_time(case.buckets.delete(&case.key)).await;
    assert!(failed.expect_err("two may hold it").may_have_happened());
    assert_eq!(case.faulty[0].get(&case.key).await, Ok(Some(BODY)));
}

#[test]
fn buckets_without_numbers_of_their_own_or_too_few_are_refused() {
    let member = |number| Member {
        number,
        name: number.to_string(),
        bucket: Arc::new(Memory::new()) as Arc<dyn Bucket>,
        counters: Arc::default(),
    };
    let refused = |numbers: &[u32], copies| {
        let members = numbers.iter().map(|number| member(*number)).collect();
        Buckets::new(members, copies).err()
    };
    assert_eq!(refused(&[], 1), Some(Unusable::Numbers));
    assert_eq!(refused(&[0, 0], 1), Some(Unusable::Numbers));
    assert_eq!(refused(&[0, 1], 3), Some(Unusable::Copies));
    assert_eq!(refused(&[0, 1], 0), Some(Unusable::Copies));
    assert_eq!(refused(&[0, 1, 2], 2), None);
}

#[tokio::test]
async fn what_a_suspect_bucket_holds_and_does_not_have_counts_for_nothing() {
    let case = Case::new();
    case.buckets.suspect(0b001);
    case.fault(2, Fault::Unknown);
    assert!(case.put().await.is_err(), "one that counts is not enough");
    case.faulty[2].faults().clear();
    assert_eq!(case.put().await, Ok(Put::Created));
    let case = Case::new();
    case.fault(1, Fault::Unknown);
    assert_eq!(case.get().await, Ok(None));
    case.buckets.suspect(0b001);
    assert!(case.get().await.is_err(), "it may be in the one that fails");
    case.buckets.suspect(0);
    assert_eq!(case.get().await, Ok(None));
}

#[tokio::test]
async fn what_one_bucket_lacks_and_another_has_is_remembered_once() {
    let case = Case::new();
    case.put_into(1).await;
    for _ in 0..2 {
        assert_eq!(case.get().await, Ok(Some(BODY)));
    }
    let missed = case.buckets.take_missed(9);
    assert_eq!(missed, [(case.key.clone(), 0)]);
    assert_eq!(case.buckets.take_missed(9), []);
}

#[tokio::test]
async fn a_bucket_at_which_no_look_was_good_of_late_does_not_answer_though_nobody_asked_it() {
    let case = Case::new();
    let state = || case.buckets.states().swap_remove(0);
    assert!(state().answers);
    let long_ago = host::clock::now().as_micros() - LOOK_COUNTS_FOR.as_micros() as u64;
    let number = state().number;
    case.buckets
        .looked(number, Instant::from_micros(long_ago), Standing::Proven);
    assert!(!state().answers);
    case.buckets
        .looked(number, host::clock::now(), Standing::Proven);
    assert!(state().answers);
}
