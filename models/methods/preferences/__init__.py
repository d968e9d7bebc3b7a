"""What people find more anomalous of two images becomes a score: an ensemble of rewards learnt from comparisons.

Christiano, Leike, Brown, Martic, Legg, Amodei 2017, "Deep Reinforcement Learning from Human Preferences",
arXiv:1706.03741: rewards on bootstraps of the answers, standardised and averaged; asked next is what they disagree on.
"""

from models.methods.preferences.maths import answer_loss, disagreements, left_shares, left_stranger, most_telling
from models.methods.preferences.method import FittedPreferences, Preferences, PreferencesParams
from models.methods.preferences.rewards import Rewards

METHOD = Preferences

__all__ = [
    "METHOD",
    "FittedPreferences",
    "Preferences",
    "PreferencesParams",
    "Rewards",
    "answer_loss",
    "disagreements",
    "left_shares",
    "left_stranger",
    "most_telling",
]
