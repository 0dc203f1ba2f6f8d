#include "frames.h"

#if PY_VERSION_HEX >= 0x030B0000

/* Whether a frame is the script's own: nothing of the user's is around it. */
static int is_script(PyFrameObject *frame, PyCodeObject *code) {
  if (PyUnicode_CompareWithASCIIString(code->co_name, "<module>")) return 0;
  PyObject *globals = PyFrame_GetGlobals(frame), *name = PyDict_GetItemString(globals, "__name__");
  int is = name && PyUnicode_Check(name) && !PyUnicode_CompareWithASCIIString(name, "__main__");
  Py_DECREF(globals);
  return is;
}

static int append(PyObject *path, PyObject *number) {
  int done = number && PyList_Append(path, number) == 0;
  Py_XDECREF(number);
  return done;
}

/* 1 to go on with the frame around this one, 0 to stop, -1 with an exception set. */
static int add_frame(PyObject *path, PyFrameObject *frame, PyObject *users) {
  PyCodeObject *code = PyFrame_GetCode(frame);
  PyObject *is_users = PyObject_GetItem(users, code->co_filename);
  int result = is_users ? 1 : -1;
  if (is_users == Py_True) {
    int done = append(path, PyLong_FromVoidPtr(code)) && append(path, PyLong_FromLong(PyFrame_GetLasti(frame)));
    result = done ? !is_script(frame, code) : -1;
  }
  Py_XDECREF(is_users);
  Py_DECREF(code);
  return result;
}

PyObject *users_path(PyObject *module, PyObject *users) {
  PyObject *path = PyList_New(0);
  PyFrameObject *frame = path ? PyThreadState_GetFrame(PyThreadState_Get()) : NULL;
  int result = path ? 1 : -1;
  (void)module;
  while (frame) {
    result = add_frame(path, frame, users);
    PyFrameObject *outer = result > 0 ? PyFrame_GetBack(frame) : NULL;
    Py_DECREF(frame);
    frame = outer;
  }
  PyObject *found = result < 0 ? NULL : PyList_AsTuple(path);
  Py_XDECREF(path);
  return found;
}

#else

PyObject *users_path(PyObject *module, PyObject *users) {
  (void)module, (void)users;
  Py_RETURN_NONE;
}

#endif
