// SPDX-License-Identifier: MIT OR Apache-2.0
//! Figures of the locks in etcd, beside etcd's own: its lock command, and the shape of its concurrency package by hand. Three
//! members on loopback; medians, each beside its peer in the same run.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stdout, reason = "a figure that fails ends the run")]

#[path = "../../tests/support/mod.rs"]
mod support;

use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use lock_manager::{Manager, PluggedManager, SegmentOptions, ShmManager};
use lock_manager_etcd::{EtcdManager, Options};

use support::etcd::{Cluster, is_there_or_skip};
use support::{board, fork};

const PAIRS: usize = 300;
const HANDOVERS: usize = 50;
const WAITERS: usize = 50;
const COMMANDS: usize = 5;
const LOCK: u32 = 1;

fn main() {
    if !is_there_or_skip() {
        return;
    }
    let cluster = Cluster::start(3);
    let address = format!("etcd://{}/bench", cluster.endpoints());
    let transaction = by_hand(&cluster);
    // Through the same member.
    let nearest = format!("etcd://{}/bench", cluster.endpoint(0));
    let one = open(&nearest, "one");
    pairs(&one, transaction);
    etcdctl(&cluster);
    one_host(&address);
    handovers(&address, &one, transaction);
    many_waiters(&address, &one);
    for host in ["one", "two", "shared"].map(str::to_owned).into_iter().chain((0..WAITERS).map(waiter)) {
        let _ = lock_manager_etcd::forget_host(&Options::of_address(&address).unwrap().host(&host).unwrap());
    }
}

fn waiter(index: usize) -> String {
    format!("waiter-{index}")
}

fn open(address: &str, host: &str) -> PluggedManager {
    let options = Options::of_address(address).unwrap().host(host).unwrap();
    EtcdManager::open(options, 64).unwrap().into_manager()
}

fn sorted(mut times: Vec<Duration>) -> Vec<Duration> {
    times.sort_unstable();
    times
}

fn say(what: &str, times: Vec<Duration>) -> Duration {
    let times = sorted(times);
    let median = times[times.len() / 2];
    println!("{what:60} median {median:?}, p99 {:?}", times[times.len() * 99 / 100]);
    median
}

fn timed(count: usize, mut run: impl FnMut()) -> Vec<Duration> {
    (0..count)
        .map(|_| {
            let start = Instant::now();
            run();
            start.elapsed()
        })
        .collect()
}

/// The concurrency package's shape: a transaction that makes a key with a lease and reads who is first, and a deletion. What
/// one transaction takes.
fn by_hand(cluster: &Cluster) -> Duration {
    let agent = ureq::Agent::new_with_defaults();
    let post = |path: &str, body: &str| {
        let url = format!("http://{}{path}", cluster.endpoint(0));
        agent.post(url).send(body).unwrap().body_mut().read_to_string().unwrap()
    };
    let lease = post("/v3/lease/grant", r#"{"TTL":"60"}"#);
    let lease = lease.split("\"ID\":\"").nth(1).unwrap().split('"').next().unwrap().to_owned();
    // "k" and its prefix in base64.
    let acquire = format!(
        r#"{{"compare":[{{"key":"aw==","target":"CREATE","result":"EQUAL","create_revision":"0"}}],
            "success":[{{"request_put":{{"key":"aw==","value":"","lease":"{lease}"}}}},
                       {{"request_range":{{"key":"aw==","range_end":"bA==","limit":"1"}}}}]}}"#
    );
    let both = timed(PAIRS, || {
        post("/v3/kv/txn", &acquire);
        post("/v3/kv/deleterange", r#"{"key":"aw=="}"#);
    });
    say("two transactions: the concurrency package's shape by hand", both) / 2
}

fn pairs(manager: &PluggedManager, transaction: Duration) {
    let median = say(
        "lock and unlock",
        timed(PAIRS, || {
            let _ = manager.lock(LOCK).unwrap();
            manager.unlock(LOCK).unwrap();
        }),
    );
    println!("{:60} {:.2}", "  beside two transactions", median.as_secs_f64() / (2.0 * transaction.as_secs_f64()));
    let count = |path: &str, of: &str| {
        std::fs::read_dir(path)
            .unwrap()
            .flatten()
            .filter(|entry| {
                let read = if of == "comm" {
                    std::fs::read_to_string(entry.path().join(of)).unwrap_or_default()
                } else {
                    std::fs::read_link(entry.path()).map(|to| to.to_string_lossy().into_owned()).unwrap_or_default()
                };
                read.starts_with("lock_manager") || read.starts_with("socket:")
            })
            .count()
    };
    println!(
        "{:60} {} and {}",
        "  threads of the library, and sockets with those by hand",
        count("/proc/self/task", "comm"),
        count("/proc/self/fd", "")
    );
}

fn etcdctl(cluster: &Cluster) {
    let endpoint = format!("http://{}", cluster.endpoint(0));
    let command = || {
        let mut command = Command::new("etcdctl");
        command
            .env("ETCDCTL_API", "3")
            .args(["--endpoints", &endpoint, "lock", "bench-lock", "true"])
            .stdin(Stdio::null());
        command.stdout(Stdio::null()).status().is_ok_and(|status| status.success())
    };
    if command() {
        say("`etcdctl lock NAME true`, with its start", timed(COMMANDS, || assert!(command())));
    } else {
        println!("there is no etcdctl, which is in Debian's etcd-client");
    }
}

fn handovers(address: &str, one: &PluggedManager, transaction: Duration) {
    let two = open(address, "two");
    let (mut from_start, mut from_end) = (Vec::new(), Vec::new());
    for _ in 0..HANDOVERS {
        let _ = one.lock(LOCK).unwrap();
        thread::scope(|scope| {
            let waiter = scope.spawn(|| {
                let _ = two.lock(LOCK).unwrap();
                let had_it = Instant::now();
                two.unlock(LOCK).unwrap();
                had_it
            });
            while one.lock_info(LOCK).unwrap().waiters == 0 {
                thread::yield_now();
            }
            // The watch is open some time after the key is there.
            thread::sleep(Duration::from_millis(10));
            let start = Instant::now();
            one.unlock(LOCK).unwrap();
            let end = Instant::now();
            let had_it = waiter.join().unwrap();
            from_start.push(had_it - start);
            from_end.push(had_it.saturating_duration_since(end));
        });
    }
    let ratio = |time: Duration| time.as_secs_f64() / transaction.as_secs_f64();
    let (start, end) = (say("handover, from the start of unlock", from_start), say("handover, from its end", from_end));
    println!("{:60} {:.2} and {:.2}", "  in transactions", ratio(start), ratio(end));
}

/// How often threads of the library wake up, in all.
fn wake_ups() -> u64 {
    let of_thread = |entry: std::fs::DirEntry| {
        let is_ours =
            std::fs::read_to_string(entry.path().join("comm")).is_ok_and(|name| name.trim() == "lock_manager");
        let status = std::fs::read_to_string(entry.path().join("status")).unwrap_or_default();
        let line = status.lines().find(|line| line.starts_with("voluntary_ctxt_switches")).unwrap_or_default();
        if is_ours { line.split_whitespace().nth(1).and_then(|count| count.parse().ok()).unwrap_or(0) } else { 0 }
    };
    std::fs::read_dir("/proc/self/task").unwrap().flatten().map(of_thread).sum()
}

fn many_waiters(address: &str, one: &PluggedManager) {
    let others: Vec<_> = (0..WAITERS).map(|index| open(address, &waiter(index))).collect();
    let _ = one.lock(LOCK).unwrap();
    let (start, count, took) = thread::scope(|scope| {
        let waits: Vec<_> = others
            .iter()
            .map(|other| {
                scope.spawn(|| {
                    let _ = other.lock(LOCK).unwrap();
                    other.unlock(LOCK).unwrap();
                })
            })
            .collect();
        while (one.lock_info(LOCK).unwrap().waiters as usize) < WAITERS {
            thread::sleep(Duration::from_millis(10));
        }
        thread::sleep(Duration::from_millis(200));
        let (start, begun) = (wake_ups(), Instant::now());
        one.unlock(LOCK).unwrap();
        waits.into_iter().for_each(|wait| wait.join().unwrap());
        (start, wake_ups(), begun.elapsed())
    });
    println!("{:60} {:?}", format!("{WAITERS} waiters: a handover"), took / WAITERS as u32);
    println!("{:60} {:.1}", "  sleeps of all keeper threads for each", (count - start) as f64 / WAITERS as f64);
}

/// Two processes of one host, which take turns without a pause.
fn one_host(address: &str) {
    let native = support::Segment::unused();
    drop(ShmManager::create(&native.name, 64, &SegmentOptions::default()).unwrap());
    let through = |what: &str, open: &dyn Fn() -> Box<dyn Manager>| {
        let turns = board(3);
        let over = AtomicBool::new(false);
        let hog = |turns: &std::sync::atomic::AtomicU32, stop: &std::sync::atomic::AtomicU32| {
            let manager = open();
            while stop.load(Ordering::Relaxed) == 0 && !over.load(Ordering::Relaxed) {
                let _ = manager.lock(LOCK).unwrap();
                turns.fetch_add(1, Ordering::Relaxed);
                manager.unlock(LOCK).unwrap();
            }
        };
        let child = fork(|| hog(&turns[0], &turns[2]));
        let other = fork(|| hog(&turns[1], &turns[2]));
        let count = || turns[0].load(Ordering::Relaxed) + turns[1].load(Ordering::Relaxed);
        thread::sleep(Duration::from_secs(1));
        let (before, start) = (count(), Instant::now());
        thread::sleep(Duration::from_secs(2));
        let each = start.elapsed() / (count() - before).max(1);
        turns[2].store(1, Ordering::Relaxed);
        child.succeeds();
        other.succeeds();
        println!("{what:60} {each:?}");
    };
    through("two processes of one host, a turn: native", &|| Box::new(native.open()));
    through("two processes of one host, a turn: etcd", &|| Box::new(open(address, "shared")));
}
