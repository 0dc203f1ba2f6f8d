"""The catalogue: all causes, the most specific first. The first one that applies is the explanation."""

from __future__ import annotations

from gradcheck_cli.diagnose.nan.cause import Cause
from gradcheck_cli.diagnose.nan.causes.divisions import DIVISION_CAUSES, DIVISIONS_AT_LAST, RSQRT_AT_ZERO
from gradcheck_cli.diagnose.nan.causes.domains import DOMAINS, EXPONENTIALS
from gradcheck_cli.diagnose.nan.causes.generals import GENERALS
from gradcheck_cli.diagnose.nan.causes.logarithms import LOGARITHMS, LOGARITHMS_AT_LAST
from gradcheck_cli.diagnose.nan.causes.losses import LOSSES
from gradcheck_cli.diagnose.nan.causes.masks import MASKS
from gradcheck_cli.diagnose.nan.causes.matrices import MATRICES
from gradcheck_cli.diagnose.nan.causes.normalisation import NORMALISATION
from gradcheck_cli.diagnose.nan.causes.overflows import OVERFLOWS
from gradcheck_cli.diagnose.nan.causes.poles import POLES
from gradcheck_cli.diagnose.nan.causes.scales import SCALE_ZERO
from gradcheck_cli.diagnose.nan.causes.slopes import (
    CUSTOM_BACKWARD,
    DOUBLE_WHERE,
    PRODUCT_THROUGH_LOGS,
    SLOPES,
)
from gradcheck_cli.diagnose.nan.causes.sources import REFUSALS, SOURCES
from gradcheck_cli.diagnose.nan.causes.updates import UPDATES

CAUSES: tuple[Cause, ...] = (
    *SOURCES,
    CUSTOM_BACKWARD,
    PRODUCT_THROUGH_LOGS,
    DOUBLE_WHERE,
    RSQRT_AT_ZERO,
    *POLES,
    *MATRICES,
    *LOGARITHMS,
    *MASKS,
    *DIVISION_CAUSES,
    SCALE_ZERO,
    *SLOPES,
    *EXPONENTIALS,
    *DOMAINS,
    *NORMALISATION,
    *LOSSES,
    *LOGARITHMS_AT_LAST,
    *DIVISIONS_AT_LAST,
    *OVERFLOWS,
    *UPDATES,
    *GENERALS,
    *REFUSALS,
)
