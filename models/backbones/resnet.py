"""Records of the ResNet family as torchvision builds it.

The weights named are the first edition (IMAGENET1K_V1), the one the papers implemented here measured with.
The second edition was tuned for ImageNet accuracy and gives other vectors.
"""

from collections.abc import Mapping
from types import MappingProxyType

from models.backbones.record import BackboneRecord

_BASIC = (64, 128, 256, 512)
_BOTTLENECK = (256, 512, 1024, 2048)

_RECORDS = (
    BackboneRecord("resnet18", (2, 2, 2, 2), _BASIC, "resnet18-f37072fd.pth"),
    BackboneRecord("resnet34", (3, 4, 6, 3), _BASIC, "resnet34-b627a593.pth"),
    BackboneRecord("resnet50", (3, 4, 6, 3), _BOTTLENECK, "resnet50-0676ba61.pth"),
    BackboneRecord("resnet101", (3, 4, 23, 3), _BOTTLENECK, "resnet101-63fe2227.pth"),
    BackboneRecord("resnet152", (3, 8, 36, 3), _BOTTLENECK, "resnet152-394f9c45.pth"),
    BackboneRecord("wide_resnet50_2", (3, 4, 6, 3), _BOTTLENECK, "wide_resnet50_2-95faca4d.pth"),
    BackboneRecord("wide_resnet101_2", (3, 4, 23, 3), _BOTTLENECK, "wide_resnet101_2-32ee1156.pth"),
    BackboneRecord("resnext50_32x4d", (3, 4, 6, 3), _BOTTLENECK, "resnext50_32x4d-7cdf4587.pth"),
    BackboneRecord("resnext101_32x8d", (3, 4, 23, 3), _BOTTLENECK, "resnext101_32x8d-8ba56ff5.pth"),
    BackboneRecord("resnext101_64x4d", (3, 4, 23, 3), _BOTTLENECK, "resnext101_64x4d-173b62eb.pth"),
)

BACKBONES: Mapping[str, BackboneRecord] = MappingProxyType({record.name: record for record in _RECORDS})
