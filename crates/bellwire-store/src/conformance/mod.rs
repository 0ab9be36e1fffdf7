//! What every backend has to do, written against `Arc<dyn Store>` alone: no SQL, no files.
//!
//! A backend's test opens a fresh store for each of [`CASES`] and runs it. A case panics where the store is wrong; its name says
//! what would be broken. Each case names the trait methods it puts to the test, so that a test can see that none is left out.
// A suite of tests: a panic is how it reports.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::missing_panics_doc)]

mod application;
mod attempt;
mod credential;
mod delivery;
mod endpoint;
mod event_type;
mod maintenance;
mod message;
mod shard;
pub mod source;
mod task;
pub mod world;

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use crate::Store;
pub use world::World;

/// One case of the suite.
pub struct Case {
    pub name: &'static str,
    /// Names of the trait methods it exercises.
    pub covers: &'static [&'static str],
    /// Runs it on a fresh store. Of backends that several processes share ([`crate::ShardStore::is_shared`]), the second opens it once
    /// more, as another process would; of others it is never called.
    pub run: fn(Arc<dyn Store>, Opener) -> Running,
}

/// Opens the store of a case once more.
pub type Opener = Arc<dyn Fn() -> Pin<Box<dyn Future<Output = Arc<dyn Store>> + Send>> + Send + Sync>;

/// A case being run.
pub type Running = Pin<Box<dyn Future<Output = ()> + Send>>;

macro_rules! cases {
    ($($module:ident::$name:ident covers $($method:ident)+;)+) => {
        /// The suite.
        pub const CASES: &[Case] = &[$(Case {
            name: concat!(stringify!($module), "::", stringify!($name)),
            covers: &[$(stringify!($method)),+],
            run: |store, opener| Box::pin(async move { $module::$name(World::open(store, opener).await).await }),
        }),+];
    };
}

cases! {
    application::applications_are_found_by_id_and_uid_in_their_organisation_only covers create_application find_application get_application;
    application::uids_are_unique_among_living_applications covers create_application change_application delete_application;
    application::a_change_of_an_application_overwrites_no_other covers change_application;
    application::of_many_changes_of_an_application_at_once_none_is_lost covers change_application;
    application::lists_page_in_both_directions covers list_applications;
    application::lists_can_leave_out_applications_by_their_endpoints covers list_applications create_endpoint;
    application::the_operational_application_is_one_and_hidden covers operational_application list_applications find_application;
    application::deleting_an_application_takes_its_endpoints_along covers delete_application find_endpoint endpoint_for_delivery;
    application::creating_twice_under_one_key_answers_the_same covers create_application find_idempotent;
    application::whoever_creates_at_the_same_instant_makes_one covers operational_application create_application;
    endpoint::endpoints_read_back_whole covers create_endpoint find_endpoint endpoint_for_delivery endpoints_of list_endpoints;
    endpoint::uids_are_unique_in_their_application covers create_endpoint change_endpoint;
    endpoint::changing_replaces_all_but_identity covers change_endpoint;
    endpoint::health_never_overwrites_a_change_made_meanwhile covers set_endpoint_health;
    endpoint::a_change_never_overwrites_health covers change_endpoint set_endpoint_health;
    endpoint::enabling_begins_its_health_anew covers change_endpoint set_endpoint_health;
    endpoint::a_change_of_an_endpoint_overwrites_no_other covers change_endpoint;
    endpoint::of_many_changes_of_an_endpoint_at_once_none_is_lost covers change_endpoint;
    endpoint::deleted_endpoints_are_gone covers delete_endpoint list_endpoints endpoints_of;
    event_type::event_types_are_created_once_and_revived covers create_event_type get_event_type;
    event_type::lists_page_by_name covers list_event_types;
    event_type::putting_and_expunging covers put_event_type expunge_event_type;
    event_type::a_change_of_an_event_type_overwrites_no_other covers change_event_type;
    event_type::of_many_changes_of_an_event_type_at_once_none_is_lost covers change_event_type;
    message::messages_read_back_byte_for_byte covers accept find_message load_message;
    message::lists_filter_and_page covers list_messages;
    message::an_event_id_makes_one_message covers accept find_message;
    message::an_idempotency_key_makes_one_message_however_many_ask covers accept;
    message::a_conflict_is_nobody_elses covers accept;
    message::expunging_deletes_the_payload_alone covers expunge_message_content;
    message::what_is_accepted_together_is_read_and_deleted_apart covers accept list_messages expunge_message_content retain;
    delivery::commits_are_told_before_they_are_answered covers set_sink accept record_attempt;
    delivery::first_tries_stay_queued_until_recorded covers load_first_tries record_attempt count_unfinished;
    delivery::a_fan_out_is_queued_by_endpoint covers load_first_tries;
    delivery::failures_are_retried_in_order_of_time covers load_retries record_attempt count_unfinished;
    delivery::scheduled_messages_wait_for_their_time covers accept load_retries load_first_tries;
    delivery::requeueing_repeats_what_ended covers requeue load_retries;
    delivery::requeueing_remembers_the_schedule covers requeue load_retries record_attempt;
    attempt::attempts_are_listed_by_endpoint_and_by_message covers list_attempts_of_endpoint list_attempts_of_message get_attempt;
    attempt::attempt_lists_filter covers list_attempts_of_endpoint list_attempts_of_message;
    attempt::attempt_lists_page covers list_attempts_of_endpoint list_attempts_of_message;
    attempt::expunging_deletes_the_response_alone covers expunge_attempt_content;
    attempt::deliveries_show_their_latest_state covers list_attempted_messages list_attempted_endpoints;
    attempt::attempted_lists_page covers list_attempted_messages list_attempted_endpoints;
    attempt::attempted_messages_are_found_whatever_is_left_out covers list_attempted_messages;
    attempt::counters_count_every_delivery_once covers count_deliveries requeue;
    credential::api_keys_live_until_revoked covers create_api_key get_api_key list_api_keys revoke_api_key touch_api_key;
    credential::revoked_tokens_are_remembered covers revoke_token is_token_revoked;
    credential::answers_are_replayed_for_a_day covers store_idempotent find_idempotent;
    shard::joining_begins_a_membership_and_leaving_ends_it covers is_shared join beat leave;
    shard::who_retires_is_a_member_but_no_worker covers retire beat;
    shard::a_shard_has_one_owner_at_a_time covers claim_shards release_shards beat;
    shard::whoever_beats_is_not_declared_dead covers declare_dead beat;
    shard::records_of_a_lost_membership_change_nothing covers declare_dead record_attempt join;
    shard::what_a_node_accepts_after_its_death_is_handed_over covers declare_dead accept take_handed_over adopt;
    shard::what_a_node_accepted_of_forgotten_shards_is_left_to_their_owner covers join take_handed_over;
    shard::what_a_node_was_told_of_need_not_be_read covers take_handed_over;
    shard::what_a_peer_gives_its_word_for_is_handed_out_once covers take_by_word take_handed_over adopt;
    shard::commits_tell_of_local_shards_alone covers set_local accept take_handed_over;
    shard::what_is_made_due_again_reaches_its_owner covers requeue recover_step take_handed_over;
    shard::while_shards_move_every_delivery_is_handed_out_once covers adopt set_local take_handed_over release_shards claim_shards;
    shard::writes_are_named_to_other_nodes covers changes application_version;
    shard::messages_for_endpoints_chosen_too_early_are_not_accepted covers application_version accept;
    source::sources_read_back_whole covers create_source find_source find_source_by_token last_key;
    source::source_uids_are_unique_in_their_organisation covers create_source change_source;
    source::changing_a_source_replaces_all_but_identity_and_state covers change_source set_source_state;
    source::a_change_of_a_source_overwrites_no_other covers change_source;
    source::of_many_changes_of_a_source_at_once_none_is_lost covers change_source;
    source::state_of_a_source_is_not_lost_between_two_writers covers set_source_state;
    source::of_many_who_set_a_state_that_none_may_replace_one_wins covers set_source_state find_source;
    source::deleting_a_source_takes_what_is_its_own covers delete_source add_receipts;
    source::creating_a_source_twice_under_one_key_makes_one covers create_source;
    source::source_lists_page covers list_sources;
    source::sources_are_found_by_kind_whoever_has_them covers sources_of_kind;
    source::the_log_of_a_source_keeps_the_newest covers add_receipts list_receipts last_key;
    source::messages_keep_where_they_came_from covers accept load_message find_message list_messages;
    source::a_key_counts_for_its_own_window covers accept retain;
    source::keys_of_different_windows_in_one_batch_do_not_disturb_each_other covers accept;
    source::of_eight_identical_events_at_once_one_becomes_a_message covers accept;
    task::tasks_are_kept_and_listed covers create_task get_task list_tasks finish_task;
    task::recovery_requeues_what_was_missed_once covers recover_step;
    maintenance::the_last_key_is_above_all covers last_key;
    maintenance::what_is_prepared_takes_messages_as_it_is covers prepare;
    maintenance::retention_drops_what_is_old_and_finished covers retain;
    maintenance::payloads_go_when_they_expire covers retain;
    maintenance::a_store_reports_on_itself covers ping report check;
    maintenance::a_closed_store_answers_so covers close;
}
