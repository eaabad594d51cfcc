//! Carries the driver as a WASM module: the Component Model's canonical ABI; see driver.wit.
//!
//! Memory that the host fills through cabi_realloc becomes a Vec here, which frees it; results stay in memory that the
//! next call uses again.

use crate::edge::{tags_of, told, Command, Errc, Rows, Value};
use crate::meta::META;
use crate::Driver;
use std::alloc::{alloc, realloc, Layout};
use std::cell::RefCell;

#[link(wasm_import_module = "edge:driver/host@0.2.0")]
extern "C" {
    fn send(channel: u32, data: *const u8, size: u32, result: *mut u8);
    fn recv(channel: u32, most: u32, timeout_ms: u32, result: *mut Received);
    fn emit(
        tag: *const u32, tags: u32, time: *const i64, times: u32, quality: *const u32, qualities: u32, kind: u32,
        value: *const u8, values: u32,
    );
    fn log(level: u32, text: *const u8, size: u32);
    #[link_name = "now-ns"]
    fn now_ns() -> i64;
}

/// Kinds of columns, as driver.wit numbers them.
const REALS: u32 = 0;
const INTS: u32 = 1;
const UINTS: u32 = 2;
const BOOLS: u32 = 3;
const TEXTS: u32 = 4;
const BLOBS: u32 = 5;

#[repr(C)]
struct Received {
    tag: u8,
    data: *mut u8, // an error is its first byte
    size: u32,
}

/// What a driver may ask for.
pub struct Host;

impl Host {
    pub fn send(&self, channel: u32, data: &[u8]) -> Result<(), Errc> {
        let mut result = [0u8; 2];
        unsafe { send(channel, data.as_ptr(), data.len() as u32, result.as_mut_ptr()) };
        if result[0] == 0 { Ok(()) } else { Err(Errc::of(result[1])) }
    }

    /// At most `most` bytes, as soon as there are any; none: the line has ended.
    pub fn receive(&self, channel: u32, most: u32, timeout_ms: u32) -> Result<Vec<u8>, Errc> {
        let mut result = Received { tag: 0, data: std::ptr::null_mut(), size: 0 };
        unsafe { recv(channel, most, timeout_ms, &mut result) };
        if result.tag == 0 { Ok(owned(result.data, result.size)) } else { Err(Errc::of(result.data as usize as u8)) }
    }

    /// level: 0 debug .. 3 error
    pub fn log(&self, level: i32, text: &str) {
        unsafe { log(level as u32, text.as_ptr(), text.len() as u32) }
    }

    pub fn now_ns(&self) -> i64 {
        unsafe { now_ns() }
    }
}

thread_local! {
    static DRIVER: RefCell<Option<Driver>> = const { RefCell::new(None) };
    static ANSWER: RefCell<([u32; 4], Vec<u8>)> = const { RefCell::new(([0; 4], Vec::new())) };
}

/// What the host allocated and filled. Layouts of another alignment than 1 are freed as such by the allocator of WASI,
/// which looks at neither size nor alignment.
fn owned<T>(data: *mut T, size: u32) -> Vec<T> {
    if size == 0 { Vec::new() } else { unsafe { Vec::from_raw_parts(data, size as usize, size as usize) } }
}

fn text(data: *mut u8, size: u32) -> String {
    String::from_utf8(owned(data, size)).unwrap_or_default()
}

fn answer(words: [u32; 2], data: Vec<u8>) -> *const u32 {
    ANSWER.with_borrow_mut(|kept| {
        kept.1 = data;
        kept.0 = [words[0], if kept.1.is_empty() { words[1] } else { kept.1.as_ptr() as u32 }, kept.1.len() as u32, 0];
        kept.0.as_ptr()
    })
}

fn refusal(result: Result<(), String>) -> *const u32 {
    match result {
        Ok(()) => answer([0, 0], Vec::new()),
        Err(why) => answer([1, 0], why.into_bytes()),
    }
}

fn with<T>(work: impl FnOnce(&mut Driver) -> T) -> T {
    DRIVER.with_borrow_mut(|driver| work(driver.as_mut().expect("create comes first")))
}

#[export_name = "cabi_realloc"]
unsafe extern "C" fn cabi_realloc(old: *mut u8, old_size: usize, align: usize, size: usize) -> *mut u8 {
    if size == 0 {
        return align as *mut u8;
    }
    let layout = |size| Layout::from_size_align_unchecked(size, align);
    let memory = if old_size == 0 { alloc(layout(size)) } else { realloc(old, layout(old_size), size) };
    if memory.is_null() {
        std::process::abort();
    }
    memory
}

#[export_name = "edge:driver/guest@0.2.0#meta"]
extern "C" fn meta() -> *const u32 {
    let written = META.trim_end_matches('\0').as_bytes().to_vec();
    answer([0, 0], written); // (ptr, len) come behind the tag that a string does not have
    ANSWER.with_borrow(|kept| unsafe { kept.0.as_ptr().add(1) })
}

#[export_name = "edge:driver/guest@0.2.0#create"]
extern "C" fn create(options: *mut u8, size: u32) -> *const u32 {
    refusal(Driver::create(Host, &text(options, size)).map(|driver| DRIVER.set(Some(driver))))
}

#[export_name = "edge:driver/guest@0.2.0#plan"]
extern "C" fn plan(group: u32, tags: *mut u8, size: u32) -> *const u32 {
    let Some(tags) = tags_of(&text(tags, size)) else { return refusal(Err("the tags are not JSON".into())) };
    refusal(with(|driver| driver.plan(group, &tags)).map_err(|problems| told(&problems)))
}

#[export_name = "edge:driver/guest@0.2.0#connect"]
extern "C" fn connect(channels: u32) -> *const u32 {
    refusal(with(|driver| driver.connect(channels)))
}

#[export_name = "edge:driver/guest@0.2.0#poll"]
extern "C" fn poll(group: u32, budget_ms: u32) -> *const u32 {
    let mut rows = Rows::new();
    let result = with(|driver| driver.poll(group, &mut rows, budget_ms));
    for kind in REALS..=BLOBS {
        emit_kind(&rows, kind);
    }
    match result {
        Ok(()) => answer([0, rows.len() as u32], Vec::new()),
        Err(errc) => answer([1, errc as u32], Vec::new()),
    }
}

/// Its column, the bits of its cell and its quality; of a text the cell is address and size. A Bad row may be in any.
fn cell_of(value: &Value) -> (u32, u64, u32) {
    let place = |bytes: &[u8]| u64::from(bytes.as_ptr() as u32) | (bytes.len() as u64) << 32;
    match value {
        Value::Bool(is_set) => (BOOLS, (*is_set).into(), 0),
        Value::Int(i) => (INTS, *i as u64, 0),
        Value::Uint(u) => (UINTS, *u, 0),
        Value::Real(f) => (REALS, f.to_bits(), 0),
        Value::Text(text) => (TEXTS, place(text.as_bytes()), 0),
        Value::Blob(bytes) => (BLOBS, place(bytes), 0),
        Value::Bad(quality) => (REALS, 0, *quality),
    }
}

/// Hand over the rows of one kind.
fn emit_kind(rows: &Rows, kind: u32) {
    let (mut tags, mut cells, mut qualities) = (Vec::new(), Vec::new(), Vec::new());
    for (tag, value) in rows {
        let (column, cell, quality) = cell_of(value);
        if column == kind {
            tags.push(*tag);
            cells.push(cell);
            qualities.push(quality);
        }
    }
    if tags.is_empty() {
        return;
    }
    let flags: Vec<u8> = cells.iter().map(|cell| *cell as u8).collect();
    let values = if kind == BOOLS { flags.as_ptr() } else { cells.as_ptr().cast() };
    let n = tags.len() as u32;
    unsafe { emit(tags.as_ptr(), n, &0, 1, qualities.as_ptr(), n, kind, values, n) }
}

/// The values of a column that the host allocated and filled.
fn values_of(kind: u32, data: *mut u8, size: u32) -> Vec<Value> {
    if kind == BOOLS {
        return owned(data, size).into_iter().map(|flag| Value::Bool(flag != 0)).collect();
    }
    let cells: Vec<u64> = owned(data.cast(), size);
    let bytes = |cell: u64| owned(cell as u32 as *mut u8, (cell >> 32) as u32);
    let value = |cell: u64| match kind {
        REALS => Value::Real(f64::from_bits(cell)),
        INTS => Value::Int(cell as i64),
        UINTS => Value::Uint(cell),
        TEXTS => Value::Text(String::from_utf8(bytes(cell)).unwrap_or_default()),
        _ => Value::Blob(bytes(cell)),
    };
    cells.into_iter().map(value).collect()
}

#[export_name = "edge:driver/guest@0.2.0#write"]
extern "C" fn write(
    tag: *mut u32, tags: u32, time: *mut i64, times: u32, quality: *mut u32, qualities: u32, kind: u32, value: *mut u8,
    values: u32, budget_ms: u32,
) -> *const u32 {
    let (tags, _, _) = (owned(tag, tags), owned(time, times), owned(quality, qualities));
    let values = values_of(kind, value, values);
    let commands = tags.into_iter().zip(values).map(|(tag, value)| Command { tag, value }).collect();
    let results = with(|driver| driver.write(commands, budget_ms));
    answer([0, 0], results.into_iter().map(|result| result.err().map_or(0, |errc| 1 + errc as u8)).collect())
}

#[export_name = "edge:driver/guest@0.2.0#disconnect"]
extern "C" fn disconnect() {
    with(Driver::disconnect)
}
