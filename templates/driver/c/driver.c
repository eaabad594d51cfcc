/* The driver mydriver: registers over a line that the gateway opens. README.md describes the protocol.
 *
 * There is no loop, no reconnecting and no retry here: the gateway calls poll once for each scan, and connect again
 * after every loss. One instance serves one device; calls on it never overlap.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "driver.h"
#include "json.h"
#include "meta.h"
#include "rows.h"

enum { READ = 1, WRITE = 2, NO_SUCH_REGISTER = 1 };
enum { HEAD_BYTES = 4, REQUEST_BYTES = 6, DATA_BYTES_MAX = 255 };
enum { COUNT_MAX = 120, GROUPS_MAX = 64, POINTS_MAX = 4096, STALE_MAX = 16 };
#define BAD_NODE_ID_UNKNOWN 0x80340000u
#define BAD_DEVICE_FAILURE 0x808B0000u
#define BAD_OUT_OF_MEMORY "out of memory"

typedef enum { UINT16, INT16, UINT32, INT32, FLOAT32, TYPES } type;
static const char* const TYPE_NAMES[TYPES] = {"uint16", "int16", "uint32", "int32", "float32"};

typedef struct { uint32_t id; uint16_t reg; uint8_t type; uint8_t writable; } point;
typedef struct { point* points; uint32_t n; } group;
typedef struct { const edge_host* host; uint32_t timeout_ms; uint8_t sequence; group groups[GROUPS_MAX]; } driver;

static uint32_t registers_of(type t) { return t >= UINT32 ? 2 : 1; }

static int32_t wrong(char* err, uint32_t cap, int32_t status, const char* text) {
  if (cap) snprintf(err, cap, "%s", text);
  return status;
}

/* -- options and plans: JSON in, points out; no I/O --------------------------------------------------------------- */

static int32_t create(const edge_host* host, const char* options, uint32_t n, void** self, char* err, uint32_t cap) {
  driver* d = calloc(1, sizeof *d);
  if (!d) return wrong(err, cap, EDGE_INTERNAL, BAD_OUT_OF_MEMORY);
  struct json timeout;
  d->host = host;
  d->timeout_ms = 1000;
  if (json_member(json_of(options, n), "timeout_ms", &timeout)) {
    int64_t ms = json_int(timeout, 10, 60000, -1);
    if (ms < 0) {
      free(d);
      return wrong(err, cap, EDGE_INVALID, "timeout_ms is not a whole number from 10 to 60000");
    }
    d->timeout_ms = (uint32_t)ms;
  }
  *self = d;
  return EDGE_OK;
}

/* What is wrong with a tag, and in which of its keys; NULL: nothing, and *p is filled. */
static const char* point_of(struct json tag, point* p, const char** key) {
  struct json id, address, type_name, access;
  *key = "type";
  if (!json_member(tag, "id", &id) || !json_member(tag, "address", &address) || !json_member(tag, "type", &type_name) ||
      !json_member(tag, "access", &access))
    return "the tag is not complete";
  p->id = (uint32_t)json_int(id, 0, INT32_MAX, 0);
  for (p->type = 0; p->type < TYPES && !json_is(type_name, TYPE_NAMES[p->type]); p->type++) {}
  if (p->type == TYPES) return "the type is none of uint16, int16, uint32, int32, float32";
  *key = "access";
  p->writable = !json_is(access, "R");
  if (p->writable && registers_of(p->type) > 1) return "only one register can be written at once: use R";
  *key = "address";
  int64_t reg = json_int(address, 0, 0x10000 - registers_of(p->type), -1);
  if (reg < 0) return "the address is no register; write a number from 0 to 65535";
  p->reg = (uint16_t)reg;
  return NULL;
}

static int by_register(const void* a, const void* b) {
  const point *p = a, *q = b;
  return p->reg != q->reg ? (p->reg < q->reg ? -1 : 1) : (p->id > q->id) - (p->id < q->id);
}

static int32_t plan(void* self, uint32_t number, const char* tags, uint32_t n, char* err, uint32_t cap) {
  driver* d = self;
  struct json tag, rest = json_first(json_of(tags, n));
  uint32_t count = 0;
  if (number >= GROUPS_MAX) return wrong(err, cap, EDGE_UNSUPPORTED, "at most 64 groups");
  point* points = calloc(POINTS_MAX, sizeof *points);
  if (!points) return wrong(err, cap, EDGE_INTERNAL, BAD_OUT_OF_MEMORY);
  for (; json_next(&rest, &tag); count++) {
    const char* key = "address";
    const char* why = count == POINTS_MAX ? "at most 4096 tags" : point_of(tag, &points[count], &key);
    if (why) {
      if (cap)
        snprintf(err, cap, "[{\"tag\": %u, \"key\": \"%s\", \"text\": \"%s\"}]", count < POINTS_MAX ? points[count].id : 0,
                 key, why);
      free(points);
      return EDGE_INVALID;
    }
  }
  qsort(points, count, sizeof *points, by_register);
  free(d->groups[number].points);
  d->groups[number] = (group){points, count};
  return EDGE_OK;
}

/* -- requests and answers ------------------------------------------------------------------------------------------ */

static int64_t deadline_in(driver* d, uint32_t ms) { return d->host->now_ns(d->host->ctx) + (int64_t)ms * 1000000; }

/* Milliseconds until then, at most `most`. */
static uint32_t left_ms(driver* d, int64_t deadline_ns, uint32_t most) {
  int64_t left = (deadline_ns - d->host->now_ns(d->host->ctx)) / 1000000;
  return left <= 0 ? 0 : left < most ? (uint32_t)left : most;
}

static int32_t receive(driver* d, uint8_t* p, uint32_t n, int64_t deadline_ns) {
  for (uint32_t got = 0; got < n;) {
    uint32_t wait_ms = left_ms(d, deadline_ns, d->timeout_ms);
    if (!wait_ms) return EDGE_TIMEOUT;
    int32_t r = d->host->recv(d->host->ctx, 0, p + got, n - got, wait_ms);
    if (r < 0) return r;
    if (r == 0) return EDGE_CLOSED;
    got += (uint32_t)r;
  }
  return EDGE_OK;
}

/* Send one request and wait for its answer. status: what the device says; data: *size bytes. */
static int32_t ask(driver* d, uint8_t function, uint16_t first, uint16_t argument, int64_t end_ns, uint8_t* status,
                   uint8_t* data, uint32_t* size) {
  uint8_t sequence = ++d->sequence, head[HEAD_BYTES];
  uint8_t request[REQUEST_BYTES] = {function, sequence, first >> 8, first & 255, argument >> 8, argument & 255};
  uint32_t limit_ms = left_ms(d, end_ns, d->timeout_ms);
  int64_t deadline_ns = deadline_in(d, limit_ms);
  if (!limit_ms) return EDGE_NOT_SENT;
  int32_t r = d->host->send(d->host->ctx, 0, request, sizeof request);
  if (r != EDGE_OK) return r;
  for (int stale = 0; stale < STALE_MAX; stale++) {
    if ((r = receive(d, head, sizeof head, deadline_ns)) != EDGE_OK) return r;
    if (head[0] != READ && head[0] != WRITE) return EDGE_CLOSED; /* where an answer begins is lost: a new line tells */
    if ((r = receive(d, data, head[3], deadline_ns)) != EDGE_OK) return r;
    if (head[0] == function && head[1] == sequence) { /* else: a late answer to an earlier request */
      *status = head[2];
      *size = head[3];
      return EDGE_OK;
    }
  }
  return EDGE_CLOSED;
}

/* The value of a point's registers. */
static int32_t emit_value(edge_batch* out, const point* p, const uint8_t* data) {
  uint32_t low = (uint32_t)data[0] << 8 | data[1], wide = 0;
  float f;
  if (registers_of(p->type) == 2) wide = low << 16 | (uint32_t)data[2] << 8 | data[3];
  switch (p->type) {
    case UINT16: return add_int(out, p->id, low);
    case INT16: return add_int(out, p->id, (int16_t)low);
    case UINT32: return add_int(out, p->id, wide);
    case INT32: return add_int(out, p->id, (int32_t)wide);
    default: memcpy(&f, &wide, sizeof f); return add_real(out, p->id, f);
  }
}

/* Rows of the points [from, to) of one request that begins at register `first`; data NULL: they are Bad. */
static int32_t emit(edge_batch* out, const point* points, uint32_t from, uint32_t to, uint32_t first, const uint8_t* data,
                    uint32_t quality) {
  for (const point* p = points + from; p < points + to; p++) {
    int32_t r = data ? emit_value(out, p, data + 2 * (p->reg - first)) : add_bad(out, p->id, quality);
    if (r != EDGE_OK) return r;
  }
  return EDGE_OK;
}

/* -- the calls of driver.h ------------------------------------------------------------------------------------------ */

static int32_t connect_(void* self, uint32_t channels, char* err, uint32_t cap) {
  (void)self;
  return channels ? EDGE_OK : wrong(err, cap, EDGE_INVALID, "no endpoint: name one in the device's row");
}

/* One request for each run of registers that touch: a gap may hold registers that the device does not have. */
static int32_t poll(void* self, uint32_t number, edge_batch* out, uint32_t budget_ms) {
  driver* d = self;
  if (number >= GROUPS_MAX) return EDGE_INVALID;
  group* g = &d->groups[number];
  int64_t end_ns = deadline_in(d, budget_ms);
  for (uint32_t from = 0, to; from < g->n; from = to) {
    uint32_t first = g->points[from].reg, end = first + registers_of(g->points[from].type), size;
    uint8_t data[DATA_BYTES_MAX], status;
    for (to = from + 1; to < g->n && g->points[to].reg <= end; to++) {
      uint32_t point_end = g->points[to].reg + registers_of(g->points[to].type);
      if (point_end - first > COUNT_MAX) break;
      if (point_end > end) end = point_end;
    }
    int32_t r = ask(d, READ, (uint16_t)first, (uint16_t)(end - first), end_ns, &status, data, &size);
    if (r == EDGE_NOT_SENT) return EDGE_TIMEOUT;
    if (r != EDGE_OK) return r;
    if (status == 0 && size != 2 * (end - first)) return EDGE_CLOSED;
    uint32_t bad = status == NO_SUCH_REGISTER ? BAD_NODE_ID_UNKNOWN : BAD_DEVICE_FAILURE;
    r = emit(out, g->points, from, to, first, status ? NULL : data, bad);
    if (r != EDGE_OK) return r;
  }
  return EDGE_OK;
}

static const point* find(const driver* d, uint32_t id) {
  for (uint32_t number = 0; number < GROUPS_MAX; number++)
    for (uint32_t i = 0; i < d->groups[number].n; i++)
      if (d->groups[number].points[i].id == id) return &d->groups[number].points[i];
  return NULL;
}

static int32_t write_one(driver* d, const edge_batch* commands, uint32_t row, int64_t end_ns) {
  const point* p = find(d, commands->tag[row]);
  uint8_t data[DATA_BYTES_MAX], status;
  uint32_t size;
  if (!p || !p->writable) return EDGE_UNSUPPORTED;
  int64_t value = commands->value[row].i;
  int is_whole = commands->kind[row] == EDGE_I64 || (commands->kind[row] == EDGE_U64 && value >= 0);
  if (!is_whole || (p->type == INT16 ? value != (int16_t)value : value != (uint16_t)value)) return EDGE_INVALID;
  int32_t r = ask(d, WRITE, p->reg, (uint16_t)value, end_ns, &status, data, &size);
  return r != EDGE_OK ? r : status ? EDGE_REFUSED : EDGE_OK;
}

static int32_t write_(void* self, const edge_batch* commands, int32_t* status, uint32_t budget_ms) {
  driver* d = self;
  int64_t end_ns = deadline_in(d, budget_ms);
  for (uint32_t row = 0; row < commands->n; row++) status[row] = write_one(d, commands, row, end_ns);
  return EDGE_OK;
}

static void disconnect(void* self) { (void)self; }

static void destroy(void* self) {
  driver* d = self;
  for (uint32_t number = 0; number < GROUPS_MAX; number++) free(d->groups[number].points);
  free(d);
}

static const edge_vtable VTABLE = {
    sizeof VTABLE, EDGE_DRIVER_API, EDGE_META,
    create, plan, connect_, poll, write_, disconnect, destroy,
};

EDGE_EXPORT const uint32_t driver_api = EDGE_DRIVER_API;
EDGE_EXPORT const edge_vtable* edge_driver_entry(uint32_t host_api) {
  return host_api == EDGE_DRIVER_API ? &VTABLE : NULL;
}
