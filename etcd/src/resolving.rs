// SPDX-License-Identifier: MIT OR Apache-2.0
#![forbid(unsafe_code)]
//! Where an endpoint is. An address needs no thread, as looking up a name within a time does. So where the endpoints are
//! addresses, a process has the keeper's thread and no other, and a fork comes upon no thread that is just starting, whose
//! locks the child would find taken.

use std::net::SocketAddr;

use ureq::config::Config;
use ureq::http::Uri;
use ureq::unversioned::resolver::{DefaultResolver, ResolvedSocketAddrs, Resolver};
use ureq::unversioned::transport::NextTimeout;

#[derive(Debug, Default)]
pub(crate) struct AddressesFirst(DefaultResolver);

impl Resolver for AddressesFirst {
    fn resolve(&self, uri: &Uri, config: &Config, timeout: NextTimeout) -> Result<ResolvedSocketAddrs, ureq::Error> {
        match uri.authority().and_then(|authority| authority.as_str().parse::<SocketAddr>().ok()) {
            Some(address) => {
                let mut found = self.empty();
                found.push(address);
                Ok(found)
            }
            None => self.0.resolve(uri, config, timeout),
        }
    }
}
