//! What comes over a socket, read as either end reads it: as a text, and as a binary message. Nothing that a peer says may panic.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| cmdexec_transport_ws::fuzzing::decode(bytes));
