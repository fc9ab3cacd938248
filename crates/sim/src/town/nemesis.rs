//! What befalls the town: kills, pauses, clocks that are off, cuts between processes and between a
//! process and the bucket, bad weather, and the end of it all. It must not judge.

use std::sync::Arc;
use std::time::Duration;

use host::clock;
use host::seeded::{self, Clocks, Place, Weather};

use crate::faults::Fault;
use crate::history::Act;

use super::Town;

/// Between two draws of what befalls processes.
const INTERVAL: Duration = Duration::from_millis(300);
/// A killed process comes back within this time.
const RESTART_US: u64 = 2_000_000;
/// A paused process goes on within this time.
const PAUSE_US: u64 = 6_000_000;
/// A cut lasts up to so long.
const CUT_US: u64 = 4_000_000;
/// The bucket is away for up to so long.
const OUTAGE_US: u64 = 6_000_000;
/// How far boot clocks drift at most, in millionths: five percent.
const DRIFT_PPM: u64 = 50_000;
/// Wall clocks are off by up to so much, either way.
const WALL_OFF_MILLIS: u64 = 600_000;

/// What a control node's wall clock is ahead after it has lost its time.
const YEAR_MILLIS: i64 = 365 * 86_400_000;
/// Stamps may be ahead of the true time by as much as clocks that nobody takes for wrong, and by what drifts while a run lasts.
const STAMPS_AHEAD_MAX_MILLIS: u64 = WALL_OFF_MILLIS + 120_000;

/// The clocks that a run's machines have from the start.
pub(super) fn set_clocks(town: &Town) {
    for place in town.processes() {
        let clocks = seeded::draw(|rng| Clocks {
            boot_start_us: rng.below(10_000_000_000),
            drift_ppm: rng.below(2 * DRIFT_PPM) as i32 - DRIFT_PPM as i32,
            wall_offset_millis: 0,
        });
        let drifts = town.rate(Fault::ClockDrift) > 0;
        let drift_ppm = if drifts { clocks.drift_ppm } else { 0 };
        seeded::set_clocks(
            place,
            Clocks {
                drift_ppm,
                ..clocks
            },
        );
    }
}

/// Draws faults until the town is healed.
pub(super) async fn rage(town: Arc<Town>) {
    town.with(|book| book.faults.begin());
    let loss = town.rate(Fault::Loss).min(2_000);
    seeded::set_weather(Weather {
        held_per_million: town.rate(Fault::Delay).min(50_000),
        held_us: 1_000_000,
        reset_per_million: loss,
        ..Weather::FAIR
    });
    loop {
        if town.strike(Fault::Outage) {
            let until_us = seeded::now_us() + seeded::draw(|rng| rng.below(OUTAGE_US));
            tell(&town, "the bucket is away".to_owned());
            town.with(|book| book.away_until_us = until_us);
        }
        for place in town.processes() {
            befall(&town, place).await;
        }
        lose_a_year(&town);
        clock::sleep(INTERVAL).await;
    }
}

async fn befall(town: &Arc<Town>, place: Place) {
    let now_us = seeded::now_us();
    if town.strike(Fault::Kill) {
        kill(town, place);
    }
    if town.strike(Fault::Pause) {
        tell(town, format!("pause {}", place.0));
        seeded::pause(place);
        let pause_us = seeded::draw(|rng| rng.below(PAUSE_US));
        seeded::spawn_at(Place::OUTSIDE, "resume", async move {
            seeded::sleep_us(pause_us).await;
            seeded::resume(place);
        });
    }
    let until_us = now_us + seeded::draw(|rng| rng.below(CUT_US));
    if town.strike(Fault::OneWayCut) {
        let others = town.places();
        let at = seeded::draw(|rng| rng.below(others.len() as u64)) as usize;
        let there = seeded::draw(|rng| rng.below(2)) == 0;
        let (from, to) = if there {
            (place, others[at])
        } else {
            (others[at], place)
        };
        tell(town, format!("cut {} to {}", from.0, to.0));
        seeded::cut(from, to, until_us);
    }
    if town.strike(Fault::BucketCut) {
        // Requests do not get there, answers do not come back, or both.
        let way = seeded::draw(|rng| rng.below(3));
        tell(town, format!("cut {} from the bucket, {way}", place.0));
        if way != 1 {
            seeded::cut(place, town.store.place(), until_us);
        }
        if way != 0 {
            seeded::cut(town.store.place(), place, until_us);
        }
    }
    if town.strike(Fault::Isolation) {
        tell(town, format!("isolate {}", place.0));
        for other in town.places() {
            seeded::cut(place, other, until_us);
            seeded::cut(other, place, until_us);
        }
    }
    if town.strike(Fault::ClockJump) {
        let millis = seeded::draw(|rng| rng.below(2 * WALL_OFF_MILLIS)) as i64;
        tell(town, format!("wall clock of {}", place.0));
        seeded::set_wall_offset(place, millis - WALL_OFF_MILLIS as i64);
    }
}

/// Sets the clock of one control node of three a year ahead, once in a run: there is a median, and it is the only one.
fn lose_a_year(town: &Town) {
    let is_done = town.with(|book| book.is_year_lost);
    if town.controls.len() < 3 || is_done || !town.strike(Fault::YearAhead) {
        return;
    }
    let at = seeded::draw(|rng| rng.below(town.controls.len() as u64)) as usize;
    let place = town.controls[at];
    tell(town, format!("wall clock of {} a year ahead", place.0));
    seeded::set_wall_offset(place, YEAR_MILLIS);
    town.with(|book| book.is_year_lost = true);
}

/// The time of the journal did not run ahead (three regions, rule L4).
pub(super) fn check_stamps(town: &Town) {
    let now_millis = clock::wall_millis();
    let stamped = town.newest(|state| state.stamp().wall_millis);
    let ahead_millis = stamped.unwrap_or(0).saturating_sub(now_millis);
    if ahead_millis > STAMPS_AHEAD_MAX_MILLIS {
        town.violation(format!("stamps are {ahead_millis} ms ahead of the time"));
    }
}

pub(super) fn tell(town: &Town, what: String) {
    seeded::note(format_args!("{what}"));
    town.record(|now_us, history| history.event(now_us, Act::Fault(what)));
}

/// Kills a process, which comes back some time later.
fn kill(town: &Arc<Town>, place: Place) {
    if !town.dies(place) {
        return;
    }
    let (silent, down_us) = seeded::draw(|rng| (rng.once_in(4), rng.below(RESTART_US)));
    tell(town, format!("kill {}", place.0));
    seeded::kill(place, silent);
    let town = Arc::clone(town);
    seeded::spawn_at(Place::OUTSIDE, "restart", async move {
        seeded::sleep_us(down_us).await;
        if town.comes_back(place) {
            town.start(place);
        }
    });
}

/// Kills the process in the middle of what it is doing, as a request of its takes effect.
pub(super) fn strike_down(town: &Arc<Town>, place: Place) {
    kill(town, place);
}

/// Ends all faults: what is down comes up, what is cut is joined, what is paused goes on.
pub(super) fn heal(town: &Arc<Town>) {
    let injected = town.with(|book| book.faults.injected().values().sum::<u64>());
    let injected = injected + seeded::disturbances();
    if injected == 0 {
        // No run is without a fault.
        kill(town, town.servers[0]);
    }
    tell(town, format!("{injected} in all"));
    town.with(|book| {
        book.faults.heal();
        book.last_fault_us = seeded::now_us();
    });
    seeded::set_weather(Weather::FAIR);
    seeded::heal();
    for place in town.processes() {
        seeded::resume(place);
        if town.comes_back(place) {
            town.start(place);
        }
    }
    town.record(|now_us, history| history.event(now_us, Act::Heal));
}
