//! Deterministic simulation of the cores, and the anomaly checker.
