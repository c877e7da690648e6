// SPDX-License-Identifier: MIT OR Apache-2.0
//! Keys that etcd deletes before their lease can be over. The lease is so long that no renewal is due within the test: it is
//! the watch that tells the holder.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a failing helper is a failing test")]

#[path = "../../tests/support/mod.rs"]
mod support;

use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use lock_manager_etcd::{EtcdManager, Options};
use serde_json::{Value, json};

use support::etcd::{Cluster, is_there_or_skip, post};
use support::{alone, eventually};

/// More than a packet has of their watches.
const MANY: u32 = 400;
const LONG: Duration = Duration::from_secs(3600);

struct Scene {
    cluster: Cluster,
    options: Options,
    manager: EtcdManager,
}

impl Scene {
    fn new(host: &str) -> Self {
        Self::of(host, 8)
    }

    fn of(host: &str, num_locks: u32) -> Self {
        let cluster = Cluster::start(1);
        let address = format!("etcd://{}/{}", cluster.endpoints(), alone::prefix());
        let options = Options::of_address(&address).unwrap().ttl(LONG).unwrap().host(host).unwrap();
        let manager = EtcdManager::open(options.clone(), num_locks).unwrap();
        Self { cluster, options, manager }
    }

    fn ask(&self, path: &str, body: &Value) -> Value {
        serde_json::from_str(&post(self.cluster.endpoint(0), path, &body.to_string()).unwrap()).unwrap()
    }

    fn lock(&self, id: u32) {
        let _clean = self.manager.manager().lock(id).unwrap();
    }

    /// The key of a lock that is held, as etcd's JSON has it.
    fn key(&self, id: u32) -> String {
        let guard: Value = serde_json::from_str(&self.manager.guard(id).unwrap()).unwrap();
        guard["key"].as_str().unwrap().to_owned()
    }

    /// The lease of a lock that is held.
    fn lease(&self, id: u32) -> String {
        let kvs = self.ask("/v3/kv/range", &json!({"key": self.key(id)}));
        kvs["kvs"][0]["lease"].as_str().unwrap().to_owned()
    }

    fn revoke(&self, lease: &str) {
        self.ask("/v3/lease/revoke", &json!({"ID": lease}));
    }

    fn delete(&self, key: &str) {
        assert_eq!(self.ask("/v3/kv/deleterange", &json!({"key": key}))["deleted"], "1");
    }

    fn is_readable(&self) -> bool {
        let mut polled =
            libc::pollfd { fd: self.manager.manager().lost_fd().unwrap(), events: libc::POLLIN, revents: 0 };
        // SAFETY: poll(2) reads and writes the one struct.
        unsafe { libc::poll(&raw mut polled, 1, 0) == 1 }
    }

    fn is_lost(&self, id: u32) -> bool {
        self.manager.manager().fencing_token(id).is_err()
    }

    fn finds_lost(&self, id: u32) {
        eventually("the loss is noticed", || self.is_readable());
        let manager = self.manager.manager();
        for error in [manager.fencing_token(id).unwrap_err(), manager.unlock(id).unwrap_err()] {
            assert_eq!(error.errno(), libc::EKEYEXPIRED, "{error}");
            assert!(error.to_string().contains("its key is gone"), "{error}");
        }
    }

    fn end(self) {
        drop(self.manager);
        lock_manager_etcd::remove(&self.options).unwrap();
    }
}

#[test]
fn a_lock_whose_key_is_deleted_is_lost_at_once_and_no_other_is() {
    if !is_there_or_skip() {
        return;
    }
    let scene = Scene::new("deleted");
    scene.lock(1);
    scene.lock(2);
    assert!(!scene.is_readable());
    scene.delete(&scene.key(1));
    scene.finds_lost(1);
    assert!(!scene.is_lost(2));
    scene.manager.manager().unlock(2).unwrap();
    assert!(!scene.is_readable());
    scene.end();
}

/// One stream watches them all.
#[test]
fn of_many_locks_each_is_watched() {
    if !is_there_or_skip() {
        return;
    }
    let scene = Scene::of("many", MANY);
    let keys: Vec<_> = (0..MANY).map(|id| (scene.lock(id), scene.key(id)).1).collect();
    for (id, key) in (0..).zip(&keys) {
        scene.delete(key);
        scene.finds_lost(id);
    }
    scene.end();
}

#[test]
fn all_locks_of_a_lease_that_is_revoked_are_lost_at_once() {
    if !is_there_or_skip() {
        return;
    }
    let scene = Scene::new("revoked");
    scene.lock(1);
    scene.lock(2);
    scene.revoke(&scene.lease(1));
    eventually("both are lost", || scene.is_lost(1) && scene.is_lost(2));
    scene.finds_lost(1);
    scene.finds_lost(2);
    // The lock is another holder's to take, and that is this process again.
    assert_eq!(scene.manager.manager().lock(1).unwrap(), lock_manager::Acquired::OwnerDied);
    scene.manager.manager().unlock(1).unwrap();
    scene.end();
}

/// Nothing tells the manager, until etcd refuses the next key.
#[test]
fn a_lease_that_is_revoked_while_nothing_is_held_is_another_by_the_next_lock() {
    if !is_there_or_skip() {
        return;
    }
    let scene = Scene::new("idle");
    let mut leases = Vec::new();
    for id in [1, 2] {
        scene.lock(id);
        leases.push(scene.lease(id));
        scene.manager.manager().unlock(id).unwrap();
        scene.revoke(&leases[0]);
    }
    assert_ne!(leases[0], leases[1]);
    scene.end();
}

/// The watch of an old key cannot begin where the key did.
#[test]
fn a_key_is_watched_although_etcd_has_forgotten_how_it_began() {
    if !is_there_or_skip() {
        return;
    }
    let scene = Scene::new("compacted");
    scene.lock(1);
    scene.lock(2);
    let (first, second) = (scene.key(1), scene.key(2));
    // Written, so that there is a later revision.
    let revision =
        scene.ask("/v3/kv/put", &json!({"key": STANDARD.encode("x"), "value": ""}))["header"]["revision"].clone();
    scene.ask("/v3/kv/compaction", &json!({"revision": revision, "physical": true}));
    // A third key has the watch begun anew.
    scene.lock(3);
    let third = scene.key(3);
    scene.delete(&third);
    scene.finds_lost(3);
    for (id, key) in [(1, first), (2, second)] {
        assert!(!scene.is_lost(id));
        scene.delete(&key);
        scene.finds_lost(id);
    }
    scene.end();
}
