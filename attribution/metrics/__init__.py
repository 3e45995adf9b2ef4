"""Scores of explanations: how much of what a map marks the model rests on, against controls and with intervals."""

from attribution.metrics.curves import Curves as Curves
from attribution.metrics.curves import removal_curves as removal_curves
from attribution.metrics.evaluate import evaluate as evaluate
from attribution.metrics.faithfulness import SRG as SRG
from attribution.metrics.faithfulness import Deletion as Deletion
from attribution.metrics.faithfulness import Insertion as Insertion
from attribution.metrics.infidelity import Infidelity as Infidelity
from attribution.metrics.localisation import MassInMask as MassInMask
from attribution.metrics.localisation import PointingGame as PointingGame
from attribution.metrics.localisation import RankInMask as RankInMask
from attribution.metrics.metric import Case as Case
from attribution.metrics.metric import Metric as Metric
from attribution.metrics.numerics import BackendDifference as BackendDifference
from attribution.metrics.numerics import CompletenessGap as CompletenessGap
from attribution.metrics.numerics import Float64Difference as Float64Difference
from attribution.metrics.numerics import SeedSpread as SeedSpread
from attribution.metrics.randomisation import Randomisation as Randomisation
from attribution.metrics.road import ROAD as ROAD
from attribution.metrics.road import ROADLeRF as ROADLeRF
from attribution.metrics.road import ROADMoRF as ROADMoRF
from attribution.metrics.sensitivity import MaxSensitivity as MaxSensitivity
from attribution.metrics.table import Table as Table
