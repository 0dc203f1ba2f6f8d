#include "tensors.h"

static PyObject *Tensor, *Parameter, *float32, *strided;
static PyObject *dtype, *layout, *is_cpu, *is_contiguous, *is_neg, *data_ptr, *numel;

int know_torch(void) {
  PyObject *torch = PyImport_ImportModule("torch"), *nn = PyImport_ImportModule("torch.nn");
  if (torch && nn) {
    Tensor = PyObject_GetAttrString(torch, "Tensor");
    Parameter = PyObject_GetAttrString(nn, "Parameter");
    float32 = PyObject_GetAttrString(torch, "float32");
    strided = PyObject_GetAttrString(torch, "strided");
  }
  if (Tensor) {
    is_contiguous = PyObject_GetAttrString(Tensor, "is_contiguous");
    is_neg = PyObject_GetAttrString(Tensor, "is_neg");
    data_ptr = PyObject_GetAttrString(Tensor, "data_ptr");
    numel = PyObject_GetAttrString(Tensor, "numel");
  }
  dtype = PyUnicode_InternFromString("dtype");
  layout = PyUnicode_InternFromString("layout");
  is_cpu = PyUnicode_InternFromString("is_cpu");
  Py_XDECREF(torch);
  Py_XDECREF(nn);
  return PyErr_Occurred() ? -1 : 0;
}

static int is_same(PyObject *found, PyObject *wanted) {
  Py_XDECREF(found);
  return found == wanted;
}

static int has_number(PyObject *method, PyObject *tensor, int64_t *number) {
  PyObject *found = PyObject_CallOneArg(method, tensor);
  *number = found ? (int64_t)PyLong_AsUnsignedLongLong(found) : 0;
  Py_XDECREF(found);
  return found != NULL;
}

/* A tensor that a transform wraps has no address, which raises; one whose memory was given back lies at 0. */
int locate(PyObject *tensor, place *found) {
  PyObject *type = (PyObject *)Py_TYPE(tensor);
  int64_t address;
  int is_direct = (type == Tensor || type == Parameter) && is_same(PyObject_GetAttr(tensor, dtype), float32) &&
                  is_same(PyObject_GetAttr(tensor, layout), strided) &&
                  is_same(PyObject_GetAttr(tensor, is_cpu), Py_True) &&
                  is_same(PyObject_CallOneArg(is_contiguous, tensor), Py_True) &&
                  is_same(PyObject_CallOneArg(is_neg, tensor), Py_False) &&
                  has_number(data_ptr, tensor, &address) && has_number(numel, tensor, &found->size);
  PyErr_Clear();
  found->start = is_direct ? (const float *)address : NULL;
  return is_direct && (address != 0 || found->size == 0);
}

void let_go(places *known) {
  if (known->items != known->few) PyMem_Free(known->items);
  Py_CLEAR(known->given);
}

int locate_all(PyObject *tensors, places *known) {
  known->given = PySequence_Fast(tensors, "tensors must be in a list or tuple");
  if (!known->given) return 0;
  Py_ssize_t length = PySequence_Fast_GET_SIZE(known->given);
  known->items = length <= FEW ? known->few : PyMem_New(place, length);
  known->count = known->size = 0;
  int are_direct = known->items != NULL;
  if (!are_direct) PyErr_NoMemory();
  for (Py_ssize_t i = 0; are_direct && i < length; i++) {
    PyObject *tensor = PySequence_Fast_GET_ITEM(known->given, i);
    if (tensor == Py_None) continue;
    are_direct = locate(tensor, &known->items[known->count]);
    if (are_direct) known->size += known->items[known->count++].size;
  }
  if (!are_direct) let_go(known);
  return are_direct;
}
