"""Numbers for an operator's monitoring, in Prometheus's text format 0.0.4."""

from __future__ import annotations

from dataclasses import dataclass, field

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"


@dataclass(frozen=True, slots=True)
class Metric:
    """One metric: a counter, which only rises, or a gauge; its values by the value of its one label, if it has any."""

    name: str
    kind: str  # "counter" or "gauge"
    help: str
    values: dict[str, float] = field(default_factory=dict)
    label: str = ""

    def lines(self) -> list[str]:
        """The lines of this metric."""
        head = [f"# HELP {self.name} {self.help}", f"# TYPE {self.name} {self.kind}"]
        return head + [
            f'{self.name}{{{self.label}="{_escaped(value)}"}} {number:.17g}'
            if self.label
            else f"{self.name} {number:.17g}"
            for value, number in self.values.items()
        ]


def one(name: str, kind: str, help: str, number: float) -> Metric:  # noqa: A002 - the format's word
    """A metric without labels."""
    return Metric(name, kind, help, {"": number})


def render(metrics: list[Metric]) -> str:
    """The text of all metrics."""
    return "".join(f"{line}\n" for metric in metrics for line in metric.lines())


def _escaped(value: str) -> str:
    return value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
