// SPDX-License-Identifier: MIT OR Apache-2.0
/* What peer.c and host.c both write while they hold a lock: it shows whether somebody else did. */
#ifndef FORMAT_PEER_SCORES_H
#define FORMAT_PEER_SCORES_H

#include <sched.h>
#include <stdint.h>

enum { SCORED_LOCKS = 64 };

/* Not atomic on purpose: volatile only keeps the compiler from adding up at once. */
struct scores {
	volatile uint32_t stop;
	struct score {
		volatile uint32_t inside, count;
	} of[SCORED_LOCKS];
};

/* Once under the lock; says how often somebody else was seen there. After a death nothing is left of the dead one. */
static inline unsigned write_score(struct score *score, int owner_died, uint32_t who)
{
	if (owner_died)
		score->inside = 0;
	unsigned others = score->inside != 0;
	score->inside = who;
	/* Now and then long enough that the others have to wait. */
	if (score->count % 32 == 0)
		sched_yield();
	score->count = score->count + 1;
	others += score->inside != who;
	score->inside = 0;
	return others;
}

/* Once under the lock, shared; says how often somebody wrote meanwhile. */
static inline unsigned read_score(struct score *score, int owner_died, uint32_t round)
{
	uint32_t count = score->count;
	unsigned others = !owner_died && score->inside != 0;
	if (round % 32 == 0)
		sched_yield();
	others += (!owner_died && score->inside != 0) || score->count != count;
	return others;
}

#endif
