/* SPDX-License-Identifier: MIT OR Apache-2.0
 *
 * The home of the locks under test, for programs that run once for each: segments of both layouts, files, memory.
 */
#ifndef HOME_H
#define HOME_H

#include "segment.h"

enum home { HOME_NATIVE, HOME_LIBPOD, HOME_FILES, HOME_IN_MEMORY };

static inline enum home home_under_test(void)
{
	const char *home = getenv("LOCK_MANAGER_TEST_LAYOUT");
	if (home && strcmp(home, "files") == 0)
		return HOME_FILES;
	if (home && strcmp(home, "in-memory") == 0)
		return HOME_IN_MEMORY;
	return layout_under_test() == LOCK_MANAGER_LAYOUT_LIBPOD ? HOME_LIBPOD : HOME_NATIVE;
}

/* Whether other processes can use the locks. */
static inline int is_shared(void)
{
	return home_under_test() != HOME_IN_MEMORY;
}

/* The directory of that name. */
static inline const char *directory_of(const char *name)
{
	static __thread char path[NAME_SIZE + 16];
	snprintf(path, sizeof path, "/dev/shm%s", name);
	return path;
}

static const char *directories[MOST_NAMES];
static unsigned directory_count;
static pid_t directory_process;

static inline void remove_directories(void)
{
	/* As remove_segments(). */
	for (unsigned i = 0; i < directory_count && getpid() == directory_process; i++)
		lock_manager_remove_file(directory_of(directories[i]));
}

/* Locks 0 to 8 of a directory have files: the first of `num_locks` elsewhere. */
enum { WITH_FILES = 9 };

static inline lock_manager_t *new_home(const char *name, uint32_t num_locks)
{
	lock_manager_t *manager = NULL;
	switch (home_under_test()) {
	case HOME_FILES:
		if (directory_count == 0) {
			directory_process = getpid();
			atexit(remove_directories);
		}
		REQUIRE(directory_count < MOST_NAMES);
		directories[directory_count++] = name;
		REQUIRE(lock_manager_new_file(directory_of(name), &manager) == 0 && manager != NULL);
		for (uint32_t id = 0; id < WITH_FILES; id++)
			REQUIRE(lock_manager_allocate_and_retrieve_lock(manager, id) == 0);
		return manager;
	case HOME_IN_MEMORY:
		REQUIRE(lock_manager_new_in_memory(num_locks, &manager) == 0 && manager != NULL);
		return manager;
	default:
		return new_segment(name, num_locks);
	}
}

/* Of a home that others can open. */
static inline lock_manager_t *open_home(const char *name)
{
	lock_manager_t *manager = NULL;
	if (home_under_test() != HOME_FILES)
		return open_segment(name);
	REQUIRE(lock_manager_open_file(directory_of(name), &manager) == 0 && manager != NULL);
	return manager;
}

#endif
