// SPDX-License-Identifier: MIT OR Apache-2.0
//! A TCP proxy in front of a member, which delays, swallows or cuts off what passes.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;
use std::time::Duration;

use super::support::{Child, board, fork};

/// What the proxy does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    None,
    /// Each piece waits for so many milliseconds.
    Delay(u32),
    /// What clients send is swallowed.
    DropRequests,
    /// What members answer is swallowed, after it was carried out.
    DropAnswers,
    /// Connections are cut, and none is made.
    Cut,
}

const PASS: u32 = 0;
const DROP_REQUESTS: u32 = u32::MAX;
const DROP_ANSWERS: u32 = u32::MAX - 1;
const CUT: u32 = u32::MAX - 2;
const LOOK: Duration = Duration::from_millis(20);

/// A proxy, as the test sees it.
#[derive(Clone, Copy)]
pub struct Proxy {
    port: u16,
    fault: &'static AtomicU32,
}

/// Proxies, in a process of their own: they have many threads, and a test that forks has none that work.
pub struct Network {
    pub proxies: Vec<Proxy>,
    _process: Child,
}

impl Network {
    /// One proxy for each of the members.
    pub fn start(targets: &[SocketAddr]) -> Self {
        let bind = |target: &SocketAddr| (TcpListener::bind("127.0.0.1:0").unwrap(), *target);
        let listeners: Vec<_> = targets.iter().map(bind).collect();
        let faults = board(targets.len());
        let proxy = |(listener, fault): (&(TcpListener, SocketAddr), &'static AtomicU32)| Proxy {
            port: listener.0.local_addr().unwrap().port(),
            fault,
        };
        let proxies = listeners.iter().zip(faults).map(proxy).collect();
        let process = fork(|| {
            super::support::alone::allow(super::scene::LIMIT_SECONDS);
            thread::scope(|scope| {
                for ((listener, target), fault) in listeners.iter().zip(faults) {
                    scope.spawn(move || serve(listener, *target, fault));
                }
            });
        });
        Self { proxies, _process: process }
    }
}

fn serve(listener: &TcpListener, target: SocketAddr, fault: &'static AtomicU32) {
    for client in listener.incoming().flatten() {
        if fault.load(Ordering::SeqCst) == CUT {
            continue;
        }
        let Ok(member) = TcpStream::connect(target) else { continue };
        for (from, to, drop) in [(&client, &member, DROP_REQUESTS), (&member, &client, DROP_ANSWERS)] {
            let (from, to) = (from.try_clone().unwrap(), to.try_clone().unwrap());
            thread::spawn(move || pass(from, to, fault, drop));
        }
    }
}

impl Proxy {
    pub fn port(&self) -> u16 {
        self.port
    }

    pub fn set(&self, fault: Fault) {
        let word = match fault {
            Fault::None => PASS,
            Fault::Delay(milliseconds) => milliseconds,
            Fault::DropRequests => DROP_REQUESTS,
            Fault::DropAnswers => DROP_ANSWERS,
            Fault::Cut => CUT,
        };
        self.fault.store(word, Ordering::SeqCst);
    }
}

fn pass(mut from: TcpStream, mut to: TcpStream, fault: &AtomicU32, drop: u32) {
    let mut buffer = [0; 16384];
    from.set_read_timeout(Some(LOOK)).unwrap();
    loop {
        let fault_now = fault.load(Ordering::SeqCst);
        if fault_now == CUT {
            break;
        }
        match from.read(&mut buffer) {
            Ok(0) => break,
            Ok(count) => {
                let fault_now = fault.load(Ordering::SeqCst);
                if fault_now < CUT {
                    thread::sleep(Duration::from_millis(fault_now.into()));
                }
                if fault_now != drop && to.write_all(&buffer[..count]).is_err() {
                    break;
                }
            }
            Err(error) if matches!(error.kind(), std::io::ErrorKind::WouldBlock | std::io::ErrorKind::TimedOut) => {}
            Err(_) => break,
        }
    }
    let _ = from.shutdown(Shutdown::Both);
    let _ = to.shutdown(Shutdown::Both);
}
