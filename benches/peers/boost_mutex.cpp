// SPDX-License-Identifier: MIT OR Apache-2.0
// boost::interprocess::interprocess_mutex. A holder that dies keeps it.
extern "C" {
#include "peer.h"
}

#include <boost/interprocess/sync/interprocess_mutex.hpp>
#include <new>

using mutex = boost::interprocess::interprocess_mutex;
static_assert(sizeof(mutex) <= PEER_MEMORY, "it fits");

void peer_make(void *memory, const char *) { new (memory) mutex; }

void *peer_attach(void *memory, const char *) { return memory; }

int peer_lock(void *lock, uint32_t)
{
	static_cast<mutex *>(lock)->lock();
	return 0;
}

int peer_unlock(void *lock, uint32_t)
{
	static_cast<mutex *>(lock)->unlock();
	return 0;
}
