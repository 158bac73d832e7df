// Unix sockets: calls that glibc declares for GNU programs only.
#ifndef DAVIT_SOCKET_H
#define DAVIT_SOCKET_H

#include <sys/types.h>

// accept4(2) of a connection that does not wait and that children do not inherit; -1 with errno.
int davit_socket_accept(int listener);

// The process at a Unix socket's other end when it was connected or began to listen (SO_PEERCRED); 0 if that cannot be told.
pid_t davit_socket_peer(int descriptor);

#endif
