/* Rows of a scan, one call for each, and the values to be written. The type of a tag says which call is for it; a value
 * of another kind than its tag's becomes BadTypeMismatch. All rows are of now.
 *
 * Each returns EDGE_OK, or EDGE_INTERNAL where the batch has no row left. A text that the heap has no room for is Bad.
 */
#ifndef ROWS_H
#define ROWS_H
#include <string.h>
#include "driver.h"

#define BAD_ENCODING_LIMITS_EXCEEDED 0x80080000u

static inline int32_t add_cell(edge_batch* out, uint32_t tag, uint8_t kind, edge_cell cell, uint32_t quality) {
  if (out->n >= out->cap) return EDGE_INTERNAL;
  out->tag[out->n] = tag;
  out->ts_ns[out->n] = 0;
  out->value[out->n] = cell;
  out->kind[out->n] = kind;
  out->quality[out->n++] = quality;
  return EDGE_OK;
}

/* Of any type: why there is no value, as OPC UA StatusCode. */
static inline int32_t add_bad(edge_batch* out, uint32_t tag, uint32_t quality) {
  return add_cell(out, tag, EDGE_NULL, (edge_cell){0}, quality);
}

/* bool */
static inline int32_t add_bool(edge_batch* out, uint32_t tag, int value) {
  return add_cell(out, tag, EDGE_BOOL, (edge_cell){.i = value != 0}, 0);
}

/* int8, int16, int32, int64, uint8, uint16, uint32 */
static inline int32_t add_int(edge_batch* out, uint32_t tag, int64_t value) {
  return add_cell(out, tag, EDGE_I64, (edge_cell){.i = value}, 0);
}

/* uint64 */
static inline int32_t add_uint(edge_batch* out, uint32_t tag, uint64_t value) {
  return add_cell(out, tag, EDGE_U64, (edge_cell){.u = value}, 0);
}

/* float32, float64 */
static inline int32_t add_real(edge_batch* out, uint32_t tag, double value) {
  return add_cell(out, tag, EDGE_F64, (edge_cell){.f = value}, 0);
}

static inline int32_t add_slice(edge_batch* out, uint32_t tag, uint8_t kind, const void* p, uint32_t n) {
  edge_cell cell = {.s = {out->heap_len, n}};
  if (n > out->heap_cap - out->heap_len) return add_bad(out, tag, BAD_ENCODING_LIMITS_EXCEEDED);
  if (n) memcpy(out->heap + out->heap_len, p, n);
  out->heap_len += n;
  return add_cell(out, tag, kind, cell, 0);
}

/* string: n bytes of UTF-8, without a 0 at the end */
static inline int32_t add_text(edge_batch* out, uint32_t tag, const char* utf8, uint32_t n) {
  return add_slice(out, tag, EDGE_STR, utf8, n);
}

/* bytes */
static inline int32_t add_blob(edge_batch* out, uint32_t tag, const uint8_t* p, uint32_t n) {
  return add_slice(out, tag, EDGE_BYTES, p, n);
}

/* The text or the bytes of a row that is to be written (EDGE_STR, EDGE_BYTES): n bytes. */
static inline const uint8_t* slice_of(const edge_batch* commands, uint32_t row, uint32_t* n) {
  *n = commands->value[row].s.len;
  return commands->heap + commands->value[row].s.off;
}
#endif
