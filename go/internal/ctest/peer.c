// SPDX-License-Identifier: MIT OR Apache-2.0
//
// A C process of the tests: the test binary, which this takes over before Go has started in it. It is driven by lines, as
// the Go children are. "clone" makes a child behind the libc's back, which obeys lines of its own; "child LINE" hands one
// on, and "answer" brings the child's answer.

#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <lock_manager.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

enum { LINE = 1024 };

struct peer {
	lock_manager_t *manager;
	volatile uint64_t *counter;
	int in, out;
	// The raw clone's ends, in its parent.
	int child_in, child_out;
};

// Byte by byte: nothing is read ahead that a child could read again. 0: the other end is closed.
static int get_line(int fd, char *line) {
	size_t length = 0;
	while (length < LINE - 1 && read(fd, line + length, 1) == 1) {
		if (line[length++] == '\n') {
			line[length - 1] = 0;
			return 1;
		}
	}
	return 0;
}

static void answer(const struct peer *peer, int32_t code) {
	if (code == 0)
		dprintf(peer->out, "ok\n");
	else if (code == LOCK_MANAGER_OWNER_DIED)
		dprintf(peer->out, "owner died\n");
	else
		dprintf(peer->out, "%d: %s\n", -code, lock_manager_last_error());
}

static int32_t count(const struct peer *peer, uint32_t id, uint32_t rounds) {
	for (uint32_t round = 0; round < rounds; round++) {
		int32_t code = lock_manager_lock(peer->manager, id);
		if (code != 0)
			return code;
		*peer->counter += 1;
		if ((code = lock_manager_unlock(peer->manager, id)) != 0)
			return code;
	}
	return 0;
}

static void serve(struct peer *peer);

// No handler of the libc's runs in such a child, and the libc takes it for its parent.
static void clone_raw(struct peer *peer) {
	int orders[2], answers[2];
	if (pipe2(orders, O_CLOEXEC) != 0 || pipe2(answers, O_CLOEXEC) != 0)
		_exit(3);
#ifdef __s390x__ // It takes the stack before the flags.
	long pid = syscall(SYS_clone, 0, SIGCHLD, 0, 0, 0);
#else
	long pid = syscall(SYS_clone, SIGCHLD, 0, 0, 0, 0);
#endif
	if (pid < 0)
		_exit(3);
	if (pid == 0) {
		close(orders[1]);
		close(answers[0]);
		peer->in = orders[0];
		peer->out = answers[1];
		serve(peer);
		syscall(SYS_exit_group, 0);
	}
	close(orders[0]);
	close(answers[1]);
	peer->child_in = orders[1];
	peer->child_out = answers[0];
	dprintf(peer->out, "%ld\n", pid);
}

static void serve(struct peer *peer) {
	char line[LINE], call[LINE];
	while (get_line(peer->in, line)) {
		unsigned id = 0, rounds = 0;
		if (sscanf(line, "%s %u %u", call, &id, &rounds) < 1)
			continue;
		if (strcmp(call, "lock") == 0) {
			answer(peer, lock_manager_lock(peer->manager, id));
		} else if (strcmp(call, "unlock") == 0) {
			answer(peer, lock_manager_unlock(peer->manager, id));
		} else if (strcmp(call, "rlock") == 0) {
			answer(peer, lock_manager_lock_shared(peer->manager, id));
		} else if (strcmp(call, "runlock") == 0) {
			answer(peer, lock_manager_unlock_shared(peer->manager, id));
		} else if (strcmp(call, "try") == 0) {
			int32_t code = lock_manager_try_lock(peer->manager, id);
			if (code == -EBUSY)
				dprintf(peer->out, "busy\n");
			else
				answer(peer, code);
		} else if (strcmp(call, "count") == 0) {
			answer(peer, count(peer, id, rounds));
		} else if (strcmp(call, "clone") == 0) {
			clone_raw(peer);
		} else if (strcmp(call, "child") == 0) {
			dprintf(peer->child_in, "%s\n", line + strlen("child "));
		} else if (strcmp(call, "answer") == 0) {
			dprintf(peer->out, "%s\n", get_line(peer->child_out, line) ? line : "the child has ended");
		} else {
			dprintf(peer->out, "no such call: %s\n", call);
		}
	}
}

__attribute__((constructor)) static void become_a_peer(void) {
	const char *path = getenv("LOCKMANAGER_TEST_C_PEER"), *file = getenv("LOCKMANAGER_TEST_C_COUNTER");
	if (path == NULL || file == NULL)
		return;
	// Who kills a peer may have closed its pipes before.
	signal(SIGPIPE, SIG_IGN);
	struct peer peer = {.in = STDIN_FILENO, .out = STDOUT_FILENO, .child_in = -1, .child_out = -1};
	int fd = open(file, O_RDWR | O_CLOEXEC);
	peer.counter = mmap(NULL, sizeof *peer.counter, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	int32_t code = lock_manager_open_shm(path, 0, &peer.manager);
	if (peer.counter == MAP_FAILED || code != 0) {
		dprintf(STDERR_FILENO, "a C process of the tests could not start: %s\n", lock_manager_last_error());
		_exit(3);
	}
	serve(&peer);
	_exit(0);
}
