//! The classic group protocol, transition by transition.
