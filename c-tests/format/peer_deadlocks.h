// SPDX-License-Identifier: MIT OR Apache-2.0
/* Of peer.c: wishes, and the search for a cycle of them. The way forks where a writer waits for several readers. */
#ifndef FORMAT_PEER_DEADLOCKS_H
#define FORMAT_PEER_DEADLOCKS_H

#include "peer_cells.h"

enum { MOST_SEEN = 8192 };

static void wish_for(uint32_t lock, uint64_t since)
{
	if (self.record == NULL)
		return;
	STORE(self.record + 3, since);
	STORE(self.record + 2, (uint64_t)++self.wish << 32 | (lock + 1));
	__atomic_thread_fence(__ATOMIC_SEQ_CST);
}

static void take_wish_back(void)
{
	if (self.record != NULL)
		STORE(self.record + 2, (uint64_t)self.wish << 32);
}

/* What a thread wishes for, with the number of the wish; 0: nothing that can be followed. */
static uint64_t wish_of(uint64_t owner)
{
	uint64_t *record;
	if ((owner >> 32 & 0x3fffff) == 0 || !page_is_usable((owner & ENTRY) / 64, false) ||
	    !lives_by_state(LOAD(entry_at(owner & ENTRY)), owner) || (record = find_record(owner, false)) == NULL)
		return 0;
	uint64_t wants = LOAD(record + 2);
	return (uint32_t)wants != 0 && LOAD(record) == owner ? wants : 0;
}

/* A thread that wishes for the lock itself is only looking. */
static bool reads_for_good(uint32_t lock, uint64_t seen)
{
	return !(seen & STARVING) && (uint32_t)wish_of(seen & OWNER) != lock + 1;
}

struct seen { uint64_t owner, wish; uint32_t from; };

struct search {
	struct seen seen[MOST_SEEN];
	uint32_t count, last;
	bool closed;
};

static void add(struct search *search, uint64_t owner, uint32_t from)
{
	if (owner == self.owner) {
		search->closed = true;
		search->last = from;
		return;
	}
	for (uint32_t i = 0; i < search->count; i++)
		if (search->seen[i].owner == owner)
			return;
	if (search->count < MOST_SEEN)
		search->seen[search->count++] = (struct seen){ owner, 0, from };
}

/* From one's own wish back to oneself. */
static bool search_from_self(struct search *search)
{
	search->count = 1;
	search->closed = false;
	search->seen[0] = (struct seen){ self.owner, 0, 0 };
	for (uint32_t i = 0; i < search->count && !search->closed; i++) {
		struct seen *at = &search->seen[i];
		at->wish = wish_of(at->owner);
		uint32_t lock = (uint32_t)at->wish - 1;
		if (at->wish == 0 || lock >= num_locks())
			continue;
		uint64_t word = LOAD(slot(lock)), *cell, seen;
		if ((word & ENTRY) != 0 && (word & OWNER) != at->owner)
			add(search, word & OWNER, i);
		if ((word & OWNER) != at->owner || !(word & RESERVED))
			continue;
		for (uint32_t n = 0, cells = number_of_cells(lock); n < cells && !search->closed; n++)
			if (read_cell(lock, n, &cell, &seen) == SOMEBODY && (seen & OWNER) != at->owner && reads_for_good(lock, seen))
				add(search, seen & OWNER, i);
	}
	return search->closed;
}

static bool waits_for(const struct seen *waiter, uint64_t owner)
{
	uint32_t lock = (uint32_t)waiter->wish - 1;
	uint64_t word = LOAD(slot(lock)), *cell, seen;
	if (wish_of(waiter->owner) != waiter->wish)
		return false;
	if ((word & OWNER) == owner)
		return true;
	if ((word & OWNER) != waiter->owner || !(word & RESERVED))
		return false;
	for (uint32_t n = 0, cells = number_of_cells(lock); n < cells; n++)
		if (read_cell(lock, n, &cell, &seen) == SOMEBODY && (seen & OWNER) == owner && reads_for_good(lock, seen))
			return true;
	return false;
}

/* Every link of the way that was found is as it was. */
static bool way_is_still_there(const struct search *search)
{
	uint64_t next = self.owner;
	for (uint32_t i = search->last;; i = search->seen[i].from) {
		if (!waits_for(&search->seen[i], next))
			return false;
		next = search->seen[i].owner;
		if (i == 0)
			return true;
	}
}

static bool somebody_on_the_way_is_dead(const struct search *search)
{
	for (uint32_t i = search->last; i != 0; i = search->seen[i].from)
		if (holder_is_dead(search->seen[i].owner))
			return true;
	return false;
}

static void free_detector(uint64_t *detector)
{
	uint64_t seen = LOAD(detector);
	while (!swap(detector, seen, 0))
		seen = LOAD(detector);
}

/* If so, the wish is taken back. */
static bool closes_a_cycle(void)
{
	static _Thread_local struct search search;
	uint64_t *detector = at64(DETECTOR), seen = LOAD(detector);
	if (!segment.walks || self.record == NULL || !search_from_self(&search))
		return false;
	if (((seen & ENTRY) != 0 && !holder_is_dead(seen)) || !swap(detector, seen, self.owner | (seen & WAITERS)))
		return false;
	/* The dead wait for nobody, though until somebody finds them dead it looks as if they did. */
	bool closed = search_from_self(&search) && way_is_still_there(&search) && way_is_still_there(&search) &&
		      !somebody_on_the_way_is_dead(&search);
	if (closed)
		take_wish_back();
	free_detector(detector);
	return closed;
}

#endif
