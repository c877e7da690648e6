// SPDX-License-Identifier: MIT OR Apache-2.0
/* Of readers.c: who starves, who goes first, and who would wait for ever. */
#ifndef FORMAT_WAITS_H
#define FORMAT_WAITS_H

#include "stage.h"

/* All readers that starve are let in together, before a writer that waits as well; the last of them wakes it. */
static void readers_that_starve_have_a_phase_of_their_own(void)
{
	struct stage stage = new_stage();
	CHECK_INT(ask(stage.a, "lock 7"), 0);
	tell(stage.b, "share 7");
	tell(stage.c, "share 7");
	await_starving(&stage, 7, 2);
	await_word(&stage, 7, 1, STARVING, STARVING);
	CHECK_INT(ask(stage.a, "unlock 7"), 0);
	CHECK_INT(answer(stage.b), 0);
	CHECK_INT(answer(stage.c), 0);
	/* Nobody else was there. */
	await_word(&stage, 7, 0, RESERVED | STARVING, STARVING);
	CHECK_INT(ask(stage.b, "unshare 7"), 0);

	CHECK_INT(ask(stage.c, "unshare 7"), 0);
	/* A writer does not stand back for more than a slice: on a busy machine it may be there first, and not every time. */
	int first = WRITER;
	for (int attempt = 0; attempt < ATTEMPTS && first == WRITER; attempt++) {
		CHECK_INT(ask(stage.a, "lock 7"), 0);
		tell(stage.c, "lock 7");
		await_waiter(&stage, 7);
		tell(stage.b, "share 7");
		await_starving(&stage, 7, 1);
		await_word(&stage, 7, 1, STARVING, STARVING);
		CHECK_INT(ask(stage.a, "unlock 7"), 0);
		first = both_have_it(stage.c, "unlock 7", stage.b, "unshare 7");
	}
	CHECK_INT(first, READER);
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
		await_word(&stage, 7, 1, STARVING, STARVING);
		CHECK_INT(kill(stage.b.pid, SIGSTOP), 0);
		if (writers)
			tell(stage.c, "lock 7");
		CHECK_INT(ask(stage.a, "unlock 7"), 0);
		if (writers) {
			CHECK_INT(answer(stage.c), 0);
			CHECK_INT(ask(stage.c, "unlock 7"), 0);
		} else {
			CHECK_INT(word(&stage, 7), RESERVED | STARVING | WAITERS);
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
	/* Seen while it starves, unless this process comes too late for that. */
	for (int seen = 0; !seen;) {
		tell(stage.b, "share-timed 7 40");
		while (!has_answered(stage.b) && !seen)
			seen = readers_that_starve(&stage, 7) == 1;
		if (!seen)
			CHECK_INT(answer(stage.b), -ETIMEDOUT);
	}
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

/* The one that gives way gives back what it has, and so the other gets what it waits for. Says which. */
static int settle(struct peer first, const char *first_gives, struct peer second, const char *second_gives)
{
	struct pollfd ready[2] = { { first.out, POLLIN, 0 }, { second.out, POLLIN, 0 } };
	REQUIRE(poll(ready, 2, -1) > 0);
	int victim = ready[0].revents ? 0 : 1;
	CHECK_INT(answer(victim ? second : first), -EDEADLK);
	CHECK_INT(ask(victim ? second : first, victim ? second_gives : first_gives), 0);
	CHECK_INT(answer(victim ? first : second), 0);
	return victim;
}

/* A peer that is told not to look for deadlocks leaves it to the other; the library always looks. */
static void let_one_look(struct peer silent, struct peer other)
{
	ask(silent, "walks 0");
	ask(other, "walks 1");
}

static void two_readers_that_want_to_write_what_the_other_reads(void)
{
	struct stage stage = new_stage();
	for (int round = 0; round < 2; round++) {
		let_one_look(round ? stage.a : stage.b, round ? stage.b : stage.a);
		CHECK_INT(ask(stage.a, "share 1"), 0);
		CHECK_INT(ask(stage.b, "share 2"), 0);
		tell(stage.a, "lock 2");
		await_drain(&stage, 2);
		tell(stage.b, "lock 1");
		if (settle(stage.a, "unshare 1", stage.b, "unshare 2") == 0) {
			CHECK_INT(ask(stage.b, "unlock 1"), 0);
			CHECK_INT(ask(stage.b, "unshare 2"), 0);
		} else {
			CHECK_INT(ask(stage.a, "unlock 2"), 0);
			CHECK_INT(ask(stage.a, "unshare 1"), 0);
		}
	}
	end_stage(&stage);
}

/* The way forks: one reader of lock 1 waits for nobody, the other for the writer that drains. */
static void a_deadlock_through_one_of_two_readers_is_found(void)
{
	struct stage stage = new_stage();
	for (int round = 0; round < 4; round++) {
		let_one_look(round % 2 ? stage.a : stage.c, round % 2 ? stage.c : stage.a);
		CHECK_INT(ask(stage.a, "lock 2"), 0);
		/* Either stands in the first place in turn. */
		CHECK_INT(ask(round / 2 ? stage.c : stage.b, "share 1"), 0);
		CHECK_INT(ask(round / 2 ? stage.b : stage.c, "share 1"), 0);
		tell(stage.a, "lock 1");
		await_drain(&stage, 1);
		tell(stage.c, "share 2");
		struct pollfd ready[2] = { { stage.a.out, POLLIN, 0 }, { stage.c.out, POLLIN, 0 } };
		REQUIRE(poll(ready, 2, -1) > 0);
		if (ready[0].revents) {
			CHECK_INT(answer(stage.a), -EDEADLK);
			CHECK_INT(ask(stage.a, "unlock 2"), 0);
			CHECK_INT(answer(stage.c), 0);
			CHECK_INT(ask(stage.c, "unshare 2"), 0);
			CHECK_INT(ask(stage.c, "unshare 1"), 0);
			CHECK_INT(ask(stage.b, "unshare 1"), 0);
		} else {
			CHECK_INT(answer(stage.c), -EDEADLK);
			CHECK_INT(ask(stage.c, "unshare 1"), 0);
			CHECK(!has_answered(stage.a));
			CHECK_INT(ask(stage.b, "unshare 1"), 0);
			CHECK_INT(answer(stage.a), 0);
			CHECK_INT(ask(stage.a, "unlock 1"), 0);
			CHECK_INT(ask(stage.a, "unlock 2"), 0);
		}
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
	both_have_it(stage.a, "unlock 1", stage.b, "unshare 1");
	end_stage(&stage);
}

#endif
