"""From the tape of a step to the operation that made its first harmful NaN or Inf, the cause and the repair."""
