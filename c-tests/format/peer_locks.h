// SPDX-License-Identifier: MIT OR Apache-2.0
/* Of peer.c: locks, exclusive and shared, and waits for them. */
#ifndef FORMAT_PEER_LOCKS_H
#define FORMAT_PEER_LOCKS_H

#include "peer_drain.h"

/* Whoever may: without RESERVED, or with STARVING as a reader, anybody. */
static bool may_have(const struct wait *wait, uint64_t seen)
{
	return (seen & ENTRY) == 0 && (!(seen & RESERVED) || wait->woken || wait->reserved_long || wait->last ||
				       (wait->kind == SHARED && is_shared(seen)));
}

static int take_word(struct wait *wait, uint64_t seen)
{
	/* Who slept cannot know whether others still do: the unlock took WAITERS away. */
	uint64_t waits = wait->slept ? WAITERS : seen & WAITERS;
	if (!is_shared(seen)) {
		if (!swap(wait->word, seen, holder() | waits))
			return WAITS;
		return seen & OWNER_DIED ? TOLD_OF_DEATH : 0;
	}
	/* A try keeps no reader out who is in. */
	if (wait->deadline == 0 && somebody_reads(wait->lock, true))
		return -EBUSY;
	if (!swap_in_order(wait->word, seen, own_owner() | RESERVED | waits | (seen & OWNER_DIED)))
		return WAITS;
	return drain(wait, (seen & RESERVED) && wait->reserved_long && !wait->woken);
}

/* The claim of a reader that wants to be in: of the cell in which it starves, or of one. */
static uint64_t *claim_to_enter(struct wait *wait, int *why)
{
	uint64_t *cell = wait->cell, own = own_owner();
	wait->cell = NULL;
	for (uint64_t seen; cell != NULL && ((seen = LOAD(cell)) & ~WAITERS) == (own | STARVING);)
		if (swap_in_order(cell, seen, seen & ~STARVING))
			return cell;
	return claim_cell(wait->lock, 0, why);
}

/* Once in, a wake-up goes on: to the oldest writer once no reader starves, to anybody where nothing was reserved. */
static void pass_on(const struct wait *wait, uint64_t seen)
{
	if (!(seen & RESERVED) && wait->woken)
		wake_any(wait->word);
	else if ((seen & RESERVED) && (wait->woken || wait->had_cell) && !a_reader_starves(wait->lock))
		wake_oldest(wait->word);
}

static int enter(struct wait *wait, bool starves)
{
	int why;
	uint64_t *cell = claim_to_enter(wait, &why), seen, own = own_owner();
	if (cell == NULL)
		return why;
	for (;;) {
		seen = LOAD_IN_ORDER(wait->word);
		if (is_shared(seen))
			break;
		if (!may_have(wait, seen)) {
			/* A writer was faster. */
			turn_cell(cell, own, starves ? own | STARVING : 0);
			wait->cell = starves ? cell : NULL;
			wait->had_cell = wait->had_cell || starves;
			return WAITS;
		}
		if (swap(wait->word, seen, STARVING | (seen & (OWNER_DIED | WAITERS))))
			break;
	}
	note_reading(wait->lock, cell);
	put_into_holders_name(cell);
	pass_on(wait, seen);
	return seen & OWNER_DIED ? TOLD_OF_DEATH : 0;
}

/* The word's owner is dead. */
static int take_over(struct wait *wait, uint64_t seen)
{
	if (wait->kind == SHARED) {
		swap(wait->word, seen, WAITERS | (drains(seen) ? STARVING | (seen & OWNER_DIED) : OWNER_DIED));
		return WAITS;
	}
	if (drains(seen)) {
		if (swap_in_order(wait->word, seen, own_owner() | RESERVED | WAITERS | (seen & OWNER_DIED)))
			return drain(wait, false);
		return WAITS;
	}
	return swap(wait->word, seen, holder() | WAITERS) ? TOLD_OF_DEATH : WAITS;
}

/* At the end of a slice: somebody drains for whom nobody is left to wait, and was so at its beginning. */
static void look_at_drain(struct wait *wait, uint64_t seen)
{
	uint64_t drain = drains(seen) && !is_own(seen) && !somebody_reads(wait->lock, false) ? seen & ~(STARVING | WAITERS) : 0;
	if (drain != 0 && drain == wait->stands_still)
		swap(wait->word, seen, STARVING | WAITERS | (seen & OWNER_DIED));
	wait->stands_still = drain;
}

/* One sleep, at most a slice. */
static void wait_once(struct wait *wait, uint64_t seen)
{
	uint64_t now = now_ns(), *note = wait->word + 1, waited = now - wait->began;
	bool starves = waited >= STARVES_AFTER * MILLISECOND;
	/* A writer may have taken the cell away. */
	bool has_cell = wait->cell != NULL && (LOAD(wait->cell) & ~WAITERS) == (own_owner() | STARVING);
	if (wait->kind == SHARED && starves && !has_cell) {
		int why;
		wait->cell = claim_cell(wait->lock, STARVING, &why);
		wait->had_cell = wait->had_cell || wait->cell != NULL;
	}
	if (wait->kind == SHARED) {
		seen = LOAD(wait->word);
		if (may_have(wait, seen))
			return;
	}
	uint64_t waits = seen | WAITERS | ((seen & ENTRY) != 0 && starves ? STARVING : 0);
	if (waits != seen && !swap(wait->word, seen, waits))
		return;
	uint64_t count = LOAD(note), end = now + (wait->slept ? SLICE : 2 * MILLISECOND);
	int error = sleep_on(wait->word, waits, end < wait->deadline ? end : wait->deadline,
			     wait->kind == SHARED ? 1 | READERS : classes_after(waited));
	/* Where the word had changed, nobody slept, and a wake-up that came before is still to be used. */
	wait->slept = wait->slept || error != EAGAIN;
	self.was_woken = wait->woken = error == 0 || (wait->woken && error == EAGAIN);
	wait->reserved_long = error == ETIMEDOUT && (waits & ENTRY) == 0 && (waits & RESERVED) && LOAD(note) == count;
	if (error == ETIMEDOUT)
		look_at_drain(wait, LOAD(wait->word));
}

/* Of many that wait, one looks; the difference is large, too, where the other clock is ahead. */
static bool is_to_look(struct wait *wait)
{
	uint64_t *looked = wait->word + 2, last = LOAD(looked), now = now_ns();
	return wait->last || (wait->slept && now - last >= SLICE && swap(looked, last, now));
}

static int step(struct wait *wait)
{
	uint64_t seen = LOAD(wait->word);
	wait->last = wait->gives_way || now_ns() >= wait->deadline;
	if (wait->last && wait->wished)
		take_wish_back();
	if (may_have(wait, seen)) {
		if (wait->kind == EXCLUSIVE)
			return take_word(wait, seen);
		return enter(wait, now_ns() - wait->began >= STARVES_AFTER * MILLISECOND);
	}
	if (is_own(seen))
		return wait->deadline == 0 ? -EBUSY : -EDEADLK;
	if ((seen & ENTRY) != 0 && is_to_look(wait) && holder_is_dead(seen))
		return take_over(wait, seen);
	if (wait->last)
		return what_ends_it(wait);
	if (is_removed())
		return -ESTALE;
	if (wait->slept)
		after_a_slice(wait);
	if (!wait->gives_way)
		wait_once(wait, seen);
	return WAITS;
}

static int leave(struct wait *wait, int result)
{
	if (wait->cell != NULL)
		turn_cell(wait->cell, own_owner() | STARVING, 0);
	/* The wake-up was for whoever takes the lock, and that is not this one. */
	if (wait->woken || wait->had_cell)
		wake_any(wait->word);
	return result;
}

/* Until a deadline; 0 tries. */
static int lock_until(uint32_t lock, enum kind kind, uint64_t deadline)
{
	own_owner();
	if (lock >= num_locks())
		return -EINVAL;
	if (kind == SHARED && !segment.has_cells)
		return -EOPNOTSUPP;
	if (is_removed())
		return -ESTALE;
	if (reads_already(lock))
		return deadline == 0 ? -EBUSY : -EDEADLK;
	struct wait wait = { .lock = lock, .kind = kind, .word = slot(lock), .began = now_ns(), .deadline = deadline };
	int result;
	self.was_woken = false;
	do
		result = step(&wait);
	while (result == WAITS);
	if (wait.wished)
		take_wish_back();
	if (result < 0)
		return leave(&wait, result);
	if (kind == EXCLUSIVE)
		/* The lowest 16 bits are the holder's own, and this one has no use for them. */
		STORE(wait.word + 1, ((LOAD(wait.word + 1) >> 16) + 1) << 16);
	if (is_removed()) {
		if (kind == SHARED)
			unlock_shared(lock);
		else
			unlock_word(lock, result == TOLD_OF_DEATH);
		return -ESTALE;
	}
	return result;
}

static int unlock(uint32_t lock)
{
	return lock < num_locks() ? unlock_word(lock, false) : -EINVAL;
}

/* From exclusive to shared, without a gap. */
static int downgrade(uint32_t lock)
{
	int why;
	if (lock >= num_locks())
		return -EINVAL;
	if (!segment.has_cells)
		return -EOPNOTSUPP;
	uint64_t *word = slot(lock), seen = LOAD(word);
	if ((seen & OWNER) != holder() || drains(seen))
		return -EPERM;
	uint64_t *cell = claim_cell(lock, 0, &why);
	if (cell == NULL)
		return why;
	bool starves;
	do {
		seen = LOAD(word);
		starves = (seen & STARVING) && a_reader_starves(lock);
	} while (!swap_in_order(word, seen, seen & STARVING ? RESERVED | STARVING | WAITERS : STARVING));
	note_reading(lock, cell);
	put_into_holders_name(cell);
	wake_after(word, seen, starves);
	return 0;
}

#endif
