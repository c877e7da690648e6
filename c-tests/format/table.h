// SPDX-License-Identifier: MIT OR Apache-2.0
/* Of readers.c: readers in the cell table, and cells that outlive the generations of their entries. */
#ifndef FORMAT_TABLE_H
#define FORMAT_TABLE_H

#include "stage.h"

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

/* Puts a reader into every cell of a lock's slot, and into every place of the table as one of lock 7. */
static void crowd(const struct stage *stage, uint32_t lock, uint64_t reader)
{
	enum { AT_CELL_TABLE = 104, AT_READY_OF_TABLE = 600, PLACES = 8192 };
	uint64_t table = *at(stage, AT_CELL_TABLE);
	for (int n = 0; n < SLOT_CELLS; n++)
		slot(stage, lock)[3 + n] = reader;
	for (uint64_t place = 0; place < PLACES; place++) {
		at(stage, table + 16 * place)[1] = 7;
		at(stage, table + 16 * place)[0] = reader;
	}
	*at(stage, AT_READY_OF_TABLE) = UINT32_MAX;
}

static int places_taken(const struct stage *stage)
{
	enum { AT_CELL_TABLE = 104, PLACES = 8192 };
	uint64_t table = *at(stage, AT_CELL_TABLE);
	int taken = 0;
	for (uint64_t place = 0; place < PLACES; place++)
		taken += *at(stage, table + 16 * place) != 0;
	return taken;
}

static void a_crowd_leaves_no_room_for_one_more(void)
{
	enum { MOST = 11, LEVEL = 7 };
	struct stage stage = new_stage();
	CHECK_INT(ask(stage.a, "share 7"), 0);
	uint64_t reader = 0;
	for (int n = 0; n < SLOT_CELLS; n++)
		reader |= cell(&stage, 7, n);
	crowd(&stage, 7, reader);
	slot(&stage, 7)[LEVEL] = MOST;
	crowd(&stage, 8, reader);
	CHECK_INT(ask(stage.b, "share 7"), -EAGAIN);
	CHECK_INT(ask(stage.b, "share-try 7"), -EAGAIN);
	CHECK_INT(ask(stage.c, "share-timed 7 10"), -EAGAIN);
	CHECK_INT(ask(stage.b, "try 7"), -EBUSY);
	/* Every lock has four cells of its own. */
	CHECK_INT(ask(stage.b, "share 9"), 0);
	CHECK_INT(ask(stage.c, "share 9"), 0);
	/* A writer that finds no cell stays a writer. */
	CHECK_INT(ask(stage.b, "lock 8"), 0);
	CHECK_INT(ask(stage.b, "downgrade 8"), -EAGAIN);
	CHECK_INT(ask(stage.c, "share-try 8"), -EBUSY);
	CHECK_INT(ask(stage.b, "unlock 8"), 0);
	/* A level beyond the last means all places. */
	slot(&stage, 7)[LEVEL] = UINT64_MAX;
	CHECK_INT(ask(stage.c, "timed 7 20"), -ETIMEDOUT);
	kill_peer(stage.a);
	CHECK_INT(ask(stage.c, "lock 7"), 0);
	CHECK_INT(places_taken(&stage) + cells_taken(&stage, 7), 0);
	CHECK_INT(ask(stage.c, "downgrade 7"), 0);
	CHECK_INT(ask(stage.b, "share 7"), 0);
	stage.a = enter(program[0], stage.path);
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
				slot(&stage, (uint32_t)entry)[3] = entry | WAITERS;
				slot(&stage, (uint32_t)entry)[0] = entry | RESERVED | OWNER_DIED | WAITERS;
				/* On the page that lock 9 has made ready. */
				uint64_t place = (home_of(9) & ~UINT64_C(255)) + entry;
				at(&stage, table + 16 * place)[1] = entry;
				at(&stage, table + 16 * place)[0] = entry | STARVING;
			}
		end_peer(peer);
	}
	for (uint64_t entry = 10; entry < ENTRIES_THERE; entry++) {
		uint64_t place = (home_of(9) & ~UINT64_C(255)) + entry;
		const uint64_t *swept = slot(&stage, (uint32_t)entry);
		forgotten += swept[3] == 0 && swept[0] == (STARVING | OWNER_DIED | WAITERS) &&
			     at(&stage, table + 16 * place)[0] == 0;
	}
	CHECK(planted > ENTRIES_THERE / 2);
	CHECK_INT(forgotten, planted);
	end_stage(&stage);
}

#endif
