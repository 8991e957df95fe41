"""Writers without a model, as the measures see them: is each caught by one that needs no model?

    python -m benchmarks.controls --text 'FILES' --vocab bert-base-uncased/vocab.txt

FILES are held-out shards of the One Billion Word benchmark (a glob; .xz is unpacked), one sentence
a line. Sentences are packed to 128 tokens; 300 texts a row are compared with 300 real ones, and the
n-grams of the rest are those that a model would have learnt from. A measure catches a writer if
it is further from real text than three times what any of three other sets of real texts is.
"""

from __future__ import annotations

import argparse
import glob
import lzma
from pathlib import Path

import torch
from tokenizers.implementations import BertWordPieceTokenizer

from benchmarks.provenance import write_result
from flowlm.data.tokenizer import Tokenizer
from flowlm.evaluate.measures import INTERVALS, MEASURES, Written, figures
from flowlm.evaluate.ngrams import KnownText
from flowlm.evaluate.real import RealText
from flowlm.evaluate.writers import controls

TEXTS, LENGTH, OTHERS = 300, 128, 3
JUDGING = [
    *("sample_entropy", "corpus_entropy", "unique", "rep_2", "rep_3", "distinct_2", "self_bleu"),
    *("zipf", "novel_4", "energy_hand", "energy_bigram"),
]


def packed(files: str, vocab: Path) -> tuple[torch.Tensor, Tokenizer]:
    """All sentences one after another, [SEP] between them, in rows of LENGTH."""
    library = BertWordPieceTokenizer(str(vocab), lowercase=True)
    tokenizer = Tokenizer.from_json(library.to_str(), str(vocab))
    end = tokenizer.id_of("[SEP]")
    ids: list[int] = []
    for file in sorted(glob.glob(files)):
        raw = Path(file).read_bytes()
        text = (lzma.decompress(raw) if file.endswith(".xz") else raw).decode()
        for sentence in tokenizer.encode_many(text.splitlines()):
            ids += [*sentence, end]
    return torch.tensor(ids[: len(ids) // LENGTH * LENGTH]).view(-1, LENGTH), tokenizer


def main() -> None:
    """Print the table and write benchmarks/results/controls.json."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--text", required=True)
    parser.add_argument("--vocab", required=True, type=Path)
    given = parser.parse_args()
    rows, tokenizer = packed(given.text, given.vocab)
    rows = rows[torch.randperm(len(rows), generator=torch.Generator().manual_seed(0))]
    held_out, *others = rows.split(TEXTS)[: OTHERS + 2]
    training = rows[(OTHERS + 2) * TEXTS :]
    known = KnownText(training.flatten().numpy())
    real = RealText(held_out, known, tokenizer.decode)
    texts = {"real text": others[0]} | controls(training[:TEXTS], 0)
    found = {name: figures(Written(tokens, real=real)) for name, tokens in texts.items()}
    spread = [figures(Written(tokens, real=real)) for tokens in others[1:]]
    base = found["real text"]
    caught = {}
    for name, row in found.items():
        usual = {k: max(abs(other[k] - base[k]) for other in spread) for k in JUDGING}
        caught[name] = [k for k in JUDGING if abs(row[k] - base[k]) > 3 * usual[k]]
    shown = [MEASURES[key] for key in JUDGING]
    print("| texts | " + " | ".join(m.heading for m in shown) + " | caught by |")
    print("|---|" + "---:|" * len(shown) + "---|")
    for name, row in found.items():
        cells = [m.plain(row[m.key]) for m in shown]
        print(f"| {name} | {' | '.join(cells)} | {', '.join(caught[name]) or '-'} |")
    told = [
        {"texts": name, "caught by": caught[name]}
        | {key: value for key, value in row.items() if key != INTERVALS}
        for name, row in found.items()
    ]
    write_result("controls", {"training tokens": training.numel(), "rows": told})


if __name__ == "__main__":
    main()
