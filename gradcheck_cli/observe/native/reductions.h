/* Reductions over float32 arrays. */

#ifndef REDUCTIONS_H
#define REDUCTIONS_H

#include <stdint.h>

typedef struct {
  double total, squares, largest; /* NaN, if one is */
  int64_t zeros;
} moments;

moments measure(const float *x, int64_t n);

/* The sum of squares. */
double square(const float *x, int64_t n);

/* The L2 norm of x - y. */
double distance(const float *x, const float *y, int64_t n);

/* The sum of x y, and in `square` half that of x^2 + y^2. */
double compare(const float *x, const float *y, int64_t n, double *square);

/* The largest magnitude, NaN if one is. */
float largest(const float *x, int64_t n);

/* out[6]: norm, mean, standard deviation, largest magnitude, fraction of zeros, number of non-finite elements. */
void describe(const float *x, int64_t n, double *out);

/* Of each query, how far apart its logits lie, as a standard deviation, and the entropy of its softmax over the log of
   the number of keys that it sees: the first limits[i % period]. `logits` has shape (queries, keys), `out` (queries, 2),
   NaN for a query that sees fewer than two. */
void sharpness(const float *logits, const int64_t *limits, int64_t period, int64_t queries, int64_t keys, double *out);

/* Which units of an array of shape (outer, units, inner) are anywhere other than 0; out has shape (units,). */
void find_active(const float *array, int64_t outer, int64_t units, int64_t inner, uint8_t *out);

/* The place of the largest of a row's elements, the first one; of a NaN, if there is one. */
int64_t find_best(const float *row, int64_t columns);

/* Standard deviation across the rows of an array of shape (rows, columns), over its RMS; 0 where all is 0. `means` has
   room for (columns,). */
double variation(const float *array, int64_t rows, int64_t columns, double *means);

#endif
