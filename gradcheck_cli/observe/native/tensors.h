/* Where the numbers of tensors are. */

#ifndef TENSORS_H
#define TENSORS_H

#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <stdint.h>

#define FEW 64

typedef struct {
  const float *start;
  int64_t size;
} place;

/* `given` keeps the tensors alive; `size` is the sum of all. */
typedef struct {
  PyObject *given;
  place *items, few[FEW];
  Py_ssize_t count;
  int64_t size;
} places;

/* Finds torch's names; -1 with an exception set if it has other ones. */
int know_torch(void);

/* Whether a tensor is torch's own, float32, in this machine's memory, one number after another; and where. */
int locate(PyObject *tensor, place *found);

/* The same of each in a list or tuple, where None stands for no tensor; `let_go` must follow. 0 where one is of another
   kind, or with an exception set. */
int locate_all(PyObject *tensors, places *known);

void let_go(places *known);

#endif
