/* SPDX-License-Identifier: MIT OR Apache-2.0
 *
 * One program of several that share a segment, each built for another libc or width. A driver runs two such builds at once:
 * what they count together is exact, and what one leaves held when it dies, the other is told of. libpod_neighbour.c is the
 * same with libpod's own locks.
 *
 *     neighbours NAME create [libpod]   make the segment, native or libpod's, with the count in its neighbour file NAME.count
 *     neighbours NAME count N           N times: lock, add one, unlock
 *     neighbours NAME check N           the count is N
 *     neighbours NAME die ID            take a lock and die with it
 *     neighbours NAME inherit ID        take it, and be told
 *     neighbours NAME allocate N        allocate N locks
 *     neighbours NAME free N            N locks are free
 *     neighbours NAME refused LIBC      the segment cannot be opened, because its mutexes are those of LIBC
 *     neighbours NAME remove
 */
#define _GNU_SOURCE
#include "neighbour.h"

#include <lock_manager.h>

static int32_t must(int32_t code)
{
	if (code < 0) {
		fprintf(stderr, "%s: %s: %d: %s\n", program_invocation_short_name, doing, (int)code, lock_manager_last_error());
		exit(EXIT_FAILURE);
	}
	return code;
}

int main(int argc, char **argv)
{
	if (argc < 3)
		return 2;
	const char *segment = argv[1];
	doing = argv[2];
	const unsigned long number = argc > 3 ? strtoul(argv[3], NULL, 10) : 0;
	lock_manager_t *manager = NULL;

	if (strcmp(doing, "create") == 0) {
		lock_manager_shm_options_t options = { .size = sizeof options };
		if (argc > 3)
			options.layout = LOCK_MANAGER_LAYOUT_LIBPOD;
		must(lock_manager_new_shm(segment, LOCKS, &options, &manager));
		*counter(segment) = 0;
		must(lock_manager_close(manager));
		return 0;
	}
	if (strcmp(doing, "remove") == 0) {
		must(lock_manager_remove_shm(segment));
		return 0;
	}
	if (strcmp(doing, "refused") == 0) {
		char mutexes[64];
		snprintf(mutexes, sizeof mutexes, "has the mutexes of %s", argc > 3 ? argv[3] : "?");
		if (lock_manager_open_shm(segment, 0, &manager) != -EPROTO)
			fail("not refused as another's");
		if (strstr(lock_manager_last_error(), mutexes) == NULL)
			fail(lock_manager_last_error());
		return 0;
	}
	must(lock_manager_open_shm(segment, 0, &manager));
	if (strcmp(doing, "count") == 0) {
		volatile uint64_t *count = counter(segment);
		for (unsigned long turn = 0; turn < number; turn++) {
			must(lock_manager_lock(manager, COUNTED));
			*count = *count + 1;
			must(lock_manager_unlock(manager, COUNTED));
		}
	} else if (strcmp(doing, "check") == 0) {
		if (*counter(segment) != number)
			fail("another count");
	} else if (strcmp(doing, "die") == 0) {
		must(lock_manager_lock(manager, (uint32_t)number));
		_exit(0);
	} else if (strcmp(doing, "inherit") == 0) {
		if (must(lock_manager_lock(manager, (uint32_t)number)) != LOCK_MANAGER_OWNER_DIED)
			fail("not told that the owner died");
		must(lock_manager_unlock(manager, (uint32_t)number));
	} else if (strcmp(doing, "allocate") == 0) {
		for (unsigned long turn = 0; turn < number; turn++) {
			uint32_t id;
			must(lock_manager_allocate_lock(manager, &id));
		}
	} else if (strcmp(doing, "free") == 0) {
		uint32_t count;
		must(lock_manager_available_locks(manager, &count));
		if (count != number)
			fail("another number of free locks");
	} else {
		return 2;
	}
	must(lock_manager_close(manager));
	return 0;
}
