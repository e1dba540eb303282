"""Small repositories laid out as the real ones of the main command: google-bert/bert-base-uncased, nyu-mll/glue."""

import io
import json
import random

import pyarrow
import pyarrow.parquet
import torch
from hub_server import COMMIT, Repository
from safetensors.torch import save
from test_loop import BAD, GOOD, NEUTRAL, VOCABULARY
from tokenizers import BertWordPieceTokenizer
from transformers import BertConfig, BertForPreTraining

BERT, GLUE = "google-bert/bert-base-uncased", "nyu-mll/glue"
GLUE_COMMIT = "bcdcba79d07bc864c1c254ccfcedcce55bcc9a8c"
MRPC_SPLITS = {"train": 48, "validation": 16, "test": 16}
# Of bert-base-uncased, what a run needs; the rest of its files are other frameworks' weights, and a pickle.
NEEDED = {"config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json", "vocab.txt"}


def bert(commit: str = COMMIT, seed: int = 0) -> Repository:
    """A random BERT of 2 layers with the real one's key names: `bert.` before them, gamma and beta, other heads."""
    config = BertConfig(
        vocab_size=len(VOCABULARY),
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=64,
        max_position_embeddings=64,
        architectures=["BertForMaskedLM"],
    )
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = BertForPreTraining(config)
    old = {"LayerNorm.weight": "LayerNorm.gamma", "LayerNorm.bias": "LayerNorm.beta"}
    tensors = {}
    for name, tensor in model.state_dict().items():
        for new, before in old.items():
            name = name.replace(new, before)
        if name not in ("cls.predictions.decoder.weight", "cls.predictions.decoder.bias"):  # tied, not stored
            tensors[name] = tensor.contiguous()
    assert {"bert.embeddings.LayerNorm.gamma", "cls.seq_relationship.weight"} <= tensors.keys()
    words = {token: number for number, token in enumerate(VOCABULARY)}
    files = {
        ".gitattributes": b"*.bin filter=lfs\n",
        "LICENSE": b"Apache-2.0",
        "README.md": b"# BERT base model (uncased)",
        "config.json": config.to_json_string(use_diff=False).encode(),
        "flax_model.msgpack": b"other weights",
        "model.safetensors": save(tensors, metadata={"format": "pt"}),
        "pytorch_model.bin": b"a pickle",
        "rust_model.ot": b"other weights",
        "tf_model.h5": b"other weights",
        "tokenizer.json": BertWordPieceTokenizer(vocab=words).to_str().encode(),
        "tokenizer_config.json": json.dumps({"do_lower_case": True, "model_max_length": 64}).encode(),
        "vocab.txt": "".join(f"{token}\n" for token in VOCABULARY).encode(),
    }
    return Repository(name=BERT, commits={commit: files}, revisions={"main": commit})


def glue(commit: str = GLUE_COMMIT, seed: int = 0) -> Repository:
    """Made-up rows in the columns of two of GLUE's tasks, with the card that says which files are whose."""
    draw = random.Random(seed)
    files, tasks = {}, {"cola": ("sentence",), "mrpc": ("sentence1", "sentence2")}
    for task, columns in tasks.items():
        for split, count in MRPC_SPLITS.items():
            texts = {name: [_sentence(draw, row % 2) for row in range(count)] for name in columns}
            table = pyarrow.table(
                {
                    **texts,
                    "label": pyarrow.array([row % 2 for row in range(count)], pyarrow.int64()),
                    "idx": pyarrow.array(range(count), pyarrow.int32()),
                }
            )
            content = io.BytesIO()
            pyarrow.parquet.write_table(table, content)
            files[f"{task}/{split}-00000-of-00001.parquet"] = content.getvalue()
    card = "---\nlicense:\n- other\npretty_name: GLUE\ndataset_info:\n"
    card += "".join(_info(task, columns) for task, columns in tasks.items()) + "configs:\n"
    for task in tasks:
        paths = "".join(f"  - split: {split}\n    path: {task}/{split}-*\n" for split in MRPC_SPLITS)
        card += f"- config_name: {task}\n  data_files:\n{paths}"
    files["README.md"] = f"{card}---\n\n# Dataset Card for GLUE\n".encode()
    return Repository(name=GLUE, kind="dataset", commits={commit: files}, revisions={"main": commit})


def _sentence(draw: random.Random, label: int) -> str:
    kinds = ((BAD, GOOD)[label], NEUTRAL)
    return " ".join(draw.choice(kinds[i % 2]) for i in range(draw.randint(4, 12)))


def _info(task: str, columns: tuple[str, ...]) -> str:
    names = "          '0': not_equivalent\n          '1': equivalent\n"
    texts = "".join(f"  - name: {name}\n    dtype: string\n" for name in columns)
    splits = "".join(
        f"  - name: {split}\n    num_bytes: 1\n    num_examples: {count}\n" for split, count in MRPC_SPLITS.items()
    )
    label = (
        f"  - name: label\n    dtype:\n      class_label:\n        names:\n{names}  - name: idx\n    dtype: int32\n"
    )
    return f"- config_name: {task}\n  features:\n{texts}{label}  splits:\n{splits}"
