/* Modbus TCP as a driver of the gateway: function codes 1 to 6, 15 and 16; neighbours share a request.
 *
 * Source: MODBUS Application Protocol Specification V1.1b3; MODBUS Messaging on TCP/IP Implementation Guide V1.0b.
 */
#include <inttypes.h>
#include <string.h>
#include "driver.h"
#include "points.h"

enum { GROUPS_MAX = 64, HEADER = 7, PDU_MAX = 253, WRITTEN_REGISTERS_MAX = 123, WRITTEN_BITS_MAX = 1968 };
enum { UNIT = 1, TIMEOUT_MS = 1000 };
/* OPC UA StatusCodes of what a device refuses. */
enum { BAD_NODE_ID_UNKNOWN = 0x80340000, BAD_NOT_SUPPORTED = 0x803D0000, BAD_DEVICE_FAILURE = 0x808B0000 };

typedef struct {
  const edge_host* host;
  uint8_t unit;
  uint32_t timeout_ms;
  uint16_t transaction;
  Group groups[GROUPS_MAX];
  uint8_t pdu[PDU_MAX]; /* of the last answer */
  int pdu_size;
} Driver;

/* Found by name in the file. */
const uint32_t driver_api = EDGE_DRIVER_API;

static int word_at(const uint8_t* at) { return at[0] << 8 | at[1]; }

static void put_word(uint8_t* at, int value) {
  at[0] = (uint8_t)(value >> 8);
  at[1] = (uint8_t)value;
}

/* -- the line ------------------------------------------------------------------------------------------------- */

/* Exactly n bytes before the end of time; now and end in ns. */
static int32_t read_exactly(Driver* d, uint8_t* at, int n, int64_t end) {
  while (n > 0) {
    int64_t left = (end - d->host->now_ns(d->host->ctx)) / 1000000;
    int32_t got = left > 0 ? d->host->recv(d->host->ctx, 0, at, (uint32_t)n, (uint32_t)left) : EDGE_TIMEOUT;
    if (got < 0) return got;
    at += got;
    n -= got;
  }
  return EDGE_OK;
}

/* One request and its answer, which is in d->pdu then. EDGE_REFUSED: with an exception code in d->pdu[1]. */
static int32_t ask(Driver* d, const uint8_t* pdu, int size, int* has_left) {
  uint8_t frame[HEADER + PDU_MAX];
  int64_t end = d->host->now_ns(d->host->ctx) + (int64_t)d->timeout_ms * 1000000;
  put_word(frame, ++d->transaction);
  put_word(frame + 2, 0); /* protocol: Modbus */
  put_word(frame + 4, size + 1);
  frame[6] = d->unit;
  memcpy(frame + HEADER, pdu, (size_t)size);
  *has_left = 1;
  int32_t status = d->host->send(d->host->ctx, 0, frame, (uint32_t)(HEADER + size));
  if (status) return status;
  for (;;) {
    uint8_t header[HEADER];
    if ((status = read_exactly(d, header, HEADER, end))) return status;
    d->pdu_size = word_at(header + 4) - 1;
    /* No frame of Modbus: where the next one begins is lost, and with it the line. */
    if (word_at(header + 2) || d->pdu_size < 2 || d->pdu_size > PDU_MAX) return EDGE_CLOSED;
    if ((status = read_exactly(d, d->pdu, d->pdu_size, end))) return status;
    if (word_at(header) == d->transaction && header[6] == d->unit) break; /* else: an answer that came too late */
  }
  if (d->pdu[0] == (pdu[0] | 0x80)) return EDGE_REFUSED;
  return d->pdu[0] == pdu[0] ? EDGE_OK : EDGE_INVALID;
}

/* -- reading -------------------------------------------------------------------------------------------------- */

static uint32_t quality_of(uint8_t exception) {
  return exception == 1 ? BAD_NOT_SUPPORTED : exception == 2 || exception == 3 ? BAD_NODE_ID_UNKNOWN : BAD_DEVICE_FAILURE;
}

static void put_value(const Point* point, const uint8_t* at, edge_batch* out, uint32_t row) {
  uint64_t bits = 0;
  for (int i = 0; i < point->size && i < 8; i++) bits = bits << 8 | at[point_byte(point, i)];
  switch (point->type) {
    case T_BOOL:
      out->kind[row] = EDGE_BOOL;
      out->value[row].u = point->bit < 0 ? bits != 0 : bits >> point->bit & 1;
      break;
    case T_INT:
      out->kind[row] = EDGE_I64;
      out->value[row].i = point->size == 2 ? (int16_t)bits : point->size == 4 ? (int32_t)bits : (int64_t)bits;
      break;
    case T_UINT:
      out->kind[row] = EDGE_U64;
      out->value[row].u = bits;
      break;
    case T_FLOAT: {
      uint32_t half = (uint32_t)bits;
      float single;
      memcpy(&single, &half, 4);
      out->kind[row] = EDGE_F64;
      if (point->size == 4) out->value[row].f = single;
      else memcpy(&out->value[row].f, &bits, 8);
      break;
    }
    case T_TEXT:
    case T_BYTES: {
      uint32_t n = (uint32_t)point->size;
      if (point->type == T_TEXT)
        while (n && !at[n - 1]) n--; /* texts are padded with zeros */
      if (n > out->heap_cap - out->heap_len) n = 0, out->quality[row] = BAD_DEVICE_FAILURE;
      out->kind[row] = point->type == T_TEXT ? EDGE_STR : EDGE_BYTES;
      out->value[row].s.off = out->heap_len;
      out->value[row].s.len = n;
      memcpy(out->heap + out->heap_len, at, n);
      out->heap_len += n;
    }
  }
}

static void put_rows(Driver* d, const Group* group, const Request* request, uint32_t quality, edge_batch* out) {
  const uint8_t* data = d->pdu + 2; /* behind function code and byte count */
  for (int i = request->first; i < request->first + request->points && out->n < out->cap; i++) {
    const Point* point = &group->points[i];
    int at = point->offset - request->offset;
    uint32_t row = out->n++;
    out->tag[row] = point->id;
    out->ts_ns[row] = 0;
    out->quality[row] = quality;
    out->kind[row] = EDGE_NULL;
    if (quality) continue;
    if (is_bits(point->area)) {
      out->kind[row] = EDGE_BOOL;
      out->value[row].u = data[at / 8] >> at % 8 & 1;
    } else {
      put_value(point, data + 2 * at, out, row);
    }
  }
}

static int32_t poll_group(void* self, uint32_t number, edge_batch* out, uint32_t budget_ms) {
  Driver* d = self;
  Group* group = &d->groups[number % GROUPS_MAX];
  int is_split = 0;
  (void)budget_ms; /* the host ends a wait that would last longer */
  for (int i = 0; i < group->request_count; i++) {
    const Request* request = &group->requests[i];
    uint8_t pdu[5] = {(uint8_t)request->area};
    int has_left;
    put_word(pdu + 1, request->offset);
    put_word(pdu + 3, request->count);
    int32_t status = ask(d, pdu, sizeof pdu, &has_left);
    if (status && status != EDGE_REFUSED) return status;
    int bytes = is_bits(request->area) ? (request->count + 7) / 8 : 2 * request->count;
    if (status == EDGE_OK && (d->pdu_size != 2 + bytes || d->pdu[1] != bytes)) return EDGE_INVALID;
    if (status == EDGE_REFUSED && request->points > 1) { /* one of them may be at fault: each on its own from now on */
      for (int p = request->first; p < request->first + request->points; p++) group->points[p].is_single = 1;
      is_split = 1;
      continue;
    }
    put_rows(d, group, request, status ? quality_of(d->pdu[1]) : 0, out);
  }
  if (!is_split) return EDGE_OK;
  out->n = out->heap_len = 0;
  return group_merge(group) ? poll_group(self, number, out, budget_ms) : EDGE_INTERNAL;
}

/* -- writing -------------------------------------------------------------------------------------------------- */

static const Point* find_point(Driver* d, uint32_t id) {
  for (int g = 0; g < GROUPS_MAX; g++)
    for (int i = 0; i < d->groups[g].count; i++)
      if (d->groups[g].points[i].id == id) return &d->groups[g].points[i];
  return NULL;
}

/* The registers of a value, behind `at`; 0: it does not fit them. */
static int put_registers(const Point* point, const edge_batch* commands, uint32_t row, uint8_t* at) {
  const edge_cell* cell = &commands->value[row];
  uint64_t bits = cell->u;
  memset(at, 0, (size_t)(2 * point->count));
  if (point->type == T_TEXT || point->type == T_BYTES) {
    if (cell->s.len > (uint32_t)point->size) return 0;
    memcpy(at, commands->heap + cell->s.off, cell->s.len);
    return 1;
  }
  if (point->type == T_FLOAT && point->size == 4) {
    float single = (float)cell->f;
    uint32_t half;
    memcpy(&half, &single, 4);
    bits = half;
  } else if (point->type == T_INT && point->size < 8) {
    int64_t most = (INT64_C(1) << (8 * point->size - 1)) - 1;
    if (cell->i > most || cell->i < -most - 1) return 0;
  } else if (point->type == T_UINT && point->size < 8 && bits >> 8 * point->size) {
    return 0;
  }
  for (int i = 0; i < point->size; i++) at[point_byte(point, i)] = (uint8_t)(bits >> 8 * (point->size - 1 - i));
  return 1;
}

/* Writes rows [first, end), which are neighbours: one request. */
static int32_t write_run(Driver* d, const edge_batch* commands, uint32_t first, uint32_t end, const Point** points) {
  const Point *from = points[first], *to = points[end - 1];
  int count = to->offset + to->count - from->offset, size = 5, has_left = 0;
  uint8_t pdu[PDU_MAX] = {0};
  put_word(pdu + 1, from->offset);
  if (from->area == COIL) {
    pdu[0] = count == 1 ? 5 : 15;
    put_word(pdu + 3, count == 1 ? (commands->value[first].u ? 0xFF00 : 0) : count);
    if (count > 1) {
      pdu[5] = (uint8_t)((count + 7) / 8);
      size = 6 + pdu[5];
      for (uint32_t row = first; row < end; row++)
        if (commands->value[row].u) pdu[6 + (row - first) / 8] |= (uint8_t)(1 << (row - first) % 8);
    }
  } else {
    pdu[0] = count == 1 ? 6 : 16;
    uint8_t* data = pdu + (count == 1 ? 3 : 6);
    for (uint32_t row = first; row < end; row++)
      if (!put_registers(points[row], commands, row, data + 2 * (points[row]->offset - from->offset)))
        return EDGE_INVALID;
    if (count > 1) {
      put_word(pdu + 3, count);
      pdu[5] = (uint8_t)(2 * count);
      size = 6 + 2 * count;
    }
  }
  return ask(d, pdu, size, &has_left);
}

static int32_t write_rows(void* self, const edge_batch* commands, int32_t* status, uint32_t budget_ms) {
  Driver* d = self;
  uint32_t rows = commands->n, first = 0;
  int64_t end_ns = d->host->now_ns(d->host->ctx) + (int64_t)budget_ms * 1000000;
  const Point** points = calloc(rows + 1, sizeof *points);
  int32_t line = EDGE_OK;
  if (!points) return EDGE_NOT_SENT;
  for (uint32_t row = 0; row < rows; row++) {
    points[row] = find_point(d, commands->tag[row]);
    if (points[row] && (is_bits(points[row]->area) ? points[row]->area != COIL : points[row]->area != HOLDING || points[row]->bit >= 0))
      points[row] = NULL;
  }
  while (first < rows) {
    uint32_t end = first + 1;
    if (!points[first]) {
      status[first++] = EDGE_UNSUPPORTED;
      continue;
    }
    int most = points[first]->area == COIL ? WRITTEN_BITS_MAX : WRITTEN_REGISTERS_MAX;
    while (end < rows && points[end] && points[end]->area == points[first]->area &&
           points[end]->offset == points[end - 1]->offset + points[end - 1]->count &&
           points[end]->offset + points[end]->count - points[first]->offset <= most)
      end++;
    int32_t came_to = EDGE_NOT_SENT; /* once the device is silent, nothing more is sent */
    if (!line && d->host->now_ns(d->host->ctx) < end_ns) {
      came_to = write_run(d, commands, first, end, points);
      if (came_to == EDGE_TIMEOUT || came_to == EDGE_CLOSED || came_to == EDGE_CANCELLED) line = came_to;
    }
    while (first < end) status[first++] = came_to;
  }
  free(points);
  return EDGE_OK;
}

/* -- the rest of the contract ----------------------------------------------------------------------------------- */

static int32_t create(const edge_host* host, const char* options, uint32_t n, void** self, char* err, uint32_t err_cap) {
  long unit = json_number(json_get(options, "unit"), UNIT);
  long timeout_ms = json_number(json_get(options, "timeout_ms"), TIMEOUT_MS);
  (void)n; /* the text ends with 0 */
  if (unit < 0 || unit > 255 || timeout_ms < 10 || timeout_ms > 60000) {
    snprintf(err, err_cap, "unit is from 0 to 255, timeout_ms from 10 to 60000");
    return EDGE_INVALID;
  }
  Driver* d = calloc(1, sizeof *d);
  if (!d) return EDGE_INTERNAL;
  d->host = host;
  d->unit = (uint8_t)unit;
  d->timeout_ms = (uint32_t)timeout_ms;
  *self = d;
  return EDGE_OK;
}

static int32_t plan(void* self, uint32_t number, const char* tags, uint32_t n, char* err, uint32_t err_cap) {
  Group* group = &((Driver*)self)->groups[number % GROUPS_MAX];
  size_t room = 0;
  int wrong_count = 0;
  uint32_t at = 0;
  (void)n; /* the text ends with 0 */
  group_clear(group);
  for (const char* tag = json_first(tags); tag; tag = json_next(tag)) {
    if ((size_t)group->count == room) {
      Point* more = realloc(group->points, (room = room ? 2 * room : 64) * sizeof(Point));
      if (!more) return EDGE_INTERNAL;
      group->points = more;
    }
    const char* key;
    const char* wrong = point_from(&group->points[group->count], tag, &key);
    if (!wrong) {
      group->count++;
      continue;
    }
    int said = snprintf(err + at, err_cap - at, "%s{\"tag\": %" PRIu32 ", \"key\": \"%s\", \"text\": \"%s\"}",
                        wrong_count ? ", " : "[", group->points[group->count].id, key, wrong);
    if ((uint32_t)said >= err_cap - at - 1) break; /* the others will be named once these are right */
    at += (uint32_t)said;
    wrong_count++;
  }
  if (wrong_count) {
    snprintf(err + at, err_cap - at, "]");
    return EDGE_INVALID;
  }
  return group_merge(group) ? EDGE_OK : EDGE_INTERNAL;
}

static int32_t connect_device(void* self, uint32_t channels, char* err, uint32_t err_cap) {
  (void)self;
  if (channels) return EDGE_OK;
  snprintf(err, err_cap, "needs an endpoint, such as tcp://192.0.2.10:502");
  return EDGE_INVALID;
}

static void disconnect(void* self) { (void)self; }

static void destroy(void* self) {
  Driver* d = self;
  for (int i = 0; i < GROUPS_MAX; i++) group_clear(&d->groups[i]);
  free(d);
}

static const edge_vtable table = {
  sizeof(edge_vtable), EDGE_DRIVER_API, "{\"name\": \"modbus-c\", \"version\": \"0.1.0\"}",
  create, plan, connect_device, poll_group, write_rows, disconnect, destroy,
};

EDGE_EXPORT const edge_vtable* edge_driver_entry(uint32_t host_api) { return host_api >= EDGE_DRIVER_API ? &table : NULL; }
