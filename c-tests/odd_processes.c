/* SPDX-License-Identifier: MIT OR Apache-2.0
 *
 * Processes that are not as one imagines them: without standard descriptors, forked in the midst of a first call,
 * with a main thread that has ended.
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <grp.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stddef.h>

#include "child.h"
#include "segment.h"

static const char *name;

static void what_a_program_without_standard_descriptors_prints_is_not_written_into_the_segment(void)
{
	static const char text[] = "a line of some log, long enough to go over the numbers and the mutex at the start";
	name = new_name();
	CHECK_INT(lock_manager_close(new_segment(name, 32)), 0);
	pid_t child = fork_child();
	if (child == 0) {
		lock_manager_t *manager = NULL;
		uint32_t id;
		for (int standard = 0; standard <= 2; standard++)
			close(standard);
		CHECK_INT(lock_manager_open_shm(name, 32, &manager), 0);
		for (int standard = 0; standard <= 2; standard++)
			CHECK(write(standard, text, sizeof text) == -1);
		CHECK_INT(lock_manager_allocate_lock(manager, &id), 0);
		CHECK_INT(lock_manager_close(manager), 0);
		end_child();
	}
	check_child_ended_well(child);
	lock_manager_t *manager = NULL;
	CHECK_INT(lock_manager_open_shm(name, 32, &manager), 0);
	CHECK_INT(lock_manager_close(manager), 0);
}

static atomic_int ready, go;

static void *make_the_first_call(void *unused)
{
	lock_manager_t *manager = NULL;
	atomic_store(&ready, 1);
	while (!atomic_load(&go))
		;
	CHECK_INT(lock_manager_open_shm(name, 0, &manager), 0);
	return unused;
}

/* The moment of the fork is varied from process to process, over what a first call takes. */
static void fork_in_the_midst_of_the_first_call(int moment)
{
	pthread_t thread;
	REQUIRE(pthread_create(&thread, NULL, make_the_first_call, NULL) == 0);
	while (!atomic_load(&ready))
		sched_yield();
	atomic_store(&go, 1);
	for (volatile int spin = 0; spin < moment * 100; spin++)
		;
	pid_t grandchild = fork_child();
	if (grandchild == 0) {
		lock_manager_t *manager = NULL;
		CHECK_INT(lock_manager_open_shm(name, 0, &manager), 0);
		CHECK_INT(lock_manager_lock(manager, 3), 0);
		CHECK_INT(lock_manager_unlock(manager, 3), 0);
		CHECK_INT(lock_manager_close(manager), 0);
		end_child();
	}
	check_child_ended_well(grandchild);
	REQUIRE(pthread_join(thread, NULL) == 0);
}

static void a_child_forked_in_the_midst_of_the_first_call_can_use_the_library(void)
{
	name = new_name();
	/* By another process, so that no child of this one has made a call before. */
	pid_t maker = fork_child();
	if (maker == 0) {
		CHECK_INT(lock_manager_close(new_segment(name, 32)), 0);
		end_child();
	}
	check_child_ended_well(maker);
	for (int moment = 0; moment < 200; moment++) {
		pid_t child = fork_child();
		if (child == 0) {
			fork_in_the_midst_of_the_first_call(moment);
			end_child();
		}
		check_child_ended_well(child);
	}
}

static struct signpost holds, may_end;
static int holder_tid;

static void *live_on(void *main_thread)
{
	lock_manager_t *manager = NULL;
	uint32_t id = 77;
	REQUIRE(pthread_join(*(pthread_t *)main_thread, NULL) == 0);
	CHECK_INT(lock_manager_new_shm(name, 32, NULL, &manager), 0);
	CHECK_INT(lock_manager_allocate_lock(manager, &id), 0);
	CHECK_INT(lock_manager_lock(manager, id), 0);
	holder_tid = own_tid();
	REQUIRE(write(holds.write_end, &holder_tid, sizeof holder_tid) == sizeof holder_tid);
	await(may_end);
	CHECK_INT(lock_manager_unlock(manager, id), 0);
	CHECK_INT(lock_manager_close(manager), 0);
	end_child();
	return NULL;
}

static void a_process_whose_main_thread_has_ended_is_a_holder_like_any(void)
{
	name = new_name();
	holds = new_signpost();
	may_end = new_signpost();
	pid_t child = fork_child();
	if (child == 0) {
		static pthread_t main_thread;
		pthread_t thread;
		main_thread = pthread_self();
		REQUIRE(pthread_create(&thread, NULL, live_on, &main_thread) == 0);
		pthread_exit(NULL);
	}
	lock_manager_t *manager = NULL;
	lock_manager_lock_info_t info = { .size = sizeof info };
	REQUIRE(read(holds.read_end, &holder_tid, sizeof holder_tid) == sizeof holder_tid);
	CHECK_INT(lock_manager_open_shm(name, 32, &manager), 0);
	CHECK_INT(lock_manager_lock_info(manager, 0, &info), 0);
	CHECK_INT(info.held, 1);
	CHECK_INT(info.pid, child);
	CHECK_INT(info.tid, holder_tid);
	CHECK_INT(lock_manager_repair_lock(manager, 0), -EBUSY);
	say(may_end);
	check_child_ended_well(child);
	CHECK_INT(lock_manager_try_lock(manager, 0), 0);
	CHECK_INT(lock_manager_unlock(manager, 0), 0);
	CHECK_INT(lock_manager_close(manager), 0);
	close_signpost(holds);
	close_signpost(may_end);
}

/* Lets nothing through of a system call, as a sandbox may. */
static void forbid(int system_call)
{
	struct sock_filter steps[] = {
		BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
		BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, (unsigned)system_call, 0, 1),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | EPERM),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
	};
	struct sock_fprog program = { sizeof steps / sizeof steps[0], steps };
	REQUIRE(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0);
	REQUIRE(prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program) == 0);
}

/* What is forbidden is named, and nothing else is blamed. */
static void a_sandbox_that_forbids_a_call_is_named(void)
{
	int is_libpod = layout_under_test() == LOCK_MANAGER_LAYOUT_LIBPOD;
	name = new_name();
	CHECK_INT(lock_manager_close(new_segment(name, 32)), 0);
	pid_t child = fork_child();
	if (child == 0) {
		lock_manager_t *manager = NULL;
		if (is_libpod) {
			uint32_t id;
			manager = open_segment(name);
			forbid(SYS_get_robust_list);
			CHECK_FAILURE(lock_manager_lock(manager, 3), -EOPNOTSUPP, "seccomp) forbids get_robust_list(2)");
			CHECK_FAILURE(lock_manager_allocate_lock(manager, &id), -EOPNOTSUPP, "seccomp) forbids get_robust_list(2)");
		} else {
			forbid(SYS_fcntl);
			CHECK_FAILURE(lock_manager_open_shm(name, 0, &manager), -EOPNOTSUPP, "seccomp) forbids fcntl(2)");
		}
		end_child();
	}
	check_child_ended_well(child);
}

enum { NOBODY = 65534, FIRST_CALLS = 12 };

static void make_first_call(lock_manager_t *manager, int which)
{
	lock_manager_lock_info_t lock = { .size = sizeof lock };
	lock_manager_info_t storage = { .size = sizeof storage };
	uint32_t number;
	size_t count;
	switch (which) {
	case 0: CHECK_INT(lock_manager_num_locks(manager, &number), 0); break;
	case 1: CHECK_INT(lock_manager_available_locks(manager, &number), 0); break;
	case 2: CHECK_INT(lock_manager_retrieve_lock(manager, 1), 0); break;
	case 3: CHECK_INT(lock_manager_locks_held(manager, NULL, 0, &count), 0); break;
	case 4: CHECK_INT(lock_manager_lock_info(manager, 1, &lock), 0); break;
	case 5: CHECK_INT(lock_manager_info(manager, &storage), 0); break;
	case 6: CHECK_INT(lock_manager_allocate_lock(manager, &number), 0); break;
	case 7: CHECK_INT(lock_manager_free_lock(manager, 7), -ENOENT); break;
	case 8: CHECK_INT(lock_manager_try_lock(manager, 9), -EBUSY); break;
	case 9: CHECK_INT(lock_manager_repair_lock(manager, 1), 0); break;
	case 10: CHECK_INT(lock_manager_unlock(manager, 1), -EPERM); break;
	default: CHECK_INT(lock_manager_allocate_and_retrieve_lock(manager, 20), 0); break;
	}
}

static void use_all_of(lock_manager_t *manager)
{
	uint32_t id;
	CHECK_INT(lock_manager_lock(manager, 3), 0);
	CHECK_INT(lock_manager_unlock(manager, 3), 0);
	CHECK_INT(lock_manager_timed_lock(manager, 9, 10000000), -ETIMEDOUT);
	CHECK_INT(lock_manager_allocate_lock(manager, &id), 0);
	CHECK_INT(lock_manager_free_lock(manager, id), 0);
	CHECK_INT(lock_manager_close(manager), 0);
}

static void become_nobody(void)
{
	REQUIRE(setgroups(0, NULL) == 0 && setgid(NOBODY) == 0 && setuid(NOBODY) == 0);
}

/* One that has opened the segment, and a child that has made one call of whatever kind. */
static void a_process_that_gives_up_its_rights_goes_on(void)
{
	if (geteuid() != 0)
		SKIP("only root can become another user");
	name = new_name();
	lock_manager_t *manager = new_segment(name, 32);
	CHECK_INT(lock_manager_lock(manager, 9), 0);
	for (int which = 0; which < FIRST_CALLS; which++) {
		pid_t child = fork_child();
		if (child == 0) {
			make_first_call(manager, which);
			become_nobody();
			use_all_of(manager);
			end_child();
		}
		check_child_ended_well(child);
		lock_manager_free_lock(manager, 20);
	}
	pid_t child = fork_child();
	if (child == 0) {
		lock_manager_t *own = open_segment(name);
		become_nobody();
		use_all_of(own);
		end_child();
	}
	check_child_ended_well(child);
	CHECK_INT(lock_manager_unlock(manager, 9), 0);
	CHECK_INT(lock_manager_close(manager), 0);
}

int main(void)
{
	/* First: its children must not inherit a library that was called. */
	RUN_TEST(a_child_forked_in_the_midst_of_the_first_call_can_use_the_library);
	RUN_TEST(what_a_program_without_standard_descriptors_prints_is_not_written_into_the_segment);
	RUN_TEST(a_process_whose_main_thread_has_ended_is_a_holder_like_any);
	RUN_TEST(a_sandbox_that_forbids_a_call_is_named);
	RUN_TEST(a_process_that_gives_up_its_rights_goes_on);
	return end_of_tests();
}
