//! Any bytes at all, unpacked. `testkit/tests/archive.rs` runs the same on archives damaged at random.
#![no_main]

use cmdexec_testkit::archive::{limits, unpack_in_jail};

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    unpack_in_jail(bytes, &limits());
});
