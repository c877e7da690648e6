// SPDX-License-Identifier: MIT OR Apache-2.0
//! What is between a client and its cluster: a name or a balancer that leads somewhere, and a way that loses answers.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;

use lock_manager::PluggedManager;
use lock_manager_etcd::EtcdManager;

use super::options_of;
use super::support::etcd::Cluster;
use super::support::{alone, wait};

/// What clients reach by one address, as by a name or behind a balancer: this cluster now, and then another.
pub struct Front {
    pub address: SocketAddr,
    leads_to: Arc<Mutex<(SocketAddr, Vec<TcpStream>)>>,
}

impl Front {
    pub fn new(first: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let leads_to = Arc::new(Mutex::new((first, Vec::new())));
        let shared = Arc::clone(&leads_to);
        thread::spawn(move || {
            for client in listener.incoming().flatten() {
                let mut leads_to = shared.lock().unwrap();
                let server = TcpStream::connect(leads_to.0).unwrap();
                for (mut from, mut to) in
                    [(&client, &server), (&server, &client)].map(|(from, to)| (copy(from), copy(to)))
                {
                    thread::spawn(move || std::io::copy(&mut from, &mut to));
                }
                leads_to.1.extend([client, server]);
            }
        });
        Self { address, leads_to }
    }

    pub fn lead_to(&self, other: SocketAddr) {
        let mut leads_to = self.leads_to.lock().unwrap();
        leads_to.0 = other;
        leads_to.1.drain(..).for_each(|stream| stream.shutdown(Shutdown::Both).unwrap_or_default());
    }
}

fn copy(stream: &TcpStream) -> TcpStream {
    stream.try_clone().unwrap()
}

/// A cluster, a host that reaches it directly, and one that reaches it by a front.
pub struct Fronted {
    pub cluster: Cluster,
    prefix: String,
    pub front: Front,
    pub direct: PluggedManager,
    pub behind: PluggedManager,
}

impl Fronted {
    pub fn new() -> Self {
        let cluster = Cluster::start(1);
        let prefix = alone::prefix();
        let front = Front::new(cluster.endpoint(0));
        let open = |endpoint: SocketAddr, host| {
            let options = options_of(&endpoint.to_string(), &prefix).host(host).unwrap();
            EtcdManager::open(options.patience(wait::PATIENCE), 8).unwrap().into_manager()
        };
        let (direct, behind) = (open(cluster.endpoint(0), "direct"), open(front.address, "behind"));
        Self { cluster, prefix, front, direct, behind }
    }

    pub fn end(self) {
        let Self { cluster, prefix, front: _, direct, behind } = self;
        drop((direct, behind));
        let options = |host| options_of(&cluster.endpoints(), &prefix).host(host).unwrap();
        lock_manager_etcd::forget_host(&options("behind")).unwrap();
        lock_manager_etcd::remove(&options("direct")).unwrap();
    }
}

/// A way to a server on which the answers to transactions are lost. How many were, is counted.
pub fn way_that_loses_answers(server: SocketAddr) -> (SocketAddr, Arc<AtomicUsize>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let (address, lost) = (listener.local_addr().unwrap(), Arc::new(AtomicUsize::new(0)));
    let count = Arc::clone(&lost);
    thread::spawn(move || {
        for client in listener.incoming().flatten() {
            let server = TcpStream::connect(server).unwrap();
            let (is_asked, count) = (Arc::new(AtomicBool::new(false)), Arc::clone(&count));
            thread::spawn({
                let (client, server, is_asked) = (copy(&client), copy(&server), Arc::clone(&is_asked));
                move || {
                    pass(&client, &server, |request| {
                        let request = String::from_utf8_lossy(request);
                        is_asked.fetch_or(request.contains("/v3/kv/txn"), Ordering::SeqCst);
                        true
                    });
                }
            });
            thread::spawn(move || {
                pass(&server, &client, |_| !is_asked.load(Ordering::SeqCst));
                count.fetch_add(usize::from(is_asked.load(Ordering::SeqCst)), Ordering::SeqCst);
            });
        }
    });
    (address, lost)
}

/// Passes what comes on, as long as it may be.
fn pass(mut from: &TcpStream, mut to: &TcpStream, may_pass: impl Fn(&[u8]) -> bool) {
    let mut buffer = [0; 16384];
    while let Ok(count @ 1..) = from.read(&mut buffer)
        && may_pass(&buffer[..count])
        && to.write_all(&buffer[..count]).is_ok()
    {}
    for stream in [from, to] {
        let _was_shut = stream.shutdown(Shutdown::Both);
    }
}
