"""Spoilt checkpoints: weights, the index of shards, config.json; each (draw, healthy folder) -> Mutant."""

import json
import struct
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from hypothesis import strategies as st
from mutations import NEVER, ODD, Draw, Mutant, Object, Raw, dump, edit_bytes, edit_tree, keys, member, parse
from safetensors.torch import save

WEIGHTS, INDEX = "model.safetensors", "model.safetensors.index.json"


def some(draw: Draw) -> range:
    """How many changes: mostly one, whose outcome is known."""
    return range(draw(st.sampled_from([1, 1, 1, 2, 3])))


# ---- weights ----------------------------------------------------------------------------------------------------


@dataclass
class Packed:
    """A safetensors file: its header as a tree, and its data."""

    header: Object
    data: bytes

    @staticmethod
    def of(content: bytes) -> "Packed":
        (length,) = struct.unpack("<Q", content[:8])
        return Packed(parse(content[8 : 8 + length]), content[8 + length :])

    @property
    def entries(self) -> list[tuple[str, Object]]:
        """The tensors, without those whose place a change has spoilt."""
        tensors = [(key, entry) for key, entry in self.header if key != "__metadata__"]
        return [(key, entry) for key, entry in tensors if [type(end) for end in entry[2][1] or ()] == [int, int]]

    def append(self, key: str, dtype: str, shape: Any, size: int) -> None:
        """A tensor behind the last, of so many bytes."""
        span = [len(self.data), len(self.data) + size]
        self.header.append([key, Object([["dtype", dtype], ["shape", shape], ["data_offsets", span]])])
        self.data += b"\1" * size


def as_dtype(packed: Packed, dtype: torch.dtype) -> Packed:
    """The same tensors in another precision."""
    tensors = {}
    for key, entry in packed.entries:
        start, stop = member(entry, "data_offsets")
        tensor = torch.frombuffer(bytearray(packed.data[start:stop]), dtype=torch.float32)
        tensors[key] = tensor.reshape(member(entry, "shape")).to(dtype)
    return Packed.of(save(tensors))


def reorder(draw: Draw, packed: Packed, at: int) -> None:
    packed.header[:] = draw(st.permutations(packed.header))


def other_metadata(draw: Draw, packed: Packed, at: int) -> None:
    rest = [pair for pair in packed.header if pair[0] != "__metadata__"]
    some = Object([["format", "np"], ["é", "x" * 1000]])
    packed.header[:] = draw(st.sampled_from([rest, [*rest, ["__metadata__", some]]]))


def ignored_tensor(draw: Draw, packed: Packed, at: int) -> None:
    packed.append("cls.bias", *draw(st.sampled_from([("I64", [2], 16), ("BOOL", [], 1), ("F8_E4M3", [2, 1], 2)])))


def old_names(draw: Draw, packed: Packed, at: int) -> None:
    for pair in packed.header:
        pair[0] = pair[0].replace("LayerNorm.weight", "LayerNorm.gamma").replace("LayerNorm.bias", "LayerNorm.beta")


def no_prefix(draw: Draw, packed: Packed, at: int) -> None:
    for pair in packed.header:
        pair[0] = pair[0].removeprefix("bert.")


def flip_data(draw: Draw, packed: Packed, at: int) -> None:
    byte = draw(st.integers(0, len(packed.data) - 1))
    flipped = bytes([packed.data[byte] ^ 1 << draw(st.integers(0, 7))])
    packed.data = packed.data[:byte] + flipped + packed.data[byte + 1 :]


def shift(packed: Packed, at: int, size: int) -> int:
    """Move the tensors from the one at `at` on by so many bytes; returns where it began."""
    start = packed.entries[at][1][2][1][0]
    for _, entry in packed.entries:
        if entry[2][1][0] >= start:
            entry[2][1] = [offset + size for offset in entry[2][1]]
    return int(start)


def hole(draw: Draw, packed: Packed, at: int) -> None:
    size = draw(st.integers(1, 64))
    start = shift(packed, at, size)
    packed.data = packed.data[:start] + b"\0" * size + packed.data[start:]


def gone(draw: Draw, packed: Packed, at: int) -> None:
    """A tensor of the encoder; the head's may be new."""
    at = next(i for i, (key, _) in enumerate(packed.entries) if "encoder.layer" in key)
    start, stop = packed.entries[at][1][2][1]
    packed.header.remove(list(packed.entries[at]))
    packed.data = packed.data[:start] + packed.data[stop:]
    for _, entry in packed.entries:
        entry[2][1] = [offset - (stop - start) * (entry[2][1][0] > start) for offset in entry[2][1]]


def overlap(draw: Draw, packed: Packed, at: int) -> None:
    entry, other = packed.entries[at][1], packed.entries[at - 1][1]
    entry[1][1], entry[2][1] = other[1][1], other[2][1]


def wrong_offsets(draw: Draw, packed: Packed, at: int) -> None:
    entry = packed.entries[at][1]
    start, stop = entry[2][1]
    entry[2][1] = draw(st.sampled_from([
        [stop, start], [start, stop + 4], [start - 4, stop], [start + 2**64, stop + 2**64], [-start - 1, stop],
        [start], [start, stop, stop], [float(start), stop], [str(start), stop], [True, stop], None, Object([]),
    ]))  # fmt: skip


def no_data(draw: Draw, packed: Packed, at: int) -> None:
    shapes = [[2**40, 0], [0, 2**40], [0], [2**63, 0], [2**64 - 1, 0], [2**40, 2**40, 0], [0] * 99]
    packed.append("cls.bias", "F32", draw(st.sampled_from(shapes)), 0)


def no_name(draw: Draw, packed: Packed, at: int) -> None:
    packed.append("", "F32", [1], 4)


def twice(draw: Draw, packed: Packed, at: int) -> None:
    key, entry = packed.entries[at]
    packed.header.insert(draw(st.integers(0, len(packed.header))), [key, Object([list(pair) for pair in entry])])


def wrong_shape(draw: Draw, packed: Packed, at: int) -> None:
    entry = packed.entries[at][1]
    size = entry[2][1][1] - entry[2][1][0]
    entry[1][1] = draw(st.sampled_from([
        [2**32, 2**32, 1], [2**64 - 1, 4], [2**63, 2], [-1, -size // 4], [*entry[1][1], 1], [1.0], "a", None, [[1]],
        [True] * 3, [1] * 100_000, [size // 4] + [1] * 10_000,
    ]))  # fmt: skip


def wrong_dtype(draw: Draw, packed: Packed, at: int) -> None:
    wrong = ["I32", "U32", "U8", "F8_E8M0", "F4", "F6_E2M3", "f32", "F64", "F16", "BOOL", "X", "", 3, None, ["F32"]]
    packed.entries[at][1][0][1] = draw(st.sampled_from(wrong))


def too_much(draw: Draw, packed: Packed, at: int) -> None:
    packed.data += b"\0" * draw(st.integers(1, 9))


def too_little(draw: Draw, packed: Packed, at: int) -> None:
    packed.data = packed.data[: -draw(st.integers(1, 9))]


HARMLESS = (reorder, other_metadata, ignored_tensor, old_names, no_prefix)
FATAL = (
    hole, gone, overlap, wrong_offsets, no_data, no_name, twice, wrong_shape, wrong_dtype, too_much, too_little
)  # fmt: skip
HEADERS: tuple[Callable[[Draw, Packed, int], None], ...] = (*HARMLESS * 2, *[flip_data] * 5, *FATAL)
LENGTHS = (0, 1, -1, 2**63, 2**64 - 1, 2**32, 100_000_001, 2**22 + 1)


def weights(draw: Draw, base: Path) -> Mutant:
    mutant = Mutant()
    content = (base / WEIGHTS).read_bytes()
    kind = draw(st.sampled_from(["header", "header", "header", "tree", "tree", "length", "bytes", "dtype"]))
    if kind == "bytes":
        for _ in some(draw):
            content = edit_bytes(draw, mutant, content, base / "ran")
        mutant.files[WEIGHTS] = content
        return mutant
    packed = Packed.of(content)
    if kind == "dtype":
        dtype = draw(st.sampled_from([torch.float16, torch.bfloat16, torch.float64, torch.int32, torch.bool]))
        packed = as_dtype(packed, dtype)
        mutant.note(f"all as {dtype}", fatal=not dtype.is_floating_point)
    for _ in some(draw) if kind == "header" else ():
        change = draw(st.sampled_from(HEADERS))
        change(draw, packed, draw(st.integers(1, len(packed.entries) - 1)))
        mutant.note(change.__name__, fatal=change in FATAL)
    for _ in some(draw) if kind == "tree" else ():
        edit_tree(draw, mutant, packed.header)
    text = dump(packed.header).encode("utf-8", "surrogatepass")
    text += b" " * draw(st.integers(0, 9))
    length = len(text)
    if kind == "length":
        length = draw(st.sampled_from(LENGTHS) | st.integers(0, 2**64 - 1)) % 2**64
        mutant.note("length", fatal=length != len(text))
    mutant.files[WEIGHTS] = struct.pack("<Q", length) + text + packed.data
    return mutant


# ---- the index of shards ----------------------------------------------------------------------------------------

ODD_SHARDS = [
    "../model.safetensors", "/etc/passwd", "sub/a.safetensors", "./model-1.safetensors", "C:\\a.safetensors", "..",
    "", ".", "a\0.safetensors", "none.safetensors", "x" * 300 + ".safetensors", "é" * 200 + ".safetensors",
    "model-1.bin", "model-1.safetensors ", "config.json", " .safetensors", "\ud800.safetensors",
    "x" * 100_000 + ".safetensors",
]  # fmt: skip


def shards(draw: Draw, base: Path) -> Mutant:
    mutant = Mutant()
    content = (base / INDEX).read_bytes()
    how = draw(st.sampled_from(["tree", "tree", "names", "keys", "shard", "bytes", "spaces"]))
    if how in ("tree", "names", "keys"):
        tree = parse(content)
        table = member(tree, "weight_map")
        for _ in some(draw):
            if how == "tree":
                edit_tree(draw, mutant, tree)
            elif how == "names":
                draw(st.sampled_from(table))[1] = draw(st.sampled_from(ODD_SHARDS))
                mutant.note("shard's name", fatal=True)
            else:  # whose keys are where is for the shards to say
                draw(st.sampled_from(table))[0] = draw(keys)
                mutant.note("key of a shard")
        content = dump(tree).encode("utf-8", "surrogatepass")
    elif how == "shard":
        name = draw(st.sampled_from(["model-1.safetensors", "model-2.safetensors"]))
        mutant.files[name] = edit_bytes(draw, mutant, (base / name).read_bytes(), base / "ran")
    elif how == "bytes":
        content = edit_bytes(draw, mutant, content, base / "ran")
    else:
        content = json.dumps(json.loads(content), indent=draw(st.integers(0, 4))).encode() + b"\n"
        mutant.note("spaces")
    mutant.files[INDEX] = content
    return mutant


# ---- config.json ------------------------------------------------------------------------------------------------

PLAUSIBLE: dict[str, list[Any]] = {
    "hidden_dropout_prob": [0, 0.0, 0.5, 1, 1.0], "attention_probs_dropout_prob": [0.3], "dtype": ["float16", 7],
    "layer_norm_eps": [1e-5, 1, 1e-300], "classifier_dropout": [None, 0.9], "initializer_range": [1e-3, 1e300],
    "hidden_act": ["relu", "silu", "gelu_new"], "num_attention_heads": [1, 4, 8], "pad_token_id": [None, 3],
    "problem_type": [None, "regression"], "is_decoder": [False, None], "architectures": [None, [], "x"],
    "id2label": [{"1": "b", "0": "a"}, {"0": "é\0", "1": ""}, {"0": "x" * 10_000, "1": "x"}, None],
    "num_labels": [2, 3, 2**20, 2**24], "vocab_size": [2**24, 31], "hidden_size": [2**24, 2**14, 16],
    "num_hidden_layers": [1, 3, 256, 1024], "intermediate_size": [2**24, 8], "max_position_embeddings": [2**24, 15],
    "type_vocab_size": [2**24, 1], "tokenizer_class": ["X", 3], "auto_map": [{"AutoConfig": "evil.Evil"}, 3],
    "model_type": ["roberta", "distilbert", "electra", "camembert", "xlm-roberta", "gpt2"], "dropout": [0.1],
    "embedding_size": [1, 2**24], "dim": [8, 0], "n_heads": [2], "n_layers": [1], "hidden_dim": [12],
}  # fmt: skip


def config(draw: Draw, base: Path) -> Mutant:
    mutant = Mutant()
    content = (base / "config.json").read_bytes()
    how = draw(st.sampled_from(["tree", "tree", "keys", "keys", "keys", "bytes"]))
    if how == "bytes":
        for _ in some(draw):
            content = edit_bytes(draw, mutant, content, base / "ran")
    else:
        tree = parse(content)
        for _ in some(draw):
            if how == "tree":
                edit_tree(draw, mutant, tree)
                continue
            key = draw(st.sampled_from(sorted(PLAUSIBLE)))
            value = draw(
                st.sampled_from(PLAUSIBLE[key]) | st.sampled_from(PLAUSIBLE[key]) | st.sampled_from(ODD + NEVER)
            )
            tree[:] = [pair for pair in tree if pair[0] != key] + [[key, Raw(dump(value))]]
            mutant.note(f"{key}", fatal=isinstance(value, Raw) and value in NEVER)
        content = dump(tree).encode("utf-8", "surrogatepass")
    mutant.files["config.json"] = content
    return mutant
