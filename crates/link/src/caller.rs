//! Who calls control nodes and agents, and by what they know it.

use hyper::header::{HeaderMap, HeaderValue, InvalidHeaderValue};

use crate::keys::Security;
use crate::message::{CLUSTER, LEVEL, NAME};
use crate::process::Process;

/// Who calls.
#[derive(Clone)]
pub struct Caller {
    pub cluster_id: String,
    pub process: Process,
    pub security: Security,
}

impl Caller {
    /// The headers of each request of a caller that knows levels up to `level`.
    pub(crate) fn headers(&self, level: u32) -> Result<HeaderMap, InvalidHeaderValue> {
        let mut headers = HeaderMap::new();
        headers.insert(CLUSTER, HeaderValue::from_str(&self.cluster_id)?);
        headers.insert(NAME, HeaderValue::from_str(&name(&self.process))?);
        headers.insert(LEVEL, HeaderValue::from(level));
        Ok(headers)
    }
}

/// A process as a header has it.
pub(crate) fn name(process: &Process) -> String {
    let name = process.to_string();
    name.replace(|c: char| !(' '..='~').contains(&c), "?")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::message::level;
    use crate::process::Role;

    #[test]
    fn a_name_of_any_characters_can_be_told() {
        let caller = Caller {
            cluster_id: "AAAA".to_owned(),
            process: Process {
                role: Role::Agent,
                name: "Zürich\n1".to_owned(),
            },
            security: Security::Plaintext,
        };
        let headers = caller.headers(3).expect("headers");
        assert_eq!(headers[NAME], "agent Z?rich?1");
        assert_eq!(level(&headers), Some(3));
    }
}
