// SPDX-License-Identifier: MIT OR Apache-2.0
//! Locks in etcd, named by their address.

use crate::stage::lockctl;
use crate::support::alone;
use crate::support::etcd::{Cluster, is_there_or_skip};

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
