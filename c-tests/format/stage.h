// SPDX-License-Identifier: MIT OR Apache-2.0
/* Of readers.c: a segment that three actors use, and how it looks. */
#ifndef FORMAT_STAGE_H
#define FORMAT_STAGE_H

#include <poll.h>

#include "../names.h"
#include "actors.h"
#include "scores.h"

enum { TOLD_OF_DEATH = 1, LOCKS = 2048, MOST_LOCKS = 4096, SLOT_CELLS = 4 };

/* With an owner RESERVED says that it drains; without one STARVING says that readers may be in. */
static const uint64_t OWNER_DIED = 1u << 28, RESERVED = 1u << 29, STARVING = 1u << 30, WAITERS = 1u << 31;
static const uint64_t OWNER = ~(UINT64_C(15) << 28);
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
	await_word(stage, lock, 1, RESERVED, RESERVED);
}

static void await_waiter(const struct stage *stage, uint32_t lock)
{
	await_word(stage, lock, 1, WAITERS, WAITERS);
}

/* In cells of the slot. */
static int readers_that_starve(const struct stage *stage, uint32_t lock)
{
	int starving = 0;
	for (int n = 0; n < SLOT_CELLS; n++)
		starving += (cell(stage, lock, n) & STARVING) != 0;
	return starving;
}

static void await_starving(const struct stage *stage, uint32_t lock, int readers)
{
	while (readers_that_starve(stage, lock) < readers)
		usleep(500);
}

static int has_answered(struct peer peer)
{
	struct pollfd ready = { peer.out, POLLIN, 0 };
	return poll(&ready, 1, 0) > 0;
}

enum { ATTEMPTS = 100, WRITER = 0, READER = 1 };

/* A writer and a reader that wait for one lock have it, one after the other, and give it back. Says which was first: who
 * goes on within a slice decides that, too. */
static int both_have_it(struct peer writer, const char *writer_gives, struct peer reader, const char *reader_gives)
{
	struct pollfd ready[2] = { { writer.out, POLLIN, 0 }, { reader.out, POLLIN, 0 } };
	REQUIRE(poll(ready, 2, -1) > 0);
	int first = ready[0].revents ? WRITER : READER;
	CHECK_INT(answer(first == WRITER ? writer : reader), 0);
	CHECK(!has_answered(first == WRITER ? reader : writer));
	CHECK_INT(ask(first == WRITER ? writer : reader, first == WRITER ? writer_gives : reader_gives), 0);
	CHECK_INT(answer(first == WRITER ? reader : writer), 0);
	CHECK_INT(ask(first == WRITER ? reader : writer, first == WRITER ? reader_gives : writer_gives), 0);
	return first;
}

static uint64_t serial_of(uint64_t owner)
{
	return owner >> 32 & 0x3fffff;
}

#endif
