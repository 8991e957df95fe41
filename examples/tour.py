# %% [markdown]
# # A tour of flowlm
#
# A shipped flow map writes a text in one evaluation of its network, shows how a text comes into
# being, fills gaps, says how likely it finds a text, and varies one. Every cell takes a second or
# less on one core.
#
# The cells of this script open in Jupyter (with jupytext), VS Code and PyCharm; `python
# examples/tour.py` runs them all.

# %%
import flowlm

model = flowlm.load("demo")
print(model)

# %% [markdown]
# ## One step
#
# All words of a text move together, from noise to text in one jump. A text depends on the seed and
# on its number alone.

# %%
for text in model.generate(4, steps=1, seed=0):
    print(text)

# %% [markdown]
# ## A film
#
# More steps revise what the first one says. `film` yields a frame a step: the likeliest tokens,
# how sure the network is of each, and the clock time, 0 for noise and 1 for text.

# %%
for frame in model.film(1, steps=4, seed=3):
    sure = frame.confidence()
    assert sure is not None  # as it is where words are written one by one
    (text,) = model.decode(frame.tokens())
    print(f"tau {float(frame.tau[0, 0]):.2f}  least sure word {float(sure.min()):.0%}  {text}")

# %% [markdown]
# ## Prompts and gaps
#
# Given words have time 1 and stay where they are, on the left, on the right or in the middle.

# %%
print(*model.generate(2, steps=8, prompt="these old sailors"), sep="\n")
print(*model.infill("these [..] behind their [..] rope", n=2, steps=8), sep="\n")

# %% [markdown]
# ## How likely is a text?
#
# Nats per token of texts of one's own: for a flow map an upper bound, and whose it is stands with
# it. A sentence of the language has fewer than the same words in another order.

# %%
sentence = model.generate(1, steps=8, seed=1)[0]
shuffled = " ".join(sorted(sentence.split()))
scores = model.score([sentence, shuffled], draws=64)
print(f"{scores.kind}, of {scores.of}")
for text, nats, error in zip([sentence, shuffled], scores.nats, scores.error):
    print(f"{float(nats):.2f} ± {float(error):.2f} nats per token: {text}")

# %% [markdown]
# ## Variations
#
# A text is noised part of the way back, and written on from there: the stronger the noise, the
# less of it is left.

# %%
for strength in (0.2, 0.5, 0.8):
    (varied,) = model.vary(sentence, strength, steps=8)
    kept = sum(a == b for a, b in zip(sentence.split(), varied.split()))
    print(f"strength {strength}: {kept} of {len(sentence.split())} words kept: {varied}")
