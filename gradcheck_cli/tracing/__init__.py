"""nan-trace: watch a run, find the step that fails, trace it, and prove what was found by replaying it repaired."""
