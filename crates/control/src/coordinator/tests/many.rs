//! Groups of very many members: work that grows with the square of their number takes minutes here.

use std::time::Duration;

use meta::group::Phase;

use super::rig::{DELAY, Rig, back, modern, settings};
use crate::coordinator::{Settings, Ticket};

const MEMBERS: u32 = 4_000;

fn rig() -> Rig {
    let mut rig = Rig::with(Settings {
        members_max: MEMBERS,
        ..settings()
    });
    rig.is_checked = false;
    rig
}

fn ids() -> Vec<String> {
    (0..MEMBERS)
        .map(|number| format!("member-{number:04}"))
        .collect()
}

/// Who has its id joins with it.
fn join(rig: &mut Rig, member: &str) -> Ticket {
    let mut join = back(member);
    join.id_required = true;
    rig.join(join)
}

/// The members are part of this generation, and sync.
fn settle(rig: &mut Rig, joins: Vec<Ticket>, ids: &[String], generation: i32) {
    for ticket in joins {
        let joined = rig.joined(ticket).expect("joins");
        assert_eq!(joined.generation, generation);
    }
    let leader = rig.group().leader().expect("somebody leads").to_owned();
    let followers = ids.iter().filter(|id| **id != leader);
    let waiting: Vec<_> = followers.map(|id| rig.sync(id, generation, &[])).collect();
    let assigned: Vec<&str> = ids.iter().map(String::as_str).collect();
    let leading = rig.sync(&leader, generation, &assigned);
    for ticket in waiting.into_iter().chain([leading]) {
        let assigned = rig.synced(ticket).expect("syncs").assignment;
        assert!(assigned.starts_with(b"member-"));
    }
    assert_eq!(rig.phase(), Phase::Stable);
}

#[test]
fn a_group_of_thousands_forms_forms_anew_and_goes_by_counts() {
    let (mut rig, ids) = (rig(), ids());
    for id in &ids {
        rig.join(modern(id));
    }
    let joins = ids.iter().map(|id| join(&mut rig, id)).collect();
    rig.pass(DELAY * 2);
    settle(&mut rig, joins, &ids, 1);

    for id in &ids {
        assert_eq!(rig.heartbeat(id, 1), Ok(()));
        rig.pass(Duration::from_millis(1));
    }
    let leader = rig.group().leader().expect("somebody leads").to_owned();
    let first = join(&mut rig, &leader);
    let others = ids.iter().filter(|id| **id != leader);
    let mut joins: Vec<_> = others.map(|id| join(&mut rig, id)).collect();
    joins.push(first);
    settle(&mut rig, joins, &ids, 2);

    for id in &ids[1..] {
        assert_eq!(rig.leave(id), Ok(()));
    }
    rig.world.groups.assert_invariants();
    assert_eq!(rig.group().members().len(), 1);
    rig.pass(Duration::from_secs(120));
    assert!(rig.group().members().len() == 0, "whoever is silent is out");
}

#[test]
fn thousands_that_fall_silent_one_after_the_other_go_by_counts() {
    let (mut rig, ids) = (rig(), ids());
    let joins = ids.iter().map(|id| rig.join(super::rig::new(id))).collect();
    rig.pass(DELAY * 2);
    settle(&mut rig, joins, &ids, 1);
    for id in &ids {
        rig.pass(Duration::from_millis(2));
        assert_eq!(rig.heartbeat(id, 1), Ok(()));
    }
    rig.pass(Duration::from_secs(20));
    assert_eq!(rig.group().members().len(), 0);
}
