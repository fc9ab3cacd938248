//! Entries that come back altered.

use super::*;

#[tokio::test]
async fn a_damaged_entry_is_refused_by_name() {
    let world = World::new();
    {
        let (handle, _replica) = world.start();
        role(&handle, Role::Leader).await;
        add_all(&handle, 0..5).await;
    }
    let key = Key::new("journal/0000/00000000000000000003").expect("a key");
    world.damage(&key, false).await;
    let (handle, _replica) = world.start();
    role(&handle, Role::Halted).await;
    let why = handle.status().halted.expect("a reason");
    assert!(why.contains("entry 3 of the journal is damaged"), "{why}");
    assert!(why.contains(key.as_str()), "{why}");
}

#[tokio::test]
async fn an_entry_that_comes_back_damaged_is_read_again() {
    let world = World::new();
    let (handle, _replica) = world.start();
    role(&handle, Role::Leader).await;
    // The create is answered as a conflict, and what is read then was altered on the way.
    for number in 1..=6 {
        let faults = world.bucket.faults();
        faults.add(FaultRule::on(Op::PutNew, Fault::LoseReply).times(1));
        faults.add(FaultRule::on(Op::Get, Fault::Corrupt).times(1));
        assert_eq!(add(&handle, number).await, Ok((1..=number).sum()));
    }
}

#[tokio::test]
async fn an_entry_that_comes_back_damaged_as_the_bucket_goes_away_is_read_again_once_it_is_back() {
    let world = World::new();
    {
        let (handle, _replica) = world.start();
        role(&handle, Role::Leader).await;
        add_all(&handle, 1..5).await;
    }
    let slots = world.keys("journal/0000/").await;
    let slot = slots[2].as_str();
    let faults = world.bucket.faults();
    faults.add(FaultRule::on(Op::Get, Fault::Corrupt).below(slot).times(1));
    faults.add(FaultRule::on(Op::Get, Fault::Unknown).below(slot).times(20));
    let (handle, _replica) = world.start();
    role(&handle, Role::Leader).await;
    assert_eq!(add(&handle, 5).await, Ok(15));
    assert_eq!(faults.injected(), 21);
}
