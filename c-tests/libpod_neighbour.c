/* SPDX-License-Identifier: MIT OR Apache-2.0
 *
 * neighbours.c as a program without this library: it has the C half of libpod's own locks, shm_lock.c, from the Go module of
 * podman. The commands are the same.
 */
#define _GNU_SOURCE
#include "neighbour.h"

#include "shm_lock.h"

static int64_t must(int64_t code)
{
	if (code < 0) {
		fprintf(stderr, "%s: %s: %lld\n", program_invocation_short_name, doing, (long long)code);
		exit(EXIT_FAILURE);
	}
	return code;
}

int main(int argc, char **argv)
{
	if (argc < 3)
		return 2;
	char *segment = argv[1];
	doing = argv[2];
	const unsigned long number = argc > 3 ? strtoul(argv[3], NULL, 10) : 0;
	/* libpod wants the name, not the path. */
	char *name = strrchr(segment, '/');
	int code = 0;

	if (strcmp(doing, "create") == 0) {
		if (setup_lock_shm(name, LOCKS, &code) == NULL)
			must(code);
		*counter(segment) = 0;
		return 0;
	}
	if (strcmp(doing, "remove") == 0)
		return shm_unlink(name) == 0 ? 0 : EXIT_FAILURE;
	shm_struct_t *locks = open_lock_shm(name, LOCKS, &code);
	if (locks == NULL)
		must(code);
	if (strcmp(doing, "count") == 0) {
		volatile uint64_t *count = counter(segment);
		for (unsigned long turn = 0; turn < number; turn++) {
			must(lock_semaphore(locks, COUNTED));
			*count = *count + 1;
			must(unlock_semaphore(locks, COUNTED));
		}
	} else if (strcmp(doing, "check") == 0) {
		if (*counter(segment) != number)
			fail("another count");
	} else if (strcmp(doing, "die") == 0) {
		must(lock_semaphore(locks, (uint32_t)number));
		_exit(0);
	} else if (strcmp(doing, "inherit") == 0) {
		/* libpod tells its callers nothing of the death. */
		must(lock_semaphore(locks, (uint32_t)number));
		must(unlock_semaphore(locks, (uint32_t)number));
	} else if (strcmp(doing, "allocate") == 0) {
		for (unsigned long id = 0; id < number; id++)
			must(allocate_semaphore(locks));
	} else if (strcmp(doing, "free") == 0) {
		if ((unsigned long)must(available_locks(locks)) != number)
			fail("another number of free locks");
	} else {
		return 2;
	}
	return 0;
}
