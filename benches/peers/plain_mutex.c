/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* The libc's mutex, shared by processes and not robust: a holder that dies keeps it. */
#define ROBUSTNESS PTHREAD_MUTEX_STALLED
#include "mutex.h"
