// SPDX-License-Identifier: MIT OR Apache-2.0
#![forbid(unsafe_code)]
//! Finding the locks of an address, making them, and removing them.

use std::time::{Duration, Instant};

use crate::answers::NoAnswer;
use crate::failure::{Failure, Outcome};
use crate::host::{Records, segment_name};
use crate::http::Cluster;
use crate::keys::{Config, FORMAT, Keys, json_of};
use crate::options::Options;
use crate::owner::Identity;
use crate::shared::PAUSE;
use crate::wire::{self, TxnResponse, VersionResponse};

/// A storage as it was found.
pub(crate) struct Found {
    /// The id of the cluster.
    pub(crate) cluster: String,
    pub(crate) num_locks: u32,
    /// The create revision of the storage's first key.
    pub(crate) epoch: i64,
}

impl Found {
    /// The name of the native segment that a host has beside it.
    pub(crate) fn segment(&self, options: &Options, identity: &Identity) -> String {
        segment_name(&format!("{} {} {} {}", self.cluster, options.prefix, self.epoch, identity.host_id()))
    }
}

/// Asks the endpoints in turn, for as long as the options say, and each time for longer: one that is slow is waited for.
pub(crate) fn ask_all<T>(
    cluster: &mut Cluster,
    options: &Options,
    mut question: impl FnMut(&mut Cluster, Duration) -> Result<T, NoAnswer>,
) -> Outcome<T> {
    let until = Instant::now() + options.patience;
    let (mut last, mut longest) = (None, options.request_timeout());
    loop {
        for _ in 0..cluster.num_endpoints() {
            let left = until.saturating_duration_since(Instant::now());
            if left < PAUSE
                && let Some(failure) = last
            {
                return Err(failure);
            }
            match question(cluster, longest.min(left.max(PAUSE))) {
                Err(NoAnswer::Unreachable(failure, _)) => last = Some(failure),
                answer => return answer.map_err(NoAnswer::into_failure),
            }
        }
        longest = longest.saturating_mul(2).min(options.patience);
        std::thread::sleep(PAUSE);
    }
}

pub(crate) fn find_or_make(cluster: &mut Cluster, options: &Options, keys: &Keys, num_locks: u32) -> Outcome<Found> {
    let version: VersionResponse = ask_all(cluster, options, |cluster, timeout| cluster.read("/version", timeout))?;
    check_version(&version.etcdserver, cluster.endpoint())?;
    let key = keys.config();
    let value = json_of(&Config { format: FORMAT, locks: num_locks });
    let make = if num_locks == 0 { Vec::new() } else { vec![wire::put(&key, &value, 0)] };
    let question = wire::txn(&[wire::if_created(&key, 0)], &make, &[]);
    let made: TxnResponse = ask_all(cluster, options, |cluster, timeout| cluster.ask(wire::TXN, &question, timeout))?;
    let identity = made.header.cluster_id;
    cluster.stay_in(&identity);
    let question = wire::txn(&[], &[wire::get(&key)], &[]);
    let answer: TxnResponse = ask_all(cluster, options, |cluster, timeout| cluster.ask(wire::TXN, &question, timeout))?;
    let there = answer.into_ranges().next().and_then(|range| range.kvs.into_iter().next());
    let Some(there) = there else {
        return Err(Failure::new(libc::ENOENT, "there are no locks; open them with a number of locks to make them"));
    };
    let config: Config =
        serde_json::from_str(&there.value).ok().filter(|config: &Config| config.format == FORMAT).ok_or_else(|| {
            Failure::new(libc::EPROTO, format!("the key {key} is not of this version's; choose another prefix"))
        })?;
    if num_locks != 0 && config.locks != num_locks {
        let text =
            format!("holds {} locks, {num_locks} were asked for; open with 0 to take what is there", config.locks);
        return Err(Failure::new(libc::ERANGE, text));
    }
    Ok(Found { cluster: identity, num_locks: config.locks, epoch: there.create_revision })
}

fn check_version(version: &str, endpoint: &str) -> Outcome<()> {
    let mut parts = version.split('.').map(|part| part.parse::<u32>().unwrap_or(0));
    match (parts.next().unwrap_or(0), parts.next().unwrap_or(0)) {
        (3, 4..) | (4.., _) => Ok(()),
        _ => {
            let text = format!("{endpoint} is etcd {version:?}, but 3.4 or later is needed; update it");
            Err(Failure::new(libc::EPROTO, text))
        }
    }
}

/// Removes the locks of an address, and what this host has beside them. Their users are told.
pub(crate) fn remove(options: &Options) -> Outcome<()> {
    let mut cluster = Cluster::new(options)?;
    let keys = Keys::new(&options.prefix);
    let found = find_or_make(&mut cluster, options, &keys, 0)?;
    let identity = Identity::new(options.host.as_deref());
    // Of these locks, and not of others that may be there by then.
    let is_there = wire::if_created(&keys.config(), found.epoch);
    let question = wire::txn(&[is_there], &[wire::delete_all(&keys.all())], &[]);
    let _removed: TxnResponse =
        ask_all(&mut cluster, options, |cluster, timeout| cluster.ask(wire::TXN, &question, timeout))?;
    let segment = found.segment(options, &identity);
    remove_segment(&segment);
    Ok(())
}

fn remove_segment(segment: &str) {
    crate::core::remove_host_locks(segment);
    let _was_not_there = std::fs::remove_file(Records::path(segment));
}

/// Removes what a host has in its memory for the locks of an address. The locks stay.
#[cfg(feature = "rust")]
pub(crate) fn forget_host(options: &Options) -> Outcome<()> {
    let mut cluster = Cluster::new(options)?;
    let found = find_or_make(&mut cluster, options, &Keys::new(&options.prefix), 0)?;
    remove_segment(&found.segment(options, &Identity::new(options.host.as_deref())));
    Ok(())
}
