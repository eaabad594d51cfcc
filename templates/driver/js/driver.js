// The driver mydriver: registers over a line that the gateway opens. README.md describes the protocol.
//
// There is no loop, no reconnecting and no retry here: the gateway calls poll once for each scan, and connect again after
// every loss. What a call throws is its error: text from create, plan and connect, a name of `errc` (driver.wit) from
// poll and write.
import { send, recv, emit, nowNs } from "edge:driver/host@0.2.0";
import { META } from "./meta.js";

const READ = 1, WRITE = 2, NO_SUCH_REGISTER = 1;
const HEAD_BYTES = 4, COUNT_MAX = 120, STALE_MAX = 16, POINTS_MAX = 4096;
const GOOD = 0, BAD_NODE_ID_UNKNOWN = 0x80340000, BAD_DEVICE_FAILURE = 0x808b0000;
const REGISTERS_OF = { uint16: 1, int16: 1, uint32: 2, int32: 2, float32: 2 };
const ERRC = ["timeout", "closed", "refused", "invalid", "unsupported", "internal", "cancelled", "not-sent", "busy"];

/** The column of driver.wit for each type of tag; int8 to int64 and uint8 to uint32 are `ints`. Another one is a mismatch. */
const COLUMN_OF = {
  bool: "bools", uint64: "uints", float32: "reals", float64: "reals", string: "texts", bytes: "blobs",
};
const columnOf = (type) => COLUMN_OF[type] ?? "ints";
/** What the values of a column are handed over as; `write` is given the same, with 0 and 1 as bools. */
const LIST_OF = {
  reals: (numbers) => new Float64Array(numbers),
  ints: (numbersOrBigInts) => new BigInt64Array(numbersOrBigInts.map(BigInt)),
  uints: (numbersOrBigInts) => new BigUint64Array(numbersOrBigInts.map(BigInt)),
  bools: (booleans) => new Uint8Array(booleans),
  texts: (strings) => strings,
  blobs: (uint8Arrays) => uint8Arrays,
};

let timeoutMs = 1000;
let sequence = 0;
const groups = new Map();

// -- tags -> points ---------------------------------------------------------------------------------------------------

/** [point, key at fault, what is wrong with it] */
function pointOf(tag) {
  const registers = REGISTERS_OF[tag.type];
  if (!registers) return [null, "type", `the type is none of ${Object.keys(REGISTERS_OF).join(", ")}`];
  if (tag.access !== "R" && registers > 1) return [null, "access", "only one register can be written at once: use R"];
  const register = /^[0-9]{1,5}$/.test(tag.address) ? Number(tag.address) : NaN;
  if (!(register + registers <= 0x10000)) {
    return [null, "address", "the address is no register; write a number from 0 to 65535"];
  }
  return [{ id: tag.id, type: tag.type, register, registers, isWritable: tag.access !== "R" }];
}

/** Points that touch are read with one request: a gap may hold registers that the device does not have. */
function* runsOf(points) {
  for (let from = 0, to; from < points.length; from = to) {
    const first = points[from].register;
    let end = first + points[from].registers;
    for (to = from + 1; to < points.length && points[to].register <= end; to++) {
      const last = points[to].register + points[to].registers;
      if (last - first > COUNT_MAX) break;
      end = Math.max(end, last);
    }
    yield { first, count: end - first, points: points.slice(from, to) };
  }
}

function valueOf(point, view, at) {
  switch (point.type) {
    case "uint16": return view.getUint16(at);
    case "int16": return view.getInt16(at);
    case "uint32": return view.getUint32(at);
    case "int32": return view.getInt32(at);
    default: return view.getFloat32(at);
  }
}

// -- requests and answers ----------------------------------------------------------------------------------------------

const now = () => Number(nowNs()) / 1e6; // milliseconds
const leftMs = (deadline) => Math.max(0, Math.min(timeoutMs, Math.floor(deadline - now())));

/** Send one request and wait for its answer: {status, data}. */
function ask(function_, first, argument, end) {
  const limitMs = leftMs(end);
  if (limitMs === 0) throw "not-sent";
  const deadline = now() + limitMs;
  sequence = (sequence + 1) & 255;
  send(0, new Uint8Array([function_, sequence, first >> 8, first & 255, (argument >> 8) & 255, argument & 255]));
  for (let stale = 0; stale < STALE_MAX; stale++) {
    const head = receive(HEAD_BYTES, deadline);
    if (head[0] !== READ && head[0] !== WRITE) break;
    const data = receive(head[3], deadline);
    if (head[0] === function_ && head[1] === sequence) return { status: head[2], data };
    // else: a late answer to an earlier request
  }
  throw "closed"; // where an answer begins is lost: a new line tells
}

/** Exactly so many bytes. */
function receive(size, deadline) {
  const got = new Uint8Array(size);
  for (let at = 0; at < size;) {
    const waitMs = leftMs(deadline);
    if (waitMs === 0) throw "timeout";
    const data = recv(0, size - at, waitMs);
    if (data.length === 0) throw "closed";
    got.set(data, at);
    at += data.length;
  }
  return got;
}

/** The errc that an error holds: what this file throws, or the host. */
function errcOf(error) {
  const name = error?.payload ?? error;
  return ERRC.includes(name) ? name : "internal";
}

function fail(errc) {
  throw errc;
}

// -- the calls of driver.wit -------------------------------------------------------------------------------------------

export const guest = {
  meta: () => META,

  create(optionsJson) {
    const { timeout_ms = 1000 } = JSON.parse(optionsJson);
    if (!Number.isInteger(timeout_ms) || timeout_ms < 10 || timeout_ms > 60000) {
      fail("timeout_ms is not a whole number from 10 to 60000");
    }
    timeoutMs = timeout_ms;
  },

  plan(group, tagsJson) {
    const points = [], problems = [];
    for (const tag of JSON.parse(tagsJson)) {
      const [point, key, text] = points.length === POINTS_MAX ? [null, "address", "at most 4096 tags"] : pointOf(tag);
      if (point) points.push(point);
      else problems.push({ tag: tag.id, key, text });
    }
    if (problems.length > 0) fail(JSON.stringify(problems));
    points.sort((a, b) => a.register - b.register);
    groups.set(group, points);
  },

  connect(channels) {
    if (channels === 0) fail("no endpoint: name one in the device's row");
  },

  poll(group, budgetMs) {
    const end = now() + budgetMs;
    let rows = 0;
    for (const run of runsOf(groups.get(group) ?? [])) {
      let answer;
      try {
        answer = ask(READ, run.first, run.count, end);
      } catch (error) {
        const errc = errcOf(error);
        fail(errc === "not-sent" ? "timeout" : errc);
      }
      if (answer.status === 0 && answer.data.length !== 2 * run.count) fail("closed");
      emitRun(run, answer);
      rows += run.points.length;
    }
    return rows;
  },

  write(commands, budgetMs) {
    const end = now() + budgetMs;
    return new Uint8Array(Array.from(commands.tag, (id, row) => writeOne(id, commands.value, row, end)));
  },

  disconnect() {},
};

/** Hand the rows of one request over, each column of values by itself. */
function emitRun(run, { status, data }) {
  if (status) {
    const bad = status === NO_SUCH_REGISTER ? BAD_NODE_ID_UNKNOWN : BAD_DEVICE_FAILURE;
    emitRows(run.points, bad, "reals", run.points.map(() => 0)); // rows that are Bad may be in any column
    return;
  }
  const view = new DataView(data.buffer, data.byteOffset, data.length);
  for (const column of new Set(run.points.map((point) => columnOf(point.type)))) {
    const points = run.points.filter((point) => columnOf(point.type) === column);
    emitRows(points, GOOD, column, points.map((point) => valueOf(point, view, 2 * (point.register - run.first))));
  }
}

function emitRows(points, quality, column, values) {
  emit({
    tag: new Uint32Array(points.map((point) => point.id)),
    tsNs: new BigInt64Array([0n]), // now
    quality: new Uint32Array([quality]),
    value: { tag: column, val: LIST_OF[column](values) },
  });
}

/** 0, or 1 + errc */
function writeOne(id, column, row, end) {
  const point = [...groups.values()].flat().find((point) => point.id === id && point.isWritable);
  const status = (errc) => 1 + ERRC.indexOf(errc);
  if (!point) return status("unsupported");
  if (column.tag !== "ints") return status("invalid");
  const value = Number(column.val[row]);
  const [low, high] = point.type === "int16" ? [-32768, 32767] : [0, 65535];
  if (value < low || value > high) return status("invalid");
  try {
    return ask(WRITE, point.register, value & 0xffff, end).status === 0 ? 0 : status("refused");
  } catch (error) {
    return status(errcOf(error));
  }
}
