// SPDX-License-Identifier: MIT OR Apache-2.0
//! What the figures were measured on, and in which state it is just now.
//!
//! A virtual machine has states that last for minutes: its host places the virtual processors, and with them the price
//! of a wake-up and of a cache line that moves. A raw robust mutex under contention and the price of a wake-up tell the
//! states apart; both are taken in each round of a contended work and kept with its figures.

use std::fs;
use std::sync::atomic::Ordering;
use std::time::Duration;

use crate::contenders::Contender;
use crate::processes::{self, Board, now, pin, spawn, until};
use crate::work::contended::{Inside, compete};

const PROBE: Duration = Duration::from_millis(20);
const WAKE_UPS: u64 = 200;
const LINE_TURNS: u64 = 20_000;

/// The fact that tells it.
pub const LINE_TRANSFER: &str = "a written cache line to the other processor";

/// The machine's state during one round.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct State {
    /// Millions of turns a second that two processes have on a raw robust mutex with 50 ns inside.
    pub raw_rate: f64,
    /// Microseconds from a wake-up by one process to the other one running.
    pub wake_up_us: f64,
}

impl State {
    pub fn probe(raw: &Contender) -> Self {
        Self { raw_rate: compete(raw, 2, Inside::FiftyNanoseconds, PROBE) / 1e6, wake_up_us: wake_up() }
    }
}

/// Half of a round trip of two pinned processes that wake each other.
fn wake_up() -> f64 {
    let board = Board::new(1);
    let word = &board[0];
    let address = word.as_ptr().cast::<u32>();
    let turns = |own: u64| {
        pin(own as usize);
        for turn in 0..WAKE_UPS {
            let due = 2 * turn + own;
            while word.load(Ordering::Acquire) != due {
                // SAFETY: futex(2) on the low half of a mapped word, which holds another number while it is not due.
                unsafe {
                    let seen = word.load(Ordering::Acquire);
                    if seen != due {
                        libc::syscall(libc::SYS_futex, address, libc::FUTEX_WAIT, seen as u32, 0usize);
                    }
                }
            }
            word.store(due + 1, Ordering::Release);
            // SAFETY: as above.
            unsafe { libc::syscall(libc::SYS_futex, address, libc::FUTEX_WAKE, 1) };
        }
    };
    let start = now();
    let children = [spawn(|| turns(0)), spawn(|| turns(1))];
    children.into_iter().for_each(processes::Child::join);
    (now() - start) as f64 / (2 * WAKE_UPS) as f64 / 1000.0
}

/// Nanoseconds in which a written cache line goes from one processor to another: two processes write a word in turns.
fn line_transfer() -> f64 {
    let board = Board::new(2);
    let (word, took) = (&board[0], &board[1]);
    let turns = |own: u64| {
        pin(own as usize);
        let mut start = 0;
        for turn in 0..LINE_TURNS {
            // The first turns are the other's start.
            if turn == LINE_TURNS / 2 {
                start = now();
            }
            // Without a pause, which takes as long as the line does, or longer.
            while word.load(Ordering::Acquire) != 2 * turn + own {}
            word.store(2 * turn + own + 1, Ordering::Release);
        }
        took.store(now() - start, Ordering::Release);
    };
    let children = [spawn(|| turns(0)), spawn(|| turns(1))];
    children.into_iter().for_each(processes::Child::join);
    until(took, 1);
    took.load(Ordering::Acquire) as f64 / LINE_TURNS as f64
}

/// What is said of the machine: names and values, in the order in which they are shown.
pub fn facts() -> Vec<(String, String)> {
    let cpu = cpu_field("model name").unwrap_or_else(|| std::env::consts::ARCH.to_owned());
    [
        ("processor", cpu),
        ("stepping", ["cpu family", "model", "stepping"].map(|name| cpu_field(name).unwrap_or_default()).join(".")),
        ("processors", processes::processors().len().to_string()),
        ("hypervisor", if hypervisor() { "yes" } else { "not told" }.to_owned()),
        ("memory", memory()),
        ("kernel", read("/proc/sys/kernel/osrelease")),
        ("libc", libc_version()),
        ("compiler", crate::peers::compile::compiler_version()),
        ("load before", load()),
        (LINE_TRANSFER, format!("{:.0} ns", line_transfer())),
        ("library", crate::library::version().to_owned()),
    ]
    .map(|(name, value)| (name.to_owned(), value))
    .into()
}

/// The name of this machine's file: its processor and how many there are of it.
pub fn slug() -> String {
    let name = cpu_field("model name").unwrap_or_else(|| std::env::consts::ARCH.to_owned());
    let numbers = ["model", "stepping"].map(|name| cpu_field(name).unwrap_or_default()).join("-");
    let words: Vec<String> = format!("{name} {numbers} {}cpu", processes::processors().len())
        .to_lowercase()
        .split(|c: char| !c.is_ascii_alphanumeric())
        .filter(|word| !matches!(*word, "" | "r" | "tm" | "cpu" | "processor"))
        .map(str::to_owned)
        .collect();
    words.join("-")
}

pub fn load() -> String {
    read("/proc/loadavg")
}

/// Whether a holder of that many bytes leaves the machine enough.
pub fn has_memory_for(bytes: u64) -> bool {
    meminfo("MemAvailable").is_some_and(|available| available > 2 * bytes)
}

fn memory() -> String {
    meminfo("MemTotal").map_or_else(String::new, |bytes| format!("{:.0} GiB", bytes as f64 / f64::from(1 << 30)))
}

fn meminfo(name: &str) -> Option<u64> {
    let text = fs::read_to_string("/proc/meminfo").ok()?;
    let line = text.lines().find(|line| line.starts_with(name))?;
    line.split_whitespace().nth(1)?.parse::<u64>().ok().map(|kib| kib * 1024)
}

fn read(path: &str) -> String {
    fs::read_to_string(path).unwrap_or_default().trim().to_owned()
}

fn cpuinfo() -> String {
    fs::read_to_string("/proc/cpuinfo").unwrap_or_default()
}

fn hypervisor() -> bool {
    cpuinfo().split_whitespace().any(|word| word == "hypervisor")
}

fn cpu_field(name: &str) -> Option<String> {
    cpuinfo().lines().find_map(|line| {
        let (field, value) = line.split_once(':')?;
        (field.trim() == name).then(|| value.trim().to_owned())
    })
}

fn libc_version() -> String {
    // SAFETY: the function returns a constant string.
    let version = unsafe { std::ffi::CStr::from_ptr(libc::gnu_get_libc_version()) };
    format!("glibc {}", version.to_string_lossy())
}
