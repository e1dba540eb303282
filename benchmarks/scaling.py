"""Step time against the number of processes, from a latency-bandwidth model: prints the tables of docs/scaling.md.

`python benchmarks/scaling.py`. The model and its sources are explained there; here is its arithmetic.
"""

import json
from dataclasses import dataclass
from pathlib import Path

PROCESSES = (1, 2, 4, 8, 16, 64)


@dataclass(frozen=True, kw_only=True)
class Model:
    """What of an encoder decides time. parameters: all; in_products: those that every token is multiplied with."""

    name: str
    parameters: float
    in_products: float

    def operations(self, tokens: int) -> float:
        """Of forward and backward: two for each parameter and token forward, twice that backward."""
        return 6.0 * self.in_products * tokens

    @property
    def gradient_bytes(self) -> float:
        """In float32."""
        return 4.0 * self.parameters


@dataclass(frozen=True, kw_only=True)
class Machines:
    """What of a cluster decides time, for one process.

    rate: operations a second that a step reaches. latency: seconds a message. bandwidth: bytes a second.
    """

    name: str
    rate: float
    latency: float
    bandwidth: float
    tokens: int  # of one process's share of a step


BASE = Model(name="BERT base", parameters=110e6, in_products=85e6)
LARGE = Model(name="BERT large", parameters=335e6, in_products=302e6)
CLUSTERS = (
    Machines(name="gloo, 10 GbE", rate=1.0e12, latency=50e-6, bandwidth=1.0e9, tokens=32 * 64),
    Machines(name="NCCL, NVLink", rate=250e12, latency=5e-6, bandwidth=300e9, tokens=32 * 64),
    Machines(name="NCCL, InfiniBand", rate=250e12, latency=10e-6, bandwidth=40e9, tokens=32 * 64),
)


def exchange_seconds(size: float, processes: int, latency: float, bandwidth: float) -> float:
    """A ring all-reduce of `size` bytes: 2 (p - 1) messages of a p-th each, one after the other."""
    return 2 * (processes - 1) * (latency + size / processes / bandwidth)


def step_seconds(model: Model, machines: Machines, processes: int) -> float:
    """A forward pass, then a backward pass with the exchange beside it: the longer of the two decides."""
    compute = model.operations(machines.tokens) / machines.rate
    exchange = exchange_seconds(model.gradient_bytes, processes, machines.latency, machines.bandwidth)
    return compute / 3 + max(2 * compute / 3, exchange)


def prediction_table() -> list[str]:
    """Milliseconds a step, and in brackets the share of the time that is not waited."""
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
    """The points measured on one machine, beside the model with the bandwidth of the first exchange.

    exchanged: bytes. The cores are shared and the wire is memory, so nothing runs beside the exchange there.
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
