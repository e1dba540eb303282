#!/usr/bin/env bash
# A ModernBERT that was trained to find names, or answers, loads as a trained text classifier without a word.
#
# One would guess that `AutoModelForSequenceClassification.from_pretrained` on a checkpoint of another task warns that
# the classifier is newly drawn, as it does for BERT, whose heads have other keys. What happens (transformers 5.23.0):
# ModernBertForTokenClassification and ModernBertForQuestionAnswering save the very keys of
# ModernBertForSequenceClassification (`head.dense`, `head.norm`, `classifier`), so that one with two labels loads whole:
# nothing missing, nothing unexpected, no warning, and what judged single tokens now judges texts. The only trace is
# `architectures` in config.json. With another number of labels it is a size mismatch, which `ignore_mismatched_sizes`
# then reports as such; BERT reports the missing pooler and classifier.
# Why: models/modernbert/modeling_modernbert.py gives all three classes `self.head = ModernBertPredictionHead(config)`
# and `self.classifier = nn.Linear(hidden_size, num_labels)`; from_pretrained compares keys and shapes alone.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/python" -m pip install --quiet --disable-pip-version-check torch==2.13.0 transformers==5.23.0 numpy==2.4.6
HF_HOME="$work/home" HF_HUB_OFFLINE=1 "$work/venv/bin/python" - "$work" <<'PYTHON'
import sys
from pathlib import Path

import transformers

transformers.utils.logging.disable_progress_bar()
transformers.utils.logging.set_verbosity_error()
SMALL = {
    "vocab_size": 50,
    "hidden_size": 16,
    "intermediate_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "max_position_embeddings": 32,
    "num_labels": 2,
}
MODERN = SMALL | {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2, "cls_token_id": 1, "sep_token_id": 2}
seen = {}
for family, sizes in (("ModernBert", MODERN), ("Bert", SMALL)):
    config = getattr(transformers, f"{family}Config")(**sizes)
    for task in ("TokenClassification", "QuestionAnswering"):
        folder = Path(sys.argv[1], f"{family}-{task}")
        getattr(transformers, f"{family}For{task}")(config).save_pretrained(folder)
        _, report = transformers.AutoModelForSequenceClassification.from_pretrained(folder, output_loading_info=True)
        seen[family, task] = {kind: sorted(report[kind]) for kind in ("missing_keys", "unexpected_keys")}
        print(f"{family}For{task} as a text classifier: {seen[family, task]}")
nothing = {"missing_keys": [], "unexpected_keys": []}
same = all((found == nothing) == (family == "ModernBert") for (family, _), found in seen.items())
print(f"transformers {transformers.__version__}: {'as described' if same else 'CHANGED'}")
sys.exit(not same)
PYTHON
