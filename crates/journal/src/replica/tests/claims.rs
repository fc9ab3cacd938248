//! The engine of a replica hears of claims that count, whoever made them. It must not know what an engine does with that.

use std::sync::atomic::{AtomicU64, Ordering};

use async_trait::async_trait;

use super::*;
use crate::engine::{Error, Limits, Scan, TakeError, Taken};

/// An engine that notes the newest claim of which it was told.
struct Told {
    engine: Object,
    newest: Arc<AtomicU64>,
}

#[async_trait]
impl Engine for Told {
    async fn scan(&self, from: u64, limit: usize) -> Scan {
        self.engine.scan(from, limit).await
    }

    async fn above(&self, index: u64) -> Result<Option<u64>, Error> {
        self.engine.above(index).await
    }

    async fn floor(&self) -> Result<u64, Error> {
        self.engine.floor().await
    }

    async fn take(&self, from: u64, through: u64) -> Result<Taken, TakeError> {
        self.engine.take(from, through).await
    }

    fn claimed(&self, index: u64) {
        self.newest.fetch_max(index, Ordering::Relaxed);
    }

    fn mark(&self, index: u64) -> Bytes {
        self.engine.mark(index)
    }

    fn adopt(&self, mark: &[u8]) -> Result<(), Error> {
        self.engine.adopt(mark)
    }

    fn limits(&self) -> Limits {
        self.engine.limits()
    }
}

#[tokio::test]
async fn engines_of_leaders_and_of_followers_hear_of_claims() {
    let mut world = World::new();
    let start = |world: &World| {
        let newest = Arc::new(AtomicU64::new(0));
        let engine = Told {
            engine: Object::new(world.bucket(), 0),
            newest: Arc::clone(&newest),
        };
        (newest, world.start_on(Box::new(engine)))
    };
    let (leads, (leader, _leading)) = start(&world);
    role(&leader, Role::Leader).await;
    world.settings = Settings::one_of_several("c2");
    world.settings.takeover_after = Duration::from_secs(60);
    let (follows, (_follower, _following)) = start(&world);
    let until = host::clock::now() + Duration::from_secs(10);
    let heard = || [&leads, &follows].map(|newest| newest.load(Ordering::Relaxed));
    while heard() != [1, 1] && host::clock::now() < until {
        host::clock::sleep(Duration::from_millis(1)).await;
    }
    assert_eq!(heard(), [1, 1]);
}
