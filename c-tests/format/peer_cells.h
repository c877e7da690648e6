// SPDX-License-Identifier: MIT OR Apache-2.0
/* Of peer.c: the cells in which readers stand, in slots and in the cell table. */
#ifndef FORMAT_PEER_CELLS_H
#define FORMAT_PEER_CELLS_H

#include "peer_members.h"

enum { PLACES_TRIED = 16, MOST_READ = 64 };

/* What this thread reads. */
static _Thread_local struct { uint64_t *cell; uint32_t lock; } reads[MOST_READ];

static uint64_t *level_of(uint32_t lock)
{
	return slot(lock) + 7;
}

static uint32_t window_of(uint64_t level)
{
	return level == 0 ? 0 : level > 10 ? TABLE_CELLS : 8u << (level - 1);
}

static uint32_t place_of(uint32_t lock, uint32_t n)
{
	return (lock * 0x9E3779B1u + n) % TABLE_CELLS;
}

static unsigned page_of(uint32_t place)
{
	return CELL_PAGES + place * CELL_SIZE / PAGE;
}

/* A lock without cells, of version 1, has none to look at. */
static uint32_t number_of_cells(uint32_t lock)
{
	return segment.has_cells ? SLOT_CELLS + window_of(LOAD_IN_ORDER(level_of(lock))) : 0;
}

enum reading { NOBODY, SOMEBODY, UNREADABLE };

static enum reading read_cell(uint32_t lock, uint32_t n, uint64_t **cell, uint64_t *seen)
{
	if (n < SLOT_CELLS) {
		*cell = slot(lock) + 3 + n;
		*seen = LOAD_IN_ORDER(*cell);
		return (*seen & ENTRY) != 0 ? SOMEBODY : NOBODY;
	}
	uint32_t place = place_of(lock, n - SLOT_CELLS);
	if (!page_is_usable(page_of(place), false))
		return page_is_ready(page_of(place)) ? UNREADABLE : NOBODY;
	*cell = at64(CELL_TABLE + UINT64_C(16) * place);
	*seen = LOAD_IN_ORDER(*cell);
	return (*seen & ENTRY) != 0 && !(*seen & OWNER_DIED) && LOAD(*cell + 1) == lock ? SOMEBODY : NOBODY;
}

/* From exactly what was read. */
static bool clear_cell(uint64_t *cell, uint64_t seen)
{
	if (!swap(cell, seen, 0))
		return false;
	if (seen & WAITERS)
		wake_all(cell, FUTEX_BITSET_MATCH_ANY);
	return true;
}

static bool a_reader_starves(uint32_t lock)
{
	uint64_t *cell, seen;
	for (uint32_t n = 0, cells = number_of_cells(lock); n < cells; n++)
		if (read_cell(lock, n, &cell, &seen) == SOMEBODY && (seen & STARVING))
			return true;
	return false;
}

/* Whether somebody is in, or looks whether he may be. `clears`: the dead are cleared away. */
static bool somebody_reads(uint32_t lock, bool clears)
{
	uint64_t *cell, seen;
	for (uint32_t n = 0, cells = number_of_cells(lock); n < cells; n++) {
		enum reading reading = read_cell(lock, n, &cell, &seen);
		if (reading == NOBODY || (reading == SOMEBODY && (seen & STARVING)))
			continue;
		if (reading == UNREADABLE || !holder_is_dead(seen))
			return true;
		/* It is looked at again. */
		if (clears && clear_cell(cell, seen))
			n--;
	}
	return false;
}

static bool may_be_claimed(uint64_t seen)
{
	return seen == 0 || (page_is_usable((seen & ENTRY) / 64, false) && !lives_by_state(LOAD(entry_at(seen & ENTRY)), seen));
}

/* In the cell table, in a place of the lock. */
static bool claim_place(uint32_t lock, uint32_t place, uint64_t owner)
{
	uint64_t *cell = at64(CELL_TABLE + UINT64_C(16) * place), *belongs = cell + 1, seen = LOAD(cell);
	if (seen == 0 && LOAD(belongs) == lock) {
		if (!swap_in_order(cell, 0, owner))
			return false;
		if (LOAD(belongs) == lock)
			return true;
		/* Nobody who waits for a reader of the other lock must go on waiting for this one. */
		if (!swap(cell, owner, 0) && swap(cell, owner | WAITERS, 0))
			wake_all(cell, FUTEX_BITSET_MATCH_ANY);
		return false;
	}
	if (!may_be_claimed(seen) || !swap_in_order(cell, seen, owner | OWNER_DIED))
		return false;
	STORE(belongs, lock);
	STORE_IN_ORDER(cell, owner);
	return true;
}

static uint64_t *claim_in_table(uint32_t lock, uint64_t owner, int *why)
{
	uint32_t first = (uint32_t)(owner & ENTRY) * 0x85EBCA6Bu ^ (uint32_t)(owner >> 32) * 0xC2B2AE35u;
	for (;;) {
		uint64_t level = LOAD(level_of(lock));
		uint32_t window = window_of(level), tries = window == TABLE_CELLS || window < PLACES_TRIED ? window : PLACES_TRIED;
		for (uint32_t n = 0; n < tries; n++) {
			/* A power of two, so that an odd step comes to each; four places are 64 bytes. */
			uint32_t place = place_of(lock, (first * 4 + n * 5) % window);
			if (!page_is_usable(page_of(place), true))
				*why = -ENOSPC;
			else if (claim_place(lock, place, owner))
				return at64(CELL_TABLE + UINT64_C(16) * place);
		}
		if (window == TABLE_CELLS)
			return NULL;
		swap_in_order(level_of(lock), level, level + 1);
	}
}

/* In this thread's name, with STARVING or without; NULL: there is no room. */
static uint64_t *claim_cell(uint32_t lock, uint64_t starves, int *why)
{
	uint64_t owner = own_owner() | starves;
	*why = -EAGAIN;
	for (uint32_t n = 0; n < SLOT_CELLS; n++) {
		uint64_t *cell = slot(lock) + 3 + (segment.entry + n) % SLOT_CELLS, seen = LOAD(cell);
		if (may_be_claimed(seen) && swap_in_order(cell, seen, owner))
			return cell;
	}
	return claim_in_table(lock, owner, why);
}

/* From own owner, or own owner + STARVING, to another; false: it is not one's own any more. */
static bool turn_cell(uint64_t *cell, uint64_t from, uint64_t to)
{
	if (swap(cell, from, to))
		return true;
	/* Only WAITERS can have come. */
	if (!swap(cell, from | WAITERS, to))
		return false;
	wake_all(cell, FUTEX_BITSET_MATCH_ANY);
	return true;
}

/* A reader that is in. */
static void put_into_holders_name(uint64_t *cell)
{
	for (uint64_t seen = LOAD(cell); (seen & OWNER) == own_owner() && holder() != own_owner(); seen = LOAD(cell))
		if (swap(cell, seen, holder() | (seen & WAITERS)))
			return;
}

/* What the process reads is in no thread's list. */
static void note_reading(uint32_t lock, uint64_t *cell)
{
	int i = 0;
	if (segment.by_process)
		return;
	while (reads[i].cell != NULL)
		if (++i == MOST_READ)
			abort();
	reads[i].lock = lock;
	reads[i].cell = cell;
}

static bool reads_already(uint32_t lock)
{
	for (int i = 0; i < MOST_READ; i++)
		if (reads[i].cell != NULL && reads[i].lock == lock)
			return true;
	return false;
}

/* Any of those in which the process reads the lock. */
static int unlock_shared_of_process(uint32_t lock)
{
	uint64_t *cell, seen;
	for (uint32_t n = 0, cells = number_of_cells(lock); n < cells; n++)
		if (read_cell(lock, n, &cell, &seen) == SOMEBODY && (seen & ~WAITERS) == holder() && turn_cell(cell, holder(), 0))
			return 0;
	return -EPERM;
}

static int unlock_shared(uint32_t lock)
{
	if (lock >= num_locks())
		return -EINVAL;
	if (segment.by_process)
		return unlock_shared_of_process(lock);
	for (int i = 0; i < MOST_READ; i++)
		if (reads[i].cell != NULL && reads[i].lock == lock) {
			uint64_t *cell = reads[i].cell;
			reads[i].cell = NULL;
			return turn_cell(cell, own_owner(), 0) ? 0 : -EPERM;
		}
	return -EPERM;
}

#endif
