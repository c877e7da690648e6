/* SPDX-License-Identifier: MIT OR Apache-2.0
 *
 * One lock and two processes, as C sees them: exclusion, deaths, refusals, forks.
 */
#define _GNU_SOURCE
#include <pthread.h>

#include "holder.h"

static const uint64_t MILLISECOND_NS = 1000000;

static void increments_under_a_lock_are_not_lost(void)
{
	enum { PROCESSES = 2, ROUNDS = 30000 };
	/* Not atomic on purpose: volatile only keeps the compiler from adding up at once. */
	volatile unsigned *counter = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	REQUIRE(counter != MAP_FAILED);
	lock_manager_t *manager = new_segment(new_name(), 32);
	pid_t children[PROCESSES];
	for (int i = 0; i < PROCESSES; i++) {
		children[i] = fork_child();
		if (children[i] != 0)
			continue;
		for (int round = 0; round < ROUNDS; round++) {
			REQUIRE(lock_manager_lock(manager, 7) == 0);
			*counter = *counter + 1;
			REQUIRE(lock_manager_unlock(manager, 7) == 0);
		}
		end_child();
	}
	for (int i = 0; i < PROCESSES; i++)
		check_child_ended_well(children[i]);
	CHECK_INT(*counter, PROCESSES * ROUNDS);
	CHECK_INT(lock_manager_close(manager), 0);
	munmap((void *)(uintptr_t)counter, 4096);
}

static void a_holders_death_is_told_once(void)
{
	lock_manager_t *manager = new_segment(new_name(), 32);
	pid_t holder = fork_holder(manager, 7, 1);
	CHECK_INT(lock_manager_try_lock(manager, 7), -EBUSY);
	kill_child(holder);
	CHECK_INT(lock_manager_try_lock(manager, 7), LOCK_MANAGER_OWNER_DIED);
	CHECK_INT(lock_manager_unlock(manager, 7), 0);
	CHECK_INT(lock_manager_lock(manager, 7), 0);
	CHECK_INT(lock_manager_unlock(manager, 7), 0);
	CHECK_INT(lock_manager_close(manager), 0);
}

static void a_waiter_is_told_of_its_holders_death(void)
{
	lock_manager_t *manager = new_segment(new_name(), 32);
	pid_t holder = fork_holder(manager, 7, 1);
	pid_t waiter = fork_child();
	if (waiter == 0) {
		CHECK_INT(lock_manager_lock(manager, 7), LOCK_MANAGER_OWNER_DIED);
		CHECK_INT(lock_manager_unlock(manager, 7), 0);
		end_child();
	}
	await_sleep(waiter);
	kill_child(holder);
	check_child_ended_well(waiter);
	CHECK_INT(lock_manager_try_lock(manager, 7), 0);
	CHECK_INT(lock_manager_unlock(manager, 7), 0);
	CHECK_INT(lock_manager_close(manager), 0);
}

static void a_waiter_that_is_killed_takes_nothing_with_it(void)
{
	lock_manager_t *manager = new_segment(new_name(), 32);
	CHECK_INT(lock_manager_lock(manager, 7), 0);
	pid_t waiter = fork_child();
	if (waiter == 0) {
		lock_manager_lock(manager, 7);
		end_child();
	}
	await_sleep(waiter);
	kill_child(waiter);
	CHECK_INT(lock_manager_unlock(manager, 7), 0);
	CHECK_INT(lock_manager_lock(manager, 7), 0);
	CHECK_INT(lock_manager_unlock(manager, 7), 0);
	CHECK_INT(lock_manager_close(manager), 0);
}

static void only_the_holder_unlocks(void)
{
	const char *name = new_name();
	lock_manager_t *manager = new_segment(name, 32), *other = open_segment(name);
	pid_t holder = fork_holder(manager, 7, 1);
	CHECK_FAILURE(lock_manager_unlock(manager, 7), -EPERM, name);
	kill_child(holder);
	CHECK_FAILURE(lock_manager_unlock(manager, 7), -EPERM, name);
	CHECK_INT(lock_manager_lock(manager, 7), LOCK_MANAGER_OWNER_DIED);
	/* Not even the holder, if it comes by another manager. */
	CHECK_FAILURE(lock_manager_unlock(other, 7), -EPERM, name);
	CHECK_INT(lock_manager_try_lock(other, 7), -EBUSY);
	CHECK_INT(lock_manager_unlock(manager, 7), 0);
	CHECK_FAILURE(lock_manager_unlock(manager, 7), -EPERM, "7");
	CHECK_INT(lock_manager_close(other), 0);
	CHECK_INT(lock_manager_close(manager), 0);
}

static void a_holder_that_asks_again_is_told_of_the_deadlock(void)
{
	const char *name = new_name();
	lock_manager_t *manager = new_segment(name, 32), *other = open_segment(name);
	CHECK_INT(lock_manager_lock(manager, 7), 0);
	for (int i = 0; i < 2; i++) {
		lock_manager_t *asked = i ? other : manager;
		CHECK_FAILURE(lock_manager_lock(asked, 7), -EDEADLK, name);
		CHECK_FAILURE(lock_manager_timed_lock(asked, 7, UINT64_MAX), -EDEADLK, name);
		CHECK_FAILURE(lock_manager_timed_lock(asked, 7, 0), -EDEADLK, name);
		CHECK_FAILURE(lock_manager_try_lock(asked, 7), -EBUSY, name);
	}
	CHECK_INT(lock_manager_unlock(manager, 7), 0);
	CHECK_INT(lock_manager_close(other), 0);
	CHECK_INT(lock_manager_close(manager), 0);
}

static void a_timed_wait_ends_when_its_time_is_up(void)
{
	const char *name = new_name();
	lock_manager_t *manager = new_segment(name, 32);
	pid_t holder = fork_holder(manager, 7, 1);
	uint64_t before = monotonic_ns();
	CHECK_FAILURE(lock_manager_timed_lock(manager, 7, 0), -ETIMEDOUT, name);
	CHECK_FAILURE(lock_manager_timed_lock(manager, 7, 120 * MILLISECOND_NS), -ETIMEDOUT, name);
	uint64_t waited = monotonic_ns() - before;
	CHECK(waited >= 120 * MILLISECOND_NS);
	CHECK(waited < 10000 * MILLISECOND_NS);
	CHECK_INT(lock_manager_timed_lock(manager, 8, 0), 0);
	CHECK_INT(lock_manager_unlock(manager, 8), 0);
	kill_child(holder);
	CHECK_INT(lock_manager_timed_lock(manager, 7, 0), LOCK_MANAGER_OWNER_DIED);
	CHECK_INT(lock_manager_unlock(manager, 7), 0);
	CHECK_INT(lock_manager_close(manager), 0);
}

static void a_forked_child_holds_nothing_and_frees_nothing(void)
{
	lock_manager_t *manager = new_segment(new_name(), 32);
	CHECK_INT(lock_manager_lock(manager, 7), 0);
	pid_t child = fork_child();
	if (child == 0) {
		CHECK_INT(lock_manager_unlock(manager, 7), -EPERM);
		CHECK_INT(lock_manager_try_lock(manager, 7), -EBUSY);
		CHECK_INT(lock_manager_timed_lock(manager, 7, MILLISECOND_NS), -ETIMEDOUT);
		CHECK_INT(lock_manager_lock(manager, 8), 0);
		CHECK_INT(lock_manager_unlock(manager, 8), 0);
		CHECK_INT(lock_manager_close(manager), 0);
		/* All that a child runs at its end, the parent's atexit functions included. */
		exit(checks_failed ? CHILD_FAILED : 0);
	}
	check_child_ended_well(child);
	lock_manager_lock_info_t info = { .size = sizeof info };
	CHECK_INT(lock_manager_lock_info(manager, 7, &info), 0);
	CHECK_INT(info.held, 1);
	CHECK_INT(info.pid, getpid());
	CHECK_INT(info.tid, own_tid());
	CHECK_INT(lock_manager_unlock(manager, 7), 0);
	CHECK_INT(lock_manager_close(manager), 0);
}

static pid_t waiter_tid;
static struct signpost waiter_started;

static void *wait_for_lock_7(void *manager)
{
	waiter_tid = own_tid();
	say(waiter_started);
	CHECK_INT(lock_manager_unlock(manager, 7), -EPERM);
	CHECK_INT(lock_manager_lock(manager, 7), LOCK_MANAGER_OWNER_DIED);
	CHECK_INT(lock_manager_unlock(manager, 7), 0);
	return NULL;
}

static void a_manager_in_use_is_not_closed(void)
{
	const char *name = new_name();
	lock_manager_t *manager = new_segment(name, 32);
	CHECK_INT(lock_manager_lock(manager, 3), 0);
	CHECK_FAILURE(lock_manager_close(manager), -EBUSY, name);
	CHECK_INT(lock_manager_unlock(manager, 3), 0);

	pid_t holder = fork_holder(manager, 7, 1);
	pthread_t waiter;
	waiter_started = new_signpost();
	REQUIRE(pthread_create(&waiter, NULL, wait_for_lock_7, manager) == 0);
	await(waiter_started);
	await_sleep(waiter_tid);
	CHECK_FAILURE(lock_manager_close(manager), -EBUSY, name);
	kill_child(holder);
	REQUIRE(pthread_join(waiter, NULL) == 0);
	close_signpost(waiter_started);
	CHECK_INT(lock_manager_close(manager), 0);
}

int main(void)
{
	RUN_TEST(increments_under_a_lock_are_not_lost);
	RUN_TEST(a_holders_death_is_told_once);
	RUN_TEST(a_waiter_is_told_of_its_holders_death);
	RUN_TEST(a_waiter_that_is_killed_takes_nothing_with_it);
	RUN_TEST(only_the_holder_unlocks);
	RUN_TEST(a_holder_that_asks_again_is_told_of_the_deadlock);
	RUN_TEST(a_timed_wait_ends_when_its_time_is_up);
	RUN_TEST(a_forked_child_holds_nothing_and_frees_nothing);
	RUN_TEST(a_manager_in_use_is_not_closed);
	return end_of_tests();
}
