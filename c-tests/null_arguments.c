/* SPDX-License-Identifier: MIT OR Apache-2.0
 *
 * NULL where a pointer is needed is -EINVAL, and no output is written. One test for each group of the header; the
 * script `run` notices a function of the header that is missing here.
 */
#define _GNU_SOURCE
#include "segment.h"

#define REFUSED(call) CHECK_FAILURE(call, -EINVAL, "NULL")

static int places_a_manager_never_has;
#define UNTOUCHED ((lock_manager_t *)(void *)&places_a_manager_never_has)

static void opening_without_a_path_or_a_place_for_the_manager_is_refused(void)
{
	lock_manager_t *out = UNTOUCHED;
	const char *name = new_name();
	REFUSED(lock_manager_new_shm(NULL, 32, NULL, &out));
	REFUSED(lock_manager_new_shm(name, 32, NULL, NULL));
	CHECK(!file_exists(file_of(name)));
	REFUSED(lock_manager_open_or_new_shm(NULL, 32, NULL, &out));
	REFUSED(lock_manager_open_or_new_shm(name, 32, NULL, NULL));
	CHECK(!file_exists(file_of(name)));

	CHECK_INT(lock_manager_close(new_segment(name, 32)), 0);
	REFUSED(lock_manager_open_shm(NULL, 32, &out));
	REFUSED(lock_manager_open_shm(name, 32, NULL));
	REFUSED(lock_manager_open_or_new_shm(name, 32, NULL, NULL));
	REFUSED(lock_manager_open_shm_read_only(NULL, &out));
	REFUSED(lock_manager_open_shm_read_only(name, NULL));
	CHECK(out == UNTOUCHED);
}

static void opening_a_directory_without_a_path_or_a_place_for_the_manager_is_refused(void)
{
	lock_manager_t *out = UNTOUCHED;
	const char *directory = file_of(new_name());
	REFUSED(lock_manager_new_file(NULL, &out));
	REFUSED(lock_manager_new_file(directory, NULL));
	REFUSED(lock_manager_open_or_new_file(NULL, &out));
	REFUSED(lock_manager_open_or_new_file(directory, NULL));
	REFUSED(lock_manager_open_file(NULL, &out));
	REFUSED(lock_manager_open_file(directory, NULL));
	CHECK(!file_exists(directory));
	REFUSED(lock_manager_new_in_memory(32, NULL));
	CHECK(out == UNTOUCHED);
}

static void a_backend_without_a_table_a_name_or_a_place_for_the_manager_is_refused(void)
{
	lock_manager_t *out = UNTOUCHED;
	lock_manager_backend_t table = { .size = sizeof table };
	void *state = NULL;
	REFUSED(lock_manager_open_backend(NULL, NULL, "locks", NULL, &out));
	REFUSED(lock_manager_open_backend(&table, NULL, NULL, NULL, &out));
	REFUSED(lock_manager_open_backend(&table, NULL, "locks", NULL, NULL));
	CHECK(out == UNTOUCHED);
	REFUSED(lock_manager_backend_state(NULL, &table, UINT32_MAX, &state));
	REFUSED(lock_manager_backend_failed("locks", 5, NULL));
	CHECK_FAILURE(lock_manager_backend_failed("locks", 0, "word"), -EINVAL, "positive");
	CHECK_FAILURE(lock_manager_backend_failed("locks", 5, "in other words"), -5, "locks: in other words");
}

static void removing_without_a_path_is_refused(void)
{
	REFUSED(lock_manager_remove_shm(NULL));
	REFUSED(lock_manager_remove_file(NULL));
}

static void closing_nothing_is_done_at_once(void)
{
	CHECK_INT(lock_manager_close(NULL), 0);
}

static void allocating_without_a_manager_or_a_place_for_the_id_is_refused(void)
{
	lock_manager_t *manager = new_segment(new_name(), 64);
	uint32_t number = 77, available = 77;
	REFUSED(lock_manager_allocate_lock(NULL, &number));
	REFUSED(lock_manager_allocate_lock(manager, NULL));
	REFUSED(lock_manager_retrieve_lock(NULL, 0));
	REFUSED(lock_manager_allocate_and_retrieve_lock(NULL, 0));
	REFUSED(lock_manager_free_lock(NULL, 0));
	REFUSED(lock_manager_free_all_locks(NULL));
	CHECK_INT(lock_manager_available_locks(manager, &available), 0);
	CHECK_INT(available, 64);
	CHECK_INT(number, 77);
	CHECK_INT(lock_manager_close(manager), 0);
}

static void counting_without_a_manager_or_a_place_for_the_number_is_refused(void)
{
	lock_manager_t *manager = new_segment(new_name(), 32);
	uint32_t count = 77;
	REFUSED(lock_manager_available_locks(NULL, &count));
	REFUSED(lock_manager_available_locks(manager, NULL));
	REFUSED(lock_manager_num_locks(NULL, &count));
	REFUSED(lock_manager_num_locks(manager, NULL));
	REFUSED(lock_manager_grow(NULL, 64));
	CHECK_INT(count, 77);
	CHECK_INT(lock_manager_close(manager), 0);
}

static void locking_without_a_manager_is_refused(void)
{
	REFUSED(lock_manager_lock(NULL, 0));
	REFUSED(lock_manager_try_lock(NULL, 0));
	REFUSED(lock_manager_timed_lock(NULL, 0, 0));
	REFUSED(lock_manager_timed_lock(NULL, 0, UINT64_MAX));
	REFUSED(lock_manager_cancellable_lock(NULL, 0, 0, NULL));
	REFUSED(lock_manager_unlock(NULL, 0));
	REFUSED(lock_manager_set_ownership(NULL, LOCK_MANAGER_OWNED_BY_THREAD));
}

static void sharing_without_a_manager_is_refused(void)
{
	REFUSED(lock_manager_lock_shared(NULL, 0));
	REFUSED(lock_manager_try_lock_shared(NULL, 0));
	REFUSED(lock_manager_timed_lock_shared(NULL, 0, 0));
	REFUSED(lock_manager_timed_lock_shared(NULL, 0, UINT64_MAX));
	REFUSED(lock_manager_cancellable_lock_shared(NULL, 0, 0, NULL));
	REFUSED(lock_manager_unlock_shared(NULL, 0));
	REFUSED(lock_manager_downgrade_lock(NULL, 0));
}

static void a_cancel_object_that_is_not_there_cannot_be_triggered(void)
{
	REFUSED(lock_manager_cancel_new(NULL));
	REFUSED(lock_manager_cancel_trigger(NULL));
	CHECK_INT(lock_manager_cancel_free(NULL), 0);
}

/* Where a lock may be waited for with a cancel object, NULL is none. */
static void a_wait_without_a_cancel_object_is_a_wait(void)
{
	lock_manager_t *manager = new_segment(new_name(), 32);
	CHECK_INT(lock_manager_cancellable_lock(manager, 3, UINT64_MAX, NULL), 0);
	CHECK_INT(lock_manager_unlock(manager, 3), 0);
	CHECK_INT(lock_manager_close(manager), 0);
}

static void looking_without_a_manager_or_a_place_for_the_answer_is_refused(void)
{
	lock_manager_t *manager = new_segment(new_name(), 32);
	lock_manager_lock_info_t lock = { .size = sizeof lock, .id = 77, .waited_ns = 77 };
	lock_manager_info_t storage = { .size = sizeof storage, .num_locks = 77, .retired = 77 };
	uint32_t ids[2] = { 77, 77 };
	size_t count = 77;
	CHECK_INT(lock_manager_lock(manager, 5), 0);

	REFUSED(lock_manager_locks_held(NULL, ids, 2, &count));
	REFUSED(lock_manager_locks_held(manager, NULL, 2, &count));
	REFUSED(lock_manager_locks_held(manager, ids, 2, NULL));
	REFUSED(lock_manager_lock_info(NULL, 5, &lock));
	REFUSED(lock_manager_lock_info(manager, 5, NULL));
	REFUSED(lock_manager_info(NULL, &storage));
	REFUSED(lock_manager_info(manager, NULL));
	CHECK_INT(ids[0], 77);
	CHECK_INT(ids[1], 77);
	CHECK_INT(count, 77);
	CHECK_INT(lock.id, 77);
	CHECK_INT(lock.waited_ns, 77);
	CHECK_INT(storage.num_locks, 77);
	CHECK_INT(storage.retired, 77);

	CHECK_INT(lock_manager_locks_held(manager, NULL, 0, &count), 0);
	CHECK_INT(count, 1);
	CHECK_INT(lock_manager_unlock(manager, 5), 0);
	CHECK_INT(lock_manager_close(manager), 0);
}

static void holders_without_a_place_for_them_are_refused(void)
{
	/* The holders of the libpod layout are not listed. */
	lock_manager_t *manager = NULL;
	lock_manager_holder_t holders[2] = { { .size = sizeof *holders, .pid = 77 }, { .pid = 77 } };
	size_t count = 77;
	REQUIRE(lock_manager_new_in_memory(64, &manager) == 0);
	CHECK_INT(lock_manager_lock_shared(manager, 5), 0);
	REFUSED(lock_manager_lock_holders(NULL, 5, holders, 2, &count));
	REFUSED(lock_manager_lock_holders(manager, 5, NULL, 2, &count));
	REFUSED(lock_manager_lock_holders(manager, 5, holders, 2, NULL));
	holders[0].size = sizeof *holders - 1;
	CHECK_FAILURE(lock_manager_lock_holders(manager, 5, holders, 2, &count), -EINVAL, "size");
	CHECK_INT(holders[0].pid, 77);
	CHECK_INT(count, 77);
	CHECK_INT(lock_manager_lock_holders(manager, 5, NULL, 0, &count), 0);
	CHECK_INT(count, 1);
	holders[0].size = sizeof *holders;
	CHECK_INT(lock_manager_lock_holders(manager, 5, holders, 2, &count), 0);
	CHECK_INT(holders[0].pid, getpid());
	CHECK_INT(holders[0].shared, 1);
	CHECK_INT(holders[1].pid, 77);
	CHECK_INT(lock_manager_unlock_shared(manager, 5), 0);
	CHECK_INT(lock_manager_close(manager), 0);
}

static void a_token_without_a_manager_or_a_place_for_it_is_refused(void)
{
	lock_manager_t *manager = new_segment(new_name(), 32);
	uint64_t token = 77;
	int32_t descriptor = 77;
	REFUSED(lock_manager_fencing_token(NULL, 0, &token));
	REFUSED(lock_manager_fencing_token(manager, 0, NULL));
	REFUSED(lock_manager_lost_fd(NULL, &descriptor));
	REFUSED(lock_manager_lost_fd(manager, NULL));
	CHECK_FAILURE(lock_manager_fencing_token(manager, 0, &token), -EOPNOTSUPP, "one host");
	CHECK_FAILURE(lock_manager_lost_fd(manager, &descriptor), -EOPNOTSUPP, "one host");
	CHECK_INT(token, 77);
	CHECK_INT(descriptor, 77);
	CHECK_INT(lock_manager_close(manager), 0);
}

static void repairing_without_a_manager_is_refused(void)
{
	REFUSED(lock_manager_repair_lock(NULL, 0));
}

int main(void)
{
	RUN_TEST(opening_without_a_path_or_a_place_for_the_manager_is_refused);
	RUN_TEST(opening_a_directory_without_a_path_or_a_place_for_the_manager_is_refused);
	RUN_TEST(a_backend_without_a_table_a_name_or_a_place_for_the_manager_is_refused);
	RUN_TEST(removing_without_a_path_is_refused);
	RUN_TEST(closing_nothing_is_done_at_once);
	RUN_TEST(allocating_without_a_manager_or_a_place_for_the_id_is_refused);
	RUN_TEST(counting_without_a_manager_or_a_place_for_the_number_is_refused);
	RUN_TEST(locking_without_a_manager_is_refused);
	RUN_TEST(sharing_without_a_manager_is_refused);
	RUN_TEST(holders_without_a_place_for_them_are_refused);
	RUN_TEST(a_cancel_object_that_is_not_there_cannot_be_triggered);
	RUN_TEST(a_wait_without_a_cancel_object_is_a_wait);
	RUN_TEST(looking_without_a_manager_or_a_place_for_the_answer_is_refused);
	RUN_TEST(a_token_without_a_manager_or_a_place_for_it_is_refused);
	RUN_TEST(repairing_without_a_manager_is_refused);
	return end_of_tests();
}
