# Types for head_scan.pyx.

cpdef Py_ssize_t count_lines(bytes data) except? -3
