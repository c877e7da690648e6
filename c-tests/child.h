/* SPDX-License-Identifier: MIT OR Apache-2.0
 *
 * Child processes and threads that tests drive: pipes say what has happened, /proc says who sleeps.
 */
#ifndef CHILD_H
#define CHILD_H

#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>

#include "check.h"

/* What a child exits with when one of its checks has failed. */
enum { CHILD_FAILED = 99 };

/* One byte at a time, from one process or thread to another. */
struct signpost {
	int read_end, write_end;
};

static inline struct signpost new_signpost(void)
{
	int ends[2];
	REQUIRE(pipe(ends) == 0);
	return (struct signpost){ ends[0], ends[1] };
}

static inline void close_signpost(struct signpost post)
{
	close(post.read_end);
	close(post.write_end);
}

static inline void say(struct signpost post)
{
	REQUIRE(write(post.write_end, "!", 1) == 1);
}

static inline void await(struct signpost post)
{
	char byte;
	REQUIRE(read(post.read_end, &byte, 1) == 1);
}

/* fork(2) with a watchdog in the child, which ends with its parent. */
static inline pid_t fork_child(void)
{
	fflush(NULL);
	pid_t child = fork();
	REQUIRE(child >= 0);
	if (child == 0) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		checks_failed = 0;
		start_watchdog();
	}
	return child;
}

/* Ends a child without the parent's atexit functions. */
static inline _Noreturn void end_child(void)
{
	fflush(stderr);
	_exit(checks_failed ? CHILD_FAILED : 0);
}

static inline void check_child_ended_well(pid_t child)
{
	int status = -1;
	CHECK_INT(waitpid(child, &status, 0), child);
	CHECK_INT(status, 0);
}

static inline void kill_child(pid_t child)
{
	int status = -1;
	CHECK_INT(kill(child, SIGKILL), 0);
	CHECK_INT(waitpid(child, &status, 0), child);
	CHECK(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
}

static inline uint64_t monotonic_ns(void)
{
	struct timespec now;
	clock_gettime(CLOCK_MONOTONIC, &now);
	return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

/* Whether a thread sleeps in futex(2). A kernel that does not tell lets any sleep count. */
static inline int sleeps_in_futex(pid_t tid)
{
	char path[64], line[128] = "";
	snprintf(path, sizeof path, "/proc/%d/syscall", (int)tid);
	FILE *file = fopen(path, "r");
	if (file != NULL && fgets(line, sizeof line, file) != NULL) {
		fclose(file);
		return strtol(line, NULL, 10) == SYS_futex && line[0] != 'r';
	}
	if (file != NULL)
		fclose(file);
	char state = '?';
	snprintf(path, sizeof path, "/proc/%d/stat", (int)tid);
	file = fopen(path, "r");
	if (file != NULL) {
		if (fscanf(file, "%*d (%*[^)]) %c", &state) != 1)
			state = '?';
		fclose(file);
	}
	return state == 'S';
}

/* Until a thread waits for a lock; the watchdog ends it if that never comes. */
static inline void await_sleep(pid_t tid)
{
	while (!sleeps_in_futex(tid))
		usleep(1000);
}

static inline pid_t own_tid(void)
{
	return (pid_t)syscall(SYS_gettid);
}

#endif
