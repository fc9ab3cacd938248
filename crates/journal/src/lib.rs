//! The replicated log of commands over an engine.
