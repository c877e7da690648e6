/* SPDX-License-Identifier: MIT OR Apache-2.0
 *
 * lock_manager: numbered locks that several processes share.
 *
 * Generated from src/ffi.rs by `make header`; edit that.
 *
 * RETURN VALUES. Every function that can fail returns int32_t: 0 is success, a positive constant is a success that
 * says more, and a negative value is -errno. Treat a positive value that you do not know as 0. No function reads or
 * sets errno, and none returns -EINTR. Outputs are written only on success. After a failure,
 * lock_manager_last_error() describes it to the thread that made the call.
 *
 * ERRORS. Every function that can fail may also return these errors, or pass on an error of the system, such as
 * -ENOMEM, -EMFILE or -ENOTDIR, unchanged. -EINVAL: a required pointer is NULL, an id is out of range, or this
 * version does not know a value or the size of a struct. -EOPNOTSUPP: this storage cannot do that, or this child
 * process may not. -EIO: a fault in the library itself, or in the device; a lock call has not taken the lock.
 *
 * OWNERSHIP. The caller owns a lock_manager_t from the function that wrote it until lock_manager_close(). A lock is
 * named by its id alone, so there is no lock handle to free. Strings that functions return belong to the library.
 *
 * THREADS. Any number of threads may use one manager at the same time. By default a lock belongs to the thread that
 * took it: only that thread can unlock it, and only through the manager that took it. After
 * lock_manager_set_ownership() with LOCK_MANAGER_OWNED_BY_PROCESS, a lock belongs to the process, and any of its
 * threads can unlock it. Native segments, lock directories and in-memory managers allow that; in the libpod layout,
 * locks always belong to threads.
 *
 * FORK. A child process holds none of its parent's locks. It may use its parent's manager at once, however it was
 * created, if it may still open the storage. A child that is going to drop privileges or change its root must make
 * one call on the manager first; any call will do. A process that has opened a storage can still use it after it
 * drops privileges. A process with threads should create children by fork(): in a child that was created in another
 * way, the memory allocator of the libc, which this library uses, may be locked for ever. In the libpod layout, lock
 * calls and allocation return -EOPNOTSUPP in a child that was cloned behind the libc's back. In every layout, lock
 * calls return -EOPNOTSUPP in a child that shares its parent's memory but has thread-local storage of its own.
 * In-memory locks stay with the process that created them: in a child, every call on them except lock_manager_close()
 * returns -EOPNOTSUPP.
 *
 * DEATH. If a holder dies, its locks become free. The next holder is told once, by LOCK_MANAGER_OWNER_DIED: it holds
 * the lock, and what the lock protects may be half written. If a writer (an exclusive holder) dies, each reader is
 * told as well, until a writer has been told. If a reader dies, nobody is told, because it changed nothing.
 * docs/caveats.md, in the installed documentation of this library, says what cannot be promised.
 *
 * SIGNALS. A signal handler may call lock_manager_cancel_trigger(). It may also call lock_manager_try_lock(),
 * lock_manager_unlock() and their counterparts for shared locks, on any lock that the interrupted call does not
 * concern. They do not wait, and they are safe whatever the signal interrupted, malloc(3) included, if the thread has
 * already made a call in this process. (A forked child counts as a new process. In a lock directory, that call must
 * have been on the same lock.) A call that would have to wait for the interrupted call of its own thread returns
 * -EDEADLK. A handler may end its thread (pthread_exit) or jump away (siglongjmp) from any call. What the thread
 * holds then stays held until the thread unlocks it or ends, and the thread no longer waits for anything. In the
 * libpod layout, a jump out of a lock, unlock, allocate or free that does not wait may leave the lock, or allocation,
 * held until the thread ends.
 *
 * MANNERS. No call is a cancellation point. The library starts no threads, installs no signal handlers, prints
 * nothing, and stays mapped after dlclose().
 */


#ifndef LOCK_MANAGER_H
#define LOCK_MANAGER_H

#include <stddef.h>
#include <stdint.h>

/** The version that this header belongs to. lock_manager_version() returns the version of the library that runs. */
#define LOCK_MANAGER_VERSION "0.1.0"

/**
 * A manager: a pool of numbered locks in some storage. The functions that take a lock_manager_t ** create it, any number of
 * threads may use it at once, and lock_manager_close() frees it.
 */
typedef struct lock_manager lock_manager_t;

/**
 * A cancel object: ends waits from another thread. lock_manager_cancel_new() creates it, lock_manager_cancel_free() frees
 * it.
 */
typedef struct lock_manager_cancel lock_manager_cancel_t;


/**
 * The lock is held now, but its last holder died holding it, so what the lock protects may be half written. The next
 * exclusive holder is told once; until then, each reader is told.
 */
#define LOCK_MANAGER_OWNER_DIED 1

/**
 * The count that `lock_manager_available_locks` and `lock_manager_num_locks` write if there is no maximum.
 */
#define LOCK_MANAGER_UNLIMITED UINT32_MAX

/**
 * The native layout for a new segment; any layout for an existing one.
 */
#define LOCK_MANAGER_LAYOUT_DEFAULT 0

/**
 * The libpod layout, which Podman uses: POSIX robust mutexes, and a fixed number of locks.
 */
#define LOCK_MANAGER_LAYOUT_LIBPOD 1

/**
 * The native layout, the library's own: it grows, reports deadlocks, and does not depend on the kernel's robust lists.
 */
#define LOCK_MANAGER_LAYOUT_NATIVE 2

/**
 * The locks are in a shared memory segment.
 */
#define LOCK_MANAGER_KIND_SHM 0

/**
 * The locks are in a lock directory.
 */
#define LOCK_MANAGER_KIND_FILE 1

/**
 * The locks belong to this process alone.
 */
#define LOCK_MANAGER_KIND_IN_MEMORY 2

/**
 * A backend in another library keeps the locks.
 */
#define LOCK_MANAGER_KIND_BACKEND 3

/**
 * A lock belongs to the thread that took it.
 */
#define LOCK_MANAGER_OWNED_BY_THREAD 0

/**
 * A lock belongs to the process that took it.
 */
#define LOCK_MANAGER_OWNED_BY_PROCESS 1

/**
 * The major version that this header belongs to. The macro LOCK_MANAGER_VERSION has the whole version as a string.
 */
#define LOCK_MANAGER_VERSION_MAJOR 0

/**
 * The minor version that this header belongs to.
 */
#define LOCK_MANAGER_VERSION_MINOR 1

/**
 * The patch version that this header belongs to.
 */
#define LOCK_MANAGER_VERSION_PATCH 0

/**
 * In lock_manager_request_t: do not wait for another holder. The call may still wait for the backend's own answer.
 */
#define LOCK_MANAGER_REQUEST_TRY 1

/**
 * In lock_manager_request_t: the last holder on this host died holding the lock.
 */
#define LOCK_MANAGER_REQUEST_OWNER_DIED 2

/**
 * What a backend's step returns if the caller is to sleep. No function of the library returns it.
 */
#define LOCK_MANAGER_SLEEP 2

/**
 * A lock was lost while it was held: its lease may be over, so another may hold it now. The value is -EKEYEXPIRED.
 */
#define LOCK_MANAGER_LOST -127

/**
 * Options for a new segment. Zero in a field means the default.
 */
typedef struct {
        /**
         * sizeof(lock_manager_shm_options_t)
         */
        size_t size;
        /**
         * LOCK_MANAGER_LAYOUT_…
         */
        uint32_t layout;
        /**
         * The number of locks that a native segment may grow to; 0 means 1048576, or num_locks if that is more. The libpod
         * layout cannot grow and ignores this field.
         */
        uint32_t max_locks;
        /**
         * The permission bits of the segment, at most 0777; 0 means 0600. The umask does not apply.
         */
        uint32_t mode;
        /**
         * Must be 0: no flag is defined yet, and any bit is -EINVAL.
         */
        uint32_t flags;
} lock_manager_shm_options_t;

/**
 * The state of one lock.
 */
typedef struct {
        /**
         * sizeof(lock_manager_lock_info_t)
         */
        size_t size;
        /**
         * The id of the lock.
         */
        uint32_t id;
        /**
         * 1 if the lock is allocated, else 0.
         */
        uint32_t allocated;
        /**
         * 1 if somebody holds the lock, shared or exclusively, else 0.
         */
        uint32_t held;
        /**
         * 1 if the last exclusive holder died and nobody has held the lock exclusively since, else 0.
         */
        uint32_t owner_died;
        /**
         * The process id of the holder, as the caller's PID namespace sees it; 0 if unknown.
         */
        int32_t pid;
        /**
         * The thread id of the holder, as the caller's PID namespace sees it; 0 if unknown.
         */
        int32_t tid;
        /**
         * The number of threads known to wait; 0 if the storage does not say.
         */
        uint32_t waiters;
        /**
         * LOCK_MANAGER_OWNED_BY_…
         */
        uint32_t ownership;
        /**
         * How often the lock was acquired exclusively; 0 if the storage does not count.
         */
        uint64_t acquisitions;
        /**
         * The PID namespace of the holder, as the inode number of /proc/PID/ns/pid; 0 if unknown.
         */
        uint64_t pid_namespace;
        /**
         * For how long the longest waiter has waited, in nanoseconds. The lock has been held at least that long.
         */
        uint64_t waited_ns;
        /**
         * The number of readers; pid and tid then belong to the first of them. This field and the next came after 0.1.0.
         */
        uint32_t readers;
        /**
         * 1 if a writer waits for the readers to leave and keeps later readers out, else 0. That writer counts as a waiter.
         */
        uint32_t draining;
} lock_manager_lock_info_t;

/**
 * One holder of a lock.
 */
typedef struct {
        /**
         * sizeof(lock_manager_holder_t)
         */
        size_t size;
        /**
         * Its process id, as the caller's PID namespace sees it; 0 if unknown.
         */
        int32_t pid;
        /**
         * Its thread id, as the caller's PID namespace sees it; 0 if unknown, or if the hold belongs to the process.
         */
        int32_t tid;
        /**
         * 1 if it holds the lock shared, 0 if exclusively.
         */
        uint32_t shared;
        /**
         * LOCK_MANAGER_OWNED_BY_…
         */
        uint32_t ownership;
        /**
         * Its PID namespace, as the inode number of /proc/PID/ns/pid; 0 if unknown.
         */
        uint64_t pid_namespace;
} lock_manager_holder_t;

/**
 * The state of a manager's storage.
 */
typedef struct {
        /**
         * sizeof(lock_manager_info_t)
         */
        size_t size;
        /**
         * LOCK_MANAGER_KIND_…
         */
        uint32_t kind;
        /**
         * LOCK_MANAGER_LAYOUT_… for a segment, else 0.
         */
        uint32_t layout;
        /**
         * The number of locks; LOCK_MANAGER_UNLIMITED if there is no maximum.
         */
        uint32_t num_locks;
        /**
         * The number of locks that the storage may grow to; LOCK_MANAGER_UNLIMITED if there is no maximum.
         */
        uint32_t max_locks;
        /**
         * The number of processes that have the storage open; 0 if the storage does not say.
         */
        uint32_t attached;
        /**
         * 1 if the storage was removed, else 0.
         */
        uint32_t retired;
} lock_manager_info_t;

/**
 * What a lock call asks of a backend.
 */
typedef struct {
        /**
         * sizeof(lock_manager_request_t)
         */
        size_t size;
        /**
         * The id of the lock.
         */
        uint32_t id;
        /**
         * LOCK_MANAGER_REQUEST_…
         */
        uint32_t flags;
        /**
         * LOCK_MANAGER_OWNED_BY_…
         */
        uint32_t ownership;
        /**
         * The calling thread, as its own PID namespace sees it.
         */
        int32_t tid;
        /**
         * How long the caller waits, in nanoseconds, as it said; UINT64_MAX: without limit.
         */
        uint64_t timeout_ns;
        /**
         * The instant of CLOCK_MONOTONIC at which the wait ends, in nanoseconds; UINT64_MAX: never.
         */
        uint64_t deadline_ns;
} lock_manager_request_t;

/**
 * How a caller is to sleep: as futex(2) says, on a word that is not private to the process.
 */
typedef struct {
        /**
         * sizeof(lock_manager_sleep_t)
         */
        size_t size;
        /**
         * The word. It stays where it is until leave() was called.
         */
        const uint32_t *word;
        /**
         * The caller sleeps only while the word has this value.
         */
        uint32_t value;
        /**
         * The instant of CLOCK_MONOTONIC at which the caller wakes up by itself, in nanoseconds.
         */
        uint64_t until_ns;
} lock_manager_sleep_t;

/**
 * What a backend knows of a lock.
 */
typedef struct {
        /**
         * sizeof(lock_manager_backend_lock_t)
         */
        size_t size;
        /**
         * 1 if the lock is allocated, else 0.
         */
        uint32_t allocated;
        /**
         * 1 if some host holds the lock, else 0.
         */
        uint32_t held;
        /**
         * 1 if the last holder died and nobody has held the lock since, else 0.
         */
        uint32_t owner_died;
        /**
         * 1 if the holder is this host, else 0.
         */
        uint32_t here;
        /**
         * The number of hosts, or managers, that wait.
         */
        uint32_t waiters;
        /**
         * LOCK_MANAGER_OWNED_BY_…
         */
        uint32_t ownership;
        /**
         * For how long the longest of them has waited, in nanoseconds.
         */
        uint64_t waited_ns;
} lock_manager_backend_lock_t;

/**
 * A backend: functions that keep locks for all hosts, beneath the native locks of one host.
 *
 * A lock call first takes the native lock of the same id, which all processes of the host share. That lock settles
 * threads, ownership, forked children, and the deaths and deadlocks of one host. So a backend sees at most one caller of
 * a lock at a time from each host. It is asked for the lock when the caller has the native one, and gets it back before.
 *
 * Every function gets the state that lock_manager_open_backend() was given. Any thread may call it, and several at a
 * time. It returns 0, or a negative errno, and then last_error() describes the failure. No function blocks, except to
 * wait for the storage's own answer, within a time that the backend names. Signals are blocked meanwhile. None may be
 * NULL, except last_error, take_kept and keep.
 *
 * A forked child has the table and the state, but no threads of the backend's. Functions return -EOPNOTSUPP there.
 */
typedef struct {
        /**
         * sizeof(lock_manager_backend_t). Functions are only ever appended.
         */
        size_t size;
        /**
         * Frees the state. The last call; nothing is held.
         */
        void (*close)(void *state);
        /**
         * Describes the calling thread's last failure, in one line without the name of the storage.
         */
        const char *(*last_error)(void *state);
        /**
         * Says how many locks there are: a constant.
         */
        int32_t (*num_locks)(void *state, uint32_t *count);
        /**
         * As lock_manager_available_locks().
         */
        int32_t (*available_locks)(void *state, uint32_t *count);
        /**
         * As lock_manager_allocate_lock().
         */
        int32_t (*allocate_lock)(void *state, uint32_t *id);
        /**
         * As lock_manager_allocate_and_retrieve_lock(). The id is in range, here and below.
         */
        int32_t (*allocate_given)(void *state, uint32_t id);
        /**
         * As lock_manager_free_lock().
         */
        int32_t (*free_lock)(void *state, uint32_t id);
        /**
         * As lock_manager_free_all_locks().
         */
        int32_t (*free_all_locks)(void *state);
        /**
         * Begins an acquisition, and writes what names it.
         */
        int32_t (*begin)(void *state, const lock_manager_request_t *request, void **wait);
        /**
         * Goes on with it. 0 or LOCK_MANAGER_OWNER_DIED: the host has the lock. LOCK_MANAGER_SLEEP: the caller sleeps as was
         * written to sleep, and steps again. Negative: it failed.
         */
        int32_t (*step)(void *state, void *wait, lock_manager_sleep_t *sleep);
        /**
         * Ends an acquisition that was begun, whatever it came to; one without the lock is withdrawn. It cannot fail.
         */
        void (*leave)(void *state, void *wait);
        /**
         * Gives the lock back. is_wanted_here: 1 if another process or thread of this host waits for it, so that the host may
         * keep it for a while, else 0. LOCK_MANAGER_LOST: it may have been another's. The lock is not held any more,
         * whatever it returns.
         */
        int32_t (*release)(void *state, uint32_t id, uint32_t is_wanted_here);
        /**
         * Reads what is known of a lock.
         */
        int32_t (*lock_info)(void *state, uint32_t id, lock_manager_backend_lock_t *info);
        /**
         * As lock_manager_locks_held().
         */
        int32_t (*locks_held)(void *state, uint32_t *ids, size_t capacity, size_t *count);
        /**
         * As lock_manager_fencing_token(), of a lock that the caller holds.
         */
        int32_t (*fencing_token)(void *state, uint32_t id, uint64_t *token);
        /**
         * As lock_manager_lost_fd().
         */
        int32_t (*lost_fd)(void *state, int32_t *descriptor);
        /**
         * Takes a lock that the host has kept, for a caller with the native one. 1: it has the lock. 0: nothing was done, and
         * begin() is asked. This function and keep() cannot fail, wait, allocate, or make a system call that sets errno, and
         * signals are not blocked: so turns of one host take the time of the native lock. NULL, and so is keep: there are none.
         */
        int32_t (*take_kept)(void *state, uint32_t id);
        /**
         * Keeps a lock on the host, for a caller that holds it and is about to give the native one back. is_wanted_here: as for
         * release(). 1: it is kept, and not held any more. 0: nothing was done, and release() is asked.
         */
        int32_t (*keep)(void *state, uint32_t id, uint32_t is_wanted_here);
} lock_manager_backend_t;

#ifdef __cplusplus
extern "C" {
#endif // __cplusplus

/**
 * Describes this thread's last failure in one line: the storage, the lock, the numbers that disagree, and what to
 * do. Never NULL; empty before the first failure. The string is valid until this thread's next failing call.
 */
const char *lock_manager_last_error(void);

/**
 * Returns the version of the library that runs, such as "0.1.0".
 */
const char *lock_manager_version(void);

/**
 * Creates a shared memory segment and opens it. No other process ever sees a segment that is half made.
 *
 * path: a POSIX shm name ("/name": one slash, first) or the absolute path of a file.
 * num_locks: 1 to 16777216, rounded up to a multiple of 64 (libpod layout: 32).
 * options: NULL for the defaults: the native layout, which may grow to 1048576 locks or to num_locks if that is
 * more.
 *
 * -EEXIST: the name is taken. -ENOSPC: the file system is full; nothing is left behind. -EINVAL: path is not a
 * valid name, or num_locks or an option is out of range. -EACCES: permissions. -EOPNOTSUPP: a network file system,
 * or one that cannot reserve space.
 */
int32_t lock_manager_new_shm(const char *path,
                             uint32_t num_locks,
                             const lock_manager_shm_options_t *options,
                             lock_manager_t **out);

/**
 * Opens an existing segment.
 *
 * num_locks: the number of locks that it must have, rounded up as at creation; 0 accepts any number. If the
 * segment has grown, any number from its first to its present one is accepted.
 *
 * -ENOENT: there is no such segment. -ERANGE: it has another number of locks. -EPROTO: it is not a segment of this
 * library, is damaged, or was made for another libc, architecture or format version. -ESTALE: it was made before
 * this boot (native layout). -EUSERS: 8191 processes already use it (native layout). -EACCES: permissions, a
 * symbolic link, or an owner that is neither the caller nor root.
 */
int32_t lock_manager_open_shm(const char *path,
                              uint32_t num_locks,
                              lock_manager_t **out);

/**
 * Opens the segment if it exists, and creates it otherwise. If two processes call it at once, one creates the
 * segment and both succeed.
 *
 * The options mode and max_locks count at creation only. A native segment from before this boot is replaced by a
 * new one.
 *
 * num_locks: as for lock_manager_open_shm and lock_manager_new_shm; 0 opens an existing segment and never creates
 * one.
 * options: NULL for the defaults. If options name a layout, an existing segment must have it.
 *
 * -EINVAL: num_locks is 0 and there is no segment. -EPROTO: the segment has another layout. Otherwise as
 * lock_manager_open_shm and lock_manager_new_shm.
 */
int32_t lock_manager_open_or_new_shm(const char *path,
                                     uint32_t num_locks,
                                     const lock_manager_shm_options_t *options,
                                     lock_manager_t **out);

/**
 * Opens a segment read only, whoever owns it, if permissions allow. Calls that would change something then return
 * -EACCES.
 *
 * Fails as lock_manager_open_shm does, except that any owner is accepted.
 */
int32_t lock_manager_open_shm_read_only(const char *path,
                                        lock_manager_t **out);

/**
 * Removes a segment. Processes that still have it open get -ESTALE: in the native layout from each allocation and
 * lock call at once, in the libpod layout from allocation and waits within 100 ms. They can still unlock, and read
 * information.
 *
 * -ENOENT: there is no such segment. -EPROTO: it does not carry this library's magic number, so it stays; a
 * damaged segment of this library is removed. -EBUSY: another process has held a record lock on it for 2 s.
 * -EACCES, -EPERM: the directory does not let the caller remove the name; the segment stays in use.
 */
int32_t lock_manager_remove_shm(const char *path);

/**
 * Creates a lock directory and opens it. The directory has one file for each allocated lock, named by its decimal
 * id, as libpod's file manager has it. An existing directory is accepted if it is empty. Ids go from 0 to
 * 16777215. For libpod, a held lock that is allocated is also a record lock on its file, and lslocks(8) shows it.
 *
 * directory: the path of the directory.
 *
 * -EEXIST: the directory is not empty. -ENOENT: its parent directory does not exist. -EACCES: permissions.
 * -EOPNOTSUPP: a network file system.
 */
int32_t lock_manager_new_file(const char *directory,
                              lock_manager_t **out);

/**
 * Opens an existing lock directory, made by this library or by libpod. If its table (.lock_manager) is missing or
 * is from before this boot, a new table is made.
 *
 * directory: the path of the directory.
 *
 * -ENOENT: there is no such directory. -EACCES: permissions, a symbolic link, or an owner that is neither the
 * caller nor root. -EPROTO: the file .lock_manager has another version or was not made by this library.
 */
int32_t lock_manager_open_file(const char *directory,
                               lock_manager_t **out);

/**
 * Opens the lock directory if it exists, and creates it otherwise. If two processes call it at once, one creates
 * the directory and both succeed.
 *
 * directory: the path of the directory.
 *
 * Fails as lock_manager_open_file and lock_manager_new_file do.
 */
int32_t lock_manager_open_or_new_file(const char *directory,
                                      lock_manager_t **out);

/**
 * Removes a lock directory with its locks. Processes that still have it open get -ESTALE from their next call that
 * allocates or locks.
 *
 * directory: the path of the directory.
 *
 * -ENOENT: there is no such directory. -EPROTO: it has no files of this library, so it stays. -ENOTEMPTY: it also
 * has other files.
 */
int32_t lock_manager_remove_file(const char *directory);

/**
 * Creates a manager whose locks belong to this process alone. Between its threads they behave as the locks of a
 * native segment do. In a forked child, every call on the manager except lock_manager_close() returns -EOPNOTSUPP.
 *
 * num_locks: 1 to 16777216, not rounded.
 *
 * -EINVAL: num_locks is out of range.
 */
int32_t lock_manager_new_in_memory(uint32_t num_locks,
                                   lock_manager_t **out);

/**
 * Closes a manager; the storage stays. If manager is NULL, it does nothing and returns 0. The caller must make
 * sure that no other call on the manager runs at the same time, as with free(3).
 *
 * -EBUSY: this process holds a lock through the manager, or another thread waits in a call on it; the manager
 * stays open.
 */
int32_t lock_manager_close(lock_manager_t *manager);

/**
 * Allocates a lock: an id that nobody else gets until it is freed.
 *
 * id: receives the id of the lock.
 *
 * -ENOLCK: all locks are allocated. -ESTALE: the segment was removed. -ENOTRECOVERABLE: the mutex that guards the
 * bitmaps stays held (libpod layout).
 */
int32_t lock_manager_allocate_lock(lock_manager_t *manager,
                                   uint32_t *id);

/**
 * Checks that an id is in range. It does not matter whether the lock is allocated.
 *
 * -EINVAL: id is out of range.
 */
int32_t lock_manager_retrieve_lock(lock_manager_t *manager, uint32_t id);

/**
 * Allocates the lock with this id.
 *
 * -EEXIST: it is already allocated. -EINVAL: id is out of range. Otherwise as lock_manager_allocate_lock.
 */
int32_t lock_manager_allocate_and_retrieve_lock(lock_manager_t *manager, uint32_t id);

/**
 * Frees an id, so that it can be allocated again. A held lock stays held, and the lock can still be used.
 *
 * -ENOENT: the lock is not allocated. -EINVAL: id is out of range. Otherwise as lock_manager_allocate_lock.
 */
int32_t lock_manager_free_lock(lock_manager_t *manager, uint32_t id);

/**
 * Frees every id, for tests and renumbering. Call it only while no other process allocates. Held locks stay held.
 *
 * Fails as lock_manager_allocate_lock does, except that -ENOLCK cannot happen.
 */
int32_t lock_manager_free_all_locks(lock_manager_t *manager);

/**
 * Counts the locks that are free to be allocated.
 *
 * count: receives the number, or LOCK_MANAGER_UNLIMITED if there is no maximum.
 *
 * -EINVAL: count is NULL.
 */
int32_t lock_manager_available_locks(lock_manager_t *manager, uint32_t *count);

/**
 * Counts all locks, allocated or not.
 *
 * count: receives the number, or LOCK_MANAGER_UNLIMITED if there is no maximum.
 *
 * -EINVAL: count is NULL.
 */
int32_t lock_manager_num_locks(lock_manager_t *manager, uint32_t *count);

/**
 * Adds locks while other processes use the storage. Every process that has a segment open can use the new locks,
 * and nothing moves. In-memory managers can grow as well. If it fails, nothing has changed.
 *
 * num_locks: the new total, rounded up as at creation.
 *
 * -EINVAL: num_locks is less than the present number or more than max_locks. -ENOSPC: the file system is full.
 * -ENOMEM, -EAGAIN: this process has no address space for them (on 64 bits: for max_locks), or may not lock that much
 * memory (mlockall).
 * -EOPNOTSUPP: the number is fixed (libpod layout), or there is none (lock directory).
 */
int32_t lock_manager_grow(lock_manager_t *manager,
                          uint32_t num_locks);

/**
 * Waits for a lock without limit.
 *
 * 0 or LOCK_MANAGER_OWNER_DIED: the calling thread holds the lock now.
 *
 * -EDEADLK: this thread already holds the lock, or (except in the libpod layout) the wait would close a cycle of
 * threads that wait for each other's locks; the last error names the cycle. -ESTALE: the storage was removed.
 * -ENOLCK: this thread already holds 2000 locks (libpod layout). -ENOTRECOVERABLE: the state of the lock is lost
 * (libpod layout). -EOPNOTSUPP: a child that was cloned behind the libc's back (libpod layout).
 */
int32_t lock_manager_lock(lock_manager_t *manager,
                          uint32_t id);

/**
 * Takes a lock if it is free, and does not wait.
 *
 * -EBUSY: the lock is held, by the caller or by anybody else. Otherwise as lock_manager_lock.
 */
int32_t lock_manager_try_lock(lock_manager_t *manager, uint32_t id);

/**
 * Waits for a lock for at most timeout_ns.
 *
 * timeout_ns: nanoseconds of CLOCK_MONOTONIC. UINT64_MAX waits without limit; 0 takes a free lock and does not
 * wait.
 *
 * -ETIMEDOUT: the lock did not become free in time. Otherwise as lock_manager_lock.
 */
int32_t lock_manager_timed_lock(lock_manager_t *manager,
                                uint32_t id,
                                uint64_t timeout_ns);

/**
 * Unlocks a lock that the calling thread (or, with ownership by process, this process) holds through this manager.
 *
 * -EPERM: the caller does not hold it through this manager.
 */
int32_t lock_manager_unlock(lock_manager_t *manager,
                            uint32_t id);

/**
 * Sets who owns the locks that are taken through a manager. Call it before the manager's first lock call. With
 * ownership by process, any thread of the process can unlock a lock, and a thread that asks for a lock that its
 * own process holds waits for it.
 *
 * ownership: LOCK_MANAGER_OWNED_BY_THREAD, the default, or LOCK_MANAGER_OWNED_BY_PROCESS.
 *
 * -EBUSY: the manager has already taken a lock, or tried to. -EOPNOTSUPP: ownership by process in the libpod
 * layout. -EINVAL: ownership is unknown.
 */
int32_t lock_manager_set_ownership(lock_manager_t *manager,
                                   uint32_t ownership);

/**
 * Creates a cancel object, with which one thread can end the waits of others. Free it with
 * lock_manager_cancel_free().
 *
 * -EINVAL: out is NULL.
 */
int32_t lock_manager_cancel_new(lock_manager_cancel_t **out);

/**
 * Ends every wait that uses this cancel object, normally within 10 ms, and every later one at once. The object stays
 * triggered. This call is async-signal-safe. It wakes the waits, which takes some microseconds, and on a busy machine
 * some milliseconds.
 *
 * -EINVAL: cancel is NULL.
 */
int32_t lock_manager_cancel_trigger(lock_manager_cancel_t *cancel);

/**
 * Frees a cancel object. If cancel is NULL, it does nothing and returns 0. A thread whose wait was cancelled may free
 * the object although the call that triggered it has not returned yet.
 *
 * -EBUSY: a wait, or after 100 ms a trigger, still uses the object.
 */
int32_t lock_manager_cancel_free(lock_manager_cancel_t *cancel);

/**
 * Waits for a lock as lock_manager_timed_lock does, until a cancel object is triggered.
 *
 * timeout_ns: nanoseconds of CLOCK_MONOTONIC. UINT64_MAX waits without limit.
 * cancel: the cancel object; NULL if nobody is to end the wait.
 *
 * -ECANCELED: the object was triggered, even if the lock was free. Otherwise as lock_manager_timed_lock.
 */
int32_t lock_manager_cancellable_lock(lock_manager_t *manager,
                                      uint32_t id,
                                      uint64_t timeout_ns,
                                      lock_manager_cancel_t *cancel);

/**
 * Waits without limit until the caller can hold a lock shared. Any number of readers hold a lock shared at the
 * same time, and nobody holds it exclusively meanwhile.
 *
 * 0 or LOCK_MANAGER_OWNER_DIED: the calling thread holds the lock shared now.
 *
 * LOCK_MANAGER_OWNER_DIED: a writer died holding the lock. Every reader is told, until a writer has taken the lock
 * and was told itself, because only a writer can repair what the lock protects. If a reader dies, nobody is told,
 * because it changed nothing.
 *
 * A waiting writer keeps later readers out, or it would starve. Give writers a timeout: a reader that is stopped
 * keeps its hold. A reader cannot become a writer; it must unlock and then lock exclusively.
 *
 * -EDEADLK: this thread already holds the lock, shared or exclusively, or the wait would close a cycle. -EAGAIN:
 * there is no room for one more reader; each lock has room for 4, and the locks of a segment share room for 8192
 * more. -EOPNOTSUPP: the libpod layout, or a segment of format version 1. Otherwise as lock_manager_lock.
 */
int32_t lock_manager_lock_shared(lock_manager_t *manager,
                                 uint32_t id);

/**
 * Takes a lock shared if no writer holds it or is next, and does not wait.
 *
 * -EBUSY: a writer holds the lock or is next, or this thread holds it. Otherwise as lock_manager_lock_shared.
 */
int32_t lock_manager_try_lock_shared(lock_manager_t *manager, uint32_t id);

/**
 * Waits for at most timeout_ns until the caller can hold a lock shared.
 *
 * timeout_ns: nanoseconds of CLOCK_MONOTONIC. UINT64_MAX waits without limit; 0 takes the lock if no writer has it
 * and does not wait.
 *
 * -ETIMEDOUT: writers had the lock all the time. Otherwise as lock_manager_lock_shared.
 */
int32_t lock_manager_timed_lock_shared(lock_manager_t *manager,
                                       uint32_t id,
                                       uint64_t timeout_ns);

/**
 * Waits for a shared hold as lock_manager_timed_lock_shared does, until a cancel object is triggered.
 *
 * timeout_ns: nanoseconds of CLOCK_MONOTONIC. UINT64_MAX waits without limit.
 * cancel: the cancel object; NULL if nobody is to end the wait.
 *
 * -ECANCELED: the object was triggered, even if the lock was free. Otherwise as lock_manager_timed_lock_shared.
 */
int32_t lock_manager_cancellable_lock_shared(lock_manager_t *manager,
                                             uint32_t id,
                                             uint64_t timeout_ns,
                                             lock_manager_cancel_t *cancel);

/**
 * Unlocks a lock that the calling thread (or, with ownership by process, this process) holds shared. Any manager
 * of the same ownership on the same storage will do.
 *
 * -EPERM: the caller does not hold it shared. -EOPNOTSUPP: the libpod layout, or a segment of format version 1.
 */
int32_t lock_manager_unlock_shared(lock_manager_t *manager,
                                   uint32_t id);

/**
 * Turns an exclusive hold into a shared one. Nobody else can hold the lock exclusively in between. Waiting readers
 * get in.
 *
 * -EPERM: the caller does not hold the lock exclusively through this manager. -EAGAIN: there is no room for one
 * more reader; the lock is still held exclusively. -EOPNOTSUPP: the libpod layout, or a segment of format version
 * 1.
 */
int32_t lock_manager_downgrade_lock(lock_manager_t *manager,
                                    uint32_t id);

/**
 * Lists the locks that somebody holds, shared or exclusively. It touches no lock.
 *
 * count: receives the number of held locks, which may exceed capacity.
 * ids: receives the lowest ids, ascending, capacity at most; NULL if capacity is 0.
 *
 * -EINVAL: ids is NULL although capacity is not 0.
 */
int32_t lock_manager_locks_held(lock_manager_t *manager, uint32_t *ids, size_t capacity, size_t *count);

/**
 * Reads what is known of one lock. It touches no lock.
 *
 * info: receives the information. Set info->size before the call.
 *
 * -EINVAL: info->size is not the size of this struct in any version, or id is out of range.
 */
int32_t lock_manager_lock_info(lock_manager_t *manager, uint32_t id, lock_manager_lock_info_t *info);

/**
 * Lists the holders of a lock, shared or exclusive. It touches no lock. Holders that are known to be dead are left
 * out.
 *
 * count: receives the number of holders, which may exceed capacity.
 * holders: receives the first holders, capacity at most; NULL if capacity is 0. Set the size of the first before
 * the call: it counts for all.
 *
 * -EOPNOTSUPP: the libpod layout; use lock_manager_lock_info there.
 */
int32_t lock_manager_lock_holders(lock_manager_t *manager,
                                  uint32_t id,
                                  lock_manager_holder_t *holders,
                                  size_t capacity,
                                  size_t *count);

/**
 * Reads what is known of the storage. It touches no lock.
 *
 * info: receives the information. Set info->size before the call.
 *
 * -EINVAL: info->size is not the size of this struct in any version.
 */
int32_t lock_manager_info(lock_manager_t *manager, lock_manager_info_t *info);

/**
 * Marks a lock whose holder is provably dead, so that the next holder is told LOCK_MANAGER_OWNER_DIED. Returns 0
 * also if there was nothing to do.
 *
 * -EBUSY: the holder is alive, or cannot be judged.
 */
int32_t lock_manager_repair_lock(lock_manager_t *manager,
                                 uint32_t id);

/**
 * Reads the fencing token of a lock that the caller holds: a number that grows with each host that takes the lock, for
 * ever. Hand it to the resource with each request; a resource that refuses a lower token than it has seen is safe from
 * a holder that was paused for too long.
 *
 * token: receives the token.
 *
 * -EPERM: the caller does not hold the lock. LOCK_MANAGER_LOST: the lock may be another's by now. -EOPNOTSUPP: the
 * locks are those of one host, where a paused holder keeps its lock.
 */
int32_t lock_manager_fencing_token(lock_manager_t *manager,
                                   uint32_t id,
                                   uint64_t *token);

/**
 * Gives a descriptor that is readable while a lock that this manager holds may be lost. Wait for it with poll(2), beside
 * the work that the lock protects. Do not read from it or close it: it belongs to the manager.
 *
 * A lock counts as lost when its lease may be over, by this host's own clock and before the storage could give the lock
 * to anybody else. Unlocking it returns LOCK_MANAGER_LOST.
 *
 * descriptor: receives the descriptor.
 *
 * -EOPNOTSUPP: the locks are those of one host, where no lock is lost.
 */
int32_t lock_manager_lost_fd(lock_manager_t *manager,
                             int32_t *descriptor);

/**
 * Opens a manager on a backend in another library, which keeps locks for several hosts. Such a library calls it; its
 * users call that library.
 *
 * table: the backend's functions. They are copied.
 * state: what the functions get. lock_manager_close() hands it to the function close; after an error of this call, it is
 * still the caller's.
 * name: what errors call the storage.
 * host: the name of the native segment with the first locks of this host, made if it is missing; NULL: the first locks
 * are those of this process alone.
 *
 * -EINVAL: the table's size is not one of any version, or its number of locks is out of range. Otherwise as
 * lock_manager_open_or_new_shm() of host.
 */
int32_t lock_manager_open_backend(const lock_manager_backend_t *table,
                                  void *state,
                                  const char *name,
                                  const char *host,
                                  lock_manager_t **out);

/**
 * Finds the state of a backend's manager, for functions of the backend's own library.
 *
 * table: the backend's table. The manager must have been opened with the same function close.
 * holds: an id that the caller must hold; UINT32_MAX: none.
 * state: receives the state.
 *
 * -EINVAL: the manager is not one of that backend. -EPERM: the caller does not hold the lock.
 */
int32_t lock_manager_backend_state(lock_manager_t *manager,
                                   const lock_manager_backend_t *table,
                                   uint32_t holds,
                                   void **state);

/**
 * Makes a failure of a backend's own library this thread's last failure, so that lock_manager_last_error() describes it.
 * Returns -error.
 *
 * name: what errors call the storage; NULL: none.
 * error: the errno, positive.
 * text: the failure in one line, with the way out.
 *
 * -EINVAL: text is NULL, or error is not positive.
 */
int32_t lock_manager_backend_failed(const char *name,
                                    int32_t error,
                                    const char *text);

#ifdef __cplusplus
}  // extern "C"
#endif  // __cplusplus

#endif  /* LOCK_MANAGER_H */
