/* SPDX-License-Identifier: MIT OR Apache-2.0
 *
 * The hot paths, each a thousand times between two marks that callgrind writes its counts at. `instruction_checks.sh` runs
 * it and compares. Every path is walked once before it is counted: what only the first call does is not counted.
 */
#define _GNU_SOURCE
#include <lock_manager.h>

#include <errno.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>
#include <valgrind/callgrind.h>

enum { CALLS = 1000, LOCKS = 2048, LOCK = 7, HELD = 9, HELD_TOO = 10 };

static lock_manager_t *manager;

static void expect(int32_t code, int32_t expected, const char *what)
{
	if (code == expected)
		return;
	fprintf(stderr, "%s: %d instead of %d: %s\n", what, (int)code, (int)expected, lock_manager_last_error());
	exit(1);
}

static int32_t pair(void)
{
	int32_t code = lock_manager_lock(manager, LOCK);

	return code | lock_manager_unlock(manager, LOCK);
}

static int32_t try_pair(void)
{
	int32_t code = lock_manager_try_lock(manager, LOCK);

	return code | lock_manager_unlock(manager, LOCK);
}

static int32_t shared_pair(void)
{
	int32_t code = lock_manager_lock_shared(manager, LOCK);

	return code | lock_manager_unlock_shared(manager, LOCK);
}

static int32_t downgraded(void)
{
	int32_t code = lock_manager_lock(manager, LOCK);

	code |= lock_manager_downgrade_lock(manager, LOCK);
	return code | lock_manager_unlock_shared(manager, LOCK);
}

static int32_t try_of_held(void) { return lock_manager_try_lock(manager, HELD) + EBUSY; }

/* In turns at the locks of two holders: of the other one, nothing is known from the call before. */
static int32_t try_of_two_held(void)
{
	static int turn;

	return lock_manager_try_lock(manager, turn++ % 2 == 0 ? HELD : HELD_TOO) + EBUSY;
}

static int32_t allocate_and_free(void)
{
	uint32_t id = 0;
	int32_t code = lock_manager_allocate_lock(manager, &id);

	return code | lock_manager_free_lock(manager, id);
}

/* Whether time stands still, as it does while calls are counted. What was found out of a holder is believed for some
 * microseconds, and some things are looked at again after some milliseconds: how many calls fit in there is the machine's
 * affair. */
static bool time_stands;

/* In place of the libc's, which the library calls. */
int clock_gettime(clockid_t clock, struct timespec *time)
{
	enum { CLOCKS = 16 };
	static struct timespec last[CLOCKS];
	static bool is_known[CLOCKS];

	if (clock < 0 || clock >= CLOCKS)
		return (int)syscall(SYS_clock_gettime, clock, time);
	if (!time_stands || !is_known[clock])
		is_known[clock] = syscall(SYS_clock_gettime, clock, &last[clock]) == 0;
	*time = last[clock];
	return is_known[clock] ? 0 : -1;
}

/* The counts between two marks are those of the path that the second one names. */
static void count(const char *storage, const char *path, int32_t (*call)(void))
{
	char name[64];
	int32_t code = 0;

	expect(call(), 0, path);
	snprintf(name, sizeof name, "%s: %s", storage, path);
	time_stands = true;
	CALLGRIND_ZERO_STATS;
	for (int i = 0; i < CALLS; i++)
		code |= call();
	CALLGRIND_DUMP_STATS_AT(name);
	time_stands = false;
	expect(code, 0, name);
}

/* A child that holds a lock until it is told to end. */
static pid_t hold(uint32_t id, int end[2])
{
	int ready[2];
	char byte;
	pid_t child;

	if (pipe(ready) != 0 || pipe(end) != 0)
		exit(1);
	child = fork();
	if (child == 0) {
		close(end[1]);
		expect(lock_manager_lock(manager, id), 0, "the child's lock");
		_exit(write(ready[1], "", 1) != 1 || read(end[0], &byte, 1) != 0);
	}
	close(end[0]);
	if (child < 0 || read(ready[0], &byte, 1) != 1)
		exit(1);
	close(ready[0]);
	close(ready[1]);
	return child;
}

static void count_held(const char *storage, uint32_t layout)
{
	int ends[2][2];
	pid_t children[] = { hold(HELD, ends[0]), hold(HELD_TOO, ends[1]) };

	count(storage, "try of a held lock", try_of_held);
	if (layout == LOCK_MANAGER_LAYOUT_NATIVE)
		count(storage, "try of a held lock, of another holder", try_of_two_held);
	/* The second has the first one's end of its pipe, too. */
	for (int i = 1; i >= 0; i--) {
		close(ends[i][1]);
		waitpid(children[i], NULL, 0);
	}
}

static void count_segment(const char *storage, uint32_t layout)
{
	lock_manager_shm_options_t options = { .size = sizeof options, .layout = layout };
	char name[64];

	snprintf(name, sizeof name, "/%s-%s", getenv("LOCK_MANAGER_TEST_PREFIX"), storage);
	expect(lock_manager_new_shm(name, LOCKS, &options, &manager), 0, "new_shm");
	count(storage, "lock + unlock", pair);
	count(storage, "try_lock + unlock", try_pair);
	if (layout == LOCK_MANAGER_LAYOUT_NATIVE) {
		count(storage, "lock + unlock shared", shared_pair);
		count(storage, "lock + downgrade + unlock", downgraded);
	}
	count_held(storage, layout);
	count(storage, "allocate + free", allocate_and_free);
	expect(lock_manager_close(manager), 0, "close");
	expect(lock_manager_remove_shm(name), 0, "remove_shm");
}

static void count_files(const char *directory)
{
	/* The times of a directory that was just changed do not tell whether it was changed again, so each call looks. */
	const struct timespec until_times_tell = { .tv_sec = 4 };
	uint32_t id = 0;

	expect(lock_manager_new_file(directory, &manager), 0, "new_file");
	do
		expect(lock_manager_allocate_lock(manager, &id), 0, "allocate_lock");
	while (id < LOCK);
	nanosleep(&until_times_tell, NULL);
	/* A try of a held lock reads what the kernel says of all record locks of the machine, and is not counted. */
	count("files", "lock + unlock", pair);
	expect(lock_manager_close(manager), 0, "close");
	expect(lock_manager_remove_file(directory), 0, "remove_file");
}

static void count_in_memory(void)
{
	expect(lock_manager_new_in_memory(LOCKS, &manager), 0, "new_in_memory");
	count("in memory", "lock + unlock", pair);
	expect(lock_manager_close(manager), 0, "close");
}

int main(int argc, char **argv)
{
	if (argc != 2)
		return 2;
	count_segment("native", LOCK_MANAGER_LAYOUT_NATIVE);
	count_segment("libpod", LOCK_MANAGER_LAYOUT_LIBPOD);
	count_in_memory();
	count_files(argv[1]);
	return 0;
}
