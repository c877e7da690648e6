/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* The libc's mutex, shared by processes and robust: the next holder is told of a death. */
#define ROBUSTNESS PTHREAD_MUTEX_ROBUST
#include "mutex.h"
