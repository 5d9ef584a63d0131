//! The cluster simulation, over a spread of seeds.

use cmdexec_core::job::Status;
use cmdexec_testkit::cluster::{Plan, simulate};

#[tokio::test]
async fn nothing_is_lost_and_nothing_ends_twice_whatever_goes_wrong() {
    let mut completed = 0;
    for seed in 0..40 {
        let plan = Plan { seed, workers: 3, steps: 60 };
        let summary = simulate(&plan).await;
        completed += summary.jobs.get(&Status::Completed).copied().unwrap_or_default();
    }
    assert!(completed > 200, "only {completed} jobs completed: the simulation simulates nothing");
}

#[tokio::test]
async fn the_same_seed_is_the_same_story() {
    let plan = Plan { seed: 4_711, workers: 4, steps: 80 };
    assert_eq!(simulate(&plan).await, simulate(&plan).await);
}
