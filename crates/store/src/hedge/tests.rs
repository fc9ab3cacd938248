//! Hedged requests on buckets in memory that are slow, silent or refuse. They must not know how the
//! race decides: `race` has tests of its own.

use std::time::Duration;

use super::*;
use crate::faulty::{Fault, FaultRule, Faulty};
use crate::memory::Memory;
use crate::meter::{Extra, Meter};

/// A bucket in memory that counts as remote, its faults, and what it was asked.
struct Case {
    bucket: Hedged,
    faulty: Faulty,
    counters: Arc<Counters>,
    key: Key,
}

impl Case {
    fn new() -> Self {
        let faulty = Faulty::new(Arc::new(Memory::new()), 1);
        let meter = Meter::new(Arc::new(faulty.clone()));
        let counters = Arc::clone(meter.counters());
        Case {
            bucket: Hedged::new(Arc::new(meter), Arc::clone(&counters)),
            faulty,
            counters,
            key: Key::new("a/b").unwrap(),
        }
    }

    fn fault(&self, rule: FaultRule) {
        self.faulty.faults().add(rule);
    }

    async fn put(&self, text: &'static str) -> Result<Put, Error> {
        let put = self.bucket.put_new(&self.key, Bytes::from(text).into());
        in_time(put).await
    }
}

/// Runs `work` with a limit, far below the time that a request which never ends would take.
async fn in_time<T>(work: impl Future<Output = T>) -> T {
    let ended = host::clock::timeout(Duration::from_secs(60), work).await;
    ended.expect("it ends")
}

#[tokio::test]
async fn a_request_that_is_never_answered_is_overtaken_by_a_second_copy() {
    for op in [Op::PutNew, Op::Get, Op::GetRange, Op::Head, Op::List] {
        let case = Case::new();
        if op != Op::PutNew {
            case.put("0123456789").await.unwrap();
        }
        case.fault(FaultRule::on(op, Fault::Silence).times(1));
        let (bucket, key) = (&case.bucket, &case.key);
        match op {
            Op::PutNew => assert_eq!(case.put("0123456789").await, Ok(Put::Created)),
            Op::Get => {
                let got = in_time(bucket.get(key)).await.unwrap();
                assert_eq!(got.as_deref(), Some(b"0123456789".as_slice()));
            }
            Op::GetRange => {
                let got = in_time(bucket.get_range(key, 2..5)).await.unwrap();
                assert_eq!(got.as_deref(), Some(b"234".as_slice()));
            }
            Op::Head => assert_eq!(in_time(bucket.head(key)).await, Ok(Some(10))),
            _ => assert_eq!(in_time(bucket.list("", None, 10)).await.unwrap().len(), 1),
        }
        let once = Extra {
            hedges: 1,
            hedges_won: 1,
            repeats: 0,
        };
        assert_eq!(case.counters.extra(), once, "{op}");
    }
}

#[tokio::test]
async fn a_body_that_stops_is_read_on_from_where_it_stopped() {
    for ranged in [false, true] {
        let case = Case::new();
        case.put("0123456789").await.unwrap();
        let op = if ranged { Op::GetRange } else { Op::Get };
        case.fault(FaultRule::on(op, Fault::Stall).times(1));
        let (got, expected) = match ranged {
            true => (
                in_time(case.bucket.get_range(&case.key, 2..8)).await,
                "234567",
            ),
            false => (in_time(case.bucket.get(&case.key)).await, "0123456789"),
        };
        assert_eq!(got.unwrap().unwrap(), expected);
        let second = case.counters.counts()[Op::GetRange as usize];
        assert_eq!(second.bytes, expected.len() as u64 / 2, "only the rest");
    }
}

#[tokio::test]
async fn a_conflict_with_a_copy_of_its_own_is_a_success() {
    let case = Case::new();
    case.fault(FaultRule::on(Op::PutNew, Fault::LoseReply).times(1));
    assert_eq!(case.put("ours").await, Ok(Put::Created));
    let conflicts = case.counters.counts()[Op::PutNew as usize].conflicts;
    assert_eq!(conflicts, 1, "the second copy met the first");
}

#[tokio::test]
async fn a_conflict_with_somebody_else_is_one() {
    let case = Case::new();
    case.put("theirs").await.unwrap();
    for text in ["ours", "OTHERS"] {
        case.fault(FaultRule::on(Op::PutNew, Fault::Unknown).times(1));
        assert_eq!(case.put(text).await, Ok(Put::Conflict), "{text}");
    }
    assert_eq!(
        case.put("theirs").await,
        Ok(Put::Conflict),
        "one request, one word"
    );
}

#[tokio::test]
async fn what_the_store_refuses_for_load_comes_again_soon() {
    let case = Case::new();
    case.fault(FaultRule::on(Op::PutNew, Fault::Throttled).times(3));
    assert_eq!(case.put("ours").await, Ok(Put::Created));
    assert_eq!(case.counters.extra().repeats, 3);
    case.fault(FaultRule::on(Op::Get, Fault::Throttled));
    let refused = in_time(case.bucket.get(&case.key)).await;
    assert!(
        matches!(refused, Err(Error::Throttled { .. })),
        "{refused:?}"
    );
}

#[tokio::test]
async fn if_one_copy_may_have_happened_so_may_the_whole() {
    let case = Case::new();
    case.fault(FaultRule::on(Op::PutNew, Fault::Unknown).times(1));
    case.fault(FaultRule::on(Op::PutNew, Fault::Definite));
    let failed = case.put("ours").await;
    assert!(matches!(failed, Err(Error::Unknown { .. })), "{failed:?}");
}

#[tokio::test]
async fn absence_is_the_word_of_whoever_answers() {
    let case = Case::new();
    case.fault(FaultRule::on(Op::Get, Fault::Silence).times(1));
    assert_eq!(in_time(case.bucket.get(&case.key)).await, Ok(None));
}

#[tokio::test]
async fn a_bucket_that_is_not_remote_is_asked_once() {
    let meter = Meter::new(Arc::new(Memory::new()));
    let counters = Arc::clone(meter.counters());
    let bucket = Hedged::new(Arc::new(meter), counters);
    assert!(!bucket.is_remote());
    let key = Key::new("a").unwrap();
    assert_eq!(bucket.put_new(&key, vec![1].into()).await, Ok(Put::Created));
    assert_eq!(bucket.get(&key).await.unwrap().unwrap(), [1].as_slice());
}

#[tokio::test]
async fn a_read_whose_bytes_have_all_come_is_answered_without_another_request() {
    for (op, range) in [(Op::Get, None), (Op::GetRange, Some(2..8))] {
        let case = Case::new();
        case.put("0123456789").await.unwrap();
        case.fault(FaultRule::on(op, Fault::Endless));
        let got = match range {
            Some(range) => in_time(case.bucket.get_range(&case.key, range)).await,
            None => in_time(case.bucket.get(&case.key)).await,
        };
        let expected = if op == Op::Get {
            "0123456789"
        } else {
            "234567"
        };
        assert_eq!(got, Ok(Some(Bytes::from(expected))));
        let answered = case.counters.counts()[op as usize].requests;
        assert_eq!(answered, 0, "no request has ended");
    }
}

#[tokio::test]
async fn what_one_copy_of_a_read_is_told_for_certain_is_the_answer_though_another_is_silent() {
    let case = Case::new();
    case.put("0123456789").await.unwrap();
    case.fault(FaultRule::on(Op::GetRange, Fault::Silence).times(1));
    let got = in_time(case.bucket.get_range(&case.key, 2..20)).await;
    let short = "bytes 2..20 were asked for, but the object ends at 10";
    assert_eq!(got, Err(Error::definite(Op::GetRange, &case.key, short)));
}

#[test]
fn a_store_that_promised_less_than_was_asked_for_has_a_short_object() {
    let key = Key::new("a").unwrap();
    let first = Part::after(None);
    first.received.expect(8);
    first.received.push(Bytes::from_static(b"23456789"));
    let second = Part::after(Some(&first));
    assert!(second.is_whole());
    let short = "bytes 2..20 were asked for, but the object ends at 10";
    let refused = Err(Error::definite(Op::GetRange, &key, short));
    assert_eq!(second.answer(&key, Some(&(2..20))), refused);
    assert_eq!(
        second.answer(&key, Some(&(2..10))),
        Ok(Bytes::from("23456789"))
    );
}

const MIB: u64 = 1 << 20;
/// Writers that wait for their own upload before the next, as producers do, and their uploads.
const WRITERS: u64 = 16;
const UPLOADS: u64 = 5;

/// Probes a bucket behind an uplink of so many bits a second and uploads files of 1 MiB, each with a
/// small entry after it: how long that took, and what was sent again.
fn over_uplink(mbit: u64) -> (Duration, Extra) {
    let scenario = async move {
        let faulty = Faulty::new(Arc::new(Memory::new()), 1).behind_uplink(mbit * 125_000);
        let meter = Meter::new(Arc::new(faulty));
        let counters = Arc::clone(meter.counters());
        let bucket: Arc<dyn Bucket> = Arc::new(Hedged::new(Arc::new(meter), Arc::clone(&counters)));
        let begun = host::clock::now();
        assert_eq!(crate::probe::run(&bucket).await, Ok(()));
        let writers = (0..WRITERS).map(|writer| {
            let bucket = Arc::clone(&bucket);
            host::task::spawn("writer", async move {
                for upload in 0..UPLOADS {
                    let file = Key::new(format!("files/{writer}/{upload}")).unwrap();
                    let body = Bytes::from(vec![1; MIB as usize]);
                    assert_eq!(bucket.put_new(&file, body.into()).await, Ok(Put::Created));
                    let entry = Key::new(format!("journal/{writer}/{upload}")).unwrap();
                    let body = Bytes::from_static(b"entry");
                    assert_eq!(bucket.put_new(&entry, body.into()).await, Ok(Put::Created));
                }
            })
            .join()
        });
        let ended = futures::future::join_all(writers).await;
        assert!(ended.iter().all(Option::is_some));
        (host::clock::now().since(begun), counters.extra())
    };
    let ran = host::seeded::run(1, Box::new(|_, _| {}), scenario);
    ran.expect("it ends").value
}

#[test]
fn over_a_slow_uplink_a_node_gets_ready_and_its_uploads_do_not_starve_each_other() {
    for mbit in [8, 20, 100] {
        let (took, extra) = over_uplink(mbit);
        let bytes = (WRITERS * UPLOADS + 8) * MIB;
        let needed = Duration::from_micros(bytes * 8 / mbit);
        assert!(took < needed * 5 / 4, "{mbit} Mbit/s: {took:?}, {extra:?}");
    }
}
