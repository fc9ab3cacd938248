//! `check` as a program: exit codes, merging, JSON. Must not test what the checker finds.

use std::path::PathBuf;
use std::process::{Command, Output};

const HEADER: &str = "{\"history\":1}\n";
const SENT: &str = concat!(
    r#"{"index":1,"time":10,"process":"p","type":"invoke","op":1,"f":"send","value":[["send","a",1]]}"#,
    "\n",
    r#"{"index":2,"time":20,"process":"p","type":"ok","op":1,"f":"send","value":[["send","a",[0,1]]]}"#,
    "\n"
);
const READ: &str = concat!(
    r#"{"index":3,"time":30,"process":"c","type":"invoke","op":1,"f":"final","value":{"keys":["a"]}}"#,
    "\n",
    r#"{"index":4,"time":40,"process":"c","type":"invoke","op":2,"f":"poll","value":[["poll"]]}"#,
    "\n",
    r#"{"index":5,"time":50,"process":"c","type":"ok","op":2,"f":"poll","value":[["poll",{"a":[[0,1]]}]]}"#,
    "\n",
    r#"{"index":6,"time":60,"process":"c","type":"ok","op":1,"f":"final","value":null}"#,
    "\n"
);

fn history(name: &str, parts: &[&str]) -> PathBuf {
    let path = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(name);
    std::fs::write(&path, parts.concat()).expect("the test directory is writable");
    path
}

fn check(arguments: &[&str], files: &[PathBuf]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_check"))
        .args(arguments)
        .args(files)
        .output()
        .expect("check runs")
}

#[test]
fn exit_codes_say_clean_anomalous_or_unreadable() {
    let clean = history("clean.jsonl", &[HEADER, SENT, READ]);
    let bad = history("bad.jsonl", &[HEADER, SENT]);
    let broken = history("broken.jsonl", &[HEADER, SENT, SENT]);
    assert_eq!(
        check(&[], std::slice::from_ref(&clean)).status.code(),
        Some(0)
    );
    assert_eq!(
        check(&[], &[clean.clone(), bad.clone()]).status.code(),
        Some(1)
    );
    assert_eq!(check(&[], &[bad, broken.clone()]).status.code(), Some(2));
    let missing = broken.with_file_name("missing.jsonl");
    assert_eq!(check(&[], &[missing]).status.code(), Some(2));
}

#[test]
fn merging_joins_one_file_per_process() {
    let producer = history("producer.jsonl", &[HEADER, SENT]);
    let consumer = history("consumer.jsonl", &[HEADER, READ]);
    let apart = check(&[], &[producer.clone(), consumer.clone()]);
    assert_eq!(apart.status.code(), Some(1));
    let merged = check(&["--merge", "--json"], &[producer, consumer]);
    assert_eq!(
        merged.status.code(),
        Some(0),
        "{}",
        String::from_utf8_lossy(&merged.stdout)
    );
    let report: serde_json::Value =
        serde_json::from_slice(&merged.stdout).expect("--json prints JSON");
    assert_eq!(report["clean"], true);
    assert_eq!(report["report"]["counts"]["acknowledged"], 1);
}
