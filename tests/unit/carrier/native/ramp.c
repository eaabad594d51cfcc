/* A driver for tests: answers without a device, or asks one; misbehaves as its options say.
 *
 * options_json is searched for words: "crash_create", "refuse_create", "refuse_tags", "ask" (send 'ask', expect 'ok').
 * "fault": N (after the third poll, as if N had been written to a tag of whole numbers).
 * A tag's value is its id times the number of polls. Faults are asked for by writing a number to a tag, below.
 */
#define _GNU_SOURCE
#include "driver.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <sys/socket.h>
#include <netinet/in.h>
#include <arpa/inet.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <fcntl.h>
#include <signal.h>
#include <errno.h>

typedef struct { uint32_t id; char type[12]; } Tag;
typedef struct {
  const edge_host* host;
  Tag* tags[64];
  uint32_t count[64];
  uint64_t polls;
  int asks, refuses_tags, fault;
  int64_t manner;
  char told[64];
} Driver;

/* Found by name in the file. */
const uint32_t driver_api = EDGE_DRIVER_API;

static void say(char* err, uint32_t cap, const char* text) { snprintf(err, cap, "%s", text); }

static int32_t create(const edge_host* host, const char* options, uint32_t n, void** self, char* err, uint32_t cap) {
  if (strstr(options, "refuse_create")) { say(err, cap, "option speed is beyond 9"); return EDGE_INVALID; }
  if (strstr(options, "crash_create")) abort();
  Driver* d = calloc(1, sizeof *d);
  d->host = host;
  d->asks = strstr(options, "\"ask\"") != NULL;
  const char* fault = strstr(options, "\"fault\": ");
  d->fault = fault ? atoi(fault + 9) : 0;
  d->refuses_tags = strstr(options, "refuse_tags") != NULL;
  host->log(host->ctx, 1, "created", 7);
  *self = d;
  return EDGE_OK;
}

static int32_t plan(void* self, uint32_t group, const char* json, uint32_t n, char* err, uint32_t cap) {
  Driver* d = self;
  free(d->tags[group]);
  d->tags[group] = NULL;
  d->count[group] = 0;
  const char* bad = d->refuses_tags ? strstr(json, "\"address\": \"nowhere\"") : NULL;
  if (bad) {
    const char* at = bad;
    while (at > json && strncmp(at, "\"id\": ", 6)) at--;
    snprintf(err, cap, "[{\"tag\": %d, \"key\": \"address\", \"text\": \"there is no such place\"}]", atoi(at + 6));
    return EDGE_INVALID;
  }
  for (const char* at = json; (at = strstr(at, "\"id\": ")); at++) {
    d->tags[group] = realloc(d->tags[group], (d->count[group] + 1) * sizeof(Tag));
    Tag* tag = &d->tags[group][d->count[group]++];
    tag->id = (uint32_t)atoi(at + 6);
    sscanf(strstr(at, "\"type\": \"") + 9, "%11[a-z0-9]", tag->type);
  }
  return EDGE_OK;
}

static int32_t ask(Driver* d, const char* what, const char* expected, uint32_t timeout_ms) {
  char reply[16];
  int32_t status = d->host->send(d->host->ctx, 0, (const uint8_t*)what, (uint32_t)strlen(what));
  if (status) return status;
  int32_t got = d->host->recv(d->host->ctx, 0, (uint8_t*)reply, sizeof reply, timeout_ms);
  if (got < 0) return got;
  return got == (int32_t)strlen(expected) && !memcmp(reply, expected, (size_t)got) ? EDGE_OK : EDGE_INVALID;
}

static int32_t connect_device(void* self, uint32_t channels, char* err, uint32_t cap) {
  Driver* d = self;
  if (!d->asks) return EDGE_OK;
  if (!channels) { say(err, cap, "needs an endpoint"); return EDGE_INVALID; }
  return ask(d, "hello", "ok", 1000);
}

static void row(Driver* d, edge_batch* out, const Tag* tag) {
  uint32_t i = out->n++;
  uint64_t value = tag->id * d->polls;
  out->tag[i] = tag->id;
  out->ts_ns[i] = 0;
  out->quality[i] = 0;
  if (!strcmp(tag->type, "string") || !strcmp(tag->type, "bytes")) {
    char text[64];
    int n = d->told[0] ? snprintf(text, sizeof text, "%s", d->told) : snprintf(text, sizeof text, "n%lu", value);
    out->kind[i] = tag->type[0] == 's' ? EDGE_STR : EDGE_BYTES;
    out->value[i].s.off = out->heap_len;
    out->value[i].s.len = (uint32_t)n;
    memcpy(out->heap + out->heap_len, text, (size_t)n);
    out->heap_len += (uint32_t)n;
  } else if (tag->type[0] == 'f') {
    out->kind[i] = EDGE_F64;
    out->value[i].f = (double)value;
  } else if (tag->type[0] == 'b') {
    out->kind[i] = EDGE_BOOL;
    out->value[i].u = value & 1;
  } else {
    out->kind[i] = tag->type[0] == 'u' ? EDGE_U64 : EDGE_I64;
    out->value[i].u = value;
  }
}

static int32_t misbehave(Driver* d, edge_batch* out, uint32_t budget_ms) {
  switch (d->manner) {
    case 1: *(volatile int*)0 = 0; break;
    case 2: abort();
    case 3: exit(0);
    case 4: for (;;) pause();
    case 5: for (volatile int x = 0;; x++);
    case 6: for (;;) { void* p = malloc(1 << 20); if (!p) abort(); memset(p, 1, 1 << 20); }
    case 7: for (int i = 0; i < 1000000; i++) fprintf(stderr, "noise %d\n", i); break;
    case 8: out->tag[0] = 4000000; out->n = 1; return EDGE_OK;
    case 9: out->n = 1000000; return EDGE_OK;
    case 10: if (out->cap > 1) { out->tag[1] = out->tag[0]; } return EDGE_OK;
    case 11: for (uint32_t i = 0; i < out->n; i++) out->kind[i] = EDGE_NULL; return EDGE_OK;
    case 12: for (uint32_t i = 0; i < out->n; i++) out->value[i].s.off = 1 << 30; return EDGE_OK;
    case 13: memset(out->heap, 0xff, out->heap_len); return EDGE_OK;
    case 14: out->n = 1; return EDGE_TIMEOUT;
    case 15: out->n = 0; return EDGE_CLOSED;
    case 16: out->n = 1; return EDGE_REFUSED;
    case 17: out->n = 1; return EDGE_BUSY;
    case 18: out->n = 1; return -77;
    case 19: for (int i = 0; i < 100000; i++) d->host->log(d->host->ctx, 2, "again and again", 15); return EDGE_OK;
    case 20: { char b; while (d->host->recv(d->host->ctx, 0, (uint8_t*)&b, 1, 100) == EDGE_TIMEOUT) ; return EDGE_TIMEOUT; }
    case 21: for (uint32_t i = 0; i < out->n; i++) out->kind[i] = EDGE_F64; return EDGE_OK;
    case 22: out->n = 1; return EDGE_CLOSED;
    default: return EDGE_OK;
  }
  return EDGE_OK;
}

/* What the confinement lets: one bit for each thing that worked. */
static uint64_t escapes(void) {
  uint64_t worked = 0;
  int fd = open("/etc/passwd", O_RDONLY);
  if (fd >= 0) { worked |= 1; close(fd); }
  fd = socket(AF_INET, SOCK_STREAM, 0);
  if (fd >= 0) { worked |= 2; close(fd); }
  pid_t child = fork();
  if (child == 0) _exit(0);
  if (child > 0) worked |= 4;
  if (kill(getppid(), 0) == 0) worked |= 8;
  if (setuid(0) == 0 && execl("/bin/true", "true", NULL) == 0) worked |= 16;
  fd = open("/tmp/framegate-escape", O_CREAT | O_WRONLY, 0600);
  if (fd >= 0) { worked |= 32; close(fd); unlink("/tmp/framegate-escape"); }
  if (mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0) != MAP_FAILED) worked |= 64;
  if (getenv("HOME") || getenv("EDGE_SECRET")) worked |= 128;
  fd = socket(AF_UNIX, SOCK_STREAM, 0);
  if (fd >= 0) { worked |= 256; close(fd); }
  int pair[2];
  if (socketpair(AF_UNIX, SOCK_DGRAM, 0, pair) == 0) worked |= 512;
  /* The parent's own limit again, from an address whose lower half is 0. */
  struct rlimit* limit = mmap((void*)(1ull << 32), 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (limit == (void*)(1ull << 32) && syscall(SYS_prlimit64, getppid(), RLIMIT_CORE, NULL, limit) == 0 &&
      syscall(SYS_prlimit64, getppid(), RLIMIT_CORE, limit, NULL) == 0) worked |= 1024;
  /* Another address on a socket that is open: 0 is none, which only a call that is let gets to see. */
  struct sockaddr_in other = {.sin_family = AF_INET, .sin_port = htons(9), .sin_addr = {htonl(INADDR_LOOPBACK)}};
  struct msghdr message = {.msg_name = &other, .msg_namelen = sizeof other};
  if (sendto(0, "x", 1, 0, (struct sockaddr*)&other, sizeof other) < 0 && errno != EPERM) worked |= 2048;
  if (sendmsg(0, &message, 0) < 0 && errno != EPERM) worked |= 4096;
  return worked;
}

static int32_t poll_group(void* self, uint32_t group, edge_batch* out, uint32_t budget_ms) {
  Driver* d = self;
  d->polls++;
  if (d->fault && d->polls > 3) {
    d->manner = d->fault;
    d->host->log(d->host->ctx, 2, "fault now", 9);
  }
  if (d->asks) {
    int32_t status = ask(d, "ask", "ok", 200);
    if (status) return status;
  }
  for (uint32_t i = 0; i < d->count[group] && out->n < out->cap; i++) row(d, out, &d->tags[group][i]);
  return misbehave(d, out, budget_ms);
}

static int32_t write_rows(void* self, const edge_batch* commands, int32_t* status, uint32_t budget_ms) {
  Driver* d = self;
  for (uint32_t i = 0; i < commands->n; i++) {
    status[i] = EDGE_OK;
    if (commands->kind[i] == EDGE_STR) {
      uint32_t n = commands->value[i].s.len < 63 ? commands->value[i].s.len : 63;
      memcpy(d->told, commands->heap + commands->value[i].s.off, n);
      d->told[n] = 0;
    } else if (commands->kind[i] == EDGE_F64) {
      double asked = commands->value[i].f;
      if (asked == -1) snprintf(d->told, sizeof d->told, "%lu", escapes());
      else if (asked < 0) status[i] = (int32_t)asked;
    } else {
      d->manner = commands->value[i].i;
      if (d->manner == 100) raise(SIGSEGV);
      if (d->manner == 101) for (;;) pause();
      if (d->manner == 102) return EDGE_BUSY;
    }
  }
  return EDGE_OK;
}

static void leave(void* self) {
  Driver* d = self;
  d->host->log(d->host->ctx, 1, "disconnected", 12);
}

static void destroy(void* self) {
  Driver* d = self;
  d->host->log(d->host->ctx, 1, "destroyed", 9);
  for (int group = 0; group < 64; group++) free(d->tags[group]);
  free(d);
}

static const edge_vtable table = {
  sizeof(edge_vtable), EDGE_DRIVER_API, "{\"name\": \"ramp\", \"version\": \"1\"}",
  create, plan, connect_device, poll_group, write_rows, leave, destroy,
};

EDGE_EXPORT const edge_vtable* edge_driver_entry(uint32_t host_api) { return host_api >= 1 ? &table : NULL; }
