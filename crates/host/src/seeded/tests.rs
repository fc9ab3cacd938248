//! Machines, sockets and clocks of a simulation, seen from the code that runs on them.

use std::io::ErrorKind;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::*;
use crate::{clock, net, rng, task};

const A: Place = Place(1);
const B: Place = Place(2);

fn silent() -> Box<dyn FnMut(u64, fmt::Arguments<'_>)> {
    Box::new(|_, _| {})
}

fn address(place: Place) -> SocketAddr {
    SocketAddr::new(place.ip().into(), 9092)
}

/// What tasks tell each other in a test.
type Notes = Arc<Mutex<Vec<String>>>;

fn tell(notes: &Notes, what: impl Into<String>) {
    notes.lock().unwrap().push(what.into());
}

/// Sends back what comes, on every connection.
async fn echo() {
    let listener = net::listen(address(B)).await.unwrap();
    loop {
        let (mut stream, _) = net::accept(&listener).await.unwrap();
        task::spawn_detached("echo", async move {
            let mut buffer = [0; 64];
            while let Ok(count) = stream.read(&mut buffer).await
                && count > 0
                && stream.write_all(&buffer[..count]).await.is_ok()
            {}
        });
    }
}

/// A run with some of everything; what was drawn and seen, and the hash of its turns.
fn some_run(seed: u64) -> (Vec<String>, u64, u64) {
    let notes = Notes::default();
    let told = Arc::clone(&notes);
    let ran = run(seed, silent(), async move {
        spawn_at(B, "echo", echo());
        for number in 0..5_u64 {
            let told = Arc::clone(&told);
            spawn_at(A, "client", async move {
                clock::sleep(Duration::from_millis(number % 2)).await;
                let mut stream = net::dial(&address(B).to_string()).await.unwrap();
                stream.write_all(&number.to_be_bytes()).await.unwrap();
                let back = stream.read_u64().await.unwrap();
                let line = format!("{back} at {} {:x}", now_us(), rng::nonce());
                tell(&told, line);
            });
        }
        sleep_us(1_000_000).await;
    });
    let ran = ran.unwrap();
    let notes = notes.lock().unwrap().clone();
    (notes, ran.turns, ran.hash)
}

#[test]
fn a_seed_replays_itself_and_another_does_not() {
    assert_eq!(some_run(1).0.len(), 5);
    assert_eq!(some_run(1), some_run(1));
    assert_ne!(some_run(1), some_run(2));
}

#[test]
fn time_is_each_machine_s_own() {
    let ran = run(1, silent(), async {
        let clocks = Clocks {
            boot_start_us: 7_000_000,
            drift_ppm: 50_000,
            wall_offset_millis: -5_000,
        };
        set_clocks(A, clocks);
        let before = clock::wall_millis();
        spawn_at(A, "sleeper", async move {
            assert_eq!(clock::now().as_micros(), 7_000_000);
            assert_eq!(clock::wall_millis() + 5_000, before);
            clock::sleep(Duration::from_secs(21)).await;
            assert_eq!(clock::now().as_micros(), 28_000_000);
            assert_eq!(now_us(), 20_000_000);
        });
        clock::sleep(Duration::from_secs(30)).await;
        (clock::now().as_micros(), panics())
    });
    assert_eq!(ran.unwrap().value, (30_000_000, Vec::new()));
}

#[test]
fn a_killed_process_is_gone_with_its_connections_and_a_panic_kills() {
    let ran = run(1, silent(), async {
        spawn_at(B, "echo", echo());
        sleep_us(1_000).await;
        let mut stream = net::dial(&address(B).to_string()).await.unwrap();
        kill(B, false);
        let gone = stream.read_u8().await.unwrap_err().kind();
        let refused = net::dial(&address(B).to_string()).await.unwrap_err().kind();
        spawn_at(B, "echo", echo());
        spawn_at(B, "sick", async {
            clock::sleep(Duration::from_millis(5)).await;
            panic!("on purpose");
        });
        sleep_us(2_000).await;
        let mut stream = net::dial(&address(B).to_string()).await.unwrap();
        let dead = stream.read_u8().await.unwrap_err().kind();
        (gone, refused, dead, panics().len())
    });
    let expected = (
        ErrorKind::ConnectionReset,
        ErrorKind::ConnectionRefused,
        ErrorKind::ConnectionReset,
        1,
    );
    assert_eq!(ran.unwrap().value, expected);
}

#[test]
fn a_cut_holds_back_one_direction_and_a_pause_holds_back_all() {
    let ran = run(1, silent(), async {
        spawn_at(B, "echo", echo());
        sleep_us(1_000).await;
        let mut stream = net::dial(&address(B).to_string()).await.unwrap();
        let mut took = async || {
            let start = now_us();
            stream.write_all(b"x").await.unwrap();
            stream.read_u8().await.unwrap();
            now_us() - start
        };
        let at_first = took().await;
        cut(B, Place::OUTSIDE, now_us() + 3_000_000);
        let by_cut = took().await;
        pause(B);
        spawn_at(A, "resume", async {
            sleep_us(2_000_000).await;
            resume(B);
        });
        let by_pause = took().await;
        cut(Place::OUTSIDE, B, now_us() + 60_000_000);
        spawn_at(A, "heal", async {
            sleep_us(1_000_000).await;
            heal();
        });
        (at_first, by_cut, by_pause, took().await)
    });
    let (at_first, by_cut, by_pause, healed) = ran.unwrap().value;
    assert!(at_first < 2_000, "{at_first}");
    assert!((3_000_000..3_010_000).contains(&by_cut), "{by_cut}");
    assert!((2_000_000..2_010_000).contains(&by_pause), "{by_pause}");
    assert!((1_000_000..1_010_000).contains(&healed), "{healed}");
}

#[test]
fn who_does_not_read_stops_who_writes() {
    let ran = run(1, silent(), async {
        spawn_at(B, "deaf", async {
            let listener = net::listen(address(B)).await.unwrap();
            let _kept = net::accept(&listener).await.unwrap();
            std::future::pending::<()>().await;
        });
        sleep_us(1_000).await;
        let mut stream = net::dial(&address(B).to_string()).await.unwrap();
        let bytes = vec![0; 1 << 20];
        clock::timeout(Duration::from_secs(5), stream.write_all(&bytes)).await
    });
    assert!(ran.unwrap().value.is_err());
}

#[test]
fn a_run_that_waits_for_nothing_is_told() {
    let stuck = run(1, silent(), std::future::pending::<()>());
    assert!(stuck.unwrap_err().contains("nothing will happen"));
}
