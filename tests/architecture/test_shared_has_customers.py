"""Keep `shared` small: from the second service on, every module there serves at least two."""

from __future__ import annotations

import grimp
import pytest

# Adapters are chosen by address, so no service imports them; a module is added here only with its reason.
ONE_CUSTOMER_FOR_NOW: frozenset[str] = frozenset()


@pytest.fixture(scope="module")
def graph() -> grimp.ImportGraph:
    return grimp.build_graph("services", "shared", "spool", cache_dir=None)


def test_every_shared_module_has_customers(graph: grimp.ImportGraph) -> None:
    services = {service.rsplit(".", 1)[-1] for service in graph.find_children("services")}
    needed = min(2, len(services))
    lonely = {}
    for module in sorted(module for module in graph.modules if module.startswith("shared.")):
        if graph.find_children(module) or module in ONE_CUSTOMER_FOR_NOW:
            continue
        downstream = graph.find_downstream_modules(module)
        customers = {name for name in services if any(d.startswith(f"services.{name}") for d in downstream)}
        if any(d.startswith("spool") for d in graph.find_modules_that_directly_import(module)):
            customers.add("spool")
        if len(customers) < needed:
            lonely[module] = sorted(customers)

    assert lonely == {}, f"move these into the one service that uses them, or delete them: {lonely}"


def test_every_import_is_seen(graph: grimp.ImportGraph) -> None:
    # A graph that lost a package would let everything pass.
    assert {"services.clipper.handlers", "shared.kernel.errors", "spool.camera"} <= graph.modules
