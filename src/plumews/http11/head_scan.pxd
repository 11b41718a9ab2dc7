# Types for head_scan.pyx.

cpdef Py_ssize_t count_lines(bytes data) except? -3
cpdef Py_ssize_t find_end(bytes data, Py_ssize_t stop) except? -3
cpdef bint is_plain_get(bytes head, bytes target) except? -1
cpdef list split_lines(bytes head)
