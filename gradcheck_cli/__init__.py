"""Gradient diagnostics for PyTorch from the command line.

             drive                    observe                   diagnose               report
 argv ──► Settings ──► Workload ──► training steps ──► Recording ──► findings, advice ──► Report ──► text, files
                        (torch)        (torch)          (numpy)         (numpy)           (plain data)

`drive` runs training steps and knows nothing of measuring. `observe` watches any training code through torch's
own hook points. `diagnose` and `report` are pure functions over plain values. `pipeline` joins them, `cli` is
plumbing. Imports point one way: cli -> pipeline -> drive, observe, diagnose, report -> config -> records, errors.
"""

__version__ = "0.1.0"
