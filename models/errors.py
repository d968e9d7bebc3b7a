"""Everything `models` refuses, as one tree.

ModelsError
    InputError                  what was sent cannot be used; sending it again changes nothing
        ImageUnreadable             the bytes are not an image this service reads
        ImageTooLarge               bytes, pixels, side or frames above the limit
        ImageCrashed                decoding it ends the process that does it
        ImageTooSlow                decoding it takes longer than the limit
        ParameterInvalid            a parameter is out of its range, or two of them contradict each other
        SetSizeMismatch             a set of images is empty, or not of the size it was registered with
    StateError                  the request is sound, what is stored does not allow it yet
        BankTooSmall                fewer reference images than the method needs
        MethodUnknown               no method of that name is installed
        NothingToCompare            no stored image is left to compare with
        FitRefused                  the method cannot learn from what the collection holds
        LibraryMissing              an optional library is not installed; the message names the extra that brings it
    StateDamaged                the stored state of a fitted scorer is not what was stored
    WeightsError                the backbone cannot be loaded as named
        WeightsMissing              the file is not there; the message names the command that brings it
        WeightsDamaged              the file is there, its contents are not what they should be
        FingerprintMismatch         vectors of two different embeddings would be mixed
        EngineUnusable              no engine can run the backbone here as the settings ask
        RuntimeMismatch             stored vectors were computed so that none computed here can be compared with them
    CatalogueError              a method is not what its folder promises; the service does not start
        CardInvalid                 `card.toml` lacks a field, has an unknown one, or names another folder
        MethodNameTaken             two methods carry one name
        MethodIncomplete            the code does not export the method that the card describes
    Momentary                   the same request may succeed a moment later
        QueueFull                   more images wait for the network than the queue holds
        DeadlinePassed              the answer would come after the caller stopped waiting
        DecoderUnavailable          no process for decoding can be started

No class knows an HTTP status: one table in the service does. Every message is a sentence for a stranger:
"`what` of whom must be what; got what."
"""


class ModelsError(Exception):
    """Root of everything this package refuses."""


class InputError(ModelsError):
    """What was sent cannot be used; sending it again changes nothing."""


class ImageUnreadable(InputError):
    """The bytes are not an image this service reads."""


class ImageTooLarge(InputError):
    """Bytes, pixels, a side or the frames of an image are above the limit."""


class ImageCrashed(InputError):
    """Decoding the image ends the process that does it, at the second try too, or has it answer what no picture is."""


class ImageTooSlow(InputError):
    """Decoding the image takes longer than the limit."""


class ParameterInvalid(InputError):
    """A parameter is out of its range, or two of them contradict each other."""


class SetSizeMismatch(InputError):
    """A set of images is empty, or not of the size it was registered with."""


class StateError(ModelsError):
    """The request is sound, but what is stored does not allow it yet."""


class BankTooSmall(StateError):
    """Fewer reference images are stored than the method needs."""


class MethodUnknown(StateError):
    """No method of that name is installed."""


class NothingToCompare(StateError):
    """No stored image is left to compare with."""


class FitRefused(StateError):
    """The method cannot learn from what the collection holds; the sentence says what it needs."""


class LibraryMissing(StateError):
    """An optional library is not installed; the sentence names the extra that brings it."""


class StateDamaged(ModelsError):
    """The stored state of a fitted scorer is not what was stored; fitting again makes a new one."""


class WeightsError(ModelsError):
    """The backbone cannot be loaded as named."""


class WeightsMissing(WeightsError):
    """The weights file is not there; the message names the command that brings it."""


class WeightsDamaged(WeightsError):
    """The weights file is there, but its contents are not what they should be."""


class FingerprintMismatch(WeightsError):
    """Vectors of two different embeddings would be mixed."""


class EngineUnusable(WeightsError):
    """An engine cannot run the backbone here as asked."""


class RuntimeMismatch(WeightsError):
    """Stored vectors were computed so that none computed here can be compared with them."""


class CatalogueError(ModelsError):
    """A method is not what its folder promises."""


class CardInvalid(CatalogueError):
    """A `card.toml` lacks a field, has an unknown one, or names another folder."""


class MethodNameTaken(CatalogueError):
    """Two methods carry one name."""


class MethodIncomplete(CatalogueError):
    """The code does not export the method that the card describes."""


class Momentary(ModelsError):
    """The same request may succeed a moment later."""


class QueueFull(Momentary):
    """More images wait for the network than the queue holds."""


class DeadlinePassed(Momentary):
    """The answer would come after the caller stopped waiting."""


class DecoderUnavailable(Momentary):
    """No process for decoding can be started at the moment."""
