# cython: language_level=3, binding=False, auto_pickle=False
"""``awaitable.py`` in Cython. Invariant: results are returned by ``am_send``, without an exception."""

from types import MethodType

from cpython.ref cimport Py_INCREF, PyObject

__all__ = ["AwaitedMethod", "StepAwaitable"]

cdef extern from *:
    """
    static int plumews_send(PyObject *self, PyObject *value, PyObject **result);
    static PySendResult plumews_am_send(PyObject *self, PyObject *value, PyObject **result)
    {
        return (PySendResult)plumews_send(self, value, result); /* 0 returns, 1 waits, -1 raises */
    }
    static void plumews_give_am_send(PyTypeObject *type)
    {
        type->tp_as_async->am_send = plumews_am_send;
    }
    """
    void plumews_give_am_send(type)


cdef class StepAwaitable:
    """See ``awaitable.py``."""

    cpdef object step(self):
        raise NotImplementedError  # abstract: the steps are those of a subclass

    def __await__(self):
        return self

    def __iter__(self):
        return self

    def __next__(self):
        value = self.step()
        if self.over:
            raise StopIteration(value)
        return value

    def send(self, value):
        """Run the next step, as a task does."""
        return self.__next__()


cdef int send "plumews_send"(object self, object value, PyObject **result) except -1:
    cdef StepAwaitable steps = <StepAwaitable>self
    result[0] = NULL
    outcome = steps.step()
    Py_INCREF(outcome)
    result[0] = <PyObject *>outcome
    return 0 if steps.over else 1


plumews_give_am_send(StepAwaitable)

cdef extern from *:
    """
    static PyObject *plumews_forward(PyObject *self, PyObject *const *args, size_t count, PyObject *names);
    static void plumews_give_vectorcall(PyTypeObject *type, Py_ssize_t offset)
    {
        type->tp_vectorcall_offset = offset;
        type->tp_flags |= Py_TPFLAGS_HAVE_VECTORCALL | Py_TPFLAGS_METHOD_DESCRIPTOR;
        PyType_Modified(type);
    }
    """
    ctypedef struct vectorcallfunc:  # really a pointer, which is only stored
        pass
    vectorcallfunc plumews_forward
    void plumews_give_vectorcall(type, Py_ssize_t)
    object PyObject_Vectorcall(object, PyObject *const *, size_t, PyObject *)


cdef class AwaitedMethod:
    """See ``awaitable.py``. A call of it costs one more call in C."""

    cdef vectorcallfunc forward
    cdef object function
    cdef dict __dict__

    def __init__(self, function, like):
        self.forward = plumews_forward
        self.function = function
        self.__doc__ = function.__doc__
        for name in ("annotations", "code", "defaults", "globals", "kwdefaults", "module", "name"):
            setattr(self, f"__{name}__", getattr(like, f"__{name}__"))
        self.__qualname__ = f"Conn.{like.__name__}"

    def __get__(self, instance, owner):
        return self if instance is None else MethodType(self, instance)

    def __call__(self, *args, **kwargs):
        return self.function(*args, **kwargs)


cdef object forward "plumews_forward"(object self, PyObject *const *args, size_t count, PyObject *names):
    return PyObject_Vectorcall((<AwaitedMethod>self).function, args, count, names)


cdef AwaitedMethod any_of_them = AwaitedMethod.__new__(AwaitedMethod)
plumews_give_vectorcall(AwaitedMethod, <char *>&any_of_them.forward - <char *><void *>any_of_them)
