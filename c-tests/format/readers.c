// SPDX-License-Identifier: MIT OR Apache-2.0
/*
 * Shared locks among two implementations of the segment format, or among processes of one.
 *
 *   readers A B C
 *
 * Each is peer.c or guest.c. The first makes the segments. What is checked is what they answer, and the words and cells
 * in the segment, as docs/segment-format.md has them.
 */
#define _GNU_SOURCE
#include <poll.h>

#include "actors.h"
#include "../names.h"
#include "scores.h"

enum { OWNER_DIED = 1, LOCKS = 2048, MOST_LOCKS = 4096, SLOT_CELLS = 4 };

static const uint64_t D = 1u << 28, R = 1u << 29, S = 1u << 30, W = 1u << 31, OWNER = ~(UINT64_C(15) << 28);
static const char *program[3];
static struct scores *scores;
static int scores_fd;

/* A segment that three processes use, and how it looks. */
struct stage {
	char path[NAME_SIZE + sizeof "/dev/shm"];
	struct peer a, b, c;
	char *map;
};

static int make(const char *maker, const char *path, int version)
{
	char line[32] = "", command[256];
	snprintf(command, sizeof command, "%s --make %s %d %d %d", maker, path, version, LOCKS, MOST_LOCKS);
	FILE *made = popen(command, "r");
	REQUIRE(made != NULL && fgets(line, sizeof line, made) != NULL && pclose(made) == 0);
	return atoi(line);
}

static struct peer enter(const char *actor, const char *path)
{
	struct peer peer = start_peer(actor, path, scores_fd, 0);
	REQUIRE(peer.pid > 0 && answer(peer) == 0);
	return peer;
}

static struct stage new_stage(void)
{
	struct stage stage;
	snprintf(stage.path, sizeof stage.path, "%s", file_of(new_name()));
	REQUIRE(make(program[0], stage.path, 2) == 0);
	int fd = open(stage.path, O_RDWR | O_CLOEXEC);
	struct stat file;
	REQUIRE(fd >= 0 && fstat(fd, &file) == 0);
	stage.map = mmap(NULL, (size_t)file.st_size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	REQUIRE(stage.map != MAP_FAILED);
	close(fd);
	stage.a = enter(program[0], stage.path);
	stage.b = enter(program[1], stage.path);
	stage.c = enter(program[2], stage.path);
	memset(scores, 0, sizeof *scores);
	return stage;
}

static void end_stage(struct stage *stage)
{
	end_peer(stage->a);
	end_peer(stage->b);
	end_peer(stage->c);
}

static uint64_t *at(const struct stage *stage, uint64_t offset)
{
	return (uint64_t *)(void *)(stage->map + offset);
}

static uint64_t *slot(const struct stage *stage, uint32_t lock)
{
	return at(stage, *at(stage, 96) + UINT64_C(64) * lock);
}

static uint64_t word(const struct stage *stage, uint32_t lock)
{
	return __atomic_load_n(slot(stage, lock), __ATOMIC_SEQ_CST);
}

static uint64_t cell(const struct stage *stage, uint32_t lock, int n)
{
	return __atomic_load_n(slot(stage, lock) + 3 + n, __ATOMIC_SEQ_CST);
}

static int cells_taken(const struct stage *stage, uint32_t lock)
{
	int taken = 0;
	for (int n = 0; n < SLOT_CELLS; n++)
		taken += cell(stage, lock, n) != 0;
	return taken;
}

/* Until the word has an owner or none, and of these flags exactly those. The watchdog ends it if that never comes. */
static void await_word(const struct stage *stage, uint32_t lock, int owned, uint64_t flags, uint64_t set)
{
	uint64_t seen;
	while (seen = word(stage, lock), (seen & flags) != set || ((seen & OWNER) != 0) != owned)
		usleep(500);
}

static void await_drain(const struct stage *stage, uint32_t lock)
{
	await_word(stage, lock, 1, R, R);
}

static void await_waiter(const struct stage *stage, uint32_t lock)
{
	await_word(stage, lock, 1, W, W);
}

/* Until so many readers stand in cells of the slot that starve. */
static void await_starving(const struct stage *stage, uint32_t lock, int readers)
{
	for (int starving = 0; starving < readers; usleep(500)) {
		starving = 0;
		for (int n = 0; n < SLOT_CELLS; n++)
			starving += (cell(stage, lock, n) & S) != 0;
	}
}

static int has_answered(struct peer peer)
{
	struct pollfd ready = { peer.out, POLLIN, 0 };
	return poll(&ready, 1, 0) > 0;
}

static void readers_are_in_together(void)
{
	struct stage stage = new_stage();
	CHECK_INT(ask(stage.a, "share 7"), 0);
	CHECK_INT(ask(stage.b, "share 7"), 0);
	CHECK_INT(ask(stage.c, "share-try 7"), 0);
	CHECK_INT(word(&stage, 7), S);
	CHECK_INT(cells_taken(&stage, 7), 3);
	/* No second time, no upgrade, and no exclusive lock is held. */
	CHECK_INT(ask(stage.a, "share 7"), -EDEADLK);
	CHECK_INT(ask(stage.b, "lock 7"), -EDEADLK);
	CHECK_INT(ask(stage.a, "share-try 7"), -EBUSY);
	CHECK_INT(ask(stage.b, "try 7"), -EBUSY);
	CHECK_INT(ask(stage.b, "unlock 7"), -EPERM);
	CHECK_INT(ask(stage.a, "downgrade 7"), -EPERM);
	CHECK_INT(ask(stage.a, "unshare 7"), 0);
	CHECK_INT(ask(stage.a, "unshare 7"), -EPERM);
	CHECK_INT(ask(stage.b, "unshare 7"), 0);
	CHECK_INT(ask(stage.c, "unshare 7"), 0);
	/* Readers leave the word as it is; a writer takes S away. */
	CHECK_INT(word(&stage, 7), S);
	CHECK_INT(cells_taken(&stage, 7), 0);
	CHECK_INT(ask(stage.b, "try 7"), 0);
	CHECK_INT(ask(stage.b, "unshare 7"), -EPERM);
	CHECK_INT(ask(stage.b, "share 7"), -EDEADLK);
	CHECK_INT(ask(stage.b, "unlock 7"), 0);
	CHECK_INT(word(&stage, 7), 0);
	CHECK_INT(ask(stage.a, "share 2048"), -EINVAL);
	CHECK_INT(ask(stage.b, "share 2048"), -EINVAL);
	end_stage(&stage);
}

static void a_reader_keeps_a_writer_out(void)
{
	struct stage stage = new_stage();
	CHECK_INT(ask(stage.a, "share 7"), 0);
	CHECK_INT(ask(stage.b, "try 7"), -EBUSY);
	/* A try that fails has kept no reader out. */
	CHECK_INT(word(&stage, 7), S);
	CHECK_INT(ask(stage.b, "timed 7 20"), -ETIMEDOUT);
	CHECK_INT(word(&stage, 7) & (OWNER | R | S), S);
	tell(stage.b, "lock 7");
	await_drain(&stage, 7);
	/* Behind a writer that waits nobody gets in. */
	CHECK_INT(ask(stage.c, "share-try 7"), -EBUSY);
	CHECK_INT(ask(stage.c, "share-timed 7 20"), -ETIMEDOUT);
	CHECK_INT(ask(stage.c, "try 7"), -EBUSY);
	CHECK(!has_answered(stage.b));
	CHECK_INT(ask(stage.a, "unshare 7"), 0);
	CHECK_INT(answer(stage.b), 0);
	CHECK_INT(word(&stage, 7) & R, 0);
	CHECK_INT(ask(stage.b, "unlock 7"), 0);
	CHECK_INT(ask(stage.c, "try 7"), 0);
	CHECK_INT(ask(stage.c, "unlock 7"), 0);
	end_stage(&stage);
}

static void a_writer_keeps_readers_out(void)
{
	struct stage stage = new_stage();
	CHECK_INT(ask(stage.a, "lock 7"), 0);
	CHECK_INT(ask(stage.b, "share-try 7"), -EBUSY);
	CHECK_INT(ask(stage.b, "share-timed 7 20"), -ETIMEDOUT);
	CHECK_INT(cells_taken(&stage, 7), 0);
	tell(stage.b, "share 7");
	tell(stage.c, "share 7");
	await_waiter(&stage, 7);
	CHECK(!has_answered(stage.b));
	CHECK_INT(ask(stage.a, "unlock 7"), 0);
	CHECK_INT(answer(stage.b), 0);
	CHECK_INT(answer(stage.c), 0);
	CHECK_INT(ask(stage.a, "try 7"), -EBUSY);
	CHECK_INT(ask(stage.b, "unshare 7"), 0);
	CHECK_INT(ask(stage.c, "unshare 7"), 0);
	end_stage(&stage);
}

static void a_killed_reader_is_told_to_nobody(void)
{
	struct stage stage = new_stage();
	CHECK_INT(ask(stage.a, "share 7"), 0);
	CHECK_INT(ask(stage.a, "share 8"), 0);
	CHECK_INT(ask(stage.a, "share 9"), 0);
	CHECK_INT(ask(stage.c, "share 9"), 0);
	tell(stage.b, "lock 7");
	await_drain(&stage, 7);
	kill_peer(stage.a);
	CHECK_INT(answer(stage.b), 0);
	CHECK_INT(ask(stage.b, "try 8"), 0);
	CHECK_INT(cells_taken(&stage, 7) + cells_taken(&stage, 8), 0);
	/* The other one lives. */
	CHECK_INT(ask(stage.b, "try 9"), -EBUSY);
	CHECK_INT(ask(stage.c, "unshare 9"), 0);
	CHECK_INT(ask(stage.b, "try 9"), 0);
	stage.a = enter(program[0], stage.path);
	CHECK_INT(ask(stage.b, "unlock 7"), 0);
	CHECK_INT(ask(stage.a, "share 7"), 0);
	end_stage(&stage);
}

static void a_stopped_reader_is_not_robbed(void)
{
	struct stage stage = new_stage();
	CHECK_INT(ask(stage.a, "share 7"), 0);
	CHECK_INT(kill(stage.a.pid, SIGSTOP), 0);
	CHECK_INT(ask(stage.b, "timed 7 50"), -ETIMEDOUT);
	CHECK_INT(ask(stage.c, "try 7"), -EBUSY);
	CHECK_INT(kill(stage.a.pid, SIGCONT), 0);
	CHECK_INT(ask(stage.a, "unshare 7"), 0);
	CHECK_INT(ask(stage.b, "lock 7"), 0);
	end_stage(&stage);
}

static void every_reader_is_told_of_a_writers_death_until_a_writer_is(void)
{
	struct stage stage = new_stage();
	CHECK_INT(ask(stage.a, "lock 7"), 0);
	CHECK_INT(ask(stage.a, "lock 8"), 0);
	CHECK_INT(ask(stage.a, "lock 9"), 0);
	tell(stage.b, "share 7");
	await_waiter(&stage, 7);
	kill_peer(stage.a);
	CHECK_INT(answer(stage.b), OWNER_DIED);
	CHECK_INT(ask(stage.c, "share 7"), OWNER_DIED);
	CHECK_INT(ask(stage.b, "unshare 7"), 0);
	CHECK_INT(ask(stage.b, "share-try 7"), OWNER_DIED);
	CHECK_INT(word(&stage, 7) & (OWNER | D | R | S), D | S);
	/* A try takes nothing away. */
	CHECK_INT(ask(stage.b, "share-try 8"), OWNER_DIED);
	CHECK_INT(ask(stage.c, "try 8"), -EBUSY);
	CHECK_INT(ask(stage.c, "timed 8 20"), -ETIMEDOUT);
	CHECK_INT(ask(stage.c, "try 9"), OWNER_DIED);
	CHECK_INT(ask(stage.b, "unshare 7"), 0);
	CHECK_INT(ask(stage.c, "unshare 7"), 0);
	CHECK_INT(ask(stage.b, "unshare 8"), 0);
	stage.a = enter(program[0], stage.path);
	CHECK_INT(ask(stage.a, "lock 7"), OWNER_DIED);
	CHECK_INT(ask(stage.c, "lock 8"), OWNER_DIED);
	CHECK_INT(ask(stage.a, "unlock 7"), 0);
	CHECK_INT(ask(stage.c, "unlock 8"), 0);
	CHECK_INT(ask(stage.b, "share 7"), 0);
	CHECK_INT(ask(stage.b, "share 8"), 0);
	end_stage(&stage);
}

/* It held nothing; a death that it was to be told of is still due. */
static void a_writer_that_is_killed_while_it_drains_is_told_to_nobody(void)
{
	for (int due = 0; due <= 1; due++) {
		struct stage stage = new_stage();
		if (due) {
			CHECK_INT(ask(stage.a, "lock 7"), 0);
			kill_peer(stage.a);
			stage.a = enter(program[0], stage.path);
		}
		CHECK_INT(ask(stage.c, "share 7"), due);
		tell(stage.a, "lock 7");
		await_drain(&stage, 7);
		tell(stage.b, "share 7");
		await_word(&stage, 7, 1, R | W, R | W);
		kill_peer(stage.a);
		CHECK_INT(answer(stage.b), due);
		CHECK_INT(ask(stage.b, "unshare 7"), 0);
		CHECK_INT(ask(stage.c, "unshare 7"), 0);
		stage.a = enter(program[0], stage.path);
		CHECK_INT(ask(stage.b, "lock 7"), due);
		CHECK_INT(ask(stage.b, "unlock 7"), 0);
		CHECK_INT(ask(stage.a, "share 7"), 0);
		end_stage(&stage);
	}
}

static void a_writer_goes_on_with_the_drain_of_a_dead_one(void)
{
	struct stage stage = new_stage();
	CHECK_INT(ask(stage.c, "share 7"), 0);
	tell(stage.a, "lock 7");
	await_drain(&stage, 7);
	uint64_t first = word(&stage, 7) & OWNER;
	tell(stage.b, "lock 7");
	await_word(&stage, 7, 1, R | W, R | W);
	kill_peer(stage.a);
	while ((word(&stage, 7) & OWNER) == first || !(word(&stage, 7) & R))
		usleep(500);
	CHECK(!has_answered(stage.b));
	CHECK_INT(ask(stage.c, "unshare 7"), 0);
	CHECK_INT(answer(stage.b), 0);
	stage.a = enter(program[0], stage.path);
	end_stage(&stage);
}

/* Who drains holds nothing: stopped, it keeps nobody out once its readers have gone. */
static void a_stopped_writer_that_drains_loses_its_place(void)
{
	struct stage stage = new_stage();
	CHECK_INT(ask(stage.b, "share 7"), 0);
	tell(stage.a, "lock 7");
	await_drain(&stage, 7);
	CHECK_INT(kill(stage.a.pid, SIGSTOP), 0);
	CHECK_INT(ask(stage.c, "share-timed 7 50"), -ETIMEDOUT);
	CHECK_INT(ask(stage.b, "unshare 7"), 0);
	CHECK_INT(ask(stage.c, "share 7"), 0);
	CHECK_INT(kill(stage.a.pid, SIGCONT), 0);
	await_drain(&stage, 7);
	CHECK_INT(ask(stage.c, "unshare 7"), 0);
	CHECK_INT(answer(stage.a), 0);
	CHECK_INT(ask(stage.a, "unlock 7"), 0);
	end_stage(&stage);
}

/* All readers that starve are let in together, before a writer that waits as well; the last of them wakes it. */
static void readers_that_starve_have_a_phase_of_their_own(void)
{
	struct stage stage = new_stage();
	CHECK_INT(ask(stage.a, "lock 7"), 0);
	tell(stage.b, "share 7");
	tell(stage.c, "share 7");
	await_starving(&stage, 7, 2);
	await_word(&stage, 7, 1, S, S);
	CHECK_INT(ask(stage.a, "unlock 7"), 0);
	CHECK_INT(answer(stage.b), 0);
	CHECK_INT(answer(stage.c), 0);
	/* Nobody else was there. */
	await_word(&stage, 7, 0, R | S, S);
	CHECK_INT(ask(stage.b, "unshare 7"), 0);

	CHECK_INT(ask(stage.c, "unshare 7"), 0);
	CHECK_INT(ask(stage.a, "lock 7"), 0);
	tell(stage.c, "lock 7");
	await_waiter(&stage, 7);
	tell(stage.b, "share 7");
	await_starving(&stage, 7, 1);
	await_word(&stage, 7, 1, S, S);
	CHECK_INT(ask(stage.a, "unlock 7"), 0);
	CHECK_INT(answer(stage.b), 0);
	await_drain(&stage, 7);
	CHECK(!has_answered(stage.c));
	CHECK_INT(ask(stage.b, "unshare 7"), 0);
	CHECK_INT(answer(stage.c), 0);
	CHECK_INT(ask(stage.c, "unlock 7"), 0);
	end_stage(&stage);
}

/* For a reader that is stopped while it starves a read phase begins; a writer waits for it for a slice, and takes its cell
 * away. */
static void a_starving_reader_that_is_stopped_holds_nobody_up(void)
{
	for (int writers = 0; writers <= 1; writers++) {
		struct stage stage = new_stage();
		CHECK_INT(ask(stage.a, "lock 7"), 0);
		tell(stage.b, "share 7");
		await_starving(&stage, 7, 1);
		await_word(&stage, 7, 1, S, S);
		CHECK_INT(kill(stage.b.pid, SIGSTOP), 0);
		if (writers)
			tell(stage.c, "lock 7");
		CHECK_INT(ask(stage.a, "unlock 7"), 0);
		if (writers) {
			CHECK_INT(answer(stage.c), 0);
			CHECK_INT(ask(stage.c, "unlock 7"), 0);
		} else {
			CHECK_INT(word(&stage, 7), R | S | W);
			CHECK_INT(ask(stage.c, "share-try 7"), 0);
			CHECK_INT(ask(stage.c, "unshare 7"), 0);
		}
		CHECK_INT(kill(stage.b.pid, SIGCONT), 0);
		CHECK_INT(answer(stage.b), 0);
		CHECK_INT(cells_taken(&stage, 7), 1);
		CHECK_INT(ask(stage.b, "unshare 7"), 0);
		end_stage(&stage);
	}
}

/* A reader that starves and goes without the lock leaves no cell, and nobody asleep. */
static void a_starving_reader_may_leave(void)
{
	struct stage stage = new_stage();
	CHECK_INT(ask(stage.a, "lock 7"), 0);
	tell(stage.b, "share-timed 7 40");
	await_starving(&stage, 7, 1);
	tell(stage.c, "lock 7");
	CHECK_INT(answer(stage.b), -ETIMEDOUT);
	CHECK_INT(cells_taken(&stage, 7), 0);
	CHECK_INT(ask(stage.a, "unlock 7"), 0);
	CHECK_INT(answer(stage.c), 0);
	CHECK_INT(ask(stage.c, "unlock 7"), 0);
	end_stage(&stage);
}

/* One that was killed while it starved: writers do not wait for it, and go on. */
static void a_starving_reader_may_be_killed(void)
{
	struct stage stage = new_stage();
	CHECK_INT(ask(stage.a, "lock 7"), 0);
	tell(stage.b, "share 7");
	await_starving(&stage, 7, 1);
	tell(stage.c, "lock 7");
	kill_peer(stage.b);
	CHECK_INT(ask(stage.a, "unlock 7"), 0);
	CHECK_INT(answer(stage.c), 0);
	CHECK_INT(ask(stage.c, "unlock 7"), 0);
	stage.b = enter(program[1], stage.path);
	CHECK_INT(ask(stage.b, "share 7"), 0);
	CHECK_INT(ask(stage.b, "unshare 7"), 0);
	CHECK_INT(ask(stage.a, "lock 7"), 0);
	CHECK_INT(ask(stage.a, "unlock 7"), 0);
	end_stage(&stage);
}

/* Readers that come and go without a pause leave the lock to a writer, and writers that do to a reader. */
static void neither_kind_starves_the_other(void)
{
	struct stage stage = new_stage();
	tell(stage.a, "share-count 7 1 4000000000 2");
	tell(stage.b, "share-count 7 1 4000000000 2");
	for (int round = 0; round < 20; round++) {
		CHECK_INT(ask(stage.c, "lock 7"), 0);
		CHECK_INT(ask(stage.c, "unlock 7"), 0);
	}
	scores->stop = 1;
	CHECK_INT(answer(stage.a), 0);
	CHECK_INT(answer(stage.b), 0);
	scores->stop = 0;
	tell(stage.a, "count 7 1 4000000000 2");
	tell(stage.b, "count 7 1 4000000000 2");
	for (int round = 0; round < 20; round++) {
		CHECK_INT(ask(stage.c, "share 7"), 0);
		CHECK_INT(ask(stage.c, "unshare 7"), 0);
	}
	scores->stop = 1;
	CHECK_INT(answer(stage.a), 0);
	CHECK_INT(answer(stage.b), 0);
	end_stage(&stage);
}

static uint32_t home_of(uint32_t lock)
{
	return lock * 0x9E3779B1u % 8192;
}

/* Two locks to which some of the same places belong, from a level on. */
static uint32_t neighbour_of(uint32_t lock)
{
	uint32_t nearest = lock == 0 ? 1 : 0;
	for (uint32_t other = 0; other < LOCKS; other++)
		if (other != lock && (home_of(other) - home_of(lock)) % 8192 < (home_of(nearest) - home_of(lock)) % 8192)
			nearest = other;
	return nearest;
}

static void more_readers_than_a_slot_has_cells_stand_in_the_table(void)
{
	struct stage stage = new_stage();
	char command[32];
	CHECK_INT(ask(stage.a, "readers 7 3"), 3);
	CHECK_INT(ask(stage.b, "readers 7 30"), 30);
	CHECK_INT(ask(stage.c, "share 7"), 0);
	CHECK(*(slot(&stage, 7) + 7) != 0);
	CHECK_INT(ask(stage.c, "unshare 7"), 0);
	CHECK_INT(ask(stage.c, "timed 7 20"), -ETIMEDOUT);
	/* Another lock has readers in the same part of the table. */
	uint32_t other = neighbour_of(7);
	snprintf(command, sizeof command, "share %u", other);
	CHECK_INT(ask(stage.c, command), 0);
	snprintf(command, sizeof command, "try %u", other);
	CHECK_INT(ask(stage.a, command), -EBUSY);
	snprintf(command, sizeof command, "unshare %u", other);
	CHECK_INT(ask(stage.c, command), 0);
	kill_peer(stage.b);
	CHECK_INT(ask(stage.c, "try 7"), -EBUSY);
	tell(stage.c, "lock 7");
	await_drain(&stage, 7);
	CHECK_INT(ask(stage.a, "readers-leave"), 0);
	CHECK_INT(answer(stage.c), 0);
	CHECK_INT(ask(stage.c, "unlock 7"), 0);
	CHECK_INT(word(&stage, 7), 0);
	/* What they left is used again. */
	stage.b = enter(program[1], stage.path);
	CHECK_INT(ask(stage.b, "readers 7 40"), 40);
	CHECK_INT(ask(stage.a, "timed 7 20"), -ETIMEDOUT);
	CHECK_INT(ask(stage.b, "readers-leave"), 0);
	CHECK_INT(ask(stage.a, "try 7"), 0);
	end_stage(&stage);
}

/* Readers of two locks at once in the same places: a writer of the one waits for none of the other. */
static void places_of_the_table_change_locks(void)
{
	struct stage stage = new_stage();
	char command[32];
	uint32_t other = neighbour_of(7);
	CHECK_INT(ask(stage.a, "readers 7 60"), 60);
	snprintf(command, sizeof command, "readers %u 60", other);
	CHECK_INT(ask(stage.b, command), 60);
	CHECK_INT(ask(stage.a, "readers-leave"), 0);
	CHECK_INT(ask(stage.c, "try 7"), 0);
	CHECK_INT(ask(stage.c, "unlock 7"), 0);
	snprintf(command, sizeof command, "readers %u 60", other);
	CHECK_INT(ask(stage.a, command), 60);
	CHECK_INT(ask(stage.b, "readers-leave"), 0);
	CHECK_INT(ask(stage.b, "readers 7 60"), 60);
	CHECK_INT(ask(stage.a, "readers-leave"), 0);
	snprintf(command, sizeof command, "try %u", other);
	CHECK_INT(ask(stage.c, command), 0);
	CHECK_INT(ask(stage.c, "try 7"), -EBUSY);
	CHECK_INT(ask(stage.b, "readers-leave"), 0);
	CHECK_INT(ask(stage.c, "try 7"), 0);
	end_stage(&stage);
}

static void threads_that_end_leave_no_reader(void)
{
	struct stage stage = new_stage();
	CHECK_INT(ask(stage.a, "readers 7 6"), 6);
	CHECK_INT(ask(stage.b, "readers 8 6"), 6);
	tell(stage.c, "lock 7");
	await_drain(&stage, 7);
	CHECK_INT(ask(stage.a, "readers-end"), 0);
	CHECK_INT(answer(stage.c), 0);
	CHECK_INT(ask(stage.b, "readers-end"), 0);
	CHECK_INT(ask(stage.c, "try 8"), 0);
	CHECK_INT(cells_taken(&stage, 7) + cells_taken(&stage, 8), 0);
	end_stage(&stage);
}

static void a_writer_becomes_a_reader_without_a_gap(void)
{
	struct stage stage = new_stage();
	CHECK_INT(ask(stage.a, "lock 7"), 0);
	tell(stage.b, "lock 7");
	await_waiter(&stage, 7);
	tell(stage.c, "share 7");
	await_starving(&stage, 7, 1);
	await_word(&stage, 7, 1, S, S);
	CHECK_INT(ask(stage.a, "downgrade 7"), 0);
	CHECK_INT(answer(stage.c), 0);
	await_drain(&stage, 7);
	CHECK(!has_answered(stage.b));
	CHECK_INT(ask(stage.a, "unlock 7"), -EPERM);
	CHECK_INT(ask(stage.a, "unshare 7"), 0);
	CHECK(!has_answered(stage.b));
	CHECK_INT(ask(stage.c, "unshare 7"), 0);
	CHECK_INT(answer(stage.b), 0);
	CHECK_INT(ask(stage.b, "downgrade 7"), 0);
	CHECK_INT(word(&stage, 7) & (OWNER | D | S), S);
	CHECK_INT(ask(stage.c, "share-try 7"), 0);
	/* As a reader dies that was a writer. */
	kill_peer(stage.b);
	CHECK_INT(ask(stage.c, "unshare 7"), 0);
	CHECK_INT(ask(stage.c, "lock 7"), 0);
	stage.b = enter(program[1], stage.path);
	end_stage(&stage);
}

/* The one that gives way gives back what it has, and so the other gets what it waits for. */
static void settle(struct peer first, const char *first_gives, struct peer second, const char *second_gives)
{
	struct pollfd ready[2] = { { first.out, POLLIN, 0 }, { second.out, POLLIN, 0 } };
	REQUIRE(poll(ready, 2, -1) > 0);
	int victim = ready[0].revents ? 0 : 1;
	CHECK_INT(answer(victim ? second : first), -EDEADLK);
	CHECK_INT(ask(victim ? second : first, victim ? second_gives : first_gives), 0);
	CHECK_INT(answer(victim ? first : second), 0);
}

static void two_readers_that_want_to_write_what_the_other_reads(void)
{
	struct stage stage = new_stage();
	CHECK_INT(ask(stage.a, "share 1"), 0);
	CHECK_INT(ask(stage.b, "share 2"), 0);
	tell(stage.a, "lock 2");
	await_drain(&stage, 2);
	tell(stage.b, "lock 1");
	settle(stage.a, "unshare 1", stage.b, "unshare 2");
	end_stage(&stage);
}

/* The way forks: one reader of lock 1 waits for nobody, the other for who drains. */
static void a_deadlock_through_one_of_two_readers_is_found(void)
{
	struct stage stage = new_stage();
	CHECK_INT(ask(stage.a, "lock 2"), 0);
	CHECK_INT(ask(stage.b, "share 1"), 0);
	CHECK_INT(ask(stage.c, "share 1"), 0);
	tell(stage.a, "lock 1");
	await_drain(&stage, 1);
	tell(stage.c, "share 2");
	struct pollfd ready[2] = { { stage.a.out, POLLIN, 0 }, { stage.c.out, POLLIN, 0 } };
	REQUIRE(poll(ready, 2, -1) > 0);
	if (ready[0].revents) {
		CHECK_INT(answer(stage.a), -EDEADLK);
		CHECK_INT(ask(stage.a, "unlock 2"), 0);
		CHECK_INT(answer(stage.c), 0);
	} else {
		CHECK_INT(answer(stage.c), -EDEADLK);
		CHECK_INT(ask(stage.c, "unshare 1"), 0);
		CHECK(!has_answered(stage.a));
		CHECK_INT(ask(stage.b, "unshare 1"), 0);
		CHECK_INT(answer(stage.a), 0);
	}
	end_stage(&stage);
}

/* Readers that wait beside each other wait for the writer, and none for another: no cycle. */
static void readers_that_only_look_make_no_cycle(void)
{
	struct stage stage = new_stage();
	CHECK_INT(ask(stage.c, "share 1"), 0);
	CHECK_INT(ask(stage.a, "share 2"), 0);
	tell(stage.a, "lock 1");
	await_drain(&stage, 1);
	tell(stage.b, "share 1");
	await_starving(&stage, 1, 1);
	CHECK_INT(ask(stage.c, "share-try 2"), 0);
	CHECK_INT(ask(stage.c, "share-timed 1 30"), -EDEADLK);
	CHECK(!has_answered(stage.a) && !has_answered(stage.b));
	CHECK_INT(ask(stage.c, "unshare 1"), 0);
	CHECK_INT(answer(stage.a), 0);
	CHECK_INT(ask(stage.a, "unlock 1"), 0);
	CHECK_INT(answer(stage.b), 0);
	end_stage(&stage);
}

static void writers_are_alone_and_readers_see_nothing_change(void)
{
	enum { ROUNDS = 4000, WRITERS = 3, SCORED = 3 };
	struct stage stage = new_stage();
	struct peer more[3] = { enter(program[0], stage.path), enter(program[1], stage.path), enter(program[2], stage.path) };
	tell(stage.a, "count 0 3 4000 1");
	tell(stage.b, "count 0 3 4000 2");
	tell(stage.c, "share-count 0 3 4000 3");
	tell(more[0], "share-count 0 3 4000 3");
	tell(more[1], "share-count 0 3 4000 3");
	CHECK_INT(answer(stage.a), 0);
	CHECK_INT(answer(stage.b), 0);
	CHECK_INT(answer(stage.c), 0);
	CHECK_INT(answer(more[0]), 0);
	CHECK_INT(answer(more[1]), 0);
	for (uint32_t lock = 0; lock < SCORED; lock++) {
		CHECK_INT(scores->of[lock].count, WRITERS * (ROUNDS / SCORED + (lock < ROUNDS % SCORED)));
		CHECK_INT(*(slot(&stage, lock) + 1) >> 16, scores->of[lock].count);
	}
	for (int i = 0; i < 3; i++)
		end_peer(more[i]);
	end_stage(&stage);
}

static void await_rounds(uint32_t rounds)
{
	for (uint32_t begin = scores->of[0].count; scores->of[0].count - begin < rounds;)
		sched_yield();
}

static void deaths_in_the_midst_of_it_let_nobody_in_beside_a_writer(void)
{
	enum { DEATHS = 60 };
	struct stage stage = new_stage();
	tell(stage.a, "count 0 2 4000000000 1");
	tell(stage.b, "share-count 0 2 4000000000 2");
	tell(stage.c, "share-count 0 2 4000000000 2");
	for (int death = 0; death < DEATHS; death++) {
		struct peer victim = enter(program[death % 3], stage.path);
		tell(victim, death % 2 ? "share-count 0 2 4000000000 3" : "count 0 2 4000000000 2");
		await_rounds(10);
		kill_peer(victim);
	}
	scores->stop = 1;
	CHECK_INT(answer(stage.a), 0);
	CHECK_INT(answer(stage.b), 0);
	CHECK_INT(answer(stage.c), 0);
	end_stage(&stage);
}

/* Entries that have had so many tenants that the bits of a cell begin again with the next but one. */
static void generations_may_begin_again(void)
{
	enum { ENTRIES_THERE = 64, ENTRY_TABLE = 4096, ENTRY_SIZE = 64, AT_CELL_TABLE = 104, READY = 576, LEVEL = 7 };
	const uint64_t gone = UINT64_C(0x5fffffe) << 1;
	struct stage stage = new_stage();
	CHECK_INT(ask(stage.b, "readers 9 9"), 9);
	CHECK_INT(ask(stage.b, "readers-leave"), 0);
	for (uint64_t entry = 1; entry < ENTRIES_THERE; entry++) {
		uint64_t *state = at(&stage, ENTRY_TABLE + ENTRY_SIZE * entry);
		if (!(*state & 1))
			*state = gone;
	}
	int forgotten = 0, planted = 0;
	uint64_t table = *at(&stage, AT_CELL_TABLE);
	for (int round = 0; round < 3 * ENTRIES_THERE; round++) {
		struct peer peer = enter(program[round % 3], stage.path);
		CHECK_INT(ask(peer, "share 7"), 0);
		CHECK_INT(ask(stage.a, "try 7"), -EBUSY);
		CHECK_INT(ask(peer, "unshare 7"), 0);
		/* By now each entry has had its last generation but one. A cell that names a former tenant must not come to
		 * mean a new one: in a slot, in the table, and a word that drains. */
		if (round == ENTRIES_THERE)
			for (uint64_t entry = 10; entry < ENTRIES_THERE; entry++) {
				if (*at(&stage, ENTRY_TABLE + ENTRY_SIZE * entry) & 1)
					continue;
				planted++;
				slot(&stage, (uint32_t)entry)[3] = entry | W;
				slot(&stage, (uint32_t)entry)[0] = entry | R | D | W;
				/* On the page that lock 9 has made ready. */
				uint64_t place = (home_of(9) & ~UINT64_C(255)) + entry;
				at(&stage, table + 16 * place)[1] = entry;
				at(&stage, table + 16 * place)[0] = entry | S;
			}
		end_peer(peer);
	}
	for (uint64_t entry = 10; entry < ENTRIES_THERE; entry++) {
		uint64_t place = (home_of(9) & ~UINT64_C(255)) + entry;
		forgotten += slot(&stage, (uint32_t)entry)[3] == 0 && slot(&stage, (uint32_t)entry)[0] == (S | D | W) &&
			     at(&stage, table + 16 * place)[0] == 0;
	}
	CHECK(planted > ENTRIES_THERE / 2);
	CHECK_INT(forgotten, planted);
	end_stage(&stage);
}

static void a_removed_segment_is_refused(void)
{
	enum { RETIRED = 256 };
	struct stage stage = new_stage();
	CHECK_INT(ask(stage.a, "share 7"), 0);
	tell(stage.b, "lock 7");
	await_drain(&stage, 7);
	tell(stage.c, "share 7");
	await_word(&stage, 7, 1, R | W, R | W);
	REQUIRE(unlink(stage.path) == 0);
	__atomic_store_n((uint32_t *)(void *)(stage.map + RETIRED), 2, __ATOMIC_SEQ_CST);
	CHECK_INT(answer(stage.b), -ESTALE);
	CHECK_INT(answer(stage.c), -ESTALE);
	CHECK_INT(ask(stage.b, "share-try 8"), -ESTALE);
	CHECK_INT(ask(stage.c, "share 8"), -ESTALE);
	CHECK_INT(ask(stage.a, "unshare 7"), 0);
	end_stage(&stage);
}

/* What would be a reader in version 2 is a free lock in version 1. */
static void a_segment_of_version_1_has_exclusive_locks_only(void)
{
	char path[NAME_SIZE + sizeof "/dev/shm"];
	snprintf(path, sizeof path, "%s", file_of(new_name()));
	int made = -EOPNOTSUPP;
	for (int i = 0; i < 3 && made == -EOPNOTSUPP; i++)
		made = make(program[i], path, 1);
	REQUIRE(made == 0);
	struct peer a = enter(program[0], path), b = enter(program[1], path), c = enter(program[2], path);
	CHECK_INT(ask(a, "share 7"), -EOPNOTSUPP);
	CHECK_INT(ask(b, "share-try 7"), -EOPNOTSUPP);
	CHECK_INT(ask(c, "share-timed 7 10"), -EOPNOTSUPP);
	CHECK_INT(ask(a, "lock 7"), 0);
	CHECK_INT(ask(a, "downgrade 7"), -EOPNOTSUPP);
	CHECK_INT(ask(b, "try 7"), -EBUSY);
	CHECK_INT(ask(b, "timed 7 20"), -ETIMEDOUT);
	tell(b, "lock 7");
	CHECK_INT(ask(a, "unlock 7"), 0);
	CHECK_INT(answer(b), 0);
	kill_peer(b);
	CHECK_INT(ask(c, "lock 7"), OWNER_DIED);
	CHECK_INT(ask(c, "unlock 7"), 0);
	memset(scores, 0, sizeof *scores);
	tell(a, "count 0 3 5000 2");
	tell(c, "count 0 3 5000 2");
	CHECK_INT(answer(a), 0);
	CHECK_INT(answer(c), 0);
	CHECK_INT(scores->of[0].count + scores->of[1].count + scores->of[2].count, 20000);
	end_peer(a);
	end_peer(c);
}

static void what_a_program_does_not_know_it_refuses(void)
{
	enum { VERSION = 8, FEATURES = 48 };
	struct stage stage = new_stage();
	end_stage(&stage);
	for (int bit = 0; bit < 64; bit += 21) {
		*at(&stage, FEATURES) = UINT64_C(1) << bit;
		for (int i = 0; i < 3; i++) {
			struct peer peer = start_peer(program[i], stage.path, scores_fd, 0);
			CHECK_INT(answer(peer), -EPROTO);
			end_peer(peer);
		}
	}
	*at(&stage, FEATURES) = 0;
	*(uint32_t *)(void *)(stage.map + VERSION) = 3;
	for (int i = 0; i < 3; i++) {
		struct peer peer = start_peer(program[i], stage.path, scores_fd, 0);
		CHECK_INT(answer(peer), -EPROTO);
		end_peer(peer);
	}
}

int main(int arguments, char **argument)
{
	if (arguments != 4)
		return 2;
	for (int i = 0; i < 3; i++)
		program[i] = argument[1 + i];
	scores_fd = memfd_create("scores", 0);
	REQUIRE(scores_fd >= 0 && ftruncate(scores_fd, sizeof *scores) == 0);
	scores = mmap(NULL, sizeof *scores, PROT_READ | PROT_WRITE, MAP_SHARED, scores_fd, 0);
	REQUIRE(scores != MAP_FAILED);
	RUN_TEST(readers_are_in_together);
	RUN_TEST(a_reader_keeps_a_writer_out);
	RUN_TEST(a_writer_keeps_readers_out);
	RUN_TEST(a_killed_reader_is_told_to_nobody);
	RUN_TEST(a_stopped_reader_is_not_robbed);
	RUN_TEST(every_reader_is_told_of_a_writers_death_until_a_writer_is);
	RUN_TEST(a_writer_that_is_killed_while_it_drains_is_told_to_nobody);
	RUN_TEST(a_writer_goes_on_with_the_drain_of_a_dead_one);
	RUN_TEST(a_stopped_writer_that_drains_loses_its_place);
	RUN_TEST(readers_that_starve_have_a_phase_of_their_own);
	RUN_TEST(a_starving_reader_that_is_stopped_holds_nobody_up);
	RUN_TEST(a_starving_reader_may_leave);
	RUN_TEST(a_starving_reader_may_be_killed);
	RUN_TEST(neither_kind_starves_the_other);
	RUN_TEST(more_readers_than_a_slot_has_cells_stand_in_the_table);
	RUN_TEST(places_of_the_table_change_locks);
	RUN_TEST(threads_that_end_leave_no_reader);
	RUN_TEST(a_writer_becomes_a_reader_without_a_gap);
	RUN_TEST(two_readers_that_want_to_write_what_the_other_reads);
	RUN_TEST(a_deadlock_through_one_of_two_readers_is_found);
	RUN_TEST(readers_that_only_look_make_no_cycle);
	RUN_TEST(writers_are_alone_and_readers_see_nothing_change);
	RUN_TEST(deaths_in_the_midst_of_it_let_nobody_in_beside_a_writer);
	RUN_TEST(generations_may_begin_again);
	RUN_TEST(a_removed_segment_is_refused);
	RUN_TEST(a_segment_of_version_1_has_exclusive_locks_only);
	RUN_TEST(what_a_program_does_not_know_it_refuses);
	return end_of_tests();
}
