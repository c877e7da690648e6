/* SPDX-License-Identifier: MIT OR Apache-2.0
 *
 * lock_manager: numbered locks that several processes share.
 *
 * Generated from src/ffi.rs by `make header`; edit that.
 *
 * RETURN VALUES. Every function that can fail returns int32_t: 0 is success; a positive constant is a success that
 * says more, and one that you do not know is to be treated as 0; a negative value is -errno. No function reads or
 * sets errno, none returns -EINTR. Outputs are written only on success. After a failure, lock_manager_last_error()
 * says in words what happened, to this thread.
 *
 * ERRORS. Every function that can fail may fail with these, too, or with an error of the system that comes through as it is,
 * such as -ENOMEM, -EMFILE or -ENOTDIR. -EINVAL: a pointer that is needed is NULL, an id is out of range, or a value or a
 * struct's size is none that this version knows. -EOPNOTSUPP: this storage cannot do that, or not for this forked child.
 * -EIO: the library itself is at fault, or the device; a lock call has not taken the lock.
 *
 * OWNERSHIP. A lock_manager_t is yours from the function that wrote it until lock_manager_close(). A lock is named by
 * its number alone; there is no handle to free. Strings that functions return are the library's.
 *
 * THREADS. A manager may be used from any number of threads at once. A lock belongs to the thread that took it: only
 * that thread can unlock it, and through the manager that took it. Elsewhere than in the libpod layout it may belong to
 * the process instead: lock_manager_set_ownership().
 *
 * FORK. A child holds nothing of its parent's and may use the manager at once, however it was made, if it may still open
 * the storage: before it drops privileges or changes its root, have it make one call, any call. Who has opened a
 * storage goes on with it after dropping privileges. A process with threads is to make a child by
 * fork(): the libc's memory allocator, which this library uses, may be locked for ever in any other child of such a
 * process. In the libpod layout, lock calls and allocation are -EOPNOTSUPP in a child that was cloned behind the libc's
 * back, and lock calls in every layout in one that shares its parent's memory with thread-local storage of its own.
 * In-memory locks stay with the process that made them: -EOPNOTSUPP in every child.
 *
 * DEATH. A holder that dies frees its locks, and the next to take one is told: LOCK_MANAGER_OWNER_DIED, with the lock
 * held. What the lock protects may be half written then. Told once. What cannot be promised stands in
 * docs/caveats.md, among this library's installed documentation. A writer's death is also told to each reader that
 * locks shared until a writer was told; a reader's death is told to nobody, for it changed nothing.
 *
 * SIGNALS. A signal handler may call lock_manager_cancel_trigger(). It may also call lock_manager_try_lock() and
 * lock_manager_unlock(), and the same for shared locks, for any lock that the interrupted call is not about, whatever it interrupts, malloc(3) included, if
 * the thread has made a call before in this process, in a forked child anew (of files: on that lock); they do not wait.
 * What would have to wait for the interrupted call of the same thread is -EDEADLK. A handler may end its thread
 * (pthread_exit) or jump away (siglongjmp) from any call: what the thread holds then is held until its end or freed by
 * it, and it waits for nothing. In the libpod layout a jump out of a lock, unlock, allocate or free that does not
 * wait may leave the lock, or allocation, held until the thread's end.
 *
 * MANNERS. No call is a cancellation point. The library starts no thread, installs no signal handler, prints nothing,
 * and stays mapped after dlclose().
 */


#ifndef LOCK_MANAGER_H
#define LOCK_MANAGER_H

#include <stddef.h>
#include <stdint.h>

/** The version that this header was made for; lock_manager_version() says which one runs. */
#define LOCK_MANAGER_VERSION "0.1.0"

/**
 * A manager: a pool of numbered locks in some storage. Made by the functions that take a lock_manager_t **, used from
 * any number of threads at once, given back with lock_manager_close().
 */
typedef struct lock_manager lock_manager_t;

/**
 * Ends waits from another thread. Made by lock_manager_cancel_new(), given back with lock_manager_cancel_free().
 */
typedef struct lock_manager_cancel lock_manager_cancel_t;


/**
 * The lock is held now; its last holder died holding it, so what it protects may be half written. Told once, to the
 * one who acquires next.
 */
#define LOCK_MANAGER_OWNER_DIED 1

/**
 * What `lock_manager_available_locks` and `lock_manager_num_locks` say where there is no maximum.
 */
#define LOCK_MANAGER_UNLIMITED UINT32_MAX

/**
 * The native layout for a new segment; any for one that exists.
 */
#define LOCK_MANAGER_LAYOUT_DEFAULT 0

/**
 * Podman's own layout: POSIX robust mutexes, a fixed number of locks.
 */
#define LOCK_MANAGER_LAYOUT_LIBPOD 1

/**
 * The library's own layout: it grows, finds deadlocks, and does not rest on the kernel's list of robust mutexes.
 */
#define LOCK_MANAGER_LAYOUT_NATIVE 2

/**
 * The locks are in a shared memory segment.
 */
#define LOCK_MANAGER_KIND_SHM 0

/**
 * The locks are files of a directory.
 */
#define LOCK_MANAGER_KIND_FILE 1

/**
 * The locks are of this process only.
 */
#define LOCK_MANAGER_KIND_IN_MEMORY 2

/**
 * A lock is owned by the thread that took it.
 */
#define LOCK_MANAGER_OWNED_BY_THREAD 0

/**
 * A lock is owned by the process that took it.
 */
#define LOCK_MANAGER_OWNED_BY_PROCESS 1

/**
 * The version that the header was made for, as the macro LOCK_MANAGER_VERSION gives it in one string.
 */
#define LOCK_MANAGER_VERSION_MAJOR 0

/**
 * See LOCK_MANAGER_VERSION_MAJOR.
 */
#define LOCK_MANAGER_VERSION_MINOR 1

/**
 * See LOCK_MANAGER_VERSION_MAJOR.
 */
#define LOCK_MANAGER_VERSION_PATCH 0

/**
 * How a new segment is to be made. Zero in a field means the default.
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
         * How far a native segment may grow; 0: to the larger of num_locks and 1048576. The libpod layout cannot, and ignores
         * it.
         */
        uint32_t max_locks;
        /**
         * Permission bits, 0777 at most; 0 means 0600. The umask does not apply.
         */
        uint32_t mode;
        /**
         * None yet: any bit is -EINVAL.
         */
        uint32_t flags;
} lock_manager_shm_options_t;

/**
 * What is known of one lock.
 */
typedef struct {
        /**
         * sizeof(lock_manager_lock_info_t)
         */
        size_t size;
        /**
         * The lock.
         */
        uint32_t id;
        /**
         * 1 if it is allocated, else 0.
         */
        uint32_t allocated;
        /**
         * 1 if somebody holds it, else 0.
         */
        uint32_t held;
        /**
         * 1 if the last to hold it exclusively died and nobody has taken it exclusively since, else 0.
         */
        uint32_t owner_died;
        /**
         * The holder's process as the caller's PID namespace sees it, else 0.
         */
        int32_t pid;
        /**
         * The holder's thread as the caller's PID namespace sees it, else 0.
         */
        int32_t tid;
        /**
         * Threads known to wait; 0 where the storage does not say.
         */
        uint32_t waiters;
        /**
         * LOCK_MANAGER_OWNED_BY_…
         */
        uint32_t ownership;
        /**
         * How often it was acquired; 0 where not counted.
         */
        uint64_t acquisitions;
        /**
         * The holder's PID namespace, as the inode number of /proc/PID/ns/pid; 0 if unknown.
         */
        uint64_t pid_namespace;
        /**
         * Nanoseconds that the longest present waiter has waited, so that the lock is held at least that long.
         */
        uint64_t waited_ns;
        /**
         * How many hold it shared; pid and tid are the first of them then. Appended after 0.1.0, as is what follows.
         */
        uint32_t readers;
        /**
         * 1 if a writer waits for the readers to leave, and keeps later readers out, else 0. It is among the waiters.
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
         * Its process as the caller's PID namespace sees it, else 0.
         */
        int32_t pid;
        /**
         * The thread as the caller's PID namespace sees it, else 0; 0 also where the process owns the hold.
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
 * What is known of a manager's storage.
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
         * LOCK_MANAGER_LAYOUT_… of a segment, else 0.
         */
        uint32_t layout;
        /**
         * How many locks there are.
         */
        uint32_t num_locks;
        /**
         * How many there may come to be.
         */
        uint32_t max_locks;
        /**
         * Processes attached; 0 where the storage does not say.
         */
        uint32_t attached;
        /**
         * 1 if the storage was removed, else 0.
         */
        uint32_t retired;
} lock_manager_info_t;

#ifdef __cplusplus
extern "C" {
#endif // __cplusplus

/**
 * This thread's last failure in words: the storage, the lock, the numbers that disagree, the way out. Never NULL;
 * empty before the first failure. Valid until this thread's next failing call.
 */
const char *lock_manager_last_error(void);

/**
 * The version of the library that runs, such as "0.1.0".
 */
const char *lock_manager_version(void);

/**
 * Creates a shared memory segment and opens it. Nobody ever sees it half made.
 *
 * path: a POSIX shm name ("/name": one slash, first) or the absolute path of a file.
 * num_locks: 1 to 16777216, rounded up to a multiple of 64; in the libpod layout of 32.
 * options: NULL for the defaults: the native layout, which may grow to 1048576 locks.
 *
 * -EEXIST: the name is taken. -ENOSPC: the file system is full; nothing is left behind. -EINVAL: path
 * cannot name a segment, or num_locks or an option is out of range. -EACCES: permissions. -EOPNOTSUPP: a network file system.
 */
int32_t lock_manager_new_shm(const char *path,
                             uint32_t num_locks,
                             const lock_manager_shm_options_t *options,
                             lock_manager_t **out);

/**
 * Opens a segment that exists.
 *
 * num_locks: how many it must have, rounded as at creation; 0 takes what is there. One that has grown may be asked for by
 * any number between its first and its present one.
 *
 * -ENOENT: there is none. -ERANGE: it has another number of locks. -EPROTO: none of ours, damaged, or made for
 * another libc, architecture or version. -ESTALE: it was made before this boot (native). -EUSERS: 8191 processes use it
 * (native). -EACCES: permissions, a symbolic link, or an owner that is neither the caller nor root.
 */
int32_t lock_manager_open_shm(const char *path,
                              uint32_t num_locks,
                              lock_manager_t **out);

/**
 * Opens the segment if it exists, else creates it. Of two first users at once, one creates it and both succeed.
 *
 * mode and max_locks count at creation only. A native segment from before this boot is replaced by a new one.
 *
 * num_locks: 0 opens what is there.
 * options: a layout that is named must be the one that is there.
 *
 * -EINVAL: 0 locks, and nothing is there. -EPROTO: it has another layout. Otherwise as lock_manager_open_shm and
 * lock_manager_new_shm.
 */
int32_t lock_manager_open_or_new_shm(const char *path,
                                     uint32_t num_locks,
                                     const lock_manager_shm_options_t *options,
                                     lock_manager_t **out);

/**
 * Opens a segment to look at it, whoever owns it if permissions allow. What changes something is -EACCES then.
 *
 * Fails as lock_manager_open_shm does, but for the owner.
 */
int32_t lock_manager_open_shm_read_only(const char *path,
                                        lock_manager_t **out);

/**
 * Removes a segment's name. Who has it open is told -ESTALE: in the native layout at each allocation and lock call from
 * then on, in the libpod layout by allocation and waits within 100 ms. Unlocking and looking work.
 *
 * -ENOENT: there is none. -EPROTO: it carries no magic number of ours; it stays. A damaged segment of ours goes.
 * -EBUSY: somebody has kept a record lock on it for 2 s. -EACCES, -EPERM: the directory does not let the caller take
 * the name away; the segment stays in use.
 */
int32_t lock_manager_remove_shm(const char *path);

/**
 * Makes a directory for locks, and opens it: one file for each allocated lock, named by its decimal id, as libpod's
 * file manager has it. An empty directory that is there already will do. Ids go from 0 to 16777215. Beside libpod, a lock
 * is also the record lock that libpod takes on that file, and shows as such in lslocks(8).
 *
 * -EEXIST: there is something in it. -ENOENT: the directory above it is missing. -EACCES: permissions.
 * -EOPNOTSUPP: a network file system.
 */
int32_t lock_manager_new_file(const char *directory,
                              lock_manager_t **out);

/**
 * Opens a directory of locks that exists, be it libpod's or this library's. A table (.lock_manager) that is not there, or
 * from before this boot, is made anew.
 *
 * -ENOENT: there is none. -EACCES: permissions, a symbolic link, or an owner that is neither the caller nor root.
 * -EPROTO: its file .lock_manager is of another version, or none of ours.
 */
int32_t lock_manager_open_file(const char *directory,
                               lock_manager_t **out);

/**
 * Opens the directory if it exists, else makes it. Of two first users at once, one makes it and both succeed.
 *
 * Fails as lock_manager_open_file and lock_manager_new_file do.
 */
int32_t lock_manager_open_or_new_file(const char *directory, lock_manager_t **out);

/**
 * Removes a directory with its locks. Who has it open is told -ESTALE at the next call that allocates or locks.
 *
 * -ENOENT: there is none. -EPROTO: nothing in it is ours; it stays. -ENOTEMPTY: other files were in it as well.
 */
int32_t lock_manager_remove_file(const char *directory);

/**
 * Makes a manager whose locks are of this process only: between its threads they are what those of a native segment are. In
 * a forked child its calls are -EOPNOTSUPP.
 *
 * num_locks: 1 to 16777216, not rounded.
 *
 * -EINVAL: 0 locks, or too many.
 */
int32_t lock_manager_new_in_memory(uint32_t num_locks,
                                   lock_manager_t **out);

/**
 * Closes a manager; the storage stays. NULL is 0.
 *
 * -EBUSY: this process holds a lock through it, or another thread waits in a call on it; it stays open then. A call
 * that merely runs beside this one is the caller's error, as with free(3).
 */
int32_t lock_manager_close(lock_manager_t *manager);

/**
 * Allocates a lock: an id that nobody else gets until it is freed.
 *
 * -ENOLCK: all are allocated. -ESTALE: the segment was removed. -ENOTRECOVERABLE: the guard of the bitmaps stays
 * taken (libpod layout).
 */
int32_t lock_manager_allocate_lock(lock_manager_t *manager,
                                   uint32_t *id);

/**
 * Checks that an id is within range; whether it is allocated does not matter.
 *
 * -EINVAL: id is out of range.
 */
int32_t lock_manager_retrieve_lock(lock_manager_t *manager, uint32_t id);

/**
 * Allocates the lock of that id.
 *
 * -EEXIST: it is allocated. -EINVAL: out of range. Otherwise as lock_manager_allocate_lock.
 */
int32_t lock_manager_allocate_and_retrieve_lock(lock_manager_t *manager, uint32_t id);

/**
 * Gives an id back. A lock that is held stays held, and can still be used.
 *
 * -ENOENT: it is not allocated. -EINVAL: out of range. Otherwise as lock_manager_allocate_lock.
 */
int32_t lock_manager_free_lock(lock_manager_t *manager, uint32_t id);

/**
 * Frees every id. For tests and renumbering, when no other process is allocating.
 *
 * Fails as lock_manager_allocate_lock does, but for -ENOLCK.
 */
int32_t lock_manager_free_all_locks(lock_manager_t *manager);

/**
 * How many locks are free to be allocated, or LOCK_MANAGER_UNLIMITED.
 *
 * -EINVAL: count is NULL.
 */
int32_t lock_manager_available_locks(lock_manager_t *manager, uint32_t *count);

/**
 * How many locks there are, or LOCK_MANAGER_UNLIMITED.
 *
 * -EINVAL: count is NULL.
 */
int32_t lock_manager_num_locks(lock_manager_t *manager, uint32_t *count);

/**
 * Makes room for num_locks, rounded as at creation, while others work: every process that has the segment open can use
 * the new locks, and nothing moves. In memory, too.
 *
 * -EINVAL: fewer than there are, or more than max_locks. -ENOSPC: the file system is full. -ENOMEM, -EAGAIN: this process
 * has no addresses for max_locks, or may not lock so much memory (mlockall). Nothing has changed then.
 * -EOPNOTSUPP: the layout is fixed, as libpod's is, or there is no number, as with files.
 */
int32_t lock_manager_grow(lock_manager_t *manager,
                          uint32_t num_locks);

/**
 * Waits for a lock without end.
 *
 * 0 or LOCK_MANAGER_OWNER_DIED: the calling thread holds it now.
 *
 * -EDEADLK: this thread holds it, or (not in the libpod layout) the wait would close a cycle of threads that wait for each
 * other's locks, which the last error names with their processes. -ESTALE: the storage was removed. -ENOLCK: this
 * thread holds 2000 locks already (libpod layout). -ENOTRECOVERABLE: the lock's state is lost (libpod layout). -EOPNOTSUPP: a
 * child cloned behind the libc's back (libpod layout).
 */
int32_t lock_manager_lock(lock_manager_t *manager,
                          uint32_t id);

/**
 * Takes a lock if it is free.
 *
 * -EBUSY: it is held, by whomever. Otherwise as lock_manager_lock.
 */
int32_t lock_manager_try_lock(lock_manager_t *manager, uint32_t id);

/**
 * Waits for a lock for at most timeout_ns nanoseconds of CLOCK_MONOTONIC; UINT64_MAX: without end; 0 takes a free
 * lock and waits for no other.
 *
 * -ETIMEDOUT: it was held all the time. Otherwise as lock_manager_lock.
 */
int32_t lock_manager_timed_lock(lock_manager_t *manager,
                                uint32_t id,
                                uint64_t timeout_ns);

/**
 * Unlocks what the calling thread, or by process ownership this process, holds through this manager.
 *
 * -EPERM: it does not hold it.
 */
int32_t lock_manager_unlock(lock_manager_t *manager, uint32_t id);

/**
 * Says who owns the locks taken through a manager: LOCK_MANAGER_OWNED_BY_THREAD, as it is by itself, or
 * LOCK_MANAGER_OWNED_BY_PROCESS, so that any thread of the process may unlock. A lock that the process holds is waited for
 * then, even by the thread that took it.
 *
 * -EBUSY: the manager has taken a lock already. -EOPNOTSUPP: the libpod layout's locks belong to threads. -EINVAL: no
 * such ownership.
 */
int32_t lock_manager_set_ownership(lock_manager_t *manager,
                                   uint32_t ownership);

/**
 * Makes a cancel object, which ends waits from another thread. Free it with lock_manager_cancel_free().
 *
 * -EINVAL: out is NULL.
 */
int32_t lock_manager_cancel_new(lock_manager_cancel_t **out);

/**
 * Ends every wait with that object within 10 ms, and each later one at once; it stays triggered. Async-signal-safe.
 *
 * -EINVAL: cancel is NULL.
 */
int32_t lock_manager_cancel_trigger(lock_manager_cancel_t *cancel);

/**
 * Frees a cancel object. NULL is 0.
 *
 * -EBUSY: a wait still uses it.
 */
int32_t lock_manager_cancel_free(lock_manager_cancel_t *cancel);

/**
 * lock_manager_timed_lock that another thread can end through the cancel object. NULL: nobody can.
 *
 * -ECANCELED: it was triggered, even if the lock was free. Otherwise as lock_manager_timed_lock.
 */
int32_t lock_manager_cancellable_lock(lock_manager_t *manager,
                                      uint32_t id,
                                      uint64_t timeout_ns,
                                      lock_manager_cancel_t *cancel);

/**
 * Waits without end until a lock can be held shared: beside any number of others that hold it shared, and nobody that
 * holds it exclusively.
 *
 * 0 or LOCK_MANAGER_OWNER_DIED: the calling thread holds it shared now.
 *
 * LOCK_MANAGER_OWNER_DIED: a writer died holding it. Each reader is told, until a writer has taken the lock and was told
 * itself: only a writer can mend what the lock protects. That a reader died is told to nobody, since it changed nothing.
 *
 * A writer that waits keeps later readers out, so as not to starve; give writers deadlines, for a reader that is stopped
 * keeps its hold. A reader cannot become a writer: unlock, and lock exclusively.
 *
 * -EDEADLK: this thread holds the lock already, either way, or the wait would close a cycle. -EAGAIN: there is no room for
 * one more reader: 4 for each lock and 8192 more in a segment. -EOPNOTSUPP: the libpod layout, or a segment of format
 * version 1. Otherwise as lock_manager_lock.
 */
int32_t lock_manager_lock_shared(lock_manager_t *manager,
                                 uint32_t id);

/**
 * Takes a lock shared if no writer has it or is next.
 *
 * -EBUSY: one is, or this thread holds it. Otherwise as lock_manager_lock_shared.
 */
int32_t lock_manager_try_lock_shared(lock_manager_t *manager, uint32_t id);

/**
 * lock_manager_lock_shared for at most timeout_ns nanoseconds of CLOCK_MONOTONIC; UINT64_MAX: without end; 0: takes what
 * no writer has, and waits for none.
 *
 * -ETIMEDOUT: writers had it all the time. Otherwise as lock_manager_lock_shared.
 */
int32_t lock_manager_timed_lock_shared(lock_manager_t *manager,
                                       uint32_t id,
                                       uint64_t timeout_ns);

/**
 * lock_manager_timed_lock_shared that another thread can end through the cancel object. NULL: nobody can.
 *
 * -ECANCELED: it was triggered, even if the lock was free. Otherwise as lock_manager_timed_lock_shared.
 */
int32_t lock_manager_cancellable_lock_shared(lock_manager_t *manager,
                                             uint32_t id,
                                             uint64_t timeout_ns,
                                             lock_manager_cancel_t *cancel);

/**
 * Gives back what the calling thread, or by process ownership this process, holds shared, through whichever manager of
 * that ownership on the storage.
 *
 * -EPERM: it does not hold it shared. -EOPNOTSUPP: as for lock_manager_lock_shared.
 */
int32_t lock_manager_unlock_shared(lock_manager_t *manager,
                                   uint32_t id);

/**
 * Makes what the caller holds exclusively a shared hold, without a gap in which somebody else could have it exclusively.
 * Readers that wait get in.
 *
 * -EPERM: the caller does not hold it exclusively through this manager. -EAGAIN: there is no room for one more reader;
 * it is still held exclusively. -EOPNOTSUPP: as for lock_manager_lock_shared.
 */
int32_t lock_manager_downgrade_lock(lock_manager_t *manager,
                                    uint32_t id);

/**
 * The locks that somebody holds, either way. Touches no lock.
 *
 * count: how many there are.
 * ids: the first of them, ascending, as many as `capacity` allows; NULL if that is 0.
 *
 * -EINVAL: ids is NULL, but capacity is not 0.
 */
int32_t lock_manager_locks_held(lock_manager_t *manager, uint32_t *ids, size_t capacity, size_t *count);

/**
 * What is known of one lock. Touches no lock. info->size must be set.
 *
 * -EINVAL: info->size is the size of no version's struct, or id is out of range.
 */
int32_t lock_manager_lock_info(lock_manager_t *manager, uint32_t id, lock_manager_lock_info_t *info);

/**
 * Who holds a lock, either way, as far as nobody knows that they are dead. Touches no lock.
 *
 * count: how many there are.
 * holders: the first of them, as many as `capacity` allows; NULL if that is 0. The size of the first must be set: it is
 * the size of each.
 *
 * -EOPNOTSUPP: the libpod layout; lock_manager_lock_info says there who holds a lock.
 */
int32_t lock_manager_lock_holders(lock_manager_t *manager,
                                  uint32_t id,
                                  lock_manager_holder_t *holders,
                                  size_t capacity,
                                  size_t *count);

/**
 * What is known of the storage. Touches no lock. info->size must be set.
 *
 * -EINVAL: info->size is the size of no version's struct.
 */
int32_t lock_manager_info(lock_manager_t *manager, lock_manager_info_t *info);

/**
 * Marks a lock whose holder is provably dead, so that the next to take it is told LOCK_MANAGER_OWNER_DIED. 0 also
 * where there was nothing to do.
 *
 * -EBUSY: the holder lives, or cannot be judged.
 */
int32_t lock_manager_repair_lock(lock_manager_t *manager,
                                 uint32_t id);

#ifdef __cplusplus
}  // extern "C"
#endif  // __cplusplus

#endif  /* LOCK_MANAGER_H */
