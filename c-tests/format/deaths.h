// SPDX-License-Identifier: MIT OR Apache-2.0
/* Of readers.c: actors that are killed or stopped, and threads that end. */
#ifndef FORMAT_DEATHS_H
#define FORMAT_DEATHS_H

#include "stage.h"

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
	CHECK_INT(answer(stage.b), TOLD_OF_DEATH);
	CHECK_INT(ask(stage.c, "share 7"), TOLD_OF_DEATH);
	CHECK_INT(ask(stage.b, "unshare 7"), 0);
	CHECK_INT(ask(stage.b, "share-try 7"), TOLD_OF_DEATH);
	CHECK_INT(word(&stage, 7) & (OWNER | OWNER_DIED | RESERVED | STARVING), OWNER_DIED | STARVING);
	/* A try takes nothing away. */
	CHECK_INT(ask(stage.b, "share-try 8"), TOLD_OF_DEATH);
	CHECK_INT(ask(stage.c, "try 8"), -EBUSY);
	CHECK_INT(ask(stage.c, "timed 8 20"), -ETIMEDOUT);
	CHECK_INT(ask(stage.c, "try 9"), TOLD_OF_DEATH);
	CHECK_INT(ask(stage.b, "unshare 7"), 0);
	CHECK_INT(ask(stage.c, "unshare 7"), 0);
	CHECK_INT(ask(stage.b, "unshare 8"), 0);
	stage.a = enter(program[0], stage.path);
	CHECK_INT(ask(stage.a, "lock 7"), TOLD_OF_DEATH);
	CHECK_INT(ask(stage.c, "lock 8"), TOLD_OF_DEATH);
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
		await_word(&stage, 7, 1, RESERVED | WAITERS, RESERVED | WAITERS);
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
	await_word(&stage, 7, 1, RESERVED | WAITERS, RESERVED | WAITERS);
	kill_peer(stage.a);
	while ((word(&stage, 7) & OWNER) == first || !(word(&stage, 7) & RESERVED))
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

static void await_rounds(uint32_t rounds)
{
	for (uint32_t begin = scores->of[0].count; scores->of[0].count - begin < rounds;)
		sched_yield();
}

static void deaths_in_the_midst_of_it_let_nobody_in_beside_a_writer(void)
{
	enum { DEATHS = 20 };
	struct stage stage = new_stage();
	tell(stage.a, "count 0 2 4000000000 1");
	tell(stage.b, "share-count 0 2 4000000000 1");
	tell(stage.c, "share-count 0 2 4000000000 1");
	for (int death = 0; death < DEATHS; death++) {
		struct peer victim = enter(program[death % 3], stage.path);
		tell(victim, death % 2 ? "share-count 0 2 4000000000 2" : "count 0 2 4000000000 1");
		await_rounds(3);
		kill_peer(victim);
	}
	scores->stop = 1;
	CHECK_INT(answer(stage.a), 0);
	CHECK_INT(answer(stage.b), 0);
	CHECK_INT(answer(stage.c), 0);
	end_stage(&stage);
}

#endif
