"""A checkpoint of BERT base's shapes with random weights: `python scripts/references/base_shapes.py FOLDER`.

110 million parameters; the tokenizer is the embedded model's, with BERT's vocabulary. For measuring speed only.
"""

import sys
from pathlib import Path

import torch
from transformers import AutoTokenizer, BertConfig, BertModel

from minitrain.storage.hub import resolve_model


def main(folder: Path) -> None:
    """Write the checkpoint into a folder, which is created."""
    torch.manual_seed(0)
    BertModel(BertConfig()).save_pretrained(folder)
    AutoTokenizer.from_pretrained(resolve_model("demo")).save_pretrained(folder)


if __name__ == "__main__":
    if len(sys.argv) != 2 or sys.argv[1].startswith("-"):
        sys.exit(__doc__)
    main(Path(sys.argv[1]))
