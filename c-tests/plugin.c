/* SPDX-License-Identifier: MIT OR Apache-2.0
 *
 * A plugin that uses locks; the program that loads it knows nothing of them. See plugin_host.c.
 */
#include <stddef.h>

#include <lock_manager.h>

#include "plugin.h"

int enter_and_leave(const char *name)
{
	lock_manager_t *manager = NULL;
	int32_t code = lock_manager_open_or_new_shm(name, 32, NULL, &manager);
	if (code != 0)
		return code;
	code = lock_manager_lock(manager, 7);
	if (code == 0)
		code = lock_manager_unlock(manager, 7);
	/* So that this thread has a last error when it ends. */
	if (code == 0 && (lock_manager_unlock(manager, 7) == 0 || *lock_manager_last_error() == '\0'))
		code = -1;
	int32_t closed = lock_manager_close(manager);
	return code != 0 ? code : closed;
}
