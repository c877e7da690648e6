// SPDX-License-Identifier: MIT OR Apache-2.0
//! From the SIGKILL of readers or a writer to the lock in a waiter's hands.
//!
//! The holders are lean children (`child.c`): the kernel ends hundreds of them in the time that one large process takes.

use std::io::Read as _;
use std::os::unix::process::ExitStatusExt as _;
use std::path::Path;
use std::process::{Child as Process, Command, Stdio};
use std::sync::atomic::Ordering;
use std::time::Duration;

use super::LOCK;
use crate::contenders::NATIVE;
use crate::library::{Layout, Manager, Segment, check, library};
use crate::method::{Contended, Entry, ROUNDS, Run};
use crate::peers::compile;
use crate::processes::{Board, now, spawn, until};
use crate::progress;
use crate::results::Quantity;

const TIME: Quantity = Quantity::less("SIGKILL to the next holder", "ms");
const MANY: usize = 512;
const OTHER: u32 = LOCK + 1;
/// By then a waiter sleeps as it does for long.
const SETTLED: Duration = Duration::from_millis(12);

const WAITS: usize = 0;
const ACQUIRED: usize = 1;

#[derive(Clone, Copy, PartialEq, Eq)]
enum Way {
    Shared,
    Exclusive,
}

impl Way {
    fn word(self) -> &'static str {
        match self {
            Self::Shared => "shared",
            Self::Exclusive => "exclusive",
        }
    }

    fn take_and_give_back(self, manager: Manager, id: u32, meanwhile: impl FnOnce()) {
        let [lock, unlock] = match self {
            Self::Shared => library().shared_pair(),
            Self::Exclusive => library().pair(),
        };
        // SAFETY: the manager is open; a forked child may use it at once.
        check(unsafe { lock(manager, id) });
        meanwhile();
        // SAFETY: as above.
        check(unsafe { unlock(manager, id) });
    }
}

pub fn run(run: &mut Run, segment: &Segment) {
    let child = match compile::build_child(library().prefix()) {
        Ok(child) => child,
        Err(why) => return progress::skipped("the deaths of readers", &why),
    };
    let deaths = run.effort.pick(7, 150);
    let cases = [
        ("a reader dies; a writer waits", 1, Way::Shared, Way::Exclusive, deaths),
        ("a writer dies; a reader waits", 1, Way::Exclusive, Way::Shared, deaths),
        ("512 readers die at once; a writer waits", MANY, Way::Shared, Way::Exclusive, run.effort.pick(1, ROUNDS)),
    ];
    for (case, holders, held, wanted, rounds) in cases {
        let entry = Entry::new(NATIVE, || death(&child, segment, holders, held, wanted));
        run.rounds("sharing recovery", case, &[TIME], rounds, Contended::No, vec![entry]);
    }
    // What there is no other measure for: how long the kernel takes to end so many, without a lock.
    let entry = Entry::new("the kernel ends 512 processes", || ends(&child));
    let case = "512 readers die at once; a writer waits";
    run.rounds("sharing recovery", case, &[TIME], run.effort.pick(1, ROUNDS), Contended::No, vec![entry]);
}

fn holder(child: &Path, segment: &Segment, way: Way, id: u32) -> Process {
    let mut command = Command::new(child);
    command.arg(way.word()).arg(segment.path.to_str().expect("a name of the benchmark's own")).arg(id.to_string());
    let mut process = command.stdout(Stdio::piped()).spawn().expect("the child runs");
    let mut byte = [0];
    let said = process.stdout.take().expect("a pipe").read(&mut byte).expect("the pipe");
    assert_eq!(said, 1, "the child holds the lock");
    process
}

/// Kills them all; when the last kill was sent.
fn kill(holders: &[Process]) -> u64 {
    let mut killed = 0;
    for holder in holders {
        killed = now();
        // SAFETY: kill(2) of a child that was not waited for yet.
        unsafe { libc::kill(holder.id() as libc::pid_t, libc::SIGKILL) };
    }
    killed
}

fn bury(holders: Vec<Process>) {
    for mut holder in holders {
        let status = holder.wait().expect("a child of this process");
        assert_eq!(status.signal(), Some(libc::SIGKILL));
    }
}

/// Milliseconds from the last kill of so many holders to the lock in a waiter's hands.
fn death(child: &Path, segment: &Segment, holders: usize, held: Way, wanted: Way) -> f64 {
    let board = Board::new(2);
    let holders: Vec<_> = (0..holders).map(|_| holder(child, segment, held, LOCK)).collect();
    let waiter = spawn(|| {
        // Attached and known before the wait that counts.
        wanted.take_and_give_back(segment.manager, OTHER, || ());
        board[WAITS].store(1, Ordering::Release);
        wanted.take_and_give_back(segment.manager, LOCK, || board[ACQUIRED].store(now(), Ordering::Release));
    });
    until(&board[WAITS], 1);
    std::thread::sleep(SETTLED);
    let killed = kill(&holders);
    waiter.join();
    bury(holders);
    // What a dead writer left is due to a writer yet.
    Way::Exclusive.take_and_give_back(segment.manager, LOCK, || ());
    board[ACQUIRED].load(Ordering::Acquire).saturating_sub(killed) as f64 / 1e6
}

/// Milliseconds from the last kill to the end of all of them, each of which holds a lock that nobody wants.
fn ends(child: &Path) -> f64 {
    let segment = Segment::new(Layout::Native, 2048);
    let holders: Vec<_> = (0..MANY).map(|_| holder(child, &segment, Way::Shared, LOCK)).collect();
    let killed = kill(&holders);
    bury(holders);
    (now() - killed) as f64 / 1e6
}
