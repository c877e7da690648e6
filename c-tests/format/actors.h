// SPDX-License-Identifier: MIT OR Apache-2.0
/* Programs that do in a segment what they are told, one command a line, and answer with one number each. */
#ifndef FORMAT_ACTORS_H
#define FORMAT_ACTORS_H

#include <fcntl.h>
#include <sched.h>

#include "../child.h"

struct peer {
	pid_t pid;
	int in, out;
};

static inline void tell(struct peer peer, const char *command)
{
	REQUIRE(dprintf(peer.in, "%s\n", command) > 0);
}

/* Byte by byte, so that poll(2) sees what has not been read. */
static inline int answer(struct peer peer)
{
	char line[32] = "";
	for (size_t i = 0; i < sizeof line - 1; i++) {
		REQUIRE(read(peer.out, line + i, 1) == 1);
		if (line[i] == '\n')
			break;
	}
	return atoi(line);
}

static inline int ask(struct peer peer, const char *command)
{
	tell(peer, command);
	return answer(peer);
}

/* With clone flags; its first answer, whether it could attach, is still to be read. */
static inline struct peer start_peer(const char *program, const char *segment, int scores_fd, unsigned long flags)
{
	int in[2], out[2];
	char descriptor[16];
	REQUIRE(pipe2(in, O_CLOEXEC) == 0 && pipe2(out, O_CLOEXEC) == 0);
	snprintf(descriptor, sizeof descriptor, "%d", scores_fd);
	fflush(NULL);
#ifdef __s390x__ /* There the stack comes before the flags. */
	pid_t child = flags ? (pid_t)syscall(SYS_clone, 0, flags | SIGCHLD, 0, 0, 0) : fork();
#else
	pid_t child = flags ? (pid_t)syscall(SYS_clone, flags | SIGCHLD, 0, 0, 0, 0) : fork();
#endif
	if (child == 0) {
		/* Both outlast exec. */
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		alarm(WATCHDOG_SECONDS);
		if (dup2(in[0], STDIN_FILENO) >= 0 && dup2(out[1], STDOUT_FILENO) >= 0)
			execl(program, program, segment, descriptor, (char *)NULL);
		_exit(127);
	}
	close(in[0]);
	close(out[1]);
	return (struct peer){ child, in[1], out[0] };
}

static inline void forget(struct peer peer)
{
	close(peer.in);
	close(peer.out);
}

static inline void end_peer(struct peer peer)
{
	close(peer.in);
	check_child_ended_well(peer.pid);
	close(peer.out);
}

static inline void kill_peer(struct peer peer)
{
	kill_child(peer.pid);
	forget(peer);
}

#endif
