//! The client's settings.

use std::time::Duration;

/// The client's settings. Set what differs from the defaults.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Options {
    /// How long a socket may take to be opened, until the server has said welcome. 5 s by default.
    pub connect_timeout: Duration,
    /// How long one try of a call may take. 35 s by default: a little more than the server gives it.
    pub call_timeout: Duration,
    /// For how long what is safe to repeat is repeated, and a socket waited for, before a call fails. 10 s by default.
    pub retry_for: Duration,
    /// The first pause before a broken socket is opened again; each is twice the one before, less up to half of it at random, until a socket
    /// has brought an answer or held for one of the server's ping intervals. 100 ms by default.
    pub backoff: Duration,
    /// The longest pause. 5 s by default.
    pub max_backoff: Duration,
    /// For how long a broken stream of events is taken up again before it fails, counted from the last event. 5 min by default.
    pub resume_for: Duration,
    /// How long a worker's credits stand that no call of `lease` waits for. 100 ms by default: a worker that asks again at once, as they do, need
    /// not say so.
    pub linger: Duration,
    /// The largest message that is taken. 64 MiB by default.
    pub max_message: usize,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            connect_timeout: Duration::from_secs(5),
            call_timeout: Duration::from_secs(35),
            retry_for: Duration::from_secs(10),
            backoff: Duration::from_millis(100),
            max_backoff: Duration::from_secs(5),
            resume_for: Duration::from_mins(5),
            linger: Duration::from_millis(100),
            max_message: 64 << 20,
        }
    }
}
