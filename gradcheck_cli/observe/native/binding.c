/* The reductions for Python.

   Each function gives None where `locate` refuses a tensor; the caller then takes another way. Arrays are returned as
   bytes, of float64 unless said otherwise. library.Reductions has their shapes. */

#include "tensors.h"

#include <math.h>
#include <string.h>

#include "frames.h"
#include "reductions.h"
#include "stamps.h"

#define WORTH_LETTING_OTHERS_RUN (1 << 16)

static PyObject *nothing(void) {
  if (PyErr_Occurred()) return NULL;
  Py_RETURN_NONE;
}

/* While much is read, other threads of Python may run. */
static PyThreadState *begin_reading(int64_t size) {
  return size > WORTH_LETTING_OTHERS_RUN ? PyEval_SaveThread() : NULL;
}

static void end_reading(PyThreadState *state) {
  if (state) PyEval_RestoreThread(state);
}

/* A row of `width` numbers for each tensor. */
static PyObject *rows_of(PyObject *tensors, Py_ssize_t width, void (*reduce)(const float *, int64_t, double *)) {
  places known;
  if (!locate_all(tensors, &known)) return nothing();
  PyObject *table = PyBytes_FromStringAndSize(NULL, known.count * width * sizeof(double));
  if (table) {
    double *out = (double *)PyBytes_AS_STRING(table);
    PyThreadState *state = begin_reading(known.size);
    for (Py_ssize_t i = 0; i < known.count; i++) reduce(known.items[i].start, known.items[i].size, out + width * i);
    end_reading(state);
  }
  let_go(&known);
  return table;
}

static void norm(const float *x, int64_t n, double *out) { *out = sqrt(square(x, n)); }

static PyObject *describe_tensors(PyObject *module, PyObject *tensors) {
  (void)module;
  return rows_of(tensors, 6, describe);
}

static PyObject *norms_of_tensors(PyObject *module, PyObject *tensors) {
  (void)module;
  return rows_of(tensors, 1, norm);
}

static PyObject *copy_tensors(PyObject *module, PyObject *tensors) {
  places known;
  (void)module;
  if (!locate_all(tensors, &known)) return nothing();
  PyObject *copies = PyList_New(known.count);
  for (Py_ssize_t i = 0; copies && i < known.count; i++) {
    PyObject *one = PyBytes_FromStringAndSize((const char *)known.items[i].start, known.items[i].size * sizeof(float));
    if (one)
      PyList_SET_ITEM(copies, i, one);
    else
      Py_CLEAR(copies);
  }
  let_go(&known);
  return copies;
}

/* Two arrays of float64, as bytes. */
typedef struct {
  PyObject *left, *right;
} columns;

static double *numbers_of(PyObject *column) { return (double *)PyBytes_AS_STRING(column); }

static int make_columns(columns *table, Py_ssize_t rows) {
  table->left = PyBytes_FromStringAndSize(NULL, rows * sizeof(double));
  table->right = table->left ? PyBytes_FromStringAndSize(NULL, rows * sizeof(double)) : NULL;
  if (!table->right) Py_CLEAR(table->left);
  return table->right != NULL;
}

static PyObject *hand_out(columns *table) {
  PyObject *both = PyTuple_Pack(2, table->left, table->right);
  Py_CLEAR(table->left);
  Py_CLEAR(table->right);
  return both;
}

/* Whether there is a copy of each tensor, of its size. */
static int are_copies(PyObject *copies, const places *known) {
  int are = PyList_Check(copies) && PyList_GET_SIZE(copies) == known->count;
  for (Py_ssize_t i = 0; are && i < known->count; i++)
    are = PyBytes_GET_SIZE(PyList_GET_ITEM(copies, i)) == (Py_ssize_t)(known->items[i].size * sizeof(float));
  return are;
}

static PyObject *changes_of_tensors(PyObject *module, PyObject *args) {
  PyObject *copies, *tensors;
  columns table = {NULL, NULL};
  places known;
  (void)module;
  if (!PyArg_ParseTuple(args, "OO", &copies, &tensors) || !locate_all(tensors, &known)) return nothing();
  int is_ready = are_copies(copies, &known) && make_columns(&table, known.count);
  for (Py_ssize_t i = 0; is_ready && i < known.count; i++) {
    const float *before = (const float *)PyBytes_AS_STRING(PyList_GET_ITEM(copies, i));
    place now = known.items[i];
    PyThreadState *state = begin_reading(now.size);
    numbers_of(table.left)[i] = distance(before, now.start, now.size);
    numbers_of(table.right)[i] = largest(now.start, now.size);
    end_reading(state);
  }
  let_go(&known);
  return is_ready ? hand_out(&table) : nothing();
}

/* The distance of a sample's elements; odd, so that it doesn't fall on the same column of every row. */
static int64_t step_of(int64_t size, int64_t most) {
  int64_t step = (size + most - 1) / most;
  return step > 1 ? step | 1 : 1;
}

static PyObject *sample_tensors(PyObject *module, PyObject *args) {
  PyObject *tensors, *lengths, *values = NULL;
  long long most, total = 0;
  places known;
  (void)module;
  if (!PyArg_ParseTuple(args, "OL", &tensors, &most) || !locate_all(tensors, &known)) return nothing();
  lengths = PyList_New(known.count);
  for (Py_ssize_t i = 0; lengths && i < known.count; i++) {
    int64_t step = step_of(known.items[i].size, most), length = (known.items[i].size + step - 1) / step;
    PyList_SET_ITEM(lengths, i, PyLong_FromLongLong(length));
    total += length;
  }
  if (lengths) values = PyBytes_FromStringAndSize(NULL, total * sizeof(float));
  float *out = values ? (float *)PyBytes_AS_STRING(values) : NULL;
  for (Py_ssize_t i = 0; out && i < known.count; i++) {
    int64_t step = step_of(known.items[i].size, most);
    for (int64_t at = 0; at < known.items[i].size; at += step) *out++ = known.items[i].start[at];
  }
  let_go(&known);
  PyObject *both = values ? PyTuple_Pack(2, lengths, values) : NULL;
  Py_XDECREF(lengths);
  Py_XDECREF(values);
  return both;
}

static PyObject *compare_samples(PyObject *module, PyObject *args) {
  const char *ones, *others;
  Py_ssize_t ones_size, others_size, total = 0;
  PyObject *lengths;
  (void)module;
  if (!PyArg_ParseTuple(args, "y#y#O!", &ones, &ones_size, &others, &others_size, &PyList_Type, &lengths)) return NULL;
  for (Py_ssize_t i = 0; i < PyList_GET_SIZE(lengths) && total >= 0; i++) {
    Py_ssize_t length = PyLong_AsSsize_t(PyList_GET_ITEM(lengths, i));
    total = length < 0 ? -1 : total + length;
  }
  if (PyErr_Occurred()) return NULL;
  if (ones_size != others_size || ones_size != total * (Py_ssize_t)sizeof(float)) {
    PyErr_SetString(PyExc_ValueError, "samples of other lengths");
    return NULL;
  }
  columns table;
  if (!make_columns(&table, PyList_GET_SIZE(lengths))) return NULL;
  for (Py_ssize_t i = 0, at = 0; i < PyList_GET_SIZE(lengths); i++) {
    Py_ssize_t length = PyLong_AsSsize_t(PyList_GET_ITEM(lengths, i));
    numbers_of(table.left)[i] =
        compare((const float *)ones + at, (const float *)others + at, length, numbers_of(table.right) + i);
    at += length;
  }
  return hand_out(&table);
}

static PyObject *moments_of(PyObject *module, PyObject *tensor) {
  place known;
  (void)module;
  if (!locate(tensor, &known)) return nothing();
  PyThreadState *state = begin_reading(known.size);
  moments sums = measure(known.start, known.size);
  end_reading(state);
  return Py_BuildValue("(dddd)", sums.total, sums.squares, sums.largest, (double)sums.zeros);
}

static PyObject *first_values(PyObject *module, PyObject *args) {
  PyObject *tensors;
  long long most, total = 0;
  places known;
  (void)module;
  if (!PyArg_ParseTuple(args, "OL", &tensors, &most) || !locate_all(tensors, &known)) return nothing();
  for (Py_ssize_t i = 0; i < known.count; i++) total += known.items[i].size < most ? known.items[i].size : most;
  PyObject *values = PyBytes_FromStringAndSize(NULL, total * sizeof(float));
  char *out = values ? PyBytes_AS_STRING(values) : NULL;
  for (Py_ssize_t i = 0; out && i < known.count; i++) {
    size_t size = (known.items[i].size < most ? known.items[i].size : most) * sizeof(float);
    if (size) memcpy(out, known.items[i].start, size);
    out += size;
  }
  let_go(&known);
  return values;
}

static PyObject *active_units(PyObject *module, PyObject *args) {
  PyObject *tensor;
  long long units, inner;
  place known;
  (void)module;
  if (!PyArg_ParseTuple(args, "OLL", &tensor, &units, &inner) || !locate(tensor, &known)) return nothing();
  int64_t outer = units > 0 && inner > 0 ? known.size / (units * inner) : 0;
  PyObject *active = PyBytes_FromStringAndSize(NULL, units);
  if (!active) return NULL;
  PyThreadState *state = begin_reading(known.size);
  find_active(known.start, outer, units, inner, (uint8_t *)PyBytes_AS_STRING(active));
  end_reading(state);
  return active;
}

static PyObject *variation_of(PyObject *module, PyObject *args) {
  PyObject *tensor;
  long long rows;
  place known;
  (void)module;
  if (!PyArg_ParseTuple(args, "OL", &tensor, &rows) || !locate(tensor, &known)) return nothing();
  int64_t columns = rows > 0 ? known.size / rows : 0;
  double *means = PyMem_New(double, columns);
  if (!means) return PyErr_NoMemory();
  PyObject *found = PyFloat_FromDouble(variation(known.start, rows, columns, means));
  PyMem_Free(means);
  return found;
}

static PyObject *same_class(PyObject *module, PyObject *args) {
  PyObject *tensor;
  long long rows;
  place known;
  (void)module;
  if (!PyArg_ParseTuple(args, "OL", &tensor, &rows) || !locate(tensor, &known)) return nothing();
  int64_t columns = rows > 0 ? known.size / rows : 0, most = 0;
  int64_t *counts = PyMem_Calloc(columns + 1, sizeof(int64_t));
  if (!counts) return PyErr_NoMemory();
  for (int64_t i = 0; columns > 0 && i < rows; i++) {
    int64_t count = ++counts[find_best(known.start + i * columns, columns)];
    most = count > most ? count : most;
  }
  PyMem_Free(counts);
  return PyFloat_FromDouble(rows > 0 ? (double)most / rows : NAN);
}

static PyObject *sharpness_of(PyObject *module, PyObject *args) {
  PyObject *logits;
  const char *limits;
  Py_ssize_t limits_size;
  long long keys;
  place known;
  (void)module;
  if (!PyArg_ParseTuple(args, "Oy#L", &logits, &limits, &limits_size, &keys) || !locate(logits, &known)) return nothing();
  int64_t queries = keys > 0 ? known.size / keys : 0, period = limits_size / (Py_ssize_t)sizeof(int64_t);
  PyObject *table = PyBytes_FromStringAndSize(NULL, queries * 2 * sizeof(double));
  if (!table || !period) return table;
  PyThreadState *state = begin_reading(known.size);
  sharpness(known.start, (const int64_t *)limits, period, queries, keys, (double *)PyBytes_AS_STRING(table));
  end_reading(state);
  return table;
}

static PyObject *is_direct(PyObject *module, PyObject *tensor) {
  place known;
  (void)module;
  return PyBool_FromLong(locate(tensor, &known));
}

static PyMethodDef METHODS[] = {
    {"is_direct", is_direct, METH_O, NULL},
    {"describe", describe_tensors, METH_O, NULL},
    {"norms", norms_of_tensors, METH_O, NULL},
    {"copy", copy_tensors, METH_O, NULL},
    {"changes", changes_of_tensors, METH_VARARGS, NULL},
    {"sample", sample_tensors, METH_VARARGS, NULL},
    {"compare", compare_samples, METH_VARARGS, NULL},
    {"moments_of", moments_of, METH_O, NULL},
    {"first", first_values, METH_VARARGS, NULL},
    {"find_active", active_units, METH_VARARGS, NULL},
    {"variation", variation_of, METH_VARARGS, NULL},
    {"same_class", same_class, METH_VARARGS, NULL},
    {"sharpness", sharpness_of, METH_VARARGS, NULL},
    {"users_path", users_path, METH_O, NULL},
    {"marks", marks_of, METH_O, NULL},
    {"versions", versions_of, METH_O, NULL},
    {NULL, NULL, 0, NULL},
};

static struct PyModuleDef MODULE = {PyModuleDef_HEAD_INIT, "_reductions", NULL, -1, METHODS, NULL, NULL, NULL, NULL};

PyMODINIT_FUNC PyInit__reductions(void) { return know_torch() < 0 ? NULL : PyModule_Create(&MODULE); }
