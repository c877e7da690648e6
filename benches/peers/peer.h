/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * What the benchmark calls in each peer. A peer is compiled by itself, with -O2, into a shared object, and called as
 * lock_manager is: through the address of a function in a shared object. Where a function can pass on the result of the
 * one below as it is, it does, which costs one jump.
 */
#ifndef PEER_H
#define PEER_H

#include <stdint.h>

enum { PEER_MEMORY = 4096 };

/* Makes one lock that nobody holds: in PEER_MEMORY zeroed bytes that all processes share, or at a path that is free. */
void peer_make(void *memory, const char *path);

/* Each process calls it once, after peer_make(): what it is to call the lock by. */
void *peer_attach(void *memory, const char *path);

/* 0; EOWNERDEAD where the peer tells that the last holder died; anything else is a failure. There is one lock: the id is
 * there because lock_manager's functions have one. */
int peer_lock(void *lock, uint32_t id);
int peer_unlock(void *lock, uint32_t id);

/* Some peers have these as well: beside other readers; within so many nanoseconds, 0 if the lock was taken. */
int peer_lock_shared(void *lock, uint32_t id);
int peer_unlock_shared(void *lock, uint32_t id);
int peer_timed_lock(void *lock, uint32_t id, uint64_t timeout_ns);

#endif
