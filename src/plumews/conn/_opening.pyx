# cython: language_level=3, boundscheck=False, wraparound=False, binding=False
"""Compiled short way of the beginning of a connection: the addresses of its socket. Most share the local one."""

from libc.string cimport memcmp

__all__ = ["local_address", "peer_address"]

cdef extern from *:
    """
    #include <string.h>
    #include <netinet/in.h>
    #include <sys/types.h>
    #include <sys/socket.h>
    static int plumews_local_address(int fd, struct sockaddr_storage *address)
    {
        socklen_t size = sizeof *address;
        memset(address, 0, sizeof *address);
        if (getsockname(fd, (struct sockaddr *)address, &size) || size > sizeof *address)
            return 0;
        return address->ss_family == AF_INET || address->ss_family == AF_INET6 ? (int)size : 0;
    }
    /* Port of an IPv4 peer and its host in text, of `size` bytes. Not by inet_ntop, which costs as much as the rest. */
    static int plumews_peer_address(int fd, char *host, int *size)
    {
        struct sockaddr_storage address;
        const struct sockaddr_in *peer = (const struct sockaddr_in *)&address;
        const unsigned char *part = (const unsigned char *)&peer->sin_addr;
        socklen_t length = sizeof address;
        char *at = host;
        int i;
        if (getpeername(fd, (struct sockaddr *)&address, &length) || address.ss_family != AF_INET)
            return -1;
        for (i = 0; i < 4; i++) {
            if (i)
                *at++ = '.';
            if (part[i] >= 100)
                *at++ = '0' + part[i] / 100;
            if (part[i] >= 10)
                *at++ = '0' + part[i] / 10 % 10;
            *at++ = '0' + part[i] % 10;
        }
        *size = (int)(at - host);
        return ntohs(peer->sin_port);
    }
    """
    struct sockaddr_storage:
        pass
    int plumews_local_address(int fd, sockaddr_storage *address)
    int plumews_peer_address(int fd, char *host, int *size)

#: Local address of the newest connection, as the system and as Python tells it.
cdef sockaddr_storage newest
cdef int newest_size = 0
cdef object newest_address = None


def local_address(int fd, transport, /):
    """Return the local address of the socket ``fd`` under ``transport``."""
    global newest, newest_size, newest_address
    cdef sockaddr_storage address
    cdef int size = plumews_local_address(fd, &address)
    if size and size == newest_size and not memcmp(&address, &newest, size):
        return newest_address
    told = transport.get_extra_info("sockname")
    if size and isinstance(told, tuple):
        newest, newest_size, newest_address = address, size, told
    return told


def peer_address(int fd, /):
    """Return host and port of the peer of the socket ``fd``, ``None`` unless it has an IPv4 address.

    uvloop's transports make an object of a socket to tell them.
    """
    cdef char host[16]
    cdef int size = 0, port = plumews_peer_address(fd, host, &size)
    return None if port < 0 else (host[:size].decode("ascii"), port)
