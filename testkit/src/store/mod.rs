//! The store's contract as code.

mod faulty;

pub use faulty::{Call, Fault, FaultyStore, Gate};
