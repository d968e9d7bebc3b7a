"""benchmarks/training_step.py: it compares what it says it compares."""

import pytest
import torch

from benchmarks import training_step
from models.pretraining.small_maps import SmallMapConv2d


def test_the_table_has_a_row_for_each_side(capsys, monkeypatch):
    measured_ones = []
    step_s = training_step._step_s

    def noted(student, views, labels):
        measured_ones.append((student, tuple(views.shape)))
        return step_s(student, views, labels)

    monkeypatch.setattr(training_step, "_step_s", noted)
    threads = str(torch.get_num_threads())  # as it is: the setting is the whole process's
    assert (
        training_step.main(["--side", "32", "--side", "40", "--batch", "4", "--turns", "1", "--threads", threads]) == 0
    )

    rows = [line.split("|")[1:-1] for line in capsys.readouterr().out.splitlines() if line.startswith("| ")][2:]
    assert [int(row[0]) for row in rows] == [32, 40]
    assert all(float(cell) > 0 for row in rows for cell in row)
    assert {shape for _, shape in measured_ones} == {(4, 3, 32, 32), (4, 3, 40, 40)}
    by_us = [any(isinstance(layer, SmallMapConv2d) for layer in one.modules()) for one, _ in measured_ones]
    assert by_us == [False, True] * (len(by_us) // 2)


def test_an_unknown_backbone_is_refused(capsys):
    with pytest.raises(SystemExit):
        training_step.main(["--backbone", "vgg16"])
    assert "resnet18" in capsys.readouterr().err
