//! Finds where records are: by the tails of partitions, or else by a call to a control node. It must not know who reads.

use meta::places::Located;
use rpc::call::Locate;
use rpc::{Client, Position};

use super::hub::Hub;

pub struct Finder<'a> {
    pub control: &'a Client,
    pub hub: &'a Hub,
}

impl Finder<'_> {
    /// Where records are, in the order of what is wanted, by answers that know everything up to `at`.
    pub async fn locate(
        &self,
        wanted: &[Locate],
        at: Position,
    ) -> Result<Vec<Located>, rpc::Error> {
        if at > Position::default() {
            // What was known before is in doubt.
            let partitions = wanted.iter().map(|wanted| wanted.partition);
            self.hub.tails().end(partitions);
            return Ok(self.control.locate(wanted.to_vec(), at).await?.1);
        }
        let looked = self.hub.tails().look(wanted, host::clock::now());
        let both = wanted.iter().zip(&looked.found);
        let unknown = both.filter(|(_, found)| found.is_none());
        let unknown: Vec<Locate> = unknown.map(|(wanted, _)| *wanted).collect();
        let mut told = Vec::new().into_iter();
        if !unknown.is_empty() {
            let asked = self.control.locate(unknown.clone(), looked.at).await?;
            let (at, located) = asked;
            self.hub.tails().begin(unknown.iter().zip(&located), at);
            told = located.into_iter();
        }
        let found = looked.found.into_iter();
        Ok(found
            .filter_map(|found| found.or_else(|| told.next()))
            .collect())
    }
}
