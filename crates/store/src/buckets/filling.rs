//! A copy for one bucket, of an object that others hold. It must not know why the bucket lacks it.

use std::sync::Arc;

use super::{Buckets, Place};
use crate::bucket::{Bucket, Error, Key, Op, Payload, Put};
use crate::retry::{Retry, is_ours};

/// What became of a copy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Filled {
    /// The bucket holds these bytes, whoever put them there.
    Held,
    /// It holds other bytes under the name, which are left as they are: it has no copy.
    Other,
}

impl Buckets {
    /// The same buckets, and what is known of them, but only those of these numbers: what is read comes from one of them, and is
    /// absent only if all say so. `None` if there is none.
    pub fn among(&self, numbers: &[u32]) -> Option<Self> {
        let is_named = |place: &&Arc<Place>| numbers.contains(&place.number);
        let places: Vec<_> = self.places.iter().filter(is_named).cloned().collect();
        let copies = 1;
        let missed = Arc::clone(&self.missed);
        (!places.is_empty()).then_some(Buckets {
            places,
            copies,
            missed,
        })
    }

    /// Whether what the bucket of this number says counts at this moment.
    pub fn is_usable(&self, number: u32) -> bool {
        self.place(number)
            .is_some_and(|place| place.refusal().is_none())
    }

    /// One of the buckets by itself; what it says counts as it does here.
    pub fn by_itself(&self, number: u32) -> Option<Arc<dyn Bucket>> {
        let place = self.place(number)?;
        Some(Arc::<Place>::clone(place) as _)
    }

    /// Creates an object in one bucket, under a name that means these bytes and no others, and repeats what fails.
    pub async fn fill(
        &self,
        number: u32,
        key: &Key,
        payload: &Payload,
        retry: &Retry,
    ) -> Result<Filled, Error> {
        let Some(place) = self.place(number) else {
            let detail = format!("there is no bucket {number}");
            return Err(Error::definite(Op::PutNew, key, detail));
        };
        retry
            .run(Op::PutNew, key, || async {
                match place.put_new(key, payload.clone()).await? {
                    Put::Created => Ok(Filled::Held),
                    Put::Conflict if is_ours(&**place, key, payload).await? => Ok(Filled::Held),
                    Put::Conflict => Ok(Filled::Other),
                }
            })
            .await
    }

    pub(super) fn place(&self, number: u32) -> Option<&Arc<Place>> {
        self.places.iter().find(|place| place.number == number)
    }
}
