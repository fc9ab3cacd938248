//! Environment variables of our prefix: each is the twin of a setting or a flag. It must not read the environment itself.

use std::ffi::OsString;
use std::path::PathBuf;

use anyhow::{Result, bail};

use super::names::{CONFIG, Names, not_known};
use crate::origin::{Assigned, Origin};
use crate::settings;

const PREFIX: &str = "SEAWAY_";

/// Variables of our prefix that are neither settings nor flags: what tests of crashes and the tests' tools go by.
const OTHERS: [&str; 5] = [
    "SEAWAY_ETCD",
    "SEAWAY_FAILPOINTS",
    "SEAWAY_S3_SERVER",
    "SEAWAY_TOOLS",
    "SEAWAY_VERSITYGW",
];

/// The variable that gives a value to a setting or a flag.
pub fn variable(name: &str) -> String {
    let name = name.replace(['.', '-'], "_").to_ascii_uppercase();
    format!("{PREFIX}{name}")
}

/// What the variables assign, sorted by variable, and the file that one of them names.
pub fn read(
    names: &Names,
    environment: impl IntoIterator<Item = (OsString, OsString)>,
) -> Result<(Vec<Assigned>, Option<PathBuf>)> {
    let ours = environment.into_iter().filter_map(|(variable, value)| {
        let variable = variable.into_string().ok()?;
        variable.starts_with(PREFIX).then_some((variable, value))
    });
    let mut ours: Vec<(String, OsString)> = ours.collect();
    ours.sort();
    let mut assigned = Vec::new();
    let mut file = None;
    for (name, value) in ours {
        if name == variable(CONFIG) {
            file = Some(PathBuf::from(value));
            continue;
        }
        let known = names.all().find(|known| variable(known) == name);
        let value = value.into_string();
        if value.as_ref().is_ok_and(|value| is_of_a_link(&name, value)) {
            continue;
        }
        let Some(known) = known else {
            if OTHERS.contains(&&*name) || value.is_ok_and(|value| is_of_a_service(&name, &value)) {
                continue;
            }
            bail!(unknown(names, &name));
        };
        let Ok(value) = value else {
            bail!("{name}: its value is not text");
        };
        assigned.push(Assigned {
            name: known.to_owned(),
            value: value.trim().to_owned(),
            origin: Origin::Environment(name),
        });
    }
    Ok((assigned, file))
}

/// The variables that these values come from, and the one that names a file.
pub fn read_by(assigned: &[Assigned]) -> Vec<String> {
    let variables = assigned.iter().map(|one| one.origin.to_string());
    variables.chain([variable(CONFIG)]).collect()
}

/// Whether it is a variable that Kubernetes gives every pod beside a service, and Docker every container with a link, whose
/// name begins as ours do: `SEAWAY_PORT=tcp://10.0.0.1:9092`, `SEAWAY_AGENT_SERVICE_HOST`.
fn is_of_a_service(variable: &str, value: &str) -> bool {
    let is_url = ["tcp://", "udp://", "sctp://"]
        .iter()
        .any(|scheme| value.starts_with(scheme));
    let says_port = ["_TCP", "_UDP", "_SCTP"].iter().any(|protocol| {
        let Some((before, after)) = variable.rsplit_once(protocol) else {
            return false;
        };
        before.contains("_PORT_") && matches!(after, "" | "_PROTO" | "_PORT" | "_ADDR")
    });
    variable.ends_with("_SERVICE_HOST")
        || variable.contains("_SERVICE_PORT")
        || says_port
        || variable.ends_with("_PORT") && is_url
}

/// Whether it is a variable that Docker gives a container that is linked to one whose alias begins as ours do, beside those of
/// its ports: `SEAWAY_NAME=/container/seaway`, and those of the other container's own environment. The first would be taken for
/// the name of this process, which has no slashes.
fn is_of_a_link(variable: &str, value: &str) -> bool {
    let names_link = || value.starts_with('/') && value.matches('/').count() == 2;
    variable.contains("_ENV_") || variable.ends_with("_NAME") && names_link()
}

fn unknown(names: &Names, name: &str) -> String {
    let known: Vec<String> = names
        .all()
        .map(variable)
        .chain([variable(CONFIG)])
        .collect();
    let near = settings::nearest(name, known.iter().map(String::as_str));
    not_known(&format!("for the variable {name}"), near)
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    fn read_all(variables: &[(&str, &str)]) -> Result<(Vec<Assigned>, Option<PathBuf>)> {
        let names = Names::of(&crate::Arguments::command(), "dev");
        let variables = variables.iter();
        read(
            &names,
            variables.map(|(name, value)| (name.into(), value.into())),
        )
    }

    #[test]
    fn settings_and_flags_have_twins() {
        let (assigned, file) = read_all(&[
            ("PATH", "/bin"),
            ("SEAWAY", "target/release/seaway"),
            ("SEAWAY_FLUSH_INTERVAL_MS", "50"),
            ("SEAWAY_DATA_DIR", " d "),
            ("SEAWAY_CONFIG", "seaway.toml"),
        ])
        .expect("all are known");
        let assigned: Vec<_> = assigned
            .iter()
            .map(|one| (&*one.name, &*one.value, one.origin.to_string()))
            .collect();
        assert_eq!(
            assigned,
            [
                ("data-dir", "d", "SEAWAY_DATA_DIR".to_owned()),
                (
                    "flush.interval.ms",
                    "50",
                    "SEAWAY_FLUSH_INTERVAL_MS".to_owned()
                ),
            ]
        );
        assert_eq!(file, Some(PathBuf::from("seaway.toml")));
    }

    #[test]
    fn a_variable_that_means_nothing_is_refused_with_the_nearest() {
        for (variable, near) in [
            (
                "SEAWAY_FLUSH_INTERVALL_MS",
                "did you mean SEAWAY_FLUSH_INTERVAL_MS?",
            ),
            ("SEAWAY_BUCKETS", "did you mean SEAWAY_BUCKET?"),
            ("SEAWAY_CONFIGS", "did you mean SEAWAY_CONFIG?"),
            ("SEAWAY_COLOUR_OF_THE_SHED", "`seaway settings` lists"),
        ] {
            let refused = read_all(&[(variable, "1")])
                .expect_err(variable)
                .to_string();
            assert!(
                refused.contains(variable) && refused.contains(near),
                "{refused}"
            );
        }
    }

    #[test]
    fn variables_of_tests_and_of_services_are_left_alone() {
        let (assigned, _) = read_all(&[
            ("SEAWAY_FAILPOINTS", "after-put=kill@1"),
            ("SEAWAY_TOOLS", "/t"),
            ("SEAWAY_VERSITYGW", "/v"),
            ("SEAWAY_SERVICE_HOST", "10.0.0.1"),
            ("SEAWAY_AGENT_SERVICE_PORT_KAFKA", "9092"),
            ("SEAWAY_PORT", "tcp://10.0.0.1:9092"),
            ("SEAWAY_AGENT_PORT_9092_TCP", "tcp://10.0.0.1:9092"),
            ("SEAWAY_AGENT_PORT_9092_TCP_ADDR", "10.0.0.1"),
            ("SEAWAY_NAME", "/mine/seaway"),
            ("SEAWAY_AGENT_NAME", "/mine/seaway-agent"),
            ("SEAWAY_ENV_PATH", "/bin"),
            ("SEAWAY_AGENT_ENV_SEAWAY_ZONE", "a"),
        ])
        .expect("nobody meant us");
        assert!(assigned.is_empty(), "{assigned:?}");
        assert!(read_all(&[("SEAWAY_PORT", "9092")]).is_err());
    }

    #[test]
    fn no_variable_stands_for_two_names() {
        let program = crate::Arguments::command();
        for verb in super::super::names::node_verbs(&program) {
            let names = Names::of(&program, verb.get_name());
            let mut all: Vec<String> = names.all().map(variable).collect();
            let mut distinct: Vec<&str> = names.all().collect();
            distinct.sort_unstable();
            distinct.dedup();
            all.sort_unstable();
            all.dedup();
            assert_eq!(all.len(), distinct.len(), "{}", verb.get_name());
        }
    }
}
