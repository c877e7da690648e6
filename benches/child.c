/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * A lean child for works that kill: it takes a lock, says so with a byte, and keeps it. The kernel ends it in a few
 * microseconds, so that the death of hundreds at once is a figure of the library and not of the kernel.
 *
 * usage: child exclusive|shared SEGMENT LOCK
 */
#include <lock_manager.h>

#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <signal.h>
#include <unistd.h>

int main(int argc, char **argv)
{
	lock_manager_t *manager;
	uint32_t id;
	int32_t code;

	prctl(PR_SET_PDEATHSIG, SIGKILL);
	alarm(120);
	if (argc != 4 || lock_manager_open_shm(argv[2], 0, &manager) < 0)
		return 1;
	id = (uint32_t)strtoul(argv[3], NULL, 10);
	code = strcmp(argv[1], "shared") == 0 ? lock_manager_lock_shared(manager, id) : lock_manager_lock(manager, id);
	if (code < 0 || write(STDOUT_FILENO, "", 1) != 1)
		return 1;
	for (;;)
		pause();
}
