// SPDX-License-Identifier: MIT OR Apache-2.0
/* Of peer.c: locks, waits and deadlocks. */
#ifndef FORMAT_PEER_LOCKS_H
#define FORMAT_PEER_LOCKS_H

#include "peer_members.h"

static int unlock_word(uint64_t *word, bool died)
{
	uint64_t seen = LOAD(word), to;
	do {
		if ((seen & OWNER) != own_owner())
			return -EPERM;
		to = died ? D | (seen & W) : seen & S ? R | W : 0;
	} while (!__atomic_compare_exchange_n(word, &seen, to, false, __ATOMIC_RELEASE, __ATOMIC_RELAXED));
	self.woke = 0;
	/* Those who have waited longest first. */
	for (uint32_t class = seen & S ? 16 : 0; class != 0 && self.woke == 0; class /= 2)
		self.woke = wake_one(word, class);
	if (self.woke == 0 && (seen & (S | W)))
		self.woke = wake_any(word);
	return 0;
}

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

struct step { uint64_t lock, owner, wants; };

/* From one's own wish back to oneself; how many steps that takes, or 0. */
static size_t walk(uint32_t lock, struct step *steps)
{
	for (size_t n = 0; n < 8192 && lock < num_locks(); n++) {
		uint64_t word = LOAD(slot(lock)), *record = NULL;
		steps[n] = (struct step){ lock, word & OWNER, 0 };
		if ((word & OWNER) == self.owner)
			return n + 1;
		if ((word & ENTRY) == 0 || (word >> 32 & 0x3fffff) == 0 || !page_is_usable((word & ENTRY) / 64, false) ||
		    !lives_by_state(LOAD(entry_at(word & ENTRY)), word) ||
		    (record = find_record(word & OWNER, false)) == NULL)
			return 0;
		steps[n].wants = LOAD(record + 2);
		if ((uint32_t)steps[n].wants == 0 || LOAD(record) != (word & OWNER))
			return 0;
		lock = (uint32_t)steps[n].wants - 1;
	}
	return 0;
}

static bool closes_a_cycle(uint32_t lock)
{
	static _Thread_local struct step once[8192], again[8192];
	uint64_t *detector = at64(DETECTOR), seen = LOAD(detector);
	if (!segment.walks || self.record == NULL || walk(lock, once) == 0)
		return false;
	if ((seen & ENTRY) != 0 && !holder_is_dead(seen))
		return false;
	if (!swap(detector, seen, self.owner | (seen & W)))
		return false;
	size_t length = walk(lock, once);
	bool closed = length != 0 && walk(lock, again) == length && memcmp(once, again, length * sizeof *once) == 0;
	/* The dead wait for nobody, though until somebody finds them dead it looks as if they did. The last is oneself. */
	for (size_t n = 0; closed && n < length - 1; n++)
		closed = !holder_is_dead(once[n].owner);
	if (closed)
		take_wish_back();
	unlock_word(detector, false);
	return closed;
}

/* Until a deadline; 0 tries. */
static int lock_until(uint32_t lock, uint64_t deadline)
{
	uint64_t own = own_owner();
	if (lock >= num_locks())
		return -EINVAL;
	if (is_removed())
		return -ESTALE;
	uint64_t *word = slot(lock), *note = word + 1, *looked = word + 2, began = now_ns();
	bool slept = false, woken = false, reserved_long = false, wished = false, gives_way = false;
	int result;
	self.was_woken = false;
	for (;;) {
		uint64_t seen = LOAD(word), now = now_ns();
		bool last = gives_way || now >= deadline;
		if (last && wished)
			take_wish_back();
		if ((seen & ENTRY) == 0 && (!(seen & R) || woken || reserved_long || last)) {
			/* Who slept cannot know whether others still do: the unlock took W away. */
			if (!swap(word, seen, own | (slept ? W : seen & W)))
				continue;
			result = seen & D ? OWNER_DIED : 0;
			break;
		}
		if ((seen & OWNER) == own) {
			result = deadline == 0 ? -EBUSY : -EDEADLK;
			break;
		}
		uint64_t last_look = LOAD(looked);
		/* Of many that wait, one looks; the difference is large, too, where the other clock is ahead. */
		if ((seen & ENTRY) != 0 && (last || (slept && now - last_look >= SLICE && swap(looked, last_look, now))) &&
		    holder_is_dead(seen)) {
			if (!swap(word, seen, own | W))
				continue;
			result = OWNER_DIED;
			break;
		}
		result = gives_way ? -EDEADLK : deadline == 0 ? -EBUSY : last ? -ETIMEDOUT : is_removed() ? -ESTALE : 0;
		if (result != 0)
			break;
		if (slept && !wished) {
			wish_for(lock, began);
			wished = true;
		}
		if (wished && closes_a_cycle(lock)) {
			gives_way = true;
			continue;
		}
		uint64_t starves = (seen & ENTRY) != 0 && now - began >= 2 * MILLISECOND ? S : 0, waits = seen | W | starves;
		if (waits != seen && !swap(word, seen, waits))
			continue;
		uint64_t count = LOAD(note), end = now + (slept ? SLICE : 2 * MILLISECOND);
		int error = sleep_on(word, waits, end < deadline ? end : deadline, classes_after(now - began));
		/* Where the word had changed, nobody slept, and a wake-up that came before is still to be used. */
		slept = slept || error != EAGAIN;
		self.was_woken = woken = error == 0 || (woken && error == EAGAIN);
		reserved_long = error == ETIMEDOUT && (waits & R) && LOAD(note) == count;
	}
	if (result >= 0) {
		/* The lowest 16 bits are the holder's own, and this one has no use for them. */
		STORE(note, ((LOAD(note) >> 16) + 1) << 16);
		if (is_removed()) {
			unlock_word(word, result == OWNER_DIED);
			result = -ESTALE;
		}
	} else if (woken) {
		/* The wake-up was for whoever takes the lock, and that is not this one. */
		wake_any(word);
	}
	if (wished)
		take_wish_back();
	return result;
}

static int unlock(uint32_t lock)
{
	return lock < num_locks() ? unlock_word(slot(lock), false) : -EINVAL;
}

#endif
