//! The server's settings.

use std::time::Duration;

use cmdexec_core::job::Problem;
use cmdexec_core::limiter::RequestLimits;

/// The server's settings. Set what differs from the defaults; [`Options::validate`] says everything that is wrong.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Options {
    /// How many requests there may be.
    pub limits: RequestLimits,
    /// How many sockets there may be at once; more are refused with 503. 10,000 by default.
    pub max_sockets: usize,
    /// How many sockets may be open with one token. 256 by default: workers that share one token are many.
    pub max_sockets_per_token: usize,
    /// How long a peer has for its credentials where it sends them as its first message. 5 s by default.
    pub auth_timeout: Duration,
    /// How many bytes a message may have. 4 MiB by default, 128 KiB at least.
    pub max_message: usize,
    /// How many messages of one socket are read in a second; more are read later. 20,000 by default.
    pub max_messages_per_second: u32,
    /// How many requests of one socket are worked on at once; more are read later. 64 by default.
    pub max_calls: usize,
    /// How many bytes of requests of one socket are worked on at once, the one that goes beyond included; more are read later.
    /// 4 MiB by default.
    pub max_call_bytes: usize,
    /// How much may wait for a peer to take it before nothing more of it is read, and its subscriptions rest. 1 MiB by default.
    pub max_unsent: usize,
    /// How many subscriptions one socket may have. 256 by default.
    pub max_subscriptions: usize,
    /// How often a peer says something, if it is there. One that was silent for a quarter longer is asked whether it is, and cut
    /// after twice as long. 10 s by default.
    pub ping_interval: Duration,
    /// How long a peer may take for 16 KiB of what waits for it, or for all if that is less, until it is cut. 30 s by default.
    pub write_timeout: Duration,
    /// How long an ordinary call may take until it is refused as unavailable. 30 s by default.
    pub call_timeout: Duration,
    /// How long closing a socket in order may take. 2 s by default.
    pub close_timeout: Duration,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            limits: RequestLimits::default(),
            max_sockets: 10_000,
            max_sockets_per_token: 256,
            auth_timeout: Duration::from_secs(5),
            max_message: 4 << 20,
            max_messages_per_second: 20_000,
            max_calls: 64,
            max_call_bytes: 4 << 20,
            max_unsent: 1 << 20,
            max_subscriptions: 256,
            ping_interval: Duration::from_secs(10),
            write_timeout: Duration::from_secs(30),
            call_timeout: Duration::from_secs(30),
            close_timeout: Duration::from_secs(2),
        }
    }
}

impl Options {
    /// Everything that is wrong with the settings, by their names; empty if nothing is.
    pub fn validate(&self) -> Vec<Problem> {
        let durations = [
            ("limits.window", self.limits.window),
            ("auth_timeout", self.auth_timeout),
            ("ping_interval", self.ping_interval),
            ("write_timeout", self.write_timeout),
            ("call_timeout", self.call_timeout),
            ("close_timeout", self.close_timeout),
        ];
        let counts = [
            ("max_sockets", self.max_sockets),
            ("max_sockets_per_token", self.max_sockets_per_token),
            ("max_messages_per_second", self.max_messages_per_second as usize),
            ("max_calls", self.max_calls),
            ("max_call_bytes", self.max_call_bytes),
            ("max_unsent", self.max_unsent),
            ("max_subscriptions", self.max_subscriptions),
        ];
        let zero = durations.into_iter().filter(|(_, duration)| duration.is_zero()).map(|(name, _)| name);
        let zero = zero.chain(counts.into_iter().filter(|(_, count)| *count == 0).map(|(name, _)| name));
        let mut problems: Vec<_> = zero.map(|name| Problem::new(name, "must be more than 0")).collect();
        // The largest piece of output has 64 KiB, and its message a head.
        if self.max_message < 128 * 1024 {
            problems.push(Problem::new("max_message", "must be at least 128 KiB"));
        }
        problems
    }
}
