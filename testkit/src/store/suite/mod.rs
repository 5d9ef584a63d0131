//! The tests, by subject. [`store_suite!`](crate::store_suite) runs them; [`store_tests!`](crate::store_tests) names
//! them, one for every promise.

#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test fails by panicking")]

use cmdexec_core::job::Job;
use cmdexec_core::store::{Error, ErrorKind};

pub mod counting;
pub mod durability;
pub mod hostile;
pub mod inserting;
pub mod leases;
pub mod listing;
pub mod output;
pub mod purging;
pub mod queues;
pub mod records;
pub mod updating;
pub mod workers;

/// The numbers of jobs that [`super::make`] made.
fn numbers(jobs: &[Job]) -> Vec<u32> {
    let number = |job: &Job| u32::from_be_bytes(job.id.as_bytes()[12..].try_into().unwrap());
    jobs.iter().map(number).collect()
}

/// As [`numbers`], for answers without an order.
fn sorted(jobs: &[Job]) -> Vec<u32> {
    let mut numbers = numbers(jobs);
    numbers.sort_unstable();
    numbers
}

fn kind<T: std::fmt::Debug>(answer: Result<T, Error>) -> ErrorKind {
    answer.unwrap_err().kind()
}

/// Names every test of the suite.
#[doc(hidden)]
#[macro_export]
macro_rules! store_tests {
    ($backend:expr) => {
        $crate::store_tests!(@ $backend;
            inserting:
                a_job_is_read_as_it_was_inserted,
                an_insertion_is_all_or_nothing,
                a_batch_that_names_an_id_twice_conflicts,
                a_conflict_fails_nobody_else,
                a_job_keeps_its_version,
                an_empty_insertion_is_fine,
                a_repeated_key_adds_nothing,
                a_key_is_its_owners,
                a_key_wins_over_a_conflict,
                a_key_is_forgotten_after_its_time,
                a_key_outlives_its_jobs,
                a_failed_insertion_uses_no_key,
                one_of_many_concurrent_insertions_with_a_key_adds,
                keys_are_listed_and_put_elsewhere,
                unknown_ids_are_none;
            queues:
                ready_jobs_come_by_priority_then_age,
                ready_pages_follow_on_one_another,
                ready_jobs_are_of_one_class,
                only_queued_jobs_are_ready,
                a_retried_job_keeps_its_place,
                classes_name_their_heads,
                due_jobs_come_longest_overdue_first,
                a_job_is_due_at_its_time_and_not_before,
                a_retry_is_due_after_its_delay,
                only_scheduled_jobs_are_due,
                next_due_counts_down_to_zero;
            leases:
                a_lease_without_a_session_is_over_at_its_floor,
                a_renewed_session_keeps_leases_alive,
                a_session_that_is_over_ends_no_lease_before_its_floor,
                a_hard_end_ends_a_lease_whatever_the_session,
                registering_renews_a_session,
                a_removed_workers_leases_end_whatever_it_beats,
                one_worker_s_silence_is_its_own,
                keep_keeps_a_leases_deadlines,
                a_finished_job_has_no_lease,
                expired_heeds_its_limit,
                leased_are_the_workers_own;
            updating:
                an_update_replaces_the_life_and_counts_the_version,
                a_stale_update_changes_nothing,
                a_missing_job_is_missing,
                items_of_an_update_are_independent,
                a_batch_may_not_name_a_job_twice,
                of_concurrent_updates_of_one_version_one_wins,
                a_timer_is_replaced_or_kept,
                what_was_written_is_seen_by_the_next_call;
            output:
                output_is_read_in_order,
                a_repeated_chunk_is_ignored,
                a_page_is_cut_at_its_bytes,
                a_page_has_at_least_one_chunk,
                the_tail_is_the_end_of_one_stream,
                replacing_starts_anew,
                a_later_attempt_removes_the_earlier,
                an_earlier_attempt_is_ignored,
                trimming_removes_a_range,
                chunks_may_fill_gaps,
                what_was_trimmed_is_remembered,
                the_index_has_numbers_and_lengths,
                output_is_found_by_its_time,
                times_are_listed_and_put_elsewhere,
                output_of_no_job_is_dropped,
                appends_of_one_call_apply_in_order,
                concurrent_appends_all_arrive,
                numbers_out_of_bounds_are_invalid;
            listing:
                a_list_is_newest_first,
                filters_apply_together,
                a_cursor_goes_through_all,
                an_offset_leaves_out,
                the_total_heeds_its_bound_and_the_filters,
                a_worker_is_found_by_the_last_lease,
                a_label_is_found,
                jobs_that_bring_a_file_are_found,
                created_after_is_exclusive,
                a_large_offset_is_invalid;
            workers:
                a_registration_is_read_as_it_was_written,
                registering_again_keeps_counts_and_beat,
                a_beat_answers_with_the_one_before,
                counts_of_beats_add_up,
                counts_with_a_name_are_added_once,
                an_unknown_worker_is_told,
                a_removed_worker_stays_removed,
                workers_are_listed_by_id,
                all_workers_are_listed_and_put_elsewhere,
                a_batch_may_not_name_a_worker_twice;
            records:
                a_record_is_read_as_it_was_written,
                a_write_names_the_version_it_replaces,
                a_record_is_removed_by_its_version,
                a_record_ends_with_its_time,
                a_write_without_a_time_to_live_stays,
                kinds_are_apart,
                records_are_listed_by_key,
                of_concurrent_writes_of_one_version_one_wins_the_record,
                a_batch_may_not_name_a_key_twice;
            purging:
                purge_removes_what_ended_long_ago,
                purge_takes_output_along,
                purge_heeds_its_limit_and_takes_the_oldest,
                purge_forgets_keys_and_records_that_are_over,
                a_purged_id_may_be_used_again;
            counting:
                counts_are_exact_under_random_changes,
                counts_are_exact_under_concurrency;
            durability:
                everything_is_there_after_reopening,
                counts_and_deadlines_survive_reopening,
                a_dropped_call_is_done_or_not_done,
                a_closed_store_answers_no_more,
                closing_twice_is_fine;
            hostile:
                texts_are_kept_to_the_byte,
                large_values_are_kept,
                extreme_numbers_are_kept,
                keys_that_look_like_syntax_are_only_keys;
        );
    };
    (@ $backend:expr; $($subject:ident: $($name:ident),+;)+) => {
        $($(
            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $name() {
                $crate::store::suite::$subject::$name($crate::store::Bench::new($backend).await).await;
            }
        )+)+
    };
}
