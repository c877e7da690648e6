// SPDX-License-Identifier: MIT OR Apache-2.0
#![forbid(unsafe_code)]
//! Seconds and permission bits as the command line has them.

use std::time::Duration;

/// 584 years, which is what 64 bits have of nanoseconds.
const MOST_SECONDS: u64 = u64::MAX / 1_000_000_000;

pub fn parse_seconds(text: &str) -> Result<Duration, String> {
    let wrong = || format!("give a number of seconds from 0 to {MOST_SECONDS}, such as 2.5");
    let seconds: f64 = text.parse().map_err(|_| wrong())?;
    let time = Duration::try_from_secs_f64(seconds).ok().filter(|time| time.as_secs() <= MOST_SECONDS);
    time.ok_or_else(wrong)
}

pub fn parse_timeout(text: &str) -> Result<Duration, String> {
    parse_seconds(text).map_err(|advice| format!("{advice}; to wait without end, leave it out"))
}

pub fn parse_interval(text: &str) -> Result<Duration, String> {
    const SHORTEST: Duration = Duration::from_millis(50);
    match parse_seconds(text)? {
        interval if interval < SHORTEST => Err("each look takes time itself; give at least 0.05 seconds".to_owned()),
        interval => Ok(interval),
    }
}

pub fn parse_mode(text: &str) -> Result<u32, String> {
    match u32::from_str_radix(text, 8) {
        Ok(mode @ 1..=0o777) => Ok(mode),
        _ => Err("give permission bits from 0001 to 0777, such as 0660".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seconds_may_have_a_point_and_no_sign() {
        assert_eq!(parse_seconds("2.5"), Ok(Duration::from_millis(2500)));
        for bad in ["-1", "x", "nan", "inf", "1e30", "18446744074", ""] {
            let advice = parse_seconds(bad).unwrap_err();
            assert!(advice.contains("from 0 to 18446744073"), "{bad}: {advice}");
        }
        assert!(parse_interval("0.01").is_err());
    }

    #[test]
    fn a_mode_is_octal() {
        assert_eq!(parse_mode("0660"), Ok(0o660));
        for bad in ["", "0", "1777", "0o600", "8"] {
            assert!(parse_mode(bad).is_err(), "{bad}");
        }
    }
}
