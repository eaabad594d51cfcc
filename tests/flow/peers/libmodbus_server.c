/* A Modbus TCP server of libmodbus that tells what it was given: one line for each register and coil written.
 *
 *     cc -o server libmodbus_server.c -lmodbus && ./server PORT
 *     ready
 *     write 40 1234          holding register 40 is 1234 now
 *     coil 3 1
 *
 * Serves until its standard input ends. Several clients at once; a request that libmodbus refuses is answered by it.
 */

#include <errno.h>
#include <modbus/modbus.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/select.h>
#include <unistd.h>

enum { REGISTERS = 1000, CONNECTIONS = 16 };

static int word(const uint8_t *at) { return at[0] << 8 | at[1]; }

/* The request is sound: libmodbus has carried it out and answered. */
static void tell(const uint8_t *pdu) {
    int address = word(pdu + 1);
    switch (pdu[0]) {
    case MODBUS_FC_WRITE_SINGLE_COIL:
        printf("coil %d %d\n", address, word(pdu + 3) == 0xFF00);
        break;
    case MODBUS_FC_WRITE_SINGLE_REGISTER:
        printf("write %d %d\n", address, word(pdu + 3));
        break;
    case MODBUS_FC_WRITE_MULTIPLE_COILS:
        for (int i = 0; i < word(pdu + 3); i++)
            printf("coil %d %d\n", address + i, pdu[6 + i / 8] >> (i % 8) & 1);
        break;
    case MODBUS_FC_WRITE_MULTIPLE_REGISTERS:
        for (int i = 0; i < word(pdu + 3); i++)
            printf("write %d %d\n", address + i, word(pdu + 6 + 2 * i));
        break;
    case MODBUS_FC_MASK_WRITE_REGISTER:
        printf("mask %d %d %d\n", address, word(pdu + 3), word(pdu + 5));
        break;
    }
    fflush(stdout);
}

int main(int argc, char **argv) {
    if (argc != 2) return 2;
    modbus_t *server = modbus_new_tcp("127.0.0.1", atoi(argv[1]));
    modbus_mapping_t *mapping = modbus_mapping_new(REGISTERS, REGISTERS, REGISTERS, REGISTERS);
    int listener = server ? modbus_tcp_listen(server, CONNECTIONS) : -1;
    if (listener < 0 || !mapping) {
        fprintf(stderr, "libmodbus: %s\n", modbus_strerror(errno));
        return 1;
    }
    printf("ready\n");
    fflush(stdout);
    fd_set open;
    FD_ZERO(&open);
    FD_SET(listener, &open);
    FD_SET(STDIN_FILENO, &open);
    int highest = listener;
    for (;;) {
        fd_set ready = open;
        if (select(highest + 1, &ready, NULL, NULL, NULL) < 0) return 1;
        for (int fd = 0; fd <= highest; fd++) {
            if (!FD_ISSET(fd, &ready)) continue;
            if (fd == STDIN_FILENO) {
                char rest[64];
                if (read(fd, rest, sizeof rest) <= 0) return 0;
            } else if (fd == listener) {
                int client = modbus_tcp_accept(server, &listener);
                if (client < 0) continue;
                FD_SET(client, &open);
                if (client > highest) highest = client;
            } else {
                uint8_t query[MODBUS_TCP_MAX_ADU_LENGTH];
                modbus_set_socket(server, fd);
                int size = modbus_receive(server, query);
                if (size > 0) {
                    int header = modbus_get_header_length(server);
                    /* -1: an exception was the answer, or the answer could not be sent though the write was done */
                    errno = 0;
                    int answered = modbus_reply(server, query, size, mapping);
                    if (answered > 2 + header || errno == EPIPE || errno == ECONNRESET) tell(query + header);
                } else if (size < 0) {
                    close(fd);
                    FD_CLR(fd, &open);
                }
            }
        }
    }
}
