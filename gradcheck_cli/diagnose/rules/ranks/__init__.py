"""The rules on the ranks of a distributed run, in the order of their codes: they judge what `Recording.ranks` saw."""

from __future__ import annotations

from gradcheck_cli.diagnose.rule import Rule
from gradcheck_cli.diagnose.rules.ranks import (
    missing_no_sync,
    rank_desync,
    rank_outlier,
    straggler,
    unused_on_some_ranks,
)
from gradcheck_cli.records import Recording

RANK_RULES: tuple[Rule[Recording], ...] = (
    rank_outlier.check,
    rank_desync.check,
    missing_no_sync.check,
    straggler.check,
    unused_on_some_ranks.check,
)
