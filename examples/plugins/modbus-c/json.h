/* Reading JSON, as much of it as a driver is given: a cursor over text that is known to end with 0. */
#ifndef JSON_H
#define JSON_H
#include <stdlib.h>
#include <string.h>

enum { JSON_DEPTH_MAX = 32 };

static const char* json_blank(const char* at) { return at + strspn(at, " \t\r\n"); }

/* Behind one value; NULL where there is none. */
static const char* json_skip(const char* at, int depth) {
  at = json_blank(at);
  if (*at == '"') {
    for (at++; *at && *at != '"'; at++)
      if (*at == '\\' && at[1]) at++;
    return *at ? at + 1 : NULL;
  }
  if (*at == '{' || *at == '[') {
    char close = *at == '{' ? '}' : ']';
    if (depth > JSON_DEPTH_MAX) return NULL;
    at = json_blank(at + 1);
    while (*at && *at != close) {
      if (close == '}') {
        at = json_skip(at, depth + 1);
        if (!at || *(at = json_blank(at)) != ':') return NULL;
        at++;
      }
      at = json_skip(at, depth + 1);
      if (!at) return NULL;
      at = json_blank(at);
      if (*at == ',') at = json_blank(at + 1);
    }
    return *at ? at + 1 : NULL;
  }
  size_t n = strcspn(at, ",]} \t\r\n");
  return n ? at + n : NULL;
}

/* The value of a key of an object; NULL: it has no such key. */
static const char* json_get(const char* object, const char* key) {
  size_t n = strlen(key);
  const char* at = json_blank(object);
  if (*at != '{') return NULL;
  at = json_blank(at + 1);
  while (at && *at == '"') {
    int is_it = !strncmp(at + 1, key, n) && at[n + 1] == '"';
    at = json_skip(at, 0);
    if (!at || *(at = json_blank(at)) != ':') return NULL;
    at = json_blank(at + 1);
    if (is_it) return at;
    at = json_skip(at, 0);
    if (at && *(at = json_blank(at)) == ',') at = json_blank(at + 1);
  }
  return NULL;
}

/* The first item of a list, and the one behind another; NULL: there is none. */
static const char* json_first(const char* list) {
  const char* at = json_blank(list);
  if (*at != '[') return NULL;
  at = json_blank(at + 1);
  return *at == ']' || !*at ? NULL : at;
}

static const char* json_next(const char* item) {
  const char* at = json_skip(item, 0);
  return at && *(at = json_blank(at)) == ',' ? json_blank(at + 1) : NULL;
}

static long json_number(const char* value, long absent) { return value ? strtol(value, NULL, 10) : absent; }

/* A text without escapes, cut at the buffer's end; "" where it is none. */
static const char* json_text(const char* value, char* buffer, size_t size) {
  size_t n = 0;
  if (value && *value == '"')
    for (value++; value[n] && value[n] != '"' && n + 1 < size; n++) buffer[n] = value[n];
  buffer[n] = 0;
  return buffer;
}

static int json_is(const char* value, const char* text) {
  size_t n = strlen(text);
  return value && *value == '"' && !strncmp(value + 1, text, n) && value[n + 1] == '"';
}
#endif
