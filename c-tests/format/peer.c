// SPDX-License-Identifier: MIT OR Apache-2.0
/*
 * A second implementation of the native segment format, written from docs/segment-format.md alone: it uses no line of
 * the library. host.c and readers.c have the two share a segment. What it leaves out: waiters of one process that share
 * the looking.
 *
 *   peer SEGMENT SCORES-FD
 *   peer --make SEGMENT VERSION LOCKS MAX-LOCKS
 *
 * SEGMENT may be the table of a directory of locks. The second makes one, of either version of the format.
 *
 * Opens the segment and attaches, prints how that went, and then does what it is told: one command a line on standard
 * input, one number a line on standard output, which means what the library's functions mean by it.
 */
#define _GNU_SOURCE
#define _FILE_OFFSET_BITS 64
#include <pthread.h>

#include "peer_create.h"
#include "peer_files.h"
#include "scores.h"

/* Allocation and growing. */

static int free_lock(uint32_t lock)
{
	if (lock >= num_locks())
		return -EINVAL;
	uint64_t bit = UINT64_C(1) << lock % 64;
	uint64_t was = __atomic_fetch_and(at64(segment.bitmap) + lock / 64, ~bit, __ATOMIC_ACQ_REL);
	if (!(was & bit))
		return -ENOENT;
	if (was == UINT64_MAX)
		__atomic_fetch_and(at64(segment.summary) + lock / 4096, ~(UINT64_C(1) << lock / 64 % 64), __ATOMIC_SEQ_CST);
	__atomic_fetch_add(at64(FREES), 1, __ATOMIC_SEQ_CST);
	return 0;
}

/* Reads every word, which it must in the end, and keeps the summary for those who do not. */
static int allocate_lock(void)
{
	for (uint64_t frees = LOAD(at64(FREES)), before = ~frees; frees != before; before = frees, frees = LOAD(at64(FREES)))
		for (uint32_t i = 0; i < num_locks() / 64; i++) {
			uint64_t *word = at64(segment.bitmap) + i, *summary = at64(segment.summary) + i / 64, seen = LOAD(word);
			uint64_t full = UINT64_C(1) << i % 64;
			int bit = 0;
			while (seen != UINT64_MAX && !swap(word, seen, seen | UINT64_C(1) << (bit = __builtin_ctzll(~seen))))
				seen = LOAD(word);
			if (seen == UINT64_MAX)
				continue;
			if ((seen | UINT64_C(1) << bit) == UINT64_MAX) {
				__atomic_fetch_or(summary, full, __ATOMIC_SEQ_CST);
				if (__atomic_load_n(word, __ATOMIC_SEQ_CST) != UINT64_MAX)
					__atomic_fetch_and(summary, ~full, __ATOMIC_SEQ_CST);
			}
			return (int)(i * 64) + bit;
		}
	return -ENOLCK;
}

static int grow(uint32_t locks)
{
	uint32_t now = LOAD(at32(NUM_LOCKS));
	if (locks % 64 != 0 || locks < now || locks > segment.max_locks)
		return -EINVAL;
	if (fallocate(segment.asker, 0, (off_t)segment.summary, (locks / 64 + 63) / 64 * 8) != 0 ||
	    fallocate(segment.asker, 0, (off_t)segment.bitmap, locks / 8) != 0 ||
	    fallocate(segment.asker, 0, (off_t)segment.slots, (off_t)locks * 64) != 0)
		return -errno;
	while (now < locks &&
	       !__atomic_compare_exchange_n(at32(NUM_LOCKS), &now, locks, false, __ATOMIC_RELEASE, __ATOMIC_RELAXED))
		;
	return 0;
}

/* Commands. */

static struct scores *scores;

struct task {
	uint32_t first, locks, rounds;
	enum kind kind;
	int result;
};

/* Takes locks in turn and writes or reads scores; the result says how often somebody was inside who should not, or what
 * failed. */
static void *keep_scores(void *argument)
{
	struct task *task = argument;
	for (uint32_t round = 0; round < task->rounds && task->result >= 0 && !scores->stop; round++) {
		uint32_t lock = task->first + round % task->locks;
		struct score *score = &scores->of[lock % SCORED_LOCKS];
		int taken = take(lock, task->kind, FOR_EVER);
		if (taken >= 0 && task->kind == SHARED) {
			task->result += (int)read_score(score, taken == TOLD_OF_DEATH, round);
			taken = give_shared(lock);
		} else if (taken >= 0) {
			task->result += (int)write_score(score, taken == TOLD_OF_DEATH, (uint32_t)syscall(SYS_gettid));
			taken = give(lock);
		}
		if (taken < 0)
			task->result = taken;
	}
	thread_ends();
	return NULL;
}

static int count(uint32_t first, uint32_t locks, uint32_t rounds, uint32_t threads, enum kind kind)
{
	struct task tasks[16];
	pthread_t ids[16];
	int result = 0;
	if (locks == 0 || threads > 16)
		return -EINVAL;
	for (uint32_t i = 0; i < threads; i++) {
		tasks[i] = (struct task){ first, locks, rounds, kind, 0 };
		if (pthread_create(&ids[i], NULL, keep_scores, &tasks[i]) != 0)
			abort();
	}
	for (uint32_t i = 0; i < threads; i++) {
		pthread_join(ids[i], NULL);
		result = tasks[i].result < 0 ? tasks[i].result : result + tasks[i].result;
	}
	return result;
}

/* Threads that read a lock until they are told to leave it, or to end with it. */

enum { MOST_THREADS = 64 };

static struct {
	pthread_t threads[MOST_THREADS];
	pthread_barrier_t in, over;
	uint32_t lock, count;
	int results[MOST_THREADS];
	bool leaves;
} readers;

static void *read_until_told(void *result)
{
	*(int *)result = take(readers.lock, SHARED, FOR_EVER);
	pthread_barrier_wait(&readers.in);
	pthread_barrier_wait(&readers.over);
	if (readers.leaves)
		*(int *)result = give_shared(readers.lock);
	thread_ends();
	return NULL;
}

/* How many are in, or what failed. */
static int start_readers(uint32_t lock, uint32_t count)
{
	if (count > MOST_THREADS || pthread_barrier_init(&readers.in, NULL, count + 1) != 0 ||
	    pthread_barrier_init(&readers.over, NULL, count + 1) != 0)
		return -EINVAL;
	readers.lock = lock;
	readers.count = count;
	for (uint32_t i = 0; i < count; i++)
		if (pthread_create(&readers.threads[i], NULL, read_until_told, &readers.results[i]) != 0)
			abort();
	pthread_barrier_wait(&readers.in);
	int in = 0;
	for (uint32_t i = 0; i < count; i++) {
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
		return take(a, EXCLUSIVE, FOR_EVER);
	if (strcmp(command, "timed") == 0)
		return take(a, EXCLUSIVE, now_ns() + b * MILLISECOND);
	if (strcmp(command, "try") == 0)
		return take(a, EXCLUSIVE, 0);
	if (strcmp(command, "unlock") == 0)
		return give(a);
	if (strcmp(command, "count") == 0)
		return count(a, b, c, d, EXCLUSIVE);
	if (strcmp(command, "share") == 0)
		return take(a, SHARED, FOR_EVER);
	if (strcmp(command, "share-timed") == 0)
		return take(a, SHARED, now_ns() + b * MILLISECOND);
	if (strcmp(command, "share-try") == 0)
		return take(a, SHARED, 0);
	if (strcmp(command, "unshare") == 0)
		return give_shared(a);
	if (strcmp(command, "downgrade") == 0)
		return become_reader(a);
	if (strcmp(command, "share-count") == 0)
		return count(a, b, c, d, SHARED);
	if (strcmp(command, "readers") == 0)
		return start_readers(a, b);
	if (strcmp(command, "readers-leave") == 0)
		return end_readers(true);
	if (strcmp(command, "readers-end") == 0)
		return end_readers(false);
	if (strcmp(command, "allocate") == 0)
		return allocate_lock();
	if (strcmp(command, "free") == 0)
		return free_lock(a);
	if (strcmp(command, "grow") == 0)
		return grow(a);
	if (strcmp(command, "was-woken") == 0)
		return self.was_woken;
	if (strcmp(command, "woke") == 0)
		return self.woke;
	if (strcmp(command, "owned-by-process") == 0) {
		segment.by_process = a != 0;
		return 0;
	}
	if (strcmp(command, "walks") == 0)
		return segment.walks = a != 0;
	return -ENOSYS;
}

int main(int arguments, char **argument)
{
	char line[128], command[32];
	if (arguments == 6 && strcmp(argument[1], "--make") == 0) {
		printf("%d\n", make_segment(argument[2], (uint32_t)atoi(argument[3]), (uint32_t)atoi(argument[4]),
					    (uint32_t)atoi(argument[5])));
		return 0;
	}
	if (arguments != 3)
		return 2;
	scores = mmap(NULL, sizeof *scores, PROT_READ | PROT_WRITE, MAP_SHARED, atoi(argument[2]), 0);
	if (scores == MAP_FAILED)
		return 2;
	int result = open_segment(argument[1]);
	if (result == 0)
		result = attach();
	printf("%d\n", result);
	fflush(stdout);
	while (result == 0 && fgets(line, sizeof line, stdin) != NULL) {
		unsigned number[4] = { 0 };
		if (sscanf(line, "%31s %u %u %u %u", command, &number[0], &number[1], &number[2], &number[3]) < 1)
			return 2;
		printf("%d\n", obey(command, number[0], number[1], number[2], number[3]));
		fflush(stdout);
	}
	if (result == 0)
		detach();
	return 0;
}
