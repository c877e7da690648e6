// SPDX-License-Identifier: MIT OR Apache-2.0
/* Of peer.c: unlocking, and how a writer waits for readers. */
#ifndef FORMAT_PEER_DRAIN_H
#define FORMAT_PEER_DRAIN_H

#include "peer_deadlocks.h"

enum kind { EXCLUSIVE, SHARED };
enum { READERS = 32, STARVES_AFTER = 2 };
/* What a step comes to that neither has the lock nor ends the wait. Beyond all error numbers. */
enum { WAITS = -10000 };

/* A call that locks. */
struct wait {
	uint32_t lock;
	enum kind kind;
	uint64_t *word, began, deadline;
	/* In which a reader stands that starves. */
	uint64_t *cell;
	/* Of somebody who drains and for whom nobody was left to wait at the end of the last slice. */
	uint64_t stands_still;
	bool slept, woken, reserved_long, wished, gives_way, last, had_cell;
};

/* In version 1 that flag means nothing in a word without an owner, and RESERVED nothing in one with. */
static bool is_shared(uint64_t seen)
{
	return segment.has_cells && (seen & ENTRY) == 0 && (seen & STARVING);
}

static bool drains(uint64_t seen)
{
	return segment.has_cells && (seen & ENTRY) != 0 && (seen & RESERVED);
}

/* The thread's. What its process holds it waits for as anybody does. */
static bool is_own(uint64_t seen)
{
	return (seen & OWNER) == own_owner();
}

/* Of an unlock that found this word. */
static void wake_after(uint64_t *word, uint64_t seen, bool reader_starves)
{
	self.woke = 0;
	if ((seen & STARVING) && reader_starves)
		self.woke = wake_all(word, READERS);
	else if (seen & STARVING)
		self.woke = wake_oldest(word);
	else if (seen & WAITERS)
		self.woke = wake_any(word);
}

/* `died`: the lock is given back as if its holder had died. */
static int unlock_word(uint32_t lock, bool died)
{
	for (;;) {
		uint64_t *word = slot(lock), seen = LOAD(word);
		if ((seen & OWNER) != holder() || drains(seen))
			return -EPERM;
		bool starves = (seen & STARVING) && a_reader_starves(lock);
		uint64_t unlocked = !(seen & STARVING) ? 0 : RESERVED | WAITERS | (starves ? STARVING : 0);
		uint64_t to = died ? OWNER_DIED | (seen & WAITERS) : unlocked;
		if (!swap(word, seen, to))
			continue;
		wake_after(word, died ? seen & WAITERS : seen, starves);
		return 0;
	}
}

/* Without the lock. */
static int leave_drain(struct wait *wait, int result)
{
	for (;;) {
		uint64_t seen = LOAD(wait->word);
		if (!is_own(seen) || !drains(seen))
			return result;
		bool starves = (seen & STARVING) && a_reader_starves(wait->lock);
		if (!swap(wait->word, seen, STARVING | (seen & OWNER_DIED) | (seen & STARVING ? RESERVED | WAITERS : 0)))
			continue;
		wake_after(wait->word, seen, starves);
		return result;
	}
}

static int what_ends_it(const struct wait *wait)
{
	return wait->gives_way ? -EDEADLK : wait->deadline == 0 ? -EBUSY : -ETIMEDOUT;
}

/* After each slice, of a writer that drains as of everybody who waits. */
static void after_a_slice(struct wait *wait)
{
	if (!wait->wished && wait->deadline != 0) {
		wish_for(wait->lock, wait->began);
		wait->wished = true;
	}
	if (wait->wished && !wait->gives_way && closes_a_cycle())
		wait->gives_way = true;
}

static bool place_is_lost(const struct wait *wait)
{
	uint64_t seen = LOAD(wait->word);
	return !is_own(seen) || !drains(seen);
}

/* Until nobody stands in this cell: 0; WAITS: the place in the word is lost; or why it ends. */
static int wait_for_reader(struct wait *wait, uint32_t n, bool by_time)
{
	bool slept = false;
	for (;;) {
		uint64_t *cell, seen, now = now_ns();
		wait->last = wait->last || wait->gives_way || now >= wait->deadline;
		if (wait->last && wait->wished)
			take_wish_back();
		enum reading reading = read_cell(wait->lock, n, &cell, &seen);
		if (reading == NOBODY)
			return 0;
		if (reading == UNREADABLE)
			return -ENOSPC;
		if (seen & STARVING) {
			/* Left alone, a dead or stopped one would cost every later unlock a slice. */
			if (by_time && !clear_cell(cell, seen))
				continue;
			return 0;
		}
		if (is_own(seen))
			return wait->deadline == 0 ? -EBUSY : -EDEADLK;
		if (holder_is_dead(seen)) {
			clear_cell(cell, seen);
			continue;
		}
		if (wait->last)
			return what_ends_it(wait);
		if (is_removed())
			return -ESTALE;
		if (slept)
			after_a_slice(wait);
		if (wait->gives_way || (!(seen & WAITERS) && !swap(cell, seen, seen | WAITERS)))
			continue;
		uint64_t end = now + SLICE;
		sleep_on(cell, seen | WAITERS, end < wait->deadline ? end : wait->deadline, FUTEX_BITSET_MATCH_ANY);
		slept = true;
		if (place_is_lost(wait))
			return WAITS;
	}
}

static int drain(struct wait *wait, bool by_time)
{
	for (uint32_t n = 0, cells = number_of_cells(wait->lock); n < cells; n++) {
		int result = wait_for_reader(wait, n, by_time);
		if (result == WAITS)
			break;
		if (result < 0)
			return leave_drain(wait, result);
	}
	while (!place_is_lost(wait)) {
		uint64_t seen = LOAD(wait->word);
		if (is_own(seen) && drains(seen) && swap(wait->word, seen, holder() | (seen & (STARVING | WAITERS))))
			return seen & OWNER_DIED ? TOLD_OF_DEATH : 0;
	}
	/* Begins anew, as one that has slept. */
	wait->slept = true;
	wait->woken = wait->reserved_long = false;
	return WAITS;
}

#endif
