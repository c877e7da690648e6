/* SPDX-License-Identifier: MIT OR Apache-2.0
 *
 * What the library knows of the calling thread. C, because Rust has no stable way to ask for the initial-exec
 * model: with it the object is two instructions away, where thread_local! in a shared library costs a call to
 * __tls_get_addr in each lock and unlock. glibc keeps room for such small objects of libraries that come by dlopen.
 * musl does not, and loads no library with that model: there build.rs leaves INITIAL_EXEC undefined.
 *
 * object.rs knows its fields by their offsets. No epoch and no attachment is ever 1, so that a new thread belongs
 * to none.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stddef.h>
#include <stdint.h>

struct lock_manager_thread {
	/* On i386 a uint64_t in a struct is aligned to 4 bytes only, but an atomic one to 8. */
	_Alignas(8) uint64_t epoch;
	uint64_t local_id;
	uint64_t held;
	uint64_t inside;
	uint64_t identified;
	uint64_t id;
	uint64_t last_attachment;
	uint64_t serial_bits;
	uint64_t held_native;
	uint64_t exit_round;
	uint64_t inside_pool;
	/* A cell that is about to be claimed, as whose, and how often others were met there: see native.rs. */
	uint64_t claiming;
	uint64_t claimed_as;
	uint64_t met;
	/* What waits.rs and last_error.rs keep here, zeros at first. */
	uint64_t waits[2][12];
	uint64_t last_error[16];
	/* How the thread backs off from busy locks: see waiting.rs. */
	uint64_t pace;
};

extern __thread struct lock_manager_thread lock_manager_this_thread;
struct lock_manager_thread *lock_manager_this_thread_address(void);

_Static_assert(offsetof(struct lock_manager_thread, waits) == 112, "as object.rs has it");
_Static_assert(offsetof(struct lock_manager_thread, last_error) == 304, "as object.rs has it");
_Static_assert(offsetof(struct lock_manager_thread, pace) == 432, "as object.rs has it");

#ifdef INITIAL_EXEC
#define MODEL tls_model("initial-exec"),
#else
#define MODEL
#endif

__thread struct lock_manager_thread lock_manager_this_thread
	__attribute__((MODEL visibility("hidden"))) = { .epoch = 1, .identified = 1, .last_attachment = 1 };

__attribute__((visibility("hidden"))) struct lock_manager_thread *lock_manager_this_thread_address(void)
{
	return &lock_manager_this_thread;
}

static const char in_this_object;

/* Weak: a program with no shared library at all is to be linked without the dynamic linker's functions. */
#pragma weak dladdr
#pragma weak dlopen

/* Keeps the code mapped for good, whatever plugin it was linked into: threads call it when they end. Of the program itself
 * there is nothing to be kept, and dlopen(3) does not find it by that name. */
__attribute__((visibility("hidden"))) void lock_manager_stay_loaded(void)
{
	Dl_info info;
	if (dladdr != NULL && dlopen != NULL && dladdr(&in_this_object, &info) != 0)
		(void)dlopen(info.dli_fname, RTLD_NOW | RTLD_NOLOAD | RTLD_NODELETE);
}
