"""Where a NaN comes from: watch steps, rewind, replay one of them operation by operation."""
