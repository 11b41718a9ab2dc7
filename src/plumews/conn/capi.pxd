# Types for capi.pyx and the compiled modules that import it.

cpdef set_attribute(instance, name, value)
cpdef bint enter_context(context) except -1
cpdef int leave_context(context) except -1
cpdef int remove_new(type cls) except -1
