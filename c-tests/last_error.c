/* SPDX-License-Identifier: MIT OR Apache-2.0
 *
 * The last failure in words: whose it is, how long it stays, what stands in it.
 */
#define _GNU_SOURCE
#include <pthread.h>

#include "holder.h"
#include "segment.h"

static void *look_before_the_first_failure(void *nothing)
{
	(void)nothing;
	const char *error = lock_manager_last_error();
	CHECK(error != NULL);
	CHECK_TEXT(error, "");
	return NULL;
}

static void a_thread_that_never_failed_has_an_empty_one(void)
{
	pthread_t thread;
	CHECK_INT(lock_manager_lock(NULL, 0), -EINVAL);
	CHECK(*lock_manager_last_error() != '\0');
	REQUIRE(pthread_create(&thread, NULL, look_before_the_first_failure, NULL) == 0);
	REQUIRE(pthread_join(thread, NULL) == 0);
}

static void *fail_to_open(void *name)
{
	lock_manager_t *out = NULL;
	CHECK_FAILURE(lock_manager_open_shm(name, 0, &out), -ENOENT, name);
	return NULL;
}

static void a_thread_does_not_see_the_failures_of_others(void)
{
	char name[NAME_SIZE];
	snprintf(name, sizeof name, "%s", new_name());
	pthread_t thread;
	lock_manager_lock(NULL, 0);
	char *before = strdup(lock_manager_last_error());
	REQUIRE(before != NULL);
	REQUIRE(pthread_create(&thread, NULL, fail_to_open, name) == 0);
	REQUIRE(pthread_join(thread, NULL) == 0);
	CHECK_TEXT(lock_manager_last_error(), before);
	free(before);
}

static void success_leaves_it_as_it_is(void)
{
	const char *name = new_name();
	lock_manager_t *out = NULL;
	CHECK_FAILURE(lock_manager_open_shm(name, 0, &out), -ENOENT, name);
	const char *error = lock_manager_last_error();
	char *before = strdup(error);
	REQUIRE(before != NULL);

	lock_manager_t *manager = new_segment(name, 32);
	uint32_t id = 0;
	CHECK_INT(lock_manager_allocate_lock(manager, &id), 0);
	CHECK_INT(lock_manager_lock(manager, id), 0);
	CHECK_INT(lock_manager_unlock(manager, id), 0);
	CHECK_INT(lock_manager_free_lock(manager, id), 0);
	CHECK_INT(lock_manager_close(manager), 0);
	CHECK_INT(lock_manager_remove_shm(name), 0);
	CHECK_TEXT(lock_manager_last_error(), before);
	/* The text itself stays valid until the next failure, too. */
	CHECK_TEXT(error, before);
	free(before);
}

static void the_next_failure_takes_its_place(void)
{
	const char *name = new_name();
	lock_manager_t *out = NULL;
	CHECK_FAILURE(lock_manager_lock(NULL, 0), -EINVAL, "NULL");
	CHECK_FAILURE(lock_manager_open_shm(name, 0, &out), -ENOENT, name);
	CHECK(strstr(lock_manager_last_error(), "NULL") == NULL);
}

static void a_path_cannot_break_the_line(void)
{
	lock_manager_t *out = NULL;
	CHECK_FAILURE(lock_manager_open_shm("/lm-test-c\nno\rsuch\tone", 0, &out), -ENOENT, "lm-test-c");
	CHECK_FAILURE(lock_manager_open_shm("no\nname\x1b[31m\xff", 0, &out), -EINVAL, "name");
	for (const char *at = lock_manager_last_error(); *at != '\0'; at++)
		CHECK((unsigned char)*at >= ' ' && (unsigned char)*at != 0x7f && (unsigned char)*at != 0xff);
}

static void the_lock_and_the_number_that_disagree_are_named(void)
{
	const char *name = new_name();
	lock_manager_t *manager = new_segment(name, 2048), *out = NULL;
	CHECK_FAILURE(lock_manager_open_shm(name, 4096, &out), -ERANGE, "4096");
	CHECK(strstr(lock_manager_last_error(), "2048") != NULL);
	CHECK(strstr(lock_manager_last_error(), name) != NULL);
	CHECK_FAILURE(lock_manager_free_lock(manager, 1234), -ENOENT, "1234");
	CHECK(strstr(lock_manager_last_error(), name) != NULL);
	CHECK_FAILURE(lock_manager_unlock(manager, 1234), -EPERM, "1234");
	CHECK(strstr(lock_manager_last_error(), name) != NULL);
	CHECK_INT(lock_manager_lock(manager, 1234), 0);
	CHECK_FAILURE(lock_manager_lock(manager, 1234), -EDEADLK, "1234");
	CHECK_FAILURE(lock_manager_timed_lock(manager, 1234, 0), -EDEADLK, name);
	CHECK_FAILURE(lock_manager_try_lock(manager, 1234), -EBUSY, "1234");
	CHECK_FAILURE(lock_manager_close(manager), -EBUSY, "1234");
	CHECK(strstr(lock_manager_last_error(), name) != NULL);
	CHECK_INT(lock_manager_unlock(manager, 1234), 0);
	CHECK_INT(lock_manager_close(manager), 0);
}

/* Tries that follow each other are refused by what the first has seen. */
static void a_refused_try_names_the_lock_and_its_holder_however_often(void)
{
	const char *name = new_name();
	lock_manager_t *manager = new_segment(name, 64), *another = new_segment(new_name(), 64);
	pid_t holder = fork_holder(manager, 7, 2);
	char of_holder[32];
	snprintf(of_holder, sizeof of_holder, "%d", (int)holder);
	for (int i = 0; i < 1000; i++) {
		CHECK_FAILURE(lock_manager_try_lock(manager, 7), -EBUSY, name);
		CHECK(strstr(lock_manager_last_error(), "lock 7 ") != NULL);
		CHECK(strstr(lock_manager_last_error(), of_holder) != NULL);
		CHECK_FAILURE(lock_manager_try_lock(manager, 8), -EBUSY, name);
		CHECK(strstr(lock_manager_last_error(), "lock 8 ") != NULL);
		/* The failure of another storage in between. */
		if (i % 10 == 0)
			CHECK_FAILURE(lock_manager_unlock(another, 3), -EPERM, "3");
	}
	kill_child(holder);
	CHECK_INT(lock_manager_try_lock(manager, 7), LOCK_MANAGER_OWNER_DIED);
	CHECK_INT(lock_manager_try_lock(manager, 8), LOCK_MANAGER_OWNER_DIED);
	CHECK_INT(lock_manager_unlock(manager, 7), 0);
	CHECK_INT(lock_manager_unlock(manager, 8), 0);
	CHECK_INT(lock_manager_close(another), 0);
	CHECK_INT(lock_manager_close(manager), 0);
}

static void a_child_keeps_its_parents_words(void)
{
	CHECK_FAILURE(lock_manager_lock(NULL, 0), -EINVAL, "NULL");
	pid_t child = fork_child();
	if (child == 0) {
		check_last_error("NULL", "fork()", __FILE__, __LINE__);
		end_child();
	}
	check_child_ended_well(child);
}

int main(void)
{
	/* Before anything has failed in this process. */
	RUN_TEST(a_thread_that_never_failed_has_an_empty_one);
	RUN_TEST(a_thread_does_not_see_the_failures_of_others);
	RUN_TEST(success_leaves_it_as_it_is);
	RUN_TEST(the_next_failure_takes_its_place);
	RUN_TEST(a_path_cannot_break_the_line);
	RUN_TEST(the_lock_and_the_number_that_disagree_are_named);
	RUN_TEST(a_refused_try_names_the_lock_and_its_holder_however_often);
	RUN_TEST(a_child_keeps_its_parents_words);
	return end_of_tests();
}
