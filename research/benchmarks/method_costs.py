"""What each method costs: passes counted, seconds, memory measured and declared.

    python -m research.benchmarks.method_costs     # research/results/method_costs.json and .md

256 random images of a class are forgotten, 1,024 of the nine others retained, a quarter VGG11 that has fitted none
of them; every method with its defaults (gkt: 4 rounds of 4,000; l2ul: 2 inputs of 20 steps, 40 steps), each in two processes of its own: passes
and seconds of the method alone, then the memory of a whole request. The peak is the operating
system's, as in memory_need.py.
"""

import json
import sys
import time
from dataclasses import replace
from typing import Any

from research import pages
from research.own_process import MIB, reset_peak, resident, run_alone
from research.pages import origin, table
from research.tables import write_record

FORGET, RETAIN, HOLDOUT, CLASSES, EPOCHS = 256, 1024, 128, 10, 2
FEWER: dict[str, dict[str, Any]] = {
    "gkt": {"rounds": 4},
    "l2ul": {"adversarials": 2, "adversarial_batch_size": 2, "attack_steps": 20, "steps": 40},
}


def request(method: str, model: Any) -> Any:
    """The split with what the method reads."""
    import torch

    from efface import Records, Split
    from efface.methods import METHODS
    from efface.nets import vgg_quarter
    from research.jobs import seen_by
    from research.recipes import RECIPES, train

    generator = torch.Generator().manual_seed(1)

    def images(labels: Any, tag: str) -> Records:
        x = torch.rand(len(labels), 3, 32, 32, generator=generator) * 4 - 2
        return Records(x, labels, tuple(f"{tag} {row}" for row in range(len(labels))))

    def fresh(seed: int) -> Any:
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            net = vgg_quarter(CLASSES)
        for hook in model._forward_hooks.values():  # noqa: SLF001  # an untrained net is counted too
            net.register_forward_hook(hook)
        return net

    def by_recipe(net: Any, records: Records, seed: int) -> Any:
        recipe = replace(RECIPES["cifar10-vgg-quarter"], epochs=EPOCHS)
        return train(net, records, recipe, seed=seed)

    unseen = torch.arange(HOLDOUT) % CLASSES * (torch.arange(HOLDOUT) % 2)
    # in this order: the images are drawn one part after the other
    parts: dict[str, Any] = {
        "retain": images(1 + torch.arange(RETAIN) % (CLASSES - 1), "stays"),
        "holdout": images(unseen, "unseen"),
        "fresh": fresh,
        "train": by_recipe,
    }
    reads = METHODS[method].reads - {k for k, seen in seen_by(method).items() if not seen}
    own = {name: part for name, part in parts.items() if name in reads}
    forget = images(torch.zeros(FORGET, dtype=torch.int64), "goes")
    return Split(forget, forget_classes=(0,), **own)


def net() -> Any:
    """Fresh weights from seed 0, in eval mode; it predicts the forgotten class for everything."""
    import torch

    from efface.nets import vgg_quarter

    torch.set_num_threads(1)
    torch.manual_seed(0)
    model = vgg_quarter(CLASSES).eval()
    with torch.no_grad():
        list(model.parameters())[-1][0] += 5  # the bias of the class that goes
    return model


def counted(method: str) -> dict[str, Any]:
    """Passes and seconds of the method alone."""
    from efface.methods import METHODS
    from efface.runtime import PassCounter

    entry, watched = METHODS[method], PassCounter(net())
    split = request(method, watched.model)
    began = time.perf_counter()
    entry.function(watched.model, split, **FEWER.get(method, {}))
    seconds, passes = time.perf_counter() - began, watched.passes
    return {"counted": [passes.forward, passes.backward], "seconds": seconds}


def taken(method: str) -> dict[str, Any]:
    """Bytes that a request declared, and the operating system's peak."""
    import torch

    from efface import Records, Split, forget
    from efface.errors import EffaceError
    from efface.nets import resnet_small

    model = net()
    tiny = Split(Records(torch.randn(4, 3, 32, 32), torch.tensor([0, 1, 2, 3])))
    once: dict[str, Any] = {"method": "jit", "settings": {"steps": 2}, "mislabelled": True}
    forget(resnet_small(width=2).eval(), tiny, **once)
    del model
    before, declared = reset_peak(), []
    model = net()
    how = {"method": method, "started": lambda manifest, *_: declared.append(manifest.memory)}
    try:
        forget(model, request(method, model), **how, settings=FEWER.get(method, {}))
        outcome = "done"
    except EffaceError as error:
        outcome = str(error)
    if not declared:
        raise SystemExit(outcome)
    return {"said": declared[0], "peak": resident("VmHWM") - before, "outcome": outcome}


def page(record: dict[str, Any]) -> str:
    """The page."""
    rows = []
    for row in record["rows"]:
        peak, declared = row["peak"] / MIB, row["said"]["total_bytes"] / MIB
        passes = (f"{n:,}" for n in row["counted"])
        memory = (f"{peak:.0f}", f"{declared:.0f}", f"{peak / declared:.2f}")
        rows.append((f"`{row['method']}`", *passes, f"{row['seconds']:.1f}", *memory))
    return pages.page(
        "What each method costs",
        f"{origin(record)}, one thread: {FORGET} random images of a class "
        f"are forgotten, {RETAIN} are retained, quarter VGG11, default settings (`gkt`: 4 rounds; `l2ul`: 2 adversarial inputs of 20 steps, 40 steps). Passes in records, "
        "counted by a hook on every copy of the model; the "
        "seconds of the method alone; memory of a whole request, guard and report included (some 65 MiB of each peak are torch's own, as `baseline` shows). `retrain` by a "
        f"recipe of {EPOCHS} epochs.",
        table(
            "method | forward | backward | seconds | peak MiB | declared | peak / declared", rows
        ),
    )


def main() -> None:
    """Every method of the table, one after the other."""
    from efface.methods import BUILT_IN

    rows = []
    for method in BUILT_IN:
        alone = [run_alone("method_costs", what, method) for what in ("counted", "taken")]
        rows.append({"method": method, **alone[0], **alone[1]})
        sys.stderr.write(f"{method} {rows[-1]['counted']} {rows[-1]['seconds']:.1f}\n")
    write_record("method_costs", "method_costs", {"rows": rows})


if __name__ == "__main__":
    if len(sys.argv) > 1:
        found = {"counted": counted, "taken": taken}[sys.argv[1]](sys.argv[2])
        sys.stdout.write(json.dumps(found) + "\n")
    else:
        main()
