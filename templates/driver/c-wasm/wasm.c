/* Carries a driver of driver.h into WASM: the calls of driver.wit by the Component Model's canonical ABI.
 *
 * What the host passes in it has allocated with cabi_realloc, so it is freed here; what is passed out stays until the
 * next call. Rows are collected in a batch and handed over after each poll, one kind at a time.
 */
#include <stdlib.h>
#include <string.h>
#include "driver.h"

#define IMPORT(name) __attribute__((import_module("edge:driver/host@0.2.0"), import_name(name)))
#define EXPORT(name) __attribute__((export_name(name)))
#define GUEST "edge:driver/guest@0.2.0#"
enum { ROWS_MAX = 8192, HEAP_BYTES = 65536, ERR_BYTES = 1024 };
enum { REALS = 0, INTS = 1, UINTS = 2, BOOLS = 3, TEXTS = 4, BLOBS = 5 };

typedef struct { uint32_t at, n; } slice;
typedef struct { uint8_t tag; union { uint8_t errc; slice data; } u; } received;

IMPORT("send") void host_send(uint32_t chan, const uint8_t* p, uint32_t n, uint8_t* result);
IMPORT("recv") void host_recv(uint32_t chan, uint32_t max, uint32_t timeout_ms, received* result);
IMPORT("emit") void host_emit(const uint32_t* tag, uint32_t tags, const int64_t* ts, uint32_t times, const uint32_t* quality,
                              uint32_t qualities, uint32_t kind, const void* value, uint32_t values);
IMPORT("log") void host_log(uint32_t level, const char* text, uint32_t n);
IMPORT("now-ns") int64_t host_now_ns(void);
IMPORT("cancelled") uint32_t host_cancelled(void);

static const edge_vtable* table;
static void* instance;
static uint32_t answer[4];
static char err[ERR_BYTES];

static uint32_t tag_[ROWS_MAX], quality_[ROWS_MAX];
static int64_t ts_ns_[ROWS_MAX];
static edge_cell value_[ROWS_MAX];
static uint8_t kind_[ROWS_MAX], heap_[HEAP_BYTES];
static edge_batch batch = {sizeof batch, ROWS_MAX, 0, HEAP_BYTES, 0, 0, tag_, ts_ns_, value_, kind_, quality_, heap_};

/* -- what the driver may ask for ----------------------------------------------------------------------------------- */

static int32_t send_(void* ctx, uint32_t chan, const uint8_t* p, uint32_t n) {
  uint8_t result[2];
  (void)ctx;
  host_send(chan, p, n, result);
  return result[0] ? -1 - result[1] : EDGE_OK;
}

static int32_t recv_(void* ctx, uint32_t chan, uint8_t* p, uint32_t cap, uint32_t timeout_ms) {
  received r;
  (void)ctx;
  host_recv(chan, cap, timeout_ms, &r);
  if (r.tag) return -1 - r.u.errc;
  uint32_t n = r.u.data.n < cap ? r.u.data.n : cap;
  if (r.u.data.n) {
    memcpy(p, (void*)(uintptr_t)r.u.data.at, n);
    free((void*)(uintptr_t)r.u.data.at);
  }
  return (int32_t)n;
}

static void log_(void* ctx, int32_t level, const char* text, uint32_t n) { (void)ctx; host_log((uint32_t)level, text, n); }
static int64_t now_ns_(void* ctx) { (void)ctx; return host_now_ns(); }
static int32_t cancelled_(void* ctx) { (void)ctx; return (int32_t)host_cancelled(); }
static const edge_host HOST = {sizeof HOST, EDGE_DRIVER_API, NULL, send_, recv_, log_, now_ns_, cancelled_};

/* -- what the gateway calls ----------------------------------------------------------------------------------------- */

EXPORT("cabi_realloc") void* cabi_realloc(void* old, size_t old_size, size_t align, size_t size) {
  (void)old_size; /* malloc aligns to 16, which is more than any type of the contract asks for */
  if (size == 0) return (void*)(uintptr_t)align;
  void* memory = realloc(old, size);
  if (!memory) __builtin_trap();
  return memory;
}

static void give_back(const void* p, uint32_t n) {
  if (n) free((void*)(uintptr_t)p);
}

/* result<_, string> */
static uint32_t* refusal(int32_t status) {
  if (status != EDGE_OK && !err[0]) strcpy(err, "the driver refused, and did not say why");
  answer[0] = status != EDGE_OK;
  answer[1] = (uint32_t)(uintptr_t)err;
  answer[2] = status != EDGE_OK ? strlen(err) : 0;
  return answer;
}

EXPORT(GUEST "meta") uint32_t* guest_meta(void) {
  table = edge_driver_entry(EDGE_DRIVER_API);
  answer[0] = (uint32_t)(uintptr_t)table->meta_json;
  answer[1] = strlen(table->meta_json);
  return answer;
}

EXPORT(GUEST "create") uint32_t* guest_create(const char* options, uint32_t n) {
  table = edge_driver_entry(EDGE_DRIVER_API);
  if (instance) table->destroy(instance);
  instance = NULL;
  err[0] = 0;
  int32_t status = table->create(&HOST, options, n, &instance, err, sizeof err);
  give_back(options, n);
  return refusal(status);
}

EXPORT(GUEST "plan") uint32_t* guest_plan(uint32_t group, const char* tags, uint32_t n) {
  err[0] = 0;
  int32_t status = table->plan(instance, group, tags, n, err, sizeof err);
  give_back(tags, n);
  return refusal(status);
}

EXPORT(GUEST "connect") uint32_t* guest_connect(uint32_t channels) {
  err[0] = 0;
  return refusal(table->connect(instance, channels, err, sizeof err));
}

static uint32_t column_of(uint8_t kind) {
  switch (kind) {
    case EDGE_BOOL: return BOOLS;
    case EDGE_I64: return INTS;
    case EDGE_U64: return UINTS;
    case EDGE_STR: return TEXTS;
    case EDGE_BYTES: return BLOBS;
    default: return REALS; /* EDGE_NULL: a Bad row may be of any kind */
  }
}

/* Hand over the rows of one kind. */
static void emit_column(uint32_t column) {
  static uint32_t tag[ROWS_MAX], quality[ROWS_MAX];
  static int64_t ts[ROWS_MAX];
  static union { edge_cell cell[ROWS_MAX]; uint8_t bits[ROWS_MAX]; slice text[ROWS_MAX]; } value;
  uint32_t n = 0;
  for (uint32_t row = 0; row < batch.n; row++) {
    if (column_of(kind_[row]) != column) continue;
    tag[n] = tag_[row];
    quality[n] = quality_[row];
    ts[n] = ts_ns_[row];
    if (column == BOOLS) value.bits[n] = value_[row].i != 0;
    else if (column >= TEXTS) value.text[n] = (slice){(uint32_t)(uintptr_t)heap_ + value_[row].s.off, value_[row].s.len};
    else if (kind_[row] == EDGE_NULL) value.cell[n].i = 0;
    else value.cell[n] = value_[row];
    n++;
  }
  if (n) host_emit(tag, n, ts, n, quality, n, column, &value, n);
}

EXPORT(GUEST "poll") uint32_t* guest_poll(uint32_t group, uint32_t budget_ms) {
  batch.n = batch.heap_len = 0;
  int32_t status = table->poll(instance, group, &batch, budget_ms);
  for (uint32_t column = REALS; column <= BLOBS; column++) emit_column(column);
  answer[0] = status != EDGE_OK;
  answer[1] = status != EDGE_OK ? (uint32_t)(-1 - status) : batch.n;
  return answer;
}

/* The commands as a batch; 0 where there are too many. */
static int take(const uint32_t* tag, uint32_t tags, uint32_t column, const void* value) {
  if (tags > ROWS_MAX) return 0;
  batch.n = tags;
  batch.heap_len = 0;
  for (uint32_t row = 0; row < tags; row++) {
    static const uint8_t KINDS[] = {EDGE_F64, EDGE_I64, EDGE_U64, EDGE_BOOL, EDGE_STR, EDGE_BYTES};
    tag_[row] = tag[row];
    kind_[row] = KINDS[column];
    ts_ns_[row] = quality_[row] = 0;
    if (column < BOOLS) value_[row] = ((const edge_cell*)value)[row];
    else if (column == BOOLS) value_[row].i = ((const uint8_t*)value)[row];
    else {
      slice s = ((const slice*)value)[row];
      if (s.n > HEAP_BYTES - batch.heap_len) return 0;
      memcpy(heap_ + batch.heap_len, (void*)(uintptr_t)s.at, s.n);
      value_[row].s.off = batch.heap_len;
      value_[row].s.len = s.n;
      batch.heap_len += s.n;
    }
  }
  return 1;
}

EXPORT(GUEST "write") uint32_t* guest_write(const uint32_t* tag, uint32_t tags, const int64_t* ts, uint32_t times,
                                            const uint32_t* quality, uint32_t qualities, uint32_t column, const void* value,
                                            uint32_t values, uint32_t budget_ms) {
  static int32_t status[ROWS_MAX];
  static uint8_t told[ROWS_MAX];
  int is_taken = take(tag, tags, column, value), result = EDGE_NOT_SENT;
  for (uint32_t row = 0; column >= TEXTS && row < values; row++) {
    slice s = ((const slice*)value)[row];
    give_back((void*)(uintptr_t)s.at, s.n);
  }
  give_back(tag, tags);
  give_back(ts, times);
  give_back(quality, qualities);
  give_back(value, values);
  if (is_taken) result = table->write(instance, &batch, status, budget_ms);
  if (result != EDGE_OK) {
    answer[0] = 1;
    answer[1] = (uint32_t)(-1 - result);
    return answer;
  }
  for (uint32_t row = 0; row < tags; row++) told[row] = (uint8_t)-status[row];
  answer[0] = 0;
  answer[1] = (uint32_t)(uintptr_t)told;
  answer[2] = tags;
  return answer;
}

EXPORT(GUEST "disconnect") void guest_disconnect(void) { table->disconnect(instance); }
