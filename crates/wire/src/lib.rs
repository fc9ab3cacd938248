//! The Kafka protocol's bytes: frames, messages, record batches.
