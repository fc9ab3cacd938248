//! What is lost with an entry that is left out, as far as this build can read its commands: lines for people, up to a bound. It must not
//! know what commands mean.

use super::StateMachine;
use crate::entry::Item;

/// The most lines for one entry; of the others it is said how many there are.
const LINES_MAX: usize = 1_000;

/// What is lost with these commands, whose entry the state is before.
pub(super) fn lines<S: StateMachine>(state: &S, items: &[Item]) -> Vec<String> {
    let mut lines = Vec::new();
    let mut more = 0;
    for (number, item) in items.iter().enumerate() {
        let cluster = item.cluster;
        let lost = state.lost_with(cluster, &item.command).unwrap_or_else(|| {
            let bytes = item.command.len();
            vec![format!("this release cannot read it ({bytes} bytes)")]
        });
        for one in lost {
            match lines.len() < LINES_MAX {
                true => lines.push(format!("command {number} of cluster {}: {one}", cluster.0)),
                false => more += 1,
            }
        }
    }
    if more > 0 {
        lines.push(format!("and {more} more"));
    }
    lines
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::super::tests::Sum;
    use super::*;
    use crate::entry::ClusterNumber;

    fn item(command: &'static str) -> Item {
        Item {
            cluster: ClusterNumber(1),
            command: Bytes::from_static(command.as_bytes()),
        }
    }

    #[test]
    fn what_is_lost_is_told_command_by_command_and_what_cannot_be_read_too() {
        let told = lines(&Sum::default(), &[item("poison"), item("5")]);
        assert_eq!(
            told[0],
            "command 0 of cluster 1: this release cannot read it (6 bytes)"
        );
        assert_eq!(told[1], "command 1 of cluster 1: 5 in place 0, after 0");
        assert_eq!(told.len(), 601);
    }

    #[test]
    fn of_very_much_it_is_told_how_much_more_there_is() {
        let told = lines(&Sum::default(), &[item("5"), item("6"), item("poison")]);
        assert_eq!(told.len(), LINES_MAX + 1);
        assert_eq!(told[LINES_MAX], "and 201 more");
    }
}
