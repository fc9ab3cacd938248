//! A journal that is not in its cluster's bucket. The bucket's marker says what keeps it, so that nobody takes it for empty; and once
//! it is known to be there, an object says so, so that an etcd that has lost it is not taken for a new one.

use std::time::Duration;

use anyhow::{Result, bail};
use etcd::{Etcd, Refusal};
use host::log_limit::LogLimit;
use store::bucket::{Bucket, Key, Payload};
use store::layout::JOURNAL;
use store::marker::Marker;

use super::{LOG_EVERY, RETRY};
use crate::health::Health;
use crate::journals::{ETCD, Journal, Place};

/// How long one look may take.
const LOOK_LIMIT: Duration = Duration::from_secs(10);
/// The shard of a cluster that is one state machine.
const SHARD: u16 = 0;

/// Refuses a journal that is not where the bucket's marker says; whoever has no journal of its own takes any.
pub(super) fn check(marker: &Marker, journal: Option<&Journal>) -> Result<()> {
    let Some(journal) = journal else {
        return Ok(());
    };
    let cluster = &marker.cluster;
    match (marker.journal.as_deref(), journal.word()) {
        (found, wanted) if found == wanted => Ok(()),
        (Some(ETCD), _) => bail!(
            "the journal of cluster {cluster} is in an etcd, not in its bucket: run its control nodes by `seaway control --journal \
             etcd://HOST:PORT,HOST:PORT,HOST:PORT/PREFIX`, with what they had before"
        ),
        (Some(other), _) => bail!(
            "the journal of cluster {cluster} is kept by {other}, which this release does not know: use the release that made it"
        ),
        (None, _) => bail!(
            "the journal of cluster {cluster} is in its bucket: leave --journal out. A journal is not moved: a cluster with another \
             begins in an empty bucket"
        ),
    }
}

/// Makes sure that the journal at `place` is the cluster's, however long it takes to answer.
pub(super) async fn admit(
    place: &Place,
    bucket: &dyn Bucket,
    cluster: &str,
    health: &Health,
) -> Result<Etcd> {
    let engine = Etcd::new(&place.location, &place.security, cluster, SHARD);
    let mut pauses = RETRY.start();
    let log = LogLimit::every(LOG_EVERY);
    loop {
        let look = try_admit(&engine, place, bucket);
        let why = match host::clock::timeout(LOOK_LIMIT, look).await {
            Ok(Ok(())) => return Ok(engine),
            Ok(Err(Refusal::Final(why))) => bail!(why),
            Ok(Err(refusal)) => refusal.to_string(),
            Err(elapsed) => elapsed.to_string(),
        };
        health.waiting(&why);
        if let Some(left_out) = log.pass(host::clock::now()) {
            tracing::warn!(%why, left_out, "the journal cannot be used yet; trying again");
        }
        pauses.pause().await;
    }
}

async fn try_admit(engine: &Etcd, place: &Place, bucket: &dyn Bucket) -> Result<(), Refusal> {
    let founded = Key::new(format!("{JOURNAL}{ETCD}"));
    let founded = founded.map_err(|error| Refusal::Final(error.to_string()))?;
    let waits = |error: store::bucket::Error| Refusal::Waits(error.to_string());
    let is_founded = bucket.get(&founded).await.map_err(waits)?.is_some();
    engine.admit(!is_founded).await?;
    if !is_founded {
        let text = format!("The journal of this cluster began in {}.\n", place.location);
        let object = Payload::from(text.into_bytes());
        // Another control node may have written it in the meantime.
        bucket.put_new(&founded, object).await.map_err(waits)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn marker(journal: Option<&str>) -> Marker {
        Marker {
            cluster: "one".to_owned(),
            created_ms: 1,
            bucket: 0,
            generation: 1,
            siblings: Vec::new(),
            journal: journal.map(str::to_owned),
        }
    }

    #[test]
    fn a_journal_is_where_the_marker_says_or_the_start_is_refused_with_what_to_do() {
        let location = etcd::location::Location::parse("etcd://a").expect("a location");
        let security = etcd::security::Security::default();
        let in_etcd = Journal::Etcd(Box::new(Place { location, security }));
        for (found, given, hint) in [
            (None, &Journal::Buckets, ""),
            (Some("etcd"), &in_etcd, ""),
            (Some("etcd"), &Journal::Buckets, "--journal etcd://"),
            (None, &in_etcd, "leave --journal out"),
            (Some("spanner"), &in_etcd, "kept by spanner"),
            (Some("spanner"), &Journal::Buckets, "kept by spanner"),
        ] {
            let marker = marker(found);
            check(&marker, None).expect("an agent does not care");
            let told =
                check(&marker, Some(given)).map_or_else(|why| why.to_string(), |()| String::new());
            assert!(
                told.contains(hint) && told.is_empty() == hint.is_empty(),
                "{told}"
            );
        }
    }
}
