/* SPDX-License-Identifier: MIT OR Apache-2.0
 *
 * Child processes that hold locks.
 */
#ifndef HOLDER_H
#define HOLDER_H

#include "child.h"
#include "segment.h"

/* A child that takes locks, from the first on as many, says so, and holds them until it is killed. */
static inline pid_t fork_holder(lock_manager_t *manager, uint32_t first, uint32_t count)
{
	struct signpost held = new_signpost();
	pid_t child = fork_child();
	if (child == 0) {
		for (uint32_t id = first; id < first + count; id++)
			REQUIRE(lock_manager_lock(manager, id) == 0);
		say(held);
		for (;;)
			pause();
	}
	/* A child that fails before it speaks is an end of file here. */
	close(held.write_end);
	await((struct signpost){ held.read_end, -1 });
	close(held.read_end);
	return child;
}

#endif
