"""What each method costs: passes counted, seconds, memory taken and said.

    python -m research.benchmarks.method_costs     # research/results/method_costs.json and .md

256 random images of a class go, 1,024 of the nine others stay, a quarter VGG11 that has fitted none
of them; every method as it comes (gkt: 4 rounds of 4,000; l2ul: 2 inputs of 20 steps, 40 steps), each in two processes of its own: passes
and seconds of the method alone, then the memory of a whole request. The peak is the operating
system's, as in memory_need.py.
"""

import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from research.tables import write_record

FORGET, RETAIN, HOLDOUT, CLASSES, EPOCHS = 256, 1024, 128, 10, 2
FEWER: dict[str, dict[str, Any]] = {
    "gkt": {"rounds": 4},
    "l2ul": {"adversarials": 2, "adversarial_batch_size": 2, "attack_steps": 20, "steps": 40},
}
MIB = 2**20


def request(method: str, model: Any) -> Any:
    """The split with what the method sees."""
    import torch

    from efface import Records, Split
    from efface.methods import METHODS
    from efface.nets import vgg_quarter
    from research.recipes import RECIPES, train

    generator = torch.Generator().manual_seed(1)

    def images(count: int, labels: Any, tag: str) -> Records:
        x = torch.rand(count, 3, 32, 32, generator=generator) * 4 - 2
        return Records(x, labels, tuple(f"{tag} {row}" for row in range(count)))

    def fresh(seed: int) -> Any:
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            net = vgg_quarter(CLASSES)
        for hook in model._forward_hooks.values():  # noqa: SLF001  # an untrained net is counted too
            net.register_forward_hook(hook)
        return net

    def by_recipe(net: Any, records: Records, seed: int) -> Any:
        from dataclasses import replace

        return train(
            net, records, replace(RECIPES["cifar10-vgg-quarter"], epochs=EPOCHS), seed=seed
        )

    parts = {
        "retain": images(RETAIN, 1 + torch.arange(RETAIN) % (CLASSES - 1), "stays"),
        "holdout": images(
            HOLDOUT, torch.arange(HOLDOUT) % CLASSES * (torch.arange(HOLDOUT) % 2), "unseen"
        ),
        "forget_classes": (0,),
        "fresh": fresh,
        "train": by_recipe,
    }
    sees = METHODS[method].reads
    own: dict[str, Any] = {
        name: part for name, part in parts.items() if name in sees or name == "forget_classes"
    }
    return Split(images(FORGET, torch.zeros(FORGET, dtype=torch.int64), "goes"), **own)


def net() -> Any:
    """Fresh weights from seed 0, in eval mode; it calls everything what goes, as it should."""
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
    """Bytes that a request said it would need, and the operating system's peak."""
    import torch

    from efface import Records, Split, forget
    from efface.errors import EffaceError
    from efface.nets import resnet_small
    from research.benchmarks.memory_need import resident

    model = net()
    tiny = Records(torch.randn(4, 3, 32, 32), torch.tensor([0, 1, 2, 3]))
    forget(
        resnet_small(width=2).eval(),
        Split(tiny),
        method="jit",
        settings={"steps": 2},
        mislabelled=True,
    )
    del model
    Path("/proc/self/clear_refs").write_text("5")  # the highest so far starts again from now
    before, said = resident("VmRSS"), []
    model = net()
    settings = {"method": method, "started": lambda need: said.append(need.as_json())}
    try:
        forget(model, request(method, model), **settings, settings=FEWER.get(method, {}))
        outcome = "done"
    except EffaceError as error:
        outcome = str(error)
    if not said:
        raise SystemExit(outcome)
    return {"said": said[0], "peak": resident("VmHWM") - before, "outcome": outcome}


def in_a_process_of_its_own(what: str, method: str) -> dict[str, Any]:
    """What the function of this file says there."""
    command = [sys.executable, __file__, what, method]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{what} {method}: {done.stderr[-2000:]}")
    return json.loads(done.stdout.splitlines()[-1])


def page(record: dict[str, Any]) -> str:
    """The page."""
    lines = [
        "# What each method costs",
        "",
        (
            f"`{record['command']}`, {record['date']}, one thread: {FORGET} random images of a class "
            f"go, {RETAIN} stay, quarter VGG11, settings as they come (`gkt`: 4 rounds; `l2ul`: 2 adversarial inputs of 20 steps, 40 steps). Passes in records, "
            "counted by a hook on every copy of the model; the "
            "seconds of the method alone; memory of a whole request, guard and evidence included (some 65 MiB of each peak are torch's own, as `baseline` shows). `retrain` by a "
            f"recipe of {EPOCHS} epochs."
        ),
        "",
        "| method | forward | backward | seconds | peak MiB | said | peak / said |",
        "|---|---|---|---|---|---|---|",
    ]
    for row in record["rows"]:
        f, b = row["counted"]
        peak, said = row["peak"] / MIB, row["said"]["total_bytes"] / MIB
        lines.append(
            f"| `{row['method']}` | {f:,} | {b:,} | {row['seconds']:.1f} | "
            f"{peak:.0f} | {said:.0f} | {peak / said:.2f} |"
        )
    return "\n".join([*lines, ""])


def main() -> None:
    """Every method of the table, one after the other."""
    from efface.methods import BUILT_IN

    rows = []
    for method in BUILT_IN:
        row = {
            k: v
            for what in ("counted", "taken")
            for k, v in in_a_process_of_its_own(what, method).items()
        }
        rows.append({"method": method, **row})
        sys.stderr.write(f"{method} {row['counted']} {row['seconds']:.1f}\n")
    write_record("method_costs", "method_costs", {"rows": rows})


if __name__ == "__main__":
    if len(sys.argv) > 1:
        found = {"counted": counted, "taken": taken}[sys.argv[1]](sys.argv[2])
        sys.stdout.write(json.dumps(found) + "\n")
    else:
        main()
