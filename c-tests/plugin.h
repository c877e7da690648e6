/* SPDX-License-Identifier: MIT OR Apache-2.0
 *
 * What plugin_host.c and plugin.c know of each other.
 */
#ifndef PLUGIN_H
#define PLUGIN_H

/* Takes a lock of the segment of that name and gives it back: 0, or what failed. */
int enter_and_leave(const char *name);

#endif
