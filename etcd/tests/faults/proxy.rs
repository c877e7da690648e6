// SPDX-License-Identifier: MIT OR Apache-2.0
//! A TCP proxy in front of a member, which delays, swallows or cuts off what passes.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

/// What the proxy does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    None,
    /// Each piece waits for so many milliseconds.
    Delay(u64),
    /// What clients send is swallowed.
    DropRequests,
    /// What members answer is swallowed, after it was carried out.
    DropAnswers,
    /// Connections are cut, and none is made.
    Cut,
}

const PASS: u64 = 0;
const DROP_REQUESTS: u64 = u64::MAX;
const DROP_ANSWERS: u64 = u64::MAX - 1;
const CUT: u64 = u64::MAX - 2;
const LOOK: Duration = Duration::from_millis(20);

#[derive(Clone)]
pub struct Proxy {
    port: u16,
    fault: Arc<AtomicU64>,
}

impl Proxy {
    pub fn start(target: u16) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let proxy = Self { port: listener.local_addr().unwrap().port(), fault: Arc::default() };
        let fault = Arc::clone(&proxy.fault);
        thread::spawn(move || {
            for client in listener.incoming().flatten() {
                if fault.load(Ordering::SeqCst) == CUT {
                    continue;
                }
                let Ok(member) = TcpStream::connect(("127.0.0.1", target)) else { continue };
                for (from, to, drop) in [(&client, &member, DROP_REQUESTS), (&member, &client, DROP_ANSWERS)] {
                    let (from, to) = (from.try_clone().unwrap(), to.try_clone().unwrap());
                    let fault = Arc::clone(&fault);
                    thread::spawn(move || pass(from, to, &fault, drop));
                }
            }
        });
        proxy
    }

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

fn pass(mut from: TcpStream, mut to: TcpStream, fault: &AtomicU64, drop: u64) {
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
                    thread::sleep(Duration::from_millis(fault_now));
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
