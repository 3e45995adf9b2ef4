"""
A folder of photos
==================

``attribution run FOLDER`` explains every image of a folder, goes on where it was ended, and reports what it could not
read. The same from Python:
"""

# %%

import io
import os
from contextlib import redirect_stdout
from pathlib import Path
from tempfile import TemporaryDirectory

from attribution import runs, zoo
from attribution.images.samples import DISTINCT

loaded = zoo.load("bundled:squeezenet1_1")
folder = TemporaryDirectory()
photos = Path(folder.name, "photos")
photos.mkdir()
for name in DISTINCT[:8]:
    zoo.sample_photo(name).save(photos / f"{name}.png")
(photos / "broken.jpg").write_bytes(b"no image")

# %%
# One file cannot be read; the others come out as if it were not there.

from attribution.cli import main

spec, out = "bundled:squeezenet1_1", os.path.join(folder.name, "run")
with redirect_stdout(io.StringIO()) as said:
    code = main(["run", str(photos), "-t", "grad_cam", "-m", spec, "-o", out, "--overlay", "--quiet"])
print(said.getvalue().replace(folder.name, "…"))
print("exit code", code)
print(Path(out, "failures.csv").read_text().replace(folder.name, "…"))

# %%
# The run is opened as (item, technique, answer).

for item, technique, answer in runs.open(out):
    print(f"{item.name:14} {technique}  {loaded.label(int(answer.target[0, 0]))} {float(answer.scores[0, 0]):.1f}")

# %%

figure = runs.sheet(runs.open(out))
