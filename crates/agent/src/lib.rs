//! The data plane: speaks Kafka, writes and reads files.
