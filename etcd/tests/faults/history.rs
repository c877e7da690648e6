// SPDX-License-Identifier: MIT OR Apache-2.0
//! What etcd says of a key that is gone: in which revision it went, and by what.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use super::client::Turns;
use super::support::etcd::post_for_stream;

/// By what a key went.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum By {
    /// The note of the lock's holder went in the same revision.
    Unlock,
    /// The key went alone.
    LeasesEnd,
}

/// The end of a key.
#[derive(Debug)]
#[allow(dead_code, reason = "for people, in a failing test's words")]
pub struct End {
    /// With the lease in it.
    pub key: String,
    pub created: i64,
    pub deleted: i64,
    pub by: By,
    /// What etcd did to the lock's keys between the two and a little later: revision, and keys that were put or deleted.
    pub between: Vec<String>,
}

fn number(value: &Value) -> i64 {
    value.as_str().and_then(|text| text.parse().ok()).unwrap_or(0)
}

fn encoded(key: &str) -> String {
    STANDARD.encode(key)
}

impl End {
    /// The end of the key of the lock that was created in that revision, which is its holder's token.
    pub fn of_key(endpoint: SocketAddr, turns: &Turns, token: u64) -> Option<Self> {
        const SHOWN: usize = 20;
        let created = token as i64;
        let prefix = turns.address.rsplit('/').next()?;
        let [from, to] = [format!("{prefix}/"), format!("{prefix}0")].map(|key| encoded(&key));
        let watch = json!({"create_request": {"key": from, "range_end": to, "start_revision": created.to_string()}});
        let text = post_for_stream(endpoint, "/v3/watch", &watch.to_string())?;
        let mut changes: BTreeMap<i64, Vec<(bool, String)>> = BTreeMap::new();
        for message in text.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok()) {
            for event in message["result"]["events"].as_array().into_iter().flatten() {
                let key = STANDARD.decode(event["kv"]["key"].as_str().unwrap_or_default()).unwrap_or_default();
                let change = (event["type"] == "DELETE", String::from_utf8_lossy(&key).into_owned());
                changes.entry(number(&event["kv"]["mod_revision"])).or_default().push(change);
            }
        }
        let queue = format!("{prefix}/q/{:08}/", turns.lock);
        let held = format!("{prefix}/held/{:08}", turns.lock);
        let (_, key) = changes.get(&created)?.iter().find(|(gone, key)| !gone && key.starts_with(&queue))?.clone();
        let is_gone =
            |changes: &[(bool, String)], wanted: &str| changes.iter().any(|(gone, key)| *gone && key == wanted);
        let (&deleted, last) = changes.iter().find(|(_, changes)| is_gone(changes, &key))?;
        let by = if is_gone(last, &held) { By::Unlock } else { By::LeasesEnd };
        let shown = |(revision, changes): (&i64, &Vec<(bool, String)>)| {
            let word = |(gone, key): &(bool, String)| format!("{} {key}", if *gone { "DELETE" } else { "PUT" });
            format!("{revision}: {}", changes.iter().map(word).collect::<Vec<_>>().join(", "))
        };
        let between = changes.iter().take(SHOWN).map(shown).collect();
        Some(Self { key, created, deleted, by, between })
    }
}
