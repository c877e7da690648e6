/* SPDX-License-Identifier: MIT OR Apache-2.0
 *
 * Segments for tests, and how their failures are checked.
 */
#ifndef SEGMENT_H
#define SEGMENT_H

#include <lock_manager.h>

#include "check.h"
#include "names.h"

/* The layout of the segments that are made here: each program runs once for each. */
static inline uint32_t layout_under_test(void)
{
	const char *layout = getenv("LOCK_MANAGER_TEST_LAYOUT");
	return layout && strcmp(layout, "libpod") == 0 ? LOCK_MANAGER_LAYOUT_LIBPOD : LOCK_MANAGER_LAYOUT_NATIVE;
}

static inline lock_manager_t *new_segment(const char *name, uint32_t num_locks)
{
	/* Field by field: C++ includes this, too. */
	lock_manager_shm_options_t options;
	lock_manager_t *manager = NULL;
	memset(&options, 0, sizeof options);
	options.size = sizeof options;
	options.layout = layout_under_test();
	REQUIRE(lock_manager_new_shm(name, num_locks, &options, &manager) == 0 && manager != NULL);
	return manager;
}

static inline lock_manager_t *open_segment(const char *name)
{
	lock_manager_t *manager = NULL;
	REQUIRE(lock_manager_open_shm(name, 0, &manager) == 0 && manager != NULL);
	return manager;
}

static inline lock_manager_t *open_to_look(const char *name)
{
	lock_manager_t *manager = NULL;
	REQUIRE(lock_manager_open_shm_read_only(name, &manager) == 0 && manager != NULL);
	return manager;
}

/* A failure of the library: the code, and one line of words in which `names` occurs. */
#define CHECK_FAILURE(call, code, names) \
	do { \
		CHECK_INT(call, code); \
		check_last_error(names, #call, __FILE__, __LINE__); \
	} while (0)

static inline void check_last_error(const char *names, const char *text, const char *file, int line)
{
	const char *error = lock_manager_last_error();
	if (!checked(error != NULL && error[0] != '\0' && strpbrk(error, "\n\r") == NULL && strstr(error, names) != NULL,
		     file, line))
		fprintf(stderr, "after %s the last error is \"%s\", expected one line that names \"%s\"\n", text,
			error ? error : "(NULL)", names);
}

#endif
