// SPDX-License-Identifier: MIT OR Apache-2.0
#![forbid(unsafe_code)]
//! What etcd's JSON gateway is sent and answers. Bytes travel in base64, 64-bit numbers as strings.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::de::{Error, Unexpected};
use serde::{Deserialize, Deserializer};
use serde_json::{Value, json};

/// Where a transaction is asked for.
pub(crate) const TXN: &str = "/v3/kv/txn";

pub(crate) fn base64_of(text: &str) -> String {
    STANDARD.encode(text)
}

/// A number, written as a number or as a string.
fn number<'de, D: Deserializer<'de>>(deserializer: D) -> Result<i64, D::Error> {
    match Value::deserialize(deserializer)? {
        Value::String(text) => {
            text.parse().map_err(|_| D::Error::invalid_value(Unexpected::Str(&text), &"a number in a string"))
        }
        Value::Number(number) => number.as_i64().ok_or_else(|| D::Error::custom("a number beyond 64 bits")),
        _ => Err(D::Error::custom("neither a number nor a string")),
    }
}

/// Text in base64. What is no text is of no key or value of ours.
fn text<'de, D: Deserializer<'de>>(deserializer: D) -> Result<String, D::Error> {
    let encoded = String::deserialize(deserializer)?;
    let bytes = STANDARD.decode(&encoded).map_err(|_| D::Error::custom("no base64"))?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Header {
    /// As it was written: it is only compared.
    pub(crate) cluster_id: String,
    #[serde(deserialize_with = "number")]
    pub(crate) revision: i64,
}

/// The id of the cluster that an answer is of, where the answer says so.
pub(crate) fn cluster_of(answer: &Value) -> Option<&str> {
    let answer = answer.get("result").unwrap_or(answer);
    answer.get("header")?.get("cluster_id")?.as_str()
}

#[derive(Debug, Default, Clone, Deserialize)]
#[serde(default)]
pub(crate) struct KeyValue {
    #[serde(deserialize_with = "text")]
    pub(crate) key: String,
    #[serde(deserialize_with = "text")]
    pub(crate) value: String,
    #[serde(deserialize_with = "number")]
    pub(crate) create_revision: i64,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct RangeResponse {
    pub(crate) header: Header,
    pub(crate) kvs: Vec<KeyValue>,
    #[serde(deserialize_with = "number")]
    pub(crate) count: i64,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct TxnResponse {
    pub(crate) header: Header,
    pub(crate) succeeded: bool,
    pub(crate) responses: Vec<OpResponse>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct OpResponse {
    pub(crate) response_range: Option<RangeResponse>,
    pub(crate) response_txn: Option<TxnResponse>,
}

impl TxnResponse {
    /// The answers to the ranges among its operations, in their order.
    pub(crate) fn into_ranges(self) -> impl Iterator<Item = RangeResponse> {
        self.responses.into_iter().filter_map(|response| response.response_range)
    }
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct LeaseResponse {
    #[serde(rename = "ID", deserialize_with = "number")]
    pub(crate) id: i64,
    /// 0: there is no such lease.
    #[serde(rename = "TTL", deserialize_with = "number")]
    pub(crate) ttl: i64,
}

/// A message of a stream.
#[derive(Debug, Deserialize)]
pub(crate) struct Streamed<T> {
    #[serde(default = "Option::default")]
    pub(crate) result: Option<T>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct WatchResponse {
    pub(crate) canceled: bool,
    pub(crate) events: Vec<WatchEvent>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct WatchEvent {
    pub(crate) kv: KeyValue,
}

/// What the gateway says instead of an answer.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Refusal {
    pub(crate) message: String,
    /// Of gRPC.
    pub(crate) code: i64,
}

impl Refusal {
    /// As the releases have it. 3.4: `{"error": "...", "message": "...", "code": 5}`. From 3.5 on: without `error`, so that
    /// the HTTP status alone tells it from an answer. In a stream, whose status is that of its beginning, in an object
    /// `error`, where 3.4 names the code `grpc_code`.
    pub(crate) fn of(is_success: bool, value: &Value) -> Option<Self> {
        let error = value.get("error");
        if is_success && error.is_none() {
            return None;
        }
        let from = error.filter(|error| error.is_object()).unwrap_or(value);
        let text = |from: &Value, name: &str| from.get(name).and_then(Value::as_str).map(str::to_owned);
        let message = text(from, "message").or_else(|| text(value, "error")).unwrap_or_else(|| value.to_string());
        let code = ["code", "grpc_code"].iter().find_map(|name| from.get(*name)?.as_i64()).unwrap_or(0);
        Some(Self { message, code })
    }
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct VersionResponse {
    pub(crate) etcdserver: String,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct TokenResponse {
    pub(crate) token: String,
}

/// The end of the range of all keys that begin with `prefix`, whose last byte is no 0xff.
pub(crate) fn end_of(prefix: &str) -> String {
    let mut bytes = prefix.as_bytes().to_vec();
    if let Some(last) = bytes.last_mut() {
        *last += 1;
    }
    STANDARD.encode(bytes)
}

/// Whether a key is as it was created in that revision; 0: it does not exist.
pub(crate) fn if_created(key: &str, revision: i64) -> Value {
    json!({"key": base64_of(key), "target": "CREATE", "result": "EQUAL", "create_revision": revision.to_string()})
}

/// Whether a key has been written that often since it was created.
pub(crate) fn if_version(key: &str, version: i64) -> Value {
    json!({"key": base64_of(key), "target": "VERSION", "result": "EQUAL", "version": version.to_string()})
}

/// Whether no key begins with `prefix`.
pub(crate) fn if_none(prefix: &str) -> Value {
    json!({"key": base64_of(prefix), "range_end": end_of(prefix), "target": "CREATE", "result": "EQUAL",
           "create_revision": "0"})
}

/// Whether all keys that begin with `prefix` were created in `revision` or later.
pub(crate) fn if_none_before(prefix: &str, revision: i64) -> Value {
    json!({"key": base64_of(prefix), "range_end": end_of(prefix), "target": "CREATE", "result": "GREATER",
           "create_revision": (revision - 1).to_string()})
}

pub(crate) fn put(key: &str, value: &str, lease: i64) -> Value {
    json!({"request_put": {"key": base64_of(key), "value": base64_of(value), "lease": lease.to_string()}})
}

pub(crate) fn delete(key: &str) -> Value {
    json!({"request_delete_range": {"key": base64_of(key)}})
}

pub(crate) fn delete_all(prefix: &str) -> Value {
    json!({"request_delete_range": {"key": base64_of(prefix), "range_end": end_of(prefix)}})
}

pub(crate) fn get(key: &str) -> Value {
    json!({"request_range": {"key": base64_of(key)}})
}

pub(crate) fn get_all(prefix: &str) -> Value {
    json!({"request_range": {"key": base64_of(prefix), "range_end": end_of(prefix)}})
}

pub(crate) fn list(prefix: &str) -> Value {
    json!({"request_range": {"key": base64_of(prefix), "range_end": end_of(prefix), "keys_only": true}})
}

pub(crate) fn count(prefix: &str) -> Value {
    json!({"request_range": {"key": base64_of(prefix), "range_end": end_of(prefix), "count_only": true}})
}

pub(crate) fn txn(compare: &[Value], success: &[Value], failure: &[Value]) -> Value {
    json!({"compare": compare, "success": success, "failure": failure})
}

/// A transaction within another.
pub(crate) fn nested(txn: Value) -> Value {
    json!({"request_txn": txn})
}

#[cfg(test)]
mod tests {
    use super::*;

    const NO_LEASE: &str = "etcdserver: requested lease not found";
    const NO_USER: &str = "etcdserver: user name is empty";

    /// As the servers wrote it.
    #[test]
    fn a_refusal_is_read_from_each_release() {
        for (release, text, message, code) in [
            ("3.4.23", json!({"error": NO_LEASE, "message": NO_LEASE, "code": 5}), NO_LEASE, 5),
            ("3.5.30, 3.6.16, 3.7.3", json!({"code": 5, "message": NO_LEASE}), NO_LEASE, 5),
            ("3.5.30, 3.6.16, 3.7.3, of a stream", json!({"error": {"code": 3, "message": NO_USER}}), NO_USER, 3),
        ] {
            let refusal = Refusal::of(false, &text);
            assert_eq!(refusal, Some(Refusal { message: message.to_owned(), code }), "{release}");
        }
    }

    #[test]
    fn a_refusal_within_a_stream_is_one_although_the_status_was_good() {
        let text = json!({"error": {"grpc_code": 14, "http_code": 503, "message": "etcdserver: no leader"}});
        let expected = Refusal { message: "etcdserver: no leader".to_owned(), code: 14 };
        assert_eq!(Refusal::of(true, &text), Some(expected));
    }

    #[test]
    fn what_is_no_refusal_of_etcds_is_shown_as_it_is() {
        let expected = Refusal { message: r#"{"reason":"too busy"}"#.to_owned(), code: 0 };
        assert_eq!(Refusal::of(false, &json!({"reason": "too busy"})), Some(expected));
        assert_eq!(Refusal::of(true, &json!({"header": {"cluster_id": "1"}})), None);
    }
}
