//! Nothing is made up when no etcd answers. What one answers is tried in `tests/it`, on real ones.

use super::*;
use crate::founding::Refusal;

fn nowhere() -> Etcd {
    // Port 9 discards what it is sent, where it is served at all.
    let location = Location::parse("etcd://127.0.0.1:9/x").expect("a location");
    Etcd::new(&location, &Security::default(), "cluster", 0)
}

#[tokio::test]
async fn an_etcd_that_is_away_is_neither_empty_nor_refuses() {
    let engine = nowhere();
    let scan = engine.scan(1, 10);
    let floor = engine.floor();
    let above = engine.above(0);
    let taken = engine.take(1, 1);
    let admitted = engine.admit(true);
    let all = async { tokio::join!(scan, floor, above, taken, admitted) };
    let (scan, floor, above, taken, admitted) = all.await;
    assert!(
        scan.slots.is_empty() && matches!(scan.end, End::Undecided(_)),
        "{scan:?}"
    );
    assert!(matches!(floor, Err(Error::Unavailable(_))), "{floor:?}");
    assert!(matches!(above, Err(Error::Unavailable(_))), "{above:?}");
    assert!(matches!(taken.map(drop), Err(TakeError::Unavailable(_))));
    assert!(matches!(admitted, Err(Refusal::Waits(_))), "{admitted:?}");
}

#[test]
fn the_mark_of_another_engine_is_refused() {
    let engine = nowhere();
    assert_eq!(engine.adopt(&engine.mark(9)), Ok(()));
    assert!(engine.adopt(b"x").is_err());
}
