/* A reader of the JSON that the gateway hands over: no allocation, bounded depth, text in and slices out.
 *
 *     struct json all = json_of(text, n), tag, address;
 *     for (struct json rest = json_first(all); json_next(&rest, &tag);)      elements of an array
 *         if (json_member(tag, "address", &address)) ...                     a value of an object
 */
#ifndef JSON_H
#define JSON_H
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

struct json { const char* at; const char* end; };

static const char* json_blank(const char* p, const char* end) {
  while (p < end && (*p == ' ' || *p == '\n' || *p == '\r' || *p == '\t' || *p == ',' || *p == ':')) p++;
  return p;
}

/* Behind the value that begins at p; NULL where none ends. */
static const char* json_skip(const char* p, const char* end) {
  int depth = 0;
  for (p = json_blank(p, end); p < end; p++) {
    if (*p == '"') {
      for (p++; p < end && *p != '"'; p++)
        if (*p == '\\') p++;
      if (p >= end) return NULL;
    } else if (*p == '{' || *p == '[') {
      depth++;
      continue;
    } else if (*p == '}' || *p == ']') {
      depth--;
    } else if (depth == 0) {
      while (p < end && !strchr(" \n\r\t,:}]", *p)) p++;
      return p;
    }
    if (depth < 0) return NULL;
    if (depth == 0) return p + 1;
  }
  return NULL;
}

static struct json json_of(const char* text, uint32_t n) { return (struct json){json_blank(text, text + n), text + n}; }

/* The inside of an array or object; empty for anything else. */
static struct json json_first(struct json value) {
  int has = value.at < value.end && (*value.at == '[' || *value.at == '{');
  return (struct json){has ? value.at + 1 : value.end, value.end};
}

/* Take the next value off `rest`; 0 at the end. */
static int json_next(struct json* rest, struct json* value) {
  rest->at = json_blank(rest->at, rest->end);
  const char* behind = rest->at < rest->end && !strchr("]}", *rest->at) ? json_skip(rest->at, rest->end) : NULL;
  if (!behind) return 0;
  *value = (struct json){rest->at, behind};
  rest->at = behind;
  return 1;
}

/* Whether a value is this text; escapes are not undone: names and keywords have none. */
static int json_is(struct json value, const char* text) {
  size_t n = strlen(text);
  return (size_t)(value.end - value.at) == n + 2 && *value.at == '"' && memcmp(value.at + 1, text, n) == 0;
}

static int json_member(struct json object, const char* name, struct json* value) {
  struct json key, rest = json_first(object);
  while (json_next(&rest, &key) && json_next(&rest, value))
    if (json_is(key, name)) return 1;
  return 0;
}

/* A whole number, also one in quotes; `missing` where there is none in low..high. */
static int64_t json_int(struct json value, int64_t low, int64_t high, int64_t missing) {
  char text[24] = {0};
  size_t quote = value.at < value.end && *value.at == '"', n = (size_t)(value.end - value.at) - 2 * quote;
  if (value.end <= value.at || n == 0 || n >= sizeof text) return missing;
  memcpy(text, value.at + quote, n);
  char* behind;
  long long number = strtoll(text, &behind, 10);
  return *behind || number < low || number > high ? missing : number;
}
#endif
