//! An operator's word which region is to lead. It must not know how that comes about.

use meta::command::{Command, ConfigChanges};
use meta::reply::Reply;

pub use crate::choice::AUTO;
use crate::configs::PREFERRED;
use crate::node::Node;

/// Why a region is not preferred.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotPreferred {
    /// Another node has to be asked.
    #[error("this control node does not lead: ask the one that does{}", .leader.as_ref().map_or_else(String::new, |name| format!(", {name}")))]
    NotLeader {
        /// What it calls itself in its claims, if it is known.
        leader: Option<String>,
    },
    /// No control node is there.
    #[error("no control node is in a region {region}: say {}, or {AUTO}", .regions.join(", "))]
    Unknown {
        region: String,
        /// Where there are.
        regions: Vec<String>,
    },
    /// It was refused when it was applied, or may be preferred.
    #[error("{0}")]
    Failed(#[from] rpc::Error),
}

impl Node {
    /// Has the nodes of a region lead as long as they are well, or with [`AUTO`] those of the region in which commits take the least
    /// time.
    pub async fn prefer(&self, region: &str) -> Result<(), NotPreferred> {
        if !self.leads() {
            let leader = self.journal_status().leader;
            return Err(NotPreferred::NotLeader { leader });
        }
        let mut regions = self.with_state(|state| {
            let nodes = state.control_nodes();
            let named = nodes.filter(|node| !node.region.is_empty());
            named.map(|node| node.region.clone()).collect::<Vec<_>>()
        });
        regions.sort_unstable();
        regions.dedup();
        if region != AUTO && !regions.iter().any(|known| known == region) {
            return Err(NotPreferred::Unknown {
                region: region.to_owned(),
                regions,
            });
        }
        if self.preferred_region() == region {
            return Ok(());
        }
        let command = Command::SetClusterConfigs {
            replaces: self.with_state(meta::State::configs_version),
            changes: ConfigChanges {
                set: [(PREFERRED.to_owned(), region.to_owned())].into(),
                ..ConfigChanges::default()
            },
        };
        match self.propose(&command).await?.1 {
            Reply::TopicRefused(refusal) => Err(rpc::Error::Topic(refusal).into()),
            Reply::Refused(refusal) => Err(NotPreferred::Failed(rpc::Error::Refused {
                reason: refusal.to_string(),
            })),
            _ => {
                tracing::info!(region, "which region leads is set by an operator's word");
                Ok(())
            }
        }
    }
}
