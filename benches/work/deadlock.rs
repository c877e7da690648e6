// SPDX-License-Identifier: MIT OR Apache-2.0
//! From the last process of a ring beginning to wait to one of them being told. No peer tells.

use std::sync::atomic::Ordering;

use crate::contenders::NATIVE;
use crate::library::{Layout, Manager, Segment, check, library};
use crate::method::{Contended, Entry, Run};
use crate::processes::{Board, Child, now, spawn, until};
use crate::results::Quantity;

const TIME: Quantity = Quantity::less("closed to told", "ms");

const HOLDING: usize = 0;
const GO: usize = 1;
/// When the last of them began to wait.
const CLOSED: usize = 2;
const TOLD: usize = 3;

pub fn run(run: &mut Run) {
    let segment = Segment::new(Layout::Native, 2048);
    let rounds = run.effort.pick(7, 41);
    for processes in [2, 16] {
        let entry = Entry::new(NATIVE, || ring(segment.manager, processes));
        let case = format!("a ring of {processes} processes");
        run.rounds("deadlock", &case, &[TIME], rounds, Contended::No, vec![entry]);
    }
}

/// Milliseconds until one of that many processes, each waiting for the next one's lock, is told of it.
fn ring(manager: Manager, processes: u32) -> f64 {
    let board = Board::new(4);
    let member = |own: u32| {
        let next = (own + 1) % processes;
        library().take(manager, own);
        board[HOLDING].fetch_add(1, Ordering::AcqRel);
        until(&board[GO], 1);
        board[CLOSED].fetch_max(now(), Ordering::AcqRel);
        // SAFETY: the manager is open; a forked child may use it at once.
        match unsafe { (library().lock)(manager, next) } {
            code if code == -libc::EDEADLK => {
                assert_eq!(board[TOLD].swap(now(), Ordering::AcqRel), 0, "two of a ring were told");
            }
            code => {
                check(code);
                library().give_back(manager, next);
            }
        }
        library().give_back(manager, own);
    };
    let members: Vec<_> = (0..processes).map(|own| spawn(|| member(own))).collect();
    until(&board[HOLDING], u64::from(processes));
    board[GO].store(1, Ordering::Release);
    members.into_iter().for_each(Child::join);
    (board[TOLD].load(Ordering::Acquire) - board[CLOSED].load(Ordering::Acquire)) as f64 / 1e6
}
