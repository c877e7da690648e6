/* SPDX-License-Identifier: MIT OR Apache-2.0
 *
 * Situations for static probes: one for each run, named by the argument. The program says which probes are to be hit in it
 * with which arguments, as patterns of the shell; the script `run` has a debugger look at the probes.
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>

#include "holder.h"

enum { LOCKS = 64, MOST_LOCKS = 4096, STEPS = 160 };

/* Many slices of either layout, and what gdb takes of it. */
static const uint64_t patience_ns = 1000000000u;

static lock_manager_t *manager;
static const char *name;
static uintmax_t inode;

/* That a probe is hit with these arguments. */
__attribute__((format(printf, 1, 2))) static void expect(const char *pattern, ...)
{
	va_list arguments;
	va_start(arguments, pattern);
	printf("expect ");
	vprintf(pattern, arguments);
	printf("\n");
	va_end(arguments);
	fflush(stdout);
}

static uintmax_t inode_of(const char *path)
{
	struct stat facts;
	REQUIRE(stat(path, &facts) == 0);
	return facts.st_ino;
}

static void make_segment(void)
{
	name = new_name();
	lock_manager_shm_options_t options = { .size = sizeof options, .layout = layout_under_test() };
	if (options.layout == LOCK_MANAGER_LAYOUT_NATIVE)
		options.max_locks = MOST_LOCKS;
	REQUIRE(lock_manager_new_shm(name, LOCKS, &options, &manager) == 0);
	inode = inode_of(file_of(name));
}

/* A thread of this process that holds locks until it is told to end. */
struct keeper {
	struct signpost held, end;
	pthread_t thread;
	uint32_t lock;
	pid_t tid;
};

static void *keep(void *argument)
{
	struct keeper *keeper = argument;
	keeper->tid = own_tid();
	CHECK_INT(lock_manager_lock(manager, keeper->lock), 0);
	say(keeper->held);
	await(keeper->end);
	CHECK_INT(lock_manager_unlock(manager, keeper->lock), 0);
	return NULL;
}

static void *keep_shared(void *argument)
{
	struct keeper *keeper = argument;
	keeper->tid = own_tid();
	CHECK_INT(lock_manager_lock_shared(manager, keeper->lock), 0);
	say(keeper->held);
	await(keeper->end);
	CHECK_INT(lock_manager_unlock_shared(manager, keeper->lock), 0);
	return NULL;
}

static void start(struct keeper *keeper, void *(*work)(void *))
{
	keeper->held = new_signpost();
	keeper->end = new_signpost();
	REQUIRE(pthread_create(&keeper->thread, NULL, work, keeper) == 0);
	await(keeper->held);
}

static void end(struct keeper *keeper)
{
	say(keeper->end);
	REQUIRE(pthread_join(keeper->thread, NULL) == 0);
}

static void nobody_waits(void)
{
	make_segment();
	for (uint32_t id = 0; id < LOCKS; id++) {
		CHECK_INT(lock_manager_lock(manager, id), 0);
		CHECK_INT(lock_manager_unlock(manager, id), 0);
		CHECK_INT(lock_manager_try_lock(manager, id), 0);
		CHECK_INT(lock_manager_unlock(manager, id), 0);
		if (layout_under_test() == LOCK_MANAGER_LAYOUT_LIBPOD)
			continue;
		CHECK_INT(lock_manager_lock_shared(manager, id), 0);
		CHECK_INT(lock_manager_unlock_shared(manager, id), 0);
	}
	CHECK_INT(lock_manager_try_lock(manager, LOCKS), -EINVAL);
}

static void a_thread_holds(void)
{
	struct keeper keeper = { .lock = 3 };
	make_segment();
	start(&keeper, keep);
	CHECK_INT(lock_manager_timed_lock(manager, 3, patience_ns), -ETIMEDOUT);
	int knows_process = layout_under_test() == LOCK_MANAGER_LAYOUT_NATIVE;
	int pid = knows_process ? (int)getpid() : 0, judged = knows_process ? pid : (int)keeper.tid;
	expect("wait_begin %ju 3 0 *", inode);
	expect("slice_end %ju 3 * %d %d", inode, pid, (int)keeper.tid);
	expect("holder_judged %ju * %d 0", inode, judged);
	if (knows_process)
		expect("deadlock_walk %ju 3 *", inode);
	expect("wait_end %ju 3 * %d", inode, -ETIMEDOUT);
	end(&keeper);
}

static void a_reader_waits(void)
{
	struct keeper keeper = { .lock = 5 };
	make_segment();
	start(&keeper, keep);
	CHECK_INT(lock_manager_timed_lock_shared(manager, 5, patience_ns), -ETIMEDOUT);
	expect("wait_begin %ju 5 1 *", inode);
	expect("slice_end %ju 5 * %d %d", inode, (int)getpid(), (int)keeper.tid);
	expect("holder_judged %ju * %d 0", inode, (int)getpid());
	expect("deadlock_walk %ju 5 *", inode);
	expect("wait_end %ju 5 * %d", inode, -ETIMEDOUT);
	end(&keeper);
}

static void a_process_was_killed(void)
{
	make_segment();
	pid_t child = fork_holder(manager, 4, 3);
	kill_child(child);
	CHECK_INT(lock_manager_lock(manager, 4), LOCK_MANAGER_OWNER_DIED);
	CHECK_INT(lock_manager_lock(manager, 5), LOCK_MANAGER_OWNER_DIED);
	CHECK_INT(lock_manager_lock_shared(manager, 6), LOCK_MANAGER_OWNER_DIED);
	for (int lock = 4; lock <= 6; lock++)
		expect("takeover %ju %d * *", inode, lock);
	expect("holder_judged %ju * %d 3", inode, (int)child);
	expect("holder_judged %ju * 0 2", inode);
}

static void *lock_and_vanish(void *tid)
{
	*(pid_t *)tid = own_tid();
	CHECK_INT(lock_manager_lock(manager, 7), 0);
	/* Behind the library's back, which would release the lock otherwise. */
	syscall(SYS_exit, 0);
	return NULL;
}

static void a_thread_vanished(void)
{
	pthread_t thread;
	pid_t tid = 0;
	make_segment();
	REQUIRE(pthread_create(&thread, NULL, lock_and_vanish, &tid) == 0);
	REQUIRE(pthread_join(thread, NULL) == 0);
	/* The kernel wakes who joins a thread before it forgets the thread. */
	while (syscall(SYS_tgkill, getpid(), tid, 0) == 0)
		usleep(100);
	CHECK_INT(lock_manager_lock(manager, 7), LOCK_MANAGER_OWNER_DIED);
	expect("holder_judged %ju * %d 4", inode, (int)getpid());
	expect("takeover %ju 7 * *", inode);
}

static void *stay(void *unused)
{
	for (;;)
		pause();
	return unused;
}

static void await_zombie(pid_t pid)
{
	char path[64], state = '?';
	snprintf(path, sizeof path, "/proc/%d/task/%d/stat", (int)pid, (int)pid);
	while (state != 'Z') {
		FILE *file = fopen(path, "r");
		REQUIRE(file != NULL && fscanf(file, "%*d (%*[^)]) %c", &state) == 1);
		fclose(file);
	}
}

/* The first thread of a process ends, and stays as long as another one lives. */
static void a_thread_is_exiting(void)
{
	make_segment();
	pid_t child = fork_child();
	if (child == 0) {
		pthread_t thread;
		REQUIRE(pthread_create(&thread, NULL, stay, NULL) == 0);
		REQUIRE(lock_manager_lock(manager, 8) == 0);
		syscall(SYS_exit, 0);
	}
	await_zombie(child);
	CHECK_INT(lock_manager_lock(manager, 8), LOCK_MANAGER_OWNER_DIED);
	expect("wait_begin %ju 8 0 *", inode);
	expect("slice_end %ju 8 * %d %d", inode, (int)child, (int)child);
	expect("holder_judged %ju * %d 0", inode, (int)child);
	expect("holder_judged %ju * %d 5", inode, (int)child);
	expect("takeover %ju 8 * *", inode);
	expect("wait_end %ju 8 * %d", inode, LOCK_MANAGER_OWNER_DIED);
	kill_child(child);
}

/* Whoever gives way: -EDEADLK, then the other one's lock is free. */
static void *close_the_ring(void *argument)
{
	struct keeper *keeper = argument;
	keeper->tid = own_tid();
	CHECK_INT(lock_manager_lock(manager, 1), 0);
	say(keeper->held);
	int code = lock_manager_lock(manager, 2);
	CHECK(code == 0 || code == -EDEADLK);
	if (code == 0)
		CHECK_INT(lock_manager_unlock(manager, 2), 0);
	CHECK_INT(lock_manager_unlock(manager, 1), 0);
	return NULL;
}

static void two_threads_deadlock(void)
{
	struct keeper keeper = { .lock = 1 };
	make_segment();
	CHECK_INT(lock_manager_lock(manager, 2), 0);
	start(&keeper, close_the_ring);
	int code = lock_manager_lock(manager, 1);
	CHECK(code == 0 || code == -EDEADLK);
	if (code == 0)
		CHECK_INT(lock_manager_unlock(manager, 1), 0);
	CHECK_INT(lock_manager_unlock(manager, 2), 0);
	REQUIRE(pthread_join(keeper.thread, NULL) == 0);
	int wanted = code == 0 ? 2 : 1;
	for (int lock = 1; lock <= 2; lock++) {
		expect("wait_begin %ju %d 0 *", inode, lock);
		expect("slice_end %ju %d * %d *", inode, lock, (int)getpid());
	}
	expect("holder_judged %ju * %d 0", inode, (int)getpid());
	expect("deadlock_walk %ju %d *", inode, wanted);
	expect("deadlock_found %ju %d * 2", inode, wanted);
	expect("wait_end %ju %d * %d", inode, wanted, -EDEADLK);
	expect("wait_end %ju %d * 0", inode, 3 - wanted);
}

static void a_segment_grows(void)
{
	uint32_t before, between, now;
	make_segment();
	CHECK_INT(lock_manager_num_locks(manager, &before), 0);
	CHECK_INT(lock_manager_grow(manager, before * 2), 0);
	CHECK_INT(lock_manager_num_locks(manager, &between), 0);
	pid_t child = fork_child();
	if (child == 0) {
		CHECK_INT(lock_manager_grow(manager, between * 2), 0);
		end_child();
	}
	check_child_ended_well(child);
	CHECK_INT(lock_manager_num_locks(manager, &now), 0);
	CHECK(before < between && between < now);
	expect("grown %ju %u %u", inode, before, between);
	expect("grown %ju %u %u", inode, between, now);
}

static atomic_int waiter_tid;

static void *release_when_awaited(void *argument)
{
	struct keeper *keeper = argument;
	keeper->tid = own_tid();
	CHECK_INT(lock_manager_lock_shared(manager, keeper->lock), 0);
	say(keeper->held);
	await(keeper->end);
	await_sleep(waiter_tid);
	CHECK_INT(lock_manager_unlock_shared(manager, keeper->lock), 0);
	return NULL;
}

static void a_writer_drains(void)
{
	struct keeper stays = { .lock = 9 }, leaves = { .lock = 10 };
	make_segment();
	start(&stays, keep_shared);
	CHECK_INT(lock_manager_timed_lock(manager, 9, patience_ns), -ETIMEDOUT);
	end(&stays);
	start(&leaves, release_when_awaited);
	waiter_tid = own_tid();
	say(leaves.end);
	CHECK_INT(lock_manager_lock(manager, 10), 0);
	REQUIRE(pthread_join(leaves.thread, NULL) == 0);
	for (int lock = 9; lock <= 10; lock++) {
		int tid = (int)(lock == 9 ? stays.tid : leaves.tid);
		expect("wait_begin %ju %d 0 *", inode, lock);
		expect("drain_begin %ju %d *", inode, lock);
		expect("drain_sleep %ju %d * %d %d", inode, lock, (int)getpid(), tid);
		expect("drain_end %ju %d %d", inode, lock, lock == 10);
		expect("wait_end %ju %d * %d", inode, lock, lock == 9 ? -ETIMEDOUT : 0);
	}
	expect("slice_end %ju 9 * %d %d", inode, (int)getpid(), (int)stays.tid);
	expect("holder_judged %ju * %d 0", inode, (int)getpid());
	expect("deadlock_walk %ju 9 *", inode);
}

static void libpod_holds(void)
{
	char path[NAME_SIZE + 64];
	snprintf(path, sizeof path, "/dev/shm%s", new_name());
	REQUIRE(lock_manager_new_file(path, &manager) == 0);
	CHECK_INT(lock_manager_allocate_and_retrieve_lock(manager, 3), 0);
	struct signpost held = new_signpost();
	pid_t child = fork_child();
	if (child == 0) {
		struct flock whole = { .l_type = F_WRLCK, .l_whence = SEEK_SET };
		strcat(path, "/3");
		int file = open(path, O_RDWR);
		REQUIRE(file >= 0 && fcntl(file, F_SETLK, &whole) == 0);
		say(held);
		for (;;)
			pause();
	}
	await(held);
	CHECK_INT(lock_manager_timed_lock(manager, 3, patience_ns), -ETIMEDOUT);
	kill_child(child);
	char table[sizeof path + 16];
	snprintf(table, sizeof table, "%s/.lock_manager", path);
	inode = inode_of(table);
	expect("record_wait %ju 3 0", inode);
	expect("record_wait %ju 3 [1-9]*", inode);
	expect("record_wait_end %ju 3 * %d", inode, -ETIMEDOUT);
	CHECK_INT(lock_manager_remove_file(path), 0);
}

static uint32_t backends_word, backends_locks = 8;

static int32_t backend_says_how_many(void *state, uint32_t *count)
{
	*count = *(uint32_t *)state;
	return 0;
}

static int32_t backend_begins(void *state, const lock_manager_request_t *request, void **wait)
{
	(void)request;
	*wait = state;
	return 0;
}

/* The first time, the caller is to sleep until an instant that is over. */
static int32_t backend_steps(void *state, void *wait, lock_manager_sleep_t *sleep)
{
	static int steps;
	(void)state, (void)wait;
	sleep->word = &backends_word;
	return steps++ == 0 ? LOCK_MANAGER_SLEEP : 0;
}

static void backend_leaves(void *state, void *wait)
{
	(void)state, (void)wait;
}

static int32_t backend_releases(void *state, uint32_t id, uint32_t is_wanted_here)
{
	(void)state, (void)id, (void)is_wanted_here;
	return 0;
}

static void a_backend_is_waited_for(void)
{
	static const lock_manager_backend_t table = {
		.size = sizeof table,
		.num_locks = backend_says_how_many,
		.begin = backend_begins,
		.step = backend_steps,
		.leave = backend_leaves,
		.release = backend_releases,
	};
	const char *host = new_name();
	REQUIRE(lock_manager_open_backend(&table, &backends_locks, "fake", host, &manager) == 0);
	CHECK_INT(lock_manager_lock(manager, 3), 0);
	CHECK_INT(lock_manager_unlock(manager, 3), 0);
	inode = inode_of(file_of(host));
	expect("backend_wait %ju 3", inode);
	expect("backend_wait_end %ju 3 * 0", inode);
	CHECK_INT(lock_manager_close(manager), 0);
	CHECK_INT(lock_manager_remove_shm(host), 0);
}

static sigjmp_buf away;

/* Whether the signal is to end what it interrupts. */
static volatile sig_atomic_t may_jump;

static void jump_away(int signal_number)
{
	(void)signal_number;
	if (may_jump)
		siglongjmp(away, 1);
}

/* Writes over what a call that was left has on the stack. */
__attribute__((noinline)) static void use_the_stack(void)
{
	volatile char room[16384];
	for (size_t i = 0; i < sizeof room; i++)
		room[i] = 0;
}

static void *send_when_asleep(void *target)
{
	await_sleep(waiter_tid);
	REQUIRE(pthread_kill(*(pthread_t *)target, SIGUSR1) == 0);
	return NULL;
}

/* Where the word of a lock is mapped: the segment says at byte 96 where its slots begin, of 64 bytes each. */
static uintmax_t address_of_word(uint32_t lock)
{
	FILE *maps = fopen("/proc/self/maps", "r");
	char line[512];
	uintmax_t from, of = 0;
	REQUIRE(maps != NULL);
	while (fgets(line, sizeof line, maps) != NULL)
		if (sscanf(line, "%jx-%*x %*s 0%*[0] %*s %ju", &from, &of) == 2 && of == inode)
			break;
	fclose(maps);
	REQUIRE(of == inode);
	return from + *(const uint64_t *)(uintptr_t)(from + 96) + 64 * (uintmax_t)lock;
}

static void a_wait_is_left(void)
{
	struct keeper keeper = { .lock = 11 };
	pthread_t sender, self = pthread_self();
	make_segment();
	start(&keeper, keep);
	REQUIRE(signal(SIGUSR1, jump_away) != SIG_ERR);
	waiter_tid = own_tid();
	REQUIRE(pthread_create(&sender, NULL, send_when_asleep, &self) == 0);
	may_jump = 1;
	if (sigsetjmp(away, 1) == 0)
		lock_manager_lock(manager, 11);
	REQUIRE(pthread_join(sender, NULL) == 0);
	use_the_stack();
	CHECK_INT(lock_manager_try_lock(manager, 11), -EBUSY);
	expect("wait_begin %ju 11 0 *", inode);
	expect("holder_judged %ju * %d 0", inode, (int)getpid());
	/* If the debugger is slow. */
	printf("allow slice_end\nallow deadlock_walk\n");
	expect("wait_undone %ju 0 0", address_of_word(11));
	end(&keeper);
}

/* The debugger goes on for some instructions, each time for one less, and then sends SIGUSR1. */
__attribute__((noinline)) static void about_to_claim(void)
{
	__asm__ volatile("" ::: "memory");
}

static void a_claim_is_left(void)
{
	make_segment();
	REQUIRE(signal(SIGUSR1, jump_away) != SIG_ERR);
	for (volatile int step = 0; step < STEPS; step++) {
		CHECK_INT(lock_manager_lock_shared(manager, 12), 0);
		CHECK_INT(lock_manager_unlock_shared(manager, 12), 0);
		/* Nobody has read lock 13 since a writer had it, so that the first reader has to look further. */
		CHECK_INT(lock_manager_lock(manager, 13), 0);
		CHECK_INT(lock_manager_unlock(manager, 13), 0);
		if (sigsetjmp(away, 1) == 0) {
			may_jump = 1;
			about_to_claim();
			lock_manager_lock_shared(manager, 12);
		}
		may_jump = 0;
		CHECK_INT(lock_manager_lock_shared(manager, 13), 0);
		CHECK_INT(lock_manager_unlock_shared(manager, 13), 0);
		lock_manager_unlock_shared(manager, 12);
	}
	printf("allow drain_begin\nallow drain_end\n");
	/* The four cells of a lock stand in its slot, behind three words. */
	uintmax_t cells = address_of_word(12) + 24;
	expect("claim_undone @(%ju|%ju|%ju|%ju) *", cells, cells + 8, cells + 16, cells + 24);
}

int main(int argc, char **argv)
{
	static const struct {
		const char *name;
		void (*test)(void);
	} situations[] = {
		{ "nobody_waits", nobody_waits },
		{ "a_thread_holds", a_thread_holds },
		{ "a_reader_waits", a_reader_waits },
		{ "a_process_was_killed", a_process_was_killed },
		{ "a_thread_vanished", a_thread_vanished },
		{ "a_thread_is_exiting", a_thread_is_exiting },
		{ "two_threads_deadlock", two_threads_deadlock },
		{ "a_segment_grows", a_segment_grows },
		{ "a_writer_drains", a_writer_drains },
		{ "libpod_holds", libpod_holds },
		{ "a_backend_is_waited_for", a_backend_is_waited_for },
		{ "a_wait_is_left", a_wait_is_left },
		{ "a_claim_is_left", a_claim_is_left },
	};
	for (size_t i = 0; i < sizeof situations / sizeof *situations; i++)
		if (argc == 2 && strcmp(argv[1], situations[i].name) == 0)
			run_test(situations[i].test, situations[i].name);
	return end_of_tests();
}
