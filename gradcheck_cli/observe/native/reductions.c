/* Reductions over float32 arrays that read each element once and add in float64.

   Sixteen numbers go side by side in vectors, which the compiler maps to what the processor has; the order of the
   additions is the same everywhere. Squares of float32 numbers neither overflow nor vanish in float64. */

#include "reductions.h"

#include <math.h>

#define LANES 4
#define AT_ONCE (4 * LANES)
#define PARTS (AT_ONCE / WIDTH)
#define COUNTED (1 << 24) /* lanes count in 32 bits */
#define CHUNK 64

/* On x86 with glibc, the loader picks the copy for the processor at hand. */
#if defined(__x86_64__) && defined(__gnu_linux__) && defined(__GNUC__) && !defined(__clang__)
#define FOR_EACH_PROCESSOR __attribute__((target_clones("avx512f", "avx2", "default")))
#define WIDTH 8
#else
#define FOR_EACH_PROCESSOR
#define WIDTH 4 /* what a vector holds where there is none of those */
#endif

typedef double doubles __attribute__((vector_size(8 * LANES)));
typedef double unaligned_doubles __attribute__((vector_size(8 * LANES), aligned(8), may_alias));
typedef int32_t ints __attribute__((vector_size(4 * WIDTH)));
typedef int32_t unaligned_ints __attribute__((vector_size(4 * WIDTH), aligned(4), may_alias));

/* GCC converts vectors by way of memory, and loops as they should be. */
static inline doubles widened(const float *x) {
  doubles wide;
  for (int k = 0; k < LANES; k++) wide[k] = x[k];
  return wide;
}

static inline ints larger(ints a, ints b) {
  ints top;
  for (int k = 0; k < WIDTH; k++) top[k] = a[k] > b[k] ? a[k] : b[k];
  return top;
}

static inline double added(doubles lanes) {
  double total = 0;
  for (int k = 0; k < LANES; k++) total += lanes[k];
  return total;
}

static inline double added_all(const doubles *lanes) { return added((lanes[0] + lanes[1]) + (lanes[2] + lanes[3])); }

static inline float largest_in(ints lanes) {
  union { int32_t bits; float value; } top = {0};
  for (int k = 0; k < WIDTH; k++) top.bits = lanes[k] > top.bits ? lanes[k] : top.bits;
  return top.value;
}

/* The magnitude's bits order finite values, infinity and NaN, in this sequence. */
static inline int32_t magnitude(float x) {
  union { float value; int32_t bits; } one = {x};
  return one.bits & INT32_MAX;
}

static inline ints magnitudes(const float *x) { return *(const unaligned_ints *)x & INT32_MAX; }

FOR_EACH_PROCESSOR moments measure(const float *x, int64_t n) {
  doubles total[4] = {{0}}, squares[4] = {{0}};
  ints largest[PARTS] = {{0}};
  int64_t i = 0, zeros = 0;
  while (i + AT_ONCE <= n) {
    ints seen[PARTS] = {{0}};
    int64_t stop = n - i > COUNTED ? i + COUNTED : n;
    for (; i + AT_ONCE <= stop; i += AT_ONCE) {
      for (int part = 0; part < 4; part++) {
        doubles value = widened(x + i + part * LANES);
        total[part] += value;
        squares[part] += value * value;
      }
      for (int part = 0; part < PARTS; part++) {
        ints bits = magnitudes(x + i + part * WIDTH);
        largest[part] = larger(bits, largest[part]);
        seen[part] -= bits == 0;
      }
    }
    for (int k = 0; k < AT_ONCE; k++) zeros += seen[k / WIDTH][k % WIDTH];
  }
  moments sums = {added_all(total), added_all(squares), 0, zeros};
  ints top = largest[0];
  for (int part = 1; part < PARTS; part++) top = larger(top, largest[part]);
  for (; i < n; i++) {
    sums.total += x[i];
    sums.squares += (double)x[i] * x[i];
    sums.zeros += x[i] == 0;
    top[0] = magnitude(x[i]) > top[0] ? magnitude(x[i]) : top[0];
  }
  sums.largest = largest_in(top);
  return sums;
}

FOR_EACH_PROCESSOR double square(const float *x, int64_t n) {
  doubles squares[4] = {{0}};
  int64_t i = 0;
  for (; i + AT_ONCE <= n; i += AT_ONCE)
    for (int part = 0; part < 4; part++) {
      doubles value = widened(x + i + part * LANES);
      squares[part] += value * value;
    }
  double sum = added_all(squares);
  for (; i < n; i++) sum += (double)x[i] * x[i];
  return sum;
}

FOR_EACH_PROCESSOR double distance(const float *x, const float *y, int64_t n) {
  doubles squares[4] = {{0}};
  int64_t i = 0;
  for (; i + AT_ONCE <= n; i += AT_ONCE)
    for (int part = 0; part < 4; part++) {
      doubles step = widened(x + i + part * LANES) - widened(y + i + part * LANES);
      squares[part] += step * step;
    }
  double sum = added_all(squares);
  for (; i < n; i++) sum += ((double)x[i] - y[i]) * ((double)x[i] - y[i]);
  return sqrt(sum);
}

FOR_EACH_PROCESSOR double compare(const float *x, const float *y, int64_t n, double *square) {
  doubles product = {0}, squares = {0};
  int64_t i = 0;
  for (; i + LANES <= n; i += LANES) {
    doubles left = widened(x + i), right = widened(y + i);
    product += left * right;
    squares += left * left + right * right;
  }
  double dot = added(product), sum = added(squares);
  for (; i < n; i++) {
    dot += (double)x[i] * y[i];
    sum += (double)x[i] * x[i] + (double)y[i] * y[i];
  }
  *square = sum / 2;
  return dot;
}

FOR_EACH_PROCESSOR float largest(const float *x, int64_t n) {
  ints top = {0};
  int64_t i = 0;
  for (; i + WIDTH <= n; i += WIDTH) {
    ints bits = magnitudes(x + i);
    top = larger(bits, top);
  }
  for (; i < n; i++) top[0] = magnitude(x[i]) > top[0] ? magnitude(x[i]) : top[0];
  return largest_in(top);
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

void describe(const float *x, int64_t n, double *out) {
  moments sums = measure(x, n);
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

/* Units side by side: the loop over them is the inner one. */
static void find_active_columns(const float *array, int64_t rows, int64_t units, uint8_t *out) {
  for (int64_t i = 0; i < rows; i++, array += units)
    for (int64_t u = 0; u < units; u++) out[u] |= array[u] != 0;
}

FOR_EACH_PROCESSOR void find_active(const float *array, int64_t outer, int64_t units, int64_t inner, uint8_t *out) {
  for (int64_t u = 0; u < units; u++) out[u] = 0;
  if (inner == 1) {
    find_active_columns(array, outer, units, out);
    return;
  }
  for (int64_t o = 0; o < outer; o++)
    for (int64_t u = 0; u < units; u++, array += inner) {
      int32_t seen = out[u];
      for (int64_t i = 0; i < inner && !seen; i += CHUNK)
        for (int64_t k = i; k < inner && k < i + CHUNK; k++) seen |= array[k] != 0;
      out[u] = seen != 0;
    }
}

int64_t find_best(const float *row, int64_t columns) {
  int64_t best = 0;
  for (int64_t k = 1; k < columns && !isnan(row[best]); k++)
    if (row[k] > row[best] || isnan(row[k])) best = k;
  return best;
}

FOR_EACH_PROCESSOR double variation(const float *array, int64_t rows, int64_t columns, double *means) {
  double total = square(array, rows * columns), around = 0;
  doubles squares = {0};
  for (int64_t k = 0; k < columns; k++) means[k] = 0;
  for (int64_t i = 0; i < rows; i++)
    for (int64_t k = 0; k < columns; k++) means[k] += array[i * columns + k];
  for (int64_t k = 0; k < columns; k++) means[k] /= rows;
  for (int64_t i = 0; i < rows; i++, array += columns) {
    int64_t k = 0;
    for (; k + LANES <= columns; k += LANES) {
      doubles step = widened(array + k) - *(const unaligned_doubles *)(means + k);
      squares += step * step;
    }
    for (; k < columns; k++) around += (array[k] - means[k]) * (array[k] - means[k]);
  }
  return total == 0 ? 0 : sqrt((added(squares) + around) / total);
}
