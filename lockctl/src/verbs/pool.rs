// SPDX-License-Identifier: MIT OR Apache-2.0
#![forbid(unsafe_code)]
//! `lockctl create`, `allocate`, `free`, `free-all`, `grow` and `remove`: storages, and the ids in them. What would hit
//! others needs `--force`, and they are named.

/// Whom a change would hit.
mod others;

use std::io::{self, Write};

use lock_manager::{FileManager, Manager as _, SegmentOptions, ShmManager, UNLIMITED};

use crate::cli;
use crate::exit::{Failure, Outcome, sysexits};
use crate::output::text::shown;
use crate::storage::{Place, Storage, etcd_options, open_etcd};

pub fn create(arguments: &cli::Create) -> Outcome {
    let mut out = io::stdout().lock();
    let Some(locks) = arguments.locks.filter(|_| !arguments.directory) else {
        FileManager::create(&arguments.storage)?;
        writeln!(out, "created lock directory {}, which has no number of locks", shown(&arguments.storage))?;
        return Ok(0);
    };
    let storage = Storage::new_segment(&arguments.storage);
    if let Place::Etcd(address) = &storage.place {
        if open_etcd(address, 0).is_ok() {
            let text = format!("{address}: already exists; open it, or remove it first if nobody uses it any more");
            return Err(Failure::new(sysexits::CANTCREAT, text));
        }
        open_etcd(address, locks)?;
        writeln!(out, "created {locks} locks at {address}")?;
        return Ok(0);
    }
    let mut options = SegmentOptions::default().mode(arguments.mode);
    options.layout = arguments.layout;
    options.max_locks = arguments.max_locks.unwrap_or(0);
    let manager = ShmManager::create(&storage.name, locks, &options)?;
    let layout = crate::layouts::name(manager.layout());
    writeln!(out, "created segment {} in the {layout} layout with {} locks", storage.shown(), manager.num_locks()?)?;
    Ok(0)
}

pub fn allocate(arguments: &cli::Allocate) -> Outcome {
    let opened = Storage::named(&arguments.storage.storage)?.open()?;
    let manager = opened.manager();
    let mut out = io::stdout().lock();
    for &id in &arguments.ids {
        manager.allocate_and_retrieve_lock(id)?;
        writeln!(out, "{id}")?;
    }
    if arguments.ids.is_empty() {
        let free = manager.available_locks()?;
        if free != UNLIMITED && free < arguments.count {
            let there = manager.num_locks()?;
            let way_out = if manager.info()?.max_locks > there {
                "make room with `lockctl grow`"
            } else {
                "make a larger segment"
            };
            return Err(Failure::new(
                sysexits::TEMPFAIL,
                format!(
                    "{} locks were asked for, but only {free} of {there} are free; ask for fewer, free some, or {way_out}",
                    arguments.count
                ),
            ));
        }
        for _ in 0..arguments.count {
            writeln!(out, "{}", manager.allocate_lock()?)?;
        }
    }
    Ok(0)
}

pub fn free(arguments: &cli::Free) -> Outcome {
    let storage = Storage::named(&arguments.storage.storage)?;
    let opened = storage.open()?;
    let manager = opened.manager();
    for &id in &arguments.ids {
        manager.retrieve_lock(id)?;
    }
    if !arguments.force {
        others::none_at(&storage, &opened, &arguments.ids)?;
    }
    for &id in &arguments.ids {
        manager.free_lock(id)?;
    }
    Ok(0)
}

pub fn free_all(arguments: &cli::FreeAll) -> Outcome {
    let storage = Storage::named(&arguments.storage.storage)?;
    let opened = storage.open()?;
    if !arguments.force {
        others::none_in(&storage, &opened, "if every lock is freed, others may be given ids that these use")?;
    }
    opened.manager().free_all_locks()?;
    Ok(0)
}

pub fn grow(arguments: &cli::Grow) -> Outcome {
    let storage = Storage::named(&arguments.storage.storage)?;
    let opened = storage.open()?;
    opened.manager().grow(arguments.locks)?;
    let (there, most) = (opened.manager().num_locks()?, opened.manager().info()?.max_locks);
    writeln!(io::stdout().lock(), "{}: {there} locks now, {most} at most", storage.shown())?;
    Ok(0)
}

pub fn remove(arguments: &cli::Remove) -> Outcome {
    let storage = Storage::named(&arguments.storage.storage)?;
    if !arguments.force {
        match storage.look() {
            Ok(opened) => {
                others::none_in(
                    &storage,
                    &opened,
                    "once it is removed, these share no locks with processes that come later",
                )?;
            }
            // What is damaged can still be removed, if nobody has it open.
            Err(failure) if failure.code == sysexits::DATAERR => others::none_have_open(&storage)?,
            Err(failure) => return Err(failure),
        }
    }
    match &storage.place {
        Place::Segment(_) => ShmManager::remove(&storage.name)?,
        Place::Directory(path) => FileManager::remove(path)?,
        Place::Etcd(address) => lock_manager_etcd::remove(&etcd_options(address)?)?,
    }
    Ok(0)
}
