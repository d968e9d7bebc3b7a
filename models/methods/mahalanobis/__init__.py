"""An image is as strange as it is far from the mean of the normal images, in units of their own spread.

Rippel, Mertens, Merhof 2020, "Modeling the Distribution of Normal Data in Pre-Trained Deep Features for Anomaly
Detection", arXiv:2005.14140: one Gaussian over the features of a frozen network, its covariance shrunk.
"""

from models.methods.mahalanobis.method import Mahalanobis

METHOD = Mahalanobis

__all__ = ["METHOD"]
