/* SPDX-License-Identifier: MIT OR Apache-2.0
 *
 * Names for segments that nobody else has, gone at the end of the program whatever happened. Should it crash, the
 * script `run` finds what is left by the prefix that it has given.
 */
#ifndef NAMES_H
#define NAMES_H

#include <sys/mman.h>
#include <sys/stat.h>

#include "check.h"

enum { NAME_SIZE = 128, MOST_NAMES = 128 };

static char segment_names[MOST_NAMES][NAME_SIZE];
static unsigned segment_count;
static pid_t segment_process;

static inline void remove_segments(void)
{
	/* A child that calls exit() must not take its parent's segments away. */
	if (getpid() != segment_process)
		return;
	for (unsigned i = 0; i < segment_count; i++)
		shm_unlink(segment_names[i]);
}

/* A POSIX name that is not taken. */
static inline const char *new_name(void)
{
	const char *prefix = getenv("LOCK_MANAGER_TEST_PREFIX");
	REQUIRE(segment_count < MOST_NAMES);
	if (segment_count == 0) {
		segment_process = getpid();
		atexit(remove_segments);
		clean_up_at_the_end = remove_segments;
	}
	char *name = segment_names[segment_count];
	snprintf(name, NAME_SIZE, "/%s-%d-%u", prefix ? prefix : "lm-test-c", (int)getpid(), segment_count);
	segment_count++;
	return name;
}

/* Where glibc keeps the file of a POSIX name. */
static inline const char *file_of(const char *name)
{
	static __thread char path[NAME_SIZE + sizeof "/dev/shm"];
	snprintf(path, sizeof path, "/dev/shm%s", name);
	return path;
}

static inline int file_exists(const char *path)
{
	struct stat facts;
	return lstat(path, &facts) == 0;
}

#endif
