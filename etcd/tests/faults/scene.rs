// SPDX-License-Identifier: MIT OR Apache-2.0
//! A cluster, and groups of clients that take turns at a lock each: what the faults happen to.

use std::net::SocketAddr;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use lock_manager::{Acquired, Manager};
use lock_manager_etcd::Options;

use super::client::{self, TTL, Turns};
use super::history::{By, End};
use super::proxy::{Network, Proxy};
use super::support::etcd::Cluster;
use super::support::{Child, alone, note};
use super::world::{CLIENTS, HOLDING, IDLE, Shared};

const ORDER: Ordering = Ordering::SeqCst;
pub const LIMIT_SECONDS: u32 = 86_400;
pub const MEMBERS: usize = 3;
/// Longer than a turn takes where many groups share a busy machine. What a fault strands, it strands for good.
const PATIENCE: Duration = Duration::from_secs(120);
/// For how long a client pauses between two turns, for each group that there is beside its own.
const PAUSE: Duration = Duration::from_millis(15);

/// What a leader does wrong that goes on, it does at once.
const SOON_AFTER_NS: u64 = 1_000_000_000;
/// It does so rarely to a lock that is held, as the first was shown to be.
const ROUNDS_FOR_EACH_OVERLAP: usize = 50;

/// A cluster with its groups.
pub struct Scene {
    pub groups: Vec<Group>,
    pub cluster: Cluster,
    /// When leaders went on that had been stopped.
    pub went_on: Vec<u64>,
    _network: Network,
}

/// Clients that take turns at one lock, each a host of its own by name, with proxies of their own before the members.
pub struct Group {
    pub shared: Shared,
    pub proxies: Vec<Proxy>,
    clients: Vec<Option<Child>>,
    turns: Turns,
    deaths: u64,
}

/// How often a death or a loss is told to the next holder.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Told {
    Once,
    /// A member that is killed may have told it in an answer that was lost.
    OnceOrMore,
}

impl Scene {
    pub fn of(groups: usize) -> Self {
        alone::allow(LIMIT_SECONDS);
        let cluster = Cluster::start(MEMBERS);
        let pause = PAUSE * u32::try_from(groups - 1).unwrap();
        let members: Vec<_> = (0..MEMBERS * groups).map(|index| cluster.endpoint(index % MEMBERS)).collect();
        let network = Network::start(&members);
        let of_each = network.proxies.chunks(MEMBERS).enumerate();
        let groups = of_each.map(|(index, proxies)| Group::new(proxies.to_vec(), index as u32, pause)).collect();
        let scene = Self { cluster, groups, went_on: Vec::new(), _network: network };
        scene.until_all_take_turns();
        scene
    }

    pub fn until_all_take_turns(&self) {
        let before: Vec<_> = self.groups.iter().map(Group::turns_of_each).collect();
        self.until("each client gets a turn", |index, group| {
            group.turns_of_each().iter().zip(&before[index]).all(|(turns, before)| turns > before)
        });
    }

    /// Waits until something holds for each group. If it does not, says how the members stand, who holds the locks and who waits.
    fn until(&self, what: &str, holds: impl Fn(usize, &Group) -> bool) {
        let start = Instant::now();
        for (index, group) in self.groups.iter().enumerate() {
            while !holds(index, group) {
                if start.elapsed() > PATIENCE {
                    self.tell();
                    panic!("not within {PATIENCE:?}: {what}, in group {index}");
                }
                std::thread::sleep(Duration::from_millis(1));
            }
        }
    }

    fn tell(&self) {
        note(format_args!("{}", self.cluster.tell()));
        let options = Options::of_address(&self.groups[0].turns.address).unwrap().host("looking").unwrap();
        match lock_manager_etcd::EtcdManager::open(options, 0).and_then(|manager| manager.look_at_all()) {
            Ok(known) => note(format_args!("{known:#?}")),
            Err(failure) => note(format_args!("{failure}")),
        }
        for (index, group) in self.groups.iter().enumerate() {
            let phase = |client: &super::world::Client| client.phase.load(ORDER);
            let phases: Vec<_> = group.shared.world.clients.iter().map(phase).collect();
            let failures = group.shared.world.failures.load(ORDER);
            note(format_args!(
                "group {index}: turns {:?}, phases {phases:?}, {failures} failed",
                group.turns_of_each()
            ));
        }
    }

    /// How long it takes until some client of each group has had two more turns: one of them was begun since.
    pub fn until_turns_go_on(&self) -> Duration {
        let start = Instant::now();
        let before: Vec<_> = self.groups.iter().map(Group::turns).collect();
        self.until("turns go on", |index, group| group.turns() > before[index] + 1);
        start.elapsed()
    }

    /// Ends all, and checks what every test promises. Returns the groups' words.
    pub fn end(mut self, what: &str, told: Told) -> Vec<Shared> {
        self.until_all_take_turns();
        for group in &mut self.groups {
            group.stop();
        }
        let sum = |count: &dyn Fn(&Group) -> u64| self.groups.iter().map(count).sum::<u64>();
        let holds: usize = self.groups.iter().map(|group| group.shared.num_holds()).sum();
        note(format_args!(
            "{what}: {holds} holds, {} writes, {} deaths, {} lost, {} told, {} calls failed; without the token {} of {} writes",
            sum(&|group| group.shared.world.acknowledged.load(ORDER)),
            sum(&|group| group.deaths),
            sum(&|group| group.shared.world.lost.load(ORDER)),
            sum(&|group| group.shared.world.told_of_death.load(ORDER)),
            sum(&|group| group.shared.world.failures.load(ORDER)),
            sum(&|group| group.shared.world.plain.load(ORDER)),
            sum(&|group| group.shared.world.plain_writes.load(ORDER)),
        ));
        let endpoint = self.cluster.endpoint(0);
        self.groups.iter().for_each(|group| group.check_that_no_two_held(endpoint, &self.went_on));
        self.groups.iter().for_each(|group| group.check(told));
        self.groups.into_iter().map(|group| group.shared).collect()
    }
}

impl Group {
    fn new(proxies: Vec<Proxy>, lock: u32, pause: Duration) -> Self {
        let endpoints: Vec<_> = proxies.iter().map(|proxy| format!("127.0.0.1:{}", proxy.port())).collect();
        let address = format!("etcd://{}/{}", endpoints.join(","), alone::prefix());
        let turns = Turns { address, lock, pause };
        let clients = (0..CLIENTS).map(|_| None).collect();
        let mut group = Self { shared: Shared::new(), proxies, clients, turns, deaths: 0 };
        (0..CLIENTS).for_each(|index| group.start_client(index));
        group
    }

    fn start_client(&mut self, index: usize) {
        self.clients[index] = Some(client::start(&self.shared, index, &self.turns));
    }

    fn turns_of_each(&self) -> Vec<u64> {
        self.shared.world.clients.iter().map(|client| client.turns.load(ORDER)).collect()
    }

    fn turns(&self) -> u64 {
        self.turns_of_each().iter().sum()
    }

    pub fn client(&self, index: usize) -> &Child {
        self.clients[index].as_ref().unwrap()
    }

    /// Stops a client in its turn. Which.
    pub fn stop_a_holder(&self) -> usize {
        loop {
            let holder = (0..CLIENTS).find(|&index| self.shared.world.clients[index].phase.load(ORDER) == HOLDING);
            let Some(index) = holder else {
                std::thread::yield_now();
                continue;
            };
            let client = self.client(index);
            client.signal(libc::SIGSTOP);
            client.until_it_is_stopped();
            if self.shared.world.clients[index].phase.load(ORDER) == HOLDING {
                return index;
            }
            client.signal(libc::SIGCONT);
        }
    }

    /// Kills a client in its turn. Which.
    pub fn kill_a_holder(&mut self) -> usize {
        let index = self.stop_a_holder();
        self.clients[index].take().unwrap().kill();
        let client = &self.shared.world.clients[index];
        self.shared.note(&client.hold);
        client.phase.store(IDLE, ORDER);
        self.deaths += 1;
        index
    }

    /// Starts a client again that was killed.
    pub fn restart(&mut self, index: usize) {
        self.start_client(index);
    }

    fn stop(&mut self) {
        let world = self.shared.world;
        world.stop.store(1, ORDER);
        for child in self.clients.iter_mut().filter_map(Option::take) {
            child.succeeds();
        }
        let last = client::open(&self.turns.address, &self.turns.host("last")).into_manager();
        if last.lock(self.turns.lock).unwrap() == Acquired::OwnerDied {
            world.told_of_death.fetch_add(1, ORDER);
        }
        last.unlock(self.turns.lock).unwrap();
        drop(last);
        for host in (0..CLIENTS).map(|index| index.to_string()).chain(["last".to_owned()]) {
            forget_host(&self.turns.address, &self.turns.host(&host));
        }
    }

    /// Fails if two clients held the lock at one instant, unless etcd itself took the lease from the first: a leader that was
    /// stopped, and goes on, may revoke leases that were renewed meanwhile.
    fn check_that_no_two_held(&self, endpoint: SocketAddr, went_on: &[u64]) {
        let overlaps = self.shared.held_at_once();
        for [first, second] in &overlaps {
            let end = End::of_key(endpoint, &self.turns, first.token);
            let is_etcds = matches!(end, Some(End { by: By::LeasesEnd, .. }))
                && went_on.iter().any(|&at| at <= second.start && second.start - at < SOON_AFTER_NS);
            let lost = self.shared.world.lost.load(ORDER);
            let text = format!(
                "two held lock {} at one instant, for {} us. First: {first:?}, TTL {TTL:?}; its key: {end:?}. \
                 Second: {second:?}. {lost} lost in all; old leaders went on at {went_on:?}",
                self.turns.lock,
                (first.end.min(second.end) - second.start) / 1000,
            );
            assert!(is_etcds, "{text}");
            note(format_args!("etcd's doing: {text}"));
        }
        assert!(overlaps.len() <= 1 + went_on.len() / ROUNDS_FOR_EACH_OVERLAP, "{} overlaps", overlaps.len());
    }

    fn check(&self, promised: Told) {
        let world = self.shared.world;
        let (value, acknowledged) = (world.guarded.value(), world.acknowledged.load(ORDER));
        // A client that is killed may have written without having counted it.
        assert!(value >= acknowledged && value <= acknowledged + self.deaths, "{value} of {acknowledged} writes");
        let (told, gone) = (world.told_of_death.load(ORDER), self.deaths + world.lost.load(ORDER));
        let unanswered = world.unanswered.load(ORDER);
        assert!(told + unanswered >= gone, "{told} told of {gone} deaths and losses, {unanswered} unanswered");
        // A call that failed may have been given the lock without hearing of it until its lease ended.
        let unheard = world.failures.load(ORDER);
        assert!(
            told <= gone + unheard || promised == Told::OnceOrMore,
            "{told} told of {gone} deaths and losses, {unheard} calls failed"
        );
    }
}

/// Removes what a host by that name had in memory.
pub fn forget_host(address: &str, host: &str) {
    lock_manager_etcd::forget_host(&Options::of_address(address).unwrap().host(host).unwrap()).unwrap();
}
