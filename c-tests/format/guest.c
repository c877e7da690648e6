// SPDX-License-Identifier: MIT OR Apache-2.0
/*
 * The library as an actor: it does what peer.c does, with the same commands, by calling the library.
 *
 *   guest SEGMENT SCORES-FD
 *   guest --make SEGMENT VERSION LOCKS MAX-LOCKS
 *
 * It makes segments of the version that the library makes, and no other.
 */
#define _GNU_SOURCE
#include <pthread.h>

#include <lock_manager.h>

#include <errno.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "scores.h"

enum { MADE_VERSION = 2, MOST_THREADS = 64 };

static const uint64_t MILLISECOND = 1000000;
static lock_manager_t *manager;
static struct scores *scores;

struct task {
	uint32_t first, locks, rounds;
	bool shared;
	int result;
};

static void *keep_scores(void *argument)
{
	struct task *task = argument;
	for (uint32_t round = 0; round < task->rounds && task->result >= 0 && !scores->stop; round++) {
		uint32_t lock = task->first + round % task->locks;
		struct score *score = &scores->of[lock % SCORED_LOCKS];
		int taken = task->shared ? lock_manager_lock_shared(manager, lock) : lock_manager_lock(manager, lock);
		if (taken >= 0 && task->shared) {
			task->result += (int)read_score(score, taken == LOCK_MANAGER_OWNER_DIED, round);
			taken = lock_manager_unlock_shared(manager, lock);
		} else if (taken >= 0) {
			task->result +=
				(int)write_score(score, taken == LOCK_MANAGER_OWNER_DIED, (uint32_t)syscall(SYS_gettid));
			taken = lock_manager_unlock(manager, lock);
		}
		if (taken < 0)
			task->result = taken;
	}
	return NULL;
}

static int count(uint32_t first, uint32_t locks, uint32_t rounds, uint32_t threads, bool shared)
{
	struct task tasks[MOST_THREADS];
	pthread_t ids[MOST_THREADS];
	int result = 0;
	if (locks == 0 || threads > MOST_THREADS)
		return -1;
	for (uint32_t i = 0; i < threads; i++) {
		tasks[i] = (struct task){ first, locks, rounds, shared, 0 };
		if (pthread_create(&ids[i], NULL, keep_scores, &tasks[i]) != 0)
			abort();
	}
	for (uint32_t i = 0; i < threads; i++) {
		pthread_join(ids[i], NULL);
		result = tasks[i].result < 0 ? tasks[i].result : result + tasks[i].result;
	}
	return result;
}

static struct {
	pthread_t threads[MOST_THREADS];
	pthread_barrier_t in, over;
	uint32_t lock, count;
	int results[MOST_THREADS];
	bool leaves;
} readers;

static void *read_until_told(void *result)
{
	*(int *)result = lock_manager_lock_shared(manager, readers.lock);
	pthread_barrier_wait(&readers.in);
	pthread_barrier_wait(&readers.over);
	if (readers.leaves)
		*(int *)result = lock_manager_unlock_shared(manager, readers.lock);
	return NULL;
}

static int start_readers(uint32_t lock, uint32_t threads)
{
	if (threads > MOST_THREADS || pthread_barrier_init(&readers.in, NULL, threads + 1) != 0 ||
	    pthread_barrier_init(&readers.over, NULL, threads + 1) != 0)
		return -1;
	readers.lock = lock;
	readers.count = threads;
	for (uint32_t i = 0; i < threads; i++)
		if (pthread_create(&readers.threads[i], NULL, read_until_told, &readers.results[i]) != 0)
			abort();
	pthread_barrier_wait(&readers.in);
	int in = 0;
	for (uint32_t i = 0; i < threads; i++) {
		if (readers.results[i] < 0)
			return readers.results[i];
		in += readers.results[i] == 0;
	}
	return in;
}

static int end_readers(bool leaves)
{
	int result = 0;
	readers.leaves = leaves;
	pthread_barrier_wait(&readers.over);
	for (uint32_t i = 0; i < readers.count; i++) {
		pthread_join(readers.threads[i], NULL);
		result = readers.results[i] < 0 ? readers.results[i] : result;
	}
	return result;
}

static int obey(const char *command, uint32_t a, uint32_t b, uint32_t c, uint32_t d)
{
	if (strcmp(command, "lock") == 0)
		return lock_manager_lock(manager, a);
	if (strcmp(command, "timed") == 0)
		return lock_manager_timed_lock(manager, a, b * MILLISECOND);
	if (strcmp(command, "try") == 0)
		return lock_manager_try_lock(manager, a);
	if (strcmp(command, "unlock") == 0)
		return lock_manager_unlock(manager, a);
	if (strcmp(command, "count") == 0)
		return count(a, b, c, d, false);
	if (strcmp(command, "share") == 0)
		return lock_manager_lock_shared(manager, a);
	if (strcmp(command, "share-timed") == 0)
		return lock_manager_timed_lock_shared(manager, a, b * MILLISECOND);
	if (strcmp(command, "share-try") == 0)
		return lock_manager_try_lock_shared(manager, a);
	if (strcmp(command, "unshare") == 0)
		return lock_manager_unlock_shared(manager, a);
	if (strcmp(command, "downgrade") == 0)
		return lock_manager_downgrade_lock(manager, a);
	if (strcmp(command, "share-count") == 0)
		return count(a, b, c, d, true);
	if (strcmp(command, "readers") == 0)
		return start_readers(a, b);
	if (strcmp(command, "readers-leave") == 0)
		return end_readers(true);
	if (strcmp(command, "readers-end") == 0)
		return end_readers(false);
	if (strcmp(command, "owned-by-process") == 0)
		return lock_manager_set_ownership(manager, a ? LOCK_MANAGER_OWNED_BY_PROCESS : LOCK_MANAGER_OWNED_BY_THREAD);
	return -ENOSYS;
}

/* The name of a POSIX segment begins with its slash. */
static const char *name_of(const char *path)
{
	return strrchr(path, '/');
}

static int make_segment(const char *path, int version, uint32_t locks, uint32_t most)
{
	lock_manager_shm_options_t options = { .size = sizeof options, .max_locks = most };
	if (version != MADE_VERSION)
		return -EOPNOTSUPP;
	int result = lock_manager_new_shm(name_of(path), locks, &options, &manager);
	return result < 0 ? result : lock_manager_close(manager);
}

int main(int arguments, char **argument)
{
	char line[128], command[32];
	if (arguments == 6 && strcmp(argument[1], "--make") == 0) {
		printf("%d\n", make_segment(argument[2], atoi(argument[3]), (uint32_t)atoi(argument[4]),
					    (uint32_t)atoi(argument[5])));
		return 0;
	}
	if (arguments != 3)
		return 2;
	scores = mmap(NULL, sizeof *scores, PROT_READ | PROT_WRITE, MAP_SHARED, atoi(argument[2]), 0);
	if (scores == MAP_FAILED)
		return 2;
	int result = lock_manager_open_shm(name_of(argument[1]), 0, &manager);
	printf("%d\n", result);
	fflush(stdout);
	while (result == 0 && fgets(line, sizeof line, stdin) != NULL) {
		unsigned number[4] = { 0 };
		if (sscanf(line, "%31s %u %u %u %u", command, &number[0], &number[1], &number[2], &number[3]) < 1)
			return 2;
		printf("%d\n", obey(command, number[0], number[1], number[2], number[3]));
		fflush(stdout);
	}
	/* Detaches, unless something is held. */
	if (result == 0)
		lock_manager_close(manager);
	return 0;
}
