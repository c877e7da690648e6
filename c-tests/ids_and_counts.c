/* SPDX-License-Identifier: MIT OR Apache-2.0
 *
 * Numbers at and beyond their limits: ids out of range, numbers of locks that overflow something, arrays that are too
 * small.
 */
#define _GNU_SOURCE
#include "segment.h"

enum { MOST_LOCKS = 16777216 };

static int places_a_manager_never_has;
#define UNTOUCHED ((lock_manager_t *)(void *)&places_a_manager_never_has)

static void an_id_out_of_range_is_refused_everywhere(void)
{
	static const uint32_t outside[] = { 64, 65, 0x7fffffff, 0x80000000, UINT32_MAX };
	const char *name = new_name();
	lock_manager_t *manager = new_segment(name, 64);
	for (size_t i = 0; i < sizeof outside / sizeof *outside; i++) {
		const uint32_t id = outside[i];
		lock_manager_lock_info_t info = { .size = sizeof info, .id = 77, .held = 77 };
		CHECK_FAILURE(lock_manager_retrieve_lock(manager, id), -EINVAL, name);
		CHECK_FAILURE(lock_manager_allocate_and_retrieve_lock(manager, id), -EINVAL, name);
		CHECK_FAILURE(lock_manager_free_lock(manager, id), -EINVAL, name);
		CHECK_FAILURE(lock_manager_lock(manager, id), -EINVAL, name);
		CHECK_FAILURE(lock_manager_try_lock(manager, id), -EINVAL, name);
		CHECK_FAILURE(lock_manager_timed_lock(manager, id, 1000), -EINVAL, name);
		CHECK_FAILURE(lock_manager_timed_lock(manager, id, 0), -EINVAL, name);
		CHECK_FAILURE(lock_manager_unlock(manager, id), -EINVAL, name);
		CHECK_FAILURE(lock_manager_repair_lock(manager, id), -EINVAL, name);
		CHECK_FAILURE(lock_manager_lock_info(manager, id, &info), -EINVAL, name);
		CHECK_INT(info.id, 77);
		CHECK_INT(info.held, 77);
	}
	CHECK_FAILURE(lock_manager_lock(manager, 4711), -EINVAL, "4711");
	CHECK_FAILURE(lock_manager_lock(manager, 4711), -EINVAL, "64");
	CHECK_INT(lock_manager_close(manager), 0);
}

static void the_last_id_is_as_good_as_any(void)
{
	lock_manager_t *manager = new_segment(new_name(), 64);
	lock_manager_lock_info_t info = { .size = sizeof info };
	CHECK_INT(lock_manager_retrieve_lock(manager, 63), 0);
	CHECK_INT(lock_manager_allocate_and_retrieve_lock(manager, 63), 0);
	CHECK_INT(lock_manager_lock(manager, 63), 0);
	CHECK_INT(lock_manager_lock_info(manager, 63, &info), 0);
	CHECK_INT(info.id, 63);
	CHECK_INT(info.allocated, 1);
	CHECK_INT(info.held, 1);
	CHECK_INT(lock_manager_unlock(manager, 63), 0);
	CHECK_INT(lock_manager_free_lock(manager, 63), 0);
	CHECK_INT(lock_manager_close(manager), 0);
}

static void a_number_of_locks_beyond_the_limits_makes_no_segment(void)
{
	static const uint32_t impossible[] = { 0, MOST_LOCKS + 1, 0x7fffffff, 0x80000000, UINT32_MAX - 30, UINT32_MAX };
	const char *name = new_name();
	for (size_t i = 0; i < sizeof impossible / sizeof *impossible; i++) {
		lock_manager_t *out = UNTOUCHED;
		CHECK_FAILURE(lock_manager_new_shm(name, impossible[i], NULL, &out), -EINVAL, name);
		CHECK_FAILURE(lock_manager_open_or_new_shm(name, impossible[i], NULL, &out), -EINVAL, name);
		CHECK(out == UNTOUCHED);
		CHECK(!file_exists(file_of(name)));
	}
}

static void a_number_of_locks_beyond_the_limits_opens_no_segment(void)
{
	static const uint32_t impossible[] = { MOST_LOCKS + 1, 0x80000000, UINT32_MAX };
	const char *name = new_name();
	CHECK_INT(lock_manager_close(new_segment(name, 32)), 0);
	for (size_t i = 0; i < sizeof impossible / sizeof *impossible; i++) {
		lock_manager_t *out = UNTOUCHED;
		CHECK_FAILURE(lock_manager_open_shm(name, impossible[i], &out), -EINVAL, name);
		CHECK_FAILURE(lock_manager_open_or_new_shm(name, impossible[i], NULL, &out), -EINVAL, name);
		CHECK(out == UNTOUCHED);
	}
}

static void another_number_of_locks_than_there_are_is_named(void)
{
	const char *name = new_name();
	lock_manager_t *out = UNTOUCHED;
	CHECK_INT(lock_manager_close(new_segment(name, 33)), 0);
	CHECK_FAILURE(lock_manager_open_shm(name, 65, &out), -ERANGE, name);
	if (layout_under_test() == LOCK_MANAGER_LAYOUT_LIBPOD)
		CHECK_FAILURE(lock_manager_open_shm(name, 32, &out), -ERANGE, "64");
	CHECK_FAILURE(lock_manager_open_shm(name, MOST_LOCKS, &out), -ERANGE, "16777216");
	CHECK_FAILURE(lock_manager_open_or_new_shm(name, 65, NULL, &out), -ERANGE, name);
	CHECK(out == UNTOUCHED);
}

static void a_number_of_locks_is_rounded_up_at_creation_and_at_opening(void)
{
	static const uint32_t asked[] = { 33, 63, 64, 0 };
	const char *name = new_name();
	CHECK_INT(lock_manager_close(new_segment(name, 33)), 0);
	for (size_t i = 0; i < sizeof asked / sizeof *asked; i++) {
		lock_manager_t *manager = NULL;
		uint32_t count = 77;
		CHECK_INT(lock_manager_open_shm(name, asked[i], &manager), 0);
		CHECK_INT(lock_manager_num_locks(manager, &count), 0);
		CHECK_INT(count, 64);
		CHECK_INT(lock_manager_close(manager), 0);
		CHECK_INT(lock_manager_open_or_new_shm(name, asked[i], NULL, &manager), 0);
		CHECK_INT(lock_manager_close(manager), 0);
	}
}

static void an_exhausted_segment_writes_no_id(void)
{
	const char *name = new_name();
	lock_manager_t *manager = new_segment(name, 64);
	uint32_t id = 77, count = 77;
	for (uint32_t i = 0; i < 64; i++) {
		CHECK_INT(lock_manager_allocate_lock(manager, &id), 0);
		CHECK_INT(id, i);
	}
	id = 77;
	CHECK_FAILURE(lock_manager_allocate_lock(manager, &id), -ENOLCK, name);
	CHECK_INT(id, 77);
	CHECK_INT(lock_manager_available_locks(manager, &count), 0);
	CHECK_INT(count, 0);
	CHECK_FAILURE(lock_manager_allocate_and_retrieve_lock(manager, 7), -EEXIST, "7");
	CHECK_INT(lock_manager_free_lock(manager, 7), 0);
	CHECK_FAILURE(lock_manager_free_lock(manager, 7), -ENOENT, name);
	CHECK_INT(lock_manager_close(manager), 0);
}

static void a_fixed_layout_does_not_grow(void)
{
	static const uint32_t sizes[] = { 0, 32, 64, 65, UINT32_MAX };
	const char *name = new_name();
	lock_manager_t *manager = new_segment(name, 64);
	for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++)
		CHECK_FAILURE(lock_manager_grow(manager, sizes[i]), -EOPNOTSUPP, name);
	CHECK_INT(lock_manager_close(manager), 0);
}

static void a_layout_that_grows_has_its_bounds(void)
{
	const char *name = new_name();
	lock_manager_shm_options_t options = { .size = sizeof options, .layout = LOCK_MANAGER_LAYOUT_NATIVE, .max_locks = 200 };
	lock_manager_info_t info = { .size = sizeof info };
	lock_manager_t *manager = NULL, *other = NULL, *out = UNTOUCHED;
	uint32_t count = 77;
	CHECK_INT(lock_manager_new_shm(name, 64, &options, &manager), 0);
	CHECK_INT(lock_manager_open_shm(name, 64, &other), 0);
	CHECK_FAILURE(lock_manager_grow(manager, 63), -EINVAL, "63");
	CHECK_FAILURE(lock_manager_grow(manager, 257), -EINVAL, "256");
	CHECK_FAILURE(lock_manager_lock(other, 129), -EINVAL, "64");
	CHECK_INT(lock_manager_grow(manager, 129), 0);
	CHECK_INT(lock_manager_lock(other, 129), 0);
	CHECK_FAILURE(lock_manager_try_lock(manager, 129), -EBUSY, "129");
	CHECK_INT(lock_manager_unlock(other, 129), 0);
	CHECK_INT(lock_manager_available_locks(other, &count), 0);
	CHECK_INT(count, 192);
	CHECK_INT(lock_manager_info(other, &info), 0);
	CHECK_INT(info.num_locks, 192);
	CHECK_INT(info.max_locks, 256);
	CHECK_INT(lock_manager_close(other), 0);
	for (uint32_t asked = 64; asked <= 192; asked += 64) {
		CHECK_INT(lock_manager_open_shm(name, asked, &other), 0);
		CHECK_INT(lock_manager_close(other), 0);
	}
	CHECK_FAILURE(lock_manager_open_shm(name, 193, &out), -ERANGE, "192");
	options.max_locks = 63;
	CHECK_FAILURE(lock_manager_new_shm(new_name(), 65, &options, &out), -EINVAL, "64");
	options.max_locks = MOST_LOCKS + 1;
	CHECK_FAILURE(lock_manager_new_shm(new_name(), 64, &options, &out), -EINVAL, "16777216");
	CHECK(out == UNTOUCHED);
	CHECK_INT(lock_manager_close(manager), 0);
}

static void the_held_locks_are_written_as_far_as_there_is_room(void)
{
	lock_manager_t *manager = new_segment(new_name(), 64);
	static const uint32_t held[] = { 40, 3, 63 };
	for (size_t i = 0; i < 3; i++)
		CHECK_INT(lock_manager_lock(manager, held[i]), 0);

	uint32_t ids[5] = { 77, 77, 77, 77, 77 };
	size_t count = 77;
	CHECK_INT(lock_manager_locks_held(manager, ids, 0, &count), 0);
	CHECK_INT(count, 3);
	CHECK_INT(ids[0], 77);
	CHECK_INT(lock_manager_locks_held(manager, ids, 2, &count), 0);
	CHECK_INT(count, 3);
	CHECK_INT(ids[0], 3);
	CHECK_INT(ids[1], 40);
	CHECK_INT(ids[2], 77);
	CHECK_INT(lock_manager_locks_held(manager, ids, 5, &count), 0);
	CHECK_INT(count, 3);
	CHECK_INT(ids[2], 63);
	CHECK_INT(ids[3], 77);

	for (size_t i = 0; i < 3; i++)
		CHECK_INT(lock_manager_unlock(manager, held[i]), 0);
	CHECK_INT(lock_manager_locks_held(manager, ids, 5, &count), 0);
	CHECK_INT(count, 0);
	CHECK_INT(lock_manager_close(manager), 0);
}

int main(void)
{
	RUN_TEST(an_id_out_of_range_is_refused_everywhere);
	RUN_TEST(the_last_id_is_as_good_as_any);
	RUN_TEST(a_number_of_locks_beyond_the_limits_makes_no_segment);
	RUN_TEST(a_number_of_locks_beyond_the_limits_opens_no_segment);
	RUN_TEST(another_number_of_locks_than_there_are_is_named);
	RUN_TEST(a_number_of_locks_is_rounded_up_at_creation_and_at_opening);
	RUN_TEST(an_exhausted_segment_writes_no_id);
	if (layout_under_test() == LOCK_MANAGER_LAYOUT_LIBPOD)
		RUN_TEST(a_fixed_layout_does_not_grow);
	else
		RUN_TEST(a_layout_that_grows_has_its_bounds);
	RUN_TEST(the_held_locks_are_written_as_far_as_there_is_room);
	return end_of_tests();
}
