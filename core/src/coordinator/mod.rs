//! Keeps jobs safe and hands them to workers.
