"""The recipe of the embedded backbone: image folders to packed data, a training run, figures, a file to ship.

In order: `pack_images`, `make_targets` (with a teacher from `models.pretraining.teacher`, which alone needs
OpenVINO), `pretrain`, `export_weights`, `embedded_folder` and the figures, `measured_card`.
"""

from models.pretraining.augment import NO_AUGMENTATION, Augmentation, augmented
from models.pretraining.data import (
    NEVER_TRAINED_ON,
    ImageFolder,
    TrainingSet,
    open_training_set,
    pack_images,
)
from models.pretraining.evaluate import (
    FewShotAccuracy,
    LabelledVectors,
    embedded_folder,
    few_shot_accuracy,
    one_vs_rest_auc,
)
from models.pretraining.export import (
    DataRecord,
    Int8Record,
    WeightsCard,
    WeightsFacts,
    export_weights,
    measured_card,
)
from models.pretraining.schedule import StepBudget, TimeBudget
from models.pretraining.targets import Teacher, TeacherTargets, make_targets, open_targets
from models.pretraining.trainer import (
    PretrainingConfig,
    PretrainingResult,
    backbone_weights,
    pretrain,
    read_checkpoint,
)

__all__ = [
    "NEVER_TRAINED_ON",
    "NO_AUGMENTATION",
    "Augmentation",
    "DataRecord",
    "FewShotAccuracy",
    "ImageFolder",
    "Int8Record",
    "LabelledVectors",
    "PretrainingConfig",
    "PretrainingResult",
    "StepBudget",
    "Teacher",
    "TeacherTargets",
    "TimeBudget",
    "TrainingSet",
    "WeightsCard",
    "WeightsFacts",
    "augmented",
    "backbone_weights",
    "embedded_folder",
    "export_weights",
    "few_shot_accuracy",
    "make_targets",
    "measured_card",
    "one_vs_rest_auc",
    "open_targets",
    "open_training_set",
    "pack_images",
    "pretrain",
    "read_checkpoint",
]
