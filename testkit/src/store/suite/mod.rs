//! The tests, by subject. [`store_suite!`](crate::store_suite) runs them.

/// Names every test of the suite.
#[doc(hidden)]
#[macro_export]
macro_rules! store_tests {
    ($backend:expr) => {};
}
