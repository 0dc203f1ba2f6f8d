#include "stamps.h"

static PyObject *attribute(PyObject *thing, const char *name) {
  PyObject *found = thing == Py_None ? Py_NewRef(Py_None) : PyObject_GetAttrString(thing, name);
  Py_DECREF(thing);
  return found;
}

/* The next three take a weak reference to a parameter; None where there is nothing. */

static PyObject *version_of(PyObject *reference) {
  PyObject *parameter = PyObject_CallNoArgs(reference);
  return parameter ? attribute(parameter, "_version") : NULL;
}

static PyObject *gradient_of(PyObject *reference) {
  PyObject *parameter = PyObject_CallNoArgs(reference);
  return parameter ? attribute(parameter, "grad") : NULL;
}

static PyObject *mark_of(PyObject *reference) {
  PyObject *gradient = gradient_of(reference);
  if (!gradient || gradient == Py_None) return gradient;
  void *identity = gradient;
  PyObject *version = attribute(gradient, "_version");
  return version ? Py_BuildValue("(NN)", PyLong_FromVoidPtr(identity), version) : NULL;
}

/* A list of what `read` says of each. */
static PyObject *each(PyObject *references, PyObject *(*read)(PyObject *)) {
  if (!PyList_Check(references)) return PyErr_Format(PyExc_TypeError, "no list of references");
  Py_ssize_t count = PyList_GET_SIZE(references);
  PyObject *found = PyList_New(count);
  for (Py_ssize_t i = 0; found && i < count; i++) {
    PyObject *one = read(PyList_GET_ITEM(references, i));
    if (one)
      PyList_SET_ITEM(found, i, one);
    else
      Py_CLEAR(found);
  }
  return found;
}

PyObject *marks_of(PyObject *module, PyObject *references) {
  (void)module;
  return each(references, mark_of);
}

PyObject *versions_of(PyObject *module, PyObject *references) {
  (void)module;
  return each(references, version_of);
}
