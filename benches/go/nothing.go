// SPDX-License-Identifier: MIT OR Apache-2.0

package main

// static void nothing(void) {}
import "C"

// nothing is a call into C and back.
func nothing() { C.nothing() }
