// SPDX-License-Identifier: MIT OR Apache-2.0
/*
 * Shared locks among two implementations of the segment format, or among processes of one.
 *
 *   readers A B C
 *
 * Each is peer.c or guest.c. The first makes the segments. What is checked is what they answer, and the words and cells
 * in the segment, as docs/segment-format.md has them.
 */
#define _GNU_SOURCE
#include "deaths.h"
#include "table.h"
#include "waits.h"

static void readers_are_in_together(void)
{
	struct stage stage = new_stage();
	CHECK_INT(ask(stage.a, "share 7"), 0);
	CHECK_INT(ask(stage.b, "share 7"), 0);
	CHECK_INT(ask(stage.c, "share-try 7"), 0);
	CHECK_INT(word(&stage, 7), STARVING);
	CHECK_INT(cells_taken(&stage, 7), 3);
	/* No second time, no upgrade, and no exclusive lock is held. */
	CHECK_INT(ask(stage.a, "share 7"), -EDEADLK);
	CHECK_INT(ask(stage.b, "lock 7"), -EDEADLK);
	CHECK_INT(ask(stage.a, "share-try 7"), -EBUSY);
	CHECK_INT(ask(stage.b, "try 7"), -EBUSY);
	CHECK_INT(ask(stage.b, "unlock 7"), -EPERM);
	CHECK_INT(ask(stage.a, "downgrade 7"), -EPERM);
	CHECK_INT(ask(stage.a, "unshare 7"), 0);
	CHECK_INT(ask(stage.a, "unshare 7"), -EPERM);
	CHECK_INT(ask(stage.b, "unshare 7"), 0);
	CHECK_INT(ask(stage.c, "unshare 7"), 0);
	/* Readers leave the word as it is; a writer takes STARVING away. */
	CHECK_INT(word(&stage, 7), STARVING);
	CHECK_INT(cells_taken(&stage, 7), 0);
	CHECK_INT(ask(stage.b, "try 7"), 0);
	CHECK_INT(ask(stage.b, "unshare 7"), -EPERM);
	CHECK_INT(ask(stage.b, "share 7"), -EDEADLK);
	CHECK_INT(ask(stage.b, "unlock 7"), 0);
	CHECK_INT(word(&stage, 7), 0);
	CHECK_INT(ask(stage.a, "share 2048"), -EINVAL);
	CHECK_INT(ask(stage.b, "share 2048"), -EINVAL);
	end_stage(&stage);
}

static void a_reader_keeps_a_writer_out(void)
{
	struct stage stage = new_stage();
	CHECK_INT(ask(stage.a, "share 7"), 0);
	CHECK_INT(ask(stage.b, "try 7"), -EBUSY);
	/* A try that fails has kept no reader out. */
	CHECK_INT(word(&stage, 7), STARVING);
	CHECK_INT(ask(stage.b, "timed 7 20"), -ETIMEDOUT);
	CHECK_INT(word(&stage, 7) & (OWNER | RESERVED | STARVING), STARVING);
	tell(stage.b, "lock 7");
	await_drain(&stage, 7);
	/* Behind a writer that waits nobody gets in. */
	CHECK_INT(ask(stage.c, "share-try 7"), -EBUSY);
	CHECK_INT(ask(stage.c, "share-timed 7 20"), -ETIMEDOUT);
	CHECK_INT(ask(stage.c, "try 7"), -EBUSY);
	CHECK(!has_answered(stage.b));
	CHECK_INT(ask(stage.a, "unshare 7"), 0);
	CHECK_INT(answer(stage.b), 0);
	CHECK_INT(word(&stage, 7) & RESERVED, 0);
	CHECK_INT(ask(stage.b, "unlock 7"), 0);
	CHECK_INT(ask(stage.c, "try 7"), 0);
	CHECK_INT(ask(stage.c, "unlock 7"), 0);
	end_stage(&stage);
}

static void a_writer_keeps_readers_out(void)
{
	struct stage stage = new_stage();
	CHECK_INT(ask(stage.a, "lock 7"), 0);
	CHECK_INT(ask(stage.b, "share-try 7"), -EBUSY);
	CHECK_INT(ask(stage.b, "share-timed 7 20"), -ETIMEDOUT);
	CHECK_INT(cells_taken(&stage, 7), 0);
	tell(stage.b, "share 7");
	tell(stage.c, "share 7");
	await_waiter(&stage, 7);
	CHECK(!has_answered(stage.b));
	CHECK_INT(ask(stage.a, "unlock 7"), 0);
	CHECK_INT(answer(stage.b), 0);
	CHECK_INT(answer(stage.c), 0);
	CHECK_INT(ask(stage.a, "try 7"), -EBUSY);
	CHECK_INT(ask(stage.b, "unshare 7"), 0);
	CHECK_INT(ask(stage.c, "unshare 7"), 0);
	end_stage(&stage);
}

/* Held locks name the process, and a drain its thread. */
static void a_process_reads_and_writes(void)
{
	struct stage stage = new_stage();
	CHECK_INT(ask(stage.a, "owned-by-process 1"), 0);
	CHECK_INT(ask(stage.b, "owned-by-process 1"), 0);
	CHECK_INT(ask(stage.a, "readers 7 3"), 3);
	for (int n = 0; n < SLOT_CELLS; n++)
		CHECK_INT(serial_of(cell(&stage, 7, n)), 0);
	/* Threads may end, and any other may unlock. */
	CHECK_INT(ask(stage.a, "readers-end"), 0);
	CHECK_INT(ask(stage.c, "try 7"), -EBUSY);
	tell(stage.b, "lock 7");
	await_drain(&stage, 7);
	CHECK(serial_of(word(&stage, 7)) != 0);
	CHECK_INT(ask(stage.a, "unshare 7"), 0);
	CHECK_INT(ask(stage.a, "unshare 7"), 0);
	CHECK(!has_answered(stage.b));
	CHECK_INT(ask(stage.a, "unshare 7"), 0);
	CHECK_INT(ask(stage.a, "unshare 7"), -EPERM);
	CHECK_INT(answer(stage.b), 0);
	CHECK_INT(serial_of(word(&stage, 7)), 0);
	CHECK_INT(ask(stage.b, "downgrade 7"), 0);
	CHECK_INT(ask(stage.c, "share 7"), 0);
	CHECK_INT(ask(stage.b, "timed 7 20"), -ETIMEDOUT);
	CHECK_INT(ask(stage.b, "unshare 7"), 0);
	CHECK_INT(ask(stage.c, "unshare 7"), 0);
	/* As a process it dies, too. */
	CHECK_INT(ask(stage.a, "readers 7 6"), 6);
	CHECK_INT(ask(stage.a, "share 8"), 0);
	CHECK_INT(ask(stage.a, "lock 9"), 0);
	kill_peer(stage.a);
	CHECK_INT(ask(stage.b, "lock 7"), 0);
	CHECK_INT(ask(stage.c, "lock 8"), 0);
	CHECK_INT(ask(stage.c, "share 9"), TOLD_OF_DEATH);
	stage.a = enter(program[0], stage.path);
	CHECK_INT(ask(stage.b, "unlock 7"), 0);
	end_stage(&stage);
}

static void a_writer_becomes_a_reader_without_a_gap(void)
{
	struct stage stage = new_stage();
	CHECK_INT(ask(stage.a, "lock 7"), 0);
	tell(stage.b, "lock 7");
	await_waiter(&stage, 7);
	tell(stage.c, "share 7");
	await_starving(&stage, 7, 1);
	await_word(&stage, 7, 1, STARVING, STARVING);
	CHECK_INT(ask(stage.a, "downgrade 7"), 0);
	/* The writer drains at last, before the reader is in or when it is. */
	await_drain(&stage, 7);
	CHECK(!has_answered(stage.b));
	CHECK_INT(ask(stage.a, "unlock 7"), -EPERM);
	CHECK_INT(ask(stage.a, "unshare 7"), 0);
	both_have_it(stage.b, "unlock 7", stage.c, "unshare 7");
	CHECK_INT(ask(stage.b, "lock 7"), 0);
	CHECK_INT(ask(stage.b, "downgrade 7"), 0);
	CHECK_INT(word(&stage, 7) & (OWNER | OWNER_DIED | STARVING), STARVING);
	CHECK_INT(ask(stage.c, "share-try 7"), 0);
	/* As a reader dies that was a writer. */
	kill_peer(stage.b);
	CHECK_INT(ask(stage.c, "unshare 7"), 0);
	CHECK_INT(ask(stage.c, "lock 7"), 0);
	stage.b = enter(program[1], stage.path);
	end_stage(&stage);
}

static void writers_are_alone_and_readers_see_nothing_change(void)
{
	enum { ROUNDS = 4000, WRITERS = 3, SCORED = 3 };
	struct stage stage = new_stage();
	struct peer more[3] = { enter(program[0], stage.path), enter(program[1], stage.path), enter(program[2], stage.path) };
	tell(stage.a, "count 0 3 4000 1");
	tell(stage.b, "count 0 3 4000 2");
	tell(stage.c, "share-count 0 3 4000 3");
	tell(more[0], "share-count 0 3 4000 3");
	tell(more[1], "share-count 0 3 4000 3");
	CHECK_INT(answer(stage.a), 0);
	CHECK_INT(answer(stage.b), 0);
	CHECK_INT(answer(stage.c), 0);
	CHECK_INT(answer(more[0]), 0);
	CHECK_INT(answer(more[1]), 0);
	for (uint32_t lock = 0; lock < SCORED; lock++) {
		CHECK_INT(scores->of[lock].count, WRITERS * (ROUNDS / SCORED + (lock < ROUNDS % SCORED)));
		CHECK_INT(*(slot(&stage, lock) + 1) >> 16, scores->of[lock].count);
	}
	for (int i = 0; i < 3; i++)
		end_peer(more[i]);
	end_stage(&stage);
}

static void a_removed_segment_is_refused(void)
{
	enum { RETIRED = 256 };
	struct stage stage = new_stage();
	CHECK_INT(ask(stage.a, "share 7"), 0);
	tell(stage.b, "lock 7");
	await_drain(&stage, 7);
	tell(stage.c, "share 7");
	await_word(&stage, 7, 1, RESERVED | WAITERS, RESERVED | WAITERS);
	REQUIRE(unlink(stage.path) == 0);
	__atomic_store_n((uint32_t *)(void *)(stage.map + RETIRED), 2, __ATOMIC_SEQ_CST);
	CHECK_INT(answer(stage.b), -ESTALE);
	CHECK_INT(answer(stage.c), -ESTALE);
	CHECK_INT(ask(stage.b, "share-try 8"), -ESTALE);
	CHECK_INT(ask(stage.c, "share 8"), -ESTALE);
	CHECK_INT(ask(stage.a, "unshare 7"), 0);
	end_stage(&stage);
}

/* What would be a reader in version 2 is a free lock in version 1. */
static void a_segment_of_version_1_has_exclusive_locks_only(void)
{
	char path[NAME_SIZE + sizeof "/dev/shm"];
	snprintf(path, sizeof path, "%s", file_of(new_name()));
	int made = -EOPNOTSUPP;
	for (int i = 0; i < 3 && made == -EOPNOTSUPP; i++)
		made = make(program[i], path, 1);
	if (made == -EOPNOTSUPP)
		SKIP("nobody here makes one");
	REQUIRE(made == 0);
	struct peer a = enter(program[0], path), b = enter(program[1], path), c = enter(program[2], path);
	CHECK_INT(ask(a, "share 7"), -EOPNOTSUPP);
	CHECK_INT(ask(b, "share-try 7"), -EOPNOTSUPP);
	CHECK_INT(ask(c, "share-timed 7 10"), -EOPNOTSUPP);
	CHECK_INT(ask(a, "lock 7"), 0);
	CHECK_INT(ask(a, "downgrade 7"), -EOPNOTSUPP);
	CHECK_INT(ask(b, "try 7"), -EBUSY);
	CHECK_INT(ask(b, "timed 7 20"), -ETIMEDOUT);
	tell(b, "lock 7");
	CHECK_INT(ask(a, "unlock 7"), 0);
	CHECK_INT(answer(b), 0);
	kill_peer(b);
	CHECK_INT(ask(c, "lock 7"), TOLD_OF_DEATH);
	CHECK_INT(ask(c, "unlock 7"), 0);
	memset(scores, 0, sizeof *scores);
	tell(a, "count 0 3 5000 2");
	tell(c, "count 0 3 5000 2");
	CHECK_INT(answer(a), 0);
	CHECK_INT(answer(c), 0);
	CHECK_INT(scores->of[0].count + scores->of[1].count + scores->of[2].count, 20000);
	end_peer(a);
	end_peer(c);
}

static void what_a_program_does_not_know_it_refuses(void)
{
	enum { VERSION = 8, FEATURES = 48 };
	struct stage stage = new_stage();
	end_stage(&stage);
	for (int bit = 0; bit < 64; bit += 21) {
		*at(&stage, FEATURES) = UINT64_C(1) << bit;
		for (int i = 0; i < 3; i++) {
			struct peer peer = start_peer(program[i], stage.path, scores_fd, 0);
			CHECK_INT(answer(peer), -EPROTO);
			end_peer(peer);
		}
	}
	*at(&stage, FEATURES) = 0;
	*(uint32_t *)(void *)(stage.map + VERSION) = 3;
	for (int i = 0; i < 3; i++) {
		struct peer peer = start_peer(program[i], stage.path, scores_fd, 0);
		CHECK_INT(answer(peer), -EPROTO);
		end_peer(peer);
	}
}

int main(int arguments, char **argument)
{
	if (arguments != 4)
		return 2;
	for (int i = 0; i < 3; i++)
		program[i] = argument[1 + i];
	scores_fd = memfd_create("scores", 0);
	REQUIRE(scores_fd >= 0 && ftruncate(scores_fd, sizeof *scores) == 0);
	scores = mmap(NULL, sizeof *scores, PROT_READ | PROT_WRITE, MAP_SHARED, scores_fd, 0);
	REQUIRE(scores != MAP_FAILED);
	RUN_TEST(readers_are_in_together);
	RUN_TEST(a_reader_keeps_a_writer_out);
	RUN_TEST(a_writer_keeps_readers_out);
	RUN_TEST(a_killed_reader_is_told_to_nobody);
	RUN_TEST(a_stopped_reader_is_not_robbed);
	RUN_TEST(every_reader_is_told_of_a_writers_death_until_a_writer_is);
	RUN_TEST(a_writer_that_is_killed_while_it_drains_is_told_to_nobody);
	RUN_TEST(a_writer_goes_on_with_the_drain_of_a_dead_one);
	RUN_TEST(a_stopped_writer_that_drains_loses_its_place);
	RUN_TEST(readers_that_starve_have_a_phase_of_their_own);
	RUN_TEST(a_starving_reader_that_is_stopped_holds_nobody_up);
	RUN_TEST(a_starving_reader_may_leave);
	RUN_TEST(a_starving_reader_may_be_killed);
	RUN_TEST(neither_kind_starves_the_other);
	RUN_TEST(more_readers_than_a_slot_has_cells_stand_in_the_table);
	RUN_TEST(places_of_the_table_change_locks);
	RUN_TEST(a_crowd_leaves_no_room_for_one_more);
	RUN_TEST(threads_that_end_leave_no_reader);
	RUN_TEST(a_process_reads_and_writes);
	RUN_TEST(a_writer_becomes_a_reader_without_a_gap);
	RUN_TEST(two_readers_that_want_to_write_what_the_other_reads);
	RUN_TEST(a_deadlock_through_one_of_two_readers_is_found);
	RUN_TEST(readers_that_only_look_make_no_cycle);
	RUN_TEST(writers_are_alone_and_readers_see_nothing_change);
	RUN_TEST(deaths_in_the_midst_of_it_let_nobody_in_beside_a_writer);
	RUN_TEST(generations_may_begin_again);
	RUN_TEST(a_removed_segment_is_refused);
	RUN_TEST(a_segment_of_version_1_has_exclusive_locks_only);
	RUN_TEST(what_a_program_does_not_know_it_refuses);
	return end_of_tests();
}
