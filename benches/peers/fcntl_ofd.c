/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* A record lock of the open file description. */
#define _GNU_SOURCE
#define COMMAND F_OFD_SETLKW
#include "record.h"
