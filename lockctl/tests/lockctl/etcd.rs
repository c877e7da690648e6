// SPDX-License-Identifier: MIT OR Apache-2.0
//! Locks in etcd, named by their address.

use std::thread;

use lock_manager::Cancel;
use lock_manager_etcd::{EtcdManager, Options};

use crate::stage::lockctl;
use crate::support::etcd::{Cluster, is_there_or_skip};
use crate::support::{alone, eventually};

#[test]
fn the_life_of_locks_in_etcd() {
    if !is_there_or_skip() {
        return;
    }
    let cluster = Cluster::start(1);
    let address = &format!("etcd://{}/{}", cluster.endpoints(), alone::prefix());
    assert!(lockctl(["list", address]).failure(66).contains("there are no locks"));
    assert_eq!(lockctl(["create", address, "10"]).with(0), format!("created 10 locks at {address}\n"));
    assert!(lockctl(["create", address, "10"]).failure(73).contains("already exists"));
    assert_eq!(lockctl(["allocate", address, "-c", "2"]).with(0), "0\n1\n");
    assert!(lockctl(["allocate", address, "1"]).failure(73).contains("lock 1 is already allocated"));
    assert_eq!(lockctl(["list", "-n", "-o", "id", address]).with(0), "0\n1\n");
    assert_eq!(lockctl(["run", address, "1", "--", "echo", "under the lock"]).with(0), "under the lock\n");
    let inner = ["run", address, "1", "--", env!("CARGO_BIN_EXE_lockctl"), "list", "-n", "-o", "id,state", address];
    let listed = lockctl(inner).with(0);
    assert!(listed.lines().any(|line| line.split_whitespace().eq(["1", "held"])), "{listed}");
    assert_eq!(lockctl(["free", "--force", address, "0"]).with(0), "");
    assert!(lockctl(["grow", address, "20"]).failure(69).contains("fixed"));
    assert_eq!(lockctl(["remove", "--force", address]).with(0), "");
    assert!(lockctl(["allocate", address]).failure(66).contains("there are no locks"));
}

#[test]
fn holders_and_waiters_of_other_hosts_are_named_with_their_hosts() {
    if !is_there_or_skip() {
        return;
    }
    let cluster = Cluster::start(1);
    let address = &format!("etcd://{}/{}-hosts", cluster.endpoints(), alone::prefix());
    assert_eq!(lockctl(["create", address, "10000"]).with(0), format!("created 10000 locks at {address}\n"));
    let options = |host| Options::of_address(address).unwrap().host(host).unwrap();
    let [one, two] = ["host-b", "host-c"].map(|host| EtcdManager::open(options(host), 0).unwrap());
    let _clean = one.manager().lock(7).unwrap();
    let cancel = Cancel::new();
    let (pid, end) = (std::process::id(), "on host-b");
    thread::scope(|scope| {
        let waiter = scope.spawn(|| two.manager().cancellable_lock(7, None, &cancel).unwrap_err().errno());
        eventually("it waits", || one.look(7).unwrap().waiters.len() == 1);
        let listed = lockctl(["list", "-n", "-o", "id,state,host,pid,waiters", address]).with(0);
        let expected = ["7", "held", "host-b", &pid.to_string(), "1"];
        assert!(listed.lines().any(|line| line.split_whitespace().eq(expected)), "{listed}");
        assert!(lockctl(["list", address]).with(0).contains("HOST"));
        let graph = lockctl(["graph", address]).with(0);
        let [holder, wait] = graph.lines().collect::<Vec<_>>()[..] else { panic!("{graph}") };
        assert!(holder.starts_with(&pid.to_string()) && holder.contains(end), "{graph}");
        assert!(wait.contains("on host-c") && wait.contains("waits for lock 7, held by"), "{graph}");
        let json = lockctl(["list", "--json", address]).with(0);
        let json: serde_json::Value = serde_json::from_str(&json).unwrap();
        let lock = &json["locks"][0];
        assert_eq!(
            (&lock["holder"]["host"], &lock["waiting"][0]["host"]),
            (&"host-b".into(), &"host-c".into()),
            "{json}"
        );
        assert_eq!(lock["holder"]["pid"], pid, "{json}");
        cancel.trigger();
        assert_eq!(waiter.join().unwrap(), libc::ECANCELED);
    });
    one.manager().unlock(7).unwrap();
    drop((one, two));
    for host in ["host-b", "host-c"] {
        lock_manager_etcd::forget_host(&options(host)).unwrap();
    }
    assert_eq!(lockctl(["remove", "--force", address]).with(0), "");
}

#[test]
fn a_server_that_is_not_there_is_named_with_what_to_do() {
    let config = std::env::temp_dir().join(format!("lm-test-etcd-config-{}", std::process::id()));
    std::fs::write(&config, "# the shortest\npatience = 1\n").unwrap();
    let output = std::process::Command::new(env!("CARGO_BIN_EXE_lockctl"))
        .args(["list", "etcd://127.0.0.1:1/locks"])
        .env("LOCK_MANAGER_ETCD_CONFIG", &config)
        .output()
        .unwrap();
    std::fs::remove_file(&config).unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!output.status.success());
    assert!(said.contains("etcd at http://127.0.0.1:1") && said.contains("start etcd there"), "{said}");
}
