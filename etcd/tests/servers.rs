// SPDX-License-Identifier: MIT OR Apache-2.0
//! Servers that are not there, have no quorum, answer garbage or are too old: each is a sentence that names the endpoint and
//! what to do, within the call's own time. And one that wants TLS, a client's certificate, a user and a password.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a failing helper is a failing test")]

#[path = "servers/front.rs"]
mod front;
#[path = "../../tests/support/mod.rs"]
mod support;

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use front::{Front, Fronted, way_that_loses_answers};
use lock_manager::{Acquired, Manager};
use lock_manager_etcd::{EtcdManager, Failure, Options};
use support::etcd::{Cluster, Server, is_there_or_skip};
use support::{alone, eventually, skip};

const PATIENCE: Duration = Duration::from_secs(2);
/// How long the server remembers a login that is not used, as its arguments say.
const LOGIN: Duration = Duration::from_secs(1);
/// A call may be late by an endpoint's time and a busy machine's.
const GRACE: Duration = Duration::from_secs(8);

fn options(endpoints: &str) -> Options {
    options_of(endpoints, &alone::prefix())
}

fn options_of(endpoints: &str, prefix: &str) -> Options {
    Options::of_address(&format!("etcd://{endpoints}/{prefix}")).unwrap().patience(PATIENCE)
}

fn refused(endpoints: &str) -> Failure {
    refused_within(PATIENCE, endpoints)
}

fn refused_within(patience: Duration, endpoints: &str) -> Failure {
    let start = Instant::now();
    let failure = EtcdManager::open(options(endpoints).patience(patience), 8).unwrap_err();
    assert!(start.elapsed() < patience + GRACE, "{:?}", start.elapsed());
    assert!(failure.text.contains(&format!("http://{endpoints}")), "{failure}");
    failure
}

/// A server that answers every request so; `None`: it never answers.
fn server(answer: Option<&'static str>) -> String {
    server_that_counts("200 OK", answer).0.to_string()
}

/// The same with a status of HTTP, and how often it has answered.
fn server_that_counts(status: &'static str, answer: Option<&'static str>) -> (SocketAddr, Arc<AtomicUsize>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let answered = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&answered);
    thread::spawn(move || {
        let mut open = Vec::new();
        for mut stream in listener.incoming().flatten() {
            if let Some(body) = answer {
                let _ = stream.read(&mut [0; 4096]);
                let _ = write!(
                    stream,
                    "HTTP/1.1 {status}\r\nConnection: close\r\nContent-Length: {}\r\n\r\n{body}",
                    body.len()
                );
                count.fetch_add(1, Ordering::SeqCst);
            } else {
                open.push(stream);
            }
        }
    });
    (address, answered)
}

#[test]
fn a_server_that_is_not_there() {
    let failure = refused("127.0.0.1:1");
    assert_eq!(failure.errno, libc::ECONNREFUSED);
    assert!(failure.text.contains("start etcd there, or name other endpoints"), "{failure}");
}

/// Refused at once again and again, for more than a hundred times.
#[test]
fn a_server_that_is_not_there_for_a_long_time() {
    let failure = refused_within(Duration::from_secs(8), "127.0.0.1:1");
    assert_eq!(failure.errno, libc::ECONNREFUSED);
}

#[test]
fn a_server_that_answers_nothing() {
    let failure = refused(&server(None));
    assert_eq!(failure.errno, libc::ETIMEDOUT);
    assert!(failure.text.contains("it may be stopped"), "{failure}");
}

#[test]
fn a_server_that_is_no_etcd() {
    let failure = refused(&server(Some("<html>welcome</html>")));
    assert_eq!(failure.errno, libc::EPROTO);
    assert!(failure.text.contains("<html>") && failure.text.contains("name the client port of an etcd"), "{failure}");
}

#[test]
fn a_server_that_is_too_old() {
    let failure = refused(&server(Some(r#"{"etcdserver":"3.3.27","etcdcluster":"3.3.0"}"#)));
    assert_eq!(failure.errno, libc::EPROTO);
    assert!(failure.text.contains("3.3.27") && failure.text.contains("3.4 or later is needed"), "{failure}");
}

#[test]
fn a_cluster_without_a_quorum_holds_no_call_up_beyond_its_time() {
    if !is_there_or_skip() {
        return;
    }
    let cluster = Cluster::start(3);
    let options = options(&cluster.endpoints()).host("no-quorum").unwrap();
    let manager = EtcdManager::open(options.clone(), 8).unwrap().into_manager();
    let _clean = manager.timed_lock(1, support::wait::PATIENCE).unwrap();
    manager.unlock(1).unwrap();
    cluster.signal(0, libc::SIGSTOP);
    cluster.signal(1, libc::SIGSTOP);
    let errno_within = |time: Duration, what: &str, call: &dyn Fn() -> lock_manager::Result<()>| {
        let start = Instant::now();
        let error = call().unwrap_err();
        assert!(start.elapsed() < time + GRACE, "{what}: {:?}", start.elapsed());
        assert!(error.to_string().contains("etcd at http://127."), "{what}: {error}");
        error.errno()
    };
    let short = Duration::from_millis(300);
    assert_eq!(errno_within(short, "timed", &|| manager.timed_lock(1, short).map(drop)), libc::ETIMEDOUT);
    for errno in [
        errno_within(PATIENCE, "lock", &|| manager.lock(1).map(drop)),
        errno_within(PATIENCE, "try", &|| manager.try_lock(1).map(drop)),
        errno_within(PATIENCE, "allocate", &|| manager.allocate_lock().map(drop)),
        errno_within(PATIENCE, "look", &|| manager.lock_info(1).map(drop)),
    ] {
        assert!([libc::ETIMEDOUT, libc::EHOSTUNREACH].contains(&errno), "{errno}");
    }
    cluster.signal(0, libc::SIGCONT);
    cluster.signal(1, libc::SIGCONT);
    eventually("it goes on", || manager.timed_lock(1, Duration::from_secs(1)).is_ok());
    manager.unlock(1).unwrap();
    drop(manager);
    lock_manager_etcd::remove(&options).unwrap();
}

/// Both have the same locks, so what is asked of the wrong one could be granted.
#[test]
fn an_endpoint_that_leads_to_another_cluster() {
    if !is_there_or_skip() {
        return;
    }
    let [first, second] = [(); 2].map(|()| Cluster::start(1));
    let prefix = alone::prefix();
    let of_host = |endpoint: SocketAddr, host| options_of(&endpoint.to_string(), &prefix).host(host).unwrap();
    let open = |endpoint, host| EtcdManager::open(of_host(endpoint, host), 8).unwrap();
    let [in_first, in_second] = [&first, &second].map(|cluster| open(cluster.endpoint(0), "apart"));
    let front = Front::new(first.endpoint(0));
    let behind = open(front.address, "behind");
    let _clean = behind.manager().timed_lock(1, support::wait::PATIENCE).unwrap();
    assert!(in_first.look(1).unwrap().holder.is_some());

    front.lead_to(second.endpoint(0));
    // The first question on the new connection, which the other cluster would carry out.
    let error = behind.manager().allocate_and_retrieve_lock(5).unwrap_err();
    assert_eq!(error.errno(), libc::EPROTO, "{error}");
    assert!(!in_second.look(5).unwrap().allocated);
    for refused in [behind.manager().try_lock(2).map(drop), behind.manager().lock_info(1).map(drop)] {
        let error = refused.unwrap_err();
        assert_eq!(error.errno(), libc::EPROTO, "{error}");
        assert!(error.to_string().contains("name endpoints of one cluster"), "{error}");
    }
    assert!(in_second.look(2).unwrap().holder.is_none());

    front.lead_to(first.endpoint(0));
    eventually("it goes on", || behind.manager().timed_lock(2, Duration::from_secs(1)).is_ok());
    // The connection is cut, and the one that is made in its place leads to the same.
    front.lead_to(first.endpoint(0));
    behind.manager().unlock(2).unwrap();
    behind.manager().unlock(1).unwrap();
    drop((in_first, in_second, behind));
    for (cluster, host) in [(&first, "apart"), (&first, "behind"), (&second, "apart")] {
        lock_manager_etcd::forget_host(&of_host(cluster.endpoint(0), host)).unwrap();
    }
}

/// What was asked meanwhile is asked again, and answered as if nothing had been.
#[test]
fn a_balancer_without_a_backend_is_waited_for() {
    const OFTEN: usize = 10;
    if !is_there_or_skip() {
        return;
    }
    let scene = Fronted::new();
    let Fronted { cluster, front, direct, behind, .. } = &scene;
    let _clean = behind.lock(1).unwrap();
    direct.allocate_and_retrieve_lock(5).unwrap();

    let (busy, answered) = server_that_counts("503 Service Unavailable", Some("<html>no backend</html>"));
    front.lead_to(busy);
    thread::scope(|scope| {
        let allocated = scope.spawn(|| behind.allocate_and_retrieve_lock(5));
        let locked = scope.spawn(|| behind.lock(2).map(|_| behind.unlock(2)));
        eventually("it is asked some times", || answered.load(Ordering::SeqCst) >= OFTEN);
        front.lead_to(cluster.endpoint(0));
        // Another's, and not its own that it did not hear of.
        assert_eq!(allocated.join().unwrap().unwrap_err().errno(), libc::EEXIST);
        locked.join().unwrap().unwrap().unwrap();
    });
    behind.unlock(1).unwrap();
    scene.end();
}

/// What was carried out is known again, and not done twice.
#[test]
fn an_allocation_whose_answer_is_lost_is_made_once() {
    if !is_there_or_skip() {
        return;
    }
    let scene = Fronted::new();
    let Fronted { cluster, front, direct, behind, .. } = &scene;
    let before = direct.available_locks().unwrap();
    let call = |allocate: &(dyn Fn() -> u32 + Sync)| {
        let (way, lost) = way_that_loses_answers(cluster.endpoint(0));
        front.lead_to(way);
        thread::scope(|scope| {
            let allocated = scope.spawn(allocate);
            eventually("an answer is lost", || lost.load(Ordering::SeqCst) > 0);
            front.lead_to(cluster.endpoint(0));
            allocated.join().unwrap()
        })
    };
    let any = call(&|| behind.allocate_lock().unwrap());
    assert_eq!((any, direct.available_locks().unwrap()), (0, before - 1));
    call(&|| {
        behind.allocate_and_retrieve_lock(6).unwrap();
        6
    });
    assert_eq!(direct.available_locks().unwrap(), before - 2);
    scene.end();
}

/// The locks that a host gave back meanwhile, or gave up to wait for, do not stay its own as long as it lives.
#[test]
fn what_is_refused_for_a_while_is_given_back_afterwards() {
    const OFTEN: usize = 3;
    if !is_there_or_skip() {
        return;
    }
    let scene = Fronted::new();
    let Fronted { cluster, front, direct, behind, .. } = &scene;
    let _clean = (behind.lock(1).unwrap(), direct.lock(2).unwrap());
    let refusal = r#"{"code":7,"message":"etcdserver: permission denied"}"#;
    let (refusing, refused) = server_that_counts("403 Forbidden", Some(refusal));
    thread::scope(|scope| {
        let waiter = scope.spawn(|| behind.lock(2).map(drop));
        eventually("it waits", || direct.lock_info(2).unwrap().waiters == 1);
        front.lead_to(refusing);
        behind.unlock(1).unwrap();
        assert_eq!(waiter.join().unwrap().unwrap_err().errno(), libc::EACCES);
        let before = refused.load(Ordering::SeqCst);
        eventually("it is tried again", || refused.load(Ordering::SeqCst) >= before + OFTEN);
    });
    front.lead_to(cluster.endpoint(0));
    assert_eq!(direct.timed_lock(1, support::wait::PATIENCE).unwrap(), Acquired::Clean);
    direct.unlock(1).unwrap();
    direct.unlock(2).unwrap();
    let _told_or_not = direct.timed_lock(2, support::wait::PATIENCE).unwrap();
    direct.unlock(2).unwrap();
    scene.end();
}

/// Runs a program of the certificates' making.
fn openssl(directory: &Path, words: &str) {
    let output = Command::new("openssl").args(words.split(' ')).current_dir(directory).output().unwrap();
    assert!(output.status.success(), "{words}: {}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn tls_with_a_clients_certificate_a_user_and_a_password() {
    if !is_there_or_skip() {
        return;
    }
    if !Command::new("openssl").arg("version").stdout(Stdio::null()).status().is_ok_and(|status| status.success()) {
        return skip("needs openssl, to make certificates");
    }
    let directory = std::env::temp_dir().join(alone::prefix());
    let _was_not_there = std::fs::remove_dir_all(&directory);
    std::fs::create_dir_all(&directory).unwrap();
    let addresses = support::etcd::own_addresses(2);
    let [client, peer] = addresses[..] else { unreachable!() };
    openssl(&directory, "req -x509 -newkey rsa:2048 -nodes -keyout ca.key -out ca.pem -days 2 -subj /CN=ca");
    for name in ["server", "client"] {
        openssl(&directory, &format!("req -newkey rsa:2048 -nodes -keyout {name}.key -out {name}.csr -subj /O={name}"));
        let extensions = format!("subjectAltName=IP:{}\nextendedKeyUsage=serverAuth,clientAuth\n", client.ip());
        std::fs::write(directory.join("extensions"), extensions).unwrap();
        openssl(
            &directory,
            &format!(
                "x509 -req -in {name}.csr -CA ca.pem -CAkey ca.key -CAcreateserial -out {name}.pem -days 2 -extfile extensions"
            ),
        );
    }
    let mut command = Command::new(support::etcd::program());
    command
        .args(["--data-dir", "data", "--cert-file", "server.pem", "--key-file", "server.key"])
        .args(["--client-cert-auth", "--trusted-ca-file", "ca.pem", "--auth-token-ttl", "1"])
        .args([
            "--listen-client-urls",
            &format!("https://{client}"),
            "--advertise-client-urls",
            &format!("https://{client}"),
        ])
        .args([
            "--listen-peer-urls",
            &format!("http://{peer}"),
            "--initial-advertise-peer-urls",
            &format!("http://{peer}"),
        ])
        .args(["--initial-cluster", &format!("default=http://{peer}")])
        .current_dir(&directory)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(std::fs::File::create(directory.join("log")).unwrap());
    let server = Server::start(command);
    let file = |name: &str| directory.join(name).display().to_string();
    let tls =
        format!("ca = {}\ncertificate = {}\nkey = {}\n", file("client-ca.pem"), file("client.pem"), file("client.key"));
    std::fs::copy(directory.join("ca.pem"), directory.join("client-ca.pem")).unwrap();
    std::fs::write(directory.join("password"), "correct horse\n").unwrap();
    std::fs::write(directory.join("wrong-password"), "battery staple\n").unwrap();
    let config = |name: &str, text: String| {
        std::fs::write(directory.join(name), text).unwrap();
        let options = options(&client.to_string()).patience(support::wait::PATIENCE).host("secure").unwrap();
        options.configured_by(&directory.join(name)).unwrap()
    };
    let plain = config("plain", tls.clone());
    let user = config("user", format!("{tls}user = root\npassword_file = {}\n", file("password")));
    let wrong = config("wrong", format!("{tls}user = root\npassword_file = {}\n", file("wrong-password")));

    let only_ca = config("only-ca", format!("ca = {}\n", file("client-ca.pem")));
    let without_ca = tls.lines().skip(1).map(|line| format!("{line}\n")).collect();
    let without_ca = config("without-ca", without_ca).patience(Duration::ZERO);
    let first = (0..20).find_map(|_| EtcdManager::open(plain.clone(), 8).ok()).expect("by certificate alone");
    drop(first);
    lock_manager_etcd::forget_host(&plain).unwrap();
    for (options, why) in [
        (options(&client.to_string()).patience(Duration::ZERO), "want TLS: then name a ca"),
        (without_ca, "check the ca, the certificate and the key"),
        (only_ca.patience(Duration::ZERO), "check the ca, the certificate and the key"),
    ] {
        let refused = EtcdManager::open(options, 0).unwrap_err();
        assert!(refused.text.contains(why), "{refused}");
    }
    // Who has a user where none is wanted goes on when one is.
    let early = EtcdManager::open(user.clone().host("early").unwrap(), 8).unwrap().into_manager();
    enable_auth(&directory, &client.to_string());
    let _is_free = early.lock_info(1).unwrap();
    drop(early);
    lock_manager_etcd::forget_host(&user.clone().host("early").unwrap()).unwrap();
    let refused = EtcdManager::open(plain.clone(), 0).unwrap_err();
    assert_eq!(refused.errno, libc::EACCES, "{refused}");
    let refused = EtcdManager::open(wrong, 0).unwrap_err();
    assert_eq!(refused.errno, libc::EACCES, "{refused}");
    assert!(!refused.text.contains("battery"), "{refused}");
    let manager = EtcdManager::open(user.clone(), 8).unwrap().into_manager();
    let other = EtcdManager::open(user.clone().host("other").unwrap(), 8).unwrap().into_manager();
    let _clean = manager.lock(1).unwrap();
    // Nobody tells when a login is over.
    thread::sleep(3 * LOGIN);
    let _is_held = manager.lock_info(1).unwrap();
    // A wait, so that a watch goes through TLS as well.
    thread::scope(|scope| {
        let waiter = scope.spawn(|| other.timed_lock(1, Duration::from_secs(20)).map(|_| other.unlock(1)));
        eventually("it waits", || manager.lock_info(1).unwrap().waiters == 1);
        manager.unlock(1).unwrap();
        waiter.join().unwrap().unwrap().unwrap();
    });
    drop((manager, other));
    lock_manager_etcd::forget_host(&user.clone().host("other").unwrap()).unwrap();
    lock_manager_etcd::remove(&user).unwrap();
    drop(server);
    std::fs::remove_dir_all(&directory).unwrap();
}

fn enable_auth(directory: &Path, endpoint: &str) {
    let pem = |name: &str| std::fs::read(directory.join(name)).unwrap();
    let roots = [ureq::tls::Certificate::from_pem(&pem("ca.pem")).unwrap()];
    let key = ureq::tls::PrivateKey::from_pem(&pem("client.key")).unwrap();
    let chain = [ureq::tls::Certificate::from_pem(&pem("client.pem")).unwrap()];
    let tls = ureq::tls::TlsConfig::builder()
        .root_certs(ureq::tls::RootCerts::new_with_certs(&roots))
        .client_cert(Some(ureq::tls::ClientCert::new_with_certs(&chain, key)))
        .build();
    let agent = ureq::Agent::new_with_config(ureq::Agent::config_builder().tls_config(tls).build());
    for (path, body) in [
        ("user/add", r#"{"name":"root","password":"correct horse"}"#),
        ("role/add", r#"{"name":"root"}"#),
        ("user/grant", r#"{"user":"root","role":"root"}"#),
        ("enable", "{}"),
    ] {
        agent.post(format!("https://{endpoint}/v3/auth/{path}")).send(body).unwrap();
    }
}
