//! The contract of [`cmdexec_core::service`] as code: what a coordinator holds, and every transport to one.
//!
//! ```
//! use std::sync::Arc;
//!
//! use cmdexec_core::time::ManualClock;
//! use cmdexec_testkit::service::{Rig, in_memory};
//!
//! async fn rig() -> Rig {
//!     let clock = ManualClock::default();
//!     Rig::new(Arc::new(in_memory(&clock).await), clock)
//! }
//!
//! cmdexec_testkit::service_suite!(rig);
//! ```

mod far;
mod faulty;
mod rig;
#[doc(hidden)]
pub mod suite;

pub use far::FarEnd;
pub use faulty::{FaultyWorkerService, WorkerCall};
pub use rig::{Rig, in_memory};

/// Makes a test of every promise of the two services. `$rig` is an async function without arguments that gives a new
/// [`Rig`] each time.
#[macro_export]
macro_rules! service_suite {
    ($rig:path) => {
        $crate::service_suite!(
            @each $rig;
            submit::what_was_submitted_is_there_as_it_was,
            submit::every_form_of_command_is_kept,
            submit::a_batch_is_answered_in_its_order,
            submit::every_problem_is_named_by_its_field,
            submit::a_batch_names_the_job_and_takes_in_nothing_if_one_is_wrong,
            submit::an_empty_batch_is_refused,
            submit::a_key_that_is_none_is_refused,
            submit::a_repeat_answers_what_the_first_did,
            submit::a_repeat_says_where_the_job_stands_now,
            submit::the_same_key_for_something_else_is_a_conflict,
            submit::keys_are_an_owners_own,
            submit::a_job_keeps_its_key,
            submit::a_job_that_is_submitted_alone_may_name_its_key,
            submit::a_spec_with_another_key_is_refused,
            submit::of_two_concurrent_submissions_with_one_key_one_is_the_repeat,
            submit::a_job_for_later_waits_for_its_time,
            read::a_list_is_newest_first_and_its_cursor_goes_through_all,
            read::a_list_gives_summaries,
            read::filters_narrow_a_list,
            read::a_lists_limits_are_checked,
            read::ids_are_answered_in_their_order_and_unknown_ones_by_nothing,
            read::a_stranger_knows_of_nothing,
            read::a_viewer_sees_its_own_and_changes_nothing,
            read::an_admin_sees_and_changes_all,
            read::only_an_admin_removes_workers,
            read::watching_a_job_says_where_it_stands_and_each_change_until_it_ends,
            read::watching_a_job_that_has_ended_says_so_and_ends,
            read::waiting_for_a_job_gives_it_when_it_has_ended,
            read::a_job_shows_its_attempts,
            read::how_long_an_attempt_took_is_known_where_its_worker_does_not_say,
            read::stats_count_jobs_queues_and_workers,
            read::stats_are_of_ones_own_jobs,
            read::workers_are_shown_as_they_say_they_are,
            read::what_a_worker_runs_is_shown_to_whom_it_belongs,
            read::what_a_worker_says_when_it_comes_is_shown_until_it_beats,
            lease::a_lease_says_what_to_run,
            lease::the_oldest_of_the_highest_priority_is_first,
            lease::as_many_come_as_are_asked_for,
            lease::a_job_goes_only_where_its_resources_fit,
            lease::what_a_worker_has_leased_is_not_free,
            lease::a_job_goes_only_where_its_labels_are,
            lease::a_container_job_waits_for_a_worker_that_has_containers,
            lease::no_network_goes_only_where_that_is_enforced,
            lease::a_question_waits_for_a_job,
            lease::a_question_waits_no_longer_than_it_says,
            lease::a_question_that_is_dropped_leaves_its_job_to_others,
            lease::one_job_goes_to_one_worker,
            lease::a_worker_that_drains_or_is_broken_gets_nothing_until_it_says_otherwise,
            lease::a_worker_that_comes_draining_gets_nothing_until_it_says_otherwise,
            lease::a_worker_that_is_not_registered_is_told_so,
            lease::a_bound_worker_speaks_for_no_other,
            lease::an_unbound_worker_speaks_for_any,
            lease::a_bound_worker_that_brings_no_id_is_the_one_it_is_bound_to,
            lease::a_worker_without_an_id_is_given_one,
            files::what_no_job_of_a_worker_brings_is_not_there_for_it,
            files::a_jobs_file_is_there_for_the_worker_that_has_it,
            files::an_upload_is_its_owners,
            files::the_same_bytes_again_renew_the_file,
            files::an_upload_expires_for_new_jobs,
            files::what_ends_early_is_not_kept,
            files::what_a_job_leaves_is_its_owners,
            lease::a_job_is_cancelled_at_once_where_no_worker_has_it,
            lease::a_running_job_is_cancelled_when_its_worker_says_so,
            lease::a_cancelling_job_that_succeeds_all_the_same_is_completed,
            lease::a_cancelling_job_is_never_tried_again,
            lease::cancelling_during_a_retry_delay_is_immediate,
            lease::a_removed_worker_gets_nothing_and_is_told_to_drop_what_it_has,
            lease::a_removed_worker_may_still_report,
            report::an_exit_code_decides,
            report::other_ends_have_their_reasons,
            report::repeating_an_accepted_report_is_harmless,
            report::repeating_the_report_of_an_earlier_attempt_is_harmless,
            report::another_report_for_an_attempt_that_is_over_is_refused,
            report::a_wrong_token_changes_nothing,
            report::another_workers_token_changes_nothing,
            report::reports_of_one_call_are_answered_each_by_itself,
            report::only_the_coordinator_says_that_an_attempt_is_lost,
            report::a_failure_is_tried_again_only_as_often_as_asked,
            report::executor_errors_are_tried_again_up_to_max_attempts,
            report::the_two_budgets_are_counted_apart,
            report::a_retry_waits_for_its_delay,
            report::what_is_returned_goes_back_at_no_cost_and_at_once,
            report::a_retried_job_keeps_its_place,
            report::a_silent_workers_lease_ends_and_its_job_is_tried_elsewhere,
            report::heartbeats_keep_a_lease,
            report::no_heartbeat_passes_the_hard_end,
            report::lost_workers_are_counted_against_max_attempts,
            report::what_was_never_listed_comes_back_at_no_cost,
            report::what_was_listed_and_dropped_is_lost,
            report::a_heartbeat_of_a_stranger_is_told_to_register,
            report::registering_again_keeps_what_a_worker_has,
            report::a_heartbeat_tells_the_time,
            output::output_is_given_in_its_order_with_its_streams,
            output::bytes_are_bytes,
            output::a_piece_that_was_seen_is_ignored,
            output::pieces_that_come_out_of_order_are_put_in_order,
            output::batches_are_answered_each_by_itself,
            output::output_after_the_end_is_refused,
            output::the_rest_comes_with_the_report,
            output::a_reader_that_does_not_follow_ends_where_the_output_does,
            output::a_follower_gets_what_comes_and_the_end,
            output::a_follower_waits_for_a_piece_that_is_missing,
            output::a_cursor_resumes_without_loss_or_repetition,
            output::a_new_attempt_voids_what_was_followed,
            output::output_is_kept_within_the_cap_head_and_tail,
            output::a_reader_that_is_overtaken_by_the_cap_is_told_what_it_missed,
            output::every_follower_gets_every_byte,
            output::the_last_lines_are_given,
            output::the_last_lines_of_much_are_found,
            output::output_is_given_from_a_time_on,
            output::a_job_that_ends_without_running_ends_its_followers,
            output::asking_without_output_says_whether_to_stop,
            output::an_older_workers_pieces_are_taken_as_they_come,
            output::an_older_workers_whole_output_replaces_what_it_streamed,
            output::an_older_worker_without_a_token_reports_by_its_name,
            output::an_older_workers_heartbeat_renews_all_it_has,
            output::an_older_workers_asking_is_its_capacity,
        );
    };
    (@each $rig:path; $($room:ident::$name:ident,)*) => {
        $(
            #[tokio::test]
            async fn $name() {
                $crate::service::suite::$room::$name($rig().await).await;
            }
        )*
    };
}
