/* The native driver contract, driver_api = 1: a protocol's client as a shared library.
 *
 * The gateway reads `driver_api` from the ELF file before anything of it is loaded, then calls edge_driver_entry once.
 * One instance serves one device. Calls on one instance never overlap; they come from one thread.
 *
 *     create      options -> instance; no I/O
 *     plan        tags of one scan class, or tags to be written -> a group that poll reads, numbered below 64; pure;
 *                 again for the same number: replaces it, also by no tags
 *     connect     channels 0..n-1 are open; make the device ready to be read; after every loss again, here or on a new
 *                 instance
 *     poll        one scan of one group: a row for each of its tags
 *     write       one status per row
 *     disconnect  always after connect, also after a failed one; it and destroy have 0.4 s together
 *     destroy     the last call
 *
 * There is no loop, no retry and no back-off in a driver: the gateway owns them. Lines are opened by the gateway; a
 * driver uses send and recv. Structures carry their size, and fields are only ever added at their end: what lies behind
 * `size` does not exist for the other side.
 */
#ifndef EDGE_DRIVER_H
#define EDGE_DRIVER_H
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define EDGE_DRIVER_API 1u
#define EDGE_EXPORT __attribute__((visibility("default")))

/* What a call came to.
 * poll   rows that are in the batch count in any case; a tag without one is Bad for the reason that the status is.
 *        After EDGE_OK that is a fault of the driver: BadNoData, and the operator hears of it.
 * write  the status of one row; EDGE_NOT_SENT only where no byte of it has left, EDGE_REFUSED where the device said no,
 *        EDGE_TIMEOUT, EDGE_CLOSED and EDGE_INTERNAL where nobody knows */
enum {
  EDGE_OK = 0, EDGE_TIMEOUT = -1, EDGE_CLOSED = -2, EDGE_REFUSED = -3, EDGE_INVALID = -4, EDGE_UNSUPPORTED = -5,
  EDGE_INTERNAL = -6, EDGE_CANCELLED = -7, EDGE_NOT_SENT = -8, EDGE_BUSY = -9
};
/* What a cell holds, and the types of tags that it is for. A cell of another kind makes its row BadTypeMismatch; only in
 * a process of its own a driver's I64 and U64 are taken for each other, within the range of the tag.
 * EDGE_NULL    nothing: a row of Bad quality, of any type
 * EDGE_BOOL    i, 0 or 1                           bool
 * EDGE_I64     i                                   int8, int16, int32, int64, uint8, uint16, uint32
 * EDGE_U64     u                                   uint64
 * EDGE_F64     f                                   float32, float64
 * EDGE_STR     s, UTF-8 without a 0 at its end     string
 * EDGE_BYTES   s                                   bytes */
enum { EDGE_NULL = 0, EDGE_BOOL = 1, EDGE_I64 = 2, EDGE_U64 = 3, EDGE_F64 = 4, EDGE_STR = 5, EDGE_BYTES = 6 };

/* s: a slice of the batch's heap: len bytes from heap[off]. */
typedef union { int64_t i; uint64_t u; double f; struct { uint32_t off, len; } s; } edge_cell;

/* Columns are owned by the host; the driver fills rows [0, n) and heap [0, heap_len). tag: ids as plan was told.
 * ts_ns: when the value was so, UTC; 0: now. quality: OPC UA StatusCode, 0 is Good. */
typedef struct edge_batch {
  uint32_t size, cap, n, heap_cap, heap_len, flags;
  uint32_t* tag;
  int64_t* ts_ns;
  edge_cell* value;
  uint8_t* kind;
  uint32_t* quality;
  uint8_t* heap;
} edge_batch;

/* Valid until destroy has returned. */
typedef struct edge_host {
  uint32_t size, api;
  void* ctx;
  int32_t (*send)(void* ctx, uint32_t chan, const uint8_t* p, uint32_t n);                   /* EDGE_OK or EDGE_* */
  int32_t (*recv)(void* ctx, uint32_t chan, uint8_t* p, uint32_t cap, uint32_t timeout_ms);  /* bytes, or EDGE_* */
  void    (*log)(void* ctx, int32_t level, const char* utf8, uint32_t n);                    /* 0 debug .. 3 error */
  int64_t (*now_ns)(void* ctx);
  int32_t (*cancelled)(void* ctx);
} edge_host;

/* err: text that ends with 0, cut at err_cap. plan may write JSON instead: [{"tag": id, "key": "address", "text": why}].
 * options_json: the `options` of the device's row. tags_json: [{"id", "name", "address", "type", "access", "options"}];
 * `type` is one of bool int8 .. uint64 float32 float64 string bytes. */
typedef struct edge_vtable {
  uint32_t size, api;
  const char* meta_json;                                        /* {"name": ..., "version": ...} */
  int32_t (*create)(const edge_host*, const char* options_json, uint32_t n, void** self, char* err, uint32_t err_cap);
  int32_t (*plan)(void* self, uint32_t group, const char* tags_json, uint32_t n, char* err, uint32_t err_cap);
  int32_t (*connect)(void* self, uint32_t channels, char* err, uint32_t err_cap);
  int32_t (*poll)(void* self, uint32_t group, edge_batch* out, uint32_t budget_ms);
  int32_t (*write)(void* self, const edge_batch* commands, int32_t* status, uint32_t budget_ms);
  void    (*disconnect)(void* self);
  void    (*destroy)(void* self);
} edge_vtable;

extern EDGE_EXPORT const uint32_t driver_api;                   /* read from the file, never from memory */
EDGE_EXPORT const edge_vtable* edge_driver_entry(uint32_t host_api); /* NULL: refused */

#ifdef __cplusplus
}
#endif
#endif
