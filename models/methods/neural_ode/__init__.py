"""An image is strange where a continuous flow, trained to turn normal images into noise, finds little density.

Chen, Rubanova, Bettencourt, Duvenaud 2018, "Neural Ordinary Differential Equations", arXiv:1806.07366: a network gives
the velocity of every point, and the density changes along a path by the divergence alone.
"""

from models.methods.neural_ode.method import FittedNeuralODE, NeuralODE, NeuralODEParams

METHOD = NeuralODE

__all__ = ["METHOD", "FittedNeuralODE", "NeuralODE", "NeuralODEParams"]
