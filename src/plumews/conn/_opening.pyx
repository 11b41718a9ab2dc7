# cython: language_level=3, boundscheck=False, wraparound=False, binding=False
"""Compiled short way of the beginning of a connection: the local address of its socket, which most connections share."""

from libc.string cimport memcmp

__all__ = ["local_address"]

cdef extern from *:
    """
    #include <string.h>
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
    """
    struct sockaddr_storage:
        pass
    int plumews_local_address(int fd, sockaddr_storage *address)

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
