//! The driver mydriver: registers over a line that the gateway opens. README.md describes the protocol.
//!
//! There is no loop, no reconnecting and no retry here: the gateway calls `poll` once for each scan, and `connect` again
//! after every loss. One instance serves one device; calls on it never overlap.

mod edge;
mod json;
mod meta;
#[cfg(not(target_family = "wasm"))]
mod native;
#[cfg(target_family = "wasm")]
mod wasm;

use edge::{Command, Errc, Host, Rows, Tag, TagProblem, Value};
use json::Json;
use std::collections::HashMap;

const READ: u8 = 1;
const WRITE: u8 = 2;
const NO_SUCH_REGISTER: u8 = 1;
const HEAD_BYTES: u32 = 4;
const COUNT_MAX: u32 = 120;
const STALE_MAX: u32 = 16;
const POINTS_MAX: usize = 4096;
const BAD_NODE_ID_UNKNOWN: u32 = 0x8034_0000;
const BAD_DEVICE_FAILURE: u32 = 0x808B_0000;

#[derive(Clone, Copy, PartialEq)]
enum Kind {
    UInt16,
    Int16,
    UInt32,
    Int32,
    Float32,
}

#[derive(Clone, Copy)]
struct Point {
    id: u32,
    register: u32,
    kind: Kind,
    is_writable: bool,
}

impl Point {
    fn registers(&self) -> u32 {
        if matches!(self.kind, Kind::UInt16 | Kind::Int16) { 1 } else { 2 }
    }

    fn end(&self) -> u32 {
        self.register + self.registers()
    }

    /// The value of its registers, which begin the data.
    fn value(&self, data: &[u8]) -> Value {
        let low = u16::from_be_bytes([data[0], data[1]]);
        let wide = if data.len() >= 4 { u32::from_be_bytes([data[0], data[1], data[2], data[3]]) } else { 0 };
        match self.kind {
            Kind::UInt16 => Value::Int(low.into()),
            Kind::Int16 => Value::Int((low as i16).into()),
            Kind::UInt32 => Value::Int(wide.into()),
            Kind::Int32 => Value::Int((wide as i32).into()),
            Kind::Float32 => Value::Real(f32::from_bits(wide).into()),
        }
    }
}

/// One device.
pub struct Driver {
    host: Host,
    timeout_ms: u32,
    sequence: u8,
    groups: HashMap<u32, Vec<Point>>,
}

impl Driver {
    /// Take the options of the device's row; no I/O.
    pub fn create(host: Host, options: &str) -> Result<Driver, String> {
        let options = Json::parse(options).ok_or("the options are not JSON")?;
        let timeout_ms = options.get("timeout_ms").map_or(Some(1000.0), Json::number).unwrap_or(-1.0);
        if !(10.0..=60000.0).contains(&timeout_ms) || timeout_ms.fract() != 0.0 {
            return Err("timeout_ms is not a whole number from 10 to 60000".into());
        }
        Ok(Driver { host, timeout_ms: timeout_ms as u32, sequence: 0, groups: HashMap::new() })
    }

    /// Prepare the tags of one scan class; pure.
    pub fn plan(&mut self, group: u32, tags: &[Tag]) -> Result<(), Vec<TagProblem>> {
        let (mut points, mut problems) = (Vec::new(), Vec::new());
        for tag in tags {
            match point_of(tag) {
                Ok(point) if points.len() < POINTS_MAX => points.push(point),
                Ok(_) => problems.push(TagProblem { tag: tag.id, key: "address", text: "at most 4096 tags".into() }),
                Err((key, text)) => problems.push(TagProblem { tag: tag.id, key, text: text.into() }),
            }
        }
        if !problems.is_empty() {
            return Err(problems);
        }
        points.sort_by_key(|point| point.register);
        self.groups.insert(group, points);
        Ok(())
    }

    /// The line stands; called again after every loss.
    pub fn connect(&mut self, channels: u32) -> Result<(), String> {
        if channels == 0 { Err("no endpoint: name one in the device's row".into()) } else { Ok(()) }
    }

    /// One scan: a row for every tag of the group.
    pub fn poll(&mut self, group: u32, rows: &mut Rows, budget_ms: u32) -> Result<(), Errc> {
        let points = self.groups.get(&group).ok_or(Errc::Invalid)?.clone();
        let end_ns = self.host.now_ns() + i64::from(budget_ms) * 1_000_000;
        for run in runs_of(&points) {
            let first = run[0].register;
            let count = run.iter().map(Point::end).max().unwrap_or(first) - first;
            let asked = self.ask(READ, first, count, end_ns);
            let (status, data) = asked.map_err(|errc| if errc == Errc::NotSent { Errc::Timeout } else { errc })?;
            if status == 0 && data.len() as u32 != 2 * count {
                return Err(Errc::Closed); // as below: where an answer begins is lost
            }
            for point in run {
                rows.push((point.id, match status {
                    0 => point.value(&data[2 * (point.register - first) as usize..]),
                    NO_SUCH_REGISTER => Value::Bad(BAD_NODE_ID_UNKNOWN),
                    _ => Value::Bad(BAD_DEVICE_FAILURE),
                }));
            }
        }
        Ok(())
    }

    /// Write values; one result for each, in order.
    pub fn write(&mut self, commands: Vec<Command>, budget_ms: u32) -> Vec<Result<(), Errc>> {
        let end_ns = self.host.now_ns() + i64::from(budget_ms) * 1_000_000;
        commands.iter().map(|command| self.write_one(command, end_ns)).collect()
    }

    /// Called always after `connect`, also after a failed one.
    pub fn disconnect(&mut self) {}

    fn write_one(&mut self, command: &Command, end_ns: i64) -> Result<(), Errc> {
        let mut points = self.groups.values().flatten();
        let point = *points.find(|point| point.id == command.tag && point.is_writable).ok_or(Errc::Unsupported)?;
        let Value::Int(value) = command.value else { return Err(Errc::Invalid) };
        let register = match point.kind {
            Kind::Int16 => i16::try_from(value).map(|value| value as u16),
            _ => u16::try_from(value),
        };
        let (status, _) = self.ask(WRITE, point.register, register.map_err(|_| Errc::Invalid)?.into(), end_ns)?;
        if status == 0 { Ok(()) } else { Err(Errc::Refused) }
    }

    /// Send one request and wait for its answer: what the device says, and the data behind it.
    fn ask(&mut self, function: u8, first: u32, argument: u32, end_ns: i64) -> Result<(u8, Vec<u8>), Errc> {
        let limit_ms = self.left_ms(end_ns);
        if limit_ms == 0 {
            return Err(Errc::NotSent);
        }
        let deadline_ns = self.host.now_ns() + i64::from(limit_ms) * 1_000_000;
        self.sequence = self.sequence.wrapping_add(1);
        let [first, argument] = [(first as u16).to_be_bytes(), (argument as u16).to_be_bytes()];
        self.host.send(0, &[function, self.sequence, first[0], first[1], argument[0], argument[1]])?;
        for _ in 0..STALE_MAX {
            let head = self.receive(HEAD_BYTES, deadline_ns)?;
            if head[0] != READ && head[0] != WRITE {
                break;
            }
            let data = self.receive(head[3].into(), deadline_ns)?;
            if head[0] == function && head[1] == self.sequence {
                return Ok((head[2], data)); // else: a late answer to an earlier request
            }
        }
        Err(Errc::Closed) // where an answer begins is lost: a new line tells
    }

    /// Exactly so many bytes.
    fn receive(&self, size: u32, deadline_ns: i64) -> Result<Vec<u8>, Errc> {
        let mut got = Vec::with_capacity(size as usize);
        while got.len() < size as usize {
            let wait_ms = self.left_ms(deadline_ns);
            if wait_ms == 0 {
                return Err(Errc::Timeout);
            }
            let data = self.host.receive(0, size - got.len() as u32, wait_ms)?;
            if data.is_empty() {
                return Err(Errc::Closed);
            }
            got.extend(data);
        }
        Ok(got)
    }

    /// Until then, at most the time-out of one answer.
    fn left_ms(&self, deadline_ns: i64) -> u32 {
        let left = (deadline_ns - self.host.now_ns()) / 1_000_000;
        left.clamp(0, self.timeout_ms.into()) as u32
    }
}

/// Points that touch are read with one request: a gap may hold registers that the device does not have.
fn runs_of(points: &[Point]) -> Vec<&[Point]> {
    let (mut runs, mut from) = (Vec::new(), 0);
    while from < points.len() {
        let (first, mut end, mut to) = (points[from].register, points[from].end(), from + 1);
        while to < points.len() && points[to].register <= end && points[to].end().max(end) - first <= COUNT_MAX {
            end = end.max(points[to].end());
            to += 1;
        }
        runs.push(&points[from..to]);
        from = to;
    }
    runs
}

/// What is wrong with a tag, and in which of its keys.
fn point_of(tag: &Tag) -> Result<Point, (&'static str, &'static str)> {
    let kind = match tag.kind.as_str() {
        "uint16" => Kind::UInt16,
        "int16" => Kind::Int16,
        "uint32" => Kind::UInt32,
        "int32" => Kind::Int32,
        "float32" => Kind::Float32,
        _ => return Err(("type", "the type is none of uint16, int16, uint32, int32, float32")),
    };
    let register = tag.address.parse::<u16>().map_err(|_| ("address", "the address is no register from 0 to 65535"))?;
    let point = Point { id: tag.id, register: register.into(), kind, is_writable: tag.access != "R" };
    if point.is_writable && point.registers() > 1 {
        return Err(("access", "only one register can be written at once: use R"));
    }
    if point.end() > 0x1_0000 {
        return Err(("address", "the second register of this address would be beyond 65535"));
    }
    Ok(point)
}
