//! The `seaway` binary: one verb per role, exit codes. It knows no protocol.

fn main() {}
