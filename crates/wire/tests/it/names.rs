//! Names and numbers that people and clients see: error codes, ids, what a client calls itself.

use kafka_protocol::error::ParseResponseErrorCode;
use wire::errors::ErrorCode;
use wire::uuid::Uuid;
use wire::versions::is_software_name;

#[test]
fn error_codes_are_kafkas() {
    let mut disputed = Vec::new();
    for code in ErrorCode::ALL {
        assert_eq!(ErrorCode::from_code(code.code()), Some(*code));
        assert_eq!(code.is_error(), code.code() != 0);
        let Some(theirs) = code.code().err() else {
            continue;
        };
        assert_eq!(theirs.code(), code.code());
        let name = format!("{theirs:?}").to_lowercase();
        let ours = code.name().replace('_', "").to_lowercase();
        assert_eq!(ours, name);
        if code.is_retriable() != theirs.is_retriable() {
            disputed.push(*code);
        }
    }
    // The Java client 4.3.1 agrees with us.
    assert_eq!(disputed, [ErrorCode::ConcurrentTransactions]);
    assert_eq!(ErrorCode::from_code(134), None);
    assert_eq!(ErrorCode::ALL.len(), 135);
}

#[test]
fn ids_are_shown_as_kafka_shows_them() {
    assert_eq!(Uuid::ZERO.to_string(), "AAAAAAAAAAAAAAAAAAAAAA");
    let mut bytes = [0; 16];
    bytes[15] = 1;
    assert_eq!(Uuid::from(bytes).to_string(), "AAAAAAAAAAAAAAAAAAAAAQ");
    assert_eq!(Uuid::from([0xff; 16]).to_string(), "_____________________w");
}

#[test]
fn clients_name_themselves_in_letters_digits_dots_and_dashes() {
    for name in ["a", "librdkafka", "apache-kafka-java", "1.2.3-rc.1"] {
        assert!(is_software_name(name), "{name}");
    }
    for name in ["", "-a", "a.", "a b", "a_b", "käse"] {
        assert!(!is_software_name(name), "{name}");
    }
}
