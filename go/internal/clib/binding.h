/* SPDX-License-Identifier: MIT OR Apache-2.0
 *
 * One function for each foreign call that Go makes: it calls the library and, where that failed, takes the words along.
 */

#include <dlfcn.h>
#include <errno.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <lock_manager.h>

// What a call has brought. text is fetched in the foreign call that failed, because the goroutine may be on another
// thread at its next one; it is the caller's to free.
typedef struct {
	int32_t code;
	uint32_t value;
	uintptr_t made;
	char *text;
} lm_result;

// Managers and cancel objects travel as numbers: they are never Go memory, and a number needs no pointer check.
#define MANAGER(number) ((lock_manager_t *)(number))
#define CANCEL(number) ((lock_manager_cancel_t *)(number))

// How many locks this thread holds through this binding for the goroutine that is pinned to it. No other goroutine
// runs on a thread where it is not 0, so it tells whether the calling goroutine holds anything.
static __thread uint32_t held_here;

static lm_result lm_result_of(int32_t code) {
	lm_result result = {code, 0, 0, NULL};
	if (code < 0)
		result.text = strdup(lock_manager_last_error());
	return result;
}

static lm_result lm_result_of_made(int32_t code, void *made) {
	lm_result result = lm_result_of(code);
	if (code >= 0)
		result.made = (uintptr_t)made;
	return result;
}

static lm_result lm_result_of_value(int32_t code, uint32_t value) {
	lm_result result = lm_result_of(code);
	if (code >= 0)
		result.value = value;
	return result;
}

static lm_result lm_new_shm(const char *path, uint32_t num_locks, uint32_t layout, uint32_t max_locks, uint32_t mode) {
	lock_manager_shm_options_t options = {sizeof options, layout, max_locks, mode, 0};
	lock_manager_t *made = NULL;
	int32_t code = lock_manager_new_shm(path, num_locks, &options, &made);
	return lm_result_of_made(code, made);
}

static lm_result lm_open_or_new_shm(const char *path, uint32_t num_locks, uint32_t layout, uint32_t max_locks, uint32_t mode) {
	lock_manager_shm_options_t options = {sizeof options, layout, max_locks, mode, 0};
	lock_manager_t *made = NULL;
	int32_t code = lock_manager_open_or_new_shm(path, num_locks, &options, &made);
	return lm_result_of_made(code, made);
}

static lm_result lm_open_shm(const char *path, uint32_t num_locks) {
	lock_manager_t *made = NULL;
	int32_t code = lock_manager_open_shm(path, num_locks, &made);
	return lm_result_of_made(code, made);
}

static lm_result lm_open_shm_read_only(const char *path) {
	lock_manager_t *made = NULL;
	int32_t code = lock_manager_open_shm_read_only(path, &made);
	return lm_result_of_made(code, made);
}

static lm_result lm_remove_shm(const char *path) {
	return lm_result_of(lock_manager_remove_shm(path));
}

static lm_result lm_new_file(const char *directory) {
	lock_manager_t *made = NULL;
	int32_t code = lock_manager_new_file(directory, &made);
	return lm_result_of_made(code, made);
}

static lm_result lm_open_file(const char *directory) {
	lock_manager_t *made = NULL;
	int32_t code = lock_manager_open_file(directory, &made);
	return lm_result_of_made(code, made);
}

static lm_result lm_open_or_new_file(const char *directory) {
	lock_manager_t *made = NULL;
	int32_t code = lock_manager_open_or_new_file(directory, &made);
	return lm_result_of_made(code, made);
}

static lm_result lm_remove_file(const char *directory) {
	return lm_result_of(lock_manager_remove_file(directory));
}

static lm_result lm_new_in_memory(uint32_t num_locks) {
	lock_manager_t *made = NULL;
	int32_t code = lock_manager_new_in_memory(num_locks, &made);
	return lm_result_of_made(code, made);
}

// As lock_manager_etcd.h declares it. Its library is loaded when it is asked for, so that programs without etcd need none.
typedef struct {
	size_t size;
	uint32_t ttl_seconds, patience_seconds;
	const char *config_file, *host;
} lm_etcd_options;

// A function of that library. It stays loaded.
static void *lm_etcd_function(const char *name, lm_result *result) {
	void *library = dlopen("liblock_manager_etcd.so.0", RTLD_NOW | RTLD_LOCAL);
	void *function = library ? dlsym(library, name) : NULL;
	if (!function) {
		const char *why = dlerror();
		*result = (lm_result){-ENOSYS, 0, 0, strdup(why ? why : "liblock_manager_etcd.so.0 cannot be loaded")};
	}
	return function;
}

static lm_result lm_open_etcd(const char *address, uint32_t num_locks, uint32_t ttl, uint32_t patience, const char *config, const char *host) {
	lm_etcd_options options = {sizeof options, ttl, patience, config, host};
	lock_manager_t *made = NULL;
	lm_result result;
	int32_t (*open)(const char *, uint32_t, const lm_etcd_options *, lock_manager_t **);
	*(void **)&open = lm_etcd_function("lock_manager_open_etcd", &result);
	if (!open)
		return result;
	int32_t code = open(address, num_locks, &options, &made);
	return lm_result_of_made(code, made);
}

static lm_result lm_remove_etcd(const char *address, const char *config, const char *host) {
	lm_etcd_options options = {sizeof options, 0, 0, config, host};
	lm_result result;
	int32_t (*remove)(const char *, const lm_etcd_options *);
	*(void **)&remove = lm_etcd_function("lock_manager_remove_etcd", &result);
	return remove ? lm_result_of(remove(address, &options)) : result;
}

typedef struct {
	size_t size;
	uint32_t holds, here;
	int32_t pid, tid;
	uint64_t token, since_ns;
	char host[128], command[32];
} lm_etcd_party;

static lm_result lm_etcd_parties(uintptr_t manager, uint32_t id, lm_etcd_party *parties, size_t capacity, size_t *count) {
	lm_result result;
	int32_t (*list)(lock_manager_t *, uint32_t, lm_etcd_party *, size_t, size_t *);
	*(void **)&list = lm_etcd_function("lock_manager_etcd_parties", &result);
	parties[0].size = sizeof parties[0];
	return list ? lm_result_of(list(MANAGER(manager), id, parties, capacity, count)) : result;
}

static lm_result lm_fencing_token(uintptr_t manager, uint32_t id, uint64_t *token) {
	return lm_result_of(lock_manager_fencing_token(MANAGER(manager), id, token));
}

static lm_result lm_lost_fd(uintptr_t manager, int32_t *descriptor) {
	return lm_result_of(lock_manager_lost_fd(MANAGER(manager), descriptor));
}

static lm_result lm_own_by_process(uintptr_t manager) {
	return lm_result_of(lock_manager_set_ownership(MANAGER(manager), LOCK_MANAGER_OWNED_BY_PROCESS));
}

static lm_result lm_close(uintptr_t manager) {
	return lm_result_of(lock_manager_close(MANAGER(manager)));
}

static lm_result lm_allocate_lock(uintptr_t manager) {
	uint32_t id = 0;
	int32_t code = lock_manager_allocate_lock(MANAGER(manager), &id);
	return lm_result_of_value(code, id);
}

static lm_result lm_retrieve_lock(uintptr_t manager, uint32_t id) {
	return lm_result_of(lock_manager_retrieve_lock(MANAGER(manager), id));
}

static lm_result lm_allocate_and_retrieve_lock(uintptr_t manager, uint32_t id) {
	return lm_result_of(lock_manager_allocate_and_retrieve_lock(MANAGER(manager), id));
}

static lm_result lm_free_lock(uintptr_t manager, uint32_t id) {
	return lm_result_of(lock_manager_free_lock(MANAGER(manager), id));
}

static lm_result lm_free_all_locks(uintptr_t manager) {
	return lm_result_of(lock_manager_free_all_locks(MANAGER(manager)));
}

static lm_result lm_available_locks(uintptr_t manager) {
	uint32_t count = 0;
	int32_t code = lock_manager_available_locks(MANAGER(manager), &count);
	return lm_result_of_value(code, count);
}

static lm_result lm_num_locks(uintptr_t manager) {
	uint32_t count = 0;
	int32_t code = lock_manager_num_locks(MANAGER(manager), &count);
	return lm_result_of_value(code, count);
}

static lm_result lm_grow(uintptr_t manager, uint32_t num_locks) {
	return lm_result_of(lock_manager_grow(MANAGER(manager), num_locks));
}

// by_thread says who owns the locks of this manager: only a thread's own are counted.
static lm_result lm_count(int32_t code, uint32_t by_thread) {
	if (code >= 0)
		held_here += by_thread;
	return lm_result_of(code);
}

// The calls that are made most bring one word back, NULL where all is well; the rest is the caller's to free. What
// seldom happens stands apart, or each call would save the registers that only it needs.
static __attribute__((noinline, cold)) lm_result *lm_more(lm_result result) {
	lm_result *more = malloc(sizeof *more);
	if (more == NULL)
		abort();
	*more = result;
	return more;
}

static __attribute__((noinline, cold)) lm_result *lm_tried(int32_t code, uint32_t by_thread) {
	if (code == -EBUSY)
		return lm_more((lm_result){code, held_here, 0, NULL});
	return lm_more(lm_count(code, by_thread));
}

static lm_result *lm_try_lock(uintptr_t manager, uint32_t id, uint32_t by_thread) {
	int32_t code = lock_manager_try_lock(MANAGER(manager), id);
	if (code != 0)
		return lm_tried(code, by_thread);
	held_here += by_thread;
	return NULL;
}

static lm_result *lm_try_lock_shared(uintptr_t manager, uint32_t id, uint32_t by_thread) {
	int32_t code = lock_manager_try_lock_shared(MANAGER(manager), id);
	if (code != 0)
		return lm_tried(code, by_thread);
	held_here += by_thread;
	return NULL;
}

static lm_result lm_lock(uintptr_t manager, uint32_t id, uint32_t by_thread) {
	return lm_count(lock_manager_lock(MANAGER(manager), id), by_thread);
}

static lm_result lm_cancellable_lock(uintptr_t manager, uint32_t id, uint32_t by_thread, uintptr_t cancel) {
	return lm_count(lock_manager_cancellable_lock(MANAGER(manager), id, UINT64_MAX, CANCEL(cancel)), by_thread);
}

static lm_result lm_lock_shared(uintptr_t manager, uint32_t id, uint32_t by_thread) {
	return lm_count(lock_manager_lock_shared(MANAGER(manager), id), by_thread);
}

static lm_result lm_cancellable_lock_shared(uintptr_t manager, uint32_t id, uint32_t by_thread, uintptr_t cancel) {
	return lm_count(lock_manager_cancellable_lock_shared(MANAGER(manager), id, UINT64_MAX, CANCEL(cancel)), by_thread);
}

// What the caller does not hold it has not given back. After every other failure the lock is free, though something
// about it went wrong, such as a record that could not be written: value is 1 then.
static __attribute__((noinline, cold)) lm_result *lm_refused(int32_t code, uint32_t by_thread) {
	lm_result result = lm_result_of(code);
	if (code != -EPERM && code != -EINVAL && code != -EACCES && code != -EOPNOTSUPP) {
		held_here -= by_thread;
		result.value = 1;
	}
	return lm_more(result);
}

static lm_result *lm_unlock(uintptr_t manager, uint32_t id, uint32_t by_thread) {
	int32_t code = lock_manager_unlock(MANAGER(manager), id);
	if (code < 0)
		return lm_refused(code, by_thread);
	held_here -= by_thread;
	return NULL;
}

static lm_result *lm_unlock_shared(uintptr_t manager, uint32_t id, uint32_t by_thread) {
	int32_t code = lock_manager_unlock_shared(MANAGER(manager), id);
	if (code < 0)
		return lm_refused(code, by_thread);
	held_here -= by_thread;
	return NULL;
}

// What was held is held still, in the one way or the other.
static lm_result lm_downgrade_lock(uintptr_t manager, uint32_t id) {
	return lm_result_of(lock_manager_downgrade_lock(MANAGER(manager), id));
}

static lm_result lm_cancel_new(void) {
	lock_manager_cancel_t *made = NULL;
	int32_t code = lock_manager_cancel_new(&made);
	return lm_result_of_made(code, made);
}

static lm_result lm_cancel_trigger(uintptr_t cancel) {
	return lm_result_of(lock_manager_cancel_trigger(CANCEL(cancel)));
}

static lm_result lm_cancel_free(uintptr_t cancel) {
	return lm_result_of(lock_manager_cancel_free(CANCEL(cancel)));
}

static lm_result lm_locks_held(uintptr_t manager, uint32_t *ids, size_t capacity) {
	size_t count = 0;
	int32_t code = lock_manager_locks_held(MANAGER(manager), ids, capacity, &count);
	return lm_result_of_value(code, (uint32_t)count);
}

static lm_result lm_lock_info(uintptr_t manager, uint32_t id, lock_manager_lock_info_t *info) {
	info->size = sizeof *info;
	return lm_result_of(lock_manager_lock_info(MANAGER(manager), id, info));
}

// holders has room for one at least.
static lm_result lm_lock_holders(uintptr_t manager, uint32_t id, lock_manager_holder_t *holders, size_t capacity) {
	size_t count = 0;
	holders->size = sizeof *holders;
	int32_t code = lock_manager_lock_holders(MANAGER(manager), id, holders, capacity, &count);
	return lm_result_of_value(code, (uint32_t)count);
}

static lm_result lm_info(uintptr_t manager, lock_manager_info_t *info) {
	info->size = sizeof *info;
	return lm_result_of(lock_manager_info(MANAGER(manager), info));
}

static lm_result lm_repair_lock(uintptr_t manager, uint32_t id) {
	return lm_result_of(lock_manager_repair_lock(MANAGER(manager), id));
}
