/* Reductions over float32 arrays that read each element once and add in float64.

   Eight lanes go side by side in vectors, which the compiler maps to what the processor has; the order of the additions
   is the same everywhere. Squares of float32 numbers neither overflow nor vanish in float64. */

#include <math.h>
#include <stdint.h>

#define LANES 8
#define COUNTED (1 << 24) /* lanes count in 32 bits */
#define CHUNK 64
#define MAX(a, b) (((a) & ((a) > (b))) | ((b) & ~((a) > (b))))

/* On x86 with glibc, the loader picks the copy for the processor at hand. */
#if defined(__x86_64__) && defined(__gnu_linux__) && defined(__GNUC__) && !defined(__clang__)
#define FOR_EACH_PROCESSOR __attribute__((target_clones("avx512f", "avx2", "default")))
#else
#define FOR_EACH_PROCESSOR
#endif

typedef float floats __attribute__((vector_size(4 * LANES), aligned(4), may_alias));
typedef int32_t ints __attribute__((vector_size(4 * LANES)));
typedef double doubles __attribute__((vector_size(8 * LANES)));

typedef struct {
  double total, squares, largest;
  int64_t zeros;
} moments;

static inline doubles widened(const float *x) { return __builtin_convertvector(*(const floats *)x, doubles); }

static inline double added(doubles lanes) {
  double total = 0;
  for (int k = 0; k < LANES; k++) total += lanes[k];
  return total;
}

/* The magnitude's bits order finite values, infinity and NaN, in this sequence. */
static inline int32_t magnitude(float x) {
  union { float value; int32_t bits; } one = {x};
  return one.bits & INT32_MAX;
}

FOR_EACH_PROCESSOR static moments measured(const float *x, int64_t n) {
  doubles total[2] = {{0}}, squares[2] = {{0}};
  ints largest[2] = {{0}};
  int64_t i = 0, zeros = 0;
  while (i + 2 * LANES <= n) {
    ints seen[2] = {{0}};
    int64_t stop = n - i > COUNTED ? i + COUNTED : n;
    for (; i + 2 * LANES <= stop; i += 2 * LANES)
      for (int half = 0; half < 2; half++) {
        const float *at = x + i + half * LANES;
        doubles value = widened(at);
        ints bits = (ints)(*(const floats *)at) & INT32_MAX;
        total[half] += value;
        squares[half] += value * value;
        largest[half] = MAX(bits, largest[half]);
        seen[half] -= bits == 0;
      }
    for (int k = 0; k < LANES; k++) zeros += seen[0][k] + seen[1][k];
  }
  moments sums = {added(total[0] + total[1]), added(squares[0] + squares[1]), 0, zeros};
  union { int32_t bits; float value; } top = {0};
  ints both = MAX(largest[0], largest[1]);
  for (int k = 0; k < LANES; k++) top.bits = both[k] > top.bits ? both[k] : top.bits;
  for (; i < n; i++) {
    sums.total += x[i];
    sums.squares += (double)x[i] * x[i];
    sums.zeros += x[i] == 0;
    top.bits = magnitude(x[i]) > top.bits ? magnitude(x[i]) : top.bits;
  }
  sums.largest = top.value;
  return sums;
}

FOR_EACH_PROCESSOR static double squared(const float *x, int64_t n) {
  doubles squares[2] = {{0}};
  int64_t i = 0;
  for (; i + 2 * LANES <= n; i += 2 * LANES)
    for (int half = 0; half < 2; half++) {
      doubles value = widened(x + i + half * LANES);
      squares[half] += value * value;
    }
  double sum = added(squares[0] + squares[1]);
  for (; i < n; i++) sum += (double)x[i] * x[i];
  return sum;
}

/* The sum of (x - y)^2, and in `products` that of x y. */
FOR_EACH_PROCESSOR static double apart(const float *x, const float *y, int64_t n, double *products) {
  doubles squares = {0}, product = {0};
  int64_t i = 0;
  for (; i + LANES <= n; i += LANES) {
    doubles left = widened(x + i), right = widened(y + i), step = left - right;
    squares += step * step;
    product += left * right;
  }
  double sum = added(squares);
  *products = added(product);
  for (; i < n; i++) {
    double step = (double)x[i] - y[i];
    sum += step * step;
    *products += (double)x[i] * y[i];
  }
  return sum;
}

static double spread_around(const float *x, int64_t n, double mean) {
  double squares = 0;
  for (int64_t i = 0; i < n; i++) squares += (x[i] - mean) * (x[i] - mean);
  return squares / n;
}

static int64_t count_nonfinite(const float *x, int64_t n) {
  int64_t count = 0;
  for (int64_t i = 0; i < n; i++) count += magnitude(x[i]) >= 0x7f800000;
  return count;
}

/* out[6]: norm, mean, standard deviation, largest magnitude, fraction of zeros, number of non-finite elements. */
static void describe_one(const float *x, int64_t n, double *out) {
  moments sums = measured(x, n);
  double count = n > 0 ? n : 1, mean = sums.total / count, variance = sums.squares / count - mean * mean;
  int is_finite = isfinite(sums.squares);
  /* E[x^2] - E[x]^2 keeps six digits only while it is above 1e-7 of E[x]^2. */
  if (is_finite && !(variance > 1e-7 * mean * mean)) variance = sums.squares > 0 ? spread_around(x, n, mean) : 0;
  out[0] = sqrt(sums.squares);
  out[1] = mean;
  out[2] = sqrt(variance);
  out[3] = sums.largest;
  out[4] = sums.zeros / count;
  out[5] = is_finite ? 0 : count_nonfinite(x, n);
}

/* What `describe_one` gives of each array; out has shape (count, 6). */
void describe(const float *const *arrays, const int64_t *sizes, int64_t count, double *out) {
  for (int64_t i = 0; i < count; i++) describe_one(arrays[i], sizes[i], out + 6 * i);
}

/* The L2 norm of each array; out has shape (count,). */
void norms(const float *const *arrays, const int64_t *sizes, int64_t count, double *out) {
  for (int64_t i = 0; i < count; i++) out[i] = sqrt(squared(arrays[i], sizes[i]));
}

/* The L2 norm of the difference of two arrays, and the sum of the products of their elements; out has shape (count, 2). */
void compare(const float *const *arrays, const float *const *others, const int64_t *sizes, int64_t count, double *out) {
  for (int64_t i = 0; i < count; i++) out[2 * i] = sqrt(apart(arrays[i], others[i], sizes[i], out + 2 * i + 1));
}

/* Every steps[i]-th element of each array, one array after another. */
void sample(const float *const *arrays, const int64_t *sizes, const int64_t *steps, int64_t count, float *out) {
  for (int64_t i = 0; i < count; i++)
    for (int64_t at = 0; at < sizes[i]; at += steps[i]) *out++ = arrays[i][at];
}

/* Of each query, how far apart its logits lie, as a standard deviation, and the entropy of its softmax over the log of
   the number of keys that it sees: the first limits[i % period]. `logits` has shape (queries, keys), `out` (queries, 2),
   NaN for a query that sees fewer than two. */
void sharpness(const float *logits, const int64_t *limits, int64_t period, int64_t queries, int64_t keys, double *out) {
  for (int64_t i = 0; i < queries; i++, logits += keys, out += 2) {
    int64_t seen = limits[i % period];
    float top = logits[0];
    double total = 0, around = 0, weights = 0, moment = 0;
    for (int64_t k = 0; k < seen; k++) {
      top = logits[k] > top ? logits[k] : top;
      total += logits[k];
    }
    for (int64_t k = 0; k < seen; k++) {
      double centred = logits[k] - total / seen, shifted = logits[k] - top, weight = expf(logits[k] - top);
      around += centred * centred;
      weights += weight;
      moment += weight * shifted;
    }
    out[0] = seen > 1 ? sqrt(around / seen) : NAN;
    out[1] = seen > 1 ? (log(weights) - moment / weights) / log(seen) : NAN;
  }
}

/* Which units of an array of shape (outer, units, inner) are anywhere other than 0; out has shape (units,). */
FOR_EACH_PROCESSOR void find_active(const float *array, int64_t outer, int64_t units, int64_t inner, uint8_t *out) {
  for (int64_t u = 0; u < units; u++) out[u] = 0;
  for (int64_t o = 0; o < outer; o++)
    for (int64_t u = 0; u < units; u++, array += inner) {
      int32_t seen = out[u];
      for (int64_t i = 0; i < inner && !seen; i += CHUNK)
        for (int64_t k = i; k < inner && k < i + CHUNK; k++) seen |= array[k] != 0;
      out[u] = seen != 0;
    }
}

/* Standard deviation across the rows of an array of shape (rows, columns), over its RMS; 0 where all is 0. `means` has
   room for (columns,). */
double variation(const float *array, int64_t rows, int64_t columns, double *means) {
  double total = squared(array, rows * columns), around = 0;
  for (int64_t k = 0; k < columns; k++) means[k] = 0;
  for (int64_t i = 0; i < rows; i++)
    for (int64_t k = 0; k < columns; k++) means[k] += array[i * columns + k];
  for (int64_t k = 0; k < columns; k++) means[k] /= rows;
  for (int64_t i = 0; i < rows; i++)
    for (int64_t k = 0; k < columns; k++) {
      double step = array[i * columns + k] - means[k];
      around += step * step;
    }
  return total == 0 ? 0 : sqrt(around / total);
}

/* out[4]: sum, sum of squares, largest magnitude and number of zeros of one array. */
void moments_of(const float *array, int64_t size, double *out) {
  moments sums = measured(array, size);
  out[0] = sums.total, out[1] = sums.squares, out[2] = sums.largest, out[3] = sums.zeros;
}
