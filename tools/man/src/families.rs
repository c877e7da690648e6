// SPDX-License-Identifier: MIT OR Apache-2.0
//! Which functions share a page: what is called for one purpose, and differs in how. Every other has one of its own.

/// A page for several functions, called by the name of the first.
pub struct Family {
    /// The line under NAME.
    pub summary: &'static str,
    pub functions: &'static [&'static str],
}

pub const FAMILIES: &[Family] = &[
    Family {
        summary: "creates or opens a shared memory segment of locks",
        functions: &[
            "lock_manager_new_shm",
            "lock_manager_open_shm",
            "lock_manager_open_or_new_shm",
            "lock_manager_open_shm_read_only",
        ],
    },
    Family {
        summary: "makes or opens a directory of locks",
        functions: &["lock_manager_new_file", "lock_manager_open_file", "lock_manager_open_or_new_file"],
    },
    Family {
        summary: "allocates a lock",
        functions: &["lock_manager_allocate_lock", "lock_manager_allocate_and_retrieve_lock"],
    },
    Family {
        summary: "gives the ids of locks back",
        functions: &["lock_manager_free_lock", "lock_manager_free_all_locks"],
    },
    Family {
        summary: "how many locks there are, and how many are free to be allocated",
        functions: &["lock_manager_available_locks", "lock_manager_num_locks"],
    },
    Family {
        summary: "takes a lock exclusively",
        functions: &[
            "lock_manager_lock",
            "lock_manager_try_lock",
            "lock_manager_timed_lock",
            "lock_manager_cancellable_lock",
        ],
    },
    Family {
        summary: "takes a lock shared",
        functions: &[
            "lock_manager_lock_shared",
            "lock_manager_try_lock_shared",
            "lock_manager_timed_lock_shared",
            "lock_manager_cancellable_lock_shared",
        ],
    },
    Family {
        summary: "plugs in a backend that keeps locks for several hosts",
        functions: &["lock_manager_open_backend", "lock_manager_backend_state", "lock_manager_backend_failed"],
    },
    Family {
        summary: "ends waits from another thread",
        functions: &["lock_manager_cancel_new", "lock_manager_cancel_trigger", "lock_manager_cancel_free"],
    },
];

/// Pages that belong together, though neither names the other.
pub const RELATED: &[(&str, &str)] = &[
    ("lock_manager_lock", "lock_manager_unlock"),
    ("lock_manager_lock_shared", "lock_manager_unlock_shared"),
    ("lock_manager_lock_shared", "lock_manager_downgrade_lock"),
    ("lock_manager_new_shm", "lock_manager_remove_shm"),
    ("lock_manager_new_file", "lock_manager_remove_file"),
    ("lock_manager_new_shm", "lock_manager_close"),
    ("lock_manager_new_file", "lock_manager_close"),
    ("lock_manager_new_in_memory", "lock_manager_close"),
    ("lock_manager_new_shm", "lock_manager_allocate_lock"),
    ("lock_manager_locks_held", "lock_manager_lock_info"),
    ("lock_manager_lock_info", "lock_manager_repair_lock"),
    ("lock_manager_available_locks", "lock_manager_grow"),
    ("lock_manager_fencing_token", "lock_manager_lost_fd"),
    ("lock_manager_open_backend", "lock_manager_close"),
];
