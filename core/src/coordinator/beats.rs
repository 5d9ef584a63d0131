//! Gathering heartbeats: where many workers beat, what they say is written and answered together.

use std::mem;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::sync::oneshot;

use super::{Shared, heartbeat, lock};
use crate::Error;
use crate::id::WorkerId;
use crate::service::{Heartbeat, HeartbeatReply};

/// For how long a beat waits for others.
const WINDOW: Duration = Duration::from_millis(100);

/// From how many beats a second on they wait for one another: one in each window would not be worth it.
const MANY: u32 = 20;

/// The beats that wait for one another.
#[derive(Debug, Default)]
pub(super) struct Beats(Mutex<Gathering>);

#[derive(Debug, Default)]
struct Gathering {
    /// The second of uptime that is counted.
    second: u64,
    /// How many beats came in it, and in the second before.
    beats: u32,
    beats_before: u32,
    waiting: Vec<Waiting>,
}

#[derive(Debug)]
struct Waiting {
    worker: WorkerId,
    beat: Heartbeat,
    reply: oneshot::Sender<Result<HeartbeatReply, Error>>,
}

/// What becomes of a beat.
enum Turn {
    /// It is answered by itself.
    Alone(Heartbeat),
    /// It waits with others; the first sees to it that they are answered.
    Together { answer: oneshot::Receiver<Result<HeartbeatReply, Error>>, is_first: bool },
}

impl Beats {
    fn turn(&self, worker: &WorkerId, beat: Heartbeat, uptime: Duration) -> Turn {
        let mut gathering = lock(&self.0);
        let second = uptime.as_secs();
        if second != gathering.second {
            gathering.beats_before = if second == gathering.second + 1 { gathering.beats } else { 0 };
            (gathering.second, gathering.beats) = (second, 0);
        }
        gathering.beats = gathering.beats.saturating_add(1);
        let are_many = gathering.beats.max(gathering.beats_before) >= MANY;
        // Two beats of one worker are not written together: the second answers for what the first said.
        if !are_many || gathering.waiting.iter().any(|waiting| waiting.worker == *worker) {
            return Turn::Alone(beat);
        }
        let (reply, answer) = oneshot::channel();
        gathering.waiting.push(Waiting { worker: worker.clone(), beat, reply });
        Turn::Together { answer, is_first: gathering.waiting.len() == 1 }
    }

    fn take(&self) -> Vec<Waiting> {
        mem::take(&mut lock(&self.0).waiting)
    }
}

impl Shared {
    /// Renews a worker's session, perhaps together with others'.
    pub(super) async fn heartbeat(
        self: &Arc<Self>,
        worker: &WorkerId,
        beat: Heartbeat,
    ) -> Result<HeartbeatReply, Error> {
        heartbeat::check(&beat)?;
        match self.beats.turn(worker, beat, self.clock.uptime()) {
            Turn::Alone(beat) => {
                self.take_beats(vec![(worker.clone(), beat)]).await.pop().unwrap_or(Err(Error::Internal))
            }
            Turn::Together { answer, is_first } => {
                if is_first {
                    // A task of its own: the others' beats do not end with this one's caller.
                    tokio::spawn(Arc::clone(self).answer_together());
                }
                answer.await.unwrap_or(Err(Error::Internal))
            }
        }
    }

    async fn answer_together(self: Arc<Self>) {
        self.clock.sleep(WINDOW).await;
        let (beats, replies): (Vec<_>, Vec<_>) =
            self.beats.take().into_iter().map(|waiting| ((waiting.worker, waiting.beat), waiting.reply)).unzip();
        for (reply, answer) in replies.into_iter().zip(self.take_beats(beats).await) {
            // Whoever has gone wants no answer.
            let _ = reply.send(answer);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::service::{Usage, WorkerStatus};

    fn beat() -> Heartbeat {
        Heartbeat { usage: Usage { status: WorkerStatus::Idle, cpu: 0.0, ram: 0.0 }, held: None }
    }

    /// How many of so many workers' beats at this time are answered by themselves.
    fn alone(beats: &Beats, workers: u32, millis: u64) -> usize {
        let turn = |n| beats.turn(&format!("w{n}").parse().unwrap(), beat(), Duration::from_millis(millis));
        (0..workers).filter(|n| matches!(turn(*n), Turn::Alone(_))).count()
    }

    #[test]
    fn few_are_answered_at_once_and_many_together_for_as_long_as_they_are_many() {
        let beats = Beats::default();
        assert_eq!(alone(&beats, MANY - 1, 0), MANY as usize - 1);
        assert_eq!(alone(&beats, MANY, 1_000), MANY as usize - 1);
        assert_eq!(beats.take().len(), 1);
        assert_eq!(alone(&beats, 5, 2_000), 0, "there were many a second ago");
        assert_eq!(beats.take().len(), 5);
        assert_eq!(alone(&beats, 5, 3_000), 5);
        assert_eq!(alone(&beats, MANY - 5, 3_900), MANY as usize - 6);
        assert_eq!(alone(&beats, 5, 9_000), 5, "that was long ago");
    }

    #[test]
    fn a_workers_second_beat_does_not_wait_with_its_first() {
        let beats = Beats::default();
        alone(&beats, MANY, 0);
        beats.take();
        assert_eq!((alone(&beats, 3, 10), alone(&beats, 3, 20)), (0, 3));
    }
}
