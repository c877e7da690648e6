// SPDX-License-Identifier: MIT OR Apache-2.0
#![forbid(unsafe_code)]
//! The rules of shared locks, by the numbers that comments beside the code name. Without any one of them a model, or a
//! program, fails.
//!
//! *Shared lock, unlock*
//! - S1: a reader claims a cell first, and then looks at the word again: no owner and SHARED: it is in (`cells`).
//! - S2: claim and second look, a writer's swap and its look at the cells, are sequentially consistent (`cells`, `writing`).
//! - S3: a cell is given back by a swap of exactly what its reader has there; a writer that sleeps on it is woken (`cells`).
//! - S4: a reader that was woken wakes one more, since it uses no wake-up up (`reading`).
//! - S5: a reader that finds the owner dead swaps the word for one that may be entered: OWNER_DIED after a holder, SHARED after a drain
//!   (`reading`, `word`).
//!
//! *Exclusive lock with readers*
//! - S6: a word with SHARED is taken as draining, with OWNER_DIED as it was; so is that of a dead drainer (`word`, `writing`).
//! - S7: a drain goes through the cells once, sleeps on each that is taken, and clears the dead by exact swaps (`writing`).
//! - S8: at its end one swap takes DRAINING and OWNER_DIED away, and the writer holds (`writing`).
//! - S9: a drain that ends without the lock leaves SHARED, never 0 (`word`, `releasing`).
//! - S10: a drain that stands still though its readers are gone may be ended by any waiter (`writing`).
//! - S11: claims, drains and starving cells are in the thread's name; the hold is then the process's, where that owns it
//!   (`sharing`, `converting`, `writing`).
//!
//! *Who goes first*
//! - S12: a reader that starves keeps a cell marked STARVING; the next unlock then lets all readers in, and the last of those who
//!   starved wakes a writer (`reading`, `releasing`).
//! - S13: a writer that takes a read phase for which nobody came clears the cells that starve (`writing`).
//!
//! *Who is refused*
//! - S14: who reads a lock is refused a second hold of it; a claim is noted in the thread before it is made (`sharing`,
//!   `writing`, `reading`).
//! - S15: a downgrade claims its cell before it swaps the word (`converting`, `reading`).
//! - S16: a try looks at the cells before its swap, and never sleeps (`writing`).
//!
//! *The table*
//! - S17: the level is raised and the page made ready before a place is claimed; a place's lock is written while its cell
//!   is UNFINISHED (`cells`).
//! - S18: the level never goes down (`cells`).
//! - S18a: readers that keep meeting in the slot's cells are sent to the table (`sharing`).
//!
//! *Deaths, ends, sweeps*
//! - S19: a writer's death is told to everybody until a writer was told; a reader's, or a drainer's, to nobody (`word`).
//! - S20: a thread that ends, and generations that begin again, empty every cell that names them (`abandoning`).
//! - S21: a repair marks a dead owner's word, and empties dead readers' cells (`abandoning`).
//! - S22: the look whether the segment is removed comes behind the swap that acquires; levels, passes and retries have bounds
//!   (`reading`, `locking`, `cells`).
//!
//! *Deadlocks*
//! - S23: a drain waits for every reader, so that the way forks (`deadlock`).
//! - S24: a cell is no hold while its thread waits for that same lock (`waits_for`).
//! - S25: a cycle is one if it stands at two looks more (`deadlock`).
