//! Which source of a value decides, and what is refused.

use std::path::Path;

use clap::CommandFactory;

use super::*;

struct Directory(PathBuf);

impl Directory {
    fn new(name: &str) -> Directory {
        let path =
            std::env::temp_dir().join(format!("seaway-config-{name}-{}", std::process::id()));
        std::fs::create_dir_all(&path).expect("a directory");
        Directory(path)
    }

    fn file(&self, text: &str) -> String {
        let path = self.0.join("seaway.toml");
        std::fs::write(&path, text).expect("written");
        path.to_string_lossy().into_owned()
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        drop(std::fs::remove_dir_all(&self.0));
    }
}

/// A program with verbs that run nodes, one of which wants flags.
#[derive(Debug, clap::Parser)]
#[command(name = "program")]
struct Program {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, clap::Subcommand)]
enum Verb {
    Dev(Dev),
    Agent(Agent),
    Other,
}

#[derive(Debug, clap::Args)]
struct Dev {
    #[arg(long, default_value = "here")]
    data_dir: PathBuf,
    #[arg(long)]
    bucket: Option<String>,
    #[arg(long, default_value = "127.0.0.1:9092")]
    kafka: crate::address::Address,
    #[arg(long)]
    quick: bool,
    #[command(flatten)]
    given: Given,
}

#[derive(Debug, clap::Args)]
struct Agent {
    #[arg(long)]
    bucket: String,
    #[arg(long, value_delimiter = ',')]
    control: Vec<String>,
    #[command(flatten)]
    given: Given,
}

fn parse(line: &[&str], environment: &[(&str, &str)]) -> Result<(Program, Sources)> {
    let line = ["program"].iter().chain(line).map(OsString::from).collect();
    let environment = environment.iter();
    command_line::parse(
        line,
        environment.map(|(name, value)| (name.into(), value.into())),
    )
}

fn dev(line: &[&str], environment: &[(&str, &str)]) -> (Dev, Configured) {
    let (program, sources) = parse(line, environment).expect("it is right");
    let Verb::Dev(dev) = program.verb else {
        panic!("another verb");
    };
    let configured = sources.configure(&dev.given, Process::Dev, None);
    (dev, configured.expect("valid"))
}

fn refusal(line: &[&str], environment: &[(&str, &str)]) -> String {
    let refused = parse(line, environment).and_then(|(program, sources)| match &program.verb {
        Verb::Dev(dev) => sources.configure(&dev.given, Process::Dev, None),
        Verb::Agent(agent) => sources.configure(&agent.given, Process::Agent, None),
        Verb::Other => panic!("another verb"),
    });
    match refused {
        Ok(_) => panic!("must be refused"),
        Err(why) => why.to_string(),
    }
}

#[test]
fn a_flag_beats_the_environment_which_beats_the_file_which_beats_the_default() {
    let directory = Directory::new("order");
    let file = directory
        .file("data-dir = 'file'\nbucket = 'file'\n[flush]\ninterval.ms = 1\nbytes = 5000\n");
    let (none, configured) = dev(&["dev"], &[]);
    assert_eq!(none.data_dir, Path::new("here"));
    assert_eq!(configured.settings.text("flush.interval.ms"), "25");
    let mut line = vec!["dev", "--config", &file];
    let (from_file, configured) = dev(&line, &[]);
    assert_eq!(from_file.data_dir, Path::new("file"));
    assert_eq!(from_file.bucket.as_deref(), Some("file"));
    assert_eq!(configured.settings.text("flush.interval.ms"), "1");
    let origin = configured.settings.origin("flush.interval.ms").to_string();
    assert_eq!(origin, format!("{file}:4"));
    let environment = [
        ("SEAWAY_DATA_DIR", "variable"),
        ("SEAWAY_FLUSH_INTERVAL_MS", "2"),
    ];
    let (from_variable, configured) = dev(&line, &environment);
    assert_eq!(from_variable.data_dir, Path::new("variable"));
    assert_eq!(from_variable.bucket.as_deref(), Some("file"));
    assert_eq!(configured.settings.text("flush.interval.ms"), "2");
    assert_eq!(configured.settings.text("flush.bytes"), "5000");
    line.extend(["--data-dir", "flag", "--set", "flush.interval.ms=3"]);
    let (from_flag, configured) = dev(&line, &environment);
    assert_eq!(from_flag.data_dir, Path::new("flag"));
    assert_eq!(configured.settings.text("flush.interval.ms"), "3");
    assert_eq!(
        configured.settings.origin("flush.interval.ms").to_string(),
        "--set"
    );
}

#[test]
fn the_file_may_be_named_by_the_environment_and_a_flag_names_another() {
    let (one, two) = (Directory::new("one"), Directory::new("two"));
    let (first, second) = (one.file("bucket = 'one'\n"), two.file("bucket = 'two'\n"));
    let environment = [("SEAWAY_CONFIG", &*first)];
    assert_eq!(dev(&["dev"], &environment).0.bucket.as_deref(), Some("one"));
    let (both, _) = dev(&["dev", "--config", &second], &environment);
    assert_eq!(both.bucket.as_deref(), Some("two"));
    let refused = refusal(&["dev", "--config", "no/such/file.toml"], &[]);
    assert!(
        refused.contains("cannot read no/such/file.toml"),
        "{refused}"
    );
}

#[test]
fn a_flag_that_must_be_given_may_be_in_the_file_which_may_serve_several_verbs() {
    let directory = Directory::new("verbs");
    let file = directory.file(
        "kafka = 'localhost:1'\nbucket = 'b'\ncontrol = ['x:1', 'y:2']\nquick = true\nflush.bytes = 5000\n",
    );
    let (program, _) = parse(&["agent", "--config", &file], &[]).expect("it has a bucket");
    let Verb::Agent(agent) = program.verb else {
        panic!("another verb");
    };
    assert_eq!(agent.bucket, "b");
    assert_eq!(agent.control, ["x:1", "y:2"]);
    let (dev, _) = dev(&["dev", "--config", &file], &[("SEAWAY_CONTROL", "z:3")]);
    assert!(dev.quick);
    assert_eq!(dev.kafka.to_string(), "localhost:1");
    let missing = parse(&["agent"], &[]).expect_err("no bucket");
    assert!(missing.to_string().contains("--bucket"), "{missing}");
    parse(&["other"], &[("SEAWAY_NONSENSE", "1")]).expect("it runs no node");
}

#[test]
fn names_that_nothing_has_are_refused_with_the_nearest() {
    let directory = Directory::new("unknown");
    for (text, expected) in [
        (
            "\n[flush]\nintervall.ms = 1\n",
            "seaway.toml:3: there is no setting and no flag flush.intervall.ms; did you mean flush.interval.ms?",
        ),
        ("buckt = 'b'\n", "did you mean bucket?"),
        (
            "config = 'other.toml'\n",
            "seaway.toml:1: there is no setting and no flag config",
        ),
        ("set = ['a=b']\n", "no flag set"),
    ] {
        let refused = refusal(&["dev", "--config", &directory.file(text)], &[]);
        assert!(refused.contains(expected), "{refused}");
    }
    let refused = refusal(&["dev"], &[("SEAWAY_FLUSH_INTERVAL", "1")]);
    assert!(
        refused.contains("SEAWAY_FLUSH_INTERVAL; did you mean SEAWAY_FLUSH_INTERVAL_MS?"),
        "{refused}"
    );
}

#[test]
fn values_that_may_not_be_are_refused_with_their_place() {
    let directory = Directory::new("bad");
    for (text, expected) in [
        (
            "\nflush.interval.ms = 'soon'\n",
            "seaway.toml:2: flush.interval.ms=soon: must be a whole number",
        ),
        (
            "kafka = 'localhost'\n",
            "seaway.toml:1: kafka=localhost: it has no port",
        ),
        (
            "quick = 'maybe'\n",
            "seaway.toml:1: quick=maybe: must be true or false",
        ),
        (
            "zone = 'a'\nbroker.rack = 'b'\n",
            "seaway.toml:2: broker.rack is set already, by",
        ),
        (
            "log.level = 'inof'\n",
            "seaway.toml:1: log.level=inof: write error",
        ),
        (
            "flush.interval.max.ms = 5\n",
            "flush.interval.ms is greater than flush.interval.max.ms (",
        ),
        (
            "fetch.cache.bytes = 1\n",
            "seaway.toml:1: fetch.cache.bytes=1: the least value is 16777216, or 0",
        ),
    ] {
        let refused = refusal(&["dev", "--config", &directory.file(text)], &[]);
        assert!(refused.contains(expected), "{refused}");
    }
    for (name, value, expected) in [
        (
            "SEAWAY_KAFKA",
            "localhost",
            "SEAWAY_KAFKA: kafka=localhost: it has no port",
        ),
        (
            "SEAWAY_NUM_PARTITIONS",
            "0",
            "SEAWAY_NUM_PARTITIONS: num.partitions=0: the least value is 1",
        ),
    ] {
        let refused = refusal(&["dev"], &[(name, value)]);
        assert_eq!(&refused[..expected.len()], expected);
    }
    let file = directory.file("group.min.session.timeout.ms = 9000\n");
    let line = [
        "dev",
        "--config",
        &file,
        "--set",
        "group.max.session.timeout.ms=1",
    ];
    let refused = refusal(&line, &[]);
    assert!(
        refused.contains("seaway.toml:1) is greater than group.max.session.timeout.ms"),
        "{refused}"
    );
}

#[test]
fn a_bad_value_is_refused_though_a_flag_takes_its_place() {
    let directory = Directory::new("hidden");
    let file = directory.file("kafka = 'localhost'\n");
    let refused = refusal(&["dev", "--config", &file, "--kafka", "localhost:1"], &[]);
    assert!(refused.contains("it has no port"), "{refused}");
}

#[test]
fn a_flag_that_wants_another_beside_it_is_judged_alone_and_then_beside_all_others() {
    let program = |variables: &[(&str, &str)], line: &[&str]| {
        let line = ["seaway", "dev"].iter().chain(line).map(OsString::from);
        let variables = variables.iter();
        let variables = variables.map(|(name, value)| (name.into(), value.into()));
        command_line::parse::<crate::Arguments>(line.collect(), variables)
    };
    program(&[("SEAWAY_AGENTS", "3")], &["--control", "1"]).expect("both are given");
    program(&[("SEAWAY_AGENTS", "3"), ("SEAWAY_CONTROL", "1")], &[]).expect("both are given");
    let alone = program(&[("SEAWAY_AGENTS", "3")], &[]).err().expect("one");
    assert!(alone.to_string().contains("--control"), "{alone}");
    let wrong = program(&[("SEAWAY_AGENTS", "51")], &["--control", "1"]);
    let wrong = wrong.err().expect("too many").to_string();
    assert!(wrong.starts_with("SEAWAY_AGENTS: agents=51: "), "{wrong}");
}

#[test]
fn a_flag_that_is_called_as_a_setting_sets_it_and_beats_the_others() {
    let environment = [("SEAWAY_ZONE", "by-variable")];
    let program = crate::Arguments::command();
    let verb = names::node_verbs(&program).find(|verb| verb.get_name() == "agent");
    let verb = verb.expect("there is one");
    let given = Given {
        set: vec!["flush.bytes=5000".to_owned()],
        ..Given::default()
    };
    let read = environment.map(|(name, value)| (name.into(), value.into()));
    let sources = command_line::sources_of(&program, verb, &given, read).expect("they are right");
    let configured = sources.configure(&given, Process::Agent, None);
    let mut settings = configured.expect("valid").settings;
    let zone = |settings: &Settings| {
        let origin = settings.origin("broker.rack").to_string();
        (settings.text("broker.rack").to_owned(), origin)
    };
    let by_variable = ("by-variable".to_owned(), "SEAWAY_ZONE".to_owned());
    assert_eq!(zone(&settings), by_variable);
    let flag = sources.origin_of_flag("zone");
    settings.be_in("by-flag", &flag).expect("it beats them");
    assert_eq!(zone(&settings), ("by-flag".to_owned(), "--zone".to_owned()));
}

/// The program's own arguments for an agent, as shown on one line.
fn completed(line: &[&str], environment: &[(&str, &str)]) -> Result<Sources> {
    let line = ["seaway", "agent"].iter().chain(line).map(OsString::from);
    let environment = environment.iter();
    let environment = environment.map(|(name, value)| (name.into(), value.into()));
    let (_, sources) = command_line::parse::<crate::Arguments>(line.collect(), environment)?;
    Ok(sources)
}

#[test]
fn of_flags_that_exclude_each_other_the_one_from_the_first_source_holds() {
    let directory = Directory::new("exclude");
    let file =
        directory.file("name = 'a-1'\nbucket = 'b'\ntls-ca = 'c'\ntls-cert = 'd'\ntls-key = 'e'\n");
    let names = |sources: &Sources| -> Vec<String> {
        let flags = sources.flags.iter().map(|flag| flag.name.clone());
        flags.collect()
    };
    let line = ["--config", &file];
    let all = completed(&line, &[]).expect("the file has all");
    assert_eq!(
        names(&all),
        ["name", "bucket", "tls-ca", "tls-cert", "tls-key"]
    );
    let by_variable = completed(&line, &[("SEAWAY_TLS_DIR", "certs")]).expect("it is first");
    assert_eq!(names(&by_variable), ["name", "bucket", "tls-dir"]);
    let line = ["--config", &file, "--plaintext-links", "--name", "a-2"];
    let by_flag = completed(&line, &[("SEAWAY_TLS_DIR", "certs")]).expect("it is first");
    assert_eq!(names(&by_flag), ["bucket"]);
    assert_eq!(by_flag.origin_of_flag("name").to_string(), "--name");
    let line = ["--config", &file];
    let off = completed(&line, &[("SEAWAY_PLAINTEXT_LINKS", "false")]).expect("it is off");
    assert!(names(&off).contains(&"tls-ca".to_owned()));
    let both = [
        ("SEAWAY_TLS_DIR", "certs"),
        ("SEAWAY_PLAINTEXT_LINKS", "true"),
    ];
    let refused = completed(&line, &both).expect_err("one source says both");
    assert!(
        refused.to_string().contains("cannot be used with"),
        "{refused}"
    );
}

#[test]
fn another_process_is_told_what_operators_gave_and_keeps_from_what_they_gave_it_in() {
    let directory = Directory::new("other");
    let file = directory.file("flush.bytes = 5000\nmemory.bytes = 600_000_000\n");
    let environment = [
        ("SEAWAY_CONFIG", &*file),
        ("SEAWAY_ZONE", "a"),
        ("SEAWAY_CONTROL", "x:1"),
        ("SEAWAY_TOOLS", "/t"),
    ];
    let line = ["dev", "--set", "advertised.listeners=PLAINTEXT://h:1"];
    let (program, sources) = parse(&line, &environment).expect("it is right");
    let Verb::Dev(dev) = program.verb else {
        panic!("another verb");
    };
    let configured = sources.configure(&dev.given, Process::Dev, None);
    let settings = configured.expect("valid").settings;
    let told = settings.given_but(&["memory.bytes"]);
    assert_eq!(
        told,
        [
            "advertised.listeners=PLAINTEXT://h:1",
            "broker.rack=a",
            "flush.bytes=5000",
        ]
    );
    let mut kept_from = sources.variables().to_vec();
    kept_from.sort();
    assert_eq!(
        kept_from,
        ["SEAWAY_CONFIG", "SEAWAY_CONTROL", "SEAWAY_ZONE"]
    );
}

#[test]
fn the_programs_own_flags_are_names() {
    let names = Names::of(&crate::Arguments::command(), "dev");
    for name in ["bucket", "kafka", "http", "data-dir"] {
        assert_eq!(names.find(name), Some(Use::Flag), "{name}");
    }
    for name in ["zone", "advertised.listeners", "memory.bytes"] {
        assert_eq!(names.find(name), Some(Use::Setting), "{name}");
    }
    for name in ["config", "set", "help", "json", "with-parent"] {
        assert_eq!(names.find(name), None, "{name}");
    }
    let names = Names::of(&crate::Arguments::command(), "control");
    assert_eq!(names.find("listen"), Some(Use::Flag));
    assert_eq!(names.find("kafka"), Some(Use::FlagOfOthers));
    assert_eq!(names.find("zone"), Some(Use::Setting));
}
