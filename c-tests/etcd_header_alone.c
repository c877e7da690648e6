/* SPDX-License-Identifier: MIT OR Apache-2.0
 *
 * As header_alone.c, for the header of the locks in etcd.
 */
#include <lock_manager_etcd.h>
#include <lock_manager_etcd.h>

#ifdef __cplusplus
#define ASSERT_AT_COMPILE_TIME(name, condition) static_assert(condition, #name)
#else
#define ASSERT_AT_COMPILE_TIME(name, condition) typedef char name[(condition) ? 1 : -1]
#endif

ASSERT_AT_COMPILE_TIME(lost, LOCK_MANAGER_LOST == -127);
ASSERT_AT_COMPILE_TIME(host_size, LOCK_MANAGER_ETCD_HOST_SIZE == 128);
ASSERT_AT_COMPILE_TIME(command_size, LOCK_MANAGER_ETCD_COMMAND_SIZE == 32);
ASSERT_AT_COMPILE_TIME(options_begin_with_size, offsetof(lock_manager_etcd_options_t, size) == 0);
ASSERT_AT_COMPILE_TIME(options_ttl, offsetof(lock_manager_etcd_options_t, ttl_seconds) == sizeof(size_t));
ASSERT_AT_COMPILE_TIME(options_config_file, offsetof(lock_manager_etcd_options_t, config_file) == sizeof(size_t) + 8);
ASSERT_AT_COMPILE_TIME(party_begins_with_size, offsetof(lock_manager_etcd_party_t, size) == 0);
ASSERT_AT_COMPILE_TIME(party_token, offsetof(lock_manager_etcd_party_t, token) == sizeof(size_t) + 16);
ASSERT_AT_COMPILE_TIME(party_host, offsetof(lock_manager_etcd_party_t, host) == sizeof(size_t) + 32);
ASSERT_AT_COMPILE_TIME(party_command, offsetof(lock_manager_etcd_party_t, command) == sizeof(size_t) + 160);

int main(void)
{
	lock_manager_t *manager = NULL;
	return lock_manager_open_etcd(NULL, 1, NULL, &manager) < 0 && manager == NULL ? 0 : 1;
}
