//! The fuzzer's target on random damage, for those without a fuzzer: nothing that a peer says may panic.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::allow_attributes, reason = "a test fails by panicking")]

use cmdexec_transport_ws::fuzzing::decode;
use proptest::prelude::*;

/// Every message of the golden session, from either end, with what stands for a lease filled in, so that reading gets to its end.
fn messages() -> Vec<String> {
    let session = concat!(include_str!("../../docs/push-session.txt"), include_str!("golden/client.txt"));
    let session = session.replace("$job", "019b76da-a800-7000-be5a-069934cc0618").replace("$token", &"7".repeat(32));
    let message = |line: &str| line.find('{').map(|at| line[at..].to_owned());
    session.lines().filter(|line| !line.starts_with('#')).filter_map(message).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    #[test]
    fn damaged_messages_hurt_nobody(which in any::<prop::sample::Index>(), at in any::<prop::sample::Index>(), byte in any::<u8>(), cut in any::<bool>()) {
        let messages = messages();
        let mut bytes = which.get(&messages).clone().into_bytes();
        let at = at.index(bytes.len());
        if cut { bytes.truncate(at) } else { bytes[at] = byte }
        decode(&bytes);
        // The same as a binary message: an id, a length, and the rest.
        let length = u32::try_from(bytes.len()).unwrap();
        decode(&[&7_u64.to_be_bytes()[..], &length.to_be_bytes(), &bytes, &[byte; 3]].concat());
        decode(&[&7_u64.to_be_bytes()[..], &(u32::MAX - length).to_be_bytes(), &bytes].concat());
    }

    #[test]
    fn random_bytes_hurt_nobody(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        decode(&bytes);
    }
}
