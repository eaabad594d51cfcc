//! Carries the driver as a shared library; see driver.h.

use crate::edge::{tags_of, told, Command, Errc, Value};
use crate::meta::META;
use crate::Driver;
use std::ffi::{c_char, c_void};
use std::slice::from_raw_parts;

const API: u32 = 1;
const NULL: u8 = 0;
const BOOL: u8 = 1;
const I64: u8 = 2;
const U64: u8 = 3;
const F64: u8 = 4;
const STR: u8 = 5;
const BYTES: u8 = 6;
const BAD_ENCODING_LIMITS_EXCEEDED: u32 = 0x8008_0000;

#[repr(C)]
#[derive(Clone, Copy)]
pub union Cell {
    i: i64,
    u: u64,
    f: f64,
    s: Slice,
}

#[repr(C)]
#[derive(Clone, Copy)]
struct Slice {
    off: u32,
    len: u32,
}

#[repr(C)]
pub struct Batch {
    size: u32,
    cap: u32,
    n: u32,
    heap_cap: u32,
    heap_len: u32,
    flags: u32,
    tag: *mut u32,
    ts_ns: *mut i64,
    value: *mut Cell,
    kind: *mut u8,
    quality: *mut u32,
    heap: *mut u8,
}

#[repr(C)]
pub struct HostTable {
    size: u32,
    api: u32,
    ctx: *mut c_void,
    send: extern "C" fn(*mut c_void, u32, *const u8, u32) -> i32,
    recv: extern "C" fn(*mut c_void, u32, *mut u8, u32, u32) -> i32,
    log: extern "C" fn(*mut c_void, i32, *const u8, u32),
    now_ns: extern "C" fn(*mut c_void) -> i64,
    cancelled: extern "C" fn(*mut c_void) -> i32,
}

#[repr(C)]
pub struct Vtable {
    size: u32,
    api: u32,
    meta: *const c_char,
    create: extern "C" fn(*const HostTable, *const u8, u32, *mut *mut Driver, *mut u8, u32) -> i32,
    plan: extern "C" fn(*mut Driver, u32, *const u8, u32, *mut u8, u32) -> i32,
    connect: extern "C" fn(*mut Driver, u32, *mut u8, u32) -> i32,
    poll: extern "C" fn(*mut Driver, u32, *mut Batch, u32) -> i32,
    write: extern "C" fn(*mut Driver, *const Batch, *mut i32, u32) -> i32,
    disconnect: extern "C" fn(*mut Driver),
    destroy: extern "C" fn(*mut Driver),
}
unsafe impl Sync for Vtable {}

/// What a driver may ask for.
pub struct Host(*const HostTable);

impl Host {
    pub fn send(&self, channel: u32, data: &[u8]) -> Result<(), Errc> {
        let host = unsafe { &*self.0 };
        checked((host.send)(host.ctx, channel, data.as_ptr(), data.len() as u32)).map(|_| ())
    }

    /// At most `most` bytes, as soon as there are any; none: the line has ended.
    pub fn receive(&self, channel: u32, most: u32, timeout_ms: u32) -> Result<Vec<u8>, Errc> {
        let host = unsafe { &*self.0 };
        let mut data = vec![0; most as usize];
        let got = checked((host.recv)(host.ctx, channel, data.as_mut_ptr(), most, timeout_ms))?;
        data.truncate(got as usize);
        Ok(data)
    }

    /// level: 0 debug .. 3 error
    pub fn log(&self, level: i32, text: &str) {
        let host = unsafe { &*self.0 };
        (host.log)(host.ctx, level, text.as_ptr(), text.len() as u32)
    }

    pub fn now_ns(&self) -> i64 {
        let host = unsafe { &*self.0 };
        (host.now_ns)(host.ctx)
    }
}

fn checked(result: i32) -> Result<i32, Errc> {
    if result < 0 { Err(Errc::of((-1 - result) as u8)) } else { Ok(result) }
}

fn status(result: Result<(), Errc>) -> i32 {
    result.err().map_or(0, |errc| -1 - errc as i32)
}

fn refuse(text: &str, err: *mut u8, cap: u32) -> i32 {
    let kept = text.len().min(cap.saturating_sub(1) as usize);
    if cap > 0 {
        unsafe {
            std::ptr::copy_nonoverlapping(text.as_ptr(), err, kept);
            *err.add(kept) = 0;
        }
    }
    status(Err(Errc::Invalid))
}

fn text<'a>(p: *const u8, n: u32) -> &'a str {
    std::str::from_utf8(unsafe { from_raw_parts(p, n as usize) }).unwrap_or("")
}

extern "C" fn create(host: *const HostTable, p: *const u8, n: u32, out: *mut *mut Driver, err: *mut u8, cap: u32) -> i32 {
    match Driver::create(Host(host), text(p, n)) {
        Ok(driver) => {
            unsafe { *out = Box::into_raw(Box::new(driver)) };
            0
        }
        Err(why) => refuse(&why, err, cap),
    }
}

extern "C" fn plan(driver: *mut Driver, group: u32, p: *const u8, n: u32, err: *mut u8, cap: u32) -> i32 {
    let Some(tags) = tags_of(text(p, n)) else { return refuse("the tags are not JSON", err, cap) };
    match unsafe { &mut *driver }.plan(group, &tags) {
        Ok(()) => 0,
        Err(problems) => refuse(&told(&problems), err, cap),
    }
}

extern "C" fn connect(driver: *mut Driver, channels: u32, err: *mut u8, cap: u32) -> i32 {
    unsafe { &mut *driver }.connect(channels).map_or_else(|why| refuse(&why, err, cap), |()| 0)
}

extern "C" fn poll(driver: *mut Driver, group: u32, out: *mut Batch, budget_ms: u32) -> i32 {
    let (out, mut rows) = (unsafe { &mut *out }, Vec::new());
    let result = unsafe { &mut *driver }.poll(group, &mut rows, budget_ms);
    for (tag, value) in rows {
        if out.n >= out.cap {
            return status(Err(Errc::Internal));
        }
        let (kind, cell, quality) = match value {
            Value::Bool(is_set) => (BOOL, Cell { i: is_set.into() }, 0),
            Value::Int(i) => (I64, Cell { i }, 0),
            Value::Uint(u) => (U64, Cell { u }, 0),
            Value::Real(f) => (F64, Cell { f }, 0),
            Value::Text(text) => kept(out, STR, text.as_bytes()),
            Value::Blob(bytes) => kept(out, BYTES, &bytes),
            Value::Bad(quality) => (NULL, Cell { i: 0 }, quality),
        };
        let row = out.n as usize;
        unsafe {
            *out.tag.add(row) = tag;
            *out.ts_ns.add(row) = 0;
            *out.value.add(row) = cell;
            *out.kind.add(row) = kind;
            *out.quality.add(row) = quality;
        }
        out.n += 1;
    }
    status(result)
}

/// A cell whose bytes are in the batch's heap; without room there the row is Bad.
fn kept(out: &mut Batch, kind: u8, bytes: &[u8]) -> (u8, Cell, u32) {
    if bytes.len() > (out.heap_cap - out.heap_len) as usize {
        return (NULL, Cell { i: 0 }, BAD_ENCODING_LIMITS_EXCEEDED);
    }
    let s = Slice { off: out.heap_len, len: bytes.len() as u32 };
    unsafe { std::ptr::copy_nonoverlapping(bytes.as_ptr(), out.heap.add(s.off as usize), bytes.len()) };
    out.heap_len += s.len;
    (kind, Cell { s }, 0)
}

extern "C" fn write(driver: *mut Driver, batch: *const Batch, statuses: *mut i32, budget_ms: u32) -> i32 {
    let batch = unsafe { &*batch };
    let commands = (0..batch.n as usize).map(|row| unsafe {
        let cell = *batch.value.add(row);
        let bytes = || from_raw_parts(batch.heap.add(cell.s.off as usize), cell.s.len as usize).to_vec();
        let value = match *batch.kind.add(row) {
            BOOL => Value::Bool(cell.i != 0),
            I64 => Value::Int(cell.i),
            U64 => Value::Uint(cell.u),
            F64 => Value::Real(cell.f),
            STR => Value::Text(String::from_utf8_lossy(&bytes()).into_owned()),
            BYTES => Value::Blob(bytes()),
            _ => Value::Bad(0x8074_0000), // BadTypeMismatch
        };
        Command { tag: *batch.tag.add(row), value }
    });
    let commands = commands.collect();
    for (row, result) in unsafe { &mut *driver }.write(commands, budget_ms).into_iter().enumerate() {
        unsafe { *statuses.add(row) = status(result) };
    }
    0
}

extern "C" fn disconnect(driver: *mut Driver) {
    unsafe { &mut *driver }.disconnect()
}

extern "C" fn destroy(driver: *mut Driver) {
    drop(unsafe { Box::from_raw(driver) })
}

static VTABLE: Vtable = Vtable {
    size: size_of::<Vtable>() as u32,
    api: API,
    meta: META.as_ptr().cast(),
    create,
    plan,
    connect,
    poll,
    write,
    disconnect,
    destroy,
};

#[no_mangle]
#[allow(non_upper_case_globals)]
pub static driver_api: u32 = API;

#[no_mangle]
pub extern "C" fn edge_driver_entry(host_api: u32) -> *const Vtable {
    if host_api == API { &VTABLE } else { std::ptr::null() }
}
