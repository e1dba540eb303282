#!/usr/bin/env bash
# One key of tokenizer_config.json makes the scores of a BERT depend on which texts stand beside them.
#
# One would guess that the attention mask takes care of padding on whichever side it is, so that `"padding_side": "left"`
# (which tokenizers of decoders carry, and people copy) changes nothing in an encoder. What happens (transformers
# 5.23.0): `pipeline("text-classification", batch_size=2)` gives the same text other scores alone than beside a longer
# one, without a warning; with padding on the right it does not. The mask keeps the padding out of attention, but BERT's
# pooler reads position 0, which in a padded row now is [PAD], and position embeddings count from the left end of the
# row whatever stands there, so that each word also moves to another place.
# Why: models/bert/modeling_bert.py, BertPooler takes hidden_states[:, 0]; BertEmbeddings takes position_ids 0 to
# length - 1. tokenization_utils_base.py pads on `padding_side` of the tokenizer, whatever the model is.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/python" -m pip install --quiet --disable-pip-version-check torch==2.13.0 transformers==5.23.0 numpy==2.4.6
HF_HOME="$work/home" HF_HUB_OFFLINE=1 "$work/venv/bin/python" - "$work" <<'PYTHON'
import json
import sys
from pathlib import Path

import torch
import transformers

transformers.utils.logging.disable_progress_bar()
transformers.utils.logging.set_verbosity_error()
words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a", "good", "bad", "film", "with", "long", "words"]
torch.manual_seed(0)
config = transformers.BertConfig(
    vocab_size=len(words),
    hidden_size=16,
    intermediate_size=24,
    num_hidden_layers=2,
    num_attention_heads=2,
    initializer_range=0.5,
    num_labels=2,
)
model = transformers.BertForSequenceClassification(config)
texts = ["a good film", "a bad film with long long long words"]
moved = {}
for side in ("right", "left"):
    folder = Path(sys.argv[1], side)
    model.save_pretrained(folder)
    (folder / "vocab.txt").write_text("\n".join(words) + "\n")
    (folder / "tokenizer_config.json").write_text(
        json.dumps({"tokenizer_class": "BertTokenizer", "padding_side": side})
    )
    classify = transformers.pipeline("text-classification", str(folder), top_k=None)

    def first(found):
        return next(row["score"] for row in found if row["label"] == "LABEL_0")

    alone, beside = first(classify([texts[0]])[0]), first(classify(texts, batch_size=2)[0])
    moved[side] = abs(alone - beside)
    print(f"padding_side {side}: {texts[0]!r} alone {alone:.6f}, beside a longer text {beside:.6f}")
same = moved["right"] < 1e-5 and moved["left"] > 1e-3
print(f"transformers {transformers.__version__}: {'as described' if same else 'CHANGED'}")
sys.exit(not same)
PYTHON
