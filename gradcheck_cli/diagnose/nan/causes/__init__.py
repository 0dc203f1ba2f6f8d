"""The catalogue: all causes, the most specific first. The first one that applies is the explanation."""

from __future__ import annotations

from gradcheck_cli.diagnose.nan.cause import Cause
from gradcheck_cli.diagnose.nan.causes.divisions import DIVISION_CAUSES, DIVISIONS_AT_LAST
from gradcheck_cli.diagnose.nan.causes.domains import DOMAINS, EXPONENTIALS
from gradcheck_cli.diagnose.nan.causes.logarithms import LOGARITHMS, LOGARITHMS_AT_LAST
from gradcheck_cli.diagnose.nan.causes.losses import LOSSES
from gradcheck_cli.diagnose.nan.causes.masks import MASKS
from gradcheck_cli.diagnose.nan.causes.normalisation import NORMALISATION
from gradcheck_cli.diagnose.nan.causes.overflows import OVERFLOWS, OVERFLOWS_AT_LAST
from gradcheck_cli.diagnose.nan.causes.slopes import (
    CUSTOM_BACKWARD,
    DOUBLE_WHERE,
    PRODUCT_THROUGH_LOGS,
    SLOPES,
    SLOPES_AT_LAST,
)
from gradcheck_cli.diagnose.nan.causes.sources import REFUSALS, SOURCES
from gradcheck_cli.diagnose.nan.causes.updates import UPDATES

CAUSES: tuple[Cause, ...] = (
    *SOURCES,
    CUSTOM_BACKWARD,
    PRODUCT_THROUGH_LOGS,
    DOUBLE_WHERE,
    *LOGARITHMS,
    *MASKS,
    *DIVISION_CAUSES,
    *SLOPES,
    *EXPONENTIALS,
    *DOMAINS,
    *NORMALISATION,
    *LOSSES,
    *LOGARITHMS_AT_LAST,
    *DIVISIONS_AT_LAST,
    *OVERFLOWS,
    *UPDATES,
    *SLOPES_AT_LAST,
    *OVERFLOWS_AT_LAST,
    *REFUSALS,
)
