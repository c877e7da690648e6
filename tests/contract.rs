// SPDX-License-Identifier: MIT OR Apache-2.0
//! What every manager promises, on every manager and layout, through Rust and through the C functions. A new one is
//! tested by a line at the end that names the lists of tests for what it has and for what it lacks.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a failing helper is a failing test")]

#[path = "contract/allocation.rs"]
mod allocation;
#[path = "contract/cancelling.rs"]
mod cancelling;
#[path = "contract/death.rs"]
mod death;
#[path = "contract/door.rs"]
mod door;
#[path = "contract/etcd.rs"]
mod etcd;
#[path = "contract/locking.rs"]
mod locking;
#[path = "contract/looking.rs"]
mod looking;
#[path = "contract/sharing.rs"]
mod sharing;
#[path = "contract/subject.rs"]
mod subject;
mod support;
#[path = "contract/waiting.rs"]
mod waiting;

use door::Door;
use subject::Storage;

/// Makes a module of tests for one storage and one door, from the lists that are named: each capability of the storage is
/// one, and each that it lacks is one that begins with `no_`. What a storage lacks, and why, stands in subject.rs.
macro_rules! promises {
    ($name:ident, $storage:expr, $door:expr; $($list:ident)*) => {
        mod $name {
            use super::*;

            promises!(@every_storage $storage, $door);
            $(promises!(@$list $storage, $door);)*

            /// No list is forgotten, and none is of a capability that the storage has not.
            #[test]
            fn the_lists_are_those_of_the_storage() {
                let (mut named, mut expected) = (vec![$(stringify!($list)),*], $storage.lists());
                named.sort_unstable();
                expected.sort_unstable();
                assert_eq!(named, expected);
            }
        }
    };
    (@every_storage $storage:expr, $door:expr) => {
        promises!(@tests $storage, $door;
            allocation::a_lone_allocator_gets_0_1_2,
            allocation::an_id_is_given_once_until_it_is_freed,
            allocation::a_given_id_is_allocated_once,
            allocation::freeing_what_is_not_allocated_is_refused,
            allocation::an_id_out_of_range_is_refused_everywhere,
            allocation::many_threads_and_managers_never_get_the_same_id,
            locking::a_lock_excludes_threads,
            locking::a_held_lock_is_busy_and_a_wait_for_it_ends_in_time,
            locking::waiting_for_oneself_is_a_deadlock,
            locking::only_the_holder_unlocks,
            locking::allocation_changes_nothing_in_a_lock,
            locking::a_lock_is_handed_over_to_every_waiter,
            locking::a_manager_in_use_is_not_closed,
            cancelling::a_triggered_object_wins_over_a_free_lock,
            cancelling::triggering_ends_a_wait,
            cancelling::a_wait_that_is_not_cancelled_ends_as_others_do,
            death::a_thread_that_ends_holding_is_told_once,
            death::a_destructor_of_the_programs_may_unlock,
            looking::held_locks_are_listed_with_their_holders,
            looking::a_death_can_be_looked_at_without_being_told,
            looking::the_storage_says_what_it_is,
            looking::a_living_holder_is_not_repaired,
        );
    };
    (@processes $storage:expr, $door:expr) => {
        promises!(@tests $storage, $door;
            allocation::two_managers_share_one_pool,
            allocation::what_was_removed_says_so,
            locking::a_lock_excludes_managers_and_processes,
            locking::a_forked_child_holds_nothing,
            death::a_killed_process_is_told_once_to_the_waiter,
            death::a_killed_process_is_told_to_who_comes_later,
            death::an_exec_frees_and_is_told,
            death::a_child_that_outlives_the_holder_keeps_nothing,
        );
    };
    (@no_processes $storage:expr, $door:expr) => {
        promises!(@tests $storage, $door;
            allocation::two_managers_are_two_pools,
            locking::a_forked_child_is_refused,
        );
    };
    (@closed_descriptors $storage:expr, $door:expr) => {
        promises!(@tests $storage, $door; death::closing_every_descriptor_frees_nothing);
    };
    (@no_closed_descriptors $storage:expr, $door:expr) => {
        promises!(@tests $storage, $door; death::a_holder_that_closes_every_descriptor_is_not_robbed);
    };
    (@number $storage:expr, $door:expr) => {
        promises!(@tests $storage, $door; allocation::when_all_are_allocated_the_next_is_refused);
    };
    (@no_number $storage:expr, $door:expr) => {
        promises!(@tests $storage, $door; allocation::there_is_no_number_of_locks);
    };
    (@growth $storage:expr, $door:expr) => {
        promises!(@tests $storage, $door; allocation::growing_makes_room);
    };
    (@no_growth $storage:expr, $door:expr) => {
        promises!(@tests $storage, $door; allocation::growing_is_not_supported);
    };
    (@process_ownership $storage:expr, $door:expr) => {
        promises!(@tests $storage, $door;
            locking::a_process_may_own_locks,
            locking::ownership_is_settled_by_the_first_lock,
            waiting::what_a_process_owns_makes_no_circle,
        );
    };
    (@no_process_ownership $storage:expr, $door:expr) => {
        promises!(@tests $storage, $door; locking::a_process_cannot_own_locks);
    };
    (@waits $storage:expr, $door:expr) => {
        promises!(@tests $storage, $door;
            waiting::who_waits_is_counted,
            waiting::of_a_circle_of_threads_one_is_told,
            waiting::of_many_that_never_pause_everybody_gets_its_turns,
        );
    };
    (@waits_in_processes $storage:expr, $door:expr) => {
        promises!(@tests $storage, $door; waiting::of_a_circle_of_processes_one_is_told);
    };
    (@no_waits $storage:expr, $door:expr) => {
        promises!(@tests $storage, $door;
            waiting::waiters_are_not_counted,
            waiting::a_circle_is_not_found,
        );
    };
    (@readers $storage:expr, $door:expr) => {
        promises!(@tests $storage, $door;
            sharing::readers_share_a_lock_and_a_writer_has_it_alone,
            sharing::writers_exclude_readers_in_threads_managers_and_processes,
            sharing::whoever_reads_a_lock_is_refused_a_second_hold,
            sharing::a_hold_is_given_back_as_what_it_is,
            sharing::a_writer_that_waits_keeps_later_readers_out_and_is_next,
            sharing::a_downgrade_lets_readers_in_and_no_writer,
            sharing::a_writers_death_is_told_to_each_reader_until_a_writer_was_told,
            sharing::a_readers_death_is_told_to_nobody_and_frees_the_lock,
            sharing::a_readers_wait_is_cancelled,
            sharing::what_a_process_reads_any_thread_gives_back,
            sharing::all_holders_are_listed,
            sharing::a_manager_through_which_is_read_is_not_closed,
            sharing::of_a_circle_of_readers_one_is_told,
            sharing::neither_readers_nor_writers_starve,
        );
    };
    (@readers_in_processes $storage:expr, $door:expr) => {
        promises!(@tests $storage, $door;
            sharing::a_killed_reader_is_told_to_nobody_and_frees_the_lock,
            sharing::a_forked_child_reads_nothing_of_its_parents,
        );
    };
    (@no_readers $storage:expr, $door:expr) => {
        promises!(@tests $storage, $door; sharing::every_call_of_readers_is_refused);
    };
    (@tests $storage:expr, $door:expr; $($module:ident::$test:ident),* $(,)?) => {
        $(
            #[test]
            fn $test() {
                fn here() {}
                let place = std::any::type_name_of_val(&here);
                let body = || crate::$module::$test(&subject::Subject::new($storage, $door));
                match $storage {
                    Storage::Etcd if etcd::IS_BUILT => support::alone::run_with_etcd(place, body),
                    Storage::Etcd => support::skip("this build has no locks in etcd"),
                    _ => support::alone::run(place, body),
                }
            }
        )*
    };
}

/// The same through both doors.
macro_rules! through_both {
    ($through_rust:ident, $through_c:ident, $storage:expr; $($list:ident)*) => {
        promises!($through_rust, $storage, Door::Rust; $($list)*);
        promises!($through_c, $storage, Door::C; $($list)*);
    };
}

through_both!(libpod_layout_through_rust, libpod_layout_through_c, Storage::LibpodLayout;
    processes closed_descriptors number no_growth no_process_ownership no_readers no_waits);
through_both!(native_layout_through_rust, native_layout_through_c, Storage::NativeLayout;
    processes closed_descriptors number growth process_ownership readers readers_in_processes waits waits_in_processes);
through_both!(files_through_rust, files_through_c, Storage::Files;
    processes closed_descriptors no_number no_growth process_ownership readers readers_in_processes waits waits_in_processes);
through_both!(in_memory_through_rust, in_memory_through_c, Storage::InMemory;
    no_processes number growth process_ownership readers waits);
through_both!(etcd_through_rust, etcd_through_c, Storage::Etcd;
    processes no_closed_descriptors number no_growth process_ownership no_readers waits waits_in_processes);
