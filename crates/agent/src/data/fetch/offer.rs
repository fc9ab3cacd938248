//! Gives other agents of the zone parts of files that this one keeps for all: from the cache, or from the bucket, once for all
//! who ask. It never asks another agent for them, nor waits for one that is asked, so that requests cannot go in a circle. It must not know how it is asked.

use std::sync::Arc;

use async_trait::async_trait;
use meta::places::SlicePlace;
use rpc::part::{NotGiven, Offers, Part, Wanted};

use super::plan::{part_bytes, part_of};
use super::source::Source;
use crate::data::cache::{Cache, Chunk, LoadError, Need};
use crate::metrics::Metrics;
use shares::Shares;

mod shares;

/// Requests at one time; one more is told so, and its agent asks the bucket.
const REQUESTS_MAX: u64 = 256;

pub(crate) struct Offer {
    cache: Arc<Cache>,
    source: Arc<Source>,
    metrics: Arc<Metrics>,
    /// How much of the cache's memory may be on its way to others.
    sending: Arc<Shares>,
}

impl Offer {
    pub(super) fn new(
        cache: Arc<Cache>,
        source: Arc<Source>,
        metrics: Arc<Metrics>,
        sending_bytes: u64,
    ) -> Self {
        Offer {
            cache,
            source,
            metrics,
            sending: Shares::new(sending_bytes, REQUESTS_MAX),
        }
    }

    /// The chunk of a part, from memory or the bucket. It waits for no memory: the other agent has its own.
    async fn chunk(&self, wanted: &Wanted) -> Result<Arc<Chunk>, NotGiven> {
        let Wanted { partition, place } = *wanted;
        let part = part_of(&place);
        if let Some(chunk) = self.cache.find_exactly(part) {
            return Ok(chunk);
        }
        let need = Need {
            bytes: part_bytes(&place),
            may_wait: false,
            may_ask: false,
        };
        let own = self.cache.segment_of(place.file);
        let source = Arc::clone(&self.source);
        let load = move |held, _| async move {
            source.bring_from_bucket(partition, &place, own, held).await
        };
        let loaded = self.cache.load(part, need, load).await;
        loaded.map_err(|error| match error {
            LoadError::NoRoom | LoadError::Asked => NotGiven::Busy,
            LoadError::Missing | LoadError::Corrupt(_) | LoadError::Unavailable(_) => {
                NotGiven::Missing
            }
        })
    }
}

#[async_trait]
impl Offers for Offer {
    async fn part(&self, caller: &str, wanted: Wanted) -> Result<Part, NotGiven> {
        if !is_sound(&wanted.place) {
            return Err(NotGiven::Failed("no file has such a place".to_owned()));
        }
        let bytes = part_bytes(&wanted.place);
        let sending = self.sending.take(caller, bytes).ok_or(NotGiven::Busy)?;
        let chunk = self.chunk(&wanted).await?;
        let pieces = chunk.stored().to_vec();
        if pieces.is_empty() {
            return Err(NotGiven::Missing);
        }
        self.metrics.neighbour_given_bytes.add(bytes);
        let kept = Box::new((chunk, sending));
        Ok(Part { pieces, kept })
    }
}

/// Whether a place lies in its file, whoever says so.
fn is_sound(place: &SlicePlace) -> bool {
    let end = place.position.checked_add(u64::from(place.length));
    end.is_some_and(|end| end <= place.file_length)
}
