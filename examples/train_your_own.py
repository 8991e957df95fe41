# %% [markdown]
# # A flow and its map, on a text of your own
#
# A small text, a flow that learns it, a flow map that is distilled from the flow, and what both
# write. The settings are as small as can be, so that all cells take seconds on one core; the
# comments say what to change for a text of your own.
#
# The cells of this script open in Jupyter (with jupytext), VS Code and PyCharm; `python
# examples/train_your_own.py` runs them all.

# %%
import random
import tempfile
from pathlib import Path

import flowlm

place = Path(tempfile.mkdtemp(prefix="flowlm-"))  # of your own: Path("runs")

# %% [markdown]
# ## A text
#
# One document a line. This one lists what animals do; of your own, name a file, a directory of
# .txt files or a glob.

# %%
draw = random.Random(0)
animals, verbs = ["cat", "dog", "owl", "fox"], ["sees", "hears", "follows"]
lines = [
    f"the {draw.choice(animals)} {draw.choice(verbs)} the {draw.choice(animals)}"
    for _ in range(2000)
]
text = place / "animals.txt"
text.write_text("\n".join(lines) + "\n")
print(*lines[:3], sep="\n")

# %% [markdown]
# ## A flow
#
# `fit` trains a recipe into a directory and returns its model; called again, it goes on where it
# was stopped. Options have the names of the command line, `flowlm train text-flow --help`. The
# recipe's own sizes and steps are for texts of a megabyte and more.

# %%
small = {
    "data.path": str(text), "data.tokenizer": "bpe", "data.vocab": 320, "data.length": 12,
    "size.blocks": 2, "size.width": 32, "size.heads": 2, "size.condition": 16,
    "train.steps": 200, "train.batch": 32, "train.warmup": 20, "train.lr": 3e-3,
    "train.device": "cpu", "train.precision": "float32",
}  # fmt: skip
flow = flowlm.fit("text-flow", place / "flow", small, quiet=True)
print(flow)
print(flow.generate(3, steps=32))

# %% [markdown]
# ## Its map
#
# The map learns to jump to where the flow would arrive. It takes size and text from its teacher,
# and writes in one step.

# %%
own = {name: value for name, value in small.items() if name.startswith("train.")}
taught = own | {"method.teacher": str(place / "flow"), "train.steps": 200}
distilled = flowlm.fit("text-flow-map", place / "map", taught, quiet=True)
for steps in (1, 4):
    print(steps, distilled.generate(3, steps=steps))

# %% [markdown]
# ## Keep it
#
# An export has all that a model needs, and no pickle; `flowlm sample`, `serve`, `evaluate` and
# `publish` take its directory.

# %%
distilled.save(place / "export")
again = flowlm.load(place / "export", device="cpu")
assert again.generate(2, steps=1) == distilled.generate(2, steps=1)
print(*sorted(file.name for file in (place / "export").iterdir()), sep="\n")
