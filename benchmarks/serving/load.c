/* The loop of the open-loop generator: sends each request when it is due, over plain sockets and epoll, and notes when it
 * was sent, when its answer was there as a whole, and with which status. load.py says what it is for, and calls it. */

#define _GNU_SOURCE
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum { UNSENT = 0, UNANSWERED = 1, BROKEN = 2 };
enum { EVENTS = 256, FIRST_BUFFER = 4096, SPIN_NS = 1500000 };

struct connection {
    int fd, stream;
    int64_t index; /* of the request that is on its way; -1: none */
    char *buffer;
    size_t have, size;
};

struct stream {
    int port, connections;
    int64_t patience;
    int64_t first, requests;                  /* its requests among all */
    int64_t *waiting, waiting_at, waiting_to; /* due, and no connection was free yet */
    struct connection **free;                 /* a ring of those without a request */
    int free_at, free_count;
};

struct run {
    int64_t n;
    const int64_t *due, *of;
    int64_t *sent, *done, *status;
    const char *data;
    const int64_t *starts;
    struct stream *streams;
    struct connection *connections;
    int count, total, epoll;
    int64_t on_way;
    struct timespec began;
};

static int64_t now_ns(const struct run *run) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)(now.tv_sec - run->began.tv_sec) * 1000000000 + (now.tv_nsec - run->began.tv_nsec);
}

static void release(struct run *run, struct connection *c) {
    struct stream *s = &run->streams[c->stream];
    s->free[(s->free_at + s->free_count++) % s->connections] = c;
}

static int open_connection(struct run *run, struct connection *c) {
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons((uint16_t)run->streams[c->stream].port)};
    struct epoll_event event = {.events = EPOLLIN, .data.ptr = c};
    int one = 1;
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    c->index = -1;
    c->have = 0;
    c->fd = socket(AF_INET, SOCK_STREAM, 0);
    if (c->fd < 0 || connect(c->fd, (struct sockaddr *)&address, sizeof address) < 0) return -1;
    setsockopt(c->fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    return epoll_ctl(run->epoll, EPOLL_CTL_ADD, c->fd, &event);
}

static void finish(struct run *run, struct connection *c, int64_t status) {
    if (c->index < 0) return;
    run->done[c->index] = now_ns(run);
    run->status[c->index] = status;
    run->on_way--;
    c->index = -1;
}

/* Another connection in the place of one that was closed; its request is not sent again. */
static int replace(struct run *run, struct connection *c) {
    int busy = c->index >= 0;
    finish(run, c, BROKEN);
    close(c->fd);
    if (open_connection(run, c) < 0) return -1;
    if (busy) release(run, c); /* an idle one stands among the free ones already */
    return 0;
}

/* The status of the answer once it is there as a whole; 0: not yet. */
static int64_t answered(const struct connection *c) {
    const char *end = memmem(c->buffer, c->have, "\r\n\r\n", 4), *line;
    size_t length = 0;
    if (end == NULL || c->have < 13) return 0;
    for (line = c->buffer; line != NULL && line < end; line = memchr(line, '\n', (size_t)(end - line))) {
        if (*line == '\n') line++;
        if (strncasecmp(line, "content-length:", 15) == 0) length = strtoul(line + 15, NULL, 10);
    }
    return c->have < (size_t)(end - c->buffer) + 4 + length ? 0 : strtol(c->buffer + 9, NULL, 10);
}

static int receive(struct run *run, struct connection *c) {
    ssize_t got;
    int64_t status;
    if (c->have + 1 >= c->size) {
        char *larger = realloc(c->buffer, 2 * c->size);
        if (larger == NULL) return -1;
        c->buffer = larger;
        c->size *= 2;
    }
    got = recv(c->fd, c->buffer + c->have, c->size - c->have - 1, MSG_DONTWAIT);
    if (got < 0 && (errno == EAGAIN || errno == EINTR)) return 0;
    if (got <= 0) return replace(run, c);
    c->have += (size_t)got;
    c->buffer[c->have] = 0;
    status = answered(c);
    if (status == 0) return 0;
    c->have = 0;
    if (c->index >= 0) {
        finish(run, c, status);
        release(run, c);
    }
    return 0;
}

static int send_due(struct run *run, struct stream *s) {
    while (s->waiting_at < s->waiting_to && s->free_count > 0) {
        int64_t index = s->waiting[s->waiting_at++], now = now_ns(run), request;
        struct connection *c;
        ssize_t length;
        if (now - run->due[index] > s->patience) continue; /* it stays unsent */
        c = s->free[s->free_at];
        s->free_at = (s->free_at + 1) % s->connections;
        s->free_count--;
        c->index = index;
        run->sent[index] = now;
        run->status[index] = UNANSWERED;
        run->on_way++;
        request = s->first + index % s->requests;
        length = run->starts[request + 1] - run->starts[request];
        if (send(c->fd, run->data + run->starts[request], (size_t)length, MSG_NOSIGNAL | MSG_DONTWAIT) != length &&
            replace(run, c) < 0)
            return -1;
    }
    return 0;
}

static int loop(struct run *run, int64_t patience_at_the_end) {
    int64_t at = 0, last = run->due[run->n - 1] + patience_at_the_end;
    struct epoll_event events[EVENTS];
    for (;;) {
        int64_t now = now_ns(run), waiting = 0;
        int found;
        for (; at < run->n && run->due[at] <= now; at++) {
            struct stream *s = &run->streams[run->of[at]];
            s->waiting[s->waiting_to++] = at;
        }
        for (int i = 0; i < run->count; i++) {
            if (send_due(run, &run->streams[i]) < 0) return -1;
            waiting += run->streams[i].waiting_to - run->streams[i].waiting_at;
        }
        if (at == run->n && ((run->on_way == 0 && waiting == 0) || now > last)) return 0;
        found = epoll_wait(run->epoll, events, EVENTS, at < run->n && run->due[at] - now < SPIN_NS ? 0 : 1);
        for (int i = 0; i < found; i++)
            if (receive(run, events[i].data.ptr) < 0) return -1;
    }
}

/* Returns 0, or the number of the system's error. */
int drive(int64_t n, const int64_t *due, const int64_t *of, int64_t *sent, int64_t *done, int64_t *status, int64_t count,
          const int64_t *ports, const int64_t *connections, const int64_t *patience, const char *data,
          const int64_t *starts, const int64_t *firsts, int64_t patience_at_the_end) {
    struct run run = {.n = n, .due = due, .of = of, .sent = sent, .done = done, .status = status, .data = data};
    int error = 0;
    run.starts = starts;
    run.count = (int)count;
    run.epoll = epoll_create1(0);
    run.streams = calloc((size_t)count, sizeof *run.streams);
    for (int64_t i = 0; i < count; i++) run.total += (int)connections[i];
    run.connections = calloc((size_t)run.total, sizeof *run.connections);
    struct connection *c = run.connections;
    for (int64_t i = 0; i < count; i++) {
        struct stream *s = &run.streams[i];
        s->port = (int)ports[i];
        s->connections = (int)connections[i];
        s->patience = patience[i];
        s->first = firsts[i];
        s->requests = firsts[i + 1] - firsts[i];
        s->waiting = malloc((size_t)n * sizeof *s->waiting);
        s->free = malloc((size_t)connections[i] * sizeof *s->free);
        for (int64_t k = 0; k < connections[i] && !error; k++, c++) {
            c->stream = (int)i;
            c->size = FIRST_BUFFER;
            c->buffer = malloc(c->size);
            if (open_connection(&run, c) < 0) error = errno;
            release(&run, c);
        }
    }
    clock_gettime(CLOCK_MONOTONIC, &run.began);
    if (!error && loop(&run, patience_at_the_end) < 0) error = errno;
    for (int i = 0; i < run.total; i++) {
        if (run.connections[i].buffer == NULL) continue;
        close(run.connections[i].fd);
        free(run.connections[i].buffer);
    }
    for (int64_t i = 0; i < count; i++) {
        free(run.streams[i].waiting);
        free(run.streams[i].free);
    }
    free(run.streams);
    free(run.connections);
    close(run.epoll);
    return error;
}
