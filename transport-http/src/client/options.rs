//! The client's settings.

use std::time::Duration;

/// The client's settings. Set what differs from the defaults.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Options {
    /// How long a connection may take to be made. 5 s by default.
    pub connect_timeout: Duration,
    /// How long one try of an ordinary call may take, and the sending of a file may stand still. 35 s by default: a little more
    /// than the server gives it.
    pub call_timeout: Duration,
    /// How much longer than asked for a long poll may take. 10 s by default.
    pub poll_margin: Duration,
    /// For how long what is safe to repeat is repeated before a call fails. 10 s by default.
    pub retry_for: Duration,
    /// The first pause before a repetition; each is twice the one before, less up to half of it at random. 100 ms by default.
    pub backoff: Duration,
    /// The longest pause. 5 s by default.
    pub max_backoff: Duration,
    /// For how long a broken stream of events is taken up again before it fails, counted from the last event. 5 min by default.
    pub resume_for: Duration,
    /// After what silence a stream of events, or a file on its way here, counts as broken; the server says at least every 15 s that it is alive.
    /// 45 s by default.
    pub stream_idle_timeout: Duration,
    /// The largest answer that is taken. 64 MiB by default.
    pub max_answer: usize,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            connect_timeout: Duration::from_secs(5),
            call_timeout: Duration::from_secs(35),
            poll_margin: Duration::from_secs(10),
            retry_for: Duration::from_secs(10),
            backoff: Duration::from_millis(100),
            max_backoff: Duration::from_secs(5),
            resume_for: Duration::from_mins(5),
            stream_idle_timeout: Duration::from_secs(45),
            max_answer: 64 * 1024 * 1024,
        }
    }
}
