//! What a node knows of the others from a word that is fresh, old, missing or its own.

use rpc::peer::{Follower, HeardAgent};

use super::*;

const AGENT: Incarnation = Incarnation(9);
/// The nonces of three runs of control nodes.
const ONE: u128 = 1;
const TWO: u128 = 2;
const THREE: u128 = 3;

fn claims_as(nonce: u128) -> String {
    format!("control-{nonce}, process 7")
}

fn node(nonce: u128) -> ControlNode {
    ControlNode {
        nonce,
        name: format!("control-{nonce}"),
        claims_as: claims_as(nonce),
        address: "h:1".to_owned(),
        region: "r".to_owned(),
        zone: String::new(),
        level: 1,
    }
}

fn asked(nonce: u128) -> Asked {
    Asked {
        nonce,
        claims_as: claims_as(nonce),
        version: "0.2.0".to_owned(),
        leads: false,
        is_taking: false,
        last_claim: Some(claims_as(ONE)),
        applied: 90,
        end: Some(100),
        current_millis_ago: Some(400),
    }
}

/// The first node leads and has listened for a minute; the second was a second silent, the agent half of one, and the third was not heard.
fn word(at: Instant) -> Word {
    let said = Follower {
        nonce: TWO,
        version: "0.2.0".to_owned(),
        applied: Position(95),
        current_millis_ago: Some(700),
    };
    Word {
        roster: Roster {
            leader: claims_as(ONE),
            version: "0.1.0".to_owned(),
            listens_millis: 60_000,
            agents: vec![HeardAgent {
                incarnation: AGENT,
                version: "0.3.0".to_owned(),
                silent_millis: 500,
            }],
            followers: vec![HeardFollower {
                said,
                silent_millis: 1_000,
                entries_behind: 5,
            }],
        },
        end: Position(100),
        at,
    }
}

const AT: Instant = Instant::from_millis(1_000_000);

/// What a node knows so long after the word.
fn after(asked: Asked, millis: u64) -> Roll {
    Roll::new(asked, Some(word(AT)), AT + Duration::from_millis(millis))
}

fn ago(millis: u64) -> Heard {
    Heard::Ago(Duration::from_millis(millis))
}

fn behind(standing: &Standing) -> (Option<u64>, Option<u64>) {
    let behind = standing.progress.expect("it is known").behind;
    (behind.entries, behind.millis)
}

#[test]
fn a_follower_knows_all_that_the_leader_has_heard() {
    let roll = after(asked(THREE), 200);
    let heard = Leader::Heard {
        claims_as: claims_as(ONE),
        ago: Duration::from_millis(200),
    };
    assert_eq!(roll.leader(), heard);
    let leader = roll.control_node(&node(ONE));
    assert_eq!(
        (leader.version.as_deref(), leader.heard),
        (Some("0.1.0"), ago(200))
    );
    assert_eq!(behind(&leader), (Some(0), Some(0)));
    let other = roll.control_node(&node(TWO));
    assert_eq!(
        (other.version.as_deref(), other.heard),
        (Some("0.2.0"), ago(1_200))
    );
    assert_eq!(behind(&other), (Some(5), Some(700)));
    let agent = roll.agent(AGENT);
    assert_eq!(
        (agent.version.as_deref(), agent.heard),
        (Some("0.3.0"), ago(700))
    );
    let own = roll.control_node(&node(THREE));
    assert_eq!((own.heard, own.heard.is_here()), (ago(0), Some(true)));
    assert_eq!(behind(&own), (Some(10), Some(400)));
}

#[test]
fn who_is_silent_is_not_here_and_what_it_lacks_is_not_known() {
    let mut word = word(AT);
    word.roster.followers[0].silent_millis = 14_000;
    let roll = Roll::new(asked(THREE), Some(word), AT);
    let silent = roll.control_node(&node(TWO));
    assert_eq!(
        (silent.heard, silent.heard.is_here()),
        (ago(14_000), Some(false))
    );
    assert_eq!(behind(&silent), (None, None));
    assert_eq!(silent.progress.map(|progress| progress.applied), Some(95));
}

#[test]
fn who_was_never_heard_is_silent_since_the_leader_listens() {
    let roll = after(asked(TWO), 500);
    for standing in [roll.control_node(&node(THREE)), roll.agent(Incarnation(8))] {
        let listened = Duration::from_millis(60_500);
        assert_eq!(standing.heard, Heard::NotFor(listened));
        assert_eq!(
            (standing.heard.is_here(), standing.version),
            (Some(false), None)
        );
    }
    let mut young = word(AT);
    young.roster.listens_millis = 1_000;
    let roll = Roll::new(asked(TWO), Some(young), AT);
    assert_eq!(
        roll.agent(Incarnation(8)).heard.is_here(),
        None,
        "it has time to call"
    );
}

#[test]
fn an_old_word_says_nothing_of_now_but_builds_stay_what_they_were() {
    let roll = after(asked(THREE), 14_000);
    let nobody = Leader::Nobody {
        claims_as: Some(claims_as(ONE)),
        heard_ago: Some(Duration::from_secs(14)),
        is_taking: false,
    };
    assert_eq!(roll.leader(), nobody);
    let leader = roll.control_node(&node(ONE));
    assert_eq!(
        (leader.heard, leader.heard.is_here()),
        (ago(14_000), Some(false))
    );
    assert_eq!(behind(&leader), (None, None));
    for standing in [roll.control_node(&node(TWO)), roll.agent(AGENT)] {
        assert_eq!(
            (standing.heard, standing.heard.is_here()),
            (Heard::NotKnown, None)
        );
        assert!(standing.version.is_some());
    }
    assert_eq!(roll.agent(Incarnation(8)).heard, Heard::NotKnown);
}

#[test]
fn whoever_has_no_word_knows_itself_alone() {
    let lonely = Asked {
        end: None,
        is_taking: true,
        ..asked(TWO)
    };
    let roll = Roll::new(lonely, None, AT);
    let nobody = Leader::Nobody {
        claims_as: Some(claims_as(ONE)),
        heard_ago: None,
        is_taking: true,
    };
    assert_eq!(roll.leader(), nobody);
    assert_eq!(roll.control_node(&node(ONE)), unknown());
    assert_eq!(roll.agent(AGENT), unknown());
    assert_eq!(
        behind(&roll.asked()),
        (None, Some(400)),
        "no leader says how far the journal goes"
    );
}

#[test]
fn a_node_that_led_a_moment_ago_does_not_take_its_own_word_for_a_leaders() {
    let leads = Asked {
        leads: true,
        ..asked(ONE)
    };
    let roll = after(leads, 0);
    assert_eq!(roll.leader(), Leader::Asked);
    assert_eq!(behind(&roll.asked()), (Some(0), Some(0)));
    let roll = after(asked(ONE), 900);
    let nobody = Leader::Nobody {
        claims_as: Some(claims_as(ONE)),
        heard_ago: Some(Duration::from_millis(900)),
        is_taking: false,
    };
    assert_eq!(roll.leader(), nobody);
}

#[test]
fn a_leader_whose_claim_is_not_the_last_leads_no_more() {
    let newer = Asked {
        last_claim: Some(claims_as(TWO)),
        ..asked(THREE)
    };
    let roll = after(newer, 900);
    let nobody = Leader::Nobody {
        claims_as: Some(claims_as(TWO)),
        heard_ago: Some(Duration::from_millis(900)),
        is_taking: false,
    };
    assert_eq!(
        roll.leader(),
        nobody,
        "its successor has not been heard yet"
    );
    assert_eq!(roll.control_node(&node(ONE)).heard, ago(900));
}
