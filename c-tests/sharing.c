/* SPDX-License-Identifier: MIT OR Apache-2.0
 *
 * Shared locks and signal handlers that come in their midst: that call the library, end the thread, or jump away.
 */
#define _GNU_SOURCE
#include <pthread.h>
#include <setjmp.h>
#include <stdatomic.h>

#include "child.h"
#include "home.h"
#include "signals.h"

enum { LOCKS = 64, ROUNDS = 100, HANDLED = 3000, JUMPS = 3000 };

static const uint64_t patience_ns = 10000000000u;

static lock_manager_t *manager, *other;
static atomic_int ready;

static void make_homes(void)
{
	manager = new_home(new_name(), LOCKS);
	other = new_home(new_name(), LOCKS);
	atomic_store(&ready, 0);
	atomic_store(&stop, 0);
	atomic_store(&handled, 0);
}

static void close_homes(void)
{
	CHECK_INT(lock_manager_close(manager), 0);
	CHECK_INT(lock_manager_close(other), 0);
}

static void catch_signals(void (*handler)(int))
{
	struct sigaction action = { .sa_handler = handler };
	REQUIRE(sigaction(SIGUSR1, &action, NULL) == 0);
}

/* Nobody holds the lock, either way. */
static void check_free(uint32_t id)
{
	CHECK(lock_manager_timed_lock(manager, id, patience_ns) >= 0);
	CHECK_INT(lock_manager_unlock(manager, id), 0);
}

static void share_other_locks(int signal_number)
{
	(void)signal_number;
	CHECK_INT(lock_manager_try_lock_shared(other, 3), 0);
	CHECK_INT(lock_manager_try_lock_shared(other, 3), -EBUSY);
	CHECK_INT(lock_manager_unlock_shared(other, 3), 0);
	CHECK_INT(lock_manager_unlock_shared(other, 3), -EPERM);
	CHECK_INT(lock_manager_try_lock_shared(manager, 5), 0);
	CHECK_INT(lock_manager_try_lock(manager, 6), 0);
	CHECK_INT(lock_manager_unlock(manager, 6), 0);
	CHECK_INT(lock_manager_unlock_shared(manager, 5), 0);
	atomic_fetch_add(&handled, 1);
}

static void a_handler_shares_other_locks_whatever_it_interrupts(void)
{
	pthread_t sender;
	make_homes();
	for (uint32_t lock = 3; lock <= 6; lock++) {
		CHECK_INT(lock_manager_lock_shared(manager, lock), 0);
		CHECK_INT(lock_manager_unlock_shared(manager, lock), 0);
		CHECK_INT(lock_manager_lock_shared(other, lock), 0);
		CHECK_INT(lock_manager_unlock_shared(other, lock), 0);
	}
	catch_signals(share_other_locks);
	target = pthread_self();
	REQUIRE(pthread_create(&sender, NULL, send_signals, NULL) == 0);
	while (atomic_load(&handled) < HANDLED) {
		CHECK_INT(lock_manager_lock_shared(manager, 0), 0);
		CHECK_INT(lock_manager_lock_shared(manager, 1), 0);
		CHECK_INT(lock_manager_unlock_shared(manager, 0), 0);
		CHECK_INT(lock_manager_unlock_shared(manager, 1), 0);
		CHECK_INT(lock_manager_lock(manager, 0), 0);
		CHECK_INT(lock_manager_downgrade_lock(manager, 0), 0);
		CHECK_INT(lock_manager_unlock_shared(manager, 0), 0);
	}
	atomic_store(&stop, 1);
	REQUIRE(pthread_join(sender, NULL) == 0);
	for (uint32_t lock = 0; lock <= 6; lock++)
		check_free(lock);
	close_homes();
}

static void end_thread(int signal_number)
{
	(void)signal_number;
	pthread_exit(NULL);
}

static void *share(void *unused)
{
	atomic_store(&ready, 1);
	for (;;) {
		if (lock_manager_lock_shared(manager, 0) >= 0)
			lock_manager_unlock_shared(manager, 0);
		if (lock_manager_lock_shared(manager, 0) >= 0)
			lock_manager_unlock_shared(manager, 0);
		if (lock_manager_lock(manager, 0) >= 0 && lock_manager_downgrade_lock(manager, 0) == 0)
			lock_manager_unlock_shared(manager, 0);
	}
	return unused;
}

static void *share_to_be_cancelled(void *unused)
{
	pthread_setcanceltype(PTHREAD_CANCEL_ASYNCHRONOUS, NULL);
	return share(unused);
}

static int end_in_handler(pthread_t thread)
{
	return pthread_kill(thread, SIGUSR1);
}

/* Threads that end somewhere in shared calls leave nothing that keeps a writer out. */
static void end_threads(void *(*work)(void *), int (*end)(pthread_t))
{
	for (int round = 0; round < ROUNDS; round++) {
		pthread_t thread;
		struct timespec moment = { 0, round % 20 * 1000 };
		atomic_store(&ready, 0);
		REQUIRE(pthread_create(&thread, NULL, work, NULL) == 0);
		while (!atomic_load(&ready))
			sched_yield();
		nanosleep(&moment, NULL);
		REQUIRE(end(thread) == 0);
		REQUIRE(pthread_join(thread, NULL) == 0);
		check_free(0);
		CHECK_INT(lock_manager_lock_shared(manager, 0), 0);
		CHECK_INT(lock_manager_unlock_shared(manager, 0), 0);
	}
}

static void a_thread_that_ends_in_a_shared_call_keeps_nobody_out(void)
{
	make_homes();
	catch_signals(end_thread);
	end_threads(share, end_in_handler);
	end_threads(share_to_be_cancelled, pthread_cancel);
	close_homes();
}

static void *contend(void *unused)
{
	for (unsigned turn = 0; !atomic_load(&stop); turn++) {
		if (turn % 4 == 0) {
			if (lock_manager_lock(manager, 0) >= 0)
				lock_manager_unlock(manager, 0);
		} else if (lock_manager_lock_shared(manager, 0) >= 0) {
			lock_manager_unlock_shared(manager, 0);
		}
	}
	return unused;
}

static void a_thread_that_ends_among_readers_and_writers_keeps_nobody_out(void)
{
	pthread_t rivals[2];
	make_homes();
	catch_signals(end_thread);
	for (int i = 0; i < 2; i++)
		REQUIRE(pthread_create(&rivals[i], NULL, contend, NULL) == 0);
	end_threads(share, end_in_handler);
	end_threads(share_to_be_cancelled, pthread_cancel);
	atomic_store(&stop, 1);
	for (int i = 0; i < 2; i++)
		REQUIRE(pthread_join(rivals[i], NULL) == 0);
	close_homes();
}

static sigjmp_buf away;
static volatile sig_atomic_t may_jump;

static void jump_away(int signal_number)
{
	(void)signal_number;
	atomic_fetch_add(&handled, 1);
	if (may_jump) {
		may_jump = 0;
		siglongjmp(away, 1);
	}
}

/* Whatever instruction of a shared call it is, the thread knows afterwards whether it reads: what it was about to claim is no
 * hold, and keeps no writer out. */
static void a_jump_out_of_a_shared_call_leaves_a_hold_or_nothing(void)
{
	pthread_t sender;
	make_homes();
	CHECK_INT(lock_manager_lock_shared(manager, 0), 0);
	CHECK_INT(lock_manager_unlock_shared(manager, 0), 0);
	catch_signals(jump_away);
	target = pthread_self();
	REQUIRE(pthread_create(&sender, NULL, send_signals, NULL) == 0);
	for (volatile int jumps = 0; jumps < JUMPS; jumps++) {
		if (sigsetjmp(away, 1) == 0) {
			may_jump = 1;
			for (;;) {
				CHECK_INT(lock_manager_lock_shared(manager, 0), 0);
				CHECK_INT(lock_manager_unlock_shared(manager, 0), 0);
			}
		}
		/* Another lock first, now and then: what was left is found by that, too. */
		if (jumps % 2) {
			CHECK_INT(lock_manager_lock_shared(manager, 1), 0);
			CHECK_INT(lock_manager_unlock_shared(manager, 1), 0);
		}
		int32_t code = lock_manager_lock_shared(manager, 0);
		CHECK(code == 0 || code == -EDEADLK);
		CHECK_INT(lock_manager_unlock_shared(manager, 0), 0);
		CHECK_INT(lock_manager_unlock_shared(manager, 0), -EPERM);
		check_free(0);
		CHECK_INT(lock_manager_lock_shared(manager, 0), 0);
		CHECK_INT(lock_manager_unlock_shared(manager, 0), 0);
	}
	atomic_store(&stop, 1);
	REQUIRE(pthread_join(sender, NULL) == 0);
	close_homes();
}

static void *wait_in_vain(void *how)
{
	int32_t (*lock)(lock_manager_t *, uint32_t) = *(int32_t(**)(lock_manager_t *, uint32_t))how;
	for (volatile int round = 0; round < 20; round++) {
		if (sigsetjmp(away, 1) == 0) {
			may_jump = 1;
			atomic_store(&ready, own_tid());
			lock(manager, 0);
			CHECK(!"a wait that was over");
		}
		atomic_store(&ready, 0);
		/* By its next call that has to look further the wait is over. */
		if (lock_manager_try_lock_shared(manager, 0) == 0)
			CHECK_INT(lock_manager_unlock_shared(manager, 0), 0);
		while (!atomic_exchange(&stop, 0))
			sched_yield();
	}
	return NULL;
}

/* Waits until the thread has waited for longer than until a reader starves. */
static lock_manager_lock_info_t info_of_long_wait(void)
{
	static const uint64_t starving_ns = 2000000;
	lock_manager_lock_info_t info = { .size = sizeof info };
	do {
		CHECK_INT(lock_manager_lock_info(manager, 0, &info), 0);
	} while (info.waited_ns < 2 * starving_ns);
	await_sleep(atomic_load(&ready));
	/* Once more: the word and the waiters are not read at one time. */
	CHECK_INT(lock_manager_lock_info(manager, 0, &info), 0);
	return info;
}

/* A writer that was draining, and a reader that starved, keep nobody out once they have jumped away. */
static void a_jump_out_of_a_wait_leaves_no_drain_and_no_cell(void)
{
	int32_t (*ways[])(lock_manager_t *, uint32_t) = { lock_manager_lock, lock_manager_lock_shared };
	for (int way = 0; way < 2; way++) {
		make_homes();
		catch_signals(jump_away);
		CHECK_INT(way ? lock_manager_lock(manager, 0) : lock_manager_lock_shared(manager, 0), 0);
		REQUIRE(pthread_create(&target, NULL, wait_in_vain, &ways[way]) == 0);
		for (int round = 0; round < 20; round++) {
			lock_manager_lock_info_t info = info_of_long_wait();
			CHECK_INT(info.draining, !way);
			REQUIRE(pthread_kill(target, SIGUSR1) == 0);
			/* What it was waiting for it waits for no more. */
			do {
				CHECK_INT(lock_manager_lock_info(manager, 0, &info), 0);
			} while (info.draining || info.waiters != 0);
			atomic_store(&stop, 1);
			while (atomic_load(&stop))
				sched_yield();
		}
		REQUIRE(pthread_join(target, NULL) == 0);
		CHECK_INT(way ? lock_manager_unlock(manager, 0) : lock_manager_unlock_shared(manager, 0), 0);
		check_free(0);
		close_homes();
	}
}

/* Its mutexes have one holder each. */
static void the_libpod_layout_refuses_every_shared_call(void)
{
	lock_manager_cancel_t *cancel = NULL;
	lock_manager_holder_t holder = { .size = sizeof holder };
	size_t count;
	make_homes();
	REQUIRE(lock_manager_cancel_new(&cancel) == 0);
	CHECK_INT(lock_manager_lock_shared(manager, 0), -EOPNOTSUPP);
	CHECK_INT(lock_manager_try_lock_shared(manager, 0), -EOPNOTSUPP);
	CHECK_INT(lock_manager_timed_lock_shared(manager, 0, patience_ns), -EOPNOTSUPP);
	CHECK_INT(lock_manager_cancellable_lock_shared(manager, 0, patience_ns, cancel), -EOPNOTSUPP);
	CHECK_INT(lock_manager_lock(manager, 0), 0);
	CHECK_INT(lock_manager_downgrade_lock(manager, 0), -EOPNOTSUPP);
	CHECK_INT(lock_manager_unlock_shared(manager, 0), -EOPNOTSUPP);
	CHECK_INT(lock_manager_lock_holders(manager, 0, &holder, 1, &count), -EOPNOTSUPP);
	CHECK_INT(lock_manager_unlock(manager, 0), 0);
	CHECK_INT(lock_manager_cancel_free(cancel), 0);
	close_homes();
}

int main(void)
{
	if (home_under_test() == HOME_LIBPOD) {
		RUN_TEST(the_libpod_layout_refuses_every_shared_call);
		return end_of_tests();
	}
	RUN_TEST(a_handler_shares_other_locks_whatever_it_interrupts);
	RUN_TEST(a_thread_that_ends_in_a_shared_call_keeps_nobody_out);
	RUN_TEST(a_thread_that_ends_among_readers_and_writers_keeps_nobody_out);
	RUN_TEST(a_jump_out_of_a_shared_call_leaves_a_hold_or_nothing);
	RUN_TEST(a_jump_out_of_a_wait_leaves_no_drain_and_no_cell);
	return end_of_tests();
}
