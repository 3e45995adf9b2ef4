"""Small models that a copy, a trace or a batch gets wrong, each with layers ``stem``, ``body``, ``head``."""

from attribution.testing.models.deceptive.copied import COPIED as COPIED
from attribution.testing.models.deceptive.mixing import MIXING as MIXING
from attribution.testing.models.deceptive.mixing import OTHER_ROWS as OTHER_ROWS
from attribution.testing.models.deceptive.mixing import Folded as Folded
from attribution.testing.models.deceptive.numbers import NUMBERS as NUMBERS
from attribution.testing.models.deceptive.plain import Plain as Plain
from attribution.testing.models.deceptive.plain import fronted as fronted
from attribution.testing.models.deceptive.selfish import SELF_REFERRING as SELF_REFERRING
from attribution.testing.models.deceptive.selfish import Saving as Saving
from attribution.testing.models.deceptive.windows import UNDER_A_WINDOW as UNDER_A_WINDOW
