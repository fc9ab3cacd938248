//! What agents and control nodes say to each other.
