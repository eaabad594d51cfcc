/* A host that hands the C template damaged plans and damaged answers, under sanitizers: ROUNDS SEED.
 *
 * Buffers are of exactly the size that the driver is told, so that one byte beyond is found.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "driver.h"

enum { PLAN_BYTES = 8192, ANSWER_BYTES = 8192, RANDOM_BYTES = 4000 };

static uint64_t state;
static int64_t now;
static uint8_t answer[ANSWER_BYTES];
static uint32_t have, taken;

static uint32_t draw(uint32_t below) {
  state ^= state << 13, state ^= state >> 7, state ^= state << 17; /* xorshift64 */
  return (uint32_t)(state % below);
}

static void damage(uint8_t* p, uint32_t n) {
  for (uint32_t left = 1 + draw(4); n && left; left--) p[draw(n)] ^= (uint8_t)(1 << draw(8));
}

/* Prepare the answer to a request: sometimes behind a late one, damaged, cut, or no answer at all. */
static int32_t take_request(void* ctx, uint32_t chan, const uint8_t* p, uint32_t n) {
  (void)ctx, (void)chan;
  if (n != 6 || draw(50) == 0) return EDGE_CLOSED;
  uint32_t size = p[0] == 1 ? (2u * (p[4] << 8 | p[5])) & 255 : 0;
  taken = have = 0;
  if (draw(4) == 0) have = 4 + (answer[3] = (uint8_t)draw(20)), answer[0] = 1, answer[1] = (uint8_t)draw(256);
  uint8_t* head = answer + have;
  head[0] = p[0], head[1] = p[1], head[2] = draw(3) ? 0 : (uint8_t)draw(256), head[3] = head[2] ? 0 : (uint8_t)size;
  have += 4 + head[3];
  if (draw(3) == 0) damage(answer, have);
  if (draw(5) == 0) have = draw(have + 1);
  if (draw(9) == 0)
    for (have = 0; have < RANDOM_BYTES; have++) answer[have] = (uint8_t)draw(256);
  return EDGE_OK;
}

static int32_t give_answer(void* ctx, uint32_t chan, uint8_t* p, uint32_t cap, uint32_t timeout_ms) {
  (void)ctx, (void)chan;
  now += 1000;
  if (taken == have) {
    now += (int64_t)timeout_ms * 1000000;
    return draw(2) ? EDGE_TIMEOUT : 0;
  }
  uint32_t n = have - taken < cap ? have - taken : cap;
  if (n && draw(2)) n = 1 + draw(n);
  memcpy(p, answer + taken, n);
  taken += n;
  return (int32_t)n;
}

static void take_log(void* ctx, int32_t level, const char* text, uint32_t n) { (void)ctx, (void)level, (void)text, (void)n; }
static int64_t now_ns(void* ctx) { (void)ctx; return now; }
static int32_t is_cancelled(void* ctx) { (void)ctx; return 0; }

static void* exact(const void* p, size_t n) {
  void* copy = malloc(n ? n : 1);
  if (p) memcpy(copy, p, n);
  return copy;
}

static void plan(const edge_vtable* table, void* driver) {
  static const char* const TYPES[] = {"uint16", "int16", "uint32", "int32", "float32", "bool"};
  char text[PLAN_BYTES], n_tags = (char)draw(20);
  uint32_t n = 0, cap = draw(3) ? 256 : draw(8);
  text[n++] = '[';
  for (int i = 0; i < n_tags; i++)
    n += (uint32_t)sprintf(text + n, "%s{\"id\": %d, \"name\": \"t\\\"%d\", \"address\": \"%u\", \"type\": \"%s\", "
                           "\"access\": \"%s\", \"options\": {\"a\": [1, {\"b\": null}]}}", i ? ", " : "", i + 1, i,
                           draw(3) ? draw(30) : draw(70000), TYPES[draw(draw(3) ? 5 : 6)], draw(6) ? "R" : "RW");
  text[n++] = ']';
  if (draw(3) == 0) damage((uint8_t*)text, n);
  if (draw(6) == 0) n = draw(n + 1);
  char *told = exact(text, n), *err = exact(NULL, cap);
  table->plan(driver, draw(18), told, n, err, cap);
  free(told), free(err);
}

static void poll_and_write(const edge_vtable* table, void* driver) {
  uint32_t cap = draw(4) ? 64 : draw(10);
  edge_batch batch = {sizeof batch, cap, 0, 0, 0, 0, exact(NULL, 4 * cap), exact(NULL, 8 * cap), exact(NULL, 8 * cap),
                      exact(NULL, cap), exact(NULL, 4 * cap), NULL};
  table->poll(driver, draw(18), &batch, 100);
  if (batch.n > cap) abort();
  for (uint32_t row = 0; row < cap; row++)
    batch.tag[row] = draw(25), batch.value[row].i = (int64_t)draw(70000) - 1000, batch.kind[row] = (uint8_t)draw(8);
  batch.n = cap;
  int32_t* status = exact(NULL, 4 * cap);
  table->write(driver, &batch, status, 100);
  free(status), free(batch.tag), free(batch.ts_ns), free(batch.value), free(batch.kind), free(batch.quality);
}

int main(int count, char** words) {
  static const edge_host HOST = {sizeof HOST, EDGE_DRIVER_API, NULL, take_request, give_answer, take_log, now_ns,
                                 is_cancelled};
  const edge_vtable* table = edge_driver_entry(EDGE_DRIVER_API);
  void* driver = NULL;
  char err[256];
  if (count != 3 || table->create(&HOST, "{\"timeout_ms\": 50}", 18, &driver, err, sizeof err) != EDGE_OK) return 2;
  state = strtoull(words[2], NULL, 10) * 88172645463325252ull + 1;
  for (long left = atol(words[1]); left > 0; left--) plan(table, driver), poll_and_write(table, driver);
  table->disconnect(driver);
  table->destroy(driver);
  return 0;
}
