"""Step time against the number of processes, from a latency-bandwidth model: prints the tables of docs/scaling.md.

`python benchmarks/scaling.py`. That page explains the model and its sources.
"""

import json
from dataclasses import dataclass
from pathlib import Path

PROCESSES = (1, 2, 4, 8, 16, 64)


@dataclass(frozen=True, kw_only=True)
class Model:
    """An encoder's size; `in_products` counts the parameters that every token is multiplied with."""

    name: str
    parameters: float
    in_products: float

    def operations(self, tokens: int) -> float:
        """FLOP of forward and backward: two per parameter and token forward, twice that backward."""
        return 6.0 * self.in_products * tokens

    @property
    def gradient_bytes(self) -> float:
        """In float32."""
        return 4.0 * self.parameters


@dataclass(frozen=True, kw_only=True)
class Machines:
    """A cluster's speed for one process: `rate` in FLOP/s, `latency` in seconds, `bandwidth` in bytes/s."""

    name: str
    rate: float
    latency: float
    bandwidth: float
    tokens: int  # per step and process


BASE = Model(name="BERT base", parameters=110e6, in_products=85e6)
LARGE = Model(name="BERT large", parameters=335e6, in_products=302e6)
CLUSTERS = (
    Machines(name="gloo, 10 GbE", rate=1.0e12, latency=50e-6, bandwidth=1.0e9, tokens=32 * 64),
    Machines(name="NCCL, NVLink", rate=250e12, latency=5e-6, bandwidth=300e9, tokens=32 * 64),
    Machines(name="NCCL, InfiniBand", rate=250e12, latency=10e-6, bandwidth=40e9, tokens=32 * 64),
)


def exchange_seconds(size: float, processes: int, latency: float, bandwidth: float) -> float:
    """A ring all-reduce of `size` bytes: 2 (p - 1) messages in turn, each of 1/p of the size."""
    return 2 * (processes - 1) * (latency + size / processes / bandwidth)


def step_seconds(model: Model, machines: Machines, processes: int) -> float:
    """The forward pass, then the longer of the backward pass and the exchange, which overlap."""
    compute = model.operations(machines.tokens) / machines.rate
    exchange = exchange_seconds(model.gradient_bytes, processes, machines.latency, machines.bandwidth)
    return compute / 3 + max(2 * compute / 3, exchange)


def prediction_table() -> list[str]:
    """Milliseconds per step, and in parentheses the share of the time that is computation."""
    lines = [
        f"| model, network | {' | '.join(map(str, PROCESSES))} |",
        "|---|" + "---|" * len(PROCESSES),
    ]
    for model in (BASE, LARGE):
        for machines in CLUSTERS:
            alone = step_seconds(model, machines, 1)
            times = [step_seconds(model, machines, processes) for processes in PROCESSES]
            cells = " | ".join(f"{_digits(1000 * seconds)} ({alone / seconds:.0%})" for seconds in times)
            lines.append(f"| {model.name}, {machines.name} | {cells} |")
    return lines


def _digits(value: float) -> str:
    return f"{value:.0f}" if value >= 100 else f"{value:.3g}"


def measured_table(kinds: dict[str, dict[str, float]], exchanged: float) -> list[str]:
    """The steps measured on one machine beside the model, with the bandwidth of the first exchange.

    `exchanged` is in bytes. The processes share cores and memory, so nothing overlaps with the exchange.
    """
    costs = {
        count: kinds[f"{count} processes"]["milliseconds"]
        - kinds[f"{count} processes, no exchange"]["milliseconds"]
        for count in (2, 4)
    }
    bandwidth = exchanged / (costs[2] / 1000)
    lines = [
        "| processes | ms a step | without exchange | exchange | by the model | examples/s |",
        "|---|---|---|---|---|---|",
    ]
    alone = kinds["1 process"]
    lines.append(f"| 1 | {alone['milliseconds']:.0f} |  |  |  | {alone['examples_per_second']:.1f} |")
    for count, cost in costs.items():
        whole, without = kinds[f"{count} processes"], kinds[f"{count} processes, no exchange"]
        modelled = 1000 * exchange_seconds(exchanged, count, 50e-6, bandwidth)
        cells = (whole["milliseconds"], without["milliseconds"], cost, modelled)
        shown = " | ".join(f"{cell:.0f}" for cell in cells)
        lines.append(f"| {count} | {shown} | {whole['examples_per_second']:.1f} |")
    return lines


def main() -> None:
    """Print both tables."""
    print("\n".join(prediction_table()))
    measured = json.loads((Path(__file__).parent / "processes.json").read_text(encoding="utf-8"))
    print("\n" + "\n".join(measured_table(measured["kinds"], EXCHANGED)))


EXCHANGED = 4 * 10.8e6  # the dense gradients of the embedded model; those of its word vectors are sparse and small

if __name__ == "__main__":
    main()
