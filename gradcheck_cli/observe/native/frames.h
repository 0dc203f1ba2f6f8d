/* Which of the user's lines led to a call. */

#ifndef FRAMES_H
#define FRAMES_H

#define PY_SSIZE_T_CLEAN
#include <Python.h>

/* See library.Reductions. */
PyObject *users_path(PyObject *module, PyObject *users);

#endif
