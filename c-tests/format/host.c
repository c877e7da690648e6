// SPDX-License-Identifier: MIT OR Apache-2.0
/*
 * The library and a second implementation of the segment format, peer.c, share segments and directories.
 *
 *   host PEER [OTHER-PEER]
 *
 * Both are builds of peer.c, such as one for 64 bits and one for 32.
 */
#define _GNU_SOURCE
#include <poll.h>
#include <pthread.h>
#include <sched.h>

#include "../holder.h"
#include "actors.h"
#include "scores.h"

static const uint64_t MILLISECOND_NS = 1000000;
static const char *peer_program, *other_program;
static struct scores *scores;
static int scores_fd;

/* With clone flags; its first answer, whether it could attach, is still to be read. */
static struct peer start(const char *program, const char *name, unsigned long flags)
{
	return start_peer(program, file_of(name), scores_fd, flags);
}

static struct peer attach_program(const char *program, const char *name)
{
	struct peer peer = start(program, name, 0);
	REQUIRE(peer.pid > 0 && answer(peer) == 0);
	return peer;
}

static struct peer attach_peer(const char *name)
{
	return attach_program(peer_program, name);
}

static lock_manager_lock_info_t info_of(lock_manager_t *manager, uint32_t id)
{
	lock_manager_lock_info_t info = { .size = sizeof info };
	REQUIRE(lock_manager_lock_info(manager, id, &info) == 0);
	return info;
}

static uint32_t attached(lock_manager_t *manager)
{
	lock_manager_info_t info = { .size = sizeof info };
	REQUIRE(lock_manager_info(manager, &info) == 0);
	return info.attached;
}

/* Until somebody has published that it waits; the watchdog ends it if that never comes. */
static void await_waiter(lock_manager_t *manager, uint32_t id)
{
	while (info_of(manager, id).waiters == 0)
		usleep(500);
}

/* As the peer's command "count" does it. */
static void write_scores(lock_manager_t *manager, uint32_t first, uint32_t locks, uint32_t rounds)
{
	unsigned others = 0;
	for (uint32_t round = 0; round < rounds && !scores->stop; round++) {
		uint32_t lock = first + round % locks;
		int32_t taken = lock_manager_lock(manager, lock);
		REQUIRE(taken >= 0);
		others += write_score(&scores->of[lock], taken == LOCK_MANAGER_OWNER_DIED, (uint32_t)own_tid());
		REQUIRE(lock_manager_unlock(manager, lock) == 0);
	}
	CHECK_INT(others, 0);
}

static pid_t fork_scorer(lock_manager_t *manager, uint32_t locks, uint32_t rounds)
{
	pid_t child = fork_child();
	if (child == 0) {
		write_scores(manager, 0, locks, rounds);
		end_child();
	}
	return child;
}

static void no_increment_under_a_lock_is_lost(void)
{
	enum { LIBRARY = 2, LOCKS = 3, ROUNDS = 30000, IN_PEERS = 3 };
	const char *name = new_name();
	lock_manager_t *manager = new_segment(name, 64);
	struct peer peer = attach_peer(name), other = attach_program(other_program, name);
	pid_t children[LIBRARY];
	memset(scores, 0, sizeof *scores);
	tell(peer, "count 0 3 30000 2");
	tell(other, "count 0 3 30000 1");
	for (int i = 0; i < LIBRARY; i++)
		children[i] = fork_scorer(manager, LOCKS, ROUNDS);
	CHECK_INT(answer(peer), 0);
	CHECK_INT(answer(other), 0);
	for (int i = 0; i < LIBRARY; i++)
		check_child_ended_well(children[i]);
	for (uint32_t lock = 0; lock < LOCKS; lock++) {
		CHECK_INT(scores->of[lock].count, (LIBRARY + IN_PEERS) * ROUNDS / LOCKS);
		/* The peer counts in the segment, too. */
		CHECK_INT(info_of(manager, lock).acquisitions, (LIBRARY + IN_PEERS) * ROUNDS / LOCKS);
	}
	end_peer(peer);
	end_peer(other);
	CHECK_INT(lock_manager_close(manager), 0);
}

static void a_peer_is_seen_as_attached_and_as_a_holder(void)
{
	const char *name = new_name();
	lock_manager_t *manager = new_segment(name, 64);
	CHECK_INT(lock_manager_lock(manager, 1), 0);
	uint32_t before = attached(manager);
	struct peer peer = attach_peer(name);
	CHECK_INT(attached(manager), before + 1);
	CHECK_INT(ask(peer, "lock 7"), 0);
	lock_manager_lock_info_t info = info_of(manager, 7);
	CHECK_INT(info.held, 1);
	CHECK_INT(info.pid, peer.pid);
	CHECK_INT(info.tid, peer.pid);
	CHECK_INT(info.ownership, LOCK_MANAGER_OWNED_BY_THREAD);
	CHECK_INT(info.acquisitions, 1);
	CHECK_INT(info.pid_namespace, info_of(manager, 1).pid_namespace);
	CHECK_INT(lock_manager_try_lock(manager, 7), -EBUSY);
	CHECK_INT(lock_manager_repair_lock(manager, 7), -EBUSY);
	CHECK_INT(ask(peer, "try 1"), -EBUSY);
	CHECK_INT(ask(peer, "unlock 1"), -EPERM);
	CHECK_INT(ask(peer, "lock 7"), -EDEADLK);
	CHECK_INT(ask(peer, "unlock 7"), 0);
	CHECK_INT(info_of(manager, 7).held, 0);
	end_peer(peer);
	CHECK_INT(attached(manager), before);
	CHECK_INT(lock_manager_unlock(manager, 1), 0);
	CHECK_INT(lock_manager_close(manager), 0);
}

static void waits_end_when_their_time_is_up(void)
{
	const char *name = new_name();
	lock_manager_t *manager = new_segment(name, 64);
	struct peer peer = attach_peer(name);
	CHECK_INT(ask(peer, "lock 7"), 0);
	CHECK_INT(lock_manager_lock(manager, 8), 0);
	/* Who is stopped lives. */
	CHECK_INT(kill(peer.pid, SIGSTOP), 0);
	uint64_t before = monotonic_ns();
	CHECK_INT(lock_manager_timed_lock(manager, 7, 120 * MILLISECOND_NS), -ETIMEDOUT);
	CHECK(monotonic_ns() - before >= 120 * MILLISECOND_NS);
	CHECK_INT(kill(peer.pid, SIGCONT), 0);
	before = monotonic_ns();
	CHECK_INT(ask(peer, "timed 8 120"), -ETIMEDOUT);
	CHECK(monotonic_ns() - before >= 120 * MILLISECOND_NS);
	CHECK_INT(info_of(manager, 7).waiters, 0);
	CHECK_INT(info_of(manager, 8).waiters, 0);
	CHECK_INT(ask(peer, "unlock 7"), 0);
	CHECK_INT(lock_manager_unlock(manager, 8), 0);
	CHECK_INT(lock_manager_timed_lock(manager, 7, 0), 0);
	CHECK_INT(ask(peer, "timed 8 0"), 0);
	CHECK_INT(ask(peer, "unlock 8"), 0);
	CHECK_INT(lock_manager_unlock(manager, 7), 0);
	end_peer(peer);
	CHECK_INT(lock_manager_close(manager), 0);
}

/* Waits end by themselves within a slice, so a wake-up shows only by what futex(2) returns. Now and then the waiter is
 * between two sleeps; not every time. */
enum { ATTEMPTS = 100 };

static void a_waiting_peer_is_woken_by_the_library(void)
{
	const char *name = new_name();
	lock_manager_t *manager = new_segment(name, 64);
	struct peer peer = attach_peer(name);
	int woken = 0;
	for (int attempt = 0; attempt < ATTEMPTS && !woken; attempt++) {
		CHECK_INT(lock_manager_lock(manager, 7), 0);
		tell(peer, "lock 7");
		await_waiter(manager, 7);
		CHECK_INT(lock_manager_unlock(manager, 7), 0);
		CHECK_INT(answer(peer), 0);
		woken = ask(peer, "was-woken");
		CHECK_INT(ask(peer, "unlock 7"), 0);
	}
	CHECK(woken);
	end_peer(peer);
	CHECK_INT(lock_manager_close(manager), 0);
}

static void *take_lock_7_once(void *manager)
{
	CHECK_INT(lock_manager_lock(manager, 7), 0);
	CHECK_INT(lock_manager_unlock(manager, 7), 0);
	return NULL;
}

static void a_waiting_user_of_the_library_is_woken_by_a_peer(void)
{
	const char *name = new_name();
	lock_manager_t *manager = new_segment(name, 64);
	struct peer peer = attach_peer(name);
	int woken = 0;
	for (int attempt = 0; attempt < ATTEMPTS && !woken; attempt++) {
		pthread_t waiter;
		CHECK_INT(ask(peer, "lock 7"), 0);
		REQUIRE(pthread_create(&waiter, NULL, take_lock_7_once, manager) == 0);
		await_waiter(manager, 7);
		CHECK_INT(ask(peer, "unlock 7"), 0);
		REQUIRE(pthread_join(waiter, NULL) == 0);
		woken = ask(peer, "woke") > 0;
	}
	CHECK(woken);
	end_peer(peer);
	CHECK_INT(lock_manager_close(manager), 0);
}

/* Who takes a lock again and again leaves it to one that has waited for long. */
static void nobody_is_starved(void)
{
	const char *name = new_name();
	lock_manager_t *manager = new_segment(name, 64);
	struct peer peer = attach_peer(name), other = attach_program(other_program, name);
	memset(scores, 0, sizeof *scores);
	tell(other, "count 7 1 4000000000 1");
	while (scores->of[7].count < 1000)
		sched_yield();
	for (int round = 0; round < 20; round++) {
		CHECK_INT(lock_manager_lock(manager, 7), 0);
		CHECK_INT(lock_manager_unlock(manager, 7), 0);
	}
	scores->stop = 1;
	CHECK_INT(answer(other), 0);
	scores->stop = 0;
	pid_t hog = fork_child();
	if (hog == 0) {
		write_scores(manager, 7, 1, UINT32_MAX);
		end_child();
	}
	uint32_t count = scores->of[7].count;
	while (scores->of[7].count - count < 1000)
		sched_yield();
	for (int round = 0; round < 20; round++) {
		CHECK_INT(ask(peer, "lock 7"), 0);
		CHECK_INT(ask(peer, "unlock 7"), 0);
	}
	scores->stop = 1;
	check_child_ended_well(hog);
	end_peer(peer);
	end_peer(other);
	CHECK_INT(lock_manager_close(manager), 0);
}

static void a_killed_peers_lock_is_told_of(void)
{
	const char *name = new_name();
	lock_manager_t *manager = new_segment(name, 64);
	CHECK_INT(lock_manager_lock(manager, 1), 0);
	uint32_t before = attached(manager);
	struct peer peer = attach_peer(name), waiting = attach_program(other_program, name);
	CHECK_INT(ask(peer, "lock 7"), 0);
	CHECK_INT(ask(peer, "lock 8"), 0);
	CHECK_INT(ask(peer, "lock 9"), 0);
	tell(waiting, "lock 9");
	await_waiter(manager, 9);
	kill_peer(peer);
	CHECK_INT(lock_manager_lock(manager, 7), LOCK_MANAGER_OWNER_DIED);
	CHECK_INT(lock_manager_repair_lock(manager, 8), 0);
	CHECK_INT(info_of(manager, 8).owner_died, 1);
	/* The library marked this one, the peer takes what is marked. */
	CHECK_INT(answer(waiting), LOCK_MANAGER_OWNER_DIED);
	CHECK_INT(ask(waiting, "try 8"), LOCK_MANAGER_OWNER_DIED);
	CHECK_INT(ask(waiting, "unlock 8"), 0);
	CHECK_INT(ask(waiting, "unlock 9"), 0);
	CHECK_INT(lock_manager_unlock(manager, 7), 0);
	CHECK_INT(lock_manager_lock(manager, 7), 0);
	CHECK_INT(lock_manager_unlock(manager, 7), 0);
	CHECK_INT(attached(manager), before + 1);
	end_peer(waiting);
	CHECK_INT(lock_manager_unlock(manager, 1), 0);
	CHECK_INT(lock_manager_close(manager), 0);
}

static void a_peer_is_told_of_a_killed_user_of_the_library(void)
{
	for (uint32_t ownership = LOCK_MANAGER_OWNED_BY_THREAD; ownership <= LOCK_MANAGER_OWNED_BY_PROCESS; ownership++) {
		const char *name = new_name();
		lock_manager_t *manager = new_segment(name, 64);
		CHECK_INT(lock_manager_set_ownership(manager, ownership), 0);
		struct peer peer = attach_peer(name);
		pid_t holder = fork_holder(manager, 7, 2);
		CHECK_INT(ask(peer, "try 7"), -EBUSY);
		/* Who is stopped lives. */
		CHECK_INT(kill(holder, SIGSTOP), 0);
		CHECK_INT(ask(peer, "timed 7 50"), -ETIMEDOUT);
		CHECK_INT(kill(holder, SIGCONT), 0);
		tell(peer, "lock 7");
		await_waiter(manager, 7);
		kill_child(holder);
		CHECK_INT(answer(peer), LOCK_MANAGER_OWNER_DIED);
		CHECK_INT(ask(peer, "try 8"), LOCK_MANAGER_OWNER_DIED);
		CHECK_INT(ask(peer, "unlock 7"), 0);
		CHECK_INT(ask(peer, "unlock 8"), 0);
		CHECK_INT(lock_manager_lock(manager, 7), 0);
		CHECK_INT(lock_manager_unlock(manager, 7), 0);
		end_peer(peer);
		CHECK_INT(lock_manager_close(manager), 0);
	}
}

static void *end_with_lock_7(void *manager)
{
	CHECK_INT(lock_manager_lock(manager, 7), 0);
	return NULL;
}

static void a_peer_is_told_of_a_thread_that_ended(void)
{
	const char *name = new_name();
	lock_manager_t *manager = new_segment(name, 64);
	struct peer peer = attach_peer(name);
	pthread_t thread;
	REQUIRE(pthread_create(&thread, NULL, end_with_lock_7, manager) == 0 && pthread_join(thread, NULL) == 0);
	CHECK_INT(ask(peer, "lock 7"), LOCK_MANAGER_OWNER_DIED);
	CHECK_INT(ask(peer, "unlock 7"), 0);
	CHECK_INT(ask(peer, "lock 7"), 0);
	CHECK_INT(ask(peer, "unlock 7"), 0);
	end_peer(peer);
	CHECK_INT(lock_manager_close(manager), 0);
}

/* There a process id says nothing, and only the record lock does. */
static void deaths_are_seen_across_pid_namespaces(void)
{
	const char *name = new_name();
	lock_manager_t *manager = new_segment(name, 64);
	struct peer peer = start(peer_program, name, CLONE_NEWPID);
	if (peer.pid < 0) {
		/* Nobody needs a right for one in a user namespace. */
		forget(peer);
		peer = start(peer_program, name, CLONE_NEWUSER | CLONE_NEWPID);
	}
	if (peer.pid < 0) {
		forget(peer);
		CHECK_INT(lock_manager_close(manager), 0);
		SKIP("no PID namespace can be made here");
	}
	REQUIRE(answer(peer) == 0);
	pid_t holder = fork_holder(manager, 7, 2);
	CHECK_INT(ask(peer, "try 7"), -EBUSY);
	kill_child(holder);
	CHECK_INT(ask(peer, "lock 7"), LOCK_MANAGER_OWNER_DIED);
	CHECK_INT(info_of(manager, 7).pid, 0);
	CHECK_INT(lock_manager_try_lock(manager, 7), -EBUSY);
	CHECK_INT(ask(peer, "share 9"), 0);
	CHECK_INT(lock_manager_try_lock(manager, 9), -EBUSY);
	kill_peer(peer);
	CHECK_INT(lock_manager_lock(manager, 7), LOCK_MANAGER_OWNER_DIED);
	CHECK_INT(lock_manager_unlock(manager, 7), 0);
	/* Of a reader nobody is told. */
	CHECK_INT(lock_manager_lock(manager, 9), 0);
	CHECK_INT(lock_manager_unlock(manager, 9), 0);
	CHECK_INT(lock_manager_close(manager), 0);
}

static void await_rounds(uint32_t rounds)
{
	uint32_t begin = scores->of[0].count;
	while (scores->of[0].count - begin < rounds)
		sched_yield();
}

static void deaths_in_the_midst_of_it_let_nobody_in_beside_another(void)
{
	enum { DEATHS = 60 };
	const char *name = new_name();
	lock_manager_t *manager = new_segment(name, 64);
	struct peer steady = attach_program(other_program, name);
	memset(scores, 0, sizeof *scores);
	pid_t child = fork_scorer(manager, 2, UINT32_MAX);
	tell(steady, "count 0 2 4000000000 1");
	for (int death = 0; death < DEATHS; death++) {
		if (death % 3 == 2) {
			pid_t victim = fork_scorer(manager, 2, UINT32_MAX);
			await_rounds(300);
			kill_child(victim);
		} else {
			struct peer victim = attach_peer(name);
			tell(victim, "count 0 2 4000000000 2");
			await_rounds(300);
			kill_peer(victim);
		}
	}
	scores->stop = 1;
	check_child_ended_well(child);
	CHECK_INT(answer(steady), 0);
	end_peer(steady);
	CHECK_INT(lock_manager_close(manager), 0);
}

static struct signpost lock_1_is_held;
static int32_t second_lock;

static void *take_lock_1_then_2(void *manager)
{
	CHECK_INT(lock_manager_lock(manager, 1), 0);
	say(lock_1_is_held);
	second_lock = lock_manager_lock(manager, 2);
	if (second_lock == 0)
		CHECK_INT(lock_manager_unlock(manager, 2), 0);
	CHECK_INT(lock_manager_unlock(manager, 1), 0);
	return NULL;
}

static void one_of_two_that_wait_for_each_other_gives_way(void)
{
	const char *name = new_name();
	lock_manager_t *manager = new_segment(name, 64);
	struct peer peer = attach_peer(name);
	lock_1_is_held = new_signpost();
	for (int walks = 0; walks <= 1; walks++) {
		pthread_t thread;
		CHECK_INT(ask(peer, walks ? "walks 1" : "walks 0"), walks);
		CHECK_INT(ask(peer, "lock 2"), 0);
		REQUIRE(pthread_create(&thread, NULL, take_lock_1_then_2, manager) == 0);
		await(lock_1_is_held);
		int first_lock = ask(peer, "lock 1");
		if (first_lock == 0)
			CHECK_INT(ask(peer, "unlock 1"), 0);
		CHECK_INT(ask(peer, "unlock 2"), 0);
		REQUIRE(pthread_join(thread, NULL) == 0);
		CHECK((first_lock == 0 && second_lock == -EDEADLK) || (walks && first_lock == -EDEADLK && second_lock == 0));
	}
	end_peer(peer);
	close_signpost(lock_1_is_held);
	CHECK_INT(lock_manager_close(manager), 0);
}

static void one_of_two_peers_that_wait_for_each_other_gives_way(void)
{
	const char *name = new_name();
	lock_manager_t *manager = new_segment(name, 64);
	struct peer peers[2] = { attach_peer(name), attach_program(other_program, name) };
	CHECK_INT(ask(peers[0], "lock 1"), 0);
	CHECK_INT(ask(peers[1], "lock 2"), 0);
	tell(peers[0], "lock 2");
	await_waiter(manager, 2);
	tell(peers[1], "lock 1");
	struct pollfd ready[2] = { { peers[0].out, POLLIN, 0 }, { peers[1].out, POLLIN, 0 } };
	REQUIRE(poll(ready, 2, -1) > 0);
	int first = ready[0].revents ? 0 : 1;
	CHECK_INT(answer(peers[first]), -EDEADLK);
	CHECK_INT(ask(peers[first], first == 0 ? "unlock 1" : "unlock 2"), 0);
	CHECK_INT(answer(peers[1 - first]), 0);
	end_peer(peers[0]);
	end_peer(peers[1]);
	CHECK_INT(lock_manager_close(manager), 0);
}

static void a_removed_segment_is_refused(void)
{
	const char *name = new_name();
	lock_manager_t *manager = new_segment(name, 64);
	struct peer peer = attach_peer(name);
	CHECK_INT(lock_manager_lock(manager, 7), 0);
	CHECK_INT(ask(peer, "lock 9"), 0);
	tell(peer, "lock 7");
	await_waiter(manager, 7);
	CHECK_INT(lock_manager_remove_shm(name), 0);
	CHECK_INT(answer(peer), -ESTALE);
	CHECK_INT(ask(peer, "lock 8"), -ESTALE);
	CHECK_INT(ask(peer, "try 8"), -ESTALE);
	CHECK_INT(ask(peer, "unlock 9"), 0);
	CHECK_INT(lock_manager_unlock(manager, 7), 0);
	end_peer(peer);
	CHECK_INT(lock_manager_close(manager), 0);
}

/* What a remover leaves that dies before the name is gone. */
static void mark(const char *name)
{
	enum { RETIRED = 256 };
	const uint32_t removing = 1;
	int fd = open(file_of(name), O_RDWR | O_CLOEXEC);
	REQUIRE(fd >= 0 && pwrite(fd, &removing, sizeof removing, RETIRED) == sizeof removing);
	close(fd);
}

static void a_removal_that_was_left_half_done_has_not_happened(void)
{
	const char *name = new_name();
	lock_manager_t *manager = new_segment(name, 64);
	mark(name);
	struct peer peer = attach_peer(name);
	CHECK_INT(ask(peer, "lock 7"), 0);
	CHECK(file_exists(file_of(name)));
	CHECK_INT(lock_manager_try_lock(manager, 7), -EBUSY);
	mark(name);
	CHECK_INT(ask(peer, "try 8"), 0);
	CHECK_INT(lock_manager_try_lock(manager, 9), 0);
	CHECK_INT(lock_manager_unlock(manager, 9), 0);
	end_peer(peer);
	CHECK_INT(lock_manager_close(manager), 0);
}

static void a_removal_that_was_not_told_of_has_happened(void)
{
	const char *name = new_name();
	lock_manager_t *manager = new_segment(name, 64);
	struct peer peer = attach_peer(name);
	mark(name);
	REQUIRE(unlink(file_of(name)) == 0);
	CHECK_INT(ask(peer, "lock 7"), -ESTALE);
	CHECK_INT(lock_manager_lock(manager, 7), -ESTALE);
	end_peer(peer);
	CHECK_INT(lock_manager_close(manager), 0);
}

/* A removal that is refused, as where the segment is mounted, is none for whoever uses it; the one that comes after it is. */
static void a_remover_at_work_is_not_heeded_before_its_end(void)
{
	const char *name = new_name();
	lock_manager_t *manager = new_segment(name, 64);
	struct peer peer = attach_peer(name);
	struct flock lock = { .l_type = F_WRLCK, .l_whence = SEEK_SET, .l_len = 1 };
	int fd = open(file_of(name), O_RDWR | O_CLOEXEC);
	REQUIRE(fd >= 0 && fcntl(fd, F_OFD_SETLK, &lock) == 0);
	mark(name);
	CHECK_INT(ask(peer, "lock 7"), 0);
	CHECK_INT(lock_manager_try_lock(manager, 8), 0);
	CHECK_INT(lock_manager_unlock(manager, 8), 0);
	REQUIRE(unlink(file_of(name)) == 0);
	CHECK_INT(ask(peer, "try 9"), -ESTALE);
	CHECK_INT(lock_manager_try_lock(manager, 9), -ESTALE);
	CHECK_INT(ask(peer, "unlock 7"), 0);
	close(fd);
	end_peer(peer);
	CHECK_INT(lock_manager_close(manager), 0);
}

static void a_copy_of_a_segment_is_refused(void)
{
	static char bytes[65536];
	const char *name = new_name(), *copy = new_name();
	lock_manager_t *manager = new_segment(name, 64);
	int from = open(file_of(name), O_RDONLY | O_CLOEXEC), to = open(file_of(copy), O_RDWR | O_CREAT | O_CLOEXEC, 0600);
	ssize_t length;
	REQUIRE(from >= 0 && to >= 0);
	while ((length = read(from, bytes, sizeof bytes)) > 0)
		REQUIRE(write(to, bytes, (size_t)length) == length);
	close(from);
	close(to);
	struct peer peer = start(peer_program, copy, 0);
	CHECK_INT(answer(peer), -EPROTO);
	end_peer(peer);
	CHECK_INT(lock_manager_close(manager), 0);
}

/* Entries that have had so many tenants that the bits of a word begin again with the next but one. */
static void generations_may_begin_again(void)
{
	enum { ENTRY_TABLE = 4096, ENTRY_SIZE = 64, ENTRIES_THERE = 64, AT_SLOTS = 96, SLOT_SIZE = 64 };
	const uint64_t gone = UINT64_C(0x5fffffe) << 1, dead_free = UINT64_C(1) << 28;
	const char *name = new_name();
	lock_manager_t *manager = new_segment(name, 64);
	struct peer other = attach_program(other_program, name);
	int fd = open(file_of(name), O_RDWR | O_CLOEXEC);
	uint64_t slots, state = 0, word = 0;
	REQUIRE(fd >= 0 && pread(fd, &slots, sizeof slots, AT_SLOTS) == sizeof slots);
	for (int entry = 1; entry < ENTRIES_THERE; entry++) {
		off_t at = ENTRY_TABLE + entry * ENTRY_SIZE;
		REQUIRE(pread(fd, &state, sizeof state, at) == sizeof state);
		/* Not those in which this process and the other peer live. */
		if (!(state & 1))
			REQUIRE(pwrite(fd, &gone, sizeof gone, at) == sizeof gone);
	}
	for (int round = 0; round < 3 * ENTRIES_THERE; round++) {
		struct peer peer = attach_peer(name);
		CHECK_INT(ask(peer, "lock 7"), 0);
		CHECK_INT(info_of(manager, 7).pid, peer.pid);
		CHECK_INT(lock_manager_try_lock(manager, 7), -EBUSY);
		CHECK_INT(ask(other, "try 7"), -EBUSY);
		CHECK_INT(ask(peer, "unlock 7"), 0);
		/* Each peer lives in the next entry, so that by now each has had its last generation but one. A word that names
		 * a former tenant must not come to mean a new one. */
		if (round == ENTRIES_THERE)
			for (uint64_t entry = 1; entry < ENTRIES_THERE; entry++)
				if (entry != 7)
					REQUIRE(pwrite(fd, &entry, sizeof entry, (off_t)(slots + SLOT_SIZE * entry)) == sizeof entry);
		end_peer(peer);
	}
	int forgotten = 0;
	for (uint64_t entry = 1; entry < ENTRIES_THERE; entry++) {
		REQUIRE(pread(fd, &word, sizeof word, (off_t)(slots + SLOT_SIZE * entry)) == sizeof word);
		forgotten += word == dead_free;
	}
	CHECK(forgotten > ENTRIES_THERE / 2);
	close(fd);
	end_peer(other);
	CHECK_INT(lock_manager_close(manager), 0);
}

static void growing_disturbs_nobody(void)
{
	const char *name = new_name();
	lock_manager_shm_options_t options = { .size = sizeof options, .max_locks = 16384 };
	lock_manager_t *manager = NULL;
	uint32_t locks = 0;
	REQUIRE(lock_manager_new_shm(name, 64, &options, &manager) == 0);
	struct peer peer = attach_peer(name);
	CHECK_INT(ask(peer, "try 64"), -EINVAL);
	CHECK_INT(ask(peer, "lock 63"), 0);
	memset(scores, 0, sizeof *scores);
	tell(peer, "count 0 3 20000 2");
	for (locks = 128; locks <= 8192; locks += 64)
		CHECK_INT(lock_manager_grow(manager, locks), 0);
	CHECK_INT(answer(peer), 0);
	CHECK_INT(ask(peer, "lock 8191"), 0);
	CHECK_INT(ask(peer, "try 8192"), -EINVAL);
	CHECK_INT(lock_manager_try_lock(manager, 8191), -EBUSY);
	CHECK_INT(lock_manager_try_lock(manager, 63), -EBUSY);
	CHECK_INT(ask(peer, "unlock 8191"), 0);
	CHECK_INT(ask(peer, "unlock 63"), 0);
	CHECK_INT(ask(peer, "grow 16384"), 0);
	CHECK_INT(lock_manager_num_locks(manager, &locks), 0);
	CHECK_INT(locks, 16384);
	CHECK_INT(lock_manager_lock(manager, 16383), 0);
	CHECK_INT(ask(peer, "try 16383"), -EBUSY);
	CHECK_INT(lock_manager_unlock(manager, 16383), 0);
	end_peer(peer);
	CHECK_INT(lock_manager_close(manager), 0);
}

static void a_lock_is_allocated_by_one_alone(void)
{
	const char *name = new_name();
	lock_manager_t *manager = new_segment(name, 128);
	struct peer peer = attach_peer(name);
	char seen[128] = { 0 }, command[32];
	uint32_t id = 0, left = 0;
	for (int i = 0; i < 128; i++) {
		int32_t got = i % 2 ? ask(peer, "allocate") : lock_manager_allocate_lock(manager, &id) == 0 ? (int32_t)id : -1;
		REQUIRE(got >= 0 && got < 128 && !seen[got]);
		seen[got] = 1;
	}
	CHECK_INT(ask(peer, "allocate"), -ENOLCK);
	CHECK_INT(lock_manager_allocate_lock(manager, &id), -ENOLCK);
	for (uint32_t freed = 5; freed < 128; freed += 30) {
		snprintf(command, sizeof command, "free %u", freed);
		CHECK_INT(ask(peer, command), 0);
		CHECK_INT(ask(peer, command), -ENOENT);
		CHECK_INT(lock_manager_allocate_lock(manager, &id), 0);
		CHECK_INT(id, freed);
		CHECK_INT(lock_manager_free_lock(manager, freed), 0);
		CHECK_INT(ask(peer, "allocate"), freed);
		CHECK_INT(lock_manager_allocate_and_retrieve_lock(manager, freed), -EEXIST);
	}
	CHECK_INT(lock_manager_available_locks(manager, &left), 0);
	CHECK_INT(left, 0);
	end_peer(peer);
	CHECK_INT(lock_manager_close(manager), 0);
}

#include "directories.h"

int main(int arguments, char **argument)
{
	if (arguments < 2)
		return 2;
	peer_program = argument[1];
	other_program = argument[arguments - 1];
	scores_fd = memfd_create("scores", 0);
	REQUIRE(scores_fd >= 0 && ftruncate(scores_fd, sizeof *scores) == 0);
	scores = mmap(NULL, sizeof *scores, PROT_READ | PROT_WRITE, MAP_SHARED, scores_fd, 0);
	REQUIRE(scores != MAP_FAILED);
	RUN_TEST(a_peer_is_seen_as_attached_and_as_a_holder);
	RUN_TEST(waits_end_when_their_time_is_up);
	RUN_TEST(a_waiting_peer_is_woken_by_the_library);
	RUN_TEST(a_waiting_user_of_the_library_is_woken_by_a_peer);
	RUN_TEST(no_increment_under_a_lock_is_lost);
	RUN_TEST(nobody_is_starved);
	RUN_TEST(a_killed_peers_lock_is_told_of);
	RUN_TEST(a_peer_is_told_of_a_killed_user_of_the_library);
	RUN_TEST(a_peer_is_told_of_a_thread_that_ended);
	RUN_TEST(deaths_are_seen_across_pid_namespaces);
	RUN_TEST(deaths_in_the_midst_of_it_let_nobody_in_beside_another);
	RUN_TEST(one_of_two_that_wait_for_each_other_gives_way);
	RUN_TEST(one_of_two_peers_that_wait_for_each_other_gives_way);
	RUN_TEST(a_removed_segment_is_refused);
	RUN_TEST(a_removal_that_was_left_half_done_has_not_happened);
	RUN_TEST(a_removal_that_was_not_told_of_has_happened);
	RUN_TEST(a_remover_at_work_is_not_heeded_before_its_end);
	RUN_TEST(a_copy_of_a_segment_is_refused);
	RUN_TEST(generations_may_begin_again);
	RUN_TEST(growing_disturbs_nobody);
	RUN_TEST(a_lock_is_allocated_by_one_alone);
	RUN_TEST(a_lock_of_a_directory_is_a_word_and_a_record_lock_for_both);
	RUN_TEST(what_has_only_a_record_lock_keeps_both_out);
	RUN_TEST(no_increment_under_a_lock_of_a_directory_is_lost);
	RUN_TEST(a_killed_peers_lock_of_a_directory_is_told_of);
	RUN_TEST(readers_of_a_directory_have_the_record_lock_for_reading);
	RUN_TEST(readers_of_a_directory_wait_for_what_has_only_a_record_lock);
	return end_of_tests();
}
