//! The gateway's contract in Rust: what a driver may ask for, and what it is asked. Nothing here is about your protocol;
//! leave it as it is. `native.rs` carries it as a shared library (driver.h), `wasm.rs` as a WASM module (driver.wit).

use crate::json::Json;

#[cfg(not(target_family = "wasm"))]
pub use crate::native::Host;
#[cfg(target_family = "wasm")]
pub use crate::wasm::Host;

/// Why something did not work.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Errc {
    Timeout,
    Closed,
    Refused,
    Invalid,
    Unsupported,
    Internal,
    Cancelled,
    NotSent,
    Busy,
}

impl Errc {
    pub fn of(number: u8) -> Errc {
        use Errc::*;
        let all = [Timeout, Closed, Refused, Invalid, Unsupported, Internal, Cancelled, NotSent, Busy];
        *all.get(number as usize).unwrap_or(&Internal)
    }
}

/// One row of variables.yml, as `plan` is told of it.
pub struct Tag {
    pub id: u32,
    pub address: String,
    pub kind: String,
    pub access: String,
}

/// Which tag cannot be read, and why.
pub struct TagProblem {
    pub tag: u32,
    pub key: &'static str,
    pub text: String,
}

/// What a row holds, or what is to be written. The type of a tag says which; a value of another kind than its tag's
/// becomes BadTypeMismatch.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    /// bool
    Bool(bool),
    /// int8, int16, int32, int64, uint8, uint16, uint32
    Int(i64),
    /// uint64
    Uint(u64),
    /// float32, float64
    Real(f64),
    /// string
    Text(String),
    /// bytes
    Blob(Vec<u8>),
    /// Of any type: why there is no value, as OPC UA StatusCode.
    Bad(u32),
}

/// The rows of one scan: (tag, its value).
pub type Rows = Vec<(u32, Value)>;

/// One value to be written.
pub struct Command {
    pub tag: u32,
    pub value: Value,
}

pub fn tags_of(text: &str) -> Option<Vec<Tag>> {
    Json::parse(text)?.list()?.iter().map(tag_of).collect()
}

fn tag_of(row: &Json) -> Option<Tag> {
    let text = |name: &str| row.get(name)?.text().map(str::to_string);
    let id = row.get("id")?.number()? as u32;
    Some(Tag { id, address: text("address")?, kind: text("type")?, access: text("access")? })
}

/// Problems as the gateway reads them.
pub fn told(problems: &[TagProblem]) -> String {
    let rows = problems.iter().map(|problem| {
        let text = problem.text.replace(['"', '\\'], "'");
        format!(r#"{{"tag": {}, "key": "{}", "text": "{text}"}}"#, problem.tag, problem.key)
    });
    format!("[{}]", rows.collect::<Vec<_>>().join(", "))
}
