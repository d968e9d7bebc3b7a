"""How long a training step of a backbone takes on this processor, with and without `models.pretraining.small_maps`.

    python -m benchmarks.training_step --side 48 --side 64 --side 96 --batch 128

Both networks start from the same weights and take their turns in one run, so that whatever else the machine does
falls on both; each ratio is the median of the turns'. A step here is forward, loss and backward in float32; the
views and the optimizer cost the same either way.
"""

import argparse
import statistics
import time
from collections.abc import Sequence

import torch
import torch.nn.functional as functional

from benchmarks.report import table
from benchmarks.setting import setting
from models.backbones.resnet import BACKBONES
from models.pretraining.student import Student, seeded_student
from models.runtime import use_threads
from models.torchvision_import import import_torchvision

CLASSES, SEED = 100, 0


def measured(backbone: str, side: int, batch: int, turns: int) -> tuple[float, float, float]:
    """Seconds of a step by torch's convolutions and by ours, and the median of the turns' ratios, ours over torch's."""
    ours = seeded_student(backbone, classes=CLASSES, logits=0, features=0, seed=SEED)
    plain = seeded_student(backbone, classes=CLASSES, logits=0, features=0, seed=SEED)
    body = getattr(import_torchvision().models, backbone)(weights=None)
    body.fc = torch.nn.Identity()
    body.load_state_dict(plain.body.state_dict())
    plain.body = body.to(memory_format=torch.channels_last)
    draw = torch.Generator().manual_seed(SEED)
    views = torch.randn(batch, 3, side, side, generator=draw).contiguous(memory_format=torch.channels_last)
    labels = torch.randint(0, CLASSES, (batch,), generator=draw)
    pairs = []
    for turn in range(turns + 2):
        pair = (_step_s(plain, views, labels), _step_s(ours, views, labels))
        if turn > 1:  # the first ones choose kernels and fill memory
            pairs.append(pair)
    by_torch, by_us = zip(*pairs, strict=True)
    return statistics.median(by_torch), statistics.median(by_us), statistics.median(b / a for a, b in pairs)


def _step_s(student: Student, views: torch.Tensor, labels: torch.Tensor) -> float:
    student.train()
    student.zero_grad(set_to_none=True)
    started = time.perf_counter()
    scores, _, _ = student(views)
    torch.autograd.backward(functional.cross_entropy(scores, labels))
    return time.perf_counter() - started


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the table and what it was measured on."""
    summary, _, _ = (__doc__ or "").partition("\n")
    parser = argparse.ArgumentParser(description=summary)
    parser.add_argument("--backbone", choices=sorted(BACKBONES), default="resnet18")
    parser.add_argument("--side", type=int, action="append", help="of the views in pixels; may be given again")
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--turns", type=int, default=9)
    parser.add_argument("--threads", type=int, default=2)
    asked = parser.parse_args(arguments)
    use_threads(asked.threads)
    rows = []
    for side in asked.side or [48, 64, 96]:
        by_torch, by_us, ratio = measured(asked.backbone, side, asked.batch, asked.turns)
        rows.append([str(side), f"{1000 * by_torch:.0f}", f"{1000 * by_us:.0f}", f"{ratio:.2f}"])
    where = setting()
    machine = f"{where['machine']['processor']}, {where['machine']['cores']} cores"
    print(f"`{where['command']}`, commit {where['commit']}; {machine}; {asked.backbone}, batch {asked.batch}\n")
    print("\n".join(table(["side", "torch, ms", "ours, ms", "ratio"], rows)))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
