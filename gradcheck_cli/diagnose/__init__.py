"""Pure diagnosis: a `Recording` in, findings out. No torch, no printing, no files."""
