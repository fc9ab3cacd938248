//! A node that follows: what it looks at, when it confirms, and when it takes the lead.

use super::*;

/// Lets time pass as the node's deadlines want it.
fn run_for(bench: &mut Bench, time: Duration) {
    let end = bench.now.boot + time;
    while let Some(at) = bench.node.deadline().filter(|at| *at <= end) {
        bench.now.boot = bench.now.boot.max(at);
        bench.run(Event::Timer);
    }
    bench.now.boot = end;
}

#[test]
fn a_follower_waits_for_silence_and_for_somebody_who_wants_a_leader() {
    let mut leader = Bench::leader();
    leader.run(propose(0..3));
    let mut bench = Bench::new(Settings::one_of_several("m"));
    bench.slots = leader.slots.clone();
    bench.run(Event::Started);
    assert_eq!(bench.node.chain().next(), 3);
    for _ in 0..20 {
        bench.now.boot = bench.node.deadline().expect("it looks again");
        bench.run(Event::Timer);
    }
    assert_eq!(bench.node.role(), Role::Follower, "nobody wants a leader");
    // One stray request deposes no idle leader, however long it has been silent.
    bench.run(propose(0..1));
    run_for(&mut bench, Duration::from_secs(10));
    assert_eq!(bench.node.role(), Role::Follower, "nobody asks again");
    assert_eq!(bench.takes, 0);
    // Nor does somebody who goes on asking for less than it may take an idle leader to append.
    bench.run(propose(0..1));
    run_for(&mut bench, Duration::from_millis(500));
    bench.run(propose(0..1));
    assert_eq!(bench.node.role(), Role::Follower, "it was not long enough");
    run_for(&mut bench, Duration::from_millis(500));
    bench.run(propose(0..1));
    assert_eq!(bench.node.role(), Role::Leader);
    let refused = bench
        .seen
        .iter()
        .any(|effect| matches!(effect, Effect::Lost { .. }));
    assert!(refused, "what came before the lead is refused");
}

#[test]
fn a_slot_that_a_gone_leader_left_undecided_is_settled_by_taking() {
    let mut leader = Bench::leader();
    leader.run(propose(0..3));
    let mut bench = Bench::new(Settings::one_of_several("m"));
    bench.slots = leader.slots.clone();
    // Whatever is not decided has been begun.
    let run = |bench: &mut Bench, event: Event| {
        bench.give(event);
        while let Some(mut event) = bench.answer() {
            if let Event::Scanned(_, run) = &mut event
                && run.slots.is_empty()
            {
                run.end = End::Unsettled;
            }
            bench.give(event);
        }
    };
    run(&mut bench, Event::Started);
    assert_eq!(bench.node.role(), Role::Follower);
    assert_eq!(bench.node.confirmed_at(), None, "nothing was found free");
    let pass = |bench: &mut Bench, events: [Event; 2]| {
        for event in events {
            bench.now.boot = bench.node.deadline().expect("it looks again");
            run(bench, event);
        }
    };
    // Its writer may be at work.
    for _ in 0..20 {
        pass(&mut bench, [Event::Timer, Event::Timer]);
    }
    assert_eq!((bench.node.role(), bench.takes), (Role::Follower, 0));
    for _ in 0..20 {
        let gone = Event::LeaderGone(bench.node.chain().claim().index);
        pass(&mut bench, [gone, propose(0..1)]);
    }
    assert_eq!((bench.node.role(), bench.takes), (Role::Leader, 1));
}

#[test]
fn a_leader_that_is_gone_is_waited_for_a_moment_only_unless_the_journal_grows_on() {
    let mut leader = Bench::leader();
    leader.run(propose(0..3));
    let mut bench = Bench::new(Settings::one_of_several("m"));
    bench.slots = leader.slots.clone();
    bench.run(Event::Started);
    // It says nothing for long before and is not missed.
    run_for(&mut bench, Duration::from_secs(10));
    assert_eq!(bench.node.role(), Role::Follower);
    let gone = |bench: &mut Bench, millis: u64| {
        for _ in 0..millis / 20 {
            let claim = bench.node.chain().claim().index;
            bench.run(Event::LeaderGone(claim));
            run_for(bench, Duration::from_millis(20));
        }
    };
    // Whoever still appends is not gone, whatever is said.
    for ticket in 3..8 {
        leader.run(propose(ticket..ticket + 1));
        bench.slots = leader.slots.clone();
        bench.run(Event::Grew(leader.node.chain().last().index));
        gone(&mut bench, 80);
    }
    assert_eq!(bench.node.role(), Role::Follower);
    assert_eq!(bench.takes, 0);
    gone(&mut bench, 400);
    assert_eq!(bench.node.role(), Role::Leader);
}

#[test]
fn a_leader_that_is_heard_again_was_not_gone() {
    let mut leader = Bench::leader();
    leader.run(propose(0..3));
    let mut bench = follower(&leader);
    let claim = bench.node.chain().claim().index;
    bench.run(Event::LeaderGone(claim));
    run_for(&mut bench, Duration::from_millis(40));
    // It beats, and appends nothing: nobody uses it.
    let last = leader.node.chain().last().index;
    for _ in 0..10 {
        bench.run(Event::Grew(last));
        run_for(&mut bench, Duration::from_secs(1));
    }
    assert_eq!((bench.node.role(), bench.takes), (Role::Follower, 0));
}

#[test]
fn who_is_said_to_be_gone_after_another_has_claimed_is_nobody_to_replace() {
    let mut leader = Bench::leader();
    leader.run(propose(0..3));
    let mut bench = follower(&leader);
    let before = bench.node.chain().claim().index.wrapping_sub(1);
    for _ in 0..100 {
        bench.run(Event::LeaderGone(before));
        run_for(&mut bench, Duration::from_millis(20));
    }
    assert_eq!((bench.node.role(), bench.takes), (Role::Follower, 0));
}

#[test]
fn what_is_said_to_be_there_is_looked_for_at_once() {
    let mut leader = Bench::leader();
    leader.run(propose(0..1));
    let mut bench = Bench::new(Settings::one_of_several("m"));
    bench.slots = leader.slots.clone();
    bench.run(Event::Started);
    run_for(&mut bench, Duration::from_secs(5));
    leader.run(propose(1..2));
    bench.slots = leader.slots.clone();
    let slot = leader.node.chain().last().index;
    bench.run(Event::Grew(slot));
    assert_eq!(
        bench.node.chain().last().index,
        slot,
        "without any time passing"
    );
    let seen = bench.seen.len();
    bench.run(Event::Grew(slot));
    assert_eq!(bench.seen.len(), seen, "it knows that one");
}

/// A node that follows, and has come to the end of what `leader` has appended.
fn follower(leader: &Bench) -> Bench {
    let mut bench = Bench::new(Settings::one_of_several("m"));
    bench.slots = leader.slots.clone();
    bench.run(Event::Started);
    assert_eq!(bench.node.chain().last(), leader.node.chain().last());
    bench
}

/// What the leader has told since it was last asked, as its followers hear it.
fn told(leader: &mut Bench) -> Event {
    let told = leader.told.drain(..);
    Event::Told(told.filter_map(|(at, entry)| Some((at, entry?))).collect())
}

#[test]
fn what_the_leader_tells_is_not_read() {
    let mut leader = Bench::leader();
    leader.run(propose(0..3));
    let mut bench = follower(&leader);
    leader.told.clear();
    // The journal is looked at once a second; what is told is not there yet, as far as this node sees.
    for ticket in 3..103 {
        leader.run(propose(ticket..ticket + 1));
        bench.run(told(&mut leader));
        assert_eq!(bench.node.chain().last(), leader.node.chain().last());
        bench.slots = leader.slots.clone();
        bench.scans = bench.scans.min(if ticket < 13 { 0 } else { u64::MAX });
        run_for(&mut bench, Duration::from_millis(40));
    }
    assert!(bench.scans <= 10, "{} looks in 3.6 s", bench.scans);
    let applies = |effect: &&Effect| matches!(effect, Effect::Apply { .. });
    assert_eq!(bench.seen.iter().filter(applies).count(), 101);
    // It misses nobody: silence counts from what it was told last.
    let claim = bench.node.chain().claim().index;
    bench.run(Event::LeaderGone(claim));
    assert_eq!(bench.node.role(), Role::Follower);
}

#[test]
fn who_wants_a_leader_makes_a_follower_look_though_the_leader_told_a_moment_ago() {
    let mut leader = Bench::leader();
    leader.run(propose(0..3));
    let mut bench = follower(&leader);
    leader.told.clear();
    // From one look in a second to the next it has only what it is told.
    while bench.scans > 0 {
        bench.scans = 0;
        leader.run(propose(3..4));
        bench.run(told(&mut leader));
        bench.slots = leader.slots.clone();
        run_for(&mut bench, Duration::from_millis(40));
    }
    // The leader's last entry is told to nobody.
    leader.run(propose(4..5));
    bench.slots = leader.slots.clone();
    run_for(&mut bench, Duration::from_millis(1));
    bench.run(propose(9..10));
    assert_eq!(bench.node.chain().last(), leader.node.chain().last());
    bench.scans = 0;
    for ticket in 10..110 {
        bench.run(propose(ticket..ticket + 1));
    }
    assert!(bench.scans <= 1, "{} looks at one time", bench.scans);
}

#[test]
fn what_was_not_told_is_read() {
    let mut leader = Bench::leader();
    let mut bench = follower(&leader);
    leader.run(propose(0..1));
    leader.told.clear();
    leader.run(propose(1..2));
    bench.slots = leader.slots.clone();
    bench.run(told(&mut leader));
    assert_eq!(
        bench.node.chain().last(),
        leader.node.chain().last(),
        "without any time passing"
    );
    // An entry of a claim that this node does not know is no command in its place: the journal says what it is.
    let mut other = follower(&leader);
    other.node.lasting.settings.takeover = Takeover::AtOnce;
    run_for(&mut other, Duration::from_secs(60));
    assert_eq!(other.node.role(), Role::Leader);
    other.run(propose(2..3));
    bench.run(told(&mut other));
    assert_eq!(bench.node.chain().last(), leader.node.chain().last());
    bench.slots = other.slots.clone();
    bench.run(told(&mut other));
    run_for(&mut bench, Duration::from_secs(1));
    assert_eq!(bench.node.chain().last(), other.node.chain().last());
    assert_eq!(bench.node.claimant(), other.node.claimant());
}

#[test]
fn a_node_that_leads_believes_nobody() {
    let mut leader = Bench::leader();
    leader.run(propose(0..1));
    let next = leader.node.chain().next();
    let entry = void_entry(leader.node.chain());
    leader.run(Event::Told(vec![(next, entry)]));
    assert_eq!(leader.node.role(), Role::Leader);
    assert_eq!(leader.node.chain().next(), next);
}

#[test]
fn a_node_that_meets_what_a_newer_version_wrote_says_so_and_stays_up() {
    let mut leader = Bench::leader();
    leader.run(propose(0..3));
    let mut newer = void_entry(leader.node.chain()).to_vec();
    newer[5] = 9;
    let end = newer.len() - 4;
    let sum = store::checksum::crc32c(&newer[..end]);
    newer[end..].copy_from_slice(&sum.to_le_bytes());
    leader.slots.put(3, Bytes::from(newer));
    let mut bench = Bench::new(Settings::one_of_several("m"));
    bench.slots = leader.slots;
    bench.run(Event::Started);
    assert_eq!(bench.node.role(), Role::Stuck);
    let told = bench.node.stuck().expect("a reason");
    assert!(
        told.contains("entry 3 of the journal") && told.contains("Run a newer version"),
        "{told}"
    );
    assert_eq!((bench.node.halted(), bench.node.deadline()), (None, None));
    bench.seen.clear();
    bench.run(propose(7..8));
    let [Effect::Lost { tickets, why }] = &bench.seen[..] else {
        panic!("{:?}", bench.seen);
    };
    assert_eq!(tickets, &[Ticket(7)]);
    assert!(matches!(why, ProposeError::Definite(_)), "{why}");
}

#[test]
fn a_follower_confirms_its_position_by_a_look_that_begins_after_the_question() {
    let mut leader = Bench::leader();
    leader.run(propose(0..3));
    let mut bench = Bench::new(Settings::one_of_several("m"));
    bench.slots = leader.slots.clone();
    bench.run(Event::Started);
    run_for(&mut bench, Duration::from_secs(3));
    leader.run(propose(3..4));
    // A look that began before the question says nothing of now.
    bench.now.boot = bench.node.deadline().expect("it looks again");
    bench.give(Event::Timer);
    let stale = bench.answer().expect("the look");
    bench.slots = leader.slots.clone();
    bench.give(Event::Confirm(Ticket(5)));
    bench.run(stale);
    assert_eq!(bench.node.chain().next(), leader.node.chain().next());
    let passed = bench.seen.iter().find_map(|effect| match effect {
        Effect::BarrierPassed { tickets, position } => Some((tickets.clone(), *position)),
        _ => None,
    });
    let position = Position(leader.node.chain().last().index);
    assert_eq!(passed, Some((vec![Ticket(5)], position)));
    assert_eq!(bench.takes, 0);
}

/// A journal and a follower that never finds its next slot free: others are appended as fast as it reads.
struct Chase {
    leader: Bench,
    bench: Bench,
    /// How many entries a look finds, and are appended meanwhile.
    run: usize,
    value: u64,
}

impl Chase {
    fn begin(run: usize) -> Self {
        let mut leader = Bench::leader();
        leader.run(propose(0..3));
        let mut bench = Bench::new(Settings::one_of_several("m"));
        bench.slots = leader.slots.clone();
        bench.give(Event::Started);
        let mut chase = Chase {
            leader,
            bench,
            run,
            value: 3,
        };
        for _ in 0..5 {
            chase.step();
        }
        chase
    }

    fn step(&mut self) {
        for _ in 0..self.run {
            self.leader.run(propose(self.value..self.value + 1));
            self.value += 1;
        }
        let answers: Vec<Event> = std::iter::from_fn(|| self.bench.answer()).collect();
        for mut event in answers {
            if let Event::Scanned(ask, run) = &mut event
                && ask.purpose == Purpose::Follow
            {
                run.slots.truncate(self.run);
                run.end = End::More;
            }
            self.bench.give(event);
        }
        self.bench.pass(10);
        let floor = self.bench.slots.floor();
        self.bench.slots = self.leader.slots.clone();
        self.bench.slots.trim(floor, &[]);
    }

    fn passed(&self) -> Option<Position> {
        let mut passed = self.bench.seen.iter().filter_map(|effect| match effect {
            Effect::BarrierPassed { tickets, position } => {
                tickets.contains(&Ticket(5)).then_some(*position)
            }
            _ => None,
        });
        passed.next()
    }
}

#[test]
fn a_follower_confirms_though_the_journal_grows_as_fast_as_it_reads() {
    let mut chase = Chase::begin(1);
    let asked_at = chase.bench.now.boot;
    let known = chase.leader.node.chain().last().index;
    chase.bench.give(Event::Confirm(Ticket(5)));
    for _ in 0..50 {
        chase.step();
        if let Some(position) = chase.passed() {
            let next = chase.bench.node.chain().next();
            assert!(position >= Position(known), "{position:?} after {known}");
            assert!(next <= chase.leader.node.chain().last().index, "it lags");
            assert!(chase.bench.node.confirmed_at() >= Some(asked_at));
            return;
        }
    }
    panic!("it never confirms");
}

/// An operator is asked to leave an entry out only once it is known that nobody has: what says so may be the next entry.
#[test]
fn who_is_stuck_says_so_only_at_the_end_of_the_journal() {
    let mut chase = Chase::begin(1);
    let why = "overflow".to_owned();
    chase.bench.give(Event::Poisoned(2, why));
    for _ in 0..100 {
        chase.step();
        let next = chase.bench.node.chain().next();
        assert!(next <= chase.leader.node.chain().last().index, "it lags");
        assert_eq!(chase.bench.node.stuck(), None);
    }
    chase.run = 0;
    chase.bench.slots = chase.leader.slots.clone();
    run_for(&mut chase.bench, Duration::from_secs(2));
    let told = chase.bench.node.stuck().expect("it has come to the end");
    assert!(told.contains("entry 2 of the journal"), "{told}");
}

#[test]
fn a_slot_ahead_that_may_have_been_trimmed_confirms_nothing() {
    for is_trimmed in [true, false] {
        let mut chase = Chase::begin(3);
        chase.bench.give(Event::Confirm(Ticket(5)));
        for _ in 0..50 {
            let reads_floor = |effect: &Effect| matches!(effect, Effect::ReadFloor { .. });
            if is_trimmed && chase.bench.effects.iter().any(reads_floor) {
                let next = chase.bench.node.chain().next();
                chase.bench.slots.trim(next, &[]);
            }
            chase.step();
        }
        assert_eq!(chase.passed().is_none(), is_trimmed);
        assert_eq!(chase.bench.node.confirmed_at().is_none(), is_trimmed);
    }
}

#[test]
fn a_node_that_reads_the_journal_seems_current_and_one_that_cannot_does_not() {
    let mut leader = Bench::leader();
    leader.run(propose(0..3));
    let mut follower = Bench::new(Settings::one_of_several("m"));
    follower.slots = leader.slots.clone();
    follower.run(Event::Started);
    for bench in [&mut leader, &mut follower] {
        run_for(bench, Duration::from_secs(60));
        let now = bench.now.boot;
        let age = |at: Option<Instant>| now.since(at.expect("it has read to the end"));
        assert!(age(bench.node.seemed_current_at()) <= Duration::from_secs(3));
        assert!(bench.node.confirmed_at() <= bench.node.seemed_current_at());
        // Its looks are not answered any more.
        let until = now + Duration::from_secs(10);
        while let Some(at) = bench.node.deadline()
            && at <= until
        {
            bench.now.boot = at;
            bench.give(Event::Timer);
            bench.effects.clear();
        }
        bench.now.boot = until;
        let age = until.since(bench.node.seemed_current_at().expect("as before"));
        assert!(age >= Duration::from_secs(10), "{age:?}");
    }
}

#[test]
fn who_is_told_by_the_leader_seems_current_though_it_never_finds_the_end() {
    let mut leader = Bench::leader();
    let mut follower = Bench::new(Settings::one_of_several("m"));
    follower.slots = leader.slots.clone();
    follower.run(Event::Started);
    leader.run(propose(0..1));
    let told = leader.told.pop().expect("it is told");
    follower.pass(900);
    follower.run(Event::Told(vec![(told.0, told.1.expect("its commands"))]));
    assert_eq!(follower.node.seemed_current_at(), Some(follower.now.boot));
    assert!(follower.node.confirmed_at() < Some(follower.now.boot));
}

#[test]
fn a_follower_that_fell_behind_the_floor_starts_again_from_a_snapshot() {
    let mut leader = Bench::leader();
    leader.run(propose(0..3));
    let mut bench = Bench::new(Settings::one_of_several("m"));
    bench.slots = leader.slots.clone();
    bench.run(Event::Started);
    assert_eq!(bench.node.confirmed_at(), Some(bench.now.boot));
    // It sleeps; what comes next is trimmed meanwhile.
    bench.slots.trim(9, &[]);
    for _ in 0..20 {
        bench.now.boot = bench.node.deadline().expect("it looks again");
        bench.give(Event::Timer);
        while let Some(event) = bench.answer() {
            bench.give(event);
            let load = |e: &Effect| matches!(e, Effect::LoadSnapshot { above: 2, .. });
            if bench.effects.iter().any(load) {
                return;
            }
        }
    }
    panic!("it never asks for a snapshot");
}

#[test]
fn a_body_that_is_gone_is_no_damage_if_its_slot_was_trimmed() {
    for floor in [9, 0] {
        let mut settings = Settings::alone("n");
        settings.slot_bytes_max = 100;
        let mut leader = Bench::new(settings);
        leader.run(Event::Started);
        leader.run(propose(0..3));
        let mut bench = Bench::new(Settings::one_of_several("m"));
        bench.slots = leader.slots.clone();
        bench.give(Event::Started);
        // The slots are read; body and slot are trimmed before the body is.
        while !matches!(bench.effects[..], [Effect::ReadFloor { .. }]) {
            let event = bench.answer().expect("a request");
            bench.give(event);
        }
        bench.slots.trim(floor, &[]);
        let event = bench.answer().expect("the floor is read");
        bench.give(event);
        let expected = match floor {
            0 => Role::Halted,
            _ => Role::Loading,
        };
        assert_eq!(bench.node.role(), expected, "floor {floor}");
    }
}
