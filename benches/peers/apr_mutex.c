/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* APR's process mutex; APR_MECHANISM says which of them. */
#include "peer.h"

#include <apr_proc_mutex.h>
#include <stddef.h>

static apr_pool_t *pool;
/* Made before the processes, each of which has a copy. */
static apr_proc_mutex_t *made;

void peer_make(void *memory, const char *path)
{
	(void)memory;
	if (pool == NULL) {
		apr_initialize();
		apr_pool_create(&pool, NULL);
	}
	if (made != NULL)
		apr_proc_mutex_destroy(made);
	if (apr_proc_mutex_create(&made, path, APR_MECHANISM, pool) != APR_SUCCESS)
		made = NULL;
}

void *peer_attach(void *memory, const char *path)
{
	apr_proc_mutex_t *own = made;

	(void)memory;
	return own != NULL && apr_proc_mutex_child_init(&own, path, pool) == APR_SUCCESS ? own : NULL;
}

int peer_lock(void *mutex, uint32_t id)
{
	(void)id;
	return apr_proc_mutex_lock(mutex);
}

int peer_unlock(void *mutex, uint32_t id)
{
	(void)id;
	return apr_proc_mutex_unlock(mutex);
}
