"""The commands without their shell: drive a workload, observe it, diagnose what was seen, make a report."""

from gradcheck_cli.pipeline.clipping import recommend_clip
from gradcheck_cli.pipeline.nan_tracing import nan_trace
from gradcheck_cli.pipeline.preparation import Progress, Watcher
from gradcheck_cli.pipeline.profiling import profile

__all__ = ["Progress", "Watcher", "nan_trace", "profile", "recommend_clip"]
