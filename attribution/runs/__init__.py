"""Techniques over data sets: runs that go on where they ended, and their results item by item.

>>> from attribution import runs
>>> callable(runs.run) and callable(runs.open)
True
"""

from attribution.runs.callback import AttributionCallback as AttributionCallback
from attribution.runs.explaining import Explaining as Explaining
from attribution.runs.fiftyone import to_fiftyone as to_fiftyone
from attribution.runs.folder import RunFolder as RunFolder
from attribution.runs.images import ImageFiles as ImageFiles
from attribution.runs.images import of_folder as of_folder
from attribution.runs.images import of_list as of_list
from attribution.runs.items import Examples as Examples
from attribution.runs.items import Item as Item
from attribution.runs.items import Items as Items
from attribution.runs.opened import Entry as Entry
from attribution.runs.opened import OpenRun as OpenRun
from attribution.runs.opened import open as open
from attribution.runs.plan import Plan as Plan
from attribution.runs.run import Outcome as Outcome
from attribution.runs.run import carry_out as carry_out
from attribution.runs.run import run as run
from attribution.runs.sheet import sheet as sheet
from attribution.runs.tables import lines as lines
from attribution.runs.work import Batch as Batch
from attribution.runs.work import FunctionWork as FunctionWork
from attribution.runs.work import Part as Part
from attribution.runs.work import Work as Work
