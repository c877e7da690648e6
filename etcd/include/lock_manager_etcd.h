/* SPDX-License-Identifier: MIT OR Apache-2.0
 *
 * lock_manager_etcd: locks of lock_manager across machines, kept by an etcd cluster.
 *
 * Generated from etcd/src/ffi.rs by `make header`; edit that.
 *
 * A LEASE IS NO MUTEX. A holder that is paused for longer than its lease may run on while another has the lock. Only a
 * resource that checks the token of lock_manager_fencing_token() is safe. docs/etcd.md has the picture, and the code
 * that checks.
 *
 * Managers of this library are those of lock_manager.h: its functions lock, unlock, wait, cancel, allocate and look.
 * All that lock_manager.h says of return values, errors and threads holds here. Failures are described by
 * lock_manager_last_error(). Beyond it:
 *
 * LOSS. unlock returns LOCK_MANAGER_LOST if the lease of the lock may have ended while it was held.
 * lock_manager_lost_fd() becomes readable at that instant, by this host's own clock, and before the lease can be over that
 * was renewed last. If etcd ends a lease early, as docs/etcd.md says, it becomes readable when etcd tells of it.
 *
 * TIME. No call waits for the cluster beyond its own deadline. One without a deadline waits for as long as the option
 * patience_seconds says, and then names the endpoint that does not answer.
 *
 * DEATH. If a holder's process dies, another process of the host is told at once, and another host when the lease ends.
 *
 * FORK. A child holds nothing of its parent's. Its first call makes a connection and a thread of its own.
 *
 * MANNERS. Each manager has one thread, and one connection or two. A program must not close descriptors that it did not
 * open, and lock calls are not for signal handlers.
 */


#ifndef LOCK_MANAGER_ETCD_H
#define LOCK_MANAGER_ETCD_H

#include "lock_manager.h"

/**
 * The most bytes of a host's name, with the NUL.
 */
#define LOCK_MANAGER_ETCD_HOST_SIZE 128

/**
 * The most bytes of a command's name, with the NUL.
 */
#define LOCK_MANAGER_ETCD_COMMAND_SIZE 32

/**
 * How a cluster is used. Zero in a field means the default.
 */
typedef struct {
        /**
         * sizeof(lock_manager_etcd_options_t)
         */
        size_t size;
        /**
         * How long a host that is not heard of keeps its locks, in seconds: 2 to 3600; 0 means 10.
         */
        uint32_t ttl_seconds;
        /**
         * How long a call without a deadline of its own waits for the cluster to answer, in seconds; 0 means 10.
         */
        uint32_t patience_seconds;
        /**
         * A file of settings, `name = value` in each line: ttl, patience, host, ca, certificate, key, user, password_file. NULL
         * means none. The other fields go before it.
         */
        const char *config_file;
        /**
         * What names the host. Processes with the same name share the first locks. NULL means the boot id.
         */
        const char *host;
} lock_manager_etcd_options_t;

/**
 * Who holds a lock, or waits for it.
 */
typedef struct {
        /**
         * sizeof(lock_manager_etcd_party_t)
         */
        size_t size;
        /**
         * 1 if it holds the lock, 0 if it waits.
         */
        uint32_t holds;
        /**
         * 1 if it is on this host, else 0.
         */
        uint32_t here;
        /**
         * Its process, in its own PID namespace.
         */
        int32_t pid;
        /**
         * Its thread, in its own PID namespace.
         */
        int32_t tid;
        /**
         * The fencing token of a holder; 0 for a waiter.
         */
        uint64_t token;
        /**
         * For how long it has held the lock or waited, in nanoseconds, as far as the clocks of the hosts agree.
         */
        uint64_t since_ns;
        /**
         * The host's name.
         */
        char host[LOCK_MANAGER_ETCD_HOST_SIZE];
        /**
         * The process's command.
         */
        char command[LOCK_MANAGER_ETCD_COMMAND_SIZE];
} lock_manager_etcd_party_t;

#ifdef __cplusplus
extern "C" {
#endif // __cplusplus

/**
 * Opens locks in an etcd cluster, and makes them if they are missing. All functions of lock_manager.h work on the manager.
 *
 * A lease is no mutex: a holder that is paused for longer than the TTL may run on while another has the lock. Hand
 * lock_manager_fencing_token() to what the lock protects, and have it refuse a lower token than it has seen.
 *
 * address: "etcd://host:port,host:port/prefix": any of the endpoints will do.
 * num_locks: 1 to 16777216, fixed when the locks are made; 0 opens what is there and makes none.
 * options: NULL for the defaults.
 *
 * -ENOENT: num_locks is 0 and there are no locks. -ERANGE: there is another number of locks. -EPROTO: no etcd 3.4 or later
 * answers there. -ETIMEDOUT, -EHOSTUNREACH, -ECONNREFUSED: no endpoint answers. -EACCES: user, password or role.
 */
int32_t lock_manager_open_etcd(const char *address,
                               uint32_t num_locks,
                               const lock_manager_etcd_options_t *options,
                               lock_manager_t **out);

/**
 * Removes locks from an etcd cluster. Managers that have them open get -ESTALE.
 *
 * -ENOENT: there are none. Otherwise as lock_manager_open_etcd().
 */
int32_t lock_manager_remove_etcd(const char *address, const lock_manager_etcd_options_t *options);

/**
 * Lists who holds a lock and who waits for it, on all hosts. The holder comes first, and the waiters follow in the order in
 * which they get the lock. Of each host there is one: what waits for the host's own first lock is not listed.
 *
 * count: receives how many there are, which may exceed capacity.
 * parties: receives the first of them, capacity at most; NULL if capacity is 0. Set the size of the first before the call.
 *
 * -EINVAL: there is no such lock, or the size of the first struct is another version's. -ETIMEDOUT: etcd does not answer.
 */
int32_t lock_manager_etcd_parties(lock_manager_t *manager,
                                  uint32_t id,
                                  lock_manager_etcd_party_t *parties,
                                  size_t capacity,
                                  size_t *count);

/**
 * Writes a comparison for a transaction of etcd, as JSON: it is true only while the caller's hold on the lock lasts. Put it
 * into "compare" of a request to /v3/kv/txn, and etcd itself refuses what a holder writes that was paused for too long.
 *
 * length: receives the number of bytes, without the NUL.
 * json: receives the text with its NUL, if capacity is enough for it; NULL if capacity is 0.
 *
 * -EPERM: the caller does not hold the lock. LOCK_MANAGER_LOST: the lock may be another's by now. -ENOBUFS: capacity is too
 * small, and length says for what.
 */
int32_t lock_manager_etcd_guard(lock_manager_t *manager,
                                uint32_t id,
                                char *json,
                                size_t capacity,
                                size_t *length);

#ifdef __cplusplus
}  // extern "C"
#endif  // __cplusplus

#endif  /* LOCK_MANAGER_ETCD_H */
