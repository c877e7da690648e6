// SPDX-License-Identifier: MIT OR Apache-2.0
#![forbid(unsafe_code)]
//! The command line: every verb and option, from which the help, the man pages and the completions are made.

/// Seconds and permission bits.
mod numbers;

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand, ValueHint};
use lock_manager::{Layout, MAX_LOCKS};

use crate::layouts;
use crate::output::table::Column;
use numbers::{parse_interval, parse_mode, parse_seconds, parse_timeout};

const EXIT_STATUS: &str = "\
Exit status: 0 for yes and done, 1 for no (a conflict, a deadlock, something wrong), 64 and up for failures, as in \
sysexits(3): 64 usage, 65 damaged or not a storage of this library, 66 not there, 69 not possible, 73 cannot be created, \
75 in use, 77 not permitted. `run` exits with the status of the command.\n\n\
Environment: LOCK_MANAGER_ETCD_CONFIG names the file of settings for locks in etcd: certificates, user, password file, \
TTL. docs/etcd.md has them.";

const STORAGE_HELP: &str =
    "A shm name (/libpod_lock), the path of a segment, a lock directory, or etcd://host:port,host:port/prefix";

/// Show who holds and who waits for the locks of lock_manager and Podman, and run commands under a lock
#[derive(Debug, Parser)]
#[command(name = "lockctl", version = crate::versions::short(), long_version = crate::versions::long())]
#[command(after_help = EXIT_STATUS, max_term_width = 100, disable_help_subcommand = true)]
pub struct Cli {
    #[command(subcommand)]
    pub verb: Verb,
}

#[derive(Debug, Subcommand)]
pub enum Verb {
    List(List),
    Graph(Graph),
    Watch(Watch),
    Check(Check),
    Run(Run),
    Repair(Repair),
    Create(Create),
    Allocate(Allocate),
    Free(Free),
    FreeAll(FreeAll),
    Grow(Grow),
    Remove(Remove),
    Reconcile(Reconcile),
    Generate(Generate),
}

#[derive(Debug, Clone, Args)]
pub struct StorageArgument {
    #[arg(help = STORAGE_HELP, value_hint = ValueHint::AnyPath)]
    pub storage: PathBuf,
}

/// Show who holds each lock, and how many threads wait
///
/// Prints one row for each lock that is allocated or held. Takes, repairs and disturbs nothing. Waiters are the threads
/// that the storage names, and every thread of any program that sleeps on the futex word of a lock or waits for its file.
///
/// If a lock is held shared, the row shows the first reader and the number of readers; -o holder-pids and --json show all.
#[derive(Debug, Args)]
pub struct List {
    #[command(flatten)]
    pub storage: StorageArgument,
    /// Write JSON (schema 2, in which "holder" may be the first of several "holders")
    #[arg(long, conflicts_with_all = ["columns", "no_heading"])]
    pub json: bool,
    /// The columns to show, separated by commas
    #[arg(short = 'o', long = "output", value_name = "COLUMNS", value_delimiter = ',', ignore_case = true)]
    pub columns: Vec<Column>,
    /// Omit the heading
    #[arg(short = 'n', long = "noheadings")]
    pub no_heading: bool,
    /// Show only locks that this process holds or waits for
    #[arg(short, long, value_name = "PID", allow_negative_numbers = true)]
    pub pid: Option<i32>,
    /// Show every lock, including those that are neither allocated nor held
    #[arg(long)]
    pub all: bool,
}

/// Show who waits for whom; exit with 1 if there is a deadlock
///
/// Prints each holder with its waiters indented below it, and marks a deadlock.
#[derive(Debug, Args)]
pub struct Graph {
    #[command(flatten)]
    pub storage: StorageArgument,
    /// Write the graph in the language of graphviz
    #[arg(long)]
    pub dot: bool,
}

/// Watch locks live, the most contended first
///
/// Keys: q quits, s changes the order, / filters by id, command or note, arrows scroll, space pauses. Without a terminal,
/// each look prints a table.
#[derive(Debug, Args)]
pub struct Watch {
    #[command(flatten)]
    pub storage: StorageArgument,
    /// Seconds between two looks
    #[arg(short = 'd', long, value_name = "SECONDS", default_value = "1", value_parser = parse_interval)]
    #[arg(allow_negative_numbers = true)]
    pub delay: Duration,
    /// End after this many looks
    #[arg(short = 'c', long, value_name = "NUMBER", value_parser = clap::value_parser!(u64).range(1..))]
    #[arg(allow_negative_numbers = true)]
    pub count: Option<u64>,
}

/// Report what is wrong, one line each, and exit with 1 (for monitoring)
///
/// These things are wrong: a thread has waited for a lock for longer than --max-wait, the pool is nearly full, the last
/// holder of a lock died and nobody has taken the lock since, there is a deadlock, the segment was removed. The libpod
/// layout does not say how long a thread has waited: if a thread waits there, check keeps looking until --max-wait is over.
///
/// Marks of readers that died are not wrong, and go to the standard error: these readers changed nothing, and the next
/// writer clears the marks.
#[derive(Debug, Args)]
pub struct Check {
    #[command(flatten)]
    pub storage: StorageArgument,
    /// How long a thread may wait for a lock
    #[arg(long, value_name = "SECONDS", default_value = "5", value_parser = parse_seconds)]
    #[arg(allow_negative_numbers = true)]
    pub max_wait: Duration,
    /// The percentage of the locks that may be allocated
    #[arg(long, value_name = "PERCENT", default_value_t = 90, value_parser = clap::value_parser!(u8).range(1..=100))]
    #[arg(allow_negative_numbers = true)]
    pub warn: u8,
}

/// Run a command while holding a lock, as flock(1) does
///
/// lockctl holds the lock, and the command inherits nothing of it. Three environment variables tell the command about the
/// lock: LOCK_STORAGE, LOCK_ID, and LOCKCTL_RUNS. By LOCKCTL_RUNS a second run under the same lock knows that it would wait
/// for its own ancestor, and fails at once.
///
/// A signal to lockctl reaches the command once, even if it was sent to the whole process group or control group (by
/// timeout, systemd, or the terminal). While lockctl waits for the lock, a signal ends the wait. Signals that were ignored
/// or blocked when lockctl started are ignored or blocked in the command. A second process, named signal-witness, finds out
/// whether the whole group got a signal; it ends with lockctl. As process 1 of a container, lockctl reaps orphans. If
/// SIGKILL kills lockctl, the command keeps running without the lock, and the next holder is told that the owner died; if
/// lockctl held the lock shared, nobody is told.
///
/// Any number of commands can hold a lock with --shared at the same time, and no command without --shared can hold it
/// beside them. A command without --shared that waits keeps later ones with --shared out, so that it gets its turn. The
/// libpod layout has no shared locks.
///
/// Exits with the status of the command, or with 128 plus the number of the signal that killed it. Exits with CODE if -n or
/// -w did not get the lock, and with 69 if waiting would never end, the command cannot be executed, or the storage has no
/// shared locks. The options -u and -F of flock(1) are refused, with the reason.
#[derive(Debug, Args)]
pub struct Run {
    #[command(flatten)]
    pub storage: StorageArgument,
    /// The lock
    #[arg(allow_negative_numbers = true)]
    pub id: u32,
    /// Fail rather than wait
    #[arg(short = 'n', long, visible_alias = "nb")]
    pub nonblock: bool,
    /// Wait for at most this long
    #[arg(short = 'w', long, visible_alias = "wait", value_name = "SECONDS", value_parser = parse_timeout)]
    #[arg(allow_negative_numbers = true)]
    pub timeout: Option<Duration>,
    /// The exit status if -n or -w did not get the lock
    #[arg(short = 'E', long, value_name = "CODE", default_value_t = crate::exit::NO, allow_negative_numbers = true)]
    pub conflict_exit_code: u8,
    /// Run this line by the shell ($SHELL, or else /bin/sh)
    #[arg(short = 'c', long = "command", value_name = "LINE", conflicts_with = "command", allow_hyphen_values = true)]
    #[arg(value_hint = ValueHint::CommandString)]
    pub line: Option<OsString>,
    /// Hold the lock shared, beside any number of other readers and no exclusive holder
    #[arg(short = 's', long, conflicts_with = "exclusive")]
    pub shared: bool,
    /// Hold the lock exclusively (the default)
    #[arg(short = 'x', short_alias = 'e', long)]
    pub exclusive: bool,
    /// Keep the lock from the command (always the case)
    #[arg(short = 'o', long)]
    pub close: bool,
    /// Print how long lockctl waited, and who holds the lock
    #[arg(long)]
    pub verbose: bool,
    /// Refused: lockctl unlocks when the command ends
    #[arg(short = 'u', long, hide = true)]
    pub unlock: bool,
    /// Refused: another program cannot take the lock over
    #[arg(short = 'F', long, hide = true)]
    pub no_fork: bool,
    /// The command and its arguments
    #[arg(last = true, value_name = "COMMAND", value_hint = ValueHint::CommandWithArguments)]
    #[arg(required_unless_present_any = ["line", "unlock"])]
    pub command: Vec<OsString>,
}

/// Mark locks whose holder is provably dead, so that the next holder is told
///
/// Clears the marks of dead readers, and of a writer that died before it had its turn: nobody needs to be told of those.
///
/// Exits with 1 if the holder of some lock could not be judged, or if ID was given and its holder is alive.
#[derive(Debug, Args)]
pub struct Repair {
    #[command(flatten)]
    pub storage: StorageArgument,
    /// The lock; all locks if none is given
    #[arg(allow_negative_numbers = true)]
    pub id: Option<u32>,
}

/// Create a segment, or a lock directory
#[derive(Debug, Args)]
pub struct Create {
    /// A shm name (/myapp), the absolute path of a file, etcd://host:port,host:port/prefix, or with --directory the path of a
    /// directory
    #[arg(value_hint = ValueHint::AnyPath)]
    pub storage: PathBuf,
    /// The number of locks, 1 to 16777216, rounded up to a multiple of 64 (libpod layout: 32)
    #[arg(value_parser = clap::value_parser!(u32).range(1..=i64::from(MAX_LOCKS)), required_unless_present = "directory")]
    #[arg(allow_negative_numbers = true)]
    pub locks: Option<u32>,
    /// The layout of the segment [default: native]
    #[arg(long, value_parser = layouts::named, value_name = "LAYOUT")]
    pub layout: Option<Layout>,
    /// How far the segment may grow (native layout only) [default: 1048576, or LOCKS if that is more]
    #[arg(long, value_name = "LOCKS", value_parser = clap::value_parser!(u32).range(1..=i64::from(MAX_LOCKS)))]
    #[arg(allow_negative_numbers = true)]
    pub max_locks: Option<u32>,
    /// The permission bits of the segment, in octal
    #[arg(long, default_value = "0600", value_parser = parse_mode)]
    pub mode: u32,
    /// Create a lock directory, which has no number of locks
    #[arg(long, conflicts_with_all = ["locks", "layout", "max_locks", "mode"])]
    pub directory: bool,
}

/// Allocate locks and print their ids
#[derive(Debug, Args)]
pub struct Allocate {
    #[command(flatten)]
    pub storage: StorageArgument,
    /// The ids to allocate; any free one if none is given
    #[arg(allow_negative_numbers = true)]
    pub ids: Vec<u32>,
    /// How many free ids to allocate
    #[arg(short = 'c', long, value_name = "NUMBER", default_value_t = 1, conflicts_with = "ids")]
    #[arg(allow_negative_numbers = true)]
    pub count: u32,
}

/// Free locks by their ids
#[derive(Debug, Args)]
pub struct Free {
    #[command(flatten)]
    pub storage: StorageArgument,
    /// The locks
    #[arg(required = true, allow_negative_numbers = true)]
    pub ids: Vec<u32>,
    /// Free also locks that somebody holds or waits for
    #[arg(long)]
    pub force: bool,
}

/// Free every lock
#[derive(Debug, Args)]
pub struct FreeAll {
    #[command(flatten)]
    pub storage: StorageArgument,
    /// Free the locks even while others use the storage
    #[arg(long)]
    pub force: bool,
}

/// Add locks to a segment while others use it
#[derive(Debug, Args)]
pub struct Grow {
    #[command(flatten)]
    pub storage: StorageArgument,
    /// The new number of locks, at most 16777216 and at most what the segment was created to grow to
    #[arg(value_parser = clap::value_parser!(u32).range(1..=i64::from(MAX_LOCKS)), allow_negative_numbers = true)]
    pub locks: u32,
}

/// Remove a segment or a lock directory
#[derive(Debug, Args)]
pub struct Remove {
    #[command(flatten)]
    pub storage: StorageArgument,
    /// Remove it even while others use it
    #[arg(long)]
    pub force: bool,
}

/// Free ids that programs allocated and left behind
///
/// Frees an id only if it was allocated before the list of ids in use was made, is still allocated, is on no list, and
/// nobody holds it or waits for it. First run `lockctl reconcile STORAGE --record BEFORE`, then make the list, then run
/// `lockctl reconcile STORAGE --before BEFORE --in-use LIST`: this shows which ids it would free, and frees them with --free.
/// An id that is freed and allocated again while the list is made looks the same before and after: stop the programs that
/// allocate, or make the list while they are idle.
#[derive(Debug, Args)]
pub struct Reconcile {
    #[command(flatten)]
    pub storage: StorageArgument,
    /// A file of ids in use, separated by white space, with # before comments; - is the standard input
    #[arg(long, value_name = "FILE", required_unless_present = "record", value_hint = ValueHint::FilePath)]
    pub in_use: Vec<PathBuf>,
    /// The record that was made before the list
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub before: Option<PathBuf>,
    /// Record which ids are allocated now, and free nothing
    #[arg(long, value_name = "FILE", conflicts_with_all = ["in_use", "before", "free"], value_hint = ValueHint::FilePath)]
    pub record: Option<PathBuf>,
    /// Show what would be freed (the default)
    #[arg(long, conflicts_with = "free")]
    pub dry_run: bool,
    /// Free the ids
    #[arg(long, requires = "before")]
    pub free: bool,
}

/// Write the man pages or the shell completions, for `make install`
#[derive(Debug, Args)]
#[command(hide = true)]
pub struct Generate {
    pub what: Generated,
    pub directory: PathBuf,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Generated {
    Man,
    Completions,
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_definitions_agree_with_each_other() {
        Cli::command().debug_assert();
    }

    /// If -1 were taken for an option, the advice would lead nowhere.
    #[test]
    fn a_number_that_is_negative_is_refused_as_a_number() {
        for wrong in [
            &["watch", "-d", "-1", "/l"][..],
            &["watch", "-c", "-1", "/l"],
            &["check", "--max-wait", "-1", "/l"],
            &["check", "--warn", "-1", "/l"],
            &["run", "-w", "-1", "/l", "3", "--", "true"],
            &["run", "-E", "-1", "/l", "3", "--", "true"],
            &["run", "/l", "-1", "--", "true"],
            &["repair", "/l", "-1"],
            &["create", "/l", "-1"],
            &["create", "/l", "1", "--max-locks", "-1"],
            &["allocate", "/l", "-1"],
            &["allocate", "/l", "-c", "-1"],
            &["free", "/l", "-1"],
            &["grow", "/l", "-1"],
        ] {
            let error = Cli::try_parse_from(["lockctl"].iter().chain(wrong)).unwrap_err();
            assert!(error.to_string().contains("invalid value '-1' for"), "{wrong:?}: {error}");
        }
    }
}
