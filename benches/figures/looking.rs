// SPDX-License-Identifier: MIT OR Apache-2.0
//! Creating, opening, counting and listing.

use crate::library::Library;
use crate::{lone, median, nanoseconds};

const ROUNDS: usize = 21;

pub fn run(library: &Library) {
    for num_locks in [2048, 65_536] {
        let create = rounds(|| nanoseconds(1, || drop(library.segment(num_locks))) / 1000.0);
        lone(&format!("create and remove {num_locks} locks"), "µs", create);

        let segment = library.segment(num_locks);
        let open = rounds(|| {
            nanoseconds(100, || {
                let mut manager = std::ptr::null_mut();
                // SAFETY: as the header says.
                unsafe {
                    library.check((library.open_shm)(segment.path.as_ptr(), 0, &mut manager));
                    library.check((library.close)(manager));
                }
            }) / 1000.0
        });
        lone(&format!("open and close {num_locks} locks"), "µs", open);

        let mut id = 0;
        for _ in 1..num_locks {
            // SAFETY: the manager is open and the id writable.
            library.check(unsafe { (library.allocate_lock)(segment.manager, &mut id) });
        }
        let mut count = 0;
        let available = rounds(|| {
            // SAFETY: as above.
            nanoseconds(100, || library.check(unsafe { (library.available_locks)(segment.manager, &mut count) }))
                / 1000.0
        });
        lone(&format!("available_locks, one of {num_locks} free"), "µs", available);

        let mut ids = vec![0; num_locks as usize];
        let mut held = 0;
        let listed = rounds(|| {
            nanoseconds(20, || {
                // SAFETY: ids has that capacity.
                library.check(unsafe { (library.locks_held)(segment.manager, ids.as_mut_ptr(), ids.len(), &mut held) });
            }) / 1000.0
        });
        lone(&format!("locks_held of {num_locks}"), "µs", listed);
    }
}

fn rounds(round: impl FnMut() -> f64) -> f64 {
    median(std::iter::repeat_with(round).take(ROUNDS).collect())
}
