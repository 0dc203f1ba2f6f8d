#include "tensors.h"

static PyObject *Tensor, *Parameter, *float32, *strided;
static PyObject *dtype, *layout, *is_cpu, *is_contiguous, *is_neg, *data_ptr, *numel;

/* DLTensor and DLPackExchangeAPI of dlpack.h, version 1.3: all that is asked below, in one call. */
typedef struct {
  void *data;
  int32_t device_type, device_id, ndim;
  uint8_t code, bits;
  uint16_t lanes;
  const int64_t *shape, *strides;
  uint64_t byte_offset;
} view;

typedef struct {
  uint32_t major, minor;
  void *previous, *allocate, *export_tensor, *import_tensor;
  int (*look_at)(void *tensor, view *seen);
} exchange;

enum { ON_CPU = 1, OF_FLOATS = 2 };

static const exchange *dlpack; /* NULL in a torch without it */

static void know_dlpack(void) {
  PyObject *capsule = PyObject_GetAttrString(Tensor, "__dlpack_c_exchange_api__");
  dlpack = capsule ? PyCapsule_GetPointer(capsule, "dlpack_exchange_api") : NULL;
  if (dlpack && (dlpack->major != 1 || !dlpack->look_at)) dlpack = NULL;
  Py_XDECREF(capsule); /* the class keeps it */
  PyErr_Clear();
}

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
    know_dlpack();
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

static int lies_straight(const view *seen, int64_t *size) {
  int is_straight = 1;
  *size = 1;
  for (int32_t i = seen->ndim - 1; i >= 0; i--) {
    is_straight &= !seen->strides || seen->shape[i] == 1 || seen->strides[i] == *size;
    *size *= seen->shape[i];
  }
  return is_straight || *size == 0;
}

static int look_at(PyObject *tensor, place *found) {
  view seen;
  if (dlpack->look_at(tensor, &seen) || seen.device_type != ON_CPU || seen.code != OF_FLOATS || seen.bits != 32)
    return 0;
  found->start = (const float *)((const char *)seen.data + seen.byte_offset);
  return lies_straight(&seen, &found->size);
}

static int ask(PyObject *tensor, place *found) {
  int64_t address = 0;
  int is_known = is_same(PyObject_GetAttr(tensor, dtype), float32) &&
                 is_same(PyObject_GetAttr(tensor, is_cpu), Py_True) &&
                 is_same(PyObject_CallOneArg(is_contiguous, tensor), Py_True) &&
                 has_number(data_ptr, tensor, &address) && has_number(numel, tensor, &found->size);
  found->start = (const float *)address;
  return is_known;
}

/* A tensor that a transform wraps has no address, which raises; one whose memory was given back lies at 0. */
int locate(PyObject *tensor, place *found) {
  PyObject *type = (PyObject *)Py_TYPE(tensor);
  int is_direct = (type == Tensor || type == Parameter) && is_same(PyObject_GetAttr(tensor, layout), strided) &&
                  is_same(PyObject_CallOneArg(is_neg, tensor), Py_False) &&
                  (dlpack ? look_at(tensor, found) : ask(tensor, found));
  PyErr_Clear();
  return is_direct && (found->start || found->size == 0);
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
