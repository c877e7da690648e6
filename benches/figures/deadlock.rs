// SPDX-License-Identifier: MIT OR Apache-2.0
//! From the last process of a ring beginning to wait to one of them being told. A slice is 5 ms.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::library::{Layout, Library, Manager};
use crate::peer::{self, now, until};
use crate::{lone, median};

const ROUNDS: usize = 41;

struct Board {
    holding: AtomicU64,
    go: AtomicU64,
    /// When the last of them began to wait.
    closed: AtomicU64,
    told: AtomicU64,
}

pub fn run(library: &Library) {
    let segment = library.segment(Layout::Native, 2048);
    for processes in [2, 16] {
        let mut took: Vec<f64> = (0..ROUNDS).map(|_| ring(library, segment.manager, processes)).collect();
        took.sort_by(f64::total_cmp);
        let what = format!("{processes} processes wait in a ring → one is told, native");
        lone(&what, "ms", median(took.clone()));
        lone(&format!("… the worst of {ROUNDS}"), "ms", took[ROUNDS - 1]);
    }
}

/// Milliseconds until one of that many processes, each waiting for the next one's lock, is told of it.
fn ring(library: &Library, manager: Manager, processes: u32) -> f64 {
    let shared = peer::shared::<Board>(1);
    // SAFETY: fresh zeroed shared memory; atomics may hold zeros.
    let board = unsafe { &*shared };
    let member = |own: u32| {
        peer::spawn(|| {
            let next = (own + 1) % processes;
            // SAFETY: the manager is open; a forked child may use it at once.
            unsafe {
                library.check((library.lock)(manager, own));
                board.holding.fetch_add(1, Ordering::AcqRel);
                until(&board.go);
                board.closed.fetch_max(now(), Ordering::AcqRel);
                match (library.lock)(manager, next) {
                    code if code == -libc::EDEADLK => {
                        assert_eq!(board.told.swap(now(), Ordering::AcqRel), 0, "two of a ring were told");
                    }
                    code => {
                        library.check(code);
                        library.check((library.unlock)(manager, next));
                    }
                }
                library.check((library.unlock)(manager, own));
            }
        })
    };
    let members: Vec<_> = (0..processes).map(member).collect();
    while board.holding.load(Ordering::Acquire) < u64::from(processes) {
        std::thread::yield_now();
    }
    board.go.store(1, Ordering::Release);
    members.into_iter().for_each(peer::join);
    let took = board.told.load(Ordering::Acquire) - board.closed.load(Ordering::Acquire);
    // SAFETY: nobody uses the board any more.
    unsafe { libc::munmap(shared.cast(), 4096) };
    took as f64 / 1e6
}
