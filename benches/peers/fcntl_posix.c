/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* A POSIX record lock, which belongs to the process. */
#define COMMAND F_SETLKW
#include "record.h"
