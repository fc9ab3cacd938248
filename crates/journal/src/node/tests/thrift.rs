//! How often a leader appends when entries may cost only so much.

use host::thrift;

use super::*;

/// Eleven requests a second, at 1.1 for each entry; commands wait 60 ms at most.
fn thrifty() -> Bench {
    let mut settings = Settings::alone("n");
    settings.append_thrift = thrift::Limits {
        per_second: 11,
        per_mib: 1,
        wait_max: Duration::from_millis(60),
    };
    let mut bench = Bench::new(settings);
    bench.run(Event::Started);
    bench.seen.clear();
    bench
}

/// Spends what four seconds have saved up.
fn spend_all(bench: &mut Bench) {
    for ticket in 0..40 {
        bench.run(propose(ticket..ticket + 1));
    }
    assert_eq!(applied(bench).len(), 40, "rare commands do not wait");
    bench.seen.clear();
}

fn wait(bench: &Bench) -> Duration {
    let deadline = bench.node.deadline().expect("something is due");
    deadline.since(bench.now.boot)
}

#[test]
fn commands_share_an_entry_until_it_can_be_paid_for() {
    let mut bench = thrifty();
    spend_all(&mut bench);
    bench.run(propose(40..41));
    bench.pass(20);
    bench.run(propose(41..42));
    bench.give(Event::Barrier(Ticket(42)));
    assert_eq!(applied(&bench), [0; 0]);
    assert_eq!(wait(&bench), Duration::from_millis(40));
    bench.pass(40);
    bench.run(Event::Timer);
    assert_eq!(applied(&bench), [40, 41]);
    let passed = bench.seen.last();
    assert!(matches!(passed, Some(Effect::BarrierPassed { .. })));
}

#[test]
fn what_was_paid_for_is_appended_before_the_longest_wait_is_over() {
    let mut bench = thrifty();
    spend_all(&mut bench);
    bench.pass(90);
    bench.run(propose(40..41));
    assert_eq!(wait(&bench), Duration::from_millis(10));
    bench.pass(10);
    bench.run(Event::Timer);
    assert_eq!(applied(&bench), [40]);
}

#[test]
fn commands_about_many_bytes_pay_for_their_entries() {
    let mut bench = thrifty();
    spend_all(&mut bench);
    for ticket in 40..60 {
        let proposal = Proposal {
            ticket: Ticket(ticket),
            item: Item {
                cluster: ClusterNumber(1),
                command: Bytes::from("x"),
            },
            stored_bytes: 2 << 20,
        };
        bench.run(Event::Propose(vec![proposal]));
        bench.pass(u64::from(ticket == 40) * 60);
        bench.run(Event::Timer);
    }
    assert_eq!(applied(&bench).len(), 20);
}

#[test]
fn a_heartbeat_waits_for_nothing_and_takes_along_what_waits() {
    let mut settings = Settings::alone("n");
    settings.append_thrift = thrift::Limits {
        per_second: 1,
        per_mib: 1,
        wait_max: Duration::from_secs(60),
    };
    settings.heartbeat_interval = Duration::from_millis(200);
    let mut bench = Bench::new(settings);
    bench.run(Event::Started);
    for ticket in 0..3 {
        bench.run(propose(ticket..ticket + 1));
    }
    bench.run(propose(3..4));
    bench.seen.clear();
    assert_eq!(wait(&bench), Duration::from_millis(200));
    bench.pass(200);
    bench.run(Event::Timer);
    assert_eq!(applied(&bench), [3]);
}
