"""The reference page of the metrics, from the registry that `/metrics` itself answers from."""

from __future__ import annotations

from prometheus_client import REGISTRY, Metric

from shared.observability.media_metrics import metrics_of_process

PREFIX = "spool_"

HEAD = """\
`GET /metrics` tells all of them, in the text format of Prometheus, to whoever has a key:
[how to watch Spool](../how-to/observe.md) has an example.
Beside them stand the `process_…` and `python_…` of prometheus-client.

Names and labels follow those of FastStream, with `spool` as the prefix.
A subscription is the queue that a service declared, `<service>.<type>`; a broker is `rabbitmq`, `aws_sqs` or
`local`.
A histogram is told as `…_bucket`, `…_sum` and `…_count`.
Each process tells what it has seen and does itself: sum over processes, except where it says otherwise.

| metric | kind | labels | what it is |
| --- | --- | --- | --- |"""


def metrics_page(made_by: str) -> str:
    """Return the page: one row for each metric of Spool, by name."""
    metrics_of_process()  # registered when the first engine is made
    rows = sorted(_row(family) for family in REGISTRY.collect() if family.name.startswith(PREFIX))
    return "\n".join(["# Metrics", made_by, HEAD, *rows]) + "\n"


def _row(family: Metric) -> str:
    name = f"{family.name}_total" if family.type == "counter" else family.name
    labels = ", ".join(f"`{label}`" for label in _labels_of(family.name))
    return f"| `{name}` | {family.type} | {labels} | {family.documentation} |"


def _labels_of(name: str) -> tuple[str, ...]:
    """Return the labels of a metric also while it has no samples, which say them otherwise."""
    collector = REGISTRY._names_to_collectors[name]  # noqa: SLF001  # the registry has no public way to it
    return tuple(getattr(collector, "_labelnames", ()))
