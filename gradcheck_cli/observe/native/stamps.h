/* What changes when a tensor does. */

#ifndef STAMPS_H
#define STAMPS_H

#define PY_SSIZE_T_CLEAN
#include <Python.h>

/* See library.Reductions. */
PyObject *marks_of(PyObject *module, PyObject *references);
PyObject *versions_of(PyObject *module, PyObject *references);

#endif
