/* Tags as places in a Modbus device, and the few requests that read them all. */
#ifndef POINTS_H
#define POINTS_H
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include "json.h"

typedef enum { COIL = 1, DISCRETE = 2, HOLDING = 3, INPUT = 4 } Area; /* the function code that reads it */
typedef enum { T_BOOL, T_INT, T_UINT, T_FLOAT, T_TEXT, T_BYTES } Type;

enum {
  REGISTERS_MAX = 125, BITS_MAX = 2000, /* of one request: MODBUS Application Protocol V1.1b3, 6.1 and 6.3 */
  GAP_REGISTERS = 8, GAP_BITS = 128     /* read along, so that neighbours share a request */
};

/* offset and count in registers, or in bits for coils and discrete inputs. size: bytes of the value. bit: of a
 * register, -1: the whole. is_single: read on its own, since the device refused it in company. */
typedef struct {
  uint32_t id;
  Area area;
  Type type;
  int offset, count, size, bit, is_words_little, is_bytes_little, is_single;
} Point;

/* Reads `count` from `offset`; answers points [first, first + points) of its group. */
typedef struct { Area area; int offset, count, first, points; } Request;

typedef struct { Point* points; Request* requests; int count, request_count; } Group;

static int is_bits(Area area) { return area == COIL || area == DISCRETE; }

/* hr:12  ir:12  di:12  coil:12 (from 0), or 4x00013 (from 1); .3 behind a register: its bit. NULL, or what is wrong. */
static const char* point_place(Point* point, const char* address) {
  static const struct { const char* word; Area area; } words[] = {
    {"hr:", HOLDING}, {"ir:", INPUT}, {"di:", DISCRETE}, {"coil:", COIL},
    {"4x", HOLDING}, {"3x", INPUT}, {"1x", DISCRETE}, {"0x", COIL},
  };
  for (size_t i = 0; i < sizeof words / sizeof *words; i++) {
    size_t n = strlen(words[i].word);
    if (strncmp(address, words[i].word, n)) continue;
    char* end;
    long offset = strtol(address + n, &end, 10) - (i >= 4);
    if (end == address + n || offset < 0 || offset > 65535) return "the number is not one from 0 (hr:) or 1 (4x) to 65535";
    point->area = words[i].area;
    point->offset = (int)offset;
    point->bit = -1;
    if (*end == '.' && !is_bits(point->area)) {
      long bit = strtol(end + 1, &end, 10);
      if (bit < 0 || bit > 15) return "a register has bits 0 to 15";
      point->bit = (int)bit;
    }
    return *end ? "something is left over behind the number" : NULL;
  }
  return "write it like hr:12, ir:12, di:12, coil:12 or 4x00013";
}

/* From one tag of plan's JSON. NULL, or what is wrong; *key is the column at fault. */
static const char* point_from(Point* point, const char* tag, const char** key) {
  static const struct { const char* name; Type type; int size; } types[] = {
    {"bool", T_BOOL, 2}, {"int16", T_INT, 2}, {"int32", T_INT, 4}, {"int64", T_INT, 8}, {"uint16", T_UINT, 2},
    {"uint32", T_UINT, 4}, {"uint64", T_UINT, 8}, {"float32", T_FLOAT, 4}, {"float64", T_FLOAT, 8},
    {"string", T_TEXT, 0}, {"bytes", T_BYTES, 0},
  };
  char address[64];
  memset(point, 0, sizeof *point);
  point->id = (uint32_t)json_number(json_get(tag, "id"), 0);
  *key = "address";
  const char* wrong = point_place(point, json_text(json_get(tag, "address"), address, sizeof address));
  if (wrong) return wrong;
  *key = "type";
  const char* type = json_get(tag, "type");
  size_t i = 0, n = sizeof types / sizeof *types;
  while (i < n && !json_is(type, types[i].name)) i++;
  if (i == n) return "is none that this driver reads";
  point->type = types[i].type;
  point->size = types[i].size;
  if (is_bits(point->area) && point->type != T_BOOL) return "one bit is a bool";
  if (point->bit >= 0 && point->type != T_BOOL) return "a bit of a register is a bool";
  const char* options = json_get(tag, "options");
  point->is_words_little = options && json_is(json_get(options, "word_order"), "little");
  point->is_bytes_little = options && json_is(json_get(options, "byte_order"), "little");
  if (!point->size) {
    *key = "length";
    point->size = options ? (int)json_number(json_get(options, "length"), 0) : 0;
    if (point->size < 1 || point->size > 2 * REGISTERS_MAX) return "is missing, or not from 1 to 250 bytes";
  }
  point->count = is_bits(point->area) ? 1 : (point->size + 1) / 2;
  *key = "address";
  return point->offset + point->count > 65536 ? "ends beyond 65535" : NULL;
}

/* Where in its registers the byte lies that is number i of a value, the most significant first. */
static int point_byte(const Point* point, int i) {
  if (point->type == T_TEXT || point->type == T_BYTES) return i;
  int word = i / 2, byte = i % 2;
  if (point->is_words_little) word = point->size / 2 - 1 - word;
  return 2 * word + (point->is_bytes_little ? 1 - byte : byte);
}

static int point_order(const void* a, const void* b) {
  const Point *x = a, *y = b;
  if (x->area != y->area) return (int)x->area - (int)y->area;
  return x->offset != y->offset ? x->offset - y->offset : x->count - y->count;
}

/* Requests for the points of a group, which are sorted here; 0: there is no memory. */
static int group_merge(Group* group) {
  qsort(group->points, (size_t)group->count, sizeof(Point), point_order);
  free(group->requests);
  group->requests = malloc((size_t)group->count * sizeof(Request) + 1);
  group->request_count = 0;
  if (!group->requests) return 0;
  for (int i = 0; i < group->count; i++) {
    const Point* point = &group->points[i];
    Request* last = group->request_count ? &group->requests[group->request_count - 1] : NULL;
    int end = point->offset + point->count;
    int gap = is_bits(point->area) ? GAP_BITS : GAP_REGISTERS, most = is_bits(point->area) ? BITS_MAX : REGISTERS_MAX;
    int fits = last && last->area == point->area && point->offset <= last->offset + last->count + gap &&
               end - last->offset <= most && !point->is_single && !group->points[last->first].is_single;
    if (!fits) {
      group->requests[group->request_count++] = (Request){point->area, point->offset, point->count, i, 1};
      continue;
    }
    if (end > last->offset + last->count) last->count = end - last->offset;
    last->points++;
  }
  return 1;
}

static void group_clear(Group* group) {
  free(group->points);
  free(group->requests);
  memset(group, 0, sizeof *group);
}
#endif
