/* SPDX-License-Identifier: MIT OR Apache-2.0
 *
 * Signal handlers that call the library in the midst of whatever the thread does, end the thread there, or jump away.
 */
#define _GNU_SOURCE
#include <malloc.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdatomic.h>

#include <fcntl.h>

#include "child.h"
#include "home.h"
#include "signals.h"

enum { LOCKS = 64, ROUNDS = 100, HANDLED = 3000 };

static const uint64_t patience_ns = 10000000000u;

static lock_manager_t *manager, *other;
static const char *name;
static atomic_int ready;

/* malloc, watched: whether the thread that a handler runs in calls it. */
static __thread volatile int in_handler;
static atomic_int allocated_in_handler;

extern void *__libc_malloc(size_t size);
extern void *__libc_calloc(size_t count, size_t size);
extern void *__libc_realloc(void *memory, size_t size);
extern void __libc_free(void *memory);

static void note_allocation(void)
{
	if (in_handler)
		atomic_store(&allocated_in_handler, 1);
}

void *malloc(size_t size)
{
	note_allocation();
	return __libc_malloc(size);
}

void *calloc(size_t count, size_t size)
{
	note_allocation();
	return __libc_calloc(count, size);
}

void *realloc(void *memory, size_t size)
{
	note_allocation();
	return __libc_realloc(memory, size);
}

void free(void *memory)
{
	note_allocation();
	__libc_free(memory);
}

/* With other processes attached to it, so that the two know this one by different numbers. */
static void reopen_beside_a_neighbour(const char *other_name)
{
	pid_t neighbour = fork_child();
	if (neighbour == 0) {
		lock_manager_t *opened = open_home(other_name);
		CHECK_INT(lock_manager_lock(opened, 9), 0);
		CHECK_INT(lock_manager_unlock(opened, 9), 0);
		end_child();
	}
	check_child_ended_well(neighbour);
	CHECK_INT(lock_manager_close(other), 0);
	other = open_home(other_name);
}

static void make_homes(void)
{
	name = new_name();
	manager = new_home(name, LOCKS);
	const char *other_name = new_name();
	other = new_home(other_name, LOCKS);
	if (is_shared())
		reopen_beside_a_neighbour(other_name);
	atomic_store(&ready, 0);
	atomic_store(&stop, 0);
	atomic_store(&handled, 0);
	atomic_store(&allocated_in_handler, 0);
}

static void catch_signals(void (*handler)(int), int flags)
{
	struct sigaction action = { .sa_handler = handler, .sa_flags = flags };
	REQUIRE(sigaction(SIGUSR1, &action, NULL) == 0);
	/* glibc gives its number, 34, to programs; musl keeps it. */
	REQUIRE(sigaction(SIGRTMIN, &action, NULL) == 0);
}

static void use_other_locks(int signal_number)
{
	(void)signal_number;
	in_handler = 1;
	CHECK_INT(lock_manager_try_lock(other, 3), 0);
	CHECK_INT(lock_manager_try_lock(other, 3), -EBUSY);
	CHECK_INT(lock_manager_unlock(other, 3), 0);
	CHECK_INT(lock_manager_unlock(other, 3), -EPERM);
	CHECK_INT(lock_manager_try_lock(manager, 5), 0);
	CHECK_INT(lock_manager_unlock(manager, 5), 0);
	CHECK_INT(lock_manager_try_lock(other, 7), -EBUSY);
	CHECK_INT(lock_manager_try_lock(other, UINT32_MAX), -EINVAL);
	in_handler = 0;
	atomic_fetch_add(&handled, 1);
}

/* Somebody who holds lock 7 of the other home: another process, or, where there can be none, another thread. */
struct holder {
	struct signpost held, end;
	pid_t child;
	pthread_t thread;
};

static void hold(const struct holder *holder)
{
	CHECK_INT(lock_manager_lock(other, 7), 0);
	say(holder->held);
	await(holder->end);
}

static void *hold_in_a_thread(void *holder)
{
	hold(holder);
	CHECK_INT(lock_manager_unlock(other, 7), 0);
	return NULL;
}

static void hold_elsewhere(struct holder *holder)
{
	holder->held = new_signpost();
	holder->end = new_signpost();
	if (is_shared()) {
		holder->child = fork_child();
		if (holder->child == 0) {
			hold(holder);
			end_child();
		}
	} else {
		REQUIRE(pthread_create(&holder->thread, NULL, hold_in_a_thread, holder) == 0);
	}
	await(holder->held);
}

static void end_holder(struct holder *holder)
{
	say(holder->end);
	if (is_shared())
		check_child_ended_well(holder->child);
	else
		REQUIRE(pthread_join(holder->thread, NULL) == 0);
	close_signpost(holder->held);
	close_signpost(holder->end);
}

/* In the midst of lock and unlock, of malloc, of failing calls, and of calls of the pool. */
static void a_handler_uses_other_locks_whatever_it_interrupts(void)
{
	pthread_t sender;
	struct holder holder;
	uint32_t id, count;
	make_homes();
	hold_elsewhere(&holder);
	for (uint32_t lock = 3; lock <= 5; lock += 2) {
		CHECK_INT(lock_manager_lock(manager, lock), 0);
		CHECK_INT(lock_manager_unlock(manager, lock), 0);
		CHECK_INT(lock_manager_lock(other, lock), 0);
		CHECK_INT(lock_manager_unlock(other, lock), 0);
	}
	catch_signals(use_other_locks, 0);
	target = pthread_self();
	REQUIRE(pthread_create(&sender, NULL, send_signals, NULL) == 0);
	while (atomic_load(&handled) < HANDLED) {
		CHECK_INT(lock_manager_lock(manager, 0), 0);
		CHECK_INT(lock_manager_unlock(manager, 0), 0);
		__libc_free(__libc_malloc(100 + (size_t)atomic_load(&handled) % 5000));
		CHECK_INT(lock_manager_try_lock(other, 7), -EBUSY);
		CHECK_INT(lock_manager_timed_lock(other, 7, 10000), -ETIMEDOUT);
		CHECK(strstr(lock_manager_last_error(), "lock ") != NULL);
		CHECK_INT(lock_manager_allocate_lock(manager, &id), 0);
		CHECK_INT(lock_manager_available_locks(manager, &count), 0);
		CHECK_INT(lock_manager_free_lock(manager, id), 0);
	}
	atomic_store(&stop, 1);
	REQUIRE(pthread_join(sender, NULL) == 0);
	CHECK_INT(atomic_load(&allocated_in_handler), 0);
	end_holder(&holder);
}

static void ask_for_own_lock(int signal_number)
{
	(void)signal_number;
	CHECK_INT(lock_manager_try_lock(manager, 0), -EBUSY);
	CHECK_INT(lock_manager_lock(manager, 0), -EDEADLK);
	CHECK_INT(lock_manager_timed_lock(manager, 0, patience_ns), -EDEADLK);
	atomic_fetch_add(&handled, 1);
}

static void a_handler_that_waits_for_its_own_thread_is_told(void)
{
	make_homes();
	catch_signals(ask_for_own_lock, 0);
	CHECK_INT(lock_manager_lock(manager, 0), 0);
	CHECK_INT(raise(SIGUSR1), 0);
	CHECK_INT(atomic_load(&handled), 1);
	CHECK_INT(lock_manager_unlock(manager, 0), 0);
}

/* In the midst of what guards the ids, too, where there is one. */
static void allocate_in_handler(int signal_number)
{
	uint32_t id = 0;
	(void)signal_number;
	int32_t code = lock_manager_allocate_lock(manager, &id);
	CHECK(code == 0 || code == -EDEADLK);
	if (code == 0) {
		code = lock_manager_free_lock(manager, id);
		CHECK(code == 0 || code == -EDEADLK);
	}
	atomic_fetch_add(&handled, 1);
}

static void a_handler_that_allocates_does_not_wait_for_its_own_thread(void)
{
	pthread_t sender;
	uint32_t id;
	make_homes();
	catch_signals(allocate_in_handler, 0);
	target = pthread_self();
	REQUIRE(pthread_create(&sender, NULL, send_signals, NULL) == 0);
	while (atomic_load(&handled) < HANDLED) {
		CHECK_INT(lock_manager_allocate_lock(manager, &id), 0);
		CHECK_INT(lock_manager_free_lock(manager, id), 0);
	}
	atomic_store(&stop, 1);
	REQUIRE(pthread_join(sender, NULL) == 0);
}

static void end_thread(int signal_number)
{
	(void)signal_number;
	pthread_exit(NULL);
}

static void *lock_and_unlock(void *unused)
{
	atomic_store(&ready, 1);
	for (;;) {
		if (lock_manager_lock(manager, 0) >= 0)
			lock_manager_unlock(manager, 0);
	}
	return unused;
}

static void *lock_and_unlock_to_be_cancelled(void *unused)
{
	pthread_setcanceltype(PTHREAD_CANCEL_ASYNCHRONOUS, NULL);
	return lock_and_unlock(unused);
}

static void *contend(void *unused)
{
	while (!atomic_load(&stop)) {
		if (lock_manager_lock(manager, 0) >= 0)
			lock_manager_unlock(manager, 0);
	}
	return unused;
}

static void *allocate_and_look(void *unused)
{
	atomic_store(&ready, 1);
	for (;;) {
		uint32_t id, count;
		lock_manager_lock_info_t info = { .size = sizeof info };
		if (lock_manager_allocate_lock(manager, &id) == 0)
			lock_manager_free_lock(manager, id);
		lock_manager_available_locks(manager, &count);
		lock_manager_lock_info(manager, 0, &info);
		lock_manager_try_lock(manager, 1);
	}
	return unused;
}

/* Threads that end somewhere in `work`. */
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
		/* What it may have held is free. */
		CHECK(lock_manager_timed_lock(manager, 0, patience_ns) >= 0);
		CHECK_INT(lock_manager_unlock(manager, 0), 0);
	}
}

static int end_in_handler(pthread_t thread)
{
	return pthread_kill(thread, SIGUSR1);
}

static int end_in_real_time_handler(pthread_t thread)
{
	return pthread_kill(thread, SIGRTMIN);
}

static void a_thread_that_ends_in_a_handler_loses_no_lock(void)
{
	make_homes();
	catch_signals(end_thread, 0);
	end_threads(lock_and_unlock, end_in_handler);
	CHECK_INT(lock_manager_close(manager), 0);
}

static void a_thread_that_is_cancelled_anywhere_loses_no_lock(void)
{
	make_homes();
	end_threads(lock_and_unlock_to_be_cancelled, pthread_cancel);
	CHECK_INT(lock_manager_close(manager), 0);
}

static void a_thread_that_ends_in_the_midst_of_contention_loses_no_lock(void)
{
	pthread_t rival;
	make_homes();
	catch_signals(end_thread, 0);
	REQUIRE(pthread_create(&rival, NULL, contend, NULL) == 0);
	end_threads(lock_and_unlock, end_in_handler);
	end_threads(lock_and_unlock_to_be_cancelled, pthread_cancel);
	atomic_store(&stop, 1);
	REQUIRE(pthread_join(rival, NULL) == 0);
	CHECK_INT(lock_manager_close(manager), 0);
}

/* Lock 1 is another process's. */
static void a_thread_that_ends_in_any_other_call_ends_nothing_else(void)
{
	make_homes();
	catch_signals(end_thread, 0);
	CHECK_INT(lock_manager_lock(manager, 1), 0);
	end_threads(allocate_and_look, end_in_handler);
	end_threads(allocate_and_look, end_in_real_time_handler);
	CHECK_INT(lock_manager_unlock(manager, 1), 0);
	CHECK_INT(lock_manager_close(manager), 0);
}

static atomic_int waiter_tid;
static lock_manager_cancel_t *cancel;

static void *wait_for_lock(void *unused)
{
	atomic_store(&waiter_tid, own_tid());
	CHECK_INT(lock_manager_cancellable_lock(manager, 0, UINT64_MAX, cancel), 0);
	CHECK_INT(lock_manager_unlock(manager, 0), 0);
	return unused;
}

static uint32_t waiters_of_lock(void)
{
	lock_manager_lock_info_t info = { .size = sizeof info };
	CHECK_INT(lock_manager_lock_info(manager, 0, &info), 0);
	return info.waiters;
}

/* Until the wait has gone on for longer than a slice, as far as the layout tells. */
static void await_waiter(void)
{
	while (atomic_load(&waiter_tid) == 0)
		sched_yield();
	await_sleep(atomic_load(&waiter_tid));
	while (home_under_test() != HOME_LIBPOD && waiters_of_lock() == 0)
		sched_yield();
}

static void a_thread_that_ends_in_a_wait_waits_no_more(void)
{
	make_homes();
	catch_signals(end_thread, 0);
	REQUIRE(lock_manager_cancel_new(&cancel) == 0);
	for (int round = 0; round < 20; round++) {
		pthread_t thread;
		CHECK_INT(lock_manager_lock(manager, 0), 0);
		atomic_store(&waiter_tid, 0);
		REQUIRE(pthread_create(&thread, NULL, wait_for_lock, NULL) == 0);
		await_waiter();
		CHECK_INT(lock_manager_cancel_free(cancel), -EBUSY);
		REQUIRE(pthread_kill(thread, SIGUSR1) == 0);
		REQUIRE(pthread_join(thread, NULL) == 0);
		CHECK_INT(waiters_of_lock(), 0);
		CHECK_INT(lock_manager_unlock(manager, 0), 0);
		CHECK_INT(lock_manager_timed_lock(manager, 0, patience_ns), 0);
		CHECK_INT(lock_manager_unlock(manager, 0), 0);
	}
	CHECK_INT(lock_manager_cancel_free(cancel), 0);
	CHECK_INT(lock_manager_close(manager), 0);
}

/* Cancellation that is not asked for in a call acts when the call is over. */
static void a_wait_is_no_cancellation_point(void)
{
	pthread_t thread;
	void *result = NULL;
	make_homes();
	REQUIRE(lock_manager_cancel_new(&cancel) == 0);
	CHECK_INT(lock_manager_lock(manager, 0), 0);
	atomic_store(&waiter_tid, 0);
	REQUIRE(pthread_create(&thread, NULL, wait_for_lock, &result) == 0);
	await_waiter();
	REQUIRE(pthread_cancel(thread) == 0);
	CHECK_INT(lock_manager_unlock(manager, 0), 0);
	REQUIRE(pthread_join(thread, &result) == 0);
	CHECK_INT(lock_manager_cancel_free(cancel), 0);
}

static __thread sigjmp_buf away;

static void jump_away(int signal_number)
{
	(void)signal_number;
	siglongjmp(away, 1);
}

static atomic_int jumped;

static void *leave_waits(void *unused)
{
	for (volatile int round = 0; round < 20; round++) {
		if (sigsetjmp(away, 1) == 0) {
			atomic_store(&waiter_tid, own_tid());
			lock_manager_cancellable_lock(manager, 0, UINT64_MAX, cancel);
			CHECK_INT(atomic_load(&stop), 1);
		}
		atomic_store(&waiter_tid, 0);
		atomic_fetch_add(&jumped, 1);
		while (atomic_load(&ready) < round + 1)
			sched_yield();
	}
	/* Its next call that has to look further takes back what the last wait had counted. */
	CHECK_INT(lock_manager_try_lock(manager, 0), -EBUSY);
	CHECK_INT(waiters_of_lock(), 0);
	return unused;
}

static void a_wait_that_was_left_by_a_jump_is_over(void)
{
	pthread_t thread;
	make_homes();
	catch_signals(jump_away, 0);
	REQUIRE(lock_manager_cancel_new(&cancel) == 0);
	CHECK_INT(lock_manager_lock(manager, 0), 0);
	atomic_store(&waiter_tid, 0);
	atomic_store(&jumped, 0);
	REQUIRE(pthread_create(&thread, NULL, leave_waits, NULL) == 0);
	for (int round = 0; round < 20; round++) {
		await_waiter();
		/* One at most, however many it has left. */
		CHECK(waiters_of_lock() <= 1);
		REQUIRE(pthread_kill(thread, SIGUSR1) == 0);
		while (atomic_load(&jumped) < round + 1)
			sched_yield();
		atomic_store(&ready, round + 1);
	}
	REQUIRE(pthread_join(thread, NULL) == 0);
	CHECK_INT(lock_manager_cancel_free(cancel), 0);
	CHECK_INT(lock_manager_unlock(manager, 0), 0);
	CHECK_INT(lock_manager_close(manager), 0);
}

/* What libpod does: a record lock on all of the file of lock 0. */
static pid_t hold_as_libpod(struct signpost end)
{
	struct signpost held = new_signpost();
	pid_t child = fork_child();
	if (child == 0) {
		char path[NAME_SIZE + 32];
		struct flock whole = { .l_type = F_WRLCK, .l_whence = SEEK_SET };
		snprintf(path, sizeof path, "%s/0", directory_of(name));
		int file = open(path, O_RDWR);
		REQUIRE(file >= 0);
		CHECK_INT(fcntl(file, F_SETLKW, &whole), 0);
		say(held);
		await(end);
		end_child();
	}
	await(held);
	close_signpost(held);
	return child;
}

static void *leave_a_wait_for_libpod(void *unused)
{
	if (sigsetjmp(away, 1) == 0)
		lock_manager_cancellable_lock(manager, 0, UINT64_MAX, cancel);
	/* Its next call gives back what the wait had in hand. */
	CHECK_INT(lock_manager_unlock(manager, 0), -EPERM);
	CHECK_INT(lock_manager_try_lock(manager, 0), -EBUSY);
	CHECK_INT(waiters_of_lock(), 0);
	atomic_fetch_add(&jumped, 1);
	return unused;
}

/* Such a wait has the lock's word in hand. Whoever owns it: a process's is not given back by a thread's end. */
static void a_wait_for_libpod_that_is_left_keeps_nothing(void)
{
	for (int round = 0; round < 8; round++) {
		pthread_t thread;
		struct signpost end = new_signpost();
		int jumps = round % 2, by_process = round / 2 % 2;
		make_homes();
		if (by_process)
			CHECK_INT(lock_manager_set_ownership(manager, LOCK_MANAGER_OWNED_BY_PROCESS), 0);
		pid_t libpod = hold_as_libpod(end);
		catch_signals(jumps ? jump_away : end_thread, 0);
		REQUIRE(lock_manager_cancel_new(&cancel) == 0);
		atomic_store(&jumped, 0);
		REQUIRE(pthread_create(&thread, NULL, jumps ? leave_a_wait_for_libpod : wait_for_lock, NULL) == 0);
		/* It is seen as soon as it has the word; the signal comes in its sleep. */
		while (waiters_of_lock() == 0)
			sched_yield();
		REQUIRE(pthread_kill(thread, SIGUSR1) == 0);
		REQUIRE(pthread_join(thread, NULL) == 0);
		CHECK_INT(atomic_load(&jumped), jumps);
		CHECK_INT(waiters_of_lock(), 0);
		CHECK_INT(lock_manager_try_lock(manager, 0), -EBUSY);
		say(end);
		check_child_ended_well(libpod);
		close_signpost(end);
		/* Nobody has had it who died. */
		CHECK_INT(lock_manager_timed_lock(manager, 0, patience_ns), 0);
		CHECK_INT(lock_manager_unlock(manager, 0), 0);
		CHECK_INT(lock_manager_cancel_free(cancel), 0);
		CHECK_INT(lock_manager_close(manager), 0);
	}
}

static void wait_in_handler(int signal_number)
{
	(void)signal_number;
	CHECK_INT(lock_manager_timed_lock(other, 7, 20000000), -ETIMEDOUT);
	CHECK_INT(lock_manager_try_lock(other, 3), 0);
	CHECK_INT(lock_manager_unlock(other, 3), 0);
	atomic_fetch_add(&handled, 1);
}

/* On a stack of its own, too, whose addresses say nothing of the wait's. */
static void a_wait_within_a_wait_leaves_the_first_as_it_is(void)
{
	for (int own_stack = 0; own_stack <= 1; own_stack++) {
		pthread_t thread;
		struct holder holder;
		make_homes();
		hold_elsewhere(&holder);
		catch_signals(wait_in_handler, own_stack ? SA_ONSTACK : 0);
		REQUIRE(lock_manager_cancel_new(&cancel) == 0);
		CHECK_INT(lock_manager_lock(manager, 0), 0);
		atomic_store(&waiter_tid, 0);
		REQUIRE(pthread_create(&thread, NULL, wait_for_lock, NULL) == 0);
		await_waiter();
		REQUIRE(pthread_kill(thread, SIGUSR1) == 0);
		while (atomic_load(&handled) < 1)
			sched_yield();
		CHECK_INT(lock_manager_cancel_free(cancel), -EBUSY);
		await_waiter();
		CHECK_INT(lock_manager_unlock(manager, 0), 0);
		REQUIRE(pthread_join(thread, NULL) == 0);
		CHECK_INT(lock_manager_cancel_free(cancel), 0);
		end_holder(&holder);
		CHECK_INT(lock_manager_close(manager), 0);
	}
}

/* PTHREAD_DESTRUCTOR_ITERATIONS, as glibc and musl have it. */
enum { DESTRUCTOR_ROUNDS = 4 };

static pthread_key_t last_key;
static atomic_int unlocked_with;

static void unlock_in_the_last_round(void *value)
{
	uintptr_t round = (uintptr_t)value;
	if (round < DESTRUCTOR_ROUNDS) {
		pthread_setspecific(last_key, (void *)(round + 1));
		return;
	}
	atomic_store(&unlocked_with, lock_manager_unlock(manager, 0));
}

static void *end_holding(void *unused)
{
	CHECK_INT(lock_manager_lock(manager, 0), 0);
	pthread_setspecific(last_key, (void *)1);
	return unused;
}

static void a_programs_last_destructor_can_unlock(void)
{
	pthread_t thread;
	make_homes();
	/* The library's key is there before the program's, so that the program's comes after it in each round. */
	CHECK_INT(lock_manager_lock(manager, 1), 0);
	CHECK_INT(lock_manager_unlock(manager, 1), 0);
	REQUIRE(pthread_key_create(&last_key, unlock_in_the_last_round) == 0);
	atomic_store(&unlocked_with, 1);
	REQUIRE(pthread_create(&thread, NULL, end_holding, NULL) == 0);
	REQUIRE(pthread_join(thread, NULL) == 0);
	CHECK_INT(atomic_load(&unlocked_with), 0);
	CHECK_INT(lock_manager_timed_lock(manager, 0, patience_ns), 0);
	CHECK_INT(lock_manager_unlock(manager, 0), 0);
	/* One that does not unlock after all. */
	REQUIRE(pthread_key_delete(last_key) == 0);
	REQUIRE(pthread_create(&thread, NULL, end_holding, NULL) == 0);
	REQUIRE(pthread_join(thread, NULL) == 0);
	CHECK_INT(lock_manager_timed_lock(manager, 0, patience_ns), LOCK_MANAGER_OWNER_DIED);
	CHECK_INT(lock_manager_unlock(manager, 0), 0);
}

int main(void)
{
	RUN_TEST(a_handler_uses_other_locks_whatever_it_interrupts);
	RUN_TEST(a_handler_that_waits_for_its_own_thread_is_told);
	RUN_TEST(a_handler_that_allocates_does_not_wait_for_its_own_thread);
	RUN_TEST(a_thread_that_ends_in_a_handler_loses_no_lock);
	RUN_TEST(a_thread_that_is_cancelled_anywhere_loses_no_lock);
	RUN_TEST(a_thread_that_ends_in_the_midst_of_contention_loses_no_lock);
	RUN_TEST(a_thread_that_ends_in_any_other_call_ends_nothing_else);
	RUN_TEST(a_thread_that_ends_in_a_wait_waits_no_more);
	RUN_TEST(a_wait_is_no_cancellation_point);
	RUN_TEST(a_wait_that_was_left_by_a_jump_is_over);
	/* libpod's own mutexes are no record locks; nothing of libpod's is elsewhere. */
	if (home_under_test() == HOME_FILES)
		RUN_TEST(a_wait_for_libpod_that_is_left_keeps_nothing);
	RUN_TEST(a_wait_within_a_wait_leaves_the_first_as_it_is);
	RUN_TEST(a_programs_last_destructor_can_unlock);
	return end_of_tests();
}
