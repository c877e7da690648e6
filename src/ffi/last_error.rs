// SPDX-License-Identifier: MIT OR Apache-2.0
//! This thread's last failure, put into words only when somebody asks.

use std::cell::RefCell;
use std::ffi::{CString, c_char};

use crate::Error;

struct LastError {
    error: Option<Error>,
    text: Option<CString>,
}

thread_local! {
    static LAST: RefCell<LastError> = const { RefCell::new(LastError { error: None, text: None }) };
}

/// Remembers a failure. In a thread that is ending, whose memory of it is gone, it is dropped.
pub(super) fn set(error: Error) {
    let _ = LAST.try_with(|last| {
        let mut last = last.borrow_mut();
        last.error = Some(error);
        last.text = None;
    });
}

/// The last failure's sentence, or an empty one. Valid until the thread's next failure.
pub(super) fn text() -> *const c_char {
    LAST.try_with(|last| {
        let mut last = last.borrow_mut();
        let LastError { error, text } = &mut *last;
        match (error, text) {
            (_, Some(text)) => text.as_ptr(),
            (None, None) => c"".as_ptr(),
            (Some(error), text) => {
                // Sentences hold no NUL: paths are escaped. Should one slip in, it ends the text there.
                let sentence = error.to_string().replace('\0', " ");
                text.insert(CString::new(sentence).unwrap_or_default()).as_ptr()
            }
        }
    })
    .unwrap_or(c"".as_ptr())
}
