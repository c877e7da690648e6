// SPDX-License-Identifier: MIT OR Apache-2.0

//go:build linux && cgo

// Package ctest is the C side of the tests: threads that Go knows nothing of, and the price of a bare foreign call.
package ctest

/*
#cgo pkg-config: lock_manager
#cgo LDFLAGS: -pthread

#include <lock_manager.h>
#include <pthread.h>
#include <stdlib.h>

static void ct_nothing(void) {
}

// As a number, which Go need not check for pointers.
static uintptr_t ct_mutex_new(void) {
	pthread_mutexattr_t attributes;
	pthread_mutex_t *mutex = calloc(1, sizeof *mutex);
	pthread_mutexattr_init(&attributes);
	pthread_mutexattr_setpshared(&attributes, PTHREAD_PROCESS_SHARED);
	pthread_mutexattr_setrobust(&attributes, PTHREAD_MUTEX_ROBUST);
	pthread_mutex_init(mutex, &attributes);
	return (uintptr_t)mutex;
}

static int ct_mutex_lock(uintptr_t mutex) {
	return pthread_mutex_lock((pthread_mutex_t *)mutex);
}

static int ct_mutex_unlock(uintptr_t mutex) {
	return pthread_mutex_unlock((pthread_mutex_t *)mutex);
}

typedef struct {
	lock_manager_t *manager;
	uint32_t id;
	uint32_t rounds;
	uint64_t *counter;
	int32_t code;
	pthread_t thread;
} ct_counting;

static void *ct_count(void *argument) {
	ct_counting *counting = argument;
	for (uint32_t round = 0; round < counting->rounds; round++) {
		if ((counting->code = lock_manager_lock(counting->manager, counting->id)) < 0)
			return NULL;
		*counting->counter += 1;
		if ((counting->code = lock_manager_unlock(counting->manager, counting->id)) < 0)
			return NULL;
	}
	return NULL;
}

// The manager is the thread's own: a second one on the same storage.
static int32_t ct_start(const char *path, uint32_t id, uint32_t rounds, uint64_t *counter, ct_counting **out) {
	ct_counting *counting = calloc(1, sizeof *counting);
	int32_t code = lock_manager_open_shm(path, 0, &counting->manager);
	if (code < 0)
		return code;
	counting->id = id;
	counting->rounds = rounds;
	counting->counter = counter;
	code = -pthread_create(&counting->thread, NULL, ct_count, counting);
	*out = counting;
	return code;
}

static int32_t ct_join(ct_counting *counting) {
	pthread_join(counting->thread, NULL);
	int32_t code = counting->code;
	if (code >= 0)
		code = lock_manager_close(counting->manager);
	free(counting);
	return code;
}
*/
import "C"

import (
	"fmt"
	"os"
	"syscall"
	"unsafe"
)

// Nothing is a foreign call that does nothing.
func Nothing() { C.ct_nothing() }

// Mutex is a robust mutex with nothing around it but the foreign calls.
type Mutex uintptr

// NewMutex makes one that is never freed.
func NewMutex() Mutex { return Mutex(C.ct_mutex_new()) }

// Lock waits for it, for the calling thread.
func (m Mutex) Lock() bool { return C.ct_mutex_lock(C.uintptr_t(m)) == 0 }

// Unlock gives it back.
func (m Mutex) Unlock() bool { return C.ct_mutex_unlock(C.uintptr_t(m)) == 0 }

// Counter is a number in a file's memory that only a lock guards.
type Counter struct{ value *C.uint64_t }

// NewCounter maps a file's first 8 bytes. They stay mapped: a test that fails leaves threads behind that use them.
func NewCounter(file *os.File) (Counter, error) {
	memory, err := syscall.Mmap(int(file.Fd()), 0, 8, syscall.PROT_READ|syscall.PROT_WRITE, syscall.MAP_SHARED)
	if err != nil {
		return Counter{}, fmt.Errorf("mapping %s: %w", file.Name(), err)
	}
	return Counter{(*C.uint64_t)(unsafe.Pointer(&memory[0]))}, nil
}

// Increment is a read and a write, unguarded.
func (c Counter) Increment() { *c.value++ }

// Value reads it.
func (c Counter) Value() uint64 { return uint64(*c.value) }

// Thread is a C thread that counts.
type Thread struct{ counting *C.ct_counting }

// StartCounting starts a C thread that increments the counter that often, under that lock of that segment.
func StartCounting(path string, id, rounds uint32, counter Counter) (Thread, error) {
	text := C.CString(path)
	defer C.free(unsafe.Pointer(text))
	var thread Thread
	if code := C.ct_start(text, C.uint32_t(id), C.uint32_t(rounds), counter.value, &thread.counting); code < 0 {
		return thread, fmt.Errorf("a counting thread was refused: %d", int32(code))
	}
	return thread, nil
}

// Join waits for the thread's end.
func (t Thread) Join() error {
	if code := C.ct_join(t.counting); code < 0 {
		return fmt.Errorf("a counting thread failed: %d", int32(code))
	}
	return nil
}
