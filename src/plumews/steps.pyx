# cython: language_level=3, binding=False, auto_pickle=False
"""``steps.py`` in C. Invariant: what is awaited gets its result by ``am_send``, so no exception is made for it."""

from cpython.ref cimport Py_INCREF, PyObject

__all__ = ["Steps"]

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


cdef class Steps:
    """See ``steps.py``."""

    cpdef object step(self):
        raise NotImplementedError

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
        """The step of a task."""
        return self.__next__()


cdef int send "plumews_send"(object self, object value, PyObject **result) except -1:
    cdef Steps steps = <Steps>self
    result[0] = NULL
    outcome = steps.step()
    Py_INCREF(outcome)
    result[0] = <PyObject *>outcome
    return 0 if steps.over else 1


plumews_give_am_send(Steps)
