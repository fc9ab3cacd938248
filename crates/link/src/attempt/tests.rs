//! Whom a call asks, in which order, and that it never calls an outcome definite that is not.

use host::rng::Rng;
use rpc::{Leader, Position, Return};

use super::*;

const MANNER: Manner = Manner {
    needs_leader: true,
    shows_leader: true,
    may_repeat: true,
    all_after: Some(ALL_AFTER),
    seek_for: Duration::from_secs(3),
    limit: Some(Duration::from_secs(20)),
};

/// Of a call that may not be repeated.
const ONCE: Manner = Manner {
    may_repeat: false,
    ..MANNER
};

const DONE: Answer = Answer {
    at: Position(7),
    value: Return::Done,
};

fn given_by(address: &str) -> LedBy {
    LedBy {
        address: address.to_owned(),
        claim: 40,
    }
}

struct Bench {
    attempt: Attempt,
    directory: Directory,
    now: Instant,
}

impl Bench {
    fn new(manner: Manner) -> Self {
        let now = Instant::from_millis(50_000);
        let mut directory = Directory::default();
        directory.list(&["a:1".to_owned(), "b:1".to_owned(), "c:1".to_owned()]);
        Bench {
            attempt: Attempt::new(manner, now),
            directory,
            now,
        }
    }

    fn give(&mut self, event: Event) -> Vec<Effect> {
        let mut out = Vec::new();
        self.attempt
            .handle(self.now, event, &mut self.directory, &mut out);
        out
    }

    /// Goes to the next deadline.
    fn wait(&mut self) -> Vec<Effect> {
        self.now = self.attempt.deadline().expect("it waits for a time");
        self.give(Event::Timer)
    }
}

fn ask(node: usize, is_leader_away: bool) -> Effect {
    Effect::Ask {
        node: NodeId(node),
        is_leader_away,
        relays: false,
    }
}

/// The same, and to pass the call on to the leader.
fn ask_to_relay(node: usize) -> Effect {
    Effect::Ask {
        node: NodeId(node),
        is_leader_away: true,
        relays: true,
    }
}

fn not_leader(address: Option<&str>) -> Result<Answer, Error> {
    led_by(address, 0)
}

/// Does not lead: who is at the address does, by the claim in this slot.
fn led_by(address: Option<&str>, claim: u64) -> Result<Answer, Error> {
    let leader = address.map(|address| Leader {
        name: "x".to_owned(),
        address: Some(address.to_owned()),
        claim,
    });
    Err(Error::NotLeader { leader })
}

#[test]
fn a_node_that_cannot_answer_a_read_is_asked_last_by_the_next_one() {
    let manner = Manner {
        needs_leader: false,
        shows_leader: false,
        ..MANNER
    };
    let mut bench = Bench::new(manner);
    assert_eq!(bench.give(Event::Begun), [ask(0, false)]);
    let reason = "it has not applied entry 9 yet".to_owned();
    let behind = Err(Error::Unavailable { reason });
    assert_eq!(
        bench.give(Event::Answered(NodeId(0), behind)),
        [ask(1, false)]
    );
    let done = bench.give(Event::Answered(NodeId(1), Ok(DONE)));
    assert_eq!(done, [Effect::Done(Ok(DONE))]);
    let order = bench.directory.order(false, bench.now);
    assert_eq!(order, [1, 2, 0].map(NodeId));
}

#[test]
fn a_redirect_is_followed_at_once_and_remembered() {
    let mut bench = Bench::new(MANNER);
    assert_eq!(bench.give(Event::Begun), [ask(0, false)]);
    let redirected = bench.give(Event::Answered(NodeId(0), not_leader(Some("c:1"))));
    assert_eq!(redirected, [ask(2, false)]);
    let done = bench.give(Event::Answered(NodeId(2), Ok(DONE)));
    assert_eq!(done, [Effect::Done(Ok(DONE))]);
    assert_eq!(bench.directory.leader(), Some(NodeId(2)));
    bench.attempt = Attempt::new(MANNER, bench.now);
    assert_eq!(bench.give(Event::Begun), [ask(2, false)]);
}

#[test]
fn a_node_that_nobody_listed_is_asked_if_another_says_that_it_leads() {
    let mut bench = Bench::new(MANNER);
    bench.give(Event::Begun);
    let redirected = bench.give(Event::Answered(NodeId(0), not_leader(Some("d:1"))));
    assert_eq!(redirected, [ask(3, false)]);
}

/// One that has not read of the last claim yet names who led before, as that one does itself.
#[test]
fn of_two_that_are_said_to_lead_the_one_with_the_higher_claim_is_followed() {
    let mut bench = Bench::new(MANNER);
    bench.give(Event::Begun);
    let at_c = bench.give(Event::Answered(NodeId(0), led_by(Some("c:1"), 9)));
    assert_eq!(at_c, [ask(2, false)]);
    bench.give(Event::Broken(NodeId(2), "reset".to_owned()));
    let stale = bench.give(Event::Answered(NodeId(1), led_by(Some("d:1"), 8)));
    assert_eq!(stale, [], "nobody is asked at d");
    assert_eq!(bench.directory.leader(), Some(NodeId(2)));
    assert_eq!(
        bench.wait(),
        [ask_to_relay(2)],
        "the next round begins there"
    );
}

#[test]
fn nodes_that_name_each_other_are_not_asked_in_a_circle() {
    let mut bench = Bench::new(MANNER);
    bench.give(Event::Begun);
    let at_b = bench.give(Event::Answered(NodeId(0), not_leader(Some("b:1"))));
    assert_eq!(at_b, [ask(1, false)]);
    let at_c = bench.give(Event::Answered(NodeId(1), not_leader(Some("a:1"))));
    assert_eq!(at_c, [ask_to_relay(2)], "neither leads");
    assert_eq!(bench.give(Event::Answered(NodeId(2), not_leader(None))), []);
    let begun = bench.now;
    assert_eq!(bench.wait().len(), 1, "the next round");
    assert!(bench.now.since(begun) <= PAUSE_MAX);
}

#[test]
fn who_has_the_address_of_the_process_that_led_and_does_not_lead_shows_that_it_has_ended() {
    let mut bench = Bench::new(MANNER);
    bench.give(Event::Begun);
    let at_b = bench.give(Event::Answered(NodeId(0), not_leader(Some("b:1"))));
    assert_eq!(at_b, [ask(1, false)]);
    let at_c = bench.give(Event::Answered(NodeId(1), not_leader(Some("b:1"))));
    assert_eq!(at_c, [ask_to_relay(2)]);
}

#[test]
fn the_others_are_told_that_the_leader_cannot_be_reached() {
    let mut bench = Bench::new(MANNER);
    bench.directory.leads(NodeId(1));
    assert_eq!(bench.give(Event::Begun), [ask(1, false)]);
    let refused = bench.give(Event::NotSent(NodeId(1), "refused".to_owned()));
    assert_eq!(refused, [ask_to_relay(0)]);
}

#[test]
fn who_gets_no_answer_for_half_a_second_asks_all() {
    let mut bench = Bench::new(MANNER);
    bench.directory.leads(NodeId(1));
    let begun = bench.now;
    bench.give(Event::Begun);
    assert_eq!(bench.wait(), [ask_to_relay(0), ask(2, true)]);
    assert_eq!(bench.now.since(begun), ALL_AFTER);
    // The old leader answers after all.
    let done = bench.give(Event::Answered(NodeId(1), Ok(DONE)));
    assert_eq!(done, [Effect::Done(Ok(DONE))]);
}

#[test]
fn a_call_that_is_held_for_a_while_is_asked_of_all_once_it_should_be_answered() {
    let manner = Manner {
        all_after: Some(Duration::from_secs(2)),
        ..MANNER
    };
    let mut bench = Bench::new(manner);
    bench.directory.leads(NodeId(1));
    let begun = bench.now;
    assert_eq!(bench.give(Event::Begun), [ask(1, false)]);
    assert_eq!(bench.wait(), [ask_to_relay(0), ask(2, true)]);
    assert_eq!(bench.now.since(begun), Duration::from_secs(2));
    // The one leads that did not answer, as the others know.
    for other in [0, 2] {
        let told = Event::Answered(NodeId(other), not_leader(Some("b:1")));
        assert_eq!(bench.give(told), []);
    }
    assert_eq!(
        bench.wait(),
        [ask_to_relay(0), ask(2, true)],
        "a moment later"
    );
    let done = bench.give(Event::Answered(NodeId(2), Ok(DONE)));
    assert_eq!(done, [Effect::Done(Ok(DONE))]);
    assert_eq!(bench.directory.leader(), Some(NodeId(2)));
}

#[test]
fn a_call_that_may_not_be_repeated_is_asked_once_unless_it_had_no_effect() {
    let manner = Manner {
        may_repeat: false,
        ..MANNER
    };
    let mut bench = Bench::new(manner);
    bench.give(Event::Begun);
    let elsewhere = bench.give(Event::NotSent(NodeId(0), "refused".to_owned()));
    assert_eq!(elsewhere, [ask(1, false)]);
    let elsewhere = bench.give(Event::Answered(NodeId(1), not_leader(None)));
    assert_eq!(elsewhere, [ask(2, false)]);
    let broken = bench.give(Event::Broken(NodeId(2), "reset".to_owned()));
    assert!(matches!(
        broken[..],
        [Effect::Done(Err(Error::Unknown { .. }))]
    ));
}

#[test]
fn without_a_leader_it_gives_up_after_a_while() {
    let mut bench = Bench::new(MANNER);
    let begun = bench.now;
    let mut effects = bench.give(Event::Begun);
    let mut asked = 0;
    loop {
        match effects.pop() {
            Some(Effect::Ask { node, .. }) => {
                asked += 1;
                effects.extend(bench.give(Event::Answered(node, not_leader(None))));
            }
            Some(Effect::Done(done)) => {
                assert!(matches!(done, Err(Error::Unavailable { .. })), "{done:?}");
                break;
            }
            None => effects = bench.wait(),
            other => panic!("{other:?}"),
        }
    }
    assert!(bench.now.since(begun) >= MANNER.seek_for);
    assert!((30..100).contains(&asked), "{asked} questions");
}

#[test]
fn who_is_busy_says_nothing_about_what_another_node_did() {
    let mut bench = Bench::new(MANNER);
    bench.give(Event::Begun);
    assert_eq!(bench.wait().len(), 2, "all are asked");
    assert_eq!(bench.give(Event::Answered(NodeId(1), Err(Error::Busy))), []);
    bench.give(Event::Broken(NodeId(0), "reset".to_owned()));
    let last = bench.give(Event::Answered(NodeId(2), Err(Error::Busy)));
    assert_eq!(last, [], "it is asked again");
}

/// An outcome that is told as definite although a node may have acted would let a client write twice.
#[test]
fn in_any_schedule_an_outcome_is_definite_only_if_no_node_can_have_acted() {
    for seed in 0..3_000 {
        let mut rng = Rng::seeded(seed);
        let manner = Manner {
            may_repeat: rng.once_in(2),
            all_after: rng.once_in(2).then_some(ALL_AFTER),
            needs_leader: rng.once_in(2),
            ..MANNER
        };
        let mut bench = Bench::new(manner);
        let mut open: Vec<NodeId> = Vec::new();
        let mut questions: Vec<NodeId> = Vec::new();
        let mut may_have_acted = false;
        let mut effects = bench.give(Event::Begun);
        for _ in 0..1_000 {
            let mut done = None;
            for effect in effects.drain(..) {
                match effect {
                    Effect::Ask { node, .. } => open.push(node),
                    Effect::AskWhoLeads(node) => questions.push(node),
                    Effect::Try(_) => {}
                    Effect::Done(outcome) => done = Some(outcome),
                }
            }
            if let Some(outcome) = done {
                let doubt = may_have_acted || !open.is_empty();
                match outcome {
                    Ok(_) | Err(Error::Unknown { .. }) => {}
                    Err(error) => assert!(!doubt, "seed {seed}: {error:?}"),
                }
                open.clear();
                break;
            }
            bench.now = bench.now + Duration::from_millis(rng.below(100));
            if open.is_empty() || rng.once_in(4) {
                if let Some(at) = bench.attempt.deadline() {
                    bench.now = bench.now.max(at);
                }
                effects = bench.give(Event::Timer);
                continue;
            }
            if rng.once_in(4) {
                effects = bench.give(match (questions.pop(), rng.below(4)) {
                    (Some(node), 0) => Event::Named(node, Ok(DONE)),
                    (Some(node), 1) => Event::Named(node, not_leader(Some("c:1"))),
                    (Some(node), _) => Event::Named(node, not_leader(None)),
                    (None, 0) => Event::LeaderFound(NodeId(rng.below(3) as usize)),
                    (None, _) => Event::Doubted(open[0]),
                });
                continue;
            }
            let node = open.swap_remove(rng.below(open.len() as u64) as usize);
            let reason = "r".to_owned();
            let event = match rng.below(8) {
                7 => Event::Relayed(node, given_by("b:1"), Ok(DONE)),
                0 => Event::NotSent(node, reason),
                1 => {
                    may_have_acted = true;
                    Event::Broken(node, reason)
                }
                2 => Event::Answered(node, not_leader(None)),
                3 => Event::Answered(node, not_leader(Some("b:1"))),
                4 => Event::Answered(node, Err(Error::Busy)),
                5 => {
                    may_have_acted = true;
                    Event::Answered(node, Err(Error::Unknown { reason }))
                }
                _ if !manner.needs_leader || rng.once_in(3) => Event::Answered(node, Ok(DONE)),
                _ => Event::Answered(node, Err(Error::Unavailable { reason })),
            };
            effects = bench.give(event);
        }
        assert!(open.is_empty(), "seed {seed} has no end");
    }
}

#[test]
fn what_another_call_finds_out_is_made_use_of_at_once_by_those_that_wait() {
    let mut bench = Bench::new(MANNER);
    bench.directory.leads(NodeId(1));
    assert_eq!(bench.give(Event::Begun), [ask(1, false)]);
    assert_eq!(
        bench.give(Event::LeaderFound(NodeId(2))),
        [],
        "the leader has time to answer"
    );
    assert_eq!(bench.wait(), [ask_to_relay(0), ask(2, true)]);
    let refused = Event::Answered(NodeId(2), not_leader(None));
    assert_eq!(bench.give(refused), []);
    bench.directory.leads(NodeId(2));
    assert_eq!(bench.give(Event::LeaderFound(NodeId(2))), [ask(2, true)]);
    assert_eq!(bench.give(Event::LeaderFound(NodeId(2))), [], "it is asked");
}

#[test]
fn what_may_not_be_repeated_is_asked_of_nobody_else_while_it_may_be_answered() {
    let mut bench = Bench::new(ONCE);
    bench.directory.leads(NodeId(1));
    bench.give(Event::Begun);
    let moved = Event::NotSent(NodeId(1), "cut off".to_owned());
    assert_eq!(bench.give(moved), [ask_to_relay(0)]);
    assert_eq!(bench.give(Event::LeaderFound(NodeId(2))), []);
    bench.give(Event::Answered(NodeId(0), not_leader(None)));
    bench.give(Event::Answered(NodeId(2), not_leader(None)));
    let found = Event::LeaderFound(NodeId(1));
    assert_eq!(bench.give(found), [ask_to_relay(1)]);
}

#[test]
fn a_leader_that_may_lead_no_more_is_asked_no_longer_alone_and_its_answer_still_counts() {
    let mut bench = Bench::new(MANNER);
    bench.directory.leads(NodeId(1));
    bench.give(Event::Begun);
    let asked = [ask(0, true), ask(2, true)];
    assert_eq!(bench.give(Event::Doubted(NodeId(1))), asked, "at once");
    let refused = Event::Answered(NodeId(0), led_by(Some("b:1"), 4));
    assert_eq!(bench.give(refused), []);
    let done = bench.give(Event::Answered(NodeId(1), Ok(DONE)));
    assert_eq!(done, [Effect::Done(Ok(DONE))]);
}

#[test]
fn a_call_that_may_not_be_repeated_waits_until_another_is_said_to_lead_and_is_unknown_then() {
    for silent in [true, false] {
        let mut bench = Bench::new(ONCE);
        assert!(bench.directory.is_said_to_lead(NodeId(1), 4));
        bench.give(Event::Begun);
        let questions = [
            Effect::AskWhoLeads(NodeId(0)),
            Effect::AskWhoLeads(NodeId(2)),
        ];
        let asked = match silent {
            true => bench.wait(),
            false => bench.give(Event::Doubted(NodeId(1))),
        };
        assert_eq!(asked, questions);
        let same = Event::Named(NodeId(0), led_by(Some("b:1"), 4));
        assert_eq!(bench.give(same), []);
        let stale = Event::Named(NodeId(2), led_by(Some("a:1"), 3));
        assert_eq!(bench.give(stale), [], "nobody believes that");
        assert_eq!(bench.wait(), questions, "a moment later");
        let done = bench.give(Event::Named(NodeId(0), led_by(Some("c:1"), 5)));
        assert!(
            matches!(done[..], [Effect::Done(Err(Error::Unknown { .. }))]),
            "{done:?}"
        );
        assert_eq!(bench.directory.leader(), Some(NodeId(2)));
    }
}

#[test]
fn one_of_those_that_are_asked_passes_the_call_on_and_later_calls_begin_with_it() {
    let mut bench = Bench::new(MANNER);
    bench.directory.leads(NodeId(1));
    bench.give(Event::Begun);
    assert_eq!(bench.wait(), [ask_to_relay(0), ask(2, true)]);
    // The one that was to pass it on cannot be reached either, and is asked after the other now.
    bench.give(Event::NotSent(NodeId(0), "refused".to_owned()));
    bench.give(Event::Answered(NodeId(2), not_leader(Some("b:1"))));
    assert_eq!(bench.wait(), [ask_to_relay(2), ask(0, true)]);
    bench.give(Event::Answered(NodeId(2), not_leader(Some("b:1"))));
    bench.give(Event::NotSent(NodeId(0), "refused".to_owned()));
    assert_eq!(bench.wait(), [ask_to_relay(2), ask(0, true)]);
    bench.give(Event::Answered(NodeId(2), not_leader(Some("b:1"))));
    bench.give(Event::Answered(NodeId(0), not_leader(Some("b:1"))));
    assert_eq!(bench.wait(), [ask_to_relay(0), ask(2, true)]);
    let done = bench.give(Event::Relayed(NodeId(0), given_by("b:1"), Ok(DONE)));
    assert_eq!(done, [Effect::Done(Ok(DONE))]);
    assert_eq!(bench.directory.leader(), Some(NodeId(1)));
    bench.attempt = Attempt::new(MANNER, bench.now);
    let begun = [Effect::Try(NodeId(1)), ask_to_relay(0)];
    assert_eq!(bench.give(Event::Begun), begun);
}

/// A call was passed on by the first node, since the second, which led, did not answer; whoever is at this address has given the answer.
/// The next call is about to begin.
fn passed_on_to(leader: &str) -> Bench {
    let mut bench = Bench::new(MANNER);
    bench.directory.leads(NodeId(1));
    bench.give(Event::Begun);
    assert_eq!(bench.wait(), [ask_to_relay(0), ask(2, true)]);
    bench.give(Event::Relayed(NodeId(0), given_by(leader), Ok(DONE)));
    bench.attempt = Attempt::new(MANNER, bench.now);
    bench
}

/// The answer to a call that is held for a second comes long after the leader has answered a trial.
#[test]
fn a_relayed_answer_that_comes_after_the_leaders_own_does_not_turn_later_calls_away_from_it() {
    let mut bench = passed_on_to("b:1");
    let begun = [Effect::Try(NodeId(1)), ask_to_relay(0)];
    assert_eq!(bench.give(Event::Begun), begun);
    let second = Duration::from_secs(1);
    bench
        .directory
        .answered(NodeId(1), bench.now + second / 100);
    bench.now = bench.now + second;
    bench.give(Event::Relayed(NodeId(0), given_by("b:1"), Ok(DONE)));
    bench.attempt = Attempt::new(MANNER, bench.now);
    assert_eq!(bench.give(Event::Begun), [ask(1, false)]);
}

/// Whoever did not answer was the one before.
#[test]
fn a_call_that_was_passed_on_to_another_leader_than_the_one_that_was_lost_says_who_leads() {
    let mut bench = passed_on_to("c:1");
    assert_eq!(bench.give(Event::Begun), [ask(2, false)]);
    // That one is not reached either.
    assert_eq!(bench.wait(), [ask_to_relay(0), ask(1, true)]);
    bench.give(Event::Relayed(NodeId(0), given_by("c:1"), Ok(DONE)));
    bench.attempt = Attempt::new(MANNER, bench.now);
    let begun = [Effect::Try(NodeId(2)), ask_to_relay(0)];
    assert_eq!(bench.give(Event::Begun), begun);
}

#[test]
fn who_has_lost_the_leader_asks_all_together_and_the_lost_one_once() {
    let mut bench = Bench::new(MANNER);
    bench.directory.leads(NodeId(0));
    assert_eq!(bench.give(Event::Begun), [ask(0, false)]);
    let lost = Event::Broken(NodeId(0), "reset".to_owned());
    assert_eq!(bench.give(lost), [ask_to_relay(1)]);
    let begun = bench.now;
    // The one that is lost may have started again.
    assert_eq!(bench.wait(), [ask(0, true), ask(2, true)]);
    assert_eq!(bench.now, begun, "at once");
    // A follower that has not noticed yet names it.
    let named = Event::Answered(NodeId(1), not_leader(Some("a:1")));
    assert_eq!(bench.give(named), []);
    let gone = Event::NotSent(NodeId(0), "refused".to_owned());
    assert_eq!(bench.give(gone), []);
    let led = Event::Answered(NodeId(2), Ok(DONE));
    assert_eq!(bench.give(led), [Effect::Done(Ok(DONE))]);
}

#[test]
fn what_may_not_be_repeated_is_not_asked_of_a_leader_that_is_reached_by_way_of_another_alone() {
    let mut bench = passed_on_to("b:1");
    bench.attempt = Attempt::new(ONCE, bench.now);
    let begun = [Effect::Try(NodeId(1)), ask_to_relay(0)];
    assert_eq!(bench.give(Event::Begun), begun);
    // The leader resigns at this moment: nobody leads, and the others are asked, but not the one that is silent.
    let nobody = Event::Answered(NodeId(0), not_leader(None));
    assert_eq!(bench.give(nobody), [ask_to_relay(2)]);
    let nobody = Event::Answered(NodeId(2), not_leader(None));
    assert_eq!(bench.give(nobody), []);
    assert_eq!(bench.wait(), [ask_to_relay(0)]);
    let done = Event::Answered(NodeId(0), Ok(DONE));
    assert_eq!(bench.give(done), [Effect::Done(Ok(DONE))]);
}
