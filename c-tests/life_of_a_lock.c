/* SPDX-License-Identifier: MIT OR Apache-2.0
 *
 * One lock from creation to removal, with a death in between: the calls that every program makes. Linked in each way
 * that there is, and run under valgrind.
 */
#define _GNU_SOURCE
#include <pthread.h>

#include "child.h"
#include "segment.h"

static void *lock_and_unlock(void *manager)
{
	CHECK_INT(lock_manager_lock(manager, 0), 0);
	CHECK_INT(lock_manager_unlock(manager, 0), 0);
	CHECK_FAILURE(lock_manager_unlock(manager, 0), -EPERM, "0");
	return NULL;
}

static void a_lock_is_made_used_lost_found_and_removed(void)
{
	const char *name = new_name();
	lock_manager_t *manager = new_segment(name, 64), *other = open_segment(name);
	uint32_t id = 77, count = 77;
	CHECK_INT(lock_manager_allocate_lock(manager, &id), 0);
	CHECK_INT(id, 0);
	CHECK_INT(lock_manager_allocate_and_retrieve_lock(manager, 5), 0);
	CHECK_INT(lock_manager_available_locks(manager, &count), 0);
	CHECK_INT(count, 62);
	CHECK_INT(lock_manager_num_locks(other, &count), 0);
	CHECK_INT(count, 64);

	pthread_t threads[2];
	for (int i = 0; i < 2; i++)
		REQUIRE(pthread_create(&threads[i], NULL, lock_and_unlock, i ? manager : other) == 0);
	for (int i = 0; i < 2; i++)
		REQUIRE(pthread_join(threads[i], NULL) == 0);

	pid_t child = fork_child();
	if (child == 0) {
		CHECK_INT(lock_manager_lock(manager, id), 0);
		if (checks_failed)
			end_child();
		raise(SIGKILL);
	}
	int status = 0;
	CHECK_INT(waitpid(child, &status, 0), child);
	CHECK(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);

	lock_manager_lock_info_t info = { .size = sizeof info };
	CHECK_INT(lock_manager_lock_info(manager, id, &info), 0);
	CHECK_INT(info.owner_died, 1);
	CHECK_INT(lock_manager_lock(manager, id), LOCK_MANAGER_OWNER_DIED);
	uint32_t held[4] = { 77, 77, 77, 77 };
	size_t held_count = 77;
	CHECK_INT(lock_manager_locks_held(other, held, 4, &held_count), 0);
	CHECK_INT(held_count, 1);
	CHECK_INT(held[0], id);
	CHECK_FAILURE(lock_manager_try_lock(other, id), -EBUSY, name);
	CHECK_INT(lock_manager_unlock(manager, id), 0);
	CHECK_INT(lock_manager_timed_lock(other, id, 1000000), 0);
	CHECK_INT(lock_manager_unlock(other, id), 0);
	CHECK_INT(lock_manager_repair_lock(manager, id), 0);
	CHECK_INT(lock_manager_free_lock(manager, id), 0);
	CHECK_INT(lock_manager_free_all_locks(manager), 0);

	CHECK_INT(lock_manager_close(other), 0);
	CHECK_INT(lock_manager_remove_shm(name), 0);
	lock_manager_info_t storage = { .size = sizeof storage };
	CHECK_INT(lock_manager_info(manager, &storage), 0);
	CHECK_INT(storage.retired, 1);
	CHECK_INT(lock_manager_close(manager), 0);
	CHECK_FAILURE(lock_manager_open_shm(name, 0, &manager), -ENOENT, name);
}

static void lock_unlock_and_close(lock_manager_t *segment, lock_manager_t *directory)
{
	CHECK_INT(lock_manager_lock(segment, 1), 0);
	CHECK_INT(lock_manager_unlock(segment, 1), 0);
	CHECK_INT(lock_manager_lock(directory, 1), 0);
	CHECK_INT(lock_manager_unlock(directory, 1), 0);
	CHECK_INT(lock_manager_close(segment), 0);
	CHECK_INT(lock_manager_close(directory), 0);
}

/* What they inherited of their ancestors' is not lost memory either. */
static void children_and_theirs_close_what_their_ancestors_used(void)
{
	const char *name = new_name(), *directory_name = file_of(new_name());
	lock_manager_t *segment = new_segment(name, 64), *directory;
	REQUIRE(lock_manager_new_file(directory_name, &directory) == 0);
	CHECK_INT(lock_manager_lock(segment, 1), 0);
	CHECK_INT(lock_manager_unlock(segment, 1), 0);
	CHECK_INT(lock_manager_lock(directory, 1), 0);
	CHECK_INT(lock_manager_unlock(directory, 1), 0);

	pid_t child = fork_child();
	if (child == 0) {
		CHECK_INT(lock_manager_lock(directory, 1), 0);
		CHECK_INT(lock_manager_unlock(directory, 1), 0);
		pid_t grandchild = fork_child();
		if (grandchild == 0) {
			lock_unlock_and_close(segment, directory);
			end_child();
		}
		check_child_ended_well(grandchild);
		CHECK_INT(lock_manager_close(segment), 0);
		CHECK_INT(lock_manager_close(directory), 0);
		end_child();
	}
	check_child_ended_well(child);
	lock_unlock_and_close(segment, directory);
	CHECK_INT(lock_manager_remove_shm(name), 0);
	CHECK_INT(lock_manager_remove_file(directory_name), 0);
}

static void the_library_is_the_version_of_the_header(void)
{
	char numbers[32];
	snprintf(numbers, sizeof numbers, "%d.%d.%d", LOCK_MANAGER_VERSION_MAJOR, LOCK_MANAGER_VERSION_MINOR,
		 LOCK_MANAGER_VERSION_PATCH);
	CHECK_TEXT(lock_manager_version(), LOCK_MANAGER_VERSION);
	CHECK_TEXT(LOCK_MANAGER_VERSION, numbers);
}

int main(void)
{
	RUN_TEST(the_library_is_the_version_of_the_header);
	RUN_TEST(a_lock_is_made_used_lost_found_and_removed);
	RUN_TEST(children_and_theirs_close_what_their_ancestors_used);
	return end_of_tests();
}
