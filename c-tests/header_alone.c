/* SPDX-License-Identifier: MIT OR Apache-2.0
 *
 * The header needs nothing before it, may come twice, and is C99, C11 and C++17. Compiled as each, run as each: the
 * numbers that programs were compiled with never change.
 */
#include <lock_manager.h>
#include <lock_manager.h>

#ifdef __cplusplus
#define ASSERT_AT_COMPILE_TIME(name, condition) static_assert(condition, #name)
#else
#define ASSERT_AT_COMPILE_TIME(name, condition) typedef char name[(condition) ? 1 : -1]
#endif

ASSERT_AT_COMPILE_TIME(owner_died, LOCK_MANAGER_OWNER_DIED == 1);
ASSERT_AT_COMPILE_TIME(unlimited, LOCK_MANAGER_UNLIMITED == UINT32_MAX);
ASSERT_AT_COMPILE_TIME(layout_default, LOCK_MANAGER_LAYOUT_DEFAULT == 0);
ASSERT_AT_COMPILE_TIME(layout_libpod, LOCK_MANAGER_LAYOUT_LIBPOD == 1);
ASSERT_AT_COMPILE_TIME(layout_native, LOCK_MANAGER_LAYOUT_NATIVE == 2);
ASSERT_AT_COMPILE_TIME(kind_shm, LOCK_MANAGER_KIND_SHM == 0);
ASSERT_AT_COMPILE_TIME(kind_file, LOCK_MANAGER_KIND_FILE == 1);
ASSERT_AT_COMPILE_TIME(kind_in_memory, LOCK_MANAGER_KIND_IN_MEMORY == 2);
ASSERT_AT_COMPILE_TIME(by_thread, LOCK_MANAGER_OWNED_BY_THREAD == 0);
ASSERT_AT_COMPILE_TIME(by_process, LOCK_MANAGER_OWNED_BY_PROCESS == 1);

ASSERT_AT_COMPILE_TIME(options_begin_with_size, offsetof(lock_manager_shm_options_t, size) == 0);
ASSERT_AT_COMPILE_TIME(options_layout, offsetof(lock_manager_shm_options_t, layout) == sizeof(size_t));
ASSERT_AT_COMPILE_TIME(options_max_locks, offsetof(lock_manager_shm_options_t, max_locks) == sizeof(size_t) + 4);
ASSERT_AT_COMPILE_TIME(options_mode, offsetof(lock_manager_shm_options_t, mode) == sizeof(size_t) + 8);
ASSERT_AT_COMPILE_TIME(options_flags, offsetof(lock_manager_shm_options_t, flags) == sizeof(size_t) + 12);
ASSERT_AT_COMPILE_TIME(lock_info_begins_with_size, offsetof(lock_manager_lock_info_t, size) == 0);
ASSERT_AT_COMPILE_TIME(lock_info_id, offsetof(lock_manager_lock_info_t, id) == sizeof(size_t));
ASSERT_AT_COMPILE_TIME(lock_info_pid, offsetof(lock_manager_lock_info_t, pid) == sizeof(size_t) + 16);
ASSERT_AT_COMPILE_TIME(lock_info_ownership, offsetof(lock_manager_lock_info_t, ownership) == sizeof(size_t) + 28);
ASSERT_AT_COMPILE_TIME(lock_info_acquisitions, offsetof(lock_manager_lock_info_t, acquisitions) == sizeof(size_t) + 32);
ASSERT_AT_COMPILE_TIME(lock_info_waited, offsetof(lock_manager_lock_info_t, waited_ns) == sizeof(size_t) + 48);
ASSERT_AT_COMPILE_TIME(info_begins_with_size, offsetof(lock_manager_info_t, size) == 0);
ASSERT_AT_COMPILE_TIME(info_kind, offsetof(lock_manager_info_t, kind) == sizeof(size_t));
ASSERT_AT_COMPILE_TIME(info_retired, offsetof(lock_manager_info_t, retired) == sizeof(size_t) + 20);

int main(void)
{
	/* Both strings end within the shorter one's length, or differ before it. */
	const char *runs = lock_manager_version(), *made_for = LOCK_MANAGER_VERSION;
	while (*runs != '\0' && *runs == *made_for) {
		runs++;
		made_for++;
	}
	return *runs == *made_for && lock_manager_close(NULL) == 0 ? 0 : 1;
}
