//! Defaults, assignments and what is refused.

use super::*;

fn refusal(assignment: &str) -> String {
    Settings::parse(&[assignment])
        .expect_err("must be refused")
        .to_string()
}

#[test]
fn the_table_is_sorted_and_its_defaults_are_valid() {
    assert!(PROCESS.is_sorted_by(|a, b| a.name < b.name));
    assert!(all().is_sorted_by(|a, b| a.name < b.name), "one row each");
    for spec in all() {
        // An empty host means "derive it", and cannot be set.
        if spec.kind != Kind::Host {
            check(spec, spec.default).expect("a default is valid");
        }
    }
    Settings::parse::<&str>(&[]).expect("the defaults agree with each other");
}

#[test]
fn what_is_set_last_holds() {
    let settings = Settings::parse(&["num.partitions=3", "num.partitions = 4"]).expect("valid");
    assert_eq!(settings.integer("num.partitions"), 4);
    assert_eq!(
        settings.millis("flush.interval.ms"),
        Duration::from_millis(25)
    );
}

#[test]
fn kafkas_names_are_taken() {
    let set = |assignments: &[&str], name: &str| {
        let settings = Settings::parse(assignments).expect("valid");
        settings.text(name).to_owned()
    };
    assert_eq!(set(&["broker.rack=az1"], "broker.rack"), "az1");
    assert_eq!(set(&["zone=az1"], "broker.rack"), "az1");
    assert_eq!(set(&["zone=az1", "broker.rack=az2"], "broker.rack"), "az2");
    assert_eq!(set(&["advertised.host.name=a"], "advertised.host"), "a");
}

#[test]
fn an_advertised_host_is_one_that_clients_can_use() {
    for host in ["kafka.example", "10.0.0.1", "::1"] {
        Settings::parse(&[format!("advertised.host={host}")]).expect(host);
    }
    for (host, why) in [
        ("", "host is missing"),
        ("my host", "' ' cannot be in a host"),
        ("kafka.example:9092", "without a port"),
        ("PLAINTEXT://kafka.example", "without a port"),
        ("0.0.0.0", "none that a client could connect to"),
        ("::", "none that a client could connect to"),
    ] {
        let refused = refusal(&format!("advertised.host={host}"));
        assert!(refused.contains(why), "{refused}");
    }
    assert!(refusal("advertised.port=65536").contains("greatest value is 65535"));
}

#[test]
fn what_a_node_says_of_itself_is_what_the_cluster_takes() {
    for name in ["region", "zone", "broker.rack", "advertised.host"] {
        let longest = "a".repeat(255);
        Settings::parse(&[format!("{name}={longest}")]).expect(name);
        let refused = refusal(&format!("{name}={longest}a"));
        let shown = if name == "zone" { "broker.rack" } else { name };
        assert!(refused.starts_with(shown), "{refused}");
        assert!(refused.contains("256 bytes, of which 255"), "{refused}");
    }
    assert_eq!(refusal("region="), "region=: must not be empty");
    assert!(refusal("region=a\tb").contains("control characters"));
    Settings::parse(&["broker.rack="]).expect("a node without a zone");
    assert!(refusal("zone=a;b").contains("cannot be in a zone"));
}

#[test]
fn the_flag_for_one_listener_does_not_go_with_others() {
    let address = "localhost:7".parse().expect("an address");
    let mut settings = Settings::parse::<&str>(&[]).expect("valid");
    let kafka = Origin::Flag("--kafka".to_owned());
    settings
        .listen_at(&address, &kafka)
        .expect("no other is named");
    assert_eq!(settings.text("listeners"), "PLAINTEXT://localhost:7");
    assert_eq!(settings.origin("listeners"), &kafka);
    let set = &["listeners=A://a:1"];
    let mut settings = Settings::parse(set).expect("valid");
    let refused = settings.listen_at(&address, &kafka);
    let refused = refused.expect_err("two are named");
    assert!(refused.to_string().contains("give one of them"));
    let set = &["listeners=A://a:1", "listener.zones=A:z"];
    let mut settings = Settings::parse(set).expect("valid");
    assert!(settings.listen_at(&address, &kafka).is_err());
}

#[test]
fn a_flag_gives_a_setting_its_value_unless_the_same_source_says_another() {
    let begun = |set: &[&str]| Settings::parse(set).expect("valid settings");
    let flag = Origin::Flag("--zone".to_owned());
    let mut settings = begun(&[]);
    settings.be_in("a", &flag).expect("nothing else is said");
    settings.be_in("a", &flag).expect("the same again");
    assert_eq!(settings.text(ZONE), "a");
    let refused = begun(&["zone=b"]).be_in("a", &flag);
    let told = "--zone a and broker.rack=b: give one of them";
    assert_eq!(refused.expect_err("two zones").to_string(), told);
    assert!(begun(&[]).be_in(&"a".repeat(256), &flag).is_err());
}

#[test]
fn a_flag_and_a_setting_that_mean_the_same_go_by_where_they_are_said() {
    let variable = Origin::Environment("SEAWAY_LISTENERS".to_owned());
    let said = |origin: &Origin| {
        let assigned = Assigned {
            name: LISTENERS.to_owned(),
            value: "A://a:1".to_owned(),
            origin: origin.clone(),
        };
        Settings::of(&[assigned]).expect("valid settings")
    };
    let address = "localhost:1".parse().expect("an address");
    let mut settings = said(&variable);
    let flag = Origin::Flag("--kafka".to_owned());
    settings
        .listen_at(&address, &flag)
        .expect("it comes before the environment");
    assert_eq!(settings.text(LISTENERS), "PLAINTEXT://localhost:1");
    let mut settings = said(&variable);
    let path = std::path::Path::new("seaway.toml").into();
    let file = Origin::File { path, line: 3 };
    settings
        .listen_at(&address, &file)
        .expect("it comes after the environment");
    assert_eq!(settings.text(LISTENERS), "A://a:1");
    let kafka = Origin::Environment("SEAWAY_KAFKA".to_owned());
    let refused = said(&variable).listen_at(&address, &kafka);
    let told = "SEAWAY_KAFKA: --kafka localhost:1 and listeners=A://a:1: give one of them";
    assert_eq!(refused.expect_err("both at one place").to_string(), told);
}

#[test]
fn a_refusal_says_what_to_do() {
    assert!(refusal("num.partition=3").contains("did you mean num.partitions?"));
    assert!(refusal("colour=blue").contains("`seaway settings` lists all"));
    assert!(refusal("num.partitions").contains("NAME=VALUE"));
    assert!(refusal("num.partitions=0").contains("least value is 1"));
    assert!(refusal("num.partitions=many").contains("whole number"));
    assert!(refusal("auto.create.topics.enable=yes").contains("true or false"));
    assert!(refusal("journal.quarantine=4097").contains("SLOT-DIGEST"));
    assert!(refusal("message.max.bytes=1000000000").contains("socket.request.max.bytes"));
}
